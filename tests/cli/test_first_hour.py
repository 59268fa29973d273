"""What someone trips over who runs this for the first time."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding import EmbeddedServing, FileStorage, PhraseGrounder
from dataflow_grounding._util.errors import NothingDone, PlanError, RecordError
from dataflow_grounding.testing import CannedAnswers, LoopbackServer, faults, on
from tests.support.workplace import REPOSITORY, Done, Workplace, caption, command


def told(place: Workplace, *arguments: str, **settings: Any) -> Done:
    """`generate` as people run it: without `--json`."""
    line = [part for part in place.arguments(*arguments, **settings) if part != "--json"]
    return command(line)


# --- operators in a script


def test_input_key_alone_does_not_say_which_of_several_columns_it_names(tmp_path: Path) -> None:
    grounder = PhraseGrounder(EmbeddedServing())
    with pytest.raises(PlanError, match="input_image_key or input_expressions_key"):
        grounder({"picture": "a.jpg", "expressions": ["a cat"]}, input_key="picture")


def test_a_script_whose_rows_all_fail_does_not_end_as_if_it_had_worked(tmp_path: Path) -> None:
    rows = [{"image_path": f"gone{n}.jpg", "expressions": ["a cat"]} for n in range(3)]
    grounder = PhraseGrounder(EmbeddedServing())
    with pytest.raises(RecordError, match=r"all 3 rows failed\. Row 0: no image 'gone0.jpg'"):
        grounder(rows)
    assert len(grounder(rows, on_error="keep")) == 3
    assert len(grounder([])) == 0
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    storage = FileStorage(str(tmp_path / "in.jsonl"), str(tmp_path / "cache"), "x")
    with pytest.raises(NothingDone, match=r"all 3 rows failed in .*failures\.jsonl says why"):
        grounder.run(storage.step())


# --- paths


def test_a_path_with_backslashes_that_is_there_with_slashes(workplace: Workplace) -> None:
    workplace.picture("pictures/a.jpg")
    workplace.rows(
        [
            {"image_path": "pictures\\a.jpg", "caption": caption(0)},
            {"image_path": "pictures\\gone.jpg", "caption": caption(1)},
        ]
    )
    done = command(["check", "-e", str(workplace.spec(**{"vlm.backend": "embedded"}))])
    assert r"no image 'pictures\a.jpg', but 'pictures/a.jpg': write / for \ in its path" in done.err
    assert r"no image 'pictures\gone.jpg': No such file" in done.err


# --- advice, and how a run ends


def test_advice_after_a_run_is_of_what_can_help(workplace: Workplace) -> None:
    workplace.many(3)
    with LoopbackServer() as server:
        base = {"vlm.openai.base_url": server.base_url}
        done = told(workplace, **base)
        assert "cost" in done.err
        assert "eval" in done.err
        assert "failures.jsonl" not in done.err
        workplace.rows([{"image_path": "a.jpg", "caption": 7}])
        done = told(workplace, **base, **{"data.image_root": str(workplace.folder)})
        assert "see in failures.jsonl why records failed" in done.err
        assert "--retry-failed" not in done.err  # the row is wrong: nothing would be asked
        assert " cost " not in done.err
    with LoopbackServer(faults=on(faults.refusal())) as server:
        workplace.many(9)
        done = told(workplace, **{"vlm.openai.base_url": server.base_url})
        assert "--retry-failed asks again about refused" in done.err


def test_what_the_same_command_does_not_try_again_is_told_with_the_option_that_does(
    workplace: Workplace,
) -> None:
    workplace.picture("a.jpg")
    rows = [{"image_path": "a.jpg", "caption": caption(n)} for n in range(3)]
    workplace.rows([*rows, {"image_path": "gone.jpg", "caption": caption(3)}])
    with LoopbackServer(CannedAnswers("I see many nice things.")) as server:
        settings = {"vlm.openai.base_url": server.base_url, "workflow.max_attempts": 1}
        done = told(workplace, **settings)
        sent = server.count()
        [line] = [line for line in done.err.splitlines() if "next: see in failures" in line]
        assert "the same command tries again what may pass; " in line
        assert line.endswith("; only --retry-failed asks again about unreadable_reply")
        told(workplace, **settings)
        assert server.count() == sent
        told(workplace, "--retry-failed", **settings)
        assert server.count() > sent


def test_a_summary_shows_boxes_in_the_order_of_expressions_and_says_how_many_it_leaves_out(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.picture()
    captions = ["zebra apple", *map(caption, range(9))]
    workplace.rows([{"image_path": "a.jpg", "caption": text} for text in captions])
    done = told(workplace, **{"vlm.openai.base_url": server.base_url})
    first, *_ = records = workplace.annotations()
    texts = [expression["text"] for expression in first["expressions"]]
    assert len(texts) > 1
    assert sorted(texts) != texts
    places = [done.err.index(text) for text in texts]
    assert places == sorted(places)
    statuses = [row["status"] for record in records for row in record["expressions"]]
    grounded = statuses.count("grounded")
    assert grounded > 5
    assert f"… and {grounded - 5} more with boxes" in done.err


def test_a_pilots_advice_names_settings_that_its_backend_has(workplace: Workplace) -> None:
    workplace.many(3)
    own = told(workplace, "--pilot", "1", **{"vlm.backend": "embedded", "vlm.box_format": "auto"})
    assert own.code == 0, own
    assert "vision-language model" in own.err
    assert "max_tokens" not in own.err + own.out
    assert "--set-from" not in own.err


@pytest.mark.parametrize(("limit", "code"), [("", 1), ("2", 0), ("1", 1), ("40%", 0), ("39%", 1)])
def test_so_many_failed_records_are_no_failure_of_a_script(
    workplace: Workplace, server: LoopbackServer, limit: str, code: int
) -> None:
    workplace.picture()
    rows = [{"image_path": "a.jpg", "caption": caption(n)} for n in range(3)]
    workplace.rows([*rows, {"image_path": "gone.jpg", "caption": "x"}, {"image_path": "a.jpg"}])
    arguments = ["--max-failed", limit] if limit else []
    done = workplace.run(*arguments, **{"vlm.openai.base_url": server.base_url})
    assert (done.code, done.summary["failed"]) == (code, 2), done


def test_a_limit_that_is_none_is_refused(workplace: Workplace) -> None:
    workplace.many(1)
    for limit in ("-1", "101%", "many", "%", "1.5"):
        assert workplace.run(f"--max-failed={limit}").code == 2, limit


def test_where_nothing_was_done_no_limit_makes_it_a_success(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.rows([{"image_path": "gone.jpg", "caption": "x"}])
    done = workplace.run("--max-failed", "9", **{"vlm.openai.base_url": server.base_url})
    assert (done.code, server.count()) == (4, 0), done
    assert not (workplace.results / "annotations.jsonl").exists()


# --- keys, columns and paths that a newcomer gets wrong


def test_a_server_that_is_not_asked_needs_no_variables(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DF_BASE_URL", raising=False)
    workplace.picture("a.jpg")
    workplace.rows([{"image_path": "a.jpg", "caption": caption(0)}])
    path = workplace.spec(
        **{"vlm.backend": "openai", "vlm.openai.base_url": "${oc.env:DF_BASE_URL}"}
    )
    pipeline = yaml.safe_load(path.read_text())["autolabel_type"]
    refused = command(["check", "-e", str(path)])
    assert refused.code == 2
    assert "openai.base_url takes the variable DF_BASE_URL, which is not set" in refused.err
    done = command(["check", "-e", str(path), f"{pipeline}.vlm.backend=embedded"])
    assert (done.code, "DF_BASE_URL" in done.err) == (0, False), done


def test_a_column_named_by_our_name_for_it(workplace: Workplace) -> None:
    workplace.picture("a.jpg")
    workplace.rows([{"file": "a.jpg", "caption": caption(0)}])
    settings = {"vlm.backend": "embedded", "data.columns": {"image_path": "file"}}
    done = command(["check", "-e", str(workplace.spec(**settings))])
    assert "image_path is not one of image, caption, image_id" in done.err, done
    assert "write image, whose column is image_path" in done.err


@pytest.mark.parametrize(
    ("setting", "task"),
    [("check", "box_check"), ("fuse", "caption_grounding"), ("negatives", "negative_phrases")],
)
def test_a_step_that_the_serving_cannot_answer_is_refused(
    workplace: Workplace, setting: str, task: str
) -> None:
    workplace.many(2)
    value = 1 if setting == "negatives" else True
    spec = str(workplace.spec(**{"vlm.backend": "embedded", f"workflow.{setting}": value}))
    for name in ("check", "generate"):
        done = command([name, "-e", spec])
        assert done.code == 2
        assert f"asks {task}, which embedded-opencv can't answer" in done.err


def test_a_run_that_fails_says_why_at_once(workplace: Workplace) -> None:
    rows = [{"image_path": f"gone{n}.jpg", "caption": caption(n)} for n in range(3)]
    workplace.rows(rows)
    done = told(workplace, **{"vlm.backend": "embedded"})
    assert done.code == 4
    assert "no results were written" in done.err
    assert "results:" not in done.err
    lines = done.err.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("failures: 3 image_missing"))
    assert "no image 'gone0.jpg': No such file" in lines[place + 1], done.err


def test_classes_in_a_format_of_captions_are_told_where_to_go(tmp_path: Path) -> None:
    record = {
        "image_path": str(REPOSITORY / "example_data/images/raccoon.jpg"),
        "expressions": [
            {
                "text": "raccoon",
                "status": "grounded",
                "instances": [{"bbox": [10, 10, 200, 200]}],
            }
        ],
    }
    (tmp_path / "annotations.jsonl").write_text(json.dumps(record) + "\n")
    done = command(["export", str(tmp_path), "--format", "odvg-mmdet", "-o", str(tmp_path / "out")])
    assert done.code == 2, done
    assert "classes and phrases of no caption go into label-studio, labelme, " in done.err
    assert "yolo" in done.err


# --- what is said of the user's own files


def table(place: Workplace, rows: int, header: str = "file,text", name: str = "win.csv") -> Path:
    """A CSV of captions, whose columns have names of the user's."""
    lines = [f"p{n}.jpg,{caption(n)}" for n in range(rows)]
    path = place.folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def of_table(path: Path, **settings: Any) -> dict[str, Any]:
    """The settings that read such a CSV."""
    columns = {"image": "file", "caption": "text"}
    return {"data.input_jsonl": str(path), "data.columns": columns, **settings}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            b"file,text\np0.jpg,Caf\xe9 au lait\n",
            "line 2: is not UTF-8: save the file as UTF-8 (in Excel: CSV UTF-8)",
        ),
        (b"file,text\n", "it has no rows"),
    ],
)
def test_a_table_without_a_good_row_is_called_by_its_own_name(
    workplace: Workplace, content: bytes, why: str
) -> None:
    path = workplace.folder / "win.csv"
    path.write_bytes(content)
    settings = of_table(path, **{"vlm.openai.base_url": "http://127.0.0.1:9/v1"})
    spec = str(workplace.spec(**settings))
    for words in (["check", "-e", spec], ["generate", "-e", spec]):
        done = command(words)
        assert done.code == 2, done
        assert f"nothing to do in {path}: {why}" in done.err
        assert "input.jsonl" not in done.err


def test_a_missing_picture_is_not_looked_for_among_the_results(workplace: Workplace) -> None:
    path = table(workplace, 1)
    done = command(["check", "-e", str(workplace.spec(**of_table(path)))])
    assert f"(looked in {workplace.folder} and the current folder)" in done.err, done
    assert str(workplace.results) not in done.err


def test_a_picture_of_a_folder_has_no_line(workplace: Workplace) -> None:
    workplace.picture("pics/a.jpg")
    cut = workplace.folder / "pics" / "cut.jpg"
    cut.write_bytes((workplace.folder / "pics" / "a.jpg").read_bytes()[:200])
    settings = {"data.input_jsonl": str(cut.parent), "data.classes": ["a cup"]}
    done = command(["check", "-e", str(workplace.spec(**settings))])
    assert f"Problem: '{cut}' is a broken image: Truncated File Read\n" in done.err, done
    assert "line" not in done.err


def test_the_report_counts_as_the_summary_does(workplace: Workplace) -> None:
    workplace.picture("a.jpg")
    rows = [{"image_path": "a.jpg", "caption": caption(n)} for n in range(3)]
    workplace.rows([*rows, {"image_path": "gone.jpg", "caption": caption(3)}])
    with LoopbackServer() as server:
        spec = workplace.spec(**{"vlm.openai.base_url": server.base_url})
        done = command(["generate", "-e", str(spec), "--no-progress"])
    assert "4 images: 3 done, 1 failed" in done.err
    page = (workplace.results / "report.html").read_text("utf-8")
    for name, count in (("images", 4), ("done", 3), ("failures", 1)):
        assert f"<dt>{name}</dt><dd>{count}</dd>" in page


def test_a_name_in_another_form_of_unicode_is_told(workplace: Workplace) -> None:
    """As where a table comes from one system and the pictures from another."""
    composed, decomposed = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    workplace.picture(decomposed)
    workplace.rows([{"image_path": composed, "caption": "A cup."}])
    done = command(["check", "-e", str(workplace.spec())])
    assert "the same name in Unicode's form NFD: write it in NFD, or rename the file" in done.err

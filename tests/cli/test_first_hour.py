"""What someone trips over who runs this for the first time."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import EmbeddedServing, FileStorage, PhraseGrounder
from dataflow_grounding._util.errors import NothingDone, PlanError, RecordError
from dataflow_grounding.testing import CannedAnswers, LoopbackServer, on
from tests.support import faults
from tests.support.workplace import REPOSITORY, Done, Workplace, caption, command


def told(place: Workplace, *arguments: str, **settings: Any) -> Done:
    """`generate` as people run it: without `--json`."""
    line = [part for part in place.arguments(*arguments, **settings) if part != "--json"]
    return command(line)


EMBEDDED = {"vlm.backend": "embedded", "vlm.box_format": "auto"}
GONE = {"image_path": "gone.jpg", "caption": "x"}


def few(place: Workplace, *more: dict[str, Any]) -> None:
    """Three rows of a picture, and those that are given."""
    name = place.picture()
    rows = [{"image_path": name, "caption": caption(n)} for n in range(3)]
    place.rows([*rows, *more])


# --- operators in a script


def test_input_key_alone_does_not_say_which_of_several_columns_it_names() -> None:
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
    names = ["pictures\\a.jpg", "pictures\\gone.jpg"]
    workplace.rows({"image_path": name, "caption": "A cup"} for name in names)
    done = workplace.check(**EMBEDDED)
    assert r"no image 'pictures\a.jpg', but 'pictures/a.jpg': write / for \ in its path" in done.err
    assert r"no image 'pictures\gone.jpg': No such file" in done.err


# --- advice, and how a run ends


def test_advice_after_a_run_is_of_what_can_help(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(3)
    done = told(workplace)
    assert "cost" in done.err
    assert "eval" in done.err
    assert "failures.jsonl" not in done.err
    workplace.rows([{"image_path": "a.jpg", "caption": 7}])
    done = told(workplace, **{"data.image_root": str(workplace.folder)})
    assert "see in failures.jsonl why records failed" in done.err
    assert "--retry-failed" not in done.err  # the row is wrong: nothing would be asked
    assert " cost " not in done.err
    server.faults = on(faults.refusal())
    workplace.many(9)
    assert "--retry-failed asks again about refused" in told(workplace).err


def test_what_the_same_command_does_not_try_again_is_told_with_the_option_that_does(
    workplace: Workplace, server: LoopbackServer
) -> None:
    few(workplace, GONE)
    server.answers = CannedAnswers("I see many nice things.")
    workplace.settings["workflow.max_attempts"] = 1
    done = told(workplace)
    sent = server.count()
    [line] = [line for line in done.err.splitlines() if "next: see in failures" in line]
    assert "the same command tries again what may pass; " in line
    assert line.endswith("; only --retry-failed asks again about unreadable_reply")
    told(workplace)
    assert server.count() == sent
    told(workplace, "--retry-failed")
    assert server.count() > sent


def test_a_summary_shows_boxes_in_the_order_of_expressions_and_says_how_many_it_leaves_out(
    workplace: Workplace,
) -> None:
    workplace.picture()
    captions = ["zebra apple", *map(caption, range(9))]
    workplace.rows([{"image_path": "a.jpg", "caption": text} for text in captions])
    done = told(workplace)
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
    own = told(workplace, "--pilot", "1", **EMBEDDED)
    assert own.code == 0, own
    assert "vision-language model" in own.err
    assert "max_tokens" not in own.err + own.out


# --- keys, columns and paths that a newcomer gets wrong


def test_a_server_that_is_not_asked_needs_no_variables(workplace: Workplace) -> None:
    workplace.many(1)
    path = str(workplace.spec(**{"vlm.openai.base_url": "${oc.env:DF_BASE_URL}"}))
    refused = command(["check", "-e", path])
    assert refused.code == 2
    assert "openai.base_url takes the variable DF_BASE_URL, which is not set" in refused.err
    done = command(["check", "-e", path, "image_grounding.vlm.backend=embedded"])
    assert (done.code, "DF_BASE_URL" in done.err) == (0, False), done


def test_a_column_named_by_our_name_for_it(workplace: Workplace) -> None:
    workplace.rows([{"file": workplace.picture("a.jpg"), "caption": caption(0)}])
    done = workplace.check(**{"data.columns": {"image_path": "file"}})
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
    workplace.settings[f"workflow.{setting}"] = 1 if setting == "negatives" else True
    for done in (workplace.check(**EMBEDDED), told(workplace, **EMBEDDED)):
        assert done.code == 2
        assert f"asks {task}, which embedded-opencv can't answer" in done.err


def test_a_run_that_fails_says_why_at_once(workplace: Workplace) -> None:
    workplace.rows([{"image_path": f"gone{n}.jpg", "caption": caption(n)} for n in range(3)])
    done = told(workplace, **EMBEDDED)
    assert done.code == 4
    assert "no results were written" in done.err
    assert "results:" not in done.err
    lines = done.err.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("failures: 3 image_missing"))
    assert "no image 'gone0.jpg': No such file" in lines[place + 1], done.err


def test_classes_in_a_format_of_captions_are_told_where_to_go(tmp_path: Path) -> None:
    boxes = {"status": "grounded", "instances": [{"bbox": [10, 10, 200, 200]}]}
    record = {
        "image_path": str(REPOSITORY / "example_data/images/raccoon.jpg"),
        "expressions": [{"text": "raccoon", **boxes}],
    }
    (tmp_path / "annotations.jsonl").write_text(json.dumps(record) + "\n")
    done = command(["export", str(tmp_path), "--format", "odvg-mmdet", "-o", str(tmp_path / "out")])
    assert done.code == 2, done
    assert "classes and phrases of no caption go into label-studio, cvat, labelme, " in done.err
    assert "yolo" in done.err


# --- what is said of the user's own files


def table(place: Workplace, content: bytes) -> dict[str, Any]:
    """The settings that read a CSV of captions whose columns have names of the user's."""
    path = place.folder / "win.csv"
    path.write_bytes(b"file,text\n" + content)
    columns = {"image": "file", "caption": "text"}
    return {"data.input_jsonl": str(path), "data.columns": columns}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            b"p0.jpg,Caf\xe9 au lait\n",
            "line 2: is not UTF-8: save the file as UTF-8 (in Excel: CSV UTF-8)",
        ),
        (b"", "it has no rows"),
    ],
)
def test_a_table_without_a_good_row_is_called_by_its_own_name(
    workplace: Workplace, content: bytes, why: str
) -> None:
    spec = str(workplace.spec(**table(workplace, content)))
    for name in ("check", "generate"):
        done = command([name, "-e", spec])
        assert done.code == 2, done
        assert f"nothing to do in {workplace.folder}/win.csv: {why}" in done.err
        assert "input.jsonl" not in done.err


def test_a_missing_picture_is_not_looked_for_among_the_results(workplace: Workplace) -> None:
    done = workplace.check(**table(workplace, b"p0.jpg,A cup\n"))
    assert f"(looked in {workplace.folder} and the current folder)" in done.err, done
    assert str(workplace.results) not in done.err


def test_a_picture_of_a_folder_has_no_line(workplace: Workplace) -> None:
    whole = workplace.folder / workplace.picture("pics/a.jpg")
    cut = whole.with_name("cut.jpg")
    cut.write_bytes(whole.read_bytes()[:200])
    done = workplace.check(**{"data.input_jsonl": str(cut.parent), "data.classes": ["a cup"]})
    assert f"Problem: '{cut}' is a broken image: Truncated File Read\n" in done.err, done
    assert "line" not in done.err


def test_the_report_counts_pictures_as_the_summary_does_rows(workplace: Workplace) -> None:
    names = [workplace.picture(name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    rows = [{"image_path": name, "caption": caption(n)} for n, name in enumerate(names)]
    workplace.rows([*rows, GONE])
    done = command(["generate", "-e", str(workplace.spec()), "--no-progress"])
    assert "4 images: 3 done, 1 failed" in done.err
    page = (workplace.results / "report.html").read_text("utf-8")
    for name, count in (("images", 4), ("done", 3), ("failures", 1)):
        assert f"<dt>{name}</dt><dd>{count}</dd>" in page


def test_a_name_in_another_form_of_unicode_is_told(workplace: Workplace) -> None:
    """As where a table comes from one system and the pictures from another."""
    composed, decomposed = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    workplace.picture(decomposed)
    workplace.rows([{"image_path": composed, "caption": "A cup."}])
    told = "the same name in Unicode's form NFD: write it in NFD, or rename the file"
    assert told in workplace.check().err

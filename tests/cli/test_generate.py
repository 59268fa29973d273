"""`generate` against a loopback endpoint that knows the gold: what a user gets for captions and
pictures.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import CaptionGenerator, EmbeddedServing
from dataflow_grounding.data.dataframes import to_dataframe
from dataflow_grounding.testing import LoopbackServer, faults, on
from tests.support.stand_ins.gold import GoldAnswers
from tests.support.workplace import Workplace, caption, command, ended, interpreter

KEY = "sk-7f3a-very-secret-key"


@pytest.fixture
def workplace(tmp_path: Path, server: LoopbackServer) -> Workplace:
    """An empty folder whose runs ask an endpoint that answers every task."""
    return Workplace(tmp_path / "work", server.base_url)


def gold_of(
    image_path: str, caption: str, boxes: dict[str, list[list[int]]], size: tuple[int, int]
) -> dict[str, Any]:
    expressions = [
        {"text": text, "instances": [{"bbox": bbox} for bbox in found]}
        for text, found in boxes.items()
    ]
    row = {"image_path": image_path, "caption": caption, "width": size[0], "height": size[1]}
    return {**row, "expressions": expressions}


def boxes_of(record: dict[str, Any]) -> dict[str, list[list[int]]]:
    return {e["text"]: [i["bbox"] for i in e["instances"]] for e in record["expressions"]}


def inputs_of(gold: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"image_path": record["image_path"], "caption": record["caption"]} for record in gold]


# --- boxes, spans, ids


def test_boxes_in_a_scale_of_any_number(workplace: Workplace, server: LoopbackServer) -> None:
    box_format = "yxyx_2048"
    workplace.picture("a.jpg", (640, 400))
    boxes = {"red mug": [[10, 20, 130, 220]], "table": [[0, 200, 640, 400]]}
    gold = [gold_of("a.jpg", "A red mug on a table.", boxes, (640, 400))]
    workplace.rows(inputs_of(gold))
    server.answers = GoldAnswers(gold, image_root=workplace.folder, box_format=box_format)
    done = workplace.run(**{"vlm.box_format": box_format, "vlm.check_every": 1})
    assert done.code == 0, done
    asked = [request.text for request in server.requests if request.task == "phrase_grounding"]
    assert "from 0 to 2048:" in asked[-1]
    assert done.summary["probes"] > 0
    [record] = workplace.annotations()
    for text, [bbox] in boxes.items():
        [found] = boxes_of(record)[text]
        assert all(abs(a - b) <= 1 for a, b in zip(found, bbox, strict=True))
    assert workplace.run_json()["box_format"]["name"] == box_format


def test_a_scale_that_is_not_a_whole_number_is_refused(workplace: Workplace) -> None:
    workplace.many(1)
    workplace.settings["vlm.openai.base_url"] = "http://127.0.0.1:9/v1"
    for box_format in ("xyxy_0", "xyxy_05", "xyxy_1.5", "xyxy_1000000", "xyxz_512", "512"):
        done = workplace.run(**{"vlm.box_format": box_format})
        assert (done.code, done.err.count("\n")) == (2, 1), done
        assert f"unknown vlm.box_format '{box_format}'" in done.err
        assert "xyxy, yxyx, xywh, cxcywh with px or a whole number" in done.err


def test_boxes_are_the_golds_in_the_upright_image(
    workplace: Workplace, server: LoopbackServer
) -> None:
    gold = []
    for orientation in range(1, 9):
        name = workplace.picture(f"photos/{orientation}.jpg", (640, 400), orientation)
        upright = (400, 640) if orientation >= 5 else (640, 400)
        boxes = {
            "red mug": [[10, 20, 130, 220]],
            "table": [[0, 200, upright[0], upright[1]], [3, 4, 50, 60]],
        }
        gold.append(gold_of(name, f"A red mug on a table, {orientation}.", boxes, upright))
    workplace.rows(inputs_of(gold))
    server.answers = GoldAnswers(gold, image_root=workplace.folder)
    done = workplace.run()
    assert done.code == 0, done
    assert {image.orientation for request in server.requests for image in request.images} == {1}
    sizes = Counter(size for request in server.requests for size in request.image_sizes)
    assert sizes == {(640, 400): 2 * 4, (400, 640): 2 * 4}  # two requests about each picture
    for record, right in zip(workplace.annotations(), gold, strict=True):
        assert (record["width"], record["height"]) == (right["width"], right["height"])
        for text, expected in boxes_of(right).items():
            found = boxes_of(record)[text]
            assert len(found) == len(expected)
            for got, wanted in zip(found, expected, strict=True):
                assert all(abs(a - b) <= 1 for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("box_format", ["xywh_px", "qwen2.5-vl"])
def test_a_picture_that_is_reduced_gives_boxes_of_the_file(
    workplace: Workplace, server: LoopbackServer, box_format: str
) -> None:
    workplace.picture("big.jpg", (4000, 3000))
    gold = [gold_of("big.jpg", "A mug.", {"mug": [[100, 200, 3900, 2900]]}, (4000, 3000))]
    workplace.rows(inputs_of(gold))
    server.answers = GoldAnswers(gold, image_root=workplace.folder, box_format=box_format)
    done = workplace.run(**{"vlm.box_format": box_format})
    assert done.code == 0, done
    assert all(max(size) <= 2048 for request in server.requests for size in request.image_sizes)
    [record] = workplace.annotations()
    assert (record["width"], record["height"]) == (4000, 3000)
    [found] = boxes_of(record)["mug"]
    assert all(abs(a - b) <= 4 for a, b in zip(found, [100, 200, 3900, 2900], strict=True))


# --- what fails alone, what survives


def test_bad_rows_fail_alone_and_are_named(workplace: Workplace, server: LoopbackServer) -> None:
    workplace.picture("good.jpg")
    whole = (workplace.folder / "good.jpg").read_bytes()
    (workplace.folder / "corrupt.jpg").write_bytes(b"\xff\xd8\xff" + whole[len(whole) // 2 :])
    workplace.rows(
        [
            {"image_path": "good.jpg", "caption": "A cup here"},
            {"image_path": "gone.jpg", "caption": "A cup there"},
            {"image_path": "corrupt.jpg", "caption": "A cup anywhere"},
            '{"image_path": "good.jpg", "caption": "broken',
            "[1, 2]",
            {"image_path": "good.jpg"},
            {"image_path": "good.jpg", "caption": "Another table"},
        ]
    )
    done = workplace.run()
    assert server.count() == 4  # two steps of the two good rows
    assert done.code == 1, done
    assert (done.summary["images"], done.summary["done"], done.summary["failed"]) == (7, 2, 5)
    assert [record["caption"] for record in workplace.annotations()] == [
        "A cup here",
        "Another table",
    ]
    failures = workplace.failures()
    assert [(f["line"], f["kind"]) for f in failures] == [
        (2, "image_missing"),
        (3, "image_broken"),
        (4, "broken_row"),
        (5, "broken_row"),
        (6, "broken_row"),
    ]
    assert "gone.jpg" in failures[0]["message"]
    assert "corrupt.jpg" in failures[1]["message"]
    assert "caption" in failures[4]["message"]


@pytest.mark.parametrize("pipe", [False, True], ids=["a file", "a pipe"])
def test_good_rows_are_found_below_any_number_of_broken_ones(
    workplace: Workplace, pipe: bool
) -> None:
    workplace.picture()
    row = {"image_path": "a.jpg", "caption": "A cup here"}
    workplace.rows([*["# a comment"] * 200, row, row])
    path, writer = workplace.input, None
    if pipe:
        path = workplace.folder / "pipe"
        os.mkfifo(path)
        writer = threading.Thread(target=lambda: path.write_bytes(workplace.input.read_bytes()))
        writer.start()
    done = workplace.run(**{"data.input_jsonl": str(path)})
    if writer:
        writer.join()
    assert done.code == 1, done
    assert [record["caption"] for record in workplace.annotations()] == ["A cup here"] * 2
    assert [failure["line"] for failure in workplace.failures()] == list(range(1, 201))


def test_an_input_that_breaks_off_in_the_middle_stops_the_run_with_a_sentence(
    workplace: Workplace,
) -> None:
    workplace.picture()
    rows = [
        {"image_path": "a.jpg", "caption": caption(n), "more": "x" * 100 + str(n)}
        for n in range(200)
    ]
    path = workplace.folder / "rows.parquet"
    to_dataframe(rows).to_parquet(path, row_group_size=40, compression=None)
    whole = path.read_bytes()
    place = whole.index(b"x" * 100 + b"180")
    path.write_bytes(whole[: place - 2000] + b"\xff" * 2000 + whole[place:])
    done = workplace.run(**{"data.input_jsonl": str(path)})
    assert done.code == 130, done
    assert "rows.parquet" in done.err
    assert "run the same command again" in done.err
    assert not list(workplace.results.rglob("annotations.jsonl"))


def test_a_row_with_something_else_for_its_steps_fails_alone(workplace: Workplace) -> None:
    workplace.picture()
    row = {"image_path": "a.jpg", "caption": "A cup here"}
    wrong = ["no", 5, {"step0": 1}, ["step0", 1], True]
    rows = [{**row, "pipeline_steps": steps} for steps in wrong]
    workplace.rows([row, *rows, {**row, "pipeline_steps": ["drawn"]}, row])
    done = workplace.run()
    assert done.code == 1, done
    failures = workplace.failures()
    assert [(f["line"], f["kind"]) for f in failures] == [(n, "broken_row") for n in range(2, 7)]
    for failure in failures:
        assert "'pipeline_steps' should be a list of texts" in failure["message"]
    assert [len(record["pipeline_steps"]) for record in workplace.annotations()] == [2, 3, 2]


def test_columns_of_the_input_survive(workplace: Workplace) -> None:
    extra = {
        "nested": {"a": [1, {"b": None}], "": []},
        "unicode": "日本語 \U0001f600 \u2028 é",
        "big": 123456789012345678901234567890,
        "floats": [0.1, 1e-300, -0.0, 2.5e10],
        "truth": [True, False, None],
        "source_url": "https://example.org/?a=1&b=<2>",
        "half a surrogate": "\ud83d",
    }
    workplace.picture()
    (workplace.input).write_text(
        json.dumps({"image_path": "a.jpg", "caption": "A cup", **extra}) + "\n"
    )
    assert workplace.run().code == 0
    [record] = workplace.annotations()
    assert {name: record[name] for name in extra} == extra
    assert str(record["floats"]) == str(extra["floats"])
    assert list(record)[:2] == ["image_path", "caption"]


# --- steps, spec, overrides


@pytest.mark.parametrize(
    "stream", [pytest.param(False, id="step by step"), pytest.param(True, id="streaming")]
)
def test_step_0_is_kept_when_no_record_gets_through_step_1(
    workplace: Workplace, server: LoopbackServer, stream: bool
) -> None:
    workplace.many(4)
    rule = on(faults.content_filter(), task="phrase_grounding")
    server.faults = [rule]
    done = workplace.run(**{"workflow.stream": stream})
    assert done.code == 4, done
    files = workplace.files()
    assert files.step_0 is not None
    assert files.step_0.count(b"\n") == 4
    assert {(f["id"], f["step"], f["kind"]) for f in workplace.failures()} == {
        (f"r{n}", "step1_grounding", "refused") for n in range(4)
    }


WRONG = [
    (
        ["image_grounding.vlm.opanai.model_name=x"],
        "opanai is not a key of the spec; is it 'openai'?",
    ),
    (
        ["image_grounding.workflow.max_worker=3"],
        "max_worker is not a key of the spec; is it 'max_workers'?",
    ),
    (["image_grounding.workflow.steps=[2]"], "workflow.steps"),
    (["image_grounding.vlm.box_format=xyzw"], "xyzw"),
    (["image_grounding.vlm.box_format=calibrated"], "run dataflowgrounding calibrate first"),
    (["image_grounding.vlm.openai.model_name="], "model_name"),
    (["image_grounding.vlm.openai.base_url=localhost:8000"], "http://"),
    (["image_grounding.vlm.openai.base_url=http://[bad/v1"], "base_url"),
    (["image_grounding.vlm.openai.base_url=http://host:port/v1"], "base_url"),
    (["image_grounding.vlm.openai.base_url=http://me:secret-word@host/v1"], "api_key"),
    (["image_grounding.vlm.openai.base_url=http://host/v1?key=secret-word"], "api_key"),
    (["image_grounding.data.input_jsonl=/nowhere/x.jsonl"], "/nowhere/x.jsonl"),
    (["image_grounding.workflow.budget_usd=1"], "vlm.prices"),
    (["no equals sign"], "key=value"),
    (["--pilot", "0"], "--pilot"),
    (["--pilot", "9" * 20], "--pilot"),
]


def test_what_is_wrong_is_found_before_the_first_request(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(2)
    for arguments, expected in WRONG:
        done = workplace.run(*arguments)
        assert (done.code, server.count()) == (2, 0), (arguments, done)
        assert expected in done.err
        assert len(done.err.strip().splitlines()) <= 4
        assert "secret-word" not in done.err
        assert "Traceback" not in done.err


def test_a_value_that_must_be_given_is_asked_for(workplace: Workplace) -> None:
    done = workplace.run(**{"data.input_jsonl": "???", "vlm.openai.model_name": "???"})
    assert done.code == 2
    for key in ("image_grounding.data.input_jsonl", "image_grounding.vlm.openai.model_name"):
        assert f"{key} is '???': give it a value" in done.err


def test_paths_of_a_spec_are_its_folders_and_paths_of_overrides_the_current_folders(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.many(1)
    elsewhere = tmp_path / "else where é"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = {"data.input_jsonl": "captions.jsonl"}
    done = workplace.run("results_dir=out put/ñ", **settings)
    assert done.code == 0, done
    assert (elsewhere / "out put" / "ñ" / "annotations.jsonl").exists()


def test_an_input_that_the_run_would_overwrite_is_refused(workplace: Workplace) -> None:
    workplace.many(2)
    for name in (
        "annotations.jsonl",
        "failures.jsonl",
        "step_0_expression_extraction/annotations.jsonl",
        "run.json",
    ):
        given, workplace.input = workplace.input, workplace.folder / name
        workplace.input.parent.mkdir(exist_ok=True)
        os.rename(given, workplace.input)
        before = workplace.input.read_bytes()
        settings = {"vlm.openai.base_url": "http://127.0.0.1:9/v1"}
        done = workplace.run(f"results_dir={workplace.folder}", **settings)
        assert done.code == 2, done
        assert "would overwrite its input" in done.err
        assert workplace.input.read_bytes() == before


# --- exit codes


EXITS = [
    ("all records done", None, 0),
    ("some records failed", on(faults.content_filter(), containing="Cup 1 "), 1),
    ("no record succeeded", on(faults.content_filter()), 4),
    ("the key is refused", on(faults.unauthorized()), 4),
    ("the key is refused in the middle", on(faults.unauthorized(), indexes=range(12, 1000)), 4),
    ("the model is unknown", on(faults.model_not_found()), 4),
    ("the account is empty", on(faults.quota_exceeded()), 3),
]


@pytest.mark.parametrize(
    ("name", "rule", "code"), [pytest.param(*case, id=case[0]) for case in EXITS]
)
def test_exit_codes(
    workplace: Workplace, server: LoopbackServer, name: str, rule: Any, code: int
) -> None:
    workplace.many(16)
    server.faults = [rule] if rule else ()
    done = workplace.run()
    if "stopped" in done.summary and "middle" not in name:
        # ten of a content filter, what is in flight then, and a plain question
        most = 10 + 8 + 1 if name == "no record succeeded" else 8
        assert server.count() <= most, "stops within a few requests"
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert all(len(line) < 700 for line in done.err.splitlines())


def test_the_api_key_is_in_no_output_and_no_file(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(14)
    rules = [
        on(faults.bad_request("no"), containing="Cup 1 "),
        on(faults.server_error(500), containing="Cup 2 "),
        on(faults.too_many_requests(0.01), times=5),
        on(faults.unauthorized(), indexes=range(18, 1000)),
    ]
    said = ""
    server.faults = rules
    server.leaky = True
    server.key = KEY
    settings = {"vlm.openai.api_key": KEY}
    for arguments in ([], ["image_grounding.workflow.max_requests=6"], ["--dry-run"]):
        done = workplace.run(*arguments, **settings)
        said += done.out + done.err
    server.faults = rules[:3]
    done = workplace.run(**settings)
    assert done.code == 1, done
    said += done.out + done.err
    wrong = workplace.run(
        **{**settings, "vlm.openai.api_key": KEY + "x", "workflow.force_reprocess": True}
    )
    assert wrong.code == 4
    said += wrong.out + wrong.err + command(["check", "-e", str(workplace.spec(**settings))]).out
    assert KEY not in said
    assert "***" in said, "the server did repeat it"
    for path, content in workplace.everything():
        assert KEY.encode() not in content, path


# --- plans, pilots, habits


def test_a_dry_run_sends_nothing_and_writes_nothing(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(3)
    done = workplace.run("--dry-run")
    assert server.count() == 0
    assert done.code == 0
    assert [step["step"] for step in done.summary["steps"]] == [
        "step0_expression_extraction",
        "step1_grounding",
    ]
    assert not workplace.results.exists()


def test_it_runs_without_a_terminal_and_puts_data_on_stdout_alone(workplace: Workplace) -> None:
    workplace.many(2)
    arguments = workplace.arguments()
    env = {"LC_ALL": "C", "HOME": "/nonexistent", "PYTHONIOENCODING": "ascii"}
    running = interpreter(
        [*arguments[:4], "results_dir=é ü"], env=env, cwd=workplace.folder, stdin=-3
    )
    done = ended(running)
    assert done.code == 0, done
    assert done.summary["done"] == 2
    assert os.listdir(workplace.folder / "é ü")


@pytest.mark.slow
def test_ids_of_pictures_anywhere_are_the_same_on_every_machine(tmp_path: Path) -> None:
    """Absolute paths within the input's folder and outside of it, paths that leave it, and one
    picture in two rows.
    """
    ids = []
    for machine in ("first", "second"):
        with LoopbackServer() as server:
            place = Workplace(tmp_path / machine / "work", server.base_url)
            own = place.folder / "sub" / "x.jpg"
            outside = [
                tmp_path / machine / f"disk of {machine}" / name for name in ("a/x.jpg", "b/x.jpg")
            ]
            paths = [str(own), *map(str, outside), "../beside/x.jpg", str(outside[0])]
            rows = [
                {"image_path": path, "caption": caption(number)}
                for number, path in enumerate(paths)
            ]
            for path in paths:
                place.picture(path)
            place.rows(rows)
            done = place.run()
        assert done.code == 0, done
        ids.append([record["image_id"] for record in place.annotations()])
        found = [
            e["expression_id"] for record in place.annotations() for e in record["expressions"]
        ]
        assert len(set(found)) == len(found) >= len(paths)
    assert ids[0] == ids[1] == ["sub/x", "x", "x~2", "_/beside/x", "x"]


def test_ids_of_pictures_in_memory_name_no_folder_of_the_machine(workplace: Workplace) -> None:
    workplace.picture()
    row = CaptionGenerator(EmbeddedServing())(
        {"image_path": str(workplace.folder / "a.jpg"), "regions": []}
    )
    assert row["image_id"] == "a"

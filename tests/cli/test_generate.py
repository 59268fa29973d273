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
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, Takes, faults, on
from tests.support.stand_ins.gold import GoldAnswers
from tests.support.workplace import Workplace, caption, command, ended, interpreter

SEED_PAGE = Path(__file__).resolve().parents[3] / "shared" / "seeds" / "tao_2d_grounding_docs.txt"
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


@pytest.mark.parametrize("box_format", ["yxyx_2048", "cxcywh_10"])
def test_boxes_in_a_scale_of_any_number(
    workplace: Workplace, server: LoopbackServer, box_format: str
) -> None:
    workplace.picture("a.jpg", (640, 400))
    boxes = {"red mug": [[10, 20, 130, 220]], "table": [[0, 200, 640, 400]]}
    gold = [gold_of("a.jpg", "A red mug on a table.", boxes, (640, 400))]
    workplace.rows(inputs_of(gold))
    server.answers = GoldAnswers(gold, image_root=workplace.folder, box_format=box_format)
    settings = {
        "vlm.box_format": box_format,
        "vlm.check_every": 1,
    }
    done = workplace.run(**settings)
    assert done.code == 0, done
    asked = [request.text for request in server.requests if request.task == "phrase_grounding"]
    assert f"from 0 to {box_format.partition('_')[2]}:" in asked[-1]
    assert done.summary["probes"] > 0
    [record] = workplace.annotations()
    for text, [bbox] in boxes.items():
        [found] = boxes_of(record)[text]
        assert all(abs(a - b) <= 1 for a, b in zip(found, bbox, strict=True))
    assert (
        json.loads((workplace.results / "run.json").read_text())["box_format"]["name"] == box_format
    )


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


@pytest.mark.slow
@pytest.mark.parametrize("box_format", ["xywh_px", "xyxy_1", "qwen2.5-vl"])
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


def test_repeated_phrases_have_spans_and_boxes_of_their_own(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.picture()
    caption = "A cat beside a cat and another CAT."
    expressions = [
        {"text": "a cat", "instances": [{"bbox": [1, 1, 10, 10]}]},
        {"text": "a cat", "instances": [{"bbox": [20, 1, 30, 10]}]},
        {"text": "another cat", "instances": [{"bbox": [40, 1, 50, 10]}]},
        {"text": "a dog", "instances": []},
    ]
    gold = [
        {
            "image_path": "a.jpg",
            "caption": caption,
            "width": 64,
            "height": 48,
            "expressions": expressions,
        }
    ]
    workplace.rows(inputs_of(gold))
    server.answers = GoldAnswers(gold, image_root=workplace.folder)
    assert workplace.run().code == 0
    [record] = workplace.annotations()
    found = [
        (e["char_span"], e["status"], [i["bbox"] for i in e["instances"]])
        for e in record["expressions"]
    ]
    assert found == [
        ([0, 5], "grounded", [[1, 1, 10, 10]]),
        ([13, 18], "grounded", [[20, 1, 30, 10]]),
        ([23, 34], "grounded", [[40, 1, 50, 10]]),
        (None, "none", []),
    ]
    assert record["cleaned_caption"][23:34] == "another CAT"


def test_two_images_of_one_stem_keep_their_own_boxes(
    workplace: Workplace, server: LoopbackServer
) -> None:
    gold = []
    for number, folder in enumerate(("a", "b", "ä ö")):
        workplace.picture(f"{folder}/x.jpg", (64 + number, 48))
        gold.append(
            gold_of(
                f"{folder}/x.jpg", "A mug.", {"mug": [[1 + number, 2, 30, 40]]}, (64 + number, 48)
            )
        )
    workplace.rows(inputs_of(gold))
    server.answers = GoldAnswers(gold, image_root=workplace.folder)
    assert workplace.run().code == 0
    records = workplace.annotations()
    assert [record["image_id"] for record in records] == ["a/x", "b/x", "ä ö/x"]
    assert [boxes_of(record)["mug"] for record in records] == [
        [[1 + n, 2, 30, 40]] for n in range(3)
    ]
    ids = [
        i["bbox_id"] for record in records for e in record["expressions"] for i in e["instances"]
    ]
    assert len(set(ids)) == len(ids) == 3


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


@pytest.mark.slow
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


def test_an_input_without_a_good_row_is_refused_with_the_first_ones_reason(
    workplace: Workplace,
) -> None:
    workplace.rows(["# a comment"] * 200)
    done = workplace.run(**{"vlm.openai.base_url": "http://127.0.0.1:9/v1"})
    assert done.code == 2
    assert "nothing to do in" in done.err
    assert "line 1: not JSON" in done.err


def test_a_request_is_never_sent_without_its_image(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.rows([{"image_path": f"gone{n}.jpg", "caption": "A cup"} for n in range(3)])
    done = workplace.run()
    assert server.count() == 0
    assert done.code == 4, done
    assert not (workplace.results / "annotations.jsonl").exists()


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


@pytest.mark.slow
def test_step_1_alone_goes_on_from_step_0(
    workplace: Workplace, server: LoopbackServer, tmp_path: Path
) -> None:
    both = Workplace(tmp_path / "both")
    for place in (workplace, both):
        place.picture("good.jpg")
        place.rows(
            [{"image_path": "good.jpg", "caption": caption(n)} for n in range(5)] + ["broken"]
        )
    for place in (workplace, both):
        place.settings["vlm.openai.base_url"] = server.base_url
    early = workplace.run("image_grounding.workflow.steps=[1]")
    assert early.code == 2
    assert "run step 0 first" in early.err
    assert workplace.run("image_grounding.workflow.steps=[0]").code == 1
    assert server.by_task == {"expression_extraction": 5}
    step_0 = workplace.annotations()
    assert all(
        e["instances"] == [] and "status" not in e
        for record in step_0
        for e in record["expressions"]
    )
    second = workplace.run("image_grounding.workflow.steps=[1]")
    assert second.code == 0, second
    assert server.by_task == {"expression_extraction": 5, "phrase_grounding": 5}
    assert both.run().code == 1
    assert workplace.files() == both.files()
    assert workplace.failures() == both.failures()


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


@pytest.mark.slow
def test_streaming_and_step_by_step_give_the_same_bytes(
    workplace: Workplace, tmp_path: Path
) -> None:
    other = Workplace(tmp_path / "other")
    rules = [
        on(faults.content_filter(), containing="Cup 3 "),
        on(faults.says("?"), containing='"Nf"'),
    ]
    for place, stream in ((workplace, True), (other, False)):
        place.many(14)
        with LoopbackServer(faults=rules, latency=0.002) as server:
            done = place.run(**{"vlm.openai.base_url": server.base_url, "workflow.stream": stream})
        assert done.code == 1, done
    assert workplace.files() == other.files()


def seed_spec() -> str:
    """The whole specification of the seed page, whose text has lost its indentation."""
    inner = {
        "backend": 2,
        "gemini": 2,
        "steps": 2,
        "max_workers": 2,
        "force_reprocess": 2,
        "input_jsonl": 2,
    }
    depth = {"image_grounding": 0, "vlm": 1, "workflow": 1, "data": 1, "image_root": 2, **inner}
    text = SEED_PAGE.read_text(encoding="utf-8")
    lines = (
        text[text.index("results_dir: /path/to/results") :]
        .split("To run the image referring")[0]
        .splitlines()
    )
    indents = {
        line: depth.get(line.split(":")[0], 0 if n < 3 else 3) for n, line in enumerate(lines)
    }
    return "".join("  " * indent + line + "\n" for line, indent in indents.items())


@pytest.mark.slow
@pytest.mark.skipif(not SEED_PAGE.exists(), reason="the seed pages are not here")
def test_the_seed_pages_spec_runs_unchanged_on_an_openai_endpoint(workplace: Workplace) -> None:
    workplace.many(2)
    spec = workplace.folder / "image_grounding.yaml"
    given = seed_spec()
    assert 'backend: "gemini"' in given
    assert "api_key" in given
    with LoopbackServer(EchoAnswers("qwen2.5-vl"), key=KEY) as server:
        text = given.replace('backend: "gemini"', 'backend: "openai"')
        text = text.replace("/path/to/input.jsonl", str(workplace.input))
        spec.write_text(
            text.replace("    gemini:", "    openai:\n      base_url: x\n    gemini:"),
            encoding="utf-8",
        )
        overrides = [
            f"results_dir={workplace.results}",
            f"image_grounding.vlm.openai.base_url={server.base_url}",
            "image_grounding.vlm.openai.model_name=qwen2.5-vl-7b",
            f"image_grounding.vlm.openai.api_key={KEY}",
            "module_name=auto_label",
        ]
        done = command(["generate", "-e", str(spec), *overrides])
    assert done.code == 0, done
    assert len(workplace.annotations()) == 2
    assert KEY not in done.out + done.err


WRONG = [
    (
        ["image_grounding.vlm.opanai.model_name=x"],
        "opanai is not a key of the spec; is it 'openai'?",
    ),
    (
        ["image_grounding.workflow.max_worker=3"],
        "max_worker is not a key of the spec; is it 'max_workers'?",
    ),
    (["resultsdir=x"], "resultsdir is not a key of the spec; is it 'results_dir'?"),
    (["image_grounding.workflow.steps=[2]"], "workflow.steps"),
    (["image_grounding.workflow.max_workers=none"], "max_workers"),
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
    (["autolabel_type=image_ground"], "autolabel_type"),
    (["no equals sign"], "key=value"),
    (["--pilot", "0"], "--pilot"),
    (["-e", "/nowhere/spec.yaml"], "no spec file /nowhere/spec.yaml"),
]


@pytest.mark.slow
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


def test_an_override_that_looks_like_a_number_is_taken_as_text(
    workplace: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.many(1)
    monkeypatch.chdir(workplace.folder)
    server.key = "123456"
    key = "image_grounding.vlm.openai.api_key=123456"
    done = workplace.run(key, "results_dir=2024")
    assert done.code == 0, done
    assert (workplace.folder / "2024" / "annotations.jsonl").exists()


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


@pytest.mark.slow
def test_max_workers_bounds_what_is_in_flight_over_all_steps(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(12)
    server.latency = 0.02
    done = workplace.run(**{"workflow.max_workers": 3})
    assert done.code == 0
    assert server.max_in_flight == 3


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


@pytest.mark.slow
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


def test_the_key_may_come_from_the_environment(
    workplace: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.many(1)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.key = KEY
    assert workplace.run().code == 0


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "takes",
    [
        pytest.param(Takes(response_formats=("json_object",)), id="no schema"),
        pytest.param(Takes(ignores_format=True), id="prose and a fence around"),
        pytest.param(
            Takes(
                response_formats=(),
                max_completion_tokens=True,
                temperature=False,
                system_messages=False,
            ),
            id="hardly anything",
        ),
    ],
)
def test_what_the_endpoint_takes_is_found_out_once_a_run(
    workplace: Workplace, server: LoopbackServer, takes: Takes
) -> None:
    workplace.many(5)
    server.takes = takes
    done = workplace.run()
    assert done.code == 0, done
    assert server.count(200) == 10
    assert server.count(400) <= 5
    assert done.summary["requests"] == server.count()


@pytest.mark.slow
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

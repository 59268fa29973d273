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
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.dataframes import to_dataframe
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import answer_to_probe
from tests.support import faults
from tests.support.workplace import STEPS, Done, Workplace, caption, ended, interpreter

Boxes = dict[str, list[list[int]]]


def gold_of(image_path: str, caption: str, boxes: Boxes, size: tuple[int, int]) -> dict[str, Any]:
    expressions = [
        {"text": text, "instances": [{"bbox": bbox} for bbox in found]}
        for text, found in boxes.items()
    ]
    row = {"image_path": image_path, "caption": caption, "width": size[0], "height": size[1]}
    return {**row, "expressions": expressions}


def boxes_of(record: dict[str, Any]) -> Boxes:
    return {e["text"]: [i["bbox"] for i in e["instances"]] for e in record["expressions"]}


def are_near(found: list[list[int]], right: list[list[int]], pixels: int = 1) -> bool:
    """Whether there are as many boxes, each about where its own should be."""
    sides = [zip(*pair, strict=True) for pair in zip(found, right, strict=True)]
    return all(abs(a - b) <= pixels for pairs in sides for a, b in pairs)


def asked_about(
    place: Workplace,
    server: LoopbackServer,
    *gold: dict[str, Any],
    box_format: str = "xyxy_px",
    **settings: Any,
) -> Done:
    """A run about what the gold is of, whose model knows it: upright and lying pictures differ."""
    place.rows({key: row[key] for key in ("image_path", "caption")} for row in gold)

    def answers(request: ReceivedRequest) -> Any:
        if request.task == "expression_extraction":
            [row] = [row for row in gold if row["caption"] == request.input["caption"]]
            expressions = [{"text": text, "noun_chunk": text} for text in boxes_of(row)]
            return {"cleaned_caption": row["caption"], "expressions": expressions}
        written = find_box_format(box_format, request.model)
        probe = answer_to_probe(request, written)
        if probe is not None:
            return probe
        [sent] = request.image_sizes
        row = next(row for row in gold if (row["width"] > row["height"]) == (sent[0] > sent[1]))
        size, objects = (row["width"], row["height"]), []
        for phrase in request.input["phrases"]:
            for bbox in boxes_of(row)[phrase["text"]]:
                numbers = written.from_pixels(bbox, original=size, sent=sent)
                objects.append({"id": phrase["id"], "label": phrase["text"], written.key: numbers})
        return {"objects": objects}

    server.answers = answers
    done = place.run(**{"vlm.box_format": box_format, **settings})
    assert done.code == 0, done
    return done


# --- boxes, spans, ids


def test_boxes_in_a_scale_of_any_number(workplace: Workplace, server: LoopbackServer) -> None:
    name = workplace.picture("a.jpg", (640, 400))
    boxes = {"red mug": [[10, 20, 130, 220]], "table": [[0, 200, 640, 400]]}
    gold = gold_of(name, "A red mug on a table.", boxes, (640, 400))
    every = {"vlm.check_every": 1}
    done = asked_about(workplace, server, gold, box_format="yxyx_2048", **every)
    asked = [request.text for request in server.requests if request.task == "phrase_grounding"]
    assert "from 0 to 2048:" in asked[-1]
    assert done.summary["probes"] > 0
    [record] = workplace.annotations()
    assert all(are_near(boxes_of(record)[text], right) for text, right in boxes.items())
    assert workplace.run_json()["box_format"]["name"] == "yxyx_2048"


@pytest.mark.parametrize(
    "name", ["xyxy_0", "xyxy_05", "xyxy_1.5", "xyxy_1000000", "xyxz_512", "512"]
)
def test_a_scale_that_is_not_a_whole_number_is_refused(workplace: Workplace, name: str) -> None:
    done = workplace.run(**{"vlm.box_format": name})
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert f"unknown vlm.box_format '{name}'" in done.err
    assert "xyxy, yxyx, xywh, cxcywh with px or a whole number" in done.err


def test_boxes_are_the_golds_in_the_upright_image(
    workplace: Workplace, server: LoopbackServer
) -> None:
    gold = []
    for orientation in range(1, 9):
        name = workplace.picture(f"photos/{orientation}.jpg", (640, 400), orientation)
        upright = (400, 640) if orientation >= 5 else (640, 400)
        boxes = {"red mug": [[10, 20, 130, 220]], "table": [[0, 200, *upright], [3, 4, 50, 60]]}
        gold.append(gold_of(name, f"A red mug on a table, {orientation}.", boxes, upright))
    asked_about(workplace, server, *gold)
    assert {image.orientation for request in server.requests for image in request.images} == {1}
    sizes = Counter(size for request in server.requests for size in request.image_sizes)
    assert sizes == {(640, 400): 2 * 4, (400, 640): 2 * 4}  # two requests about each picture
    for record, right in zip(workplace.annotations(), gold, strict=True):
        assert (record["width"], record["height"]) == (right["width"], right["height"])
        found = boxes_of(record)
        assert all(are_near(found[text], boxes) for text, boxes in boxes_of(right).items())


@pytest.mark.parametrize("box_format", ["xywh_px", "qwen2.5-vl"])
def test_a_picture_that_is_reduced_gives_boxes_of_the_file(
    workplace: Workplace, server: LoopbackServer, box_format: str
) -> None:
    size, boxes = (3000, 2250), {"mug": [[100, 200, 2900, 2150]]}
    gold = gold_of(workplace.picture("big.jpg", size), "A mug.", boxes, size)
    asked_about(workplace, server, gold, box_format=box_format)
    assert all(max(size) <= 2048 for request in server.requests for size in request.image_sizes)
    [record] = workplace.annotations()
    assert (record["width"], record["height"]) == size
    assert are_near(boxes_of(record)["mug"], boxes["mug"], pixels=4)


# --- what fails alone, what survives


def test_bad_rows_fail_alone_and_are_named(workplace: Workplace, server: LoopbackServer) -> None:
    whole = (workplace.folder / workplace.picture("good.jpg")).read_bytes()
    (workplace.folder / "corrupt.jpg").write_bytes(b"\xff\xd8\xff" + whole[len(whole) // 2 :])
    good = {"image_path": "good.jpg", "caption": "A cup here"}
    wrong_steps = ["no", 5, {"step0": 1}, ["step0", 1], True]
    workplace.rows(
        [
            good,
            {**good, "image_path": "gone.jpg"},
            {**good, "image_path": "corrupt.jpg"},
            '{"image_path": "good.jpg", "caption": "broken',
            "[1, 2]",
            {"image_path": "good.jpg"},
            *({**good, "pipeline_steps": steps} for steps in wrong_steps),
            {**good, "caption": "Another table", "pipeline_steps": ["drawn"]},
        ]
    )
    done = workplace.run()
    assert server.count() == 4  # two steps of the two good rows
    assert done.code == 1, done
    assert (done.summary["images"], done.summary["done"], done.summary["failed"]) == (12, 2, 10)
    left = [(row["caption"], len(row["pipeline_steps"])) for row in workplace.annotations()]
    assert left == [("A cup here", 2), ("Another table", 3)]
    failures = workplace.failures()
    kinds = ["image_missing", "image_broken", *["broken_row"] * 8]
    assert [(f["line"], f["kind"]) for f in failures] == [*enumerate(kinds, start=2)]
    messages = [failure["message"] for failure in failures]
    assert "gone.jpg" in messages[0]
    assert "corrupt.jpg" in messages[1]
    assert "caption" in messages[4]
    assert all("'pipeline_steps' should be a list of texts" in said for said in messages[5:])


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
    row = {"image_path": workplace.picture(), "caption": "A cup", **extra}
    workplace.input.write_text(json.dumps(row) + "\n")
    assert workplace.run().code == 0
    [record] = workplace.annotations()
    assert {name: record[name] for name in extra} == extra
    assert str(record["floats"]) == str(extra["floats"])
    assert list(record)[:2] == ["image_path", "caption"]


# --- steps, spec, overrides


@pytest.mark.parametrize("stream", [False, True], ids=["step by step", "streaming"])
def test_step_0_is_kept_when_no_record_gets_through_step_1(
    workplace: Workplace, server: LoopbackServer, stream: bool
) -> None:
    workplace.many(4)
    server.faults = on(faults.content_filter(), task="phrase_grounding")
    done = workplace.run(**{"workflow.stream": stream})
    assert done.code == 4, done
    assert (workplace.files().step_0 or b"").count(b"\n") == 4
    assert {(f["id"], f["step"], f["kind"]) for f in workplace.failures()} == {
        (f"r{n}", "step1_grounding", "refused") for n in range(4)
    }


WRONG = [
    ("image_grounding.workflow.steps=[2]", "workflow.steps"),
    ("image_grounding.vlm.box_format=xyzw", "xyzw"),
    ("image_grounding.vlm.box_format=calibrated", "run dataflowgrounding calibrate first"),
    ("image_grounding.vlm.openai.model_name=", "model_name"),
    ("image_grounding.vlm.openai.base_url=http://[bad/v1", "base_url"),
    ("image_grounding.vlm.openai.base_url=http://host:port/v1", "base_url"),
    ("image_grounding.data.input_jsonl=/nowhere/x.jsonl", "/nowhere/x.jsonl"),
    ("image_grounding.workflow.budget_usd=1", "vlm.prices"),
    ("no equals sign", "key=value"),
    ("--pilot=0", "--pilot"),
    (f"--pilot={'9' * 20}", "--pilot"),
]


@pytest.mark.parametrize(("argument", "said"), WRONG)
def test_what_is_wrong_is_found_before_the_first_request(
    workplace: Workplace, server: LoopbackServer, argument: str, said: str
) -> None:
    workplace.many(2)
    done = workplace.run(argument)
    assert (done.code, server.count()) == (2, 0), done
    assert said in done.err
    assert len(done.err.strip().splitlines()) <= 4
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "name", ["annotations.jsonl", "failures.jsonl", f"{STEPS[0]}/annotations.jsonl", "run.json"]
)
def test_an_input_that_the_run_would_overwrite_is_refused(workplace: Workplace, name: str) -> None:
    workplace.input = workplace.folder / name
    workplace.input.parent.mkdir(exist_ok=True)
    workplace.many(2)
    before = workplace.input.read_bytes()
    done = workplace.run(f"results_dir={workplace.folder}")
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
    server.faults = rule or ()
    done = workplace.run()
    if "stopped" in done.summary and "middle" not in name:
        # ten of a content filter, what is in flight then, and a plain question
        most = 10 + 8 + 1 if name == "no record succeeded" else 8
        assert server.count() <= most, "stops within a few requests"
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert all(len(line) < 700 for line in done.err.splitlines())


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


@pytest.mark.parametrize("machine", ["first", "second"])
def test_ids_of_pictures_anywhere_are_the_same_on_every_machine(
    tmp_path: Path, server: LoopbackServer, machine: str
) -> None:
    """Absolute paths within the input's folder and outside of it, paths that leave it, and one
    picture in two rows.
    """
    place = Workplace(tmp_path / machine / "work", server.base_url)
    disk = tmp_path / machine / f"disk of {machine}"
    outside = [str(disk / "a/x.jpg"), str(disk / "b/x.jpg")]
    paths = [str(place.folder / "sub/x.jpg"), *outside, "../beside/x.jpg", outside[0]]
    place.rows({"image_path": path, "caption": caption(n)} for n, path in enumerate(paths))
    for path in paths:
        place.picture(path)
    assert place.run().code == 0
    records = place.annotations()
    ids = [record["image_id"] for record in records]
    assert ids == ["sub/x", "x", "x~2", "_/beside/x", "x"]
    found = [e["expression_id"] for record in records for e in record["expressions"]]
    assert len(set(found)) == len(found) >= len(paths)


def test_ids_of_pictures_in_memory_name_no_folder_of_the_machine(workplace: Workplace) -> None:
    workplace.picture()
    row = CaptionGenerator(EmbeddedServing())(
        {"image_path": str(workplace.folder / "a.jpg"), "regions": []}
    )
    assert row["image_id"] == "a"

"""The record: read tolerantly, written strictly; ids unique, stable, and the user's own where there
are any.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from dataflow_grounding import (
    BBoxVisualizer,
    ExpressionExtractor,
    FileStorage,
    PhraseGrounder,
    Pipeline,
    RunOptions,
)
from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import (
    Record,
    as_json,
    caption_of_spans,
    dump_line,
    image_id_of,
    read_text,
)
from tests.support.answering import EveryWord


class Grounding(Pipeline):
    """The three steps over `in.jsonl` in a folder."""

    name = "grounding"

    def __init__(self, folder: Path, **more: Any) -> None:
        self.storage = FileStorage(str(folder / "in.jsonl"), str(folder / "cache"), "s", **more)
        self.extractor = ExpressionExtractor(EveryWord())
        self.grounder = PhraseGrounder(EveryWord())
        self.visualizer = BBoxVisualizer(str(folder / "boxed"))

    def forward(self) -> None:
        for operator in (self.extractor, self.grounder, self.visualizer):
            operator.run(self.storage.step())


def grounded(folder: Path, rows: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """The records of the last step, run once step by step and once streaming, which must agree."""
    for row in rows:
        path = folder / str(row["image_path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.new("RGB", (20, 10)).save(path)
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = []
    for compiled in (False, True):
        pipeline = Grounding(folder, **more)
        if compiled:
            pipeline.compile()
        summary = pipeline.forward(options=RunOptions(progress=False))
        assert summary.failed == 0
        results.append((folder / "cache" / "s_step3.jsonl").read_bytes())
        (folder / "cache" / ".ckpt" / "facts.json").unlink()
    assert results[0] == results[1]
    return [json.loads(line) for line in results[0].splitlines()]


def ids_of(records: list[dict[str, Any]]) -> list[str]:
    """All expression and bbox ids."""
    expressions = [expression for record in records for expression in record["expressions"]]
    boxes = [
        instance["bbox_id"] for expression in expressions for instance in expression["instances"]
    ]
    return [expression["expression_id"] for expression in expressions] + boxes


def images(*paths: str) -> list[dict[str, Any]]:
    return [{"image_path": path} for path in paths]


ROWS_OF_IDS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "one stem in two folders": (images("a/x.jpg", "b/x.jpg"), ["a/x", "b/x"]),
    "one stem, two endings": (images("a/x.jpg", "a/x.png"), ["a/x", "a/x.png"]),
    "two rows of each": (images("x.jpg", "./x.png", "x.jpg", "x.png"), ["x", "x.png", "x", "x.png"]),
    "a name that looks made": (images("x.png.jpg", "x.jpg", "x.png"), ["x.png", "x", "x.png"]),
    "the user's": ([{"image_path": "x.jpg", "image_id": "mine"}], ["mine"]),
    "numbers stay numbers": ([{"image_path": "x.jpg", "image_id": n} for n in (0, 7, 10**30)], [0, 7, 10**30]),
    "empty is none": ([{"image_path": "x.jpg", "image_id": i} for i in ("", None)], ["x", "x"]),
    "equal ids of two images": ([{"image_path": p, "image_id": 3} for p in ("x.jpg", "y.jpg")], [3, 3]),
    "an id that looks made": (images("x.jpg", "x@2.jpg", "x.jpg", "x@2.jpg"), ["x", "x@2", "x", "x@2"]),
    "an id that looks made, after it": (images("x.jpg", "x.jpg", "x@2.jpg"), ["x", "x", "x@2"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "image_ids"), ROWS_OF_IDS.values(), ids=ROWS_OF_IDS)
def test_ids(tmp_path: Path, rows: list[dict[str, Any]], image_ids: list[Any]) -> None:
    records = grounded(tmp_path, [{**row, "caption": "dog dog"} for row in rows])
    assert repr([record["image_id"] for record in records]) == repr(image_ids)
    ids = ids_of(records)
    assert len(ids) == 4 * len(rows) == len(set(ids))
    pictures = [record["image_with_bbox"] for record in records]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.slow
def test_ids_of_repeated_images_do_not_change_when_an_earlier_row_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records = grounded(tmp_path, [{"image_path": "x.jpg", "caption": word} for word in "abc"])
    again = PhraseGrounder(EveryWord())(records[1:])
    assert ids_of(again) == ids_of(records[1:]), "the same on every run"
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[1:]))
    names = [record["image_with_bbox"] for record in records[1:]]
    pipeline = Grounding(tmp_path)
    pipeline.visualizer.run(pipeline.storage.step(), output_key="again")
    lines = (tmp_path / "cache" / "s_step1.jsonl").read_text().splitlines()
    assert [json.loads(line)["again"] for line in lines] == names


@pytest.mark.parametrize(
    ("path", "root", "image_id"),
    [
        ("a/x.jpg", None, "a/x"),
        ("/data/a/x.jpg", "/data", "a/x"),
        ("/data/a/x.jpg", "/data/", "a/x"),
        ("/elsewhere/x.jpg", "/data", "x"),
        ("/database/x.jpg", "/data", "x"),
        ("/data/../a/x.jpg", "/data", "x"),
        ("../x.jpg", None, "_/x"),
        ("a/../../../b/x.jpg", "/data", "_/_/b/x"),
        ("süß/图.jpeg", None, "süß/图"),
        ("x.tar.gz", None, "x.tar"),
    ],
)
def test_an_image_id_is_the_path_without_its_ending(
    path: str, root: str | None, image_id: str
) -> None:
    assert image_id_of({"p": path}, "p", root) == image_id


def test_what_is_no_path_has_no_id() -> None:
    for path in (None, "", 5, [], {}):
        assert image_id_of({"p": path}, "p") is None


BOX = [1.5, 2, 3.25, 4]
READ: dict[str, tuple[Any, dict[str, Any]]] = {
    "a bare string": ("a dog", {"text": "a dog"}),
    "only a text": ({"text": "d"}, {}),
    "instances null": ({"text": "d", "instances": None}, {}),
    "its own id": ({"text": "d", "expression_id": "e1"}, {"expression_id": "e1"}),
    "a number for an id": ({"text": "d", "expression_id": 0}, {"expression_id": 0}),
    "an empty id": ({"text": "d", "expression_id": ""}, {}),
    "further keys": ({"text": "d", "mine": [1]}, {"mine": [1]}),
}
SCORES: dict[str, tuple[dict[str, Any], Any]] = {
    "score": ({"score": 0.5}, 0.5),
    "bbox_score": ({"bbox_score": 0.5}, 0.5),
    "both": ({"bbox_score": 0.1, "score": 0.5}, 0.5),
    "zero": ({"bbox_score": 0.1, "score": 0}, 0),
    "score null": ({"bbox_score": 0.1, "score": None}, 0.1),
    "no number": ({"bbox_score": "high"}, "high"),
    "none": ({}, None),
}


@pytest.mark.parametrize(("given_", "read"), READ.values(), ids=READ)
def test_expressions_are_read_tolerantly(given_: Any, read: dict[str, Any]) -> None:
    record = Record({"e": [given_]}, image_id="x")
    usual = {"text": "d", "expression_id": "x#0", "instances": []}
    assert [item.to_json() for item in read_expressions(record, "e")] == [{**usual, **read}]
    assert record == {"e": [given_]}


@pytest.mark.parametrize(("given_", "score"), SCORES.values(), ids=SCORES)
def test_scores_are_read_under_both_names(given_: dict[str, Any], score: Any) -> None:
    record = Record({"e": [{"text": "d", "instances": [{"bbox": BOX, "mine": 1, **given_}]}]})
    [instance] = read_expressions(record, "e")[0].instances
    assert instance.to_json() == {"bbox": BOX, "mine": 1, "score": score}


def with_box(bbox: Any) -> list[Any]:
    return [{"text": "d", "instances": [{"bbox": bbox}]}]


NO_EXPRESSIONS: dict[str, Any] = {
    "missing": None,
    "a text": "a dog",
    "an object": {"text": "a dog"},
    "a number in the list": [5],
    "no text": [{"txt": "a dog"}],
    "an empty text": [{"text": " "}],
    "instances that are none": [{"text": "d", "instances": 5}],
    "three numbers": with_box([1, 2, 3]),
    "a text in a bbox": with_box([1, 2, 3, "4"]),
    "NaN in a bbox": with_box([1, 2, 3, math.nan]),
    "no number at all": with_box([1, 2, 3, 10**400]),
    "no bbox": with_box(None),
}


@pytest.mark.parametrize("value", NO_EXPRESSIONS.values(), ids=NO_EXPRESSIONS)
def test_what_is_no_expression_is_a_broken_row_that_names_the_column(value: Any) -> None:
    with pytest.raises(BrokenRow, match="'my_column'") as caught:
        read_expressions(Record({"my_column": value}), "my_column")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "  \n", 5, ["x"], {}, True], ids=repr)
def test_what_is_no_text_is_a_broken_row(value: Any) -> None:
    told = "empty" if isinstance(value, str) else ""
    with pytest.raises(BrokenRow, match=f"'caption' should be a text, not {told}"):
        read_text({"caption": value}, "caption")


def test_text_is_written_as_it_is_and_half_a_surrogate_pair_escaped() -> None:
    assert dump_line({"é": "图 🚗"}) == '{"é": "图 🚗"}\n'
    assert dump_line({"é": "\ud83d"}) == '{"\\u00e9": "\\ud83d"}\n'


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [math.nan], {"a": {"b": math.inf}}], ids=repr
)
def test_nan_is_never_written(value: Any) -> None:
    for write in (dump_line, as_json):
        with pytest.raises(ValueError, match="JSON"):
            write({"x": value})


def test_an_update_reads_as_its_file_would() -> None:
    update = {"t": (1, 2), 3: {4: None}, "n": numpy.float32(0.5), "a": numpy.ones(2)}
    update["i"] = numpy.int64(7)
    read = {"t": [1, 2], "3": {"4": None}, "n": 0.5, "a": [1.0, 1.0], "i": 7}
    assert repr(as_json(update)) == repr(read)
    for value in ({1, 2}, object(), b"x", Path("x"), numpy.float64("nan")):
        with pytest.raises((TypeError, ValueError)):
            as_json({"x": value})


def test_an_empty_cleaned_caption_gives_way_to_the_caption() -> None:
    assert caption_of_spans({"cleaned_caption": "", "caption": "A cat."}) == "A cat."
    assert caption_of_spans({"cleaned_caption": ["x"], "caption": "A cat."}) == "A cat."
    assert caption_of_spans({"cleaned_caption": "a cat", "caption": "A cat."}) == "a cat"
    assert caption_of_spans({"caption": 7}) == ""

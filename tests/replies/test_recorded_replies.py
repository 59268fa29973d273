"""Replies that real models gave, as published: the folder is not part of the project, so these
tests run where it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import RequestRefused, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import clamp, ordered
from dataflow_grounding.replies import FoundBox, read_boxes

FOLDER = Path(__file__).parents[2].parent / "shared" / "replies"


def rows_of(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# Recorded replies that were read once and are refused: in none of the forms, or in one that may be
# meant otherwise.
REFUSED = {
    "griffon-issue41-onimage": "brackets that don't match",
    "griffon-issue40-runaway": "brackets and quotation marks that don't match",
    "florence2-proc-leftover-loc": "five location tokens, of which any may be the one too many",
}
ROWS = rows_of("replies.jsonl")
MORE = rows_of("more_replies.jsonl")
WITH_BOXES = [
    row
    for row in ROWS
    if row["expected"] and row["expected"][0]["raw_order"] != "point" and row["id"] not in REFUSED
]
WITH_POINTS = [
    row for row in ROWS if row["expected"] and row["expected"][0]["raw_order"] == "point"
]
FORMATS = {
    "norm1": "1",
    "norm100": "100",
    "norm1000": "1000",
    "norm1024": "1024",
    "pixel": "px",
    "resized_pixel": "qwen2.5-vl",
    "bins999": "deepseek-vl2",
    "bins1000": "florence-2",
    "bins1024": "paligemma",
    "grid32": "kosmos-2",
    None: "1000",
}

# Of the further replies, those where ours is not what the source expects, or where several readings
# are fair: what ours gives, as boxes in pixels or None for unreadable, and why.
OURS: dict[str, tuple[list[tuple[float, ...]] | None, str]] = {
    "h006": (
        [(250, 250, 750, 750)],
        "a box without a label: the source leaves it out, a caller who asked for one thing has use for it",
    ),
    "h019": (
        [(20, 11.25, 200, 112.5), (100, 67.5, 220, 135)],
        "boxes without a label again; the object without a box is noted as dropped",
    ),
    "h078": ([(10.01, 20.02, 30.03, 40.04)], "a box without a label again; the source's parser wants one before it"),
    "h090": (
        None,
        "one box of four reaches out of the picture by a quarter of its height, which is more than an eighth: the source cuts it off",
    ),
    "h107": (
        [(1.28, 47.09, 640, 149.43)],
        "a row of nines for the far edge and corners the wrong way round: both are noted, and it counts as doubtful",
    ),
    "h110": (
        [(0, 24.02, 35.24, 480)],
        "a loop of nines after the first whole box: that is kept and the reply noted as truncated",
    ),
    "h112": (None, "a bracket too many within the four numbers: not guessed"),
    "h202": (
        [(100, 100, 500, 500)],
        "corners the wrong way round: the source leaves the box out, ours is turned and noted",
    ),
    "h134": (None, "boxes that reach out of the picture by more than an eighth are in another scale"),
    "h147": (None, "the same"),
    "h168": (None, "the same"),
    "h198": (None, "the same"),
    "h169": (None, "fractions where 0 to 1000 was asked for are in another scale"),
    "h176": (None, "fractions where pixels were asked for are in another scale"),
    "h086": (None, "a program, with its boxes once in the code and once in a comment"),
    "h093": ([(100, 50, 200, 250)], "the whole box before the reply is cut off"),
    "h101": (None, "tags within broken JSON"),
    "h118": (None, "boxes of several frames of a video"),
    "h171": (None, "two boxes in one object, which differ"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(not ROWS, reason="the recorded replies are not here")


def format_of(row: dict[str, Any]) -> BoxFormat:
    first = row["expected"][0]
    name = FORMATS[first["raw_scale"]]
    order = "xyxy" if first["raw_order"] == "point" else first["raw_order"]
    return find_box_format(
        f"{order}_{name}" if name in ("px", "1", "100", "1000", "1024") else name, ""
    )


def size_of(row: dict[str, Any]) -> tuple[int, int]:
    # A square of whole 28 px patches is what Qwen2.5-VL leaves as it is.
    return (row["image_width"], row["image_height"]) if row["image_width"] else (2800, 2800)


def cases(rows: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(row, id=row["id"]) for row in rows]


def labels_of(expected: dict[str, Any]) -> list[str | None]:
    return [expected["label"], *expected.get("label_alternatives", [])]


@pytest.mark.parametrize("row", cases(WITH_BOXES))
def test_a_recorded_reply_gives_its_boxes_and_labels(row: dict[str, Any]) -> None:
    reading = read_boxes(row["reply"], format=format_of(row), image_size=size_of(row))

    assert [list(box.numbers) for box in reading.boxes] == [e["box_raw"] for e in row["expected"]]
    has_size = row["image_width"] or row["expected"][0]["raw_scale"] == "pixel"
    for box, expected in zip(reading.boxes, row["expected"], strict=True):
        assert box.label in labels_of(expected)
        if has_size and expected["box_px"]:
            # Sources that give whole pixels cut the fraction off.
            pixels = clamp(ordered(expected["box_px"]), size_of(row))
            assert box.bbox == pytest.approx(pixels, abs=1.0)


@pytest.mark.parametrize(
    "row", cases([row for row in WITH_BOXES if "box_norm" in row["expected"][0]])
)
def test_grid_cells_give_the_fractions_that_their_source_states(row: dict[str, Any]) -> None:
    reading = read_boxes(row["reply"], format="kosmos-2", image_size=(1, 1))

    for box, expected in zip(reading.boxes, row["expected"], strict=True):
        assert box.bbox == pytest.approx(expected["box_norm"])


@pytest.mark.parametrize("row", cases(WITH_BOXES))
def test_every_box_of_a_recorded_reply_finds_the_phrase_that_is_its_label(
    row: dict[str, Any],
) -> None:
    # GLM's names the beer in words, and nothing else would do
    unnamed = "the second bottle of beer from the right on the table"
    labels = [expected["label"] or unnamed for expected in row["expected"]]
    phrases = list(dict.fromkeys(labels))
    reading = read_boxes(
        row["reply"], format=format_of(row), image_size=size_of(row), phrases=phrases
    )
    ids = [phrases.index(label) + 1 for label in labels]
    numbers = [tuple(expected["box_raw"]) for expected in row["expected"]]
    assert {(box.id, box.numbers) for box in reading.boxes} == {*zip(ids, numbers, strict=True)}


@pytest.mark.parametrize("row", cases(WITH_POINTS))
def test_points_are_no_boxes(row: dict[str, Any]) -> None:
    told = "points"
    if "click(" in row["reply"]:  # a program's call
        told = "points|no form|words next to the answer"
    with pytest.raises(UnreadableReply, match=told):
        read_boxes(row["reply"], format=format_of(row), image_size=size_of(row))


@pytest.mark.parametrize(
    "row", cases([row for row in ROWS if row["id"] in REFUSED or not row["expected"]])
)
def test_a_recorded_reply_without_a_usable_box_is_unreadable_and_not_none(
    row: dict[str, Any],
) -> None:
    with pytest.raises(UnreadableReply):
        read_boxes(
            row["reply"],
            format=format_of(row) if row["expected"] else "xyxy_1000",
            image_size=size_of(row),
        )


def boxes_of(row: dict[str, Any]) -> list[FoundBox] | None:
    sent = tuple(row["sent_size"]) if row["sent_size"] else None
    try:
        return read_boxes(
            row["reply"],
            format=row["format"],
            image_size=tuple(row["image_size"]),
            sent_size=sent,
            phrases=row["phrases"],
        ).boxes
    except (UnreadableReply, RequestRefused):
        return None


@pytest.mark.parametrize("row", cases([row for row in MORE if row["id"] not in OURS]))
def test_a_further_reply_is_read_as_its_source_expects(row: dict[str, Any]) -> None:
    boxes = boxes_of(row)

    if row["kind"] == "boxes":
        assert boxes is not None
        assert len(boxes) == len(row["expected"])
        for box, expected in zip(boxes, row["expected"], strict=True):
            inside = clamp(ordered(expected["box_px"]), tuple(row["image_size"]))
            assert box.bbox == pytest.approx(inside, abs=row["tolerance_px"])
            assert expected["label"] in (None, box.label or "")
            assert (
                expected["label"] not in row["phrases"]
                or row["phrases"][box.id - 1] == expected["label"]
            )
    else:
        fair = {"none": ([],), "unreadable": (None,), "unreadable-or-none": ([], None)}[row["kind"]]
        assert boxes in fair


@pytest.mark.parametrize("row", cases([row for row in MORE if row["id"] in OURS]))
def test_a_further_reply_that_can_be_read_in_several_ways_is_read_as_the_table_says(
    row: dict[str, Any],
) -> None:
    boxes = boxes_of(row)

    expected, _ = OURS[row["id"]]
    found = None if boxes is None else [box.bbox for box in boxes]
    assert found == (
        None if expected is None else [pytest.approx(bbox, abs=0.01) for bbox in expected]
    )

"""What a format's table says it carries comes back; what it says it loses is gone, and was told."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from dataflow_grounding.boxes.matching import each_thing_once, scored_boxes
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.english.heads import head_of
from dataflow_grounding.formats import READ, WRITTEN, find_format, read, write
from dataflow_grounding.formats.format import Format
from dataflow_grounding.formats.samples import Exported
from dataflow_grounding.formats.selection import Selection
from tests.formats.data import data_sets, draw, hostile

pytestmark = pytest.mark.slow

EXACT = 0.01  # px
OPTIONS: dict[str, list[dict[str, Any]]] = {
    **{
        name: [{"classes": how} for how in ("phrase", "head", "one")]
        for name in ("coco", "kitti", "voc", "yolo", "yolo-obb", "dota")
    },
}
"""Formats with options → those that are tried."""
BOTH_WAYS = [name for name in WRITTEN if name in READ]
CASES = [(name, options) for name in BOTH_WAYS for options in OPTIONS.get(name, [{}])]
IDS = [f"{name} {' '.join(map(str, options.values()))}".strip() for name, options in CASES]


def out_and_in(
    rows: list[dict[str, Any]], name: str, options: dict[str, Any], folder: Path, turn: int = 1
) -> tuple[Exported, list[dict[str, Any]]]:
    pictures, out = folder / "pictures", folder / "out"
    draw(pictures, rows, turn)
    all_pictures = Selection(partly_verified=True)  # also with an undecided class
    done = write(rows, name, str(out), folders=[str(pictures)], select=all_pictures, **options)
    assert done.left_out == 0, done.reasons
    return done, list(read(str(out), name, **options))


TOOLS = ("cvat", "label-studio", "labelme")


def said(rows: list[dict[str, Any]], format: Format) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The expressions that a format can say, each with its record.

    Formats that are trained on have a box once of what is the same there: the class of detectors,
    else the words up to case. Detectors and labelling tools have one box, too, of several that
    overlap.
    """
    sayable = []
    for row in rows:
        seen: set[tuple[str, tuple[float, ...]]] = set()
        kept = [
            one
            for one in row["expressions"]
            if not format.carries.why_lost(one["status"], one["char_span"])
        ]
        are_things_once = format.detects or format.name in TOOLS
        once = [one["instances"] for one in kept]
        if are_things_once:
            once = things_once(kept, format)
        for one, boxes in zip(kept, once, strict=True):
            thing = what_it_is(one, format)
            if thing and not format.carries.columns:
                boxes = [box for box in boxes if (thing, tuple(box["bbox"])) not in seen]
                seen |= {(thing, tuple(box["bbox"])) for box in boxes}
            if boxes or not one["instances"]:
                sayable.append((row, {**one, "instances": boxes}))
    return sayable


def things_once(expressions: list[dict[str, Any]], format: Format) -> list[list[dict[str, Any]]]:
    once: list[list[dict[str, Any]]] = [one["instances"] for one in expressions]
    things = [what_it_is(one, format) for one in expressions]
    for thing in set(things):
        if not thing:
            continue
        places = [place for place, other in enumerate(things) if other == thing]
        phrases = [
            scored_boxes(map(Instance.from_json, expressions[place]["instances"]))
            for place in places
        ]
        for place, staying in zip(places, each_thing_once(phrases), strict=True):
            once[place] = [expressions[place]["instances"][index] for index in staying]
    return once


def what_it_is(expression: dict[str, Any], format: Format) -> str:
    if format.name in TOOLS:  # a phrase without a class is on its own
        return str(expression.get("class", "")).lower()
    how = getattr(format, "classes", "phrase")
    if how == "one" and format.name == "coco":
        return "object"
    if how == "head":
        return head_of(expression["text"].lower()) or expression["text"].lower()
    return str(format.safe(format.words_of(Expression.from_json(expression)))).lower()


def picture_of(row: Mapping[str, Any]) -> str:
    return Path(str(row["image_path"])).stem.replace(".", "_")


def check_boxes(
    rows: list[dict[str, Any]], found: list[dict[str, Any]], name: str, options: dict[str, Any]
) -> None:
    """Every box of every phrase is there, of the right picture, and none more."""
    format = find_format(name, **options)
    wanted: dict[tuple[str, str], list[list[float]]] = {}
    for row, one in said(rows, format):
        wanted.setdefault(
            (picture_of(row), format.safe(format.words_of(Expression.from_json(one)))), []
        ).extend(i["bbox"] for i in one["instances"])
    got: dict[tuple[str, str], list[list[float]]] = {}
    for row in found:
        for one in row["expressions"]:
            got.setdefault((picture_of(row), one["text"]), []).extend(
                i["bbox"] for i in one["instances"]
            )
    assert got.keys() == wanted.keys()
    for key, boxes in wanted.items():
        assert len(got[key]) == len(boxes)
        near = [
            [
                all(abs(a - b) <= EXACT for a, b in zip(box, other, strict=True))
                for other in got[key]
            ]
            for box in boxes
        ]
        assert any(
            all(map(list.__getitem__, near, order)) for order in permutations(range(len(near)))
        ), (key, got[key])


def of_expressions(
    rows: list[tuple[dict[str, Any], dict[str, Any]]], key: str
) -> Counter[tuple[str, str, str]]:
    return Counter((picture_of(row), one["text"], str(one.get(key))) for row, one in rows)


def check_carried(
    rows: list[dict[str, Any]], found: list[dict[str, Any]], name: str, options: dict[str, Any]
) -> None:
    format = find_format(name, **options)
    carries = format.carries
    texts = {one["text"] for _, one in said(rows, format)}
    if any(format.safe(format.words_of(Expression(text))) != text for text in texts):
        return  # the texts are others: their boxes were compared
    sent = said(rows, format)
    got = [(row, one) for row in found for one in row["expressions"]]
    if carries.spans:
        assert of_expressions(got, "char_span") == of_expressions(sent, "char_span")
    if carries.verified:
        assert of_expressions(got, "verified") == of_expressions(sent, "verified")
    if carries.doubtful:
        assert of_expressions(got, "status") == of_expressions(sent, "status")
    if carries.ids:
        assert of_expressions(got, "expression_id") == of_expressions(sent, "expression_id")
        ids = {row["image_id"] for row, _ in sent}
        assert {row["image_id"] for row in found} >= ids
    scores = Counter(
        (picture_of(r), one["text"], i.get("score")) for r, one in got for i in one["instances"]
    )
    if carries.scores:
        assert scores == Counter(
            (picture_of(r), e["text"], i["score"]) for r, e in sent for i in e["instances"]
        )
    else:
        assert all(score is None for _, _, score in scores)
    if carries.captions:
        pictures = {picture_of(row) for row, _ in sent}
        captions = {
            picture_of(row): format.safe(row["cleaned_caption"])
            for row in rows
            if picture_of(row) in pictures
        }
        assert {
            picture_of(row): row["caption"] for row in found if picture_of(row) in pictures
        } == captions


def check_told(rows: list[dict[str, Any]], done: Exported, format: Format) -> None:
    """Each loss is told with its count."""
    carries = format.carries
    every = [(row, one) for row in rows for one in row["expressions"]]
    sent = said(rows, format)
    why = Counter(carries.why_lost(one["status"], one["char_span"]) for _, one in every)
    expected = Counter({reason: count for reason, count in why.items() if reason})
    if not carries.spans:
        expected["spans"] = sum(bool(one["char_span"]) for _, one in sent)
    if not carries.scores:
        expected["scores"] = sum(
            i["score"] is not None for _, one in sent for i in one["instances"]
        )
    if not carries.verified:
        expected["verdicts of checks"] = sum("verified" in one for _, one in sent)
    for reason, count in expected.items():
        assert done.lost.get(reason, 0) == count, reason


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@given(rows=data_sets())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_records(name: str, options: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        done, found = out_and_in(rows, name, options, folder)
        check_boxes(rows, found, name, options)
        check_carried(rows, found, name, options)
        check_told(rows, done, find_format(name, **options))
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_hostile_records(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    rows = list(hostile())
    _, found = out_and_in(rows, name, options, tmp_path, turn=6)
    check_boxes(rows, found, name, options)
    empty = [row for row in found if picture_of(row) == "empty"]
    assert bool(empty) == find_format(name, **options).carries.empty

"""What is wrong with records, by the rules of lint_rules.yaml, and what of it can be put right without a question."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.figures.phrases import head_of, said_twice, sharing_boxes
from dataflow_grounding.geometry import MERGE_IOU, Bbox, Size, area, box_of, clamp, without_duplicates
from dataflow_grounding.records import STATUSES, Record, is_number, read_annotations
from dataflow_grounding.spans import Span, clean_caption, find_spans

RULES: dict[str, dict[str, Any]] = yaml.safe_load(files(__package__).joinpath("lint_rules.yaml").read_text("utf-8"))
_BREAKING = ("<image>", "<video>", "<bbox>", "<ref-object>", " . ")


def found_in(record: Mapping[str, Any], size: Size | None) -> Iterator[tuple[str, str]]:
    """Rule and message of each thing that is wrong with a record; `size` is its picture's, where it is known."""
    try:
        expressions = read_annotations(Record(record))
    except BrokenRow as error:
        yield "DG002", str(error)
        return
    yield from _of_record(record, expressions, size)
    caption = _caption(record)
    for expression, span in zip(expressions, _spans(expressions, caption), strict=True):
        for rule, message in (*_of_words(expression, caption, span), *_of_boxes(expression["instances"], size)):
            yield rule, f"{expression['text']!r}: {message}"


def _of_record(
    record: Mapping[str, Any], expressions: Sequence[dict[str, Any]], size: Size | None
) -> Iterator[tuple[str, str]]:
    caption = record.get("cleaned_caption")
    if isinstance(caption, str) and clean_caption(caption) != caption:
        yield "DG203", "cleaned_caption isn't normalised"
    for text in said_twice(expressions):
        yield "DG204", f"{text!r} is in it twice, with different boxes"
    for one, other, all_boxes in sharing_boxes(expressions):
        if all_boxes and head_of(one) != head_of(other):
            yield "DG205", f"{one!r} and {other!r} have the same boxes"
    corners = [corner for one in expressions for instance in one["instances"] for corner in instance["bbox"]]
    if size and min(size) > 1 and corners and 0 <= min(corners) < max(corners) <= 1:
        yield "DG107", f"no box is larger than a pixel, in {size[0]}x{size[1]}: are they parts of sides?"


def _of_words(expression: Mapping[str, Any], caption: str, place: Span | None) -> Iterator[tuple[str, str]]:
    text, boxes = expression["text"], expression["instances"]
    span, status = expression.get("char_span"), expression.get("status")
    if span is not None and not _fits(span, text, caption):
        yield "DG201", f"char_span {span} isn't where it stands in the caption"
    elif span is None and place:
        yield "DG202", f"stands in the caption, at {list(place)}, and has no char_span"
    for word in _BREAKING:
        if word in text:
            yield "DG206", f"{word!r} in it is taken for something else by trainers"
    if status is not None and status not in STATUSES:
        yield "DG301", f"status {status!r} is not one of {', '.join(STATUSES)}"
    elif status is not None and bool(boxes) != (status == "grounded"):
        yield "DG302", f"is {status} and has {len(boxes)} boxes"


def _of_boxes(instances: Sequence[dict[str, Any]], size: Size | None) -> Iterator[tuple[str, str]]:
    for instance in instances:
        box, score = box_of(instance["bbox"]), instance["score"]
        if score is not None and not (is_number(score) and 0 <= score <= 1):
            yield "DG303", f"score {score!r} isn't from 0 to 1"
        if min(box[2] - box[0], box[3] - box[1]) < 1:
            yield "DG103", f"box {list(box)} is thinner than a pixel"
        if size and (beyond := _beyond(box, size)) > 0:
            yield "DG101" if beyond >= 1 else "DG102", f"box {list(box)} ends {beyond:g} px outside {size[0]}x{size[1]}"
        elif size and area(box) > 0.95 * size[0] * size[1]:
            yield "DG106", f"box {list(box)} is nearly the whole picture"
    apart = {tuple(instance["bbox"]): {**instance, "score": None} for instance in instances}
    if len(apart) < len(instances):
        yield "DG104", "one box stands in it twice"
    if len(without_duplicates([*apart.values()], MERGE_IOU)) < len(apart):
        yield "DG105", "two of its boxes are nearly the same"


def _caption(record: Mapping[str, Any]) -> str:
    """What spans refer to."""
    caption = record.get("cleaned_caption") or record.get("caption")
    return caption if isinstance(caption, str) else ""


def _spans(expressions: Sequence[Mapping[str, Any]], caption: str) -> Sequence[Span | None]:
    """Where they stand, if one has no span or a wrong one."""
    if all(one.get("char_span") and _fits(one["char_span"], one["text"], caption) for one in expressions):
        return [None] * len(expressions)
    return find_spans([one["text"] for one in expressions], caption)


def _fits(span: Any, text: str, caption: str) -> bool:
    if not (isinstance(span, (list, tuple)) and len(span) == 2 and all(type(end) is int for end in span)):
        return False
    there = caption[span[0] : span[1]] if 0 <= span[0] < span[1] <= len(caption) else ""
    return there == text or find_spans([text], there) == [(0, len(there))]


def _beyond(box: Bbox, size: Size) -> float:
    """Pixels by which a box ends outside a picture."""
    return max(-box[0], -box[1], box[2] - size[0], box[3] - size[1])


def mended(record: Mapping[str, Any], size: Size | None, rules: Collection[str]) -> dict[str, Any]:
    """The record with everything put right that these rules find in it and that leaves no question."""
    made: dict[str, Any] = {**record}
    if not any("fix" in RULES[rule] for rule in rules):
        return made
    if "DG203" in rules:
        made["cleaned_caption"] = clean_caption(record["cleaned_caption"])
    caption, given = _caption(made), record.get("expressions") or []
    expressions: list[dict[str, Any]] = [{"text": one} if isinstance(one, str) else {**one} for one in given]
    places = find_spans([one["text"] for one in expressions], caption)
    for one, place in zip(expressions, places, strict=True):
        span = one.get("char_span")
        wrong = "DG202" if span is None else "" if _fits(span, one["text"], caption) else "DG201"
        if place and not {wrong, "DG203"}.isdisjoint(rules):
            one["char_span"] = list(place)
        if one.get("instances"):
            one["instances"] = _mended_boxes(one["instances"], size, rules)
    return {**made, "expressions": expressions} if expressions else made


def _mended_boxes(given: Any, size: Size | None, rules: Collection[str]) -> list[dict[str, Any]]:
    boxes = [{**instance} for instance in given]
    for box in boxes:
        if "DG102" in rules and size and 0 < _beyond(box["bbox"], size) < 1:
            box["bbox"] = list(clamp(box["bbox"], size))
    return without_duplicates(boxes, 1.0) if "DG104" in rules else boxes

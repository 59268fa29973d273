"""A record as the pages' scripts have it: plain JSON, offsets in UTF-16 units, its picture by address."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from dataflow_grounding.geometry import Size
from dataflow_grounding.records import is_number, path_of, stated_size
from dataflow_grounding.review.record_view import STATUS_MEANING, Expression, View
from dataflow_grounding.secrets import blotted_message

NOTES = {
    "suspect": "Suspect: the boxes look as if they were in another format than the one they are read in.",
    "doubtful": "Doubtful: much of a reply was dropped, moved or missing, or several phrases have the whole picture.",
}


class Picture(NamedTuple):
    """A record's picture as a page has it: `size` in pixels of the upright picture, the addresses of a small copy and
    of the file itself, empty without one, and why there is none.
    """

    size: Size | None = None
    thumbnail: str = ""
    full: str = ""
    missing: str = ""


NO_PICTURE = Picture()


def view_data(view: View, picture: Picture = NO_PICTURE) -> dict[str, Any]:
    """The record as `record.js` renders it, and as a review changes it.

    Args:
        view: What `view_of` made of the record.
        picture: Its picture; without its size, that which the record states.

    Returns:
        JSON: `id`, `path`, `model`, `caption`, `kind` and `problem` as texts, `width` and `height` in pixels (0 where
        they are unknown), `thumbnail`, `full`, `missing` of the picture, `marks` (the filters that show it), `notes`
        (sentences), and `expressions`: `index` from 0, `id`, `text`, `status`, `meaning` of that status, `color` in
        the palette or None, `span` `[start, end)` in the caption in UTF-16 units or None, `check`, `reasons`,
        `disputed`, `instances` with `bbox` in pixels of the upright picture, `score`, `evidence`, `bbox_id`.

    Example:
        >>> from dataflow_grounding.review.record_view import view_of
        >>> row = {"text": "mug", "char_span": [2, 5], "instances": []}
        >>> view_data(view_of({"caption": "☕\U0001f600mug", "expressions": [row]}))["expressions"][0]["span"]
        [3, 6]
    """
    record, path, marks = view.record, blotted_message(path_of(view.record)), view.marks
    width, height = picture.size or stated_size(record) or (0, 0)
    return {
        "id": str(record.get("image_id") or path or "no id"),
        "path": path,
        "model": str(record.get("model") or ""),
        "width": width,
        "height": height,
        "thumbnail": picture.thumbnail,
        "full": picture.full,
        "missing": picture.missing,
        "caption": view.caption,
        "kind": view.kind,
        "problem": view.problem,
        "marks": sorted(marks),
        "notes": [NOTES["suspect"]] * ("suspect" in marks) + [NOTES["doubtful"]] * (record.get("doubtful") is True),
        "expressions": [_expression_data(e, view.caption) for e in view.expressions],
    }


def _expression_data(e: Expression, caption: str) -> dict[str, Any]:
    return {
        "index": e.index,
        "id": e.expression_id,
        "text": e.text,
        "status": e.status,
        "meaning": STATUS_MEANING[e.status],
        "color": e.color,
        "span": utf16_span(caption, e.span),
        "check": e.check,
        "reasons": list(e.reasons),
        "disputed": e.disputed,
        "instances": [_instance_data(instance) for instance in e.instances],
    }


def _instance_data(instance: Mapping[str, Any]) -> dict[str, Any]:
    score, evidence, name = (instance.get(key) for key in ("score", "evidence", "bbox_id"))
    return {
        "bbox": list(instance["bbox"]),
        "score": score if is_number(score) else None,
        "evidence": str(evidence or ""),
        "bbox_id": None if name is None else str(name),
    }


def utf16_span(text: str, span: Sequence[int] | None) -> list[int] | None:
    """A span of code points in `text` as one of UTF-16 units, which scripts count in. None stays None."""
    if span is None or text.isascii():
        return None if span is None else list(span)
    return [_units(text[: span[0]]), _units(text[: span[1]])]


def code_point_span(text: str, span: Sequence[int]) -> tuple[int, int]:
    """A span of UTF-16 units in `text` as one of code points; a place within a character counts as its end."""
    begins = [0, *accumulate(map(_units, text))]
    start, end = (min(bisect_left(begins, at), len(text)) for at in span)
    return start, end


def _units(text: str) -> int:
    return len(text) + sum(letter > "\uffff" for letter in text)

"""A record as the pages' scripts have it: JSON, with offsets in UTF-16 units."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, ImageMissing
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.tables import load_table
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import (
    STATUSES,
    VERDICTS,
    Record,
    annotated_column,
    is_number,
    path_of,
    read_annotations,
    stated_size,
)
from dataflow_grounding.extras.evaluation.metrics.annotations import is_span
from dataflow_grounding.images.drawing import PALETTE
from dataflow_grounding.images.image import find_image

_TEXTS = load_table(__package__, "texts.yaml")
STATUS_MEANING: dict[str, str] = _TEXTS["statuses"]
MEANING: dict[str, str] = {**_TEXTS["marks"], **STATUS_MEANING}
"""The filters of records, by the order in which they are offered, and what each means."""
FIRST: tuple[str, ...] = (*_TEXTS["marks"],)
"""Those of them that come first."""
View: TypeAlias = dict[str, Any]
Expression: TypeAlias = dict[str, Any]


class Picture(NamedTuple):
    """A record's picture as a page has it.

    `size` is in pixels of the upright picture; `thumbnail` and `full` are the addresses of a small
    copy and of the file itself, empty without one; `missing` says why there is none.
    """

    size: Size | None = None
    thumbnail: str = ""
    full: str = ""
    missing: str = ""


_NO_PICTURE = Picture()


def path_of_picture(record: Record) -> str:
    """Where a record's picture is. Raises RecordError."""
    return find_image(record, "image_path" if "image_path" in record else "image").path


def why_missing(error: Exception | None = None) -> str:
    """What a page says in place of a picture."""
    if error is None or isinstance(error, (ImageMissing, BrokenRow, FileNotFoundError)):
        return "The image file is not there."
    return "The image file can't be read."


def view_of(record: Mapping[str, Any], picture: Picture = _NO_PICTURE) -> View:
    """The record as `record.js` renders it, and as a review changes it.

    It shows the record's expressions, else its region captions, else its regions.

    Args:
        record: The record, as a pipeline left it.
        picture: Its picture; without its size, that which the record states.

    Returns:
        JSON: `id`, `path`, `model`, `caption` as texts, `kind` (the column that was read),
            `problem` (why it can't be, if so), `width` and `height` in pixels (0 where they are
            unknown), `thumbnail`, `full`, `missing` of the picture, `notes` (sentences), and
            `expressions`: `index` from 0, `id`, `text`, `status`, `meaning` of that status,
            `color` in the palette or None without boxes, `span` `[start, end)` in the caption in
            UTF-16 units or None, `check` (what a check said), `reasons`, `disputed`, `instances`
            with `bbox` in pixels of the upright picture, `score`, `evidence`.

    Example:
        >>> row = {"text": "mug", "char_span": [2, 5], "instances": []}
        >>> view_of({"caption": "☕\U0001f600mug", "expressions": [row]})["expressions"][0]["span"]
        [3, 6]
    """
    column = annotated_column(record)
    caption = caption_of(record)
    path = blotted_message(path_of(record))
    problem = ""
    rows: dict[str, Expression] = {}
    try:
        rows = expressions_of(record if isinstance(record, Record) else Record(record))
    except BrokenRow as error:
        problem = str(error)
    expressions = [
        _expression_view(index, id, row, caption) for index, (id, row) in enumerate(rows.items())
    ]
    with_boxes = [expression for expression in expressions if expression["instances"]]
    for number, expression in enumerate(with_boxes):
        expression["color"] = number % len(PALETTE)
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
        "caption": caption,
        "kind": column,
        "problem": problem,
        "notes": _notes(record, (width, height)),
        "expressions": expressions,
    }


def _notes(record: Mapping[str, Any], size: Size) -> list[str]:
    """What people should know of a record whose picture has `size`, a sentence each."""
    notes = [note for name, note in _TEXTS["notes"].items() if record.get(name) is True]
    stated = stated_size(record)
    if stated is not None and stated != size:
        notes.append(_TEXTS["other_size"].format(*stated, *size))
    return notes


def expressions_of(record: Record) -> dict[str, Expression]:
    """The record's expressions, else its region captions or regions, in order, by id.

    A further one with an id that is taken is told by a number behind it, `a#0~2`. Raises BrokenRow.
    """
    expressions: dict[str, Expression] = {}
    if not annotated_column(record):
        return expressions
    for expression in read_annotations(record):
        id = str(expression["expression_id"])
        key = id
        number = 1
        while key in expressions:
            number += 1
            key = f"{id}~{number}"
        expressions[key] = expression
    return expressions


def caption_of(record: Mapping[str, Any]) -> str:
    """The caption that spans are of; empty without one."""
    for key in ("cleaned_caption", "caption"):
        text = record.get(key)
        if isinstance(text, str):
            return text
    return ""


def _expression_view(index: int, id: str, row: Expression, caption: str) -> dict[str, Any]:
    """An expression as `record.js` has it; its colour comes later."""
    status = row.get("status")
    if status not in STATUSES:
        status = "grounded" if row["instances"] else "pending"
    check = ""
    if "verified" in row:
        verified = row["verified"]
        check = VERDICTS[verified if isinstance(verified, bool) else None]
    span: Any = row.get("char_span")
    return {
        "index": index,
        "id": id,
        "text": row["text"],
        "status": status,
        "meaning": STATUS_MEANING[status],
        "color": None,
        "span": utf16_span(caption, span) if is_span(span, len(caption)) else None,
        "check": check,
        "reasons": _reasons(row, status, check),
        "disputed": row.get("disagreement") is True,
        "instances": [_box_view(instance) for instance in row["instances"]],
    }


def _reasons(row: Expression, status: str, check: str) -> list[str]:
    """Why an expression has its status, and its check's reason, beyond the check's own words."""
    reason = row.get("reason")
    if not reason and status == "unsupported":
        reason = STATUS_MEANING[status]
    verification = row.get("verification")
    check_reason = verification.get("reason") if isinstance(verification, Mapping) else ""
    return [str(why) for why in (reason, check_reason) if why and why != check]


def _box_view(instance: Mapping[str, Any]) -> dict[str, Any]:
    score = instance["score"]
    return {
        "bbox": list(instance["bbox"]),
        "score": score if is_number(score) else None,
        "evidence": str(instance.get("evidence") or ""),
    }


def utf16_span(text: str, span: Sequence[int]) -> list[int]:
    """A span of code points in `text` as one of UTF-16 units, which scripts count in."""
    if text.isascii():
        return list(span)
    return [len(text[:end].encode("utf-16-le", "surrogatepass")) // 2 for end in span]

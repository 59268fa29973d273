"""A record as the pages' scripts have it: plain JSON, offsets in UTF-16 units, its picture by
address.
"""

from collections.abc import Mapping, Sequence
from itertools import count
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
    """A record's picture as a page has it: `size` in pixels of the upright picture, the addresses
    of a small copy and of the file itself, empty without one, and why there is none.
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
    gone = error is None or isinstance(error, (ImageMissing, BrokenRow, FileNotFoundError))
    return "The image file is not there." if gone else "The image file can't be read."


def view_of(record: Mapping[str, Any], picture: Picture = _NO_PICTURE) -> View:
    """The record as `record.js` renders it, and as a review changes it: its expressions, else its
    region captions, else its regions.

    Args:
        record: The record, as a pipeline left it.
        picture: Its picture; without its size, that which the record states.

    Returns:
        JSON: `id`, `path`, `model`, `caption` as texts, `kind` (the column that was read),
            `problem` (why it can't be,
        if so), `width` and `height` in pixels (0 where they are unknown), `thumbnail`, `full`,
        `missing` of the picture, `notes` (sentences), and `expressions`: `index` from 0, `id`,
        `text`, `status`, `meaning` of that status, `color` in the palette or None without boxes,
        `span` `[start, end)` in the caption in UTF-16 units or None, `check` (what a check said),
        `reasons`, `disputed`, `instances` with `bbox` in pixels of the upright picture, `score`,
        `evidence`.

    Example:
        >>> row = {"text": "mug", "char_span": [2, 5], "instances": []}
        >>> view_of({"caption": "☕\U0001f600mug", "expressions": [row]})["expressions"][0]["span"]
        [3, 6]
    """
    column, caption, path, problem = (
        annotated_column(record),
        caption_of(record),
        blotted_message(path_of(record)),
        "",
    )
    try:
        rows = expressions_of(record if isinstance(record, Record) else Record(record))
    except BrokenRow as error:
        rows, problem = {}, str(error)
    expressions = [
        _expression(number, id, row, caption) for number, (id, row) in enumerate(rows.items())
    ]
    for number, e in enumerate(e for e in expressions if e["instances"]):
        e["color"] = number % len(PALETTE)
    stated = stated_size(record)
    width, height = picture.size or stated or (0, 0)
    notes = [note for name, note in _TEXTS["notes"].items() if record.get(name) is True]
    if stated not in (None, (width, height)):
        notes.append(_TEXTS["other_size"].format(*stated, width, height))
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
        "notes": notes,
        "expressions": expressions,
    }


def expressions_of(record: Record) -> dict[str, Expression]:
    """The record's expressions, else its region captions or regions, in order, by id; a further one
    with an id that is taken is told by a number behind it, `a#0~2`.

    Raises BrokenRow.
    """
    found: dict[str, Expression] = {}
    for expression in read_annotations(record) if annotated_column(record) else ():
        id = str(expression["expression_id"])
        names = (id if number == 1 else f"{id}~{number}" for number in count(1))
        found[next(name for name in names if name not in found)] = expression
    return found


def caption_of(record: Mapping[str, Any]) -> str:
    """The caption that spans are of; empty without one."""
    texts = (record.get(key) for key in ("cleaned_caption", "caption"))
    return next((text for text in texts if isinstance(text, str)), "")


def _expression(index: int, id: str, row: Expression, caption: str) -> dict[str, Any]:
    status, verified, verification = map(row.get, ("status", "verified", "verification"))
    span: Any = row.get("char_span")
    if status not in STATUSES:
        status = "grounded" if row["instances"] else "pending"
    check = VERDICTS[verified if isinstance(verified, bool) else None] if "verified" in row else ""
    why = row.get("reason") or (STATUS_MEANING[status] if status == "unsupported" else "")
    said = verification.get("reason") if isinstance(verification, Mapping) else ""
    return {
        "index": index,
        "id": id,
        "text": row["text"],
        "status": status,
        "meaning": STATUS_MEANING[status],
        "color": None,
        "span": utf16_span(caption, span) if is_span(span, len(caption)) else None,
        "check": check,
        "reasons": [str(reason) for reason in (why, said) if reason and reason != check],
        "disputed": row.get("disagreement") is True,
        "instances": [_instance(instance) for instance in row["instances"]],
    }


def _instance(instance: Mapping[str, Any]) -> dict[str, Any]:
    score = instance["score"] if is_number(instance["score"]) else None
    return {
        "bbox": list(instance["bbox"]),
        "score": score,
        "evidence": str(instance.get("evidence") or ""),
    }


def utf16_span(text: str, span: Sequence[int]) -> list[int]:
    """A span of code points in `text` as one of UTF-16 units, which scripts count in."""
    return [
        end if text.isascii() else len(text[:end].encode("utf-16-le", "surrogatepass")) // 2
        for end in span
    ]

"""Which column of the user's is which: told by the names that people use and by what the values look like."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from dataflow_grounding.formats.label_files import ENDINGS
from dataflow_grounding.formats.pictures import is_address
from dataflow_grounding.records import is_number

NAMES: dict[str, tuple[str, ...]] = {
    "image": (
        *("image_path", "image", "img", "file_name", "filename", "file", "image_file", "image_name", "img_path"),
        *("filepath", "path", "image_url", "url", "picture", "photo", "jpg"),
    ),
    "caption": (
        *("caption", "text", "captions", "description", "sentence", "alt_text", "alt", "txt", "recaption", "prompt"),
        *("raw", "title", "answer", "label"),
    ),
    "bbox": ("bbox", "bboxes", "boxes", "box", "bounding_boxes"),
}
"""Role → what people call its column, the likeliest first."""


def guessed(role: str, rows: Sequence[Mapping[str, Any]], taken: Sequence[str] = ()) -> str | None:
    """The column of `rows` that most likely is the one for `role`; None where none looks like it.

    Example:
        >>> rows = [{"id": 7, "file_name": "a.jpg", "text": "A cat on a rug."}]
        >>> guessed("image", rows), guessed("caption", rows), guessed("bbox", rows)
        ('file_name', 'text', None)
    """
    if role not in LOOKS:
        return None
    columns = [name for name in dict.fromkeys(chain.from_iterable(rows)) if name not in taken]
    likely = [name for name in columns if _share(LOOKS[role], rows, name) > 0.5]

    def later(name: str) -> tuple[int, int]:
        known = NAMES[role].index(name.lower()) if name.lower() in NAMES[role] else len(NAMES[role])
        return known, -sum(len(str(row.get(name))) for row in rows) if role == "caption" else 0  # the longest texts

    return min(likely, key=later, default=None)


def _share(looks: Callable[[Any], bool], rows: Sequence[Mapping[str, Any]], column: str) -> float:
    """The share of the values there that look right."""
    values = [row[column] for row in rows if row.get(column) not in (None, "")]
    return sum(map(looks, values)) / len(values) if values else 0.0


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):
        return "bytes" in value
    return isinstance(value, bytes) or is_address(value) or str(value).lower().endswith(ENDINGS)


def _is_caption(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) > 1 and not _is_picture(value)


def _is_boxes(value: Any) -> bool:
    boxes = value if isinstance(value, list) else []
    return bool(boxes) and all(isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) for box in boxes)


LOOKS: dict[str, Callable[[Any], bool]] = {"image": _is_picture, "caption": _is_caption, "bbox": _is_boxes}

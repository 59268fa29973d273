"""Boxes that are not the picture's: those of a crop, of several pictures or frames, or around the
whole of it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.vocabulary import pattern

_OF_PICTURE, _OF_CROP, _NUMBERED = map(pattern, ("of_picture", "of_crop", "numbered_picture"))
_ARROW = lazy_pattern(r"\s*(?:→|->|=>|⇒|⟶)\s*")
_OUTLINE = lazy_pattern(
    r"<\|?(?:poly\w{0,10}|contour|outline|mask)(?:_start)?\|?>(?=[^<>]{0,40}(?:\d|<loc))",
    re.IGNORECASE,
)
_PICTURE_KEY = lazy_pattern(
    r"(?:image|img|picture|pic|photo|frame|page|crop|tile|patch|view|camera|slide|shot|clip)(?:id|idx|index|no|num|number|name|path|file|url)?"
    r"|source(?:image|frame)|timestamps?|seconds?|time"
)
_CROPS = lazy_pattern(r"zoom|crop", re.IGNORECASE)
_MOST = 4000  # characters of talk in which pictures are counted


SEVERAL = "the reply has boxes of several pictures"
CROP = "the reply has the box of a crop, in which its other boxes may be"


def elsewhere_in(text: str) -> str | None:
    """Return why the boxes in a text may not be the picture's: it has outlines in tags, or counts
    several pictures.
    """
    if "<" in text and _OUTLINE.search(text):
        return "the reply has outlines in tags, where boxes were asked for"
    numbers = {
        number for match in _NUMBERED.finditer(text[:_MOST]) for number in match.groups() if number
    }
    return SEVERAL if len(numbers) > 1 else None


def is_of_crop(before: str) -> bool:
    """Whether the words right before a box say that it is a crop's, or an arrow makes one box
    another.
    """
    return bool(_OF_CROP.search(before[-100:]) or _ARROW.fullmatch(before[-100:]))


def is_of_picture(before: str) -> bool:
    """Whether words right before a box say that it is the whole picture's."""
    return _OF_PICTURE.search(before[-100:]) is not None


def is_crop(fields: Mapping[str, Any]) -> bool:
    """Whether an object is the call of a tool that cuts out a part of the picture, or has the box
    of such a part.
    """
    name = (
        fields.get("name") or fields.get("tool") or fields.get("action") or fields.get("function")
    )
    called = isinstance(name, str) and _CROPS.search(name) is not None
    arguments = any(
        isinstance(fields.get(key), (dict, str))
        for key in ("arguments", "parameters", "args", "input")
    )
    parts = [
        item
        for key, item in fields.items()
        if _CROPS.search(key) or key in ("roi", "regionofinterest")
    ]
    cut = any(item and isinstance(item, (list, dict)) for item in parts)
    return (called and arguments) or cut


def pictures_of(fields: Mapping[str, Any]) -> Iterable[str]:
    """Return what an object says of the picture that its box is in: its number, name or time."""
    for key, item in fields.items():
        if (
            isinstance(item, (int, float, str))
            and not isinstance(item, bool)
            and _PICTURE_KEY.fullmatch(key)
        ):
            yield f"{key} {str(item)[:80]}"

"""Boxes of something else than the picture: of a crop, of other pictures, of all of it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.vocabulary import pattern

_OF_PICTURE = pattern("of_picture")  # right before a box: "The whole image is "
_OF_CROP = pattern("of_crop")  # right before a box: "zoomed in to the region "
_NUMBERED = pattern("numbered_picture")  # "image 2", "the second photo"; one group matches
_ARROW = lazy_pattern(r"\s*(?:→|->|=>|⇒|⟶)\s*")
# A tag of an outline, with a number or location behind it: "<polygon>12".
_OUTLINE = lazy_pattern(
    r"<\|?(?:poly\w{0,10}|contour|outline|mask)(?:_start)?\|?>(?=[^<>]{0,40}(?:\d|<loc))",
    re.IGNORECASE,
)
# A key, as keys are compared, that names a box's picture: "imageid", "frame".
_PICTURE_KEY = lazy_pattern(
    r"(?:image|img|picture|pic|photo|frame|page|crop|tile|patch|view|camera|slide|shot|clip)(?:id|idx|index|no|num|number|name|path|file|url)?"
    r"|source(?:image|frame)|timestamps?|seconds?|time"
)
_CROPS = lazy_pattern(r"zoom|crop", re.IGNORECASE)  # in a key or the name of a tool
_NEAR = 100  # characters before a box that may say what it is of
_MOST = 4000  # characters of talk in which pictures are counted
# Under these keys stands the name of a tool, and what it is called with.
_TOOL_KEYS = ("name", "tool", "action", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")

SEVERAL_PICTURES = "the reply has boxes of several pictures"
CROP = "the reply has the box of a crop, in which its other boxes may be"


def elsewhere_in(text: str) -> str | None:
    """Return why the boxes in a text may not be the picture's, as a message; None if they may be.

    They may not where the text has outlines in tags, or numbers several pictures.
    """
    if "<" in text and _OUTLINE.search(text):
        return "the reply has outlines in tags, where boxes were asked for"
    numbers: set[str] = set()
    for match in _NUMBERED.finditer(text[:_MOST]):
        numbers.update(number for number in match.groups() if number)
    return SEVERAL_PICTURES if len(numbers) > 1 else None


def is_of_crop(before: str) -> bool:
    """Whether the words right before a box say that it is in a crop, or are an arrow alone."""
    near = before[-_NEAR:]
    return _OF_CROP.search(near) is not None or _ARROW.fullmatch(near) is not None


def is_of_picture(before: str) -> bool:
    """Whether the words right before a box say that it is the whole picture's."""
    return _OF_PICTURE.search(before[-_NEAR:]) is not None


def is_crop(fields: Mapping[str, Any]) -> bool:
    """Whether an object calls a tool that cuts out a part of the picture, or has that part's box.

    `fields` are the object's fields by their keys as keys are compared.
    """
    if _crops(fields):
        return True
    for key, item in fields.items():
        of_part = _CROPS.search(key) is not None or key in ("roi", "regionofinterest")
        if of_part and item and isinstance(item, (list, dict)):
            return True
    return False


def _crops(fields: Mapping[str, Any]) -> bool:
    """Whether an object is the call of a tool that zooms or crops."""
    names = [fields[key] for key in _TOOL_KEYS if fields.get(key)]
    if not names or not isinstance(names[0], str) or _CROPS.search(names[0]) is None:
        return False
    return any(isinstance(fields.get(key), (dict, str)) for key in _ARGUMENT_KEYS)


def pictures_of(fields: Mapping[str, Any]) -> Iterable[str]:
    """Yield the fields of an object that name its box's picture, by a number, name or time.

    Each is a text of key and value: "frame 12".
    """
    for key, item in fields.items():
        if isinstance(item, bool) or not isinstance(item, (int, float, str)):
            continue
        if _PICTURE_KEY.fullmatch(key):
            yield f"{key} {str(item)[:80]}"

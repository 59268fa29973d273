"""The order and the unit that a reply states for its numbers, in words or under keys.

A unit is "px", "%", "relative" (any part of the picture), the end of a range such as "1000", or
"640x480": the pixels of a picture of that size. What is stated and not understood makes a reply
unreadable: any box could be meant.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import BoxFormat, Order, Scale
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.json_values import number
from dataflow_grounding.replies.reading import ParsedReply

LEGEND, _UNIT_IN_WORDS, _ORDER_IN_WORDS, _OTHERWISE, _NO_UNIT, _UNIT_WORD = map(
    keys.pattern, ("legend", "unit_in_words", "order_in_words", "otherwise", "no_unit", "unit_word")
)
# Texts without any of these state none: most are done with after this look.
_ORDER_HINTS, _UNIT_HINTS = sorted(keys.words("order_hints")), sorted(keys.words("unit_hints"))
_RANGE_OR_SIZE = lazy_pattern(
    r"\d\s?[x×*]\s?\d|0\s?(?:[-–—~～至到à]|\.\.|から|\b(?:to|and|bis|a)\b)|,\s?1\d{0,3}[\])]"
)
_COORDINATE = lazy_pattern(keys.COORDINATE, re.IGNORECASE)
_ORDER_NAMES: dict[str, Order] = {
    name: order for order, names in keys.order_names().items() for name in (order, *names.split())
}
# Families that write a location as `<loc_12>`.
_SHARED_TOKENS = ("florence-2", "doctags")
# Keys, as keys are compared, under which an order or a unit is stated; of these, those that state
# nothing else.
_STATES = lazy_pattern(
    r"format|mode|order|convention|system|unit|scal|norm|absolute|relative|pixel|origin|anchor|range|coord"
)
_STATES_ORDER = lazy_pattern(
    r"(?:b?box|coord)\w*(?:format|order|mode|convention)|(?:format|order)of\w*(?:box|coord)\w*"
)
_LETTERS_OF_ORDER = lazy_pattern(r"[xyltrbwhc]{4,6}")
_NEUTRAL = keys.words("neutral_formats")
_NEARLY = 0.05  # by which the stated size of a picture may differ from the one that was sent
_SIZE = lazy_pattern(r"(?<![\w.])(\d{1,5})(?:px)?\s?[x×*,]\s?(\d{1,5})(?:px)?(?![\w.])")
# beside these, width and height are the box's
_BOX_SIDES = keys.BOX_KEYS | {"x", "left", "cx", "xcenter"}
_LEAD = 40  # characters before the first word for a unit that may belong to it
_LONGEST = 200  # characters of a field that may state something


def stated_order(text: str) -> Order | None:
    """Return the order of the numbers that a text states, or None. Raises UnreadableReply for
    several or others.
    """
    stated = {_order(match[1], match[2]) for match in LEGEND.finditer(text)}
    low = text.lower()
    if any(hint in low for hint in _ORDER_HINTS):
        stated |= {
            _ORDER_NAMES.get(match.lastgroup or "") for match in _ORDER_IN_WORDS.finditer(text)
        }
    if len(stated) > 1 or None in stated:
        raise UnreadableReply("the reply states an order of coordinates that is not clear")
    return next(iter(stated), None)


def stated_unit(text: str) -> str | None:
    """Return the unit that a text states for boxes, the last one where there are several; None for
    none.
    """
    low = text.lower()
    first = min((low.find(hint) for hint in _UNIT_HINTS if hint in low), default=len(text))
    others = _RANGE_OR_SIZE.search(text)
    first = min(first, others.start() if others else len(text))
    if first == len(text):
        return None
    unit = None
    for match in _UNIT_IN_WORDS.finditer(text, max(0, first - _LEAD)):
        before = text[max(0, match.start() - 40) : match.start()]
        if _NO_UNIT.search(before) is None:
            unit = _unit(match)
    return unit


def _unit(match: re.Match[str]) -> str:
    names = {"pixels": "px", "percent": "%", "relative": "relative", "thousandths": "1000"}
    if match.lastgroup in names:
        return names[match.lastgroup]
    sizes = [group for name, group in match.groupdict().items() if group and name[0] in "wh"]
    if len(sizes) == 2:
        return _unit_of_size(int(sizes[0]), int(sizes[1]))
    ends = (group for name, group in match.groupdict().items() if group and name.startswith("end"))
    return next(ends)


def _unit_of_size(width: int, height: int) -> str:
    return (
        str(width)
        if width == height and width in (1, 100, 999, 1000, 1024)
        else f"{width}x{height}"
    )


def fits(unit: str, scale: Scale, numbers: Sequence[float], sizes: Sequence[Size]) -> bool:
    """Whether numbers in a unit may be read in a scale; `sizes`: of the picture, in pixels, as it
    is and as sent.
    """
    if "x" in unit and unit != "px":
        width, height = map(int, unit.split("x"))
        if max(numbers) > max(width, height):  # then it isn't what the numbers count
            return True
        return scale == "px" and any(_nearly((width, height), size) for size in sizes)
    if unit in ("px", "relative") or scale == "px":
        return (unit == "px") == (scale == "px")
    return isinstance(scale, str) or abs((100 if unit == "%" else int(unit)) - scale) <= 1


def _nearly(stated: Size, size: Size) -> bool:
    # A shape is height by width, and models mix the two up elsewhere.
    pairs = zip(sorted(stated), sorted(size), strict=True)
    return all(abs(one - other) <= _NEARLY * other for one, other in pairs)


def apply_stated(parsed: ParsedReply, since: int, fields: Mapping[str, Any]) -> None:
    """Give the boxes from the `since`-th on the order and the unit that their object's other fields
    state.

    `fields` are the object's `plain_fields`. Raises UnreadableReply for what is stated and not
    understood.
    """
    order = unit = None
    for key, item in _fields_within(fields):
        if _STATES.search(key):
            of_field = _stated_under(key, item)
        else:
            text = _as_text(item)
            of_field = (
                (stated_order(text), stated_unit(text) or _unit_alone(text))
                if text
                else (None, None)
            )
        order, unit = order or of_field[0], unit or of_field[1]
    parsed.state(since, order, unit or _unit_of_picture(fields))


def _fields_within(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that may state something, also those of an object under a key such as
    "meta".
    """
    for key, item in fields.items():
        if isinstance(item, dict):
            yield from ((key + keys.plain_key(inner), value) for inner, value in item.items())
        elif key not in keys.LABEL_KEYS and key not in keys.BOX_KEYS:
            yield key, item


def _stated_under(key: str, item: Any) -> tuple[Order | None, str | None]:
    """Return the order and the unit that a value under a key for them states."""
    if isinstance(item, bool):
        return None, _unit_of_flag(key, item)
    if "scal" in key or "range" in key:
        item = _end_of_range(item)
    text = _as_text(item)
    if "origin" in key or "anchor" in key:
        if _OTHERWISE.search(text):
            raise UnreadableReply(f"the reply counts from {text[:40]!r}")
        return None, None
    order = stated_order(text) or _ORDER_NAMES.get(keys.plain_key(text))
    unit = stated_unit(text) or _unit_alone(text)
    if order is None and unit is None and _is_unknown_order(key, keys.plain_key(text)):
        raise UnreadableReply(
            f"the reply states an order of coordinates that is not known: {text[:40]!r}"
        )
    return order, unit


def _end_of_range(item: Any) -> Any:
    """Return a range from 0 on as text, as "0-100" for 100 and for [0, 100]; anything else as it
    is.
    """
    end = item[1] if isinstance(item, list) and len(item) == 2 and number(item[0]) == 0 else item
    return f"0-{end:.0f}" if isinstance(end, (int, float)) and end >= 100 else item


def _unit_of_flag(key: str, value: bool) -> str | None:
    """Return the unit that a yes or no under a key such as "normalized" states; None for a key of
    another kind.
    """
    if "absolute" in key or "pixel" in key or "unnorm" in key:
        return "px" if value else "relative"
    if "norm" in key or "relative" in key:
        return "relative" if value else "px"
    return None


def _is_unknown_order(key: str, plain: str) -> bool:
    """Whether a text is letters for coordinates, or anything under a key that states the order of a
    box.
    """
    states_order = _STATES_ORDER.search(key) is not None and plain not in _NEUTRAL
    return bool(plain) and (states_order or _LETTERS_OF_ORDER.fullmatch(plain) is not None)


def _unit_alone(text: str) -> str | None:
    """Return the unit that a text is, or begins with, as "absolute" and "normalized_0_1000" do."""
    match = _UNIT_WORD.match(text.strip().replace("_", " ")) if len(text) < 40 else None
    return None if match is None else _unit(match)


def _as_text(item: Any) -> str:
    if isinstance(item, list) and len(item) <= 8:
        item = (
            ", ".join(str(entry) for entry in item)
            if all(isinstance(entry, str) for entry in item)
            else ""
        )
    return item if isinstance(item, str) and len(item) <= _LONGEST else ""


def _unit_of_picture(fields: Mapping[str, Any]) -> str | None:
    """Return the size that an object states for its picture, as a unit; None for none."""
    sizes = [(fields.get("imagewidth"), fields.get("imageheight"))]
    if _BOX_SIDES.isdisjoint(fields):
        sizes.append((fields.get("width"), fields.get("height")))
    for key, item in fields.items():
        if key in keys.IMAGE_SIZE_KEYS or (
            isinstance(item, dict) and key.startswith(("image", "img", "picture"))
        ):
            sizes.append(_two_sides(item))
    for size in sizes:
        sides = [int(side) for item in size if (side := number(item)) is not None]
        if len(sides) == 2 and min(sides) > 0:
            return _unit_of_size(*sides)
    return None


def _two_sides(item: Any) -> tuple[Any, Any]:
    """Return what a field says of a picture's sides, as "640x480", [480, 640, 3] and an object with
    both do.
    """
    if isinstance(item, dict):
        return item.get("width"), item.get("height")
    if isinstance(item, str):
        match = _SIZE.search(item[:_LONGEST])
        return (match[1], match[2]) if match else (None, None)
    return (item[0], item[1]) if isinstance(item, list) and len(item) in (2, 3) else (None, None)


def _order(names: str | None, word: str | None) -> Order | None:
    if names is None:
        return keys.ORDER_KEYS.get((word or "").lower())
    four = [keys.plain_key(name) for name in _COORDINATE.findall(names)]
    for corners, order in keys.CORNERS:
        if four == list(corners):
            return order
        if order == "xyxy" and four == [corners[i] for i in (1, 0, 3, 2)]:
            return "yxyx"
    return None


def goes_first(asked: BoxFormat, family: BoxFormat) -> bool:
    """Whether a format goes before the family whose tokens stand in the reply.

    `<loc_12>` is written by several families, each in its own scale: one of them that is asked for
    goes first, and so does a scale and order that is stated by itself, but pixels, which no such
    token counts. `<loc0012>` is always one of 1,024 bins, of which only the order can be stated.
    """
    if asked.name in known_formats():
        return asked.name in _SHARED_TOKENS and family.name in _SHARED_TOKENS
    if family.name not in _SHARED_TOKENS and asked.scale != family.scale:
        return False
    return isinstance(asked.scale, int) and (asked.scale, asked.order) != (
        family.scale,
        family.order,
    )

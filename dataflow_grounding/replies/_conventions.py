"""The order and the unit that a reply states for its numbers, in words or under keys.

A unit is one of these:

- "px", pixels of the picture that was sent or of the image;
- "%", or "relative" for parts of the picture's sides, whatever the whole is;
- the end of a range that begins with 0, such as "1000";
- "640x480", the pixels of a picture of that size, of which either side may be the width;
- "picture 640x480", which says of what size the picture is, and not what numbers count: boxes that
  are asked for in pixels are of that picture then.

What is stated and not understood makes a reply unreadable: any box could be meant.
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
from dataflow_grounding.replies.json_text import holds_objects
from dataflow_grounding.replies.json_values import number
from dataflow_grounding.replies.reading import ParsedReply

# Four names of coordinates, "[x1, y1, x2, y2]", or a word such as "xyxy": a group for each of both.
LEGEND = keys.pattern("legend")
_UNIT_IN_WORDS = keys.pattern("unit_in_words")  # in a sentence: "in pixels", "from 0 to 1000"
# In a sentence: "top-left corner and size". The last group that matched is named for the order, by
# a key of `_ORDER_NAMES`; or it is "unclear".
_ORDER_IN_WORDS = keys.pattern("order_in_words")
_OTHERWISE = keys.pattern("otherwise")  # an origin other than the top left: "bottom", "center"
_NO_UNIT = keys.pattern("no_unit")  # what makes a unit behind it none of boxes: "not", "confidence"
_UNIT_WORD = keys.pattern("unit_word")  # as a whole field: "absolute", "normalized 0-1000"
# Texts without any of these state none: most are done with after this look.
_ORDER_HINTS = sorted(keys.words("order_hints"))
_UNIT_HINTS = sorted(keys.words("unit_hints"))
# Name of a group in the patterns for units → the unit that it stands for.
_UNIT_OF_GROUP = {"pixels": "px", "percent": "%", "relative": "relative", "thousandths": "1000"}
# What may be a range or a size: "640x4" of "640x480", "0-" of "0-1000", ", 1000]" of "[0, 1000]".
_RANGE_OR_SIZE = lazy_pattern(
    r"\d\s?(?:[x×*]|by)\s?\d|0\s?(?:[-–—~～至到à]|\.\.|から|\b(?:to|and|bis|a)\b)|,\s?1\d{0,3}[\])]"
)
# Two corners whose coordinates are called alike.
_CORNERS_UNNUMBERED: dict[tuple[str, ...], Order] = {
    ("x", "y", "x", "y"): "xyxy",
    ("y", "x", "y", "x"): "yxyx",
}
_ENDS_IN_SIZE = keys.pattern("ends_in_size")  # in a sentence: "the last two numbers are the size"
_TOLD_SIZE = keys.pattern("told_size")  # of a thing: "200 pixels wide and 400 tall"
_COORDINATE = lazy_pattern(keys.COORDINATE, re.IGNORECASE)


def _order_names() -> dict[str, Order]:
    """Return the orders by their names; the letters of an order are one of its names."""
    orders: dict[str, Order] = {order: order for order in keys.ORDER_KEYS.values()}
    for order, names in keys.order_names().items():
        for name in names.split():
            orders[name] = order
    return orders


_ORDER_NAMES = _order_names()  # name → order: "xyxy", "coco"
# Families that write a location as `<loc_12>`.
_SHARED_TOKENS = ("florence-2", "doctags")
# In keys, as keys are compared, under which an order or a unit may be stated: "bboxformat".
_STATES = lazy_pattern(
    r"format|mode|order|convention|system|unit|scal|norm|absolute|relative|pixel|origin|anchor|range|coord"
)
# In keys under which an order is stated and nothing else: a text there is one, known or not.
_STATES_ORDER = lazy_pattern(
    r"(?:b?box|coord)\w*(?:format|order|mode|convention)|(?:format|order)of\w*(?:box|coord)\w*"
)
_LETTERS_OF_ORDER = lazy_pattern(r"[xyltrbwhc]{4,6}")  # a text that is an order: "xxyy"
_NEUTRAL = keys.words("neutral_formats")  # texts under such keys that are none: "json", "list"
_NEARLY = 0.05  # of a side: by how much the stated size of a picture may differ from the true one
# The size of a picture: "640x480", "640, 480".
_SIZE = lazy_pattern(r"(?<![\w.])(\d{1,5})(?:px)?\s?[x×*,]\s?(\d{1,5})(?:px)?(?![\w.])")
# Keys beside which `width` and `height` are the box's, and not the picture's.
_KEYS_OF_BOX = keys.BOX_KEYS.union(
    names[0] for names, order in keys.CORNERS if order in ("xywh", "cxcywh")
)
# Beginnings of keys under which an object with a width and a height is about the picture.
_OF_PICTURE = ("image", "img", "picture")
# Keys of the picture's size in an object that isn't about one thing.
_OF_DOCUMENT = ("size", "metadata", "meta")
# A key of a picture's width: "origwidth", "imgw". The groups are what stands before, and the word.
_WIDTH_OF_PICTURE = lazy_pattern(
    r"((?:image|img|picture|pic|photo|screenshot|original|orig|input|source|resized)+)(w|width)"
)
_LEAD = 40  # characters before the first word for a unit that may belong to it
_LONGEST_BEFORE_UNIT = 40  # characters before a unit in which `_NO_UNIT` is looked for
_LONGEST = 200  # characters of a field that may state something
_LONGEST_ALONE = 40  # characters of a field that is a unit by itself, exclusive
_MOST_TEXTS = 8  # items of a list that may state something, such as ["x1", "y1", "x2", "y2"]
_NOTHING_STATED = (None, None)
_ENDS = (1, 100, 999, 1000, 1024)  # of ranges in which models count


def stated_order(text: str) -> Order | None:
    """Return the order of the numbers that a text states, by names or in words, or None.

    Raises:
        UnreadableReply: It states several, or one that is not known.
    """
    stated: set[Order | None] = set()
    for match in LEGEND.finditer(text):
        stated.add(_order_of_legend(match[1], match[2]))
    low = text.lower()
    if any(hint in low for hint in _ORDER_HINTS):
        for match in _ORDER_IN_WORDS.finditer(text):
            stated.add(_ORDER_NAMES.get(match.lastgroup or ""))
    if len(stated) > 1 or None in stated:
        raise UnreadableReply("the reply states an order of coordinates that is not clear")
    return stated.pop() if stated else None


def says_ends_in_size(text: str) -> bool:
    """Whether a text says that a box's four numbers end in a width and a height.

    They begin with a corner or a center: in which order, the format tells that was asked for.
    """
    low = text.lower()
    if "two" not in low and "fourth" not in low and "4th" not in low:
        return False
    return _ENDS_IN_SIZE.search(text) is not None


def told_sizes(text: str) -> set[tuple[float, float]]:
    """Return the sizes that a text tells, of things or of the picture, as (width, height)."""
    if "wid" not in text.lower():
        return set()
    sizes: set[tuple[float, float]] = set()
    for match in _TOLD_SIZE.finditer(text):
        width, height = (float(side) for side in match.groups() if side)
        sizes.add((width, height))
    return sizes


def stated_unit(text: str) -> str | None:
    """Return the last unit that a text states for boxes, or None.

    One behind words such as "not" or "confidence" doesn't count.
    """
    first = _first_hint_of_unit(text)
    if first >= len(text):
        return None
    unit = None
    for match in _UNIT_IN_WORDS.finditer(text, max(0, first - _LEAD)):
        before = text[max(0, match.start() - _LONGEST_BEFORE_UNIT) : match.start()]
        if _NO_UNIT.search(before) is None:
            unit = _unit_of_match(match)
    return unit


def without_conventions(text: str) -> str:
    """Return a text without the names of coordinates and the units that it states.

    Example:
        >>> without_conventions("Boxes are [x1, y1, x2, y2], in pixels.")
        'Boxes are  ,  .'
    """
    without_order = LEGEND.sub(" ", text)
    if _first_hint_of_unit(without_order) >= len(without_order):
        return without_order
    return _UNIT_IN_WORDS.sub(" ", without_order)


def _first_hint_of_unit(text: str) -> int:
    """Return the index of the first word, range or size that may state a unit.

    Where there is none, it is the length of the text.
    """
    starts: list[int] = []
    low = text.lower()
    for hint in _UNIT_HINTS:
        start = low.find(hint)
        if start >= 0:
            starts.append(start)
    range_or_size = _RANGE_OR_SIZE.search(text)
    if range_or_size is not None:
        starts.append(range_or_size.start())
    return min(starts, default=len(text))


def _unit_of_match(match: re.Match[str]) -> str:
    """Return the unit that a match of a pattern for units states.

    The groups that matched say which it is: one that is named for a unit; two whose names begin
    with w and h, the sides of a picture; or one whose name begins with "end", the end of a range.
    """
    if match.lastgroup in _UNIT_OF_GROUP:
        return _UNIT_OF_GROUP[match.lastgroup]
    sides: list[str] = []
    ends: list[str] = []
    for name, text in match.groupdict().items():
        if text and name[0] in "wh":
            sides.append(text)
        elif text and name.startswith("end"):
            ends.append(text)
    if len(sides) == 2:
        if match.lastgroup and match.lastgroup.endswith("_is"):
            return f"picture {sides[0]}x{sides[1]}"
        return _unit_of_size(int(sides[0]), int(sides[1]))
    return ends[0]


def _unit_of_size(first_side: int, second_side: int) -> str:
    """Return the size of a picture as a unit, its sides as they were stated: "640x480".

    A square of a side to which models count, such as 1000, is the end of a range: "1000".
    """
    if first_side == second_side and first_side in _ENDS:
        return str(first_side)
    return f"{first_side}x{second_side}"


def unit_fits_scale(
    unit: str, scale: Scale, numbers: Sequence[float], sizes: Sequence[Size]
) -> bool:
    """Whether numbers in a unit may be read in a scale.

    Pixels go with pixels alone. So does the size of a picture, if it is about the picture's own;
    where a number is larger than both sides, the size isn't what they count, and any scale will do.
    A size that is only said of the picture speaks against pixels of another one, and nothing else.
    "relative" goes with any scale but pixels. A percentage or another end of a range goes with a
    scale that ends there, or is one off: 999 and 1000 are taken for each other. Cells of a grid,
    which no unit counts, go with all but pixels and sizes.

    Args:
        unit: What the reply states: `px`, `relative`, `%`, an end such as `1000`, or a size in
            pixels such as `640x480`.
        scale: The scale that was asked for.
        numbers: A box's coordinates as written.
        sizes: Those of the picture in pixels, as it is and as sent.
    """
    if unit == "px":
        return scale == "px"
    if "x" in unit:
        of_picture, _, size_stated = unit.rpartition(" ")
        first_side, second_side = map(int, size_stated.split("x"))
        if of_picture and scale != "px":
            return True
        if max(numbers) > max(first_side, second_side):
            return True
        stated = (first_side, second_side)
        return scale == "px" and any(_nearly_same_size(stated, size) for size in sizes)
    if scale == "px":
        return False
    if unit == "relative":
        return True
    if isinstance(scale, str):  # cells of a grid
        return True
    end = 100 if unit == "%" else int(unit)
    return abs(end - scale) <= 1


def _nearly_same_size(stated: Size, size: Size) -> bool:
    """Whether two sizes differ little, whichever of their sides is the width.

    A shape is height by width, and models mix the two up elsewhere.
    """
    for stated_side, side in zip(sorted(stated), sorted(size), strict=True):
        if abs(stated_side - side) > _NEARLY * side:
            return False
    return True


def apply_stated_conventions(parsed: ParsedReply, since: int, fields: Mapping[str, Any]) -> None:
    """Set the order and the unit of boxes to those that other fields of their object state.

    The first field that states one counts. Boxes that have an order or a unit keep it.

    Args:
        parsed: What was read so far.
        since: The index of the first of the boxes in `parsed.boxes`; they go to the end.
        fields: The object's fields by their keys as keys are compared.

    Raises:
        UnreadableReply: What is stated is not understood.
    """
    order = None
    unit = None
    for key, item in _fields_that_may_state(fields):
        if _STATES.search(key):
            field_order, field_unit = _conventions_under_key(key, item)
        else:
            field_order, field_unit = _conventions_in_text(_as_text(item))
        order = order or field_order
        unit = unit or field_unit
    parsed.set_conventions(since, order, unit or _unit_of_picture(fields))


def _conventions_in_text(text: str) -> tuple[Order | None, str | None]:
    """Return the order and the unit that a text states, each None where it states none.

    Raises:
        UnreadableReply: The order that it states is not known.
    """
    if not text:
        return _NOTHING_STATED
    return stated_order(text), stated_unit(text) or _unit_alone(text)


def _fields_that_may_state(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an object that may state an order or a unit, each as (key, value).

    These are all but labels and boxes. Instead of an object it has that one's fields, with both
    keys joined: "bboxformat" for `{"bbox": {"format": …}}`.
    """
    for key, item in fields.items():
        if isinstance(item, dict):
            for inner_key, inner_item in item.items():
                yield key + keys.plain_key(inner_key), inner_item
        elif key not in keys.LABEL_KEYS and key not in keys.BOX_KEYS:
            yield key, item


def _conventions_under_key(key: str, item: Any) -> tuple[Order | None, str | None]:
    """Return the order and the unit that a value states under a key for one of them.

    Each is None where it states none.

    Raises:
        UnreadableReply: What it states is not known, or it counts from another corner than the top
            left.
    """
    if isinstance(item, bool):
        return None, _unit_of_flag(key, item)
    if "scal" in key or "range" in key:
        item = _end_of_range(item)
    text = _as_text(item)
    if "origin" in key or "anchor" in key:
        if _OTHERWISE.search(text):
            raise UnreadableReply(f"the reply counts from {text[:40]!r}")
        return _NOTHING_STATED
    order = stated_order(text) or _ORDER_NAMES.get(keys.plain_key(text))
    unit = stated_unit(text) or _unit_alone(text)
    if order is None and unit is None and _is_unknown_order(key, keys.plain_key(text)):
        raise UnreadableReply(
            f"the reply states an order of coordinates that is not known: {text[:40]!r}"
        )
    return order, unit


def _end_of_range(item: Any) -> Any:
    """Return a range from 0 to 100 or more as a text: "0-100" for 100 and for [0, 100].

    Anything else is returned as it is.
    """
    end = item
    if isinstance(item, list) and len(item) == 2 and number(item[0]) == 0:
        end = item[1]
    if isinstance(end, (int, float)) and end >= 100:
        return f"0-{end:.0f}"
    return item


def _unit_of_flag(key: str, value: bool) -> str | None:
    """Return the unit that true or false states under a key such as "normalized".

    None for a key of another kind.
    """
    if "absolute" in key or "pixel" in key or "unnorm" in key:
        return "px" if value else "relative"
    if "norm" in key or "relative" in key:
        return "relative" if value else "px"
    return None


def _is_unknown_order(key: str, plain: str) -> bool:
    """Whether a text that is no known order states one all the same, by its letters or its key.

    Args:
        key: The key that the text stands under, as keys are compared.
        plain: The text, as keys are compared.
    """
    if not plain:
        return False
    if _LETTERS_OF_ORDER.fullmatch(plain) is not None:
        return True
    return _STATES_ORDER.search(key) is not None and plain not in _NEUTRAL


def _unit_alone(text: str) -> str | None:
    """Return the unit that a short text begins with, such as "absolute" or "normalized_0_1000".

    None for any other text.
    """
    if len(text) >= _LONGEST_ALONE:
        return None
    match = _UNIT_WORD.match(text.strip().replace("_", " "))
    return None if match is None else _unit_of_match(match)


def _as_text(item: Any) -> str:
    """Return a short text, or a short list of texts joined by commas; "" for anything else."""
    if isinstance(item, list) and len(item) <= _MOST_TEXTS:
        if not all(isinstance(entry, str) for entry in item):
            return ""
        item = ", ".join(item)
    if not isinstance(item, str) or len(item) > _LONGEST:
        return ""
    return item


def _unit_of_picture(fields: Mapping[str, Any]) -> str | None:
    """Return the first size that an object states for its picture as a unit, or None.

    Its sides are two positive numbers, in the order in which they are stated.
    """
    sizes = [(fields.get("imagewidth"), fields.get("imageheight"))]
    if _KEYS_OF_BOX.isdisjoint(fields):
        sizes.append((fields.get("width"), fields.get("height")))
    for key, item in fields.items():
        of_picture = isinstance(item, dict) and key.startswith(_OF_PICTURE)
        if of_picture or key in keys.IMAGE_SIZE_KEYS:
            sizes.append(_two_sides(item))
        elif key in _OF_DOCUMENT and _is_document(fields):
            sides = _two_sides(item)
            if sides[0] != sides[1]:  # a square may be a thing's, and looks like the end of a range
                sizes.append(sides)
    for first_stated, second_stated in sizes:
        size = _size_of_sides(first_stated, second_stated)
        if size is not None:
            return _unit_of_size(*size)
    return _size_told_of_picture(fields)


def _is_document(fields: Mapping[str, Any]) -> bool:
    """Whether an object has a list of others and no label: a size in it is the picture's."""
    if not fields.keys().isdisjoint(keys.LABEL_KEYS):
        return False
    return any(isinstance(item, list) and holds_objects(item) for item in fields.values())


def _size_told_of_picture(fields: Mapping[str, Any]) -> str | None:
    """Return a size that an object tells of its picture, as a unit; None where it tells none.

    It stands under two keys such as `original_width` and `original_height`. What the numbers count
    they don't say.
    """
    for key, item in fields.items():
        of_width = _WIDTH_OF_PICTURE.fullmatch(key)
        if of_width is None:
            continue
        height_key = of_width[1] + ("h" if of_width[2] == "w" else "height")
        size = _size_of_sides(item, fields.get(height_key))
        if size is not None:
            return f"picture {size[0]}x{size[1]}"
    return None


def _size_of_sides(first: Any, second: Any) -> Size | None:
    """Return two sides as they are stated, as whole numbers; None unless both are positive."""
    first_side = number(first)
    second_side = number(second)
    if first_side is None or second_side is None:
        return None
    if int(first_side) <= 0 or int(second_side) <= 0:
        return None
    return int(first_side), int(second_side)


def _two_sides(item: Any) -> tuple[Any, Any]:
    """Return the two sides of a picture that a field states, as they stand there.

    The field may be "640x480", [480, 640, 3], or an object with a width and a height. (None, None)
    for anything else.
    """
    if isinstance(item, dict):
        return item.get("width", item.get("w")), item.get("height", item.get("h"))
    if isinstance(item, str):
        match = _SIZE.search(item[:_LONGEST])
        if match is not None:
            return match[1], match[2]
    if isinstance(item, list) and len(item) in (2, 3):
        return item[0], item[1]
    return None, None


def _order_of_legend(names: str | None, word: str | None) -> Order | None:
    """Return the order of four names such as [x1, y1, x2, y2], or else of a word such as xyxy.

    None where no format has that order. The arguments are the two groups of LEGEND, of which one is
    None.
    """
    if names is None:
        return keys.ORDER_KEYS.get((word or "").lower())
    four = tuple(keys.plain_key(name) for name in _COORDINATE.findall(names))
    if four in _CORNERS_UNNUMBERED:
        return _CORNERS_UNNUMBERED[four]
    for corners, order in keys.CORNERS:
        if four == corners:
            return order
        x1, y1, x2, y2 = corners
        if order == "xyxy" and four == (y1, x1, y2, x2):
            return "yxyx"
    return None


def reads_tokens_as_asked(asked: BoxFormat, family: BoxFormat) -> bool:
    """Whether location tokens are read in the format asked for, not in that of their family.

    Several families write `<loc_12>`, each in its own scale, so that the token alone doesn't tell
    the format. `<loc0012>` is always one of 1,024 bins.

    Args:
        asked: The format that was asked for.
        family: The format of the family whose tokens they look like.

    Returns:
        Whether `asked` decides. False also where both formats mean the same, as then it makes no
        difference.
    """
    is_family_format = asked.name in known_formats()
    tokens_are_shared = family.name in _SHARED_TOKENS
    if is_family_format:
        # A family's own format can only mean tokens that this family writes, too.
        return tokens_are_shared and asked.name in _SHARED_TOKENS
    if not isinstance(asked.scale, int):
        return False  # location tokens count neither pixels nor cells of a grid
    if asked.scale == family.scale:
        return asked.order != family.order
    return tokens_are_shared  # the scale of other tokens is fixed

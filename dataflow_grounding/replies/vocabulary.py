"""Words that models use, and the regular expressions that replies are read by.

The words are keys for a box, its label, its score and so on; they stand in wordings.yaml.
"""

import re
from functools import lru_cache, partial
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.boxes.coordinates import Order

_WORDINGS: dict[str, Any] = load_table(__package__, "wordings.yaml")


def words(name: str) -> frozenset[str]:
    """Return the words of a list in wordings.yaml."""
    return frozenset(_WORDINGS[name].split())


def word_list(name: str) -> list[str]:
    """Return the words of a list in wordings.yaml, in its order."""
    listed: str = _WORDINGS[name]
    return listed.split()


def words_by_kind(name: str) -> list[frozenset[str]]:
    """Return the words of several lists under one name in wordings.yaml, a set for each list."""
    return [frozenset(listed.split()) for listed in _WORDINGS[name].values()]


def pattern(name: str) -> re.Pattern[str]:
    """Return a regular expression in wordings.yaml."""
    return _pattern(_WORDINGS[name])


def patterns(name: str) -> list[re.Pattern[str]]:
    """Return a list of regular expressions in wordings.yaml."""
    return [_pattern(text) for text in _WORDINGS[name]]


def order_names() -> dict[Order, str]:
    """Return the names of each order besides its letters, in one text with blanks between."""
    names: dict[Order, str] = _WORDINGS["order_names"]
    return names


def _pattern(text: str) -> re.Pattern[str]:
    """Return a regular expression that ignores case, and is compiled when it is first used."""
    return lazy_pattern(partial(_with_parts, text), re.IGNORECASE)


def _with_parts(text: str) -> str:
    """Return an expression's text on one line, each `<<name>>` replaced by the part of that name.

    Parts may hold further ones.
    """
    while "<<" in text:
        text = re.sub("<<([a-z_]+)>>", lambda name: _WORDINGS["parts"][name[1]], text)
    return text.replace("\n", "")


def _key_list(name: str) -> tuple[str, ...]:
    """Return a list of keys in wordings.yaml, by preference."""
    return tuple(_WORDINGS["keys"][name].split())


def _keys(name: str) -> frozenset[str]:
    """Return a list of keys in wordings.yaml, without an order."""
    return frozenset(_key_list(name))


def _keys_of_orders() -> dict[str, Order]:
    """Return key → the order that it states of its box, for "xyxy", "bboxxyxy", "boxxyxy" etc."""
    orders: dict[str, Order] = {}
    for name, order in _WORDINGS["orders"].items():
        for prefix in ("", "bbox", "box"):
            orders[prefix + name] = order
    return orders


def _names_of_coordinates() -> tuple[tuple[tuple[str, ...], Order], ...]:
    """Return each four keys that make a box together, with the order of their coordinates.

    As in (("x1", "y1", "x2", "y2"), "xyxy"). The preferred ones come first.
    """
    corners: list[tuple[tuple[str, ...], Order]] = []
    for order, lines in _WORDINGS["corners"].items():
        for line in lines:
            corners.append((tuple(line.split()), order))
    return tuple(corners)


# What stands under these keys, wordings.yaml says. Keys are compared by `plain_key`; tuples of them
# are in order of preference.
BOX_KEYS = _keys("box")
QUAD_KEYS = _keys("quad")
POINT_KEYS = _keys("point")
PLACE_KEYS = _keys("place")
ORDER_KEYS = _keys_of_orders()
LABEL_KEYS = _key_list("label")
LABEL_LIST_KEYS = _key_list("label_list")
ID_KEYS = _key_list("id")
SCORE_KEYS = _key_list("score")
EVIDENCE = (None, "seen", "inferred", "region")
FOUND_KEYS = _keys("found")
WRAPPERS = _keys("wrapper")
OUTLINE_KEYS = _keys("outline")
FAULT_KEYS = _keys("fault")
IMAGE_SIZE_KEYS = _keys("image_size")
FAULT_TEXT_KEYS = _keys("fault_text")
THERE_KEYS = _keys("there")
COUNT_KEYS = _keys("count")
ENVELOPE_KEYS = _keys("envelope")
ABSENT_KEYS = _keys("absent")
VERDICT_KEYS = _keys("verdict")
FAILED = words("failed")
# Words that leave a thing what it is: "red", "left", "third".
QUALITIES = words("further_qualities").union(*words_by_kind("qualities_by_kind"))
# Words of which a thing has one, as of the colors, a set for each kind.
ONE_OF_A_KIND = words_by_kind("qualities_by_kind") + words_by_kind("conditions_by_kind")
# Before or behind a box key: its box comes instead of the others in its object.
REFINED = lazy_pattern(r"refined|final|corrected|adjusted|revised|improved")
CORNERS = _names_of_coordinates()
# Two keys that make a box together, each with the two coordinates of a corner.
CORNER_PAIRS: list[list[str]] = [pair.split() for pair in _WORDINGS["corner_pairs"]]
# Under these keys stands nothing that may be a box.
NO_CHILDREN = POINT_KEYS.union(
    OUTLINE_KEYS, IMAGE_SIZE_KEYS, _keys("thinking"), _keys("apart"), *CORNER_PAIRS
)

# Pattern of a coordinate's name: "x1", "left".
COORDINATE: str = _WORDINGS["parts"]["coordinate"].replace("\n", "")


@lru_cache(maxsize=1024)
def box_names(plain: str) -> tuple[str, str, str]:
    """Return three forms of a key under which it may be known as a box's.

    They are the key as it is, without a number behind it, and without words such as "final".
    """
    return plain, plain.rstrip("0123456789"), REFINED.sub("", plain)


@lru_cache(maxsize=1024)
def plain_key(key: str) -> str:
    """Return a key as keys are compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", key.lower())

"""Words that models use: keys for a box, its label or score, and the regular expressions that
replies are read by.
"""

import re
from functools import lru_cache, partial
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding._util.tables import load_table
from dataflow_grounding.boxes.coordinates import Order

_WORDINGS: dict[str, Any] = load_table(__package__, "wordings.yaml")


def words(name: str) -> frozenset[str]:
    """Return a list of words in wordings.yaml."""
    return frozenset(_WORDINGS[name].split())


def pattern(name: str) -> re.Pattern[str]:
    """Return a regular expression in wordings.yaml."""
    return _pattern(_WORDINGS[name])


def patterns(name: str) -> list[re.Pattern[str]]:
    """Return a list of regular expressions in wordings.yaml."""
    return [_pattern(text) for text in _WORDINGS[name]]


def order_names() -> dict[Order, str]:
    """Return what orders of numbers are called besides by their letters, in words or in a field of
    JSON.
    """
    names: dict[Order, str] = _WORDINGS["order_names"]
    return names


def _pattern(text: str) -> re.Pattern[str]:
    return lazy_pattern(partial(_with_parts, text), re.IGNORECASE)


def _with_parts(text: str) -> str:
    while "<<" in text:
        text = re.sub("<<([a-z_]+)>>", lambda name: _WORDINGS["parts"][name[1]], text)
    return text.replace("\n", "")


# Keys are compared by `plain_key`.
_KEYS = {name: tuple(keys.split()) for name, keys in _WORDINGS["keys"].items()}
BOX_KEYS, QUAD_KEYS, POINT_KEYS, PLACE_KEYS = (
    frozenset(_KEYS[name]) for name in ("box", "quad", "point", "place")
)
ORDER_KEYS: dict[str, Order] = {
    prefix + name: order
    for name, order in _WORDINGS["orders"].items()
    for prefix in ("", "bbox", "box")
}
LABEL_KEYS, LABEL_LIST_KEYS, ID_KEYS, SCORE_KEYS = (
    _KEYS[name] for name in ("label", "label_list", "id", "score")
)
EVIDENCE = (None, "seen", "inferred", "region")
FOUND_KEYS, WRAPPERS, OUTLINE_KEYS = (
    frozenset(_KEYS[name]) for name in ("found", "wrapper", "outline")
)
FAULT_KEYS, IMAGE_SIZE_KEYS = (frozenset(_KEYS[name]) for name in ("fault", "image_size"))
FAULT_TEXT_KEYS, THERE_KEYS, COUNT_KEYS, ENVELOPE_KEYS = (
    frozenset(_KEYS[name]) for name in ("fault_text", "there", "count", "envelope")
)
ABSENT_KEYS = frozenset(_KEYS["absent"])
FAILED = words("failed")
# Before or behind a box key: its box comes instead of the others in its object.
REFINED = lazy_pattern(r"refined|final|corrected|adjusted|revised|improved")
CORNERS: tuple[tuple[tuple[str, ...], Order], ...] = tuple(
    (tuple(names.split()), order)
    for order, given in _WORDINGS["corners"].items()
    for names in given
)
CORNER_PAIRS: list[list[str]] = [pair.split() for pair in _WORDINGS["corner_pairs"]]
NO_CHILDREN = POINT_KEYS.union(
    OUTLINE_KEYS, IMAGE_SIZE_KEYS, _KEYS["thinking"], _KEYS["apart"], *CORNER_PAIRS
)

COORDINATE: str = _WORDINGS["parts"]["coordinate"].replace("\n", "")


@lru_cache(maxsize=1024)
def box_names(plain: str) -> tuple[str, str, str]:
    """Return a key as it is, without a number behind it, and without words such as "final"."""
    return plain, plain.rstrip("0123456789"), REFINED.sub("", plain)


@lru_cache(maxsize=1024)
def plain_key(key: str) -> str:
    """Return a key as keys are compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", key.lower())

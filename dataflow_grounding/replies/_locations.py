"""Boxes in location tokens: Florence-2's and DocTags' `<loc_12>`, PaliGemma's `<loc0012>`."""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import Order
from dataflow_grounding.replies._beside import UNCLEAR
from dataflow_grounding.replies.json_values import hull
from dataflow_grounding.replies.reading import ParsedReply, RawBox, Said, named
from dataflow_grounding.replies.vocabulary import words

LOCATION = lazy_pattern(r"<loc_?(\d{1,6})>")
_LOCATIONS = lazy_pattern(r"((?:<loc_?\d{1,6}>\s*)+)")
_ORDERS: dict[str, Order] = {"florence-2": "xyxy", "paligemma": "yxyx"}
_OTHER_TOKEN = lazy_pattern(r"</?(?!loc_?\d{1,6}>)[a-z_|]{1,40}\d{0,6}>")
# of tokens in a string of JSON
_BEFORE_STRING = lazy_pattern(r'.*[{,]\s*"[^"]{0,80}"\s*:\s*"', re.DOTALL)
_LETTER = lazy_pattern(r"[^\W\d_]")
# DocTags: an element's tag right before its location, as in
# <picture><loc_10><loc_20><loc_300><loc_400></picture>.
_ELEMENT = lazy_pattern(r"<([a-z][a-z_]{0,40}\d{0,2})>\s{0,9}((?:<loc_\d{1,6}>\s{0,9})+)")
_CLOSED = lazy_pattern(r"</([a-z][a-z_]{0,40}\d{0,2})>")
_LEVEL = lazy_pattern(r"_level_\d+$")
_ELEMENTS, _MARKS = words("doctags"), words("marks")


def read_locations(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes in location tokens. Raises UnreadableReply where it is unclear
    whose label one is.
    """
    elements = [*_ELEMENT.finditer(text)]
    closed = set(_CLOSED.findall(text)) - _MARKS
    if any(element[1] in _ELEMENTS or element[1] in closed for element in elements):
        _read_doctags(text, [element for element in elements if element[1] not in _MARKS], parsed)
    else:
        _read_runs(text, parsed)


def _read_doctags(text: str, elements: list[re.Match[str]], parsed: ParsedReply) -> None:
    for element in elements:
        numbers = [*map(float, LOCATION.findall(element[2]))]
        spoken = _LEVEL.sub("", element[1]).replace("_", " ")
        labels = (element[1], spoken, "table") if element[1] == "otsl" else (element[1], spoken)
        said = Said(tuple(dict.fromkeys(labels)))
        if len(numbers) == 4:
            parsed.put(RawBox("box", tuple(numbers), said, family="doctags"))
        else:
            parsed.drop(f"{len(numbers)} location tokens, which are not one box", said)
            parsed.truncated = parsed.truncated or not text[element.end() :].strip()
    if len(LOCATION.findall(text)) != sum(
        len(LOCATION.findall(element[2])) for element in elements
    ):
        parsed.drop("location tokens outside of an element")


def _read_runs(text: str, parsed: ParsedReply) -> None:
    """Read Florence-2's locations, whose label comes before, and PaliGemma's: it comes after, up to
    a semicolon.
    """
    family = "florence-2" if "<loc_" in text else "paligemma"
    florence, order = family == "florence-2", _ORDERS[family]
    # Locations that follow one another are a run, whatever other tokens stand between them.
    pieces = [*map(str.strip, _LOCATIONS.split(_OTHER_TOKEN.sub("", text)))]
    runs = [[*map(float, LOCATION.findall(piece))] for piece in pieces[1::2]]
    quads = florence and all(map(_are_upright_quads, runs))
    step, numbers_of = (8, hull) if quads else (4, tuple)
    for said, bins in zip(_said_beside(pieces[0::2], ahead=florence), runs, strict=True):
        if florence and ("<poly" in text or (not quads and (_is_outline(bins) or len(bins) == 6))):
            parsed.drop(f"an outline of {len(bins) // 2} corners", said)
            continue
        left_over = len(bins) % step
        if left_over:
            parsed.drop(f"{len(bins)} location tokens, which are not whole boxes", said)
        if not left_over or florence:
            # Florence-2 stops in the middle of a box; PaliGemma with five has lost its way
            for i in range(0, len(bins) - step + 1, step):
                parsed.put(RawBox("box", numbers_of(bins[i : i + step]), said, order, family))


def _said_beside(words: list[str], *, ahead: bool) -> list[Said]:
    """Return what the words around runs of locations say of each: those `ahead`, or behind, as the
    family does it.

    Where words stand only on the other side of all of them, the labels do.
    """
    words = [_BEFORE_STRING.sub("", words[0][-400:]), *words[1:]]
    first, last = (_LETTER.search(text) is not None for text in (words[0], words[-1]))
    if ahead and not first and not last and any(map(_LETTER.search, words)):
        raise UnreadableReply(UNCLEAR)
    if first != last:
        ahead = first
    if ahead:
        return [
            named(_BEFORE_STRING.sub("", text[-400:]).strip(" ;,\n") or None) for text in words[:-1]
        ]
    return [named(text.partition(";")[0].strip() or None) for text in words[1:]]


def _is_outline(bins: list[float]) -> bool:
    # A run of boxes has each box's first corner above and left of its second; a polygon goes round.
    boxes = [bins[i : i + 4] for i in range(0, len(bins) - 3, 4)]
    return len(boxes) > 1 and any(x2 <= x1 or y2 <= y1 for x1, y1, x2, y2 in boxes)


def _are_upright_quads(bins: list[float]) -> bool:
    # Corners go round from the top left; two boxes of four numbers each don't have such sides.
    if len(bins) % 8:
        return False
    x1, y1, x2, y2, x3, y3, x4, y4 = bins[:8]
    width, height = x3 - x1, y3 - y1
    return (
        max(abs(y2 - y1), abs(y4 - y3)) * 2 <= height
        and max(abs(x3 - x2), abs(x4 - x1)) * 2 <= width
    )

"""Boxes in location tokens: Florence-2's and DocTags' `<loc_12>`, PaliGemma's `<loc0012>`."""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import Order
from dataflow_grounding.replies._beside import UNCLEAR
from dataflow_grounding.replies.json_values import hull
from dataflow_grounding.replies.reading import Details, ParsedReply, RawBox, details_of_label
from dataflow_grounding.replies.vocabulary import words

LOCATION = lazy_pattern(r"<loc_?(\d{1,6})>")
_LOCATIONS = lazy_pattern(r"((?:<loc_?\d{1,6}>\s*)+)")
_OTHER_TOKEN = lazy_pattern(r"</?(?!loc_?\d{1,6}>)[a-z_|]{1,40}\d{0,6}>")
# of tokens in a string of JSON
_BEFORE_STRING = lazy_pattern(r'.*[{,]\s*"[^"]{0,80}"\s*:\s*"', re.DOTALL)
_LETTER = lazy_pattern(r"[^\W\d_]")
# DocTags: an element's tag right before its location, as in
# <picture><loc_10><loc_20><loc_300><loc_400></picture>.
_ELEMENT = lazy_pattern(r"<([a-z][a-z_]{0,40}\d{0,2})>\s{0,9}((?:<loc_\d{1,6}>\s{0,9})+)")
_CLOSED = lazy_pattern(r"</([a-z][a-z_]{0,40}\d{0,2})>")
_LEVEL = lazy_pattern(r"_level_\d+$")
_ELEMENTS = words("doctags")
_MARKS = words("marks")


def read_locations(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes in location tokens.

    Raises:
        UnreadableReply: It is unclear to which box a label belongs.
    """
    elements = [*_ELEMENT.finditer(text)]
    names = (set(_CLOSED.findall(text)) - _MARKS) | _ELEMENTS
    if any(element[1] in names for element in elements):
        _read_doctags(text, [element for element in elements if element[1] not in _MARKS], parsed)
    else:
        _read_runs(text, parsed)


def _numbers_of(tokens: str) -> list[float]:
    """Return the numbers of a run of location tokens."""
    return [float(number) for number in LOCATION.findall(tokens)]


def _read_doctags(text: str, elements: list[re.Match[str]], parsed: ParsedReply) -> None:
    """Read the locations of DocTags' elements, whose names are the labels."""
    in_elements = 0
    for element in elements:
        numbers = _numbers_of(element[2])
        in_elements += len(numbers)
        details = Details(_labels_of_element(element[1]))
        if len(numbers) == 4:
            parsed.add_raw_box(RawBox("box", tuple(numbers), details, family="doctags"))
            continue
        parsed.drop(f"{len(numbers)} location tokens, which are not one box", details)
        if not text[element.end() :].strip():
            parsed.truncated = True
    if len(LOCATION.findall(text)) != in_elements:
        parsed.drop("location tokens outside of an element")


def _labels_of_element(name: str) -> tuple[str, ...]:
    """Return what an element is called: its name, the name in words, and what it stands for."""
    in_words = _LEVEL.sub("", name).replace("_", " ")
    labels = [name] if in_words == name else [name, in_words]
    if name == "otsl":
        labels.append("table")
    return tuple(labels)


def _read_runs(text: str, parsed: ParsedReply) -> None:
    """Read runs of locations, as Florence-2 and PaliGemma write them.

    Florence-2 writes a run's label before it, PaliGemma behind it, up to a semicolon. A run is one
    box after the other; Florence-2 may write the four corners of each, or an outline, which is no
    box.
    """
    is_florence = "<loc_" in text
    family = "florence-2" if is_florence else "paligemma"
    # Locations that follow one another are a run, whatever other tokens stand between them. The
    # pattern keeps the runs: words and runs take turns, words first and last.
    pieces = [piece.strip() for piece in _LOCATIONS.split(_OTHER_TOKEN.sub("", text))]
    runs = [_numbers_of(piece) for piece in pieces[1::2]]
    details_of_runs = _details_beside(pieces[0::2], ahead=is_florence)
    have_four_corners = is_florence and all(_are_upright_quads(run) for run in runs)
    for run, details in zip(runs, details_of_runs, strict=True):
        if is_florence and ("<poly" in text or (not have_four_corners and _is_outline(run))):
            parsed.drop(f"an outline of {len(run) // 2} corners", details)
        else:
            _take_run(run, details, family, length=8 if have_four_corners else 4, parsed=parsed)


def _take_run(
    run: list[float], details: Details, family: str, length: int, parsed: ParsedReply
) -> None:
    """Add to `parsed` the boxes of a run; `length` is how many numbers each has, 4 or 8."""
    if len(run) % length:
        parsed.drop(f"{len(run)} location tokens, which are not whole boxes", details)
        if family != "florence-2":
            return  # Florence-2 stops in the middle of a box; PaliGemma with five has lost its way
    order: Order = "xyxy" if family == "florence-2" else "yxyx"
    for start in range(0, len(run) - length + 1, length):
        numbers = run[start : start + length]
        box = hull(numbers) if length == 8 else tuple(numbers)
        parsed.add_raw_box(RawBox("box", box, details, order, family))


def _details_beside(gaps: list[str], *, ahead: bool) -> list[Details]:
    """Return the details of each run of locations that the words around the runs give.

    Where words stand only before all of them, or only behind, these are the labels.

    Args:
        gaps: The words before the first run, between them and behind the last one.
        ahead: Whether the family writes labels ahead of their boxes.

    Raises:
        UnreadableReply: Words stand only between runs, and may be on either side of their boxes.
    """
    gaps = [_BEFORE_STRING.sub("", gaps[0][-400:]), *gaps[1:]]
    first = _LETTER.search(gaps[0]) is not None
    last = _LETTER.search(gaps[-1]) is not None
    if ahead and not first and not last and any(_LETTER.search(gap) for gap in gaps):
        raise UnreadableReply(UNCLEAR)
    if first != last:
        ahead = first
    all_details: list[Details] = []
    if ahead:
        for gap in gaps[:-1]:
            label = _BEFORE_STRING.sub("", gap[-400:]).strip(" ;,\n")
            all_details.append(details_of_label(label or None))
    else:
        for gap in gaps[1:]:
            label = gap.partition(";")[0].strip()
            all_details.append(details_of_label(label or None))
    return all_details


def _is_outline(run: list[float]) -> bool:
    """Whether a run of numbers is a polygon's corners, and no boxes.

    Each box has its first corner above and left of its second; a polygon goes round. One of three
    corners is shorter than two boxes.
    """
    if len(run) == 6:
        return True
    if len(run) < 8:
        return False
    for i in range(0, len(run) - 3, 4):
        x1, y1, x2, y2 = run[i : i + 4]
        if x2 <= x1 or y2 <= y1:
            return True
    return False


def _are_upright_quads(run: list[float]) -> bool:
    """Whether a run of numbers is of quadrilaterals, eight numbers each, by the first of them.

    Its corners go round from the top left, and its sides are nearly level and upright. Two boxes of
    four numbers each don't have such sides.
    """
    if len(run) % 8:
        return False
    x1, y1, x2, y2, x3, y3, x4, y4 = run[:8]
    width = x3 - x1
    height = y3 - y1
    slant_of_rows = max(abs(y2 - y1), abs(y4 - y3))
    slant_of_columns = max(abs(x3 - x2), abs(x4 - x1))
    return slant_of_rows * 2 <= height and slant_of_columns * 2 <= width

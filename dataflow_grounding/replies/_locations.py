"""Boxes in location tokens: Florence-2's and DocTags' `<loc_12>`, PaliGemma's `<loc0012>`."""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._beside import UNCLEAR
from dataflow_grounding.replies.json_values import hull
from dataflow_grounding.replies.reading import Details, ParsedReply, RawBox, details_of_label
from dataflow_grounding.replies.vocabulary import words

LOCATION = lazy_pattern(r"<loc_?(\d{1,6})>")
# A run: locations that follow one another. The group keeps it where a text is split.
_RUN = lazy_pattern(r"((?:<loc_?\d{1,6}>\s*)+)")
# Any other token, such as <poly> or </s>.
_OTHER_TOKEN = lazy_pattern(r"</?(?!loc_?\d{1,6}>)[a-z_|]{1,40}\d{0,6}>")
# What stands before tokens in a string of JSON: `{"labels": "`.
_BEFORE_STRING = lazy_pattern(r'.*[{,]\s*"[^"]{0,80}"\s*:\s*"', re.DOTALL)
_LONGEST_GAP = 400  # characters before a run in which its label may stand
_LETTER = lazy_pattern(r"[^\W\d_]")
# Words right behind the last run, on its line, up to the end: "<loc_800>dog".
_LABEL_AT_END = lazy_pattern(r"<loc_?\d{1,6}>[ \t]{0,9}[^\W\d_][^<\n]*\Z")
# DocTags: an element's tag right before its location, as in
# <picture><loc_10><loc_20><loc_300><loc_400></picture>.
_ELEMENT = lazy_pattern(r"<([a-z][a-z_]{0,40}\d{0,2})>\s{0,9}((?:<loc_\d{1,6}>\s{0,9})+)")
_CLOSED = lazy_pattern(r"</([a-z][a-z_]{0,40}\d{0,2})>")  # the end of an element: </picture>
_LEVEL = lazy_pattern(r"_level_\d+$")  # of section_header_level_1
_ELEMENTS = words("doctags")  # names of DocTags' elements
_MARKS = words("marks")  # names of tags that stand before a location and are no elements


def read_locations(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes in location tokens.

    They are DocTags' where a location stands right behind the tag of an element: one by its name,
    or one that is closed somewhere.

    Raises:
        UnreadableReply: It is unclear to which box a label belongs.
    """
    elements = [*_ELEMENT.finditer(text)]
    names = (set(_CLOSED.findall(text)) - _MARKS) | _ELEMENTS
    if any(element[1] in names for element in elements):
        _read_doctags(text, [element for element in elements if element[1] not in _MARKS], parsed)
    elif "<loc_" in text:
        _read_florence(text, parsed)
    else:
        _read_paligemma(text, parsed)


def _numbers_of(tokens: str) -> list[float]:
    """Return the numbers of a run of location tokens."""
    return [float(number) for number in LOCATION.findall(tokens)]


def _read_doctags(text: str, elements: list[re.Match[str]], parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes of DocTags' elements, whose names are the labels.

    An element with another number of locations than four is dropped; where it ends the text, the
    reply is cut off. Locations that stand in no element are dropped, too, all of them together.

    Args:
        text: The text.
        elements: The matches of `_ELEMENT` in it.
        parsed: What was read so far.
    """
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
    """Return what an element is called: its name, then its name in words if that differs.

    "section_header_level_1" is a "section header"; "otsl" is called "table", too.
    """
    in_words = _LEVEL.sub("", name).replace("_", " ")
    labels = [name] if in_words == name else [name, in_words]
    if name == "otsl":
        labels.append("table")
    return tuple(labels)


def _read_florence(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` Florence-2's boxes, whose labels stand before them: `cat<loc_1>…<loc_4>`.

    A run is one box after the other, each of two corners, or of four where all runs are
    quadrilaterals. Where it stops in the middle of a box, those before are kept. A run that is an
    outline is dropped; with a token such as <poly> all are outlines.

    Raises:
        UnreadableReply: It is unclear to which run a label belongs.
    """
    gaps, runs = _split_at_runs(text)
    details_of_runs = _details_beside(gaps, ahead=_are_ahead(gaps, text, own_way=True))
    have_four_corners = all(_are_upright_quads(run) for run in runs)
    length = 8 if have_four_corners else 4
    for run, details in zip(runs, details_of_runs, strict=True):
        if "<poly" in text or (not have_four_corners and _is_outline(run)):
            parsed.drop(f"an outline of {len(run) // 2} corners", details)
            continue
        if len(run) % length:
            parsed.drop(_not_whole_boxes(run), details)
        for numbers in _whole_boxes(run, length):
            box = hull(numbers) if have_four_corners else tuple(numbers)
            parsed.add_raw_box(RawBox("box", box, details, "xyxy", "florence-2"))


def _read_paligemma(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` PaliGemma's boxes, whose labels stand behind them: `<loc0001>…<loc0004> cat`.

    A run is one box after the other, y first. One that isn't whole boxes is dropped: with five
    locations the model has lost its way, and the first four are no box either.

    Raises:
        UnreadableReply: It is unclear to which run a label belongs.
    """
    gaps, runs = _split_at_runs(text)
    details_of_runs = _details_beside(gaps, ahead=_are_ahead(gaps, text, own_way=False))
    for run, details in zip(runs, details_of_runs, strict=True):
        if len(run) % 4:
            parsed.drop(_not_whole_boxes(run), details)
            continue
        for numbers in _whole_boxes(run, 4):
            parsed.add_raw_box(RawBox("box", tuple(numbers), details, "yxyx", "paligemma"))


def _split_at_runs(text: str) -> tuple[list[str], list[list[float]]]:
    """Return the words before, between and behind the runs of locations, and the runs' numbers.

    Locations that follow one another are a run, whatever other tokens stand between them.
    """
    # The pattern keeps the runs: words and runs take turns, words first and last.
    pieces = [piece.strip() for piece in _RUN.split(_OTHER_TOKEN.sub("", text))]
    runs = [_numbers_of(piece) for piece in pieces[1::2]]
    return pieces[0::2], runs


def _whole_boxes(run: list[float], length: int) -> list[list[float]]:
    """Return the numbers of each whole box of a run, `length` numbers each; a rest is left out."""
    return [run[i : i + length] for i in range(0, len(run) - length + 1, length)]


def _not_whole_boxes(run: list[float]) -> str:
    """Return the reason for which a run, or the end of one, is dropped."""
    return f"{len(run)} location tokens, which are not whole boxes"


def _are_ahead(gaps: list[str], text: str, *, own_way: bool) -> bool:
    """Return whether labels stand ahead of their runs, or behind them.

    Between two runs a semicolon tells it: in `<1> cat ; <2>` labels stand behind, in
    `<1> ; cat <2>` ahead. So does a heading, as in `The objects: <1>cat<2>dog`. Otherwise, if only
    one of the words before the first run and those behind the last are there, labels stand on that
    side of all.

    Args:
        gaps: The words before the first run, between them and behind the last one.
        text: All of the text.
        own_way: What the family does, which counts where nothing tells it.

    Raises:
        UnreadableReply: The family writes them ahead, and words may belong to either run: they
            stand only between runs, or right behind each, too.
    """
    heading = _BEFORE_STRING.sub("", gaps[0][-_LONGEST_GAP:])
    first = _LETTER.search(heading) is not None
    last = _LETTER.search(gaps[-1]) is not None
    between = [gap for gap in gaps[1:-1] if _LETTER.search(gap)]
    if between:
        if all(gap.endswith(";") for gap in between):
            return False
        if all(gap.startswith(";") for gap in between):
            return True
        if heading.endswith(":") and not any(gap.endswith(":") for gap in between):
            return False
        if own_way and not first and not last:
            raise UnreadableReply(UNCLEAR)
        without_tokens = _OTHER_TOKEN.sub("", text).rstrip()
        if own_way and first and last and _LABEL_AT_END.search(without_tokens):
            raise UnreadableReply(UNCLEAR)
    return first if first != last else own_way


def _details_beside(gaps: list[str], *, ahead: bool) -> list[Details]:
    """Return the details of each run of locations that the words around the runs give.

    Args:
        gaps: The words before the first run, between them and behind the last one.
        ahead: Whether labels stand ahead of their boxes. Else a label is the words up to a
            semicolon.
    """
    all_details: list[Details] = []
    if ahead:
        for gap in gaps[:-1]:
            label = _BEFORE_STRING.sub("", gap[-_LONGEST_GAP:]).strip(" ;,\n")
            all_details.append(details_of_label(label or None))
    else:
        for gap in gaps[1:]:
            label = gap.partition(";")[0].strip()
            all_details.append(details_of_label(label or None))
    return all_details


def _is_outline(run: list[float]) -> bool:
    """Whether a run of numbers is a polygon's corners, and no boxes.

    Six numbers are three corners. Of eight or more, each box has its first corner above and left of
    its second, while a polygon goes round. Fewer are no outline.
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

    Its corners go round from the top left, and its sides are nearly level and upright: they slant
    by at most half of its height or width. Two boxes of four numbers each don't have such sides.
    """
    if len(run) % 8:
        return False
    x1, y1, x2, y2, x3, y3, x4, y4 = run[:8]
    width = x3 - x1
    height = y3 - y1
    slant_of_rows = max(abs(y2 - y1), abs(y4 - y3))
    slant_of_columns = max(abs(x3 - x2), abs(x4 - x1))
    return slant_of_rows * 2 <= height and slant_of_columns * 2 <= width

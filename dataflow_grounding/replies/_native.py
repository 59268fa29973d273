"""Boxes and points in the special tokens and tags that model families write by training."""

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._locations import LOCATION, read_locations
from dataflow_grounding.replies._tags import TAG, read_tags, split_numbers
from dataflow_grounding.replies.reading import NO_DETAILS, ParsedReply, RawBox, details_of_label

_PATCH = lazy_pattern(r"<patch_index_(\d{1,6})>")  # a cell of Kosmos-2's grid
# Kosmos-2's tags around labels and boxes; the group keeps them where a text is split.
_PATCH_TAG = lazy_pattern(r"<(/?phrase|/?object|/delimiter_of_multi_objects/)>")
# Nemotron Parse's tokens: a corner, <x_0.1><y_0.2>, or the label behind both, <class_Text>.
_CORNER_OR_CLASS = lazy_pattern(
    r"<x_(?P<x>[\d.]{1,12})>\s?<y_(?P<y>[\d.]{1,12})>|<class_(?P<name>[\w-]{1,40})>"
)
# An attribute with a box, of which the group is the numbers; and one with its label.
_HTML_BOX = lazy_pattern(r"\bdata-bbox\s{0,3}=\s{0,3}[\"']([^\"'<>]{0,200})[\"']")
_HTML_LABEL = lazy_pattern(
    r"\bdata-(?:label|name|class|category)\s{0,3}=\s{0,3}[\"']([^\"'<>]{1,200})[\"']"
)
_LONGEST_TAG = 1000  # characters on either side of a box in which its tag may have a label


def has_tokens(text: str) -> bool:
    """Whether a text has special tokens or tags in which boxes or points may stand.

    HTML's attributes and Nemotron Parse's tokens aren't looked for.
    """
    if "<" not in text:
        return False
    return "<patch_index_" in text or bool(LOCATION.search(text) or TAG.search(text))


def read_tokens(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes and points that stand in special tokens or tags.

    Only one sort of tokens counts, the first of those below that the text has, as a reply has
    tokens of one model. Sorts that no other writing looks like come first.

    Raises:
        UnreadableReply: It is unclear to which box a label belongs.
    """
    if "<patch_index_" in text:
        _read_patches(text, parsed)
    elif LOCATION.search(text):
        read_locations(text, parsed)
    elif "<class_" in text and _CORNER_OR_CLASS.search(text):
        _read_corners(text, parsed)
    elif TAG.search(text):
        read_tags(text, parsed)
    elif "data-bbox" in text:
        _read_html(text, parsed)


def _read_html(text: str, parsed: ParsedReply) -> None:
    """Add boxes in HTML's attributes: <div data-bbox="1 2 3 4" data-label="table">.

    A label may stand before or behind the box in the same tag.
    """
    for match in _HTML_BOX.finditer(text):
        start = max(0, match.start() - _LONGEST_TAG)
        before = text[start : match.start()].rpartition("<")[2]
        rest = text[match.start() : match.end() + _LONGEST_TAG].partition(">")[0]
        label = _HTML_LABEL.search(before + rest)
        details = NO_DETAILS if label is None else details_of_label(label[1].strip())
        parsed.add_numbers(split_numbers(match[1]), details)


def _read_patches(text: str, parsed: ParsedReply) -> None:
    """Add Kosmos-2's boxes, each of two cells of a grid.

    As in <phrase>label</phrase><object><patch_index_0001><patch_index_0044></object>. A label holds
    for all boxes until the next one. Other numbers of cells between two tags are dropped. Where no
    tag follows cells, the reply is cut off.
    """
    # Texts and tags take turns, as the pattern's group keeps the tags; a text is first and last.
    pieces = _PATCH_TAG.split(text)
    texts = pieces[0::2]
    tags = pieces[1::2]
    label: str | None = None
    for tag_before, content, tag_after in zip(["", *tags], texts, [*tags, ""], strict=True):
        cells = [float(index) for index in _PATCH.findall(content)]
        if len(cells) == 2:
            parsed.add_raw_box(
                RawBox("box", tuple(cells), details_of_label(label), family="kosmos-2")
            )
        elif cells:
            parsed.drop(f"a box of {len(cells)} grid cells")
        if cells and not tag_after:
            parsed.truncated = True
        if tag_before == "phrase" and tag_after == "/phrase":
            label = content.strip()


def _read_corners(text: str, parsed: ParsedReply) -> None:
    """Add Nemotron Parse's boxes: <x_0.1><y_0.2>text<x_0.3><y_0.4><class_Text>.

    A box is all corners before a class, which is its label. Corners that none follows are dropped,
    and the reply is cut off. A class without corners is passed over.
    """
    corners: list[str] = []
    for match in _CORNER_OR_CLASS.finditer(text):
        if match["name"] is None:
            corners += [match["x"], match["y"]]
            continue
        if corners:
            parsed.add_numbers(corners, details_of_label(match["name"]), corners=True)
        corners = []
    if corners:
        parsed.drop("a box whose label is cut off")
        parsed.truncated = True

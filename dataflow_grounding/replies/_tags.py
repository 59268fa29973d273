"""Boxes in the tags that model families write.

Their labels stand in tags too, or in the words beside a box.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import says_none
from dataflow_grounding.replies._beside import (
    UNCLEAR,
    begins_line,
    details_ahead,
    details_in_words,
    with_names_from_attributes,
)
from dataflow_grounding.replies._json_shapes import pair
from dataflow_grounding.replies.reading import (
    NO_DETAILS,
    Details,
    ParsedReply,
    RawBox,
    details_of_label,
)

# Tags that open and close a label, a box or a point: <ref> </ref>, <|box_start|> <|box_end|>,
# <|det|> <|/det|>.
TAG = lazy_pattern(
    r"<\|(?P<bar>/?(?:ref|det))\|>"
    r"|<\|(?P<word>object_ref|ref|box|quad|point)_(?P<side>start|end)\|>"
    r"|<(?P<plain>/?(?:ref|label|box|bbox|quad|pred|points?|point_box|collection))"
    r"(?P<attributes>(?=[\s>/])[^<>]{0,4000})>"
)
_LABEL_TAGS = frozenset(["ref", "object_ref", "label"])
# <points>(1, 2), (3, 4)</points>, <|point_start|>(1, 2)<|point_end|>; unclosed, up to the end
POINTS_IN_TAGS = lazy_pattern(
    r"<(?P<name>points?)(?=[\s>/])[^<>]{0,4000}>.*?(?:</(?P=name)>|$)"
    r"|<\|point_start\|>.*?(?:<\|point_end\|>|$)",
    re.DOTALL,
)
_BOX_TAGS = frozenset(["det", "box", "bbox", "quad", "point_box"])
_POINT_TAGS = frozenset(["point", "points"])
_CORNERS = dict.fromkeys(["x1", "y1", "x2", "y2"]).keys()  # a set in this order
# Groups: the name, and the value in double quotation marks, in single ones, or without.
_ATTRIBUTE = lazy_pattern(
    r"([A-Za-z_]\w{0,30})\s{0,3}=\s{0,3}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>/]+))"
)
_GROUP = lazy_pattern(r"[\[(<]([^\[\](){}<>]*)[\])>]")  # [1, 2, 3, 4]
# <1>, or <x_1>
_NUMBER_TOKEN = lazy_pattern(r"<\s{0,3}(?:[xy]_)?(\d{1,12}(?:\.\d{1,12})?)\s{0,3}>")
# A label at the beginning of a box's text, before its bracket: "cat" of "cat [1, 2, 3, 4]".
_LABEL_INSIDE = lazy_pattern(r"\s*([^\d\s\[\](){}<>,;][^\[\](){}<>]*)(?=[\[(])")
_SEPARATORS = lazy_pattern(r"[,;\s]+")


def number_groups(text: str) -> list[list[str]]:
    """Return each list in a box's text, as texts; that these are numbers isn't checked.

    Lists stand in brackets, `[1, 2, 3, 4]`; of two with two items each, `(1, 2), (3, 4)`, one list
    of four is made. Or each number stands in a token, `<1><2><3><4>`, and a comma parts boxes. A
    text without any opening bracket is one list. Empty lists are left out.
    """
    if _NUMBER_TOKEN.search(text):
        return [_NUMBER_TOKEN.findall(part) for part in text.split(",")]
    groups: list[list[str]] = []
    for group in _bracketed_lists(text):
        if groups and len(groups[-1]) == len(group) == 2:
            groups[-1] += group
        else:
            groups.append(group)
    if not groups and not re.search(r"[\[({<]", text):
        groups = [split_numbers(text)]
    return [group for group in groups if any(group)]


def _bracketed_lists(text: str) -> list[list[str]]:
    """Return what stands in each innermost pair of brackets, split as `split_numbers` does."""
    return [split_numbers(match[1]) for match in _GROUP.finditer(text)]


def split_numbers(text: str) -> list[str]:
    """Return what stands between commas, semicolons and blanks; [""] for a text without more."""
    return _SEPARATORS.split(text.strip(" ,;\n\t\r"))


class _Element(NamedTuple):
    """A tag that opens, with what stands between it and the next tag.

    Attributes:
        name: The tag's name, such as "box".
        attributes: Its attributes, and the label of a collection around it.
        content: The text up to the next tag.
        start: Where the tag begins in the text.
        end: Where its closing tag ends; without one, where the next tag begins or the text ends.
        closed: Whether the next tag closes it.
        broken: Whether the next tag opens another element, or there is none. Neither this nor
            `closed` where the next tag closes an element of another name.
        cut_off: Whether there is no next tag, and its corners aren't in attributes either.
    """

    name: str
    attributes: dict[str, str]
    content: str
    start: int
    end: int
    closed: bool
    broken: bool
    cut_off: bool

    @property
    def is_box(self) -> bool:
        """Whether it is a box by its name."""
        return self.name in _BOX_TAGS

    @property
    def is_label(self) -> bool:
        """Whether it is a label by its name."""
        return self.name in _LABEL_TAGS

    @property
    def has_corners(self) -> bool:
        """Whether it is a box with its corners in attributes."""
        return self.is_box and self.attributes.keys() >= _CORNERS

    @property
    def own_label(self) -> str | None:
        """The label in its attributes; None or "" for none."""
        return self.attributes.get("mention") or self.attributes.get("label")


def read_tags(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes and points in a text's tags.

    Raises:
        UnreadableReply: It is unclear to which boxes the labels belong.
    """
    _TagReader(parsed).read(text)


class _TagReader:
    """Adds the boxes and points of tags to a parsed reply, in their order."""

    def __init__(self, parsed: ParsedReply) -> None:
        self.parsed = parsed

    def read(self, text: str) -> None:
        """Add all boxes and points of a text. Points whose tag isn't closed are passed over.

        Raises:
            UnreadableReply: It is unclear to which boxes the labels belong.
        """
        elements = [*_elements(text)]
        beside = _details_beside_boxes(text, elements)
        in_relation = False  # what follows <pred> repeats the boxes of a relation's two sides
        for i, element in enumerate(elements):
            self.parsed.truncated = self.parsed.truncated or element.cut_off
            if element.name == "pred" or element.is_label:
                in_relation = element.name == "pred"
            elif element.name in _POINT_TAGS and element.closed:
                self.add_points(element)
            elif element.is_box:
                details = details_of_label(element.own_label).completed_by(beside[i])
                if element.has_corners:
                    corners = [element.attributes[key] for key in _CORNERS]
                    self.parsed.add_numbers(corners, details)
                else:
                    self.add_box_element(element, details, repeated=in_relation)

    def add_box_element(self, element: _Element, details: Details, *, repeated: bool) -> None:
        """Add the boxes in a box's text.

        Of an element that breaks off, what stands in brackets is kept; else it is dropped, but for
        an empty one. One that a tag of another name closes is passed over.

        Args:
            element: The box, without corners in its attributes.
            details: What is known of its boxes.
            repeated: Whether its boxes were added before.
        """
        content = element.content
        if element.closed:
            self.add_boxes(content, details, repeated=repeated)
        elif element.broken and content.strip():
            if "]" in content or ")" in content:  # what is whole in it is kept
                self.add_boxes(content, details, repeated=repeated, whole=False)
            else:
                self.parsed.drop(f"a box that breaks off: {content.strip()[:60]!r}", details)

    def add_boxes(
        self, content: str, details: Details, *, repeated: bool, whole: bool = True
    ) -> None:
        """Add the boxes in the text of a tag, or an absence if it is words such as "none".

        A label may stand before the boxes, as in "cat [1, 2, 3, 4]"; it comes instead of `details`.

        Args:
            content: The text.
            details: What is known of the boxes.
            repeated: Whether the boxes were added before, and are left out.
            whole: Whether the tag is closed; else two numbers are dropped, and are no point.
        """
        if says_none(content):
            self.parsed.add_absence(details)
            return
        label = _LABEL_INSIDE.match(content)
        if label is not None:
            details = details_of_label(label[1].strip())
            content = content[label.end() :]
        if repeated:
            return
        groups = number_groups(content)
        if not groups:
            self.parsed.drop(f"a box without numbers: {content.strip()[:60]!r}", details)
        for group in groups:
            self.parsed.add_numbers(group, details, corners=not whole)

    def add_points(self, element: _Element) -> None:
        """Add the points in a tag's attributes, or else in its text.

        The attribute `alt`, or else `mention`, names them; see `_names_of_points`.
        """
        points = _points_in_attributes(element.attributes) or _points_in_text(element.content)
        names = element.attributes.get("alt") or element.attributes.get("mention") or ""
        for point, name in zip(points, _names_of_points(names, len(points)), strict=True):
            self.parsed.add_raw_box(RawBox("point", point, details_of_label(name)))


def _points_in_attributes(attributes: dict[str, str]) -> list[tuple[float, float]]:
    """Return the points that are attributes such as x and y, or x1 and y1, x2 and y2."""
    points: list[tuple[float, float]] = []
    for key, x in attributes.items():
        if re.fullmatch(r"x\d*", key):
            point = pair([x, attributes.get(f"y{key[1:]}")])
            if point is not None:
                points.append(point)
    return points


def _points_in_text(text: str) -> list[tuple[float, float]]:
    """Return the lists of two numbers in a text, `(1, 2)`; others are left out.

    Unlike in a box's text, two that follow one another are two points. A text without brackets is
    one list.
    """
    points: list[tuple[float, float]] = []
    for numbers in _bracketed_lists(text) or number_groups(text):
        point = pair(numbers)
        if point is not None:
            points.append(point)
    return points


def _names_of_points(text: str, count: int) -> list[str]:
    """Return a name for each of `count` points from a text with their names, "cat, dog".

    One name is that of all. With any other number of names than `count`, all are empty.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) == count:
        return names
    if len(names) == 1:
        return names * count
    return [""] * count


class _Tag(NamedTuple):
    """A tag.

    Attributes:
        closing: Whether it closes an element.
        name: The element's name, without slash and "_start" or "_end".
        attributes: Its attributes, by names in lower case; the last of a name counts.
    """

    closing: bool
    name: str
    attributes: dict[str, str]


def _parse_tag(match: re.Match[str]) -> _Tag:
    """Return the tag that a match of TAG is."""
    if match["word"]:
        return _Tag(match["side"] == "end", match["word"], {})
    name = match["bar"] or match["plain"]
    attributes: dict[str, str] = {}
    for key, quoted, single_quoted, bare in _ATTRIBUTE.findall(match["attributes"] or ""):
        attributes[key.lower()] = quoted or single_quoted or bare
    return _Tag(name.startswith("/"), name.lstrip("/"), attributes)


def _elements(text: str) -> Iterator[_Element]:
    """Yield the elements of a text in order, one for each tag that opens.

    A collection yields none; its mention is the label of the elements in it that have no other. A
    box that closes itself, <box/>, yields none either if it has no corners.
    """
    matches = [*TAG.finditer(text)]
    collection: dict[str, str] = {}  # the attributes that its elements have from it
    for i, match in enumerate(matches):
        tag = _parse_tag(match)
        if tag.name == "collection":
            collection = {} if tag.closing else {"label": tag.attributes.get("mention", "")}
            continue
        if tag.closing:
            continue
        if match[0].endswith("/>"):
            if tag.name not in _BOX_TAGS or tag.attributes.keys() >= _CORNERS:
                yield _empty_element(tag, match)
            continue
        following = matches[i + 1] if i + 1 < len(matches) else None
        tag = tag._replace(attributes={**collection, **tag.attributes})
        yield _element(text, tag, match, following)


def _empty_element(tag: _Tag, match: re.Match[str]) -> _Element:
    """Return the element of a tag that closes itself."""
    return _Element(
        tag.name,
        tag.attributes,
        content="",
        start=match.start(),
        end=match.end(),
        closed=True,
        broken=False,
        cut_off=False,
    )


def _element(
    text: str, tag: _Tag, match: re.Match[str], following: re.Match[str] | None
) -> _Element:
    """Return the element of a tag that opens, up to the tag that follows it.

    Args:
        text: The text that the tags are in.
        tag: The tag that opens.
        match: Where it stands in the text.
        following: Where the next tag stands; None for the text's last tag.
    """
    if following is None:
        has_corners = tag.name in _BOX_TAGS and tag.attributes.keys() >= _CORNERS
        return _Element(
            tag.name,
            tag.attributes,
            content=text[match.end() :],
            start=match.start(),
            end=len(text),
            closed=False,
            broken=True,
            cut_off=not has_corners,
        )
    after = _parse_tag(following)
    closed = after.closing and after.name == tag.name
    return _Element(
        tag.name,
        tag.attributes,
        content=text[match.end() : following.start()],
        start=match.start(),
        end=following.end() if closed else following.start(),
        closed=closed,
        broken=not after.closing,
        cut_off=False,
    )


# Details of a box: from labels in tags of their own, or else from words


def _details_beside_boxes(text: str, elements: list[_Element]) -> dict[int, Details]:
    """Return the details that what stands beside each box gives it.

    There are three ways, one for all boxes:
    1. Each box has a label of its own: what stands beside it gives none.
    2. No label stands in a tag: the words around the boxes give them.
    3. Else the labels' tags do, those ahead of the boxes or those behind.

    Args:
        text: The text that the elements are in.
        elements: The elements of all tags, in order.

    Returns:
        Index of a box among the elements → its details, for every box.

    Raises:
        UnreadableReply: It is unclear to which boxes the labels belong.
    """
    boxes = [i for i, element in enumerate(elements) if element.is_box]
    if all(_labels_itself(elements[i]) for i in boxes):
        return dict.fromkeys(boxes, NO_DETAILS)
    gaps = _gaps(text, elements)
    labels: list[int] = []
    for i, element in enumerate(elements):
        if element.is_label and element.closed and element.content.strip():
            labels.append(i)
    if not labels:
        return dict(zip(boxes, details_in_words(gaps), strict=True))
    if boxes[0] < labels[0] and not _ends_with_name(gaps[0]):
        return _details_by_tags_behind(text, elements, boxes, labels)
    return _details_by_tags_ahead(elements, boxes, gaps)


def _labels_itself(box: _Element) -> bool:
    """Whether a box has a label in its attributes or at the beginning of its text."""
    return bool(box.own_label) or _LABEL_INSIDE.match(box.content) is not None


def _ends_with_name(words: str) -> bool:
    """Whether the words before a box name it on its own line."""
    return not begins_line(words) and details_ahead(words) != NO_DETAILS


def _gaps(text: str, elements: list[_Element]) -> list[str]:
    """Return the words before the first box, between boxes, and behind the last box.

    Elements that are no boxes, such as labels in tags, are left out.
    """
    gaps: list[str] = []
    words: list[str] = []
    at = 0
    for element in elements:
        words.append(with_names_from_attributes(text[at : element.start]))
        at = element.end
        if element.is_box:
            gaps.append("".join(words))
            words = []
    words.append(text[at:])
    gaps.append("".join(words))
    return gaps


def _details_by_tags_ahead(
    elements: list[_Element], boxes: list[int], gaps: list[str]
) -> dict[int, Details]:
    """Return the details of each box from the last label's tag before it, by the box's index.

    Where no tag has named anything yet, or none stands since the box before, words between may name
    it instead. A label whose tag isn't closed names nothing.

    Args:
        elements: The elements of all tags, in order.
        boxes: The indices of those that are boxes.
        gaps: The words around the boxes, as `_gaps` returns them.

    Raises:
        UnreadableReply: Two labels stand before one box.
    """
    words_before = dict(zip(boxes, gaps, strict=False))
    details_of_boxes: dict[int, Details] = {}
    current = NO_DETAILS
    label_since_box = True  # whether a label's tag stands between the last box and this one
    for i, element in enumerate(elements):
        if element.is_label:
            if i > 0 and _are_two_labels(elements[i - 1], element):
                raise UnreadableReply("two labels stand before one box")
            current = details_of_label(element.content.strip() if element.closed else None)
            label_since_box = True
        elif element.name == "pred":
            # What follows repeats the boxes of a relation: words before them are no labels.
            label_since_box = True
        elif element.is_box:
            details = current
            if not label_since_box or current == NO_DETAILS:
                in_words = details_ahead(words_before[i])
                if in_words != NO_DETAILS:
                    details = in_words
            details_of_boxes[i] = details
            label_since_box = False
    return details_of_boxes


def _are_two_labels(first: _Element, second: _Element) -> bool:
    """Whether an element right before a label is one too, and both have a text."""
    if not first.is_label or first.end != second.start:
        return False
    return bool(first.content.strip() and second.content.strip())


def _details_by_tags_behind(
    text: str, elements: list[_Element], boxes: list[int], labels: list[int]
) -> dict[int, Details]:
    """Return the details of each box from the next label's tag behind it, by the box's index.

    MinerU writes <|box_start|>100 200 300 400<|box_end|><|ref_start|>table<|ref_end|>.

    Args:
        text: The text that the elements are in.
        elements: The elements of all tags, in order.
        boxes: The indices of those that are boxes.
        labels: The indices of those that are closed labels with a text, at least one.

    Raises:
        UnreadableReply: It is unclear on which side of their boxes the labels stand: a box has none
            behind it, or the first label is nearer to the box behind it.
    """
    if _is_nearer_to_next_box(text, elements, boxes, labels[0]):
        raise UnreadableReply(UNCLEAR)
    details_of_boxes: dict[int, Details] = {}
    label_behind: Details | None = None
    label_indices = set(labels)
    for i in reversed(range(len(elements))):
        element = elements[i]
        if i in label_indices:
            label_behind = details_of_label(element.content.strip())
        elif element.is_box:
            if label_behind is None:
                raise UnreadableReply(UNCLEAR)
            details_of_boxes[i] = label_behind
    return details_of_boxes


def _is_nearer_to_next_box(
    text: str, elements: list[_Element], boxes: list[int], label: int
) -> bool:
    """Whether a label stands on another line than what is before it, and with the next box on one.

    False where no box follows. `label` is the label's index among the elements of `text`, which is
    not the first; `boxes` are those of the boxes.
    """
    before = text[elements[label - 1].end : elements[label].start]
    if "\n" not in before:
        return False
    for box in boxes:
        if box > label:
            return "\n" not in text[elements[label].end : elements[box].start]
    return False

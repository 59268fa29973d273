"""Boxes in the tags that model families write, with the label that a tag or the words beside a box
give.
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
    said_ahead,
    said_in_words,
    with_attributes_said,
)
from dataflow_grounding.replies._json_shapes import pair
from dataflow_grounding.replies.reading import NOTHING_SAID, ParsedReply, RawBox, Said, named

# Tags that open and close a label, a box or a point.
TAG = lazy_pattern(
    r"<\|(?P<bar>/?(?:ref|det))\|>"
    r"|<\|(?P<word>object_ref|ref|box|quad|point)_(?P<side>start|end)\|>"
    r"|<(?P<plain>/?(?:ref|label|box|bbox|quad|pred|points?|point_box|collection))"
    r"(?P<attributes>(?=[\s>/])[^<>]{0,4000})>"
)
_LABEL_TAGS = frozenset(["ref", "object_ref", "label"])
_BOX_TAGS = frozenset(["det", "box", "bbox", "quad", "point_box"])
_POINT_TAGS = frozenset(["point", "points"])
_CORNERS = dict.fromkeys(["x1", "y1", "x2", "y2"]).keys()
_ATTRIBUTE = lazy_pattern(
    r"([A-Za-z_]\w{0,30})\s{0,3}=\s{0,3}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>/]+))"
)
_GROUP = lazy_pattern(r"[\[(<]([^\[\](){}<>]*)[\])>]")
_NUMBER_TOKEN = lazy_pattern(r"<\s{0,3}(?:[xy]_)?(\d{1,12}(?:\.\d{1,12})?)\s{0,3}>")
_LABEL_INSIDE = lazy_pattern(r"\s*([^\d\s\[\](){}<>,;][^\[\](){}<>]*)(?=[\[(])")
_SEPARATORS = lazy_pattern(r"[,;\s]+")


def number_groups(text: str) -> list[list[str]]:
    """Return each list of numbers in a box's text; two pairs that follow one another make one list
    of four.
    """
    if _NUMBER_TOKEN.search(text):
        return [_NUMBER_TOKEN.findall(part) for part in text.split(",")]
    groups: list[list[str]] = []
    for match in _GROUP.finditer(text):
        group = split_numbers(match[1])
        if groups and len(groups[-1]) == len(group) == 2:
            groups[-1] += group
        else:
            groups.append(group)
    if not groups and not re.search(r"[\[({<]", text):
        groups = [split_numbers(text)]
    return [group for group in groups if any(group)]


def split_numbers(text: str) -> list[str]:
    """Return what stands between commas, semicolons and blanks."""
    return _SEPARATORS.split(text.strip(" ,;\n\t\r"))


class _Element(NamedTuple):
    """A tag that opens, and what stands between it and the next tag: whether that closes it, or
    another one opens.

    `text[start:end]` is the element with its closing tag.
    """

    name: str
    attributes: dict[str, str]
    content: str
    start: int
    end: int
    closed: bool
    broken: bool
    last: bool

    @property
    def is_box(self) -> bool:
        return self.name in _BOX_TAGS

    @property
    def has_corners(self) -> bool:
        return self.is_box and self.attributes.keys() >= _CORNERS

    @property
    def own_label(self) -> str | None:
        return self.attributes.get("mention") or self.attributes.get("label")


def read_tags(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes and points in a text's tags. Raises UnreadableReply for unclear
    labels.
    """
    _TagReader(parsed).read(text)


class _TagReader:
    """Reads boxes in the order of their tags; one that opens before the last has closed breaks it
    off.
    """

    def __init__(self, parsed: ParsedReply) -> None:
        self.parsed = parsed

    def read(self, text: str) -> None:
        elements = [*_elements(text)]
        beside = _said_of_boxes(text, elements)
        relation = False  # what follows <pred> repeats the boxes of a relation's two sides
        for i, element in enumerate(elements):
            self.parsed.truncated = self.parsed.truncated or element.last
            if element.name == "pred" or element.name in _LABEL_TAGS:
                relation = element.name == "pred"
            elif element.name in _POINT_TAGS and element.closed:
                self.points(element)
            elif element.has_corners:
                said = named(element.own_label).within(beside[i])
                self.parsed.add([element.attributes[key] for key in _CORNERS], said)
            elif element.is_box:
                self.box(element, named(element.own_label).within(beside[i]), repeated=relation)

    def box(self, element: _Element, said: Said, *, repeated: bool) -> None:
        content = element.content
        if element.closed:
            self.numbers(content, said, repeated=repeated)
        elif element.broken and content.strip():
            if "]" in content or ")" in content:  # what is whole in it is kept
                self.numbers(content, said, repeated=repeated, whole=False)
            else:
                self.parsed.drop(f"a box that breaks off: {content.strip()[:60]!r}", said)

    def numbers(self, content: str, said: Said, *, repeated: bool, whole: bool = True) -> None:
        inside = _LABEL_INSIDE.match(content)
        if says_none(content):
            self.parsed.lack(said)
            return
        if inside is not None:  # the label is in the box's own tag
            said, content = named(inside[1].strip()), content[inside.end() :]
        if repeated:
            return
        groups = number_groups(content)
        if not groups:
            self.parsed.drop(f"a box without numbers: {content.strip()[:60]!r}", said)
        for group in groups:
            self.parsed.add(group, said, corners=not whole)

    def points(self, element: _Element) -> None:
        attributes = element.attributes
        alt = attributes.get("alt") or attributes.get("mention") or ""
        pairs = [
            (x, attributes.get(f"y{key[1:]}"))
            for key, x in attributes.items()
            if re.fullmatch(r"x\d*", key)
        ]
        points = [point for given in pairs if (point := pair([*given])) is not None]
        points = points or [
            point for group in number_groups(element.content) if (point := pair(group)) is not None
        ]
        names = [name.strip() for name in alt.split(",")]
        if len(names) != len(points):
            names = [alt.strip() if len(names) == 1 else ""] * len(points)
        for point, name in zip(points, names, strict=True):
            self.parsed.put(RawBox("point", point, named(name)))


def _elements(text: str) -> Iterator[_Element]:
    matches = [*TAG.finditer(text)]
    collection: dict[str, str] = {}
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        closing, name, attributes = _tag(match)
        if name == "collection":
            collection = {} if closing else {"label": attributes.get("mention", "")}
            continue
        if closing:
            continue
        if match[0].endswith("/>"):
            if name not in _BOX_TAGS or attributes.keys() >= _CORNERS:
                yield _Element(
                    name,
                    attributes,
                    "",
                    match.start(),
                    match.end(),
                    closed=True,
                    broken=False,
                    last=False,
                )
            continue
        after = None if following is None else _tag(following)[:2]
        content = text[match.end() : following.start() if following else None]
        closed = after == (True, name)
        end = following.end() if following is not None and closed else match.end() + len(content)
        broken, last = after is None or not after[0], after is None
        last = last and not (name in _BOX_TAGS and attributes.keys() >= _CORNERS)
        yield _Element(
            name, {**collection, **attributes}, content, match.start(), end, closed, broken, last
        )


def _tag(match: re.Match[str]) -> tuple[bool, str, dict[str, str]]:
    if match["word"]:
        return match["side"] == "end", match["word"], {}
    name = match["bar"] or match["plain"]
    found = _ATTRIBUTE.findall(match["attributes"] or "")
    return (
        name.startswith("/"),
        name.lstrip("/"),
        {key.lower(): a or b or c for key, a, b, c in found},
    )


# What stands beside a box: labels in tags of their own, or else words


def _said_of_boxes(text: str, elements: list[_Element]) -> dict[int, Said]:
    """Return what is said of each box, by its index among the elements, besides what its own tag
    says.
    """
    boxes = [i for i, element in enumerate(elements) if element.is_box]
    labels = [
        i
        for i, e in enumerate(elements)
        if e.name in _LABEL_TAGS and e.closed and e.content.strip()
    ]
    if not boxes or all(
        elements[i].own_label or _LABEL_INSIDE.match(elements[i].content) for i in boxes
    ):
        return dict.fromkeys(boxes, NOTHING_SAID)
    gaps = _gaps(text, elements)
    if not labels:
        return dict(zip(boxes, said_in_words(gaps), strict=True))
    if boxes[0] < labels[0] and (begins_line(gaps[0]) or said_ahead(gaps[0]) == NOTHING_SAID):
        return _said_by_tags_behind(text, elements, boxes, labels)
    return _said_by_tags_ahead(elements, boxes, gaps)


def _gaps(text: str, elements: list[_Element]) -> list[str]:
    """Return the words before the first box, between boxes and behind the last one, without labels
    in tags.
    """
    gaps: list[str] = []
    words: list[str] = []
    at = 0
    for element in elements:
        words.append(with_attributes_said(text[at : element.start]))
        at = element.end
        if element.is_box:
            gaps.append("".join(words))
            words = []
    return [*gaps, "".join(words) + text[at:]]


def _said_by_tags_ahead(
    elements: list[_Element], boxes: list[int], gaps: list[str]
) -> dict[int, Said]:
    said: dict[int, Said] = {}
    # `since`: a label's tag stands between the last box and this one
    current, since = NOTHING_SAID, True
    at = dict(zip(boxes, gaps, strict=False))
    for i, element in enumerate(elements):
        if element.name in _LABEL_TAGS:
            follows = (
                i > 0
                and elements[i - 1].name in _LABEL_TAGS
                and elements[i - 1].end == element.start
            )
            if follows and elements[i - 1].content.strip() and element.content.strip():
                raise UnreadableReply("two labels stand before one box")
            current, since = named(element.content.strip() if element.closed else None), True
        elif element.name == "pred":
            since = True
        elif element.is_box:
            words = NOTHING_SAID if since and current != NOTHING_SAID else said_ahead(at[i])
            said[i] = words if words != NOTHING_SAID else current
            since = False
    return said


def _said_by_tags_behind(
    text: str, elements: list[_Element], boxes: list[int], labels: list[int]
) -> dict[int, Said]:
    """MinerU: <|box_start|>100 200 300 400<|box_end|><|ref_start|>table<|ref_end|>."""
    following = next((i for i in boxes if i > labels[0]), None)
    to_label = text[elements[labels[0] - 1].end : elements[labels[0]].start]
    on_the_next_line = "\n" in to_label and following is not None
    if (
        on_the_next_line
        and "\n" not in text[elements[labels[0]].end : elements[following or 0].start]
    ):
        raise UnreadableReply(UNCLEAR)
    said: dict[int, Said] = {}
    behind, of_labels = None, set(labels)
    for i in range(len(elements) - 1, -1, -1):
        if i in of_labels:
            behind = named(elements[i].content.strip())
        elif elements[i].is_box and behind is None:
            raise UnreadableReply(UNCLEAR)
        elif elements[i].is_box and behind is not None:
            said[i] = behind
    return said

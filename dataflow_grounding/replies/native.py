"""Boxes and points in the special tokens and tags that model families write by training."""

import re

from dataflow_grounding.coordinates import Order
from dataflow_grounding.replies.absence import says_none
from dataflow_grounding.replies.json_shapes import pair
from dataflow_grounding.replies.json_values import hull
from dataflow_grounding.replies.reading import NOTHING_SAID, ParsedReply, RawBox, named

# Tags that open and close a label, a box or a point.
_TAG = re.compile(
    r"<\|(?P<bar>/?(?:ref|det))\|>"
    r"|<\|(?P<word>object_ref|box|quad|point)_(?P<side>start|end)\|>"
    r"|<(?P<plain>/?(?:ref|label|box|bbox|quad|pred|points?|point_box|collection))"
    r"(?P<attributes>(?=[\s>/])[^<>]{0,4000})>"
)
_LABEL_TAGS = frozenset(["ref", "object_ref", "label"])
_BOX_TAGS = frozenset(["det", "box", "bbox", "quad", "point_box"])
_POINT_TAGS = frozenset(["point", "points"])
_CORNERS = dict.fromkeys(["x1", "y1", "x2", "y2"]).keys()
_ATTRIBUTE = re.compile(r"([A-Za-z_]\w{0,30})\s{0,3}=\s{0,3}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>/]+))")
_GROUP = re.compile(r"[\[(<]([^\[\](){}<>]*)[\])>]")
_NUMBER_TOKEN = re.compile(r"<\s{0,3}(\d{1,12})\s{0,3}>")
_LOCATION = re.compile(r"<loc_?(\d{1,6})>")
_LOCATIONS = re.compile(r"((?:<loc_?\d{1,6}>\s*)+)")
_ORDERS: dict[str, Order] = {"florence-2": "xyxy", "paligemma": "yxyx"}
_PATCH = re.compile(r"<patch_index_(\d{1,6})>")
_PATCH_TAG = re.compile(r"<(/?phrase|/?object|/delimiter_of_multi_objects/)>")
_OTHER_TOKEN = re.compile(r"</?(?!loc_?\d{1,6}>)[a-z_|]{1,40}\d{0,6}>")
_HTML_BOX = re.compile(r"\bdata-bbox\s{0,3}=\s{0,3}[\"']([^\"'<>]{0,200})[\"']")
_BEFORE_STRING = re.compile(r'.*[{,]\s*"[^"]{0,80}"\s*:\s*"', re.DOTALL)  # of tokens in a string of JSON
_SEPARATORS = re.compile(r"[,;\s]+")


def has_tokens(text: str) -> bool:
    """Whether a text has special tokens or tags in which boxes or points may stand."""
    return "<" in text and bool("<patch_index_" in text or _LOCATION.search(text) or _TAG.search(text))


def read_tokens(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the boxes and points that stand in special tokens or tags."""
    if "<patch_index_" in text:
        _read_patches(text, parsed)
    elif _LOCATION.search(text):
        _read_locations(text, parsed)
    elif _TAG.search(text):
        _TagReader(parsed).read(text)
    elif "data-bbox" in text:
        for match in _HTML_BOX.finditer(text):
            parsed.add(_split(match[1]), NOTHING_SAID)


def number_groups(text: str) -> list[list[str]]:
    """Return each list of numbers in a box's text; two pairs that follow one another make one list of four."""
    if _NUMBER_TOKEN.search(text):
        return [_NUMBER_TOKEN.findall(part) for part in text.split(",")]
    groups: list[list[str]] = []
    for match in _GROUP.finditer(text):
        group = _split(match[1])
        if groups and len(groups[-1]) == len(group) == 2:
            groups[-1] += group
        else:
            groups.append(group)
    if not groups and not re.search(r"[\[({<]", text):
        groups = [_split(text)]
    return [group for group in groups if any(group)]


def _split(text: str) -> list[str]:
    return _SEPARATORS.split(text.strip(" ,;\n\t\r"))


class _TagReader:
    """Reads labels and boxes in the order of their tags; one that opens before the last has closed breaks it off."""

    def __init__(self, parsed: ParsedReply) -> None:
        self.parsed = parsed
        self.label: str | None = None
        self.collection: str | None = None
        self.relation = False

    def read(self, text: str) -> None:
        matches = [*_TAG.finditer(text)]
        for match, following in zip(matches, [*matches[1:], None], strict=True):
            closing, name, attributes = _tag(match)
            alone = match[0].endswith("/>")
            if name == "collection":
                self.collection = None if closing else attributes.get("mention")
            elif closing:
                continue
            elif name in _BOX_TAGS and attributes.keys() >= _CORNERS:
                self.parsed.add([attributes[key] for key in _CORNERS], named(attributes.get("label") or self.label))
            elif not (alone and name in _BOX_TAGS):
                content = "" if alone else text[match.end() : following.start() if following else None]
                after = (True, name) if alone else _tag(following)[:2] if following else None
                self.opened(name, attributes, content, after)

    def opened(self, name: str, attributes: dict[str, str], content: str, following: tuple[bool, str] | None) -> None:
        """Take what stands between a tag and the `following` one, whether that closes and its name."""
        closed = following == (True, name)
        if name == "pred":
            self.relation = True  # what follows repeats the boxes of a relation's two sides
        elif name in _LABEL_TAGS:
            self.label, self.relation = content.strip() if closed else None, False
        elif name in _POINT_TAGS and closed:
            self.points(content, attributes)
        elif name in _BOX_TAGS and closed:
            self.boxes(content, attributes)
        elif name in _BOX_TAGS and content.strip() and not (following and following[0]):
            if "]" in content or ")" in content:  # what is whole in it is kept
                self.boxes(content, attributes, whole=False)
            else:
                self.parsed.drop(f"a box that breaks off: {content.strip()[:60]!r}", named(self.label))
        self.parsed.truncated = self.parsed.truncated or following is None

    def boxes(self, content: str, attributes: dict[str, str], *, whole: bool = True) -> None:
        label = attributes.get("mention") or attributes.get("label") or self.label or self.collection
        inside = re.match(r"\s*([^\d\s\[\](){}<>,;][^\[\](){}<>]*)(?=[\[(])", content)
        if says_none(content):
            self.parsed.lack(named(label))
            return
        if inside is not None:  # the label is in the box's own tag
            label, content = inside[1].strip(), content[inside.end() :]
        if self.relation:
            return
        groups = number_groups(content)
        if not groups:
            self.parsed.drop(f"a box without numbers: {content.strip()[:60]!r}", named(label))
        for group in groups:
            self.parsed.add(group, named(label), corners=not whole)

    def points(self, content: str, attributes: dict[str, str]) -> None:
        alt = attributes.get("alt") or attributes.get("mention") or ""
        pairs = [(x, attributes.get(f"y{key[1:]}")) for key, x in attributes.items() if re.fullmatch(r"x\d*", key)]
        points = [point for given in pairs if (point := pair([*given])) is not None]
        points = points or [point for group in number_groups(content) if (point := pair(group)) is not None]
        names = [name.strip() for name in alt.split(",")]
        if len(names) != len(points):
            names = [alt.strip() if len(names) == 1 else ""] * len(points)
        for point, name in zip(points, names, strict=True):
            self.parsed.put(RawBox("point", point, named(name)))


def _tag(match: re.Match[str]) -> tuple[bool, str, dict[str, str]]:
    if match["word"]:
        return match["side"] == "end", match["word"], {}
    name = match["bar"] or match["plain"]
    found = _ATTRIBUTE.findall(match["attributes"] or "")
    return name.startswith("/"), name.lstrip("/"), {key.lower(): a or b or c for key, a, b, c in found}


def _read_patches(text: str, parsed: ParsedReply) -> None:
    # Kosmos-2: <phrase>label</phrase><object><patch_index_0001><patch_index_0044></object>
    label: str | None = None
    pieces = ["", *_PATCH_TAG.split(text), ""]
    for tag, content, following in zip(pieces[0::2], pieces[1::2], pieces[2::2], strict=False):
        cells = [float(index) for index in _PATCH.findall(content)]
        if len(cells) == 2:
            parsed.put(RawBox("box", tuple(cells), named(label), family="kosmos-2"))
        elif cells:
            parsed.drop(f"a box of {len(cells)} grid cells")
        if cells and not following:
            parsed.truncated = True
        elif (tag, following) == ("phrase", "/phrase"):
            label = content.strip()


def _read_locations(text: str, parsed: ParsedReply) -> None:
    """Read `<loc_12>` (Florence-2: the label comes before) and `<loc0012>` (PaliGemma: after, up to a semicolon)."""
    family = "florence-2" if "<loc_" in text else "paligemma"
    florence, order = family == "florence-2", _ORDERS[family]
    # Locations that follow one another are a run, whatever other tokens stand between them.
    pieces = [*map(str.strip, _LOCATIONS.split(_OTHER_TOKEN.sub("", text)))]
    runs = [[*map(float, _LOCATION.findall(piece))] for piece in pieces[1::2]]
    quads = florence and all(map(_are_upright_quads, runs))
    step, numbers_of = (8, hull) if quads else (4, tuple)
    for before, bins, behind in zip(pieces[0::2], runs, pieces[2::2], strict=False):
        said = named(_BEFORE_STRING.sub("", before[-400:]) if florence else behind.partition(";")[0].strip())
        if florence and not quads and _is_outline(bins):
            parsed.drop(f"an outline of {len(bins) // 2} corners", said)
            continue
        left_over = len(bins) % step
        if left_over:
            parsed.drop(f"{len(bins)} location tokens, which are not whole boxes", said)
        if not left_over or florence:  # Florence-2 stops in the middle of a box; PaliGemma with five has lost its way
            for i in range(0, len(bins) - step + 1, step):
                parsed.put(RawBox("box", numbers_of(bins[i : i + step]), said, order, family))


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
    return max(abs(y2 - y1), abs(y4 - y3)) * 2 <= height and max(abs(x3 - x2), abs(x4 - x1)) * 2 <= width

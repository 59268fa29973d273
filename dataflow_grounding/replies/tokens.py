"""The boxes in the tokens and tags that families of models write by training.

One small reader for each kind of writing. What a box's numbers mean is the format's that was asked
for, unless only one family writes such tokens.
"""

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.replies.json_text import find_json
from dataflow_grounding.replies.reading import Dropped, Note, ParsedReply, RawBox

_NUMBER = r"-?\d{1,12}(?:\.\d{1,20})?"
# Tags around a label or a box. Qwen-VL, InternVL, MiniCPM <ref> <box>; DeepSeek <|ref|> <|det|>;
# Qwen2-VL, Rex-Omni <|object_ref_start|> <|box_start|>; MinerU <|ref_start|>; Kosmos-2 <phrase>
# <object>; Seed <bbox>; Isaac <point_box mention="…">; ASMv2 <pred>.
_TAG = lazy_pattern(
    r"<\|(?P<bar>/?(?:ref|det))\|>|<\|(?P<word>object_ref|ref|box|quad)_(?P<side>start|end)\|>"
    r"|<(?P<plain>/?(?:ref|box|bbox|phrase|quad|pred|point_box|collection|points?|polygon)"
    r"|object(?=>\s*<patch_)|/object)(?:\s(?P<attributes>[^<>]{0,1000}))?>"
)
_BOX_TAG = lazy_pattern(
    r"<\|det\|>|<\|(?:box|quad)_start\|>|<(?:box|bbox|quad|point_box)[\s>]|<object>\s*<patch_"
)
_MOST_TAGS = 20_000  # of a reply; no model has tokens for more, but in a loop
_LABEL_TAGS = frozenset(["ref", "object_ref", "phrase"])
_OTHER_TAGS = frozenset(["point", "points", "polygon"])  # which are no boxes
_BOX_TAGS = frozenset(["det", "box", "bbox", "object", "quad", "point_box"])
_WITH_ATTRIBUTES = frozenset(["point_box", "collection", "point", "points", "polygon"])
_MENTION = lazy_pattern(r"\bmention\s?=\s?(?:\"([^\"]*)\"|'([^']*)')")
_NUMBER_TOKENS = lazy_pattern(rf"(?:<(?:[xy]_)?{_NUMBER}>\s*)+")  # <12><34><56><78>
_PATCHES = lazy_pattern(r"<patch_index_(\d{1,6})>\s*<patch_index_(\d{1,6})>")
_DELIMITER = "</delimiter_of_multi_objects/>"  # between Kosmos-2's boxes of one phrase
_LOCATION = lazy_pattern(r"<loc_?(\d{1,6})>")
_LOCATIONS = r"(?:<loc_?\d{1,6}>\s*)+"
_FLORENCE = lazy_pattern(rf"([^<]*)({_LOCATIONS})")  # a label, and its boxes
_PALIGEMMA = lazy_pattern(rf"({_LOCATIONS})((?:<seg\d{{3}}>)*)([^<;]*);?\s*")  # the label follows
_DOCTAGS = lazy_pattern(rf"<([a-z][a-z_]{{0,40}}\d?)>\s*({_LOCATIONS})")  # the tag is the label
_CUT_TAG = lazy_pattern(r"<[^<>]{0,200}\Z")
_POINT = lazy_pattern(r"<points?\b|\bclick\(|<\|point_start\|>")
_HTML = lazy_pattern(r"<\w+\s[^<>]{0,1000}?\bdata-bbox\s?=\s?[\"']([^\"'<>]{0,200})[\"'][^<>]*>")
_HTML_LABEL = lazy_pattern(r"\bdata-(?:label|name|class|category)\s?=\s?[\"']([^\"'<>]{1,200})")
# InternVL without its tags, a label and its list on each line: car[[1, 2, 3, 4], [5, 6, 7, 8]]
_FOUR_NUMBERS = rf"\[{_NUMBER}(?:,\s*{_NUMBER}){{3}}\]"
_GLUED = lazy_pattern(
    rf"([^\W\d_](?:[\w '’-]{{0,80}}\w)?)(\[{_FOUR_NUMBERS}(?:,\s*{_FOUR_NUMBERS})*\])"
)
# VideoLLaMA3: four numbers with underscores, commas or blanks between, and nothing else
_PAIRS = lazy_pattern(rf"\({_NUMBER},\s*{_NUMBER}\)\s*,?\s*\({_NUMBER},\s*{_NUMBER}\)")  # Qwen-VL's
_FOUR = lazy_pattern(rf"{_NUMBER}(?:(?:_|\s*,\s*|\s+){_NUMBER}){{3}}")


class _Tag(NamedTuple):
    """A tag; `mention` is the label in its attributes, or ""."""

    name: str
    closes: bool
    mention: str
    start: int
    end: int


def has_tokens(text: str) -> bool:
    """Whether a text has tokens or tags with boxes or points."""
    if "<" not in text:
        return False
    patterns = (_LOCATION, _BOX_TAG, _POINT)
    return "data-bbox" in text or any(pattern.search(text) for pattern in patterns)


def read_tokens(text: str, parsed: ParsedReply) -> list[str]:
    """Add to `parsed` the boxes of a text's tokens, and return the words next to them.

    The first item is the words before them, each further one words that follow a token.

    Raises:
        UnreadableReply: It is unclear to which box a label belongs, or what stands in a tag.
    """
    parsed.truncated = parsed.truncated or _CUT_TAG.search(text) is not None
    if _LOCATION.search(text):
        return _read_locations(text, parsed)
    if _BOX_TAG.search(text):
        return _read_tags(text, parsed)
    if "data-bbox" in text:
        _read_html(text, parsed)
        return []
    raise UnreadableReply("the reply has points where boxes were asked for", "points")


def read_bare(text: str, parsed: ParsedReply) -> bool:
    """Add the boxes of a text that is nothing but them, and return whether it is.

    It is labels with lists glued to them, one on each line; four numbers; or two pairs.
    """
    if _FOUR.fullmatch(text):
        parsed.boxes.append(RawBox(tuple(float(number) for number in re.split(r"[\s,_]+", text))))
        return True
    if _PAIRS.fullmatch(text):
        numbers = [float(number) for number in re.findall(_NUMBER, text)]
        parsed.boxes.append(RawBox(tuple(numbers), corners=True))
        return True
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [_GLUED.fullmatch(line) for line in lines]
    if not matches or not all(matches):
        return False
    for match in matches:
        assert match is not None
        _add_lists(match[2], match[1].strip(), parsed)
    return True


def _tags_of(text: str) -> list[_Tag]:
    tags: list[_Tag] = []
    collection = ""
    for match in _TAG.finditer(text):
        if len(tags) == _MOST_TAGS:
            raise UnreadableReply(f"more than {_MOST_TAGS} tags", "runaway")
        name = match["bar"] or match["word"] or match["plain"]
        if match["attributes"] and name not in _WITH_ATTRIBUTES:
            continue  # words, which have a mark that makes the reply unreadable
        closes = name.startswith("/") or match["side"] == "end"
        mention = ""
        found = _MENTION.search(match["attributes"] or "")
        if found is not None:
            mention = html.unescape(found[1] or found[2] or "").strip()
        name = name.lstrip("/")
        if name == "collection":
            collection = "" if closes else mention
        tags.append(_Tag(name, closes, mention or collection, match.start(), match.end()))
    return tags


def _read_tags(text: str, parsed: ParsedReply) -> list[str]:
    """Add the boxes in tags, and return the words outside of them.

    Labels stand in tags before their boxes, or, where each box is followed by one, after them.
    """
    tags = _tags_of(text)
    words: list[str] = []
    kinds = ""  # in order: "l" for a label, "b" for a box
    labels: list[str] = []
    boxes: list[tuple[str, str, bool]] = []  # text, label of its own, whether it is closed
    in_relation = False
    at = 0
    for i, tag in enumerate(tags):
        if tag.start < at:
            continue
        words.append(text[at : tag.start])
        closing = tags[i + 1] if i + 1 < len(tags) else None
        closed = closing is not None and closing.closes and closing.name == tag.name
        end = closing.start if closing is not None else len(text)
        content = text[tag.end : end]
        at = closing.end if closed and closing is not None else end
        is_label = tag.name in _LABEL_TAGS
        if is_label and (tag.closes or (not closed and closing is not None)):
            raise UnreadableReply(
                f"a tag of a label has no other: {content[:40]!r}", "unclear labels"
            )
        if tag.closes or tag.name == "collection":
            at = tag.end
        elif tag.name in _OTHER_TAGS:
            parsed.notes.append(Note("dropped", f"a {tag.name}, which is no box"))
        elif tag.name == "pred":
            in_relation = True  # the boxes that follow repeat those of the two things
        elif is_label:
            in_relation = False
            if closed and content.strip():
                labels.append(content.strip())
                kinds += "l"
        elif not closed and re.search(r"[^\W\d_]", content):
            words.append(content)
        elif not in_relation:
            boxes.append((content, tag.mention, closed))
            kinds += "b"
        parsed.truncated = parsed.truncated or (closing is None and not tag.closes)
    words.append(text[at:])
    parsed.tagged = True
    follow = all(text.startswith("<|", tag.start) for tag in tags)
    for label, (content, mention, closed) in zip(
        _labels_of_boxes(kinds, labels, follow=follow), boxes, strict=True
    ):
        _add_box_tag(content, mention or label, closed, parsed)
    blocks = load_table(__package__, "grammar.yaml")["blocks"].split()
    return [] if labels and set(labels) <= set(blocks) else words


def _labels_of_boxes(kinds: str, labels: Sequence[str], *, follow: bool) -> list[str | None]:
    """Return the label of each box, None for those without one.

    Args:
        kinds: The labels and the boxes of a reply, in order: "l" and "b".
        labels: The labels.
        follow: Whether labels may follow their boxes, as MinerU writes them.
    """
    if not labels:
        return [None] * kinds.count("b")
    if follow and re.fullmatch("(?:bl)+", kinds):
        return list(labels)
    if "ll" in kinds or not kinds.startswith("l"):
        raise UnreadableReply("it is unclear which label belongs to which box", "unclear labels")
    found: list[str | None] = []
    waiting = iter(labels)
    label: str | None = None
    for kind in kinds:
        if kind == "l":
            label = next(waiting)
        else:
            found.append(label)
    return found


def _add_box_tag(content: str, label: str | None, closed: bool, parsed: ParsedReply) -> None:
    """Add the boxes in a tag, or that its label is not there."""
    content = content.strip()
    if not closed and "[" not in content:
        parsed.dropped.append(Dropped(f"a box that breaks off: {content[:40]!r}", label))
        return
    if content.casefold() in ("none", "null", "无"):
        parsed.absences.append(RawBox((), label))
    elif "<patch_index_" in content:
        for piece in content.split(_DELIMITER):
            cells = _PATCHES.fullmatch(piece.strip())
            if cells is not None:
                numbers = (float(cells[1]), float(cells[2]))
                parsed.boxes.append(RawBox(numbers, label, family="kosmos-2"))
            elif piece.strip():
                parsed.dropped.append(Dropped(f"no two grid cells: {piece[:40]!r}", label))
    elif _NUMBER_TOKENS.match(content):
        for group in content.split(","):
            numbers_of_group = re.findall(_NUMBER, re.sub(r"[xy]_", "", group))
            _add_numbers([float(number) for number in numbers_of_group], label, parsed)
    else:
        _add_lists(content, label, parsed)


def _add_lists(content: str, label: str | None, parsed: ParsedReply) -> None:
    """Add the boxes of a tag's lists: [[1, 2, 3, 4]], (1,2),(3,4) or 1 2 3 4.

    A label may stand before the list, as Unlimited-OCR writes it. Two lists of two are one box.
    """
    numbers = [part for part in re.split(r"[\s,;]+", content) if part]
    if len(numbers) == 4 and all(re.fullmatch(_NUMBER, part) for part in numbers):
        _add_numbers([float(part) for part in numbers], label, parsed)
        return
    lists = find_json(content)
    before = content[: lists.start].strip()
    if content[lists.end :].strip() or (before and label) or re.search(r"\d", before):
        parsed.dropped.append(Dropped(f"a box with other words: {content[:60]!r}", label))
        return
    parsed.truncated = parsed.truncated or lists.truncated
    groups = _groups_in(lists.values)
    if not groups:
        parsed.dropped.append(Dropped(f"a box without numbers: {content[:60]!r}", label))
    if len(groups) > 1 and any(len(group) == 2 for group in groups):
        parsed.dropped.append(Dropped(f"a pair too many: {content[:60]!r}", label))
        return
    for group in groups:
        _add_numbers(group, label or before or None, parsed)


def _groups_in(values: Sequence[object]) -> list[list[object]]:
    """Return the innermost lists of some values; of two with two items each, one is made."""
    groups: list[list[object]] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop(0)
        if not isinstance(value, list):
            groups.append([value])
        elif any(isinstance(item, list) for item in value):
            waiting[:0] = value
        elif groups and len(groups[-1]) == len(value) == 2:
            groups[-1] = groups[-1] + value
        else:
            groups.append(value)
    return groups


def _add_numbers(numbers: Sequence[object], label: str | None, parsed: ParsedReply) -> None:
    values = tuple(
        number for number in numbers if isinstance(number, (int, float)) and abs(number) < 1e9
    )
    if len(values) == len(numbers) == 4:
        parsed.boxes.append(RawBox(values, label))
    elif len(values) == len(numbers) == 2:
        parsed.points.append(RawBox(values, label))
    else:
        shown = ", ".join(map(str, numbers))[:60]
        parsed.dropped.append(Dropped(f"a box of {len(numbers)} numbers: [{shown}]", label))


def _read_html(text: str, parsed: ParsedReply) -> None:
    elements = list(_HTML.finditer(text))
    if len(elements) != text.count("data-bbox"):
        parsed.dropped.append(Dropped("a data-bbox outside of a tag"))
    for match in elements:
        label = _HTML_LABEL.search(match[0])
        numbers = [part for part in re.split(r"[\s,]+", match[1]) if part]
        if all(re.fullmatch(_NUMBER, part) for part in numbers):
            _add_numbers(
                [float(part) for part in numbers], label[1].strip() if label else None, parsed
            )
        else:
            parsed.dropped.append(Dropped(f"no box: {match[1][:40]!r}"))


def _read_locations(text: str, parsed: ParsedReply) -> list[str]:
    if re.search(r"</[a-z][a-z_]*\d?>|<doctag>", text) and _DOCTAGS.search(text):
        return _read_doctags(text, parsed)
    if "<loc_" in text:
        return _read_florence(text, parsed)
    return _read_paligemma(text, parsed)


def _read_doctags(text: str, parsed: ParsedReply) -> list[str]:
    """Add the boxes of DocTags' elements; each one's name is its label, its text is a page's."""
    parsed.truncated = parsed.truncated or ("<doctag>" in text and "</doctag>" not in text)
    elements = list(_DOCTAGS.finditer(text))
    inside = sum(len(_locations_in(element[2])) for element in elements)
    if inside != len(_locations_in(text)):
        parsed.dropped.append(Dropped("location tokens outside of an element"))
    for match in elements:
        label = re.sub(r"_level_\d$", "", match[1]).replace("_", " ")
        label = "table" if label == "otsl" else label
        numbers = _locations_in(match[2])
        if len(numbers) == 4:
            parsed.boxes.append(RawBox(tuple(numbers), label, family="doctags"))
        else:
            parsed.dropped.append(Dropped(f"{len(numbers)} location tokens are no box", label))
            parsed.truncated |= match.end() == len(text.rstrip())
    return []


def _read_florence(text: str, parsed: ParsedReply) -> list[str]:
    """Add Florence-2's boxes: `cat<loc_1><loc_2><loc_3><loc_4>`.

    Eight tokens after each label are a quadrangle's corners, where they can't be two boxes.
    """
    are_outlines = "<poly>" in text
    text = text.replace("<poly>", "").replace("</poly>", "")
    end = 0
    runs: list[tuple[str | None, list[float]]] = []
    for match in _FLORENCE.finditer(text):
        if match.start() != end:
            break
        label = match[1].strip(" ;,\n")
        runs.append((label or None, _locations_in(match[2])))
        end = match.end()
    if text[end:].strip() or len({label is None for label, _ in runs}) > 1:
        raise UnreadableReply("it is unclear which label belongs to which box", "unclear labels")
    are_quads = all(len(run) == 8 and not _are_boxes(run) for _, run in runs)
    for label, run in runs:
        if are_quads:
            xs, ys = run[0::2], run[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            parsed.boxes.append(RawBox(box, label, family="florence-2"))
        elif len(run) < 4 or 4 < len(run) < 8 or are_outlines or not _are_boxes(run):
            parsed.dropped.append(Dropped(f"{len(run)} location tokens are no boxes", label))
        else:
            _add_run(run, label, "florence-2", parsed)
    return []


def _are_boxes(run: Sequence[float]) -> bool:
    """Whether each four numbers of a run are two corners, the first above and left of the other.

    A polygon goes round, so that its corners aren't.
    """
    if len(run) < 8:
        return True
    for i in range(0, len(run) - 3, 4):
        x1, y1, x2, y2 = run[i : i + 4]
        if x2 <= x1 or y2 <= y1:
            return False
    return True


def _read_paligemma(text: str, parsed: ParsedReply) -> list[str]:
    """Add PaliGemma's boxes: `<loc0001><loc0002><loc0003><loc0004> cat ; …`, y first."""
    end = text.find("<loc")
    words = [text[:end]]
    for match in _PALIGEMMA.finditer(text, end):
        if match.start() != end:
            break
        end = match.end()
        run = _locations_in(match[1])
        label = match[3].strip() or None
        if len(run) % 4:
            parsed.dropped.append(Dropped(f"{len(run)} location tokens are no boxes", label))
        else:
            _add_run(run, label, "paligemma", parsed)
    return [*words, text[end:]]


def _add_run(run: Sequence[float], label: str | None, family: str, parsed: ParsedReply) -> None:
    """Add each four numbers of a run as a box; what is left over is noted."""
    for i in range(0, len(run) - 3, 4):
        parsed.boxes.append(RawBox(tuple(run[i : i + 4]), label, family=family))
    if len(run) % 4:
        parsed.notes.append(Note("dropped", f"{len(run) % 4} location tokens too many"))


def _locations_in(text: str) -> list[float]:
    return [float(number) for number in _LOCATION.findall(text)]

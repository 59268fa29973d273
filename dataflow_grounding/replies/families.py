"""The boxes in the tokens and tags that families of models write by training.

One small reader for each kind of writing. What a box's numbers mean is the format's that was asked
for, unless only one family writes such tokens. Each reader adds boxes, and what it has to drop, to
a ParsedReply, and returns the words next to the boxes, which are the reply's remark.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.json_boxes import add_boxes, numbers_in
from dataflow_grounding.replies.json_text import find_json
from dataflow_grounding.replies.labels import ids_of
from dataflow_grounding.replies.nothing import grammar_words
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
_MARK_OF_TAG = lazy_pattern(r"[<>|]")
_BETWEEN_PARTS = " \t\r\n,.;:-–—•*"  # characters that say nothing
_MOST_TAGS = 20_000  # of a reply; no model has tokens for more, but in a loop
_LABEL_TAGS = frozenset(["ref", "object_ref", "phrase"])
_BOX_TAGS = frozenset(["box", "bbox", "det", "quad", "object", "point_box"])
_OTHER_TAGS = frozenset(["point", "points", "polygon"])  # which are no boxes
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
_CUT_TAG = lazy_pattern(r"(?:<[^<>]{0,200}|>\s*,\s*)\Z")
_POINT = lazy_pattern(r"<points?\b|\bclick\(|<\|point_start\|>")
# An element of QwenVL HTML or Chandra's: its attributes, and nothing between them
_ELEMENT = lazy_pattern(r"<\w+((?:\s{1,9}[\w:-]{1,40}\s?=\s?(?:\"[^\"<>]*\"|'[^'<>]*'))+)\s*/?>")
_ATTRIBUTE = lazy_pattern(r"([\w:-]+)\s?=\s?(?:\"([^\"]*)\"|'([^']*)')")
# InternVL without its tags, a label and its list on each line, car[[1, 2, 3, 4], [5, 6, 7, 8]];
# Qwen-VL without them: close button(744,381),(756,400)
_FOUR_IN_ROW = rf"{_NUMBER}(?:,\s*{_NUMBER}){{3}}"
_FOUR_NUMBERS = rf"\[{_FOUR_IN_ROW}\]"
_PAIR = rf"\({_NUMBER},\s*{_NUMBER}\)"
_GLUED = lazy_pattern(
    rf"([^\W\d_](?:[\w '’-]{{0,80}}\w)?)"
    rf"(\[{_FOUR_NUMBERS}(?:,\s*{_FOUR_NUMBERS})*\]|{_PAIR},{_PAIR})"
)
# VideoLLaMA3: four numbers with underscores, commas or blanks between, and nothing else
_PAIRS = lazy_pattern(rf"{_PAIR}\s*,?\s*{_PAIR}")  # Qwen-VL's
# CogVLM's, a box on each side of a semicolon: [[097,514,283,996;300,514,400,996]]
_COGVLM = lazy_pattern(rf"\[\[({_FOUR_IN_ROW}(?:\s*;\s*{_FOUR_IN_ROW})+)\]\]")
_FOUR = lazy_pattern(rf"{_NUMBER}(?:(?:_|\s*,\s*|\s+){_NUMBER}){{3}}")


class _Tag(NamedTuple):
    """A tag; `mention` is the label in its attributes, or ""."""

    name: str
    closes: bool
    mention: str
    start: int
    end: int

    def closes_part_of(self, tag: "_Tag") -> bool:
        return self.closes and self.name == tag.name


class _Part(NamedTuple):
    """What is in one tag, or the words between two."""

    # "other" is a point or a polygon; after a "relation", boxes are repeated
    kind: Literal["label", "box", "other", "relation", "words"]
    text: str
    mention: str = ""  # the label in a box's own tag
    closed: bool = True


def has_tokens(text: str) -> bool:
    """Whether a text has tokens or tags with boxes or points."""
    if "<" not in text:
        return False
    patterns = (_LOCATION, _BOX_TAG, _POINT)
    return "data-bbox" in text or any(pattern.search(text) for pattern in patterns)


def read_tokens(text: str, parsed: ParsedReply, phrases: Mapping[int, str]) -> list[str]:
    """Add the boxes of tokens or tags to `parsed`. Return the words before all, then after each."""
    parsed.truncated = parsed.truncated or _CUT_TAG.search(text) is not None
    if _LOCATION.search(text):
        has_element = re.search(r"</[a-z][a-z_]*\d?>|<doctag>", text) is not None
        if has_element and _DOCTAGS.search(text):
            return _read_doctags(text, parsed)
        if "<loc_" in text:
            return _read_florence(text, parsed)
        return _read_paligemma(text, parsed)  # whose tokens are <loc0010>
    if _BOX_TAG.search(text):
        return _read_tags(text, parsed, phrases)
    if "data-bbox" in text:
        _read_html(text, parsed)
        return []
    raise UnreadableReply("the reply has points where boxes were asked for", "points")


def read_bare(text: str, parsed: ParsedReply) -> bool:
    """Add the boxes of a text that has nothing else. False where it is in no such form."""
    in_brackets = _COGVLM.fullmatch(text)  # [[097,514,283,996;300,514,400,996]]
    if in_brackets is not None:
        parsed.boxes += [RawBox(numbers) for numbers in _numbers_of_boxes(in_brackets[1])]
        return True
    if _FOUR.fullmatch(text):  # 97_514_283_996
        parsed.boxes.append(RawBox(tuple(float(number) for number in re.split(r"[\s,_]+", text))))
        return True
    if _PAIRS.fullmatch(text):  # (97,514),(283,996)
        numbers = [float(number) for number in re.findall(_NUMBER, text)]
        parsed.boxes.append(RawBox(tuple(numbers), corners=True))
        return True
    return _read_glued(text, parsed)


def _read_glued(text: str, parsed: ParsedReply) -> bool:
    """Add car[[1, 2, 3, 4], [5, 6, 7, 8]] of each line. False if one isn't so."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches: list[re.Match[str]] = []
    for line in lines:
        match = _GLUED.fullmatch(line)
        if match is None:
            return False
        matches.append(match)
    for match in matches:
        label, boxes = match[1].strip(), match[2]
        _add_lists(boxes, label, parsed)
    return bool(matches)


def _numbers_of_boxes(text: str) -> list[tuple[float, ...]]:
    """Such as "097,514,283,996;300,514,400,996"."""
    return [tuple(float(number) for number in four.split(",")) for four in text.split(";")]


def _tags_of(text: str) -> list[_Tag]:
    """Find <ref>, <|ref|>, <|ref_start|> and their ends."""
    tags: list[_Tag] = []
    # The mention of <collection mention="cups">, of all boxes up to </collection>
    collection = ""
    for match in _TAG.finditer(text):
        if len(tags) == _MOST_TAGS:
            raise UnreadableReply(f"more than {_MOST_TAGS} tags", "runaway")
        name = match["bar"] or match["word"] or match["plain"]  # one for each way to write tags
        if match["attributes"] and name not in _WITH_ATTRIBUTES:
            continue  # the tag stays among the words, where its "<" makes the reply unreadable
        closes = name.startswith("/") or match["side"] == "end"  # </ref>, <|ref_end|>
        name = name.lstrip("/")
        stated = _MENTION.search(match["attributes"] or "")
        mention = ""  # the cup of <point_box mention="cup">
        if stated is not None:
            mention = html.unescape(stated[1] or stated[2] or "").strip()
        if name == "collection":
            collection = "" if closes else mention
        tags.append(_Tag(name, closes, mention or collection, match.start(), match.end()))
    return tags


def _read_tags(text: str, parsed: ParsedReply, phrases: Mapping[int, str]) -> list[str]:
    """Add boxes in tags. Return the words next to them, but those that are labels."""
    # Labels may be in three places:
    # before their boxes, in tags: <ref>cup</ref><box>(10,20),(30,40)</box>
    # after each box, in tags: <|box_start|>…<|box_end|><|ref_start|>cup<|ref_end|> (MinerU)
    # after each box, in words: <bbox>1 2 3 4</bbox> mug (Seed)
    tags = _tags_of(text)
    if not tags:
        return [text]
    parsed.truncated = parsed.truncated or not tags[-1].closes
    parts = _parts_to_read(text, tags, parsed)
    layout = _layout_of(parts)
    labels_in_words = _labels_in_words(parts, phrases)  # [] where they are in tags
    kinds = {tag.name for tag in tags if tag.name in _BOX_TAGS}
    if len(kinds) > 1 and not labels_in_words:
        raise UnreadableReply("the reply has boxes in two kinds of tags", "several answers")
    labels_of_boxes: Sequence[str | None] = labels_in_words
    if not labels_in_words:
        has_tags_as_mineru = all(text.startswith("<|", tag.start) for tag in tags)
        labels_of_boxes = _labels_of_boxes(parts, may_follow=has_tags_as_mineru)
    count_before = len(parsed.boxes)
    boxes = [part for part in parts if part.kind == "box"]
    for label, box in zip(labels_of_boxes, boxes, strict=True):
        _add_box_tag(box.text, box.mention or label, box.closed, parsed)
    _drop_label_without_box(parts, parsed)
    words = [part.text for part in parts if part.kind == "words"]
    for text in words:
        if _MARK_OF_TAG.search(text):  # a broken tag may have been around another box
            raise UnreadableReply(f"a tag is broken near {text.strip()[:40]!r}", "broken tags")
    if not layout.startswith("w"):
        words.insert(0, "")  # for those before all labels and boxes
    if labels_in_words or _is_page(parts, parsed.boxes[count_before:]):
        return words[:1]  # those after a box are its label, or the text that is in it
    return words


def _parts_to_read(text: str, tags: Sequence[_Tag], parsed: ParsedReply) -> list[_Part]:
    """The words, labels and boxes of a text."""
    parts: list[_Part] = []
    for part in _without_repeated_boxes(_parts_between(text, tags)):
        breaks_off = part.kind == "label" and not part.closed  # it has no box yet
        if part.kind == "other":
            parsed.notes.append(Note("dropped", "a point or a polygon, which is no box"))
        elif not breaks_off:
            parts.append(part)
    return parts


def _labels_in_tags(parts: Sequence[_Part]) -> list[str]:
    return [part.text for part in parts if part.kind == "label"]


def _layout_of(parts: Sequence[_Part]) -> str:
    """The first letter of each part's kind: "wlbb" is words, and a label with two boxes."""
    return "".join(part.kind[0] for part in parts)


def _drop_label_without_box(parts: Sequence[_Part], parsed: ParsedReply) -> None:
    """Drop the plate of "<ref>cup</ref><box>…</box><ref>plate</ref>", which has no box."""
    layout = _layout_of(parts)
    without_words = layout.replace("w", "")
    are_labels_first = without_words.startswith("l")  # else the last label is that of the last box
    if are_labels_first and without_words.endswith("l"):
        parsed.dropped.append(Dropped("a label without a box", _labels_in_tags(parts)[-1]))
        parsed.truncated = parsed.truncated or layout.endswith("l")  # if no words follow


def _labels_in_words(parts: Sequence[_Part], phrases: Mapping[int, str]) -> list[str]:
    """The labels that follow boxes in words: Seed's <bbox>1 2 3 4</bbox> mug. [] for none."""
    layout = _layout_of(parts)
    words_follow_each_box = re.fullmatch("w?(?:bw)+", layout)
    if not words_follow_each_box:
        return []
    for part in parts:
        has_letters = re.search(r"[^\W\d_]", part.text) is not None
        has_label_inside = bool(part.mention) or (part.kind == "box" and has_letters)
        if has_label_inside:
            return []
    from_first_box = parts[1:] if layout.startswith("w") else parts
    labels = [part.text.strip(_BETWEEN_PARTS) for part in from_first_box if part.kind == "words"]
    for label in labels:
        if not ids_of(label, phrases):
            return []  # a sentence around the boxes
    return labels


def _is_page(parts: Sequence[_Part], boxes: Sequence[RawBox]) -> bool:
    """Whether the boxes are a page's parts, such as titles, after which the text in them comes."""
    has_labels = any(part.kind == "label" for part in parts)
    if has_labels:  # as DeepSeek-OCR's, which begins each text on a new line
        for part in parts[1:]:  # the first part may be words before the page
            if part.kind == "words" and not part.text.startswith("\n"):
                return False
    return bool(boxes) and all(box.label in grammar_words("page_parts") for box in boxes)


def _parts_between(text: str, tags: Sequence[_Tag]) -> list[_Part]:
    """Words, a label and a box of "Here: <ref>cup</ref><box>…</box>"."""
    parts: list[_Part] = []
    at = 0  # the end of the last part
    end_of_text = _Tag("", closes=False, mention="", start=len(text), end=len(text))
    following_tags = [*tags[1:], end_of_text]
    for tag, following in zip(tags, following_tags, strict=True):
        if tag.start < at:
            continue  # it closed the last part
        parts.append(_Part("words", text[at : tag.start]))
        at = tag.end
        if tag.closes and tag.name in _LABEL_TAGS:  # "cup</ref>", which was never opened
            raise _unpaired(text[tag.start :])
        if tag.name == "pred":  # <pred>holds</pred>: see `_without_repeated_boxes`
            parts.append(_Part("relation", ""))
        elif not tag.closes and tag.name != "collection":  # whose mention its boxes have already
            parts.append(_part_of(text, tag, following))
            # a part ends at the next tag, even if that is of another name
            at = following.end if following.closes_part_of(tag) else following.start
    parts.append(_Part("words", text[at:]))
    return [part for part in parts if part.kind != "words" or part.text.strip(_BETWEEN_PARTS)]


def _without_repeated_boxes(parts: Sequence[_Part]) -> list[_Part]:
    """ASMv2 writes <pred>holds</pred> after two things, and repeats their boxes after it."""
    parts_to_read: list[_Part] = []
    in_relation = False  # from such a tag up to the next label
    for part in parts:
        if part.kind == "relation":
            in_relation = True
            continue
        if part.kind == "label":
            in_relation = False
        is_repeated = in_relation and part.kind != "words"
        if not is_repeated:
            parts_to_read.append(part)
    return parts_to_read


def _unpaired(text: str) -> UnreadableReply:
    return UnreadableReply(f"a tag of a label has no other: {text[:40]!r}", "unclear labels")


def _part_of(text: str, tag: _Tag, following: _Tag) -> _Part:
    content = text[tag.end : following.start]
    closed = following.closes_part_of(tag)
    if tag.name in _LABEL_TAGS:
        is_cut_off = following.start == len(text)  # "<ref>cu"
        if not closed and not is_cut_off:  # "<ref>cup<box>"
            raise _unpaired(text[tag.start :])
        if closed and not content.strip():
            raise UnreadableReply("a label is empty", "unclear labels")
        return _Part("label", content.strip(), closed=closed)
    if tag.name in _OTHER_TAGS:
        return _Part("other", content)
    has_letters = re.search(r"[^\W\d_]", content) is not None
    if not closed and has_letters:
        return _Part("words", content)  # a tag without its end doesn't make a box of what follows
    return _Part("box", content, tag.mention, closed)


def _labels_of_boxes(parts: Sequence[_Part], *, may_follow: bool) -> list[str | None]:
    """One label for each box, or None. A label is that of all boxes up to the next label."""
    layout = _layout_of(parts)
    without_words = layout.replace("w", "")
    labels = _labels_in_tags(parts)
    if not labels:
        return [None] * layout.count("b")
    if may_follow and re.fullmatch("(?:bl)+", without_words):
        return list(labels)
    begins_with_box = without_words.startswith("b")
    has_label_without_box = "ll" in without_words
    has_words_between_boxes = "bwb" in layout  # the second box may be of what the words name
    if begins_with_box or has_label_without_box or has_words_between_boxes:
        raise UnreadableReply("it is unclear which label belongs to which box", "unclear labels")
    labels_of_boxes: list[str | None] = []
    boxes_of_labels = re.findall("l(b*)", without_words)  # "lbblb" -> "bb" and "b"
    for label, boxes in zip(labels, boxes_of_labels, strict=True):
        labels_of_boxes += [label] * len(boxes)
    return labels_of_boxes


def _add_box_tag(content: str, label: str | None, closed: bool, parsed: ParsedReply) -> None:
    content = content.strip()
    # In brackets, a box may be whole although its tag isn't closed: `_add_lists` finds out.
    is_in_brackets = "[" in content or content.endswith(")")
    if not closed and not is_in_brackets:
        parsed.dropped.append(Dropped(f"a box that breaks off: {content[:40]!r}", label))
    elif content.casefold() in ("none", "null", "无"):
        parsed.absences.append(RawBox((), label))
    elif "<patch_index_" in content:
        _add_patches(content, label, parsed)
    elif _NUMBER_TOKENS.match(content):
        _add_number_tokens(content, label, parsed)
    else:
        _add_lists(content, label, parsed)


def _add_patches(content: str, label: str | None, parsed: ParsedReply) -> None:
    """Kosmos-2's <patch_index_0044><patch_index_0863>, the first and last cell of a grid."""
    for piece in content.split(_DELIMITER):
        cells = _PATCHES.fullmatch(piece.strip())
        if cells is not None:
            numbers = (float(cells[1]), float(cells[2]))
            parsed.boxes.append(RawBox(numbers, label, family="kosmos-2"))
        elif piece.strip():
            parsed.dropped.append(Dropped(f"no two grid cells: {piece[:40]!r}", label))


def _add_number_tokens(content: str, label: str | None, parsed: ParsedReply) -> None:
    """Such as <12><34><56><78>,<20><34><60><78>."""
    for group in re.split(r"(?<=>)\s*,\s*(?=<)", content):
        if _NUMBER_TOKENS.fullmatch(group) is None:
            parsed.dropped.append(Dropped(f"a box with other words: {group[:60]!r}", label))
            continue
        add_boxes(re.sub(r"<(?:[xy]_)?|>", " ", group), RawBox((), label), parsed)


def _add_lists(content: str, label: str | None, parsed: ParsedReply) -> None:
    """A label may come first, as Unlimited-OCR writes it: title[[12, 34, 56, 78]]."""
    if numbers_in(content) is not None:
        add_boxes(content, RawBox((), label), parsed)
        return
    lists = find_json(content)
    before = content[: lists.start].strip()
    after = content[lists.end :].strip()
    has_two_labels = bool(before and label)
    has_digit_before = re.search(r"\d", before) is not None  # it may be a coordinate
    if after or has_two_labels or has_digit_before:
        parsed.dropped.append(Dropped(f"a box with other words: {content[:60]!r}", label))
        return
    parsed.truncated = parsed.truncated or lists.truncated
    value = lists.values[0] if len(lists.values) == 1 else lists.values
    add_boxes(value, RawBox((), label or before or None), parsed)


def _read_html(text: str, parsed: ParsedReply) -> None:
    """Such as <div data-bbox="10 20 30 40" data-label="Table">…</div>."""
    closes_more_than_opens = len(re.findall("<[a-z]", text)) < text.count("</")
    if closes_more_than_opens:
        raise UnreadableReply("the reply's elements don't fit", "broken HTML")
    names_read: list[str] = []  # of the attributes of all elements
    for element in _ELEMENT.finditer(text):
        attributes = {
            name: in_double_quotes or in_single_quotes
            for name, in_double_quotes, in_single_quotes in _ATTRIBUTE.findall(element[1])
        }
        names_read += attributes
        label = attributes.get("data-label", "").strip() or None
        if "data-bbox" in attributes:
            add_boxes(attributes["data-bbox"], RawBox((), label), parsed)
        elif label is not None:
            parsed.dropped.append(Dropped("an element without a box", label))
    # _ELEMENT matches well-formed elements alone: those with a broken attribute were passed over.
    names = ("data-bbox", "data-label")
    if any(names_read.count(name) < text.count(name) for name in names):
        parsed.dropped.append(Dropped("an element with a broken attribute"))


def _read_doctags(text: str, parsed: ParsedReply) -> list[str]:
    """Such as <title><loc_10><loc_20><loc_30><loc_40>Text</title>, within <doctag>."""
    parsed.truncated = parsed.truncated or ("<doctag>" in text and "</doctag>" not in text)
    elements = list(_DOCTAGS.finditer(text))
    tokens_inside = sum(len(_locations_in(element[2])) for element in elements)
    if tokens_inside != len(_locations_in(text)):
        parsed.dropped.append(Dropped("location tokens outside of an element"))
    for element in elements:
        tag, locations = element.groups()
        label = re.sub(r"_level_\d$", "", tag).replace("_", " ")
        if label == "otsl":  # a table in its own language of tokens
            label = "table"
        numbers = _locations_in(locations)
        if len(numbers) == 4:
            parsed.boxes.append(RawBox(tuple(numbers), label, family="doctags"))
        else:
            parsed.dropped.append(Dropped(f"{len(numbers)} location tokens are no box", label))
            # Where the text ends with this element, its tokens break off.
            is_at_end = element.end() == len(text.rstrip())
            parsed.truncated |= is_at_end
    return []


class _Locations(NamedTuple):
    """The numbers of location tokens in a row, with the label of their boxes."""

    numbers: list[float]
    label: str | None


def _read_florence(text: str, parsed: ParsedReply) -> list[str]:
    """Such as cup<loc_10><loc_20><loc_30><loc_40>, with four tokens for each box of a cup."""
    # Eight tokens may be two boxes, or the corners of a quadrangle, which go round.
    are_outlines = "<poly>" in text
    rows = _florence_rows(text.replace("<poly>", "").replace("</poly>", ""))
    if len(rows[-1].numbers) % 4:  # its last box breaks off, or has a token too many
        parsed.truncated = True
        parsed.dropped.append(_no_boxes(rows.pop()))
    if all(_is_quadrangle(row.numbers) for row in rows):
        for row in rows:
            xs, ys = row.numbers[0::2], row.numbers[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            parsed.boxes.append(RawBox(box, row.label, family="florence-2"))
        return []
    for row in rows:
        has_whole_boxes = len(row.numbers) % 4 == 0
        if are_outlines or not has_whole_boxes or not _are_boxes(row.numbers):
            raise UnreadableReply(_no_boxes(row).reason, "unclear boxes")
        _add_fours(row, "florence-2", parsed)
    return []  # no words: `_florence_rows` refuses other text


def _florence_rows(text: str) -> list[_Locations]:
    """One for each label, or a single one without any."""
    rows: list[_Locations] = []
    end = 0  # of the last match
    for match in _FLORENCE.finditer(text):
        if match.start() != end:
            break  # something else is between them, which is refused below
        label = match[1].strip(" ;,\n")
        rows.append(_Locations(_locations_in(match[2]), label or None))
        end = match.end()
    is_anything_else = bool(text[end:].strip())
    have_only_some_labels = len({row.label is None for row in rows}) > 1
    if is_anything_else or have_only_some_labels:
        raise UnreadableReply("it is unclear which label belongs to which box", "unclear labels")
    return rows


def _no_boxes(row: _Locations) -> Dropped:
    return Dropped(f"{len(row.numbers)} location tokens are no boxes", row.label)


def _is_quadrangle(numbers: Sequence[float]) -> bool:
    """Whether four corners go round from the top left, as those of no two boxes do."""
    if len(numbers) != 8:
        return False
    x1, y1, x2, y2, x3, y3, x4, y4 = numbers
    xs, ys = numbers[0::2], numbers[1::2]
    tolerance = 0.1 * (max(xs) - min(xs) + max(ys) - min(ys))
    goes_round = x1 < x2 and x4 < x3 and y1 < y4 and y2 < y3
    # The diagonals, 1 to 3 and 2 to 4, have about the same middle. This is twice the distance.
    middles_apart = max(abs(x1 + x3 - x2 - x4), abs(y1 + y3 - y2 - y4))
    return goes_round and middles_apart <= tolerance


def _are_boxes(numbers: Sequence[float]) -> bool:
    """Whether each four numbers are two corners. Those of a polygon go round, and aren't."""
    for i in range(0, len(numbers) - 3, 4):
        x1, y1, x2, y2 = numbers[i : i + 4]
        if x2 <= x1 or y2 <= y1:
            return False
    return True


def _read_paligemma(text: str, parsed: ParsedReply) -> list[str]:
    """Such as <loc0102><loc0050><loc0900><loc0601> cup ; <loc0010>…."""
    end = text.find("<loc")  # of what was read
    words_before = text[:end]
    for match in _PALIGEMMA.finditer(text, end):
        if match.start() != end:
            break  # something else is between them
        end = match.end()
        tokens, _mask, name = match.groups()
        row = _Locations(_locations_in(tokens), name.strip() or None)
        if len(row.numbers) % 4:
            parsed.dropped.append(_no_boxes(row))
        else:
            _add_fours(row, "paligemma", parsed)
    return [words_before, text[end:]]


def _add_fours(row: _Locations, family: str, parsed: ParsedReply) -> None:
    for i in range(0, len(row.numbers) - 3, 4):
        parsed.boxes.append(RawBox(tuple(row.numbers[i : i + 4]), row.label, family=family))


def _locations_in(text: str) -> list[float]:
    return [float(number) for number in _LOCATION.findall(text)]

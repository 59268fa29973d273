"""The boxes in the tokens and tags that families of models write by training.

A text becomes a row of parts: labels, boxes, and the words between them. Which label is whose
follows from the row alone. What a box's numbers mean is the format's that was asked for, unless
only one family writes such tokens. Boxes, and what has to be dropped, come to a ParsedReply; the
words next to the boxes are returned, and are the reply's remark.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
# <object>; Seed <bbox>; Isaac <point_box mention="…">.
_OPENS = (
    r"<\|?(?:(?P<label>object_ref|ref|phrase)|(?P<other>points?|polygon)"
    r"|(?P<box>box|bbox|det|quad|point_box|object(?=>\s*<patch_)))"
    r"(?:_start)?(?P<attributes>\s[^<>]{0,1000})?\|?>"
)
_CLOSES = r"<\|?/(?:object_ref|ref|phrase|points?|polygon|box|bbox|det|quad|point_box|object)\|?>"
_CLOSES += r"|<\|(?:object_ref|ref|box|quad)_end\|>"
_TAG = lazy_pattern(rf"(?P<closes>{_CLOSES})|{_OPENS}")
_BOX_TAG = lazy_pattern(
    r"<\|det\|>|<\|(?:box|quad)_start\|>|<(?:box|bbox|quad|point_box)[\s>]|<object>\s*<patch_"
)
_MOST_TAGS = 20_000  # of a reply; no model has tokens for more, but in a loop
_MARK_OF_TAG = lazy_pattern(r"[<>|]")
_BETWEEN_PARTS = " \t\r\n,.;:-–—•*"  # characters that say nothing
_MENTION = lazy_pattern(r"\bmention\s?=\s?(?:\"([^\"]*)\"|'([^']*)')")
_COLLECTION = lazy_pattern(r"<collection(\s[^<>]{0,1000})?>(.*?)(?:</collection>|\Z)", re.DOTALL)
# ASMv2 writes <pred>holds</pred> after two things, and repeats their boxes after it.
_RELATION = lazy_pattern(r"<pred>([^<>]*)</pred>(?:\s*<box>[^<>]*</box>)*")
_NUMBER_TOKENS = lazy_pattern(rf"(?:<(?:[xy]_)?{_NUMBER}>\s*)+")  # <12><34><56><78>
_PATCHES = lazy_pattern(r"<patch_index_(\d{1,6})>\s*<patch_index_(\d{1,6})>")  # Kosmos-2's cells
_DELIMITER = "</delimiter_of_multi_objects/>"  # between Kosmos-2's boxes of one phrase
_LOCATION = lazy_pattern(r"<loc_?(\d{1,6})>")
_LOCATIONS = lazy_pattern(r"(?:<((?!loc_)[a-z][a-z_]{0,40}\d?)>\s*)?((?:<loc_?\d{1,6}>\s*)+)")
_MASK = lazy_pattern(r"<seg\d{3}>")
_CUT_TAG = lazy_pattern(r"(?:<[^<>]{0,200}|(?<=>)\s*,\s*)\Z")
_POINT = lazy_pattern(r"<points?\b|\bclick\(|<\|point_start\|>")
# An element of QwenVL HTML or Chandra's: its attributes, and nothing between them
_ELEMENT = lazy_pattern(r"<\w+((?:\s{1,9}[\w:-]{1,40}\s?=\s?(?:\"[^\"<>]*\"|'[^'<>]*'))+)\s*/?>")
_ATTRIBUTE = lazy_pattern(r"([\w:-]+)\s?=\s?(?:\"([^\"]*)\"|'([^']*)')")
# InternVL without its tags, a label and its list on each line, car[[1, 2, 3, 4], [5, 6, 7, 8]];
# Qwen-VL without them: close button(744,381),(756,400)
_FOUR_IN_ROW = rf"{_NUMBER}(?:,\s*{_NUMBER}){{3}}"
_PAIR = rf"\({_NUMBER},\s*{_NUMBER}\)"
_GLUED = lazy_pattern(
    rf"([^\W\d_](?:[\w '’-]{{0,80}}\w)?)"
    rf"(\[\[{_FOUR_IN_ROW}\](?:,\s*\[{_FOUR_IN_ROW}\])*\]|{_PAIR},{_PAIR})"
)
# CogVLM's, a box on each side of a semicolon: [[097,514,283,996;300,514,400,996]]
_COGVLM = lazy_pattern(rf"\[\[({_FOUR_IN_ROW}(?:\s*;\s*{_FOUR_IN_ROW})+)\]\]")
# Qwen-VL's pair of corners, and VideoLLaMA3's four numbers with underscores
_FOUR = lazy_pattern(rf"{_PAIR}\s*,?\s*{_PAIR}|{_NUMBER}(?:(?:_|\s*,\s*|\s+){_NUMBER}){{3}}")


class _Part(NamedTuple):
    """What is in one tag, or the words between two; `mention` is the label in a box's own tag."""

    kind: str  # "label", "box", "other" (a point or a polygon) or "words"
    text: str
    mention: str = ""
    closed: bool = True


def has_tokens(text: str) -> bool:
    """Whether a text has tokens or tags with boxes or points."""
    if "<" not in text:
        return False
    patterns = (_LOCATION, _BOX_TAG, _POINT)
    return "data-bbox" in text or any(pattern.search(text) for pattern in patterns)


def read_tokens(text: str, parsed: ParsedReply, phrases: Mapping[int, str]) -> list[str]:
    """Add the boxes of tokens or tags to `parsed`. Return the words before all, then after each."""
    cut = _CUT_TAG.search(text)
    if cut is not None:
        parsed.truncated = True
        text = text[: cut.start()]
    if _LOCATION.search(text):
        return _read_locations(text, parsed)
    if _BOX_TAG.search(text):
        return _read_tags(text, parsed, phrases)
    if "data-bbox" in text:
        _read_html(text, parsed)
        return []
    if _POINT.search(text):
        raise UnreadableReply("the reply has points where boxes were asked for", "points")
    return [text]


def read_bare(text: str, parsed: ParsedReply) -> bool:
    """Add the boxes of a text that has nothing else. False where it is in no such form."""
    in_brackets = _COGVLM.fullmatch(text)  # [[097,514,283,996;300,514,400,996]]
    if in_brackets is not None:
        text = in_brackets[1]
    elif not _FOUR.fullmatch(text):
        return _read_glued(text, parsed)
    for four in text.split(";"):  # 97_514_283_996, (97,514),(283,996)
        numbers = tuple(float(number) for number in re.findall(_NUMBER, four))
        parsed.boxes.append(RawBox(numbers, corners="(" in four))
    return True


def _read_glued(text: str, parsed: ParsedReply) -> bool:
    """Add car[[1, 2, 3, 4], [5, 6, 7, 8]] of each line. False if one isn't so."""
    matches = [_GLUED.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    if not all(matches):
        return False
    for match in filter(None, matches):
        _add_lists(match[2], match[1].strip(), parsed)
    return bool(matches)


def _read_locations(text: str, parsed: ParsedReply) -> list[str]:
    """Add the boxes of location tokens, four for each. Where their label is tells the family."""
    first, *rest = _LOCATIONS.split(re.sub("</?poly>", "", text))
    elements, rows, words = rest[0::3], rest[1::3], [first, *rest[2::3]]
    if any(elements):  # <title><loc_10><loc_20><loc_30><loc_40>Text</title>, within <doctag>
        family = "doctags"
        labels = [re.sub(r"_level_\d$", "", name or "").replace("_", " ") for name in elements]
        labels = ["table" if name == "otsl" else name for name in labels]
        parsed.truncated |= "<doctag>" in text and "</doctag>" not in text
        words = [""]
    elif "<loc_" in text:  # cup<loc_10><loc_20><loc_30><loc_40>
        family = "florence-2"
        labels = [part.strip(" ;,\n") for part in words[:-1]]
        if words[-1].strip() or len(set(map(bool, labels))) > 1:
            raise _unclear_labels()
        words = [""]
    else:  # <loc0102><loc0050><loc0900><loc0601> cup ; <loc0010>….
        family = "paligemma"
        after = [_MASK.sub("", part).partition(";") for part in words[1:]]
        labels = [name.strip() for name, _, _ in after]
        if any(others.strip() for _, _, others in after[:-1]):
            raise _unclear_labels()
        words = [first, after[-1][2]]
    if family != "doctags" and any(map(_MARK_OF_TAG.search, [*labels, *words])):
        raise _unclear_labels()
    all_numbers = [[float(number) for number in _LOCATION.findall(row)] for row in rows]
    has_outlines = family == "florence-2" and (
        "<poly>" in text or any(map(_is_quadrangle, all_numbers))
    )
    for label, numbers in zip(labels, all_numbers, strict=True):
        boxes = [tuple(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
        if has_outlines and _is_quadrangle(numbers):
            xs, ys = numbers[0::2], numbers[1::2]
            boxes = [(min(xs), min(ys), max(xs), max(ys))]
        elif has_outlines or not _are_boxes(boxes, family):
            reason = f"{len(numbers)} location tokens are no box"
            parsed.dropped.append(Dropped(reason, label or None))
            continue
        parsed.boxes += [RawBox(box, label or None, family=family) for box in boxes]
    breaks_off = len(all_numbers[-1]) % 4 > 0 and text.endswith(rows[-1])
    parsed.truncated = parsed.truncated or breaks_off
    return words


def _are_boxes(fours: Sequence[tuple[float, ...]], family: str) -> bool:
    """Whether numbers are whole boxes, and not the corners of a polygon, which go round."""
    if len(fours[-1]) < 4 or (family == "doctags" and len(fours) > 1):
        return False
    return family != "florence-2" or all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in fours)


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


def _unclear_labels() -> UnreadableReply:
    return UnreadableReply("it is unclear which label belongs to which box", "unclear labels")


def _read_tags(text: str, parsed: ParsedReply, phrases: Mapping[int, str]) -> list[str]:
    """Add boxes in tags. Return the words next to them, but those that are labels."""
    # <collection mention="cups"> is of all boxes in it
    text = _COLLECTION.sub(
        lambda found: found[2].replace("<point_box>", f"<point_box{found[1] or ''}>"), text
    )
    parts = _parts_of(_RELATION.sub(r"\1", text))
    parsed.truncated = parsed.truncated or not parts[-1].closed
    for part in parts:
        if part.kind == "other":
            parsed.notes.append(Note("dropped", "a point or a polygon, which is no box"))
        if part.kind == "words" and _MARK_OF_TAG.search(part.text):
            # a broken tag may have been around another box
            near = part.text.strip()[:40]
            raise UnreadableReply(f"a tag is broken near {near!r}", "broken tags")
    # a label that breaks off has no box yet
    parts = [
        part
        for part in parts
        if part.kind in ("words", "box") or (part.kind == "label" and part.closed)
    ]
    boxes = [part for part in parts if part.kind == "box"]
    labels_in_words = _labels_in_words(parts, phrases)
    labels = labels_in_words or _labels_in_tags(parts, may_follow="<ref>" not in text)
    count_before = len(parsed.boxes)
    for label, box in zip(labels, boxes, strict=True):
        _add_box_tag(box, box.mention or label, parsed)
    row = _row_of(parts)
    if re.fullmatch("w?l.*lw?", row):  # "<ref>cup</ref><box>…</box><ref>plate</ref>"
        *_, last = (part.text for part in parts if part.kind == "label")
        parsed.dropped.append(Dropped("a label without a box", last))
        parsed.truncated = parsed.truncated or row.endswith("l")  # if no words follow
    words = [part.text for part in parts if part.kind == "words"]
    if not row.startswith("w"):
        words.insert(0, "")  # for those before all labels and boxes
    # DeepSeek-OCR's boxes are parts of a page, such as titles, after which the text in them comes.
    is_page = "<|det|>" in text and grammar_words("page_parts").issuperset(
        box.label for box in parsed.boxes[count_before:]
    )
    return words[:1] if labels_in_words or is_page else words


def _row_of(parts: Sequence[_Part]) -> str:
    """The first letter of each part's kind: "wlbb" is words, and a label with two boxes."""
    return "".join(part.kind[0] for part in parts)


def _parts_of(text: str) -> list[_Part]:
    """Words, a label and a box of "Here: <ref>cup</ref><box>…</box>"."""
    tags = [*_TAG.finditer(text)]
    if len(tags) > _MOST_TAGS:
        raise UnreadableReply(f"more than {_MOST_TAGS} tags", "runaway")
    parts: list[_Part] = []
    at = 0  # the end of the last part
    for tag, following in zip(tags, [*tags[1:], None], strict=False):
        if tag["closes"]:
            continue  # it closed the last part, or is among the words
        parts.append(_Part("words", text[at : tag.start()]))
        kind, name = next((kind, tag[kind]) for kind in ("label", "box", "other") if tag[kind])
        # a part ends at the next tag, even if that is of another name
        at = len(text) if following is None else following.start()
        content = text[tag.end() : at].strip()
        closed = following is not None and following["closes"] is not None and name in following[0]
        if kind == "label" and (not content if closed else following is not None):
            raise UnreadableReply(f"a label breaks off: {content[:40]!r}", "unclear labels")
        if closed and following is not None:
            at = following.end()
        stated = _MENTION.search(tag["attributes"] or "")
        mention = html.unescape(stated[1] or stated[2] or "").strip() if stated else ""
        parts.append(_Part(kind, content, mention, closed))
    parts.append(_Part("words", text[at:]))
    return [part for part in parts if part.kind != "words" or part.text.strip(_BETWEEN_PARTS)]


def _labels_in_words(parts: Sequence[_Part], phrases: Mapping[int, str]) -> list[str]:
    """The labels that follow boxes in words: Seed's <bbox>1 2 3 4</bbox> mug. [] for none."""
    if not re.fullmatch("w?(?:bw)+", _row_of(parts)):
        return []
    boxes, words = parts[-2::-2][::-1], parts[-1::-2][::-1]
    if any(box.mention or re.search(r"[^\W\d_]", box.text) for box in boxes):
        return []  # the label is inside
    labels = [part.text.strip(_BETWEEN_PARTS) for part in words][-len(boxes) :]
    # else it is a sentence around the boxes
    return labels if all(ids_of(label, phrases) for label in labels) else []


def _labels_in_tags(parts: Sequence[_Part], *, may_follow: bool) -> list[str | None]:
    """One label for each box, or None. A label is that of all boxes up to the next label."""
    row = _row_of(parts)
    tags = row.replace("w", "")
    labels = [part.text for part in parts if part.kind == "label"]
    if not labels:
        return [None] * row.count("b")
    if may_follow and re.fullmatch("(?:bl)+", tags):  # MinerU's
        return [*labels]
    # of "bwb", the second box may be of what the words name
    if tags.startswith("b") or "ll" in tags or "bwb" in row:
        raise _unclear_labels()
    boxes_of_labels = re.findall("l(b*)", tags)  # "lbblb" -> "bb" and "b"
    pairs = zip(labels, boxes_of_labels, strict=True)
    return [label for label, boxes in pairs for _ in boxes]


def _add_box_tag(box: _Part, label: str | None, parsed: ParsedReply) -> None:
    content = box.text
    # In brackets, a box may be whole although its tag isn't closed: `_add_lists` finds out.
    is_in_brackets = "[" in content or content.endswith(")")
    if not box.closed and not is_in_brackets:
        parsed.dropped.append(Dropped(f"a box that breaks off: {content[:40]!r}", label))
    elif content.casefold() in ("none", "null", "无"):
        parsed.absences.append(RawBox((), label))
    elif "<patch_index_" in content:
        # Kosmos-2's <patch_index_0044><patch_index_0863>, the first and last cell of a grid
        for piece in content.split(_DELIMITER):
            cells = _PATCHES.fullmatch(piece.strip())
            if cells is None:
                parsed.dropped.append(Dropped(f"no two grid cells: {piece[:40]!r}", label))
                continue
            numbers = (float(cells[1]), float(cells[2]))
            parsed.boxes.append(RawBox(numbers, label, family="kosmos-2"))
    else:  # <12><34><56><78>,<20><34><60><78> as [12, 34, 56, 78],[20, 34, 60, 78]
        _add_lists(_NUMBER_TOKENS.sub(_in_brackets, content), label, parsed)


def _in_brackets(tokens: re.Match[str]) -> str:
    return f"[{', '.join(re.findall(_NUMBER, tokens[0]))}]"


def _add_lists(content: str, label: str | None, parsed: ParsedReply) -> None:
    """A label may come first, as Unlimited-OCR writes it: title[[12, 34, 56, 78]]."""
    if numbers_in(content) is not None:
        add_boxes(content, RawBox((), label), parsed)
        return
    lists = find_json(content)
    before = content[: lists.start].strip()
    has_two_labels = bool(before and label)
    has_digit_before = re.search(r"\d", before) is not None  # it may be a coordinate
    if content[lists.end :].strip() or has_two_labels or has_digit_before:
        parsed.dropped.append(Dropped(f"a box with other words: {content[:60]!r}", label))
        return
    parsed.truncated = parsed.truncated or lists.truncated
    value = lists.values[0] if len(lists.values) == 1 else lists.values
    add_boxes(value, RawBox((), label or before or None), parsed)


def _read_html(text: str, parsed: ParsedReply) -> None:
    """Such as <div data-bbox="10 20 30 40" data-label="Table">…</div>."""
    closes_more_than_opens = len(re.findall("<[a-z]", text)) < text.count("</")
    if closes_more_than_opens:  # an element is lost
        raise UnreadableReply("the reply's elements don't fit", "broken HTML")
    count = 0  # of such attributes in whole elements
    for element in _ELEMENT.finditer(text):
        fields = {name: double or single for name, double, single in _ATTRIBUTE.findall(element[1])}
        count += len(fields.keys() & {"data-bbox", "data-label"})
        label = fields.get("data-label", "").strip() or None
        if "data-bbox" in fields:
            add_boxes(fields["data-bbox"], RawBox((), label), parsed)
        elif label is not None:
            parsed.dropped.append(Dropped("an element without a box", label))
    if count < text.count("data-bbox") + text.count("data-label"):
        parsed.dropped.append(Dropped("an element with a broken attribute"))

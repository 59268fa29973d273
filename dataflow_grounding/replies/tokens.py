"""The boxes in the tokens and tags that families of models write by training.

One small reader for each kind of writing. What a box's numbers mean is the format's that was asked
for, unless only one family writes such tokens.
"""

import html
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.replies.json_boxes import add_boxes, numbers_in
from dataflow_grounding.replies.json_text import find_json
from dataflow_grounding.replies.reading import Dropped, Note, ParsedReply, RawBox
from dataflow_grounding.replies.words import is_neutral, objection, other_thing, turning_word

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
_BETWEEN_PARTS = " \t\r\n,.;:-–—•*"  # characters that say nothing
_MOST_TAGS = 20_000  # of a reply; no model has tokens for more, but in a loop
_LABEL_TAGS = frozenset(["ref", "object_ref", "phrase"])
_NEXT_THING = _LABEL_TAGS | {"pred"}  # what follows is of another thing
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
# the same after a thing in a caption: a dog[[097,514,283,996]] on a sofa[[300,514,400,996]]
_IN_CAPTION = lazy_pattern(rf"\[\[({_FOUR_IN_ROW}(?:\s*;\s*{_FOUR_IN_ROW})*)\]\]")
_LONGEST_THING = 5  # words
_SIDES = (["left"], ["right"], ["front"], ["top"])
_LABEL = lazy_pattern(r"[^\W\d_](?:[\w '’-]{0,60}\w)?")
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
    """Add the boxes of a text's tokens or tags to `parsed`. Returns the words next to them: those
    before all boxes, then those after each. Raises UnreadableReply where it is unclear to which box
    a label belongs, or what a tag holds.
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
    """Add the boxes of a text that has nothing else: labels with lists glued to them, one on each
    line; four numbers; two pairs; or CogVLM's list of boxes. False where it isn't one of these.
    """
    in_brackets = _COGVLM.fullmatch(text)
    if in_brackets is not None:
        for four in in_brackets[1].split(";"):
            parsed.boxes.append(RawBox(tuple(float(number) for number in four.split(","))))
        return True
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


def read_caption(text: str, parsed: ParsedReply) -> list[str] | None:
    """Add the boxes of CogVLM's caption, in which each has a thing before it, with its article.
    Returns the words next to them; None where the text is no such caption.
    """
    boxes = list(_IN_CAPTION.finditer(text))
    if not boxes:
        return None
    goes_on = re.search(r"[^\W\d_]", text[boxes[0].end() :]) is not None
    if len(boxes) == 1 and not goes_on:
        return None  # a label with its box
    words: list[str] = []
    things: list[str] = []
    at = 0
    for box in boxes:
        before = text[at : box.start()].rstrip()
        thing = _thing_at_end(before)
        if thing is None:
            return None
        words.append(before.removesuffix(thing))
        things.append(thing)
        at = box.end()
    parsed.tagged = True
    parsed.truncated = not text.rstrip().endswith((".", "!", "?"))
    for thing, box in zip(things, boxes, strict=True):
        for four in box[1].split(";"):
            numbers = tuple(float(number) for number in four.split(","))
            parsed.boxes.append(RawBox(numbers, thing))
    return [*words, text[at:]]


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(load_table(__package__, "grammar.yaml")[name].split())


def _thing_at_end(text: str) -> str | None:
    # The words after the last article, which is looked for from the end.
    begin = len(text)
    words = text.split()
    for i, word in enumerate(words[: -_LONGEST_THING - 2 : -1], start=1):
        if word.lower() in _words("determiners"):
            # "the tail of the cat" may be the tail, "left of the cat" isn't
            before = text.lower().split()[:-i]
            is_part = before[-1:] == ["of"] and before[-2:-1] not in _SIDES
            return None if is_part else text[begin:] or None
        if not _LABEL.fullmatch(word) or word.lower() in _words("not_in_things"):
            return None
        begin = text.rindex(word, 0, begin)
    return None


def _tags_of(text: str) -> list[_Tag]:
    tags: list[_Tag] = []
    collection = ""  # the label of the collection that is open
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
    # Labels are in tags before their boxes, or after them if each box is followed by one.
    tags = _tags_of(text)
    if not tags:
        return [text]
    parts = _parts_between(text, tags)
    parsed.tagged = True
    parsed.truncated = parsed.truncated or not tags[-1].closes
    for part in parts:
        if part.kind == "o":
            parsed.notes.append(Note("dropped", "a point or a polygon, which is no box"))
    # a label that breaks off has no box yet
    parts = [part for part in parts if part.kind in "bw" or (part.kind == "l" and part.closed)]
    labels = [part.text for part in parts if part.kind == "l"]
    boxes = [part for part in parts if part.kind == "b"]
    kinds = "".join(part.kind for part in parts)  # such as "wlblb"
    _check_between(parts)
    labels_in_words = _labels_in_words(kinds, parts)
    may_follow = all(text.startswith("<|", tag.start) for tag in tags)
    of_boxes = labels_in_words or _labels_of_boxes(kinds, labels, may_follow=may_follow)
    count_before = len(parsed.boxes)
    for label, box in zip(of_boxes, boxes, strict=True):
        _add_box_tag(box.text, box.mention or label, box.closed, parsed)
    if labels_in_words or _is_page(parts, parsed.boxes[count_before:]):
        # words after a box are its label, or the text that is in it
        parts = parts[:1] if kinds.startswith("w") else []
    _note_label_without_box(kinds, labels, parsed)
    words = [part.text for part in parts if part.kind == "w"]
    return words if kinds.startswith("w") else ["", *words]


def _note_label_without_box(kinds: str, labels: Sequence[str], parsed: ParsedReply) -> None:
    # Only where labels come before their boxes may the last one have none.
    things = kinds.replace("w", "")
    if things.startswith("l") and things.endswith("l"):
        parsed.dropped.append(Dropped("a label without a box", labels[-1]))
        parsed.truncated = parsed.truncated or kinds.endswith("l")


def _check_between(parts: Sequence["_Part"]) -> None:
    # Words between a label and its box may say that the box is of something else.
    for label, words, box in zip(parts, parts[1:], parts[2:], strict=False):
        if (label.kind, words.kind, box.kind) != ("l", "w", "b"):
            continue
        if objection(words.text) is not None or other_thing(words.text, []) is not None:
            raise UnreadableReply(
                f"the words before a box may change it: {words.text.strip()[:40]!r}", "words"
            )


def _labels_in_words(kinds: str, parts: Sequence["_Part"]) -> list[str]:
    # Seed's model writes <bbox>1 2 3 4</bbox> mug. [] unless each box is followed by one.
    has_label_inside = any(
        part.mention or (part.kind == "b" and re.search(r"[^\W\d_]", part.text)) for part in parts
    )
    if has_label_inside or not re.fullmatch("w?(?:bw)+", kinds):
        return []
    first = 1 if kinds.startswith("w") else 0
    labels = [part.text.strip(_BETWEEN_PARTS) for part in parts[first:] if part.kind == "w"]
    for label in labels:
        first_word = label.split()[0]
        is_article = first_word.lower() in _words("determiners")
        begins_as_name = is_article or not is_neutral(first_word.lower())
        names_thing = other_thing(label, []) is not None and turning_word(label) is None
        if not begins_as_name or not names_thing or not _LABEL.fullmatch(label):
            return []
    return labels


def _is_page(parts: Sequence["_Part"], boxes: Sequence[RawBox]) -> bool:
    # Whether the boxes are parts of a page, each with the text in it after it. With labels in tags
    # (DeepSeek-OCR) that begins on a line of its own, without them (Unlimited-OCR) it needn't.
    has_labels = any(part.kind == "l" for part in parts)
    for part in parts[1:]:
        if has_labels and part.kind == "w" and not part.text.startswith("\n"):
            return False
    return bool(boxes) and all(box.label in _words("page_parts") for box in boxes)


class _Part(NamedTuple):
    """`kind` is "l" for a label, "b" for a box, "o" for a point or a polygon, "w" for words;
    `mention` is the label in a box's own tag.
    """

    kind: str
    text: str
    mention: str = ""
    closed: bool = True


def _parts_between(text: str, tags: Sequence[_Tag]) -> list[_Part]:
    parts: list[_Part] = []
    in_relation = False
    at = 0  # up to which the text is in parts
    end = _Tag("", False, "", len(text), len(text))
    for tag, following in zip(tags, [*tags[1:], end], strict=True):
        if tag.start < at:
            continue  # it closed the part before
        parts.append(_Part("w", text[at : tag.start]))
        at = tag.end
        if tag.name in _NEXT_THING:
            in_relation = tag.name == "pred"  # boxes then repeat those of two things
        if tag.closes or tag.name in ("pred", "collection"):
            if tag.name in _LABEL_TAGS:
                raise _unpaired(text[tag.start :])
            continue
        closed = following.closes and following.name == tag.name
        part = _part_of(tag, text[tag.end : following.start], closed)
        at = following.end if closed else following.start
        if part.kind == "l" and not closed and following is not end:
            raise _unpaired(text[tag.start :])
        if part.kind in "lw" or not in_relation:
            parts.append(part)
    parts.append(_Part("w", text[at:]))
    return [part for part in parts if part.kind != "w" or part.text.strip(_BETWEEN_PARTS)]


def _unpaired(text: str) -> UnreadableReply:
    return UnreadableReply(f"a tag of a label has no other: {text[:40]!r}", "unclear labels")


def _part_of(tag: _Tag, content: str, closed: bool) -> _Part:
    if tag.name in _LABEL_TAGS:
        if closed and not content.strip():
            raise UnreadableReply("a label is empty", "unclear labels")
        return _Part("l", content.strip(), closed=closed)
    if tag.name in _OTHER_TAGS:
        return _Part("o", content)
    if not closed and re.search(r"[^\W\d_]", content):
        return _Part("w", content)  # a tag without its end doesn't make a box of what follows
    return _Part("b", content, tag.mention, closed)


def _labels_of_boxes(kinds: str, labels: Sequence[str], *, may_follow: bool) -> list[str | None]:
    # `kinds` has a letter for each part: b for a box, l for a label, w for words. A label is of all
    # boxes up to the next one; MinerU's follow their boxes. Words between two boxes may begin
    # another thing, so whose label the second box has is unclear.
    plain = kinds.replace("w", "")
    if not labels:
        return [None] * plain.count("b")
    if may_follow and re.fullmatch("(?:bl)+", plain):
        return list(labels)
    is_unclear = "ll" in plain or "bwb" in kinds or not plain.startswith("l")
    if is_unclear:
        raise UnreadableReply("it is unclear which label belongs to which box", "unclear labels")
    found: list[str | None] = []
    waiting = iter(labels)
    label: str | None = None
    for kind in plain:
        if kind == "l":
            label = next(waiting)
        else:
            found.append(label)
    return found


def _add_box_tag(content: str, label: str | None, closed: bool, parsed: ParsedReply) -> None:
    content = content.strip()
    if not closed and "[" not in content and not content.endswith(")"):
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
        for group in re.split(r"(?<=>)\s*,\s*(?=<)", content):
            if _NUMBER_TOKENS.fullmatch(group) is None:
                parsed.dropped.append(Dropped(f"a box with other words: {group[:60]!r}", label))
                continue
            add_boxes(re.sub(r"<(?:[xy]_)?|>", " ", group), RawBox((), label), parsed)
    else:
        _add_lists(content, label, parsed)


def _add_lists(content: str, label: str | None, parsed: ParsedReply) -> None:
    # A label may come before the list, as Unlimited-OCR writes it.
    if numbers_in(content) is not None:
        add_boxes(content, RawBox((), label), parsed)
        return
    lists = find_json(content)
    before = content[: lists.start].strip()
    has_other_words = content[lists.end :].strip() or (before and label)
    if has_other_words or re.search(r"\d", before):
        parsed.dropped.append(Dropped(f"a box with other words: {content[:60]!r}", label))
        return
    parsed.truncated = parsed.truncated or lists.truncated
    value = lists.values[0] if len(lists.values) == 1 else lists.values
    add_boxes(value, RawBox((), label or before or None), parsed)


def _read_html(text: str, parsed: ParsedReply) -> None:
    closes_more_than_opens = len(re.findall("<[a-z]", text)) < text.count("</")
    if closes_more_than_opens:
        raise UnreadableReply("the reply's elements don't fit", "broken HTML")
    names: list[str] = []  # of all attributes that were read
    for element in _ELEMENT.finditer(text):
        attributes = {
            name: first or second for name, first, second in _ATTRIBUTE.findall(element[1])
        }
        names += attributes
        label = attributes.get("data-label", "").strip() or None
        if "data-bbox" in attributes:
            add_boxes(attributes["data-bbox"], RawBox((), label), parsed)
        elif label is not None:
            parsed.dropped.append(Dropped("an element without a box", label))
    if any(names.count(name) < text.count(name) for name in ("data-bbox", "data-label")):
        parsed.dropped.append(Dropped("an element with a broken attribute"))


def _read_locations(text: str, parsed: ParsedReply) -> list[str]:
    if re.search(r"</[a-z][a-z_]*\d?>|<doctag>", text) and _DOCTAGS.search(text):
        return _read_doctags(text, parsed)
    if "<loc_" in text:
        return _read_florence(text, parsed)
    return _read_paligemma(text, parsed)


def _read_doctags(text: str, parsed: ParsedReply) -> list[str]:
    parsed.truncated = parsed.truncated or ("<doctag>" in text and "</doctag>" not in text)
    elements = list(_DOCTAGS.finditer(text))
    tokens_inside = sum(len(_locations_in(element[2])) for element in elements)
    if tokens_inside != len(_locations_in(text)):
        parsed.dropped.append(Dropped("location tokens outside of an element"))
    for element in elements:
        tag, locations = element.groups()
        label = re.sub(r"_level_\d$", "", tag).replace("_", " ")
        label = "table" if label == "otsl" else label
        numbers = _locations_in(locations)
        if len(numbers) == 4:
            parsed.boxes.append(RawBox(tuple(numbers), label, family="doctags"))
        else:
            parsed.dropped.append(Dropped(f"{len(numbers)} location tokens are no box", label))
            parsed.truncated |= element.end() == len(text.rstrip())
    return []


def _read_florence(text: str, parsed: ParsedReply) -> list[str]:
    # Eight tokens after each label are a quadrangle's corners, where they can't be two boxes.
    are_outlines = "<poly>" in text
    text = text.replace("<poly>", "").replace("</poly>", "")
    end = 0
    runs: list[tuple[str | None, list[float]]] = []  # a label, and the numbers after it
    for match in _FLORENCE.finditer(text):
        if match.start() != end:
            break
        label = match[1].strip(" ;,\n")
        runs.append((label or None, _locations_in(match[2])))
        end = match.end()
    are_some_unlabelled = len({label is None for label, _ in runs}) > 1
    if text[end:].strip() or are_some_unlabelled:
        raise UnreadableReply("it is unclear which label belongs to which box", "unclear labels")
    if len(runs[-1][1]) % 4:  # its last box breaks off, or has a token too many
        parsed.truncated = True
        label, run = runs.pop()
        parsed.dropped.append(Dropped(f"{len(run)} location tokens are no boxes", label))
    are_quads = all(_is_quadrangle(run) for _, run in runs)
    for label, run in runs:
        if are_quads:
            xs, ys = run[0::2], run[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            parsed.boxes.append(RawBox(box, label, family="florence-2"))
        elif are_outlines or len(run) % 4 or not _are_boxes(run):
            raise UnreadableReply(f"{len(run)} location tokens are no boxes", "unclear boxes")
        else:
            _add_run(run, label, "florence-2", parsed)
    return []


def _is_quadrangle(run: Sequence[float]) -> bool:
    # Its corners go round from the top left, and its diagonals meet in about one middle.
    if len(run) != 8:
        return False
    x1, y1, x2, y2, x3, y3, x4, y4 = run
    tolerance = 0.1 * (max(run[0::2]) - min(run[0::2]) + max(run[1::2]) - min(run[1::2]))
    is_upright = x1 < x2 and x4 < x3 and y1 < y4 and y2 < y3
    middles_apart = max(abs(x1 + x3 - x2 - x4), abs(y1 + y3 - y2 - y4))
    return is_upright and middles_apart <= tolerance


def _are_boxes(run: Sequence[float]) -> bool:
    # Two corners each; a polygon's don't pass for them, as they go round.
    for i in range(0, len(run) - 3, 4):
        x1, y1, x2, y2 = run[i : i + 4]
        if x2 <= x1 or y2 <= y1:
            return False
    return True


def _read_paligemma(text: str, parsed: ParsedReply) -> list[str]:
    end = text.find("<loc")
    words = [text[:end]]
    for match in _PALIGEMMA.finditer(text, end):
        if match.start() != end:
            break
        end = match.end()
        locations, _, name = match.groups()
        run = _locations_in(locations)
        label = name.strip() or None
        if len(run) % 4:
            parsed.dropped.append(Dropped(f"{len(run)} location tokens are no boxes", label))
        else:
            _add_run(run, label, "paligemma", parsed)
    return [*words, text[end:]]


def _add_run(run: Sequence[float], label: str | None, family: str, parsed: ParsedReply) -> None:
    for i in range(0, len(run) - 3, 4):
        parsed.boxes.append(RawBox(tuple(run[i : i + 4]), label, family=family))
    if len(run) % 4:
        parsed.notes.append(Note("dropped", f"{len(run) % 4} location tokens too many"))


def _locations_in(text: str) -> list[float]:
    return [float(number) for number in _LOCATION.findall(text)]

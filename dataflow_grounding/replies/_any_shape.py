"""Boxes and points in a reply that isn't quite as it was asked for: any shape that is known."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import BLIND, holds_box, missing_in
from dataflow_grounding.replies._beside import details_in_line, label_behind
from dataflow_grounding.replies._conventions import (
    says_ends_in_size,
    stated_order,
    stated_unit,
    told_sizes,
    without_conventions,
)
from dataflow_grounding.replies._doubts import is_no_answer
from dataflow_grounding.replies._in_talk import ItemInTalk, items_with_talk
from dataflow_grounding.replies._json_boxes import read_value
from dataflow_grounding.replies._native import read_tokens
from dataflow_grounding.replies._pictures import CROP, elsewhere_in, is_of_crop, is_of_picture
from dataflow_grounding.replies._plain_text import heading_above, label_before, read_plain
from dataflow_grounding.replies._rows import details_in_rows
from dataflow_grounding.replies._tags import POINTS_IN_TAGS
from dataflow_grounding.replies._talk import TAG, announces_addition, thing_before, thing_behind
from dataflow_grounding.replies.answer_text import (
    AnswerText,
    answers_of,
    split_corrected_answer,
    without_control_tokens,
)
from dataflow_grounding.replies.json_text import find_json, holds_objects
from dataflow_grounding.replies.json_values import Scan, number
from dataflow_grounding.replies.labels import matching_ids
from dataflow_grounding.replies.reading import (
    NO_DETAILS,
    Details,
    Note,
    ParsedReply,
    RawBox,
    details_of_label,
)
from dataflow_grounding.replies.vocabulary import BOX_KEYS, WRAPPERS, pattern, plain_key

_MORE_THAN_TALK = lazy_pattern(r"[\d\[\]{}<>\"]")  # a character that words around a box don't have
_STRING_IN_OBJECT = lazy_pattern(r'\s*\{\s*"\w{1,40}"\s*:\s*"')  # `{"answer": "`
_DIGITS = lazy_pattern(r"\d+")
_LONGEST_LINE = 400  # characters before a list in which its line may begin
_MOST_COMPARED = 20_000  # pairs of a label in talk and one in the answer
_AND = lazy_pattern(r"[ \t]*(?:,|;|and|&|和|、)[ \t]*", re.IGNORECASE)  # all that joins two boxes
_OR = pattern("or")  # all that gives two boxes to choose from
_BOX_OR_BOX = pattern("box_or_box")  # two such boxes, in tags or bare
_NUMBERS = lazy_pattern(r"\d{1,9}(?:\.\d{1,20})?")
_LONGEST_BOX = 100  # characters of a box in a text
_ONE_OR_ANOTHER = "the reply gives one box or another, and not which"
_PROSE = lazy_pattern(r"[^\W\d_]{2,}")  # a word
_REFUSAL = pattern("refusal")  # "I can't help with"
_FAULT = pattern("fault")  # "rate limit"
# Words right before a box: it is an example or not so, "for example:"; it is another thing's, "left
# of the".
_DENIED = pattern("denied")
_RELATED = pattern("related")
_MOST_DENYING = 160  # characters before a box in which it may be denied
_MOST_RELATING = 40  # characters before a box in which it may be another thing's
_MOST_REFUSING = 4000  # characters of an answer in which it may refuse
# Words without a box: what was said before is not so.
_TAKEN_BACK = pattern("taken_back")


def parse_any(reply: str, key: str) -> ParsedReply:
    """Return what a reply of any shape says; `key` is the box key that was asked for.

    Raises:
        UnreadableReply, TruncatedReply: As `finding.parse_reply`. A reply without anything like a
            box that refuses is unreadable, too.
    """
    answers: list[AnswerText] = []
    for answer in answers_of(_unwrap(reply)):
        answers += split_corrected_answer(answer)
    parsed = _parse_answers(answers, key)
    has_any = parsed.boxes or parsed.points or parsed.dropped or parsed.statuses
    if not has_any and any(_refuses(answer.text[:_MOST_REFUSING]) for answer in answers):
        # whatever else it says
        raise UnreadableReply(
            f"the reply refuses: it begins {' '.join(reply[:200].split())[:60]!r}"
        )
    return parsed


def _refuses(text: str) -> bool:
    """Whether a text refuses to answer, has seen no picture, or reports a fault."""
    return any(refusal.search(text) for refusal in (_REFUSAL, BLIND, _FAULT))


def _unwrap(reply: str) -> str:
    """Return the string under the only key of a JSON object: "[…]" for `{"answer": "[…]"}`.

    The key must be a known one that holds answers. The object may lack its end or have a comma too
    many, and words may follow it, which are lost. Any other reply is returned as it is.
    """
    if not _STRING_IN_OBJECT.match(reply):
        return reply
    items = find_json(reply).items
    if len(items) != 1:
        return reply
    wrapper = items[0].value
    if len(wrapper) != 1 or wrapper.loose:  # `loose` are values without a key
        return reply
    [(key, value)] = wrapper.items()
    plain = plain_key(key)
    if isinstance(value, str) and plain in WRAPPERS and not is_no_answer(plain, value):
        return value
    return reply


def _parse_answers(answers: list[AnswerText], key: str) -> ParsedReply:
    """Return what the answers in a reply say together; `key` is the box key asked for.

    An answer behind one that says something has the next number, unless it adds to that one. An
    answer that says nothing of boxes is talk about the one before. One that is cut off before its
    first complete box is passed over, if it isn't the last.

    Raises:
        UnreadableReply: None of them has a box or says that there is none; an answer takes back the
            one before and gives no other; or one says that something is not there, and has the
            numbers of a box.
        TruncatedReply: The last one is cut off before its first complete box.
    """
    parsed = ParsedReply()
    for i, answer in enumerate(answers):
        is_last = i == len(answers) - 1
        is_new = bool(parsed) and not _is_addition(answer)
        answer_number = parsed.answer + 1 if is_new else parsed.answer
        try:
            parsed_answer = _parse_answer(answer, key, answer_number)
        except TruncatedReply:
            if is_last:
                raise
            continue
        _check_absence(parsed_answer, answer)
        if parsed_answer:
            if is_new and answer.cue:
                parsed.corrections.add(answer_number)
            parsed.add_later_answer(parsed_answer, last=is_last)
        elif parsed and answer.cue and _TAKEN_BACK.search(answer.cue + answer.text):
            raise UnreadableReply("the reply takes back its answer and gives no other")
        elif parsed:
            parsed.add_talk(answer.cue + answer.text, behind=True)
    if not parsed:
        text = without_control_tokens(answers[-1].text)
        raise UnreadableReply(
            f"there is no box in the reply: it begins {' '.join(text[:200].split())[:60]!r}"
        )
    return parsed


def _is_addition(answer: AnswerText) -> bool:
    """Whether an answer that begins like a correction adds to the earlier ones instead.

    So "Looking again, another one is at …" does. The words up to its first number tell.
    """
    if not answer.cue:
        return False
    words_before_box = _DIGITS.split(answer.text, maxsplit=1)[0]
    return announces_addition(answer.cue + words_before_box)


def _check_absence(parsed: ParsedReply, answer: AnswerText) -> None:
    """Refuse an answer that has only absences, and the numbers of a box in its text.

    Args:
        parsed: What was read from the answer.
        answer: The answer.

    Raises:
        UnreadableReply: It is such an answer.
    """
    if not parsed.absences or parsed.boxes or parsed.points or parsed.dropped:
        return
    if holds_box(answer.text):
        raise UnreadableReply(
            "the reply says that something is not there, and has the numbers of a box"
        )


def _parse_answer(answer: AnswerText, key: str, answer_number: int) -> ParsedReply:
    """Return what an answer says, as the first reader reads it that finds something clear.

    Readers of tokens, of fences and of JSON come first. Boxes, statuses, or absences with nothing
    unclear around them are enough. Else the first of these readers counts that dropped anything or
    found points; else the reader of words, which may find nothing.

    Args:
        answer: The answer.
        key: The box key that was asked for.
        answer_number: The answer's number in the reply.

    Raises:
        TruncatedReply: It is cut off before its first complete box.
    """
    # A reply that begins as JSON is JSON, whatever tags stand in its strings.
    begins_as_json = answer.text.lstrip()[:1] in ("{", "[", "`")
    readers = (_read_tokens, _read_blocks, _read_json)
    if begins_as_json:
        readers = (_read_blocks, _read_json, _read_tokens)
    without_points = answer if begins_as_json else _without_points(answer)
    without_boxes: list[ParsedReply] = []
    for read in readers:
        parsed = ParsedReply(answer=answer_number)
        # Only the reader of tags knows those of points: to others, two of them look like a box.
        read(answer if read is _read_tokens else without_points, key, parsed)
        if parsed.boxes:
            _set_conventions(answer, parsed)
        if parsed.boxes or parsed.statuses or (parsed.absences and not parsed.unclear):
            return parsed
        without_boxes.append(parsed)
    for parsed in without_boxes:
        if parsed.dropped or parsed.points:
            return parsed
        if parsed.absences and parsed.truncated:
            raise TruncatedReply("the reply is cut off before its first complete box")
    parsed = ParsedReply(answer=answer_number)
    _read_words(without_points, parsed)
    return parsed


def _without_points(answer: AnswerText) -> AnswerText:
    """Return an answer without tags of points, and without what stands in them."""
    if "<point" not in answer.text and "<|point" not in answer.text:
        return answer
    return answer._replace(
        text=POINTS_IN_TAGS.sub(" ", answer.text),
        blocks=[POINTS_IN_TAGS.sub(" ", block) for block in answer.blocks],
        talk=[POINTS_IN_TAGS.sub(" ", talk) for talk in answer.talk],
    )


def _set_conventions(answer: AnswerText, parsed: ParsedReply) -> None:
    """Set what the words beside an answer's boxes state of all of them, in place.

    These are the boxes' order and unit, and why they may be of another picture.

    Raises:
        UnreadableReply: The order that they state is not clear.
    """
    words = " ".join(talk.text for talk in parsed.talk)
    parsed.set_conventions(0, stated_order(words), stated_unit(words))
    parsed.ends_in_size = parsed.ends_in_size or says_ends_in_size(words)
    parsed.told_sizes |= told_sizes(words)
    if not parsed.elsewhere:
        parsed.elsewhere = elsewhere_in(answer.text if "<" in answer.text else words)


def _read_words(answer: AnswerText, parsed: ParsedReply) -> None:
    """Add to `parsed` what an answer says in lines; without any, what it says is not there.

    Fences are read as text, alone where nothing stands around them.
    """
    only_blocks = answer.blocks and not "".join(answer.talk).strip()
    text = "\n".join(answer.blocks) if only_blocks else answer.text
    text = without_control_tokens(text).strip()
    read_plain(text, parsed)
    if parsed.boxes:
        _check_one_is_meant(text)
        _add_talk_around_numbers(text, parsed)
        _set_conventions(answer, parsed)
    if not parsed:
        parsed.missing = missing_in(text)
        if parsed.missing is not None:
            parsed.add_absence(details_of_label(parsed.missing.thing))


def _check_one_is_meant(text: str) -> None:
    """Raise UnreadableReply where a text gives one box or another, and not which."""
    for match in _BOX_OR_BOX.finditer(text):
        before = text[max(0, match.start() - _LONGEST_BOX) : match.end("before")]
        behind = text[match.start("behind") : match.end() + _LONGEST_BOX]
        numbers = _NUMBERS.findall(TAG.sub(" ", before))[-4:]
        if numbers != _NUMBERS.findall(TAG.sub(" ", behind))[:4]:
            raise UnreadableReply(_ONE_OR_ANOTHER)


def _add_talk_around_numbers(text: str, parsed: ParsedReply) -> None:
    """Add to `parsed` the text up to its last number, then what is behind it, as talk.

    Tags are left out. The first part counts as words before the boxes.
    """
    text = TAG.sub(" ", text)
    end_of_last = 0
    for match in _DIGITS.finditer(text):
        end_of_last = match.end()
    parsed.add_talk(text[:end_of_last], behind=False)
    parsed.add_talk(text[end_of_last:], behind=True)


def _read_tokens(answer: AnswerText, key: str, parsed: ParsedReply) -> None:
    """Add to `parsed` what stands in an answer's special tokens and tags.

    Where that has boxes, the answer's text is added as talk, too. `key` isn't used: all readers of
    `_parse_answer` take the same arguments.
    """
    read_tokens(answer.text, parsed)
    if parsed.boxes:
        _check_one_is_meant(answer.text)
        _add_talk_around_numbers(answer.text, parsed)


def _read_blocks(answer: AnswerText, key: str, parsed: ParsedReply) -> None:
    """Add to `parsed` what the JSON in an answer's fences says.

    A further fence is an answer of its own, with the next number, unless the words before it say
    that it adds to the last one.
    """
    scans = [find_json(block) for block in answer.blocks]
    details_of_blocks = _details_of_blocks(scans, answer.talk)
    for i, scan in enumerate(scans):
        words_before = answer.talk[i]
        if parsed and not announces_addition(words_before):
            parsed.answer += 1
        _read_scan(scan, key, parsed, words_before, details_of_blocks[i])
        parsed.add_talk(words_before, behind=i > 0)
    parsed.add_talk(answer.talk[-1], behind=True)
    if _may_hold_a_box("".join(answer.talk)):
        parsed.unclear = True


def _may_hold_a_box(talk: str) -> bool:
    """Whether the words around JSON may be a box: an empty list says "none" only if they aren't.

    A sentence on how boxes are written, such as "as [x1, y1, x2, y2], from 0 to 1000", is none.
    """
    if _MORE_THAN_TALK.search(talk) is None:
        return False
    return _MORE_THAN_TALK.search(without_conventions(talk)) is not None


def _details_of_blocks(scans: list[Scan], talk: list[str]) -> list[Details]:
    """Return the details that the lines between blocks give each block's boxes.

    They give none, which is NO_DETAILS for each, to a single block, or where a block holds anything
    but one list of numbers or one bare box.

    Args:
        scans: What each block holds.
        talk: The words before the first block, between blocks, and behind the last one.
    """
    nothing = [NO_DETAILS] * len(scans)
    if len(scans) < 2:
        return nothing
    for scan in scans:
        if len(scan.items) != 1 or _says_what_it_is(scan.items[0].value):
            return nothing
    return details_in_rows(talk) or nothing


def _read_json(answer: AnswerText, key: str, parsed: ParsedReply) -> None:
    """Add to `parsed` what the JSON anywhere in an answer says."""
    _read_scan(find_json(answer.text), key, parsed)


def _read_scan(
    scan: Scan,
    key: str,
    parsed: ParsedReply,
    words_before: str = "",
    outer: Details = NO_DETAILS,
) -> None:
    """Add to `parsed` what the arrays and objects of a text say, and the words around them.

    Those that words before them deny are dropped. Objects behind others, with words between, are
    an answer of their own. Where objects give boxes, lists of numbers beside them are only talk
    about these.

    Args:
        scan: The arrays and objects of the text.
        key: The box key that was asked for.
        parsed: What was read so far.
        words_before: The words before the text.
        outer: What these say of the boxes in it.

    Raises:
        UnreadableReply: Boxes in comments may count, or it is unclear what belongs to which box.
    """
    items = [*items_with_talk(scan, words_before)]
    for before, item in pairwise(items):
        if _OR.fullmatch(item.between) and not _same_numbers(before.json.value, item.json.value):
            raise UnreadableReply(_ONE_OR_ANOTHER)
    details_of_items = _details_of_lists(items)
    denied = _which_are_denied(items)
    _set_crop(items, parsed)
    talk: list[str] = []
    boxes_in_talk: list[RawBox] = []
    objects_gave_boxes = False
    for i, item in enumerate(items):
        talk.append(item.between)
        if denied[i]:
            as_written = scan.text[item.json.start : item.json.end][:40]
            parsed.drop(f"{as_written!r} is an example, denied, or the whole picture's")
            continue
        has_objects = holds_objects(item.json.value)
        if has_objects and objects_gave_boxes and not scan.broken and _begins_anew(item.between):
            parsed.answer += 1
        boxes_before = len(parsed.boxes)
        points_before = len(parsed.points)
        details = _details_of_item(item, outer, details_of_items[i])
        read_value(item.json.value, parsed, key, details)
        if len(items) > 1:  # else what all the words state is enough
            parsed.set_conventions(boxes_before, None, _unit_beside(item, items[0]))
        if not has_objects:
            boxes_in_talk += parsed.boxes[boxes_before:]
            boxes_in_talk += parsed.points[points_before:]
        elif len(parsed.boxes) > boxes_before:
            objects_gave_boxes = True
    if objects_gave_boxes:
        _drop_boxes_in_talk(parsed, boxes_in_talk)
    talk.append(items[-1].behind if items else scan.text)
    _add_talk_and_notes(scan, parsed, talk)


def _same_numbers(first: Any, second: Any) -> bool:
    """Whether two arrays or objects hold the same numbers, as those of one box told twice."""
    return list(_numbers_in(first)) == list(_numbers_in(second))


def _numbers_in(value: Any) -> Iterator[float]:
    """Yield the numbers in a value, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers_in(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _details_of_item(item: ItemInTalk, outer: Details, beside: Details) -> Details:
    """Return what the words around an item say of it.

    Args:
        item: The item.
        outer: What the words before the whole text say; if they have a label, it counts.
        beside: What the words beside the item say, if it is a list. Of an object without a label
            around it, only the thing that its sentence talks of is taken, and a heading.
    """
    if outer.labels:
        return outer
    # an object with more than a box says itself what it is: labels beside are another list's
    if _says_what_it_is(item.json.value) or (holds_objects(item.json.value) and not beside.labels):
        return Details(talk=thing_before(item.before), heading=heading_above(item.before))
    return beside


def _set_crop(items: list[ItemInTalk], parsed: ParsedReply) -> None:
    """Set `parsed.elsewhere` to CROP where the words before an item say that it is of a crop."""
    if any(is_of_crop(item.before) for item in items):
        parsed.elsewhere = CROP


def _begins_anew(between: str) -> bool:
    """Whether there are words between two objects, and they don't say that the second is added."""
    return _PROSE.search(between) is not None and not announces_addition(between)


def _unit_beside(item: ItemInTalk, first: ItemInTalk) -> str | None:
    """Return the unit stated before an item, before the first of all, or behind it on its line.

    The first of these three that states one counts; None where none does.
    """
    for text in (item.before, first.before, item.behind.partition("\n")[0]):
        unit = stated_unit(text)
        if unit:
            return unit
    return None


def _which_are_denied(items: list[ItemInTalk]) -> list[bool]:
    """Return of each item whether the words right before it deny it.

    An item that "and" joins to one that is denied is denied too.
    """
    denied: list[bool] = []
    for item in items:
        joined_to_denied = bool(denied) and denied[-1] and _AND.fullmatch(item.between) is not None
        denied.append(joined_to_denied or _denies(item.before))
    return denied


def _denies(before: str) -> bool:
    """Whether words right before a box say that it isn't an answer.

    By them it is an example, not so, another thing's ("left of the"), or the whole picture's.
    """
    return (
        _DENIED.search(before[-_MOST_DENYING:]) is not None
        or _RELATED.search(before[-_MOST_RELATING:]) is not None
        or is_of_picture(before)
    )


def _details_of_lists(items: list[ItemInTalk]) -> list[Details]:
    """Return what the words around each item say of it, if it is a list of numbers.

    Where no item says itself what it is, the words around all of them are looked at together first.
    Else each list has the words beside it; one that "and" joins to the list before has that one's.
    For an object, which says itself what it is, these details don't matter: they are those of the
    list before it.
    """
    if items and not any(_says_what_it_is(item.json.value) for item in items):
        gaps = [item.between for item in items]
        gaps.append(items[-1].behind)
        beside = details_in_line(gaps) or details_in_rows(gaps)
        if beside:
            return beside
    all_details: list[Details] = []
    details = NO_DETAILS
    for item in items:
        is_denied = _DENIED.search(item.before[-_MOST_DENYING:]) is not None
        is_list = not is_denied and not holds_objects(item.json.value)
        if is_list and (not _AND.fullmatch(item.between) or details is NO_DETAILS):
            details = _details_beside(item.before, item.behind)
        all_details.append(details)
    return all_details


def _says_what_it_is(value: Any) -> bool:
    """Whether a value is or has objects, and isn't one object with a box and nothing else."""
    return holds_objects(value) and not _is_only_a_box(value)


def _is_only_a_box(value: Any) -> bool:
    """Whether a value is an object with a list under a box key and nothing else."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    [(key, item)] = value.items()
    return isinstance(item, list) and plain_key(key) in BOX_KEYS


def _details_beside(before: str, behind: str) -> Details:
    """Return what the words beside a list of numbers say of it.

    A label names the box, as in `car: [1, 2, 3, 4]`. It stands before the list; where the list
    begins its line and has none before it, a label may stand behind it. Beside a label before it,
    or without any, the thing that the sentence around the list talks of is kept as the details'
    `talk`.

    Args:
        before: The words before the list, as far back as the list before it.
        behind: The words behind the list.
    """
    line_before = before[-_LONGEST_LINE:].rpartition("\n")[2]
    begins_line = line_before.strip(" \t-*•") == ""  # but for a bullet
    label = label_before(before)
    if begins_line and label is None:
        label_after = label_behind(behind)
        if label_after is not None:  # the words before belong to what is above
            return details_of_label(label_after)
    return details_of_label(label, talk=thing_before(before) or thing_behind(behind))


def _drop_boxes_in_talk(parsed: ParsedReply, boxes_in_talk: list[RawBox]) -> None:
    """Remove from `parsed` the lists of numbers in the talk around an answer of objects.

    A box that is removed is added to `dropped`, unless the answer has it too. Those labeled as
    another thing than the answer's stay.

    Args:
        parsed: What was read so far.
        boxes_in_talk: Those of its boxes and points that are such lists.
    """
    to_remove = {id(raw) for raw in boxes_in_talk}
    boxes_of_answer = [raw for raw in parsed.boxes if id(raw) not in to_remove]
    numbers_of_answer = {raw.numbers for raw in boxes_of_answer}
    things = _things_of(boxes_of_answer, _MOST_COMPARED // max(1, len(boxes_in_talk)))
    for raw in boxes_in_talk:
        if raw.numbers in numbers_of_answer:
            continue
        if _is_of_another_thing(raw, things):
            to_remove.remove(id(raw))
        elif raw.kind == "box":
            parsed.drop(f"{list(raw.numbers)} is in the talk around the answer")
    parsed.boxes[:] = [raw for raw in parsed.boxes if id(raw) not in to_remove]
    parsed.points[:] = [raw for raw in parsed.points if id(raw) not in to_remove]


def _things_of(boxes: list[RawBox], most: int) -> dict[int, str]:
    """Return the first `most` different labels of boxes, numbered from 0: index → label."""
    labels: dict[str, None] = {}
    for raw in boxes:
        labels.update(dict.fromkeys(raw.details.labels))
    return dict(enumerate(list(labels)[:most]))


def _is_of_another_thing(raw: RawBox, things: dict[int, str]) -> bool:
    """Whether a label of a box in talk is none of the things, or says that the box is added."""
    return any(
        announces_addition(label) or not matching_ids(label, things) for label in raw.details.labels
    )


def _add_talk_and_notes(scan: Scan, parsed: ParsedReply, talk: list[str]) -> None:
    """Add to `parsed` the words around a text's JSON, and notes on what had to be done to read it.

    Args:
        scan: The arrays and objects of the text.
        parsed: What was read from them.
        talk: The words before, between and behind them, at least one text.

    Raises:
        UnreadableReply: There are boxes in comments that are not among those that were read, or
            names of coordinates in an order that isn't known.
    """
    parsed.add_talk(talk[0], behind=False)
    parsed.add_talk(" ".join(talk[1:]), behind=True)
    all_talk = without_control_tokens(" ".join(talk))
    if scan.broken or _may_hold_a_box(all_talk):
        parsed.unclear = True
    if scan.names_in_comments:  # beside each number its name: "100, // y1"
        parsed.set_conventions(0, stated_order(", ".join(scan.names_in_comments)), None)
    boxes = {raw.numbers for raw in parsed.boxes}
    for numbers in scan.boxes_in_comments:
        if tuple(map(number, numbers.split(","))) not in boxes:
            raise UnreadableReply(
                "there are boxes in comments, and it is unclear whether they count"
            )
    if scan.truncated:
        parsed.truncated = True
    elif scan.broken and scan.items:
        why = "brackets or quotation marks don't match, so that something may be missing"
        parsed.notes.append(Note("broken_json", why))
    elif scan.repaired and scan.items:
        parsed.notes.append(Note("repaired_json", "the reply is not quite JSON"))

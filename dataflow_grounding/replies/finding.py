"""Finding what a reply marks, whichever of the known shapes it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies.answer_text import Answer, answers_of, corrected, without_control_tokens
from dataflow_grounding.replies.corrections import adds, before_numbers, denies, takes_back
from dataflow_grounding.replies.json_keys import WRAPPERS, plain_key
from dataflow_grounding.replies.json_marks import read_value
from dataflow_grounding.replies.json_shapes import is_pair
from dataflow_grounding.replies.json_text import find_json
from dataflow_grounding.replies.json_values import Found, Scan
from dataflow_grounding.replies.labels import matching_ids
from dataflow_grounding.replies.legends import LEGEND, apply, stated_order, stated_unit
from dataflow_grounding.replies.marks import NOTHING_SAID, Mark, Marks, Said, number, resolved
from dataflow_grounding.replies.native import read_tokens
from dataflow_grounding.replies.none_words import missing_in, refuses
from dataflow_grounding.replies.plain_text import label_before, label_behind, read_plain
from dataflow_grounding.replies.prose import named_before, named_behind

EVIDENCE = (None, "seen", "inferred", "region")
# An empty list says "none" only where nothing else stands around it that may be a box.
_MORE_THAN_TALK = re.compile(r"[\d\[\]{}<>\"]")
_TAG = re.compile(r"<[^<>]{0,200}>")
_STRING_IN_OBJECT = re.compile(r'\s*\{\s*"\w{1,40}"\s*:\s*"')
_DIGITS = re.compile(r"\d+")
_MOST_COMPARED = 20_000  # labels in talk with labels in the answer
_AND = re.compile(r"[ \t]*(?:,|;|and|&|和|、)[ \t]*", re.IGNORECASE)
_PROSE = re.compile(r"[^\W\d_]{2,}")
_BETWEEN_PAIRS = re.compile(
    r"\s*(?:,|;|->|→|-|–|[、，]?[和到至]?右下角?[^\d\n]{0,3})?\s*"
    r"(?:to|and)?\s*(?:(?:the\s+)?(?:bottom|lower)[- ]right(?:\s+corner)?[^\d\n]{0,12})?",
    re.IGNORECASE,
)


def find_marks(reply: str, key: str = "bbox_2d") -> Marks:
    """Return all boxes and points in a reply with their numbers as written; `key` is the box key that was asked for.

    Where a reply gives several answers, `Mark.answer` says in which a box stands. Empty only for a reply that says that
    there is nothing. Raises UnreadableReply when the reply holds neither.
    """
    marks = _as_asked(reply, key)
    if marks is None:
        answers = [part for answer in answers_of(_unwrapped(reply)) for part in corrected(answer)]
        marks = _in_answers(answers, key)
        found = marks.boxes or marks.points or marks.dropped or marks.statuses
        if not found and any(refuses(answer.text) for answer in answers):
            raise UnreadableReply(f"the reply refuses: it begins {' '.join(reply[:200].split())[:60]!r}")
    if "&" in reply:
        for kind in (marks.boxes, marks.points):
            kind[:] = [replace(mark, said=resolved(mark.said)) for mark in kind]
        marks.dropped[:] = [dropped._replace(said=resolved(dropped.said)) for dropped in marks.dropped]
    return marks


def _unwrapped(reply: str) -> str:
    """Return the string that a JSON object of one known key holds, as in `{"answer": "[…]"}`; any other reply as it is."""
    found = find_json(reply).found if _STRING_IN_OBJECT.match(reply) else []
    fields = found[0].value if len(found) == 1 and not found[0].value.loose else {}
    ((key, value),) = fields.items() if len(fields) == 1 else [("", None)]
    return value if isinstance(value, str) and plain_key(key) in WRAPPERS else reply


def _in_answers(answers: list[Answer], key: str) -> Marks:
    marks = Marks()
    for i, answer in enumerate(answers):
        last = i == len(answers) - 1
        found = Marks(answer=marks.answer)
        if marks and not (answer.cue and adds(answer.cue + before_numbers(answer.text))):
            found.answer += 1
            found.corrections |= {found.answer} if answer.cue else set()
        try:
            found = _in_answer(answer, key, found)
        except TruncatedReply:
            if last:
                raise
            continue
        if found:
            marks.join(found, last=last)
        elif marks and answer.cue and takes_back(answer.cue + answer.text):
            raise UnreadableReply("the reply takes back its answer and gives no other")
        elif marks:
            marks.hear(answer.cue + answer.text, behind=True)
    if not marks:
        text = without_control_tokens(answers[-1].text)
        raise UnreadableReply(f"there is no box in the reply: it begins {' '.join(text[:200].split())[:60]!r}")
    return marks


def _in_answer(answer: Answer, key: str, blank: Marks) -> Marks:
    """Return what one answer marks, by the first way of reading that finds a box; each begins with a copy of `blank`."""
    # A reply that begins as JSON is JSON, whatever tags stand in its strings.
    readers = (_blocks, _json, _tokens) if answer.text.lstrip()[:1] in ("{", "[", "`") else (_tokens, _blocks, _json)
    unusable: list[Marks] = []
    for read in readers:
        marks = blank.like()
        read(answer, key, marks)
        if read is _tokens and marks.boxes:
            _hear_around(answer.text, marks)
        apply(marks.boxes, 0, stated_order(" ".join(talk.text for talk in marks.talk)), None)
        if marks.boxes or marks.statuses or (marks.absences and not marks.unclear):
            return marks
        unusable.append(marks)
    for marks in unusable:
        if marks.dropped or marks.points:
            return marks
        if marks.absences and marks.truncated:
            raise TruncatedReply("the reply is cut off before its first whole box")
    bare = answer.blocks and not "".join(answer.talk).strip()
    text = without_control_tokens("\n".join(answer.blocks) if bare else answer.text).strip()
    marks = blank.like()
    read_plain(text, marks)
    if marks.boxes:
        _hear_around(text, marks)
        apply(marks.boxes, 0, stated_order(text), stated_unit(text))
    if not marks:
        marks.missing = missing_in(text)
        if marks.missing is not None:
            marks.lack(Said((marks.missing.thing,) if marks.missing.thing else ()))
    return marks


def _hear_around(text: str, marks: Marks) -> None:
    text = _TAG.sub(" ", text)
    last = max((match.end() for match in _DIGITS.finditer(text)), default=0)
    marks.hear(text[:last], behind=False)
    marks.hear(text[last:], behind=True)


def _as_asked(reply: str, key: str) -> Marks | None:
    """The marks of a reply that keeps to the letter of what was asked for, which most do; None for any other."""
    try:
        data = json.loads(reply, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError):
        return None
    objects = data.get("objects") if isinstance(data, dict) and len(data) == 1 else None
    if not isinstance(objects, list):
        return None
    marks = Marks()
    if not objects:
        marks.lack()
    for item in objects:
        if not isinstance(item, dict) or not item.keys() <= {"id", "label", key, "score", "evidence"}:
            return None
        numbers, label, number_of = item.get(key), item.get("label"), item.get("id")
        if not isinstance(numbers, list) or len(numbers) != 4 or type(number_of) is not int:
            return None
        if any(type(n) not in (int, float) or number(n) is None for n in numbers):
            return None
        if not isinstance(label, str) or not label.strip() or item.get("evidence") not in EVIDENCE:
            return None
        said = Said((label.strip(),), number_of, item.get("score"), item.get("evidence"))
        marks.boxes.append(Mark("box", tuple(numbers), said))
    return marks


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _tokens(answer: Answer, key: str, marks: Marks) -> None:
    read_tokens(answer.text, marks)


def _blocks(answer: Answer, key: str, marks: Marks) -> None:
    for i, block in enumerate(answer.blocks):
        if marks and not adds(answer.talk[i]):
            marks.answer += 1
        _read_scan(find_json(block), marks, key, answer.talk[i])
        marks.hear(answer.talk[i], behind=i > 0)
    marks.hear(answer.talk[-1], behind=True)
    marks.unclear = marks.unclear or bool(_MORE_THAN_TALK.search("".join(answer.talk)))


def _json(answer: Answer, key: str, marks: Marks) -> None:
    _read_scan(find_json(answer.text), marks, key)


def _read_scan(scan: Scan, marks: Marks, key: str, lead: str = "") -> None:
    """Add what a scan found to `marks`; `lead` are words before its text."""
    end = 0
    around: list[str] = []
    in_talk: list[Mark] = []
    answered = False
    said = NOTHING_SAID
    items = [item for item in _joined_pairs(scan) if not LEGEND.fullmatch(scan.text, item.start, item.end)]
    unit = None
    ends = [item.start for item in items[1:]] + [len(scan.text)] * bool(items)
    for item, following in zip(items, ends, strict=True):
        between = scan.text[end : item.start]
        around.append(between)
        before = LEGEND.sub(" ", between if between.strip() or end else lead)
        unit = unit if end else stated_unit(before)
        rest = scan.text[item.end : following].partition("\n")[0]
        if denies(before):
            marks.drop(f"{scan.text[item.start : item.end][:40]!r} is an example, or denied")
            end = item.end
            continue
        since = len(marks.boxes), len(marks.points)
        if _holds_objects(item.value):
            if answered and not scan.broken and _PROSE.search(between) and not adds(between):
                marks.answer += 1
            read_value(item.value, marks, key, Said(talk=named_before(before)))
            answered = answered or len(marks.boxes) > since[0]
        else:
            if not _AND.fullmatch(between) or said is NOTHING_SAID:
                said = _said_beside(before, scan.text[item.end : following])
            read_value(item.value, marks, key, said)
            in_talk += [*marks.boxes[since[0] :], *marks.points[since[1] :]]
        apply(marks.boxes, since[0], None, stated_unit(before) or unit or stated_unit(rest))
        end = item.end
    around.append(scan.text[end:])
    marks.hear(around[0], behind=False)
    marks.hear(" ".join(around[1:]), behind=True)
    if answered and in_talk:
        _drop_talk(marks, in_talk)
    more = _MORE_THAN_TALK.search(without_control_tokens(" ".join(around)))
    marks.unclear = marks.unclear or scan.broken or more is not None
    _take_state(scan, marks)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _said_beside(before: str, behind: str) -> Said:
    alone = not before[-400:].rpartition("\n")[2].strip(" \t-*•")
    label = label_before(before) or (label_behind(behind) if alone else None)
    return Said((label,) if label else (), talk=named_before(before) or named_behind(behind))


def _drop_talk(marks: Marks, in_talk: list[Mark]) -> None:
    """Leave out lists of numbers in the talk around an answer of objects: its own boxes again, or boxes of no other thing."""
    outside = set(map(id, in_talk))
    answer = [mark for mark in marks.boxes if id(mark) not in outside]
    inside = {mark.numbers for mark in answer}
    labels = dict.fromkeys(label for mark in answer for label in mark.said.labels)
    things = dict(enumerate(list(labels)[: _MOST_COMPARED // len(in_talk)]))
    for mark in in_talk:
        others = [label for label in mark.said.labels if adds(label) or not matching_ids(label, things)]
        if mark.numbers not in inside and others:
            outside.remove(id(mark))
        elif mark.numbers not in inside and mark.kind == "box":
            marks.drop(f"{list(mark.numbers)} stands in the talk beside the answer")
    for kind in (marks.boxes, marks.points):
        kind[:] = [mark for mark in kind if id(mark) not in outside]


def _take_state(scan: Scan, marks: Marks) -> None:
    boxes = {mark.numbers for mark in marks.boxes}
    if any(tuple(map(number, numbers.split(","))) not in boxes for numbers in scan.commented):
        raise UnreadableReply("there are boxes in comments, and it can't be told whether they count")
    if scan.truncated:
        marks.truncated = True
    elif scan.broken and scan.found:
        marks.notes.append("broken_json: brackets or quotation marks don't fit, so that something may be missing")
    elif scan.repaired and scan.found:
        marks.notes.append("repaired_json: what the reply has is not quite JSON")


def _joined_pairs(scan: Scan) -> Iterator[Found]:
    """Yield what was found, with two pairs of numbers that follow one another, as in `(1, 2), (3, 4)`, made one box."""
    first: Found | None = None
    for item in scan.found:
        if first is not None:
            if is_pair(item.value) and _BETWEEN_PAIRS.fullmatch(scan.text[first.end : item.start][:60]):
                yield Found([*first.value, *item.value], first.start, item.end)
                first = None
                continue
            yield first
        first = item if is_pair(item.value) else None
        if first is None:
            yield item
    if first is not None:
        yield first

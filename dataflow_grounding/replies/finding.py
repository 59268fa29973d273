"""Finding what a reply marks, whichever of the known shapes it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies.answer_text import Answer, answer_of, without_control_tokens
from dataflow_grounding.replies.json_marks import is_pair, read_value
from dataflow_grounding.replies.json_text import Found, Scan, find_json
from dataflow_grounding.replies.marks import Mark, Marks, Said, number, says_none
from dataflow_grounding.replies.native import read_tokens
from dataflow_grounding.replies.plain_text import label_before, label_behind, read_plain

EVIDENCE = (None, "seen", "inferred", "region")
# An empty list says "none" only where nothing else stands around it that may be a box.
_MORE_THAN_TALK = re.compile(r"[\d\[\]{}<>\"]")
_BETWEEN_PAIRS = re.compile(
    r"\s*(?:,|;|->|→|-|–)?\s*(?:to|and)?\s*(?:(?:the\s+)?(?:bottom|lower)[- ]right(?:\s+corner)?[^\d\n]{0,12})?",
    re.IGNORECASE,
)


def find_marks(reply: str, key: str = "bbox_2d") -> Marks:
    """Return all boxes and points in a reply with their numbers as written; `key` is the box key that was asked for.

    Empty only for a reply that says that there is nothing. Raises UnreadableReply when the reply holds neither.
    """
    as_asked = _as_asked(reply, key)
    if as_asked is not None:
        return as_asked
    answer = answer_of(reply)
    # A reply that begins as JSON is JSON, whatever tags stand in its strings.
    readers = (_blocks, _json, _tokens) if answer.text.lstrip()[:1] in ("{", "[", "`") else (_tokens, _blocks, _json)
    unusable: list[Marks] = []
    for read in readers:
        marks = read(answer, key)
        if marks.boxes or marks.statuses or (marks.absent and not marks.unclear):
            return marks
        if marks.points and not any(before.dropped for before in unusable):
            return marks
        unusable.append(marks)
    for marks in unusable:
        if marks.dropped:
            return marks
        if marks.absent and marks.truncated:
            raise TruncatedReply("the reply is cut off before its first whole box")
    text = without_control_tokens(answer.text).strip()
    marks = Marks()
    read_plain(text, marks)
    if marks:
        return marks
    if says_none(text):
        return Marks(absent=1)
    raise UnreadableReply(f"there is no box in the reply: it begins {' '.join(text[:200].split())[:60]!r}")


def _as_asked(reply: str, key: str) -> Marks | None:
    """The marks of a reply that keeps to the letter of what was asked for, which most do; None for any other."""
    try:
        data = json.loads(reply, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError):
        return None
    objects = data.get("objects") if isinstance(data, dict) and len(data) == 1 else None
    if not isinstance(objects, list):
        return None
    marks = Marks(absent=0 if objects else 1)
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


def _tokens(answer: Answer, key: str) -> Marks:
    marks = Marks()
    read_tokens(answer.text, marks)
    return marks


def _blocks(answer: Answer, key: str) -> Marks:
    marks = Marks()
    for block in answer.blocks:
        _read_scan(find_json(block), marks, key)
    marks.unclear = marks.unclear or bool(_MORE_THAN_TALK.search(answer.talk))
    return marks


def _json(answer: Answer, key: str) -> Marks:
    marks = Marks()
    _read_scan(find_json(answer.text), marks, key)
    return marks


def _read_scan(scan: Scan, marks: Marks, key: str) -> None:
    end = 0
    around: list[str] = []
    for item in _joined_pairs(scan):
        around.append(scan.text[end : item.start])
        label = None
        if isinstance(item.value, list):
            before, behind = scan.text[max(end, item.start - 400) : item.start], scan.text[item.end : item.end + 100]
            alone = not before.rpartition("\n")[2].strip(" \t-*•")
            label = label_before(before) or (label_behind(behind) if alone else None)
        read_value(item.value, marks, key, Said((label,) if label else ()))
        end = item.end
    around.append(scan.text[end:])
    more = _MORE_THAN_TALK.search(without_control_tokens(" ".join(around)))
    marks.unclear = marks.unclear or scan.broken or more is not None
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

"""Finding boxes and points in a reply, whichever of the known shapes it has."""

import re
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import BLIND, holds_box, missing_in
from dataflow_grounding.replies._as_asked import read_as_asked
from dataflow_grounding.replies._beside import label_behind, said_in_line
from dataflow_grounding.replies._conventions import stated_order, stated_unit
from dataflow_grounding.replies._doubts import is_no_answer
from dataflow_grounding.replies._in_talk import InTalk, with_talk
from dataflow_grounding.replies._json_boxes import read_value
from dataflow_grounding.replies._native import read_tokens
from dataflow_grounding.replies._pictures import CROP, elsewhere_in, is_of_crop, is_of_picture
from dataflow_grounding.replies._plain_text import label_before, read_plain
from dataflow_grounding.replies._rows import said_in_rows
from dataflow_grounding.replies._talk import TAG, adds, named_before, named_behind
from dataflow_grounding.replies.answer_text import (
    AnswerText,
    answers_of,
    corrected,
    without_control_tokens,
)
from dataflow_grounding.replies.json_text import find_json, holds_objects
from dataflow_grounding.replies.json_values import Scan, number
from dataflow_grounding.replies.labels import matching_ids
from dataflow_grounding.replies.reading import (
    NOTHING_SAID,
    Note,
    ParsedReply,
    RawBox,
    Said,
    named,
    resolved,
)
from dataflow_grounding.replies.vocabulary import BOX_KEYS, WRAPPERS, pattern, plain_key

# An empty list says "none" only if nothing around it may be a box.
_MORE_THAN_TALK = lazy_pattern(r"[\d\[\]{}<>\"]")
_STRING_IN_OBJECT = lazy_pattern(r'\s*\{\s*"\w{1,40}"\s*:\s*"')
_DIGITS = lazy_pattern(r"\d+")
_MOST_COMPARED = 20_000  # labels in talk with labels in the answer
_AND = lazy_pattern(r"[ \t]*(?:,|;|and|&|和|、)[ \t]*", re.IGNORECASE)
_PROSE = lazy_pattern(r"[^\W\d_]{2,}")
_REFUSAL, _FAULT = map(pattern, ("refusal", "fault"))
# Words right before a box: it is an example, or not the thing's. Words without a box: what was said
# before is not so.
_DENIED, _RELATED, _TAKEN_BACK = map(pattern, ("denied", "related", "taken_back"))


def parse_reply(reply: str, key: str = "bbox_2d") -> ParsedReply:
    """Return a reply's boxes and points as written. Raises UnreadableReply unless it has some, or
    says none.
    """
    parsed = read_as_asked(reply, key)
    if parsed is None:
        answers = [part for answer in answers_of(_unwrapped(reply)) for part in corrected(answer)]
        parsed = _in_answers(answers, key)
        found = parsed.boxes or parsed.points or parsed.dropped or parsed.statuses
        if not found and any(_refuses(answer.text[:4000]) for answer in answers):
            # whatever else it says
            raise UnreadableReply(
                f"the reply refuses: it begins {' '.join(reply[:200].split())[:60]!r}"
            )
    if "&" in reply:
        for kind in (parsed.boxes, parsed.points):
            kind[:] = [replace(raw, said=resolved(raw.said)) for raw in kind]
        parsed.dropped[:] = [
            dropped._replace(said=resolved(dropped.said)) for dropped in parsed.dropped
        ]
    return parsed


def _refuses(text: str) -> bool:
    return any(pattern.search(text) for pattern in (_REFUSAL, BLIND, _FAULT))


def _unwrapped(reply: str) -> str:
    """Return the string in a JSON object of one known key, as in `{"answer": "[…]"}`; any other
    reply as it is.
    """
    found = find_json(reply).found if _STRING_IN_OBJECT.match(reply) else []
    fields = found[0].value if len(found) == 1 and not found[0].value.loose else {}
    ((key, value),) = fields.items() if len(fields) == 1 else [("", None)]
    plain = plain_key(key)
    return (
        value
        if isinstance(value, str) and plain in WRAPPERS and not is_no_answer(plain, value)
        else reply
    )


def _in_answers(answers: list[AnswerText], key: str) -> ParsedReply:
    parsed = ParsedReply()
    for i, answer in enumerate(answers):
        last = i == len(answers) - 1
        anew = bool(parsed) and not (
            answer.cue and adds(answer.cue + _DIGITS.split(answer.text, maxsplit=1)[0])
        )
        nth = parsed.answer + anew
        try:
            found = _in_answer(answer, key, nth)
        except TruncatedReply:
            if last:
                raise
            continue
        _check_absence(found, answer)
        if found:
            parsed.corrections |= {nth} if anew and answer.cue else set()
            parsed.join(found, last=last)
        elif parsed and answer.cue and _TAKEN_BACK.search(answer.cue + answer.text):
            raise UnreadableReply("the reply takes back its answer and gives no other")
        elif parsed:
            parsed.hear(answer.cue + answer.text, behind=True)
    if not parsed:
        text = without_control_tokens(answers[-1].text)
        raise UnreadableReply(
            f"there is no box in the reply: it begins {' '.join(text[:200].split())[:60]!r}"
        )
    return parsed


def _check_absence(found: ParsedReply, answer: AnswerText) -> None:
    only_absent = found.absences and not (found.boxes or found.points or found.dropped)
    if only_absent and holds_box(answer.text):
        raise UnreadableReply(
            "the reply says that something is not there, and has the numbers of a box"
        )


def _in_answer(answer: AnswerText, key: str, nth: int) -> ParsedReply:
    """Return what the `nth` answer says, by the first way of reading that finds a box."""
    # A reply that begins as JSON is JSON, whatever tags stand in its strings.
    readers = (
        (_blocks, _json, _tokens)
        if answer.text.lstrip()[:1] in ("{", "[", "`")
        else (_tokens, _blocks, _json)
    )
    unusable: list[ParsedReply] = []
    for read in readers:
        parsed = ParsedReply(answer=nth)
        read(answer, key, parsed)
        if parsed.boxes:
            _take_conventions(answer, parsed)
        if parsed.boxes or parsed.statuses or (parsed.absences and not parsed.unclear):
            return parsed
        unusable.append(parsed)
    for parsed in unusable:
        if parsed.dropped or parsed.points:
            return parsed
        if parsed.absences and parsed.truncated:
            raise TruncatedReply("the reply is cut off before its first complete box")
    return _in_words(answer, ParsedReply(answer=nth))


def _take_conventions(answer: AnswerText, parsed: ParsedReply) -> None:
    """Take the order and unit that the words beside the boxes state, and whether they are of
    another picture.
    """
    talk = " ".join(talk.text for talk in parsed.talk)
    parsed.state(0, stated_order(talk), stated_unit(talk))
    parsed.elsewhere = parsed.elsewhere or elsewhere_in(answer.text if "<" in answer.text else talk)


def _in_words(answer: AnswerText, parsed: ParsedReply) -> ParsedReply:
    bare = answer.blocks and not "".join(answer.talk).strip()
    text = without_control_tokens("\n".join(answer.blocks) if bare else answer.text).strip()
    read_plain(text, parsed)
    if parsed.boxes:
        _hear_around(text, parsed)
        _take_conventions(answer, parsed)
    if not parsed:
        parsed.missing = missing_in(text)
        if parsed.missing is not None:
            parsed.lack(named(parsed.missing.thing))
    return parsed


def _hear_around(text: str, parsed: ParsedReply) -> None:
    text = TAG.sub(" ", text)
    last = max((match.end() for match in _DIGITS.finditer(text)), default=0)
    parsed.hear(text[:last], behind=False)
    parsed.hear(text[last:], behind=True)


def _tokens(answer: AnswerText, key: str, parsed: ParsedReply) -> None:
    read_tokens(answer.text, parsed)
    if parsed.boxes:
        _hear_around(answer.text, parsed)


def _blocks(answer: AnswerText, key: str, parsed: ParsedReply) -> None:
    scans = [find_json(block) for block in answer.blocks]
    for i, (scan, said) in enumerate(zip(scans, _said_of_blocks(scans, answer.talk), strict=True)):
        if parsed and not adds(answer.talk[i]):
            parsed.answer += 1
        _read_scan(scan, key, parsed, answer.talk[i], said)
        parsed.hear(answer.talk[i], behind=i > 0)
    parsed.hear(answer.talk[-1], behind=True)
    parsed.unclear = parsed.unclear or bool(_MORE_THAN_TALK.search("".join(answer.talk)))


def _said_of_blocks(scans: list[Scan], talk: list[str]) -> list[Said]:
    """Return what lines between blocks say of the boxes in them; nothing where a block says what
    its boxes are.
    """
    bare = all(len(scan.found) == 1 and not _says_of_itself(scan.found[0].value) for scan in scans)
    return (said_in_rows(talk) if bare and len(scans) > 1 else []) or [NOTHING_SAID] * len(scans)


def _json(answer: AnswerText, key: str, parsed: ParsedReply) -> None:
    _read_scan(find_json(answer.text), key, parsed)


def _read_scan(
    scan: Scan, key: str, parsed: ParsedReply, lead: str = "", outer: Said = NOTHING_SAID
) -> None:
    """Add what a scan found to the reply, with the words around it; `lead` are words before,
    `outer` what they say.
    """
    around: list[str] = []
    in_talk: list[RawBox] = []
    answered = False  # whether objects gave boxes
    behind = scan.text
    items = [*with_talk(scan, lead)]
    for found, beside, denied in zip(
        items, _said_of_lists(items), _denied(items, parsed), strict=True
    ):
        item, between, before, behind = found
        said = outer if outer.labels else beside
        around.append(between)
        if denied:
            parsed.drop(
                f"{scan.text[item.start : item.end][:40]!r} is an example, denied, or the whole"
                " picture's"
            )
            continue
        boxes, points = len(parsed.boxes), len(parsed.points)
        if holds_objects(item.value):
            if answered and not scan.broken and _PROSE.search(between) and not adds(between):
                parsed.answer += 1
            said = said if said.labels else Said(talk=named_before(before))
        read_value(item.value, parsed, key, said)
        if len(items) > 1:  # else what all the words state is enough
            parsed.state(boxes, None, _unit_beside(found, items[0]))
        if holds_objects(item.value):
            answered = answered or len(parsed.boxes) > boxes
        else:
            in_talk += [*parsed.boxes[boxes:], *parsed.points[points:]]
    if answered:
        _drop_talk(parsed, in_talk)
    _take_state(scan, parsed, [*around, behind])


def _unit_beside(found: InTalk, first: InTalk) -> str | None:
    """Return the unit stated before an item, before the first of all, or behind it on its line."""
    texts = (found.before, first.before, found.behind.partition("\n")[0])
    return next((unit for text in texts if (unit := stated_unit(text))), None)


def _denied(items: list[InTalk], parsed: ParsedReply) -> list[bool]:
    """Return which items are denied by the words right before them, or before one that "and" joins
    them to.
    """
    denied: list[bool] = []
    if any(is_of_crop(found.before) for found in items):
        parsed.elsewhere = CROP
    for found in items:
        before = found.before
        joined = bool(denied) and denied[-1] and _AND.fullmatch(found.between) is not None
        denied.append(
            joined
            or bool(_DENIED.search(before[-160:]) or _RELATED.search(before[-40:]))
            or is_of_picture(before)
        )
    return denied


def _said_of_lists(items: list[InTalk]) -> list[Said]:
    """Return what words say of each list of numbers; an object says of itself what it is."""
    if items and not any(_says_of_itself(found.item.value) for found in items):
        gaps = [*(found.between for found in items), items[-1].behind]
        beside = said_in_line(gaps) or said_in_rows(gaps)
        if beside:
            return beside
    all_said: list[Said] = []
    said = NOTHING_SAID
    for found in items:
        is_list = not holds_objects(found.item.value) and not _DENIED.search(found.before[-160:])
        if is_list and (not _AND.fullmatch(found.between) or said is NOTHING_SAID):
            said = _said_beside(found.before, found.behind)
        all_said.append(said)
    return all_said


def _says_of_itself(value: Any) -> bool:
    """Whether a value is more than numbers and an object with one box."""
    bare = (
        isinstance(value, dict)
        and len(value) == 1
        and all(isinstance(inner, list) for inner in value.values())
    )
    return holds_objects(value) and not (bare and plain_key(next(iter(value))) in BOX_KEYS)


def _said_beside(before: str, behind: str) -> Said:
    alone = not before[-400:].rpartition("\n")[2].strip(" \t-*•")
    label = label_before(before)
    follows = label_behind(behind) if alone and label is None else None
    if follows is not None:  # the words before belong to what is above
        return named(follows)
    return named(label, named_before(before) or named_behind(behind))


def _drop_talk(parsed: ParsedReply, in_talk: list[RawBox]) -> None:
    """Drop lists of numbers in talk around an answer of objects: its own boxes again, or boxes of
    no other thing.
    """
    outside = set(map(id, in_talk))
    answer = [raw for raw in parsed.boxes if id(raw) not in outside]
    inside = {raw.numbers for raw in answer}
    labels = dict.fromkeys(label for raw in answer for label in raw.said.labels)
    things = dict(enumerate(list(labels)[: _MOST_COMPARED // max(1, len(in_talk))]))
    for raw in in_talk:
        if raw.numbers in inside:
            continue
        if any(adds(label) or not matching_ids(label, things) for label in raw.said.labels):
            outside.remove(id(raw))
        elif raw.kind == "box":
            parsed.drop(f"{list(raw.numbers)} is in the talk around the answer")
    for kind in (parsed.boxes, parsed.points):
        kind[:] = [raw for raw in kind if id(raw) not in outside]


def _take_state(scan: Scan, parsed: ParsedReply, around: list[str]) -> None:
    parsed.hear(around[0], behind=False)
    parsed.hear(" ".join(around[1:]), behind=True)
    more = _MORE_THAN_TALK.search(without_control_tokens(" ".join(around)))
    parsed.unclear = parsed.unclear or scan.broken or more is not None
    boxes = {raw.numbers for raw in parsed.boxes}
    if any(tuple(map(number, numbers.split(","))) not in boxes for numbers in scan.commented):
        raise UnreadableReply("there are boxes in comments, and it is unclear whether they count")
    if scan.truncated:
        parsed.truncated = True
    elif scan.broken and scan.found:
        why = "brackets or quotation marks don't match, so that something may be missing"
        parsed.notes.append(Note("broken_json", why))
    elif scan.repaired and scan.found:
        parsed.notes.append(Note("repaired_json", "the reply is not quite JSON"))

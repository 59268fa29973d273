"""Which question of the request a box answers, and which of several answers to one
question counts.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import covered_ids, parts_of, thing_missed
from dataflow_grounding.replies.labels import (
    alike,
    all_words,
    comparable,
    contradicts,
    equal,
    matching_ids,
    named_ids,
)
from dataflow_grounding.replies.reading import FoundBox, Note, ParsedReply, RawBox, Said

# A phrase's id; without phrases the id or the label that the reply gives; None where it gives none.
Question: TypeAlias = int | str | None

_FAR = -(10**10)
_LIST = lazy_pattern(r"\s*[,;&、，和]\s*(?:and\s)?|\s+and\s+", re.IGNORECASE)
_LONGEST = 4000  # of a list of things in a label


class Kept(NamedTuple):
    """A box that was read, the answer of the reply that it is in, and the question
    that it answers.
    """

    box: FoundBox
    answer: int
    question: Question


class Questions:
    """The phrases of a request by id, or none: then whatever the reply names is one."""

    def __init__(self, phrases: dict[int, str]) -> None:
        self.phrases = phrases
        self.turns: dict[tuple[int, str], int] = {}
        self.translations: set[str] = set()
        self.shift = 0

    def ids(self, said: Said) -> list[int]:
        """Return the phrases that a box may belong to: by id, unless its label denies that; by
        label; the only one.
        """
        number = said.id + self.shift if said.id is not None else _FAR
        phrase = self.phrases.get(number)
        if phrase is not None and (
            not said.labels or said.labels[0] == phrase or _agree(said.labels, phrase)
        ):
            return [number]
        if not said.labels and not said.talk and len(self.phrases) == 1:
            return list(self.phrases)
        named = self._named(said)
        if phrase is not None and not named:
            return [] if any(contradicts(label, phrase) for label in said.labels) else [number]
        return named or (list(self.phrases) if _name(said) in self.translations else [])

    def about(self, said: Said) -> list[int]:
        """Return the phrases that something without a usable box speaks of."""
        ids = self.ids(said) or [
            i for i in self.phrases if said.id is not None and i == said.id + self.shift
        ]
        return ids or [
            i
            for i, text in self.phrases.items()
            if said.talk and all_words(text) <= all_words(said.talk)
        ]

    def lacking(self, said: Said) -> set[int]:
        """Return the phrases that are not there when what is `said` is not: all, where it names
        nothing.
        """
        if said.id is None and not said.labels:
            return set(self.phrases)
        ids = set(self.ids(Said(said.labels, said.id)))
        for label in said.labels:
            ids |= self._covered(label)
        if ids:
            return ids
        things = [thing_missed(label) for label in said.labels]
        return (
            {i for thing in things for i in self._covered(thing)}
            if all(things)
            else set(self.phrases)
        )

    def _covered(self, things: str) -> set[int]:
        parts = [things, *parts_of(things[:_LONGEST])]
        return {i for part in parts for i in covered_ids(part, self.phrases)}

    def learn(self, parsed: ParsedReply) -> None:
        """See how the reply counts and translates before its boxes are read. Raises UnreadableReply
        for unclear ids.
        """
        said = [raw.said for raw in parsed.boxes] + [absence for absence, _ in parsed.absences]
        said += [dropped.said for dropped in parsed.dropped]
        numbered = [one for one in said if one.id is not None] if self.phrases else []
        if any(one.id not in self.phrases and (one.id == 0 or not one.labels) for one in numbered):
            self._count(numbered)
        if len(self.phrases) == 1:
            self._translate(parsed.boxes)

    def _translate(self, boxes: list[RawBox]) -> None:
        unknown = [raw.said for raw in boxes if _name(raw.said) and not self._named(raw.said)]
        (phrase,) = self.phrases.values()
        if len({_name(said) for said in unknown}) == 1 and all(
            _is_foreign(said, phrase) for said in unknown
        ):
            self.translations = {_name(unknown[0])}

    def _count(self, numbered: list[Said]) -> None:
        ids, count = {said.id or 0 for said in numbered}, set(range(len(self.phrases)))
        from_0 = ids <= count and {i + 1 for i in count} == self.phrases.keys()
        from_0 = from_0 and all(
            _agree(one.labels, self.phrases[(one.id or 0) + 1]) for one in numbered if one.labels
        )
        if from_0 and (ids == count or all(said.labels for said in numbered)):
            self.shift = 1
        elif all(self._named(said) for said in numbered):
            self.shift = _FAR  # the labels settle it, and no id is one
        else:
            raise UnreadableReply(
                f"the reply's ids are {sorted(ids)[:5]}, and it is unclear which phrases these are"
            )

    def _named(self, said: Said) -> list[int]:
        found = next(
            (ids for label in said.labels if (ids := matching_ids(label, self.phrases))), []
        )
        return found or (named_ids(said.talk, self.phrases) if said.talk else [])

    def id_of(self, raw: RawBox) -> int | None:
        """Return the phrase a box belongs to: phrases that read the same get boxes in turn, the
        last one the rest.
        """
        said, ids = raw.said, self.ids(raw.said)
        if not ids or ids[0] == said.id or not (said.labels or said.talk):
            return ids[0] if ids else None
        phrase = raw.answer, self.phrases[ids[0]]
        turn = self.turns.get(phrase, 0)
        self.turns[phrase] = turn + 1
        return ids[min(turn, len(ids) - 1)]

    def names_several(self, said: Said) -> bool:
        """Whether what is said of a box lists several phrases, as "a cat and the dog" does, and is
        none by itself.
        """
        name = _name(said)[:400]
        parts = _LIST.split(name, maxsplit=8)
        if said.id is not None or len(self.phrases) < 2 or len(parts) < 2:
            return False
        if any(all_words(name) <= all_words(phrase) for phrase in self.phrases.values()):
            return False
        listed = {
            self.phrases[ids[0]] for part in parts if (ids := matching_ids(part, self.phrases))
        }
        return len(listed) > 1

    def of(self, said: Said) -> Question:
        """Return what an answer is about."""
        if self.phrases:
            return next(iter(self.about(said)), None)
        return (
            said.id if said.id is not None else said.labels[0].casefold() if said.labels else None
        )

    def last_answers(self, kept: list[Kept], parsed: ParsedReply) -> tuple[list[Kept], list[Note]]:
        """Return the boxes that no later answer takes back, and notes. Raises UnreadableReply if it
        is unclear.
        """
        if not parsed.answer:
            return kept, []
        if any(
            dropped.answer in parsed.corrections and self.of(dropped.said) is None
            for dropped in parsed.dropped
        ):
            raise UnreadableReply("the reply corrects itself, and it is unclear what")
        kept = self._told(kept, parsed.corrections)
        boxed = {one.answer for one in kept} | {dropped.answer for dropped in parsed.dropped}
        emptied = max((answer for _, answer in parsed.absences if answer not in boxed), default=-1)
        last: dict[Question, int] = {}
        for question, answer in self._answered(kept, parsed):
            last[question] = max(answer, last.get(question, emptied))
        notes = [_compared(question, answer, kept) for question, answer in last.items()]
        return [one for one in kept if one.answer >= last[one.question]], [
            note for note in notes if note is not None
        ]

    def _told(self, kept: list[Kept], corrections: set[int]) -> list[Kept]:
        """Return the boxes with those of a correction that names nothing given to the only question
        before it.
        """
        unnamed = {one.answer for one in kept if one.question is None and one.answer in corrections}
        for answer in sorted(unnamed):
            before = {one.question for one in kept if one.answer < answer} - {None}
            if len(before) > 1:
                raise UnreadableReply("the reply corrects itself, and it is unclear what")
            told = (None, answer)
            for question in before:
                kept = [
                    one._replace(question=question) if (one.question, one.answer) == told else one
                    for one in kept
                ]
        return kept

    def _answered(self, kept: list[Kept], parsed: ParsedReply) -> Iterator[tuple[Question, int]]:
        yield from ((one.question, one.answer) for one in kept)
        yield from ((self.of(dropped.said), dropped.answer) for dropped in parsed.dropped)
        yield from ((self.of(said), answer) for said, answer in parsed.absences)


def _compared(question: Question, last: int, kept: list[Kept]) -> Note | None:
    """Return a note where a question has boxes in an answer before the last one."""
    of_it = [one for one in kept if one.question == question]
    before = {one.box.bbox for one in of_it if one.answer < last}
    if not before:
        return None
    if before == {one.box.bbox for one in of_it if one.answer == last}:
        return Note("merged", f"{_named(question)} is answered more than once, the same each time")
    return Note(
        "superseded", f"{_named(question)} is answered more than once: the last answer counts"
    )


def _agree(labels: tuple[str, ...], phrase: str) -> bool:
    return any(equal(label, phrase) or alike(label, phrase) for label in labels)


def _name(said: Said) -> str:
    return said.labels[0] if said.labels else said.talk


def _is_foreign(said: Said, phrase: str) -> bool:
    """Whether what is said is in other letters than a phrase, all of it; a label of digits is in
    none.
    """
    names = [name for name in said.labels or (said.talk,) if any(map(str.isalpha, name))]
    return bool(names) and not any(comparable(name, phrase) for name in names)


def _named(question: Question) -> str:
    if question is None:
        return "a box without a label"
    return f"phrase {question}" if isinstance(question, int) else repr(question[:60])

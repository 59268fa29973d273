"""Which question of the request a box answers, and which of several answers counts."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.replies.labels import (
    alike,
    all_words,
    comparable,
    contradicts,
    equal,
    equal_ids,
    matching_ids,
    named_ids,
)
from dataflow_grounding.replies.reading import Details, FoundBox, Note, ParsedReply, RawBox

# A phrase's id; without phrases the id or the label that the reply gives; None where it gives none.
Question: TypeAlias = int | str | None

# Added to an id, it makes one that no phrase has.
_FAR = -(10**10)
_MOST_ABSENCES = 5000  # whose phrases are looked for
# What stands between the things of a list: ", ", " and ".
_LIST = lazy_pattern(r"\s*[,;&、，和]\s*(?:and\s)?|\s+and\s+", re.IGNORECASE)
_LONGEST = 4000  # characters of a list of things in a label
_LONGEST_LIST = 400  # characters of a box's name that may list phrases
_MOST_CUTS = 8  # in such a list: what is behind them is one part
_UNCLEAR_CORRECTION = "the reply corrects itself, and it is unclear what"


class KeptBox(NamedTuple):
    """A box that can be used.

    Attributes:
        box: The box.
        answer: The number of its answer in the reply.
        question: The question that it answers.
    """

    box: FoundBox
    answer: int
    question: Question


class Questions:
    """The questions of a request, which are its phrases.

    Where a request has no phrases, whatever the reply names is a question.

    Attributes:
        phrases: The phrases by id.
        turns: (Number of the answer, phrase's text) → how many boxes have gone to phrases of that
            text: `id_of` gives such phrases boxes in turn.
        translations: What the reply calls the only phrase in a language with other letters.
        shift: What to add to the reply's ids to get those of phrases: 1 where the reply counts from
            0; `_FAR`, which makes no phrase's id, where its ids mean nothing.
    """

    def __init__(self, phrases: dict[int, str]) -> None:
        self.phrases = phrases
        self.turns: dict[tuple[int, str], int] = {}
        self.translations: set[str] = set()
        self.shift = 0

    def ids(self, details: Details) -> list[int]:
        """Return the ids of the phrases that a box may belong to; several have the same text.

        The first of these rules counts that fits:
        1. The phrases that equal the heading above it, if it has neither a label nor an id.
        2. The phrase of its id, if it has no label or one that can mean the phrase.
        3. The only phrase there is, if nothing names the box.
        4. The phrases that its labels, or else the words around it, mean.
        5. The phrase of its id, unless a label means a different thing of the phrase's kind.
        6. The only phrase there is, if the box has the name that is taken for its translation.
        """
        if details.heading and not details.labels and details.id is None:
            under_heading = equal_ids(details.heading, self.phrases)
            if under_heading:
                return under_heading
        phrase_id = _FAR if details.id is None else details.id + self.shift
        phrase = self.phrases.get(phrase_id)
        if phrase is not None and _may_be_labels_of(details.labels, phrase):
            return [phrase_id]
        if not details.labels and not details.talk and len(self.phrases) == 1:
            return list(self.phrases)
        by_name = self._ids_by_name(details)
        if by_name:
            return by_name
        if phrase is not None:
            has_contradiction = any(contradicts(label, phrase) for label in details.labels)
            return [] if has_contradiction else [phrase_id]
        if _name(details) in self.translations:
            return list(self.phrases)
        return []

    def about(self, details: Details) -> list[int]:
        """Return the ids of the phrases that something without a usable box may belong to.

        They are those of `ids`; else the phrase of its id, whatever the label; else those all of
        whose words stand around it.
        """
        ids = self.ids(details)
        if ids:
            return ids
        if details.id is not None and details.id + self.shift in self.phrases:
            return [details.id + self.shift]
        if not details.talk:
            return []
        words = all_words(details.talk)
        return [
            phrase_id for phrase_id, phrase in self.phrases.items() if all_words(phrase) <= words
        ]

    def ids_not_there(self, details: Details) -> set[int]:
        """Return the ids of the phrases that are not there when a thing with these details isn't.

        These are all phrases where the details have no id and name nothing, as with "objects". None
        where they name something else, or have another id.
        """
        if details.id is None and not details.labels:
            return set(self.phrases)
        ids = set(self.ids(Details(details.labels, details.id)))
        for label in details.labels:
            ids |= self._ids_denied_with(label)
        if ids:
            return ids
        from dataflow_grounding.replies._absence import thing_beside_none  # few replies need it

        things = [thing_beside_none(label) for label in details.labels]
        if not all(things):
            return set(self.phrases)
        for thing in things:
            ids |= self._ids_denied_with(thing)
        return ids

    def ids_of_absences(self, absences: Iterable[Details]) -> set[int]:
        """Return the ids of the phrases that are not there by any of some absences.

        Absences behind the first `_MOST_ABSENCES` aren't looked at.
        """
        ids: set[int] = set()
        for details in islice(absences, _MOST_ABSENCES):
            ids |= self.ids_not_there(details)
            if ids.issuperset(self.phrases):
                break
        return ids

    def _ids_denied_with(self, things: str) -> set[int]:
        """Return the ids of the phrases that aren't there when `things` aren't.

        `things` is one thing, or a list such as "a dog and a cat". Without a dog there is no brown
        dog either: narrower phrases are denied, too.
        """
        from dataflow_grounding.replies._absence import missing_ids, parts_of  # few replies need it

        ids = missing_ids(things, self.phrases)
        for part in parts_of(things[:_LONGEST]):
            ids |= missing_ids(part, self.phrases)
        return ids

    def learn(self, parsed: ParsedReply) -> None:
        """Find out how the reply counts phrases and translates them, before its boxes are read.

        Raises:
            UnreadableReply: It is unclear which phrases its ids are.
        """
        if self.phrases:
            self._check_headings(parsed.boxes)
            self._learn_ids(parsed)
        if len(self.phrases) == 1:
            self._learn_translation(parsed.boxes)

    def _check_headings(self, boxes: list[RawBox]) -> None:
        """Check that a box without a label under a heading that is a phrase has no other id.

        Raises:
            UnreadableReply: It has, and it is unclear whether ids count the boxes there.
        """
        for raw in boxes:
            details = raw.details
            if details.id is None or details.id_of_phrase or details.labels:
                continue
            under_heading = equal_ids(details.heading, self.phrases) if details.heading else []
            if under_heading and details.id not in under_heading:
                raise UnreadableReply(
                    f"the reply has a box with the id {details.id} under {details.heading!r:.60},"
                    " and it is unclear whether ids count the boxes there"
                )

    def _learn_ids(self, parsed: ParsedReply) -> None:
        """Decide what the reply's ids mean, if one of them can't be the id of a phrase.

        An id that no phrase has doesn't matter where a label names the phrase: the reply may count
        its boxes. A 0 does matter, as it may mean that the reply counts phrases from 0.
        """
        with_ids: list[Details] = []
        all_known = True
        for details in _all_details_in(parsed):
            if details.id is None:
                continue
            with_ids.append(details)
            if details.id not in self.phrases and (details.id == 0 or not details.labels):
                all_known = False
        if not all_known:
            self._learn_shift(with_ids)

    def _learn_shift(self, with_ids: list[Details]) -> None:
        """Set `shift` to what the ids in a reply mean: a count from 0, or nothing beside names.

        They count from 0 if no label speaks against it, and if they are all the numbers from 0 on
        or all have labels.

        Args:
            with_ids: The details that have an id, at least one.

        Raises:
            UnreadableReply: It is unclear what they mean.
        """
        ids = {details.id or 0 for details in with_ids}
        positions = set(range(len(self.phrases)))  # the ids of a reply that counts from 0
        from_0 = ids <= positions and self._labels_count_from_0(with_ids)
        all_positions_or_labels = ids == positions or all(details.labels for details in with_ids)
        if from_0 and all_positions_or_labels:
            self.shift = 1
        elif all(self._ids_by_name(details) for details in with_ids):
            self.shift = _FAR  # the labels settle it
        else:
            raise UnreadableReply(
                f"the reply's ids are {sorted(ids)[:5]}, and it is unclear which phrases these are"
            )

    def _labels_count_from_0(self, with_ids: list[Details]) -> bool:
        """Whether the phrases' ids are 1, 2, … and each label can mean the phrase one id higher.

        Every id must be one less than a phrase's.
        """
        if self.phrases.keys() != set(range(1, len(self.phrases) + 1)):
            return False
        for details in with_ids:
            if details.labels and not _agree(details.labels, self.phrases[(details.id or 0) + 1]):
                return False
        return True

    def _learn_translation(self, boxes: list[RawBox]) -> None:
        """Set `translations` to the name of the boxes that don't name the only phrase.

        Not where they have several names, or one that could be compared with the phrase: it must be
        in other letters.
        """
        (phrase,) = self.phrases.values()
        names: set[str] = set()
        for raw in boxes:
            name = _name(raw.details)
            if not name or self._ids_by_name(raw.details):
                continue
            if not _is_foreign(raw.details, phrase):
                return
            names.add(name)
        if len(names) == 1:
            self.translations = names

    def _ids_by_name(self, details: Details) -> list[int]:
        """Return the ids of the phrases that the labels mean, or else the words around the box.

        Of several labels, the first counts that means any.
        """
        for label in details.labels:
            ids = matching_ids(label, self.phrases)
            if ids:
                return ids
        return named_ids(details.talk, self.phrases) if details.talk else []

    def id_of(self, raw: RawBox) -> int | None:
        """Return the id of the phrase that a box belongs to; None where it belongs to none.

        Phrases of the same text get boxes in turn, and the last one all further boxes.
        """
        details = raw.details
        ids = self.ids(details)
        if not ids:
            return None
        if ids[0] == details.id or not (details.labels or details.talk):
            return ids[0]
        answer_and_text = (raw.answer, self.phrases[ids[0]])
        turn = self.turns.get(answer_and_text, 0)
        self.turns[answer_and_text] = turn + 1
        return ids[min(turn, len(ids) - 1)]

    def names_several(self, details: Details) -> bool:
        """Whether the name of a box without an id lists several phrases: "a cat and the dog".

        A list that is a part of a phrase itself does not.
        """
        name = _name(details)[:_LONGEST_LIST]
        parts = _LIST.split(name, maxsplit=_MOST_CUTS)
        if details.id is not None or len(self.phrases) < 2 or len(parts) < 2:
            return False
        if any(all_words(name) <= all_words(phrase) for phrase in self.phrases.values()):
            return False
        phrases_in_list: set[str] = set()
        for part in parts:
            ids = matching_ids(part, self.phrases)
            if ids:
                phrases_in_list.add(self.phrases[ids[0]])
        return len(phrases_in_list) > 1

    def question_of(self, details: Details) -> Question:
        """Return the question that something with these details answers; None where it isn't known.

        It is the first phrase that it may be about; without phrases its id, or else its first
        label.
        """
        if self.phrases:
            ids = self.about(details)
            return ids[0] if ids else None
        if details.id is not None:
            return details.id
        return details.labels[0].casefold() if details.labels else None

    def last_answers(
        self, boxes: list[KeptBox], parsed: ParsedReply
    ) -> tuple[list[KeptBox], list[Note]]:
        """Return the boxes of the last answer to each question, and notes on earlier answers.

        Args:
            boxes: The boxes that can be used.
            parsed: The reply that they are from.

        Raises:
            UnreadableReply: It is unclear what a later answer corrects.
        """
        if not parsed.answer:
            return boxes, []
        for dropped in parsed.dropped:
            if dropped.answer in parsed.corrections and self.question_of(dropped.details) is None:
                raise UnreadableReply(_UNCLEAR_CORRECTION)
        boxes = _with_questions_of_corrections(boxes, parsed.corrections)
        last_answer = self._last_answer_to_each(boxes, parsed)
        boxes_that_count = [box for box in boxes if box.answer >= last_answer[box.question]]
        notes: list[Note] = []
        for question, answer in last_answer.items():
            note = _note_on_earlier_answers(question, answer, boxes)
            if note is not None:
                notes.append(note)
        return boxes_that_count, notes

    def _last_answer_to_each(
        self, boxes: list[KeptBox], parsed: ParsedReply
    ) -> dict[Question, int]:
        """Return the number of the last answer to each question that has any.

        Boxes, what was dropped and absences answer one. An answer that only says that something is
        not there is one to all questions.
        """
        answers: list[tuple[Question, int]] = []
        for box in boxes:
            answers.append((box.question, box.answer))
        for dropped in parsed.dropped:
            answers.append((self.question_of(dropped.details), dropped.answer))
        for details, answer in parsed.absences:
            answers.append((self.question_of(details), answer))
        to_all = _last_answer_without_boxes(boxes, parsed)
        last_answer: dict[Question, int] = {}
        for question, answer in answers:
            last_answer[question] = max(answer, last_answer.get(question, to_all))
        return last_answer


def _all_details_in(parsed: ParsedReply) -> Iterator[Details]:
    """Yield the details of a reply's boxes, of what is not there, and of what was dropped."""
    for raw in parsed.boxes:
        yield raw.details
    for details, _ in parsed.absences:
        yield details
    for dropped in parsed.dropped:
        yield dropped.details


def _last_answer_without_boxes(boxes: list[KeptBox], parsed: ParsedReply) -> int:
    """Return the number of the last answer with absences alone; -1 where there is none.

    It has no box that can be used, and nothing in it was dropped.
    """
    with_boxes = {box.answer for box in boxes}
    with_boxes.update(dropped.answer for dropped in parsed.dropped)
    last = -1
    for _, answer in parsed.absences:
        if answer not in with_boxes:
            last = max(last, answer)
    return last


def _with_questions_of_corrections(boxes: list[KeptBox], corrections: set[int]) -> list[KeptBox]:
    """Return the boxes, with a question for those of a correction that don't say what they are of.

    It is the only question of the answers before the correction; where these have none, the boxes
    stay without.

    Raises:
        UnreadableReply: Answers to several questions stand before the correction.
    """
    unnamed = {box.answer for box in boxes if box.question is None and box.answer in corrections}
    for answer in sorted(unnamed):
        questions_before = {box.question for box in boxes if box.answer < answer} - {None}
        if len(questions_before) > 1:
            raise UnreadableReply(_UNCLEAR_CORRECTION)
        for question in questions_before:
            boxes = _with_question(boxes, answer, question)
    return boxes


def _with_question(boxes: list[KeptBox], answer: int, question: Question) -> list[KeptBox]:
    """Return the boxes, with `question` for those of one answer that have none."""
    with_question: list[KeptBox] = []
    for box in boxes:
        if box.answer == answer and box.question is None:
            box = box._replace(question=question)
        with_question.append(box)
    return with_question


def _note_on_earlier_answers(question: Question, last: int, boxes: list[KeptBox]) -> Note | None:
    """Return a note if a question has boxes in an answer before the last one; else None.

    Args:
        question: The question.
        last: The number of the last answer to it.
        boxes: All boxes that can be used.
    """
    before: set[Bbox] = set()
    in_last: set[Bbox] = set()
    for box in boxes:
        if box.question == question and box.answer < last:
            before.add(box.box.bbox)
        elif box.question == question and box.answer == last:
            in_last.add(box.box.bbox)
    if not before:
        return None
    if before == in_last:
        return Note(
            "merged",
            f"{_question_in_words(question)} is answered more than once, the same each time",
        )
    return Note(
        "superseded",
        f"{_question_in_words(question)} is answered more than once: the last answer counts",
    )


def _may_be_labels_of(labels: tuple[str, ...], phrase: str) -> bool:
    """Whether labels don't speak against a phrase: there are none, or one can mean it."""
    return not labels or labels[0] == phrase or _agree(labels, phrase)


def _agree(labels: tuple[str, ...], phrase: str) -> bool:
    """Whether one of the labels can mean a phrase."""
    return any(equal(label, phrase) or alike(label, phrase) for label in labels)


def _name(details: Details) -> str:
    """Return what a box is called: its first label, or else the words around it, perhaps ""."""
    return details.labels[0] if details.labels else details.talk


def _is_foreign(details: Details, phrase: str) -> bool:
    """Whether a box's names, those with letters, are all in other letters than a phrase.

    The names are its labels, or else what the words around it name. False for a box without any.
    """
    has_letters = False
    for name in details.labels or (details.talk,):
        if not any(map(str.isalpha, name)):
            continue
        if comparable(name, phrase):
            return False
        has_letters = True
    return has_letters


def _question_in_words(question: Question) -> str:
    """Return a question as a note calls it."""
    if question is None:
        return "a box without a label"
    if isinstance(question, int):
        return f"phrase {question}"
    return repr(question[:60])

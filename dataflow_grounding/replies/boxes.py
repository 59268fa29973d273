"""Reading boxes out of a model's reply, in any of the shapes that models write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding.coordinates import BoxFormat, find_box_format, known_formats
from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.frames import to_xyxy
from dataflow_grounding.geometry import Bbox, Size, area, clamp, ordered
from dataflow_grounding.replies.finding import find_marks
from dataflow_grounding.replies.labels import alike, comparable, equal_ids, surely_alike
from dataflow_grounding.replies.marks import Dropped, Mark, Marks, Said, number
from dataflow_grounding.replies.none_words import denies_itself
from dataflow_grounding.replies.prose import denial
from dataflow_grounding.replies.questions import Kept, Questions
from dataflow_grounding.replies.reading import FoundBox, FoundPoint, Reading

# How far outside of its range a number may lie, in parts of the range, to be moved inside and not dropped.
TOLERANCE = 1 / 8
# The share of a reply's boxes that may lie further outside before the whole reply counts as written in another format.
OUT_OF_SCALE_SHARE = 1 / 10
STATUSES = ("ambiguous", "unsupported")


def read_boxes(
    reply: str,
    *,
    format: BoxFormat | str,
    image_size: Size,
    sent_size: Size | None = None,
    phrases: Sequence[str] | Mapping[int, str] = (),
) -> Reading:
    """Read the boxes in a model's reply.

    `format` is the convention that the reply was asked for, or its name; `image_size` the original upright image's (width,
    height); `sent_size` the size of the picture that was sent, where it was another. `phrases` are those of the request, by
    id or in order from 1: then every box belongs to one of them, or is dropped with a note. Raises UnreadableReply, with a
    line that says what was wrong, when there is nothing to read or nothing that was read can be used.
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    marks = find_marks(reply, box_format.key)
    wanted = dict(phrases) if isinstance(phrases, Mapping) else dict(enumerate(phrases, start=1))
    reader = _BoxReader(box_format, image_size, sent_size or image_size, wanted)
    reader.take(marks)
    return reader.reading


def read_points(
    reply: str, *, format: BoxFormat | str, image_size: Size, sent_size: Size | None = None
) -> list[FoundPoint]:
    """Read the points in a reply of a model that points; arguments as in `read_boxes`.

    Raises UnreadableReply when there is no point and the reply does not say that there is none.
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    marks = find_marks(reply, box_format.key)
    if not marks.points and not marks.absences:
        raise UnreadableReply("there is no point in the reply")
    found = []
    last = max((mark.answer for mark in marks.points), default=0)
    for mark in marks.points:
        if mark.answer < last:
            continue
        meant = replace(box_format, order=mark.order) if mark.order else box_format
        point = meant.point_to_pixels(mark.numbers, original=image_size, sent=sent_size)
        found.append(FoundPoint(point, mark.said.labels[0] if mark.said.labels else None, mark.numbers))
    return found


class _NoBox(Exception):
    """One mark is no box that can be used; the text says why."""


class _NothingThere(Exception):
    """One mark says that there is nothing."""


class _BoxReader:
    """Turns marks into boxes in pixels, each of one phrase, and writes down what it had to do to them."""

    def __init__(self, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]) -> None:
        self.format, self.original, self.sent, self.phrases = box_format, original, sent, phrases
        self.reading = Reading([])
        self.questions = Questions(phrases)
        self.kept: list[Kept] = []
        self.seen: dict[tuple[int, int | None, Bbox], int] = {}
        self.noted: set[str] = set()
        self.out_of_scale: list[Mark] = []

    def take(self, marks: Marks) -> None:
        reading = self.reading
        reading.notes += marks.notes
        if marks.truncated:
            self.note("truncated", "the reply ends in the middle")
        self.take_statuses(marks)
        self.questions.learn(marks)
        self.take_boxes(marks)
        self.take_points(marks)
        kept, notes = self.questions.last_answers(self.kept, marks)
        self.check_scale(marks, {marks.answer, *(one.answer for one in kept)})
        self.check_talk(marks, kept)
        reading.notes += notes
        reading.boxes = [one.box for one in kept]
        found = {box.id for box in reading.boxes}
        for dropped in marks.dropped:
            self.note("dropped", dropped.reason)
            reading.unread += self.questions.about(dropped.said)[:1]
        reading.unread = sorted(set(reading.unread) - found)
        if reading.boxes or reading.statuses:
            return
        if marks.truncated:
            raise TruncatedReply("the reply is cut off before its first whole box")
        if marks.dropped:
            raise UnreadableReply(f"no box of the reply can be used: {marks.dropped[0].reason}")
        if marks.missing is not None and not marks.missing.answers_for(self.phrases):
            raise UnreadableReply(f"the reply says only that {marks.missing.thing[:60]!r} is not there")

    def take_boxes(self, marks: Marks) -> None:
        if self.format.scale == "grid_32":  # two numbers are two cells
            marks.boxes += [replace(mark, kind="box") for mark in marks.points if mark.order is None]
            marks.points = [mark for mark in marks.points if mark.order is not None]
        if marks.points and not marks.boxes:
            raise UnreadableReply("the reply has points where boxes were asked for")
        unusable: list[tuple[Mark, str]] = []
        for mark in marks.boxes:
            try:
                self.keep(mark, self.pixels(mark))
            except _NothingThere as nothing:
                self.note("dropped", str(nothing))
            except _NoBox as error:
                unusable.append((mark, str(error)))
        again = {mark.numbers for mark, _ in unusable if not mark.said.labels} == {one.box.numbers for one in self.kept}
        for mark, reason in unusable:
            if mark.said.labels or not again:  # else all boxes once more, without their labels
                marks.dropped.append(Dropped(reason, mark.said, mark.answer))

    def check_scale(self, marks: Marks, counted: set[int]) -> None:
        """Raise UnreadableReply where an answer that counts is written in another scale; one that was taken back may be."""
        boxes = Counter(mark.answer for mark in marks.boxes)
        outside = Counter(mark.answer for mark in self.out_of_scale)
        if any(outside[answer] > OUT_OF_SCALE_SHARE * boxes[answer] for answer in counted):
            raise UnreadableReply(self.scale_complaint(counted))

    def check_talk(self, marks: Marks, kept: list[Kept]) -> None:
        """Raise UnreadableReply where words beside the boxes say that they are none."""
        others = bool(self.phrases.keys() - {one.box.id for one in kept})
        things: dict[int, dict[int, str]] = {}
        for box, answer, _ in kept:
            things.setdefault(answer, {})[box.id or 0] = self.phrases.get(box.id or 0, box.label or "")
        for talk in marks.talk:
            words = denial(talk, things[talk.answer], others=others) if talk.answer in things else None
            if words is not None:
                raise UnreadableReply(f"the reply gives boxes and takes them back: {' '.join(words.split())[:60]!r}")

    def take_points(self, marks: Marks) -> None:
        if marks.points:
            self.note("dropped", f"{len(marks.points)} points, which are no boxes")
        for point in marks.points:
            self.reading.unread += self.questions.about(point.said)[:1]

    def note(self, code: str, what: str) -> None:
        self.reading.notes.append(f"{code}: {what}")

    def note_once(self, code: str, what: str) -> None:
        if what not in self.noted:
            self.noted.add(what)
            self.note(code, what)

    def take_statuses(self, marks: Marks) -> None:
        for i, status in marks.statuses.items():
            if (i in self.phrases or not self.phrases) and status in STATUSES:
                self.reading.statuses[i] = status
                if i in marks.reasons:
                    self.reading.reasons[i] = marks.reasons[i]
            else:
                self.note("dropped", f"status {status[:40]!r} of phrase {i}")

    def meaning(self, mark: Mark) -> BoxFormat:
        meant = self.format
        if mark.family is not None and mark.family != meant.name:
            meant = known_formats()[mark.family]
            self.note_once("native_tokens", f"read as {mark.family}, whose tokens these are")
        if mark.corners and meant.order in ("xywh", "cxcywh"):
            return replace(meant, order="xyxy")
        return replace(meant, order=mark.order) if mark.order else meant

    def pixels(self, mark: Mark) -> Bbox:
        """Return the box that a mark means, inside the image; raises _NoBox when it means none."""
        meant, written = self.meaning(mark), _shown(mark.numbers)
        numbers = mark.numbers
        if meant.scale == "grid_32":
            if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] < 1024:
                raise _NoBox(f"grid cells {written}")
        elif mark.family is None and set(numbers) in ({0}, {-1}):
            raise _NothingThere(f"{written}, which says that nothing is there")
        else:
            numbers = self.in_scale(mark, meant)
        drawn = meant.to_pixels(numbers, original=self.original, sent=self.sent)
        upright = ordered(drawn)
        if upright != drawn:
            self.note("swapped", f"{written}: the corners were the wrong way round")
        inside = clamp(upright, self.original)
        if area(inside) <= 0:
            raise _NoBox(f"{written} has no area in the image")
        if max(abs(a - b) for a, b in zip(inside, upright, strict=True)) > 1e-6 * max(self.original):
            self.note("clamped", f"{written} reached out of the image")
        return inside

    def in_scale(self, mark: Mark, meant: BoxFormat) -> tuple[float, ...]:
        written = _shown(mark.numbers)
        if mark.unit is not None and mark.unit != {"px": "px", 100: "%"}.get(meant.scale):
            raise _NoBox(f"{written} is said to be in {mark.unit}, and the box format {self.format.name} was asked for")
        mended = _without_runaway(mark.numbers, meant)
        if mended != mark.numbers:
            self.note("clamped", f"{written}: a row of nines means the far edge")
        if _out_of_scale(to_xyxy(mended, meant.order), meant.limits(self.sent)):
            self.out_of_scale.append(replace(mark, numbers=mended))
            raise _NoBox(f"{written} does not fit the box format {self.format.name}")
        return mended

    def scale_complaint(self, counted: set[int]) -> str:
        outside = [mark.numbers for mark in self.out_of_scale if mark.answer in counted]
        x, y = self.format.limits(self.sent)
        asked = f"0 to {x:g}" if x == y else f"0 to {x:g} for x and 0 to {y:g} for y"
        low, high = min(map(min, outside)), max(map(max, outside))
        return f"the coordinates go from {low:g} to {high:g}, where {asked} was asked for"

    def keep(self, mark: Mark, bbox: Bbox) -> None:
        said = mark.said
        label = said.labels[0] if said.labels else None
        phrase_id = self.questions.id_of(mark) if self.phrases else said.id
        if self.phrases and phrase_id is None:
            thing = f"label {label[:60]!r}" if label else repr(said.talk[:60])
            raise _NoBox(f"{thing} is none of the phrases" if label or said.talk else "a box without an id or a label")
        phrase = self.phrases.get(phrase_id or 0, label)
        if label and phrase_id is not None and label != phrase and not equal_ids(label, {0: phrase or ""}):
            self.check_label(said, phrase_id)
        if label and phrase_id is not None and phrase_id != said.id and self.phrases:
            self.note_once("matched_by_label", f"{label[:60]!r} is phrase {phrase_id}")
        if not label and said.talk in self.questions.translations:
            self.note("unlike_label", f"{said.talk[:60]!r} can't be compared with phrase {phrase_id}")
        score = _score(said.score)
        if score is None and said.score is not None:
            self.note_once("score_ignored", f"{str(said.score)[:40]!r} is no score from 0 to 1")
        box = FoundBox(bbox, phrase_id, label, score, mark.numbers, said.evidence)
        one = Kept(box, mark.answer, phrase_id if self.phrases else self.questions.of(said))
        place = self.seen.setdefault((mark.answer, phrase_id, bbox), len(self.kept)) if self.phrases else len(self.kept)
        if place == len(self.kept):
            self.kept.append(one)
            return
        self.note_once("merged", f"{_shown(mark.numbers)} stands more than once for phrase {phrase_id}")
        if score is not None and score > (self.kept[place].box.score or -1):
            self.kept[place] = one

    def check_label(self, said: Said, phrase_id: int) -> None:
        """Raise _NoBox for a label that says that the phrase is not there, and note one that may be another thing."""
        label, phrase = said.labels[0], self.phrases[phrase_id]
        if denies_itself(label) and not denies_itself(phrase):
            raise _NoBox(f"label {label[:60]!r} says that it isn't there")
        if said.id is not None:
            known = alike(label, phrase) or not comparable(label, phrase)
        else:
            known = any(surely_alike(name, phrase) for name in (label, said.talk))
        if not known:
            self.note("unlike_label", f"{label[:60]!r} may be another thing than phrase {phrase_id}")


def _without_runaway(numbers: tuple[float, ...], meant: BoxFormat) -> tuple[float, ...]:
    # DeepSeek-VL2 writes 9999 or 99999 for the edge at 999 (deepseek-ai/DeepSeek-VL2 issue 123).
    if meant.scale not in (999, 1000):
        return numbers
    return tuple(999.0 if value > 1000 and set(f"{value:.0f}") == {"9"} else value for value in numbers)


def _out_of_scale(corners: Sequence[float], limits: tuple[float, float]) -> bool:
    if any(not -TOLERANCE <= value / limits[i % 2] <= 1 + TOLERANCE for i, value in enumerate(corners)):
        return True
    fractions = all(0 <= value <= 1 for value in corners) and any(value != int(value) for value in corners)
    return min(limits) > 10 and fractions


def _score(value: Any) -> float | None:
    if isinstance(value, str):
        per_cent = value.strip().endswith("%")
        as_number = number(value.strip().rstrip("%"))
        as_number = as_number / 100 if per_cent and as_number is not None else as_number
    else:
        as_number = number(value)
    return as_number if as_number is not None and 0 <= as_number <= 1 else None


def _shown(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in numbers) + "]"

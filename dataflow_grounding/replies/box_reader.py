"""Turning the boxes of a reply into boxes in pixels, each of one phrase."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat, to_xyxy
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size, area, clamp, ordered
from dataflow_grounding.replies._questions import KeptBox, Questions
from dataflow_grounding.replies.json_values import score_of
from dataflow_grounding.replies.labels import alike, comparable, equal, surely_alike
from dataflow_grounding.replies.reading import (
    Details,
    Dropped,
    FoundBox,
    Note,
    ParsedReply,
    RawBox,
    Reading,
)

# How far outside its range a number may lie, as a share of the range, for its box to be moved
# inside rather than dropped.
TOLERANCE = 1 / 8
# The share of an answer's boxes that may lie further outside; with more, the whole reply counts as
# written in another format.
OUT_OF_SCALE_SHARE = 1 / 10
_ROUNDING = 1e-6  # of the image's longer side: a side moved by no more wasn't outside
STATUSES = ("ambiguous", "unsupported")  # of phrases, as the embedded grounder gives them
_LARGE_RANGE = 10  # a range that ends beyond is not one of parts of 1
_CELLS = 32 * 32  # of the grid of the scale "grid_32"
_NINES = (999, 1000)  # scales at whose end models write a row of nines


def to_reading(
    parsed: ParsedReply, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]
) -> Reading:
    """Return what a reply says, its boxes in pixels of the original.

    Args:
        parsed: The reply as written. What can't be used is added to its `dropped`.
        box_format: The box format that was asked for.
        original: The size of the upright image in pixels.
        sent: The size of the picture as sent.
        phrases: The request's phrases by id.

    Raises:
        UnreadableReply: Nothing can be used, or it is unclear what counts.
        TruncatedReply: The reply is cut off before its first complete box.
    """
    return _BoxReader(box_format, original, sent, phrases).read(parsed)


class _NoBox(Exception):
    """A box that can't be used; the message says why."""


class _NothingThere(Exception):
    """A box that says that nothing is there."""


class _BoxReader:
    """Turns one parsed reply into a reading.

    Attributes:
        format: The box format that was asked for.
        original: The size of the upright image in pixels.
        sent: The size of the picture as sent.
        phrases: The request's phrases by id.
        reading: What is returned at the end; methods add notes and statuses to it.
        questions: Tells which phrase a box belongs to.
        kept_boxes: The boxes that can be used, in the reply's order.
        index_of_box: The index in `kept_boxes` of a box, by its answer, phrase and pixels.
        unique_notes: The texts of notes that are made only once.
        out_of_scale: The boxes whose numbers lie far outside the range of their format.
        zeros: The details of boxes of zeros, which say that nothing is there.
    """

    def __init__(
        self, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]
    ) -> None:
        self.format = box_format
        self.original = original
        self.sent = sent
        self.phrases = phrases
        self.reading = Reading([])
        self.questions = Questions(phrases)
        self.kept_boxes: list[KeptBox] = []
        self.index_of_box: dict[tuple[int, int | None, Bbox], int] = {}
        self.unique_notes: set[str] = set()
        self.out_of_scale: list[RawBox] = []
        self.zeros: list[Details] = []

    def read(self, parsed: ParsedReply) -> Reading:
        """Return what a reply says. What is dropped on the way is added to `parsed.dropped`.

        Raises:
            UnreadableReply, TruncatedReply: As `to_reading`.
        """
        reading = self.reading
        reading.notes += parsed.notes
        if parsed.truncated:
            self.note("truncated", "the reply ends in the middle")
        self.take_statuses(parsed)
        self.questions.learn(parsed)
        self.take_boxes(parsed)
        if parsed.points:
            self.note("dropped", f"{len(parsed.points)} points, which are not boxes")
        boxes, notes = self.questions.last_answers(self.kept_boxes, parsed)
        last_answers = {box.answer for box in boxes}
        last_answers.add(parsed.answer)
        self.check_scale(parsed, last_answers)
        if parsed.talk:
            from dataflow_grounding.replies._objections import check_talk  # few replies have words

            check_talk(parsed, boxes, self.phrases)
        reading.notes += notes
        reading.boxes = [box.box for box in boxes]
        for dropped in parsed.dropped:
            self.note("dropped", dropped.reason)
        reading.unread = self.unread_phrases(parsed)
        reading.unsure = self.unsure_phrases(parsed)
        if not reading.boxes and not reading.statuses:
            from dataflow_grounding.replies._objections import check_none  # few replies have none

            check_none(parsed, self.questions, self.zeros)
        return reading

    def unread_phrases(self, parsed: ParsedReply) -> list[int]:
        """Return the ids, in ascending order, of phrases whose boxes the reply lost.

        They have a point or something that was dropped, and no box: they are neither found nor said
        not to be there.
        """
        unread: set[int] = set()
        for point in parsed.points:
            unread.update(self.questions.about(point.details)[:1])
        for dropped in parsed.dropped:
            unread.update(self.questions.about(dropped.details)[:1])
        for box in self.reading.boxes:
            if box.id is not None:
                unread.discard(box.id)
        return sorted(unread)

    def unsure_phrases(self, parsed: ParsedReply) -> dict[int, str]:
        """Return the ids of the phrases that may have a box that was dropped, with the reason.

        That is a box of the last answer with an id that no phrase has, or without an id or any
        words, so that nothing says which phrase it is of. It may be of any one without a box, a
        status or an absence. {} where there is no such box.
        """
        strays: list[Dropped] = []
        for dropped in parsed.dropped:
            details = dropped.details
            is_nameless = not any(details.labels) and not details.talk
            if dropped.answer != parsed.answer or (details.id is None and not is_nameless):
                continue
            if not self.questions.about(details):
                strays.append(dropped)
        if not strays or not self.phrases:
            return {}
        answered = {box.id for box in self.reading.boxes} | set(self.reading.statuses)
        answered |= self.questions.ids_of_absences(details for details, _ in parsed.absences)
        stray_id = strays[0].details.id
        reason = "a box without an id or a label may be its own"
        if stray_id is not None:
            reason = f"a box of id {stray_id}, which no phrase has, may be its own"
        return {phrase_id: reason for phrase_id in self.phrases if phrase_id not in answered}

    def take_boxes(self, parsed: ParsedReply) -> None:
        """Add the boxes that can be used to `kept_boxes`, and the others to `parsed.dropped`.

        Boxes of zeros are noted, and their details added to `zeros`.

        Raises:
            UnreadableReply: The boxes of phrases may be of another picture, they are told to be in
                another order than was asked for, or there are only points.
        """
        may_be_elsewhere = parsed.elsewhere is not None or len(parsed.pictures) > 1
        if may_be_elsewhere and self.phrases and parsed.boxes:
            from dataflow_grounding.replies._objections import check_pictures  # few replies' are

            check_pictures(parsed)
        if self.format.scale == "grid_32":
            _turn_pairs_into_boxes(parsed)
        if parsed.points and not parsed.boxes:
            raise UnreadableReply("the reply has points where boxes were asked for")
        if parsed.ends_in_size:
            self.check_ends_in_size(parsed.boxes)
        elif parsed.told_sizes:
            self.check_ends_in_size(_ending_in_size(parsed, (self.original, self.sent)))
        unusable: list[tuple[RawBox, str]] = []
        for raw in parsed.boxes:
            try:
                self.keep(raw, self.to_pixels(raw))
            except _NothingThere as nothing:
                self.note("dropped", str(nothing))
                self.zeros.append(raw.details)
            except _NoBox as error:
                unusable.append((raw, str(error)))
        if unusable:
            self.drop_unusable(unusable, parsed)

    def check_ends_in_size(self, boxes: list[RawBox]) -> None:
        """Raise UnreadableReply where boxes that are told to end in a size would be two corners."""
        for raw in boxes:
            if not raw.corners and self.format_of(raw).order in ("xyxy", "yxyx"):
                raise UnreadableReply(
                    "the reply says that its boxes end in a width and a height, where two corners"
                    " were asked for"
                )

    def drop_unusable(self, unusable: list[tuple[RawBox, str]], parsed: ParsedReply) -> None:
        """Add boxes that can't be used to `parsed.dropped`, each with its reason.

        Those without a label are left out where their numbers are exactly those of the kept boxes:
        then they are these once more.
        """
        numbers_of_kept = {box.box.numbers for box in self.kept_boxes}
        numbers_without_label = {raw.numbers for raw, _ in unusable if not raw.details.labels}
        repeat_kept_boxes = numbers_without_label == numbers_of_kept
        for raw, reason in unusable:
            if raw.details.labels or not repeat_kept_boxes:
                parsed.dropped.append(Dropped(reason, raw.details, raw.answer))

    def check_scale(self, parsed: ParsedReply, last_answers: set[int]) -> None:
        """Refuse a reply with an answer in another scale than was asked for.

        That is one of whose boxes more than OUT_OF_SCALE_SHARE are out of scale.

        Args:
            parsed: The reply.
            last_answers: The numbers of the answers to check. An answer that was taken back may be
                in another scale.

        Raises:
            UnreadableReply: There is such an answer.
        """
        if not self.out_of_scale:
            return
        boxes = Counter(raw.answer for raw in parsed.boxes)
        outside = Counter(raw.answer for raw in self.out_of_scale)
        if all(outside[answer] <= OUT_OF_SCALE_SHARE * boxes[answer] for answer in last_answers):
            return
        numbers: list[float] = []
        for raw in self.out_of_scale:
            if raw.answer in last_answers:
                numbers += raw.numbers
        x, y = self.format.limits(self.sent)
        scale = f"0 to {x:g}" if x == y else f"0 to {x:g} for x and 0 to {y:g} for y"
        raise UnreadableReply(
            f"the coordinates go from {min(numbers):g} to {max(numbers):g},"
            f" where {scale} was asked for"
        )

    def note(self, code: str, text: str) -> None:
        """Add a note to the reading."""
        self.reading.notes.append(Note(code, text))

    def note_once(self, code: str, text: str) -> None:
        """Add a note to the reading, unless it was added before."""
        if text not in self.unique_notes:
            self.unique_notes.add(text)
            self.note(code, text)

    def take_statuses(self, parsed: ParsedReply) -> None:
        """Add to the reading the statuses of the request's phrases, with their reasons.

        Without phrases, all ids count. A status that is none of STATUSES, or of no phrase, is noted
        as dropped.
        """
        statuses = self.reading.statuses
        for phrase_id, status in parsed.statuses.items():
            if (phrase_id in self.phrases or not self.phrases) and status in STATUSES:
                statuses[phrase_id] = status
            else:
                self.note("dropped", f"status {status[:40]!r} of phrase {phrase_id}")
        for phrase_id, reason in parsed.reasons.items():
            if phrase_id in statuses:
                self.reading.reasons[phrase_id] = reason

    def format_of(self, raw: RawBox) -> BoxFormat:
        """Return the format that a box is read in, and note it once where its tokens decide that.

        Tokens of another family than the format asked for, as `<loc_100>`, are read as the format
        of that family, unless they mean the same in the one asked for: that is taken as it is then.
        Otherwise the reply may settle the order of the numbers: it states it, or they are known to
        be two corners.
        """
        box_format = self.format
        if raw.family is not None and raw.family != box_format.name:
            # few replies have tokens of a family
            from dataflow_grounding.replies._conventions import reads_tokens_as_asked

            family_format = known_formats()[raw.family]
            if reads_tokens_as_asked(box_format, family_format):
                self.note_once(
                    "native_tokens", f"read as {box_format.name}, as asked, and not as {raw.family}"
                )
                return box_format
            box_format = family_format
            self.note_once("native_tokens", f"read as {raw.family}, whose tokens these are")
        order = raw.order or box_format.order
        if raw.corners and order in ("xywh", "cxcywh"):
            order = "xyxy"
        return box_format if order == box_format.order else replace(box_format, order=order)

    def to_pixels(self, raw: RawBox) -> Bbox:
        """Return a box in pixels of the original, inside it.

        It is noted where the corners had to change places, or the box to be moved inside.

        Raises:
            _NoBox: Its numbers are no cells of the grid, or in another unit or scale; or the box
                has no area in the image.
            _NothingThere: Its numbers, of no family's tokens, are all 0 or all -1, which says that
                nothing is there.
        """
        box_format = self.format_of(raw)
        numbers = raw.numbers
        if box_format.scale == "grid_32":
            if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] < _CELLS:
                raise _NoBox(f"grid cells {_in_brackets(raw.numbers)}")
        elif raw.family is None and (set(numbers) == {0} or set(numbers) == {-1}):
            raise _NothingThere(f"{_in_brackets(raw.numbers)}, which says that nothing is there")
        else:
            numbers = self.numbers_in_scale(raw, box_format)
        as_written = box_format.to_pixels(numbers, original=self.original, sent=self.sent)
        upright = ordered(as_written)
        if upright != as_written:
            self.note(
                "swapped", f"{_in_brackets(raw.numbers)}: the corners were the wrong way round"
            )
        inside = clamp(upright, self.original)
        if area(inside) <= 0:
            raise _NoBox(f"{_in_brackets(raw.numbers)} has no area in the image")
        if _farthest(inside, upright) > _ROUNDING * max(self.original):
            self.note("clamped", f"{_in_brackets(raw.numbers)} reached outside the image")
        return inside

    def numbers_in_scale(self, raw: RawBox, box_format: BoxFormat) -> tuple[float, ...]:
        """Return the numbers of a box, checked to be in the scale of `box_format`.

        Where the scale ends at 999 or 1000, a second corner of 9999 or 99999 is the far edge; that
        is noted.

        Raises:
            _NoBox: They are in another unit or scale than that of `box_format`. In the second case
                the box is added to `out_of_scale`, by which `check_scale` judges whole answers.
        """
        if raw.unit is not None:
            # few replies state a unit
            from dataflow_grounding.replies._conventions import unit_fits_scale

            sizes = (self.original, self.sent)
            if not unit_fits_scale(raw.unit, box_format.scale, raw.numbers, sizes):
                raise _NoBox(
                    f"{_in_brackets(raw.numbers)} is said to be in {raw.unit},"
                    f" and the box format {self.format.name} was asked for"
                )
        numbers = raw.numbers
        if box_format.scale in _NINES and box_format.order in ("xyxy", "yxyx"):
            numbers = _with_far_edges(numbers)
        if numbers != raw.numbers:
            self.note("clamped", f"{_in_brackets(raw.numbers)}: a row of nines means the far edge")
        if _out_of_scale(to_xyxy(numbers, box_format.order), box_format.limits(self.sent)):
            self.out_of_scale.append(replace(raw, numbers=numbers))
            raise _NoBox(
                f"{_in_brackets(raw.numbers)} does not fit the box format {self.format.name}"
            )
        return numbers

    def keep(self, raw: RawBox, bbox: Bbox) -> None:
        """Add a box to `kept_boxes`; of a phrase's equal boxes in an answer, only the best scored.

        Without phrases, equal boxes are all added.

        Args:
            raw: The box as written.
            bbox: The box in pixels of the original.

        Raises:
            _NoBox: The box belongs to no phrase.
        """
        details = raw.details
        label = details.labels[0] if details.labels else None
        phrase_id = self.phrase_of(raw, label) if self.phrases else details.id
        score = score_of(details.score)
        if score is None and details.score is not None:
            shown_score = repr(str(details.score)[:40])
            self.note_once("score_ignored", f"{shown_score} is not a score from 0 to 1")
        box = FoundBox(bbox, phrase_id, label, score, raw.numbers, details.evidence)
        if not self.phrases:
            self.kept_boxes.append(KeptBox(box, raw.answer, self.questions.question_of(details)))
            return
        kept_box = KeptBox(box, raw.answer, phrase_id)
        new_index = len(self.kept_boxes)
        index = self.index_of_box.setdefault((raw.answer, phrase_id, bbox), new_index)
        if index == new_index:
            self.kept_boxes.append(kept_box)
            return
        self.note_once(
            "merged", f"{_in_brackets(raw.numbers)} is given more than once for phrase {phrase_id}"
        )
        if score is not None and score > (self.kept_boxes[index].box.score or -1):
            self.kept_boxes[index] = kept_box

    def phrase_of(self, raw: RawBox, label: str | None) -> int:
        """Return the id of the phrase that a box belongs to, and note what speaks against it.

        Args:
            raw: The box.
            label: Its first label, if it has one.

        Raises:
            _NoBox: It belongs to no phrase or to several, or says that the phrase is not there.
        """
        details = raw.details
        phrase_id = self.questions.id_of(raw)
        if phrase_id is None:
            raise _NoBox(_why_of_no_phrase(details))
        if self.questions.names_several(details):
            raise _NoBox(f"{(label or details.talk)[:60]!r} names several phrases")
        phrase = self.phrases[phrase_id]
        if label and label != phrase and not equal(label, phrase):
            self.check_label(details, phrase_id)
        if label and phrase_id != details.id:
            self.note_once("matched_by_label", f"{label[:60]!r} is phrase {phrase_id}")
        self.check_words(details, phrase_id)
        return phrase_id

    def check_words(self, details: Details, phrase_id: int) -> None:
        """Refuse a box that its own object takes back, or its name in another language may.

        A name in another language that stands in words around the box alone is noted.

        Raises:
            _NoBox: It is such a box.
        """
        name = details.labels[0] if details.labels else details.talk
        if name in self.questions.translations:  # taken for the only phrase in another language
            from dataflow_grounding.replies._absence import negates  # few replies have any

            if negates(name):
                raise _NoBox(f"{name[:60]!r} may say that it isn't there")
            if not details.labels:
                self.note(
                    "unlike_label", f"{name[:60]!r} can't be compared with phrase {phrase_id}"
                )
        if not details.remarks:
            return
        from dataflow_grounding.replies._talk import takes_back  # few have remarks

        for remark in details.remarks:
            if takes_back(remark, self.phrases[phrase_id]):
                raise _NoBox(f"a box that its object takes back: {remark[:60]!r}")

    def check_label(self, details: Details, phrase_id: int) -> None:
        """Note a first label that may be another thing than the phrase.

        For a box with the phrase's id it is enough that the two can mean one thing, or can't be
        compared; else the label or the words around the box must surely mean it.

        Raises:
            _NoBox: The label says that the phrase is not there.
        """
        from dataflow_grounding.replies._absence import denies_itself  # few differ

        label = details.labels[0]
        phrase = self.phrases[phrase_id]
        if denies_itself(label) and not denies_itself(phrase):
            raise _NoBox(f"label {label[:60]!r} says that it isn't there")
        if details.id is not None:
            may_be_phrase = alike(label, phrase) or not comparable(label, phrase)
        else:
            may_be_phrase = surely_alike(label, phrase) or surely_alike(details.talk, phrase)
        if not may_be_phrase:
            self.note(
                "unlike_label", f"{label[:60]!r} may be something other than phrase {phrase_id}"
            )


def _why_of_no_phrase(details: Details) -> str:
    """Return why a box belongs to no phrase, as a note says it."""
    if details.labels and details.labels[0]:
        return f"label {details.labels[0][:60]!r} is not one of the phrases"
    if details.talk:
        return f"{details.talk[:60]!r} is not one of the phrases"
    return "a box without an id or a label"


def _ending_in_size(parsed: ParsedReply, pictures: Sequence[Size]) -> list[RawBox]:
    """Return the boxes whose last two numbers are a size that the reply tells of a thing.

    The sizes of the pictures are left out, and those of a box by its corners.
    """
    sizes = parsed.told_sizes.difference(pictures)
    for raw in parsed.boxes:
        if raw.kind == "box" and len(raw.numbers) == 4:
            first, second, third, fourth = raw.numbers
            sizes.discard((third - first, fourth - second))
    return [raw for raw in parsed.boxes if tuple(raw.numbers[2:]) in sizes]


def _turn_pairs_into_boxes(parsed: ParsedReply) -> None:
    """Turn the points of a reply into boxes, in place, as two numbers are two cells of the grid.

    Points whose numbers were named x and y stay points; `order` tells them apart.
    """
    points: list[RawBox] = []
    for raw in parsed.points:
        if raw.order is None:
            parsed.boxes.append(replace(raw, kind="box"))
        else:
            points.append(raw)
    parsed.points = points


def _with_far_edges(numbers: tuple[float, ...]) -> tuple[float, ...]:
    """Return a box's numbers, with 999 for each of the second corner that is 9999 or more nines.

    DeepSeek-VL2 writes 9999 or 99999 for the far edge at 999 (deepseek-ai/DeepSeek-VL2 issue 123);
    elsewhere no number that far out is a slip.
    """
    repaired = list(numbers)
    for i in range(2, len(repaired)):
        if repaired[i] > 1000 and set(f"{repaired[i]:.0f}") == {"9"}:
            repaired[i] = 999.0
    return tuple(repaired)


def _farthest(box: Bbox, moved: Bbox) -> float:
    """Return the most pixels by which a side of a box differs from that of the box as moved."""
    return max(abs(before - after) for before, after in zip(box, moved, strict=True))


def _out_of_scale(corners: Sequence[float], limits: tuple[float, float]) -> bool:
    """Whether numbers lie outside their range by more than TOLERANCE, or are parts of 1.

    Numbers that are all from 0 to 1 are parts of 1 where both ranges end beyond 10: no box is so
    small there.

    Args:
        corners: x and y by turns.
        limits: The ends of the ranges of x and of y, which begin at 0.
    """
    are_parts_of_1 = True
    for i, value in enumerate(corners):
        if not -TOLERANCE <= value / limits[i % 2] <= 1 + TOLERANCE:
            return True
        are_parts_of_1 = are_parts_of_1 and 0 <= value <= 1
    # [0, 0, 1, 1] too, which is the whole picture in parts of 1
    return are_parts_of_1 and min(limits) > _LARGE_RANGE


def _in_brackets(numbers: Sequence[float]) -> str:
    """Return numbers as a note shows them: "[1, 2.5]"."""
    return "[" + ", ".join(f"{value:g}" for value in numbers) + "]"

"""Turning the boxes of a reply into boxes in pixels, each of one phrase.

A phrase has a box, or is absent, because the reply says that it isn't there. Otherwise it is unread
if its own answer can't be used, or unsure if something that can't be used may be its answer. A
phrase that has a box which may be of something else is in doubt.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import REMARK
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.replies.address import Address
from dataflow_grounding.replies.json_boxes import NoBox
from dataflow_grounding.replies.labels import fits_phrase, share_a_word
from dataflow_grounding.replies.pixels import NothingThere, Pixels
from dataflow_grounding.replies.reading import (
    Dropped,
    FoundBox,
    ParsedReply,
    RawBox,
    Reading,
    in_brackets,
    note,
    note_once,
)

# The share of a reply's boxes that may lie further outside. Where more do, the whole reply counts
# as written in another format.
OUT_OF_SCALE_SHARE = 1 / 10
NOT_ANSWERED = "the reply has no box of it, and doesn't say that it isn't there"
STATUSES = ("ambiguous", "unsupported")  # of phrases, as the embedded grounder gives them
# A model that runs away writes box after box in equal steps.
_RUNAWAY = 30  # boxes of one phrase, at least
_EQUAL_STEPS = 3 / 4  # the share of their steps that are equal, but for rounding
_ROUNDING_OF_STEP = 1 / 4  # as a share of the step
_ROUNDING_OF_SIDE = 1 / 900  # as a share of the picture's side


def to_reading(
    parsed: ParsedReply, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]
) -> Reading:
    """Turn a reply's boxes into pixels of the upright image, which has the size `original`."""
    return _BoxReader(parsed, box_format, original, sent, phrases).read()


class _BoxReader:
    """Makes one Reading of one reply: `read` is called once, and the other methods add to it."""

    def __init__(
        self,
        parsed: ParsedReply,
        box_format: BoxFormat,
        original: Size,
        sent: Size,
        phrases: dict[int, str],
    ) -> None:
        self.parsed = parsed
        self.format = box_format
        self.original = original
        self.sent = sent
        self.phrases = phrases
        self.reading = Reading([])
        self.address = Address(parsed, phrases, self.reading)
        self.pixels = Pixels(box_format, original, sent, self.reading)
        self.dropped = [*parsed.dropped]  # by the parser, and here
        self.absent: set[int] = set()  # ids of phrases that the reply says aren't there
        self.says_all_absent = False  # an absence without a label and an id, which is of all
        self.says_any_absent = False
        # The place in `reading.boxes` of each box kept, by its phrase's id and its pixels.
        self.index_of_box: dict[tuple[int | None, Bbox], int] = {}

    def read(self) -> Reading:
        self.reading.notes += self.parsed.notes
        if self.parsed.truncated:
            note(self.reading, "truncated", "the reply ends in the middle")
        # What makes all numbers or ids doubtful refuses the reply, before any box is taken.
        self.check_sizes()
        self.check_ids()
        self.take_statuses()
        for absence in self.parsed.absences:
            self.take_absence(absence)
        self.take_boxes()
        self.take_not_found()
        self.reading.remark = joined_remarks(self.parsed.remarks)
        if self.reading.remark:
            note(self.reading, REMARK, self.reading.remark)
        if len(self.reading.boxes) >= _RUNAWAY:
            self.find_runaway()
        for dropped in self.dropped:
            note(self.reading, "dropped", dropped.reason)
        self.judge_phrases_without_box()
        return self.reading

    def judge_phrases_without_box(self) -> None:
        """Note the phrases without a box that may be in the picture all the same."""
        reading = self.reading
        named = {box.id for box in reading.boxes} | self.absent | set(reading.statuses)
        reading.left_out += [number for number in self.phrases if number not in named]
        unnamed = [number for number in reading.left_out if number not in reading.not_found]
        if reading.not_found:
            # The model names what isn't there, so that it has not answered what it doesn't name.
            reading.unnamed += unnamed
            reading.unsure.update(dict.fromkeys(unnamed, NOT_ANSWERED))
            self.absent.update(reading.not_found)
        elif not self.says_all_absent:
            reading.unnamed += unnamed
        # A phrase without a box is absent, unless its answer may have been lost. Absences are
        # looked at, too: a phrase that is said to be absent may have a box.
        may_have_lost_answers = self.parsed.points or self.parsed.truncated or self.dropped
        if may_have_lost_answers or self.absent:
            self.find_unread()
        if not reading.boxes and not reading.statuses:
            self.check_absence_is_said()

    def take_not_found(self) -> None:
        """Doubt the boxes of phrases that are among those not found."""
        found_ids = {box.id for box in self.reading.boxes}
        for phrase_id in dict.fromkeys(self.parsed.not_found):
            if phrase_id not in self.phrases:
                note(self.reading, "dropped", f"id {phrase_id} in not_found is of no phrase")
            elif phrase_id in found_ids:
                self.reading.doubts[phrase_id] = "the reply says that it isn't there, too"
            else:
                self.reading.not_found.append(phrase_id)

    def check_sizes(self) -> None:
        """Refuse a reply that states a size of the picture, unless it may and the size is right."""
        # Where pixels weren't asked for, numbers next to a size are likely in pixels all the same,
        # unless the answer is addressed: then it is as asked.
        may_state_size = self.format.scale == "px" or self.parsed.addressed
        for axis, side in self.parsed.sizes:
            is_right = side in (self.original[axis], self.sent[axis])
            if not may_state_size or not is_right:
                raise UnreadableReply(
                    f"the reply tells of a picture with a side of {side:g} px", "another picture"
                )

    def check_ids(self) -> None:
        """Refuse a reply with an id that no phrase has: its ids may number the boxes instead."""
        if not self.phrases:
            return
        for raw in (*self.parsed.boxes, *self.parsed.absences):
            if raw.id is None or raw.id in self.phrases:
                continue  # if its label is another phrase's, `keep` drops this box alone
            # A label without a word of any phrase is of something that nobody asked for. Its id
            # tells nothing of the others, and that box alone is dropped.
            label = raw.label
            texts = self.phrases.values()
            if label is None or any(share_a_word(label, text) for text in texts):
                why = self.address.owner_of(raw).why_none  # "id 9 is of no phrase"
                raise UnreadableReply(f"the ids are not those of the phrases: {why}", "ids")

    def take_boxes(self) -> None:
        """Add the boxes to the reading; what can't be used comes to `dropped`."""
        boxes = self.parsed.boxes
        if self.format.scale == "grid_32":
            boxes = boxes + self.parsed.points  # two numbers are two cells
        elif self.parsed.points and not boxes:
            raise UnreadableReply("the reply has points where boxes were asked for", "points")
        elif self.parsed.points:
            note(self.reading, "dropped", f"{len(self.parsed.points)} points, which are not boxes")
        for raw in boxes:
            try:
                self.keep(raw, self.pixels.to_pixels(raw))
            except NothingThere as nothing:
                self.take_box_of_nothing(raw, str(nothing))
            except NoBox as error:
                self.dropped.append(Dropped(str(error), raw.label, raw.id))
        if len(self.pixels.out_of_scale) > OUT_OF_SCALE_SHARE * len(boxes):
            raise self.pixels.other_scale()

    def take_box_of_nothing(self, raw: RawBox, why: str) -> None:
        """Take [0, 0, 0, 0] as an absence of its phrase."""
        is_of_no_phrase = raw.label is None and raw.id is None
        if is_of_no_phrase and len(self.phrases) > 1:
            # As an absence it would say that none of the phrases is there.
            self.dropped.append(Dropped(why))
            return
        note(self.reading, "dropped", why)
        self.take_absence(raw)

    def take_absence(self, absence: RawBox) -> None:
        self.says_any_absent = True
        if absence.label is None and absence.id is None:
            self.says_all_absent = True  # "objects": []
            return
        phrase_id = self.address.owner_of(absence).phrase_id
        if phrase_id is not None:
            self.absent.add(phrase_id)
        elif self.phrases:  # without phrases, nobody asked for what is absent
            self.dropped.append(Dropped(f"{absence.label!r:.60} is not there", absence.label))

    def find_unread(self) -> None:
        """Note the phrases that are unread, and those that are unsure."""
        reading = self.reading
        found_ids = {box.id for box in reading.boxes if box.id is not None}
        unread = self.absent & found_ids  # the reply contradicts itself
        whys_without_owner: list[str] = []  # of what may be the box of any phrase
        unused: list[RawBox | Dropped] = [*self.dropped, *self.parsed.points]
        for item in unused:
            phrase_id, why_none = self.address.owner_of(item)
            if phrase_id is not None:
                if phrase_id not in found_ids:  # else its box is another one
                    unread.add(phrase_id)
            elif item.id in self.phrases:  # its label contradicts its id
                self.note_unsure(item, why_none, found_ids)
            else:
                whys_without_owner.append(why_none)
        reading.unread = sorted(unread)
        answered = found_ids | unread | self.absent | set(reading.statuses)
        if self.parsed.truncated:
            self.note_others_unsure("what the reply is cut off before", answered)
        elif whys_without_owner:  # "a box without an id or a label"
            self.note_others_unsure(f"{whys_without_owner[0]}: it", answered)

    def note_others_unsure(self, what: str, answered: set[int]) -> None:
        """Note as unsure all phrases without an answer: something may be the answer of any."""
        for phrase_id in self.phrases:
            if phrase_id not in answered:
                self.reading.unsure[phrase_id] = f"{what} may be its own"

    def note_unsure(self, item: RawBox | Dropped, why: str, found_ids: set[int]) -> None:
        """Note as unsure the phrases of an item's id and of its label, which differ."""
        for phrase_id, phrase in self.phrases.items():
            fits_id = phrase_id == item.id
            fits_label = fits_phrase(item.label, phrase) if item.label else False
            if (fits_id or fits_label) and phrase_id not in found_ids:
                self.reading.unsure[phrase_id] = why

    def find_runaway(self) -> None:
        """Note many boxes of one phrase in equal steps: the model counted on instead of looking."""
        boxes_of_phrase: dict[int | str | None, list[Bbox]] = {}  # by id, else by label
        for box in self.reading.boxes:
            key = box.label if box.id is None else box.id
            boxes_of_phrase.setdefault(key, []).append(box.bbox)
        for boxes in boxes_of_phrase.values():
            if len(boxes) < _RUNAWAY:
                continue
            for axis in (0, 1):
                edges = [box[axis] for box in boxes]  # left ones, then upper ones
                if _are_equal_steps(edges, self.original[axis]):
                    note_once(self.reading, "runaway", f"{len(boxes)} boxes in equal steps")

    def check_absence_is_said(self) -> None:
        """Refuse a reply without boxes, unless it says of every phrase that it isn't there."""
        if self.dropped:
            raise UnreadableReply(
                f"no box of the reply can be used: {self.dropped[0].reason}", "no usable box"
            )
        missing = sorted(set(self.phrases) - self.absent - set(self.reading.unsure))
        if missing and not self.says_all_absent:
            raise UnreadableReply(f"the reply says nothing of phrase {missing[0]}", "no answer")
        if not self.says_any_absent and not self.absent:
            raise UnreadableReply("the reply says nothing of any box", "no answer")

    def take_statuses(self) -> None:
        """Keep the known statuses of the phrases; without phrases, those of all ids."""
        statuses = self.reading.statuses
        for phrase_id, status in self.parsed.statuses.items():
            is_id_taken = phrase_id in self.phrases or not self.phrases
            if is_id_taken and status in STATUSES:
                statuses[phrase_id] = status
            else:
                note(self.reading, "dropped", f"status {status[:40]!r} of phrase {phrase_id}")
        for phrase_id, reason in self.parsed.reasons.items():
            if phrase_id in statuses:
                self.reading.reasons[phrase_id] = reason

    def keep(self, raw: RawBox, bbox: Bbox) -> None:
        """Add a box to the reading; of a phrase's equal boxes, only the best scored."""
        boxes = self.reading.boxes
        phrase_id = self.address.phrase_of(raw) if self.phrases else raw.id
        score = None if raw.score is None else self.score_of(raw.score)
        if raw.id is not None and raw.label:
            self.address.doubt_unlike_label(raw.label, raw.id)
        box = FoundBox(bbox, phrase_id, raw.label, score, raw.numbers, raw.evidence)
        # Without phrases all boxes are kept, because equal ones may be of different things.
        index_of_equal = self.index_of_box.get((phrase_id, bbox)) if self.phrases else None
        if index_of_equal is None:
            self.index_of_box[phrase_id, bbox] = len(boxes)
            boxes.append(box)
            return
        note_once(
            self.reading,
            "merged",
            f"{in_brackets(raw.numbers)} is given more than once for phrase {phrase_id}",
        )
        earlier_score = boxes[index_of_equal].score
        if score is not None and (earlier_score is None or score > earlier_score):
            boxes[index_of_equal] = box

    def score_of(self, value: object) -> float | None:
        """Return a score: 0.9 of 0.9, "0.9" or "90%". None, with a note, for any other value."""
        score = value
        if isinstance(value, str):
            text = value.strip()
            whole = 100 if text.endswith("%") else 1
            with suppress(ValueError):
                score = float(text.rstrip("%")) / whole
        if isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1:
            return score
        shown = repr(str(value)[:40])
        note_once(self.reading, "score_ignored", f"{shown} is not a score from 0 to 1")
        return None


def _are_equal_steps(edges: Sequence[float], side: float) -> bool:
    """Whether most steps, as in 10, 30, 50, 70, are about as long as the median one."""
    steps = [following - edge for edge, following in pairwise(edges)]
    median = sorted(steps)[len(steps) // 2]
    if median == 0:
        return False  # things in a column have the same left edge
    rounding = min(_ROUNDING_OF_STEP * abs(median), _ROUNDING_OF_SIDE * side)
    count_of_equal = sum(abs(step - median) <= rounding for step in steps)
    return count_of_equal >= _EQUAL_STEPS * len(steps)

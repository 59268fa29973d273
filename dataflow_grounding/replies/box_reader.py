"""Turning the boxes of a reply into boxes in pixels, each of one phrase.

A phrase has a box, or is absent, because the reply says that it isn't there. Otherwise it is unread
if its own answer can't be used, or unsure if something that can't be used may be its answer. A
phrase that has a box which may be of something else is in doubt.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from dataflow_grounding._util.errors import OTHER_SCALE, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat, to_xyxy
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size, area, clamp, ordered
from dataflow_grounding.data.records import REMARK
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.replies.json_boxes import NoBox
from dataflow_grounding.replies.reading import (
    Dropped,
    FoundBox,
    Note,
    ParsedReply,
    RawBox,
    Reading,
    in_brackets,
)
from dataflow_grounding.replies.words import fits_phrase, ids_of, share_a_word, shares_all_words

# How far outside its range a number may lie, as a share of the range, for its box to be moved
# inside rather than dropped. Published replies reach a tenth beyond (roboflow/inference's tests).
TOLERANCE = 1 / 8
# The share of a reply's boxes that may lie further outside. Where more do, the whole reply counts
# as written in another format.
OUT_OF_SCALE_SHARE = 1 / 10
_ROUNDING = 1e-6  # of the image's longer side: a side moved by no more wasn't outside
NOT_ANSWERED = "the reply has no box of it, and doesn't say that it isn't there"
STATUSES = ("ambiguous", "unsupported")  # of phrases, as the embedded grounder gives them
_LARGE_RANGE = 10  # a range that ends beyond is not one of parts of 1
_TINY_SHARE = 1 / 100  # the first hundredth of an axis, in which no box lies whole
_SHARED_TOKENS = frozenset(["florence-2", "doctags"])  # families that write <loc_12>
_CELLS = 32 * 32  # of the grid of the scale "grid_32"
# A model that runs away writes box after box in equal steps.
_RUNAWAY = 30  # boxes of one phrase, at least
_EQUAL_STEPS = 3 / 4  # the share of their steps that are equal, but for rounding
_ROUNDING_OF_STEP = 1 / 4  # as a share of the step
_ROUNDING_OF_SIDE = 1 / 900  # as a share of the picture's side
_THOUSANDTHS = (999, 1000)  # scales, at whose end models write a row of nines


def to_reading(
    parsed: ParsedReply, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]
) -> Reading:
    """Turn a reply's boxes into pixels of the upright image, which has the size `original`."""
    return _BoxReader(parsed, box_format, original, sent, phrases).read()


class _NothingThere(Exception):
    """A box that says that nothing is there."""


class _Owner(NamedTuple):
    """The phrase that a box is of; without one, why that can't be told."""

    phrase_id: int | None
    why_none: str = ""


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
        self.cached_owners: dict[tuple[int | None, str | None], _Owner] = {}  # by id and label
        self.reading = Reading([])
        self.dropped = [*parsed.dropped]  # by the parser, and here
        self.absent: set[int] = set()  # ids of phrases that the reply says aren't there
        self.says_all_absent = False  # an absence without a label and an id, which is of all
        self.says_any_absent = False
        # The place in `reading.boxes` of each box kept, by its phrase's id and its pixels.
        self.index_of_box: dict[tuple[int | None, Bbox], int] = {}
        self.out_of_scale: list[tuple[float, ...]] = []  # numbers of boxes dropped for their scale

    def read(self) -> Reading:
        self.reading.notes += self.parsed.notes
        if self.parsed.truncated:
            self.note("truncated", "the reply ends in the middle")
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
            self.note(REMARK, self.reading.remark)
        if len(self.reading.boxes) >= _RUNAWAY:
            self.find_runaway()
        for dropped in self.dropped:
            self.note("dropped", dropped.reason)
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
                self.note("dropped", f"id {phrase_id} in not_found is of no phrase")
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
                why = self.owner_of(raw).why_none  # "id 9 is of no phrase"
                raise UnreadableReply(f"the ids are not those of the phrases: {why}", "ids")

    def take_boxes(self) -> None:
        """Add the boxes to the reading; what can't be used comes to `dropped`."""
        boxes = self.parsed.boxes
        if self.format.scale == "grid_32":
            boxes = boxes + self.parsed.points  # two numbers are two cells
        elif self.parsed.points and not boxes:
            raise UnreadableReply("the reply has points where boxes were asked for", "points")
        elif self.parsed.points:
            self.note("dropped", f"{len(self.parsed.points)} points, which are not boxes")
        for raw in boxes:
            try:
                self.keep(raw, self.to_pixels(raw))
            except _NothingThere as nothing:
                self.take_box_of_nothing(raw, str(nothing))
            except NoBox as error:
                self.dropped.append(Dropped(str(error), raw.label, raw.id))
        if len(self.out_of_scale) > OUT_OF_SCALE_SHARE * len(boxes):
            raise self.other_scale()

    def take_box_of_nothing(self, raw: RawBox, why: str) -> None:
        """Take [0, 0, 0, 0] as an absence of its phrase."""
        is_of_no_phrase = raw.label is None and raw.id is None
        if is_of_no_phrase and len(self.phrases) > 1:
            # As an absence it would say that none of the phrases is there.
            self.dropped.append(Dropped(why))
            return
        self.note("dropped", why)
        self.take_absence(raw)

    def other_scale(self) -> UnreadableReply:
        numbers = [number for box in self.out_of_scale for number in box]
        x, y = self.format.limits(self.sent)
        scale = f"0 to {x:g}" if x == y else f"0 to {x:g} for x and 0 to {y:g} for y"
        return UnreadableReply(
            f"the coordinates go from {min(numbers):g} to {max(numbers):g},"
            f" where {scale} was asked for",
            OTHER_SCALE,
        )

    def take_absence(self, absence: RawBox) -> None:
        self.says_any_absent = True
        if absence.label is None and absence.id is None:
            self.says_all_absent = True  # "objects": []
            return
        phrase_id = self.owner_of(absence).phrase_id
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
            phrase_id, why_none = self.owner_of(item)
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
                    self.note_once("runaway", f"{len(boxes)} boxes in equal steps")

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

    def note(self, code: str, text: str) -> None:
        self.reading.notes.append(Note(code, text))

    def note_once(self, code: str, text: str) -> None:
        if (code, text) not in self.reading.notes:
            self.note(code, text)

    def take_statuses(self) -> None:
        """Keep the known statuses of the phrases; without phrases, those of all ids."""
        statuses = self.reading.statuses
        for phrase_id, status in self.parsed.statuses.items():
            is_id_taken = phrase_id in self.phrases or not self.phrases
            if is_id_taken and status in STATUSES:
                statuses[phrase_id] = status
            else:
                self.note("dropped", f"status {status[:40]!r} of phrase {phrase_id}")
        for phrase_id, reason in self.parsed.reasons.items():
            if phrase_id in statuses:
                self.reading.reasons[phrase_id] = reason

    def format_of(self, raw: RawBox) -> BoxFormat:
        """Return the format that was asked for, unless a box's tokens or names tell of another."""
        asked = self.format
        if raw.family is None and raw.order is None and not raw.corners:
            return asked
        if raw.family is not None and raw.family != asked.name:
            of_family = known_formats()[raw.family]
            if _reads_tokens_as_asked(asked, of_family):
                return asked
            self.note_once("native_tokens", f"read as {raw.family}, whose tokens these are")
            return of_family
        order = raw.order or asked.order
        if raw.corners and order in ("xywh", "cxcywh"):
            order = "xyxy"  # [[10, 20], [30, 40]] has two corners, where a size was asked for
        return asked if order == asked.order else replace(asked, order=order)

    def to_pixels(self, raw: RawBox) -> Bbox:
        """Return the box in pixels of the original, inside it."""
        box_format = self.format_of(raw)
        numbers = self.usable_numbers(raw, box_format)
        as_written = box_format.to_pixels(numbers, original=self.original, sent=self.sent)
        upright = ordered(as_written)
        if upright != as_written:
            self.note(
                "swapped", f"{in_brackets(raw.numbers)}: the corners were the wrong way round"
            )
        inside = clamp(upright, self.original)
        if area(inside) <= 0:
            raise NoBox(f"{in_brackets(raw.numbers)} has no area in the image")
        if inside != upright:
            moves = [abs(before - after) for before, after in zip(upright, inside, strict=True)]
            if max(moves) > _ROUNDING * max(self.original):
                self.note("clamped", f"{in_brackets(raw.numbers)} reached outside the image")
        return inside

    def usable_numbers(self, raw: RawBox, box_format: BoxFormat) -> tuple[float, ...]:
        """Return a box's numbers, with rows of nines mended."""
        numbers = raw.numbers
        if box_format.scale == "grid_32":
            if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] < _CELLS:
                raise NoBox(f"grid cells {in_brackets(numbers)}")
            return numbers
        # [0, 0, 0, 0] in a family's tokens is a box without an area.
        if set(numbers) in ({0}, {-1}) and raw.family is None:
            raise _NothingThere(f"{in_brackets(numbers)}, which says that nothing is there")
        if box_format.scale in _THOUSANDTHS and box_format.order in ("xyxy", "yxyx"):
            numbers = _with_far_edges(numbers)
            if numbers != raw.numbers:
                shown = in_brackets(raw.numbers)
                self.note("clamped", f"{shown}: a row of nines means the far edge")
        if _out_of_scale(to_xyxy(numbers, box_format.order), box_format.limits(self.sent)):
            self.out_of_scale.append(numbers)
            shown = in_brackets(raw.numbers)
            raise NoBox(f"{shown} does not fit the box format {self.format.name}")
        return numbers

    def keep(self, raw: RawBox, bbox: Bbox) -> None:
        """Add a box to the reading; of a phrase's equal boxes, only the best scored."""
        boxes = self.reading.boxes
        phrase_id = self.phrase_of(raw) if self.phrases else raw.id
        score = None if raw.score is None else self.score_of(raw.score)
        if raw.id is not None and raw.label:
            self.doubt_unlike_label(raw.label, raw.id)
        box = FoundBox(bbox, phrase_id, raw.label, score, raw.numbers, raw.evidence)
        # Without phrases all boxes are kept, because equal ones may be of different things.
        index_of_equal = self.index_of_box.get((phrase_id, bbox)) if self.phrases else None
        if index_of_equal is None:
            self.index_of_box[phrase_id, bbox] = len(boxes)
            boxes.append(box)
            return
        self.note_once(
            "merged", f"{in_brackets(raw.numbers)} is given more than once for phrase {phrase_id}"
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
        self.note_once("score_ignored", f"{shown} is not a score from 0 to 1")
        return None

    def doubt_unlike_label(self, label: str, phrase_id: int) -> None:
        """Doubt the box of a phrase if its label names another thing: "mug" for "a cup"."""
        phrase = self.phrases.get(phrase_id)
        if phrase is None or label == phrase or fits_phrase(label, phrase):
            return
        self.note_once("unlike_label", f"{label[:60]!r} for phrase {phrase_id}")
        self.reading.doubts[phrase_id] = f"the model calls it {label[:60]!r}"

    def phrase_of(self, raw: RawBox) -> int:
        if raw.id is not None and raw.label and raw.label == self.phrases.get(raw.id):
            return raw.id  # as in most replies, which then need no search
        phrase_id, why = self.owner_of(raw)
        if phrase_id is None:
            phrase_id = self.phrase_like_label(raw)
        if phrase_id is None:
            raise NoBox(why)
        return phrase_id

    @cached_property
    def has_names(self) -> bool:
        return any(box.label or box.id is not None for box in self.parsed.boxes)

    @cached_property
    def label_counts(self) -> Counter[str | None]:
        return Counter(box.label for box in self.parsed.boxes)

    @cached_property
    def named_ids(self) -> set[int]:
        """Of phrases that a box names by its id or by an equal label."""
        named = set()
        for box in self.parsed.boxes:
            if box.id is not None:
                named.add(box.id)
            elif box.label:
                named.update(ids_of(box.label, self.phrases))
        return named

    def phrase_like_label(self, raw: RawBox) -> int | None:
        """Return the phrase that a box without an id is likely of, and doubt it."""
        label = raw.label
        if raw.id is not None or not label or ids_of(label, self.phrases):
            return None
        if self.label_counts[label] > 1:
            return None  # of two boxes of a "man", nobody knows which is "the man in blue"
        # Heads are known of English. With a bracket it is a label without its quotation mark.
        if not label.isascii() or any(bracket in label for bracket in "[]{}"):
            return None
        candidates = [
            own_id for own_id, phrase in self.phrases.items() if shares_all_words(label, phrase)
        ]
        if len(candidates) != 1:
            return None
        phrase_id = candidates[0]
        has_own_box = phrase_id in self.named_ids  # an "old cat" next to "cat" is another cat
        if has_own_box or not fits_phrase(label, self.phrases[phrase_id]):
            return None
        self.note_once("unlike_label", f"{label[:60]!r} for phrase {phrase_id}")
        self.reading.doubts[phrase_id] = f"the model calls it {label[:60]!r}, without its id"
        return phrase_id

    def owner_of(self, item: RawBox | Dropped) -> _Owner:
        key = (item.id, item.label)
        if key not in self.cached_owners:
            self.cached_owners[key] = self.find_owner(item.id, item.label)
        return self.cached_owners[key]

    def find_owner(self, own_id: int | None, label: str | None) -> _Owner:
        """Find a box's phrase by its id, else by its label."""
        if own_id is not None:
            return self.find_owner_by_id(own_id, label)
        if label is not None:
            return self.find_owner_by_label(label)
        if len(self.phrases) == 1 and not self.has_names:
            return _Owner(next(iter(self.phrases)))
        return _Owner(None, "a box without an id or a label")

    def find_owner_by_id(self, own_id: int, label: str | None) -> _Owner:
        phrase = self.phrases.get(own_id)
        if phrase is None:
            return _Owner(None, f"id {own_id} is of no phrase")
        if label is None:
            return _Owner(own_id)
        ids_by_label = ids_of(label, self.phrases)
        if own_id in ids_by_label:
            return _Owner(own_id)
        if ids_by_label:  # a label in other words ("mug" for "a cup") makes the box doubtful
            return _Owner(None, f"label {label[:60]!r} is not that of phrase {own_id}")
        return _Owner(own_id)

    def find_owner_by_label(self, label: str) -> _Owner:
        ids_by_label = ids_of(label, self.phrases)
        if len(ids_by_label) > 1:
            return _Owner(None, f"label {label[:60]!r} means several phrases")
        if not ids_by_label:
            return _Owner(None, f"label {label[:60]!r} is not one of the phrases")
        phrase_id = ids_by_label[0]
        if label != self.phrases[phrase_id]:
            self.note_once("matched_by_label", f"{label[:60]!r} is phrase {phrase_id}")
        return _Owner(phrase_id)


def _are_equal_steps(edges: Sequence[float], side: float) -> bool:
    """Whether most steps, as in 10, 30, 50, 70, are about as long as the median one."""
    steps = [following - edge for edge, following in pairwise(edges)]
    median = sorted(steps)[len(steps) // 2]
    if median == 0:
        return False  # things in a column have the same left edge
    rounding = min(_ROUNDING_OF_STEP * abs(median), _ROUNDING_OF_SIDE * side)
    count_of_equal = sum(abs(step - median) <= rounding for step in steps)
    return count_of_equal >= _EQUAL_STEPS * len(steps)


def _reads_tokens_as_asked(asked: BoxFormat, of_family: BoxFormat) -> bool:
    """Whether `<loc_12>` is in the format that was asked for, not in the family's own."""
    # Several families write `<loc_12>`, each in its own scale, so the format that was asked for
    # tells more. `<loc0012>` is always one of 1,024 bins.
    is_shared_token = of_family.name in _SHARED_TOKENS
    asks_for_format_of_family = asked.name in known_formats()
    if asks_for_format_of_family:
        # `<loc_12>` with "doctags" -> as asked; with "qwen3-vl" -> in the family's own
        return is_shared_token and asked.name in _SHARED_TOKENS
    if not isinstance(asked.scale, int):
        return False  # pixels, or cells of a grid, which no location token counts
    if asked.scale == of_family.scale:
        # In the same order, the family's own format is more exact, because it may have bins. In
        # another order, the one that was asked for tells more.
        return asked.order != of_family.order
    return is_shared_token


def _with_far_edges(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if max(numbers[2:]) <= 1000:
        return numbers
    # DeepSeek-VL2 writes 9999 or 99999 for the far edge at 999 (deepseek-ai/DeepSeek-VL2 issue
    # 123). No other family is known to write numbers that far out.
    repaired = list(numbers)
    for i in range(2, len(repaired)):
        if repaired[i] > 1000 and set(f"{repaired[i]:.0f}") == {"9"}:
            repaired[i] = 999.0
    return tuple(repaired)


def _out_of_scale(corners: Sequence[float], limits: tuple[float, float]) -> bool:
    """Whether corners can't be in ranges from 0 to `limits`."""
    x1, y1, x2, y2 = corners
    width, height = limits
    # The short way, for nearly every box: it lies inside, and is too large for rules 2 and 3.
    are_large = x2 > max(1, _TINY_SHARE * width) and y2 > max(1, _TINY_SHARE * height)
    if are_large and 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height:
        return False
    for limit, first, second in ((width, x1, x2), (height, y1, y2)):
        least, most = min(first, second), max(first, second)
        # 1. Too far outside: 1200 of 1000, or NaN, which no comparison holds for.
        is_within = -TOLERANCE * limit <= least and most <= (1 + TOLERANCE) * limit
        if not is_within:
            return True
        # 2. Decimals in the first hundredth: no box is so small. Some models write 1.100 for 1100.
        has_decimals = least % 1 or most % 1
        if least >= 0 and most <= _TINY_SHARE * limit and has_decimals:
            return True
    # 3. All from 0 to 1 in a long range: they are parts of 1, as in [0.1, 0.2, 0.5, 0.9], and in
    # [0, 0, 1, 1] for the whole picture.
    return min(corners) >= 0 and max(corners) <= 1 and min(limits) > _LARGE_RANGE

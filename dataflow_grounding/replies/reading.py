"""What a reply says, as it writes it and as it is read.

`ParsedReply` holds it before its numbers are given a meaning, `Reading` in pixels.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import Order
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.replies.json_values import hull, number

if TYPE_CHECKING:
    from dataflow_grounding.replies._absence import Missing

_ENTITY = lazy_pattern(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")  # "&amp;"
# The share of a reply's boxes that may be dropped or moved before the reading counts as doubtful.
DOUBTFUL_SHARE = 1 / 3
# Codes of notes on a single box that make it doubtful.
_DOUBTED = frozenset(["dropped", "clamped", "swapped", "superseded", "unlike_label"])
_MOST_SHOWN = 8  # values in a note
_LONGEST_SHOWN = 80  # characters of values in a note


class Note(NamedTuple):
    """A remark on reading a reply.

    Attributes:
        code: What a run counts it under, such as "dropped".
        text: What was done.

    Example:
        >>> str(Note("dropped", "an expression without text"))
        'dropped: an expression without text'
    """

    code: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.text else self.code


@dataclass(frozen=True)
class Details:
    """What a reply says about a box, or about what is not there, besides numbers.

    Attributes:
        labels: Its labels, the preferred one first.
        id: Its id.
        score: Its score as the reply writes it.
        evidence: seen, inferred or region.
        talk: What the words around it name.
        remarks: Words in the box's own object that name nothing, but may take the box back.
        id_of_phrase: Whether its key says that the id is a phrase's: that counts for the numbered
            boxes within, too.
        heading: The line above it, if that may be a name.
    """

    labels: tuple[str, ...] = ()
    id: int | None = None
    score: Any = None
    evidence: str | None = None
    talk: str = ""
    remarks: tuple[str, ...] = ()
    id_of_phrase: bool = False
    heading: str = ""

    def completed_by(self, outer: Details) -> Details:
        """Return these details, each one that is missing taken from `outer`."""
        takes_outer_id = self.id is None or (outer.id_of_phrase and not self.id_of_phrase)
        return Details(
            self.labels or outer.labels,
            outer.id if takes_outer_id else self.id,
            outer.score if self.score is None else self.score,
            self.evidence or outer.evidence,
            self.talk or outer.talk,
            self.remarks or outer.remarks,
            outer.id_of_phrase if takes_outer_id else self.id_of_phrase,
            self.heading or outer.heading,
        )


NO_DETAILS = Details()


def details_of_label(label: str | None, talk: str = "", heading: str = "") -> Details:
    """Return details with a label, unless it is None or "", and with `talk` and `heading`."""
    return Details((label,) if label else (), talk=talk, heading=heading)


@dataclass(frozen=True)
class RawBox:
    """A box of four numbers (two for a pair of grid cells), or a point of two.

    Attributes:
        kind: Which of the two it is.
        numbers: Its coordinates as written.
        details: What the reply says of it besides.
        order: The order of its numbers, where the reply settles it; None for the format's own.
        family: The model family whose special tokens it stands in, where only one writes them.
        corners: Whether the numbers are two corners even in a format of a corner and a size.
        answer: The number of its answer in the reply, from 0.
        unit: The unit that the reply states, such as "px" or "%".
        order_beside: Whether the order is stated beside the numbers, in words or a field, rather
            than by what the coordinates are called.
    """

    kind: Literal["box", "point"]
    numbers: tuple[float, ...]
    details: Details = NO_DETAILS
    order: Order | None = None
    family: str | None = None
    corners: bool = False
    answer: int = 0
    unit: str | None = None
    order_beside: bool = False


class Talk(NamedTuple):
    """Words beside the boxes of an answer.

    Attributes:
        text: The words.
        answer: The number of the answer.
        behind: Whether they follow its first box.
    """

    text: str
    answer: int
    behind: bool


class Dropped(NamedTuple):
    """Something that looked like a box and is none.

    Attributes:
        reason: Why it is none.
        details: What the reply says of it.
        answer: The number of its answer.
    """

    reason: str
    details: Details
    answer: int


@dataclass
class ParsedReply:
    """All that a reply says, in its order. Readers add to it what they read.

    Attributes:
        boxes: Its boxes.
        points: Its points.
        dropped: What looked like a box or a point and is none.
        absences: What the reply says is not there, each with its answer's number.
        notes: What was done to read it.
        missing: What a sentence instead of an answer says is not there.
        unclear: Whether other things stand around the absences.
        truncated: Whether the reply ends in the middle.
        answer: The number of the answer that is being read, from 0; at the end, that of the last.
        corrections: The numbers of answers that take back what was said before.
        statuses: Phrase id → status, as the embedded grounder writes it.
        reasons: Phrase id → its reason for that.
        talk: The words beside the boxes.
        pictures: What boxes say of the picture that they are in.
        elsewhere: Why the boxes may not be those of the picture that was sent.
        ends_in_size: Whether the reply says that its boxes end in a width and a height.
        told_sizes: Widths and heights of things as the reply tells them.
    """

    boxes: list[RawBox] = field(default_factory=list)
    points: list[RawBox] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    absences: list[tuple[Details, int]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    missing: Missing | None = None
    unclear: bool = False
    truncated: bool = False
    answer: int = 0
    corrections: set[int] = field(default_factory=set)
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    talk: list[Talk] = field(default_factory=list)
    pictures: set[str] = field(default_factory=set)
    elsewhere: str | None = None
    ends_in_size: bool = False
    told_sizes: set[tuple[float, float]] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether it says anything of boxes."""
        return bool(self.size or self.statuses)

    def add_numbers(
        self, values: Sequence[Any], details: Details, *, corners: bool = False, quad: bool = False
    ) -> None:
        """Add numbers as a box if there are four, as a point if there are two; else drop them.

        Five are a box with a score, if the fifth is between 0 and 1 and another is above 1. Where a
        value is no number, all are dropped.

        Args:
            values: The numbers as written, perhaps as texts.
            details: What the reply says of them.
            corners: Whether they are corners, so that two are no point.
            quad: Whether eight are four corners.
        """
        numbers: list[float] = []
        for value in values:
            coordinate = number(value)
            if coordinate is not None:
                numbers.append(coordinate)
        if len(numbers) != len(values) or not numbers:
            self.drop(
                f"a box with a coordinate that is not a number: {_in_brackets(values)}", details
            )
        elif len(numbers) == 4:
            self.add_raw_box(RawBox("box", tuple(numbers), details))
        elif len(numbers) == 2 and not corners:
            self.add_raw_box(RawBox("point", tuple(numbers), details))
        elif len(numbers) == 5 and 0 < numbers[4] < 1 < max(numbers[:4]):
            # a detector's row: the fifth number is the score
            self.add_raw_box(
                RawBox(
                    "box", tuple(numbers[:4]), replace(details, score=details.score or numbers[4])
                )
            )
        elif len(numbers) == 8 and quad:
            self.add_raw_box(RawBox("box", hull(numbers), details, corners=True))
        else:
            self.drop(f"a box of {len(numbers)} numbers: {_in_brackets(values)}", details)

    def add_raw_box(self, raw: RawBox) -> None:
        """Add a box or a point, to the answer that is being read."""
        if self.answer:
            raw = replace(raw, answer=self.answer)
        if raw.kind == "box":
            self.boxes.append(raw)
        else:
            self.points.append(raw)

    def drop(self, reason: str, details: Details = NO_DETAILS) -> None:
        """Add to `dropped` something that looked like a box, with the reason why it is none."""
        self.dropped.append(Dropped(reason, details, self.answer))

    def add_talk(self, text: str, *, behind: bool) -> None:
        """Add words beside the boxes of the answer that is being read, unless they are blank.

        Args:
            text: The words.
            behind: Whether they follow the answer's first box.
        """
        if text.strip():
            self.talk.append(Talk(text, self.answer, behind))

    def add_absence(self, details: Details = NO_DETAILS) -> None:
        """Add that a thing is not there; without details, that nothing at all is."""
        self.absences.append((details, self.answer))

    def add_part(self, within: ParsedReply, details: Details) -> None:
        """Add the boxes, points, dropped ones and absences that were read from a part of the reply.

        Args:
            within: What was read from the part.
            details: What the reply says of the part; it completes what each of these says itself.
        """
        for raw in (*within.boxes, *within.points):
            self.add_raw_box(replace(raw, details=raw.details.completed_by(details)))
        for dropped in within.dropped:
            self.drop(dropped.reason, dropped.details.completed_by(details))
        for absence, _ in within.absences:
            self.add_absence(absence.completed_by(details))
        self.truncated = self.truncated or within.truncated

    def add_later_answer(self, later: ParsedReply, *, last: bool) -> None:
        """Add what a later answer says, and go on with its number.

        That the reply is cut off, and what it says is missing, are taken from the last answer
        alone.

        Args:
            later: The later answer, read with its own number.
            last: Whether it is the reply's last answer.
        """
        self.boxes += later.boxes
        self.points += later.points
        self.dropped += later.dropped
        self.absences += later.absences
        self.notes += later.notes
        self.talk += later.talk
        if later.truncated and not last:
            self.notes.append(
                Note("broken_json", "an answer that was taken back ends in the middle")
            )
        self.missing = later.missing
        self.truncated = later.truncated and last
        self.answer = later.answer
        self.unclear = self.unclear or later.unclear
        self.pictures |= later.pictures
        self.elsewhere = self.elsewhere or later.elsewhere
        self.ends_in_size = self.ends_in_size or later.ends_in_size
        self.told_sizes |= later.told_sizes
        self.statuses.update(later.statuses)
        self.reasons.update(later.reasons)

    def set_conventions(self, since: int, order: Order | None, unit: str | None) -> None:
        """Set the order and the unit of boxes that have none; None sets nothing.

        The boxes are those from the index `since` to the end.
        """
        if not order and not unit:
            return
        for i in range(since, len(self.boxes)):
            raw = self.boxes[i]
            is_stated_here = raw.order is None and order is not None
            self.boxes[i] = replace(
                raw,
                order=raw.order or order,
                order_beside=raw.order_beside or is_stated_here,
                unit=raw.unit or unit,
            )

    @property
    def size(self) -> int:
        """How many boxes, points, dropped ones and absences there are, all together."""
        return len(self.boxes) + len(self.points) + len(self.dropped) + len(self.absences)

    def set_details(self, since: int, name: str, values: Sequence[Any]) -> None:
        """Set a detail of boxes that follow one another, each to its own value.

        Args:
            since: The index of the first of the boxes.
            name: The attribute of `Details` to set.
            values: Its value for that box, for the next one, and so on.
        """
        for i, value in enumerate(values, start=since):
            raw = self.boxes[i]
            self.boxes[i] = replace(raw, details=replace(raw.details, **{name: value}))


@dataclass(frozen=True)
class FoundBox:
    """One box of a reply.

    Attributes:
        bbox: x1, y1, x2, y2 in pixels of the upright image, inside it.
        id: The phrase's id; without phrases the reply's own, if it has one.
        label: The reply's name for it.
        score: In [0, 1]; None where the reply gives none.
        numbers: The coordinates as the reply wrote them.
        evidence: seen, inferred or region; None where the reply doesn't say.
    """

    bbox: Bbox
    id: int | None
    label: str | None
    score: float | None
    numbers: tuple[float, ...]
    evidence: str | None


@dataclass
class Reading:
    """What a reply says.

    Attributes:
        boxes: The boxes; none if the reply says that nothing is there.
        notes: Their codes are truncated, repaired_json, broken_json, clamped, swapped, dropped,
            superseded, matched_by_label, unlike_label, merged, score_ignored, labels_ignored or
            native_tokens.
        statuses: Phrase id → status, as the embedded grounder gives it.
        reasons: Phrase id → why.
        unread: Ids of phrases that the reply answers in no usable way: nothing is known about them.
        unsure: Phrase id → why it isn't known to be absent, though the reply has no box for it.
    """

    boxes: list[FoundBox]
    notes: list[Note] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)
    unsure: dict[int, str] = field(default_factory=dict)

    def count(self, code: str) -> int:
        """Return how many notes have this code."""
        return sum(note.code == code for note in self.notes)

    @property
    def doubtful(self) -> bool:
        """Whether boxes may be missing, or the rest need a look.

        So it is where the reply is cut off or its JSON broken, and where more than DOUBTFUL_SHARE
        of all boxes and dropped ones were dropped, moved, turned round, taken back or not surely
        matched.
        """
        if self.count("truncated") or self.count("broken_json"):
            return True
        doubted = sum(note.code in _DOUBTED for note in self.notes)
        return doubted > DOUBTFUL_SHARE * (len(self.boxes) + self.count("dropped"))


def with_entities_resolved(details: Details) -> Details:
    """Return details with HTML's entities in the labels resolved: "salt & pepper".

    The labels as they were written come last, as further labels. Details without entities are
    returned as they are.
    """
    if not any(_ENTITY.search(label) for label in details.labels):
        return details
    labels: list[str] = []
    for label in details.labels:
        plain = html.unescape(label).strip()
        if plain:
            labels.append(plain)
    labels += details.labels
    return replace(details, labels=tuple(dict.fromkeys(labels)))


def _in_brackets(values: Sequence[Any]) -> str:
    """Return the first of some values as a note shows them: "[1, 2, 'x', '…']"."""
    shown: list[Any] = []
    for value in values[:_MOST_SHOWN]:
        shown.append(value if isinstance(value, (int, float, str)) else "…")
    text = str(shown)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"

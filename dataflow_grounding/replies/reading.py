"""What a reply says: as it writes it, before its numbers are given a meaning, and as it is read, in
pixels.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import Order
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.replies._absence import Missing
from dataflow_grounding.replies.json_values import hull, number

_ENTITY = lazy_pattern(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")
# The share of a reply's boxes that may be dropped or moved before the reading counts as doubtful.
DOUBTFUL_SHARE = 1 / 3


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
class Said:
    """What a reply says about a box besides its numbers: labels by preference, id, score, evidence,
    words around it.

    `remarks` are words in the box's own object that name nothing, and may take it back.
    """

    labels: tuple[str, ...] = ()
    id: int | None = None
    score: Any = None
    evidence: str | None = None
    talk: str = ""
    remarks: tuple[str, ...] = ()

    def within(self, outer: Said) -> Said:
        """Return this with what is missing taken from the object around it."""
        return Said(
            self.labels or outer.labels,
            outer.id if self.id is None else self.id,
            outer.score if self.score is None else self.score,
            self.evidence or outer.evidence,
            self.talk or outer.talk,
            self.remarks or outer.remarks,
        )


NOTHING_SAID = Said()


def named(label: str | None, talk: str = "") -> Said:
    """Return what a label says, if there is one, and the words around it."""
    return Said((label,) if label else (), talk=talk)


@dataclass(frozen=True)
class RawBox:
    """A box of four numbers (two for a pair of grid cells), or a point of two.

    `order` is set where names settle it, `unit` ("px" or "%") where the reply states one; `family`
    where special tokens that only one family writes do, None otherwise; `corners` where the numbers
    are two corners even in a format of a corner and a size; `answer` counts the answers in the
    reply, where it has several.
    """

    kind: Literal["box", "point"]
    numbers: tuple[float, ...]
    said: Said = NOTHING_SAID
    order: Order | None = None
    family: str | None = None
    corners: bool = False
    answer: int = 0
    unit: str | None = None


class Talk(NamedTuple):
    """Words beside the boxes of an answer, and the number of that answer; `behind`: they follow the
    first box.
    """

    text: str
    answer: int
    behind: bool


class Dropped(NamedTuple):
    """What looked like a box and is not: why, what it was said to be the box of, and in which
    answer.
    """

    reason: str
    said: Said
    answer: int


@dataclass
class ParsedReply:
    """All that a reply says, in its order.

    `absences` are what the reply says is not there, each with its answer's number; `unclear` is set
    where there are other things around that; `missing` is what a sentence instead of an answer says
    is not there; `truncated` when the reply ends in the middle; `answer` numbers the answer being
    read, and `corrections` those that take back what was said before; `statuses` and `reasons` are
    the embedded grounder's; `talk` are the words beside the boxes; `pictures` what boxes say of the
    picture that they are in, and `elsewhere` why the boxes may not be those of the one sent.
    """

    boxes: list[RawBox] = field(default_factory=list)
    points: list[RawBox] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    absences: list[tuple[Said, int]] = field(default_factory=list)
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

    def __bool__(self) -> bool:
        return bool(self.size or self.statuses)

    def add(
        self, values: Sequence[Any], said: Said, *, corners: bool = False, quad: bool = False
    ) -> None:
        """Take numbers as the box or point that their count makes (`quad`: eight are four corners),
        or drop them.
        """
        numbers = [number(value) for value in values]
        known = [value for value in numbers if value is not None]
        if len(known) != len(numbers) or not numbers:
            self.drop(f"a box with a coordinate that is not a number: {_shown(values)}", said)
        elif len(known) == 4:
            self.put(RawBox("box", tuple(known), said))
        elif len(known) == 2 and not corners:
            self.put(RawBox("point", tuple(known), said))
        elif len(known) == 5 and 0 < known[4] < 1 < max(known[:4]):
            # a detector's row: the fifth number is the score
            self.put(RawBox("box", tuple(known[:4]), replace(said, score=said.score or known[4])))
        elif len(known) == 8 and quad:
            self.put(RawBox("box", hull(known), said, corners=True))
        else:
            self.drop(f"a box of {len(known)} numbers: {_shown(values)}", said)

    def put(self, raw: RawBox) -> None:
        """Take a box or a point as one of the answer that is being read."""
        kind = self.boxes if raw.kind == "box" else self.points
        kind.append(replace(raw, answer=self.answer) if self.answer else raw)

    def drop(self, reason: str, said: Said = NOTHING_SAID) -> None:
        """Note that something that looked like a box is not, and what it was said to
        be the box of.
        """
        self.dropped.append(Dropped(reason, said, self.answer))

    def hear(self, text: str, *, behind: bool) -> None:
        """Take words beside the boxes of the answer that is being read; `behind`: they follow the
        first of them.
        """
        if text.strip():
            self.talk.append(Talk(text, self.answer, behind))

    def lack(self, said: Said = NOTHING_SAID) -> None:
        """Note that the reply says that a thing, or anything at all, is not there."""
        self.absences.append((said, self.answer))

    def take(self, within: ParsedReply, said: Said) -> None:
        """Take in what was read apart, of a part of the reply that was said to be `said`."""
        for raw in (*within.boxes, *within.points):
            self.put(replace(raw, said=raw.said.within(said)))
        for dropped in within.dropped:
            self.drop(dropped.reason, dropped.said.within(said))
        for absence, _ in within.absences:
            self.lack(absence.within(said))
        self.truncated = self.truncated or within.truncated

    def join(self, later: ParsedReply, *, last: bool) -> None:
        """Take in what a later answer says, as it is numbered; `last`: it is the
        reply's last one.
        """
        for name in ("boxes", "points", "dropped", "absences", "notes", "talk"):
            getattr(self, name).extend(getattr(later, name))
        if later.truncated and not last:
            self.notes.append(
                Note("broken_json", "an answer that was taken back ends in the middle")
            )
        self.missing, self.truncated, self.answer = (
            later.missing,
            later.truncated and last,
            later.answer,
        )
        self.unclear = self.unclear or later.unclear
        self.pictures |= later.pictures
        self.elsewhere = self.elsewhere or later.elsewhere
        self.statuses.update(later.statuses)
        self.reasons.update(later.reasons)

    def state(self, since: int, order: Order | None, unit: str | None) -> None:
        """Give the boxes from the `since`-th on an order and a unit, where they have none of their
        own.
        """
        for i, raw in enumerate(self.boxes[since:] if order or unit else (), start=since):
            self.boxes[i] = replace(raw, order=raw.order or order, unit=raw.unit or unit)

    @property
    def size(self) -> int:
        """How much was found, of whatever kind."""
        return len(self.boxes) + len(self.points) + len(self.dropped) + len(self.absences)

    def say(self, since: int, name: str, values: Sequence[Any]) -> None:
        """Give the boxes from the `since`-th on what a list beside says, entry by entry, under a
        name of `Said`.
        """
        for i, value in enumerate(values, start=since):
            self.boxes[i] = replace(
                self.boxes[i], said=replace(self.boxes[i].said, **{name: value})
            )


@dataclass(frozen=True)
class FoundBox:
    """One box of a reply.

    Attributes:
        bbox: x1, y1, x2, y2 in pixels of the upright image, inside it.
        id: The phrase's id; without phrases the reply's own, if it has one.
        label: The reply's name for it.
        score: In [0, 1].
        numbers: The coordinates as the reply wrote them.
        evidence: seen, inferred or region.
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
    """

    boxes: list[FoundBox]
    notes: list[Note] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)

    def count(self, code: str) -> int:
        """Return how many notes have this code."""
        return sum(note.code == code for note in self.notes)

    @property
    def doubtful(self) -> bool:
        """Whether boxes may be missing, or so many were dropped, moved or turned round that the
        rest need a look.
        """
        if self.count("truncated") or self.count("broken_json"):
            return True
        touched = sum(
            map(self.count, ("dropped", "clamped", "swapped", "superseded", "unlike_label"))
        )
        return touched > DOUBTFUL_SHARE * (len(self.boxes) + self.count("dropped"))


def resolved(said: Said) -> Said:
    """Return what is said with HTML's entities in the labels resolved; a label as it was written
    comes last.
    """
    if not any(_ENTITY.search(label) for label in said.labels):
        return said
    plain = (html.unescape(label).strip() for label in said.labels)
    return replace(said, labels=tuple(dict.fromkeys([*filter(None, plain), *said.labels])))


def _shown(values: Sequence[Any]) -> str:
    text = str([value if isinstance(value, (int, float, str)) else "…" for value in values[:8]])
    return text if len(text) <= 80 else text[:79] + "…"

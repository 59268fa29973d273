"""What a reply says: as it writes it (`ParsedReply`), and in pixels (`Reading`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import Order
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.data.remarks import MOST_REMARK
from dataflow_grounding.replies.labels import phrase_named

# The share of a reply's boxes that may be dropped or moved before the reading counts as doubtful.
DOUBTFUL_SHARE = 1 / 3
# Codes of notes on a single box that make it doubtful.
_DOUBTED = frozenset(["dropped", "clamped", "swapped"])
_MOST_SHOWN = 8  # values in a note
_LONGEST_KEY = 40
LARGEST = 10**9  # of a coordinate, without its sign
EVIDENCE = (None, "seen", "inferred", "region")
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


@dataclass(slots=True)
class RawBox:
    """A box, a point, or something that is not there, as a reply writes it.

    Evidence is what a model says it knows a box from: one of EVIDENCE.
    """

    # four for a box, two for a point or for grid cells, none for what is not there
    numbers: tuple[float, ...]
    label: str | None = None
    id: int | None = None
    score: object = None
    evidence: str | None = None
    order: Order | None = None  # if the names of its numbers settle it
    family: str | None = None  # the only family that writes such tokens
    corners: bool = False  # whether they are two corners even in a format of a corner and a size


@dataclass(slots=True)
class Dropped:
    """Something that looks like a box and can't be used."""

    reason: str
    label: str | None = None
    id: int | None = None


@dataclass(slots=True)
class ParsedReply:
    """All that a reply says, in its order, before its numbers are given a meaning."""

    boxes: list[RawBox] = field(default_factory=list)
    points: list[RawBox] = field(default_factory=list)
    # An absence without a label and an id is of all that was asked for.
    absences: list[RawBox] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    truncated: bool = False
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    # sides of the picture: 0 for its width
    sizes: list[tuple[int, float]] = field(default_factory=list)
    addressed: bool = False  # one value of JSON in which each box names a phrase
    remarks: list[str] = field(default_factory=list)  # words and keys next to the answer
    not_found: list[int] = field(default_factory=list)  # ids of phrases in a list of absent ones

    def names_phrases(self, phrases: Mapping[int, str]) -> bool:
        """Whether it has boxes, each of which names one of the phrases."""
        return bool(self.boxes) and all(
            phrase_named(box.id, box.label, phrases) is not None for box in self.boxes
        )

    def add(self, found: RawBox) -> None:
        """Add a box, which has four numbers, or a point, which has two."""
        if len(found.numbers) == 4:
            self.boxes.append(found)
        else:
            self.points.append(found)

    def __bool__(self) -> bool:
        """Whether it says anything of boxes."""
        answers = self.boxes or self.points or self.absences or self.not_found
        return bool(answers or self.dropped or self.statuses)


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
        notes: Their codes are truncated, repaired_json, clamped, swapped, dropped,
            matched_by_label, merged, runaway, score_ignored or native_tokens.
        statuses: Phrase id → status, as the embedded grounder gives it.
        reasons: Phrase id → why.
        unread: Ids of phrases without a usable answer.
        unnamed: Ids of phrases that the reply says nothing of.
        left_out: Ids of phrases that have neither a box nor an item without one.
        not_found: Ids of phrases that the reply's `not_found` has.
        unsure: Phrase id → why it isn't known to be absent, though the reply has no box for it.
        doubts: Phrase id → why its boxes may be of something else.
        remark: The words and keys of the reply that are no part of the answer, at most 200
            characters; "" without any.
    """

    boxes: list[FoundBox]
    notes: list[Note] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)
    unnamed: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    not_found: list[int] = field(default_factory=list)
    unsure: dict[int, str] = field(default_factory=dict)
    doubts: dict[int, str] = field(default_factory=dict)
    remark: str = ""

    def count(self, code: str) -> int:
        """Return how many notes have this code."""
        return sum(note.code == code for note in self.notes)

    @property
    def doubtful(self) -> bool:
        """Whether boxes may be missing, or the rest need a look.

        So it is where the reply is cut off or runs away, and where more than DOUBTFUL_SHARE of all
        boxes and dropped ones were dropped, moved or turned round.
        """
        if self.count("truncated") or self.count("runaway"):
            return True
        doubted = sum(note.code in _DOUBTED for note in self.notes)
        return doubted > DOUBTFUL_SHARE * (len(self.boxes) + self.count("dropped"))


def in_brackets(values: Sequence[object]) -> str:
    """Return the first of some values as a note shows them: "[1, 2.5, 'x', '…']"."""
    shown: list[str] = []
    for value in values[:_MOST_SHOWN]:
        if isinstance(value, str):
            shown.append(repr(value))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            shown.append("…")  # an object or array
        else:
            shown.append(f"{value:.6g}" if abs(value) < 1e15 else "…")
    text = f"[{', '.join(shown)}]"
    if len(text) > _LONGEST_SHOWN:
        return text[: _LONGEST_SHOWN - 1] + "…"
    return text


def key_remark(key: str, value: object) -> str:
    """Return a key as a remark has it, `"note": "half hidden"`, with the beginning of its value."""
    name, text = (json.dumps(part, ensure_ascii=False) for part in (key[:_LONGEST_KEY], value))
    return f"{name}: {text[:MOST_REMARK]}"


def note(reading: Reading, code: str, text: str) -> None:
    """Note in a reading what was done."""
    reading.notes.append(Note(code, text))


def note_once(reading: Reading, code: str, text: str) -> None:
    """Note what may happen for several boxes alike."""
    if (code, text) not in reading.notes:
        note(reading, code, text)

"""What reading a reply gives: boxes in pixels, and notes on what was done to get them."""

from __future__ import annotations

from dataclasses import dataclass, field

from dataflow_grounding.geometry import Bbox

# The share of a reply's boxes that may be dropped or moved before the reading counts as doubtful.
DOUBTFUL_SHARE = 1 / 3


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


@dataclass(frozen=True)
class FoundPoint:
    """One point of a reply.

    Attributes:
        point: x and y in pixels of the upright image, perhaps outside it.
        label: The reply's name for it.
        numbers: The coordinates as the reply wrote them.
    """

    point: tuple[float, float]
    label: str | None
    numbers: tuple[float, ...]


@dataclass
class Reading:
    """What a reply says.

    Attributes:
        boxes: The boxes; none if the reply says that nothing is there.
        notes: Each begins with truncated, repaired_json, broken_json, clamped, swapped, dropped, superseded,
            matched_by_label, unlike_label, merged, score_ignored, labels_ignored or native_tokens.
        statuses: Phrase id → status, as the embedded grounder gives it.
        reasons: Phrase id → why.
        unread: Ids of phrases that the reply answers in no usable way: nothing is known about them.
    """

    boxes: list[FoundBox]
    notes: list[str] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)

    def count(self, code: str) -> int:
        """Return how many notes begin with `code`."""
        return sum(note.partition(":")[0] == code for note in self.notes)

    @property
    def doubtful(self) -> bool:
        """Whether boxes may be missing, or so many were dropped, moved or turned round that the others deserve a look too."""
        if self.count("truncated") or self.count("broken_json"):
            return True
        touched = sum(map(self.count, ("dropped", "clamped", "swapped", "superseded", "unlike_label")))
        return touched > DOUBTFUL_SHARE * (len(self.boxes) + self.count("dropped"))

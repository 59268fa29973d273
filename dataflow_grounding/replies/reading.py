"""What reading a reply gives: boxes in pixels, and notes on what was done to get them."""

from __future__ import annotations

from dataclasses import dataclass, field

from dataflow_grounding.geometry import Bbox

# The share of a reply's boxes that may be dropped or moved before the reading counts as doubtful.
DOUBTFUL_SHARE = 1 / 3


@dataclass(frozen=True)
class FoundBox:
    """One box: `bbox` in float xyxy pixels of the original image, inside it; `numbers` as the reply wrote them.

    `id` is the phrase's, None without phrases. `label`, `score` (in [0, 1]) and `evidence` (seen, inferred, region) are the
    reply's own words, None where it has none.
    """

    bbox: Bbox
    id: int | None
    label: str | None
    score: float | None
    numbers: tuple[float, ...]
    evidence: str | None


@dataclass(frozen=True)
class FoundPoint:
    """One point: `point` as x, y in float pixels of the original image, not clamped; the rest as in FoundBox."""

    point: tuple[float, float]
    label: str | None
    numbers: tuple[float, ...]


@dataclass
class Reading:
    """What a reply says. `boxes` is empty when the reply says that nothing is there.

    Each note begins with one of: truncated, repaired_json, broken_json, clamped, swapped, dropped, superseded,
    matched_by_label, unlike_label, merged, score_ignored, labels_ignored, native_tokens. `statuses` and `reasons` are by phrase
    id. `unread` are the phrases for which the reply has an answer, but none that could be used: nothing is known about them.
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

"""Marks: boxes and points as a reply writes them, before their numbers are given a meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from dataflow_grounding.frames import Order

Kind: TypeAlias = Literal["box", "point"]

NONE_WORDS = frozenset(
    [
        "none",
        "null",
        "nil",
        "n/a",
        "na",
        "nothing",
        "not found",
        "not present",
        "no object",
        "no objects",
        "not visible",
        "absent",
    ]
)
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")
_LARGEST = 1e9


@dataclass(frozen=True)
class Said:
    """What a reply says about a box besides its numbers: the labels in order of preference, id, score, evidence."""

    labels: tuple[str, ...] = ()
    id: int | None = None
    score: Any = None
    evidence: str | None = None

    def within(self, outer: Said) -> Said:
        """Return this with what is missing taken from the object around it."""
        return Said(
            self.labels or outer.labels,
            self.id if self.id is not None else outer.id,
            self.score if self.score is not None else outer.score,
            self.evidence or outer.evidence,
        )


NOTHING_SAID = Said()


@dataclass(frozen=True)
class Mark:
    """A box of four numbers (two for a pair of grid cells), or a point of two.

    `order` is set where names settle it; `family` where special tokens that only one family writes do, None otherwise.
    """

    kind: Kind
    numbers: tuple[float, ...]
    said: Said = NOTHING_SAID
    order: Order | None = None
    family: str | None = None


@dataclass
class Marks:
    """All that a reply marks, in its order; `dropped` says why something that looked like a box is none.

    `absent` counts what the reply says is not there; `unclear` is set where other things stand around that; `truncated`
    when the reply ends in the middle; `statuses` and `reasons` are the embedded grounder's.
    """

    boxes: list[Mark] = field(default_factory=list)
    points: list[Mark] = field(default_factory=list)
    dropped: list[tuple[str, Said]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: int = 0
    unclear: bool = False
    truncated: bool = False
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.size or self.statuses)

    def add(self, values: Sequence[Any], said: Said, *, corners: bool = False, quad: bool = False) -> None:
        """Take a list of numbers as the box or point that their count makes it, or note why it is neither.

        `quad`: eight numbers are four corners and make the box around them. `corners`: two numbers can only be a broken box.
        """
        numbers = [number(value) for value in values]
        known = [value for value in numbers if value is not None]
        if len(known) != len(numbers) or not numbers:
            self.drop(f"a box with a coordinate that is no number: {_shown(values)}", said)
        elif len(known) == 4:
            self.boxes.append(Mark("box", tuple(known), said))
        elif len(known) == 2 and not corners:
            self.points.append(Mark("point", tuple(known), said))
        elif len(known) == 5 and 0 < known[4] < 1 < max(known[:4]):  # a detector's row: the fifth number is the score
            self.boxes.append(Mark("box", tuple(known[:4]), replace(said, score=said.score or known[4])))
        elif len(known) == 8 and quad:
            xs, ys = known[0::2], known[1::2]
            around = (min(xs), min(ys), max(xs), max(ys))
            self.boxes.append(Mark("box", around, said))
        else:
            self.drop(f"a box of {len(known)} numbers: {_shown(values)}", said)

    def drop(self, reason: str, said: Said = NOTHING_SAID) -> None:
        """Note that something that looked like a box is none, and of what it was said to be the box."""
        self.dropped.append((reason, said))

    @property
    def size(self) -> int:
        """How much was found, of whatever kind."""
        return len(self.boxes) + len(self.points) + len(self.dropped) + self.absent

    def say(self, since: int, **lists: Sequence[Any]) -> None:
        """Give the boxes from the `since`-th on what lists beside them say, one entry a box, under the names of `Said`."""
        for name, values in lists.items():
            for i, value in enumerate(values, start=since):
                mark = self.boxes[i]
                self.boxes[i] = replace(mark, said=replace(mark.said, **{name: value}))


def number(value: Any) -> float | None:
    """Return a coordinate as a number, also from a string that is one; None for anything else, NaN and the like included."""
    if isinstance(value, str):
        value = value.strip()
        if _NUMBER.fullmatch(value) is None:
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) and abs(value) <= _LARGEST else None


def says_none(text: str) -> bool:
    """Whether a text says, and only says, that there is nothing."""
    return text.strip().strip(".!\"'`*[](){}").strip().lower() in NONE_WORDS


def _shown(values: Sequence[Any]) -> str:
    text = str([value if isinstance(value, (int, float, str)) else "…" for value in values[:8]])
    return text if len(text) <= 80 else text[:79] + "…"

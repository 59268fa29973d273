"""Counts of what a file says, with the first places; and of what it says twice and otherwise."""

from collections import Counter
from typing import NamedTuple

from dataflow_grounding._util.errors import InputError


class CountedPlaces:
    """Counts of what was found, each with the first place where it was."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.first: dict[str, str] = {}

    def add(self, what: str, where: str) -> None:
        self.first.setdefault(what, where)
        self.counts[what] += 1

    def remarks(self) -> list[str]:
        counts = self.counts.items()
        return [f"{what}: {count:,}, the first is {self.first[what]}" for what, count in counts]


class Comparison(NamedTuple):
    """One thing that is stated twice at a place; `what` says what those are that differ."""

    what: str
    where: str
    agrees: bool


class StatedTwice:
    """What a file states twice, and whether the two agree: counted, with the first place."""

    def __init__(self) -> None:
        self._compared = Counter[str]()
        self._differing = CountedPlaces()

    def add(self, comparison: Comparison) -> None:
        self._compared[comparison.what] += 1
        if not comparison.agrees:
            self._differing.add(comparison.what, comparison.where)

    def remarks(self) -> list[str]:
        """Return a line for each kind that differs. Raises InputError where most of one differ."""
        lines = []
        for what, count in self._differing.counts.items():
            compared = self._compared[what]
            line = f"{what}: {count:,} of {compared:,}, the first is {self._differing.first[what]}"
            if count > compared / 2:
                raise InputError(f"{line}: the two contradict each other, mend the file")
            lines.append(line)
        return lines

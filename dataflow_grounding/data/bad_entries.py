"""Entries of label files that can't be read: left out, named and counted, up to a limit.

An entry is the smallest thing that can be left out honestly: a box, an annotation, a region; or a
line, a task or a picture's own file, where it can't be read at all.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dataflow_grounding._util.errors import InputError

SKIPPED = "skipped_entries"
"""The column of a record that says how many objects of its picture were left out as bad."""
MOST_NAMED = 10_000
"""Of how many bad entries the reasons are kept; all are counted."""
_FIRST = 3  # that an error names
_MOST_LETTERS = 300  # of a reason


class ImportRefused(InputError):
    """An import can't go on, no matter what it is to go on after."""


class BadEntries:
    """The bad entries of an import, and how many it may have.

    Args:
        limit: `N` entries, or `P%` of all entries, which is judged once all are read: boxes,
            phrases without a box, and bad entries. "", 0 and 0% leave none out.

    Attributes:
        limit: As stated.
        goes_on: Whether any entry may be left out.
        count: How many were.
        named: Of the first MOST_NAMED, where they are and why they can't be read.
        place: Of the entry that is being read; "" where none is.

    Raises:
        ValueError: The limit is neither.
    """

    def __init__(self, limit: str = "") -> None:
        self.limit = limit.strip()
        number = self.limit.removesuffix("%").strip() or "0"
        self._most: int | None = None
        self._percent = 0.0
        if self.limit.endswith("%"):
            self._percent = float(number)
        elif number.isdecimal():
            self._most = int(number)
        else:
            raise ValueError(limit)
        if not 0 <= self._percent <= 100:  # also of what is no number
            raise ValueError(limit)
        self.goes_on = bool(self._most or self._percent)
        self.count = 0
        self.named: list[str] = []
        self.place = ""
        self._read = 0  # entries that aren't bad
        self._of_picture = 0

    def note(self, why: str) -> None:
        """Take in that an entry is left out. Raises ImportRefused where there are too many now."""
        self.count += 1
        if len(self.named) < MOST_NAMED:
            self.named.append(" ".join(why.split())[:_MOST_LETTERS])
        if self._most is not None and self.count > self._most:
            raise ImportRefused(f"over {self._most:,} bad entries, the limit: {self._first()}")

    def note_object(self, why: str) -> None:
        """Take in that an object of a picture is left out. Raises as `note` does."""
        self._of_picture += 1
        self.note(why)

    def note_useless(self, why: str) -> bool:
        """Take in that an object of a picture is left out that doesn't stop an import.

        Its picture is marked in any case. Returns whether it counts as bad. Raises as `note` does.
        """
        if self.goes_on:
            self.note_object(why)
        else:
            self._of_picture += 1
        return self.goes_on

    def note_picture(self, why: str) -> None:
        """Take in that a picture is left out with all that is in it. Raises as `note` does."""
        self._of_picture = 0
        self.note(why)

    def marked(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a picture's record, which says how many objects were left out since the last one.

        Without a box it is no background then.
        """
        if not self._of_picture:
            return record
        marks: dict[str, Any] = {SKIPPED: record.get(SKIPPED, 0) + self._of_picture}
        if not any(expression["instances"] for expression in record["expressions"]):
            marks["background"] = False
        self._of_picture = 0
        return {**record, **marks}

    def read(self, count: int) -> None:
        """Take in how many entries of a record could be read."""
        self._read += count

    def finish(self) -> None:
        """Raise ImportRefused where a share is stated, and more of all entries are bad."""
        whole = self._read + self.count
        if self._percent and self.count * 100 > self._percent * whole:
            raise ImportRefused(
                f"{self.count:,} of {whole:,} entries are bad, over {self.limit}: {self._first()}"
            )

    def _first(self) -> str:
        more = "; ..." if self.count > _FIRST else ""
        return "; ".join(self.named[:_FIRST]) + more


def count_with_first(passed_over: Counter[str], what: str, why: str) -> None:
    """Count what an import leaves out; the report on all of them names the first."""
    start = f"{what}, of which the first is "
    known = next((each for each in passed_over if each.startswith(start)), "")
    passed_over[known or f"{start}{why}"] += 1


def skipped_lines(bad: BadEntries, most: int = 10) -> Sequence[str]:
    """Return lines for people: how many entries were left out, the first ones, and the rest."""
    if not bad.count:
        return []
    word = "entry" if bad.count == 1 else "entries"
    lines = [f"left out as bad: {bad.count:,} {word}", *bad.named[:most]]
    if bad.count > most:
        lines.append(f"and {bad.count - most:,} more")
    return lines

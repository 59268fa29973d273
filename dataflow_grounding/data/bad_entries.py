"""Entries of label files that can't be read: left out, counted, and the first ones named.

An entry is a picture with all that is said of it. One object that can't be read costs the picture:
without the object, an export for detectors would teach that nothing is there.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.terminal import counted

SKIPPED = "skipped_entries"
"""The column with the number of a picture's shapes that an import has no place for, as a brush."""
_AT_FIRST = 50  # entries at the start, of which one has to be readable
_MOST_NAMED = 20
_FIRST = 3  # that an error names
_MOST_LETTERS = 300  # of a reason


class ImportRefused(InputError):
    """An import can't go on, even where it leaves out bad entries."""


class BadEntries:
    """The entries of an import that can't be read.

    With `stops` the first one ends the import. Readers call `read` for each entry that they could
    read, and `note` for each that they couldn't.
    """

    def __init__(self, stops: bool = False, take: Callable[[str], None] | None = None) -> None:
        self._stops = stops
        self._take = take
        self.count = 0
        self.named: list[str] = []
        self.place = ""  # where the entry that is being read is; see `entry_errors`
        self._read = 0  # entries that aren't bad

    def note(self, why: str, remedy: str = "") -> None:
        """Take in that an entry is left out. Raises ImportRefused where that ends the import.

        `remedy` says what to do. It isn't cut as `why` is.
        """
        after = f": {remedy}" if remedy else ""
        if self._stops:
            raise ImportRefused(f"{why}{after}")
        self.count += 1
        why = " ".join(why.split())[:_MOST_LETTERS] + after
        if len(self.named) < _MOST_NAMED:
            self.named.append(why)
        if self._take:
            self._take(why)
        # Where not one of the first entries can be read, the files are of another format.
        if not self._read and self.count == _AT_FIRST:
            raise ImportRefused(
                f"none of the first {_AT_FIRST} entries can be read: {self._first()}"
            )

    def read(self) -> None:
        self._read += 1

    def finish(self) -> None:
        """Raise ImportRefused where more entries were bad than not."""
        if self.count > self._read:
            total = self._read + self.count
            raise ImportRefused(
                f"{self.count:,} of {total:,} entries can't be read: {self._first()}"
            )

    def _first(self) -> str:
        more = "; ..." if self.count > _FIRST else ""
        return "; ".join(self.named[:_FIRST]) + more


class PassedOver(Counter[str]):
    """Counts of what an import leaves out or reads otherwise, in words; with where the first is.

    `place` returns where the entry is that is being read, "" where none is.
    """

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()
        self._place = place
        self.first: dict[str, str] = {}  # by what is counted; "" where it isn't known

    def __setitem__(self, what: str, count: int) -> None:
        super().__setitem__(what, count)
        if count:
            self.first.setdefault(what, self._place())

    def add(self, what: str, where: str) -> None:
        self.first.setdefault(what, where)
        self[what] += 1

    def add_all(self, counts: Mapping[str, int]) -> None:
        for what, count in counts.items():
            self[what] += count

    def lines(self) -> list[str]:
        """Return one line, or none where all was read as it is."""
        counts = []
        for what, count in self.items():
            first = f", the first in {self.first[what]}" if self.first.get(what) else ""
            if count:
                counts.append(f"{what} ({count:,}{first})")
        return [f"not read as they are: {', '.join(counts)}"] if counts else []


def skipped_lines(bad: BadEntries) -> Sequence[str]:
    if not bad.count:
        return []
    lines = [f"left out as bad: {counted(bad.count, 'picture')}", *bad.named]
    if bad.count > len(bad.named):
        lines.append(f"and {bad.count - len(bad.named):,} more")
    return lines

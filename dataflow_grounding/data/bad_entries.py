"""Entries of label files that can't be read: left out, counted, and the first ones named.

An entry is the smallest thing that can be left out honestly: a box, an annotation, a region; or a
line, a task or a picture's own file, where it can't be read at all.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dataflow_grounding._util.errors import InputError

SKIPPED = "skipped_entries"
_AT_FIRST = 50  # entries at the start, of which one has to be readable
_MOST_NAMED = 20
_FIRST = 3  # that an error names
_MOST_LETTERS = 300  # of a reason


class ImportRefused(InputError):
    """An import can't go on, even where it leaves out bad entries."""


class BadEntries:
    """The entries of an import that can't be read.

    With `stops` the first one ends the import. Readers call `read` with the number of entries that
    they could read, `note` and its kin for each that they couldn't, and `marked` with each record.
    """

    def __init__(self, stops: bool = False, take: Callable[[str], None] | None = None) -> None:
        self._stops = stops
        self._take = take
        self.count = 0
        self.named: list[str] = []
        self.place = ""  # where the entry that is being read is; see `entry_errors`
        self._read = 0  # entries that aren't bad
        self._objects_left_out = 0  # since `marked` was called last

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

    def note_object(self, why: str) -> None:
        self._objects_left_out += 1
        self.note(why)

    def note_picture(self, why: str, remedy: str = "") -> None:
        """Count a left-out picture as one entry; its objects don't mark the next record."""
        self._objects_left_out = 0
        self.note(why, remedy)

    def marked(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record with the number of objects that were left out since the last one."""
        if not self._objects_left_out:
            return record
        # A picture without a box would count as background, and it shows something all the same.
        columns: dict[str, Any] = {SKIPPED: record.get(SKIPPED, 0) + self._objects_left_out}
        has_boxes = any(expression["instances"] for expression in record["expressions"])
        if not has_boxes:
            columns["background"] = False
        self._objects_left_out = 0
        return {**record, **columns}

    def read(self, count: int) -> None:
        self._read += count

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


def count_with_first(passed_over: Counter[str], what: str, why: str) -> None:
    """Count what an import leaves out, as "outlines of no use, of which the first is a.json: …"."""
    start = f"{what}, of which the first is "
    for text in passed_over:
        if text.startswith(start):
            passed_over[text] += 1
            return
    passed_over[f"{start}{why}"] = 1


def skipped_lines(bad: BadEntries) -> Sequence[str]:
    if not bad.count:
        return []
    word = "entry" if bad.count == 1 else "entries"
    lines = [f"left out as bad: {bad.count:,} {word}", *bad.named]
    if bad.count > len(bad.named):
        lines.append(f"and {bad.count - len(bad.named):,} more")
    return lines

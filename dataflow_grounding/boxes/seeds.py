"""Seeds: the records with regions that a pipeline begins with, whatever they are read from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding.boxes.regions import SEED_ERROR

UNREAD = "labels that can't be read are left out"


class Made(NamedTuple):
    """What the steps make anew of given annotations, now or later."""

    columns: list[str]
    labels: list[str]  # of the steps, as `pipeline_steps` has them


class Seeds(ABC):
    """Seed records of some `origin`, as people call it.

    `files` are the user's own, `folders` those of the images. `found` has what was found on the
    way, in words, and where; `without` is what there is no box in, if there is none.
    """

    found: dict[str, list[str]]
    shown = 20  # places that a report lists
    # Changes where the same files give other records: seeds that were written before are then
    # written anew.
    reading = 4

    def __init__(
        self, origin: str, files: list[str], folders: tuple[str, ...], boxless: bool, without: str
    ) -> None:
        self.origin = origin
        self.files = files
        self.folders = folders
        self._boxless = boxless
        self._without = without
        self._forget()

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per image or row; one that can't be had as a whole says why, and fails.

        Raises:
            InputError: At the end, if there was no box at all and the steps need some. Records that
                fail for another reason tell that.
        """
        self._forget()
        may_go_on = self._boxless
        count = 0
        for record in self._records():
            count += 1
            fails = SEED_ERROR in record or "width" not in record  # it, or its image, can't be read
            if fails or record.get("regions"):
                may_go_on = True
            yield record
        if count and not may_go_on:
            why = "; ".join([self._without, *self.found.get(UNREAD, [])[:1]])
            raise InputError(f"none of the {count} images has a box: {why}")

    @abstractmethod
    def _forget(self) -> None:
        """Sets `found` to what is known before any record is made."""

    @abstractmethod
    def _records(self) -> Iterator[dict[str, Any]]: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of all that the records depend on."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """Counts, and the first of what was found."""

    def remarks(self) -> list[str]:
        """The same in words."""
        lines: list[str] = []
        for what, items in self.found.items():
            lines += counted_items(what, items)
        return lines

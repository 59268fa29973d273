"""Seeds: the records with regions that a pipeline begins with, no matter what they are read from.

`Seeds` is the base class; there is one of label files, and one of annotations.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding.boxes.regions import SEED_ERROR


class Made(NamedTuple):
    """What a pipeline's steps make again of annotations that it begins with, now or later.

    Attributes:
        columns: The columns that are made again.
        labels: The names of the steps, as `pipeline_steps` has them.
    """

    columns: list[str]
    labels: list[str]


class Seeds(ABC):
    """The records with regions that a pipeline begins with.

    Args:
        origin: Where they come from, as people call it.
        files: The user's files that they are read from.
        folders: The folders of the images.
        boxless: Whether the steps can do without any box.
        without: Words for a message that no image has a box.

    Attributes:
        found: What was found on the way: a finding in words, and the places where. It is complete
            once all `records` were read.
        shown: How many places a report lists of each finding.
        reading: A version number. It is raised where the same files give other records, so that
            seeds that were written before are rewritten.
    """

    found: dict[str, list[str]]
    shown = 20
    reading = 6

    def __init__(
        self,
        origin: str,
        files: list[str],
        folders: tuple[str, ...],
        boxless: bool,
        without: str,
    ) -> None:
        self.origin = origin
        self.files = files
        self.folders = folders
        self._boxless = boxless
        self._without = without
        self._reset_found()

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one record per image or row; one that can't be read says why, and fails later.

        Raises:
            InputError: Less than half of the labels can be read. Or, at the end, if there were
                records, but no box at all, and the steps need some; but not where any record
                failed, as its own reason is then told.
        """
        self._reset_found()
        has_use = self._boxless
        count = 0
        for record in self._records():
            count += 1
            fails = SEED_ERROR in record or "width" not in record  # it, or its image, can't be read
            if fails or record.get("regions"):
                has_use = True
            yield record
        if count and not has_use:
            raise InputError(f"none of the {count} images has a box: {self._without}")

    @abstractmethod
    def _reset_found(self) -> None:
        # Set `found` to what is known before any record is read. It is called before each reading,
        # so that a second one doesn't count all of it twice.
        ...

    @abstractmethod
    def _records(self) -> Iterator[dict[str, Any]]: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of all that the records depend on."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """Return counts, and the first `shown` places of each finding, as JSON."""

    def remarks(self) -> list[str]:
        """Return the lines that tell people what was `found`: a few for each finding."""
        lines: list[str] = []
        for what, items in self.found.items():
            lines += counted_items(what, items)
        return lines

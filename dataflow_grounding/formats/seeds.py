"""Seeds: the records with regions that `image_referring_expression` begins with."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding._util.version import __version__
from dataflow_grounding.boxes.regions import SEED_ERROR

# What may be found, by its key in `run.json`, in words. `{}` is a setting's name, or a count.
_PLACES = {
    "images_without_label": "images without a label",
    "labels_without_image": "labels without an image",
    "boxes_without_an_area": "boxes without an area are left out",
    "boxes_beyond_their_image": "boxes reach beyond their image and are kept as they are",
    "images_not_opened": "images can't be opened, give {} their folder",
    "broken_lines": "lines that can't be read",
}
_COUNTS = {
    "converted_from_tao": "TAO records taken over, with boxes in pixels: {}",
    "crowd_regions_left_out": "crowd regions that are left out: {}",
    "annotations_without_a_box": "annotations without a box that are left out: {}",
    "annotations_without_a_category": (
        "annotations of a category that isn't listed, whose type step 0 asks for: {}"
    ),
}
_SHOWN = 20  # places that a report lists of each finding


class Made(NamedTuple):
    """What a pipeline's steps make again of annotations that it begins with, now or later.

    Attributes:
        columns: The columns that are made again.
        labels: The names of the steps, as `pipeline_steps` has them.
    """

    columns: list[str]
    labels: list[str]


@dataclass
class Found:
    """What was found while seeds were read, by keys of `run.json`: places, or a count alone.

    Such as places {"broken_lines": ["labels.jsonl, line 7: …"]}, counts {"converted_from_tao": 3}.
    """

    places: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, places: Sequence[str]) -> None:
        """Take in the places of a finding."""
        if places:
            self.places.setdefault(what, []).extend(places)

    def count(self, what: str, more: int = 1) -> None:
        """Take in more of a finding that is told by its number alone."""
        if more:
            self.counts[what] = self.counts.get(what, 0) + more

    def report(self) -> dict[str, Any]:
        """Return it as `run.json` has it: {"converted_from_tao": 3, "broken_lines": {"count": 1,
        "first": […]}}. Of the places of a finding it has the first ones.
        """
        listed = {}
        for what in _PLACES:  # in this order
            if what in self.places:
                places = self.places[what]
                listed[what] = {"count": len(places), "first": places[:_SHOWN]}
        return {**self.counts, **listed}

    def remarks(self) -> list[str]:
        """Return a line for people for each finding."""
        lines: list[str] = []
        for what, words in _PLACES.items():
            heading = words.format(setting("data.image_dir"))  # one of them names this setting
            lines += counted_items(heading, self.places.get(what, []))
        for what, words in _COUNTS.items():
            if self.counts.get(what):
                lines.append(words.format(self.counts[what]))
        return lines


@dataclass
class Seeds:
    """The records with regions that a pipeline begins with.

    Args:
        origin: Where they come from, as people call it.
        files: The user's files that they are read from.
        folders: The folders of the images.
        boxless: Whether the steps can do without any box.
        without: Words for a message that no image has a box.
        read: Yields the records, and adds what it finds to what it is given.
        depends_on: Returns all that the records depend on, as JSON.
        found_before: What is found before any record is read; `found` begins with it.

    Attributes:
        found: What was found on the way. It is complete once all `records` were read.
        reading: A version number. It is raised where the same files give other records, so that
            seeds that were written before are rewritten.
    """

    origin: str
    files: list[str]
    folders: tuple[str, ...]
    boxless: bool
    without: str
    read: Callable[[Found], Iterator[dict[str, Any]]]
    depends_on: Callable[[], Iterable[Any]]
    found_before: Found = field(default_factory=Found)
    reading: ClassVar[int] = 7

    def __post_init__(self) -> None:
        self.found = self.found_before

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one record per image or row; one that can't be read says why, and fails later.

        On the way `found` is filled, from `found_before` on.

        Raises:
            InputError: Less than half of the labels can be read. Or, at the end, no record has a
                box, and the steps need some. Where a record failed, its own reason is told instead.
        """
        # A copy, to which `read` adds: records may be read again. The lists in it aren't copied,
        # because `read` has findings of its own.
        before = self.found_before
        self.found = Found(places={**before.places}, counts={**before.counts})
        has_something_to_do = self.boxless
        count = 0
        for record in self.read(self.found):
            count += 1
            # Where a label or an image can't be read, the run has to begin, too: it tells why.
            is_unread = SEED_ERROR in record or "width" not in record
            if is_unread or record.get("regions"):
                has_something_to_do = True
            yield record
        if count and not has_something_to_do:
            raise InputError(f"none of the {count} images has a box: {self.without}")

    def fingerprint(self) -> str:
        """Return a digest of all that the records depend on."""
        digest = hashlib.sha256(f"{__version__} {self.reading}".encode())
        for value in self.depends_on():
            digest.update(json.dumps(value).encode())
        return digest.hexdigest()

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
from dataflow_grounding.data.expressions import SEED_ERROR
from dataflow_grounding.data.records import Update

# What may be found, by its key in `run.json`, in words. `{}` is a setting's name, or a count.
_PLACES = {
    "images_without_label": "images without a label",
    "labels_without_image": "labels without an image",
    "boxes_without_an_area": "boxes without an area are left out",
    "boxes_beyond_their_image": "boxes reach beyond their image and are kept as they are",
    "images_not_opened": "images can't be opened, give {} their folder",
    "broken_lines": "lines that can't be read",
    "stated_twice": "what the labels state twice, and otherwise",
}
_COUNTS = {
    "converted_from_tao": "TAO records taken over, with boxes in pixels: {}",
    "crowd_regions_left_out": "crowd regions that are left out: {}",
    "rows_read_as_boxes": "rows of labels read as boxes: {}",
    "rows_read_as_outlines": "rows of labels read as outlines, of which the boxes are taken: {}",
    "rows_read_as_tracks": "rows of labels read as tracks, of which the boxes are taken: {}",
    "annotations_without_a_box": "annotations without a box that are left out: {}",
    "annotations_without_a_category": (
        "annotations of a category that isn't listed, whose type step 0 asks for: {}"
    ),
}
_SHOWN = 20  # places that a report lists of each finding


class Made(NamedTuple):
    """What a pipeline's steps make again of annotations that it begins with, now or later."""

    columns: list[str]
    labels: list[str]  # names of the steps, as `pipeline_steps` has them


@dataclass
class Found:
    """What was found while seeds were read, by keys of `run.json`."""

    places: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # of what is told by its number alone

    def add(self, what: str, places: Sequence[str]) -> None:
        if places:
            self.places.setdefault(what, []).extend(places)

    def count(self, what: str, more: int = 1) -> None:
        if more:
            self.counts[what] = self.counts.get(what, 0) + more

    def report(self) -> dict[str, Any]:
        """Return it for `run.json`: {"converted_from_tao": 3, "broken_lines": {"count": 1, …}}."""
        listed = {}
        for what in _PLACES:  # in this order
            if what in self.places:
                places = self.places[what]
                listed[what] = {"count": len(places), "first": places[:_SHOWN]}
        return {**self.counts, **listed}

    def remarks(self) -> list[str]:
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
    """The records with regions that a pipeline begins with; `found` is what was found in them."""

    origin: str  # where they come from, as people call it
    files: list[str]  # the user's files that they are read from
    folders: tuple[str, ...]  # of the images
    boxless: bool  # whether the steps can do without any box
    without: str  # what a message names where no image has a box
    read: Callable[[Found], Iterator[Update]]  # adds what it finds to what it is given
    depends_on: Callable[[], Iterable[Any]]  # all that the records depend on, as JSON
    found_before: Found = field(default_factory=Found)  # before any record is read
    # Raised where the same files give other records, so that written seeds are rewritten.
    reading: ClassVar[int] = 9

    def __post_init__(self) -> None:
        self.found = self.found_before

    def records(self) -> Iterator[Update]:
        """Yield one record per image or row; one that can't be read says why, and fails later.

        Raises InputError where less than half of the labels can be read, or at the end, where no
        record has a box or has failed, and the steps need a box.
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
        digest = hashlib.sha256(f"{__version__} {self.reading}".encode())
        for value in self.depends_on():
            digest.update(json.dumps(value).encode())
        return digest.hexdigest()

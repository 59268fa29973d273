"""A review under way: what its page asks for, and the decisions that it hands over."""

import io
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from string import Template
from typing import Any

from dataflow_grounding.drawing import PALETTE, text_color
from dataflow_grounding.errors import BrokenRow, GroundingError, ImageMissing, InputError, StorageFailed
from dataflow_grounding.geometry import Size
from dataflow_grounding.image_files import decoding, read_file, read_header
from dataflow_grounding.images import find_image
from dataflow_grounding.metrics.annotations import head_of
from dataflow_grounding.records import has_id
from dataflow_grounding.review.decisions import Decisions
from dataflow_grounding.review.overlay import expressions_of, version_of
from dataflow_grounding.review.queues import Item, Queue, Queued, Reviewable
from dataflow_grounding.review.record_data import Picture, view_data
from dataflow_grounding.review.record_view import view_of
from dataflow_grounding.review.sampling import gold_answers

GRID = 60
"""Boxes on a page of the grid."""
SIDES = {"small": 640, "large": 2048}
"""The most pixels of a picture's longer side, by the name of the copy that a page shows."""
FILES = {
    "report.css": "text/css",
    "review.css": "text/css",
    "record.js": "text/javascript",
    "review.js": "text/javascript",
}
"""What the page is made of besides its HTML, and the media types."""


def page_file(name: str) -> str:
    """A file of the page as text, its style sheet with the palette."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    if name != "review.css":
        return text
    rules = (f".c{n} {{ --c: rgb{color}; --ink: rgb{text_color(color)}; }}\n" for n, color in enumerate(PALETTE))
    return text + "".join(rules)


def page_html(policy: str = "", data: str = "") -> str:
    """The page; `policy` and `data`: what a folder without a server has in its head and before its script."""
    return Template(page_file("review.html")).substitute(policy=policy, data=data)


class Session:
    """What one reviewer sees and says of RESULTS.

    Args:
        reviewable: The records.
        who: The reviewer's name, as decisions have it.
        sample: So many items at random, and the seed: nothing else is shown. It is put on disk first.
        blind: Second reviews of what others decided, whose decisions aren't shown.
        order: What comes first unless the page says: `doubt`, `random` or `file`.
        gold: Records with right boxes: some of the items that they have answers for are mixed into the sample.

    Raises:
        InputError, StorageFailed: The file of decisions can't be read or written.
    """

    def __init__(
        self,
        reviewable: Reviewable,
        who: str,
        sample: tuple[int, int] | None = None,
        blind: bool = False,
        order: str = "doubt",
        gold: str | None = None,
    ) -> None:
        self.reviewable, self.who, self.blind, self.order = reviewable, who, blind, order
        self.decisions = Decisions(reviewable.files.decisions)
        self.sample: list[Item] | None = None
        if sample is not None:
            self.sample = self._drawn(*sample)
            known, chance = [*gold_answers(reviewable, gold)] if gold else [], random.Random(f"gold {sample[1]}")
            others = [item for item in known if item not in self.sample]
            self.sample += chance.sample(others, min(len(others), max(10, len(self.sample) // 10)))
            chance.shuffle(self.sample)
        self._queue = lru_cache(16)(self._make_queue)

    def _drawn(self, size: int, seed: int) -> list[Item]:
        """The items of the sample, which is stated unless it was before."""
        drawn = self.reviewable.sample(size, seed)
        known = [{name: one.get(name) for name in drawn} for one in self.decisions.samples]
        if drawn not in known:
            self.decisions.state_sample(drawn, self.who)
        items = {(self.reviewable.keys[item.record], item.id, item.box): item for item in self.reviewable.items}
        return [items[key, id, box] for key, id, box in drawn["items"]]

    def queue(self, wanted: Mapping[str, str]) -> Queue:
        """The queue that a page asks for; its order stays as long as the session. Raises InputError."""
        names = ("status", "text", "head", "below", "order")
        return self._queue(tuple(str(wanted.get(name) or "") for name in names))

    def _make_queue(self, values: tuple[str, ...]) -> Queue:
        wanted = dict(zip(("status", "text", "head", "below", "order"), values, strict=True))
        try:
            wanted["order"] = wanted["order"] or self.order
            who = self.who if self.blind else None
            return Queue(self.reviewable, self.decisions, wanted, self.sample, who)
        except ValueError:
            raise InputError(f"'below' should be a score from 0 to 1, not {wanted['below']!r}") from None

    def next(self, wanted: Mapping[str, str], place: int, most: int) -> dict[str, Any]:
        """The next items from a place in the queue, with their records."""
        self.decisions.refresh()
        queue = self.queue(wanted)
        found, after = queue.after(place, most)
        return {**self._said(found), "place": after, "left": queue.left()}

    def grid(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """A page of boxes, each with its record, and what their phrases name."""
        self.decisions.refresh()
        queue = self.queue(wanted)
        found = queue.page(GRID)
        heads = list(dict.fromkeys(head_of(queued.item.text) for queued in found))
        return {**self._said(found), "heads": heads, "left": queue.left()}

    def _said(self, found: list[Queued]) -> dict[str, Any]:
        places = {queued.item.record for queued in found}
        items = [{"record": q.item.record, "id": q.item.id, "box": q.item.box, "why": q.why} for q in found]
        return {"items": items, "records": {place: self.view(place) for place in places}}

    def view(self, place: int) -> dict[str, Any]:
        """A record for the page: what `view_data` gives, with `place`, `comment`, and of each expression its `version`,
        of it and of each box `reviewed_by` and `verified`, where a reviewer said so.
        """
        record, key, said = self.reviewable.record(place), self.reviewable.keys[place], self._own_said
        now = said.over(record, key)
        size, missing = self.picture_size(place)
        addresses = ["" if missing else f"picture/{place}-{name}.jpg" for name in SIDES]
        try:
            rows = expressions_of(now)
            shown = {**now, "expressions": list(rows.values())} if "expressions" in now else now
        except BrokenRow:
            rows, shown = {}, now
        data = view_data(view_of(shown), Picture(size, addresses[0], addresses[1], missing))
        data |= {"place": place, "key": key, "id": str(record.image_id) if has_id(record.image_id) else key}
        data["comment"] = said.comments.get(key, "")
        for shown_expression, (id, row) in zip(data["expressions"], rows.items(), strict=False):
            shown_expression |= {"id": id, "version": version_of(row), "reviewed_by": row.get("reviewed_by")}
            shown_expression["verified"] = row.get("verified") if row.get("reviewed_by") else None
            for instance, box in zip(shown_expression["instances"], row["instances"], strict=True):
                instance["verified"] = box.get("verified") if box.get("reviewed_by") else None
        return data

    @property
    def _own_said(self) -> Any:
        return self.decisions.said[self.who if self.blind else ""]

    def picture_path(self, place: int) -> str:
        """Where a record's picture is. Raises RecordError."""
        record = self.reviewable.record(place)
        return find_image(record, "image_path" if "image_path" in record else "image").path

    def picture_size(self, place: int) -> tuple[Size | None, str]:
        """Width and height in pixels of a record's picture, upright, or what is wrong with it."""
        try:
            return read_header(self.picture_path(place)).size, ""
        except GroundingError as error:
            gone = isinstance(error, (ImageMissing, BrokenRow))
            return None, "The image file is not there." if gone else "The image file can't be read."

    def picture(self, place: int, name: str) -> bytes:
        """A copy of a record's picture for a page: an upright JPEG without metadata. Raises RecordError."""
        path, most = self.picture_path(place), SIDES[name]
        (width, height), *_ = read_header(path)
        scale = min(1.0, most / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        with decoding(read_file(path), path, at_least=size) as picture:
            picture = picture if picture.size == size else picture.resize(size, reducing_gap=2.0)
            picture.save(out := io.BytesIO(), "JPEG", quality=85)
        return out.getvalue()

    def decide(self, decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Take decisions and put them on disk; of each its record as it stands then, and why it wasn't taken, if so."""
        answers = []
        for given in decisions:
            key, error = str(given.get("record")), ""
            if (place := self.reviewable.places.get(key)) is None:
                raise InputError(f"there is no record {key!r}")
            try:
                self.decisions.decide(self.reviewable.record(place), key, given, self.who, self.blind)
            except (InputError, BrokenRow, StorageFailed) as why:
                error = str(why)
            answers.append({"uid": given.get("uid"), "error": error, "view": self.view(place)})
        self.decisions.sync()
        return answers

"""A review under way: what its page asks for, the decisions that it hands over; or a folder that
works on its own.
"""

import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import product
from string import Template
from typing import Any

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    RecordError,
    StorageFailed,
    told_as,
)
from dataflow_grounding._util.files import within
from dataflow_grounding.data.records import Record, annotated_column, has_id, write_bytes
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.extras.review._decisions import Decisions, Standing
from dataflow_grounding.extras.review._door_html import page_file
from dataflow_grounding.extras.review._overlay import version_of, word_of
from dataflow_grounding.extras.review._record_view import (
    Expression,
    Picture,
    path_of_picture,
    view_of,
    why_missing,
)
from dataflow_grounding.extras.review._sampling import gold_answers, mixed_in
from dataflow_grounding.extras.review.queues import Item, Queue, Reviewable, digest_of
from dataflow_grounding.images.display import small_copy
from dataflow_grounding.images.files import decoding, read_file, read_header

SIDES = {"small": 640, "large": 2048}
"""The most pixels of a picture's longer side, by the name of the copy that a page shows."""
_GRID = 60  # boxes on a page of the grid
_FILTERS = ("status", "text", "head", "below", "order")
_MOST = 100  # single records that are asked for at once
MOST_DECISIONS = 1000
"""That are handed over at once: each is answered with its record, and others wait meanwhile. The
page sends 60.
"""
_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:"
    " data:; base-uri 'none'"
)


def page_files(policy: str = "", data: str = "") -> dict[str, str]:
    """The page `review.html`, its styles and scripts; of one without a server the `policy`, and
    what stands before its scripts: `data`, as HTML.
    """
    page = page_file("review.html")
    told = policy and f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    files = {
        name: page_file(name) for name in re.findall('(?:href|src)="([a-z]+[.](?:css|js))"', page)
    }
    return {**files, "review.html": Template(page).substitute(policy=told, data=data)}


class Session:
    """What one reviewer sees and says of RESULTS.

    Args:
        reviewable: The records.
        who: The reviewer's name, as decisions have it.
        sample: So many items at random, and the seed: nothing else is shown. It is put on disk
            first.
        blind: Second reviews of what others decided, whose decisions aren't shown.
        order: What comes first unless the page says: `doubt`, `random` or `file`.
        gold: Records with right boxes: some of the items that they have answers for are mixed into
            the sample.

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
        self.sample = None if sample is None else self._drawn(*sample, gold)
        self._queue = lru_cache(16)(self._make_queue)

    def _drawn(self, size: int, seed: int, gold: str | None) -> list[Item]:
        """The items of the sample, which is stated unless it was, with its pictures' folder, and
        the gold mixed in.
        """
        known = gold_answers(self.reviewable, gold) if gold else {}
        drawn, items = self.reviewable.sample(size, seed)
        drawn |= {"gold": gold and digest_of(gold), "image_root": self.reviewable.image_root}
        if drawn not in [{name: one.get(name) for name in drawn} for one in self.decisions.samples]:
            self.decisions.state_sample(drawn, self.who)
        if known:
            items += mixed_in(known, items)
            random.Random(0).shuffle(items)
        return items

    def _make_queue(self, *values: str) -> Queue:
        wanted = dict(zip(_FILTERS, values, strict=True))
        wanted["order"] = wanted["order"] or self.order
        try:
            return Queue(
                self.reviewable,
                self.decisions,
                wanted,
                self.sample,
                self.who if self.blind else None,
            )
        except ValueError:
            raise InputError(
                f"'below' should be a score from 0 to 1, not {wanted['below']!r}"
            ) from None

    def next(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """The next items, with their records: a page of the grid's, or so many from a place in the
        queue.

        Args:
            wanted: `mode` (`grid` or `single`), and the filters that a `Queue` takes; its order
                stays as long as the session. For single records `place` in the queue, and `most`:
                how many, up to 100.

        Raises:
            InputError: `below` is no score, `place` or `most` no number.
        """
        self.decisions.refresh()
        place, most = (wanted.get(name, "0") for name in ("place", "most"))
        if not all(number.isdecimal() and len(number) < 10 for number in (place, most)):
            raise InputError("'place' and 'most' should be numbers")
        queue, is_grid = (
            self._queue(*(wanted.get(name) or "" for name in _FILTERS)),
            wanted.get("mode") == "grid",
        )
        found, after = (
            (queue.page(_GRID), 0) if is_grid else queue.after(int(place), min(int(most), _MOST))
        )
        records = {
            place: self.view(place) for place in dict.fromkeys(item.record for item in found)
        }
        return {
            "items": queue.told(found),
            "records": records,
            "place": after,
            "left": queue.left(),
            "who": self.who,
        }

    def reviewed(self, place: int) -> Record:
        """A record with what was said of it, of blind second reviews by this reviewer alone."""
        return self._said.reviewed(self.reviewable.record(place), self.reviewable.keys[place])

    def view(self, place: int) -> dict[str, Any]:
        """A record for the page: what `view_of` gives, with `place`, `comment`, and of each
        expression its `version`, of it and of each box `reviewed_by` and `verified`, where a
        reviewer said so; `box` is which of the pipeline's it is, as items have it, none where it is
        drawn or moved.
        """
        record, key, rows = (
            self.reviewable.record(place),
            self.reviewable.keys[place],
            dict[str, Expression](),
        )
        shown = record
        with suppress(BrokenRow):  # the page says why
            rows = self._said.rows(record, key)
            shown = record.updated({"expressions": [*rows.values()]})
        view = view_of(shown, self._picture_of(place))
        view |= {
            "place": place,
            "key": key,
            "id": str(record.image_id) if has_id(record.image_id) else key,
        }
        view |= {
            "kind": annotated_column(record) or view["kind"],
            "comment": self._said.comments.get(key, ""),
        }
        for e, (id, row) in zip(view["expressions"], rows.items(), strict=True):
            e |= {
                "id": id,
                "version": version_of(row),
                "reviewed_by": row.get("reviewed_by"),
                "verified": word_of(row),
            }
            for instance, box in zip(e["instances"], row["instances"], strict=True):
                instance["verified"] = word_of(box)
            truth = self._said.truths.get(key, {}).get(id)
            for box, at in enumerate(truth.positions if truth else range(len(row["instances"]))):
                if at is not None and at < len(row["instances"]):
                    e["instances"][at]["box"] = box
        return view

    @property
    def _said(self) -> Standing:
        return self.decisions.standing[self.who if self.blind else ""]

    def _picture_of(self, place: int) -> Picture:
        try:
            size = read_header(path_of_picture(self.reviewable.record(place))).size
        except GroundingError as error:
            return Picture(missing=why_missing(error))
        return Picture(size, *(f"picture/{place}-{name}.jpg" for name in SIDES))

    def picture(self, place: int, name: str) -> bytes:
        """A copy of a record's picture for a page: an upright JPEG without metadata. Raises
        RecordError.
        """
        path = path_of_picture(self.reviewable.record(place))
        with decoding(read_file(path), path, (SIDES[name], SIDES[name])) as picture:
            return small_copy(picture, SIDES[name], "JPEG", quality=85)

    def decide(self, decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Take decisions and put them on disk; of each its record as it stands then, and why it
        wasn't taken, if so.

        Raises InputError, and takes none, where there are more than MOST_DECISIONS.
        """
        if len(decisions) > MOST_DECISIONS:
            raise InputError(
                f"{len(decisions):,} decisions at once: send at most {MOST_DECISIONS:,}"
            )
        answers = []
        for given in decisions:
            key, error = str(given.get("record")), ""
            if (place := self.reviewable.places.get(key)) is None:
                raise InputError(f"there is no record {key!r}")
            try:
                self.decisions.decide(
                    self.reviewable.record(place), key, given, self.who, self.blind
                )
            except (InputError, BrokenRow, StorageFailed) as why:
                error = str(why)
            answers.append({"uid": given.get("uid"), "error": error, "view": self.view(place)})
        self.decisions.sync()
        return answers

    def write(self, folder: str) -> str:
        """Write a folder with page, records and pictures that works without a server; decisions are
        collected by its page, in a file to download. Returns the page's path.

        Args:
            folder: A new folder, or an empty one.

        Raises:
            InputError: The folder has files, or can't be written.
        """
        if os.path.isdir(folder) and os.listdir(folder):
            raise InputError(f"{folder} has files already: choose another name for --static")
        queue = self._queue(*[""] * len(_FILTERS))
        items, _ = queue.after(0, len(queue.items))
        records = {
            place: self.view(place) for place in dict.fromkeys(item.record for item in items)
        }
        data = {"who": self.who, "items": queue.told(items), "records": records}
        files = page_files(_POLICY, '<script src="data.js"></script>')
        files["data.js"] = f"window.reviewData = {json.dumps(data)};\n"
        for name, text in files.items():
            write_text(within(folder, name), text)
        for place, side in product(records, SIDES):
            with suppress(RecordError), told_as(InputError, f"can't write {folder}"):
                # without its picture
                picture = self.picture(place, side)
                os.makedirs(os.path.join(folder, "picture"), exist_ok=True)
                write_bytes(os.path.join(folder, "picture", f"{place}-{side}.jpg"), picture)
        return os.path.join(folder, "review.html")

"""What is reviewed, in which order: the boxes of a file of records, and its phrases
without boxes.
"""

import os
import random
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from itertools import filterfalse, islice
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.data.records import Record, dump_text, is_number, parse_value
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.rows import read_whole_rows
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.engine.source import IMAGE_COLUMN, identify
from dataflow_grounding.extras.evaluation.metrics.annotations import head_of
from dataflow_grounding.extras.review._decisions import Decisions, review_files
from dataflow_grounding.extras.review._record_view import Expression, expressions_of
from dataflow_grounding.extras.scale.elsewhere import absolute

RANDOM_EVERY = 5
"""Each so many-th of a queue is taken at random, whatever is asked for: without such no error rate
can be told.
"""
BLIND_OF = 20
"""One in so many of what others decided is shown to a second reviewer."""


class Item(NamedTuple):
    """A box, or a phrase without one (`box` None), by its place in the phrase; `head`: what that
    names.
    """

    record: int
    id: str
    box: int | None
    text: str
    head: str
    status: str
    score: float | None
    doubt: float


class Reviewable:
    """The records of RESULTS, kept on disk in a file without a name, and their items in memory.

    Raises:
        InputError: There are no records, or one can't be read.
    """

    def __init__(self, results: str, image_root: str | None = None) -> None:
        self.files, self.image_root = review_files(results), image_root and absolute(image_root)
        self.folders = image_folders_of(results, image_root)
        self.keys: list[str] = []
        self.places: dict[str, int] = {}
        self.items: list[Item] = []
        self.unread: list[str] = []  # of records whose phrases can't be read, why
        self._begins, self._lines = array("Q"), tempfile.TemporaryFile()  # noqa: SIM115
        for place, (key, record) in enumerate(records_with_keys(self.files.annotations)):
            self.keys.append(key)
            self.places[key] = place
            self._begins.append(self._lines.tell())
            self._lines.write(dump_text([record.image_id, record.occurrence, record]).encode())
            try:
                self.items += _items_of(place, record, expressions_of(record))
            except BrokenRow as why:  # the page says it, too
                self.unread.append(f"record {place + 1}: {why}")
        self._begins.append(self._lines.tell())
        self._lines.flush()

    def record(self, place: int) -> Record:
        """A record, as the pipeline left it."""
        begin, end = self._begins[place : place + 2]
        # pictures are asked for in threads
        line = os.pread(self._lines.fileno(), end - begin, begin)
        image_id, occurrence, row = parse_value(line)
        return Record(row, self.folders, occurrence, image_id, place)

    def sample(self, size: int, seed: int) -> tuple[dict[str, Any], list[Item]]:
        """What is stated of so many items drawn at random, each as likely as any other; and the
        items.

        Raises InputError where a record's phrases can't be read: they could not be drawn.
        """
        if self.unread:
            more = f" ({len(self.unread)} such records)" if len(self.unread) > 1 else ""
            what = "mend it or take it out, as no sample can be drawn of what can't be seen"
            raise InputError(f"{self.files.annotations}, {self.unread[0]}{more}: {what}")
        if not self.items:
            raise InputError(
                f"{self.files.annotations} has no phrase and no box to draw a sample of"
            )
        drawn = random.Random(f"sample {seed}").sample(self.items, min(size, len(self.items)))
        boxes = sum(item.box is not None for item in self.items)
        of = {"boxes": boxes, "phrases_without_boxes": len(self.items) - boxes}
        listed = [[self.keys[item.record], item.id, item.box] for item in drawn]
        digest = digest_of(self.files.annotations)
        return {
            "size": len(drawn),
            "seed": seed,
            "of": of,
            "annotations": digest,
            "items": listed,
        }, drawn


def digest_of(path: str) -> str | None:
    """The SHA-256 of a file's bytes; None where it can't be read."""
    digest = sha256()
    with suppress(OSError), open(path if os.path.isfile(path) else "", "rb") as file:
        # no pipe, which may never end
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
        return digest.hexdigest()
    return None


def records_with_keys(annotations: str) -> Iterator[tuple[str, Record]]:
    """The records of a file, each with what decisions call it: its id, told apart from earlier rows
    of its image.
    """
    rows_of_image = NumberTable()
    for line, data in read_whole_rows(annotations):
        record = Record(data, place=line - 1)
        identify(record, IMAGE_COLUMN if IMAGE_COLUMN in record else "image", None, rows_of_image)
        yield (f"line {line}" if record.image_id is None else record.unique_id), record


def _items_of(place: int, record: Record, expressions: Mapping[str, Expression]) -> Iterator[Item]:
    doubtful = 2.0 * (record.get("suspect_boxes") is True) + 0.5 * (record.get("doubtful") is True)
    for id, row in expressions.items():
        doubt = (
            doubtful + (row.get("disagreement") is True) + (row.get("verified", True) is not True)
        )
        status = str(row.get("status") or ("grounded" if row["instances"] else "pending"))
        scores = [float(i["score"]) if is_number(i["score"]) else None for i in row["instances"]]
        for box, score in enumerate(scores) if scores else [(None, None)]:
            unsure = doubt + (0.5 if score is None else 1 - score)
            yield Item(place, id, box, row["text"], head_of(row["text"]), status, score, unsure)


class Queue:
    """Items in the order in which they are shown.

    Args:
        reviewable: Whose items.
        decisions: Those that are taken already.
        wanted: `status`, `text` (a part of the phrase), `head` (what it names), `below` (a score):
            which items, by default all; `order`: `doubt`, `random` or `file`.
        sample: Only these, in their order.
        who: The reviewer of blind second reviews; None for first ones.
    """

    def __init__(
        self,
        reviewable: Reviewable,
        decisions: Decisions,
        wanted: Mapping[str, str],
        sample: Sequence[Item] | None = None,
        who: str | None = None,
    ) -> None:
        self._keys, self._decisions, self._wanted, self._who = (
            reviewable.keys,
            decisions,
            wanted,
            who,
        )
        self._truths = decisions.standing[who or ""].truths
        if sample is None:
            self.why = self._ordered(
                [i for i in reviewable.items if self._fits(i) and self._is_mine(i)]
            )
        else:
            self.why = dict.fromkeys(sample, "sample")
        self.items = [*self.why]

    def _ordered(self, found: list[Item]) -> dict[Item, str]:
        """The items in their order, and by which rule each is where it is."""
        order = self._wanted["order"]
        filtered = (
            "filter"
            if any(value for name, value in self._wanted.items() if name != "order")
            else ""
        )
        shuffled = random.Random("queue").sample(found, len(found))
        by_chance = shuffled if order == "random" else shuffled[: len(found) // RANDOM_EVERY]
        rest = sorted(found, key=lambda item: -item.doubt) if order == "doubt" else found
        chance = dict.fromkeys(by_chance, filtered or "random")
        others = ((item, filtered or order) for item in rest if item not in chance)
        left, why = iter(chance.items()), dict[Item, str]()
        while some := list(islice(others, RANDOM_EVERY - 1)):
            why.update([*some, *islice(left, 1)])
        return why | dict(left)

    def _fits(self, item: Item) -> bool:
        status, text, head, below = (
            self._wanted[name] for name in ("status", "text", "head", "below")
        )
        return (
            (not status or item.status == status)
            and (not text or text.casefold() in item.text.casefold())
            and (not head or item.head == head)
            and (not below or (item.score is not None and item.score < float(below)))
        )

    def _is_mine(self, item: Item) -> bool:
        """For a second review: whether another decided it, and it is among the few that are looked
        at twice.
        """
        key = self._keys[item.record]
        chance = int(sha256(f"{key} {item.id}".encode("utf-8", "replace")).hexdigest()[:8], 16)
        by = self._decisions.by.get((key, item.id), self._who)
        return self._who is None or (chance % BLIND_OF == 0 and by != self._who)

    def after(self, place: int, most: int) -> tuple[list[Item], int]:
        """Up to so many items from a place on that nobody has decided, and the place after them."""
        places = (n for n in range(place, len(self.items)) if not self._is_decided(self.items[n]))
        found = list(islice(places, most))
        return [self.items[n] for n in found], found[-1] + 1 if found else len(self.items)

    def page(self, most: int) -> list[Item]:
        """The next boxes that nobody decided: of one thing, or of several where there are few; each
        fifth by chance.
        """
        by_chance = (
            item for item, why in self.why.items() if why == "random" and item.box is not None
        )
        drawn = list(islice(filterfalse(self._is_decided, by_chance), most // RANDOM_EVERY))
        others = (
            item for item in filterfalse(self._is_decided, self._by_head) if item not in drawn
        )
        return sorted([*islice(others, most - len(drawn)), *drawn], key=lambda item: item.head)

    def told(self, items: Iterable[Item]) -> list[dict[str, Any]]:
        """The items as the page has them."""
        return [{"why": self.why[item], **item._asdict()} for item in items]

    def left(self) -> int:
        """How many nobody has decided."""
        touched = (item for item in self.items if self._keys[item.record] in self._truths)
        return len(self.items) - sum(map(self._is_decided, touched))

    @cached_property
    def _by_head(self) -> list[Item]:
        """The boxes by what their phrases name, the most doubtful things first, each by phrase."""
        groups = defaultdict[str, list[Item]](list)
        for item in self.items:
            if item.box is not None:
                groups[item.head].append(item)
        worst = sorted(groups.values(), key=lambda group: -sum(item.doubt for item in group))
        return [
            item for group in worst for item in sorted(group, key=lambda item: item.text.casefold())
        ]

    def _is_decided(self, item: Item) -> bool:
        """Whether a reviewer judged it, deleted it, or put something else in its place."""
        truth = self._truths.get(self._keys[item.record], {}).get(item.id)
        if truth is None or item.text not in truth.texts():
            # of another run's phrase
            return False
        judged = truth.expression if item.box is None else truth.box(item.box)
        return judged is None or bool(judged.get("reviewed_by"))

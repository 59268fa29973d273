"""What is reviewed, in which order: boxes of a file of records, and phrases without boxes."""

import os
import random
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import filterfalse, islice
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.paths import absolute
from dataflow_grounding.data.records import Record, dump_text, is_number, parse_value
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.rows import read_whole_rows
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.engine.source import IMAGE_COLUMN, identify
from dataflow_grounding.extras.evaluation.metrics.annotations import head_of
from dataflow_grounding.extras.review._decisions import Decisions, review_files
from dataflow_grounding.extras.review._record_view import Expression, expressions_of

RANDOM_EVERY = 5
"""One in so many of a queue is taken at random, whatever is asked for.

Without such no error rate can be told.
"""
BLIND_OF = 20
"""One in so many of what others decided is shown to a second reviewer."""


class Item(NamedTuple):
    """A box, by its number in its phrase, or a phrase without one, whose `box` is None.

    `record` is the place of its record in the file, `id` its expression's, `head` the noun that
    says what the phrase names.
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
        self.files = review_files(results)
        self.image_root = image_root and absolute(image_root)
        self.folders = image_folders_of(results, image_root)
        self.keys: list[str] = []
        self.places: dict[str, int] = {}
        self.items: list[Item] = []
        self.unread: list[str] = []  # of records whose phrases can't be read, why
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115
        self._begins = array("Q")  # of each record's line there, and the end of the last
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
        """What is stated of so many items drawn at random, each as likely as any other; the items.

        Raises InputError where a record's phrases can't be read: they could not be drawn.
        """
        annotations = self.files.annotations
        if self.unread:
            more = f" ({len(self.unread)} such records)" if len(self.unread) > 1 else ""
            raise InputError(
                f"{annotations}, {self.unread[0]}{more}: mend it or take it out, as no sample can"
                " be drawn of what can't be seen"
            )
        if not self.items:
            raise InputError(f"{annotations} has no phrase and no box to draw a sample of")
        drawn = random.Random(f"sample {seed}").sample(self.items, min(size, len(self.items)))
        boxes = len([item for item in self.items if item.box is not None])
        stated = {
            "size": len(drawn),
            "seed": seed,
            "of": {"boxes": boxes, "phrases_without_boxes": len(self.items) - boxes},
            "annotations": digest_of(annotations),
            "items": [[self.keys[item.record], item.id, item.box] for item in drawn],
        }
        return stated, drawn


def digest_of(path: str) -> str | None:
    """The SHA-256 of a file's bytes; None where it can't be read."""
    if not os.path.isfile(path):  # a pipe may never end
        return None
    digest = sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def records_with_keys(annotations: str) -> Iterator[tuple[str, Record]]:
    """The records of a file, each with its key, which is what decisions call it.

    The key is the record's id, told apart from those of earlier rows of its image; the line where
    it has no id.
    """
    rows_of_image = NumberTable()
    for line, data in read_whole_rows(annotations):
        record = Record(data, place=line - 1)
        identify(record, IMAGE_COLUMN if IMAGE_COLUMN in record else "image", None, rows_of_image)
        yield (f"line {line}" if record.image_id is None else record.unique_id), record


def _items_of(place: int, record: Record, expressions: Mapping[str, Expression]) -> Iterator[Item]:
    """The items of a record: each box of its expressions, and each expression without a box."""
    record_doubt = 0.0
    if record.get("suspect_boxes") is True:
        record_doubt += 2.0
    if record.get("doubtful") is True:
        record_doubt += 0.5
    for id, row in expressions.items():
        doubt = record_doubt
        if row.get("disagreement") is True:
            doubt += 1
        if row.get("verified", True) is not True:
            doubt += 1
        text = row["text"]
        head = head_of(text)
        status = str(row.get("status") or ("grounded" if row["instances"] else "pending"))
        if not row["instances"]:
            yield Item(place, id, None, text, head, status, None, doubt + 0.5)
        for box, instance in enumerate(row["instances"]):
            score = float(instance["score"]) if is_number(instance["score"]) else None
            unsure = 0.5 if score is None else 1 - score
            yield Item(place, id, box, text, head, status, score, doubt + unsure)


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
        self._keys = reviewable.keys
        self._decisions = decisions
        self._wanted = wanted
        self._who = who
        self._truths = decisions.standing[who or ""].truths
        if sample is None:
            mine = [item for item in reviewable.items if self._fits(item) and self._is_mine(item)]
            self.why = self._ordered(mine)
        else:
            self.why = dict.fromkeys(sample, "sample")
        self.items = list(self.why)

    def _ordered(self, items: list[Item]) -> dict[Item, str]:
        """The items in their order, and by which rule each is where it is.

        Behind each four that are there by the order that is wanted stands one by chance.
        """
        order = self._wanted["order"]
        is_filtered = any(value for name, value in self._wanted.items() if name != "order")
        by_order = "filter" if is_filtered else order
        by_chance = "filter" if is_filtered else "random"
        shuffled = random.Random("queue").sample(items, len(items))
        lucky = shuffled if order == "random" else shuffled[: len(items) // RANDOM_EVERY]
        ordered = sorted(items, key=lambda item: -item.doubt) if order == "doubt" else items
        why: dict[Item, str] = {}
        unlucky = filterfalse(set(lucky).__contains__, ordered)
        left = iter(lucky)
        while batch := list(islice(unlucky, RANDOM_EVERY - 1)):
            why.update(dict.fromkeys(batch, by_order))
            why.update(dict.fromkeys(islice(left, 1), by_chance))
        why.update(dict.fromkeys(left, by_chance))
        return why

    def _fits(self, item: Item) -> bool:
        """Whether it passes all filters that are set."""
        wanted = self._wanted
        if wanted["status"] and item.status != wanted["status"]:
            return False
        if wanted["text"] and wanted["text"].casefold() not in item.text.casefold():
            return False
        if wanted["head"] and item.head != wanted["head"]:
            return False
        if not wanted["below"]:
            return True
        return item.score is not None and item.score < float(wanted["below"])

    def _is_mine(self, item: Item) -> bool:
        """For a second review, whether another decided it, and it is among the few to look at."""
        if self._who is None:
            return True
        key = self._keys[item.record]
        # by its name and not by lot: the same few, whoever asks
        digest = sha256(f"{key} {item.id}".encode("utf-8", "replace")).hexdigest()
        is_chosen = int(digest[:8], 16) % BLIND_OF == 0
        return is_chosen and self._decisions.by.get((key, item.id), self._who) != self._who

    def after(self, place: int, most: int) -> tuple[list[Item], int]:
        """Up to so many items from a place on that nobody has decided, and the place after them."""
        undecided: list[Item] = []
        next_place = len(self.items)
        for number in range(place, len(self.items)):
            if len(undecided) == most:
                break
            if not self._is_decided(self.items[number]):
                undecided.append(self.items[number])
                next_place = number + 1
        return undecided, next_place

    def page(self, most: int) -> list[Item]:
        """The next boxes that nobody decided: of one thing, or of several where there are few.

        Each fifth is there by chance.
        """
        by_chance = (
            item for item, why in self.why.items() if why == "random" and item.box is not None
        )
        drawn = list(islice(filterfalse(self._is_decided, by_chance), most // RANDOM_EVERY))
        undecided = filterfalse(self._is_decided, self._by_head)
        others = (item for item in undecided if item not in drawn)
        page = [*islice(others, most - len(drawn)), *drawn]
        return sorted(page, key=lambda item: item.head)

    def told(self, items: Iterable[Item]) -> list[dict[str, Any]]:
        """The items as the page has them."""
        return [{"why": self.why[item], **item._asdict()} for item in items]

    def left(self) -> int:
        """How many nobody has decided."""
        decided = 0
        for item in self.items:
            if self._keys[item.record] in self._truths and self._is_decided(item):
                decided += 1
        return len(self.items) - decided

    @cached_property
    def _by_head(self) -> list[Item]:
        """The boxes by what their phrases name, the most doubtful things first, each by phrase."""
        groups = defaultdict[str, list[Item]](list)
        for item in self.items:
            if item.box is not None:
                groups[item.head].append(item)
        worst_first = sorted(groups.values(), key=lambda group: -sum(item.doubt for item in group))
        boxes: list[Item] = []
        for group in worst_first:
            boxes.extend(sorted(group, key=lambda item: item.text.casefold()))
        return boxes

    def _is_decided(self, item: Item) -> bool:
        """Whether a reviewer judged it, deleted it, or put something else in its place."""
        truth = self._truths.get(self._keys[item.record], {}).get(item.id)
        if truth is None or item.text not in truth.texts():  # it is of another run's phrase
            return False
        judged = truth.expression if item.box is None else truth.box(item.box)
        return judged is None or bool(judged.get("reviewed_by"))

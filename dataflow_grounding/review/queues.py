"""What is reviewed, in which order: boxes of a file of records, and phrases without boxes."""

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from hashlib import blake2b
from heapq import nsmallest
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.paths import absolute, is_absolute
from dataflow_grounding._util.rows_on_disk import RowsOnDisk
from dataflow_grounding.data.classes import class_key, class_of
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.data.pictures import pictures
from dataflow_grounding.data.records import (
    DOUBT,
    Record,
    is_number,
    path_of,
    was_checked,
)
from dataflow_grounding.data.remarks import Remarks
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.rows import read_unbroken_rows
from dataflow_grounding.data.spans import caption_of_spans
from dataflow_grounding.engine.source import identify
from dataflow_grounding.formats.selection import status_of
from dataflow_grounding.review._decisions import Decisions, RecordReview, review_files
from dataflow_grounding.review._names import PictureName, file_name
from dataflow_grounding.review._overlay import Outcome, reviewer_verdict
from dataflow_grounding.review._record_view import (
    Expression,
    boxes_of_same_thing,
    expressions_of,
    picture_column,
)

T = TypeVar("T")

RANDOM_EVERY = 5
"""Every fifth item is drawn at random, in any order: only those give an error rate."""
SHOW_VALUES = ("", "empty", "rejected", "mend", "mine", "all")
"""Which items are shown.

- "": those that nobody has decided
- `empty`: of these, the phrases without boxes
- `rejected`: those that a reviewer found wrong
- `mend`: of these, those for which nobody has drawn a box yet
- `mine`: those that the reviewer of this page has decided
- `all`: all that nobody has deleted
"""
_RARE_REMARK = 6.0
"""How doubtful a record is by a remark that is rare: more than by all else."""
_DOUBT_WITHOUT_SCORE = 0.5  # of a box or phrase: the same as with a score of 0.5


class Item(NamedTuple):
    """What is decided on at once: a box, or a phrase that has none."""

    record: int  # its index
    id: str  # of the expression
    box: int | None  # its index; None for a phrase without a box
    text: str
    head: str  # the class where the phrase states one, else its head noun: "cup" for "a red cup"
    status: str
    score: float | None
    doubt: float  # how soon it is to be looked at
    number: int = 0  # made of its name, by which samples are drawn
    # The boxes of the same thing that other phrases of the class have: id, index and phrase of
    # each. They are judged with this one, the surest.
    also: tuple[tuple[str, int, str], ...] = ()


class Reviewable:
    """The pictures of RESULTS, kept in a temporary file, and what there is to decide in them.

    All records of a picture are one, with each phrase once and the boxes of all.
    """

    def __init__(self, results: str, image_root: str | None = None) -> None:
        self.files = review_files(results)
        self.decisions = Decisions(self.files.decisions)
        # The folder of pictures that the user named, as reviews.jsonl states it.
        self.stated_root = _stated_root(image_root, self.files.decisions) if image_root else None
        self.folders = image_folders_of(results, image_root)
        self.keys: list[str] = []  # what the page calls each record
        self.index_of: dict[str, int] = {}  # a record's index, by its key
        self.file_names: list[str] = []  # of each record's picture
        self.items: list[Item] = []
        self.unread: list[str] = []  # a line for each record whose phrases can't be read
        self._rows = RowsOnDisk()
        self._row_of_index: dict[int, int] = {}  # where it isn't the index: of joined records
        self._reviews: dict[int, RecordReview] = {}  # of records that were decided on, by index
        self._lines_known = len(self.decisions.lines)
        self._read_records()

    def _read_records(self) -> None:
        remarks = Remarks()
        remarks_by_index: dict[int, tuple[str, ...]] = {}
        # The index of each picture's first record, by a hash of its path: that takes little memory.
        index_of_picture: dict[int, int] = {}
        further = defaultdict[int, list[Record]](
            list
        )  # records of a picture that has one, by index
        for key, record in records_with_keys(self.files.annotations, self.folders):
            path = path_of(record)
            index = index_of_picture.get(hash(path)) if path else None
            if index is None:
                index = len(self.keys)
                if path:
                    index_of_picture[hash(path)] = index
                self._add(index, key, record)
            else:
                further[index].append(record)
                self.index_of[key] = index
            of_record = remarks.add(record)
            if of_record:
                remarks_by_index[index] = tuple(of_record)
        self._join(further)
        # Which remarks are rare is known once all were counted.
        rare_records = {index for index, said in remarks_by_index.items() if remarks.is_rare(said)}
        for position, item in enumerate(self.items):
            if item.record in rare_records:  # its items come first in the order of doubt
                self.items[position] = item._replace(doubt=item.doubt + _RARE_REMARK)

    def _add(self, index: int, key: str, record: Record) -> None:
        self.keys.append(key)
        self.index_of[key] = index
        self.file_names.append(file_name(path_of(record)))
        self._store(record)
        self._find_items(index, record)

    def _store(self, record: Record) -> None:
        # All that `record` needs to make the record from it.
        self._rows.append({"id": record.image_id, "of": record.occurrence, "row": {**record}})

    def _find_items(self, index: int, record: Record) -> None:
        try:
            expressions = expressions_of(record)
        except BrokenRow as why:  # the record has no items; its page says why, too
            self.unread.append(f"record {index + 1}: {why}")
            return
        self.items += _items_of(index, record, expressions)
        if not self.decisions.lines:
            return
        review = self.decisions.review_of(record, expressions)
        if review.decisions:
            self._reviews[index] = review

    def _join(self, further: Mapping[int, list[Record]]) -> None:
        """Make the records of each picture one."""
        if not further:
            return
        self.items = [item for item in self.items if item.record not in further]
        for index, records in further.items():
            joined = _joined([self.record(index), *records])
            self._row_of_index[index] = len(self._rows)
            self._store(joined)
            self._reviews.pop(index, None)
            self._find_items(index, joined)
        self.items.sort(key=lambda item: item.record)

    def refresh(self) -> None:
        """Take in what others have decided since the last call."""
        self.decisions.refresh()
        lines = self.decisions.lines
        changed = {self.index_of.get(str(line["record"])) for line in lines[self._lines_known :]}
        self._lines_known = len(lines)
        for index in changed:
            if index is not None:
                self._reviews[index] = self._review_now(index)

    def _review_now(self, index: int) -> RecordReview:
        try:
            return self.decisions.review_of(self.record(index))
        except BrokenRow:
            return RecordReview({})

    def decided_records(self) -> list[int]:
        self.refresh()
        return list(self._reviews)

    def review_of(self, index: int) -> RecordReview:
        if self._lines_known < len(self.decisions.lines):
            self.refresh()
        return self._reviews.get(index, RecordReview({}))

    def record(self, index: int) -> Record:
        """Return a record as the pipeline wrote it; from any thread."""
        stored = self._rows[self._row_of_index.get(index, index)]
        return Record(
            stored["row"],
            self.folders,
            occurrence=stored["of"],
            image_id=stored["id"],
            place=index,
        )

    def draw_sample(self, size: int, seed: int) -> tuple[dict[str, Any], list[Item]]:
        """Draw items by a seed; return what reviews.jsonl states of the sample, and its items.

        The order of records makes no difference, and of items that are as they were the same are
        drawn in a file that a later run wrote.
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
        # Each item has a number by the seed and its name; those with the least are drawn.
        numbers: list[tuple[bytes, int]] = []
        for place, item in enumerate(self.items):
            by_seed = blake2b(f"{seed} {item.number}".encode(), digest_size=8).digest()
            numbers.append((by_seed, place))
        drawn = [self.items[place] for _, place in nsmallest(size, numbers)]
        box_count = sum(item.box is not None for item in self.items)
        stated = {
            "size": len(drawn),
            "seed": seed,
            "of": {"boxes": box_count, "phrases_without_boxes": len(self.items) - box_count},
            "items": self._names_of(drawn),
        }
        return stated, drawn

    def _names_of(self, items: Sequence[Item]) -> list[list[Any]]:
        """Return items' names: each its picture's, phrase, and corners; None without a box."""
        names: dict[Item, list[Any]] = {}
        index_of_record = attrgetter("record")
        # a record is read once for all its items, of which it may have thousands
        for index, of_record in groupby(sorted(items, key=index_of_record), index_of_record):
            record = self.record(index)
            picture = PictureName.of_record(record).name
            expressions = expressions_of(record)
            for item in of_record:
                boxes = expressions[item.id]["instances"]
                corners = None if item.box is None else list(boxes[item.box]["bbox"])
                names[item] = [picture, item.text, corners]
        return [names[item] for item in items]

    def named(self, item: Item) -> list[str | int | None]:
        """Return where an item is, for people: ["a.jpg", "a.jpg#0", 1], None without a box."""
        return [self.keys[item.record], item.id, item.box]


def _joined(records: Sequence[Record]) -> Record:
    """Return one record of a picture, with each phrase once and the boxes of all that have it."""
    caption = caption_of_spans(records[0])
    rows: list[dict[str, Any]] = []
    for record in records:
        own = [*expressions_of(record).values()]
        if caption_of_spans(record) != caption:  # a place in another caption
            own = [{**row, "char_span": None, "caption_span": None} for row in own]
        rows.append({**record, "expressions": own})
    [whole] = pictures(rows, lambda _: "this picture")
    own_count = len(rows[0]["expressions"])
    joined = whole["expressions"][:own_count]  # where a phrase may be twice, at two places
    first_of_text: dict[str, dict[str, Any]] = {}
    for row in joined:
        first_of_text.setdefault(row["text"], row)
    for row in whole["expressions"][own_count:]:
        same = first_of_text.setdefault(row["text"], row)
        if same is row:
            joined.append(row)
            continue
        corners = [box["bbox"] for box in same["instances"]]
        boxes = [box for box in row["instances"] if box["bbox"] not in corners]
        if boxes:
            same |= {"instances": [*same["instances"], *boxes], "status": "grounded"}
    return records[0].updated({"expressions": joined})


def _stated_root(image_root: str, decisions: str) -> str:
    if is_absolute(image_root):
        return absolute(image_root)
    # Relative to the file of decisions, so that it may be moved together with the pictures.
    return os.path.relpath(image_root, os.path.dirname(decisions) or ".")


def records_with_keys(
    annotations: str, folders: Sequence[str] | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield each record of a file after its key: its id, `ID@2` for a second row, or `line N`."""
    if folders is None:
        folders = image_folders_of(annotations)
    rows_of_image = NumberTable()  # how many rows each image had so far: `identify` counts them
    for line, data in read_unbroken_rows(annotations):
        record = Record(data, tuple(folders), place=line - 1)
        # Sets the record's `image_id`, and which row of its image it is.
        identify(record, picture_column(record), image_root=None, rows_of_image=rows_of_image)
        if record.image_id is None:
            yield f"line {line}", record
        else:
            yield record.unique_id, record


def _items_of(
    record_index: int, record: Record, expressions: Mapping[str, Expression]
) -> Iterator[Item]:
    doubts = _doubts_of(record, expressions)
    same_thing = boxes_of_same_thing(expressions)
    record_name = record.unique_id
    for id, row in expressions.items():
        text = row["text"]
        name = f"{record_name} {text}"
        head = class_of(row) if "class" in row else head_of(text)
        item_of_phrase = partial(
            Item, record=record_index, id=id, text=text, head=head, status=status_of(row)
        )
        if not row["instances"]:
            number = crc32(name.encode("utf-8", "surrogatepass"))
            yield item_of_phrase(box=None, score=None, doubt=doubts[id, None], number=number)
        for index, instance in enumerate(row["instances"]):
            own_box = (id, index)
            boxes_of_thing = same_thing.get(own_box, [own_box])  # the surest one first
            surest, *others = boxes_of_thing
            if surest != own_box:  # it is no item: the item of the surest has it in `also`
                continue
            score = instance["score"]
            yield item_of_phrase(
                box=index,
                number=crc32(f"{name} {instance['bbox']}".encode("utf-8", "surrogatepass")),
                score=float(score) if is_number(score) else None,
                doubt=max(doubts[box] for box in boxes_of_thing),
                also=tuple((other, place, expressions[other]["text"]) for other, place in others),
            )


def _doubts_of(
    record: Record, expressions: Mapping[str, Expression]
) -> dict[tuple[str, int | None], float]:
    """Return doubts by ("a.jpg#0", 1), an expression's id and a box; None for one without a box."""
    record_doubt = 0.0
    if record.get("suspect_boxes") is True:
        record_doubt += 2.0
    if record.get("doubtful") is True:
        record_doubt += 0.5
    doubts: dict[tuple[str, int | None], float] = {}
    for id, row in expressions.items():
        doubt = record_doubt + _doubt_of_phrase(row)
        if not row["instances"]:
            doubts[id, None] = doubt + _DOUBT_WITHOUT_SCORE
        for index, instance in enumerate(row["instances"]):
            score = instance["score"]
            doubt_of_score = 1 - float(score) if is_number(score) else _DOUBT_WITHOUT_SCORE
            doubts[id, index] = doubt + doubt_of_score
    return doubts


def _doubt_of_phrase(row: Expression) -> float:
    doubt = 0.0
    if row.get("disagreement") is True:
        doubt += 1
    if was_checked(row) and row.get("verified") is not True:
        doubt += 1
    if row.get(DOUBT):
        doubt += 0.5
    return doubt


def _with_one_after_every_four(items: Iterable[T], drawn: Iterable[T]) -> Iterator[T]:
    drawn_left = iter(drawn)
    for count, item in enumerate(items, 1):
        yield item
        if count % (RANDOM_EVERY - 1) == 0:
            yield from islice(drawn_left, 1)


class Undecided(NamedTuple):
    """How many boxes and phrases of a queue nobody has decided, and how many there are."""

    boxes: int
    all_boxes: int
    phrases: int
    all_phrases: int


class Queue:
    """Items in the order in which a page shows them; the decisions at a call tell which are shown.

    `wanted` has `order` and `show`, and the filters `status`, `text`, `head`, `below` (a score; a
    ValueError for what is no number) and `record` (a part of the record's id or of its file's
    name). "" sets no filter.
    """

    def __init__(
        self,
        reviewable: Reviewable,
        wanted: Mapping[str, str],
        sample: Sequence[Item] | None = None,
        who: str = "",
    ) -> None:
        self._reviewable = reviewable
        self._wanted = wanted
        self._who = who
        self._show = wanted.get("show") or ""
        if wanted.get("record") and not self._show:
            self._show = "all"  # a user who names a record wants to see it even if it is decided
        self._wanted_records = self._records_named()
        candidates = reviewable.items if sample is None else sample
        fitting = [item for item in candidates if self._passes_filters(item)]
        # By item, how it got its place: `sample`, `filter`, `random`, `doubt` or `file`.
        if sample is None:
            self.why = self._reasons_in_order(fitting)
        else:  # a sample keeps its own order
            self.why = dict.fromkeys(fitting, "sample")
        self.items = list(self.why)

    def _records_named(self) -> set[int] | None:
        """Return the records that the filter `record` finds; None where it isn't set."""
        words = (self._wanted.get("record") or "").strip().casefold()
        if not words:
            return None
        indices = set()
        keys_and_names = zip(self._reviewable.keys, self._reviewable.file_names, strict=True)
        for index, (key, name) in enumerate(keys_and_names):
            if words in key.casefold() or words in name.casefold():
                indices.add(index)
        return indices

    def _reasons_in_order(self, items: list[Item]) -> dict[Item, str]:
        """Return items in the order that is wanted, each with why it is there."""
        order = self._wanted["order"]
        why_ordered = order
        why_drawn = "random"
        is_filtered = any(value for name, value in self._wanted.items() if name != "order")
        if is_filtered:
            # Those drawn are of a part of the file: they must not count in its error rate, as
            # items do that have the reason `random`.
            why_ordered = "filter"
            why_drawn = "filter"
        shuffled = random.Random("queue").sample(items, len(items))  # the same each time
        if order == "random":  # all items count as drawn
            return dict.fromkeys(shuffled, why_drawn)
        drawn = shuffled[: len(items) // RANDOM_EVERY]
        all_drawn = set(drawn)
        not_drawn = [item for item in items if item not in all_drawn]
        if order == "doubt":  # else the items are in the file's order already
            not_drawn.sort(key=lambda item: -item.doubt)
        ordered = ((item, why_ordered) for item in not_drawn)
        at_random = ((item, why_drawn) for item in drawn)
        return dict(_with_one_after_every_four(ordered, at_random))

    def _passes_filters(self, item: Item) -> bool:
        wanted = self._wanted
        if self._wanted_records is not None and item.record not in self._wanted_records:
            return False
        if wanted["status"] and item.status != wanted["status"]:
            return False
        phrases = (item.text, *[text for _, _, text in item.also])
        words = wanted["text"].casefold()  # "" is in any phrase
        if not any(words in phrase.casefold() for phrase in phrases):
            return False
        if wanted["head"] and class_key(item.head) != class_key(wanted["head"]):
            return False
        if wanted["below"]:  # an item without a score is below none
            return item.score is not None and item.score < float(wanted["below"])
        return True

    def items_after(self, start: int, most: int) -> tuple[list[Item], int]:
        return self._next_shown(self.items, start, most)

    def page_after(self, start: int, most: int) -> tuple[list[Item], int]:
        """Return up to `most` shown items for a page of the grid, and `start` of the next page.

        `start` is an index in the order of pages, not in `items`. The show `empty` has pages of
        phrases without a box, all others have pages of boxes.
        """
        if self._show == "empty":
            return self._next_shown(self._phrases_by_record, start, most)
        boxes, next_start = self._next_shown(self._boxes_of_pages, start, most)
        # On the page, a box that was drawn at random is among those of its noun.
        return sorted(boxes, key=lambda item: item.head), next_start

    def _next_shown(self, items: Sequence[Item], start: int, most: int) -> tuple[list[Item], int]:
        """Return up to `most` shown items from `start` on, and where the next call starts."""
        shown: list[Item] = []
        next_start = len(items)
        for index in range(start, len(items)):
            if len(shown) == most:
                break
            if self._is_shown(items[index]):
                shown.append(items[index])
                next_start = index + 1
        return shown, next_start

    def as_json(self, items: Iterable[Item]) -> list[dict[str, Any]]:
        return [{"why": self.why[item], **item._asdict()} for item in items]

    def count_undecided(self) -> Undecided:
        decided = [item for item in self._items_with_decisions() if self._is_decided(item)]
        decided_boxes = sum(item.box is not None for item in decided)
        decided_phrases = len(decided) - decided_boxes
        all_phrases = len(self.items) - self._box_count
        return Undecided(
            self._box_count - decided_boxes,
            self._box_count,
            all_phrases - decided_phrases,
            all_phrases,
        )

    def count_shown(self) -> int:
        if self._show == "all":
            deleted = sum(not self._is_there(item) for item in self._items_with_decisions())
            return len(self.items) - deleted
        if self._show == "empty":
            return self.count_undecided().phrases
        if self._show == "":
            undecided = self.count_undecided()
            return undecided.phrases + undecided.boxes
        # The other shows have nothing but what was decided.
        return sum(map(self._is_shown, self._items_with_decisions()))

    def count_to_mend(self) -> int:
        return sum(map(self._is_to_mend, self._items_with_decisions()))

    def _items_with_decisions(self) -> Iterator[Item]:
        for index in self._reviewable.decided_records():  # the others may be millions
            yield from self._items_of_record.get(index, ())

    @cached_property
    def _items_of_record(self) -> Mapping[int, list[Item]]:
        items = defaultdict[int, list[Item]](list)
        for item in self.items:
            items[item.record].append(item)
        return items

    @cached_property
    def _box_count(self) -> int:
        return sum(item.box is not None for item in self.items)

    @cached_property
    def _boxes_of_pages(self) -> list[Item]:
        placed: dict[int, Item] = {}  # by identity: an item's hash takes longer
        drawn = (
            item
            for item, why in self.why.items()
            # A box that has come with its noun by then needs no turn.
            if why == "random" and item.box is not None and id(item) not in placed
        )
        for item in _with_one_after_every_four(self._boxes_by_noun, drawn):
            placed.setdefault(id(item), item)  # else its turn as a drawn one came first
        return list(placed.values())

    @cached_property
    def _boxes_by_noun(self) -> list[Item]:
        """The boxes of the noun with the largest sum of doubts come first."""
        groups = defaultdict[str, list[Item]](list)
        for item in self.items:
            if item.box is not None:
                groups[item.head].append(item)
        worst_first = sorted(groups.values(), key=lambda group: -sum(item.doubt for item in group))
        boxes: list[Item] = []
        for group in worst_first:
            boxes.extend(sorted(group, key=lambda item: item.text.casefold()))
        return boxes

    @cached_property
    def _phrases_by_record(self) -> list[Item]:
        phrases: list[Item] = []
        for items in self._items_of_record.values():
            phrases += [item for item in items if item.box is None]
        return phrases

    def _is_shown(self, item: Item) -> bool:
        if self._show == "all":
            return self._is_there(item)
        if self._show == "mine":
            return self._is_mine(item) and self._is_there(item)
        if self._show == "rejected":
            return self._is_rejected(item)
        if self._show == "mend":
            return self._is_to_mend(item)
        if self._show == "empty":
            return item.box is None and not self._is_decided(item)
        return not self._is_decided(item)  # the show is ""

    def _is_rejected(self, item: Item) -> bool:
        left = self._as_reviewers_left(item)
        return left is not None and reviewer_verdict(left) is False

    def _is_to_mend(self, item: Item) -> bool:
        outcome = self._outcome_of(item)
        if outcome is None or not self._is_rejected(item):
            return False
        # A phrase without a box always needs one; a box, while its phrase has more rejected ones
        # than added ones.
        return item.box is None or outcome.boxes_to_draw() > 0

    def _is_decided(self, item: Item) -> bool:
        others = [item._replace(id=id, box=box) for id, box, _ in item.also]
        # A review judges all boxes of a thing together. But a later run may find the thing for one
        # more phrase, whose box nobody has judged then.
        for box_of_thing in (item, *others):
            left = self._as_reviewers_left(box_of_thing)
            if left is not None and reviewer_verdict(left) is None:
                return False
        return True

    def _is_there(self, item: Item) -> bool:
        return self._as_reviewers_left(item) is not None

    def _is_mine(self, item: Item) -> bool:
        outcome = self._outcome_of(item)  # names only who decided last on the phrase
        return outcome is not None and outcome.who == self._who and self._is_decided(item)

    def _as_reviewers_left(self, item: Item) -> Mapping[str, Any] | None:
        """Return the item's columns as the decisions leave them; None if it was deleted."""
        outcome = self._outcome_of(item)
        if outcome is None:
            return {}  # nobody has decided on its phrase: it has no verdict
        if item.box is None or outcome.after is None:
            return outcome.after
        index = outcome.index_after(item.box)
        if index is None:
            return None
        box: Mapping[str, Any] = outcome.after["instances"][index]
        return box

    def _outcome_of(self, item: Item) -> Outcome | None:
        return self._reviewable.review_of(item.record).outcomes.get(item.id)

"""What is reviewed: boxes of a file of records, and phrases without boxes."""

import os
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from heapq import nsmallest
from typing import Any, NamedTuple
from zlib import crc32

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import absolute, is_absolute
from dataflow_grounding._util.rows_on_disk import RowsOnDisk
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import Record, caption_of_spans, path_of
from dataflow_grounding.data.remarks import Remarks
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.rows import read_unbroken_rows
from dataflow_grounding.engine.source import RowsOfImage, identify
from dataflow_grounding.review._acts import Review
from dataflow_grounding.review._decisions import Decisions, Sample, review_files
from dataflow_grounding.review._index import Index, Item, items_of, marks_of
from dataflow_grounding.review._names import PictureName
from dataflow_grounding.review._overlay import Outcome, reviewer_verdict
from dataflow_grounding.review._record_view import (
    OTHER_CAPTIONS,
    Phrases,
    expressions_of,
    known_classes,
    phrases_of,
    picture_column,
)
from dataflow_grounding.review._report_files import script_json

_RARE_REMARK = 600
"""How doubtful a record is by a remark that is rare: more than by all else."""
_DOUBT_WITHOUT_SCORE = 50  # of a box or phrase: the same as with a score of 0.5


class Place(NamedTuple):
    """An item of a file of records."""

    record: int  # its index
    item: Item


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
        self.index = Index(known_classes(self.files.annotations))
        self.rows: list[str] = []  # of the index, in JSON; the last cell has a doubt for each item
        self.unread: dict[int, str] = {}  # why a record's phrases can't be read
        # Of each record a number for each item by its name, by which samples are drawn; the lowest
        # bit says whether it is a box.
        self._numbers: list[array[int]] = []
        self._further_boxes: dict[int, int] = {}  # by record, of things that have a surer box
        self._records = RowsOnDisk()
        self._row_of_index: dict[int, int] = {}  # where it isn't the index: of joined records
        # of records that were decided on, by index, what became of their phrases
        self._outcomes: dict[int, dict[str, Outcome]] = {}
        self._items_decided: dict[int, list[Item]] = {}  # of these records
        self._lines_known = len(self.decisions.lines)
        self._read_records()

    def _read_records(self) -> None:
        remarks = Remarks()
        remarks_by_index: dict[int, tuple[str, ...]] = {}
        # The index of each picture's first record, by a hash of its path: that takes little memory.
        index_of_picture: dict[int, int] = {}
        # by index, further records of a picture that has one
        further = defaultdict[int, list[Record]](list)
        for key, record in records_with_keys(self.files.annotations, self.folders):
            path = path_of(record)
            index = index_of_picture.get(hash(path)) if path else None
            # One that can't be read is shown by itself, and says why.
            if index is None or phrases_of(record).problem:
                index = len(self.keys)
                self.keys.append(key)
                self.rows.append("")
                self._numbers.append(array("Q"))
                self._store(record)
                self._take(index, record)
                if path and index not in self.unread:
                    index_of_picture[hash(path)] = index
            else:
                further[index].append(record)
            self.index_of[key] = index
            of_record = remarks.add(record)
            if of_record:
                remarks_by_index[index] = tuple(of_record)
        for index, records in further.items():
            joined = _joined([self.record(index), *records])
            self._row_of_index[index] = len(self._records)
            self._store(joined)
            self._take(index, joined)
        # Which remarks are rare is known once all were counted.
        for index, said in remarks_by_index.items():
            if remarks.is_rare(said):
                self._take(index, self.record(index), is_unusual=True)

    def _store(self, record: Record) -> None:
        # All that `record` needs to make the record from it.
        self._records.append({"id": record.image_id, "of": record.occurrence, "row": {**record}})

    def _take(self, index: int, record: Record, is_unusual: bool = False) -> None:
        phrases = phrases_of(record)
        if phrases.problem:  # the record has no items; its page says why, too
            self.unread[index] = phrases.problem
        marks = marks_of(record, phrases)
        if is_unusual:
            marks.add("unusual")
        items = list(items_of(phrases))
        doubts = _doubts_of(record, phrases, items)
        if is_unusual:  # its items come first in the order of doubt
            doubts = [doubt + _RARE_REMARK for doubt in doubts]
        row = self.index.row_of(record, phrases, marks)
        self.rows[index] = script_json([*row, doubts])
        self._numbers[index] = array("Q", _numbers_of(record, phrases, items))
        others = sum(len(item.also) for item in items)
        if others:
            self._further_boxes[index] = others
        self._outcomes.pop(index, None)
        if self.decisions.lines:
            self._take_review(index, record, phrases)

    def _take_review(self, index: int, record: Record, phrases: Phrases) -> None:
        if phrases.problem:
            return
        review = self.decisions.review_of(record, phrases.rows)
        if review.decisions:
            self._outcomes[index] = review.outcomes
            self._items_decided[index] = list(items_of(phrases))

    @property
    def further_boxes(self) -> int:
        """How many boxes are shown with another one of their thing."""
        return sum(self._further_boxes.values())

    def refresh(self) -> None:
        """Take in what others have decided since the last call."""
        self.decisions.refresh()
        lines = self.decisions.lines
        changed = {self.index_of.get(line.record) for line in lines[self._lines_known :]}
        self._lines_known = len(lines)
        for index in changed:
            if index is not None:
                record = self.record(index)
                self._take_review(index, record, phrases_of(record))

    def review_of(self, index: int) -> Review:
        """Return what holds on a record by now. Raises BrokenRow for one that can't be read."""
        return self.decisions.review_of(self.record(index))

    def decided(self, who: str, since: int = 0) -> dict[int, str]:
        """Return what is decided by now of the items of records, from line `since` on.

        By index of a record, a letter for each item: `-` open, `r` right, `w` wrong, `m` wrong with
        no box drawn for it yet, `g` gone; a capital where `who` decided last on its phrase.
        """
        self.refresh()
        indices = {*self._outcomes}
        if since:
            lines = self.decisions.lines[since:]
            indices = {self.index_of.get(line.record, -1) for line in lines}
        letters = {}
        for index in indices:
            if index in self._outcomes:
                outcomes = self._outcomes[index]
                items = self._items_decided[index]
                letters[index] = "".join(_letter_of(item, outcomes, who) for item in items)
        return letters

    def record(self, index: int) -> Record:
        """Return a record as the pipeline wrote it; from any thread."""
        stored = self._records[self._row_of_index.get(index, index)]
        return Record(
            stored["row"],
            self.folders,
            occurrence=stored["of"],
            image_id=stored["id"],
            place=index,
        )

    def count(self) -> tuple[int, int]:
        """Return how many boxes there are to decide on, and how many phrases without one."""
        boxes = sum(number & 1 for numbers in self._numbers for number in numbers)
        return boxes, sum(map(len, self._numbers)) - boxes

    def draw_sample(self, size: int, seed: int) -> tuple[Sample, list[Place]]:
        """Draw items by a seed; return the sample as reviews.jsonl states it, and its items.

        The order of records makes no difference, and of items that are as they were the same are
        drawn in a file that a later run wrote.
        """
        annotations = self.files.annotations
        if self.unread:
            (index, why), *others = self.unread.items()
            more = f" ({1 + len(others)} such records)" if others else ""
            raise InputError(
                f"{annotations}, record {index + 1}: {why}{more}: mend it or take it out, as no"
                " sample can be drawn of what can't be seen"
            )
        drawn = nsmallest(size, self._in_lots(seed))
        if not drawn:
            raise InputError(f"{annotations} has no phrase and no box to draw a sample of")
        named: dict[tuple[int, int], tuple[list[Any], Place]] = {}
        for index in {index for _, index, _ in drawn}:  # a record is read once for all its items
            record = self.record(index)
            picture = PictureName.of_record(record).name
            phrases = phrases_of(record)
            for number, item in enumerate(items_of(phrases)):
                row = phrases.rows[item.id]
                corners = None if item.box is None else list(row.instances[item.box].bbox)
                named[index, number] = ([picture, row.text, corners], Place(index, item))
        names, places = zip(*[named[index, number] for _, index, number in drawn], strict=True)
        boxes, without_box = self.count()
        of = {"boxes": boxes, "phrases_without_boxes": without_box}
        return Sample(len(drawn), seed, of, [*names], self.stated_root), [*places]

    def _in_lots(self, seed: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield a lot for each item by the seed and its name, its record, and which item it is."""
        for index, numbers in enumerate(self._numbers):
            for place, number in enumerate(numbers):
                lot = blake2b(f"{seed} {number >> 1}".encode(), digest_size=8).digest()
                yield lot, index, place

    def named(self, place: Place) -> list[str | int | None]:
        """Return where an item is, for people: ["a.jpg", "a.jpg#0", 1], None without a box."""
        return [self.keys[place.record], place.item.id, place.item.box]


def _joined(records: Sequence[Record]) -> Record:
    """Return one record of a picture, with each phrase once and the boxes of all that have it."""
    caption = caption_of_spans(records[0])
    joined = [*expressions_of(records[0]).values()]  # where a phrase may be twice, at two places
    first_of_text: dict[str, Expression] = {}
    for row in joined:
        first_of_text.setdefault(row.text, row)
    for record in records[1:]:
        for row in expressions_of(record).values():
            if caption_of_spans(record) != caption:  # a place in another caption
                row = row.with_null("char_span", "caption_span")
            same = first_of_text.setdefault(row.text, row)
            if same is row:
                joined.append(row)
                continue
            corners = [box.bbox for box in same.instances]
            boxes = [box for box in row.instances if box.bbox not in corners]
            if boxes:
                same.instances = [*same.instances, *boxes]
                same.status = "grounded"
    others = [caption_of_spans(record) for record in records[1:]]
    captions = [text for text in dict.fromkeys(others) if text and text != caption]
    rows = [row.to_json() for row in joined]
    return records[0].updated({"expressions": rows, OTHER_CAPTIONS: captions})


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
    rows_of_image: RowsOfImage = {}
    for line, data in read_unbroken_rows(annotations):
        record = Record(data, tuple(folders), place=line - 1)
        # Sets the record's `image_id`, and which row of its image it is.
        identify(record, picture_column(record), image_root=None, rows_of_image=rows_of_image)
        if record.image_id is None:
            yield f"line {line}", record
        else:
            yield record.unique_id, record


def _numbers_of(record: Record, phrases: Phrases, items: Sequence[Item]) -> Iterator[int]:
    for item in items:
        row = phrases.rows[item.id]
        name = f"{record.unique_id} {row.text}"
        if item.box is not None:
            name += f" {list(row.instances[item.box].bbox)}"
        number = crc32(name.encode("utf-8", "surrogatepass"))
        yield number << 1 | (item.box is not None)


def _doubts_of(record: Record, phrases: Phrases, items: Sequence[Item]) -> list[int]:
    """Return how soon each item is to be looked at, in hundredths."""
    of_record = 0
    if record.get("suspect_boxes") is True:
        of_record += 200
    if record.get("doubtful") is True:
        of_record += 50
    of_phrase: dict[str, int] = {}
    for id, row in phrases.rows.items():
        of_phrase[id] = of_record
        if row.disagreement:
            of_phrase[id] += 100
        if row.was_checked and row.verified is not True:
            of_phrase[id] += 100
        if row.doubt:
            of_phrase[id] += 50
    doubts = []
    for item in items:
        doubt = of_phrase[item.id] + _DOUBT_WITHOUT_SCORE
        if item.box is not None:
            boxes = ((item.id, item.box), *item.also)
            doubt = max(of_phrase[id] + _doubt_of_box(phrases.rows[id], box) for id, box in boxes)
        doubts.append(doubt)
    return doubts


def _doubt_of_box(row: Expression, index: int) -> int:
    score = row.instances[index].score
    return _DOUBT_WITHOUT_SCORE if score is None else round(100 - 100 * score)


def _letter_of(item: Item, outcomes: Mapping[str, Outcome], who: str) -> str:
    """Return what is decided of an item, a letter of `Reviewable.decided`."""
    outcome = outcomes.get(item.id)
    if outcome is None:
        return "-"
    box = _as_left(outcome, item.box)
    if box is None:
        return "g"
    # A review judges all boxes of a thing together. But a later run may find the thing for one more
    # phrase, whose box nobody has judged then.
    for id, index in item.also:
        other = outcomes.get(id)
        left = _as_left(other, index) if other else None
        if other is None or (left is not None and reviewer_verdict(left) is None):
            return "-"
    verdict = reviewer_verdict(box)
    if verdict is None:
        return "-"
    letter = "r"
    if not verdict:
        # A phrase without a box always needs one; a box, while its phrase has more rejected ones
        # than added ones.
        letter = "m" if item.box is None or outcome.boxes_to_draw() > 0 else "w"
    return letter.upper() if outcome.who == who else letter


def _as_left(outcome: Outcome, index: int | None) -> Expression | Instance | None:
    """Return a box, or a phrase, as the decisions leave it; None if it was deleted."""
    if index is None or outcome.after is None:
        return outcome.after
    place = outcome.index_after(index)
    return None if place is None else outcome.after.instances[place]

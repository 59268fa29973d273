"""Figures of each class, where expressions state theirs, as those of `data.classes` do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dataflow_grounding.data.classes import class_key, class_of
from dataflow_grounding.evaluation.metrics._average_precision import AveragePrecision
from dataflow_grounding.evaluation.metrics._measures import (
    is_judged,
    share,
)
from dataflow_grounding.evaluation.metrics.confidence import bootstrap_sums, interval
from dataflow_grounding.evaluation.metrics.pairs import (
    Overlap,
    PairedRecord,
    Row,
    Rules,
    boxes_of,
    boxes_of_things,
    one_to_one,
    overlaps_of,
)

_MOST = 300  # classes, those with most gold boxes: a list of classes has no more


class _Entry(NamedTuple):
    """How many boxes of a class in an image are right, were found, and are gold."""

    image: int
    right: int
    boxes: int
    gold_boxes: int


class _ClassCounts:
    """What was counted of a class in all images."""

    def __init__(self, name: str) -> None:
        self.name = name  # as its first phrase states it: capitals and blanks make no difference
        self.average_precision = AveragePrecision()
        self.found_as = Counter[str]()  # by class_key, how many gold boxes were found as another's
        self.entries: list[_Entry] = []  # one for each image with the class

    @property
    def gold_boxes(self) -> int:
        return sum(entry.gold_boxes for entry in self.entries)

    def sums(self, images: int) -> dict[str, np.ndarray]:
        """Return the columns `right`, `boxes` and `gold_boxes`, with a number for each image."""
        # An array without rows has to be told how many columns it has.
        table = np.array(self.entries, int).reshape(-1, len(_Entry._fields))
        image_of_entry, *columns = table.T
        sums = {}
        for name, column in zip(_Entry._fields[1:], columns, strict=True):
            # Adds the column's numbers by their images; an image without the class has 0.
            sums[name] = np.bincount(image_of_entry, weights=column, minlength=images)
        return sums


class _ClassInImage:
    """The boxes of each phrase of a class in one image."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gold: list[list[Row]] = []
        self.found: list[list[Row]] = []
        self.is_open = False  # whether any gold phrase leaves it open


class ClassFigures:
    """Precision, recall, F1 and AP of each class, as of a detector: by image and class alone.

    All gold boxes of a class in an image are matched with all found ones, of any phrase: one file
    may have a phrase for each box, the other one for all, or other words. If the gold of an image
    doesn't name a class, found boxes of it are wrong: gold of detectors lists all that is there. If
    a gold phrase of a class is open, the class isn't judged in that image.

    If a gold box has no found box of its class on it, but one of another class, it was found as
    that class.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.repeated = 0  # found boxes that don't count: another one is of their thing
        self._by_key: dict[str, _ClassCounts] = {}
        self._image = -1  # the number of the image whose boxes are collected
        self._in_image: dict[str, _ClassInImage] = {}  # these boxes, by class_key

    def add(self, record: PairedRecord) -> None:
        """Take in a record; those of one image have to follow one another."""
        if record.image != self._image:
            self._count_image()
            self._image = record.image
        for gold, found in record.phrases:
            gold_class, found_class = _classes_of_pair(gold, found)
            boxes = self._boxes_of(gold_class)
            boxes.gold.append(gold["instances"])
            if not is_judged(gold):
                boxes.is_open = True
            if found is not None:
                self._boxes_of(found_class).found.append(found["instances"])
        for phrase in record.extra:
            self._boxes_of(class_of(phrase)).found.append(phrase["instances"])

    def _boxes_of(self, name: str) -> _ClassInImage:
        return self._in_image.setdefault(class_key(name), _ClassInImage(name))

    def _count_image(self) -> None:
        """Count the boxes that were collected of an image, and forget them."""
        missed: list[tuple[str, Row]] = []  # gold boxes, each with the name of its class
        wrong: list[tuple[str, Row]] = []  # found ones
        for boxes in self._in_image.values():
            if boxes.is_open:
                # Nothing is right or wrong there. The entry of zeros gives the class a row in the
                # figures, even if it is in no other image.
                entry = _Entry(self._image, right=0, boxes=0, gold_boxes=0)
                self._counts_of(boxes.name).entries.append(entry)
                continue
            missed_of_class, wrong_of_class = self._count_class(boxes)
            missed += [(boxes.name, box) for box in missed_of_class]
            wrong += [(boxes.name, box) for box in wrong_of_class]
        # A missed box of one class and a wrong one of another may be on one thing.
        missed_boxes = [box for _, box in missed]
        wrong_boxes = [box for _, box in wrong]
        for pair in self._right_pairs(wrong_boxes, missed_boxes):
            gold_class, _ = missed[pair.gold]
            found_class, _ = wrong[pair.found]
            self._counts_of(gold_class).found_as[class_key(found_class)] += 1
        self._in_image = {}

    def _count_class(self, boxes: _ClassInImage) -> tuple[list[Row], list[Row]]:
        """Count the boxes of a class in the image; return its missed and its wrong boxes."""
        counts = self._counts_of(boxes.name)
        # All phrases of the class are measured as if they were one, with each thing's box once.
        gold = boxes_of_things(boxes.gold)
        found = boxes_of_things(boxes.found)
        found_with_repeats = sum(len(instances) for instances in boxes.found)
        self.repeated += found_with_repeats - len(found)
        pairs = self._right_pairs(found, gold)
        counted = self._rules.counted_boxes({"instances": found})
        counts.entries.append(_Entry(self._image, len(pairs), len(counted), len(gold)))
        counts.average_precision.add({"instances": gold}, {"instances": found}, self._image)
        matched_gold = {pair.gold for pair in pairs}
        matched_found = {pair.found for pair in pairs}
        missed = [box for index, box in enumerate(gold) if index not in matched_gold]
        wrong = [box for index, box in enumerate(found) if index not in matched_found]
        return missed, wrong

    def _right_pairs(self, found: list[Row], gold: list[Row]) -> list[Overlap]:
        """Return which found box is right, and on which gold box."""
        # `Rules` and `boxes_of` take phrases, so each side's boxes are made a phrase.
        found_phrase = {"instances": found}
        gold_phrase = {"instances": gold}
        counted = self._rules.counted_boxes(found_phrase)
        overlaps = overlaps_of(boxes_of(found_phrase), boxes_of(gold_phrase))
        overlaps_of_counted = [overlap for overlap in overlaps if overlap.found in counted]
        pairs = one_to_one(overlaps_of_counted, self._rules)
        # `one_to_one` also returns pairs from IoU 0.5 on, where the threshold is higher.
        return [pair for pair in pairs if pair.iou >= self._rules.threshold]

    def _counts_of(self, name: str) -> _ClassCounts:
        return self._by_key.setdefault(class_key(name), _ClassCounts(name))

    def rows(self, images: int) -> dict[str, dict[str, Any]]:
        """Return the figures of each class, those with most gold boxes first, at most _MOST."""
        self._count_image()  # the last one, which no other has followed
        by_size = sorted(
            self._by_key.values(), key=lambda counts: (-counts.gold_boxes, counts.name)
        )
        classes = by_size[:_MOST]
        # Intervals are from samples of all `images`, those without the class too.
        # The columns of all classes go into one table, so that samples are drawn only once.
        sums: dict[tuple[int, str], np.ndarray] = {}  # (3, "right") is a column of the fourth class
        for index, counts in enumerate(classes):
            for name, column in counts.sums(images).items():
                sums[index, name] = column
        draws = bootstrap_sums(sums)
        rows = {}
        for index, counts in enumerate(classes):
            totals = {}  # of all images
            sampled = {}  # of each bootstrap sample
            for name in ("right", "boxes", "gold_boxes"):
                totals[name] = sums[index, name].sum()
                sampled[name] = draws[index, name]
            row = _figures_of_class(counts.average_precision, totals, sampled, images)
            others = counts.found_as.most_common()
            row["found_as"] = {self._by_key[key].name: count for key, count in others}
            rows[counts.name] = row
        return rows


def _classes_of_pair(gold: Row, found: Row | None) -> tuple[str, str]:
    """Return the class of a gold phrase and of the found one, as either of them states it."""
    # both state one    -> each its own
    # one states one    -> that of the one for both
    # none states one   -> the found phrase's text for both
    # nothing was found -> the gold's, and "" for the found one
    gold_class = class_of(gold)
    if found is None:
        return gold_class, ""
    if "class" not in gold:
        gold_class = class_of(found)
    found_class = class_of(found) if "class" in found else gold_class
    return gold_class, found_class


def _figures_of_class(
    average_precision: AveragePrecision,
    totals: Mapping[str, Any],
    sampled: Mapping[str, np.ndarray],
    images: int,
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "gold_boxes": int(totals["gold_boxes"]),
        "boxes": int(totals["boxes"]),
    }
    for name, value in _ratios(totals).items():
        figures[name] = None if np.isnan(value) else round(float(value), 6)
    ap = average_precision.value()
    figures["ap"] = None if ap is None else round(ap, 6)
    intervals = {name: interval(values) for name, values in _ratios(sampled).items()}
    intervals["ap"] = interval(average_precision.bootstrap_values(images))
    figures["intervals"] = intervals
    return figures


def _ratios(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measures of sums, numbers or arrays with a value for each bootstrap sample."""
    boxes_of_both = sums["boxes"] + sums["gold_boxes"]
    return {
        "precision": share(sums["right"], sums["boxes"]),
        "recall": share(sums["right"], sums["gold_boxes"]),
        "f1": share(2 * sums["right"], boxes_of_both),
    }


def mean_ap(rows: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the mean AP of the classes that have gold boxes; None where none has."""
    values: Sequence[float] = [row["ap"] for row in rows.values() if row["ap"] is not None]
    return round(sum(values) / len(values), 6) if values else None

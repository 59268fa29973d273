"""How good predictions are against gold: eleven measures, for all phrases and for each class.

Pictures are compared one by one, and in a picture names. A name is a phrase with all that mean the
same there: those of its text, and those of its class whose text the other side lacks. What is
counted of a picture is a row of COLUMNS; most measures are ratios of their sums.
"""

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.class_table import in_order
from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.boxes.matching import best_instances, first_free
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance, Span
from dataflow_grounding.data.records import JsonObject, Update, caption_of_spans, is_number
from dataflow_grounding.english.spans import clean_caption
from dataflow_grounding.evaluation.metrics.annotations import (
    Annotated,
    Annotations,
    Source,
    as_gold,
    by_score,
    read_annotations,
)
from dataflow_grounding.evaluation.metrics.same_pictures import SamePictures

# a phrase of such a status without boxes may be in the picture all the same
_OPEN_STATUSES = ("ambiguous", "unsupported", "pending", "failed")
# What is counted of a picture. `one` counts names with one gold box, of which `accurate` have a
# first box with IoU 0.5, and `iou` is the sum of that box's; `present` those with a gold box, of
# which `found_present` have any box; `absent` those without, of which `found_absent` have none.
COLUMNS = (
    *("right", "boxes", "gold_boxes", "one", "accurate", "iou"),
    *("present", "found_present", "absent", "found_absent"),
    *("equal_spans", "spans", "scored", "grounded"),
)
_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's, of IoU
_RECALLS = np.linspace(0, 1, 101)  # at which COCO averages the precision
_MOST_BOXES = 100  # of a name that count in AP, the surest
_DRAWS = 1000  # bootstrap samples of the pictures
_DRAWS_OF_AP = 200  # the first of these: each goes over all boxes ten times
_MOST_CLASSES = 300  # those with most gold boxes: a list of classes has no more
_FEW_PAIRS = 64  # of boxes, up to which Python is faster than NumPy

Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Rules:
    """When a box is right."""

    threshold: float = 0.5
    """The IoU that makes a box right, in [0, 1], for precision, recall and F1."""
    score_cut: float | None = None
    """The score below which a box doesn't count where boxes are counted, not ranked; None counts
    all. Boxes without score count.
    """

    def __post_init__(self) -> None:
        limits = {"threshold": self.threshold, "score_cut": self.score_cut or 0}  # 0 for None
        for name, value in limits.items():
            if not (is_number(value) and 0 <= value <= 1):
                raise SpecError(f"{name} should be a number from 0 to 1, not {value!r}")

    def is_counted(self, box: Instance) -> bool:
        return box.score is None or box.score >= (self.score_cut or 0)


@dataclass
class Evaluation:
    """One run's measures against gold."""

    rules: Rules
    figures: Figures  # measures and counts by name; None where there is nothing to divide by
    classes: dict[str, Figures]  # by name; empty where no classes are stated
    notes: list[str]  # what a reader of the figures has to know, in sentences
    # For each name of the gold, in the order of `names`: the largest IoU of its first box with a
    # gold box, and whether that box is right, or, without gold boxes, whether there is none.
    overlaps: np.ndarray
    right: np.ndarray
    _pictures: SamePictures
    _counts: "_Counts"

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """The measures of bootstrap samples of the pictures, by name."""
        sums = np.array([times @ self._counts.table for times in _samples(self._pictures.count)])
        draws = _measures(sums.T, self.rules)
        draws["ap"] = self._counts.ranking.draws(self._pictures.count)
        if self.classes:
            of_classes = [self.class_draws[name]["ap"] for name in self.classes]
            draws["map"] = _mean(np.array(of_classes))
        return draws

    @cached_property
    def class_draws(self) -> dict[str, dict[str, np.ndarray]]:
        """The measures of the same samples, by class."""
        return _draws_of_classes(self._counts.largest_classes, self._pictures.count)

    def to_json(self) -> Update:
        """Return measures and counts, 95 % intervals, the classes' measures, notes and rules."""
        document: Update = {**self.figures}
        # intervals of 1,000 bootstrap samples, which are drawn at the first call
        document["intervals"] = _intervals(self.figures, self.draws)
        if self.classes:
            document["classes"] = {}
            for name, row in self.classes.items():
                intervals = _intervals(row, self.class_draws[name])
                document["classes"][name] = {**row, "intervals": intervals}
        document["notes"] = self.notes
        document["rules"] = vars(self.rules)
        return document

    def against(self, other: "Evaluation") -> Update:
        """Compare another run on the same gold with this one: its measures less this one's."""
        compared = _differences(self.figures, self.draws, other.figures, other.draws)
        classes = {}
        for name, row in self.classes.items():
            if name in other.classes:
                draws = other.class_draws[name]
                classes[name] = _differences(
                    row, self.class_draws[name], other.classes[name], draws
                )
        return {**compared, "classes": classes} if classes else compared

    def names(self) -> Iterator[tuple[JsonObject, list["Name"]]]:
        """Yield the columns of each picture's first gold record, and the names that are in it."""
        for gold, found in self._pictures:
            yield gold[0].columns, _names_in(gold, found)


def evaluate(found: Source, gold: Source, rules: Rules = Rules()) -> "Evaluation":
    """Compare predictions with gold.

    Phrases of pictures that the gold doesn't have count in `expressions_of_other_records` alone.
    Boxes of `found` that a reviewer rejected don't count. A gold phrase with rejected boxes is
    judged only if a person confirmed the others.
    Raises InputError where something can't be read, or there is nothing to compare.

    Example:
        >>> expression = {"text": "a dog", "instances": [{"bbox": [0, 0, 10, 10]}]}
        >>> dog = {"image_path": "a.jpg", "expressions": [expression]}
        >>> evaluate([dog], [dog]).figures["acc_0.5"]
        1.0
    """
    truth = as_gold(read_annotations(gold))  # what was rejected in it is open there
    answers = read_annotations(found, keep_rejected=False)
    if not truth.phrase_count:
        raise InputError(
            f"{truth.name} has no boxes: gold is records with `expressions` and their `instances`;"
            " `dataflowgrounding import` makes files of other formats records"
        )
    same_pictures = SamePictures(answers, truth)
    counts = _Counts(rules, truth, answers)
    for gold_records, found_records in same_pictures:
        counts.add(gold_records, found_records)
    classes = {}
    figures_of_class = {row.name: row.figures() for row in counts.largest_classes}
    # in the order of the user's list of classes, with the others after it
    for name in in_order(figures_of_class, truth.classes or answers.classes):
        classes[name] = figures_of_class[name]
    figures = counts.measures()
    if classes:
        figures["map"] = _rounded(_mean(np.array([row["ap"] for row in classes.values()], float)))
    return Evaluation(
        rules=rules,
        figures={**figures, **counts.counts(same_pictures.count, answers.phrase_count)},
        classes=classes,
        notes=list(_notes(same_pictures, answers, truth, counts)),
        overlaps=np.array(counts.overlaps),
        right=np.array(counts.right, bool),
        _pictures=same_pictures,
        _counts=counts,
    )


def _notes(
    same_pictures: SamePictures, answers: Annotations, truth: Annotations, counts: "_Counts"
) -> Iterator[str]:
    if same_pictures.other_folders:
        yield (
            f"{answers.name} and {truth.name} name pictures from different folders: those are the"
            " same whose paths end alike"
        )
    if not counts.total("scored"):
        yield "no scores: AP ranks boxes by their order"
    if truth.reviewed and truth.not_mended:
        yield (
            f"not judged in {truth.name}: {counted(truth.not_mended, 'phrase')} with a box that a"
            " reviewer rejected, as nobody drew the right one. Precision looks better than it is:"
            " mend them in the review, or take the share of wrong boxes that `certify` states"
        )
    if answers.rejected:
        yield (
            f"{answers.rejected:,} boxes of {answers.name} that a reviewer rejected are left out"
        )
    if counts.by_class:
        yield (
            f"{counted(counts.by_class, 'phrase')} of {answers.name} matched by class, as"
            f" {truth.name} has other words; several phrases of one class count as one"
        )
    if counts.repeated:
        yield (
            f"{counted(counts.repeated, 'box')} of {answers.name} on a thing that another box of"
            " its phrase or class has: counted once"
        )
    if same_pictures.scaled:
        yield (
            f"boxes of {same_pictures.scaled:,} records of {answers.name} are scaled to the size"
            f" that {truth.name} states"
        )


@dataclass
class Name:
    """The phrases of a picture, in the gold and found, that mean the same."""

    gold: list[Expression] = field(default_factory=list)
    found: list[Expression] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether the gold leaves open what is there: then nothing is right or wrong."""
        return not all(map(is_judged, self.gold))

    @property
    def is_answered(self) -> bool:
        """Whether the found phrases say what is there."""
        return any(map(is_judged, self.found))


def is_judged(phrase: Expression) -> bool:
    """Return whether a phrase says what is in the picture: its boxes, or that there is none."""
    return bool(phrase.instances) or phrase.status not in _OPEN_STATUSES


def _names_in(gold: Iterable[Annotated], found: Iterable[Annotated]) -> list[Name]:
    """Return the names of a picture, given both sides' records of it."""
    name_of: dict[str, Name] = {}  # by text
    for record in gold:
        for phrase in record.phrases:
            name_of.setdefault(_text_key(phrase), Name()).gold.append(phrase)
    for record in found:
        for phrase in record.phrases:
            name_of.setdefault(_text_key(phrase), Name()).found.append(phrase)
    names = [*name_of.values()]
    only_gold = [name for name in names if not name.found]
    only_found = [name for name in names if not name.gold]
    if not only_gold and not only_found:
        return names
    # What one side alone has joins the other side's phrases of its class.
    with_gold = _names_by_class(names, "gold")
    with_found = _names_by_class(names, "found")
    group_of = {id(name): [name] for name in names}  # the names that become one, by each of them
    for name in only_gold:
        for key in _classes_in(name.gold):
            _join(group_of, name, with_found.get(key, ()))
    for name in only_found:
        for key in _classes_in(name.found):
            _join(group_of, name, with_gold.get(key, ()))
    joined = []
    for name in names:
        group = group_of[id(name)]
        if group[0] is name:  # each group once
            whole = Name()
            for part in group:
                whole.gold += part.gold
                whole.found += part.found
            joined.append(whole)
    return joined


def _text_key(phrase: Expression) -> str:
    return clean_caption(phrase.text).casefold()


def _classes_in(phrases: Iterable[Expression]) -> list[str]:
    """Return the classes of phrases, but not of those made up to be absent: they name no thing."""
    return [
        class_key(phrase.stated_class or phrase.text)
        for phrase in phrases
        if not phrase.is_negative
    ]


def _names_by_class(names: Iterable[Name], side: str) -> dict[str, list[Name]]:
    of_class: dict[str, list[Name]] = {}
    for name in names:
        for key in dict.fromkeys(_classes_in(getattr(name, side))):
            of_class.setdefault(key, []).append(name)
    return of_class


def _join(group_of: dict[int, list[Name]], name: Name, others: Iterable[Name]) -> None:
    for other in others:
        group = group_of[id(name)]
        further = group_of[id(other)]
        if further is not group:
            group += further
            for member in further:
                group_of[id(member)] = group


class _Overlap(NamedTuple):
    """A found and a gold box, by their indices, with their IoU."""

    iou: float
    found: int
    gold: int


class _Boxes(NamedTuple):
    """Both sides' boxes of a name or a class, each thing's once, the surest first."""

    gold: list[Instance]
    found: list[Instance]
    overlaps: list[_Overlap]  # in the order of the found boxes

    @classmethod
    def of(cls, gold: Sequence[Expression], found: Sequence[Expression]) -> "_Boxes":
        gold_boxes = _boxes_of_things(gold)
        found_boxes = _boxes_of_things(found)
        return cls(gold_boxes, found_boxes, _overlaps_of(found_boxes, gold_boxes))

    def count_right(self, rules: Rules) -> int:
        """Return how many boxes are right: pairs, the largest IoU first, no box twice."""
        right = []
        for overlap in self.overlaps:
            if overlap.iou >= rules.threshold and rules.is_counted(self.found[overlap.found]):
                right.append(overlap)
        if len(right) > 1:
            right.sort(key=lambda overlap: (-overlap.iou, overlap.gold, overlap.found))
        return len(first_free((overlap.found, overlap.gold) for overlap in right))


def _boxes_of_things(phrases: Sequence[Expression]) -> list[Instance]:
    if len(phrases) == 1 and len(phrases[0].instances) < 2:
        return phrases[0].instances
    # by their boxes, so that neither the order of records nor that of phrases makes a difference
    sides = sorted(
        (phrase.instances for phrase in phrases),
        key=lambda instances: [box.bbox for box in instances],
    )
    return sorted(best_instances(sides), key=by_score)


def _overlaps_of(found: Sequence[Instance], gold: Sequence[Instance]) -> list[_Overlap]:
    """Return the pairs of a found and a gold box that overlap."""
    found_boxes = [box.bbox for box in found]
    gold_boxes = [box.bbox for box in gold]
    overlaps = []
    if len(found) * len(gold) <= _FEW_PAIRS:
        for found_index, found_box in enumerate(found_boxes):
            for gold_index, gold_box in enumerate(gold_boxes):
                shared = iou(found_box, gold_box)
                if shared:
                    overlaps.append(_Overlap(shared, found_index, gold_index))
        return overlaps
    x1, y1, x2, y2 = np.array(gold_boxes, float).T
    gold_areas = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    for found_index, (left, top, right, bottom) in enumerate(found_boxes):
        widths = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
        heights = np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
        shared_areas = widths * heights
        own_area = max(right - left, 0) * max(bottom - top, 0)
        for gold_index in np.flatnonzero(shared_areas).tolist():
            shared_area = float(shared_areas[gold_index])
            union = own_area + float(gold_areas[gold_index]) - shared_area
            overlaps.append(_Overlap(shared_area / union, found_index, gold_index))
    return overlaps


class _Ranking:
    """Boxes ranked by their scores, for COCO's AP over IoU 0.5:0.05:0.95.

    Each name of a picture is evaluated as if it were an image of its own: what the gold doesn't ask
    for in a picture is no false positive there (as in LVIS). Boxes without score rank last: first
    the first one of each name, then the second ones, and so on.

    Source: COCOeval of https://github.com/cocodataset/cocoapi: `evaluateImg` and `accumulate`;
    pycocotools and faster-coco-eval agree with it.
    """

    def __init__(self) -> None:
        self._gold_boxes = array("I")  # of each name, and its picture
        self._picture_of_name = array("I")
        self._scores = array("d")  # of each found box; below 0 of one without a score
        self._digests = array("Q")  # of its name, which orders equal scores
        self._right = array("H")  # a bit for each threshold at which the box is right
        self._pictures = array("I")

    def add(self, boxes: _Boxes, picture: int) -> None:
        self._gold_boxes.append(len(boxes.gold))
        self._picture_of_name.append(picture)
        if not boxes.found:
            return
        # Digests are made of the boxes alone, so that the order of phrases makes no difference.
        corners = [[(*box.bbox, box.score) for box in side] for side in boxes[:2]]
        digest = hashlib.sha256(repr(corners).encode()).digest()
        number = int.from_bytes(digest[:8], "big")
        count = min(len(boxes.found), _MOST_BOXES)
        for index, bits in enumerate(_right_bits(boxes.overlaps, count)):
            score = boxes.found[index].score
            # Without a score: -1, -2 and so on by its place, below every real score.
            self._scores.append(-1.0 - index if score is None else score)
            self._digests.append(number)
            self._right.append(bits)
            self._pictures.append(picture)

    def ap(self) -> float:
        """Return the AP of all names, in [0, 1]; NaN without gold boxes."""
        gold_boxes = sum(self._gold_boxes)
        right, _ = self._surest_first()
        return _ap_of_ranked(right, np.ones(len(self._scores), int), gold_boxes)

    def draws(self, pictures: int) -> np.ndarray:
        """Return the AP of each bootstrap sample of that many pictures."""
        gold_boxes = np.bincount(
            self._picture_of_name, weights=self._gold_boxes, minlength=pictures
        )
        right, picture_of_box = self._surest_first()
        values = []
        for times in islice(_samples(pictures), _DRAWS_OF_AP):
            times_drawn = times[picture_of_box]
            values.append(_ap_of_ranked(right, times_drawn, int(times @ gold_boxes)))
        return np.array(values)

    def _surest_first(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each box whether it is right at each threshold, and its picture."""
        # the last key counts first
        order = np.lexsort((np.array(self._digests), -np.array(self._scores)))
        bits = np.array(self._right)[order]
        right = (bits >> np.arange(len(_THRESHOLDS))[:, None].astype(np.uint16)) & 1
        return right.astype(np.uint8), np.array(self._pictures, int)[order]


def _right_bits(overlaps: Iterable[_Overlap], count: int) -> list[int]:
    """Return for each of the first boxes the bits of the thresholds at which it is right."""
    # As in COCO's evaluator, the surest box chooses first. Each takes the gold box with the largest
    # IoU among those that are still free; of equal ones the last.
    candidates: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    for overlap in overlaps:
        if overlap.found < count and overlap.iou >= _THRESHOLDS[0]:
            candidates[overlap.found].append((overlap.iou, overlap.gold))
    bits = [0] * count
    for bit, threshold in enumerate(_THRESHOLDS.tolist()):
        taken = set[int]()  # gold boxes, at this threshold
        for index, own_candidates in enumerate(candidates):
            free = [(o, gold) for o, gold in own_candidates if o >= threshold and gold not in taken]
            if free:
                _, best = max(free)
                taken.add(best)
                bits[index] |= 1 << bit
    return bits


def _ap_of_ranked(right: np.ndarray, times_counted: np.ndarray, gold_boxes: int) -> float:
    """Return the AP of boxes, the surest first, each of which counts a number of times."""
    # The picture of a box may be drawn several times, or never.
    if not gold_boxes:
        return math.nan
    if not len(times_counted):
        return 0.0
    # Ranks are at least 1: boxes before the first one that counts have rank 0, which would divide.
    ranks = np.maximum(np.cumsum(times_counted), 1)
    precisions = []
    for is_right in right:
        true_positives = np.cumsum(is_right * times_counted)
        precision = true_positives / ranks
        # COCO's envelope is the best precision at this rank or a later one: a running maximum from
        # the end.
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        # For each recall the index of the box with which it is reached. A recall that is never
        # reached gets the index after the last box: its precision is the 0 that is appended.
        reached_at = np.searchsorted(true_positives / gold_boxes, _RECALLS, side="left")
        precisions.append(np.append(envelope, 0.0)[reached_at])
    return float(np.mean(precisions))


class _OfClass:
    """What is counted of a class: a row for each picture with it, and all of its boxes."""

    def __init__(self, name: str) -> None:
        self.name = name  # as its first phrase states it: capitals and blanks make no difference
        self.ranking = _Ranking()
        self.pictures = array("I")
        self.rows = array("d")  # right, boxes, gold boxes of each of these pictures, in turn

    def add(self, picture: int, right: int, boxes: int, gold_boxes: int) -> None:
        self.pictures.append(picture)
        self.rows.extend((right, boxes, gold_boxes))

    def table(self) -> np.ndarray:
        return np.array(self.rows).reshape(-1, 3)

    def figures(self) -> Figures:
        sums = self.table().sum(axis=0)
        figures: Figures = {"gold_boxes": int(sums[2]), "boxes": int(sums[1])}
        for name, value in _of_boxes(*sums).items():
            figures[name] = _rounded(value)
        figures["ap"] = _rounded(self.ranking.ap())
        return figures


class _Counts:
    """What the measures need of the pictures, in numbers alone: records aren't kept."""

    def __init__(self, rules: Rules, truth: Annotations, answers: Annotations) -> None:
        self._rules = rules
        self._states_spans = truth.states_spans and answers.states_spans
        self._states_classes = truth.states_classes or answers.states_classes
        self._rows = array("d")  # those of the pictures, one after the other
        self._picture = -1  # the number of the picture that is counted
        self._classes: dict[str, _OfClass] = {}
        self.ranking = _Ranking()
        self.overlaps = array("d")
        self.right = array("b")
        self.judged = 0  # of the gold's names
        self.missing = 0  # the gold's names that were not found
        self.found_phrases = 0  # in the pictures that the gold has
        self.extra = 0  # found names that the gold doesn't have
        self.by_class = 0  # found phrases that were joined by their class
        self.repeated = 0  # found boxes that don't count: another one is of their thing

    def add(self, gold: list[Annotated], found: list[Annotated]) -> None:
        """Count the gold's and the found records of the next picture."""
        self._picture += 1
        names = _names_in(gold, found)
        row = dict.fromkeys(COLUMNS, 0.0)
        for name in names:
            self._add_name(name, row)
        if self._states_spans:
            row["equal_spans"], row["spans"] = _count_spans(gold, found)
        if self._states_classes:
            self._add_classes(names)
        self._rows.extend(row.values())

    def _add_name(self, name: Name, row: dict[str, float]) -> None:
        boxes = _Boxes.of(name.gold, name.found)
        self.found_phrases += len(name.found)
        if name.gold and name.found:
            gold_texts = set(map(_text_key, name.gold))
            self.by_class += sum(_text_key(phrase) not in gold_texts for phrase in name.found)
        stated = sum(len(phrase.instances) for phrase in name.found)
        self.repeated += stated - len(boxes.found)
        found_count = sum(map(self._rules.is_counted, boxes.found))
        if not name.gold:
            self.extra += 1
            row["boxes"] += found_count  # wrong ones; no other measure asks for them
            return
        self.missing += not name.found
        first_iou = max((o.iou for o in boxes.overlaps if o.found == 0), default=0.0)
        self.overlaps.append(first_iou)
        if name.is_open:
            self.right.append(True)
            return
        self.judged += 1
        self.ranking.add(boxes, self._picture)
        is_found_absent = name.is_answered and not found_count
        row["right"] += boxes.count_right(self._rules)
        row["boxes"] += found_count
        row["gold_boxes"] += len(boxes.gold)
        row["scored"] += sum(box.score is not None for box in boxes.found)
        row["grounded"] += found_count > 0
        if boxes.gold:
            row["present"] += 1
            row["found_present"] += found_count > 0
            self.right.append(first_iou >= self._rules.threshold)
        else:
            row["absent"] += 1
            row["found_absent"] += is_found_absent
            self.right.append(is_found_absent)
        if len(boxes.gold) == 1:
            row["one"] += 1
            row["accurate"] += first_iou >= 0.5
            row["iou"] += first_iou

    def _add_classes(self, names: Iterable[Name]) -> None:
        """Count each class as of a detector: all of its boxes in the picture, of any phrase.

        If the gold of a picture doesn't name a class, found boxes of it are wrong: gold of
        detectors lists all that is there.
        """
        of_class: dict[str, Name] = {}
        for name in names:
            for phrase in name.gold:
                self._of_class(_class_in(name, phrase), of_class).gold.append(phrase)
            for phrase in name.found:
                self._of_class(_class_in(name, phrase), of_class).found.append(phrase)
        for key, whole in of_class.items():
            counts = self._classes[key]
            if whole.is_open:  # the row of zeros gives the class its place in the figures
                counts.add(self._picture, 0, 0, 0)
                continue
            boxes = _Boxes.of(whole.gold, whole.found)
            found_count = sum(map(self._rules.is_counted, boxes.found))
            right = boxes.count_right(self._rules)
            counts.add(self._picture, right, found_count, len(boxes.gold))
            counts.ranking.add(boxes, self._picture)

    def _of_class(self, name: str, of_class: dict[str, Name]) -> Name:
        key = class_key(name)
        if key not in self._classes:
            self._classes[key] = _OfClass(name)
        return of_class.setdefault(key, Name())

    @property
    def table(self) -> np.ndarray:
        """The rows of the pictures."""
        return np.array(self._rows).reshape(-1, len(COLUMNS))

    @cached_property
    def largest_classes(self) -> list[_OfClass]:
        by_size = sorted(
            self._classes.values(), key=lambda row: (-row.table()[:, 2].sum(), row.name)
        )
        return by_size[:_MOST_CLASSES]

    def total(self, column: str) -> int:
        return int(self.table[:, COLUMNS.index(column)].sum())

    def measures(self) -> Figures:
        measures: Figures = {}
        for name, value in _measures(self.table.sum(axis=0), self._rules).items():
            measures[name] = _rounded(value)
        measures["ap"] = _rounded(self.ranking.ap())
        return measures

    def counts(self, picture_count: int, answered_phrases: int) -> Figures:
        return {
            "images": picture_count,
            "expressions": len(self.right),
            "expressions_not_judged": len(self.right) - self.judged,
            "expressions_missing": self.missing,
            "expressions_not_in_gold": self.extra,
            # found phrases of records that the gold doesn't have
            "expressions_of_other_records": answered_phrases - self.found_phrases,
            "grounded": self.total("grounded"),
            "boxes": self.total("boxes"),
            "gold_boxes": self.total("gold_boxes"),
            "scored_boxes": self.total("scored"),
        }


def _class_in(name: Name, phrase: Expression) -> str:
    """Return the class of a phrase; if it states none, another phrase of its name may."""
    for other in (phrase, *name.gold, *name.found):
        if other.class_name is not None:
            return other.stated_class or class_key(other.text)
    return class_key(phrase.text)


def _count_spans(gold: Sequence[Annotated], found: Sequence[Annotated]) -> tuple[int, int]:
    """Return twice the spans that both sides have, and how many each has, in all."""
    gold_spans = _spans_by_caption(gold)
    found_spans = _spans_by_caption(found)
    captions = set(gold_spans)
    if not found_spans.keys() <= captions:  # a caption was written otherwise: its spans differ
        captions &= found_spans.keys()
    equal = 0
    of_both = 0
    for caption in captions:
        of_found = found_spans.get(caption, set())
        equal += len(gold_spans[caption] & of_found)
        of_both += len(gold_spans[caption]) + len(of_found)
    return 2 * equal, of_both


def _spans_by_caption(records: Iterable[Annotated]) -> dict[str, set[Span]]:
    spans: dict[str, set[Span]] = {}
    for record in records:
        of_caption = spans.setdefault(caption_of_spans(record.columns), set())
        of_caption |= {phrase.char_span for phrase in record.phrases if phrase.char_span}
    return spans


def _measures(sums: np.ndarray, rules: Rules) -> dict[str, np.ndarray]:
    """Return the measures of sums of COLUMNS, each a number or an array with one for each sample.

    NaN where there is nothing to divide by.
    """
    of = dict(zip(COLUMNS, sums, strict=True))
    measures = {}
    for name, value in _of_boxes(of["right"], of["boxes"], of["gold_boxes"]).items():
        measures[f"{name}_at_iou_{rules.threshold:g}"] = value
    return {
        **measures,
        "acc_0.5": _share(of["accurate"], of["one"]),
        "miou": _share(of["iou"], of["one"]),
        "t_acc": _share(of["found_present"], of["present"]),
        "n_acc": _share(of["found_absent"], of["absent"]),
        "il_mcc": _matthews(of),
        "span_exact_f1": _share(of["equal_spans"], of["spans"]),
    }


def _of_boxes(
    right: np.ndarray, boxes: np.ndarray, gold_boxes: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        "precision": _share(right, boxes),
        "recall": _share(right, gold_boxes),
        "f1": _share(2 * right, boxes + gold_boxes),
    }


def _matthews(of: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return Matthews' correlation of both sides' verdicts on whether phrases are there."""
    # The gold has no phrase with boxes, or none without: NaN. All answers are alike: 0.
    present = of["present"]
    absent = of["absent"]
    true_positives = of["found_present"]
    true_negatives = of["found_absent"]
    false_positives = absent - true_negatives
    false_negatives = present - true_positives
    said_present = true_positives + false_positives
    said_absent = present + absent - said_present
    # Where all answers are alike, this product and the numerator are 0. With 1 in place of the
    # product, the correlation is 0, not NaN.
    said_product = np.maximum(said_present * said_absent, 1)
    agreement = true_positives * true_negatives - false_positives * false_negatives
    return _share(agreement, np.sqrt(said_product * present * absent))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the means over classes, without those that have none; NaN where none has one."""
    return _share(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0))


def _samples(pictures: int) -> Iterator[np.ndarray]:
    """Yield bootstrap samples of pictures (Efron 1979), as how often each picture is drawn."""
    # Pictures are drawn, not phrases, since the phrases of one picture depend on each other. The
    # same number of pictures always gives the same samples, so that two runs can be subtracted.
    chance = np.random.default_rng(0)
    for _ in range(_DRAWS):
        yield np.bincount(chance.integers(0, pictures, pictures), minlength=pictures)


def _draws_of_classes(
    classes: Sequence[_OfClass], pictures: int
) -> dict[str, dict[str, np.ndarray]]:
    table = np.concatenate([row.table() for row in classes])
    picture_of_row = np.concatenate([np.array(row.pictures, int) for row in classes])
    begins = np.cumsum([0, *(len(row.pictures) for row in classes[:-1])])
    sums = []  # samples × classes × columns
    for times in _samples(pictures):
        sums.append(np.add.reduceat(table * times[picture_of_row, None], begins))
    columns = np.array(sums).T
    draws = {}
    for index, row in enumerate(classes):
        draws[row.name] = {**_of_boxes(*columns[:, index]), "ap": row.ranking.draws(pictures)}
    return draws


def _intervals(figures: Figures, draws: Mapping[str, np.ndarray]) -> dict[str, list[float] | None]:
    intervals = {}
    for name, values in draws.items():
        if figures[name] is not None:
            intervals[name] = _interval(values)
    return intervals


def _interval(values: np.ndarray) -> list[float] | None:
    """Return the ends of the middle 95 % of values that aren't NaN; None if all are."""
    numbers = values[~np.isnan(values)]
    if not numbers.size:
        return None
    low, high = np.quantile(numbers, [0.025, 0.975])
    # Adding 0 makes -0 a plain 0.
    return [round(float(low), 6) + 0.0, round(float(high), 6) + 0.0]


def _differences(
    figures: Figures,
    draws: Mapping[str, np.ndarray],
    other_figures: Figures,
    other_draws: Mapping[str, np.ndarray],
) -> Update:
    differences: dict[str, float | None] = {}
    intervals = {}
    for name in draws:
        own_value = figures[name]
        other_value = other_figures.get(name)
        if own_value is None or other_value is None:
            differences[name] = None
            continue
        differences[name] = _rounded(other_value - own_value)
        # Both runs have the same samples of pictures, so they are subtracted sample by sample.
        intervals[name] = _interval(other_draws[name] - draws[name])
    return {"difference": differences, "intervals": intervals}


def _rounded(value: Any) -> float | None:
    """Return a figure to six decimals; None for NaN, which JSON doesn't have."""
    return None if math.isnan(value) else round(float(value), 6) + 0.0  # never -0

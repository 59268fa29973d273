"""All figures of predictions against gold."""

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.class_table import in_order
from dataflow_grounding.boxes.geometry import COCO_SIZES, area, coco_size
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.evaluation.metrics._average_precision import AveragePrecision
from dataflow_grounding.evaluation.metrics._classes import ClassFigures, mean_ap
from dataflow_grounding.evaluation.metrics._measures import (
    ScoredVerdict,
    caption_columns,
    figures_from_sums,
    phrase_columns,
)
from dataflow_grounding.evaluation.metrics.annotations import (
    Annotations,
    Source,
    as_gold,
    read_annotations,
)
from dataflow_grounding.evaluation.metrics.confidence import (
    bootstrap_sums,
    cuts,
    interval,
    kept_and_right,
    mcnemar,
)
from dataflow_grounding.evaluation.metrics.pairs import PairedRecord, Pairs, Row, Rules

K = TypeVar("K")
# the columns of `_measures` by name, a value for each image
Columns = dict[str, np.ndarray]
Figures = dict[str, float | int | None]
# kind of group, name of the group → the sums of its gold phrases' columns
Groups = dict[str, dict[str, dict[str, float]]]
GroupKey = tuple[str, str]  # kind and name of a group, as ("size", "small")
_MOST_GROUPS = 20  # of each kind: the largest
# Groups by a phrase's number of words, as in D³. Each bound begins the next group.
_WORD_BOUNDS = (4, 7, 10)
_WORD_GROUPS = ("1-3", "4-6", "7-9", "10 or more")
_GROUPS_OF_FREE_TEXT = ("words", "category")  # where phrases are classes these say nothing more
_GROUP_MEASURES = ("acc_0.5", "miou", "r1_any", "gprec_f1")
_NO_SCORES = "no scores: boxes are ranked by their order, and R@5 and R@10 then mean little"


@dataclass
class Evaluation:
    """One run's figures against gold, and what they are made of."""

    pairs: Pairs  # the matched records; they are matched again each time one iterates
    rules: Rules
    sums: Columns  # the columns of phrases and captions, summed for each image
    # For each gold phrase, in the order of `pairs`: the largest overlap of its first box with a
    # gold box, and whether that box is right, or, without gold boxes, whether there is none.
    overlaps: np.ndarray
    right: np.ndarray
    curve: np.ndarray  # what a cut at each score keeps, as `kept_and_right` gives it
    figures: Figures  # the measures by name; None where there is nothing to divide by
    classes: dict[str, dict[str, Any]]  # by name; empty where no classes are stated
    notes: list[str]  # what a reader of the figures has to know, in sentences
    groups: Groups

    @cached_property
    def draws(self) -> Columns:
        """The figures of 1,000 bootstrap samples of the images."""
        return figures_from_sums(bootstrap_sums(self.sums), self.rules)

    def to_json(self) -> dict[str, Any]:
        """Return the figures, 95 % intervals, groups of phrases, scores to cut at, notes, rules."""
        intervals = {}  # of 1,000 bootstrap samples, which are drawn at the first call
        for name, values in self.draws.items():
            if self.figures[name] is not None:
                intervals[name] = interval(values)
        shown_first = {}
        for name in ("precision", "recall", "f1"):
            measure = f"{name}_at_iou_{self.rules.threshold:g}"
            shown_first[measure] = self.figures[measure]
        # `figures` has these three keys again. In a dict, a key keeps its first place, so they come
        # first.
        document: dict[str, Any] = {**shown_first, **self.figures, "intervals": intervals}
        if self.classes:
            document["classes"] = self.classes
        document["groups"] = {kind: self._largest_groups(kind) for kind in self.groups}
        document["cuts"] = cuts(self.curve)
        document["notes"] = self.notes
        document["rules"] = vars(self.rules)
        return document

    def _largest_groups(self, kind: str) -> dict[str, Figures]:
        sums_of_group = self.groups[kind]
        by_size = sorted(sums_of_group, key=lambda name: -sums_of_group[name]["phrases"])
        figures_of_group: dict[str, Figures] = {}
        for name in sorted(by_size[:_MOST_GROUPS]):
            sums = sums_of_group[name]
            figures: Figures = {"expressions": int(sums["phrases"])}
            measures = _rounded(figures_from_sums(sums, self.rules))
            for measure in _GROUP_MEASURES:
                figures[measure] = measures[measure]
            figures_of_group[name] = figures
        return figures_of_group

    def against(self, other: "Evaluation") -> dict[str, Any]:
        """Compare another run on the same gold with this one: its figures less this one's."""
        differences: dict[str, float | None] = {}
        intervals = {}
        for name in self.draws:
            own_value = self.figures[name]
            other_value = other.figures[name]
            if own_value is None or other_value is None:
                differences[name] = None
                continue
            differences[name] = other_value - own_value
            # Both runs have the same samples of images, so they are subtracted sample by sample.
            intervals[name] = interval(other.draws[name] - self.draws[name])
        # phrases that just one of the two runs has right
        only_first = int((self.right & ~other.right).sum())
        only_second = int((other.right & ~self.right).sum())
        return {
            "difference": _rounded(differences),
            "intervals": intervals,
            "mcnemar": {
                "only_first_right": only_first,
                "only_second_right": only_second,
                "p": mcnemar(only_first, only_second),
            },
        }


def evaluate(found: Source, gold: Source, rules: Rules = Rules()) -> "Evaluation":  # noqa: B008
    """Compare predictions with gold.

    Phrases of images that the gold doesn't have count in `expressions_of_other_records` alone.
    Boxes of `found` that a reviewer rejected don't count, unless `read_annotations` was told to
    keep them. A gold phrase with rejected boxes is judged only if a person confirmed the others.
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
    pairs = Pairs(found=answers, gold=truth)
    counts = _Counts(rules, truth.states_classes or answers.states_classes)
    for record in pairs:
        counts.add(record)
    sums = counts.sums(spans_stated=truth.states_spans and answers.states_spans)
    classes: dict[str, dict[str, Any]] = {}
    if counts.classes is not None:  # any phrase states a class
        rows = counts.classes.rows(counts.image_count)
        # in the order of the user's list of classes, with the others after it
        for name in in_order(rows, truth.classes or answers.classes):
            classes[name] = rows[name]
    figures = _figures(counts, sums, answers.phrase_count, rules)
    if classes:
        figures["map"] = mean_ap(classes)
    return Evaluation(
        pairs=pairs,
        rules=rules,
        sums=sums,
        overlaps=np.array(counts.overlaps),
        right=np.array(counts.right),
        curve=counts.curve(),
        figures=figures,
        classes=classes,
        notes=list(_notes(pairs, answers, truth, counts)),
        groups=counts.groups,
    )


def _notes(
    pairs: Pairs, answers: Annotations, truth: Annotations, counts: "_Counts"
) -> Iterator[str]:
    if pairs.other_folders:
        yield (
            f"{answers.name} and {truth.name} name pictures from different folders: those are the"
            " same whose paths end alike"
        )
    if not counts.scores:
        yield _NO_SCORES
    if truth.reviewed and truth.not_mended:
        yield (
            f"not judged in {truth.name}: {counted(truth.not_mended, 'phrase')} with a box that a"
            " reviewer rejected, as nobody drew the right one. Precision looks better than it is:"
            " mend them in the review, or take the share of wrong boxes that `certify` states"
        )
    if answers.rejected:
        yield (
            f"{answers.rejected:,} boxes of {answers.name} that a reviewer rejected are left out"
            " (--keep-rejected)"
        )
    if counts.by_class:
        yield (
            f"{counted(counts.by_class, 'phrase')} of {answers.name} matched by class, as"
            f" {truth.name} has other words; several phrases of one class count as one"
        )
    if counts.repeated:
        yield (
            f"{counted(counts.repeated, 'box')} of {answers.name} on a thing that another box of"
            " its class has: counted once"
        )
    if counts.scaled:
        yield (
            f"boxes of {counts.scaled:,} records of {answers.name} are scaled to the size that"
            f" {truth.name} states"
        )


def _figures(counts: "_Counts", sums: Columns, answered_phrases: int, rules: Rules) -> Figures:
    totals = {name: column.sum() for name, column in sums.items()}
    phrases = len(counts.right)  # of the gold
    # The column of a share is its numerator: here, the number of phrases with a box.
    grounded_phrases = int(totals["grounded_share"])
    return {
        "images": counts.image_count,
        "expressions": phrases,
        "expressions_not_judged": phrases - int(totals["judged"]),
        "expressions_missing": counts.missing,
        "expressions_not_in_gold": counts.extra,
        # found phrases of records that the gold doesn't have
        "expressions_of_other_records": answered_phrases - counts.found_phrases,
        "grounded": grounded_phrases,
        "boxes": int(totals["boxes"]),
        "gold_boxes": int(totals["gold_boxes"]),
        "scored_boxes": int(totals["scored_boxes"]),
        **_rounded(figures_from_sums(totals, rules)),
        **_rounded({"ap": counts.average_precision.value()}),
    }


def _is_right(columns: Mapping[str, float], rules: Rules) -> bool:
    """Return whether a phrase, by its columns, counts as right in the test of two runs."""
    if columns["boxed"]:  # the gold has boxes
        return columns["first_iou"] >= rules.threshold
    if not columns["judged"]:  # the gold leaves it open
        return True  # in both runs, so that it makes no difference in the test
    # The gold says that there are no boxes: right if the answer says so, too.
    return columns["gprec_f1"] > 0


class _Table:
    """Rows of numbers under the same names, summed by image: memory grows with the images alone."""

    def __init__(self) -> None:
        self._names: list[str] = []  # of the first row, in its order
        self._of_images: dict[int, np.ndarray] = {}
        self._of_groups: dict[GroupKey, np.ndarray] = {}

    def add(self, image: int, row: Mapping[str, float], groups: Iterable[GroupKey] = ()) -> None:
        """Add a row of an image and groups, with the first row's names in the same order."""
        if not self._names:
            self._names = list(row)
        numbers = np.array(list(row.values()), float)
        _add_to(self._of_images, image, numbers)
        for group in groups:
            _add_to(self._of_groups, group, numbers)

    @property
    def groups(self) -> Groups:
        groups: Groups = {}
        for (kind, name), numbers in self._of_groups.items():
            sums = dict(zip(self._names, numbers.tolist(), strict=True))
            groups.setdefault(kind, {})[name] = sums
        return groups

    def sums(self, images: int) -> Columns:
        """Return the sums by name, each an array with a value for each of `images` images."""
        zeros = np.zeros(len(self._names))  # of an image without a row
        table = np.array([self._of_images.get(image, zeros) for image in range(images)])
        return dict(zip(self._names, table.T, strict=True))


def _add_to(sums: dict[K, np.ndarray], key: K, numbers: np.ndarray) -> None:
    if key in sums:
        sums[key] += numbers
    else:
        sums[key] = numbers.copy()


class _Counts:
    """What the figures need of matched records, in numbers alone: the records aren't kept."""

    def __init__(self, rules: Rules, states_classes: bool) -> None:
        self._rules = rules
        self.classes = ClassFigures(rules) if states_classes else None
        self._phrases = _Table()
        self._records = _Table()
        self.image_count = 0
        self.overlaps: list[float] = []
        self.right: list[bool] = []
        self.scores: list[ScoredVerdict] = []
        self.average_precision = AveragePrecision()
        self.missing = 0  # gold phrases that were not found
        self.found_phrases = 0  # in the records that the gold has
        self.extra = 0  # those of them that the gold doesn't have
        self.scaled = 0  # found records whose boxes were scaled
        self.by_class = 0  # found phrases that were matched by their class
        self._repeated = 0

    @property
    def groups(self) -> Groups:
        return self._phrases.groups

    def add(self, record: PairedRecord) -> None:
        """Count a record and its phrases; those of one image have to follow one another."""
        self.image_count = record.image + 1  # images are numbered from 0, and come in order
        # Boxes of phrases that the gold doesn't have add to the denominator of precision alone.
        extra_boxes = sum(len(self._rules.counted_boxes(phrase)) for phrase in record.extra)
        columns = {**caption_columns(record, self._rules), "boxes": extra_boxes}
        self._records.add(record.image, columns)
        if record.found is not None:
            self.found_phrases += len(record.found["expressions"])
        self.extra += len(record.extra)
        self.scaled += record.scaled
        self.by_class += record.by_class
        self._repeated += record.repeated
        for gold, found in record.phrases:
            self._add_phrase(record, gold, found)
        if self.classes is not None:
            self.classes.add(record)

    @property
    def repeated(self) -> int:
        if self.classes is None:
            return self._repeated
        return self._repeated + self.classes.repeated

    def _add_phrase(self, record: PairedRecord, gold: Row, found: Row | None) -> None:
        groups = []
        for kind, name in _groups_of(record, gold, found):
            tells_nothing = kind in _GROUPS_OF_FREE_TEXT and self.classes is not None
            if not tells_nothing:
                groups.append((kind, name))
        columns, scores = phrase_columns(gold, found, self._rules)
        self._phrases.add(record.image, {**columns, "phrases": 1}, groups)
        self.overlaps.append(columns["first_iou"])
        self.right.append(_is_right(columns, self._rules))
        self.scores += scores
        if found is None:
            self.missing += 1
        if columns["judged"]:  # else the gold leaves it open
            self.average_precision.add(gold, found)

    def curve(self) -> np.ndarray:
        # `reshape` makes it two columns also if there is no score at all.
        scores_and_verdicts = np.array(self.scores, float).reshape(-1, 2)
        return kept_and_right(scores_and_verdicts)

    def sums(self, spans_stated: bool) -> Columns:
        """Return the columns of phrases and captions, summed for each image."""
        sums = self._phrases.sums(self.image_count)
        for name, column in self._records.sums(self.image_count).items():
            if name == "boxes":  # of phrases that the gold doesn't have: they count as wrong
                sums[name] = sums[name] + column
            else:
                # Where one side states no spans, there is nothing to compare.
                sums[name] = column if spans_stated else np.zeros_like(column)
        return sums


def _groups_of(record: PairedRecord, gold: Row, found: Row | None) -> Iterator[GroupKey]:
    """Yield the groups of a gold phrase, by itself and by the found phrase matched with it."""
    areas = [area(instance["bbox"]) for instance in gold["instances"]]
    if areas:
        mean_area = sum(areas) / len(areas)
        yield "size", COCO_SIZES[coco_size(mean_area)]
    word_count = len(gold["text"].split())
    yield "words", _WORD_GROUPS[bisect(_WORD_BOUNDS, word_count)]
    # An imported phrase may state a type, or several; others go by their noun, as "dog" of "a dog".
    categories = gold.get("type") or head_of(gold["text"])
    if not isinstance(categories, (list, tuple)):
        categories = [categories]
    for category in categories:
        yield "category", str(category)
    if found is None:
        yield "status", "missing"
        return
    yield "status", str(found.get("status") or "not stated")
    if record.found and record.found["model"]:
        yield "model", str(record.found["model"])


def _rounded(figures: Mapping[str, Any]) -> Figures:
    """Return figures to six decimals, with None for NaN, which JSON doesn't have."""
    rounded: Figures = {}
    for name, value in figures.items():
        if value is None or math.isnan(value):
            rounded[name] = None
        else:
            # Adding 0 makes -0 a plain 0.
            rounded[name] = round(float(value), 6) + 0.0
    return rounded

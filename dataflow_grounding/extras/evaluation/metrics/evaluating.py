"""All figures of predictions against gold."""

import math
from array import array
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.geometry import area
from dataflow_grounding.extras.embedded.noun_phrases import head_of
from dataflow_grounding.extras.evaluation.metrics._average_precision import AveragePrecision
from dataflow_grounding.extras.evaluation.metrics._classes import ClassFigures, mean_ap
from dataflow_grounding.extras.evaluation.metrics._measures import (
    caption_columns,
    figures_from_sums,
    phrase_columns,
)
from dataflow_grounding.extras.evaluation.metrics.annotations import (
    Source,
    as_gold,
    read_annotations,
)
from dataflow_grounding.extras.evaluation.metrics.confidence import (
    cuts,
    draws_of,
    interval,
    kept_and_right,
    mcnemar,
)
from dataflow_grounding.extras.evaluation.metrics.pairs import PairedRecord, Pairs, Row, Rules, pair

Columns = dict[
    str, np.ndarray
]  # the columns of `_measures` by name, a value for each phrase or image
Figures = dict[str, float | int | None]
# kind of group, name of the group → the indices of its gold phrases
Groups = dict[str, dict[str, "array[int]"]]
_MOST_GROUPS = 20  # of each kind: the largest
# By how many words a phrase has: D³'s groups.
_WORD_BOUNDS = (4, 7, 10)
_WORD_GROUPS = ("1-3", "4-6", "7-9", "10 or more")
# COCO's sizes; of several boxes by the mean area.
_SIZE_BOUNDS = (32**2, 96**2)
_SIZE_GROUPS = ("small, < 32² px", "medium, < 96² px", "large")
_GROUPS_OF_FREE_TEXT = ("words", "category")  # where phrases are classes these say nothing more
_GROUP_MEASURES = ("acc_0.5", "miou", "r1_any", "gprec_f1", "density_f1")
_NO_SCORES = "no scores: boxes are ranked by their order, and R@5 and R@10 then mean little"


@dataclass
class Evaluation:
    """One run's figures against gold, and what they are made of.

    Attributes:
        pairs: The matched records; they are matched anew each time one iterates.
        rules: When a box is right.
        columns: The columns of each gold phrase, in the order of `pairs`.
        sums: The columns of phrases and captions, summed for each image.
        right: For each gold phrase whether its first box is right, or, without gold boxes, whether
            there is none.
        curve: What a cut at each score keeps, as `kept_and_right` gives it.
        figures: The measures by name; None where there is nothing to divide by.
        classes: The figures of each class by its name; empty where no classes are stated.
        notes: What a reader of the figures has to know, in sentences.
        places: For each kind of group and each group the indices of its gold phrases.
    """

    pairs: Pairs
    rules: Rules
    columns: Columns
    sums: Columns
    right: np.ndarray
    curve: np.ndarray
    figures: Figures
    classes: dict[str, dict[str, Any]]
    notes: list[str]
    places: Groups

    @cached_property
    def draws(self) -> Columns:
        """The figures of 1,000 bootstrap samples of the images."""
        return figures_from_sums(draws_of(self.sums), self.rules)

    def to_json(self) -> dict[str, Any]:
        """Return the figures, 95 % intervals, groups of phrases, scores to cut at, notes, rules.

        The intervals take 1,000 bootstrap samples, which are drawn at the first call.
        """
        intervals = {}
        for name, values in self.draws.items():
            if self.figures[name] is not None:
                intervals[name] = interval(values)
        return {
            **self.figures,
            "intervals": intervals,
            **({"classes": self.classes} if self.classes else {}),
            "groups": {kind: self._largest_groups(kind) for kind in self.places},
            "cuts": cuts(self.curve),
            "notes": self.notes,
            "rules": vars(self.rules),
        }

    def _largest_groups(self, kind: str) -> dict[str, Figures]:
        """Return the figures of the _MOST_GROUPS largest groups of a kind, sorted by name."""
        phrases_of = self.places[kind]
        by_size = sorted(phrases_of, key=lambda name: -len(phrases_of[name]))
        groups: dict[str, Figures] = {}
        for group in sorted(by_size[:_MOST_GROUPS]):
            phrases = phrases_of[group]
            sums = {name: column[phrases].sum() for name, column in self.columns.items()}
            figures = _to_json(figures_from_sums(sums, self.rules))
            groups[group] = {"expressions": len(phrases)}
            groups[group] |= {name: figures[name] for name in _GROUP_MEASURES}
        return groups

    def against(self, other: "Evaluation") -> dict[str, Any]:
        """Compare another run on the same gold with this one.

        Returns `difference`, the other's figures less this one's (None where either has none), the
        95 % `intervals` of these, and `mcnemar`, the test of `right`.
        """
        differences: dict[str, float | None] = {}
        intervals = {}
        for name in self.draws:
            own_value = self.figures[name]
            other_value = other.figures[name]
            differences[name] = None
            if own_value is not None and other_value is not None:
                differences[name] = other_value - own_value
                intervals[name] = interval(other.draws[name] - self.draws[name])
        only_first = int((self.right & ~other.right).sum())
        only_second = int((other.right & ~self.right).sum())
        return {
            "difference": _to_json(differences),
            "intervals": intervals,
            "mcnemar": {
                "only_first_right": only_first,
                "only_second_right": only_second,
                "p": mcnemar(only_first, only_second),
            },
        }


def evaluate(found: Source, gold: Source, rules: Rules = Rules()) -> "Evaluation":  # noqa: B008
    """Compare predictions with gold.

    Predictions for images that the gold doesn't have are in `expressions_of_other_records` alone.

    Args:
        found, gold: Records, a data file, a results folder, or what `read_annotations` made of
            them. Boxes of `found` that a reviewer rejected count only where that was told to keep
            them; a gold phrase of which they were rejected is not judged.
        rules: When a box is right.

    Raises:
        InputError: Something can't be read, or there is nothing to compare.

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
    pairs = pair(answers, truth)
    counts = _Counts(rules, truth.states_classes or answers.states_classes)
    for record in pairs:
        counts.add(record)
    columns = counts.phrases.columns()
    sums = counts.sums(truth.states_spans and answers.states_spans)
    curve = kept_and_right(np.frombuffer(counts.scores).reshape(-1, 2))
    classes = counts.class_rows(len(sums["one"]))
    notes = []
    if pairs.other_folders:
        notes.append(
            f"{answers.name} and {truth.name} name pictures from different folders: those are the"
            " same whose paths end alike"
        )
    if not len(curve):
        notes.append(_NO_SCORES)
    if truth.reviewed and truth.not_mended:
        notes.append(
            f"not judged in {truth.name}: {counted(truth.not_mended, 'phrase')} with a box that a"
            " reviewer rejected, as nobody drew the right one. Precision looks better than it is:"
            " mend them in the review, or take the share of wrong boxes that `certify` states"
        )
    if answers.rejected:
        notes.append(
            f"{answers.rejected:,} boxes of {answers.name} that a reviewer rejected are left out"
            " (--keep-rejected)"
        )
    if counts.scaled:
        notes.append(
            f"boxes of {counts.scaled:,} records of {answers.name} are scaled to the size that"
            f" {truth.name} states"
        )
    return Evaluation(
        pairs,
        rules,
        columns,
        sums,
        _right_phrases(columns, rules),
        curve,
        _figures(counts, sums, answers.phrase_count, rules) | _map_of(classes),
        classes,
        notes,
        counts.places,
    )


def _figures(counts: "_Counts", sums: Columns, answered_phrases: int, rules: Rules) -> Figures:
    """Return the figures of all images together: counts of what was compared, then the measures.

    Args:
        counts: What was counted of the phrases.
        sums: Their columns, summed for each image.
        answered_phrases: How many phrases the predictions have in all records, those without gold
            too.
        rules: When a box is right.
    """
    totals = {name: column.sum() for name, column in sums.items()}
    phrases = counts.phrases.rows
    matched_phrases = phrases - counts.missing
    return {
        "images": len(sums["one"]),
        "expressions": phrases,
        "expressions_not_judged": phrases - int(totals["judged"]),
        "expressions_missing": counts.missing,
        "expressions_not_in_gold": counts.extra,
        "expressions_of_other_records": answered_phrases - matched_phrases - counts.extra,
        "grounded": int(totals["grounded_share"]),
        "boxes": int(totals["boxes"]),
        "gold_boxes": int(totals["gold_boxes"]),
        "scored_boxes": int(totals["scored_boxes"]),
        **_to_json(figures_from_sums(totals, rules)),
        **_to_json({"ap": counts.precision.value()}),
    }


def _map_of(classes: Mapping[str, Mapping[str, Any]]) -> Figures:
    """Return the mean AP of classes as the figure `map`; no figure where no classes are stated."""
    return {"map": mean_ap(classes)} if classes else {}


def _right_phrases(columns: Columns, rules: Rules) -> np.ndarray:
    """Return for each phrase whether its first box is right; without gold boxes, whether none is.

    A phrase that the gold leaves open is never wrong.
    """
    first_box_right = rules.passes(columns["held"], rules.threshold)
    rightly_none = (columns["gprec_f1"] > 0) | (columns["judged"] == 0)
    return np.where(columns["boxed"] > 0, first_box_right, rightly_none)


class _Table:
    """Rows of numbers under the same names, 8 bytes a number. `rows` counts them."""

    def __init__(self) -> None:
        self.rows = 0
        self._names: list[str] = []  # of the first row, in its order
        self._values = array("d")  # row after row

    def add(self, row: Mapping[str, float]) -> None:
        """Add a row. It has the names of the first, in the same order: this isn't checked."""
        if not self._names:
            self._names = list(row)
        self._values.extend(row.values())
        self.rows += 1

    def columns(self) -> Columns:
        """Return the numbers by their names, an array with a value for each row."""
        table = np.frombuffer(self._values).reshape(self.rows, -1)
        return dict(zip(self._names, table.T, strict=True))


class _Counts:
    """What the figures need of matched records, in numbers alone: the records aren't kept.

    Attributes:
        phrases: The columns of each gold phrase.
        scores: For each box with a score the score, then 1 or 0 for right or wrong.
        places: For each kind of group and each group the indices of its phrases.
        precision: The AP of all judged phrases.
        missing: How many gold phrases were not found.
        extra: How many found phrases the gold doesn't have, in the records that it has.
        scaled: How many found records had their boxes scaled.
    """

    def __init__(self, rules: Rules, states_classes: bool) -> None:
        self._rules = rules
        self._classes = ClassFigures(rules) if states_classes else None
        self.phrases = _Table()
        self._captions = _Table()
        # Of each record: its image, how many gold phrases it has, and how many boxes that count
        # its phrases have that are not in the gold.
        self._images = array("q")
        self._phrases_of = array("q")
        self._extra_boxes = array("q")
        self.scores = array("d")
        self.places: Groups = {}
        self.precision = AveragePrecision()
        self.missing = 0
        self.extra = 0
        self.scaled = 0

    def add(self, record: PairedRecord) -> None:
        """Count a record and its phrases."""
        self._images.append(record.image)
        self._phrases_of.append(len(record.phrases))
        self._extra_boxes.append(sum(len(self._rules.counted(phrase)) for phrase in record.extra))
        self._captions.add(caption_columns(record, self._rules))
        self.extra += len(record.extra)
        self.scaled += record.scaled
        for gold, found in record.phrases:
            self._add_phrase(record, gold, found)
        if self._classes is not None:
            self._classes.add(record)

    def class_rows(self, images: int) -> dict[str, dict[str, Any]]:
        """Return the figures of each class of that many images; empty where none is stated."""
        return {} if self._classes is None else self._classes.rows(images)

    def _add_phrase(self, record: PairedRecord, gold: Row, found: Row | None) -> None:
        """Count a gold phrase in its groups, the columns, the scores, the AP and its class."""
        for kind, name in _groups_of(record, gold, found):
            if kind in _GROUPS_OF_FREE_TEXT and self._classes is not None:
                continue
            indices = self.places.setdefault(kind, {}).setdefault(name, array("I"))
            indices.append(self.phrases.rows)
        columns, scores = phrase_columns(gold, found, self._rules)
        self.phrases.add(columns)
        for score, is_right in scores:
            self.scores.extend((score, is_right))
        if found is None:
            self.missing += 1
        if columns["judged"]:
            self.precision.add(gold, found)

    def sums(self, spans_stated: bool) -> Columns:
        """Return the columns of phrases and captions, summed for each image.

        Boxes of phrases that the gold doesn't have are added to `boxes`, and so count as wrong. The
        columns of captions are 0 unless both sides state spans.
        """
        images = np.frombuffer(self._images, np.int64)
        image_of_phrase = np.repeat(images, np.frombuffer(self._phrases_of, np.int64))
        sums = {}
        for name, column in self.phrases.columns().items():
            sums[name] = np.bincount(image_of_phrase, column, images.max() + 1)
        for name, column in self._captions.columns().items():
            # Where one side states no spans, there is nothing to compare.
            sums[name] = np.bincount(images, column) * spans_stated
        sums["boxes"] += np.bincount(images, np.frombuffer(self._extra_boxes, np.int64))
        return sums


def _groups_of(record: PairedRecord, gold: Row, found: Row | None) -> Iterator[tuple[str, str]]:
    """Yield the groups that a gold phrase is in, each with its kind: `("words", "1-3")`.

    Kinds are size, words, category, status and model. One that can't be told is left out.
    """
    areas = [area(instance["bbox"]) for instance in gold["instances"]]
    if areas:
        yield "size", _SIZE_GROUPS[bisect(_SIZE_BOUNDS, sum(areas) / len(areas))]
    yield "words", _WORD_GROUPS[bisect(_WORD_BOUNDS, len(gold["text"].split()))]
    types = gold.get("type") or head_of(gold["text"])
    if not isinstance(types, (list, tuple)):
        types = [types]
    for category in types:
        yield "category", str(category)
    if found is None:
        yield "status", "missing"
        return
    yield "status", str(found.get("status") or "not stated")
    if record.found and record.found["model"]:
        yield "model", str(record.found["model"])


def _to_json(figures: Mapping[str, Any]) -> Figures:
    """Return figures as JSON has them: six decimals, no -0, None in place of NaN."""
    rounded: Figures = {}
    for name, value in figures.items():
        if value is None or math.isnan(value):
            rounded[name] = None
        else:
            # Adding 0 makes -0 a plain 0.
            rounded[name] = round(float(value), 6) + 0.0
    return rounded

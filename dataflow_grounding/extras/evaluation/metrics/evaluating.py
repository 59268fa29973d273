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
from dataflow_grounding.boxes.geometry import area
from dataflow_grounding.extras.evaluation.metrics._average_precision import AveragePrecision
from dataflow_grounding.extras.evaluation.metrics._measures import figures_of, of_caption, of_phrase
from dataflow_grounding.extras.evaluation.metrics.annotations import (
    Source,
    as_gold,
    head_of,
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

Columns = dict[str, np.ndarray]
Figures = dict[str, float | int | None]
Groups = dict[str, dict[str, "array[int]"]]  # kind, name of the group → the places of its phrases
_MOST = 20  # groups of each kind: the largest
_WORDS = ("1-3", "4-6", "7-9", "10 or more")  # D³'s
# COCO's; of several boxes by the mean area
_SIZES = ("small, < 32² px", "medium, < 96² px", "large")
_OF_GROUPS = ("acc_0.5", "miou", "r1_any", "gprec_f1", "density_f1")


@dataclass
class Evaluation:
    """One run's `figures` against gold, None where there is nothing to divide by, and what they are
    made of.

    `columns` are what counts for each gold phrase, `sums` for each image; `right` is whether a
    phrase's first box is right, or, without gold boxes, whether there is none. `curve` is what
    `kept_and_right` says of the scores, `notes` what a reader has to know. `pairs` are matched anew
    whenever one goes over them.
    """

    pairs: Pairs
    rules: Rules
    columns: Columns
    sums: Columns
    right: np.ndarray
    curve: np.ndarray
    figures: Figures
    notes: list[str]
    places: Groups

    @cached_property
    def draws(self) -> Columns:
        """The figures of 1,000 bootstrap samples of the images."""
        return figures_of(draws_of(self.sums), self.rules)

    def to_json(self) -> dict[str, Any]:
        """The figures, their 95 % intervals, groups of phrases, scores to cut at,
        notes and rules.
        """
        groups: dict[str, dict[str, Figures]] = {kind: {} for kind in self.places}
        for kind, of in self.places.items():
            for group in sorted(sorted(of, key=lambda name: -len(of[name]))[:_MOST]):
                sums = {name: column[of[group]].sum() for name, column in self.columns.items()}
                figures = _plain(figures_of(sums, self.rules))
                groups[kind][group] = {
                    "expressions": len(of[group]),
                    **{name: figures[name] for name in _OF_GROUPS},
                }
        intervals = {
            name: interval(self.draws[name])
            for name in self.draws
            if self.figures[name] is not None
        }
        more = {
            "groups": groups,
            "cuts": cuts(self.curve),
            "notes": self.notes,
            "rules": vars(self.rules),
        }
        return {**self.figures, "intervals": intervals, **more}

    def against(self, other: "Evaluation") -> dict[str, Any]:
        """Another run on the same gold, less this one: differences, their 95 % intervals, McNemar's
        test of `right`.
        """
        both = {name: (self.figures[name], other.figures[name]) for name in self.draws}
        known = {name: b - a for name, (a, b) in both.items() if a is not None and b is not None}
        sides = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return {
            "difference": {**dict.fromkeys(both), **_plain(known)},
            "intervals": {name: interval(other.draws[name] - self.draws[name]) for name in known},
            "mcnemar": {
                "only_first_right": sides[0],
                "only_second_right": sides[1],
                "p": mcnemar(*sides),
            },
        }


def evaluate(found: Source, gold: Source, rules: Rules = Rules()) -> "Evaluation":  # noqa: B008
    """Compare predictions with gold: records, a data file, a results folder, or what
    `read_annotations` made of them.

    Raises:
        InputError: Something can't be read, or there is nothing to compare.

    Example:
        >>> expression = {"text": "a dog", "instances": [{"bbox": [0, 0, 10, 10]}]}
        >>> dog = {"image_path": "a.jpg", "expressions": [expression]}
        >>> evaluate([dog], [dog]).figures["acc_0.5"]
        1.0
    """
    truth, answers = as_gold(read_annotations(gold)), read_annotations(found)
    if not truth.phrase_count:
        raise InputError(
            f"{truth.name} has no boxes: gold is records with `expressions` and their `instances`"
        )
    pairs = pair(answers, truth)
    counts = _Counts(rules)
    for record in pairs:
        counts.add(record)
    columns, phrases = counts.phrases.columns(), counts.phrases.rows
    curve = kept_and_right(np.frombuffer(counts.scores).reshape(-1, 2))
    sums = counts.sums(truth.states_spans and answers.states_spans)
    totals = {name: column.sum() for name, column in sums.items()}
    figures: Figures = {
        "images": len(sums["one"]),
        "expressions": phrases,
        "expressions_not_judged": phrases - int(totals["judged"]),
        "expressions_missing": counts.missing,
        "expressions_not_in_gold": counts.extra,
        "expressions_of_other_records": (
            answers.phrase_count - phrases + counts.missing - counts.extra
        ),
        "grounded": int(totals["grounded_share"]),
        **{name: int(totals[name]) for name in ("boxes", "gold_boxes", "scored_boxes")},
        **_plain(figures_of(totals, rules)),
        **_plain({"ap": counts.precision.value()}),
    }
    notes = (
        []
        if len(curve)
        else ["no scores: boxes are ranked by their order, and R@5 and R@10 then mean little"]
    )
    if counts.scaled:
        records = f"boxes of {counts.scaled:,} records of {answers.name}"
        notes.append(f"{records} are scaled to the size that {truth.name} states")
    first = rules.passes(columns["held"], rules.threshold)
    right = np.where(
        columns["boxed"] > 0, first, (columns["gprec_f1"] > 0) | (columns["judged"] == 0)
    )
    return Evaluation(pairs, rules, columns, sums, right, curve, figures, notes, counts.places)


class _Table:
    """Rows of the same named numbers, 8 bytes each."""

    def __init__(self) -> None:
        self.rows = 0
        self._names: list[str] = []
        self._values = array("d")

    def add(self, row: Mapping[str, float]) -> None:
        self._names = self._names or [*row]
        self._values.extend(row.values())
        self.rows += 1

    def columns(self) -> Columns:
        return dict(
            zip(self._names, np.frombuffer(self._values).reshape(self.rows, -1).T, strict=True)
        )


class _Counts:
    """What records and their phrases count for, in numbers alone: the records themselves are not
    kept.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.phrases, self._captions = _Table(), _Table()
        # of each record: its image, its phrases, the boxes of phrases not in the gold
        self._images = array("q")
        self._phrases_of, self._extra_boxes = array("q"), array("q")
        self.scores = array("d")  # each score, and whether its box is right
        self.places: Groups = {}
        self.precision = AveragePrecision()
        self.missing = self.extra = self.scaled = 0

    def add(self, record: PairedRecord) -> None:
        self._images.append(record.image)
        self._phrases_of.append(len(record.phrases))
        self._extra_boxes.append(sum(len(self._rules.counted(phrase)) for phrase in record.extra))
        self._captions.add(of_caption(record, self._rules))
        self.extra += len(record.extra)
        self.scaled += record.scaled
        for gold, found in record.phrases:
            for kind, name in _names_of_groups(record, gold, found):
                self.places.setdefault(kind, {}).setdefault(name, array("I")).append(
                    self.phrases.rows
                )
            columns, scores = of_phrase(gold, found, self._rules)
            self.phrases.add(columns)
            for score, is_right in scores:
                self.scores.extend((score, is_right))
            self.missing += found is None
            if columns["judged"]:
                self.precision.add(gold, found)

    def sums(self, spans_stated: bool) -> Columns:
        """What counts, per image; boxes of phrases that the gold doesn't have are wrong."""
        images, extra = (
            np.frombuffer(self._images, np.int64),
            np.frombuffer(self._extra_boxes, np.int64),
        )
        of_phrases = np.repeat(images, np.frombuffer(self._phrases_of, np.int64))
        columns, spans = self.phrases.columns(), self._captions.columns()
        sums = {
            name: np.bincount(of_phrases, column, images.max() + 1)
            for name, column in columns.items()
        }
        sums |= {name: np.bincount(images, column) * spans_stated for name, column in spans.items()}
        sums["boxes"] += np.bincount(images, extra)
        return sums


def _names_of_groups(
    record: PairedRecord, gold: Row, found: Row | None
) -> Iterator[tuple[str, str]]:
    if areas := [area(instance["bbox"]) for instance in gold["instances"]]:
        yield "size", _SIZES[bisect((32**2, 96**2), sum(areas) / len(areas))]
    yield "words", _WORDS[bisect((4, 7, 10), len(gold["text"].split()))]
    types = gold.get("type") or head_of(gold["text"])
    yield from (
        ("category", str(name)) for name in (types if isinstance(types, (list, tuple)) else [types])
    )
    yield "status", str(found.get("status") or "not stated") if found else "missing"
    if found and record.found and record.found["model"]:
        yield "model", str(record.found["model"])


def _plain(figures: Mapping[str, Any]) -> Figures:
    """Figures as JSON has them: to four decimals, none of them -0, null for what has nothing to
    divide by.
    """
    return {
        k: None if v is None or math.isnan(v) else round(float(v), 4) + 0.0
        for k, v in figures.items()
    }

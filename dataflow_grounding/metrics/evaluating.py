"""All figures of predictions against gold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dataflow_grounding.errors import InputError, MissingExtra
from dataflow_grounding.metrics.annotations import Source, read_annotations
from dataflow_grounding.metrics.caption_spans import span_columns
from dataflow_grounding.metrics.coco_ap import coco_ap
from dataflow_grounding.metrics.confidence import cuts, kept_and_right
from dataflow_grounding.metrics.draws import draws_of, interval, mcnemar
from dataflow_grounding.metrics.groups import groups_of
from dataflow_grounding.metrics.measures import (
    Columns,
    confidence_columns,
    figures_of,
    first_columns,
    recall_columns,
    set_columns,
)
from dataflow_grounding.metrics.overlaps import Overlaps, Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import Pairs, pair

Figures = dict[str, float | int | None]
_OF_GROUPS = ("acc_0.5", "miou", "r1_any", "gprec_f1", "density_f1")


@dataclass
class Evaluation:
    """One run's `figures` against gold, None where there is nothing to divide by, and what they are made of.

    `columns` are summed per gold phrase, `sums` per image. `overlap` is that of each gold phrase's first box, 0 without
    one; `right` whether that box is right, or, without gold boxes, whether there is none. `curve` is what
    `kept_and_right` says of the scores, `notes` what a reader has to know.
    """

    pairs: Pairs
    rules: Rules
    columns: Columns
    sums: Columns
    overlap: np.ndarray
    right: np.ndarray
    curve: np.ndarray
    figures: Figures
    notes: list[str]

    @cached_property
    def draws(self) -> Columns:
        """The figures of 1,000 bootstrap samples of the images."""
        return _named(figures_of(draws_of(self.sums)), self.rules)

    def to_json(self) -> dict[str, Any]:
        """The figures, their 95 % intervals, groups of phrases, scores to cut at, notes and rules."""
        groups: dict[str, dict[str, Figures]] = {}
        for table, group, places in groups_of(self.pairs):
            figures = _plain(figures_of({name: column[places].sum() for name, column in self.columns.items()}))
            shown = {"expressions": len(places), **{name: figures[name] for name in _OF_GROUPS}}
            groups.setdefault(table, {})[group] = shown
        intervals = {name: interval(self.draws[name]) for name in self.draws if self.figures[name] is not None}
        more = {"groups": groups, "cuts": cuts(self.curve), "notes": self.notes, "rules": vars(self.rules)}
        return {**self.figures, "intervals": intervals, **more}

    def against(self, other: Evaluation) -> dict[str, Any]:
        """Another run on the same gold, less this one: differences, their 95 % intervals, McNemar's test of `right`."""
        draws = {name: other.draws[name] - self.draws[name] for name in self.draws}
        both = ((name, self.figures[name], other.figures[name]) for name in draws)
        difference = _plain({name: math.nan if a is None or b is None else b - a for name, a, b in both})
        sides = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return {
            "difference": difference,
            "intervals": {name: interval(draws[name]) for name, value in difference.items() if value is not None},
            "mcnemar": {"only_first_right": sides[0], "only_second_right": sides[1], "p": mcnemar(*sides)},
        }


def evaluate(found: Source, gold: Source, rules: Rules = Rules()) -> Evaluation:  # noqa: B008
    """Compare predictions with gold: records, a data file, a results folder, or what `read_annotations` made of them.

    Raises:
        InputError: Something can't be read, or there is nothing to compare.

    Example:
        >>> dog = {"image_path": "a.jpg", "expressions": [{"text": "a dog", "instances": [{"bbox": [0, 0, 10, 10]}]}]}
        >>> evaluate([dog], [dog]).figures["acc_0.5"]
        1.0
    """
    truth = read_annotations(gold)
    if not truth.phrases:
        raise InputError(f"{truth.name} has no boxes: gold is records with `expressions` and their `instances`")
    pairs = pair(read_annotations(found), truth)
    boxes, wanted, image_of = pairs.found.boxes, truth.boxes.counts, pairs.image_of
    overlaps = overlaps_of(truth.boxes, boxes, pairs.partner, rules)
    first = overlaps.where(overlaps.rank == 0)
    overlap, iou = np.zeros((2, len(wanted)))
    np.maximum.at(overlap, first.phrase, first.overlap)
    np.maximum.at(iou, first.phrase, first.iou)
    kept = ~(boxes.scores < (rules.score_cut or 0.0))
    counts = np.diff(np.append(0, np.cumsum(kept))[boxes.starts])
    columns = {
        **first_columns(wanted, overlap, iou, rules),
        **recall_columns(pairs, overlaps, rules),
        **set_columns(pairs, overlaps.where(kept[overlaps.found]), counts, rules),
    }
    confidence, of_box = _confidence(pairs, overlaps, rules)
    sums = {
        **_summed(columns, image_of[pairs.record_of], image_of),
        **_summed(confidence_columns(*confidence), image_of[pairs.record_of[of_box]], image_of),
        **_summed(span_columns(pairs, rules), image_of, image_of),
    }
    extra = (pairs.owner < 0) & (pairs.record_owner >= 0)  # phrases that the gold doesn't have: their boxes are wrong
    np.add.at(sums["found"], image_of[pairs.record_owner[extra]], counts[extra])
    right = np.where(wanted > 0, rules.passes(overlap, rules.threshold), columns["gprec_f1"] | ~pairs.judged)
    totals = {name: column.sum() for name, column in sums.items()}
    figures: Figures = {
        "images": len(sums["gold"]),
        "expressions": len(wanted),
        "expressions_not_judged": int((~pairs.judged).sum()),
        "expressions_missing": int((pairs.partner < 0).sum()),
        "expressions_not_in_gold": int(extra.sum()),
        "expressions_of_other_records": int((pairs.record_owner < 0).sum()),
        "grounded": int(totals["grounded_share"]),
        "boxes": int(totals["found"]),
        "gold_boxes": int(totals["gold"]),
        "scored_boxes": len(of_box),
        "captions": int(totals["captions"]),
        **_plain(_named(figures_of(totals), rules)),
        "ap": None,
    }
    notes = [] if len(of_box) else ["no scores: boxes are ranked by their order, and R@5 and R@10 then mean little"]
    try:
        figures["ap"] = _plain({"ap": coco_ap(pairs)})["ap"]
    except MissingExtra as missing:
        notes.append(str(missing))
    return Evaluation(pairs, rules, columns, sums, overlap, right, kept_and_right(*confidence), figures, notes)


def _confidence(pairs: Pairs, overlaps: Overlaps, rules: Rules) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Score and rightness of the boxes that have a score and belong to a gold phrase, and that phrase's place."""
    scores = pairs.found.boxes.scores
    matched, right = one_to_one(overlaps, rules), np.zeros(len(scores), bool)
    right[matched.found] = rules.passes(matched.overlap, rules.threshold)
    scored = (pairs.box_owner >= 0) & ~np.isnan(scores)
    return (scores[scored], right[scored]), pairs.box_owner[scored]


def _summed(columns: Columns, image: np.ndarray, images: np.ndarray) -> Columns:
    return {name: np.bincount(image, column, images.max() + 1) for name, column in columns.items()}


def _named(figures: Columns, rules: Rules) -> Columns:
    ending = f"_at_iou_{rules.threshold:g}"
    return {name + ending if name in ("precision", "recall") else name: value for name, value in figures.items()}


def _plain(figures: Mapping[str, Any]) -> Figures:
    """Figures as JSON has them: to four decimals, null for what has nothing to divide by."""
    return {k: None if v is None or math.isnan(v) else round(float(v), 4) for k, v in figures.items()}

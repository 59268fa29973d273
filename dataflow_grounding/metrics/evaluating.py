"""All figures of predictions against gold: each family's columns, summed per image, and what the sums say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dataflow_grounding.errors import InputError, MissingExtra
from dataflow_grounding.metrics.annotations import Source, read_annotations
from dataflow_grounding.metrics.caption_spans import span_columns, span_figures
from dataflow_grounding.metrics.coco_ap import coco_ap
from dataflow_grounding.metrics.confidence import auroc, confidence_columns, confidence_figures, cuts, kept_and_right
from dataflow_grounding.metrics.generalised import box_figures, set_columns, set_figures
from dataflow_grounding.metrics.groups import groups_of
from dataflow_grounding.metrics.overlaps import Overlaps, Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import Pairs, pair
from dataflow_grounding.metrics.phrases import hulls, recall_columns, recall_figures
from dataflow_grounding.metrics.rec import rec_columns, rec_figures
from dataflow_grounding.metrics.sums import Sums, draws_of, interval, mcnemar, summed

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
    columns: Sums
    sums: Sums
    overlap: np.ndarray
    right: np.ndarray
    curve: np.ndarray
    figures: Figures
    notes: list[str]

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """The figures of 1,000 bootstrap samples of the images."""
        return draws_of(self.sums, lambda sums: _all_figures(sums, self.rules))

    def to_json(self) -> dict[str, Any]:
        """The figures, their 95 % intervals, groups of phrases, scores to cut at, notes and rules."""
        groups: dict[str, dict[str, Figures]] = {}
        for table, group, places in groups_of(self.pairs):
            sums = {name: column[places].sum(axis=0) for name, column in self.columns.items()}
            figures = _plain(_phrase_figures(sums))
            shown = {"expressions": len(places), **{name: figures[name] for name in _OF_GROUPS}}
            groups.setdefault(table, {})[group] = shown
        intervals = {name: interval(self.draws[name]) for name in self.draws if self.figures[name] is not None}
        more = {"groups": groups, "cuts": cuts(self.curve), "notes": self.notes, "rules": vars(self.rules)}
        return {**self.figures, "intervals": intervals, **more}

    def against(self, other: Evaluation) -> dict[str, Any]:
        """Another run on the same gold, less this one: differences, their 95 % intervals, McNemar's test of `right`."""
        draws = {name: other.draws[name] - self.draws[name] for name in self.draws}
        both = ((name, self.figures[name], other.figures[name]) for name in draws)
        difference = _plain({name: None if a is None or b is None else b - a for name, a, b in both})
        sides = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        test = {"only_first_right": sides[0], "only_second_right": sides[1], "p": mcnemar(*sides)}
        return {
            "difference": difference,
            "intervals": {name: interval(draws[name]) for name, value in difference.items() if value is not None},
            "mcnemar": test,
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
    boxes, wanted = pairs.found.boxes, truth.boxes.counts
    overlaps = overlaps_of(truth.boxes, boxes, pairs.partner, rules)
    first = overlaps.where(overlaps.rank == 0)
    overlap, iou = np.zeros((2, len(wanted)))
    np.maximum.at(overlap, first.phrase, first.overlap)
    np.maximum.at(iou, first.phrase, first.iou)
    kept = np.ones(len(boxes.scores), bool) if rules.score_cut is None else ~(boxes.scores < rules.score_cut)
    counts = np.diff(np.append(0, np.cumsum(kept))[boxes.starts])
    hulled = overlaps_of(hulls(truth.boxes), boxes, pairs.partner, rules)
    matched = one_to_one(overlaps.where(kept[overlaps.found]), rules)
    columns = {
        **rec_columns(wanted, overlap, iou, rules),
        **recall_columns("any", wanted, overlaps, rules),
        **recall_columns("merged", wanted, hulled, rules),
        **set_columns(np.append(counts, 0)[pairs.partner], pairs, matched, rules),
    }
    confidence, of_box = _confidence(pairs, overlaps, rules)
    extra = np.where(pairs.owner < 0, counts, 0)[pairs.record_owner >= 0]
    images = int(pairs.image_of.max()) + 1
    sums = {
        **summed(columns, pairs.image_of[pairs.record_of], images),
        **summed({"extra": extra}, pairs.image_of[pairs.record_owner[pairs.record_owner >= 0]], images),
        **summed(span_columns(pairs, rules), pairs.image_of, images),
        **summed(confidence_columns(*confidence), pairs.image_of[pairs.record_of[of_box]], images),
    }
    right = np.where(wanted > 0, rules.passes(overlap, rules.threshold), columns["perfect"] | ~pairs.judged)
    run = Evaluation(pairs, rules, columns, sums, overlap, right, kept_and_right(*confidence), {}, [])
    _add_figures(run, len(of_box), auroc(*confidence))
    return run


def _add_figures(run: Evaluation, scored: int, chance: float | None) -> None:
    pairs, total = run.pairs, {name: column.sum(axis=0) for name, column in run.sums.items()}
    run.figures |= {
        "images": len(run.sums["gold"]),
        "expressions": len(pairs.partner),
        "expressions_not_judged": int((~pairs.judged).sum()),
        "expressions_missing": int((pairs.partner < 0).sum()),
        "expressions_not_in_gold": int(((pairs.owner < 0) & (pairs.record_owner >= 0)).sum()),
        "expressions_of_other_records": int((pairs.record_owner < 0).sum()),
        "grounded": int(total["said"]),
        "boxes": int(total["found"] + total["extra"]),
        "gold_boxes": int(total["gold"]),
        "scored_boxes": scored,
        "captions": int(total["captions"]),
        "spans_elsewhere": int(total["elsewhere"]),
        **_plain({**_all_figures(total, run.rules), "auroc": chance, "ap": None}),
    }
    if not scored:
        run.notes.append("no scores: boxes are ranked by their order, and R@5 and R@10 then mean little")
    try:
        run.figures |= _plain({"ap": coco_ap(pairs)})
    except MissingExtra as missing:
        run.notes.append(str(missing))


def _confidence(pairs: Pairs, overlaps: Overlaps, rules: Rules) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Score and rightness of the boxes that have a score and belong to a gold phrase, and that phrase's place."""
    boxes = pairs.found.boxes
    matched, right = one_to_one(overlaps, rules), np.zeros(len(boxes.scores), bool)
    right[matched.found] = rules.passes(matched.overlap, rules.threshold)
    scored = (pairs.box_owner >= 0) & ~np.isnan(boxes.scores)
    return (boxes.scores[scored], right[scored]), pairs.box_owner[scored]


def _phrase_figures(sums: Sums) -> Sums:
    recall = {**recall_figures("any", sums), **recall_figures("merged", sums)}
    return {**rec_figures(sums), **recall, **set_figures(sums)}


def _all_figures(sums: Sums, rules: Rules) -> Sums:
    figures = {**_phrase_figures(sums), **box_figures(sums, rules.threshold)}
    return {**figures, **span_figures(sums), **confidence_figures(sums)}


def _plain(figures: Mapping[str, Any]) -> Figures:
    """Figures as JSON has them: to four decimals, null for what has nothing to divide by."""
    return {k: None if v is None or math.isnan(v) else round(float(v), 4) for k, v in figures.items()}

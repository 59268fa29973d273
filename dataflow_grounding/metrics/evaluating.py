"""All figures of predictions against gold."""

import hashlib
import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from typing import Any

import numpy as np

from dataflow_grounding.errors import InputError, MissingExtra, needs_extra
from dataflow_grounding.geometry import area
from dataflow_grounding.metrics.annotations import Source, as_gold, head_of, read_annotations
from dataflow_grounding.metrics.confidence import cuts, draws_of, interval, kept_and_right, mcnemar
from dataflow_grounding.metrics.measures import figures_of, of_caption, of_phrase
from dataflow_grounding.metrics.pairs import PairedRecord, Row, Rules, pair

Columns = dict[str, np.ndarray]
Figures = dict[str, float | int | None]
_MOST = 20  # groups of each kind: the largest
_WORDS = ("1-3", "4-6", "7-9", "10 or more")  # D³'s
_SIZES = ("small, < 32² px", "medium, < 96² px", "large")  # COCO's; of several boxes by the mean area
_OF_GROUPS = ("acc_0.5", "miou", "r1_any", "gprec_f1", "density_f1")


@dataclass
class Evaluation:
    """One run's `figures` against gold, None where there is nothing to divide by, and what they are made of.

    `columns` are what counts for each gold phrase, `sums` for each image; `right` is whether a phrase's first box is
    right, or, without gold boxes, whether there is none. `curve` is what `kept_and_right` says of the scores, `notes`
    what a reader has to know.
    """

    pairs: list[PairedRecord]
    rules: Rules
    columns: Columns
    sums: Columns
    right: np.ndarray
    curve: np.ndarray
    figures: Figures
    notes: list[str]

    @cached_property
    def draws(self) -> Columns:
        """The figures of 1,000 bootstrap samples of the images."""
        return figures_of(draws_of(self.sums), self.rules)

    def to_json(self) -> dict[str, Any]:
        """The figures, their 95 % intervals, groups of phrases, scores to cut at, notes and rules."""
        kinds: dict[str, dict[str, list[int]]] = {}
        phrases = ((record, *phrase) for record in self.pairs for phrase in record.phrases)
        for place, phrase in enumerate(phrases):
            for kind, name in _names_of_groups(*phrase):
                kinds.setdefault(kind, {}).setdefault(name, []).append(place)
        groups: dict[str, dict[str, Figures]] = {kind: {} for kind in kinds}
        for kind, of in kinds.items():
            for group in sorted(sorted(of, key=lambda name: -len(of[name]))[:_MOST]):
                sums = {name: column[of[group]].sum() for name, column in self.columns.items()}
                figures = _plain(figures_of(sums, self.rules))
                groups[kind][group] = {"expressions": len(of[group]), **{name: figures[name] for name in _OF_GROUPS}}
        intervals = {name: interval(self.draws[name]) for name in self.draws if self.figures[name] is not None}
        more = {"groups": groups, "cuts": cuts(self.curve), "notes": self.notes, "rules": vars(self.rules)}
        return {**self.figures, "intervals": intervals, **more}

    def against(self, other: "Evaluation") -> dict[str, Any]:
        """Another run on the same gold, less this one: differences, their 95 % intervals, McNemar's test of `right`."""
        both = {name: (self.figures[name], other.figures[name]) for name in self.draws}
        known = {name: b - a for name, (a, b) in both.items() if a is not None and b is not None}
        sides = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return {
            "difference": {**dict.fromkeys(both), **_plain(known)},
            "intervals": {name: interval(other.draws[name] - self.draws[name]) for name in known},
            "mcnemar": {"only_first_right": sides[0], "only_second_right": sides[1], "p": mcnemar(*sides)},
        }


def evaluate(found: Source, gold: Source, rules: Rules = Rules()) -> "Evaluation":  # noqa: B008
    """Compare predictions with gold: records, a data file, a results folder, or what `read_annotations` made of them.

    Raises:
        InputError: Something can't be read, or there is nothing to compare.

    Example:
        >>> dog = {"image_path": "a.jpg", "expressions": [{"text": "a dog", "instances": [{"bbox": [0, 0, 10, 10]}]}]}
        >>> evaluate([dog], [dog]).figures["acc_0.5"]
        1.0
    """
    truth, answers = as_gold(read_annotations(gold)), read_annotations(found)
    if not truth.phrases:
        raise InputError(f"{truth.name} has no boxes: gold is records with `expressions` and their `instances`")
    pairs = pair(answers, truth)
    phrases = [phrase for record in pairs for phrase in record.phrases]
    rows, scores = zip(*(of_phrase(*phrase, rules) for phrase in phrases), strict=True)
    columns, curve = _columns(rows), kept_and_right(np.array(list(chain.from_iterable(scores)), float).reshape(-1, 2))
    spans_stated = all(any(phrase.get("char_span") for phrase in side.phrases) for side in (truth, answers))
    sums = _sums(pairs, columns, rules, spans_stated)
    totals = {name: column.sum() for name, column in sums.items()}
    extra = sum(len(record.extra) for record in pairs)
    missing = sum(answer is None for _, answer in phrases)
    figures: Figures = {
        "images": len(sums["one"]),
        "expressions": len(phrases),
        "expressions_not_judged": len(phrases) - int(totals["judged"]),
        "expressions_missing": missing,
        "expressions_not_in_gold": extra,
        "expressions_of_other_records": len(answers.phrases) - len(phrases) + missing - extra,
        "grounded": int(totals["grounded_share"]),
        **{name: int(totals[name]) for name in ("boxes", "gold_boxes", "scored_boxes")},
        **_plain(figures_of(totals, rules)),
        "ap": None,
    }
    notes = [] if len(curve) else ["no scores: boxes are ranked by their order, and R@5 and R@10 then mean little"]
    if scaled := sum(record.scaled for record in pairs):
        notes.append(f"boxes of {scaled:,} records of {answers.name} are scaled to the size that {truth.name} states")
    try:
        figures |= _plain({"ap": coco_ap(list(compress(phrases, columns["judged"])))})
    except MissingExtra as error:
        notes.append(str(error))
    first = rules.passes(columns["held"], rules.threshold)
    right = np.where(columns["boxed"] > 0, first, (columns["gprec_f1"] > 0) | (columns["judged"] == 0))
    return Evaluation(pairs, rules, columns, sums, right, curve, figures, notes)


def _sums(pairs: Sequence[PairedRecord], columns: Columns, rules: Rules, spans_stated: bool) -> Columns:
    """What counts, per image; boxes of phrases that the gold doesn't have are wrong."""
    images = np.array([record.image for record in pairs])
    extra = np.array([sum(len(rules.counted(phrase)) for phrase in record.extra) for record in pairs])
    of_phrases = np.repeat(images, [len(record.phrases) for record in pairs])
    spans = _columns([of_caption(record, rules) for record in pairs])
    sums = {name: np.bincount(of_phrases, column, images.max() + 1) for name, column in columns.items()}
    sums |= {name: np.bincount(images, column) * spans_stated for name, column in spans.items()}
    sums["boxes"] += np.bincount(images, extra)
    return sums


def _names_of_groups(record: PairedRecord, gold: Row, found: Row | None) -> Iterator[tuple[str, str]]:
    if areas := [area(instance["bbox"]) for instance in gold["instances"]]:
        yield "size", _SIZES[bisect((32**2, 96**2), sum(areas) / len(areas))]
    yield "words", _WORDS[bisect((4, 7, 10), len(gold["text"].split()))]
    types = gold.get("type") or head_of(gold["text"])
    yield from (("category", str(name)) for name in (types if isinstance(types, (list, tuple)) else [types]))
    yield "status", str(found.get("status") or "not stated") if found else "missing"
    if found and record.found and record.found["model"]:
        yield "model", str(record.found["model"])


def _columns(rows: Sequence[Mapping[str, float]]) -> Columns:
    return dict(zip(rows[0], np.array([list(row.values()) for row in rows], float).T, strict=True))


def _plain(figures: Mapping[str, Any]) -> Figures:
    """Figures as JSON has them: to four decimals, none of them -0, null for what has nothing to divide by."""
    return {k: None if v is None or math.isnan(v) else round(float(v), 4) + 0.0 for k, v in figures.items()}


def coco_ap(phrases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> float | None:
    """AP of gold and found phrases, over IoU 0.5:0.05:0.95, at 100 boxes a phrase; None without gold boxes.

    One class, "phrase"; each phrase of an image is ranked as an image of its own, so that what the gold doesn't ask for
    in an image is no false positive there (as in LVIS). Boxes without score come last, the first ones of all phrases
    before the second ones. Of phrases with equal scores a digest says which comes first, so that the order of the
    records doesn't count.

    Raises:
        MissingExtra: faster-coco-eval is not installed.
    """
    with needs_extra("COCO AP (ap)", "eval"):
        from faster_coco_eval import COCO, COCOeval_faster
    sides = ([side["instances"] if side else [] for side in phrase] for phrase in phrases)
    boxes = [[[(*box["bbox"], box["score"]) for box in side] for side in phrase] for phrase in sides]
    boxes.sort(key=lambda phrase: hashlib.sha256(repr(phrase).encode()).digest())
    wanted, answers = ([*_rows_of([phrase[side] for phrase in boxes])] for side in (0, 1))
    if not wanted or not answers:
        return 0.0 if wanted else None
    images = [{"id": n} for n in range(len(phrases))]
    truth = COCO({"images": images, "categories": [{"id": 1, "name": "phrase"}], "annotations": wanted})
    judge = COCOeval_faster(truth, truth.loadRes(answers), "bbox", print_function=lambda *_: None)
    every = [-math.inf, math.inf]  # COCO's own range leaves out boxes with reversed corners, and those above 1e10 px²
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [every], ["all"], [100]
    judge.evaluate()
    judge.accumulate()
    return float(judge.eval["precision"].mean())


def _rows_of(phrases: Sequence[Sequence[Sequence[float]]]) -> Iterator[dict[str, Any]]:
    boxes = [(image, place, *box) for image, phrase in enumerate(phrases) for place, box in enumerate(phrase)]
    for n, (image, place, x1, y1, x2, y2, score) in enumerate(boxes, 1):
        row = {"id": n, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        yield {**row, "area": (x2 - x1) * (y2 - y1), "score": -1.0 - place if score is None else score}

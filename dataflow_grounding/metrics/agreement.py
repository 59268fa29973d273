"""How far two annotators agree on boxes and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dataflow_grounding.metrics.annotations import Source, read_annotations
from dataflow_grounding.metrics.overlaps import Overlaps, Rules, iou_of, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import Pairs, pair

_RANDOM_PAIRS = 10_000


def agreement(first: Source, second: Source, rules: Rules = Rules()) -> dict[str, Any]:  # noqa: B008
    """How far two annotators of the same images agree; None where there is nothing to compare.

    Boxes of a phrase are matched one to one, the largest IoU first. Of records that both have, boxes of phrases that
    one alone has stand alone.

    Returns:
        f1_0.5, f1_0.75: Twice the matched boxes, of all boxes.
        mean_iou, corner_distance: Of boxes that match from IoU 0.5; the distance of corners in % of the diagonal.
        both_none: Share of common phrases for which neither has a box.
        alpha_box_experimental: 1 - disagreement / disagreement of boxes of two random images, which is 1 - IoU, or 1
            for a box that stands alone.
        kappa_status, alpha_status, kappa_verified, alpha_verified: Of these labels.

    Raises:
        InputError: Something can't be read, or they have no record in common.
    """
    pairs = pair(read_annotations(second), read_annotations(first))
    a, b = pairs.gold, pairs.found
    matched = one_to_one(overlaps_of(a.boxes, b.boxes, pairs.partner, rules), rules)
    known = np.isin(pairs.record_of, np.flatnonzero(pairs.records >= 0))
    boxes = int(a.boxes.counts[known].sum() + b.boxes.counts[pairs.record_owner >= 0].sum())
    common = np.flatnonzero(pairs.partner >= 0)
    none = (a.boxes.counts[common] == 0) & (b.boxes.counts[pairs.partner[common]] == 0)
    rounded = {
        **{f"f1_{t}": 2 * rules.passes(matched.overlap, t).sum() / boxes if boxes else None for t in (0.5, 0.75)},
        "mean_iou": _mean(matched.iou),
        "corner_distance": _mean(_corner_distances(pairs, matched)),
        "both_none": _mean(none),
        "alpha_box_experimental": _box_alpha(pairs, matched, boxes, rules),
    }
    for name in ("status", "verified"):
        both = ((a.phrases[n][name], b.phrases[pairs.partner[n]][name]) for n in common)
        units = [(x if x is None else str(x), y if y is None else str(y)) for x, y in both]
        rounded |= {f"kappa_{name}": kappa(units), f"alpha_{name}": alpha(units)}
    return {
        "images": len(np.unique(pairs.image_of[pairs.records >= 0])),
        "expressions": len(common),
        "expressions_of_one": int(known.sum()) + int((pairs.record_owner >= 0).sum()) - 2 * len(common),
        "boxes": boxes,
        **{name: None if value is None else round(float(value), 4) for name, value in rounded.items()},
    }


def kappa(units: Iterable[tuple[Any, Any]]) -> float | None:
    """Cohen's κ (1960) of two annotators' labels; None where one is missing, or chance alone would agree.

    Example:
        >>> kappa([("a", "a"), ("a", "a"), ("b", "b"), ("a", "b")])  # (3/4 - 1/2) / (1 - 1/2)
        0.5
    """
    both = [unit for unit in units if None not in unit]
    first, second = (Counter(unit[side] for unit in both) for side in (0, 1))
    chance = sum(first[label] * second[label] for label in first) / max(len(both), 1) ** 2
    agreed = sum(a == b for a, b in both) / max(len(both), 1)
    return (agreed - chance) / (1 - chance) if both and chance < 1 else None


def alpha(units: Iterable[Sequence[Any]]) -> float | None:
    """Krippendorff's α of nominal labels, any number of annotators, None where one gave none; None where all are equal.

    Example:
        >>> round(alpha([("a", "a"), ("a", "a"), ("b", "b"), ("a", "b"), ("b", None)]), 4)  # 1 - 7 · 2 / (2 · 5 · 3)
        0.5333
    """
    observed, total = 0.0, Counter[Any]()
    for unit in units:
        labels = Counter(label for label in unit if label is not None)
        if (size := labels.total()) > 1:
            total += labels
            observed += (size**2 - sum(count**2 for count in labels.values())) / (size - 1)
    n = total.total()
    expected = n**2 - sum(count**2 for count in total.values())
    return 1 - (n - 1) * observed / expected if expected else None


def _corner_distances(pairs: Pairs, matched: Overlaps) -> np.ndarray:
    sizes = np.array([[record["width"] or np.nan, record["height"] or np.nan] for record in pairs.gold.records], float)
    diagonals = np.hypot(sizes[:, 0], sizes[:, 1])[pairs.record_of[matched.phrase]]
    apart = pairs.gold.boxes.corners[matched.gold] - pairs.found.boxes.corners[matched.found]
    corners = np.hypot(apart[:, ::2], apart[:, 1::2]).mean(axis=1)
    distances: np.ndarray = 100 * corners / diagonals
    return distances[~np.isnan(distances)]


def _box_alpha(pairs: Pairs, matched: Overlaps, boxes: int, rules: Rules) -> float | None:
    sides = (pairs.gold.boxes, pairs.record_of), (pairs.found.boxes, pairs.record_owner)
    corners = np.concatenate([side.corners for side, _ in sides])
    records = np.concatenate([np.repeat(record, side.counts) for side, record in sides])
    image = np.append(pairs.image_of, -1)[records]  # of a record that the first doesn't have: -1
    one, other = np.random.default_rng(0).integers(0, max(len(corners), 1), (2, _RANDOM_PAIRS))
    if not boxes or len(np.unique(image[image >= 0])) < 2:
        return None
    apart = (image[one] != image[other]) & (image[one] >= 0) & (image[other] >= 0)
    expected = 1 - iou_of(corners[one[apart]], corners[other[apart]], rules)[0].mean()
    alone = boxes - 2 * len(matched.iou)
    observed = ((1 - matched.iou).sum() + alone) / (len(matched.iou) + alone)
    return float(1 - observed / expected) if expected else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None

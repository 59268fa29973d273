"""How far two annotators agree on boxes and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dataflow_grounding.metrics.annotations import Source, read_annotations
from dataflow_grounding.metrics.overlaps import Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import pair


def agreement(first: Source, second: Source, rules: Rules = Rules()) -> dict[str, Any]:  # noqa: B008
    """How far two annotators of the same images agree; None where there is nothing to compare.

    Boxes of a phrase are matched one to one, the largest IoU first. Of records that both have, boxes of phrases that
    one alone has stand alone.

    Returns:
        f1_0.5, f1_0.75: Twice the matched boxes, of all boxes.
        mean_iou: Of boxes that match from IoU 0.5.
        kappa_status, alpha_status, kappa_verified, alpha_verified: Of these labels.

    Raises:
        InputError: Something can't be read, or they have no record in common.
    """
    pairs = pair(read_annotations(second), read_annotations(first))
    a, b, common = pairs.gold, pairs.found, np.flatnonzero(pairs.partner >= 0)
    matched = one_to_one(overlaps_of(a.boxes, b.boxes, pairs.partner, rules), rules)
    known, other_known = pairs.records[pairs.record_of] >= 0, pairs.record_owner >= 0
    boxes = int(a.boxes.counts[known].sum() + b.boxes.counts[other_known].sum())
    rounded = {f"f1_{t}": 2 * rules.passes(matched.overlap, t).sum() / boxes if boxes else None for t in (0.5, 0.75)}
    rounded["mean_iou"] = matched.iou.mean() if len(matched.iou) else None
    for name in ("status", "verified"):
        both = [(a.phrases[n][name], b.phrases[pairs.partner[n]][name]) for n in common]
        units = [tuple(None if label is None else str(label) for label in labels) for labels in both]
        rounded |= {f"kappa_{name}": kappa(units), f"alpha_{name}": alpha(units)}
    return {
        "images": len(np.unique(pairs.image_of[pairs.records >= 0])),
        "expressions": len(common),
        "expressions_of_one": int(known.sum() + other_known.sum()) - 2 * len(common),
        "boxes": boxes,
        **{name: None if value is None else round(float(value), 4) for name, value in rounded.items()},
    }


def kappa(units: Iterable[Sequence[Any]]) -> float | None:
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

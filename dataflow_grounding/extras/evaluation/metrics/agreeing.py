"""How far two annotators agree on boxes and labels."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

from dataflow_grounding.extras.evaluation.metrics.annotations import Source, read_annotations
from dataflow_grounding.extras.evaluation.metrics.pairs import (
    Row,
    Rules,
    one_to_one,
    overlaps_of,
    pair,
)


def agreement(first: Source, second: Source, rules: Rules = Rules()) -> dict[str, Any]:  # noqa: B008
    """How far two annotators of the same images agree; None where there is nothing to compare.

    Boxes of a phrase are matched one to one, the largest IoU first. Of records that both have,
    boxes of phrases that one alone has stand alone.

    Returns:
        f1_0.5, f1_0.75: Twice the matched boxes, of all boxes.
        mean_iou: Of boxes that match from IoU 0.5.
        kappa_status, alpha_status, kappa_verified, alpha_verified: Of these labels, where both have
            one.

    Raises:
        InputError: Something can't be read, or they have no record in common.
    """
    pairs = [
        record
        for record in pair(read_annotations(second), read_annotations(first))
        if record.found is not None
    ]
    phrases = list(chain.from_iterable(record.phrases for record in pairs))
    extra = list(chain.from_iterable(record.extra for record in pairs))
    common = [(a, b) for a, b in phrases if b is not None]
    sides = ((rules.boxes_of(a), rules.boxes_of(b)) for a, b in common)
    matched = [overlap for a, b in sides for overlap in one_to_one(overlaps_of(a, b, rules), rules)]
    boxes = sum(len(phrase["instances"]) for phrase in filter(None, chain(extra, *phrases)))
    return {
        "images": len({record.image for record in pairs}),
        "expressions": len(common),
        "expressions_of_one": len(phrases) - len(common) + len(extra),
        "boxes": boxes,
        **{
            f"f1_{t}": _ratio(2 * sum(rules.passes(m.held, t) for m in matched), boxes)
            for t in (0.5, 0.75)
        },
        "mean_iou": _ratio(sum(m.iou for m in matched), len(matched)),
        **_of_labels("status", common),
        **_of_labels("verified", common),
    }


def _of_labels(name: str, common: Sequence[tuple[Row, Row]]) -> dict[str, float | None]:
    given = ((a.get(name), b.get(name)) for a, b in common)
    labels = [
        (str(a), str(b)) for a, b in given if not {str(a), str(b)} & {"None", "pending", "failed"}
    ]
    return dict(zip((f"kappa_{name}", f"alpha_{name}"), kappa_and_alpha(labels), strict=True))


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def kappa_and_alpha(labels: Sequence[tuple[str, str]]) -> tuple[float | None, float | None]:
    """Cohen's κ (1960) and Krippendorff's α of two annotators' nominal labels; None where chance
    alone would agree.

    Example:
        >>> # by chance 1/2 and 26/56
        >>> kappa_and_alpha([("a", "a"), ("a", "a"), ("b", "b"), ("a", "b")])
        (0.5, 0.5333)
    """
    if not labels:
        return None, None
    n, agreed = len(labels), sum(a == b for a, b in labels) / len(labels)
    first, second = (Counter(labels_of) for labels_of in zip(*labels, strict=True))
    by_chance = (
        sum(first[label] * second[label] for label in first) / n**2,
        sum(count * (count - 1) for count in (first + second).values()) / (2 * n * (2 * n - 1)),
    )
    kappa, alpha = (_ratio(agreed - chance, 1 - chance) for chance in by_chance)
    return kappa, alpha

"""How far two annotators agree on boxes and labels."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from dataflow_grounding.evaluation.metrics.annotations import Source, read_annotations
from dataflow_grounding.evaluation.metrics.pairs import (
    Overlap,
    Pairs,
    Row,
    Rules,
    boxes_of,
    one_to_one,
    overlaps_of,
)

# The label, as text, of a phrase that an annotator left out; "None" is a missing label.
_NO_LABEL = {"None", "pending", "failed"}


def agreement(first: Source, second: Source) -> dict[str, Any]:
    """Measure how far two annotators of the same images agree.

    Boxes of a phrase are matched one to one, the largest IoU first. A record that only one has
    doesn't count; a phrase of which only one has boxes adds them as unmatched ones. A figure is
    None if there is nothing to compare. Raises InputError where they have no record in common.
    """
    phrases = _phrases_of(first, second)
    figures: dict[str, Any] = {
        "images": len(phrases.images),
        "expressions": len(phrases.common),
        "expressions_of_one": len(phrases.of_one_alone),
        **_box_figures(phrases),
    }
    for name in ("status", "verified"):
        kappa, alpha = kappa_and_alpha(_labels_of_both(name, phrases.common))
        figures[f"kappa_{name}"] = kappa
        figures[f"alpha_{name}"] = alpha
    return figures


class _Phrases(NamedTuple):
    """The phrases of two annotators, in the records that both have."""

    images: set[int]  # their numbers
    common: list[tuple[Row, Row]]
    of_one_alone: list[Row]  # of either


def _phrases_of(first: Source, second: Source) -> _Phrases:
    phrases = _Phrases(images=set(), common=[], of_one_alone=[])
    for record in Pairs(found=read_annotations(second), gold=read_annotations(first)):
        if record.found is None:  # the first alone has this record
            continue
        phrases.images.add(record.image)
        phrases.of_one_alone.extend(record.extra)
        for a, b in record.phrases:
            if b is None:
                phrases.of_one_alone.append(a)
            else:
                phrases.common.append((a, b))
    return phrases


def _box_figures(phrases: _Phrases) -> dict[str, Any]:
    box_count = sum(len(phrase["instances"]) for phrase in phrases.of_one_alone)  # of both
    matched: list[Overlap] = []
    for a, b in phrases.common:
        box_count += len(a["instances"]) + len(b["instances"])
        matched += one_to_one(overlaps_of(boxes_of(a), boxes_of(b)), Rules())
    figures: dict[str, Any] = {"boxes": box_count}
    for threshold in (0.5, 0.75):
        passing = [overlap for overlap in matched if overlap.iou >= threshold]
        # F1: the boxes in a pair, two for each pair, by all boxes.
        figures[f"f1_{threshold}"] = _ratio(2 * len(passing), box_count)
    figures["mean_iou"] = _ratio(sum(overlap.iou for overlap in matched), len(matched))
    return figures


def _labels_of_both(name: str, phrases: Sequence[tuple[Row, Row]]) -> list[tuple[str, str]]:
    """Return the labels of each phrase that both have labelled, as ("grounded", "none")."""
    labels = []
    for a, b in phrases:
        both = (str(a.get(name)), str(b.get(name)))
        if _NO_LABEL.isdisjoint(both):
            labels.append(both)
    return labels


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def kappa_and_alpha(labels: Sequence[tuple[str, str]]) -> tuple[float | None, float | None]:
    """Return Cohen's κ (1960) and Krippendorff's α of two annotators' nominal labels."""
    # Each is None where all labels are the same: chance alone would then agree.
    if not labels:
        return None, None
    phrases = len(labels)
    agreed = sum(1 for a, b in labels if a == b) / phrases
    counts_of_first = Counter(a for a, _ in labels)
    counts_of_second = Counter(b for _, b in labels)
    # κ and α differ in how likely two labels are the same by chance. For κ, each annotator's label
    # is drawn from the annotator's own labels.
    same_pairs = sum(counts_of_first[label] * counts_of_second[label] for label in counts_of_first)
    chance_of_own = same_pairs / phrases**2
    # For α, both labels are drawn from all labels together, without putting the first one back.
    counts_of_both = counts_of_first + counts_of_second
    all_labels = 2 * phrases
    same_draws = sum(count * (count - 1) for count in counts_of_both.values())
    chance_of_both = same_draws / (all_labels * (all_labels - 1))
    # How much better than chance they agree, as a part of how much better they could.
    kappa = _ratio(agreed - chance_of_own, 1 - chance_of_own)
    alpha = _ratio(agreed - chance_of_both, 1 - chance_of_both)
    return kappa, alpha

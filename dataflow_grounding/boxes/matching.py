"""Matching two lists of boxes: the one place that judges whether two boxes mean the same thing.

Boxes are paired one to one, greedily by falling IoU (intersection over union).
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou

A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)
SAME = 0.5  # IoU from which two boxes mean the same thing


def match_boxes(
    found: Sequence[Bbox], wanted: Sequence[Bbox], threshold: float = SAME, *, most: bool = False
) -> dict[int, tuple[int, float]]:
    """Match found boxes to wanted ones, one to one.

    Pairs are made by falling IoU; of equal ones the first wanted box, then the first found one,
    comes first.

    Args:
        found: Boxes as (x1, y1, x2, y2).
        wanted: Boxes in the same coordinates.
        threshold: The least IoU of a pair, in [0, 1].
        most: Make as many pairs as possible, by augmenting paths (Kuhn 1955): a pair may be undone
            if both its boxes find other partners.

    Returns:
        For each wanted box that has a partner, by its index and in that order: the index of the
        found box, and their IoU.
    """
    overlaps: list[list[float]] = []  # the IoU by index: [wanted][found]
    near: list[list[int]] = []  # for each wanted box, those found that it can take, best first
    # Pairs are (-IoU, wanted, found), so that sorting puts the largest IoU first.
    pairs: list[tuple[float, int, int]] = []
    for wanted_index, wanted_box in enumerate(wanted):
        row = [iou(found_box, wanted_box) for found_box in found]
        pairs_here = []
        for found_index, overlap in enumerate(row):
            if overlap >= threshold:
                pairs_here.append((-overlap, wanted_index, found_index))
        pairs_here.sort()
        overlaps.append(row)
        near.append([found_index for _, _, found_index in pairs_here])
        pairs += pairs_here
    pairs.sort()
    wanted_of = first_free((found_index, wanted_index) for _, wanted_index, found_index in pairs)
    if most:
        # Each wanted box without a partner is given one, if that can be.
        for wanted_index in sorted(set(range(len(near))) - set(wanted_of.values())):
            _give_partner(wanted_index, wanted_of, near, set())
    matched: dict[int, tuple[int, float]] = {}
    for found_index, wanted_index in sorted(wanted_of.items(), key=lambda pair: pair[1]):
        matched[wanted_index] = (found_index, overlaps[wanted_index][found_index])
    return matched


def first_free(pairs: Iterable[tuple[A, B]]) -> dict[A, B]:
    """Pair greedily, one to one: keep each pair of which neither side is in one kept before.

    Args:
        pairs: Pairs (a, b), the preferred ones first.

    Returns:
        For each pair that is kept, b under a.
    """
    partner: dict[A, B] = {}
    taken: set[B] = set()
    for a, b in pairs:
        if a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    return partner


def _give_partner(
    wanted_index: int, wanted_of: dict[int, int], near: Sequence[Sequence[int]], tried: set[int]
) -> bool:
    for found_index in near[wanted_index]:
        if found_index in tried:
            continue
        tried.add(found_index)
        is_free = found_index not in wanted_of
        if is_free or _give_partner(wanted_of[found_index], wanted_of, near, tried):
            wanted_of[found_index] = wanted_index
            return True
    return False


def agreement(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> float:
    """Return the mean IoU of two answers' boxes, matched one to one by falling IoU, in [0, 1].

    A box without a partner counts 0, and two answers without boxes are 0. The answers' instances
    each have a `bbox`.
    """
    boxes = [box_of(instance["bbox"]) for instance in first]
    second_boxes = [box_of(instance["bbox"]) for instance in second]
    matched = match_boxes(second_boxes, boxes, 0.0)
    return sum(overlap for _, overlap in matched.values()) / max(len(first), len(second), 1)

"""Which box is which: the one place that judges whether two boxes mean the same thing."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou

A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)
SAME = 0.5  # IoU from which two boxes mean the same thing


def match_boxes(
    found: Sequence[Bbox], wanted: Sequence[Bbox], threshold: float = SAME, *, most: bool = False
) -> dict[int, tuple[int, float]]:
    """Which of `found` is which of `wanted`, one to one.

    Place in `wanted` → (place in `found`, IoU ≥ `threshold`). Made by falling IoU, of equal ones
    the first. With `most`, as many pairs as can be (augmenting paths, Kuhn 1955).
    """
    overlaps: list[list[float]] = []
    near: list[list[int]] = []  # for each wanted box, those found that overlap it, best first
    pairs: list[tuple[float, int, int]] = []
    for want, wanted_box in enumerate(wanted):
        row = [iou(found_box, wanted_box) for found_box in found]
        own_pairs = []
        for which, overlap in enumerate(row):
            if overlap >= threshold:
                own_pairs.append((-overlap, want, which))
        own_pairs.sort()
        overlaps.append(row)
        near.append([which for _, _, which in own_pairs])
        pairs += own_pairs
    pairs.sort()
    partner = first_free((which, want) for _, want, which in pairs)
    if most:
        _add_more(partner, near)
    matched: dict[int, tuple[int, float]] = {}
    for which, want in sorted(partner.items(), key=lambda pair: pair[1]):
        matched[want] = (which, overlaps[want][which])
    return matched


def first_free(pairs: Iterable[tuple[A, B]]) -> dict[A, B]:
    """Pair greedily, one to one: keep each pair of which no side is in a pair kept before.

    Args:
        pairs: The preferred ones first.

    Returns:
        The second side of each pair that is kept, by its first.
    """
    partner: dict[A, B] = {}
    taken: set[B] = set()
    for a, b in pairs:
        if a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    return partner


def _add_more(partner: dict[int, int], near: Sequence[Sequence[int]]) -> None:
    """Give a box to those left over, where others can move to another box for it."""

    def find_box(want: int, tried: set[int]) -> bool:
        for which in near[want]:
            if which not in tried:
                tried.add(which)
                if which not in partner or find_box(partner[which], tried):
                    partner[which] = want
                    return True
        return False

    left_over = set(range(len(near))) - set(partner.values())
    for want in sorted(left_over):
        find_box(want, set())


def agreement(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """Mean IoU of two answers' boxes, matched one to one by falling IoU.

    A box without a partner counts 0.
    """
    boxes = [box_of(instance["bbox"]) for instance in one]
    other_boxes = [box_of(instance["bbox"]) for instance in other]
    matched = match_boxes(other_boxes, boxes, 0.0)
    return sum(overlap for _, overlap in matched.values()) / max(len(one), len(other), 1)

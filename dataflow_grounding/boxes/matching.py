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
    """Which of `found` is which of `wanted`, one to one: place in `wanted` → (place in `found`, IoU
    ≥ `threshold`).

    Made by falling IoU, of equal ones the first. With `most`, as many pairs as can be (augmenting
    paths, Kuhn 1955).
    """
    overlaps = [[iou(a, b) for a in found] for b in wanted]
    near = [
        sorted((n for n, overlap in enumerate(row) if overlap >= threshold), key=lambda n: -row[n])
        for row in overlaps
    ]
    by_overlap = sorted(
        (-overlaps[n][which], n, which) for n, row in enumerate(near) for which in row
    )
    partner = first_free((which, want) for _, want, which in by_overlap)
    if most:
        _add_more(partner, near)
    return {
        want: (which, overlaps[want][which])
        for which, want in sorted(partner.items(), key=lambda item: item[1])
    }


def first_free(pairs: Iterable[tuple[A, B]]) -> dict[A, B]:
    """One to one, of pairs that come by preference those whose sides no earlier one has: one side →
    the other.
    """
    partner: dict[A, B] = {}
    placed: set[B] = set()
    for one, other in pairs:
        if one not in partner and other not in placed:
            partner[one] = other
            placed.add(other)
    return partner


def _add_more(partner: dict[int, int], near: Sequence[Sequence[int]]) -> None:
    """Place those left over where others can move to another box for it."""

    def place(want: int, tried: set[int]) -> bool:
        for which in near[want]:
            if which not in tried:
                tried.add(which)
                if which not in partner or place(partner[which], tried):
                    partner[which] = want
                    return True
        return False

    for want in sorted(set(range(len(near))) - set(partner.values())):
        place(want, set())


def agreement(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """Mean IoU of two answers' boxes, matched one to one by falling IoU; a box without a partner
    counts 0.
    """
    matched = match_boxes([box_of(b["bbox"]) for b in other], [box_of(a["bbox"]) for a in one], 0.0)
    return sum(overlap for _, overlap in matched.values()) / max(len(one), len(other), 1)

"""Matching boxes one to one."""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_grounding.geometry import Bbox, iou


def match_boxes(found: Sequence[Bbox], wanted: Sequence[Bbox], threshold: float) -> dict[int, tuple[int, float]]:
    """Which of `found` is which of `wanted`: place in `wanted` → (place in `found`, IoU), as many pairs as can be.

    A pair has an IoU of at least `threshold`; high ones are tried first. Augmenting paths (Kuhn 1955).
    """
    overlaps = [[iou(a, b) for a in found] for b in wanted]
    partner: dict[int, int] = {}  # place in found → place in wanted

    def place(want: int, tried: set[int]) -> bool:
        for which in sorted(range(len(found)), key=lambda n: (-overlaps[want][n], n)):
            if overlaps[want][which] < threshold or which in tried:
                continue
            tried.add(which)
            if which not in partner or place(partner[which], tried):
                partner[which] = want
                return True
        return False

    for want in sorted(range(len(wanted)), key=lambda n: (-max(overlaps[n], default=0.0), n)):
        place(want, set())
    return {want: (which, overlaps[want][which]) for which, want in sorted(partner.items(), key=lambda item: item[1])}

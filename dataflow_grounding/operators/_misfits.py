"""Boxes that a check calls too large, or on a part, and which of them are asked for together."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, iou
from dataflow_grounding.operators._box_decisions import (
    Expression,
    is_open,
    presence_of,
    verdicts_of,
)
from dataflow_grounding.operators._nearness import middle_of, near_groups

MOST_SHOWN = 0.5  # of the image's area, in which boxes are asked for together from closer by
MOST_AT_ONCE = 16  # boxes
# by which share of its sides the part that is shown is larger than the box, at each edge
AROUND = {"loose": 0.1, "part": 1.0}


class Misfit(NamedTuple):
    """A box to be asked for again: its expression's place and phrase, and how it doesn't fit."""

    place: int
    phrase: str
    instance: dict[str, Any]
    fit: str

    @property
    def bbox(self) -> Bbox:
        """The box as it is."""
        return box_of(self.instance["bbox"])

    @property
    def region(self) -> Bbox:
        """What is to be seen of the image; it may reach out of it."""
        return _grown(self.bbox, AROUND[self.fit])


def misfits_of(expressions: Sequence[Expression]) -> list[Misfit]:
    """The boxes that a check calls too large or on a part, and that are to be asked for again."""
    misfits = []
    for place, expression in enumerate(expressions):
        misfits += _of_expression(place, expression)
    return misfits


def _of_expression(place: int, expression: Expression) -> list[Misfit]:
    """The open expression's boxes that are to be asked for again."""
    # Where a judge calls a thing absent and its box too large, it contradicts itself: what it says
    # of the fit isn't worth a request then.
    if not is_open(expression) or presence_of(expression).there is False:
        return []
    verdicts = verdicts_of(expression)
    misfits = []
    for instance in expression["instances"]:
        verdict = verdicts.get(str(instance.get("bbox_id")), {})
        fit = verdict.get("verdict")
        # where the answers differ, a closer look at the box tells nothing of its thing
        is_mendable = not verdict.get("mended") and verdict.get("decision") != "undecided"
        if fit in AROUND and is_mendable:
            misfits.append(Misfit(place, expression["text"], instance, str(fit)))
    return misfits


def _grown(bbox: Bbox, share: float) -> Bbox:
    """The box, larger by a share of its sides at each edge."""
    x1, y1, x2, y2 = bbox
    width = x2 - x1
    height = y2 - y1
    return x1 - share * width, y1 - share * height, x2 + share * width, y2 + share * height


def grouped(misfits: list[Misfit], size: Size) -> list[list[Misfit]]:
    """Group boxes that one part of the image shows from closer by, those near each other."""
    if not misfits:
        return []
    regions = [misfit.region for misfit in misfits]
    width, height = size
    fits_in_part = area(around(regions)) <= MOST_SHOWN * width * height
    if len(misfits) == 1 or (fits_in_part and len(misfits) <= MOST_AT_ONCE):
        return [misfits]
    groups = []
    for places in near_groups(regions, most=(len(misfits) + 1) // 2):
        groups += grouped([misfits[place] for place in places], size)
    return groups


def around(boxes: Sequence[Bbox]) -> Bbox:
    """The smallest box around some boxes."""
    x1s, y1s, x2s, y2s = zip(*boxes, strict=True)
    return min(x1s), min(y1s), max(x2s), max(y2s)


def nearest_to(bbox: Bbox, others: Sequence[Bbox]) -> list[int] | None:
    """The box, in whole pixels, that overlaps another one and whose middle is nearest to its own.

    None where none overlaps it, or where it is the same one.
    """
    overlapping = [other for other in others if iou(other, bbox) > 0]
    if not overlapping:
        return None
    middle = middle_of(bbox)
    nearest = min(overlapping, key=lambda other: math.dist(middle_of(other), middle))
    edges = [int(edge) for edge in nearest]
    return None if edges == list(bbox) else edges

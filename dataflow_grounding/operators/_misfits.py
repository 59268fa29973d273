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

MOST_SHOWN = 0.5
"""The largest share of the image's area that a request for several boxes shows, so that they are
enlarged.
"""
MOST_AT_ONCE = 16  # boxes of one request
AROUND = {"loose": 0.1, "part": 1.0}
"""The verdict on a box → what is shown around it at each edge, as a share of its sides: of a thing
that the box is only on a part of, more.
"""


class Misfit(NamedTuple):
    """A box to be asked for again.

    Attributes:
        place: The place of its expression in the record, from 0.
        phrase: The expression's text.
        instance: The instance with the box.
        fit: How it fits, a key of AROUND.
    """

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
        """The part of the image to be shown, which may reach out of it."""
        return _grown(self.bbox, AROUND[self.fit])


def misfits_of(expressions: Sequence[Expression]) -> list[Misfit]:
    """Return the boxes of a record's expressions that should be asked for again.

    These are the boxes that a check calls too large or on a part, except boxes in doubt, boxes that
    were mended before, and those of expressions that a person settled or that are absent.
    """
    misfits = []
    for place, expression in enumerate(expressions):
        misfits += _of_expression(place, expression)
    return misfits


def _of_expression(place: int, expression: Expression) -> list[Misfit]:
    # Where a judge calls a thing absent and its box too large, it contradicts itself: what it says
    # of the fit isn't worth a request then.
    if not is_open(expression) or presence_of(expression).there is False:
        return []
    verdicts = verdicts_of(expression)
    misfits = []
    for instance in expression["instances"]:
        verdict = verdicts.get(str(instance.get("bbox_id")), {})
        fit = verdict.get("verdict")
        # if the answers differ, a closer look at the box says nothing about its thing
        is_mendable = not verdict.get("mended") and verdict.get("decision") != "undecided"
        if fit in AROUND and is_mendable:
            misfits.append(Misfit(place, expression["text"], instance, str(fit)))
    return misfits


def _grown(bbox: Bbox, share: float) -> Bbox:
    x1, y1, x2, y2 = bbox
    width = x2 - x1
    height = y2 - y1
    return x1 - share * width, y1 - share * height, x2 + share * width, y2 + share * height


def grouped(misfits: list[Misfit], size: Size) -> list[list[Misfit]]:
    """Return boxes in groups of near ones, each to be shown in one part of the image.

    A group of several has MOST_AT_ONCE boxes at most, whose regions one part of no more than
    MOST_SHOWN of the image's area shows. What doesn't fit is halved, again and again.

    Args:
        misfits: The boxes; none give no group.
        size: Width and height of the image, px.
    """
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
    """Return the smallest box around one or more boxes."""
    x1s, y1s, x2s, y2s = zip(*boxes, strict=True)
    return min(x1s), min(y1s), max(x2s), max(y2s)


def nearest_to(bbox: Bbox, others: Sequence[Bbox]) -> list[int] | None:
    """Return the one of the others that overlaps a box and whose middle is nearest to the box's.

    It is in whole pixels. None where none overlaps the box, or the nearest is the same as the box.
    """
    overlapping = [other for other in others if iou(other, bbox) > 0]
    if not overlapping:
        return None
    middle = middle_of(bbox)
    nearest = min(overlapping, key=lambda other: math.dist(middle_of(other), middle))
    edges = [int(edge) for edge in nearest]
    return None if edges == list(bbox) else edges

"""A false box among those that a judge is asked about, in an empty part of the picture.

A judge that accepts many of these says yes to anything: the run warns of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import Bbox, Size, area, intersection
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.operators._expressions import boxes_of
from dataflow_grounding.tasks.checks import Fit

EVERY = 20  # records, of which about one has a false box
PLACES_A_SIDE = 5  # that are tried, in a grid over the picture


class FalseBox(NamedTuple):
    """A box in an empty place; `place` is the index of its expression in the record."""

    place: int
    bbox: Bbox

    def among(self, expression_by_place: Mapping[int, Expression]) -> dict[int, Expression]:
        """Return the expressions; the one at `place` has this box as its last one."""
        expression = expression_by_place[self.place]
        instances = [*expression.instances, Instance(self.bbox)]
        return {**expression_by_place, self.place: replace(expression, instances=instances)}


def false_box_for(
    record: Record,
    every: int | None,
    asked_by_place: Mapping[int, Expression],
    expressions: Sequence[Expression],
    size: Size,
) -> FalseBox | None:
    """Return a false box for a record; None for most records, or where no part is empty."""
    if every is None:
        return None
    # About one of `every` records, by its id: a resumed run asks the same question.
    digest = hashlib.sha256(record.unique_id.encode()).digest()
    if int.from_bytes(digest[:8], "big") % every != 0:
        return None
    boxes_of_record: list[Bbox] = []
    for expression in expressions:
        boxes_of_record += boxes_of(expression.instances)
    for place, expression in asked_by_place.items():
        if not expression.instances:
            continue  # no box to move: nothing tells how large one of this phrase would be
        first_box = boxes_of(expression.instances)[0]  # the false one is as large
        for bbox in _moved_over_picture(first_box, size):
            touches_a_box = any(area(intersection(bbox, other)) for other in boxes_of_record)
            if not touches_a_box:
                return FalseBox(place, bbox)
    return None


def _moved_over_picture(bbox: Bbox, size: Size) -> list[Bbox]:
    """Return boxes of this size at equal steps over the picture."""
    x1, y1, x2, y2 = bbox
    width, height = x2 - x1, y2 - y1
    image_width, image_height = size
    last_left, last_top = image_width - width, image_height - height
    steps = PLACES_A_SIDE - 1
    lefts = [number * last_left / steps for number in range(PLACES_A_SIDE)]
    tops = [number * last_top / steps for number in range(PLACES_A_SIDE)]
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


def note_verdict(verdict: Fit | None, ask: Ask) -> None:
    ask.note("false_boxes", "a false box shown to the judge")
    if verdict in ("right", "loose", "part"):
        ask.note("false_boxes_accepted", "a false box that the judge accepts")

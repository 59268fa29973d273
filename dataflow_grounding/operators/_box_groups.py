"""Which boxes a judge is shown in one picture, and with which phrases."""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.data.expressions import Expression

MOST_BOXES = 40  # in one request: with more, the numbers drawn can't be read
MOST_PHRASES = 40  # in one request


class Part(NamedTuple):
    """Those boxes of an expression that a request shows; without any, it asks about the phrase."""

    place: int  # of the expression
    boxes: range  # their numbers


def groups_of(expression_by_place: Mapping[int, Expression]) -> list[list[Part]]:
    """Return the expressions and their boxes in groups, one for each request."""
    groups: list[list[Part]] = [[]]
    boxes_in_group = 0
    for place, expression in expression_by_place.items():
        box_count = len(expression.instances)
        # One without boxes has one part; one with 50 has two, 0 to 39 and 40 to 49.
        for start in range(0, max(box_count, 1), MOST_BOXES):
            end = min(start + MOST_BOXES, box_count)
            fits_boxes = boxes_in_group + end - start <= MOST_BOXES
            if not fits_boxes or len(groups[-1]) == MOST_PHRASES:
                groups.append([])
                boxes_in_group = 0
            groups[-1].append(Part(place, range(start, end)))
            boxes_in_group += end - start
    return groups

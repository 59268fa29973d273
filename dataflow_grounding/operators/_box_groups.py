"""Which boxes a judge is shown in one picture, and with which phrases."""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.tasks.checks import DrawnBox

MOST_BOXES = 40  # in one request: with more, the numbers drawn can't be read
MOST_PHRASES = 40  # in one request


class Part(NamedTuple):
    """Those boxes of an expression, by place and numbers, that one request shows. Without boxes,
    its phrase alone is asked about.
    """

    place: int
    boxes: range


def groups_of(expression_by_place: Mapping[int, Expression]) -> list[list[Part]]:
    """Return the expressions and their boxes in groups, one for each request. An expression with
    more boxes than a request may show has several parts: of 50 boxes, 0 to 39 and 40 to 49.
    """
    groups: list[list[Part]] = [[]]
    boxes_in_group = 0
    for place, expression in expression_by_place.items():
        count = len(expression["instances"])
        # `max`: an expression without boxes has one part, too.
        for start in range(0, max(count, 1), MOST_BOXES):
            part = Part(place, range(start, min(start + MOST_BOXES, count)))
            is_full = boxes_in_group + len(part.boxes) > MOST_BOXES
            if is_full or len(groups[-1]) == MOST_PHRASES:
                groups.append([])
                boxes_in_group = 0
            groups[-1].append(part)
            boxes_in_group += len(part.boxes)
    return groups


def drawn(expression: Expression, numbers: range) -> list[DrawnBox]:
    boxes = []
    for number in numbers:
        boxes.append(DrawnBox(expression["text"], box_of(expression["instances"][number]["bbox"])))
    return boxes

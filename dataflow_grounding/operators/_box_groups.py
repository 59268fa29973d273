"""Which boxes a judge is shown in one picture, and with which phrases."""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.tasks.checks import DrawnBox

MOST_BOXES = 40  # in one request: with more, the numbers drawn can't be read
MOST_PHRASES = 40  # in one request


class Part(NamedTuple):
    """Those boxes of an expression that one request shows.

    Attributes:
        place: The place of the expression in its record, from 0.
        boxes: The numbers of the boxes among the expression's instances; empty for an expression
            without boxes, whose phrase alone is asked about.
    """

    place: int
    boxes: range


def groups_of(expressions: Mapping[int, Expression]) -> list[list[Part]]:
    """Return the expressions and their boxes in groups, one for each request.

    Nearly always one group has all. A group has MOST_BOXES boxes and MOST_PHRASES expressions at
    most. The boxes of an expression that has more than MOST_BOXES are divided among groups.

    Args:
        expressions: The expressions by their place in the record.

    Returns:
        The groups, in the order of the expressions; a single empty one without expressions.
    """
    groups: list[list[Part]] = [[]]
    boxes_in_group = 0
    for place, expression in expressions.items():
        count = len(expression["instances"])
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
    """Return some of the expression's boxes, by their numbers, as the judge is shown them."""
    boxes = []
    for number in numbers:
        boxes.append(DrawnBox(expression["text"], box_of(expression["instances"][number]["bbox"])))
    return boxes

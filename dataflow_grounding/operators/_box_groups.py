"""Which boxes a judge is shown in one picture, and with which phrases."""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.tasks.checks import DrawnBox

MOST_BOXES = 40  # of one request: of more, the numbers drawn can't be read
MOST_PHRASES = 40
WHOLE = "whole_picture"
"""The key of an instance whose box is the picture itself, where a judge is to look in all of it."""


class Part(NamedTuple):
    """An expression, by its place, with those of its boxes that one request shows."""

    place: int
    boxes: range


def groups_of(expressions: Mapping[int, Expression]) -> list[list[Part]]:
    """The expressions and their boxes in groups that one request can show, nearly always one."""
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


def drawn(expression: Expression, places: range) -> list[DrawnBox]:
    """Some of the expression's boxes as they are shown to the judge."""
    boxes = []
    for place in places:
        instance = expression["instances"][place]
        is_whole = instance.get(WHOLE) is True
        boxes.append(DrawnBox(expression["text"], box_of(instance["bbox"]), is_whole))
    return boxes

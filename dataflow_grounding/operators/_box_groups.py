"""Which boxes a judge is shown in one picture, and with which phrases."""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.tasks.checks import DrawnBox

MOST_BOXES = 40  # in one request: with more, the numbers drawn can't be read
MOST_PHRASES = 40  # in one request


class Part(NamedTuple):
    """Boxes of an expression, by place and numbers, that one request shows; none for its phrase."""

    place: int
    boxes: range


def groups_of(expression_by_place: Mapping[int, Expression]) -> list[list[Part]]:
    """Return the expressions and their boxes in groups, one for each request."""
    groups: list[list[Part]] = [[]]
    for place, expression in expression_by_place.items():
        # one with 50 boxes has two parts, 0 to 39 and 40 to 49
        for part in _parts_of(place, len(expression["instances"])):
            if not _has_room(groups[-1], part):
                groups.append([])
            groups[-1].append(part)
    return groups


def _parts_of(place: int, box_count: int) -> list[Part]:
    parts = []
    for start in range(0, max(box_count, 1), MOST_BOXES):  # one without boxes has one part
        end = min(start + MOST_BOXES, box_count)
        parts.append(Part(place, range(start, end)))
    return parts


def _has_room(group: list[Part], part: Part) -> bool:
    boxes_in_group = sum(len(other.boxes) for other in group)
    fits_boxes = boxes_in_group + len(part.boxes) <= MOST_BOXES
    return fits_boxes and len(group) < MOST_PHRASES


def drawn(expression: Expression, numbers: range) -> list[DrawnBox]:
    boxes = []
    for number in numbers:
        boxes.append(DrawnBox(expression["text"], box_of(expression["instances"][number]["bbox"])))
    return boxes

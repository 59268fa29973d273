"""Phrases and boxes of a record that are there twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import MERGE_IOU, Bbox, iou
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.english.spans import clean_caption

MOST_COMPARED = 100_000
"""Pairs of boxes that are compared in a record: more than all of 400 boxes on one spot."""


def said_twice(expressions: Sequence[Expression]) -> list[str]:
    """Return the texts that an earlier expression has, too, with other boxes."""
    first_boxes: dict[str, list[Bbox]] = {}
    repeated = []
    for expression in expressions:
        boxes = _boxes(expression)
        boxes_of_first = first_boxes.setdefault(_compared_text(expression), boxes)
        if boxes_of_first != boxes:
            repeated.append(expression.text)
    return repeated


def same_box_twice(expressions: Sequence[Expression]) -> list[str]:
    """Return the texts that an earlier expression has, too, with one of the same boxes."""
    boxes_of_text: dict[str, set[Bbox]] = defaultdict(set)
    repeated = []
    for expression in expressions:
        boxes = set(_boxes(expression))
        seen = boxes_of_text[_compared_text(expression)]
        if boxes & seen:
            repeated.append(expression.text)
        seen |= boxes
    return repeated


class _PlacedBox(NamedTuple):
    """A box, the index of its expression, and its own among the expression's sorted boxes."""

    box: Bbox
    expression: int
    number: int


def sharing_boxes(
    expressions: Sequence[Expression],
) -> Iterator[tuple[Expression, Expression, bool]]:
    """Yield expressions of different texts with a box in common, and whether they have all."""
    # By the indices of two expressions: their shared boxes, each as (expression, number).
    # {(0, 2): {(0, 0), (2, 1)}}: box 0 of expression 0 is equal to box 1 of expression 2.
    shared = defaultdict[tuple[int, int], set[tuple[int, int]]](set)
    for a, b in _pairs_of_equal_boxes(expressions):
        pair = (min(a.expression, b.expression), max(a.expression, b.expression))
        shared[pair] |= {(a.expression, a.number), (b.expression, b.number)}
    # Only the expressions in these pairs are compared by text: there may be many others.
    indices = set(chain.from_iterable(shared))
    compared_text = {index: _compared_text(expressions[index]) for index in indices}
    for (first, second), shared_boxes in sorted(shared.items()):
        if compared_text[first] == compared_text[second]:
            continue
        first_count = len(expressions[first].instances)
        second_count = len(expressions[second].instances)
        are_all_shared = len(shared_boxes) == first_count + second_count
        # Two boxes of one expression may both equal one box of the other. Then all are shared, but
        # the expressions have different numbers of boxes.
        have_all_in_common = are_all_shared and first_count == second_count
        yield expressions[first], expressions[second], have_all_in_common


def _pairs_of_equal_boxes(
    expressions: Sequence[Expression],
) -> Iterator[tuple[_PlacedBox, _PlacedBox]]:
    """Yield pairs of boxes of different expressions with IoU MERGE_IOU or more."""
    boxes = []
    for index, expression in enumerate(expressions):
        for number, box in enumerate(_boxes(expression)):
            boxes.append(_PlacedBox(box, index, number))
    boxes.sort()
    # From the left, each box is compared with the next ones, as far as they can overlap so much.
    compared = 0  # pairs, at most MOST_COMPARED
    for place, left in enumerate(boxes):
        x1, _, x2, _ = left.box
        # A box that begins further right overlaps less than MERGE_IOU; 1e-6 is for rounding.
        last_x1 = x1 + (1 - MERGE_IOU) * (x2 - x1) + 1e-6
        following = place + 1
        comparisons_left = MOST_COMPARED - compared
        for right in islice(boxes, following, following + comparisons_left):
            if right.box[0] > last_x1:
                break
            compared += 1
            if left.expression != right.expression and iou(left.box, right.box) >= MERGE_IOU:
                yield left, right


def _compared_text(expression: Expression) -> str:
    return clean_caption(expression.text).casefold()


def _boxes(expression: Expression) -> list[Bbox]:
    return sorted(instance.bbox for instance in expression.instances)

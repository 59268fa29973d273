"""The words of a data set's phrases: spellings of one word, phrases and boxes that are twice.

A phrase's head is the noun that says what it names: "cup" of "the red cup on the left".
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, islice
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.boxes.geometry import MERGE_IOU, Bbox, box_of, iou
from dataflow_grounding.data.nouns import singular
from dataflow_grounding.data.spans import clean_caption

Expression: TypeAlias = Mapping[str, Any]


ATTRIBUTES: dict[str, frozenset[str]] = {
    kind: frozenset(words.split())
    for kind, words in load_table(__package__, "attributes.yaml").items()
}
"""Kind of attribute → the English words that make it."""
_TIMES_AS_COMMON = 20  # as the misspelt word is the right one
_SHORTEST = 5  # letters of a word that may be misspelt: shorter ones are alike by chance
_LONGEST = 40  # letters of such a word, each of which makes a form to be kept
MOST_COMPARED = 100_000
"""Pairs of boxes that are compared in a record: more than all of 400 boxes on one spot."""


def look_alikes(heads: Mapping[str, int]) -> dict[str, int]:
    """Return pairs of words that may be one in two spellings, and how often the two occur in all.

    - They differ only by hyphens or a plural: "t-shirt" and "tshirts".
    - Or one is 20 times as common as the other, and they become equal when either or both lose a
      letter ("giraffe", "girafe") or an ending ("skate", "skating"). Such words have 5 to 40
      letters and no digits.
    """
    plain_form = {head: singular(head.replace("-", "")) for head in heads}  # "t-shirts": "tshirt"
    # Words with a form in common may be one: their plain form, or what a misspelling leaves.
    heads_by_form = defaultdict[str, set[str]](set)
    for head in heads:
        heads_by_form[plain_form[head]].add(head)
        for form in _misspelt_forms(head):
            heads_by_form[form].add(head)
    pairs = set[tuple[str, str]]()  # a set, because two heads may share several forms
    for heads_of_form in heads_by_form.values():
        for a, b in combinations(sorted(heads_of_form), 2):
            rarer = min(heads[a], heads[b])
            may_be_misspelt = max(heads[a], heads[b]) >= _TIMES_AS_COMMON * rarer
            if may_be_misspelt or plain_form[a] == plain_form[b]:
                pairs.add((a, b))
    counts = {}
    for a, b in sorted(pairs):
        counts[f"{a} ({heads[a]:,}) / {b} ({heads[b]:,})"] = heads[a] + heads[b]
    return counts


def _misspelt_forms(head: str) -> Iterator[str]:
    """Yield what two spellings of one word may have in common: all but a letter or the ending."""
    may_be_misspelt = _SHORTEST <= len(head) <= _LONGEST
    if not may_be_misspelt or any(letter.isdigit() for letter in head):
        return
    yield head
    yield re.sub("(ing|er|ed)$", "", head)
    for place in range(len(head)):
        yield head[:place] + head[place + 1 :]


def said_twice(expressions: Sequence[Expression]) -> list[str]:
    """Return the texts that an earlier expression has, too, with other boxes."""
    first_boxes: dict[str, list[Bbox]] = {}
    repeated = []
    for expression in expressions:
        boxes = _boxes(expression)
        boxes_of_first = first_boxes.setdefault(_compared_text(expression), boxes)
        if boxes_of_first != boxes:
            repeated.append(expression["text"])
    return repeated


def same_box_twice(expressions: Sequence[Expression]) -> list[str]:
    """Return the texts that an earlier expression has, too, with one of the same boxes."""
    boxes_of_text: dict[str, set[Bbox]] = defaultdict(set)
    repeated = []
    for expression in expressions:
        boxes = set(_boxes(expression))
        seen = boxes_of_text[_compared_text(expression)]
        if boxes & seen:
            repeated.append(expression["text"])
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
        first_count = len(expressions[first]["instances"])
        second_count = len(expressions[second]["instances"])
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
    return clean_caption(expression["text"]).casefold()


def _boxes(expression: Expression) -> list[Bbox]:
    return sorted(box_of(instance["bbox"]) for instance in expression["instances"])

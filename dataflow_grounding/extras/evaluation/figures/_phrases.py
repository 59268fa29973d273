"""The words of phrases: what they name, by which words they choose, and which of them mean one
thing, or can't tell.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any, TypeAlias

from dataflow_grounding._util.tables import load_table
from dataflow_grounding.boxes.geometry import MERGE_IOU, box_of, iou
from dataflow_grounding.data.spans import clean_caption
from dataflow_grounding.extras.embedded import words

Expression: TypeAlias = Mapping[str, Any]
ATTRIBUTES = {
    kind: frozenset(row["more"].split()).union(*(getattr(words, name) for name in row["lists"]))
    for kind, row in load_table(__package__, "attributes.yaml").items()
}
"""Kind of attribute → the English words that make it."""
_COMMON = 20  # times as often as a misspelt one
_LONGEST = 40  # letters of a word that may be misspelt
MOST_COMPARED = 100_000
"""Pairs of boxes that are compared in a record: all of 400 boxes on one spot. A record with more
has said enough.
"""


def look_alikes(heads: Mapping[str, int]) -> dict[str, int]:
    """Pairs of counted words that may be one in two spellings, "mug (40) / mugg (2)", and how often
    both are said.

    They differ by hyphens or a plural alone; or have 5 to 40 letters and no digits, are equal with
    a letter less in each or without their ending, and one is said 20 times as often as the other.
    """
    made, whole = (
        defaultdict[str, set[str]](set),
        {head: words.singular(head.replace("-", "")) for head in heads},
    )
    for head in heads:
        spelt = 5 <= len(head) <= _LONGEST and not any(letter.isdigit() for letter in head)
        less = (head[:place] + head[place + 1 :] for place in range(len(head)))
        for form in {
            whole[head],
            *([head, re.sub("(ing|er|ed)$", "", head), *less] if spelt else []),
        }:
            made[form].add(head)
    found = {
        (one, other)
        for alike in made.values()
        for one, other in combinations(sorted(alike), 2)
        if whole[one] == whole[other]
        or max(heads[one], heads[other]) >= _COMMON * min(heads[one], heads[other])
    }
    return {
        f"{one} ({heads[one]:,}) / {other} ({heads[other]:,})": heads[one] + heads[other]
        for one, other in sorted(found)
    }


def said_twice(expressions: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts that are an earlier expression's words again, up to case and spacing, with other
    boxes.
    """
    first: dict[str, list[Any]] = {}
    return [
        one["text"]
        for one in expressions
        if first.setdefault(_plain(one), _boxes(one)) != _boxes(one)
    ]


def sharing_boxes(
    expressions: Sequence[Expression],
) -> Iterator[tuple[Expression, Expression, bool]]:
    """Two expressions of other words that have a box in common (IoU 0.9), and whether they have
    all, and as many.
    """
    boxes = [
        (box, place, n)
        for place, one in enumerate(expressions)
        for n, box in enumerate(_boxes(one))
    ]
    boxes.sort()
    # places of two expressions → these boxes of both
    near = defaultdict[tuple[int, int], set[tuple[int, int]]](set)
    left = MOST_COMPARED
    for at, (box, place, n) in enumerate(boxes):
        # where one begins that overlaps so much, at most
        far = box[0] + (1 - MERGE_IOU) * (box[2] - box[0]) + 1e-6
        for other, its, k in islice(boxes, at + 1, at + 1 + left):
            if other[0] > far:
                break
            left -= 1
            if place != its and iou(box, other) >= MERGE_IOU:
                near[min(place, its), max(place, its)] |= {(place, n), (its, k)}
    words = {
        place: _plain(expressions[place]) for place in {place for pair in near for place in pair}
    }
    for (place, its), own in sorted(near.items()):
        one, another = expressions[place], expressions[its]
        if words[place] != words[its]:
            yield one, another, len(own) / 2 == len(one["instances"]) == len(another["instances"])


def _plain(expression: Mapping[str, Any]) -> str:
    return clean_caption(expression["text"]).casefold()


def _boxes(expression: Mapping[str, Any]) -> list[Any]:
    return sorted(box_of(instance["bbox"]) for instance in expression["instances"])

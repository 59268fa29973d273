"""Matching two lists of boxes: the one place that judges whether two boxes mean the same thing.

Boxes are paired one to one, greedily by falling IoU (intersection over union).
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou
from dataflow_grounding.data.records import is_number

A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)
SAME = 0.5  # IoU from which two boxes mean the same thing
# IoU from which boxes of two phrases of one class are of one thing, as "a person" and "a human"
# find each person twice. A phrase's own boxes aren't compared so: it tells its things apart itself.
ONE_OF_CLASS = 0.75


def each_thing_once(phrases: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[int]]:
    """Return for each phrase of one class the indices of its instances that stay where each thing
    is to have one box, its best.
    """
    staying: list[list[int]] = [[] for _ in phrases]
    for (phrase, index), *_ in things_of(phrases):
        staying[phrase].append(index)
    return [sorted(indices) for indices in staying]


def things_of(phrases: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[tuple[int, int]]]:
    """Return the boxes of each thing, the best first, as indices of the phrase and of its instance.

    A box is of the thing of a better one that is equal to it, or is another phrase's and overlaps
    it by ONE_OF_CLASS; the better one has the higher score, or comes first.
    """
    best_first = []
    for phrase, instances in enumerate(phrases):
        for index, instance in enumerate(instances):
            score = instance.get("score")
            sureness = float(score) if score is not None and is_number(score) else -1.0
            best_first.append((-sureness, phrase, index))
    best_first.sort()
    number_of_best: dict[Bbox, int] = {}  # by a thing's best box, the thing's number
    best_boxes = _BoxesByCell()
    things: list[list[tuple[int, int]]] = []
    for _, phrase, index in best_first:
        box = box_of(phrases[phrase][index]["bbox"])
        best_box = box if box in number_of_best else None
        if best_box is None and len(phrases) > 1:
            best_box = best_boxes.same_as(box, phrase)
        if best_box is not None:
            things[number_of_best[best_box]].append((phrase, index))
            continue
        number_of_best[box] = len(things)
        things.append([(phrase, index)])
        if len(phrases) > 1:
            best_boxes.add(box, phrase)
    return things


class _BoxesByCell:
    """The best boxes of things, by cells of about their own size. Boxes that overlap by
    ONE_OF_CLASS are about as large, and in cells next to each other, so that those of a picture
    with thousands aren't all compared.
    """

    def __init__(self) -> None:
        # by cell, then by phrase
        self._boxes: dict[tuple[int, ...], dict[int, list[Bbox]]] = {}

    def add(self, box: Bbox, phrase: int) -> None:
        # A level is the power of two of a side; cells of a level have sides of that length.
        levels = [math.frexp(box[axis + 2] - box[axis])[1] for axis in (0, 1)]
        columns = [_column(box[axis], levels[axis]) for axis in (0, 1)]
        cell = self._boxes.setdefault((*levels, *columns), {})
        cell.setdefault(phrase, []).append(box)

    def same_as(self, box: Bbox, phrase: int) -> Bbox | None:
        """Return another phrase's box that means the same thing."""
        across, down = (_cells_near(box[axis], box[axis + 2]) for axis in (0, 1))
        for width_level, column in across:
            for height_level, row in down:
                cell = self._boxes.get((width_level, height_level, column, row), {})
                for other_phrase, others in cell.items():
                    if other_phrase == phrase:
                        continue  # which may have thousands in the cell
                    for other in others:
                        if iou(box, other) >= ONE_OF_CLASS:
                            return other
        return None


def _column(edge: float, level: int) -> int:
    return math.floor(edge / math.ldexp(1.0, level))


def _cells_near(low: float, high: float) -> list[tuple[int, int]]:
    # Along one axis: the levels and columns in which boxes are that may overlap so much. Their
    # sides differ by a factor of ONE_OF_CLASS at the most, and their edges by what is left of it.
    side = abs(high - low)
    reach = side * (1 - ONE_OF_CLASS) / ONE_OF_CLASS
    cells = []
    lowest = math.frexp(side * ONE_OF_CLASS)[1]
    highest = math.frexp(side / ONE_OF_CLASS)[1]
    for level in range(lowest, highest + 1):
        for column in range(_column(low - reach, level), _column(low + reach, level) + 1):
            cells.append((level, column))
    return cells


def match_boxes(
    found: Sequence[Bbox], wanted: Sequence[Bbox], threshold: float = SAME, *, most: bool = False
) -> dict[int, tuple[int, float]]:
    """Return for the index of each wanted box that has a partner, in their order, the index of the
    found box and their IoU, at least `threshold`. Pairs are made by falling IoU; with `most`, as
    many as possible, by augmenting paths (Kuhn 1955).
    """
    overlaps: list[list[float]] = []  # the IoU by index: [wanted][found]
    near: list[list[int]] = []  # for each wanted box, those found that it can take, best first
    # Pairs are (-IoU, wanted, found), so that sorting puts the largest IoU first.
    pairs: list[tuple[float, int, int]] = []
    for wanted_index, wanted_box in enumerate(wanted):
        row = [iou(found_box, wanted_box) for found_box in found]
        pairs_here = []
        for found_index, overlap in enumerate(row):
            if overlap >= threshold:
                pairs_here.append((-overlap, wanted_index, found_index))
        pairs_here.sort()
        overlaps.append(row)
        near.append([found_index for _, _, found_index in pairs_here])
        pairs += pairs_here
    pairs.sort()
    # The partner of each found box: the wanted one with the largest IoU that is still free.
    wanted_of = first_free((found_index, wanted_index) for _, wanted_index, found_index in pairs)
    if most:
        # Each wanted box without a partner is given one, if that can be.
        for wanted_index in sorted(set(range(len(near))) - set(wanted_of.values())):
            _give_partner(wanted_index, wanted_of, near, set())
    matched: dict[int, tuple[int, float]] = {}
    for found_index, wanted_index in sorted(wanted_of.items(), key=lambda pair: pair[1]):
        matched[wanted_index] = (found_index, overlaps[wanted_index][found_index])
    return matched


def first_free(pairs: Iterable[tuple[A, B]]) -> dict[A, B]:
    """Keep each pair of which neither side is in one kept before; preferred ones come first."""
    partner: dict[A, B] = {}
    taken: set[B] = set()
    for a, b in pairs:
        if a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    return partner


def _give_partner(
    wanted_index: int, wanted_of: dict[int, int], near: Sequence[Sequence[int]], tried: set[int]
) -> bool:
    # A box that is taken is given up if the one that has it can take another.
    for found_index in near[wanted_index]:
        if found_index in tried:
            continue
        tried.add(found_index)
        is_free = found_index not in wanted_of
        if is_free or _give_partner(wanted_of[found_index], wanted_of, near, tried):
            wanted_of[found_index] = wanted_index
            return True
    return False


def agreement(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> float:
    """Return the mean IoU of two answers' boxes, matched one to one: a box without a partner counts
    0, and two answers without boxes are 0.
    """
    boxes = [box_of(instance["bbox"]) for instance in first]
    second_boxes = [box_of(instance["bbox"]) for instance in second]
    matched = match_boxes(second_boxes, boxes, 0.0)
    return sum(overlap for _, overlap in matched.values()) / max(len(first), len(second), 1)

"""Matching two lists of boxes: the one place that judges whether two boxes mean the same thing.

Boxes are paired one to one, greedily by falling IoU (intersection over union).
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from dataflow_grounding.boxes.geometry import Bbox, iou
from dataflow_grounding.data.expressions import Instance

ScoredBox: TypeAlias = tuple[Bbox, float | None]
"""A box in pixels, and how sure it is."""
A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)
SAME = 0.5  # IoU from which two boxes mean the same thing
# IoU from which boxes of two phrases of one class are of one thing, as "a person" and "a human"
# find each person twice. A phrase's own boxes aren't compared so: it tells its things apart itself.
ONE_OF_CLASS = 0.75


def scored_boxes(instances: Iterable[Instance]) -> list[ScoredBox]:
    return [(instance.bbox, instance.score) for instance in instances]


def each_thing_once(phrases: Sequence[Sequence[ScoredBox]]) -> list[list[int]]:
    """Return, for each phrase of one class, the indices of its boxes that are a thing's best."""
    kept_indices: list[list[int]] = [[] for _ in phrases]
    for boxes_of_thing in things_of(phrases):
        phrase_index, index = boxes_of_thing[0]  # of its best box
        kept_indices[phrase_index].append(index)
    return [sorted(indices) for indices in kept_indices]


def best_instances(phrases: Sequence[Sequence[Instance]]) -> list[Instance]:
    """Return each thing's best box, in the order of the phrases."""
    best = []
    kept = each_thing_once([scored_boxes(instances) for instances in phrases])
    for instances, indices in zip(phrases, kept, strict=True):
        best += [instances[index] for index in indices]
    return best


def things_of(phrases: Sequence[Sequence[ScoredBox]]) -> list[list[tuple[int, int]]]:
    """Return the boxes of each thing, the best first, as indices of the phrase and its box."""
    # Two boxes are of one thing if they are equal, or if they are of two phrases and overlap by
    # ONE_OF_CLASS.
    thing_with_best: dict[Bbox, list[tuple[int, int]]] = {}  # by the thing's best box
    best_boxes = _BoxesByCell()
    has_several_phrases = len(phrases) > 1  # else there is no other phrase to look for
    for phrase_index, index in _best_first(phrases):
        box, _ = phrases[phrase_index][index]
        best_box: Bbox | None = None  # of the same thing, if one is known
        if box in thing_with_best:  # an equal one, perhaps of the same phrase
            best_box = box
        elif has_several_phrases:
            best_box = best_boxes.same_as(box, phrase_index)
        if best_box is not None:
            thing_with_best[best_box].append((phrase_index, index))
        else:  # a new thing, whose best box this is: worse ones come later
            thing_with_best[box] = [(phrase_index, index)]
            if has_several_phrases:
                best_boxes.add(box, phrase_index)
    return list(thing_with_best.values())


def _best_first(phrases: Sequence[Sequence[ScoredBox]]) -> list[tuple[int, int]]:
    """The boxes of all phrases, the best first, as indices of the phrase and of its box."""
    places: list[tuple[float, int, int]] = []  # (-score, phrase, index): the best is the least
    for phrase_index, boxes in enumerate(phrases):
        for index, (_, score) in enumerate(boxes):
            sureness = -1.0 if score is None else score  # without a score: below all scores
            places.append((-sureness, phrase_index, index))
    return [(phrase_index, index) for _, phrase_index, index in sorted(places)]


class _CellOfAxis(NamedTuple):
    """Where a cell is along one axis."""

    level: int  # on level 6, cells are 2**6 = 64 px long, and hold boxes of 32 to 64 px
    number: int  # of the cell that a box begins in, from 0


class _BoxesByCell:
    """The best boxes of things, by cells of about their own size."""

    # Boxes that overlap by ONE_OF_CLASS are about as large, and in cells next to each other. So
    # those of a picture with thousands aren't all compared.

    def __init__(self) -> None:
        # By the cell's place across and down, then by the number of the phrase.
        self._boxes: dict[tuple[_CellOfAxis, _CellOfAxis], dict[int, list[Bbox]]] = {}

    def add(self, box: Bbox, phrase: int) -> None:
        x1, y1, x2, y2 = box
        cell = (_cell_of(x1, x2), _cell_of(y1, y2))
        boxes_of_phrase = self._boxes.setdefault(cell, {})
        boxes_of_phrase.setdefault(phrase, []).append(box)

    def same_as(self, box: Bbox, phrase: int) -> Bbox | None:
        """Return another phrase's box that means the same thing."""
        x1, y1, x2, y2 = box
        for cell in itertools.product(_cells_near(x1, x2), _cells_near(y1, y2)):
            for other_phrase, others in self._boxes.get(cell, {}).items():
                # a phrase tells its own things apart, and may have thousands in the cell
                if other_phrase == phrase:
                    continue
                for other in others:
                    if iou(box, other) >= ONE_OF_CLASS:
                        return other
        return None


def _cell_of(low: float, high: float) -> _CellOfAxis:
    level = _level_of(high - low)
    return _CellOfAxis(level, _number_at(low, level))


def _level_of(side: float) -> int:
    """6 for a side from 32 px on and below 64 px."""
    return math.frexp(side)[1]


def _number_at(edge: float, level: int) -> int:
    return math.floor(edge / math.ldexp(1.0, level))


def _cells_near(low: float, high: float) -> list[_CellOfAxis]:
    """The cells, along one axis, of boxes that may overlap this one by ONE_OF_CLASS, 0.75."""
    # Such a box is at least 0.75 times and at most 1 / 0.75 = 1.33 times as long, so that its edges
    # are at most a third of the side away from this one's.
    side = abs(high - low)
    reach = side * (1 - ONE_OF_CLASS) / ONE_OF_CLASS
    lowest_level = _level_of(side * ONE_OF_CLASS)
    highest_level = _level_of(side / ONE_OF_CLASS)
    cells = []
    for level in range(lowest_level, highest_level + 1):
        first = _number_at(low - reach, level)
        last = _number_at(low + reach, level)
        for number in range(first, last + 1):
            cells.append(_CellOfAxis(level, number))
    return cells


class Match(NamedTuple):
    """The found box that a wanted one is paired with."""

    found_index: int
    iou: float


def match_boxes(
    found: Sequence[Bbox], wanted: Sequence[Bbox], threshold: float = SAME, *, most: bool = False
) -> dict[int, Match]:
    """Return the matches of wanted boxes by their indices, with an IoU of at least `threshold`."""
    best_first = _pairs_best_first(found, wanted, threshold)
    # A pair counts if both of its boxes are free when its turn comes. `wanted_of` has the wanted
    # box by the found one.
    wanted_of = first_free(
        (found_index, wanted_index) for _, wanted_index, found_index in best_first
    )
    if most:  # as many pairs as possible, by augmenting paths (Kuhn 1955)
        candidates_of: list[list[int]] = [[] for _ in wanted]  # the best first
        for _, wanted_index, found_index in best_first:
            candidates_of[wanted_index].append(found_index)
        without_partner = set(range(len(wanted))) - set(wanted_of.values())
        for wanted_index in sorted(without_partner):
            _give_partner(wanted_index, wanted_of, candidates_of, tried=set())
    iou_of: dict[tuple[int, int], float] = {}  # by the indices of the found and the wanted box
    for minus_iou, wanted_index, found_index in best_first:
        iou_of[found_index, wanted_index] = -minus_iou
    matches: dict[int, Match] = {}
    for found_index, wanted_index in sorted(wanted_of.items(), key=lambda pair: pair[1]):
        matches[wanted_index] = Match(found_index, iou_of[found_index, wanted_index])
    return matches


def _pairs_best_first(
    found: Sequence[Bbox], wanted: Sequence[Bbox], threshold: float
) -> list[tuple[float, int, int]]:
    """The pairs that may match, as (-IoU, wanted, found): sorted, the largest IoU comes first."""
    pairs: list[tuple[float, int, int]] = []
    for wanted_index, wanted_box in enumerate(wanted):
        for found_index, found_box in enumerate(found):
            overlap = iou(found_box, wanted_box)
            if overlap >= threshold:
                pairs.append((-overlap, wanted_index, found_index))
    pairs.sort()
    return pairs


def first_free(pairs: Iterable[tuple[A, B]]) -> dict[A, B]:
    """Keep a pair if neither of its sides is in a pair kept before. Preferred pairs come first."""
    partner: dict[A, B] = {}
    taken: set[B] = set()
    for a, b in pairs:
        if a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    return partner


def _give_partner(
    wanted_index: int,
    wanted_of: dict[int, int],
    candidates_of: Sequence[Sequence[int]],
    tried: set[int],  # found boxes that were looked at on the way here
) -> bool:
    """Give a wanted box one of its candidates, if need be one whose owner can take another."""
    for found_index in candidates_of[wanted_index]:
        if found_index in tried:
            continue
        tried.add(found_index)
        is_free = found_index not in wanted_of
        if is_free or _give_partner(wanted_of[found_index], wanted_of, candidates_of, tried):
            wanted_of[found_index] = wanted_index
            return True
    return False

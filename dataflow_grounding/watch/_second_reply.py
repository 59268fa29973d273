"""Two replies to one question: whether the second proves in which format the first was written.

A model that is asked again puts its boxes about where it put them before. So the first reply is
read in each other format, and compared with the second one, read as asked. The comparison is a
log-likelihood ratio: how much likelier the boxes lie so if they are of the same things than if they
are of different ones.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.watch._readings import (
    FormatReading,
    JudgedReply,
    SeenBox,
    indices_by_phrase,
    largest_of,
)

# Standard deviations, in parts of the side, between where two answers of a model put an edge. Which
# of them is true of this model isn't known.
EDGES = (0.02, 0.05, 0.1)
ELSEWHERE = 0.1  # share of things that a second reply sees elsewhere altogether
PROVEN = 6.0  # log-likelihood ratio from which on the first of two replies was in another format


@dataclass(frozen=True)
class Proof:
    """The proof that the first of two replies was in another format.

    Attributes:
        format: Its name.
        ratio: Log-likelihood ratio to the format that was asked for.
    """

    format: str
    ratio: float


def proof_of(
    first: JudgedReply, second: JudgedReply, asked: FormatReading, others: Collection[FormatReading]
) -> Proof | None:
    """Return the proof that the first of two replies to one question was in another format.

    It is proven where its boxes, read in the other format, agree with those of the second reply far
    better (by PROVEN) than as they were asked for. None where it isn't. The best of several formats
    is taken, the last of equal ones.

    Args:
        first: The reply that came first.
        second: The reply to the same question, asked again.
        asked: The format that was asked for, in which the second reply is read.
        others: The formats in which the first one may be.
    """
    agreement_as_asked = _agreement(first, asked, second)
    largest = largest_of(first.boxes)
    best: Proof | None = None
    for reading in others:
        if not reading.may_hold(largest, first.sent):
            continue
        ratio = _agreement(first, reading, second) - agreement_as_asked
        least = best.ratio if best else PROVEN
        if ratio >= least:
            best = Proof(reading.name, ratio)
    return best


def says_the_same(first: JudgedReply, second: JudgedReply, asked: FormatReading) -> bool:
    """Whether two replies to one question put most of their boxes in the same places.

    Both are read as `asked`. False where no phrase has just one box in each of them.
    """
    pairs = _pairs(first, asked, second)
    near = sum(_log_nearness(pair, EDGES[-1]) > 0 for pair in pairs)
    return near * 2 > len(pairs)


def _agreement(first: JudgedReply, reading: FormatReading, second: JudgedReply) -> float:
    """Return how much likelier two replies' boxes are of the same things than of different ones.

    It is the logarithm of that ratio, 0 where `_pairs` finds none. The first reply is read in the
    format `reading`, the second as asked. How far apart this model's answers put an edge isn't
    known: the likelihoods for each of EDGES are averaged.
    """
    pairs = _pairs(first, reading, second)
    by_edge = [sum(_log_nearness(pair, edge) for pair in pairs) for edge in EDGES]
    # The logarithm of the mean of exponentials. Taking out the largest keeps these in range.
    most = max(by_edge)
    return most + math.log(sum(math.exp(nearness - most) for nearness in by_edge) / len(EDGES))


def _pairs(
    first: JudgedReply, reading: FormatReading, second: JudgedReply
) -> list[tuple[Bbox, Bbox]]:
    """Return the corners in both replies of each phrase that has just one box in each of them.

    The first reply's are read in the format `reading`, the second's as asked, in parts of the
    sides.
    """
    in_second = _only_boxes(second.boxes)
    pairs = []
    for phrase, index in _only_boxes(first.boxes).items():
        if phrase in in_second:
            corners = reading.meaning_of(first.boxes[index], first.sent).corners
            pairs.append((corners, second.meanings[in_second[phrase]].corners))
    return pairs


def _only_boxes(boxes: Sequence[SeenBox]) -> dict[str, int]:
    """Return, for each phrase that has just one box, the box's index."""
    only_index: dict[str, int] = {}
    for phrase, indices in indices_by_phrase(boxes).items():
        if len(indices) == 1:
            only_index[phrase] = indices[0]
    return only_index


def _log_nearness(pair: tuple[Bbox, Bbox], edge: float) -> float:
    """Return how much likelier two boxes lie so if they are of one thing than of different ones.

    It is the logarithm of that ratio, log(ELSEWHERE) at the least. Boxes of one thing differ by a
    normal error on each of the four edges, except for the share ELSEWHERE; those of different
    things may lie anywhere, with a density of 1.

    Args:
        pair: The two boxes, in parts of the sides.
        edge: The standard deviation of the difference between two edges, in parts of the side.
    """
    density = 1.0
    first, second = pair
    for a, b in zip(first, second, strict=True):
        density *= math.exp(-(((a - b) / edge) ** 2) / 2) / (edge * math.sqrt(2 * math.pi))
    return math.log((1 - ELSEWHERE) * density + ELSEWHERE)

"""Two replies to one question: whether the second proves in which format the first was written.

A model that is asked again puts its boxes about where it put them before. So the first reply is
read in each other format, and compared with the second one, read as asked.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dataflow_grounding.boxes.geometry import Bbox, ordered
from dataflow_grounding.trust.box_shapes import SeenBox, largest_of

if TYPE_CHECKING:
    from dataflow_grounding.trust.reply_judge import FormatReading, JudgedReply, View

PROVEN = 6.0  # log-likelihood ratio from which a second reply proves the format of the first
EDGES = (0.02, 0.05, 0.1)  # parts of the side between two answers' edges: which is not known
SEEN_APART = 0.1  # share of things that a second reply sees at another place altogether


class Proof(NamedTuple):
    """The proof that a reply was in another format: which, and its log-likelihood ratio."""

    format: str
    ratio: float


def proof_of(
    first: "JudgedReply", second: "JudgedReply", others: "Sequence[tuple[FormatReading, View]]"
) -> Proof | None:
    """Return the proof that the first of two replies to one question was in another format.

    Read in that format, its boxes agree with those of the second reply, read as asked, far better
    than read as asked. None where nothing is proven.

    Args:
        first: The reply that came first.
        second: The reply to the same question, asked again.
        others: The formats in which the first one may be, and what numbers mean in them.
    """
    as_asked = _agreement(first, first.corners, second)
    largest = largest_of(first.boxes)
    best: Proof | None = None
    for reading, view in others:
        if largest > view.most:
            continue
        corners = [ordered(box) for box in reading.corners(first.boxes, view)]
        ratio = _agreement(first, corners, second) - as_asked
        if ratio >= (best.ratio if best else PROVEN):
            best = Proof(reading.name, ratio)
    return best


def _agreement(first: "JudgedReply", corners: Sequence[Bbox], second: "JudgedReply") -> float:
    """Return how much likelier two replies' boxes are of the same things than of different ones.

    It is the logarithm of that ratio. How far apart this model's answers put an edge isn't known:
    the likelihoods for each of EDGES are averaged. Only phrases with one box in both count.
    """
    in_second = _only_boxes(second.boxes)
    pairs = []
    for phrase, index in _only_boxes(first.boxes).items():
        if phrase in in_second:
            pairs.append((corners[index], second.corners[in_second[phrase]]))
    by_edge = [math.exp(sum(_nearness(a, b, edge) for a, b in pairs)) for edge in EDGES]
    return math.log(sum(by_edge) / len(EDGES))


def _only_boxes(boxes: Sequence[SeenBox]) -> dict[str, int]:
    """Return, for each phrase that has just one box, the box's index."""
    counts = Counter(box.phrase for box in boxes)
    return {box.phrase: index for index, box in enumerate(boxes) if counts[box.phrase] == 1}


def _nearness(first: Bbox, second: Bbox, edge: float) -> float:
    """Return how much likelier two boxes lie so if they are of one thing than of different ones.

    It is the logarithm. Boxes of one thing differ by a normal error on each edge, of standard
    deviation `edge`, but for SEEN_APART of them; those of different things may be anywhere.
    """
    density = 1.0
    for a, b in zip(first, second, strict=True):
        density *= math.exp(-(((a - b) / edge) ** 2) / 2) / (edge * math.sqrt(2 * math.pi))
    return math.log((1 - SEEN_APART) * density + SEEN_APART)

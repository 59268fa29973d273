"""Two replies to one question: whether the second shows in which format the first was written."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.watch._readings import (
    Meaning,
    Reading,
    SeenBox,
    Sent,
    indices_by_phrase,
    largest_of,
)

# how far apart, in parts of the side, a model's two answers put an edge: one of these
EDGES = (0.02, 0.05, 0.1)
ELSEWHERE = 0.1  # share of things that a second reply sees elsewhere altogether
PROVEN = 6.0  # log-likelihood ratio at which the first of two replies was in another format


@dataclass(frozen=True)
class JudgedReply:
    """One reply's boxes, read as asked, and how much more likely its numbers are in other formats.

    Attributes:
        boxes: As the reply wrote them.
        sent: The picture as it was sent.
        meanings: What each box means in the format that was asked for.
        ratios: Log-likelihood ratio of each other format to the one that was asked for.
        unknown: The same of a format that nobody knows, in which boxes may be anywhere.
        likeliest: The format with the highest of the `ratios`; None where the numbers fit none.
    """

    boxes: Sequence[SeenBox]
    sent: Sent
    meanings: Sequence[Meaning]
    ratios: dict[str, float]
    unknown: float
    likeliest: str | None

    @property
    def ratio(self) -> float:
        """The highest of the ratios; minus infinity where the numbers fit no other format."""
        return self.ratios[self.likeliest] if self.likeliest else -math.inf


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
    first: JudgedReply, second: JudgedReply, asked: Reading, others: Collection[Reading]
) -> Proof | None:
    """In which format the first of two replies to one question was written, where that is proven.

    It is where, read so, it has its boxes where the second one has them, and hasn't as it was asked
    for.
    """
    usual = _agreement(first, asked, second)
    largest = largest_of(first.boxes)
    best: Proof | None = None
    for reading in others:
        if not reading.may_hold(largest, first.sent):
            continue
        ratio = _agreement(first, reading, second) - usual
        least = best.ratio if best else PROVEN
        if ratio >= least:
            best = Proof(reading.name, ratio)
    return best


def says_the_same(first: JudgedReply, second: JudgedReply, asked: Reading) -> bool:
    """Whether two replies to one question put most of their boxes in the same places."""
    pairs = _pairs(first, asked, second)
    near = sum(_log_nearness(pair, EDGES[-1]) > 0 for pair in pairs)
    return near * 2 > len(pairs)


def _agreement(first: JudgedReply, reading: Reading, second: JudgedReply) -> float:
    """How much likelier two replies' boxes are than boxes of different things, as a logarithm.

    Nobody knows beforehand how far apart this model's answers put an edge: each of EDGES counts
    alike.
    """
    pairs = _pairs(first, reading, second)
    by_edge = [sum(_log_nearness(pair, edge) for pair in pairs) for edge in EDGES]
    most = max(by_edge)
    return most + math.log(sum(math.exp(nearness - most) for nearness in by_edge) / len(EDGES))


def _pairs(first: JudgedReply, reading: Reading, second: JudgedReply) -> list[tuple[Bbox, Bbox]]:
    """The corners of each phrase that has one box in both replies.

    The first reply's are read in a format, the second's as asked.
    """
    in_second = _only_boxes(second.boxes)
    pairs = []
    for phrase, index in _only_boxes(first.boxes).items():
        if phrase in in_second:
            corners = reading.of(first.boxes[index], first.sent).corners
            pairs.append((corners, second.meanings[in_second[phrase]].corners))
    return pairs


def _only_boxes(boxes: Sequence[SeenBox]) -> dict[str, int]:
    """The index of the box of each phrase that has just one."""
    indices = indices_by_phrase(boxes)
    return {phrase: own[0] for phrase, own in indices.items() if len(own) == 1}


def _log_nearness(pair: tuple[Bbox, Bbox], edge: float) -> float:
    """How much likelier two boxes of one thing lie so than two of different things, a logarithm."""
    density = 1.0
    for a, b in zip(*pair, strict=True):
        density *= math.exp(-(((a - b) / edge) ** 2) / 2) / (edge * math.sqrt(2 * math.pi))
    return math.log((1 - ELSEWHERE) * density + ELSEWHERE)

"""Two replies to one question: whether the second one shows in which format the first
was written.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.watch._readings import Meaning, Reading, SeenBox, Sent, largest_of

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
        """The highest of the ratios; where the numbers fit no other format, nothing
        speaks for one.
        """
        return self.ratios[self.likeliest] if self.likeliest else -math.inf


@dataclass(frozen=True)
class Proof:
    """That the first of two replies was in another format.

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
    best, largest = None, largest_of(first.boxes)
    for other in others:
        if other.may_hold(largest, first.sent):
            ratio = _agreement(first, other, second) - usual
            if ratio >= (best.ratio if best else PROVEN):
                best = Proof(other.name, ratio)
    return best


def says_the_same(first: JudgedReply, second: JudgedReply, asked: Reading) -> bool:
    """Whether two replies to one question put most of their boxes in the same places."""
    pairs = _pairs(first, asked, second)
    near = sum(_log_nearness(pair, EDGES[-1]) > 0 for pair in pairs)
    return near * 2 > len(pairs)


def _agreement(first: JudgedReply, reading: Reading, second: JudgedReply) -> float:
    """How much likelier the boxes of two replies to one question are than boxes of different
    things, as a logarithm.
    """
    pairs = _pairs(first, reading, second)
    by_edge = [sum(_log_nearness(pair, edge) for pair in pairs) for edge in EDGES]
    most = max(by_edge)
    return most + math.log(sum(math.exp(nearness - most) for nearness in by_edge) / len(EDGES))


def _pairs(first: JudgedReply, reading: Reading, second: JudgedReply) -> list[tuple[Bbox, Bbox]]:
    """Corners of the phrases that have one box in both replies: the first's read in a format, the
    second's as asked.
    """
    firsts, seconds = _only_boxes(first.boxes), _only_boxes(second.boxes)
    pairs = []
    for phrase, place in firsts.items():
        if phrase in seconds:
            box = reading.of(first.boxes[place], first.sent).corners
            pairs.append((box, second.meanings[seconds[phrase]].corners))
    return pairs


def _only_boxes(boxes: Sequence[SeenBox]) -> dict[str, int]:
    """The places of the boxes of phrases that have just one."""
    places: dict[str, list[int]] = {}
    for place, box in enumerate(boxes):
        places.setdefault(box.phrase, []).append(place)
    return {phrase: own[0] for phrase, own in places.items() if len(own) == 1}


def _log_nearness(pair: tuple[Bbox, Bbox], edge: float) -> float:
    """How much likelier two boxes of one thing are to lie so than two of different things, as a
    logarithm.
    """
    density = 1.0
    for a, b in zip(*pair, strict=True):
        density *= math.exp(-(((a - b) / edge) ** 2) / 2) / (edge * math.sqrt(2 * math.pi))
    return math.log((1 - ELSEWHERE) * density + ELSEWHERE)

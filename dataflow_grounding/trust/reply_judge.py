"""Whether single replies are in the format that was asked for, by their numbers: `ReplyJudge`.

The boxes of a reply are read as asked, and in each other format that its numbers may be in. A
reading in the wrong format puts boxes where boxes of their thing seldom are, so that the likelier
reading tells the format. What boxes look like is learnt from the run itself (`box_shapes.py`).

A reply that may be in another format is asked for again, and `second_reply.py` compares the two.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, Order, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import ordered
from dataflow_grounding.english.heads import head_word
from dataflow_grounding.trust.box_shapes import (
    ANY,
    ANY_BOXES,
    BOXES_OF_A_THING,
    Corners,
    Expected,
    SeenBox,
    SeenThings,
    Sent,
    Shape,
    largest_of,
    log_likelihood,
    shape_of,
)
from dataflow_grounding.trust.reach import orientation_of
from dataflow_grounding.trust.second_reply import Proof, proof_of

MOST_BOXES = 64  # of a reply that are looked at: hostile replies may have thousands
SHOWS = 3.0  # log-likelihood ratio from which a reply is asked for again: 20 times as likely
# As many of a run's questions may be asked again without proving anything, because that costs a
# request each. With more, the pictures are unlike others, and it takes a higher ratio.
IN_VAIN = 0.01
# The ratios of successive replies are summed up (Page's CUSUM, 1954), each less ALLOWED, because a
# run's things may be shaped so, and for ONE at most. From ALARM on, a factor of 1,100, a probe has
# to tell. Where none can, the run is stopped at ALONE, or at less if probes tell of its other
# pictures: then the boxes that these are compared with are known to be right.
ALLOWED = 0.5
ONE = 3.0
ALARM = 7.0
ALONE = 25.0
ALONE_AMONG_OTHERS = 12.0
# The sum of proofs' ratios that no slip of a model explains: by one reply of a run's FIRST, or by
# two within RECENT.
MIXED = 10.5
FIRST, RECENT = 200, 400
ONCE = 1.5  # counts as SHOWS does, in a format that one other reply was proven to be in
OUTSIDE = 0.05  # parts of the side that noise puts an edge out of the picture
BEYOND = 6.0  # what lies further out costs so much
NEARLY = 1.13  # times a format's range: a reply with larger numbers isn't in it
MOST_THINGS = 4000  # that are known apart, so that memory is bounded
ALIKE = {999: 1000, 1024: 1000}  # scales that a single reply can't tell from another


class View(NamedTuple):
    """What the numbers of a format mean in a picture: the range of each axis, from `left`, `top`.

    `most` is the largest number that a reply may hold. `log_area` is the logarithm of the range's
    area, `log_aspect` that of width to height in pixels.
    """

    left: float
    top: float
    width: float
    height: float
    most: float
    log_area: float
    log_aspect: float


class FormatReading:
    """One format in which a reply's numbers may be read.

    Args:
        box_format: The format.
        halves: Whether boxes are written as x1, x2, y1, y2 instead of in the format's order.
    """

    def __init__(self, box_format: BoxFormat, *, halves: bool = False) -> None:
        self.format = box_format
        self.halves = halves
        self.name = f"x1, x2, y1, y2 of {box_format.scale}" if halves else box_format.name

    def view(self, sent: Sent) -> View:
        """Return what the numbers mean in a picture."""
        canvas = self.format.canvas(sent.size)
        if self.format.scale == "px":
            most_x, most_y = canvas.image_width, canvas.image_height
            left, top = canvas.left, canvas.top
        else:
            whole_x, whole_y = self.format.limits(sent.size)
            most_x = whole_x * canvas.image_width / canvas.width
            most_y = whole_y * canvas.image_height / canvas.height
            left = whole_x * canvas.left / canvas.width
            top = whole_y * canvas.top / canvas.height
        width = most_x * sent.across
        height = most_y * sent.down
        aspect = sent.size[0] * sent.across / (sent.size[1] * sent.down)
        most = NEARLY * max(left + width, top + height)
        return View(left, top, width, height, most, math.log(width * height), math.log(aspect))

    def corners(self, boxes: Sequence[SeenBox], view: View) -> list[Corners]:
        """Return each box's corners as written, in parts of the sides; they may be turned."""
        left, top, width, height, _, _, _ = view
        corners = []
        for numbers, order, _ in boxes:
            order = order or self.format.order
            if self.halves:
                x1, x2, y1, y2 = numbers
            elif order == "xyxy":
                x1, y1, x2, y2 = numbers
            else:
                x1, y1, x2, y2 = to_xyxy(numbers, order)
            corners.append(
                ((x1 - left) / width, (y1 - top) / height, (x2 - left) / width, (y2 - top) / height)
            )
        return corners


class Views(NamedTuple):
    """What numbers mean in a picture: in the format asked for, and in each other one."""

    asked: View
    others: Sequence[tuple[FormatReading, View]]


def other_readings(asked: BoxFormat) -> list[FormatReading]:
    """Return the formats that may be mistaken for the one asked for.

    They are every other order at its scale, every other scale in its order and with x and y
    swapped, all in the same frame, and x1, x2, y1, y2. Of scales that are ALIKE, only 1000 counts.
    """
    scale = ALIKE.get(asked.scale, asked.scale) if isinstance(asked.scale, int) else asked.scale
    swapped: dict[Order, Order] = {"xyxy": "yxyx", "yxyx": "xyxy"}
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    names = [f"{order}_{scale}" for order in ORDERS if order != asked.order]
    for other in SCALES:
        if other != scale and other not in ALIKE:
            names += [
                f"{order}_{other}" for order in (asked.order, swapped.get(asked.order)) if order
            ]
    readings = []
    for name in names:
        other_format = find_box_format(name + frame, "")
        readings.append(FormatReading(other_format))
    return [*readings, FormatReading(asked, halves=True)]


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """One reply's boxes, and how much likelier its numbers are in other formats than as asked.

    Attributes:
        boxes: The boxes as written.
        sent: The picture.
        corners: Each box as asked, in parts of the sides.
        shapes: The same as they are compared.
        turned: On how many axes boxes end before they begin.
        ratios: For each other format that may hold the numbers, its log-likelihood ratio.
        likeliest: The name of the format with the highest one; None where the numbers fit none.
    """

    boxes: Sequence[SeenBox]
    sent: Sent
    corners: Sequence[Corners]
    shapes: Sequence[Shape]
    turned: int
    ratios: dict[str, float]
    likeliest: str | None

    @property
    def ratio(self) -> float:
        """The highest of the ratios; minus infinity where the numbers fit no other format."""
        return self.ratios[self.likeliest] if self.likeliest else -math.inf


class ReplyJudge:
    """Judges a run's replies, one by one, and learns what its boxes look like.

    Args:
        asked: The format that was asked for.

    Attributes:
        replies: How many replies were added.
        same: How many replies, asked for again, said the same and still looked like another format.
    """

    def __init__(self, asked: BoxFormat) -> None:
        self.asked = FormatReading(asked)
        self.replies = 0
        self.same = 0
        self._others = other_readings(asked)
        self._views: dict[Sent, Views] = {}
        self._all = SeenThings()
        self._things: dict[str, SeenThings] = {}
        self._turned, self._axes = 0.5, 40.0  # as if half an axis of 40 had been turned
        self._sums: dict[tuple[str, str], float] = {}  # by format and orientation
        self._alarm = ALARM
        self._in_vain = 0
        # The last proofs, each after the number of replies so far.
        self._proofs: deque[tuple[int, Proof]] = deque(maxlen=16)

    # One reply

    def judge(self, boxes: Sequence[SeenBox], sent: Sent) -> JudgedReply:
        """Judge how likely a reply's numbers are in each format; nothing is added yet.

        Only the first MOST_BOXES boxes are looked at. A format counts only if all boxes are within
        the picture in it, and none ends before it begins.
        """
        boxes = boxes[:MOST_BOXES]
        things = [self._expected_of(head_word(box.phrase)) for box in boxes]
        weights = _weights(boxes)
        views = self.views(sent)
        log_aspect = views.asked.log_aspect
        as_written = self.asked.corners(boxes, views.asked)
        corners = [ordered(box) for box in as_written]
        turned = sum(box[0] > box[2] for box in as_written)
        turned += sum(box[1] > box[3] for box in as_written)
        shapes = [shape_of(box, log_aspect) for box in corners]
        as_asked = turned * math.log(self._turned / self._axes)
        as_asked += _sum(shapes, things, weights)
        as_asked -= BEYOND * sum(not _is_inside(box) for box in corners)
        as_asked -= 2 * views.asked.log_area * sum(weights)
        ratios: dict[str, float] = {}
        largest = largest_of(boxes)
        for reading, view in views.others:
            if largest > view.most:
                continue
            others = reading.corners(boxes, view)
            if not all(map(_is_proper, others)):
                continue
            likelihood = _sum([shape_of(box, log_aspect) for box in others], things, weights)
            likelihood -= 2 * view.log_area * sum(weights)
            ratios[reading.name] = likelihood - as_asked
        likeliest = max(ratios, key=lambda name: ratios[name], default=None)
        return JudgedReply(boxes, sent, corners, shapes, turned, ratios, likeliest)

    def views(self, sent: Sent) -> Views:
        """Return what numbers mean in a picture, in all formats."""
        views = self._views.get(sent)
        if views is None:
            if len(self._views) >= MOST_THINGS:
                self._views.clear()
            others = [(reading, reading.view(sent)) for reading in self._others]
            views = Views(self.asked.view(sent), others)
            self._views[sent] = views
        return views

    def _expected_of(self, thing: str) -> Expected:
        """Return what is expected of a box of a thing, by its own boxes and those of all things."""
        of_all = self._all.expect(ANY, ANY_BOXES)
        seen = self._things.get(thing)
        return of_all if seen is None else seen.expect(of_all, BOXES_OF_A_THING)

    def is_doubtful(self, reply: JudgedReply) -> bool:
        """Whether a question should be asked again, because this reply may be in another format."""
        if self.shows_other(reply):
            return True
        # Other replies were in such a format, which makes it likelier that this one is.
        formats = [proof.format for proof in self._recent_proofs()]
        return any(reply.ratios.get(name, -1.0) >= ONCE / formats.count(name) for name in formats)

    def shows_other(self, reply: JudgedReply) -> bool:
        """Whether a reply is clearly likelier in another format.

        Where many were asked for again in vain, the pictures are unlike others, and it takes more.
        """
        too_many = max(0.0, self._in_vain - IN_VAIN * self.replies)
        return reply.ratio >= SHOWS + math.log1p(too_many)

    # All replies

    def add(self, reply: JudgedReply) -> None:
        """Add a reply to what all say."""
        self.replies += 1
        orientation = orientation_of(reply.sent.size)
        for name, ratio in reply.ratios.items():
            before = self._sums.get((name, orientation), 0.0)
            self._sums[name, orientation] = max(0.0, before + min(max(ratio - ALLOWED, -ONE), ONE))

    def learn(self, reply: JudgedReply) -> None:
        """Add the boxes of a reply that is taken for right to what boxes look like."""
        self._turned += reply.turned
        self._axes += 2 * len(reply.boxes)
        for box, shape, corners in zip(reply.boxes, reply.shapes, reply.corners, strict=True):
            if not _is_inside(corners):
                continue
            self._all.add(shape)
            thing = head_word(box.phrase)
            if thing in self._things or len(self._things) < MOST_THINGS:
                self._things.setdefault(thing, SeenThings()).add(shape)

    def alarm(self, orientation: str) -> str | None:
        """Return the format in which the last replies about such pictures are much likelier.

        A probe has to tell then. None where there is none.
        """
        return self._likeliest(orientation, self._alarm)

    def alone(self, orientation: str, *, others_told: bool) -> str | None:
        """Return the same where it is so clear that the run is stopped if no probe can tell.

        `others_told` says whether probes can for other pictures: then the run's own boxes, which
        these are compared with, are known to be right.
        """
        return self._likeliest(orientation, ALONE_AMONG_OTHERS if others_told else ALONE)

    def _likeliest(self, orientation: str, least: float) -> str | None:
        sums = {name: total for (name, whose), total in self._sums.items() if whose == orientation}
        name = max(sums, key=lambda name: sums[name], default=None)
        return name if name is not None and sums[name] >= least else None

    def calm(self, orientation: str) -> None:
        """Forget what spoke against the format in such pictures: a probe has shown it right."""
        if self.alarm(orientation) is not None:  # they look odd, so the next alarm takes more
            self._alarm += ONE
        for key in self._sums:
            if key[1] == orientation:
                self._sums[key] = 0.0

    # Two replies to one question

    def compare(self, first: JudgedReply, second: JudgedReply) -> str | None:
        """Return the format that the first of two replies to one question is proven to be in.

        Read in that format, its boxes agree with those of the second reply, read as asked, far
        better than read as asked. None where nothing is proven, which is counted.
        """
        proof = proof_of(first, second, self.views(first.sent).others)
        if proof is None:
            self._in_vain += 1
            return None
        self._proofs.append((self.replies, proof))
        return proof.format

    @property
    def mixed(self) -> str | None:
        """The format that more replies were proven to be in than a slip explains."""
        proofs = self._recent_proofs()
        for name in {proof.format for proof in proofs}:
            ratios = [proof.ratio for proof in proofs if proof.format == name]
            if sum(ratios) >= MIXED and (len(ratios) > 1 or self.replies <= FIRST):
                return name
        return None

    @property
    def proven(self) -> Sequence[str]:
        """The formats that single replies were proven to be in, one for each."""
        return [proof.format for _, proof in self._proofs]

    def _recent_proofs(self) -> list[Proof]:
        return [proof for number, proof in self._proofs if self.replies - number <= RECENT]


def _weights(boxes: Sequence[SeenBox]) -> list[float]:
    """Return what each box counts: those of one phrase are alike, and say as much as one does."""
    phrases = [box.phrase for box in boxes]
    return [1 / phrases.count(phrase) for phrase in phrases]


def _sum(shapes: Sequence[Shape], things: Sequence[Expected], weights: Sequence[float]) -> float:
    """Return the log-likelihood of boxes over their four numbers."""
    total = 0.0
    for shape, expected, weight in zip(shapes, things, weights, strict=True):
        # A density of the figures becomes one of the edges by its change of variables.
        total += weight * (log_likelihood(shape, expected) - 2 * shape.size)
    return total


def _is_inside(box: Corners) -> bool:
    """Whether a box is within its picture, or out of it by no more than noise."""
    x1, y1, x2, y2 = box
    return x1 >= -OUTSIDE and y1 >= -OUTSIDE and x2 <= 1 + OUTSIDE and y2 <= 1 + OUTSIDE


def _is_proper(box: Corners) -> bool:
    """Whether a box doesn't end before it begins, and is inside its picture."""
    x1, y1, x2, y2 = box
    return x1 <= x2 and y1 <= y2 and _is_inside(box)

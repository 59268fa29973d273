"""Whether a single reply is in the format that was asked for, by its numbers.

The boxes of a reply are read as asked, and in each other format that its numbers may be in. A
reading in the wrong format puts boxes where boxes of their thing seldom are, so that the likelier
reading tells the format. What boxes look like is learnt from the run itself (`box_shapes.py`). A
run that is wrong from its first reply on teaches that wrong boxes are right. So all replies
together are also compared with what boxes look like in general.

A reply that may be in another format is asked for again. A model that is asked again puts its boxes
about where it put them before. So the first reply is read in each other format and compared with
the second one, read as asked: where these agree, the first one's format is proven.

A ratio is how much likelier one format is than the one asked for, as a logarithm: 0 for as likely.
Replies are told apart by their pictures' orientation (upright, lying, square), because a server may
treat pictures of one otherwise.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Bbox, ordered
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.trust.box_shapes import (
    ANY,
    ANY_BOXES,
    BOXES_OF_A_THING,
    Expected,
    SeenThings,
    Shape,
    log_likelihood,
    shape_of,
)
from dataflow_grounding.trust.format_readings import (
    FormatReading,
    SeenBox,
    Sent,
    View,
    is_inside,
    other_readings,
)

MOST_BOXES = 64  # of a reply that are looked at: hostile replies may have thousands
# Log-likelihood ratio from which a reply is asked for again: 20 times as likely in another format.
ASK_AGAIN_RATIO = 3.0
# Share of a run's questions that may be asked again and prove nothing, since each costs a request.
# With more, the pictures are unusual, and the ratio rises by as much.
EXPECTED_IN_VAIN = 0.005
OUTSIDE_COST = 6.0  # log-likelihood that a box outside the picture costs: a factor of 400
MOST_THINGS = 4000  # kept apart by name, so that memory is bounded
# Corners of a right reply may be turned, too. The count begins as if half an axis of 40 had been
# turned.
TURNED, AXES = 0.5, 40.0
# Log-likelihood ratio from which a second reply proves the format of the first: a factor of 400.
PROOF_RATIO = 6.0
# Standard deviations of an edge between two answers, in parts of the side: the true one is unknown.
EDGE_DEVIATIONS = (0.02, 0.05, 0.1)
MOVED_SHARE = 0.1  # share of things that a second reply puts in another place altogether
# Sum of the proofs' ratios that no slip of a model explains: from one reply of a run's FIRST, or
# from two within RECENT.
MIXED_RATIO = 10.5
FIRST, RECENT = 200, 400
# In place of ASK_AGAIN_RATIO, for a format that another reply was proven to be in.
ASK_AGAIN_AFTER_PROOF = 1.5
# Ratios of successive replies are summed (Page's CUSUM, 1954). Each is reduced by CUSUM_SLACK,
# because the run's things may simply have such shapes, and counts for CUSUM_STEP at most. At
# CHECK_AT, a factor of 1,100, a check is made. If no check can tell, the run stops at STOP_AT, or
# earlier if probes can tell for its other pictures: boxes in those are then known to be right.
CUSUM_SLACK = 0.5
CUSUM_STEP = 3.0
CHECK_AT = 7.0
STOP_AT = 25.0
STOP_AT_IF_OTHERS_CHECKED = 12.0
# The same sums by what boxes look like in general, without slack. The sums of wrong runs grow by
# 0.2 to 3 a reply. Of right runs, with noise up to 5%, the highest sum was 21 in 200 replies, where
# not all things were in one corner. A check is made at the first number. At the second one, which
# is certain, the user is told. Nothing is stopped, because the pictures may be unlike all others:
# those of texts are.
CHECK_AT_IN_GENERAL, TELL_AT = 12.0, 40.0


class Views(NamedTuple):
    """What numbers mean in a picture: in the format asked for, and in each other one."""

    asked: View
    others: Sequence[tuple[FormatReading, View]]
    log_aspect: float
    """The logarithm of the picture's width to its height."""


class ExpectedBox(NamedTuple):
    """What is expected of a box, and how much it counts."""

    expected: Expected
    weight: float  # boxes of one phrase are alike: all of them together count as much as one


@dataclass(slots=True)
class JudgedReply:
    """One reply's boxes, and how much likelier its numbers are in another format than as asked."""

    boxes: Sequence[SeenBox]
    sent: Sent
    corners: Sequence[Bbox]
    """Each box as asked, in parts of the sides."""
    shapes: Sequence[Shape]
    """The same as they are compared."""
    turned: int
    """On how many axes boxes end before they begin."""
    ratios: dict[str, float]
    """For each other format that may hold the numbers, its log-likelihood ratio to the one asked
    for.
    """
    in_general: dict[str, float]
    """The same for all formats, by what boxes look like in general."""
    likeliest: str | None
    """The name of the one with the highest of the `ratios`."""

    @property
    def ratio(self) -> float:
        """The highest of the ratios."""
        return self.ratios[self.likeliest] if self.likeliest else -math.inf


class Proof(NamedTuple):
    """That the reply of this number was in another format; `ratio` is a log-likelihood ratio."""

    number: int
    format: str
    ratio: float


class Sums:
    """How much likelier each format is by all replies about pictures of an orientation."""

    def __init__(self) -> None:
        # by orientation, then by the format's name
        self._sums: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def add(self, orientation: str, ratios: Mapping[str, float], slack: float = 0.0) -> None:
        sums = self._sums[orientation]
        for name, ratio in ratios.items():
            step = min(max(ratio - slack, -CUSUM_STEP), CUSUM_STEP)
            # Never under 0, so that right replies don't make up for wrong ones that follow.
            sums[name] = max(0.0, sums.get(name, 0.0) + step)

    def likeliest(self, orientation: str, least: float) -> str | None:
        """Return the format with the highest sum, if that is `least` or more; else None."""
        likeliest: str | None = None
        to_reach = least  # later the highest sum so far
        for name, total in self._sums[orientation].items():
            if total >= to_reach:
                likeliest = name
                to_reach = total
        return likeliest

    def forget(self, orientation: str) -> None:
        self._sums[orientation].clear()


class ReplyJudge:
    """Judges a run's replies, one by one, and learns what its boxes look like."""

    def __init__(self, asked: BoxFormat) -> None:
        self.asked = FormatReading(asked)
        self.replies = 0
        self.odd_twice = 0  # replies that look like another format, also when asked for again
        self._others = other_readings(asked)
        self._views: dict[Sent, Views] = {}  # of pictures so far: working them out takes long

        # What the run's boxes look like
        self._all = SeenThings()
        self._things: dict[str, SeenThings] = {}  # by the head word of their phrases
        self._turned = TURNED  # axes on which boxes of right replies ended before they began
        self._axes = AXES  # of all their boxes

        # What all replies say together
        self._sums = Sums()  # by what the run's boxes look like
        self._alarm = CHECK_AT  # the sum from which a check is made
        self._in_general = Sums()  # by what boxes look like in general
        # orientations in which `_in_general` has called for a check that found nothing: it calls
        # for no other there
        self._checked_in_general: set[str] = set()
        self._has_told = False  # whether `newly_certain` has returned a format

        # What second replies have said of first ones
        self._in_vain = 0  # questions that were asked again and proved nothing
        self._proofs: deque[Proof] = deque(maxlen=16)  # the last ones

    # One reply

    def judge(self, boxes: Sequence[SeenBox], sent: Sent) -> JudgedReply:
        """Judge how likely a reply's numbers are in each format; nothing is learnt yet."""
        boxes = boxes[:MOST_BOXES]
        asked, others, log_aspect = self.views(sent)
        corners, turned = self._corners_as_asked(boxes, asked)
        shapes = [shape_of(box, log_aspect) for box in corners]
        # Each format is judged twice: by the run's own boxes, and by boxes in general.
        expected = self._expected_of(boxes)
        expected_in_general = [ExpectedBox(ANY, weight) for _, weight in expected]
        # Other formats need no penalty for boxes out of the picture or turned: one with such a box
        # is left out (`FormatReading.proper`).
        outside = sum(not is_inside(box) for box in corners)
        penalty = OUTSIDE_COST * outside - turned * math.log(self._turned / self._axes)
        as_asked = _log_likelihood(shapes, expected, asked) - penalty
        as_asked_in_general = _log_likelihood(shapes, expected_in_general, asked) - penalty
        ratios: dict[str, float] = {}
        # A format that can't be that of these boxes stays at minus infinity.
        in_general = {reading.name: -math.inf for reading, _ in others}
        for reading, view, other_shapes in _shapes_in_others(boxes, others, log_aspect):
            if not reading.only_together:  # a single reply may be taken for this format
                ratios[reading.name] = _log_likelihood(other_shapes, expected, view) - as_asked
            likelihood_in_general = _log_likelihood(other_shapes, expected_in_general, view)
            in_general[reading.name] = likelihood_in_general - as_asked_in_general
        likeliest = max(ratios, key=lambda name: ratios[name], default=None)
        return JudgedReply(boxes, sent, corners, shapes, turned, ratios, in_general, likeliest)

    def _corners_as_asked(self, boxes: Sequence[SeenBox], view: View) -> tuple[list[Bbox], int]:
        """The boxes' corners, and on how many axes boxes end before they begin."""
        all_corners = []
        turned = 0
        for box in boxes:
            corners = self.asked.corners(box, view)
            x1, y1, x2, y2 = corners
            turned += (x1 > x2) + (y1 > y2)
            all_corners.append(ordered(corners))
        return all_corners, turned

    def views(self, sent: Sent) -> Views:
        views = self._views.get(sent)
        if views is None:
            if len(self._views) >= MOST_THINGS:  # so that memory is bounded
                self._views.clear()
            others = [(reading, reading.view(sent)) for reading in self._others]
            width, height = sent.size
            log_aspect = math.log(width * sent.across / (height * sent.down))
            views = Views(self.asked.view(sent), others, log_aspect)
            self._views[sent] = views
        return views

    def _expected_of(self, boxes: Sequence[SeenBox]) -> list[ExpectedBox]:
        """What each box should be like: earlier boxes of its thing or, without any, all boxes."""
        of_all = self._all.expect(ANY, ANY_BOXES)
        phrases = [box.phrase for box in boxes]
        expected_boxes = []
        for phrase in phrases:
            seen = self._things.get(head_of(phrase))
            expected = of_all if seen is None else seen.expect(of_all, BOXES_OF_A_THING)
            expected_boxes.append(ExpectedBox(expected, weight=1 / phrases.count(phrase)))
        return expected_boxes

    def shows_other(self, reply: JudgedReply) -> bool:
        """Whether a reply is clearly likelier in another format."""
        # If many were asked for again in vain, the pictures are unusual, and it takes more.
        too_many = max(0.0, self._in_vain - EXPECTED_IN_VAIN * self.replies)
        return reply.ratio >= ASK_AGAIN_RATIO + too_many

    def is_doubtful(self, reply: JudgedReply) -> bool:
        """Whether a question should be asked again, because this reply may be in another format."""
        if self.shows_other(reply):
            return True
        # If other replies were proven to be in a format, it is likelier that this one is in it,
        # too: with n proofs, an n-th of the ratio is enough.
        count_of_proofs = Counter(proof.format for proof in self._recent_proofs())
        for name, count in count_of_proofs.items():
            ratio = reply.ratios.get(name, -math.inf)  # it may be no format of these numbers
            if ratio >= ASK_AGAIN_AFTER_PROOF / count:
                return True
        return False

    def learn(self, reply: JudgedReply) -> None:
        """Learn what boxes look like, in all and by their thing, from a reply taken for right."""
        self._turned += reply.turned
        self._axes += 2 * len(reply.boxes)
        for box, shape, corners in zip(reply.boxes, reply.shapes, reply.corners, strict=True):
            if not is_inside(corners):  # it says nothing of what boxes look like
                continue
            self._all.add(shape)
            thing = head_of(box.phrase)
            has_room = len(self._things) < MOST_THINGS
            if thing in self._things or has_room:
                self._things.setdefault(thing, SeenThings()).add(shape)

    # All replies

    def add(self, reply: JudgedReply, orientation: str) -> None:
        """Add a reply about a picture of this orientation to what all say together."""
        self.replies += 1
        self._sums.add(orientation, reply.ratios, slack=CUSUM_SLACK)
        if reply.boxes:
            self._in_general.add(orientation, reply.in_general)

    def alarm(self, orientation: str) -> str | None:
        """Return a format in which replies about such pictures are so likely that a check is due.

        The run's own boxes may call for any number of checks. What boxes look like in general calls
        for only one in each orientation: if that goes well, the pictures are just unlike others.
        """
        likeliest = self._sums.likeliest(orientation, self._alarm)
        if likeliest is None and orientation not in self._checked_in_general:
            likeliest = self._in_general.likeliest(orientation, CHECK_AT_IN_GENERAL)
        return likeliest

    def newly_certain(self, orientation: str) -> str | None:
        """Return the format that all replies together are in beyond doubt: once, else None."""
        if self._has_told:
            return None
        likeliest = self._in_general.likeliest(orientation, TELL_AT)
        self._has_told = likeliest is not None
        return likeliest

    def alarm_without_check(self, orientation: str, *, others_told: bool) -> str | None:
        """Return a format in which such replies are so likely that no check is needed.

        `others_told` says whether checks can tell of pictures of other orientations.
        """
        least = STOP_AT_IF_OTHERS_CHECKED if others_told else STOP_AT
        return self._sums.likeliest(orientation, least)

    def calm(self, orientation: str) -> None:
        """Forget what spoke against the format in such pictures: a check has shown it right.

        If there was an alarm, it was a false one: the next one takes more, or never comes.
        """
        if self._sums.likeliest(orientation, self._alarm) is not None:
            self._alarm += CUSUM_STEP
        elif self.alarm(orientation) is not None:
            # The alarm can only come from what boxes look like in general.
            self._checked_in_general.add(orientation)
        # The sums `_in_general` are kept, because `newly_certain` needs them.
        self._sums.forget(orientation)

    def says_the_same(self, first: JudgedReply, second: JudgedReply) -> bool:
        """Whether two replies to one question likely put boxes around the same things."""
        return _agreement(first, first.corners, second) > 0

    def compare(self, first: JudgedReply, second: JudgedReply) -> str | None:
        """Return the format that the first of two replies to one question is proven to be in.

        It is proven if the first reply, read in that format, agrees with the second, read as asked.
        The result is counted, for `proven`, `mixed` and `shows_other`.
        """
        as_asked = _agreement(first, first.corners, second)
        largest = _largest_of(first.boxes)
        proven: str | None = None  # the likeliest other format so far
        ratio_to_reach = PROOF_RATIO  # later the ratio of `proven`
        for reading, view in self.views(first.sent).others:
            if largest > view.most or reading.only_together:
                continue
            corners = [ordered(reading.corners(box, view)) for box in first.boxes]
            ratio = _agreement(first, corners, second) - as_asked
            if ratio >= ratio_to_reach:
                proven = reading.name
                ratio_to_reach = ratio
        if proven is None:
            self._in_vain += 1
        else:
            self._proofs.append(Proof(self.replies, proven, ratio_to_reach))
        return proven

    @property
    def proven(self) -> Sequence[str]:
        """The formats that single replies were in, one for each of the last proofs."""
        return [proof.format for proof in self._proofs]

    @property
    def mixed(self) -> str | None:
        """The format that more replies were proven to be in than a slip explains, if any."""
        proofs = self._recent_proofs()
        for name in dict.fromkeys(proof.format for proof in proofs):
            ratios = [proof.ratio for proof in proofs if proof.format == name]
            is_one_enough = self.replies <= FIRST
            if sum(ratios) >= MIXED_RATIO and (len(ratios) > 1 or is_one_enough):
                return name
        return None

    def _recent_proofs(self) -> "list[Proof]":
        return [proof for proof in self._proofs if self.replies - proof.number <= RECENT]


def _shapes_in_others(
    boxes: Sequence[SeenBox], others: Sequence[tuple[FormatReading, View]], log_aspect: float
) -> list[tuple[FormatReading, View, list[Shape]]]:
    """The boxes' shapes in each other format that may be theirs."""
    largest = _largest_of(boxes)
    possible = []
    for reading, view in others:
        if largest > view.most:
            continue
        corners = reading.proper(boxes, view)
        if corners is not None:
            shapes = [shape_of(box, log_aspect) for box in corners]
            possible.append((reading, view, shapes))
    return possible


def _largest_of(boxes: Sequence[SeenBox]) -> float:
    """Infinite without boxes, so that no format may be theirs."""
    return max([max(box.numbers) for box in boxes], default=math.inf)


def _log_likelihood(
    shapes: Sequence[Shape], expected_boxes: Sequence[ExpectedBox], view: View
) -> float:
    """How likely the numbers of a reply are in a format."""
    # `log_likelihood` gives the density of a box's figures, such as its size. Formats have
    # different ranges, so only densities of the numbers compare. They are worked out in two steps:
    # - density of the edges = density of the figures / the box's area
    # - density of the numbers = density of the edges / the square of the range's area, because two
    #   numbers are across and two down
    total = 0.0
    for shape, (expected, weight) in zip(shapes, expected_boxes, strict=True):
        _, _, log_size, _ = shape  # of a mean side: twice that is the logarithm of the area
        of_numbers = log_likelihood(shape, expected) - 2 * log_size - 2 * view.log_area
        total += weight * of_numbers
    return total


def _agreement(first: JudgedReply, corners: Sequence[Bbox], second: JudgedReply) -> float:
    """How much likelier two replies put boxes around the same things, as a logarithm."""
    # `corners` are those of the first reply's boxes, in the format to be tried.
    # Only phrases with exactly one box in each reply count: others don't say which boxes to pair.
    index_in_second = _index_of_single_boxes(second.boxes)
    pairs = []  # a box of each reply, of one phrase
    for phrase, index in _index_of_single_boxes(first.boxes).items():
        if phrase in index_in_second:
            pairs.append((corners[index], second.corners[index_in_second[phrase]]))
    # How much this model's edges vary isn't known: the average is over several deviations.
    likelihoods = []
    for deviation in EDGE_DEVIATIONS:
        log_likelihood_of_all = sum(_nearness(a, b, deviation) for a, b in pairs)
        likelihoods.append(math.exp(log_likelihood_of_all))
    return math.log(sum(likelihoods) / len(likelihoods))


def _index_of_single_boxes(boxes: Sequence[SeenBox]) -> dict[str, int]:
    counts = Counter(box.phrase for box in boxes)
    return {box.phrase: index for index, box in enumerate(boxes) if counts[box.phrase] == 1}


def _nearness(first: Bbox, second: Bbox, deviation: float) -> float:
    """How much likelier two boxes are of one thing than of different ones, as a logarithm."""
    # - One thing: each edge differs by a normal error of this standard deviation. A MOVED_SHARE of
    #   things has moved, and may be anywhere.
    # - Different things: the second box may be anywhere, with density 1.
    density = 1.0
    for a, b in zip(first, second, strict=True):
        off = (a - b) / deviation
        density *= math.exp(-(off**2) / 2) / (deviation * math.sqrt(2 * math.pi))
    return math.log((1 - MOVED_SHARE) * density + MOVED_SHARE)

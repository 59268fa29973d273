"""Whether replies are in the format asked for.

Judged are each reply by itself, all together, and two replies to one question.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.replies.labels import head_word
from dataflow_grounding.watch._box_statistics import BoxStatistics, Figures
from dataflow_grounding.watch._probe_sizes import orientation_of
from dataflow_grounding.watch._readings import (
    Meaning,
    Reading,
    SeenBox,
    Sent,
    indices_by_phrase,
    largest_of,
    other_readings,
)
from dataflow_grounding.watch._second_reply import JudgedReply, Proof, proof_of, says_the_same

# One reply. A log-likelihood ratio of 3 is one of 20.
SHOWS = 3.0  # from which on a reply's own numbers show that it is in another format
SURELY = 6.0  # from which on, in two replies to one question, it is asked a third time
LIKELIER = 1.0  # from which on it is asked again where there is some to spare
# of being in a format that others were proven to be in, from which on it is asked again
CHANCE = 0.01
IN_VAIN = 0.03  # the share that may be asked again and say the same before it takes more to ask
MOST_BOXES = 64  # of a reply that are looked at

# All replies, since they last spoke for the format that was asked for.
ALARM = 7.0  # at which it is time for a probe picture
MORE = 3.0  # by how much more it takes after one that showed nothing
ALONE = 25.0  # at which a run is stopped where no probe picture can tell,
CLEARLY = 3.0  # if a format is ahead of others by so much, or at twice as much
MOST_OF_ONE = 3.0  # what one reply may add or take

# Two replies to one question, of which the second proves in which format the first was.
# the sum of these that no chance explains: of several boxes, or several replies
BEYOND_CHANCE = 10.5
FIRST_REPLIES = 200  # among which one that is in another format is no slip
RECENT_REPLIES = 400  # among which two are none
# of replies that look like another format, and say the same when asked again
ODD_SHARE = 0.05
LEAST_ODD = 8

UNKNOWN = "a format that isn't known"
SAME_BOX = "one box for different phrases"
# share of replies with nothing but one box: of a model that sees none, of others
OFTEN_SAME = 0.9
SELDOM_SAME = 0.15


class Sum:
    """Log-likelihood ratios of successive replies, added up since they were last zero.

    A cumulative sum as of E. S. Page, Continuous inspection schemes, Biometrika 41 (1954).
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.unbounded = 0.0
        """The sum as it would be if one reply could add any amount: tells like formats apart."""

    def add(self, ratio: float) -> None:
        """Take in the next reply's."""
        self.total = max(0.0, self.total + min(max(ratio, -MOST_OF_ONE), MOST_OF_ONE))
        if self.total:
            self.unbounded += ratio
        else:
            self.unbounded = 0.0

    def forget(self) -> None:
        """Begin again at zero."""
        self.total = 0.0
        self.unbounded = 0.0


class ProvenReply(NamedTuple):
    """A reply that a second one proved to be in another format.

    Attributes:
        proof: In which format, and how clearly.
        number: How many replies had come until then.
    """

    proof: Proof
    number: int


class Evidence:
    """What a run's replies say for other formats than the one that was asked for.

    Args:
        asked: The format that was asked for.
        learns: Whether the run's boxes are examples of what boxes look like. Without probe
            pictures, nothing tells that they are right: then all are compared with pictures in
            general.
    """

    def __init__(self, asked: BoxFormat, *, learns: bool = True) -> None:
        self.asked = Reading(asked)
        self.learns = learns
        self.replies = 0
        self._statistics = BoxStatistics()
        self._others = {reading.name: reading for reading in other_readings(asked)}
        self._sums: dict[tuple[str, str], Sum] = {}  # by format, and orientation or "all"
        self._alarm: dict[str, float] = {}  # by format: at which sum a probe picture should tell
        self._in_vain = 0
        self._proven: deque[ProvenReply] = deque(maxlen=16)
        # replies that look like another format, also when asked again, by format
        self._odd: dict[str, int] = {}

    # One reply

    def judge(self, boxes: Sequence[SeenBox], sent: Sent) -> JudgedReply:
        """How likely a reply's numbers are in each format, given the boxes before it."""
        boxes = boxes[:MOST_BOXES]
        largest = largest_of(boxes)
        of_phrases = list(indices_by_phrase(boxes).values())
        expected = [self._statistics.expected_of(head_word(box.phrase)) for box in boxes]
        meanings = [self.asked.of(box, sent) for box in boxes]
        as_asked = self._likelihoods(meanings, expected)
        anywhere = [self._statistics.log_likelihood_anywhere(m.box) + m.log_scale for m in meanings]
        ratios: dict[str, float] = {}
        for name, reading in self._others.items():
            if boxes and reading.may_hold(largest, sent):
                likelihoods = self._likelihoods_in(reading, boxes, sent, expected)
                ratios[name] = _ratio(of_phrases, likelihoods, as_asked)
        unknown = _ratio(of_phrases, anywhere, as_asked)
        likeliest = max(ratios, key=lambda name: ratios[name], default=None)
        return JudgedReply(boxes, sent, meanings, ratios, unknown, likeliest)

    def _likelihoods(self, meanings: Sequence[Meaning], expected: Sequence[Figures]) -> list[float]:
        """How likely each box's numbers are, given what it means and what is expected of it."""
        likelihoods = []
        for meaning, figures in zip(meanings, expected, strict=True):
            of_box = self._statistics.log_likelihood(meaning.box, figures)
            likelihoods.append(of_box + meaning.log_scale)
        return likelihoods

    def _likelihoods_in(
        self, reading: Reading, boxes: Sequence[SeenBox], sent: Sent, expected: Sequence[Figures]
    ) -> list[float]:
        """How likely each box's numbers are in another format than the one asked for."""
        likelihoods = []
        for box, figures in zip(boxes, expected, strict=True):
            _, shape, log_scale = reading.figures_of(box, sent)
            likelihoods.append(self._statistics.log_likelihood(shape, figures) + log_scale)
        return likelihoods

    def is_doubtful(self, reply: JudgedReply) -> bool:
        """Whether to ask again.

        It is where the reply is likelier in another format, or may be in one that others were
        proven to be in. Where many were asked again in vain, things are not as they usually are,
        and it takes more.
        """
        in_vain = max(0.0, self._in_vain - IN_VAIN * self.replies)
        if reply.ratio >= SHOWS + math.log1p(in_vain):
            return True
        if not self._proven:  # as in nearly every run
            return False
        proven = Counter(reply.proof.format for reply in self._recently_proven())
        among = min(self.replies, RECENT_REPLIES)
        return any(
            count / among * math.exp(reply.ratios.get(name, -math.inf)) >= CHANCE
            for name, count in proven.items()
        )

    # All replies

    def add(self, reply: JudgedReply) -> None:
        """Take in a reply, whatever becomes of it."""
        self.replies += 1
        orientation = orientation_of(reply.sent.size)
        for name, ratio in (*reply.ratios.items(), (UNKNOWN, reply.unknown)):
            self._sum(name, "all").add(ratio)
            self._sum(name, orientation).add(ratio)
        if len({box.phrase for box in reply.boxes}) > 1:
            if len({box.numbers for box in reply.boxes}) == 1:
                ratio = math.log(OFTEN_SAME / SELDOM_SAME)
            else:
                ratio = math.log((1 - OFTEN_SAME) / (1 - SELDOM_SAME))
            self._sum(SAME_BOX, "all").add(ratio)

    def _sum(self, name: str, orientation: str) -> Sum:
        """The sum of a format in pictures of an orientation, or of "all"."""
        ratios = self._sums.get((name, orientation))
        if ratios is None:
            ratios = Sum()
            self._sums[name, orientation] = ratios
        return ratios

    def learn(self, reply: JudgedReply) -> None:
        """Take in a reply whose boxes count, as an example of what boxes look like."""
        if not self.learns:
            return
        for box, meaning in zip(reply.boxes, reply.meanings, strict=True):
            self._statistics.learn(meaning.box, head_word(box.phrase))

    def unlearn(self) -> None:
        """Forget what boxes look like: no probe picture tells whether those so far are right."""
        self.learns = False
        self._statistics = BoxStatistics()

    @property
    def alarmed(self) -> str | None:
        """The orientation of pictures in which a probe picture should tell the format.

        The last replies are much likelier in another one there. "all" for pictures of any
        orientation, None for none.
        """
        alarmed = []
        for (name, orientation), ratios in self._sums.items():
            # No alarm is set below ALARM, and hardly a sum is above it: this is asked several
            # times a reply, of some twenty sums.
            if ratios.total > ALARM and ratios.total > self._alarm_of(name):
                alarmed.append((ratios.total, orientation))
        if not alarmed:
            return None
        of_one_orientation = [entry for entry in alarmed if entry[1] != "all"]
        _, orientation = max(of_one_orientation or alarmed)
        return orientation

    def _alarm_of(self, name: str) -> float:
        return self._alarm.get(name, ALARM)

    @property
    def overwhelming(self) -> str | None:
        """The format for which so much speaks that it takes no probe picture.

        SAME_BOX for a model that sees no picture; None where not enough speaks for any.
        """
        ahead: dict[str, float] = {}
        highest = 0.0
        for (name, _), ratios in self._sums.items():
            if ratios.total > ALONE and ratios.total > self._alarm_of(name):
                highest = max(highest, ratios.total)
                ahead[name] = max(ratios.unbounded, ahead.get(name, ratios.unbounded))
        names = sorted(ahead, key=lambda name: ahead[name], reverse=True)
        if not names:
            return None
        is_clear = len(names) == 1 or ahead[names[0]] - ahead[names[1]] >= CLEARLY
        return names[0] if is_clear or highest >= 2 * ALONE else None

    def withdraw(self, orientations: Collection[str]) -> None:
        """Probe pictures of these orientations have shown that the format is right.

        What spoke against it counts no longer, and it takes more to alarm the next time.
        """
        for (name, orientation), ratios in self._sums.items():
            if orientation == "all" or orientation in orientations:
                if ratios.total > self._alarm_of(name):
                    self._alarm[name] = ratios.total + MORE
                ratios.forget()

    # Two replies to one question

    def compare(self, first: JudgedReply, second: JudgedReply) -> str | None:
        """The format in which the first of two replies to one question proves to be, or None."""
        proof = proof_of(first, second, self.asked, self._others.values())
        if proof is None:
            return None
        self._proven.append(ProvenReply(proof, self.replies))
        return proof.format

    def count_in_vain(self, first: JudgedReply, second: JudgedReply) -> None:
        """Take in that asking again proved nothing.

        Where both replies look like another format, and say the same, that is odd.
        """
        self._in_vain += 1
        name = second.likeliest
        if name is None or second.ratio < SHOWS:
            return
        if says_the_same(first, second, self.asked):
            self._odd[name] = self._odd.get(name, 0) + 1

    @property
    def mixed_with(self) -> str | None:
        """The format that more replies were proven to be in than chance or a slip explains."""
        recent = self._recently_proven()
        for name in dict.fromkeys(proven.proof.format for proven in recent):
            ratios = [proven.proof.ratio for proven in recent if proven.proof.format == name]
            if sum(ratios) >= BEYOND_CHANCE and (len(ratios) > 1 or self.replies <= FIRST_REPLIES):
                return name
        return None

    @property
    def proven(self) -> int:
        """How many of the last replies were proven to be in another format."""
        return len(self._recently_proven())

    def _recently_proven(self) -> list[ProvenReply]:
        return [proven for proven in self._proven if self.replies - proven.number <= RECENT_REPLIES]

    @property
    def often_odd(self) -> str | None:
        """The format that too many replies look like, also when they are asked again."""
        for name, count in self._odd.items():
            if count >= LEAST_ODD and count > ODD_SHARE * self.replies:
                return name
        return None

    def odd(self, name: str) -> int:
        """How many replies looked like a format, also when they were asked again."""
        return self._odd.get(name, 0)


def _ratio(
    of_phrases: Sequence[Sequence[int]], likelihoods: Sequence[float], as_asked: Sequence[float]
) -> float:
    """The log-likelihood ratio of a reply, its boxes given by phrase.

    Boxes of one phrase are alike and say little more than one of them does: their mean counts.
    """
    total = 0.0
    for indices in of_phrases:
        ratio = 0.0
        for index in indices:
            ratio += likelihoods[index] - as_asked[index]
        total += ratio / len(indices)
    return total

"""Whether replies are in the format asked for: each by itself, all together, and two replies to one
question.
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
ODD_SHARE, LEAST_ODD = 0.05, 8

UNKNOWN = "a format that isn't known"
SAME_BOX = "one box for different phrases"
# share of replies with nothing but one box: of a model that sees none, of others
OFTEN_SAME, SELDOM_SAME = 0.9, 0.15


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
        self.unbounded = self.unbounded + ratio if self.total else 0.0


class ProvenReply(NamedTuple):
    """A reply that a second one proved to be in another format, and how many replies had come until
    then.
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
        self._others = {other.name: other for other in other_readings(asked)}
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
        largest, of_phrase = largest_of(boxes), _places_by_phrase(boxes)
        expected = [self._statistics.expected_of(head_word(box.phrase)) for box in boxes]
        meanings = [self.asked.of(box, sent) for box in boxes]
        usual = [
            self._likelihood(meaning, figures)
            for meaning, figures in zip(meanings, expected, strict=True)
        ]
        anywhere = [self._statistics.log_likelihood_anywhere(m.box) + m.log_scale for m in meanings]
        ratios: dict[str, float] = {}
        for name, other in self._others.items():
            if boxes and other.may_hold(largest, sent):
                read_so = [
                    self._likelihood(other.of(box, sent), figures)
                    for box, figures in zip(boxes, expected, strict=True)
                ]
                ratios[name] = _ratio(of_phrase, read_so, usual)
        likeliest = max(ratios, key=lambda name: ratios[name], default=None)
        return JudgedReply(
            boxes, sent, meanings, ratios, _ratio(of_phrase, anywhere, usual), likeliest
        )

    def _likelihood(self, meaning: Meaning, expected: Figures) -> float:
        return self._statistics.log_likelihood(meaning.box, expected) + meaning.log_scale

    def is_doubtful(self, reply: JudgedReply) -> bool:
        """Whether to ask again: it is likelier in another format, or may be in one that others were
        proven to be in.

        Where many were asked again in vain, things are not as they usually are, and it takes more.
        """
        in_vain = max(0.0, self._in_vain - IN_VAIN * self.replies)
        if reply.ratio >= SHOWS + math.log1p(in_vain):
            return True
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
            for of in ("all", orientation):
                self._sum(name, of).add(ratio)
        if len({box.phrase for box in reply.boxes}) > 1:
            same = len({box.numbers for box in reply.boxes}) == 1
            ratio = (
                math.log(OFTEN_SAME / SELDOM_SAME)
                if same
                else math.log((1 - OFTEN_SAME) / (1 - SELDOM_SAME))
            )
            self._sum(SAME_BOX, "all").add(ratio)

    def _sum(self, name: str, of: str) -> Sum:
        found = self._sums.get((name, of))
        if found is None:
            found = self._sums[name, of] = Sum()
        return found

    def learn(self, reply: JudgedReply) -> None:
        """Take in a reply whose boxes count, as an example of what boxes look like."""
        if not self.learns:
            return
        for box, meaning in zip(reply.boxes, reply.meanings, strict=True):
            self._statistics.learn(meaning.box, head_word(box.phrase))

    def unlearn(self) -> None:
        """Probe pictures tell nothing: the boxes so far may be wrong, and say nothing of what boxes
        look like.
        """
        self.learns = False
        self._statistics = BoxStatistics()

    @property
    def alarmed(self) -> str | None:
        """Where the last replies are so much likelier in another format that a probe picture should
        tell: in pictures of which orientation, "all" for any; None for nowhere.
        """
        alarmed = [
            (found.total, of)
            for (name, of), found in self._sums.items()
            if found.total > self._alarm_of(name)
        ]
        own = [(total, of) for total, of in alarmed if of != "all"]
        return max(own or alarmed)[1] if alarmed else None

    def _alarm_of(self, name: str) -> float:
        return self._alarm.get(name, ALARM)

    @property
    def overwhelming(self) -> str | None:
        """The format for which so much speaks that it takes no probe picture; SAME_BOX for a model
        that sees none.
        """
        ahead: dict[str, float] = {}
        highest = 0.0
        for (name, _), found in self._sums.items():
            if found.total > max(ALONE, self._alarm_of(name)):
                highest = max(highest, found.total)
                ahead[name] = max(found.unbounded, ahead.get(name, found.unbounded))
        names = sorted(ahead, key=lambda name: ahead[name], reverse=True)
        if not names:
            return None
        is_clear = len(names) == 1 or ahead[names[0]] - ahead[names[1]] >= CLEARLY
        return names[0] if is_clear or highest >= 2 * ALONE else None

    def withdraw(self, orientations: Collection[str]) -> None:
        """Probe pictures of these orientations have shown that the format is right.

        What spoke against it counts no longer, and it takes more to alarm the next time.
        """
        for (name, of), found in self._sums.items():
            if of == "all" or of in orientations:
                if found.total > self._alarm_of(name):
                    self._alarm[name] = found.total + MORE
                found.total = found.unbounded = 0.0

    # Two replies to one question

    def compare(self, first: JudgedReply, second: JudgedReply) -> str | None:
        """The format in which the first of two replies to one question was written, where that is
        proven; else None.
        """
        proof = proof_of(first, second, self.asked, self._others.values())
        if proof is None:
            return None
        self._proven.append(ProvenReply(proof, self.replies))
        return proof.format

    def count_in_vain(self, first: JudgedReply, second: JudgedReply) -> None:
        """Asking again proved nothing; if both replies say the same, and look like another format,
        that is odd.
        """
        self._in_vain += 1
        if (
            second.likeliest is not None
            and second.ratio >= SHOWS
            and says_the_same(first, second, self.asked)
        ):
            self._odd[second.likeliest] = self._odd.get(second.likeliest, 0) + 1

    @property
    def mixed_with(self) -> str | None:
        """The format that some of the replies are in: more were proven to be than chance or a slip
        explains.
        """
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


def _places_by_phrase(boxes: Sequence[SeenBox]) -> list[list[int]]:
    places: dict[str, list[int]] = {}
    for place, box in enumerate(boxes):
        places.setdefault(box.phrase, []).append(place)
    return list(places.values())


def _ratio(
    of_phrase: Sequence[Sequence[int]], likelihoods: Sequence[float], usual: Sequence[float]
) -> float:
    """The log-likelihood ratio of a reply: boxes of one phrase are alike, and say little more than
    one of them does.
    """
    return sum(
        sum([likelihoods[i] - usual[i] for i in places]) / len(places) for places in of_phrase
    )

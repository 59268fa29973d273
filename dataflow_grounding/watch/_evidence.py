"""Whether replies are in the format that was asked for, judged by their numbers alone: `Evidence`.

Three things are judged, each by log-likelihood ratios of other formats to the one asked for:

- One reply. A box read in the wrong format lies where boxes of its thing seldom do, so that the
  ratio is high.
- All replies. Their ratios are added up in cumulative sums (E. S. Page, Continuous inspection
  schemes, Biometrika 41, 1954), which rise where replies change to another format.
- Two replies to one question; see `_second_reply.py`.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.english.heads import head_word
from dataflow_grounding.watch._box_statistics import BoxStatistics, Figures
from dataflow_grounding.watch._probe_sizes import orientation_of
from dataflow_grounding.watch._readings import (
    FormatReading,
    JudgedReply,
    Meaning,
    SeenBox,
    Sent,
    indices_by_phrase,
    largest_of,
    other_readings,
)

if TYPE_CHECKING:
    from dataflow_grounding.watch._second_reply import Proof

# Log-likelihood ratios of one reply: how much likelier its numbers are in another format than in
# the one that was asked for. A ratio of 3 says that they are 20 times as likely.
SHOWS = 3.0  # from here on the question is asked again
SURELY = 6.0  # from here on it is asked a third time, if the second reply says the same
LIKELIER = 1.0  # from here on it is asked again at the run's end, as far as requests are to spare
# A question is also asked again if its reply is, with this chance, in a format that other replies
# were proven to be in.
CHANCE = 0.01
# This share of questions may be asked again in vain; with more, a higher ratio is needed.
IN_VAIN = 0.03
MOST_BOXES = 64  # of a reply that are looked at

# Sums of these ratios over successive replies.
ALARM = 7.0  # from here on a probe picture has to tell
MORE = 3.0  # by this much the sum must grow after a probe picture that showed nothing
# From here on a run is stopped in which no probe picture can tell. Of two formats that come so far,
# one must be ahead by CLEARLY, or have come twice as far.
ALONE = 25.0
CLEARLY = 3.0
MOST_OF_ONE = 3.0  # one reply adds or takes no more

# Replies that a second reply to the same question proved to be in another format.
BEYOND_CHANCE = 10.5  # the sum of the proofs' ratios that chance doesn't explain
FIRST_REPLIES = 200  # among these, one proven reply is more than a slip
RECENT_REPLIES = 400  # among these, two are
# Replies that look like another format, and say the same when asked again, are too many from this
# number on, if they are more than this share of all.
LEAST_ODD = 8
ODD_SHARE = 0.05

UNKNOWN = "a format that isn't known"
SAME_BOX = "one box for different phrases"
# How often replies have one and the same box for different phrases: those of a model that sees no
# picture, and others.
OFTEN_SAME = 0.9
SELDOM_SAME = 0.15


class Sum:
    """A cumulative sum of successive replies' log-likelihood ratios, which is never below zero.

    One reply adds or takes a bounded amount, so that no single one raises an alarm.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.unbounded = 0.0
        """The sum as it would be if one reply could add any amount: tells like formats apart."""

    def add(self, ratio: float) -> None:
        """Add the log-likelihood ratio of the next reply; the sum starts anew where it is 0."""
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
        proof: The format, and how clearly it is proven.
        number: How many replies the run had until then.
    """

    proof: "Proof"
    number: int


class Evidence:
    """What a run's replies say for other formats than the one that was asked for.

    Args:
        asked: The format that was asked for.
        learns: Whether the run's boxes are examples of what boxes look like. Without probe
            pictures, nothing tells that they are right: then all are compared with pictures in
            general.

    Attributes:
        replies: How many replies were added.
    """

    def __init__(self, asked: BoxFormat, *, learns: bool = True) -> None:
        self.asked = FormatReading(asked)
        self.learns = learns
        self.replies = 0
        self._statistics = BoxStatistics()
        self._others = {reading.name: reading for reading in other_readings(asked)}
        self._sums: dict[tuple[str, str], Sum] = {}  # by format, and orientation or "all"
        self._alarm: dict[str, float] = {}  # by format: at which sum a probe picture should tell
        self._in_vain = 0  # questions that were asked again, which proved nothing
        self._proven: deque[ProvenReply] = deque(maxlen=16)
        # By format: how many replies look like it, also when they are asked again.
        self._odd: dict[str, int] = {}

    # One reply

    def judge(self, boxes: Sequence[SeenBox], sent: Sent) -> JudgedReply:
        """Judge how likely a reply's numbers are in each format, given the boxes learnt so far.

        Only the first MOST_BOXES boxes are looked at. Formats in whose range the numbers aren't
        have no ratio. `sent` is the picture as it was sent. Nothing is added to the evidence.
        """
        boxes = boxes[:MOST_BOXES]
        largest = largest_of(boxes)
        of_phrases = list(indices_by_phrase(boxes).values())
        expected = [self._statistics.expected_of(head_word(box.phrase)) for box in boxes]
        meanings = [self.asked.meaning_of(box, sent) for box in boxes]
        as_asked = self._likelihoods(meanings, expected)
        anywhere = []
        for meaning in meanings:
            of_box = self._statistics.log_likelihood_anywhere(meaning.box)
            anywhere.append(of_box + meaning.log_scale)
        ratios: dict[str, float] = {}
        for name, reading in self._others.items():
            if boxes and reading.may_hold(largest, sent):
                likelihoods = self._likelihoods_in(reading, boxes, sent, expected)
                ratios[name] = _ratio(of_phrases, likelihoods, as_asked)
        unknown = _ratio(of_phrases, anywhere, as_asked)
        likeliest = max(ratios, key=lambda name: ratios[name], default=None)
        return JudgedReply(boxes, sent, meanings, ratios, unknown, likeliest)

    def _likelihoods(self, meanings: Sequence[Meaning], expected: Sequence[Figures]) -> list[float]:
        """Return the log-likelihood of each box's numbers, by its meaning and what is expected."""
        likelihoods = []
        for meaning, figures in zip(meanings, expected, strict=True):
            of_box = self._statistics.log_likelihood(meaning.box, figures)
            likelihoods.append(of_box + meaning.log_scale)
        return likelihoods

    def _likelihoods_in(
        self,
        reading: FormatReading,
        boxes: Sequence[SeenBox],
        sent: Sent,
        expected: Sequence[Figures],
    ) -> list[float]:
        """Return the log-likelihood of each box's numbers, read in another format."""
        likelihoods = []
        for box, figures in zip(boxes, expected, strict=True):
            _, shape, log_scale = reading.figures_of(box, sent)
            likelihoods.append(self._statistics.log_likelihood(shape, figures) + log_scale)
        return likelihoods

    def is_doubtful(self, reply: JudgedReply) -> bool:
        """Whether a question should be asked again, as this reply may be in another format.

        It should where the reply is clearly likelier in another one, or may be in one that other
        replies were proven to be in. Where many were asked again in vain, the pictures are unlike
        what is expected, and it takes more.
        """
        too_many_in_vain = max(0.0, self._in_vain - IN_VAIN * self.replies)
        if reply.ratio >= SHOWS + math.log1p(too_many_in_vain):
            return True
        if not self._proven:  # as in nearly every run
            return False
        proven = Counter(proven.proof.format for proven in self._recently_proven())
        recent = min(self.replies, RECENT_REPLIES)
        for name, count in proven.items():
            how_common = count / recent
            how_much_likelier = math.exp(reply.ratios.get(name, -math.inf))
            if how_common * how_much_likelier >= CHANCE:
                return True
        return False

    # All replies

    def add(self, reply: JudgedReply) -> None:
        """Add a reply to the sums of all formats, whatever becomes of it.

        One with boxes for several phrases also counts for or against a model that sees no picture
        (SAME_BOX), by whether all its boxes are the same.
        """
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
        """Return the sum of a format in pictures of an orientation, or of "all"."""
        ratios = self._sums.get((name, orientation))
        if ratios is None:
            ratios = Sum()
            self._sums[name, orientation] = ratios
        return ratios

    def learn(self, reply: JudgedReply) -> None:
        """Add the boxes of a reply that is taken for right to what boxes look like."""
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
        """The orientation in which the last replies are much likelier in another format.

        A probe picture of it should then tell. Of several, it is that of the highest sum; "all" is
        for all pictures together, where it is so of no single orientation. None where it is so of
        none.
        """
        alarmed = []
        for (name, orientation), ratios in self._sums.items():
            # The first comparison saves looking up the alarm, which is never below ALARM: this is
            # asked several times for each reply, of some twenty sums, of which hardly any is above.
            if ratios.total > ALARM and ratios.total > self._alarm_of(name):
                alarmed.append((ratios.total, orientation))
        if not alarmed:
            return None
        of_one_orientation = [entry for entry in alarmed if entry[1] != "all"]
        _, orientation = max(of_one_orientation or alarmed)
        return orientation

    def _alarm_of(self, name: str) -> float:
        """Return the sum from which on a probe picture should tell of a format."""
        return self._alarm.get(name, ALARM)

    @property
    def overwhelming(self) -> str | None:
        """The format for which the replies speak so clearly that no probe picture has to tell.

        Of several formats whose sums are above ALONE, it is the one with the highest unbounded sum,
        if that is CLEARLY the highest, or any bounded sum is twice ALONE. It may be UNKNOWN, or
        SAME_BOX for a model that sees no picture; None where nothing is so clear.
        """
        unbounded: dict[str, float] = {}  # by format: its highest sum, of those above ALONE
        highest = 0.0
        for (name, _), ratios in self._sums.items():
            if ratios.total > ALONE and ratios.total > self._alarm_of(name):
                highest = max(highest, ratios.total)
                unbounded[name] = max(ratios.unbounded, unbounded.get(name, ratios.unbounded))
        likeliest_first = sorted(unbounded, key=lambda name: unbounded[name], reverse=True)
        if not likeliest_first:
            return None
        likeliest, *others = likeliest_first
        is_clear = not others or unbounded[likeliest] - unbounded[others[0]] >= CLEARLY
        if is_clear or highest >= 2 * ALONE:
            return likeliest
        return None

    def withdraw(self, orientations: Collection[str]) -> None:
        """Forget what spoke against the format in pictures of these orientations, and in all.

        Probe pictures have shown that it is right there. A format that raised an alarm takes a
        higher sum for the next one.
        """
        for (name, orientation), ratios in self._sums.items():
            if orientation == "all" or orientation in orientations:
                if ratios.total > self._alarm_of(name):
                    self._alarm[name] = ratios.total + MORE
                ratios.forget()

    # Two replies to one question

    def compare(self, first: JudgedReply, second: JudgedReply) -> str | None:
        """Return the format that the first of two replies to one question is proven to be in.

        The second reply proves it; the proof is remembered. None where there is none.
        """
        from dataflow_grounding.watch._second_reply import proof_of  # few replies are doubted

        proof = proof_of(first, second, self.asked, self._others.values())
        if proof is None:
            return None
        self._proven.append(ProvenReply(proof, self.replies))
        return proof.format

    def count_in_vain(self, first: JudgedReply, second: JudgedReply) -> None:
        """Count that a question was asked again, and that proved nothing.

        Where the second reply looks like another format, and the first one has its boxes in the
        same places, it is counted as odd besides.
        """
        self._in_vain += 1
        name = second.likeliest
        if name is None or second.ratio < SHOWS:
            return
        from dataflow_grounding.watch._second_reply import says_the_same  # as in `compare`

        if says_the_same(first, second, self.asked):
            self._odd[name] = self._odd.get(name, 0) + 1

    @property
    def mixed_with(self) -> str | None:
        """The format that more replies were proven to be in than chance or a slip explains.

        One proof is enough while the run has no more than FIRST_REPLIES, else two of one format
        among the last RECENT_REPLIES, if they are clear enough together. None without such a
        format.
        """
        recent = self._recently_proven()
        for name in dict.fromkeys(proven.proof.format for proven in recent):
            ratios = [proven.proof.ratio for proven in recent if proven.proof.format == name]
            if sum(ratios) >= BEYOND_CHANCE and (len(ratios) > 1 or self.replies <= FIRST_REPLIES):
                return name
        return None

    @property
    def proven(self) -> int:
        """How many of the last RECENT_REPLIES were proven to be in another format."""
        return len(self._recently_proven())

    def _recently_proven(self) -> list[ProvenReply]:
        """Return the proven replies among the last RECENT_REPLIES."""
        return [proven for proven in self._proven if self.replies - proven.number <= RECENT_REPLIES]

    @property
    def often_odd(self) -> str | None:
        """The format that too many replies look like, also when asked again; None for none."""
        for name, count in self._odd.items():
            if count >= LEAST_ODD and count > ODD_SHARE * self.replies:
                return name
        return None

    def odd(self, name: str) -> int:
        """Return how many replies looked like a format, also when they were asked again."""
        return self._odd.get(name, 0)


def _ratio(
    of_phrases: Sequence[Sequence[int]], likelihoods: Sequence[float], as_asked: Sequence[float]
) -> float:
    """Return the log-likelihood ratio of a reply: the sum over phrases of their boxes' mean.

    Boxes of one phrase are alike, so that they say little more than one of them does.

    Args:
        of_phrases: For each phrase, the indices of its boxes.
        likelihoods: For each box, the log-likelihood in another format.
        as_asked: For each box, the log-likelihood in the format that was asked for.
    """
    total = 0.0
    for indices in of_phrases:
        ratio = 0.0
        for index in indices:
            ratio += likelihoods[index] - as_asked[index]
        total += ratio / len(indices)
    return total

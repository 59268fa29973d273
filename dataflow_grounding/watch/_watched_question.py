"""One question about a picture, and the replies to it.

A doubtful reply is asked again, and the second one decides.
"""

from collections.abc import Callable, Mapping, Sequence

from dataflow_grounding._util.errors import SuspectReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.replies.finding import parse_reply
from dataflow_grounding.watch._evidence import SHOWS, Evidence
from dataflow_grounding.watch._readings import SeenBox, Sent
from dataflow_grounding.watch._second_reply import JudgedReply

# a stored reply that is so much less likely in any other format was never asked again
NEARLY = -3.0


class WatchedQuestion:
    """What the replies to one question say of their format.

    Args:
        evidence: That of the run.
        asked: The format that was asked for.
        sent: The picture as it is sent.
        phrases: What is asked for, in order.
        most_tries: How often it is asked at most; 0 where a doubtful reply is never asked again.
        trusts_stored: Whether somebody has vouched for replies that are stored already.
    """

    def __init__(
        self,
        evidence: Evidence,
        asked: BoxFormat,
        sent: Sent,
        phrases: Sequence[str],
        *,
        most_tries: int,
        trusts_stored: bool,
    ) -> None:
        self._evidence = evidence
        self._asked = asked
        self._sent = sent
        self._phrases: Mapping[int, str] = dict(enumerate(phrases, 1))
        self._most_tries = most_tries
        self._trusts_stored = trusts_stored
        self.tries = 0
        # Set where the next reply comes from the store: whether the store holds a later one to the
        # same question, which is what a reply that was refused leaves behind.
        self._was_asked_again: Callable[[], bool] | None = None
        self.undoubted: JudgedReply | None = None
        """A first reply, sent in this run, that nothing spoke against."""
        # The first reply, where it looked like another format: the next one decides between them.
        self._refused: JudgedReply | None = None
        self.last: JudgedReply | None = None
        """The reply that came last, where it could be read."""
        self.proven: str | None = None
        """The format that an earlier reply was in, as a later one proves."""
        self.odd: str | None = None
        """The format that a reply looks like though it was asked again."""

    def stored(self, was_asked_again: Callable[[], bool]) -> None:
        """The next reply comes from the store, which may hold a later one to the same question."""
        self._was_asked_again = was_asked_again

    def look(self, reply: str) -> None:
        """Judge a reply, before it is read. Raises SuspectReply where it should be asked again."""
        was_asked_again = self._was_asked_again
        self._was_asked_again = None
        self.tries += 1
        judged = self.judged(reply)
        if judged is None:
            return
        first = self._refused
        self._refused = None
        self.last = judged
        if was_asked_again is not None and self._trusts_stored and self._most_tries:
            self._replay(first, judged, was_asked_again)
            return
        self._evidence.add(judged)
        if first is not None:
            self._decide(first, judged)
        elif self._is_doubtful(judged, was_asked_again):
            if self.tries < self._most_tries:
                self._refuse(judged)
            self.odd = judged.likeliest
        self.undoubted = None
        if self.odd is None:
            self._evidence.learn(judged)
            if first is None and was_asked_again is None:
                self.undoubted = judged

    def _replay(
        self, first: JudgedReply | None, judged: JudgedReply, was_asked_again: Callable[[], bool]
    ) -> None:
        """Take a stored reply that was vouched for: it was counted, and settled, when it came."""
        if first is None and judged.ratio > NEARLY and was_asked_again():
            self._refuse(judged)
        self._evidence.learn(judged)

    def _refuse(self, judged: JudgedReply) -> None:
        self._refused = judged
        raise SuspectReply(
            f"the numbers look like {judged.likeliest}, where {self._asked.name} was asked for."
        )

    def learn(self) -> None:
        """The last reply counts, odd as it is."""
        if self.last is not None:
            self._evidence.learn(self.last)

    def refused(self) -> None:
        """The last reply can't be read as asked: the next one may show why."""
        self._refused = self.last

    def _is_doubtful(self, judged: JudgedReply, was_asked_again: Callable[[], bool] | None) -> bool:
        if not self._most_tries:
            return False
        if was_asked_again is not None and judged.ratio > NEARLY and was_asked_again():
            return True  # it was doubtful when it came
        return self._evidence.is_doubtful(judged)

    def _decide(self, first: JudgedReply, second: JudgedReply) -> None:
        self.odd = None
        self.proven = self._evidence.compare(first, second)
        if self.proven is None:
            self._evidence.count_in_vain(first, second)
            if second.ratio >= SHOWS:
                self.odd = second.likeliest

    def judged(self, reply: str) -> JudgedReply | None:
        """A reply's boxes and how likely they are; None where it can't be read."""
        try:
            marks = parse_reply(reply, self._asked.key)
        except UnreadableReply:
            return None
        boxes = []
        for mark in marks.boxes:
            # Special tokens say by themselves what their numbers mean; an answer that was taken
            # back says nothing.
            if mark.answer == marks.answer and len(mark.numbers) == 4 and mark.family is None:
                labels = mark.details.labels
                phrase = self._phrases.get(mark.details.id or 0)
                if not phrase:
                    phrase = labels[0] if labels else ""
                boxes.append(SeenBox(box_of(mark.numbers), mark.order, phrase))
        return self._evidence.judge(boxes, self._sent)

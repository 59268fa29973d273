"""One question about a picture, and the replies to it: `WatchedQuestion`.

Each reply is judged before it is read. A doubtful one is refused, by SuspectReply, so that the
question is asked again; the second reply then decides what the first one was.
"""

from collections.abc import Callable, Mapping, Sequence

from dataflow_grounding._util.errors import SuspectReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.replies.reader import parse_reply
from dataflow_grounding.watch._evidence import SHOWS, Evidence
from dataflow_grounding.watch._readings import JudgedReply, SeenBox, Sent

# The log-likelihood ratio below which a stored reply can't have been doubtful when it came, so that
# the store needn't be searched for a later reply.
NEARLY = -3.0


class WatchedQuestion:
    """What the replies to one question say of their format.

    Args:
        evidence: What the run's replies say of their format so far.
        asked: The format that was asked for.
        sent: The picture as it is sent.
        phrases: The phrases that boxes are asked for, in order.
        most_tries: How often the question is asked at the most; 0 where a doubtful reply is never
            asked again.
        trusts_stored: Whether a check has vouched for the replies that are stored already.

    Attributes:
        tries: How many replies were looked at.
        undoubted: A first reply, sent in this run, that nothing spoke against.
        last: The reply that came last, where it could be read.
        proven: The format that an earlier reply was in, as a later one proves.
        odd: The format that a reply looks like though it was asked again, or can't be.
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
        # The first reply, where it looked like another format: the next one decides between them.
        self._refused: JudgedReply | None = None
        self.last: JudgedReply | None = None
        self.proven: str | None = None
        self.odd: str | None = None

    def stored(self, was_asked_again: Callable[[], bool]) -> None:
        """Note that the next reply comes from the store.

        `was_asked_again` tells whether the store holds a later reply to the same question.
        """
        self._was_asked_again = was_asked_again

    def look(self, reply: str) -> None:
        """Judge a reply, before it is read.

        A first one that is doubtful is refused, or is `odd` where no try is left; the next one
        decides what it was. A reply that isn't odd is learnt from. A stored one that a check has
        vouched for is not judged again, and one that can't be read only counts as a try.

        Raises:
            SuspectReply: The question should be asked again.
        """
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
            self._take_vouched(first, judged, was_asked_again)
            return
        self._evidence.add(judged)
        if first is not None:
            self._decide(first, judged)
        elif self._is_doubtful(judged, was_asked_again):
            if self.tries < self._most_tries:
                raise self._refusal_of(judged)
            self.odd = judged.likeliest
        self.undoubted = None
        if self.odd is None:
            self._evidence.learn(judged)
            if first is None and was_asked_again is None:
                self.undoubted = judged

    def _take_vouched(
        self, first: JudgedReply | None, judged: JudgedReply, was_asked_again: Callable[[], bool]
    ) -> None:
        """Learn from a stored reply that a check has vouched for.

        An earlier run counted and judged it already, so it isn't judged again. Where that run asked
        the question again, the later reply is the one that counted: SuspectReply is raised for the
        first, so that the later one is read from the store.
        """
        was_doubtful = first is None and judged.ratio > NEARLY and was_asked_again()
        if was_doubtful:
            raise self._refusal_of(judged)
        self._evidence.learn(judged)

    def _refusal_of(self, judged: JudgedReply) -> SuspectReply:
        """Remember a reply as refused, and return the error that has its question asked again."""
        self._refused = judged
        return SuspectReply(
            f"the numbers look like {judged.likeliest}, where {self._asked.name} was asked for."
        )

    def learn(self) -> None:
        """Learn from the last reply, odd as it is, as pictures of the run may be like that."""
        if self.last is not None:
            self._evidence.learn(self.last)

    def refused(self) -> None:
        """Note that the last reply can't be read as asked: the next one is compared with it."""
        self._refused = self.last

    def _is_doubtful(self, judged: JudgedReply, was_asked_again: Callable[[], bool] | None) -> bool:
        """Whether a first reply is doubtful now, or, if it is stored, was asked again when it came.

        False where doubtful replies are never asked again.
        """
        if not self._most_tries:
            return False
        if was_asked_again is not None and judged.ratio > NEARLY and was_asked_again():
            return True  # it was doubtful when it came
        return self._evidence.is_doubtful(judged)

    def _decide(self, first: JudgedReply, second: JudgedReply) -> None:
        """Decide by the second reply whether the first was in another format (`proven`).

        Where that isn't proven, and the second looks like another format as well, it is `odd`.
        """
        self.odd = None
        self.proven = self._evidence.compare(first, second)
        if self.proven is None:
            self._evidence.count_in_vain(first, second)
            if second.ratio >= SHOWS:
                self.odd = second.likeliest

    def judged(self, reply: str) -> JudgedReply | None:
        """Return a reply's boxes with how likely they are in each format; None if unreadable.

        Only boxes with four numbers, and without special tokens, count. A box belongs to the phrase
        of its id, else to its label, else to "".
        """
        try:
            parsed = parse_reply(reply, self._asked, self._phrases, in_lines=True)
        except UnreadableReply:
            return None
        boxes = []
        for box in parsed.boxes:
            # special tokens say by themselves what their numbers mean
            if len(box.numbers) == 4 and box.family is None:
                phrase = self._phrases.get(box.id or 0) or box.label or ""
                boxes.append(SeenBox(box_of(box.numbers), box.order, phrase))
        return self._evidence.judge(boxes, self._sent)

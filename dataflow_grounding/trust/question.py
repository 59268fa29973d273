"""One question about a picture, as a run's watch follows it.

A reply whose numbers are likelier in another format than asked is doubtful (`reply_judge.py`): the
question is asked again, and the second reply is compared with the first. The engine calls `before`
and `stored`, and `read` for each reply; the watch then looks at what the Question has noted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dataflow_grounding._util.errors import SuspectReply, UnreadableReply
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies.reader import parse_reply
from dataflow_grounding.tasks.request import ReadReply
from dataflow_grounding.trust.format_readings import SeenBox, Sent
from dataflow_grounding.trust.kinds import orientation_of
from dataflow_grounding.trust.reply_judge import JudgedReply

if TYPE_CHECKING:
    from dataflow_grounding.trust.run_watch import RunWatch


class Question:
    """One question about a picture: when it is sent, and what its replies say."""

    def __init__(
        self,
        watch: "RunWatch",
        ask: Ask,
        image: Image,
        phrases: Sequence[str],
        read: Callable[[str], ReadReply[Any]],
    ) -> None:
        self.ask = ask
        self.image = image
        self._watch = watch
        self._are_checks_made = watch.most_tries > 0  # 0 is for a run without checks
        self._phrase_by_id: Mapping[int, str] = dict(enumerate(phrases, 1))
        self._read = read

        # What the replies say
        self.judged: JudgedReply | None = None  # the last reply that could be read
        self.proven: str | None = None  # the format of the first reply, as the second one proves
        # The format that the last reply looks like, where it isn't asked for again.
        self.looks_like: str | None = None
        self._has_boxes = False  # whether the last reply has any, for any phrase
        # the last reply, where it was refused: the next one is compared with it
        self._refused: JudgedReply | None = None

        # Where they come from
        self._was_sent = False
        self._tries = 0
        # Set if the next reply comes from the store. It says whether that reply was refused when it
        # came, so that the store holds a later reply to the same question.
        self._was_asked_again: Callable[[], bool] | None = None

    async def before(self) -> None:
        """Wait until requests may be sent; the engine then asks `may_send`, and sends.

        The run's first request doesn't wait: it is sent together with the first check.
        """
        if not self._watch.sends_ahead:
            await self._watch.ready(self.ask, self.image)
        self._was_sent = True

    def stored(self, was_asked_again: Callable[[], bool]) -> None:
        """Note that the next reply comes from the store."""
        self._was_asked_again = was_asked_again

    def read(self, reply: str) -> ReadReply[Any]:
        """Judge a reply and read it.

        Raises SuspectReply if it should be asked for again, and what the request's own reader
        raises.
        """
        watch = self._watch
        if self._tries == 0:  # a question has one answer, however often it is asked
            watch.known.answers += 1
        self._tries += 1
        if watch.suspicion is None:
            watch.open.add(self.ask, was_sent=self._was_sent)
            self._look(reply)
        try:
            read_reply = self._read(reply)
        except UnreadableReply:  # it is asked for again, and compared with the next reply
            self._refused = self.judged
            raise
        # A stored reply is open, too, if no check of an earlier run has vouched for it.
        is_open = self._was_sent or watch.open.vouching.relied_on
        if is_open and watch.suspicion is None and not self._has_boxes:
            watch.open.add_empty(self.ask)
        return read_reply

    def _look(self, reply: str) -> None:
        """Set `judged` and, where a reply may be in another format, `proven` or `looks_like`.

        A first reply that may be is refused by raising SuspectReply: the question is asked again,
        and the second reply tells in which format the first one was.
        """
        was_asked_again = self._was_asked_again
        self._was_asked_again = None  # what it tells holds for this reply alone
        boxes = self._boxes_in(reply)
        self._has_boxes = bool(boxes)
        if boxes is None:
            return
        width, height = self.image.shown_size  # with its padding
        across, down = self.image.size[0] / width, self.image.size[1] / height
        judged = self._watch.judge.judge(boxes, Sent(self.image.sent_size, across, down))
        self.judged = judged
        is_vouched_for = False  # by a check of an earlier run
        if was_asked_again is not None and self._are_checks_made:
            # An earlier run found this stored reply doubtful, and asked again. It is refused now,
            # too, so that the second stored reply is read next.
            if self._refused is None and was_asked_again():
                self._refuse(judged)
            is_vouched_for = not self._watch.open.vouching.relied_on
        if not is_vouched_for:
            self._note_if_odd(judged, is_stored=was_asked_again is not None)
        # Boxes are learnt from only where checks can tell whether they are right, and the first one
        # was made.
        if self._watch.can_tell(self.image) and not self._watch.awaits_check:
            self._watch.judge.learn(judged)

    def _note_if_odd(self, judged: JudgedReply, *, is_stored: bool) -> None:
        judge = self._watch.judge
        judge.add(judged, orientation_of(self.image.sent_size))
        first = self._refused
        if first is None:
            looks_odd = self._are_checks_made and judge.is_doubtful(judged)
            if looks_odd and self._tries < self._watch.most_tries:
                self._refuse(judged)
        else:
            # This reply is the second: it is compared, and a further one counts as a first one.
            self._refused = None
            self.proven = judge.compare(first, judged)
            # A stored second reply was asked for by a run that knew more of what boxes look like.
            # If it says the same as the first one, it is as odd as that one was.
            looks_odd = judge.shows_other(judged) or (
                is_stored and judge.says_the_same(first, judged)
            )
        if looks_odd and self.proven is None:
            self.looks_like = str(judged.likeliest)
            judge.odd_twice += 1

    def _refuse(self, judged: JudgedReply) -> NoReturn:
        self._refused = judged
        asked = self._watch.asked.name
        raise SuspectReply(
            f"the numbers look like {judged.likeliest}, where {asked} was asked for."
        )

    def _boxes_in(self, reply: str) -> list[SeenBox] | None:
        """The boxes of a reply, each with the phrase of its id, else its label, else ""."""
        try:
            parsed = parse_reply(reply, self._watch.asked, self._phrase_by_id, in_lines=True)
        except UnreadableReply:
            return None
        boxes = []
        for box in parsed.boxes:
            # Boxes in a family's special tokens are left out: these name their format.
            if len(box.numbers) == 4 and box.family is None:
                phrase_of_id = self._phrase_by_id.get(box.id) if box.id is not None else None
                phrase = phrase_of_id or box.label or ""
                boxes.append(SeenBox(box_of(box.numbers), box.order, phrase))
        return boxes

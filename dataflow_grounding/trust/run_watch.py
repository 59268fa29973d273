"""The watch of one run: whether its boxes are in the format that was asked for.

Two things tell. `Checks` ask for rectangles in copies of the run's own pictures, before its first
request, now and then, and at its end. `ReplyJudge` judges each reply. Where boxes are in another
format, the run is stopped, or warns, and what came since the last good check is marked.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import (
    RecordError,
    SuspectBoxes,
    SuspectReply,
    UnreadableReply,
)
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.engine.plan import SUSPECT, Ask
from dataflow_grounding.engine.summary import PROBE_AS_ASKED
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies.reader import parse_reply
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.trust.box_shapes import SeenBox, Sent
from dataflow_grounding.trust.box_watch import BoxWatch
from dataflow_grounding.trust.checks import Checks
from dataflow_grounding.trust.choice import (
    ANSWERS_IN_SEVERAL,
    SEE_WHETHER_SEVERAL,
    advice_to_calibrate,
)
from dataflow_grounding.trust.reach import PER_MILLE, Reach, orientation_of
from dataflow_grounding.trust.reply_judge import (
    JudgedReply,
    ReplyJudge,
)

if TYPE_CHECKING:
    from dataflow_grounding.trust.one_check import Outcome

T = TypeVar("T")
MOST_UNVOUCHED = 5000  # records that are remembered, so that memory is bounded without any check
# Replies that look like another format, also when they are asked for again, are too many from this
# number on, if they are more than this share: a server then answers the run's questions otherwise
# than those about rectangles.
LEAST_SAME, SAME_SHARE = 8, 0.05
SAME_AT_ONCE = 2  # such replies since the last check, from which another is made at once


class Unvouched:
    """The records that asked for boxes since the last good check, MOST_UNVOUCHED at most.

    They are marked in the output, should these boxes turn out to be suspect. A record is known by
    its `Ask`, the means by which it sends requests.
    """

    def __init__(self) -> None:
        # For each record, whether any of its requests was sent in this run.
        self._asked: dict[Ask, bool] = {}

    def add(self, ask: Ask, *, was_sent: bool) -> None:
        """Remember a record that got boxes.

        `was_sent` says whether they were sent for in this run, rather than read from the store.
        """
        self._asked[ask] = was_sent or self._asked.get(ask, False)
        if len(self._asked) > MOST_UNVOUCHED:
            del self._asked[next(iter(self._asked))]

    def all(self) -> list[Ask]:
        """Return all records, in the order in which they first asked."""
        return list(self._asked)

    def sent(self) -> list[Ask]:
        """Return the records that got boxes from the endpoint in this run, in the same order."""
        return [ask for ask, was_sent in self._asked.items() if was_sent]

    def vouch(self, asked: Collection[Ask]) -> None:
        """Forget these records, as a good check vouches for their boxes."""
        for ask in asked:
            self._asked.pop(ask, None)


class Question:
    """One question about a picture, and what its replies say of their format.

    Args:
        judge: What judges replies.
        asked: The format that was asked for.
        sent: The picture as it is sent.
        phrases: The phrases that boxes are asked for, in order.
        most_tries: How often the question is asked at the most; 0 where a doubtful reply is never
            asked again.
        trusts_stored: Whether a check has vouched for the replies that are stored already.
        is_example: Whether its boxes are examples of right ones, because a check can tell.

    Attributes:
        tries: How many replies were looked at.
        proven: The format that the first reply was in, as the second one proves.
        same: The format that replies look like though the question was asked again, or can't be.
    """

    def __init__(
        self,
        judge: ReplyJudge,
        asked: BoxFormat,
        sent: Sent,
        phrases: Sequence[str],
        *,
        most_tries: int,
        trusts_stored: bool,
        is_example: bool,
    ) -> None:
        self._judge = judge
        self._asked = asked
        self._sent = sent
        self._phrases: Mapping[int, str] = dict(enumerate(phrases, 1))
        self._most_tries = most_tries
        self._trusts_stored = trusts_stored
        self._is_example = is_example
        # Set where the next reply comes from the store: whether the store holds a later one to the
        # same question, which is what a reply that was refused leaves behind.
        self._was_asked_again: Callable[[], bool] | None = None
        self._first: JudgedReply | None = None  # where it looked like another format
        self.judged: JudgedReply | None = None  # the last one that could be read
        self.tries = 0
        self.proven: str | None = None
        self.same: str | None = None

    def stored(self, was_asked_again: Callable[[], bool]) -> None:
        """Note that the next reply comes from the store.

        `was_asked_again` tells whether the store holds a later reply to the same question.
        """
        self._was_asked_again = was_asked_again

    def look(self, reply: str) -> None:
        """Judge a reply, before it is read.

        A first one that may be in another format is refused; the next one decides what it was. A
        stored one that a check has vouched for is not judged again.

        Raises:
            SuspectReply: The question should be asked again.
        """
        was_asked_again = self._was_asked_again
        self._was_asked_again = None
        self.tries += 1
        judged = self._judged(reply)
        if judged is None:
            return
        self.judged = judged
        first = self._first
        if was_asked_again is not None and self._most_tries:
            if first is None and was_asked_again():  # an earlier run found it doubtful
                self._refuse(judged)
            if self._trusts_stored:
                self._learn(judged)
                return
        self._judge.add(judged)
        if first is not None:
            self._first = None
            self.proven = self._judge.compare(first, judged)
            if self.proven is None and self._judge.shows_other(judged):
                self.same = judged.likeliest
        elif self._most_tries and self._judge.is_doubtful(judged):
            if self.tries < self._most_tries:
                self._refuse(judged)
            self.same = judged.likeliest
        self._learn(judged)

    def _learn(self, judged: JudgedReply) -> None:
        if self._is_example:
            self._judge.learn(judged)

    def _refuse(self, judged: JudgedReply) -> None:
        """Raise SuspectReply, and compare the next reply with this one."""
        self._first = judged
        raise SuspectReply(
            f"the numbers look like {judged.likeliest}, where {self._asked.name} was asked for."
        )

    def refused(self) -> None:
        """Note that the last reply can't be read as asked: the next one is compared with it."""
        self._first = self.judged

    def _judged(self, reply: str) -> JudgedReply | None:
        """Return a reply's boxes, judged; None if it can't be read.

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
        return self._judge.judge(boxes, self._sent)


class RunWatch(BoxWatch):
    """A BoxWatch at work.

    Args:
        settings: The BoxWatch that began.
        checks: The run's checks.
        most_tries: How often a question is asked at most. Without checks, doubtful replies are
            never asked again.
        calibrated: Whether the format has been found out by calibrating.
    """

    def __init__(
        self, settings: BoxWatch, checks: Checks, most_tries: int, *, calibrated: bool
    ) -> None:
        super().__init__(settings.on_suspect, settings.every)
        self.poor = settings.poor
        self._checks = checks
        self._most_tries = most_tries if checks.wanted else 0
        self._calibrated = calibrated
        self._stop_message = ""  # once nothing more may be sent
        self._is_over = False
        self._unvouched = Unvouched()
        self._checking = asyncio.Lock()  # held by who makes a check
        # Records with replies that look like another format twice, by the orientation of their
        # pictures: until a check has shown that such pictures are answered as asked.
        self._same: dict[str, list[tuple[Ask, Image]]] = {}
        self._open = asyncio.Event()  # set unless the first check is under way
        self._open.set()

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says: BoxWatch's, and what the probe pictures prove."""
        return {**super().facts(), "box_checks": self._checks.known.seen.facts()}

    # One question

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """Ask as BoxWatch.ask does: sent when it may be, and the replies judged.

        Once boxes are suspect, requests pass without being judged; they do after the run's end.
        Raises what the request fails with, SuspectBoxes and RunStopped.
        """
        if self._is_over:
            return await ask(request)
        checks = self._checks
        self._check_stopped()
        if self.suspicion is not None:
            return await ask(request.put_so(of=checks.of))
        if checks.add_picture(ask, image):
            await self._ready(ask, image)
        shown = image.shown_size
        question = Question(
            checks.judge,
            checks.asked,
            Sent(image.sent_size, image.size[0] / shown[0], image.size[1] / shown[1]),
            phrases,
            most_tries=self._most_tries,
            trusts_stored=checks.trusts_stored,
            is_example=checks.can_tell(image),
        )
        try:
            answer = await ask(self._watched(request, ask, image, question))
        except RecordError:  # boxes in another format are often no boxes at all
            await self._settle(question, ask, image)
            await self._check_if_due(ask, image)
            raise
        await self._settle(question, ask, image)
        await self._check_if_due(ask, image)
        return answer

    def _watched(
        self, request: Request[T], ask: Ask, image: Image, question: Question
    ) -> Request[T]:
        """Return the request with what the engine has to call: before sending, and for each reply.

        It isn't sent before it may be, and each of its replies is judged before it is read.
        """
        was_sent = False

        async def before() -> None:
            """Wait until requests may be sent; the engine then asks `may_send`, and sends."""
            nonlocal was_sent
            await self._ready(ask, image)
            was_sent = True

        def may_send() -> bool:
            """Return whether the request may be sent this instant, and count it if so."""
            if self._stop_message or not self._open.is_set():
                return False
            self._checks.sending()
            return True

        def read(reply: str) -> ReadReply[T]:
            """Judge a reply and read it.

            Raises SuspectReply if it is to be asked for again, and what the request's own reader
            raises.
            """
            if question.tries == 0:
                self._checks.known.answers += 1
            if self.suspicion is None:
                self._unvouched.add(ask, was_sent=was_sent)
                question.look(reply)  # raises SuspectReply
            try:
                return request.read(reply)
            except UnreadableReply:
                question.refused()
                raise

        return request.put_so(
            read=read,
            before=before,
            may_send=may_send,
            stored=question.stored,
            of=self._checks.of,
        )

    async def _settle(self, question: Question, ask: Ask, image: Image) -> None:
        """Act on what the replies to a question have shown. Raises SuspectBoxes, RunStopped.

        A reply that is proven to be in another format, or several that say the same twice, call
        for a check with this very picture.
        """
        if question.judged is not None:
            orientation = orientation_of(image.sent_size)
            reach = self._checks.known.reach.setdefault(orientation, Reach())
            view = self._checks.judge.views(question.judged.sent).asked
            size = image.sent_size if self._checks.asked.scale != "px" else (PER_MILLE, PER_MILLE)
            reach.add(question.judged.corners, (size[0] / view.width, size[1] / view.height))
            if await self._told_of_reach(reach, ask, image):
                return
        if self.suspicion is not None:
            return
        judge = self._checks.judge
        if question.proven is not None:
            ask.note("mixed_formats", f"a reply came in {question.proven} and, again, as asked")
            if judge.mixed is not None:
                self._suspect_mixture(judge.mixed)
            else:
                await self._check_now(ask, image, question.proven)
        elif question.same is not None:
            judge.same += 1
            ask.note("odd_boxes", f"boxes look like {question.same}, also when asked for again")
            alike = self._same.setdefault(orientation_of(image.sent_size), [])
            alike.append((ask, image))
            if len(alike) >= SAME_AT_ONCE:
                await self._check_now(ask, image, question.same)
            if (
                self.suspicion is None
                and judge.same >= LEAST_SAME
                and judge.same > SAME_SHARE * judge.replies
            ):
                self._checks.set_aside_unvouched()
                self._suspect(
                    f"the boxes don't look like {judge.asked.name}: {judge.same} of"
                    f" {judge.replies} replies look like {question.same}, also when they are asked"
                    f" for again. {question.same} would fit; look at some of them, and if they are"
                    f" right: {setting('vlm.on_suspect_boxes', 'warn')}",
                    self._unvouched.all(),
                )
        others_told = self._checks.possible
        alone = judge.alone(orientation_of(image.sent_size), others_told=others_told)
        if self.suspicion is None and alone is not None and not self._checks.can_tell(image):
            self._suspect_all(
                f"the boxes don't look like {judge.asked.name}: the last replies are far likelier"
                f" in another format. {alone} would fit: {_advice()}"
            )

    async def _told_of_reach(self, reach: Reach, ask: Ask, image: Image) -> bool:
        """Say that boxes reach strangely little, once, and check at once; return whether it was."""
        short = reach.short()
        if short is None or reach.told:
            return False
        reach.told = True
        ask.note("short_reach", short)
        say(f"Note: {short}. Look at some, if their things are not all there.")
        await self._check_now(ask, image)
        return True

    # Checks

    async def _ready(self, ask: Ask, image: Image) -> None:
        """Wait until requests may be sent.

        It waits for the first check, which the first comer makes, and for any in doubt. A picture
        of a new kind is checked before it is asked about. Raises SuspectBoxes, RunStopped.
        """
        checks = self._checks
        if checks.possible and not checks.begun and not self._checking.locked():
            await self._check_first(ask, image)
        elif checks.is_new(image):
            async with self._checking:
                if checks.is_new(image) and self.suspicion is None:
                    await self._check(ask, image)
        else:
            await self._check_if_due(ask, image)
        await self._open.wait()
        self._check_stopped()

    async def _check_first(self, ask: Ask, image: Image) -> None:
        """Make the run's first check, unless one that another run made meanwhile will do."""
        self._open.clear()
        try:
            async with self._checking, self._checks.alone():
                if not self._checks.begun_by_others():
                    await self._check(ask, image)
        finally:
            self._open.set()

    async def _check_if_due(self, ask: Ask, image: Image | None, *, last: bool = False) -> None:
        """Check if enough was sent, if the replies call for it, or if the run ends so.

        Raises SuspectBoxes, RunStopped.
        """
        if self._checking.locked() or not self._is_due(image, last=last):
            return
        async with self._checks.alone():
            # another run's check may have been enough for this one, or another question's
            if self._is_due(image, last=last):
                await self._check_now(ask, image, self._alarm(image))

    def _is_due(self, image: Image | None, *, last: bool) -> bool:
        """Whether a check is due; `last` says that the run has asked all its questions."""
        checks = self._checks
        if checks.is_due or (last and checks.is_due_at_the_end):
            return True
        return checks.begun and self._alarm(image) is not None

    def _alarm(self, image: Image | None) -> str | None:
        """Return the format that replies about pictures of an image's orientation look like.

        None for none, and where no probe picture can tell.
        """
        if image is None or not self._checks.can_tell(image):
            return None
        return self._checks.judge.alarm(orientation_of(image.sent_size))

    async def _check_now(
        self, ask: Ask, image: Image | None, looks_like: str | None = None
    ) -> None:
        """Check with a picture, unless a check is under way or can't tell anything.

        `looks_like` is the format that replies look like, where they call for the check.
        """
        if self._checking.locked() or self.suspicion is not None or not self._checks.possible:
            return
        async with self._checking:
            await self._check(ask, image, looks_like)

    async def _check(self, ask: Ask, image: Image | None, looks_like: str | None = None) -> None:
        """Send probe pictures, and go on as they tell. Raises SuspectBoxes, RunStopped.

        If they miss, boxes are reported as wrong. If they can't tell, the replies alone decide. If
        they fit, and nothing speaks of several formats, the records so far are vouched for.
        """
        before = self._unvouched.all()
        outcome = await self._checks.check(ask, image, looks_like)
        if self.suspicion is not None:  # replies have proven it meanwhile
            return
        if outcome.odd and outcome.kind != "misses":
            ask.note("mixed_formats", "a probe picture was answered in another format")
        if outcome.kind == "misses":
            self._suspect(self._missed(outcome), self._unvouched.sent())
            return
        for _ in range(outcome.as_asked):
            ask.note(PROBE_AS_ASKED)
        if outcome.why:
            ask.note("unanswered_check", outcome.why)
        if outcome.kind == "fits" and not self._checks.is_mixed:
            self._unvouched.vouch(before)
            for orientation, tells in outcome.tells.items():
                if tells:
                    self._same.pop(orientation, None)

    def _missed(self, outcome: "Outcome") -> str:
        """Return the message about probe pictures that miss: what was seen, and what to do."""
        message = f"the boxes don't look like {self._checks.asked.name}: {outcome.why}"
        if outcome.odd:
            return f"{message}. {ANSWERS_IN_SEVERAL}"
        if outcome.shapes_differ and (outcome.fitting or self._calibrated):
            remedy = f"{outcome.fitting} would fit these" if outcome.fitting else "No format does"
            return (
                f"{message}. {remedy}, where pictures of other shapes come as asked: leave pictures"
                f" like those out, or go on with {setting('vlm.on_suspect_boxes', 'warn')}"
            )
        if outcome.fitting:
            return f"{message}. {outcome.fitting} would fit: {_advice()}"
        return f"{message}. No plain format fits: {advice_to_calibrate()}"

    # What becomes of the run

    def _check_stopped(self) -> None:
        """Raises SuspectBoxes if the watch has stopped the run."""
        if self._stop_message:
            raise SuspectBoxes(self._stop_message)

    def _suspect_mixture(self, other_format: str) -> None:
        """Report that replies are proven to be in several formats; see `_suspect`."""
        judge = self._checks.judge
        self._checks.set_aside_unvouched()
        proven = f"{counted(len(judge.proven), 'reply')} of {judge.replies}"
        seen = f"{proven} came in {other_format} and, asked again, in {judge.asked.name} as asked"
        self._suspect(f"{seen}. {ANSWERS_IN_SEVERAL}", self._unvouched.all())

    def _suspect_all(self, message: str) -> None:
        """Report wrong boxes that make all unvouched records suspect; see `_suspect`."""
        if self._checks.known.unanswered:
            calibrate = advice_to_calibrate()
            for words in (f", or {calibrate}", f": {calibrate}"):
                message = message.replace(words, "")
            message = (
                f"{message}. The rectangles of probe pictures go unanswered, so that calibrating"
                f" can't help: compare some boxes with their pictures, state"
                f" {setting('vlm.box_format')}, or go on with"
                f" {setting('vlm.on_suspect_boxes', 'warn')}"
            )
        self._checks.mark_all_suspect()
        self._suspect(message, self._unvouched.all())

    def _suspect(self, message: str, records: Iterable[Ask]) -> None:
        """Report wrong boxes: stop the run, or warn and mark records.

        Args:
            message: What speaks against the boxes, for the user.
            records: The records that are marked.

        Raises:
            SuspectBoxes: The watch isn't set to warn only.
        """
        self.suspicion = message
        what_became = self._checks.forget_format()
        self._open.set()
        if self.on_suspect == "stop":
            self._stop_message = f"{message}. {what_became}"
            raise SuspectBoxes(self._stop_message)
        say(f"Warning: {message}.")
        for ask in records:
            ask.note(SUSPECT, message)

    async def conclude(self, ask: Ask) -> None:
        """Conclude as BoxWatch.conclude does, with a last check if one is due.

        Only the first call does anything. It also warns of what was odd, though the run's boxes are
        not suspect. Raises SuspectBoxes, RunStopped.
        """
        if self._is_over:  # once, whichever operator comes first
            return
        if not self._stop_message:
            await self._check_if_due(ask, None, last=True)
            for alike in list(self._same.values()):
                await self._check_now(ask, alike[-1][1])
        for alike in self._same.values():  # of which no check has told
            for one, _ in alike:
                one.note(SUSPECT, "two replies look like another format")
        self._checks.finish(vouched=self.suspicion is None)
        self._is_over = True
        if self.suspicion is not None:
            return
        asked = self._checks.asked.name
        odd = self._checks.known.seen.odd
        proven = self._checks.judge.proven
        if odd:
            say(
                f"Warning: a probe picture was answered in {odd[0]}, others in {asked} as asked."
                f" The endpoint may answer in more than one format: {SEE_WHETHER_SEVERAL} Look at"
                " some boxes."
            )
        elif proven:
            others = " and ".join(dict.fromkeys(proven))
            say(
                f"Warning: {counted(len(proven), 'reply')} came in {others} and, asked again, in"
                f" {asked} as asked. Others may not show it: look at some boxes."
            )


def _advice() -> str:
    return f"check {setting('vlm.box_format')}, or {advice_to_calibrate()}"

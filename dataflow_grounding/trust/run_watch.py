"""The watch of one run: whether its boxes are in the format that was asked for.

Two things tell. `Checks` ask for rectangles in copies of the run's own pictures, before its first
request, now and then, and at its end. `ReplyJudge` judges each reply. Where boxes are in another
format, the run is stopped, or warns, and what came since the last good check is marked.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import (
    RecordError,
    SuspectBoxes,
    SuspectReply,
    UnreadableReply,
)
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.engine.plan import SUSPECT, Ask
from dataflow_grounding.engine.summary import PROBE_AS_ASKED, PROBE_CLEARED
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies.reader import parse_reply
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.trust.box_watch import BoxWatch
from dataflow_grounding.trust.checks import Checks
from dataflow_grounding.trust.choice import (
    ANSWERS_IN_SEVERAL,
    SEE_WHETHER_SEVERAL,
    advice_to_calibrate,
)
from dataflow_grounding.trust.format_readings import SeenBox, Sent
from dataflow_grounding.trust.kinds import orientation_of
from dataflow_grounding.trust.reply_judge import JudgedReply
from dataflow_grounding.trust.seen_probes import NO_FORMAT

if TYPE_CHECKING:
    from dataflow_grounding.trust.one_check import Outcome

T = TypeVar("T")
MOST_UNVOUCHED = 5000  # records that are remembered, so that memory is bounded without any check
# Replies that look like another format, also when they are asked for again, are too many from this
# number on, if they are more than this share: a server then answers the run's questions otherwise
# than those about rectangles. Of 100 runs that are right, noise to 6%, none was stopped so.
LEAST_SAME, SAME_SHARE = 8, 0.05
# Pictures in a row of which the replies have the same numbers, from which on that is told: a model
# may not see its pictures.
EQUAL_IN_A_ROW = 10
SAME_AT_ONCE = 2  # such replies since the last check, from which another is made at once


class Question:
    """One question about a picture, as the engine asks it: when it is sent, and what replies say.

    Args:
        watch: The run's watch.
        ask: The means of its record to send requests.
        image: The picture.
        phrases: The phrases that boxes are asked for, in order.
        read: Reads a reply.

    Attributes:
        judged: The last reply that could be read.
        proven: The format that the first reply was in, as the second one proves.
        stays: Whether replies look like another format though the question was asked again, or
            can't be.
    """

    def __init__(
        self,
        watch: "RunWatch",
        ask: Ask,
        image: Image,
        phrases: Sequence[str],
        read: Callable[[str], ReadReply[Any]],
    ) -> None:
        self._watch = watch
        self._ask = ask
        self._image = image
        self._phrases: Mapping[int, str] = dict(enumerate(phrases, 1))
        self._read = read
        self._was_sent = False
        self._tries = 0
        # Set if the next reply comes from the store: whether the store holds a later reply to the
        # same question, because this one was refused.
        self._was_asked_again: Callable[[], bool] | None = None
        self._first: JudgedReply | None = None  # where it looked like another format
        self.judged: JudgedReply | None = None
        self.proven: str | None = None
        self.stays = False

    async def before(self) -> None:
        """Wait until requests may be sent; the engine then asks `may_send`, and sends."""
        await self._watch.ready(self._ask, self._image)
        self._was_sent = True

    def stored(self, was_asked_again: Callable[[], bool]) -> None:
        """Note that the next reply comes from the store.

        `was_asked_again` tells whether the store holds a later reply to the same question.
        """
        self._was_asked_again = was_asked_again

    def read(self, reply: str) -> ReadReply[Any]:
        """Judge a reply and read it.

        Raises SuspectReply if it should be asked for again, and what the request's own reader
        raises.
        """
        watch = self._watch
        if self._tries == 0:
            watch.checks.known.answers.count += 1
        self._tries += 1
        if watch.suspicion is None:
            watch.remember(self._ask, was_sent=self._was_sent)
            self._look(reply)
        try:
            return self._read(reply)
        except UnreadableReply:
            self._first = self.judged  # the next one is compared with it
            raise

    def _look(self, reply: str) -> None:
        # A first one that may be in another format is refused; the next one decides what it was. A
        # stored one that a check has vouched for is not judged again.
        was_asked_again = self._was_asked_again
        self._was_asked_again = None
        judged = self._judged(reply)
        if judged is None:
            return
        self.judged = judged
        judge = self._watch.checks.judge
        most_tries = self._watch.most_tries
        first = self._first
        if was_asked_again is not None and most_tries:
            if first is None and was_asked_again():  # an earlier run found it doubtful
                self._refuse(judged)
            if self._watch.checks.stored.are_trusted:
                self._learn(judged)
                return
        judge.add(judged, orientation_of(self._image.sent_size))
        if first is not None:
            self._first = None
            self.proven = judge.compare(first, judged)
            looks_odd = judge.shows_other(judged)
            if was_asked_again is not None:  # the run that asked knew more of what boxes look like
                looks_odd = looks_odd or judge.says_the_same(first, judged)
            self.stays = self.proven is None and looks_odd
        elif most_tries and judge.is_doubtful(judged):
            if self._tries < most_tries:
                self._refuse(judged)
            self.stays = True
        if self.stays:
            judge.same += 1
        self._learn(judged)

    def _learn(self, judged: JudgedReply) -> None:
        if self._watch.checks.can_tell(self._image):
            self._watch.checks.judge.learn(judged)

    def _refuse(self, judged: JudgedReply) -> None:
        self._first = judged
        asked = self._watch.checks.asked.name
        raise SuspectReply(
            f"the numbers look like {judged.likeliest}, where {asked} was asked for."
        )

    def _judged(self, reply: str) -> JudgedReply | None:
        # Only boxes with four numbers, and without special tokens, count. A box belongs to the
        # phrase of its id, else to its label, else to "".
        checks = self._watch.checks
        try:
            parsed = parse_reply(reply, checks.asked, self._phrases, in_lines=True)
        except UnreadableReply:
            return None
        boxes = []
        for box in parsed.boxes:
            # special tokens say by themselves what their numbers mean
            if len(box.numbers) == 4 and box.family is None:
                phrase = self._phrases.get(box.id or 0) or box.label or ""
                boxes.append(SeenBox(box_of(box.numbers), box.order, phrase))
        image = self._image
        shown = image.shown_size
        sent = Sent(image.sent_size, image.size[0] / shown[0], image.size[1] / shown[1])
        return checks.judge.judge(boxes, sent)


class RunWatch(BoxWatch):
    """A BoxWatch at work.

    Args:
        settings: The BoxWatch that began.
        checks: The run's checks.
        most_tries: How often a question is asked at most. Without checks, doubtful replies are
            never asked again.
        calibrated: Whether the format has been found out by calibrating.

    Attributes:
        checks: The run's checks.
        most_tries: How often a question is asked at most; 0 without checks.
    """

    def __init__(
        self, settings: BoxWatch, checks: Checks, most_tries: int, *, calibrated: bool
    ) -> None:
        super().__init__(settings.on_suspect, settings.every)
        self.poor = settings.poor
        self.checks = checks
        if self.on_suspect == "warn":
            # An earlier call has warned. Each further check would say the same, for four requests.
            self.suspicion = checks.known.lately_missed
        self._was_warned_of = self.suspicion is not None
        self.most_tries = most_tries if checks.wanted else 0
        self._calibrated = calibrated
        self._other_models: set[str] = set()  # that have answered in place of the one asked for
        self._stop_message = ""  # once nothing more may be sent
        self._is_over = False
        # The records that asked for boxes since the last good check, MOST_UNVOUCHED at most, and
        # whether any of their requests was sent in this run. They are marked in the output, should
        # these boxes turn out to be suspect. A record is known by its `Ask`.
        self._unvouched: dict[Ask, bool] = {}
        self._checking = asyncio.Lock()  # held by who makes a check
        self._first_check: asyncio.Event | None = None  # while it is under way
        # Records with replies that look like another format twice, by the orientation of their
        # pictures: until a check has shown that such pictures are answered as asked.
        self._same: dict[str, list[tuple[Ask, Image]]] = {}
        self._numbers: set[Bbox] = set()  # those of the last reply with boxes
        self._is_equal_told = False
        self._equal: set[str] = set()  # the pictures of which replies had these, one after another

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says: BoxWatch's, and what the probe pictures prove."""
        return {**super().facts(), "box_checks": self.checks.known.seen.facts()}

    # One question

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """Ask as BoxWatch.ask does: sent when it may be, and the replies judged.

        Once boxes are suspect, requests pass without being judged; they do after the run's end.
        Raises what the request fails with, SuspectBoxes and RunStopped.
        """
        if self._is_over:
            return await ask(request)
        checks = self.checks
        self._check_stopped()
        if self.suspicion is not None:
            if self._was_warned_of:
                ask.note(SUSPECT, self.suspicion)
            return await ask(request.replace(sending=replace(request.sending, of=checks.stored.of)))
        if checks.add_picture(ask, image):
            await self.ready(ask, image)
        question = Question(self, ask, image, phrases, request.read)
        sending = replace(
            request.sending,
            before=question.before,
            may_send=self._may_send,
            stored=question.stored,
            of=checks.stored.of,
            other_model=self._other_model,
        )
        watched = request.replace(read=question.read, sending=sending)
        try:
            answer = await ask(watched)
        except RecordError:  # boxes in another format are often no boxes at all
            await self._settle(question, ask, image)
            raise
        await self._settle(question, ask, image)
        return answer

    def remember(self, ask: Ask, *, was_sent: bool) -> None:
        """Remember a record that got boxes; `was_sent` says that this run sent for them."""
        self._unvouched[ask] = was_sent or self._unvouched.get(ask, False)
        if len(self._unvouched) > MOST_UNVOUCHED:
            del self._unvouched[next(iter(self._unvouched))]

    def _other_model(self, name: str) -> None:
        if name not in self._other_models:
            self._other_models.add(name)
            self.checks.want_another()

    def _may_send(self) -> bool:
        if self._stop_message or self._awaits_first:
            return False
        self.checks.sending()
        return True

    @property
    def _awaits_first(self) -> bool:
        return not self.checks.begun and self.suspicion is None and self.checks.possible

    async def _settle(self, question: Question, ask: Ask, image: Image) -> None:
        # A reply that is proven to be in another format, or several that say the same twice, call
        # for a check with this very picture.
        if self.suspicion is None and question.proven is not None:
            ask.note("mixed_formats", f"a reply came in {question.proven} and, again, as asked")
            mixed = self.checks.judge.mixed
            if mixed is not None:
                self._suspect_mixture(mixed)
            else:
                await self._check_now(ask, image, question.proven)
        elif self.suspicion is None and question.stays and question.judged is not None:
            await self._settle_same(ask, image, str(question.judged.likeliest))
        if question.judged is not None:
            self._tell_of_equal(ask, question.judged, image)
        await self._settle_alarm(ask, image)
        if self.checks.is_due:
            await self._check_if_due(ask, image)

    async def _settle_same(self, ask: Ask, image: Image, looks_like: str) -> None:
        judge = self.checks.judge
        ask.note("odd_boxes", f"boxes look like {looks_like}, also when asked for again")
        alike = self._same.setdefault(orientation_of(image.sent_size), [])
        alike.append((ask, image))
        if len(alike) >= SAME_AT_ONCE:
            await self._check_now(ask, image, looks_like)
        if self.suspicion is not None:
            return
        if judge.same >= LEAST_SAME and judge.same > SAME_SHARE * judge.replies:
            self.checks.stored.set_aside_unvouched()
            self._suspect(
                f"the boxes don't look like {self.checks.asked.name}: {judge.same} of"
                f" {judge.replies} replies look like {looks_like}, also when they are asked for"
                f" again. {looks_like} would fit; look at some of them, and if they are right:"
                f" {setting('vlm.on_suspect_boxes', 'warn')}",
                list(self._unvouched),
            )

    async def _settle_alarm(self, ask: Ask, image: Image) -> None:
        checks = self.checks
        orientation = orientation_of(image.sent_size)
        if self.suspicion is not None:
            return
        if checks.can_tell(image):
            looks_like = checks.judge.alarm(orientation)
            if looks_like is not None and checks.begun:
                await self._check_now(ask, image, looks_like)
        else:
            alone = checks.judge.alone(orientation, others_told=checks.possible)
            if alone is not None:
                self._suspect_all(
                    f"the boxes don't look like {checks.asked.name}: the last replies are far"
                    f" likelier in another format. {alone} would fit: {_advice()}"
                )
        if self.suspicion is None:
            self._tell_of_likelier(ask, checks.judge.certain(orientation))

    def _tell_of_equal(self, ask: Ask, judged: JudgedReply, image: Image) -> None:
        numbers = {box.numbers for box in judged.boxes}
        if not numbers:
            return
        if numbers != self._numbers:
            self._equal.clear()
        self._numbers = numbers
        before = len(self._equal)
        self._equal.add(image.path)
        if before < len(self._equal) == EQUAL_IN_A_ROW and not self._is_equal_told:
            self._is_equal_told = True
            what = f"the boxes of {EQUAL_IN_A_ROW} pictures in a row have the same numbers"
            ask.note("equal_boxes", what)
            say(f"Warning: {what}. See whether the model is shown the pictures.")

    def _tell_of_likelier(self, ask: Ask, likelier: str | None) -> None:
        if likelier is None:
            return
        what = f"the boxes of this run look like {likelier}, where {self.checks.asked.name} was"
        ask.note("likelier_format", f"{what} asked for")
        say(f"Note: {what} asked for. Look at some of them, if their pictures are not unusual.")

    # Checks

    async def ready(self, ask: Ask, image: Image) -> None:
        """Wait until requests may be sent.

        It waits for the first check, which the first comer makes. A picture of a new kind is
        checked before it is asked about. Raises SuspectBoxes, RunStopped.
        """
        checks = self.checks
        if self._awaits_first:
            await self._check_first(ask, image)
        if checks.is_new(image):
            async with self._checking:
                if checks.is_new(image) and self.suspicion is None:
                    await self._check(ask, image)
        elif checks.is_due:
            await self._check_if_due(ask, image)
        self._check_stopped()

    async def _check_first(self, ask: Ask, image: Image) -> None:
        if self._first_check is not None:
            await self._first_check.wait()
            return
        under_way = asyncio.Event()
        self._first_check = under_way
        try:
            # In this order, as in `_check_if_due`: otherwise each might wait for the other.
            async with self.checks.alone(), self._checking:
                # another run of this process may have made one meanwhile
                if not self.checks.begun_by_others():
                    await self._check(ask, image)
        finally:
            self._first_check = None
            under_way.set()

    async def _check_if_due(self, ask: Ask, image: Image | None, *, last: bool = False) -> None:
        # `last` says that the run has asked all its questions.
        checks = self.checks

        def is_due() -> bool:
            return checks.is_due or (last and checks.is_due_at_the_end)

        if self._checking.locked() or not is_due():
            return
        async with checks.alone():
            if is_due():  # another run's check may have been enough for this one
                await self._check_now(ask, image)

    async def _check_now(
        self, ask: Ask, image: Image | None, looks_like: str | None = None
    ) -> None:
        # `looks_like` is the format that replies look like, where they call for the check.
        if self._checking.locked() or self.suspicion is not None or not self.checks.possible:
            return
        checks_before = self.checks.known.checks
        async with self._checking:
            if self.checks.known.checks == checks_before:  # others waited for the lock, too
                await self._check(ask, image, looks_like)

    async def _check(self, ask: Ask, image: Image | None, looks_like: str | None = None) -> None:
        # If they miss, boxes are reported as wrong. If they can't tell, the replies alone decide.
        # If they fit, and nothing speaks of several formats, the records so far are vouched for.
        before = list(self._unvouched)
        outcome = await self.checks.check(ask, image, looks_like)
        if self.suspicion is not None:  # replies have proven it meanwhile
            return
        if outcome.odd and outcome.kind != "misses":
            ask.note("mixed_formats", "a probe picture was answered in another format")
        if outcome.kind == "misses":
            sent = [record for record, was_sent in self._unvouched.items() if was_sent]
            self._suspect(self._missed(outcome), sent)
            return
        for _ in range(outcome.as_asked):
            ask.note(PROBE_AS_ASKED)
        for _ in range(outcome.cleared):
            ask.note(PROBE_CLEARED)
        if outcome.why:
            ask.note("unanswered_check", outcome.why)
        if outcome.kind == "fits" and not self.checks.is_mixed:
            for record in before:
                self._unvouched.pop(record, None)
            for orientation, tells in outcome.tells.items():
                if tells:
                    self._same.pop(orientation, None)

    def _missed(self, outcome: "Outcome") -> str:
        message = f"the boxes don't look like {self.checks.asked.name}: {outcome.why}"
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
        if self._stop_message:
            raise SuspectBoxes(self._stop_message)

    def _suspect_mixture(self, other_format: str) -> None:
        judge = self.checks.judge
        self.checks.stored.set_aside_unvouched()
        proven = f"{counted(len(judge.proven), 'reply')} of {judge.replies}"
        seen = f"{proven} came in {other_format} and, asked again, in {judge.asked.name} as asked"
        self._suspect(f"{seen}. {ANSWERS_IN_SEVERAL}", list(self._unvouched))

    def _suspect_all(self, message: str) -> None:
        if self.checks.known.unanswered:
            calibrate = advice_to_calibrate()
            for words in (f", or {calibrate}", f": {calibrate}"):
                message = message.replace(words, "")
            message = (
                f"{message}. The rectangles of probe pictures go unanswered, so that calibrating"
                f" can't help: compare some boxes with their pictures, state"
                f" {setting('vlm.box_format')}, or go on with"
                f" {setting('vlm.on_suspect_boxes', 'warn')}"
            )
        self.checks.stored.mark_all_suspect()
        self._suspect(message, list(self._unvouched))

    def _suspect(self, message: str, records: Sequence[Ask]) -> None:
        self.suspicion = message
        what_became = self.checks.forget_format()
        if self.on_suspect == "stop":
            sentences = [message, what_became, self.checks.for_an_own_serving]
            self._stop_message = ". ".join(filter(None, sentences))
            raise SuspectBoxes(self._stop_message)
        say(f"Warning: {message}.")
        self.checks.known.miss(message)
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
        self.checks.finish(vouched=self.suspicion is None and not self._same)
        self._is_over = True
        if self.suspicion is not None:
            return
        asked = self.checks.asked.name
        seen = self.checks.known.seen
        proven = self.checks.judge.proven
        if seen.cleared:
            pictures = counted(seen.cleared, "probe picture")
            other = seen.odd[0] if seen.odd else NO_FORMAT
            was = "was" if seen.cleared == 1 else "were"
            say(
                f"Warning: {pictures} {was} answered in {other}, others in {asked} as asked."
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

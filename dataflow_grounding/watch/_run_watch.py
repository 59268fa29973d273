"""The watch of one run, at work: whether its boxes are in the format that was asked for.

Two things tell: probe pictures (`Probing`), and the replies themselves (`Evidence`). `RunWatch` is
always in one State. Around each request it waits until requests may be sent, has the replies
judged, checks the endpoint where that is due, and reports boxes that are in another format.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import Any, TypeVar

from dataflow_grounding._util.errors import RecordError, SuspectBoxes, UnreadableReply
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.engine.plan import SUSPECT, Ask
from dataflow_grounding.images.image import Image
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.watch import _findings as findings
from dataflow_grounding.watch._evidence import SURELY
from dataflow_grounding.watch._readings import JudgedReply, Sent
from dataflow_grounding.watch._taken_replies import TakenReplies, TakenReply
from dataflow_grounding.watch._watched_question import WatchedQuestion
from dataflow_grounding.watch.box_watch import BoxWatch
from dataflow_grounding.watch.probing import Probing

T = TypeVar("T")
MOST_UNVOUCHED = 5000  # records that are remembered, so that memory is bounded without any check


class State(Enum):
    """What the watch of a run knows, and what may be sent meanwhile.

    docs/calibration.md draws how one state leads to another.
    """

    UNPROBED = "nothing is known yet: nothing is sent before a probe picture is answered"
    TRUSTED = "boxes are in the format, as far as known"
    PROBING = "a probe picture is on its way, and requests go on"
    HOLDING = "a probe picture is on its way, and nothing else is sent before it is answered"
    BLIND = "there are no probe pictures, or they tell nothing: the replies alone are judged"
    SUSPECT = "boxes are in another format, and the run goes on with a warning"
    STOPPED = "boxes are in another format, and nothing more is sent"
    ENDED = "the run has ended: requests pass unwatched"


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


class RunWatch(BoxWatch):
    """A BoxWatch at work: always in one of the states of `State`.

    Args:
        settings: The BoxWatch that began.
        probing: The run's probe pictures.
        most_tries: How often a question is asked at most. Without checks, doubtful replies are
            never asked again.

    Attributes:
        state: What is known, and what may be sent.
    """

    def __init__(self, settings: BoxWatch, probing: Probing, most_tries: int) -> None:
        super().__init__(settings.on_suspect, settings.every)
        self.poor = settings.poor
        self._probing = probing
        self._most_tries = most_tries if probing.wanted else 0
        self._odd_probe: str | None = None
        self._slips: list[str] = []  # the formats that replies were proven to be in
        self._stop_message = ""
        self._unvouched = Unvouched()
        self._taken = TakenReplies()
        self._free = asyncio.Event()  # set unless HOLDING
        self._free.set()
        self._no_check = asyncio.Event()  # set unless HOLDING or PROBING
        self._no_check.set()
        self.state = self._at_rest()

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    def _at_rest(self) -> State:
        """Return the state without a probe picture on its way, or anything against the boxes.

        It is BLIND, TRUSTED or UNPROBED.
        """
        if not self._probing.possible:
            return State.BLIND
        return State.TRUSTED if self._probing.begun else State.UNPROBED

    # One question

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """Ask as BoxWatch.ask does: sent when it may be, and the replies judged.

        Once boxes are SUSPECT, requests pass without being judged; they do after the run's end.
        Raises whatever the request fails with, SuspectBoxes and RunStopped.
        """
        if self.state is State.ENDED:
            return await ask(request)
        if self.state is State.SUSPECT:
            return await ask(request.put_so(of=self._probing.of))
        self._check_stopped()
        if self._probing.add_picture(ask, image.sent_size):
            await self._ready(ask)
        shown = image.shown_size
        sent = Sent(image.sent_size, image.size[0] / shown[0], image.size[1] / shown[1])
        question = self._question(sent, phrases)
        try:
            answer = await ask(self._watched(request, ask, question))
        except RecordError:  # boxes in another format are often no boxes at all
            await self._make_due_checks(ask)
            raise
        await self._settle(question, ask, request, image.sent_size)
        if question.undoubted is not None and self._most_tries:
            self._taken.add(TakenReply(question.undoubted, question, ask, request))
        await self._make_due_checks(ask)
        return answer

    def _question(self, sent: Sent, phrases: Sequence[str]) -> WatchedQuestion:
        """Return a question whose replies are looked at."""
        return WatchedQuestion(
            self._probing.evidence,
            self._probing.asked,
            sent,
            phrases,
            most_tries=self._most_tries,
            trusts_stored=self._probing.trusts_stored,
        )

    def _watched(self, request: Request[T], ask: Ask, question: WatchedQuestion) -> Request[T]:
        """Return the request with what the engine has to call: before sending, and for each reply.

        It isn't sent before it may be, and each of its replies is judged before it is read.
        """
        was_sent = False

        async def before() -> None:
            """Wait until requests may be sent; the engine then asks `may_send`, and sends."""
            nonlocal was_sent
            await self._ready(ask)
            was_sent = True

        def may_send() -> bool:
            """Return whether the request may be sent this instant, and count it if so."""
            if self.state in (State.HOLDING, State.STOPPED):
                return False
            self._probing.sending()
            return True

        def read(reply: str) -> ReadReply[T]:
            """Judge a reply and read it.

            Raises SuspectReply if it is to be asked for again, and what the request's own reader
            raises.
            """
            if question.tries > 0:  # the record's answer was counted when it came first
                self._probing.known.extra += 1
            else:
                self._probing.known.answers += 1
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
            of=self._probing.of,
        )

    async def _settle(
        self, question: WatchedQuestion, ask: Ask, request: Request[T], size: Size
    ) -> None:
        """Act on what the replies to a question that was asked again have shown.

        Nothing is done for a question of which nothing is proven or odd, nor once boxes are known
        to be suspect.

        Args:
            question: The question, with what was seen of its replies.
            ask: The means of its record to send requests.
            request: The question as it is sent.
            size: The size in which its picture is sent.

        Raises:
            SuspectBoxes, RunStopped.
        """
        if self.suspicion is not None:
            return
        if question.proven is not None:
            self._settle_proof(question.proven, ask)
        elif question.odd is not None and question.last is not None:
            odd = TakenReply(question.last, question, ask, request)
            await self._settle_odd(odd, question.odd, size)

    def _settle_proof(self, proven: str, ask: Ask) -> None:
        """Act on the proof that a reply was in another format, `proven`: note it, review others.

        Where replies are in several formats by more than chance explains, the run is stopped or
        warned of, as `_suspect` does; raises SuspectBoxes where it is stopped.
        """
        ask.note("mixed_formats", f"a reply came in {proven} and, asked again, as asked")
        self._slips.append(proven)
        self._taken.call_for_review()
        mixed = self._probing.evidence.mixed_with
        if mixed is not None:
            self._suspect_mixture(mixed)

    async def _settle_odd(self, odd: TakenReply, looks_like: str, size: Size) -> None:
        """Act on boxes that look like another format, also when they were asked for again.

        Either the boxes are wrong, or the run's pictures really have boxes like that. A probe
        picture of the same size tells which. If none can, the record is marked as suspect. If it
        shows the format to be right, and the boxes are SURELY odd, the question is asked a third
        time. Where nothing is proven, the boxes are learnt from.

        Args:
            odd: The reply, with its question.
            looks_like: The format that it looks like.
            size: The size in which its picture is sent.

        Raises:
            SuspectBoxes, RunStopped.
        """
        ask = odd.ask
        ask.note("odd_boxes", f"boxes look like {looks_like}, also when they are asked for again")
        can_tell = await self._has_probe_of_size(size, ask)
        if self.suspicion is not None:  # the probe picture, or other replies meanwhile, proved it
            return
        evidence = self._probing.evidence
        if evidence.often_odd is not None:
            self._suspect_all(findings.often_odd(evidence, evidence.often_odd))
            return
        if not can_tell or self.state is State.BLIND:
            ask.note(SUSPECT, f"two replies look like {looks_like}, and no probe picture can tell")
            return
        if odd.judged.ratio >= SURELY:
            third_reply = await self._asked_afresh(odd)
            if third_reply is not None and self._is_proven_wrong(odd, third_reply):
                return
        odd.question.learn()  # the run's pictures have such boxes

    async def _has_probe_of_size(self, size: Size, ask: Ask) -> bool:
        """Send a probe picture of this size, and return False if it was sent in vain.

        It is sent only while boxes are TRUSTED, probe pictures are possible, and none of the size's
        orientation was answered lately: a check of other pictures tells nothing of this one. True
        where none is sent. Raises SuspectBoxes, RunStopped.
        """
        if not self._probing.possible or self._probing.stands_for(size):
            return True
        # All that wait for a check go on at once when it ends, and the first of them may begin
        # another check: hence a loop.
        while self.state in (State.HOLDING, State.PROBING):
            await self._no_check.wait()
        if self.state is not State.TRUSTED:
            return True
        await self._probe(ask, holding=True, of_size=size)
        return self._probing.stands_for(size)

    async def _review_taken(self, ask: Ask, *, last: bool) -> None:
        """Ask once more about replies that look like another format by now.

        At the end of a run (`last`) it asks about the likeliest besides, as far as the run has
        requests to spare. It ends once boxes are known to be suspect. Raises SuspectBoxes,
        RunStopped.
        """
        spare = self._probing.spare if last else 0
        for taken in await self._taken.doubtful(self._probing.evidence, spare):
            if self.suspicion is not None:  # proven by one of them, or by what came meanwhile
                return
            afresh = await self._asked_afresh(taken)
            if afresh is not None and not self._is_proven_wrong(taken, afresh):
                self._probing.evidence.count_in_vain(taken.judged, afresh)

    async def _asked_afresh(self, taken: TakenReply) -> JudgedReply | None:
        """Ask a question once more, and return the reply as it is judged.

        None where it fails or can't be read, and where boxes are known to be suspect by then.
        Raises RunStopped.
        """
        self._probing.known.extra += 1
        try:
            afresh, _ = await taken.ask.aside(taken.asked_afresh())
        except RecordError:
            return None
        return afresh if self.suspicion is None else None

    def _is_proven_wrong(self, taken: TakenReply, afresh: JudgedReply) -> bool:
        """Whether a reply `afresh` proves that one taken for right is in another format.

        The record is then marked, and `_settle_proof` acts on it. Raises SuspectBoxes.
        """
        proven = self._probing.evidence.compare(taken.judged, afresh)
        if proven is None:
            return False
        taken.ask.note(SUSPECT, f"boxes came in {proven} and, asked again, as asked")
        self._settle_proof(proven, taken.ask)
        return True

    # Probe pictures

    async def _ready(self, ask: Ask) -> None:
        """Wait until requests may be sent.

        It waits for the first check, which the first comer makes, and for any in doubt. Checks that
        are due are made before. Raises SuspectBoxes, RunStopped.
        """
        if self.state is State.UNPROBED:
            await self._probe_first(ask)
        else:
            await self._make_due_checks(ask)
        await self._free.wait()
        self._check_stopped()

    async def _make_due_checks(self, ask: Ask, *, last: bool = False) -> None:
        """Make the checks that are due by now: of the replies so far, and by probe pictures.

        In other states than BLIND and TRUSTED nothing is due: a check is under way, or it is known
        that boxes are wrong.

        Args:
            ask: The means of a record to send requests.
            last: Whether the run has asked all its questions.

        Raises:
            SuspectBoxes, RunStopped.
        """
        if self.state is State.BLIND:
            self._suspect_if_overwhelming()
            return
        if self.state is not State.TRUSTED:
            return
        if last or self._taken.is_due(self._probing.evidence.replies):
            await self._review_taken(ask, last=last)
            if self.state is not State.TRUSTED:
                # Boxes were proven wrong meanwhile, or another question has begun a check.
                return
        if not self._wants_check(last):
            return
        async with self._probing.alone():
            # another run's check may have been enough for this one, or another question's
            if self.state is State.TRUSTED and self._wants_check(last):
                # The orientation of the pictures whose replies look like another format, or "all".
                alarmed = self._probing.evidence.alarmed
                at_the_end = last and self._probing.due_at_the_end()
                await self._probe(
                    ask, holding=alarmed is not None, orientation=alarmed, last=at_the_end
                )

    def _wants_check(self, last: bool) -> bool:
        """Return whether a check by probe pictures is due, or called for by the replies.

        `last` says whether the run has asked all its questions.
        """
        if self._probing.evidence.alarmed or self._probing.due():
            return True
        return last and self._probing.due_at_the_end()

    async def _probe_first(self, ask: Ask) -> None:
        """Make the run's first check, unless one that another run made meanwhile will do.

        Raises SuspectBoxes, RunStopped.
        """
        self._enter(State.HOLDING)
        try:
            async with self._probing.alone():
                if not self._probing.begun_by_others():
                    await self._probe(ask, holding=True)
        finally:
            if self.state is State.HOLDING:
                self._enter(self._at_rest())

    async def _probe(
        self,
        ask: Ask,
        *,
        holding: bool,
        of_size: Size | None = None,
        orientation: str | None = None,
        last: bool = False,
    ) -> None:
        """Send probe pictures, and go on as they tell.

        If they miss, boxes are reported as wrong. If they can't tell, the replies alone decide. If
        they fit, and nothing speaks of several formats, the records so far are vouched for.

        Args:
            ask: The means of a record to send requests.
            holding: Whether nothing else is sent before they are answered.
            of_size: The size that a picture has to be of; None for the sizes that are next.
            orientation: The orientation that a picture has to be of; None or "all" for any.
            last: Whether this is the run's last check.

        Raises:
            SuspectBoxes, RunStopped.
        """
        before = self._unvouched.all()
        self._enter(State.HOLDING if holding else State.PROBING)
        try:
            verdict = await self._probing.check(
                ask, self._hold, of_size=of_size, orientation=orientation, last=last
            )
        finally:
            if self.state in (State.PROBING, State.HOLDING):
                self._enter(self._at_rest())
        if self.suspicion is not None:  # replies have proven it meanwhile
            return
        if verdict.odd and verdict.kind != "misses":
            self._odd_probe = verdict.odd
            ask.note("mixed_formats", f"a probe picture was clearly answered in {verdict.odd}")
        if verdict.kind == "misses":
            message = findings.missed_probe(
                verdict, self._probing.asked, calibrated=self._probing.calibrated
            )
            self._suspect(message, self._unvouched.sent())
            return
        if verdict.why:
            ask.note("unanswered_check", verdict.why)
        if verdict.kind == "silent":
            self._suspect_if_overwhelming()
        elif self._odd_probe is None and not self._probing.evidence.proven:
            self._unvouched.vouch(before)

    def _hold(self) -> None:
        """Let nothing else be sent until the present check ends, as a probe picture missed."""
        self._enter(State.HOLDING)

    def _enter(self, state: State) -> None:
        """Go into a state, and let those wait or go on who wait for `_free` or `_no_check`."""
        self.state = state
        if state is State.HOLDING:
            self._free.clear()
        else:
            self._free.set()
        if state in (State.HOLDING, State.PROBING):
            self._no_check.clear()
        else:
            self._no_check.set()

    # What becomes of the run

    def _check_stopped(self) -> None:
        """Raises SuspectBoxes if the watch has stopped the run."""
        if self.state is State.STOPPED:
            raise SuspectBoxes(self._stop_message)

    def _suspect_if_overwhelming(self) -> None:
        """Report another format by the replies alone, if they are clear enough; see `_suspect`.

        It is for runs in which no probe picture can tell. Raises SuspectBoxes.
        """
        likeliest = self._probing.evidence.overwhelming
        if likeliest is not None:
            self._suspect_all(findings.overwhelming(likeliest, self._probing.asked))

    def _suspect_mixture(self, other_format: str) -> None:
        """Report that replies are proven to be in several formats; see `_suspect`.

        Raises SuspectBoxes.
        """
        self._probing.set_aside_unvouched()
        self._suspect(findings.mixture(self._probing.evidence, other_format), self._unvouched.all())

    def _suspect_all(self, message: str) -> None:
        """Report wrong boxes that make all unvouched records suspect; see `_suspect`.

        Raises SuspectBoxes.
        """
        if self._probing.known.checks_unanswered:
            message = findings.adapted_to_no_probes(message)
        self._probing.mark_all_suspect()
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
        what_became = self._probing.forget_format()
        if self.on_suspect == "stop":
            self._stop_message = f"{message}. {what_became}"
            self._enter(State.STOPPED)
            raise SuspectBoxes(self._stop_message)
        self._enter(State.SUSPECT)
        say(f"Warning: {message}.")
        for ask in records:
            ask.note(SUSPECT, message)

    async def conclude(self, ask: Ask) -> None:
        """Conclude as BoxWatch.conclude does, with a last check if one is due.

        Only the first call does anything. It also warns of what was odd, though the run's boxes are
        not suspect. Raises SuspectBoxes, RunStopped.
        """
        if self.state is State.ENDED:  # once, whichever operator comes first
            return
        if self.state is not State.STOPPED:
            await self._make_due_checks(ask, last=True)
        self._probing.finish(vouched=self.suspicion is None)
        if self._odd_probe and self.suspicion is None:
            say(f"Warning: {findings.odd_probe(self._odd_probe, self._probing.asked)}.")
        elif self._slips and self.suspicion is None:
            say(f"Warning: {findings.slips(self._slips, self._probing.asked)}.")
        self.state = State.ENDED

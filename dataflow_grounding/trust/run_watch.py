"""The watch of one run: whether its boxes are in the format that was asked for.

Probe pictures are asked about before the run's first request, for each new kind of picture, at a
random place in each stretch of requests, and at the end. Each reply is judged by its numbers; what
looks odd calls for a check at once. A check that is answered as asked vouches for all replies
before it: a later run may read them from the store. One that misses stops the run, or warns, and
what came since the last good check is marked.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import GroundingError, RecordError, SuspectBoxes
from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import SUSPECT, Ask
from dataflow_grounding.engine.summary import PROBE_AS_ASKED, PROBE_CLEARED
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.images.image import Image, open_image
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.box_watch import BoxWatch
from dataflow_grounding.trust.choice import (
    ANSWERS_IN_SEVERAL,
    SEE_WHETHER_SEVERAL,
    advice_to_calibrate,
)
from dataflow_grounding.trust.kinds import (
    AT_THE_END,
    MOST_KINDS,
    kind_of,
    orientation_of,
    sizes_to_check,
)
from dataflow_grounding.trust.known import Known, PictureKind, known_in_process
from dataflow_grounding.trust.question import Question
from dataflow_grounding.trust.reply_judge import JudgedReply

if TYPE_CHECKING:
    from dataflow_grounding.trust.probing import Outcome

T = TypeVar("T")
SILENT = 2  # checks in a row that told nothing, after which no more are made: each costs a request
MOST_UNVOUCHED = 5000  # records that are remembered, so that memory is bounded without any check
# Replies that look like another format, also when they are asked for again, are too many from this
# number on, if they are more than this share: a server then answers the run's questions otherwise
# than those about rectangles. Of 100 runs that are right, noise to 6%, none was stopped so.
LEAST_SAME, SAME_SHARE = 8, 0.05
SAME_AT_ONCE = 2  # such replies since the last check, from which another is made at once
# Pictures in a row of which the replies have the same numbers, from which on that is told: a model
# may not see its pictures.
EQUAL_IN_A_ROW = 10


class RunWatch(BoxWatch):
    """A BoxWatch at work.

    Args:
        settings: The BoxWatch that began.
        serving: The serving that is asked.
        asked: The format of the run's boxes.
        start: What the run starts with.
        form: The form in which boxes are asked for; "" for the usual one.
        calibrated: Whether the format has been found out by calibrating.

    Attributes:
        asked: The format of the run's boxes.
        known: What is known of the endpoint; for records in memory, all runs of this process share
            it.
        judge: What judges this run's replies.
        most_tries: How often a question is asked at most. It is 0 without checks: then doubtful
            replies are never asked again.
    """

    def __init__(
        self,
        settings: BoxWatch,
        serving: Serving,
        asked: BoxFormat,
        start: RunStart,
        form: str,
        *,
        calibrated: bool,
    ) -> None:
        super().__init__(settings.on_suspect, settings.every)
        self.poor = settings.poor
        self.asked = asked
        self._serving = serving
        self._calibrated = calibrated
        self._start: RunStart | None = start  # None once the run's pictures were looked at
        self._in_memory = start.folder is None
        # Whether the run works on a block of the rows, which processes share among them.
        self._is_block = bool(start.options.shard and start.options.shard.rows)
        # What a check vouches for: this format at this endpoint and model; and that anywhere.
        self._of = _name_of(serving.identity_there(), asked, form)
        self._anywhere = _name_of(serving.identity(), asked, form)
        self._vouching: Vouching | None = None  # from the first record on
        self._has_checked = False  # whether the store says what a check of this run has shown
        self._set_aside = 0  # replies that don't count any more
        self.known = Known(asked)
        if self._in_memory:
            self.known = known_in_process(serving, self._of, asked)
        # `forget_format` gives `known` a new judge. This run, which ends then, keeps its own.
        self.judge = self.known.judge
        self._are_wanted = settings.every is not None and serving.takes_probes
        self.most_tries = start.options.max_attempts if self._are_wanted else 0
        self._begun = self.known.is_fresh  # whether a check was made that still holds
        if not self._begun:
            self.known.unanswered = 0
            self.known.pace.unchecked = 0
        self._unchecked = 0  # requests of this run since its last check
        self._last: Image | None = None  # the last picture that was asked about
        if self.on_suspect == "warn":
            # An earlier call has warned. Each further check would say the same, for four requests.
            self.suspicion = self.known.lately_missed
        self._was_warned_of = self.suspicion is not None
        self._stop_message = ""  # once nothing more may be sent
        self._has_given_up = False  # whether boxes are known to be in another format
        self._is_over = False
        self._other_models: set[str] = set()  # that have answered in place of the one asked for
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
        self._equal: set[str] = set()  # the pictures of which replies had these, one after another
        self._is_equal_told = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says: BoxWatch's, and what the probe pictures prove."""
        probing = self.known.probing
        return {**super().facts(), "box_checks": probing.facts() if probing else {}}

    # A question of the run

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """Ask as BoxWatch.ask does: sent when it may be, and the replies judged.

        Once boxes are suspect, requests pass without being judged; they do after the run's end.
        Raises what the request fails with, SuspectBoxes and RunStopped.
        """
        if self._is_over:
            return await ask(request)
        self._check_stopped()
        if self.suspicion is not None:
            if self._was_warned_of:
                ask.note(SUSPECT, self.suspicion)
            return await ask(request.replace(sending=replace(request.sending, of=self._of)))
        self._last = image
        if self._vouching is None:
            trusting = self.on_suspect == "warn"
            self._vouching = ask.vouching(self._of, self._anywhere, trusting)
        if self._vouching.relied_on:  # before any of these is read
            await self.ready(ask, image)
        question = Question(self, ask, image, phrases, request.read)
        sending = replace(
            request.sending,
            before=question.before,
            may_send=self._may_send,
            stored=question.stored,
            of=self._of,
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

    async def ready(self, ask: Ask, image: Image) -> None:
        """Wait until requests may be sent.

        It waits for the first check, which the first comer makes. A picture of a new kind is
        checked before it is asked about. Raises SuspectBoxes, RunStopped.
        """
        if self._awaits_first:
            await self._check_first(ask, image)
        if self._is_new(image):
            async with self._checking:
                if self._is_new(image) and self.suspicion is None:
                    await self._check(ask, image)
        elif self._is_due:
            await self._check_if_due(ask, image)
        self._check_stopped()

    def _may_send(self) -> bool:
        if self._stop_message or self._awaits_first:
            return False
        self.known.pace.sent += 1
        self.known.pace.unchecked += 1
        self._unchecked += 1
        return True

    def remember(self, ask: Ask, *, was_sent: bool) -> None:
        """Remember a record that got boxes; `was_sent` says that this run sent for them."""
        self._unvouched[ask] = was_sent or self._unvouched.get(ask, False)
        if len(self._unvouched) > MOST_UNVOUCHED:
            del self._unvouched[next(iter(self._unvouched))]

    @property
    def trusts_stored(self) -> bool:
        """Whether somebody vouched for all of earlier runs; False before the first question."""
        return self._vouching is not None and not self._vouching.relied_on

    def can_tell(self, image: Image) -> bool:
        """Whether probe pictures of an image's orientation tell anything, as far as is known."""
        return self._possible and orientation_of(image.sent_size) not in self.known.silent

    def _other_model(self, name: str) -> None:
        if name not in self._other_models:
            self._other_models.add(name)
            self.known.pace.next_check = 0

    # What its replies call for

    async def _settle(self, question: Question, ask: Ask, image: Image) -> None:
        # A reply that is proven to be in another format, or several that say the same twice, call
        # for a check with this very picture.
        if self.suspicion is None and question.proven is not None:
            ask.note("mixed_formats", f"a reply came in {question.proven} and, again, as asked")
            mixed = self.judge.mixed
            if mixed is not None:
                self._suspect_mixture(mixed)
            else:
                await self._check_now(ask, image, question.proven)
        elif self.suspicion is None and question.stays and question.judged is not None:
            await self._settle_same(ask, image, str(question.judged.likeliest))
        if question.judged is not None:
            self._tell_of_equal(ask, question.judged, image)
        await self._settle_alarm(ask, image)
        if self._is_due:
            await self._check_if_due(ask, image)

    async def _settle_same(self, ask: Ask, image: Image, looks_like: str) -> None:
        ask.note("odd_boxes", f"boxes look like {looks_like}, also when asked for again")
        alike = self._same.setdefault(orientation_of(image.sent_size), [])
        alike.append((ask, image))
        if len(alike) >= SAME_AT_ONCE:
            await self._check_now(ask, image, looks_like)
        if self.suspicion is not None:
            return
        same, replies = self.judge.same, self.judge.replies
        if same >= LEAST_SAME and same > SAME_SHARE * replies:
            self._set_aside_unvouched()
            self._suspect(
                f"the boxes don't look like {self.asked.name}: {same} of {replies} replies look"
                f" like {looks_like}, also when they are asked for again. {looks_like} would fit;"
                " look at some of them, and if they are right:"
                f" {setting('vlm.on_suspect_boxes', 'warn')}",
                list(self._unvouched),
            )

    async def _settle_alarm(self, ask: Ask, image: Image) -> None:
        orientation = orientation_of(image.sent_size)
        if self.suspicion is not None:
            return
        if self.can_tell(image):
            looks_like = self.judge.alarm(orientation)
            if looks_like is not None and self._begun:
                await self._check_now(ask, image, looks_like)
        else:
            alone = self.judge.alone(orientation, others_told=self._possible)
            if alone is not None:
                self._suspect_all(
                    f"the boxes don't look like {self.asked.name}: the last replies are far"
                    f" likelier in another format. {alone} would fit: {_advice()}"
                )
        if self.suspicion is None:
            self._tell_of_likelier(ask, self.judge.certain(orientation))

    def _tell_of_likelier(self, ask: Ask, likelier: str | None) -> None:
        if likelier is None:
            return
        what = f"the boxes of this run look like {likelier}, where {self.asked.name} was"
        ask.note("likelier_format", f"{what} asked for")
        say(f"Note: {what} asked for. Look at some of them, if their pictures are not unusual.")

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

    # When checks are made

    @property
    def _possible(self) -> bool:
        return self._are_wanted and self.known.unanswered < SILENT

    @property
    def _awaits_first(self) -> bool:
        return not self._begun and self.suspicion is None and self._possible

    @property
    def _is_due(self) -> bool:
        pace = self.known.pace
        return pace.sent >= pace.next_check and self._begun and self._possible

    @property
    def _is_due_at_the_end(self) -> bool:
        # The run should not end without a check where enough requests came since its last. A block
        # of rows is checked however short it is: a run may consist of short ones alone.
        if not self._begun or not self._possible:
            return False
        enough = 1 if self._is_block else min(AT_THE_END, self.every or 1)
        # another run of this process may have checked meanwhile
        return min(self._unchecked, self.known.pace.unchecked) >= enough

    def _is_new(self, image: Image) -> bool:
        # Whether no check has had a picture of this one's kind. Data may have any number of kinds,
        # and checks are to cost few requests.
        if not self._begun or not self._possible or self._kind_of(image) in self.known.kinds:
            return False
        return self.known.checks < MOST_KINDS + self.known.pace.sent / (self.every or 1)

    def _kind_of(self, image: Image) -> PictureKind:
        # Each frame has a different map, and a server may read PNGs otherwise than JPEGs.
        size = image.sent_size
        in_frames = bool(self._serving.image_limits.frames)
        return size if in_frames else kind_of(size), image.sent_media_type

    async def _check_first(self, ask: Ask, image: Image) -> None:
        if self._first_check is not None:
            await self._first_check.wait()
            return
        under_way = asyncio.Event()
        self._first_check = under_way
        try:
            # In this order, as in `_check_if_due`: otherwise each might wait for the other.
            async with self._alone(), self._checking:
                # another run of this process may have made one meanwhile
                self._begun = self._begun or (self._in_memory and self.known.is_fresh)
                if not self._begun:
                    await self._check(ask, image)
        finally:
            self._first_check = None
            under_way.set()

    async def _check_if_due(self, ask: Ask, image: Image | None, *, last: bool = False) -> None:
        # `last` says that the run has asked all its questions.
        def is_due() -> bool:
            return self._is_due or (last and self._is_due_at_the_end)

        if self._checking.locked() or not is_due():
            return
        async with self._alone():
            if is_due():  # another run's check may have been enough for this one
                await self._check_now(ask, image)

    async def _check_now(
        self, ask: Ask, image: Image | None, looks_like: str | None = None
    ) -> None:
        # `looks_like` is the format that replies look like, where they call for the check.
        if self._checking.locked() or self.suspicion is not None or not self._possible:
            return
        checks_before = self.known.checks
        async with self._checking:
            if self.known.checks == checks_before:  # others waited for the lock, too
                await self._check(ask, image, looks_like)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        # Enter once no other run of this process checks the same endpoint. Records of a file wait
        # for nobody. Raises what `Turns.mine` raises.
        if not self._in_memory:
            yield
            return
        async with self.known.turns.mine():
            yield

    # A check

    async def _check(self, ask: Ask, image: Image | None, looks_like: str | None = None) -> None:
        # If they miss, boxes are reported as wrong. If they can't tell, the replies alone decide.
        # If they fit, and nothing speaks of several formats, the records so far are vouched for.
        assert self._vouching is not None
        before = list(self._unvouched)
        position = self._vouching.here()
        count_before = self.known.answers.count
        outcome = await self._ask_for_rectangles(ask, image, looks_like)
        self._note_what_tells(outcome)
        is_good = outcome.kind == "fits" and not self._is_mixed
        if not self._has_given_up:  # as the replies have proven it meanwhile
            self._vouch(outcome, position, count_before, is_good=is_good)
        if self.suspicion is not None:
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
        if is_good:
            for record in before:
                self._unvouched.pop(record, None)
            for orientation, tells in outcome.tells.items():
                if tells:
                    self._same.pop(orientation, None)

    async def _ask_for_rectangles(
        self, ask: Ask, image: Image | None, looks_like: str | None
    ) -> "Outcome":
        # The first check has a picture of each kind among the run's first thousand; any other one
        # has the `image`, or the last that was asked about. That a check began is counted before it
        # is answered, and stays so where the run stops meanwhile.
        known = self.known
        image = image or self._last
        assert image is not None
        known.pace.checking(self.every or 1)
        self._unchecked = 0
        await load_aside("dataflow_grounding.trust.probing")  # with NumPy
        from dataflow_grounding.trust.probing import Probing

        if known.probing is None:
            known.probing = Probing(self.asked)
        images = [image]
        if not self._begun:
            known.kinds = set()
            known.checks = 0
            images = await asyncio.to_thread(self._one_of_each_kind, image)
        known.checks += len(images)
        known.kinds |= {self._kind_of(one) for one in images}
        addresses = [part.endpoint for part, _ in self._serving.endpoints()]
        return await known.probing.check(ask, images, addresses, looks_like)

    def _one_of_each_kind(self, image: Image) -> list[Image]:
        # Each kind is represented by its commonest size or, if boxes are in pixels, by its largest:
        # servers reduce these first. A picture that can't be read is left out: its record fails
        # when its turn comes.
        start = self._start
        self._start = None  # a check that begins meanwhile doesn't look at them, too
        if start is None:
            return [image]
        pictures = start.pictures()
        limits = self._serving.image_limits
        path_of: dict[Size, str] = {}
        for size, path in zip(pictures.sizes, pictures.examples, strict=False):
            path_of.setdefault(limits.sent(size), path)
        sizes = list(path_of)
        if self.asked.scale == "px" and not self.asked.maps:
            sizes.sort(key=lambda size: -max(size))
        images = []
        for size in sizes_to_check(sizes, in_frames=bool(limits.frames)):
            path = path_of[size]
            folders = (path,) if "://" in path else ()  # an address that the run's rows may name
            with suppress(GroundingError):
                record = Record({"image_path": path}, folders)
                images.append(open_image(record, "image_path", limits))
        return images or [image]

    def _note_what_tells(self, outcome: "Outcome") -> None:
        known = self.known
        self._begun = True
        known.checked_at = time.monotonic()
        known.unanswered = known.unanswered + 1 if outcome.kind == "silent" else 0
        for orientation, tells in outcome.tells.items():
            if tells:
                self.judge.calm(orientation)
                known.silent.discard(orientation)
            else:
                known.silent.add(orientation)

    def _vouch(
        self, outcome: "Outcome", position: int, count_before: int, *, is_good: bool
    ) -> None:
        # `position` is the store's end when the check was sent, `count_before` the answers by then.
        assert self._vouching is not None
        self._has_checked = True
        if outcome.kind == "misses":
            self._set_aside = self._vouching.bad()
        elif is_good:
            self.known.answers.vouched = count_before
            self.known.miss(None)
            self._vouching.good(position)
        else:
            self._vouching.unclear()

    @property
    def _is_mixed(self) -> bool:
        # Whether a probe picture or a reply came in another format lately, though others don't.
        probing = self.known.probing
        return bool((probing and probing.lately_odd) or self.judge.proven)

    def _missed(self, outcome: "Outcome") -> str:
        message = f"the boxes don't look like {self.asked.name}: {outcome.why}"
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

    # Boxes in another format

    def _check_stopped(self) -> None:
        if self._stop_message:
            raise SuspectBoxes(self._stop_message)

    def _suspect_mixture(self, other_format: str) -> None:
        self._set_aside_unvouched()
        asked = self.asked.name
        proven = f"{counted(len(self.judge.proven), 'reply')} of {self.judge.replies}"
        seen = f"{proven} came in {other_format} and, asked again, in {asked} as asked"
        self._suspect(f"{seen}. {ANSWERS_IN_SEVERAL}", list(self._unvouched))

    def _set_aside_unvouched(self) -> None:
        if self._vouching is not None:
            self._set_aside = self._vouching.bad()

    def _suspect_all(self, message: str) -> None:
        if self.known.unanswered:
            calibrate = advice_to_calibrate()
            for words in (f", or {calibrate}", f": {calibrate}"):
                message = message.replace(words, "")
            message = (
                f"{message}. The rectangles of probe pictures go unanswered, so that calibrating"
                f" can't help: compare some boxes with their pictures, state"
                f" {setting('vlm.box_format')}, or go on with"
                f" {setting('vlm.on_suspect_boxes', 'warn')}"
            )
        if self.on_suspect == "warn" and self._vouching is not None:
            self._vouching.doubt()
        self._suspect(message, list(self._unvouched))

    def _suspect(self, message: str, records: Sequence[Ask]) -> None:
        self.suspicion = message
        what_became = self._forget_format()
        if self.on_suspect == "stop":
            sentences = [message, what_became, self._for_an_own_serving()]
            self._stop_message = ". ".join(filter(None, sentences))
            raise SuspectBoxes(self._stop_message)
        say(f"Warning: {message}.")
        self.known.miss(message)
        for ask in records:
            ask.note(SUSPECT, message)

    def _forget_format(self) -> str:
        # The next call starts over. Returns a sentence, without a full stop, on what happens to the
        # answers that no check vouched for.
        self._has_given_up = True
        are_mixed = self._is_mixed
        self.known.forget_format()
        answers = self.known.answers
        since = answers.count - answers.vouched
        if not self._in_memory and self._set_aside:
            aside = f"The {self._set_aside} replies since the last good check are set aside"
            aside += ": the next run asks for them again"
            if are_mixed:
                aside += (
                    f". Earlier ones may be mixed too: {setting('workflow.force_reprocess')} asks"
                    " for all again"
                )
            return aside
        if not since:
            return "No boxes were asked for"
        if not self._in_memory:
            return "Every reply so far is kept"
        what_became = "none of them returned"
        returned = answers.returned - answers.vouched
        if returned > 0:
            what_became = f"{returned} of them already returned: don't use them"
        return f"{since} answers came since the last good check, {what_became}"

    def _for_an_own_serving(self) -> str:
        # What to do if a serving of the user's own writes boxes itself, as in a test. A shipped one
        # has a model.
        own = type(self._serving)
        if own.__module__.startswith("dataflow_grounding."):
            return ""
        return (
            f"If no model writes its boxes, as in a test, add exact_boxes = True to {own.__name__}"
        )

    # The end

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
        if self.suspicion is None and not self._same and self._has_checked:
            assert self._vouching is not None
            self._vouching.finished()
        self.known.answers.returned = self.known.answers.count
        self._is_over = True
        if self.suspicion is None:
            self._warn_of_odd()

    def _warn_of_odd(self) -> None:
        asked = self.asked.name
        probing = self.known.probing
        proven = self.judge.proven
        if probing and probing.cleared:
            pictures = counted(probing.cleared, "probe picture")
            was = "was" if probing.cleared == 1 else "were"
            say(
                f"Warning: {pictures} {was} answered in {probing.other_format}, others in {asked}"
                " as asked."
                f" The endpoint may answer in more than one format: {SEE_WHETHER_SEVERAL} Look at"
                " some boxes."
            )
        elif proven:
            others = " and ".join(dict.fromkeys(proven))
            say(
                f"Warning: {counted(len(proven), 'reply')} came in {others} and, asked again, in"
                f" {asked} as asked. Others may not show it: look at some boxes."
            )


def _name_of(identity: Mapping[str, Any], asked: BoxFormat, form: str) -> str:
    endpoint = {**identity, "box_format": asked.name}
    if form:
        # The usual form isn't named, so that what earlier versions vouched for stays so.
        endpoint["asking"] = form
    whose = json.dumps(endpoint, sort_keys=True, default=repr)
    return f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"


def _advice() -> str:
    return f"check {setting('vlm.box_format')}, or {advice_to_calibrate()}"

"""The watch of one run: whether its boxes are in the format that was asked for.

The loop, in the order of the functions below:

- `ready`: a check is made together with the run's first request, before all others, for each new
  kind of picture, and at a random place in each stretch of requests.
- `last_check`: a check with the last requests; `conclude`: what it says of them, and another where
  many requests came after it.
- `_check` asks for rectangles in copies of pictures, and in three more after one that misses. A
  check that is answered as asked vouches for all replies before it: a later run may take them.
- `_suspect`: once a check proves another format, boxes are suspect. It stops the run, or warns, and
  marks what came since the last good check.

`Known` is what an endpoint's checks have told, `OpenReplies` is what no check has vouched for yet.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import RecordError, SuspectBoxes
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.fused import Fused
from dataflow_grounding.tasks.grounding import Found
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.trust import watch_messages
from dataflow_grounding.trust.box_watch import BoxWatch, T
from dataflow_grounding.trust.equal_boxes import EqualBoxes
from dataflow_grounding.trust.kinds import (
    AT_THE_END,
    MOST_KINDS,
    picture_kind,
    picture_of_each_kind,
)
from dataflow_grounding.trust.known import Known, known_in_process, name_of
from dataflow_grounding.trust.open_replies import CheckStart, OpenReplies

if TYPE_CHECKING:
    from dataflow_grounding.trust.probing import Outcome


class RunWatch(BoxWatch):
    """A BoxWatch at work; `calibrated` says whether calibrating has found the format out."""

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
        self._start = start
        self._is_calibrated = calibrated
        # A check vouches for this format at this model. The address isn't part of it: an endpoint
        # that comes back at another port isn't paid again.
        self._group = name_of(serving.identity(), asked, form)

        if start.folder is not None:
            self.known = Known(asked)
        else:  # in memory, all runs of this process share what they know
            name_here = name_of(serving.identity_there(), asked, form)
            self.known = known_in_process(serving, name_here, asked)
            if not self.known.is_fresh:
                self.known.restart_counts()
            if self.on_suspect == "warn":
                # If an earlier call has warned lately, its suspicion holds for this call, too, and
                # no checks are made: each would find the same, and cost four requests.
                self.suspicion = self.known.lately_warned_of
        self.open = OpenReplies(self.known)
        self._equal = EqualBoxes()

        self._are_wanted = settings.every is not None and serving.takes_probes
        self._every = settings.every or 1  # 1 is never used: without `every` no check is made
        self._has_been_checked = False
        # Whether the run's first request may still be sent without waiting for the first check, so
        # that the run has its first answer sooner. False once that request is sent (`_may_send`).
        self.sends_ahead = not self.is_checked
        self._own_unchecked = 0  # requests of this run since its last check
        self._last_image: Image | None = None  # the last picture that was asked about
        self._other_models: set[str] = set()  # that have answered in place of the one asked for

        self._last_outcome: Outcome | None = None  # of the check with the last requests
        self._stop_message = ""  # once nothing more may be sent
        self._is_over = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    # The loop

    async def ask(self, ask: Ask, request: Request[T], image: Image) -> T:
        """Ask as BoxWatch.ask does: the request is sent when it may be, and its reply is counted.

        Requests pass unwatched once boxes are suspect, and after the run's end. Raises what the
        request fails with, SuspectBoxes and RunStopped.
        """
        if self._is_over:
            return await ask(request)
        if self._stop_message:
            raise SuspectBoxes(self._stop_message)
        if not self.open.has_begun:  # at the first record, whose `ask` knows the step's store
            # Where suspect boxes only cause a warning, replies that a check has failed are used.
            trusting = self.on_suspect == "warn"
            marks = ask.marks_of(self._group, trusting=trusting)
            self.open.begin(marks)
            if self.suspicion is not None:  # an earlier call in this process has warned
                marks.bad()
        # The store keeps all replies under the name for which checks vouch.
        sending = request.sending.replace(reply_group=self._group)
        if self.suspicion is not None:
            return await ask(request.replace(sending=sending))
        self._last_image = image
        if self.open.marks.relied_on:
            # The store has replies of earlier runs for which no check has vouched. They are read
            # only after this run's first check.
            await self.ready(ask, image)
        question = _Question(self, ask, request, image)
        sending = sending.replace(
            before_sending=question.before,
            may_send=self._may_send,
            other_model=self._other_model,
        )
        try:
            answer = await ask(request.replace(read=question.read, sending=sending))
        except RecordError:  # boxes in another format are often no boxes at all
            await self._settle(ask, image)
            raise
        await self._settle(ask, image)
        self._equal.add(_boxes_of(answer), image.size, ask, image.path)
        return answer

    async def ready(self, ask: Ask, image: Image) -> None:
        """Wait until requests may be sent: after the first check, and that of a new picture kind.

        Raises SuspectBoxes, RunStopped.
        """
        # The first check may have no picture of this one's kind. Then the loop makes a second one.
        while self._must_wait(image):
            await self._check_if(lambda: self._must_wait(image), ask, image, waits=True)
        await self._check_if(self._is_due, ask, image)
        if self._stop_message:
            raise SuspectBoxes(self._stop_message)

    def _may_send(self) -> bool:
        """The engine sends where this is true, so the request counts as sent."""
        if self._stop_message or self._awaits_check:
            return False
        self.sends_ahead = False
        self.known.sent += 1
        self.known.unchecked += 1
        self._own_unchecked += 1
        return True

    async def _settle(self, ask: Ask, image: Image) -> None:
        if self._awaits_check:  # this request was sent ahead
            await self.ready(ask, image)
        await self._check_if(self._is_due, ask, image)

    async def last_check(self, ask: Ask) -> None:
        """Send a check with the run's last requests, and not alone after their answers."""
        image = self._last_image
        if self._is_over or self._stop_message or image is None:
            return
        await self.known.turns.take(
            lambda: self.can_check and self._is_due_at_the_end(),
            lambda: self._check(ask, image, is_last=True),
        )

    async def conclude(self, ask: Ask) -> None:
        """Conclude as BoxWatch.conclude does, with a last check if one is due.

        Only the first call does anything. Raises SuspectBoxes, RunStopped.
        """
        if self._is_over:  # once, whichever operator comes first
            return
        if self._last_outcome is not None and not self._stop_message:
            # by now all that was sent with this check is answered: it covers that, too
            self._heed(self._last_outcome, ask, self.open.check_start())
        if not self._stop_message and self._last_image is not None:
            await self._check_if(self._is_due_at_the_end, ask, self._last_image, waits=True)
        has_unseen = self.open.finish(are_trusted=self.suspicion is None)
        if has_unseen:
            blind = [address or self._serving.endpoint for address in self.known.blind]
            say(f"Warning: {watch_messages.of_the_blind(blind)}.")
        self._is_over = True

    async def _check(self, ask: Ask, image: Image, *, is_last: bool = False) -> None:
        """Ask about this picture or, in the run's first check, about one of each kind."""
        known = self.known
        check_start = self.open.check_start()
        # These counts change before the check is answered: they hold even if the run stops
        # meanwhile.
        known.plan_next_check(self._every)
        self._own_unchecked = 0
        probing = await known.probes()
        images = [image]
        if not self.is_checked:
            known.forget_kinds()
            # in a thread, because files are opened
            of_each_kind = await asyncio.to_thread(
                picture_of_each_kind,
                self._start.pictures(),
                self._serving.image_limits,
                self.asked,
            )
            # It is empty if the run knows no pictures ahead, or can read none of them.
            images = of_each_kind or [image]
        known.pictures_checked += len(images)
        known.kinds |= {picture_kind(checked) for checked in images}
        addresses = [part.endpoint for part, _ in self._serving.endpoints()]
        # A miss is asked about three more times before it counts.
        outcome = await probing.check(ask, images, addresses)
        if is_last and outcome.kind != "misses":
            self._last_outcome = outcome
        else:
            self._heed(outcome, ask, check_start)

    def _heed(self, outcome: "Outcome", ask: Ask, check_start: CheckStart) -> None:
        known = self.known
        self._has_been_checked = True
        known.note(outcome)
        if outcome.kind == "misses":
            calibrated = self._is_calibrated
            missed = watch_messages.of_a_miss(self.asked, outcome, calibrated=calibrated)
            self._suspect(missed)
            return
        if outcome.kind == "fits" and not outcome.blind:
            known.remember_warning(None)  # that of an earlier call is over
            self.open.vouch(check_start)
        outcome.note(ask)

    def _suspect(self, message: str) -> None:
        """Stop the run, or warn and mark open records; the next run asks for all that is open."""
        set_aside = self.open.marks.bad()
        self.suspicion = message
        what_became = watch_messages.of_what_became(
            self.known, set_aside, in_memory=self._start.folder is None
        )
        self.known.forget_format()  # so that the next call in this process checks it again
        if self.on_suspect == "stop":
            sentences = [message, what_became, watch_messages.for_an_own_serving(self._serving)]
            self._stop_message = ". ".join(filter(None, sentences))
            raise SuspectBoxes(self._stop_message)
        say(f"Warning: {message}.")
        self.known.remember_warning(message)
        self.open.mark(message)

    # When checks are made

    async def _check_if(
        self,
        is_wanted: Callable[[], bool],
        ask: Ask,
        image: Image,
        *,
        waits: bool = False,
    ) -> None:
        """Make a check if it is wanted now, and still is when its turn comes.

        If another check is under way, that one is enough, unless this one `waits` for its turn.
        """
        turns = self.known.turns
        if waits or not turns.are_taken:
            await turns.take(
                lambda: self.can_check and is_wanted(), lambda: self._check(ask, image)
            )

    @property
    def can_check(self) -> bool:
        """Whether checks are made."""
        return self._are_wanted and self.suspicion is None

    @property
    def is_checked(self) -> bool:
        """Whether a check was made that holds: in memory, by another run of this process, too."""
        # Once true, it stays so for the whole run, also when that check isn't fresh any more.
        self._has_been_checked = self._has_been_checked or self.known.is_fresh
        return self._has_been_checked

    @property
    def _awaits_check(self) -> bool:
        """Whether the first check isn't done, though the run's first request was sent already."""
        return self.can_check and not self.is_checked and not self.sends_ahead

    def _must_wait(self, image: Image) -> bool:
        """Whether this picture waits for the run's first check, or that of its own, new kind."""
        if not self.can_check:
            return False
        if not self.is_checked:
            return True
        # Data may have any number of kinds, but checks should cost few requests. So a new kind is
        # checked only while all checks together had fewer pictures than a first check may have,
        # plus one for each stretch of requests.
        known = self.known
        may_check_new_kind = known.pictures_checked < MOST_KINDS + known.sent / self._every
        return may_check_new_kind and picture_kind(image) not in known.kinds

    def _is_due(self) -> bool:
        return self.is_checked and self.known.sent >= self.known.next_check

    def _is_due_at_the_end(self) -> bool:
        if self._is_due():
            return True
        # A block of rows is checked however short it is: a run may consist of short ones alone.
        shard = self._start.options.shard
        is_block = shard is not None and bool(shard.rows)
        enough = 1 if is_block else min(AT_THE_END, self._every)
        # Other runs of this process share `known`. Neither requests that they sent count here, nor
        # requests before a check that they made: so it is the smaller number.
        unchecked = min(self._own_unchecked, self.known.unchecked)
        return self.is_checked and unchecked >= enough

    def _other_model(self, name: str) -> None:
        """Another model may write boxes otherwise: a check is due at once."""
        if name not in self._other_models:
            self._other_models.add(name)
            self.known.next_check = 0


class _Question:
    """One question about a picture: when it is sent, and that its reply is open."""

    def __init__(self, watch: RunWatch, ask: Ask, request: Request[T], image: Image) -> None:
        self._watch = watch
        self._ask = ask
        self._read: Callable[[str], ReadReply[Any]] = request.read
        self._image = image
        self._was_sent = False
        self._is_counted = False

    async def before(self) -> None:
        """Wait until requests may be sent; the engine then asks `may_send`, and sends.

        The run's first request doesn't wait: it is sent together with the first check.
        """
        if not self._watch.sends_ahead:
            await self._watch.ready(self._ask, self._image)
        self._was_sent = True

    def read(self, reply: str) -> ReadReply[Any]:
        """Read a reply, and note that no check has vouched for it yet."""
        watch = self._watch
        if not self._is_counted:  # a question has one answer, however often it is asked
            self._is_counted = True
            watch.known.answers += 1
        is_suspect = watch.suspicion is not None
        if self._was_sent and not is_suspect:
            watch.open.add(self._ask)
        answer, notes = self._read(reply)
        # A stored reply is open, too, if no check of an earlier run has vouched for it.
        is_open = self._was_sent or watch.open.marks.relied_on
        if is_open and not is_suspect and not _boxes_of(answer):
            watch.open.add_empty(self._ask)
        return answer, notes


def _boxes_of(answer: list[Found] | Fused) -> list[Bbox]:
    """Return all boxes of an answer, in pixels."""
    found_for_phrases: Iterable[Found] = answer.found if isinstance(answer, Fused) else answer
    boxes: list[Bbox] = []
    for found in found_for_phrases:
        boxes += [instance.bbox for instance in found.instances]
    return boxes

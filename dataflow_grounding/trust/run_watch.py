"""The watch of one run: whether its boxes are in the format that was asked for.

The loop, in the order of the functions below:

- `ready`: a check is made together with the run's first request, before all others, for each new
  kind of picture, and at a random place in each stretch of requests.
- `_settle`: replies are judged by their numbers. What looks odd calls for a check at once.
- `conclude`: a last check at the end.
- `_check` asks for rectangles in copies of pictures, and in three more after one that misses. A
  check that is answered as asked vouches for all replies before it: a later run may take them.
- `_suspect`: once a check or the replies prove another format, boxes are suspect. It stops the run,
  or warns, and marks what came since the last good check.

A `Question` reads and judges the replies to one request, `Known` is what an endpoint's checks and
replies have told, `OpenReplies` is what no check has vouched for yet.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util.errors import RecordError, SuspectBoxes
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.summary import ODD_BOXES
from dataflow_grounding.images.image import Image
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust import watch_messages
from dataflow_grounding.trust.box_watch import BoxWatch
from dataflow_grounding.trust.equal_boxes import EqualBoxes
from dataflow_grounding.trust.kinds import (
    AT_THE_END,
    MOST_KINDS,
    orientation_of,
    picture_kind,
    picture_of_each_kind,
)
from dataflow_grounding.trust.known import Known, known_in_process, name_of
from dataflow_grounding.trust.open_replies import CheckStart, OpenReplies
from dataflow_grounding.trust.question import Question

if TYPE_CHECKING:
    from dataflow_grounding.trust.probing import Outcome

T = TypeVar("T")
SILENT = 2  # checks in a row that told nothing, after which no more are made: each costs a request
# Replies that look like another format, also when they are asked for again, are too many from this
# number on, if they are more than this share: a server then answers the run's questions otherwise
# than those about rectangles. Of 100 runs that are right, noise to 6%, none was stopped so.
LEAST_SAME, SAME_SHARE = 8, 0.05
SAME_AT_ONCE = 2  # such replies since the last check, from which another is made at once


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
        # A check vouches for this format at this model: here, at this endpoint, or anywhere.
        self._name_here = name_of(serving.identity_there(), asked, form)
        self._name_anywhere = name_of(serving.identity(), asked, form)

        if start.folder is not None:
            self.known = Known(asked)
        else:  # in memory, all runs of this process share what they know
            self.known = known_in_process(serving, self._name_here, asked)
            if not self.known.is_fresh:
                self.known.restart_counts()
            if self.on_suspect == "warn":
                # If an earlier call has warned lately, its suspicion holds for this call, too, and
                # no checks are made: each would find the same, and cost four requests.
                self.suspicion = self.known.lately_warned_of
        # A miss gives `known` a new judge, for later calls. This run judges nothing more then.
        self.judge = self.known.judge
        self.open = OpenReplies(self.known)
        self._equal = EqualBoxes()

        self._are_wanted = settings.every is not None and serving.takes_probes
        self._every = settings.every or 1  # 1 is never used: without `every` no check is made
        # How often a question is asked: without checks, a doubtful reply is never asked for again.
        self.most_tries = start.options.max_attempts if self._are_wanted else 0
        self._has_been_checked = False
        # Whether the run's first request may still be sent without waiting for the first check, so
        # that the run has its first answer sooner. False once that request is sent (`_may_send`).
        self.sends_ahead = not self.is_checked
        self._own_unchecked = 0  # requests of this run since its last check
        self._last_image: Image | None = None  # the last picture that was asked about
        self._other_models: set[str] = set()  # that have answered in place of the one asked for

        self._stop_message = ""  # once nothing more may be sent
        self._is_over = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says: BoxWatch's, and what the probe pictures prove."""
        probing = self.known.probing
        return {**super().facts(), "box_checks": probing.facts() if probing else {}}

    # The loop

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """Ask as BoxWatch.ask does: the request is sent when it may be, and its replies are judged.

        Requests pass without being judged once boxes are suspect, and after the run's end. Raises
        what the request fails with, SuspectBoxes and RunStopped.
        """
        if self._is_over:
            return await ask(request)
        if self._stop_message:
            raise SuspectBoxes(self._stop_message)
        if not self.open.has_begun:  # at the first record, whose `ask` knows the step's store
            # Where suspect boxes only cause a warning, replies that a check has failed are used.
            trusting = self.on_suspect == "warn"
            vouching = ask.vouching(self._name_here, self._name_anywhere, trusting=trusting)
            self.open.begin(vouching)
            if self.suspicion is not None:  # an earlier call in this process has warned
                vouching.doubt()
        # The store keeps all replies under the name for which checks vouch.
        sending = replace(request.sending, reply_group=self._name_here)
        if self.suspicion is not None:
            return await ask(request.replace(sending=sending))
        self._last_image = image
        if self.open.vouching.relied_on:
            # The store has replies of earlier runs for which no check has vouched. They are read
            # only after this run's first check.
            await self.ready(ask, image)
        question = Question(self, ask, image, phrases, request.read)
        sending = replace(
            sending,
            before_sending=question.before,
            may_send=self._may_send,
            stored=question.stored,
            other_model=self._other_model,
        )
        try:
            answer = await ask(request.replace(read=question.read, sending=sending))
        except RecordError:  # boxes in another format are often no boxes at all
            await self._settle(question)
            raise
        await self._settle(question)
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
        if self._stop_message or self.awaits_check:
            return False
        self.sends_ahead = False
        self.known.sent += 1
        self.known.unchecked += 1
        self._own_unchecked += 1
        return True

    async def _settle(self, question: Question) -> None:
        """Do what replies call for: checks, warnings, or the run's end."""
        ask, image, judged = question.ask, question.image, question.judged
        if self.awaits_check:  # this request was sent ahead
            await self.ready(ask, image)
        # Each of these may make boxes suspect: nothing more is judged then.
        if self.suspicion is None:
            await self._settle_own(question)
        if judged is not None:
            self._equal.add(judged, ask, image.path)
        if self.suspicion is None:
            await self._settle_all(ask, image)
        await self._check_if(self._is_due, ask, image)

    async def conclude(self, ask: Ask) -> None:
        """Conclude as BoxWatch.conclude does, with a last check if one is due.

        Only the first call does anything. It also warns of what was odd, though the run's boxes are
        not suspect. Raises SuspectBoxes, RunStopped.
        """
        if self._is_over:  # once, whichever operator comes first
            return
        if not self._stop_message and self._last_image is not None:
            await self._check_if(self._is_due_at_the_end, ask, self._last_image, waits=True)
            # In each orientation with odd records, the picture of the last one is checked. The list
            # is a copy, because a check that goes well removes orientations from the dict.
            for odd_records in list(self.open.odd_records.values()):
                await self._check_now(ask, odd_records[-1].image)
        has_unseen = self.open.finish(are_trusted=self.suspicion is None)
        if has_unseen:
            blind = [address or self._serving.endpoint for address in self.known.blind]
            say(f"Warning: {watch_messages.of_the_blind(blind)}.")
        self._is_over = True
        warning = watch_messages.of_odd_ones(self.judge, self.known.probing)
        if warning and self.suspicion is None:
            say(f"Warning: {warning}")

    async def _check(self, ask: Ask, image: Image, looks_like: str | None) -> None:
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
        outcome = await probing.check(ask, images, addresses, looks_like)
        # Other records went on meanwhile, and their replies may have proven another format.
        if self.suspicion is None:
            self._heed(outcome, ask, check_start)

    def _heed(self, outcome: "Outcome", ask: Ask, check_start: CheckStart) -> None:
        known = self.known
        self._has_been_checked = True
        known.note(outcome)
        if outcome.kind == "misses":
            calibrated = self._is_calibrated
            missed = watch_messages.of_a_miss(self.asked, outcome, calibrated=calibrated)
            self._suspect(missed, sent_alone=True)
            return
        for orientation, is_answered in outcome.answered_by_orientation.items():
            if is_answered:
                self.judge.calm(orientation)
        if outcome.kind == "fits" and not self._is_mixed and not outcome.blind:
            known.remember_warning(None)  # that of an earlier call is over
            self.open.vouch(check_start, outcome.answered_by_orientation)
        else:
            self.open.leave(unanswered=outcome.kind == "silent")
        outcome.note(ask)

    def _suspect(self, message: str, *, sent_alone: bool = False, is_certain: bool = True) -> None:
        """Stop the run, or warn and mark open records: with `sent_alone`, those it has sent for.

        If it `is_certain`, the next run asks again for all that is open. Else replies are set aside
        for this run alone.
        """
        set_aside = 0
        if is_certain:
            set_aside = self.open.vouching.bad()
        else:
            self.open.vouching.doubt()
        self.suspicion = message
        # This comes first: `_is_mixed` needs what `forget_format` forgets.
        what_became = watch_messages.of_what_became(
            self.known,
            set_aside,
            in_memory=self._start.folder is None,
            are_mixed=self._is_mixed,
        )
        self.known.forget_format()  # so that the next call in this process checks it again
        if self.on_suspect == "stop":
            sentences = [message, what_became, watch_messages.for_an_own_serving(self._serving)]
            self._stop_message = ". ".join(filter(None, sentences))
            raise SuspectBoxes(self._stop_message)
        say(f"Warning: {message}.")
        self.known.remember_warning(message)
        self.open.mark(message, sent_alone=sent_alone)

    # What replies show

    async def _settle_own(self, question: Question) -> None:
        """Act on what the replies to one question show: a check tells whether they are a slip."""
        ask, image, judge = question.ask, question.image, self.judge
        proven, looks_like = question.proven, question.looks_like
        if proven is not None:
            ask.note("mixed_formats", f"a reply came in {proven} and, again, as asked")
            mixed = judge.mixed
            if mixed is None:
                await self._check_now(ask, image, proven)
            else:  # more than slips explain
                self._suspect(watch_messages.of_a_mixture(judge, mixed))
        elif looks_like is not None:
            ask.note(ODD_BOXES, f"boxes look like {looks_like}, also when asked for again")
            odd_since_check = self.open.add_odd(ask, image)
            if odd_since_check >= SAME_AT_ONCE:
                await self._check_now(ask, image, looks_like)
            count = judge.odd_twice
            are_too_many = count >= LEAST_SAME and count > SAME_SHARE * judge.replies
            if self.suspicion is None and are_too_many:
                self._suspect(watch_messages.of_many_odd_ones(judge, looks_like))

    async def _settle_all(self, ask: Ask, image: Image) -> None:
        """Act on what all replies together show."""
        orientation = orientation_of(image.sent_size)
        if self.can_tell(image):
            looks_like = self.judge.alarm(orientation)
            # Before the run's first check no alarm is needed: that check is made in any case.
            if looks_like is not None and self.is_checked:
                await self._check_now(ask, image, looks_like)
        else:
            # Boxes are suspect if the replies alone leave no doubt of another format. Otherwise
            # they speak for themselves (see `Vouching`).
            checks_tell_of_others = self.can_check  # of pictures of other orientations
            looks_like = self.judge.alarm_without_check(
                orientation, others_told=checks_tell_of_others
            )
            if looks_like is None:
                self.open.let_speak()
            else:
                unanswered = self.known.silent_checks > 0
                message = watch_messages.of_replies_alone(
                    self.asked, looks_like, unanswered=unanswered
                )
                self._suspect(message, is_certain=False)
        likelier = self.judge.newly_certain(orientation) if self.suspicion is None else None
        if likelier is not None:
            what = watch_messages.of_a_likelier_format(self.asked, likelier)
            ask.note("likelier_format", what)
            say(f"Note: {what}. Look at some of them, if their pictures are not unusual.")

    @property
    def _is_mixed(self) -> bool:
        """Whether a probe picture or a reply came in another format lately, though others don't."""
        probing = self.known.probing
        return bool((probing and probing.lately_odd_formats) or self.judge.proven)

    # When checks are made

    async def _check_now(self, ask: Ask, image: Image, looks_like: str | None = None) -> None:
        """Make a check, unless another one is made while this one waits for its turn."""
        checked_before = self.known.pictures_checked

        def is_none_made() -> bool:
            return self.known.pictures_checked == checked_before

        await self._check_if(is_none_made, ask, image, looks_like)

    async def _check_if(
        self,
        is_wanted: Callable[[], bool],
        ask: Ask,
        image: Image,
        looks_like: str | None = None,
        *,
        waits: bool = False,
    ) -> None:
        """Make a check if it is wanted now, and still is when its turn comes.

        If another check is under way, that one is enough, unless this one `waits` for its turn.
        `looks_like` is the format that replies look like, if they are the reason for this check.
        """
        turns = self.known.turns
        if waits or not turns.are_taken:
            await turns.take(
                lambda: self.can_check and is_wanted(), lambda: self._check(ask, image, looks_like)
            )

    @property
    def can_check(self) -> bool:
        """Whether checks are made, and may tell anything."""
        return self._are_wanted and self.suspicion is None and self.known.silent_checks < SILENT

    def can_tell(self, image: Image) -> bool:
        """Whether probe pictures of an image's orientation tell anything, as far as is known."""
        orientation = orientation_of(image.sent_size)
        return self.can_check and orientation not in self.known.silent_orientations

    @property
    def is_checked(self) -> bool:
        """Whether a check was made that holds: in memory, by another run of this process, too."""
        # Once true, it stays so for the whole run, also when that check isn't fresh any more.
        self._has_been_checked = self._has_been_checked or self.known.is_fresh
        return self._has_been_checked

    @property
    def awaits_check(self) -> bool:
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

"""The watch of one run: whether its boxes are in the format that was asked for.

Probe pictures are asked about together with the run's first request, before all others, for each
new kind of picture, at a random place in each stretch of requests, and at the end. Each reply is
judged by its numbers; what looks odd calls for a check at once. A check that is answered as asked
vouches for all replies before it: a later run may read them from the store. One that misses stops
the run, or warns, and what came since the last good check is marked.

A probe picture is a copy of a run's picture, with rectangles at known places (`probing.py`).
`Known` is what an endpoint's checks and replies have told, `OpenReplies` what no check has vouched
for yet. Boxes are suspect once a check or the replies prove another format.
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
        self._in_memory = start.folder is None
        # A check vouches for this format at this model: here, at this endpoint, or anywhere.
        self._name_here = name_of(serving.identity_there(), asked, form)
        self._name_anywhere = name_of(serving.identity(), asked, form)

        # What is known, and what is open
        if self._in_memory:  # all runs of this process share what they know
            self.known = known_in_process(serving, self._name_here, asked)
        else:
            self.known = Known(asked)
        # A miss gives `known` a new judge, for later calls. This run judges nothing more then.
        self.judge = self.known.judge
        self.open = OpenReplies(self.known.answers)
        self._equal = EqualBoxes()

        # Checks
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

        # How it ends
        self._stop_message = ""  # once nothing more may be sent
        self._is_over = False

        if self._in_memory:
            self._begin_after_other_calls()

    def _begin_after_other_calls(self) -> None:
        # `known` has what earlier calls of this process left there.
        if not self.is_checked:
            self.known.restart_counts()
        if self.on_suspect == "warn":
            # If an earlier call has warned lately, its suspicion holds for this call, too, and no
            # checks are made: each would find the same, and cost four requests.
            self.suspicion = self.known.lately_warned_of

    def __reduce__(self) -> tuple[Any, ...]:
        # Everything else belongs to a run, which stays in one process.
        state = {"suspicion": self.suspicion, "poor": self.poor}
        return BoxWatch, (self.on_suspect, self.every), state

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says: BoxWatch's, and what the probe pictures prove."""
        probing = self.known.probing
        return {**super().facts(), "box_checks": probing.facts() if probing else {}}

    # The loop: `ready`, sent, read by a Question, `_settle`, and at last `conclude`

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
            self._begin_vouching(ask)
        if self.suspicion is not None:
            # It isn't judged. Its reply is still stored under the name for which checks vouch.
            sending = replace(request.sending, reply_group=self._name_here)
            return await ask(request.replace(sending=sending))
        self._last_image = image
        if self.open.vouching.relied_on:
            # The store has replies of earlier runs for which no check has vouched. They are read
            # only after this run's first check.
            await self.ready(ask, image)
        question = Question(self, ask, image, phrases, request.read)
        try:
            answer = await ask(self._watched(request, question))
        except RecordError:  # boxes in another format are often no boxes at all
            await self._settle(question)
            raise
        await self._settle(question)
        return answer

    def _watched(self, request: Request[T], question: Question) -> Request[T]:
        # The same request, with its replies read by `question`. The engine sends it only while
        # `_may_send` allows it.
        sending = replace(
            request.sending,
            before_sending=question.before,
            may_send=self._may_send,
            stored=question.stored,
            reply_group=self._name_here,
            other_model=self._other_model,
        )
        return request.replace(read=question.read, sending=sending)

    def _begin_vouching(self, ask: Ask) -> None:
        # Reads from the store for which of its replies checks have vouched. If suspect boxes only
        # cause a warning, replies are used even if a check of them has failed.
        is_only_warned = self.on_suspect == "warn"
        vouching = ask.vouching(self._name_here, self._name_anywhere, trusting=is_only_warned)
        self.open.begin(vouching)
        if self.suspicion is not None:  # an earlier call in this process has warned
            vouching.doubt()

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
        # The engine sends where this is true, so the request counts as sent. Once the run's first
        # request was sent ahead, all others wait for the first check.
        if self._stop_message or self.awaits_check:
            return False
        self.sends_ahead = False
        self.known.pace.sent += 1
        self.known.pace.unchecked += 1
        self._own_unchecked += 1
        return True

    async def _settle(self, question: Question) -> None:
        # Does what a question's replies call for: further checks, warnings, or the run's end. What
        # its own replies show comes first, then what all replies show, then the planned check. Each
        # may set `suspicion`: nothing more is judged then.
        ask, image, judged = question.ask, question.image, question.judged
        if self.awaits_check:  # this request was sent ahead
            await self.ready(ask, image)
        if self.suspicion is None and question.proven is not None:
            await self._settle_proven(question, question.proven)
        elif self.suspicion is None and question.looks_like is not None:
            await self._settle_odd(question, question.looks_like)
        warning = self._equal.add(judged, image.path) if judged is not None else ""
        if warning:
            ask.note("equal_boxes", warning)
            say(f"Warning: {warning}. See whether the model is shown the pictures.")
        if self.suspicion is None:
            await self._settle_all(question)
        await self._check_if(self._is_due, ask, image)

    async def _settle_proven(self, question: Question, proven: str) -> None:
        # A single such reply may be a slip: a check with this very picture tells. Where there are
        # more than slips explain (`mixed`), boxes are suspect without a check.
        question.ask.note("mixed_formats", f"a reply came in {proven} and, again, as asked")
        mixed = self.judge.mixed
        if mixed is None:
            await self._check_now(question.ask, question.image, proven)
        else:
            self.open.set_aside()
            self._suspect(watch_messages.of_a_mixture(self.judge, mixed))

    async def _settle_odd(self, question: Question, looks_like: str) -> None:
        # SAME_AT_ONCE such replies since the last check call for another check at once. Too large a
        # share of all replies makes boxes suspect without one.
        ask, image = question.ask, question.image
        ask.note(ODD_BOXES, f"boxes look like {looks_like}, also when asked for again")
        odd_since_check = self.open.add_odd(ask, image)
        if odd_since_check >= SAME_AT_ONCE:
            await self._check_now(ask, image, looks_like)
        count = self.judge.odd_twice
        are_too_many = count >= LEAST_SAME and count > SAME_SHARE * self.judge.replies
        if self.suspicion is None and are_too_many:
            self.open.set_aside()
            self._suspect(watch_messages.of_many_odd_ones(self.judge, looks_like))

    async def _settle_all(self, question: Question) -> None:
        # Acts on what all replies together show. If they look like another format, a check is made
        # or, where no check can tell, boxes are suspect.
        ask, image = question.ask, question.image
        orientation = orientation_of(image.sent_size)
        if self.can_tell(image):
            looks_like = self.judge.alarm(orientation)
            # Before the run's first check no alarm is needed: that check is made in any case.
            if looks_like is not None and self.is_checked:
                await self._check_now(ask, image, looks_like)
        else:
            self._settle_without_check(orientation)
        if self.suspicion is None:
            self._tell_if_certain(ask, orientation)

    def _settle_without_check(self, orientation: str) -> None:
        # No check tells of this picture's orientation. Boxes are suspect if the replies alone leave
        # no doubt of another format. Otherwise they speak for themselves (see `Vouching`).
        checks_tell_of_others = self.can_check  # of pictures of other orientations
        looks_like = self.judge.alarm_without_check(orientation, others_told=checks_tell_of_others)
        if looks_like is None:
            self.open.let_speak(is_blind=bool(self.known.blind))
            return
        unanswered = self.known.silent_checks > 0
        self.open.vouching.doubt()  # sets all replies aside for this run alone
        message = watch_messages.of_replies_alone(self.asked, looks_like, unanswered=unanswered)
        self._suspect(message)

    def _tell_if_certain(self, ask: Ask, orientation: str) -> None:
        likelier = self.judge.newly_certain(orientation)
        if likelier is None:
            return
        what = f"the boxes of this run look like {likelier}, where {self.asked.name} was asked for"
        ask.note("likelier_format", what)
        say(f"Note: {what}. Look at some of them, if their pictures are not unusual.")

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
        are_trusted = self.suspicion is None
        # endpoints that found no rectangle in their probe pictures
        blind = [address or self._serving.endpoint for address in self.known.blind]
        has_unseen = self.open.finish(are_trusted=are_trusted, is_blind=bool(blind))
        if has_unseen:
            say(f"Warning: {watch_messages.of_the_blind(blind)}.")
        self._is_over = True
        warning = watch_messages.of_odd_ones(self.judge, self.known.probing)
        if warning and self.suspicion is None:
            say(f"Warning: {warning}")

    # When checks are made

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
        # True before the run's first check, and before the check of a new kind of picture.
        if not self.can_check:
            return False
        if not self.is_checked:
            return True
        # Data may have any number of kinds, but checks should cost few requests. So a new kind is
        # checked only while all checks together had fewer pictures than a first check may have,
        # plus one for each stretch of requests.
        known = self.known
        may_check_new_kind = known.pictures_checked < MOST_KINDS + known.pace.sent / self._every
        return may_check_new_kind and picture_kind(image) not in known.kinds

    def _is_due(self) -> bool:
        return self.is_checked and self.known.pace.sent >= self.known.pace.next_check

    def _is_due_at_the_end(self) -> bool:
        if self._is_due():
            return True
        # A block of rows is checked however short it is: a run may consist of short ones alone.
        shard = self._start.options.shard
        is_block = shard is not None and bool(shard.rows)
        enough = 1 if is_block else min(AT_THE_END, self._every)
        # Other runs of this process share `known`. Neither requests that they sent count here, nor
        # requests before a check that they made: so it is the smaller number.
        own_since_own_check = self._own_unchecked
        all_since_any_check = self.known.pace.unchecked
        unchecked = min(own_since_own_check, all_since_any_check)
        return self.is_checked and unchecked >= enough

    def _other_model(self, name: str) -> None:
        # Another model may write boxes otherwise: a check is due at once.
        if name not in self._other_models:
            self._other_models.add(name)
            self.known.pace.next_check = 0

    async def _check_now(self, ask: Ask, image: Image, looks_like: str | None = None) -> None:
        # Makes a check, unless another one is made while this one waits for its turn.
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
        # Makes a check if it is wanted now, and still is when its turn comes. If another check is
        # under way, that one is enough, unless this one `waits` for its turn. `looks_like` is the
        # format that replies look like, if they are the reason for this check.
        def may_be_made() -> bool:
            return self.can_check and is_wanted()

        turns = self.known.turns
        if not may_be_made():
            return
        is_another_enough = turns.are_taken and not waits
        if not is_another_enough:
            await turns.take(may_be_made, lambda: self._check(ask, image, looks_like))

    # A check

    async def _check(self, ask: Ask, image: Image, looks_like: str | None) -> None:
        # Asks about this picture or, in the run's first check, about one of each kind; then does
        # what the answers call for.
        known = self.known
        check_start = self.open.check_start()
        # These counts change before the check is answered: they hold even if the run stops
        # meanwhile.
        known.pace.note_check(self._every)
        self._own_unchecked = 0
        probing = await known.probes()
        images = [image]
        if not self.is_checked:
            known.forget_kinds()
            # The list is empty if the run knows no pictures ahead, or can read none of them.
            images = await self._pictures_of_first_check() or [image]
        known.pictures_checked += len(images)
        known.kinds |= {picture_kind(checked) for checked in images}
        addresses = [part.endpoint for part, _ in self._serving.endpoints()]
        outcome = await probing.check(ask, images, addresses, looks_like)
        # Other records went on meanwhile, and their replies may have proven another format.
        if self.suspicion is None:
            self._heed(outcome, ask, check_start)

    async def _pictures_of_first_check(self) -> list[Image]:
        # in a thread, because files are opened
        pictures = self._start.pictures()
        limits = self._serving.image_limits
        return await asyncio.to_thread(picture_of_each_kind, pictures, limits, self.asked)

    def _heed(self, outcome: "Outcome", ask: Ask, check_start: CheckStart) -> None:
        # Does what a check's outcome calls for. A check that fits vouches for the replies that had
        # come when it was sent: `check_start` says which these are.
        known = self.known
        self._has_been_checked = True
        known.note(outcome)
        if outcome.kind == "misses":
            self.open.set_aside()
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

    @property
    def _is_mixed(self) -> bool:
        # Whether a probe picture or a reply came in another format lately, though others don't.
        probing = self.known.probing
        return bool((probing and probing.lately_odd_formats) or self.judge.proven)

    # Boxes in another format

    def _suspect(self, message: str, *, sent_alone: bool = False) -> None:
        # Stops the run, or warns and marks the open records. With `sent_alone`, it marks only those
        # for which this run has sent requests. What is known of the format is forgotten, so that
        # the next call in this process checks it again.
        self.suspicion = message
        # This comes first: `_is_mixed` needs what `forget_format` forgets.
        what_became = watch_messages.of_what_became(
            self.known.answers,
            self.open.count_set_aside,
            in_memory=self._in_memory,
            are_mixed=self._is_mixed,
        )
        self.known.forget_format()
        if self.on_suspect == "stop":
            sentences = [message, what_became, watch_messages.for_an_own_serving(self._serving)]
            self._stop_message = ". ".join(filter(None, sentences))
            raise SuspectBoxes(self._stop_message)
        say(f"Warning: {message}.")
        self.known.remember_warning(message)
        self.open.mark(message, sent_alone=sent_alone)

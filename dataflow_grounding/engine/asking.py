"""Getting one request answered: from stored replies, or by sending, waiting and trying again.

A request's key is a digest of what its reply depends on: stored replies are found by it. A request
has up to `max_attempts` tries, for replies that can't be read. Within each, it may be sent several
times, for faults of the endpoint.

A check is a question about no record, which tells whether the model's boxes come as asked. A plain
question tells whether an endpoint works at all. A refusal by an error isn't stored: it is final
within a run, and the next run asks again. A reply is `kept` if a gateway's cache gave it. It is
`repeated` if it is no use: it came before, and another answer was wanted.
"""

import asyncio
import copy
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util import errors
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine._endpoints import (
    REFUSED_IN_A_ROW,
    Endpoint,
    Endpoints,
    most_tries,
    seconds_asked,
)
from dataflow_grounding.engine._outage import Outages
from dataflow_grounding.engine._picture_limit import PictureLimit
from dataflow_grounding.engine._reply_sources import Answerers, SeenReplies
from dataflow_grounding.engine.budget import Budget, with_worst_case
from dataflow_grounding.engine.keyed_log import CHECK, key_of
from dataflow_grounding.engine.limiter import Sent
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plain_questions import about_a_rectangle, sign_of_life
from dataflow_grounding.engine.reply_line import (
    REFUSED_BY_ERROR,
    is_refused_by_error,
    line_of,
    read_lines,
)
from dataflow_grounding.engine.unreadable import FirstReplies, UnreadableReplies, rule_of
from dataflow_grounding.serving.client_errors import fault_of_client
from dataflow_grounding.serving.serving import Reply, Serving, Usage, reply_of
from dataflow_grounding.tasks.request import ReadReply, Request, Tries

if TYPE_CHECKING:
    from dataflow_grounding.engine.annotating import StepAsk

T = TypeVar("T")
# No further reply would help: the request is refused, or the code that reads replies is broken.
_FINAL = (errors.RequestRefused, errors.RepeatedReply, errors.OperatorFailed)

FIRST_PAUSE = 0.5  # seconds before a request is tried again; each further pause is twice as long
LONGEST_PAUSE = 8.0  # seconds, unless the endpoint asks for more
LEAST_OF_PAUSE = 0.1  # what part of the pause is kept, however little the endpoint asks for
SAID_AFTER = 15.0  # seconds without any answer, after which that is reported
LOOK_SECONDS = 0.25  # after which a request that waits looks whether the run has stopped


@dataclass(frozen=True)
class _Try:
    """A try to get a request answered: its reply is there, and is to be read."""

    request: Request[Any]  # without what was wrong with an earlier reply
    by: "StepAsk"
    number: int  # from 1
    key: str  # of the reply in the store
    from_store: bool  # whether an earlier run stored the reply; else it was sent for
    is_check: bool

    @property
    def is_first(self) -> bool:
        """Whether it tells how models answer such questions at first; checks don't."""
        return self.number == 1 and not self.is_check


@dataclass(frozen=True)
class _Failure:
    """What the last try of a request failed with."""

    error: errors.RecordError
    is_stored: bool  # whether all tries were in the store, and sending may bring another reply


@dataclass
class _Pending:
    """A request that is to be answered, and what kept it from that. An outage clears the counts."""

    request: Request[Any]
    by: "StepAsk"
    tries: Counter[str] = field(default_factory=Counter)  # by kind of fault
    failed_at: set[Endpoint] = field(default_factory=set)  # since it last waited
    first_fault_at: float = math.inf  # without rate limits


class Asking:
    """Answers a run's requests to one serving, equal ones once; `by` asks for one record."""

    def __init__(
        self,
        serving: Serving,
        options: RunOptions,
        budget: Budget,
        stop: Callable[[errors.RunStopped], None] | None = None,
        serving_count: int = 1,
    ) -> None:
        self.serving = serving
        self.identity = serving.identity()
        self._serving_count = serving_count  # of the run: they divide the connections it may open
        self.endpoints = Endpoints(serving, options, serving_count)
        self.picture_limit = PictureLimit(serving)
        self.budget = budget
        self.options = options
        # Requests and tokens by what became of them: "sent", "answered", "replayed" (read from the
        # store), "probes" (checks), "rate_limited", "unreadable", "input_tokens", …
        self.counts: Counter[str] = Counter()
        self.stopped: errors.RunStopped | None = None
        self.waiting_for_rate_limit = 0
        self.last_fault: errors.ServerFault | None = None
        # Called with what stops the run; it has to set `self.stopped`, by which `_check_stopped`
        # stops the other requests. Without a run, it does nothing else.
        self._stop = stop or partial(setattr, self, "stopped")
        # by the request's key: the stored line of a reply that is waited for
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}
        # by the request's key: the line of a refusal by an error, which is final for this run
        self._refusals: dict[str, dict[str, Any]] = {}
        self._unreadable = UnreadableReplies(self.counts)
        self._first_replies = FirstReplies()
        self._seen_replies = SeenReplies()
        self._answerers = Answerers(serving.model, self.counts)
        self._begun_at = time.monotonic()
        self._has_told_of_waiting = False
        # A single answer may take longer than the run waits: silence until then is no outage.
        longest_silence = max(options.max_wait, serving.longest_answer)
        self.outages = Outages(self.endpoints, self._ask_plainly, self._wait, longest_silence)
        self._plain_asker: StepAsk | None = None  # on whose behalf plain questions are asked
        # by the endpoint that may refuse all: the plain question that tells whether it does
        self._plain_questions: dict[Endpoint, asyncio.Task[errors.GroundingError | None]] = {}

    def renewed(self) -> "Asking":
        """Return one that sends again after this one has stopped, for a service that goes on."""
        again = Asking(self.serving, self.options, self.budget, serving_count=self._serving_count)
        again._in_flight = self._in_flight  # it waits for these, so that none is paid for twice
        return again

    async def aclose(self) -> None:
        """End connections and plain questions."""
        await self.outages.aclose()
        for plain_question in list(self._plain_questions.values()):
            plain_question.cancel()
            await asyncio.wait([plain_question])
        with suppress(Exception):  # a serving of the user's own may raise anything
            await self.serving.aclose()

    async def answer(self, request: Request[T], by: "StepAsk", check: bool = False) -> ReadReply[T]:
        """Return what a request's reply says, and notes on reading it. Stored replies count as
        tries, but answer no `check`. There is no second try after a refusal, nor after a cut-off
        reply to a `divisible` request. Raises RunStopped, or the last try's RecordError.
        """
        if check:
            for endpoint in self.endpoints.all:
                endpoint.let_check_in()
        from_store = not (self.options.force_reprocess or check)
        outcome = await self._read_in_tries(request, by, check, from_store)
        if isinstance(outcome, _Failure) and outcome.is_stored and self.options.retry_failed:
            # What failed for good is asked again from the first try on, as if nothing were stored.
            outcome = await self._read_in_tries(request, by, check, from_store=False)
        if isinstance(outcome, _Failure):
            raise outcome.error
        return outcome

    async def _read_in_tries(
        self, request: Request[T], by: "StepAsk", check: bool, from_store: bool
    ) -> "ReadReply[T] | _Failure":
        number = 0  # of tries so far
        # Up to the first try that isn't stored. Stored ones after it don't fit any more: a try says
        # what was wrong with the reply before, and that reply is a new one.
        takes_stored = from_store
        error: errors.RecordError | None = None  # of the last try
        first_rule = ""  # the rule that refused the first try's reply; "" for none
        while True:
            complaint = "" if error is None else str(error)
            was_cut_off = isinstance(error, errors.TruncatedReply)
            question = request.again(number, complaint, was_cut_off)
            number += 1
            key = question.key(self.identity)
            # each shard of a run may have one in its own store
            lines = []
            if takes_stored:
                lines = [line for line in by.store.every(key) if not is_refused_by_error(line)]
            if not lines:
                takes_stored = False
                lines = [await self._sent(question, key, by, check)]
            this_try = _Try(request, by, number, key, takes_stored, check)
            try:
                reply = read_lines(question, lines, number)
            except errors.RecordError as failed:
                error = failed
            else:
                error = None
            if first_rule and number == 2:  # tells whether asking again helps
                is_read = error is None
                self._first_replies.add_second(request.task, first_rule, is_read)
            if error is None:
                self._note_read(this_try)
                return reply
            self._note_failed(this_try, error)
            if this_try.is_first:
                first_rule = rule_of(error)
            failure = self._failure_of_last_try(this_try, error)
            if failure is not None:
                return failure

    def _failure_of_last_try(self, this_try: _Try, error: errors.RecordError) -> _Failure | None:
        """Return what the request fails with; None where another try is to be made."""
        if this_try.request.divisible and isinstance(error, errors.TruncatedReply):
            # The caller divides it into smaller requests, and these are what is asked again.
            return _Failure(error, is_stored=False)
        failure = _Failure(error, is_stored=this_try.from_store)
        if isinstance(error, _FINAL) or this_try.number >= self.options.max_attempts:
            return failure
        if this_try.is_first and self._gives_up(this_try, error):
            return failure
        return None

    def _note_read(self, this_try: _Try) -> None:
        work = this_try.by.work
        work.read += 1
        if this_try.from_store:
            work.replayed += 1
            self.counts["replayed"] += 1
        self._unreadable.note_read(this_try.request)
        if this_try.is_first:
            was_sent = not this_try.from_store
            self._first_replies.add(this_try.request, this_try.key, error=None, sent=was_sent)

    def _note_failed(self, this_try: _Try, error: errors.RecordError) -> None:
        """Count and note a reply that could not be read; raises NothingUsable after many."""
        was_sent = not this_try.from_store
        if isinstance(error, errors.RepeatedReply) and not this_try.is_check:
            this_try.by.note(error.kind)  # the summary warns of a gateway's cache
        if was_sent:
            self._count_if_unreadable(this_try, error)
        # With `retry_failed`, a stored reply that failed is asked for again: the new one counts.
        is_asked_again = self.options.retry_failed and not was_sent
        if this_try.is_first and not is_asked_again:
            self._first_replies.add(this_try.request, this_try.key, error, was_sent)

    def _gives_up(self, first_try: _Try, error: errors.RecordError) -> bool:
        """Whether no second try is made, because the same rule would refuse its reply, too."""
        rule = rule_of(error)
        is_to_be_retried = first_try.from_store and self.options.retry_failed
        if not rule or is_to_be_retried:
            return False
        store = first_try.by.store
        # The note of it is a line `{"given_up": rule, …}`, which is no reply. By that, later runs
        # give up at once, and needn't see enough refused replies themselves.
        given_up_key = key_of(f"given up {first_try.key}")
        if first_try.from_store:
            second_try = first_try.request.again(1, str(error))
            if store.every(second_try.key(self.identity)):
                return False  # to read the second reply costs nothing
            note = store.get(given_up_key) or {}
            # a note of another rule is from a version that read replies in another way
            if note.get("given_up") == rule:
                return True
        if not self._first_replies.prevails(first_try.request.task, rule):
            return False
        store.put(given_up_key, {"step": first_try.by.step, "task": CHECK, "given_up": rule})
        return True

    def _count_if_unreadable(self, this_try: _Try, error: errors.RecordError) -> None:
        if not isinstance(error, errors.UnreadableReply):
            return
        if this_try.is_check:  # only records' requests stop a run of which no reply can be read
            self._unreadable.count(this_try.request, error)
            return
        with self._stopping():
            self._unreadable.add(this_try.request, this_try.key, error, this_try.by.store.path)

    async def _sent(
        self, request: Request[T], key: str, by: "StepAsk", check: bool
    ) -> dict[str, Any]:
        """Return the stored line of the reply; equal requests under way at once are sent once."""
        by.work.sent = True
        if request.sending.before_sending is not None:
            await request.sending.before_sending()
        line = None
        if not check:  # a check is asked each time, unless it was refused
            line = by.store.get(key, since=by.store.first_new)
        if line is None:
            line = self._refusals.get(key)
        if line is not None:
            return line
        under_way = self._in_flight.get(key)
        if under_way is not None:
            return await _line_of_equal(under_way)
        # Nothing is awaited between the look above and this entry, so that equal requests of two
        # records are never both sent, and paid for twice.
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            line = await self._sent_and_stored(request, key, by, check)
        except BaseException as error:
            # a waiter would take the CancelledError of this task for one of its own
            is_own = isinstance(error, Exception)
            future.set_exception(error if is_own else errors.Interrupted("stopped"))
            future.exception()  # without a waiter, asyncio would complain that nobody took it
            raise
        finally:
            del self._in_flight[key]
        future.set_result(line)
        return line

    async def _sent_and_stored(
        self, request: Request[T], key: str, by: "StepAsk", check: bool
    ) -> dict[str, Any]:
        """Send, store the reply, and return its line. A refusal by an error isn't stored."""
        try:
            reply = await self._reply(request, by)
            if reply.repeated and not check:
                reply = await self._reply_past_cache(reply, request, by)
        except errors.RequestRefused as refused:
            refusal = Reply("", REFUSED_BY_ERROR, Usage(), str(refused))
            line = line_of(by.step, request, self.serving, refusal, check)
            self._refusals[key] = line
            return line
        # stored before anybody reads it: it is paid for, no matter what happens to the run now
        return by.store.put(key, line_of(by.step, request, self.serving, reply, check))

    async def _reply_past_cache(self, reply: Reply, request: Request[T], by: "StepAsk") -> Reply:
        """Ask again, and ask for a reply of its own, while a cache's is about another picture."""
        # a reply that is repeated in another way, such as a sample that came before, stays
        own_sending = replace(request.sending, own_reply=True)
        for _ in range(self.options.max_attempts - 1):
            if not self._seen_replies.is_of_another_picture(reply, request):
                break
            self._keep_for_cost(reply, request, self.serving, by)
            reply = await self._reply(request.replace(sending=own_sending), by)
        return reply

    async def _reply(self, request: Request[T], by: "StepAsk") -> Reply:
        """Send until there is a reply, or the request has had all of its tries."""
        pending = _Pending(request, by)
        while True:
            endpoint, sent = await self._wait_for_room(pending)
            outcome = await self._reply_or_fault(endpoint, sent, pending)
            if isinstance(outcome, Reply):
                return outcome
            pending.failed_at.add(endpoint)
            await self._wait_until_next_try(outcome, pending)

    async def _reply_or_fault(
        self, endpoint: Endpoint, sent: Sent, pending: _Pending
    ) -> Reply | errors.ServerFault:
        """Send at an endpoint with room; return a fault where a further try may help."""
        is_overloaded = False
        is_answered = False
        try:
            reply = await self._send_once(pending.request, endpoint, pending.by)
            is_answered = True
            self.outages.last_answered = pending.request
            self.picture_limit.answered(pending.request, pending.by)
            return reply
        except (errors.EndpointRefused, errors.RequestRefused) as error:
            # a refusal of this one request counts as an answer: the endpoint had room for it
            is_answered = isinstance(error, errors.RequestRefused)
            return await self._fault_of_refusal(error, endpoint, pending)
        except errors.ServerFault as fault:
            # a full service tier (`flex`, say) doesn't say how many requests the endpoint takes
            is_tier_full = isinstance(fault, errors.TierFull)
            is_overloaded = isinstance(fault, errors.ServerOverloaded) and not is_tier_full
            pending.tries[fault.kind] += 1
            with self._stopping():
                self.endpoints.failed(endpoint, fault, pending.tries[fault.kind])
            return fault
        finally:
            # This lets the next request in, so it comes last. If the endpoint was passed over or
            # given up just above, it lets nobody in.
            self.endpoints.release(endpoint, sent, refused=is_overloaded, answered=is_answered)

    async def _fault_of_refusal(
        self,
        error: errors.EndpointRefused | errors.RequestRefused,
        endpoint: Endpoint,
        pending: _Pending,
    ) -> errors.ServerFault:
        """Return a fault where another endpoint may take the request; else raise what is wrong."""
        if isinstance(error, errors.PictureTooLarge):
            # raises PictureReduced where the operator is to ask again, with smaller pictures
            self.picture_limit.refused(pending.request, error, pending.by)
        with self._stopping():
            refusal = self.endpoints.refused(endpoint, error, pending.failed_at)
            if endpoint.refused_in_a_row >= REFUSED_IN_A_ROW:
                # it may refuse all requests, not this one alone
                refusal = await self._checked_refusal(refusal, error, endpoint, pending)
        if isinstance(refusal, errors.ServerFault):
            return refusal
        raise refusal from None

    async def _wait_until_next_try(self, fault: errors.ServerFault, pending: _Pending) -> None:
        """Wait; raises the fault once all tries are made, of which a rate limit costs none."""
        is_limited = isinstance(fault, errors.RateLimited)
        if not is_limited:
            tries = pending.tries[fault.kind]
            is_out_of_tries = tries >= most_tries(fault, self.options.max_attempts)
            if await self._wait_out_outage(fault, is_out_of_tries, pending):
                return
            if is_out_of_tries:
                fault.attempts = tries
                if isinstance(fault, errors.NoCompletion):
                    with self._stopping():
                        self._unreadable.add_no_completions(pending.request, fault)
                raise fault
        # without a wait, where another endpoint may take it now
        may_change_endpoint = pending.request.sending.endpoint_number is None
        if may_change_endpoint and self.endpoints.askable(pending.failed_at):
            return
        pending.failed_at.clear()  # after the wait, each of them may be asked again
        self.last_fault = fault  # a service tells its clients of it
        self._tell_of_waiting(fault)
        self.waiting_for_rate_limit += int(is_limited)
        try:
            await self._wait(seconds_asked(fault), wait_number=pending.tries.total())
        finally:
            self.waiting_for_rate_limit -= int(is_limited)

    async def _wait_out_outage(
        self, fault: errors.ServerFault, is_out_of_tries: bool, pending: _Pending
    ) -> bool:
        """Return whether the request may be sent again at once: the endpoints answer now."""
        pending.first_fault_at = min(pending.first_fault_at, time.monotonic())
        self.outages.failed(fault)
        # Plain questions are asked only where an outage is suspected, or the request would fail.
        if not (is_out_of_tries or self.outages.is_suspected):
            return False
        if pending.request.sending.endpoint_number is not None:
            # The questions go to all endpoints: an answer of another one would tell nothing here.
            return False
        self._plain_asker = pending.by
        with self._stopping():
            rounds = await self.outages.questions_until_answered(fault, pending.first_fault_at)
        # How many rounds of questions it took tells whose fault it was:
        #   0    -> the request's own: the endpoints answer others
        #   1    -> not known: it is sent again, and the tries so far count
        #   more -> an outage: it is sent again, and the tries so far don't count
        if rounds == 0:
            return False
        was_outage = rounds > 1
        if was_outage:
            pending.tries.clear()
            pending.first_fault_at = math.inf
        pending.failed_at.clear()
        return True

    async def _checked_refusal(
        self,
        record_failure: errors.RecordError,  # what `error` means if the record is at fault
        error: errors.EndpointRefused | errors.RequestRefused,  # the endpoint's last refusal
        endpoint: Endpoint,
        pending: _Pending,
    ) -> errors.RecordError:
        """Return what a refusal after many means: a plain question tells whose fault it is."""
        self._plain_asker = pending.by
        count = endpoint.refused_in_a_row  # read now: the plain question may reset it
        plain_refusal = await self._shared_plain_refusal(endpoint, pending.request.text_only)
        if plain_refusal is None:  # it was answered: the records are at fault
            return record_failure
        # A record's refusal says more than that of a plain question, but for a lack of credit.
        why = plain_refusal if isinstance(plain_refusal, errors.NoCredit) else error
        return self.endpoints.give_up_refusing(endpoint, why, count)

    async def _shared_plain_refusal(
        self, endpoint: Endpoint, text_only: bool
    ) -> errors.GroundingError | None:
        """As `_plain_refusal`, but all who are refused meanwhile wait for the same question."""
        if endpoint not in self._plain_questions:
            plain_question = asyncio.ensure_future(self._plain_refusal(endpoint, text_only))
            plain_question.add_done_callback(lambda _: self._plain_questions.pop(endpoint))
            self._plain_questions[endpoint] = plain_question
        return await asyncio.shield(self._plain_questions[endpoint])

    async def _plain_refusal(
        self, endpoint: Endpoint, text_only: bool
    ) -> errors.EndpointRefused | errors.RequestRefused | None:
        """Ask a plain question; return how it is refused, None if it isn't, or nobody knows."""
        limits = endpoint.serving.image_limits
        question = sign_of_life() if text_only else about_a_rectangle(limits)
        self.counts["probes"] += 1
        tells_nothing = False  # whether a cache or a fault leaves open who was at fault
        try:
            reply = await self._ask_plainly(question, endpoint)
            # If the model has answered, the endpoint works, and `_send_once` has noted that. A
            # gateway's cache tells nothing of the model.
            tells_nothing = reply.kept
        except (errors.EndpointRefused, errors.RequestRefused) as again:
            return again
        except errors.RunStopped:
            raise
        except errors.ServerFault:
            tells_nothing = True
        except Exception:
            # A serving of the user's own may raise this where it doesn't know such a question. It
            # counts as an answer.
            endpoint.answered()
        if tells_nothing:
            endpoint.reset_refusals()  # after REFUSED_IN_A_ROW more, the question is put again
        return None

    async def _ask_plainly(self, request: Request[Any], endpoint: Endpoint) -> Reply:
        by = self._plain_asker
        assert by is not None  # whoever lets a plain question be asked has set it
        reply = await self._send_once(request, endpoint, by)
        self._keep_for_cost(reply, request, endpoint.serving, by)
        return reply

    def _tell_of_waiting(self, fault: errors.ServerFault) -> None:
        """Say once that there is no answer: nothing else is seen of a run that gets none at all."""
        if self._has_told_of_waiting or self.counts["answered"]:
            return
        waited = time.monotonic() - self._begun_at
        # rate limits are usual: they are told only after a while
        at_once = not isinstance(fault, errors.RateLimited)
        if at_once or waited > SAID_AFTER:
            self._has_told_of_waiting = True
            say(f"Note: no answer in {waited:.0f} s, still trying: {str(fault).rstrip('.')}.")

    async def _wait_for_room(self, pending: _Pending) -> tuple[Endpoint, Sent]:
        """Wait for room, and wait again if meanwhile an outage begins or a check comes due."""
        sending = pending.request.sending
        while True:
            if self.outages.under_way:
                with self._stopping():
                    await self.outages.wait_until_over()
            endpoint, sent = await self.endpoints.acquire(
                pending.by.priority, pending.failed_at, sending.endpoint_number
            )
            is_outage = self.outages.under_way
            # `may_send` is asked last of all, because it counts what it lets pass as sent
            if not is_outage and (sending.may_send is None or sending.may_send()):
                return endpoint, sent
            self.endpoints.release(endpoint, sent, refused=False, answered=False)
            if not is_outage and sending.before_sending is not None:
                await sending.before_sending()  # until the check is done

    async def _send_once(self, request: Request[T], endpoint: Endpoint, by: "StepAsk") -> Reply:
        """Send within the budget, note what the reply tells of the endpoint, settle the cost."""
        usage: Usage | None = None  # what is billed; None: unknown, so that the worst case counts
        tier = ""
        self._check_stopped()
        self.picture_limit.check(request, by)
        with self._stopping():
            reserved = await self.budget.reserve(request, endpoint.serving)
        try:
            self._check_stopped()  # once more, because the request may have waited for the budget
            self.counts["sent"] += 1
            # A serving may send further requests for one answer: in other forms, such as without a
            # schema, until one isn't refused.
            refused_forms: list[errors.RequestRefused] = []
            before_another = partial(self._allow_further_form, endpoint, refused_forms)
            sending = replace(request.sending, before_another=before_another)
            sent_at = time.monotonic()
            reply = await _answered(endpoint.serving, request.replace(sending=sending))
            self._answerers.add(reply, endpoint.serving.endpoint)
            for name in self._answerers.others:
                request.sending.other_model(name)
            reply = self._marked_if_repeated(request, reply, endpoint.serving, by)
            tier = reply.tier
            usage = _billed_for(reply, request, endpoint.serving, is_limited=reserved > 0)
            self._note_answer(endpoint, reply, sent_at)
            return reply
        except errors.GroundingError as error:
            usage = self._billed_for_error(error, request, endpoint.serving, by)
            raise
        finally:
            # no matter what is raised, or the room in the budget would never come back
            self.budget.settle(reserved, usage, endpoint.serving, tier)

    def _billed_for_error(
        self, error: errors.GroundingError, request: Request[Any], serving: Serving, by: "StepAsk"
    ) -> Usage | None:
        """Return what is billed for a request without a reply; None where nobody knows."""
        if isinstance(error, errors.RateLimited):
            self.counts["rate_limited"] += 1
        billed: Usage | None = error.billed  # None where the error names no tokens
        if billed is not None and billed != Usage():
            self.counts.update(vars(billed))  # "input_tokens", …
            self._keep_for_cost(Reply("", "error", billed), request, serving, by)
            return billed
        if isinstance(error, errors.ServerFault) and error.may_be_billed:
            return None
        return Usage()

    def _note_answer(self, endpoint: Endpoint, reply: Reply, sent_at: float) -> None:
        self.last_fault = None
        # A reply may ask for a pause before the next request. One that is longer than the run waits
        # is left to the next request, which may stop the run.
        if 0 < reply.hold <= self.options.max_wait:
            endpoint.share.hold(reply.hold)
        if reply.kept:  # the gateway works, which tells nothing of the model behind it
            endpoint.let_in()
        else:
            endpoint.answered(sent_at)
        self.counts["answered"] += 1
        if not reply.kept:  # else its tokens were paid for before
            for name, tokens in vars(reply.usage).items():  # "input_tokens", …
                self.counts[name] += tokens

    def _marked_if_repeated(
        self, request: Request[Any], reply: Reply, serving: Serving, by: "StepAsk"
    ) -> Reply:
        """Return the reply, marked if it is a cache's though another answer was wanted."""
        self._seen_replies.note(reply)
        is_of_another_picture = self._seen_replies.is_of_another_picture(reply, request)
        was_to_be_new = reply.kept and request.wants_own_reply
        is_repeated = is_of_another_picture or was_to_be_new
        if not is_repeated and self._seen_replies.needs_comparing(request):
            is_repeated = self._came_before(reply, request, by)
        if is_repeated:
            # before the reply is counted, because it warns of the first one
            self._tell_of_cache(serving, is_of_another_picture)
            self.counts["repeated"] += 1
            self.counts["of_another_picture"] += int(is_of_another_picture)
            # A repeated reply is taken to come from the cache. But if the gateway marks what its
            # cache gives, one without a mark came from the model, and was paid for.
            is_kept = reply.kept or not self._seen_replies.gateway_marks_kept
            reply = replace(reply, kept=is_kept, repeated=True)
        self.counts["kept"] += int(reply.kept)
        return reply

    def _came_before(self, reply: Reply, request: Request[Any], by: "StepAsk") -> bool:
        """Return whether another sample of the answer to this question was the same reply."""
        # all samples go by one key: that of the first try for the first of them
        first_request = request.replace(sample=0, tries=Tries())
        earlier_samples = []  # their stored replies
        for sample in range(request.sample):
            lines = by.store.every(first_request.replace(sample=sample).key(self.identity))
            earlier_samples += [line for line in lines if not line.get("repeated")]
        question_key = first_request.key(self.identity)
        return self._seen_replies.came_before(request.sample, reply, question_key, earlier_samples)

    def _tell_of_cache(self, serving: Serving, is_of_another_picture: bool) -> None:
        """Warn of the first repeated reply, and of the first about another picture."""
        if is_of_another_picture and not self.counts["of_another_picture"]:
            say(
                f"Warning: {serving.endpoint} answers from a cache, and gave the reply about one"
                " picture to a question about another. Such replies are asked for again, but what"
                " it kept before this run isn't noticed: switch its cache off, as by a header in"
                f" {setting('vlm.openai.extra_headers')}."
            )
        elif not self.counts["repeated"]:
            say(
                f"Warning: {serving.endpoint} answers from a cache: such replies don't count as"
                f" further answers, nor as checks. Switch its cache off, as by a header in"
                f" {setting('vlm.openai.extra_headers')}, and run again with --retry-failed."
            )

    def _keep_for_cost(
        self, reply: Reply, request: Request[Any], serving: Serving, by: "StepAsk"
    ) -> None:
        """Store for `cost` what answers no record's request: it is paid for, too."""
        line = line_of(by.step, request, serving, reply, check=True)
        by.store.put(key_of(f"paid {time.time_ns()}"), line)  # no record's request has that key

    def _allow_further_form(
        self,
        endpoint: Endpoint,
        refused_forms: list[errors.RequestRefused],
        refused: errors.RequestRefused | None = None,
    ) -> None:
        """Count a further request for one answer; raise RunStopped if it may not be sent."""
        if refused is not None:
            refused_forms.append(refused)
            endpoint.refused(refused)
            # a serving of the user's own may never run out of other forms
            if len(refused_forms) >= REFUSED_IN_A_ROW:
                raise endpoint.error_of_refusing_all(refused, len(refused_forms))
        with self._stopping():
            self._check_stopped()
            self.budget.count_further_request()
        self.counts["sent"] += 1

    def _check_stopped(self) -> None:
        if self.stopped is not None:
            # Without its traceback, which grows with each time that the error is raised: a service
            # raises it for days.
            raise self.stopped.with_traceback(None)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Stop the run if the block raises RunStopped."""
        try:
            yield
        except errors.RunStopped as why:
            self._stop(why)
            raise

    async def _wait(self, asked_for: float | None, wait_number: int) -> None:
        """Wait longer each time, from `wait_number` 1 on; or as long as is `asked_for`."""
        doublings = min(wait_number - 1, 10)  # more make a number too large for a float at last
        seconds = min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE)
        if asked_for is not None:
            seconds = max(asked_for, seconds * LEAST_OF_PAUSE)  # but not much less than usual
        # longer by lot, so that those that wait don't all come back at once
        until = time.monotonic() + seconds * random.uniform(1.0, 1.25)
        while True:
            self._check_stopped()
            left = until - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, LOOK_SECONDS))


async def _line_of_equal(under_way: "asyncio.Future[dict[str, Any]]") -> dict[str, Any]:
    try:
        # Shielded: this record may be cancelled, while the request is another one's and goes on.
        return await asyncio.shield(under_way)
    except errors.RecordError as error:
        raise copy.copy(error) from None  # each record's own: operators may add to it


def _billed_for(
    reply: Reply, request: Request[Any], serving: Serving, *, is_limited: bool
) -> Usage | None:
    """Return the tokens that a reply is billed for; None where the endpoint reports none."""
    if reply.kept:  # no model has worked for it
        return Usage()
    if reply.usage == Usage():
        return None
    if is_limited:  # a budget in USD counts them, with the worst case for what isn't reported
        return with_worst_case(reply.usage, request, serving, reply.text)
    return reply.usage


async def _answered(serving: Serving, request: Request[Any]) -> Reply:
    """Send by a serving; a user's own may let the errors of its HTTP client through."""
    try:
        return await reply_of(serving, request)
    except errors.GroundingError:
        raise
    except Exception as error:
        fault = fault_of_client(error, f"{type(serving).__name__} ({serving.model})")
        if fault is None:
            raise
        raise fault from error

"""Getting one request answered: from stored replies, or by the chain of senders.

A request's key is a digest of what its reply depends on: stored replies are found by it. A request
has up to `max_attempts` tries, for replies that can't be read: each was paid for. Within each, it
may be sent several times, for faults of the endpoint; that is the senders' work.

A check is a question about no record, which tells whether the model's boxes come as asked.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from dataflow_grounding._util import errors
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.keyed_log import CHECK, key_of
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.reply_line import is_refused_by_error, read_lines
from dataflow_grounding.engine.senders.gateway_cache import PastCaches
from dataflow_grounding.engine.senders.heard_replies import HeardReplies
from dataflow_grounding.engine.senders.other_models import Answerers
from dataflow_grounding.engine.senders.outage import Outage
from dataflow_grounding.engine.senders.paying import Paying
from dataflow_grounding.engine.senders.picture_limit import PictureLimit, WithinLimit
from dataflow_grounding.engine.senders.places import Places
from dataflow_grounding.engine.senders.refusals import Refusals
from dataflow_grounding.engine.senders.retry import Retry
from dataflow_grounding.engine.senders.sender import Asked, RecordAsker, Sender
from dataflow_grounding.engine.senders.silence import Silence
from dataflow_grounding.engine.senders.stored import StoredReplies
from dataflow_grounding.engine.senders.to_serving import ToServing
from dataflow_grounding.engine.senders.traffic import Traffic
from dataflow_grounding.engine.unreadable import FirstReplies, UnreadableReplies, rule_of
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.request import ReadReply, Request

T = TypeVar("T")
# No further reply would help: the request is refused, or the code that reads replies is broken.
_FINAL = (errors.RequestRefused, errors.RepeatedReply, errors.OperatorFailed)


@dataclass(frozen=True)
class _Try:
    """A try to get a request answered: its reply is there, and is to be read."""

    request: Request[Any]  # without what was wrong with an earlier reply
    by: RecordAsker
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
        self.budget = budget
        self.options = options
        self._serving_count = serving_count  # of the run: they divide the connections it may open
        self.traffic = Traffic(serving, options, stop)
        self.counts = self.traffic.counts
        self._unreadable = UnreadableReplies(self.counts)
        self._first_replies = FirstReplies()

        heard = HeardReplies()
        answerers = Answerers(serving.model, self.counts)
        self.picture_limit = PictureLimit(serving)

        def to_endpoint(part: Serving) -> Sender:
            paying = Paying(part, ToServing(part, answerers), budget, self.traffic, heard)
            return WithinLimit(paying, self.picture_limit)

        is_shared = options.shard is not None
        self.places = Places(serving, self.traffic, to_endpoint, serving_count, is_shared)
        self._refusals = Refusals(self.places, self.traffic)
        self._outage = Outage(self._refusals, self.traffic, self.places)
        self.silence = Silence(Retry(self._outage, self.traffic), self.traffic)
        past_caches = PastCaches(self.silence, heard, self.traffic, serving)
        self._stored = StoredReplies(past_caches, serving)

    @property
    def stopped(self) -> errors.RunStopped | None:
        """Why nothing more is sent."""
        return self.traffic.stopped

    @stopped.setter
    def stopped(self, why: errors.RunStopped) -> None:
        self.traffic.stopped = why

    def renewed(self) -> "Asking":
        """Return one that sends again after this one has stopped, for a service that goes on."""
        again = Asking(self.serving, self.options, self.budget, serving_count=self._serving_count)
        # it waits for these, so that none is paid for twice
        again._stored.under_way = self._stored.under_way
        return again

    async def aclose(self) -> None:
        """End plain questions, and what the serving opens for a call, if no other call asks it."""
        self.silence.close()
        await self._outage.aclose()
        await self._refusals.aclose()
        if not self.places.are_used:
            with suppress(Exception):  # a serving of the user's own may raise anything
                await self.serving.aclose()

    async def answer(
        self, request: Request[T], by: RecordAsker, check: bool = False
    ) -> ReadReply[T]:
        """Return what a request's reply says, and notes on reading it. Stored replies count as
        tries, but answer no `check`. There is no second try after a refusal, nor after a cut-off
        reply to a `divisible` request. Raises RunStopped, or the last try's RecordError.
        """
        if check:
            self.places.let_check_in()
        from_store = not (self.options.force_reprocess or check)
        outcome = await self._read_in_tries(request, by, check, from_store)
        if isinstance(outcome, _Failure) and outcome.is_stored and self.options.retry_failed:
            # What failed for good is asked again from the first try on, as if nothing were stored.
            outcome = await self._read_in_tries(request, by, check, from_store=False)
        if isinstance(outcome, _Failure):
            raise outcome.error
        return outcome

    async def _read_in_tries(
        self, request: Request[T], by: RecordAsker, check: bool, from_store: bool
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
                by.note_sent()
                lines = [await self._sent(Asked(question, by, key, check))]
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
        if this_try.from_store:
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
        with self.traffic.stopping():
            self._unreadable.add(this_try.request, this_try.key, error, this_try.by.store.path)

    async def _sent(self, asked: Asked) -> JsonObject:
        """Return the stored line of the reply."""
        try:
            return await self._stored.line(asked)
        except errors.NoCompletion as fault:
            with self.traffic.stopping():
                self._unreadable.add_no_completions(asked.request, fault)
            raise

"""Getting one request answered: from stored replies, or by the chain of senders.

A request's key is a digest of what its reply depends on: stored replies are found by it. A request
has up to `max_attempts` tries, for replies that can't be read: each was paid for. Within each, it
may be sent several times, for faults of the endpoint; that is the senders' work.

A check is a question about no record, which tells whether the model's boxes come as asked.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from dataflow_grounding._util import errors
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.reply_line import is_refused_by_error, read_lines
from dataflow_grounding.engine.senders.gateway_cache import PastCaches
from dataflow_grounding.engine.senders.heard_replies import HeardReplies
from dataflow_grounding.engine.senders.other_models import Answerers
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
from dataflow_grounding.engine.unreadable import FirstReplies, UnreadableReplies
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.request import ReadReply, Request

T = TypeVar("T")
# No further reply would help: the request is refused, or the code that reads replies is broken.
_FINAL = (errors.RequestRefused, errors.RepeatedReply, errors.OperatorFailed)


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

        self.places = Places(serving, self.traffic, to_endpoint, serving_count)
        refusals = Refusals(self.places, self.traffic)
        self.silence = Silence(Retry(refusals, self.traffic, self.places), self.traffic)
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
        await self.traffic.aclose()
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
        # Up to the first try that isn't stored. Stored ones after it don't fit any more: a try says
        # what was wrong with the reply before, and that reply is a new one.
        takes_stored = not (self.options.force_reprocess or check)
        number = 0  # of tries so far
        error: errors.RecordError | None = None  # of the last try
        while True:
            complaint = "" if error is None else str(error)
            was_cut_off = isinstance(error, errors.TruncatedReply)
            question = request.again(number, complaint, was_cut_off)
            asked = Asked(question, by, question.key(self.identity), check)
            number += 1
            # each shard of a run may have one in its own store
            lines = []
            if takes_stored:
                lines = by.store.every(asked.key)
                lines = [line for line in lines if not is_refused_by_error(line)]
            if not lines:
                takes_stored = False
                by.note_sent()
                lines = [await self._sent(asked)]
            try:
                reply = read_lines(question, lines, number)
            except errors.RecordError as failed:
                error = failed
            else:
                self._note_read(asked, takes_stored)
                return reply
            if isinstance(error, errors.RepeatedReply) and not check:
                by.note(error.kind)  # the summary warns of a gateway's cache
            if not takes_stored and isinstance(error, errors.UnreadableReply):
                self._note_unreadable(asked, error)
            if request.divisible and isinstance(error, errors.TruncatedReply):
                raise error  # the caller divides it into smaller requests, which are asked again
            if isinstance(error, _FINAL) or number >= self.options.max_attempts:
                if not (takes_stored and self.options.retry_failed):
                    raise error
                # what failed for good is asked again from the first try on, as if nothing were
                # stored
                number, error, takes_stored = 0, None, False

    def _note_read(self, asked: Asked, was_stored: bool) -> None:
        self._unreadable.note_read(asked.request)
        if was_stored:
            self.counts["replayed"] += 1
        elif not asked.is_check:  # a check's question tells nothing of those about records
            self._first_replies.add(asked.request, None)

    def _note_unreadable(self, asked: Asked, error: errors.UnreadableReply) -> None:
        """Count a reply that was sent for; raises NothingUsable after many."""
        if asked.is_check:  # only records' requests stop a run of which no reply can be read
            self._unreadable.count(asked.request, error)
            return
        self._first_replies.add(asked.request, error)
        with self.traffic.stopping():
            self._unreadable.add(asked.request, asked.key, error, asked.by.store.path)

    async def _sent(self, asked: Asked) -> JsonObject:
        """Return the stored line of the reply."""
        try:
            return await self._stored.line(asked)
        except errors.NoCompletion as fault:
            with self.traffic.stopping():
                self._unreadable.add_no_completions(asked.request, fault)
            raise

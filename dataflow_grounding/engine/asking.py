"""Getting one request answered: from the store of replies, or by sending, waiting, and trying
again.
"""

import asyncio
import copy
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_grounding._util import errors
from dataflow_grounding.engine._places import Place, Places, most_tries
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.reply_line import line_of, read_lines
from dataflow_grounding.serving.base import Reply, Serving, Usage
from dataflow_grounding.tasks.request import ReadReply, Request

if TYPE_CHECKING:
    from dataflow_grounding.engine.annotating import StepAsk

T = TypeVar("T")


class Asking:
    """Answers the requests to one serving for a whole run, equal ones once; `stop` is told what
    stops the run.
    """

    def __init__(
        self,
        serving: Serving,
        options: RunOptions,
        budget: Budget,
        stop: Callable[[errors.RunStopped], None] | None = None,
        servings: int = 1,
    ) -> None:
        self.serving = serving
        self.identity = serving.identity()
        self.places = Places(serving, options, servings)
        self.budget, self.options = budget, options
        self.counts: Counter[str] = Counter()
        self.stopped: errors.RunStopped | None = None
        self.waiting_for_rate_limit = 0
        self._stop = stop or partial(setattr, self, "stopped")
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def answer(self, request: Request[T], by: "StepAsk", check: bool = False) -> ReadReply[T]:
        """What `request`'s reply says, and notes on reading it. Raises what failed, with `attempts`
        and `reply` set.

        A `check` is asked anew each time.
        """
        attempt, stored = 0, not (self.options.force_reprocess or check)
        error: errors.RecordError | None = None
        while True:
            tried = request.again(
                attempt, str(error or ""), isinstance(error, errors.TruncatedReply)
            )
            key = tried.key(self.identity)
            lines = self._replayed(tried, key, by) if stored else []
            if not lines:
                stored = False
                by.unstored()
                lines = [await self._sent(tried, key, by, check)]
            attempt += 1
            try:
                found = read_lines(tried, lines, attempt)
                self.counts["replayed"] += stored
                return found
            except errors.RecordError as failed:
                error = failed
                self.counts["unreadable"] += not stored and _is_unreadable(failed)
                # by whoever asks
                divided = request.divisible and isinstance(failed, errors.TruncatedReply)
                if (
                    divided
                    or attempt >= self.options.max_attempts
                    or isinstance(failed, errors.RequestRefused)
                ):
                    if divided or not stored or not self.options.retry_failed:
                        raise
                    attempt, stored, error = 0, False, None

    def _stored(self, tried: Request[Any], key: str, by: "StepAsk") -> list[dict[str, Any]]:
        keys = itertools.chain([key], map(tried.key, self.serving.other_identities))
        return next(filter(None, map(by.store.every, keys)), [])

    def _replayed(self, tried: Request[Any], key: str, by: "StepAsk") -> list[dict[str, Any]]:
        """The stored lines of replies to a try; whoever reads them can find out whether there was a
        further try.
        """
        lines = self._stored(tried, key, by)
        if lines and tried.stored is not None:
            further = tried.again(tried.attempt + 1, "")
            tried.stored(lambda: bool(self._stored(further, further.key(self.identity), by)))
        return lines

    async def _sent(
        self, request: Request[T], key: str, by: "StepAsk", check: bool
    ) -> dict[str, Any]:
        """The stored line of the reply to a request that has no reply in the store, or none that
        counts.
        """
        if request.before is not None:
            await request.before()
        done = None if check else by.store.get(key, by.store.first_new)  # an equal row came first
        done = done or self.places.held.get(key, [None])[0]
        if done is not None:
            return done
        under_way = self._in_flight.get(key)
        if under_way is not None:
            try:
                return await asyncio.shield(under_way)
            except errors.RecordError as error:
                raise copy.copy(error) from None  # each record's own: operators may add to it
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            reply = await self._reply(request, by.priority)
            line = by.store.put(key, line_of(by.step, request, self.serving, reply, check))
            future.set_result(line)
            return line
        except errors.RequestRefused as refused:
            # stored, so that it is asked again only when the user wants it
            line = line_of(
                by.step, request, self.serving, Reply("", "refused", Usage(), str(refused)), check
            )
            self.places.held[key] = (line, refused.passing, by.store)
            future.set_result(line)
            return line
        except BaseException as error:
            future.set_exception(
                error if isinstance(error, Exception) else errors.Interrupted("stopped")
            )
            future.exception()  # whoever waits sees it; nobody need wait
            raise
        finally:
            del self._in_flight[key]

    async def _reply(self, request: Request[T], priority: Any) -> Reply:
        """Sends until a reply comes; faults of the server are tried again, rate
        limits waited for.
        """
        tries, failed = Counter[str](), set[Place]()  # the latter since it last waited
        while True:
            place, number = await self._room(request, priority, failed)
            refused = answered = False
            try:
                reply = await self._send_once(request, place)
                answered = True
                return reply
            except (errors.EndpointRefused, errors.RequestRefused) as error:
                # perhaps the endpoint's as a whole
                answered = isinstance(error, errors.RequestRefused)
                with self._stopping():
                    refusal = self.places.refused(place, error, failed)
                if not isinstance(refusal, errors.ServerFault):
                    raise refusal from None
                fault = refusal
            except errors.ServerFault as error:
                fault = error
                refused = isinstance(fault, errors.ServerOverloaded)
                tries[fault.kind] += 1
                with self._stopping():
                    self.places.failed(place, fault, tries[fault.kind])
            finally:  # once it is known whether the endpoint may be asked at all
                self.places.release(place, number, refused=refused, answered=answered)
            failed.add(place)
            limited = isinstance(fault, errors.RateLimited)
            if not limited and tries[fault.kind] >= most_tries(fault, self.options.max_attempts):
                fault.attempts = tries[fault.kind]
                raise fault
            if request.at is None and self.places.others(failed):
                continue
            failed.clear()
            self.waiting_for_rate_limit += limited
            try:
                await self._wait(getattr(fault, "retry_after", None), tries.total())
            finally:
                self.waiting_for_rate_limit -= limited

    async def _room(
        self, request: Request[Any], priority: Any, failed: set[Place]
    ) -> tuple[Place, int]:
        """Where there is room to send a request that may be sent: things may have changed while it
        waited for room.
        """
        while True:
            place, number = await self.places.acquire(priority, failed, request.at)
            if request.may_send is None or request.may_send():
                return place, number
            self.places.release(place, number, refused=False, answered=False)
            if request.before is not None:
                await request.before()

    async def _send_once(self, request: Request[T], place: Place) -> Reply:
        usage: Usage | None = None  # until an answer says otherwise, it may be billed
        self._check_stopped()
        with self._stopping():
            reserved = await self.budget.reserve(request, place.serving)
        try:
            self._check_stopped()
            self.counts["sent"] += 1
            answer = await place.serving.answer(
                request.put_so(before_another=partial(self._count_another, place))
            )
            reply = Reply(answer) if isinstance(answer, str) else answer
            if not isinstance(reply, Reply):
                whose = f"answer of {type(place.serving).__name__}"
                raise errors.OperatorFailed(f"{whose} returned no Reply and no text: {reply!r:.60}")
            usage = reply.usage if reply.usage != Usage() else None  # none told: its worst case
            if 0 < reply.hold <= self.options.max_wait:  # where it says longer, a request finds out
                place.share.hold(reply.hold)
            place.answered()
            self.counts.update(answered=1, **vars(reply.usage))
            return reply
        except errors.GroundingError as error:
            self.counts["rate_limited"] += isinstance(error, errors.RateLimited)
            at_work = isinstance(error, errors.ServerFault) and not isinstance(
                error, errors.EndpointUnreachable
            )
            if isinstance(error, errors.ServerOverloaded) or not at_work:
                usage = Usage()
            raise
        finally:
            self.budget.settle(reserved, usage)

    def _count_another(self, place: Place, refused: errors.RequestRefused | None = None) -> None:
        """The serving sends once more for one answer: it was refused, and finds out what the
        endpoint takes.
        """
        if refused is not None:  # in so many forms, it counts as often
            place.refused(refused)
        with self._stopping():
            self._check_stopped()
            self.budget.count()
        self.counts["sent"] += 1

    def _check_stopped(self) -> None:
        if self.stopped is not None:
            raise self.stopped

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """What stops the run here stops it for all."""
        try:
            yield
        except errors.RunStopped as why:
            self._stop(why)
            raise

    async def _wait(self, asked_for: float | None, waits: int) -> None:
        """Sleep what the endpoint asked for, or 0.5 s doubling to 8 s, jittered; never less than a
        tenth of that.
        """
        own = min(0.5 * 2 ** min(waits - 1, 10), 8.0)
        seconds = own if asked_for is None else max(asked_for, own / 10)
        until = time.monotonic() + seconds * random.uniform(1.0, 1.25)
        while (left := until - time.monotonic()) > 0:
            self._check_stopped()
            await asyncio.sleep(min(left, 0.25))
        self._check_stopped()


def _is_unreadable(failed: errors.RecordError) -> bool:
    return isinstance(failed, errors.UnreadableReply) and not isinstance(
        failed, errors.SuspectReply
    )

"""The endpoints of a run: what their errors say about them, and which one a request goes to.

A request goes to one with room, and to none that is dead.
"""

import asyncio
import math
import random
import time
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from dataflow_grounding._util import errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.limiter import Share, gate_of, share_of
from dataflow_grounding.engine.options import RunOptions, limiters_of
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.serving.http_errors import is_about_content

# requests refused with no answer between them, after which it is no longer their records' fault
REFUSED_IN_A_ROW = 10
OVERLOADED_TRIES = 10
UNREACHABLE_TRIES = 3
FAULTS_BEFORE_FIRST_ANSWER = 50
ODD_BEFORE_FIRST_ANSWER = 8
OUTAGE_SECONDS = 300.0
FAULTS_IN_A_ROW = 5  # after which another endpoint is better
LONGEST_REST = 60.0

Held: TypeAlias = dict[str, tuple[dict[str, Any], bool, KeyedLog]]
"""Refusals kept out of their stores until an answer has come, by key: line, whether it may be the
endpoint's rather than the record's, and the store.
"""


class Endpoint:
    """One endpoint of a run, sent one request at a time until it answers.

    It counts what came since the last answer.
    """

    def __init__(
        self, serving: Serving, weight: float, share: Share, max_wait: float, held: Held
    ) -> None:
        self.serving = serving
        self.weight = weight
        self.share = share
        self._max_wait = max_wait
        self._longest_answer = serving.longest_answer
        self._held = held
        # by the process's clock; None before the first answer of this run
        self.last_answer: float | None = None
        # of the rate limits that came since the last answer, when the first one came
        self._limited_since: float | None = None
        # The others count what came since the last answer.
        self._faults = 0
        self._odd = 0  # of the faults, answers that are no completion
        self._refused = 0
        self.rests = 0  # how often it was passed over; each rest is twice as long
        self.misses = 0  # faults and rate limits, where there are several endpoints
        self.given_up: errors.RunStopped | None = None
        """What would stop a run that had no other endpoint."""
        # A wrong key or address is found out by one request, not by all that may be in flight.
        share.allow(1)

    @property
    def resting(self) -> bool:
        """Whether it is passed over for now."""
        return not self.share.allowed

    def answered(self) -> None:
        """An answer has come: the endpoint is well.

        So the refusals before it were about their records, and are stored.
        """
        for key, (line, _, store) in self._held.items():
            store.put(key, line)
        self._held.clear()
        self.last_answer = time.monotonic()
        self._limited_since = None
        self._faults = 0
        self._odd = 0
        self._refused = 0
        self.rests = 0
        self.misses = 0
        self.given_up = None
        self.share.allow(self.share.most)

    def refused(
        self, error: errors.EndpointRefused | errors.RequestRefused
    ) -> errors.RequestRefused:
        """Return a refusal as its record's own failure.

        It is `passing` where the endpoint may be at fault instead: the next run asks again. Raises
        EndpointRefused where no other request would fare better: a wrong key, ten refusals in a row
        or before any answer.
        """
        if is_about_content(str(error)):
            # to refuse what a record shows, the endpoint has to work
            self.answered()
            return errors.RequestRefused(str(error))
        self._refused += 1
        if isinstance(error, errors.EndpointRefused):
            if error.certain or self.last_answer is None:
                raise error
            if self._refused >= REFUSED_IN_A_ROW:
                raise errors.EndpointRefused(
                    f"{error} {self._refused} requests in a row were refused"
                )
            refusal = errors.RequestRefused(str(error))
            refusal.passing = True
            return refusal
        if self.last_answer is None and self._refused >= REFUSED_IN_A_ROW:
            reason = str(error).rstrip(".")
            count = f"{self._refused} requests were refused and none was answered"
            raise errors.EndpointRefused(
                f"{reason}. {count}: check the key, the model and the settings"
            )
        return error

    def failed(self, error: errors.ServerFault, tries: int, worn: bool = False) -> None:
        """Count a fault or a rate limit.

        Args:
            error: The fault.
            tries: How often the same request has had such a fault.
            worn: Whether the endpoint has had so many that the next one is one too many.

        Raises:
            EndpointRefused: It has never answered, and can't be expected to.
            OutOfService: It has answered, but not for long now.
            QuotaUsedUp: It asks to wait for longer than the run may.
        """
        wait = getattr(error, "retry_after", None) or 0.0
        if wait > self._max_wait:
            come = "later"
            if wait < 10**7:
                then = time.localtime(time.time() + wait)
                come = time.strftime("at %H:%M on %Y-%m-%d", then)
            raise errors.QuotaUsedUp(f"{error}. It asks to wait {duration(wait)}: come back {come}")
        if isinstance(error, errors.RateLimited):
            self._check_rate_limit(error)
        else:
            self._count_fault(error, tries, worn=worn)

    def _check_rate_limit(self, error: errors.RateLimited) -> None:
        """Note when rate limits began; raise QuotaUsedUp if nothing else has come for too long."""
        now = time.monotonic()
        self._limited_since = self._limited_since or now
        waited = now - self._limited_since
        if waited > max(self._max_wait, self._longest_answer):
            raise errors.QuotaUsedUp(
                f"{error}. No answer came for {duration(waited)}: come back later"
            )

    def _count_fault(self, error: errors.ServerFault, tries: int, *, worn: bool) -> None:
        """Count a fault of the server; the arguments are those of `failed`.

        After many faults, raises EndpointRefused where no answer has come yet, and OutOfService
        where none has come for long.
        """
        hopeless = isinstance(error, errors.EndpointUnreachable) and tries >= UNREACHABLE_TRIES
        self._faults += 1
        self._odd += isinstance(error, errors.NoCompletion)
        often = worn or self._faults >= FAULTS_BEFORE_FIRST_ANSWER
        if self.last_answer is None:
            if hopeless or often or self._odd >= ODD_BEFORE_FIRST_ANSWER:
                raise errors.EndpointRefused(
                    f"{error}. Nothing was answered: check the address and the server"
                )
            return
        outage = max(OUTAGE_SECONDS, self._longest_answer)
        if often and time.monotonic() - self.last_answer > outage:
            raise errors.OutOfService(
                f"{error}. Nothing was answered for {outage:g} s: run again to go on"
            )

    def rest(self, why: errors.GroundingError) -> None:
        """Pass it over for a second, then two, four, …; one request tries it after each."""
        if not self.rests and not isinstance(why, errors.RateLimited):
            reason = str(why).rstrip(".")
            say(f"Warning: {reason}. It is passed over, and tried again now and then.")
        asked_for = getattr(why, "retry_after", None) or 0.0
        seconds = max(asked_for, min(2.0**self.rests, LONGEST_REST))
        self.rests += 1
        self.share.allow(0)
        asyncio.get_running_loop().call_later(
            seconds, lambda: self.share.allow(self.share.allowed or 1)
        )


class Endpoints:
    """The endpoints of one of a run's servings: one, or several.

    Args:
        serving: Whose endpoints they are; `most` in flight are of all of them.
        options: How the run goes.
        servings: How many servings of the run share the connections that may be open.
    """

    def __init__(self, serving: Serving, options: RunOptions, servings: int) -> None:
        is_shared = options.shard is not None
        limiters = limiters_of(options)
        self.held: Held = {}
        self.all = []
        for part, weight in serving.endpoints():
            share = share_of(part, servings, is_shared, limiters)
            self.all.append(Endpoint(part, weight, share, options.max_wait, self.held))
        self.most = min(endpoint.share.most for endpoint in self.all)
        self._gate: Share | None = None
        if len(self.all) > 1:
            self._gate = gate_of(serving, [endpoint.share for endpoint in self.all], limiters)

    def store_held_refusals(self) -> int:
        """Store, at the end of a run, those refusals that were held back until then.

        A stored refusal isn't asked again. So they are stored only if the endpoints have answered
        anything else, as otherwise the endpoint is at fault, not the records; and not those that
        pass by themselves. Returns how many aren't stored: the next run asks these again.
        """
        has_answered = any(endpoint.last_answer is not None for endpoint in self.all)
        for key, (line, passing, store) in list(self.held.items()):
            if has_answered and not passing:
                store.put(key, line)
                del self.held[key]
        return len(self.held)

    def askable(self, failed: Collection[Endpoint]) -> list[Endpoint]:
        """Return the endpoints that may be asked now, without those in `failed`."""
        return [
            endpoint for endpoint in self.all if endpoint not in failed and not endpoint.resting
        ]

    async def acquire(
        self, priority: Any, failed: Collection[Endpoint], at: int | None
    ) -> tuple[Endpoint, int]:
        """Wait for room at an endpoint; returns it, and the request's number there.

        Raises EndpointUnreachable for one `at` that rests.
        """
        if self._gate is None:
            return self.all[0], await self.all[0].share.acquire(priority)
        if at is not None and self.all[at].resting:
            raise errors.EndpointUnreachable(
                f"{self.all[at].serving.endpoint} is passed over for now"
            )
        # The gate first, then an endpoint: who waits at the gate holds no room that another could
        # use.
        await self._gate.acquire(priority)
        try:
            while True:
                candidates = self._candidates(failed, at)
                while free := [endpoint for endpoint in candidates if endpoint.share.is_free]:
                    endpoint = self._drawn(free)
                    # at once: else another may take it, and this one waits here
                    number = endpoint.share.take()
                    if number is not None:
                        return endpoint, number
                first = await _first_free(candidates, priority)
                if first is not None:
                    return first
        except BaseException:
            self._gate.release(0, answered=False)
            raise

    def _candidates(self, failed: Collection[Endpoint], at: int | None) -> list[Endpoint]:
        """Return the endpoints that a request may go to, once they have room.

        That is the endpoint numbered `at` where the request is meant for one, else all that aren't
        in `failed`, and where none of these may be asked now, any. Resting ones among them have no
        room until they have rested.
        """
        if at is not None:
            return [self.all[at]]
        if self.askable(failed):
            return [endpoint for endpoint in self.all if endpoint not in failed]
        return self.all

    def _drawn(self, free: list[Endpoint]) -> Endpoint:
        """Draw an endpoint by weight from those with room.

        Those that have less than their part of the requests in flight come first: else a slow one
        would come to hold all of them.
        """
        part = self.most / sum(endpoint.weight for endpoint in self.askable([]))
        below = [endpoint for endpoint in free if endpoint.share.in_flight < part * endpoint.weight]
        candidates = below or free
        return random.choices(candidates, [endpoint.weight for endpoint in candidates])[0]

    def release(self, endpoint: Endpoint, number: int, *, refused: bool, answered: bool) -> None:
        """Give a request's room at an endpoint back; see Share.release."""
        endpoint.share.release(number, refused=refused, answered=answered)
        if self._gate is not None:
            self._gate.release(0, answered=answered)

    def refused(
        self,
        endpoint: Endpoint,
        error: errors.EndpointRefused | errors.RequestRefused,
        failed: Collection[Endpoint],
    ) -> errors.RecordError:
        """What a refusal means for its request: its own, or EndpointUnreachable.

        Raises what stops the run.
        """
        try:
            refusal = endpoint.refused(error)
        except errors.EndpointRefused as why:
            self._give_up(endpoint, why)
            return errors.EndpointUnreachable(str(why))
        if refusal.passing and self.askable([*failed, endpoint]):
            return errors.EndpointUnreachable(str(error))
        return refusal

    def failed(self, endpoint: Endpoint, error: errors.ServerFault, tries: int) -> None:
        """Count a fault or a wish to wait, of a request that had `tries` like it.

        Raises what stops the run.
        """
        if self._gate is None:
            endpoint.failed(error, tries)
            return
        if endpoint.resting:  # the request was sent before it was passed over
            return
        endpoint.misses += 1
        on_trial = endpoint.rests or endpoint.last_answer is None
        try:
            endpoint.failed(error, 0, worn=endpoint.rests + 1 >= UNREACHABLE_TRIES)
        except errors.RunStopped as why:
            self._give_up(endpoint, why)
            return
        is_unreachable = isinstance(error, errors.EndpointUnreachable)
        if on_trial or is_unreachable or endpoint.misses >= FAULTS_IN_A_ROW:
            endpoint.rest(error)

    def _give_up(self, endpoint: Endpoint, why: errors.RunStopped) -> None:
        """Pass an endpoint over. Raises, in `why`'s class, once all are given up."""
        endpoint.given_up = why
        reasons = [str(each.given_up) for each in self.all if each.given_up]
        if len(reasons) == len(self.all):
            raise type(why)("; ".join(dict.fromkeys(reasons)))
        if not endpoint.resting:
            endpoint.rest(why)


async def _first_free(endpoints: Sequence[Endpoint], priority: Any) -> tuple[Endpoint, int] | None:
    """Wait at all of them for the first endpoint, and the request's number there.

    None after a second, as which of them are fit may change.
    """
    turns = {
        asyncio.ensure_future(endpoint.share.acquire(priority)): endpoint for endpoint in endpoints
    }
    chosen = None
    try:
        done, _ = await asyncio.wait(turns, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        chosen = next(iter(done))
        return turns[chosen], chosen.result()
    finally:
        for turn, endpoint in turns.items():
            if turn is chosen:
                continue
            was_waiting = turn.cancel()
            if not was_waiting:  # it has room already, which nobody else would give back
                endpoint.share.release(turn.result(), answered=False)


def most_tries(error: errors.ServerFault, usual: int) -> float:
    """How often a request is tried that ends in this error each time.

    That is endlessly where it is the run that stops.
    """
    if isinstance(error, errors.EndpointUnreachable):
        return math.inf
    return OVERLOADED_TRIES if isinstance(error, errors.ServerOverloaded) else usual

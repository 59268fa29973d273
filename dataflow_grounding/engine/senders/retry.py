"""Tries of one request, for faults of the endpoint: how often, and how long it waits before each.

A rate limit costs no try, and neither does an outage. Tries for replies that can't be read are
above the store, because each of these was paid for.
"""

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field

from dataflow_grounding._util import errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.engine.senders.outage import Outage, WhoseFault
from dataflow_grounding.engine.senders.sender import Asked
from dataflow_grounding.engine.senders.traffic import Traffic, seconds_asked
from dataflow_grounding.serving.serving import Reply

OVERLOADED_TRIES = 10  # tries of one request at a busy endpoint, after which its record fails
TOLD_AFTER = 15.0  # seconds of rate limits before the first answer, after which that is said
LONGEST_DATED_WAIT = 10.0**7  # seconds: no date is told for the end of a longer wait


@dataclass
class _Tries:
    """What kept a request from being answered. An outage clears it."""

    by_kind: Counter[str] = field(default_factory=Counter)  # of fault
    first_fault_at: float = math.inf  # without rate limits


class Retry:
    """Sends until there is a reply, or the request has had all of its tries."""

    def __init__(self, sender: Outage, traffic: Traffic) -> None:
        self._next = sender
        self._traffic = traffic
        # hears whether others are answered, while a reply asks to wait for longer than the run does
        self._others: asyncio.Task[None] | None = None
        self._begun_at = time.monotonic()
        self._has_told_of_waiting = False

    async def send(self, asked: Asked) -> Reply:
        tries = _Tries()
        while True:
            try:
                return await self._next.send(asked)
            except errors.ServerFault as error:
                fault = error
            await self._before_next_try(fault, asked, tries)

    async def _before_next_try(
        self, fault: errors.ServerFault, asked: Asked, tries: _Tries
    ) -> None:
        """Wait; raises the fault once all tries are made."""
        traffic = self._traffic
        traffic.last_fault = fault
        wait = seconds_asked(fault)
        if wait is not None and wait > traffic.max_wait:
            await self._until_others_are_answered(fault, wait)
            wait = None
        is_limited = isinstance(fault, errors.RateLimited)
        tries.by_kind[fault.kind] += 1
        if not is_limited:
            tries.first_fault_at = min(tries.first_fault_at, time.monotonic())
            most: float = traffic.max_attempts
            if asked.request.sending.endpoint_number is None:  # others go on where one is dead
                most = _most_tries(fault, traffic.max_attempts)
            is_out_of_tries = tries.by_kind[fault.kind] >= most
            whose = await self._next.whose_fault(
                asked, fault, tries.first_fault_at, is_out_of_tries
            )
            if whose is WhoseFault.ENDPOINT:
                tries.by_kind.clear()
                tries.first_fault_at = math.inf
            if whose is not WhoseFault.REQUEST:
                return
            if is_out_of_tries:
                fault.attempts = tries.by_kind[fault.kind]
                raise fault
        self._tell_of_waiting(fault)
        traffic.waiting_for_rate_limit += int(is_limited)
        try:
            await traffic.pause(wait, tries.by_kind.total())
        finally:
            traffic.waiting_for_rate_limit -= int(is_limited)

    async def _until_others_are_answered(self, fault: errors.ServerFault, wait: float) -> None:
        """Return once another request is answered: then the wait that one reply asks for, longer
        than the run waits, isn't the endpoint's. Raises QuotaUsedUp where none is answered.
        """
        traffic = self._traffic
        if self._others is None:  # all whom such a reply has told to wait go by the same
            self._others = asyncio.ensure_future(self._hear_of_others(fault, wait))
            traffic.question = self._others  # nothing else is sent meanwhile
        await asyncio.shield(self._others)

    async def _hear_of_others(self, fault: errors.ServerFault, wait: float) -> None:
        traffic = self._traffic
        since = time.monotonic()
        try:
            while True:
                if traffic.last_answer is not None and traffic.last_answer > since:
                    return
                if fault.is_quota or not traffic.in_flight or traffic.last_answer is None:
                    break
                await traffic.pause(0.0, 1)
            with traffic.stopping():
                raise errors.QuotaUsedUp(
                    f"{fault}. It asks to wait {duration(wait)}: come back {_time_after(wait)}"
                )
        finally:
            self._others = None
            traffic.question = None

    def _tell_of_waiting(self, fault: errors.ServerFault) -> None:
        """Say once that there is no answer: nothing else is seen of a run that gets none at all."""
        if self._has_told_of_waiting or self._traffic.counts["answered"]:
            return
        waited = time.monotonic() - self._begun_at
        # rate limits are usual: they are told only after a while
        if not isinstance(fault, errors.RateLimited) or waited > TOLD_AFTER:
            self._has_told_of_waiting = True
            say(f"Note: no answer in {waited:.0f} s, still trying: {str(fault).rstrip('.')}.")


def _most_tries(fault: errors.ServerFault, usual: int) -> float:
    """Return how many tries a request has in all, if each ends in such a fault."""
    if isinstance(fault, errors.EndpointUnreachable):
        return math.inf  # at last the endpoint is given up, and not the request
    return OVERLOADED_TRIES if isinstance(fault, errors.ServerOverloaded) else usual


def _time_after(seconds: float) -> str:
    """Return the end of a wait: `at 14:05 on 2025-03-01`."""
    if seconds >= LONGEST_DATED_WAIT:
        return "later"
    return time.strftime("at %H:%M on %Y-%m-%d", time.localtime(time.time() + seconds))

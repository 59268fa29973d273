"""Endpoints that answer nothing more: what is a request's own fault, and what is an outage.

A request that fails may be at fault itself, or the endpoint may be out of service. Where a request
is answered that was sent later, the first one is at fault. Where none is, a plain question of this
module's own tells: until it is answered, nothing else is sent, and no request loses a try.
"""

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from dataflow_grounding._util import errors
from dataflow_grounding.engine._endpoints import Endpoint, Endpoints, seconds_asked
from dataflow_grounding.engine.plain_questions import sign_of_life
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.tasks.request import Request

OUTAGE_AFTER = 20.0  # seconds of faults without an answer, after which it is an outage

Ask: TypeAlias = Callable[[Request[Any], Endpoint], Awaitable[object]]


class Outages:
    """What is known of outages of a serving's endpoints."""

    def __init__(
        self,
        endpoints: Endpoints,
        ask: Ask,
        wait: Callable[[float | None, int], Awaitable[None]],
        longest_silence: float,
    ) -> None:
        self._endpoints = endpoints
        self._ask = ask
        self._wait = wait  # takes the seconds that an endpoint asks for, and which wait it is
        self._longest_silence = longest_silence  # seconds, after which the run stops
        self._first_fault_at = math.inf  # when the first fault since the last answer came
        self._last_fault: errors.ServerFault | None = None
        self._recovery: asyncio.Task[int] | None = None  # None while no outage is suspected
        # whether only plain questions are sent now, because one of them wasn't answered
        self.under_way = False
        self.last_answered: Request[Any] | None = None

    @property
    def is_suspected(self) -> bool:
        return self.silence >= min(OUTAGE_AFTER, self._longest_silence)

    @property
    def silence(self) -> float:
        """Seconds since the first fault; 0 without one, or once a later request was answered."""
        has_worked_since = self._endpoints.worked_at > self._first_fault_at
        if has_worked_since or self._first_fault_at == math.inf:
            return 0.0
        return time.monotonic() - self._first_fault_at

    def __str__(self) -> str:
        """Return it in words: `no answer for 42 s: 503: upstream down`; "" while there is none."""
        silence = self.silence
        if not self.under_way or silence < OUTAGE_AFTER:
            return ""
        # of "http://host:8000/v1 answered 503: upstream down", what comes after "answered"
        why = str(self._last_fault).rpartition(" answered ")[2]
        return f"no answer for {duration(silence)}: {why:.100}"

    def failed(self, fault: errors.ServerFault) -> None:
        if not self.silence:  # this fault is the first one since an answer
            self._first_fault_at = time.monotonic()
        self._last_fault = fault

    async def wait_until_over(self) -> None:
        """Wait for the end of an outage, if one is known. Raises as `questions_until_answered`."""
        if self.under_way and self._recovery is not None:
            await asyncio.shield(self._recovery)

    async def questions_until_answered(self, fault: errors.ServerFault, since: float) -> int:
        """Wait until the endpoints answer, and return how many rounds of plain questions that took.
        `since` is when a request failed first. Raises OutOfService for an outage that is too long.

        - 0: the endpoints have answered others since then. The request is at fault itself.
        - 1: they answered at once. The request may be at fault, or an outage has just ended.
        - more: there was an outage.
        """
        # Before an address has ever answered, only a 503 (busy) shows that there is an endpoint.
        may_be_out = self._endpoints.have_answered or isinstance(fault, errors.ServerOverloaded)
        if self._endpoints.worked_at > since or not may_be_out:
            return 0
        if self._recovery is None:
            self._recovery = asyncio.ensure_future(self._recovered())
            self._recovery.add_done_callback(_seen)
        return await asyncio.shield(self._recovery)

    async def aclose(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait([self._recovery])

    async def _recovered(self) -> int:
        """Ask plain questions until one is answered; return how many rounds that took."""
        rounds = 0
        try:
            while True:
                rounds += 1
                fault = await self._ask_all_endpoints()
                if fault is None:
                    return rounds
                self._last_fault = fault
                self.under_way = True
                self._endpoints.note_outage()
                silence = self.silence
                if silence > self._longest_silence:
                    raise errors.OutOfService(
                        f"{str(fault).rstrip('.')}. Nothing was answered for {duration(silence)}:"
                        " run again to go on"
                    )
                await self._wait(seconds_asked(fault), rounds)
        finally:
            # Here, and not in a callback of the task: that would run after the requests that the
            # answer lets in, which would still find an outage under way.
            self._recovery = None
            self.under_way = False
            self._first_fault_at = math.inf

    async def _ask_all_endpoints(self) -> errors.ServerFault | None:
        """Return None once an endpoint answers, else the last fault."""
        fault: errors.ServerFault | None = errors.ServerFault("nothing was asked")
        for question, endpoint in itertools.product(self._questions(), self._endpoints.all):
            fault = await self._fault_of(endpoint, question)
            if fault is None:
                break
        return fault

    def _questions(self) -> list[Request[Any]]:
        questions: list[Request[Any]] = [sign_of_life()]
        if self.last_answered is not None:
            # A server may fail only at questions without a picture. So this one is asked, too, as a
            # further try after a reply that never came: else a gateway's cache would answer.
            unread_count = self.last_answered.tries.unread + 1
            never_said = f"reply {secrets.token_hex(4)}"
            questions.append(self.last_answered.again(unread_count, never_said))
        return questions

    async def _fault_of(
        self, endpoint: Endpoint, question: Request[Any]
    ) -> errors.ServerFault | None:
        """Ask one endpoint; return None where it works."""
        try:
            await self._ask(question, endpoint)
        except errors.EndpointRefused as error:
            # Raises once all endpoints are given up. What it returns is a record's failure, and is
            # dropped: this question is about no record.
            self._endpoints.refused(endpoint, error, failed=[])
            return errors.ServerFault(str(error))
        except errors.RunStopped:
            raise
        except errors.ServerFault as error:
            if isinstance(error, errors.RateLimited):
                # raises if the wait would be too long
                self._endpoints.failed(endpoint, error, tries=1)
            return error
        except Exception:  # a refusal, or a serving that doesn't know the question: it works
            endpoint.works_again()
        return None


def _seen(recovery: "asyncio.Task[int]") -> None:
    if not recovery.cancelled():
        recovery.exception()  # waiters get the error; without any, asyncio would complain

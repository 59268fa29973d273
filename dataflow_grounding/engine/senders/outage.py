"""Faults: whether a request is at fault itself, or its endpoint is out of service.

Where a request is answered that was sent later, the first one is at fault. Where none is, a plain
question tells: until it is answered, nothing else is sent, and no request loses a try.
"""

import asyncio
import enum
import math
import time

from dataflow_grounding._util import errors
from dataflow_grounding.engine.plain_questions import about_a_rectangle, sign_of_life
from dataflow_grounding.engine.senders.places import Places
from dataflow_grounding.engine.senders.refusals import Refusals
from dataflow_grounding.engine.senders.sender import Asked, PlainAsker
from dataflow_grounding.engine.senders.stored import keep_for_cost
from dataflow_grounding.engine.senders.traffic import Traffic, seconds_asked
from dataflow_grounding.serving.serving import Reply

OUTAGE_AFTER = 20.0  # seconds of faults without an answer, after which an outage is suspected
# Tries after which an endpoint that can't be reached and has never answered is given up.
UNREACHABLE_TRIES = 3
# Failed requests, and seconds since the first one, after which an endpoint that has never answered
# is given up. A gateway may be in front of a dead model, and try each request three times itself.
FAULTS_AT_THE_START = 10
SECONDS_AT_THE_START = 60.0
# answers that are no completion: after these the address is given up
NO_COMPLETIONS_AT_THE_START = 8


class WhoseFault(enum.Enum):
    """Who is at fault when a request fails."""

    REQUEST = "the request: its tries count"
    NOBODY_KNOWS = "it is sent again at once, and its tries count"
    ENDPOINT = "there was an outage: it is sent again, and its tries don't count"


class Outage:
    """Holds requests back during an outage, and tells whose fault a fault is."""

    def __init__(self, sender: Refusals, traffic: Traffic, places: Places) -> None:
        self._next = sender
        self._traffic = traffic
        self._places = places
        self._first_fault_at = math.inf  # since an answer to a later request
        self._recovery: asyncio.Task[int] | None = None  # None while no outage is suspected
        # before the first answer:
        self._faults = 0  # without those that say that it is busy
        self._unreachable = 0
        self._no_completions = 0

    async def send(self, asked: Asked) -> Reply:
        try:
            return await self._next.send(asked)
        except errors.ServerFault as fault:
            if self._traffic.worked_at > self._first_fault_at or self._first_fault_at == math.inf:
                self._first_fault_at = time.monotonic()
            is_busy = isinstance(fault, errors.ServerOverloaded)  # then it exists, and will answer
            if self._traffic.last_answer is None and not is_busy:
                self._count_at_the_start(fault)
            raise

    def _count_at_the_start(self, fault: errors.ServerFault) -> None:
        """Raise EndpointRefused once an endpoint that has never answered is given up."""
        self._faults += 1
        self._unreachable += isinstance(fault, errors.EndpointUnreachable)
        self._no_completions += isinstance(fault, errors.NoCompletion)
        is_hopeless = (
            isinstance(fault, errors.Redirected)
            or self._unreachable >= UNREACHABLE_TRIES
            or self._no_completions >= NO_COMPLETIONS_AT_THE_START
            or self._faults >= FAULTS_AT_THE_START
            or time.monotonic() - self._first_fault_at >= SECONDS_AT_THE_START
        )
        if is_hopeless:
            with self._traffic.stopping():
                raise errors.EndpointRefused(
                    f"{fault}. Nothing was answered: check the address and the server"
                )

    async def whose_fault(
        self, asked: Asked, fault: errors.ServerFault, since: float, is_out_of_tries: bool
    ) -> WhoseFault:
        """Wait for an outage's end, if this is one; `since` is when the request failed first."""
        traffic = self._traffic
        # Before an address has ever answered, only a 503 (busy) shows that there is an endpoint.
        may_be_out = traffic.last_answer is not None or isinstance(fault, errors.ServerOverloaded)
        if traffic.worked_at > since or not may_be_out:
            return WhoseFault.REQUEST
        is_suspected = time.monotonic() - self._first_fault_at >= OUTAGE_AFTER
        # plain questions go to any endpoint: they would tell nothing of the one that is meant
        is_for_one = asked.request.sending.endpoint_number is not None
        if is_for_one or not (is_out_of_tries or is_suspected):
            return WhoseFault.REQUEST
        if self._recovery is None:
            self._recovery = asyncio.ensure_future(self._recovered(asked))
            self._recovery.add_done_callback(_look_at_error)
        rounds = await asyncio.shield(self._recovery)
        return WhoseFault.ENDPOINT if rounds > 1 else WhoseFault.NOBODY_KNOWS

    async def _recovered(self, asked: Asked) -> int:
        """Ask plain questions until one is answered; return how many rounds that took."""
        rounds = 0
        try:
            while True:
                rounds += 1
                fault = await self._fault_of_plain_questions(asked)
                if fault is None:
                    return rounds
                self._traffic.last_fault = fault
                self._traffic.question = self._recovery  # nothing else is sent until it is answered
                self._places.note_outage()
                await self._traffic.pause(seconds_asked(fault), rounds)
        finally:
            # Here, and not in a callback of the task: that would run after the requests that the
            # answer lets in, which would still find an outage under way.
            self._recovery = None
            self._traffic.question = None
            self._first_fault_at = math.inf

    async def _fault_of_plain_questions(self, asked: Asked) -> errors.ServerFault | None:
        """Return None where one is answered or refused: in words, or about a picture. A server may
        fail only at questions of the one kind.
        """
        serving = self._places.serving
        by = PlainAsker(asked.by.store, asked.by.step)
        fault: errors.ServerFault | None = None
        for question in (sign_of_life(), about_a_rectangle(serving.image_limits)):
            try:
                reply = await self._next.send(Asked(question, by, is_check=True))
                keep_for_cost(reply, question, serving, by)
                return None
            except errors.EndpointRefused as error:
                if error.certain:
                    raise
                fault = errors.ServerFault(str(error))  # a gateway in an outage may say 404
            except errors.RunStopped:
                raise
            except errors.ServerFault as error:
                fault = error
            except Exception:  # a refusal, or a serving that doesn't know the question: it works
                self._traffic.worked_at = time.monotonic()
                return None
        return fault

    async def aclose(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait([self._recovery])


def _look_at_error(recovery: "asyncio.Task[int]") -> None:
    if not recovery.cancelled():
        recovery.exception()  # waiters get the error; without any, asyncio would complain

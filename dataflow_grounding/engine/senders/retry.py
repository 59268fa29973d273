"""Faults: how often a request is sent, and whether it is at fault itself or its endpoint is down.

A rate limit costs no try. Where a request has failed too often, and none that was sent later is
answered, a plain question tells: until it is answered, nothing else is sent, and no request loses a
try. Tries for replies that can't be read are above the store, because each of these was paid for.
"""

import math
import time
from collections import Counter

from dataflow_grounding._util import errors
from dataflow_grounding.engine.plain_questions import about_a_rectangle, sign_of_life
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.engine.senders.places import Places
from dataflow_grounding.engine.senders.question import Question
from dataflow_grounding.engine.senders.sender import Asked, PlainAsker, Sender
from dataflow_grounding.engine.senders.stored import keep_for_cost
from dataflow_grounding.engine.senders.traffic import Traffic, seconds_asked
from dataflow_grounding.serving.serving import Reply

OVERLOADED_TRIES = 10  # tries of one request at a busy endpoint, after which its record fails
OUTAGE_AFTER = 20.0  # seconds of faults without an answer, after which an outage is suspected
LONGEST_DATED_WAIT = 10.0**7  # seconds: no date is told for the end of a longer wait
# Tries after which an endpoint that can't be reached and has never answered is given up.
UNREACHABLE_TRIES = 3
# Failed requests, and seconds since the first one, after which an endpoint that has never answered
# is given up. A gateway may be in front of a dead model, and try each request three times itself.
FAULTS_AT_THE_START = 10
SECONDS_AT_THE_START = 60.0


class Retry:
    """Sends until there is a reply, or the request has had all of its tries."""

    def __init__(self, sender: Sender, traffic: Traffic, places: Places) -> None:
        self._next = sender
        self._traffic = traffic
        self._places = places
        self._first_fault_at = math.inf  # since an answer to a later request
        # before the first answer, without those that say that it is busy:
        self._faults = 0
        self._unreachable = 0
        self._recovery = Question(traffic, self._recovered)
        self._others_answered = Question(traffic, self._hear_of_others)

    async def send(self, asked: Asked) -> Reply:
        traffic = self._traffic
        # what kept this request from being answered:
        tries = Counter[str]()  # by the kind of fault
        first_fault_at = math.inf  # without rate limits
        while True:
            try:
                return await self._next.send(asked)
            except errors.ServerFault as error:
                fault = error
            self._note(fault)
            wait = seconds_asked(fault)
            if wait is not None and wait > traffic.max_wait:
                await self._others_answered.answer(fault, wait)
                wait = None
            tries[fault.kind] += 1
            is_limited = isinstance(fault, errors.RateLimited)
            if not is_limited:
                first_fault_at = min(first_fault_at, time.monotonic())
                is_out_of_tries = tries[fault.kind] >= self._most_tries(fault, asked)
                if self._may_be_down(asked, fault, first_fault_at, is_out_of_tries):
                    if await self._recovery.answer(asked) > 1:  # it was: these tries don't count
                        tries.clear()
                        first_fault_at = math.inf
                    continue
                if is_out_of_tries:
                    fault.attempts = tries[fault.kind]
                    raise fault
            traffic.waiting_for_rate_limit += int(is_limited)
            try:
                await traffic.pause(wait, tries.total())
            finally:
                traffic.waiting_for_rate_limit -= int(is_limited)

    def _note(self, fault: errors.ServerFault) -> None:
        """Raise EndpointRefused once an endpoint that has never answered is given up."""
        traffic = self._traffic
        traffic.last_fault = fault
        if traffic.worked_at > self._first_fault_at or self._first_fault_at == math.inf:
            self._first_fault_at = time.monotonic()
        is_busy = isinstance(fault, errors.ServerOverloaded)  # then it exists, and will answer
        if traffic.last_answer is not None or is_busy:
            return
        self._faults += 1
        self._unreachable += isinstance(fault, errors.EndpointUnreachable)
        is_hopeless = (
            isinstance(fault, errors.Redirected)
            or self._unreachable >= UNREACHABLE_TRIES
            or self._faults >= FAULTS_AT_THE_START
            or time.monotonic() - self._first_fault_at >= SECONDS_AT_THE_START
        )
        if is_hopeless:
            with traffic.stopping():
                raise errors.EndpointRefused(
                    f"{fault}. Nothing was answered: check the address and the server"
                )

    def _most_tries(self, fault: errors.ServerFault, asked: Asked) -> float:
        """Return how many tries a request has in all, if each ends in such a fault."""
        if asked.request.sending.endpoint_number is None:  # others go on where one is dead
            if isinstance(fault, errors.EndpointUnreachable):
                return math.inf  # at last the endpoint is given up, and not the request
            if isinstance(fault, errors.ServerOverloaded):
                return OVERLOADED_TRIES
        return self._traffic.max_attempts

    def _may_be_down(
        self, asked: Asked, fault: errors.ServerFault, since: float, is_out_of_tries: bool
    ) -> bool:
        """Whether a plain question is to tell; `since` is when the request failed first."""
        traffic = self._traffic
        if traffic.worked_at > since:  # one that was sent later is answered
            return False
        # Before an address has ever answered, only a 503 (busy) shows that there is an endpoint.
        if traffic.last_answer is None and not isinstance(fault, errors.ServerOverloaded):
            return False
        # plain questions go to any endpoint: they would tell nothing of the one that is meant
        if asked.request.sending.endpoint_number is not None:
            return False
        return is_out_of_tries or time.monotonic() - self._first_fault_at >= OUTAGE_AFTER

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
                await self._traffic.pause(seconds_asked(fault), rounds)
        finally:
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

    async def _hear_of_others(self, fault: errors.ServerFault, wait: float) -> None:
        """Return once another request is answered: then the wait that one reply asks for, longer
        than the run waits, isn't the endpoint's. Raises QuotaUsedUp where none is answered.
        """
        traffic = self._traffic
        since = time.monotonic()
        while traffic.last_answer is None or traffic.last_answer <= since:
            if fault.is_quota or not traffic.in_flight or traffic.last_answer is None:
                with traffic.stopping():
                    raise errors.QuotaUsedUp(
                        f"{fault}. It asks to wait {duration(wait)}: come back {_time_after(wait)}"
                    )
            await traffic.pause(0.0, 1)


def _time_after(seconds: float) -> str:
    """Return the end of a wait: `at 14:05 on 2025-03-01`."""
    if seconds >= LONGEST_DATED_WAIT:
        return "later"
    return time.strftime("at %H:%M on %Y-%m-%d", time.localtime(time.time() + seconds))

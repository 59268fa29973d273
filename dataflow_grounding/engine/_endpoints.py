"""The endpoints of a run: what their errors say about them, and which one a request goes to.

A request goes to one with room. One that is given up gets none, but for a try now and then. A share
(limiter.py) says how many requests may be in flight to an endpoint: its places. A refusal may be
about its record alone, such as a picture that is too large, or about all requests, such as a wrong
key: after REFUSED_IN_A_ROW of them a plain question tells.
"""

import asyncio
import math
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util import errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.limiter import Sent, Share, gate_of, share_of
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import Serving

# requests refused with no answer between them, after which a plain question tells whose fault it is
REFUSED_IN_A_ROW = 10
OVERLOADED_TRIES = 10  # tries of one request at a busy endpoint, after which its record fails
# Tries of one request, after which an endpoint that can't be reached and has never answered is
# given up. Where there are several endpoints, it is how often one failed, with a rest after each
# time.
UNREACHABLE_TRIES = 3
# Failed requests, and seconds since the first one, after which an endpoint that has never answered
# is given up. A gateway may be in front of a dead model, and try each request three times itself.
FAULTS_AT_THE_START = 10
SECONDS_AT_THE_START = 60.0
# answers that are no completion: after these the address is given up
NO_COMPLETIONS_AT_THE_START = 8
FAULTS_IN_A_ROW = 5  # after which another endpoint is better
LONGEST_REST = 60.0  # seconds, unless an endpoint asks for more
# after which a request that waits looks again which endpoints may be asked
LOOK_AGAIN_SECONDS = 1.0
LONGEST_DATED_WAIT = 10.0**7  # seconds: no date is told for the end of a longer wait


@dataclass
class _Faults:
    """What came in place of answers since an endpoint's last answer."""

    limited_since: float | None = None  # when the first rate limit came
    failed_since: float | None = None  # when the first fault of any other kind came
    count: int = 0  # without rate limits, and without faults that say that it is busy
    no_completions: int = 0  # of these, answers that are no completion


class Endpoint:
    """One endpoint of a run, with counts of what came since its last answer."""

    def __init__(
        self,
        serving: Serving,
        weight: float,
        share: Share,
        max_wait: float,
    ) -> None:
        self.serving = serving
        self.weight = weight
        self.share = share
        self._max_wait = max_wait
        self._longest_answer = serving.longest_answer
        # All times are by the process's clock.
        self.last_answer: float | None = None  # None before the first answer of this run
        self.worked_at = 0.0  # when the last request that was answered was sent; 0 for none
        # What came since the last answer:
        self._faults = _Faults()
        self._refusal_times: list[float] = []
        self._credit_refused = 0  # of the refusals, those for want of credit
        self.rests = 0  # how often it was passed over; each rest is twice as long
        self.misses = 0  # faults and rate limits; counted only where there are several endpoints
        self.given_up: errors.RunStopped | None = None  # what stops a run without other endpoints
        self._is_out = False  # whether Outages has found that it answers nothing
        # how many places it was found to have before the first of these faults
        self._places_before_faults = share.found
        # A wrong key or address is found out by one request, not by all that may be in flight.
        share.allow(1)

    @property
    def resting(self) -> bool:
        """Whether it is passed over for now."""
        return not self.share.allowed

    def answered(self, sent_at: float | None = None) -> None:
        """Note an answer to a request sent at `sent_at`, by the process's clock; None is now."""
        worked_at = time.monotonic() if sent_at is None else sent_at
        self.last_answer = time.monotonic()
        # Before `works_again`, which lets waiting requests in: each of them notes how many answers
        # came before it, and this one is among these.
        self.share.note_answer()
        self._refusal_times = [came for came in self._refusal_times if came > worked_at]
        self._credit_refused = 0
        self.works_again(sent_at)

    def let_check_in(self) -> None:
        """Open a place for a check, next to the first request."""
        if self.share.allowed == 1:  # before the first answer, and after a rest
            self.share.allow(2)

    def let_in(self) -> None:
        """Open all places: a gateway lets requests in, no matter what is behind it."""
        self.share.allow(self.share.most)

    @property
    def refused_in_a_row(self) -> int:
        """How many requests it has refused since it last worked."""
        return len(self._refusal_times)

    def reset_refusals(self) -> None:
        """Count refusals from 0 again: no plain question has told whether it refuses all."""
        self._refusal_times.clear()

    def works_again(self, sent_at: float | None = None) -> None:
        """Forget the faults, and open all places: a request sent then, or now, was answered."""
        worked_at = time.monotonic() if sent_at is None else sent_at
        self.worked_at = max(self.worked_at, worked_at)
        self._faults = _Faults()
        self.rests = 0
        self.misses = 0
        self.given_up = None
        if self._is_out:  # after the outage, as many as were found before it
            self._is_out = False
            self.share.resume(self._places_before_faults)
        self.let_in()

    def note_outage(self) -> None:
        self._is_out = True

    def refused(
        self, error: errors.EndpointRefused | errors.RequestRefused
    ) -> errors.RequestRefused | errors.CreditTooLow:
        """Count a refusal, and return it as its record's own failure. Raises EndpointRefused where
        other requests would be refused, too.

            a RequestRefused, or of a content filter -> the record's failure
            no credit, once                          -> the record's failure, a CreditTooLow
            no credit, again                         -> raised
            `certain`: it can't be about this request alone, as a wrong key -> raised
            any other, if it has never answered      -> raised
            any other, if it has                     -> the record's failure, but `passing`: the
                                                        endpoint may be at fault, so another one
                                                        is asked
        """
        if isinstance(error, errors.NoCredit):
            self._credit_refused += 1
            # A single one may be about a request that costs more than is left.
            is_credit_gone = error.certain or self._credit_refused > 1
            if is_credit_gone:
                raise error
            return errors.CreditTooLow(str(error))
        self._refusal_times.append(time.monotonic())
        refusal = errors.RequestRefused(str(error))
        if is_about_content(str(error)):  # a content filter has read the request: it works
            self.last_answer = time.monotonic()
            self.works_again()
        elif isinstance(error, errors.EndpointRefused):
            # before its first answer, it is more likely that the key or the address is wrong
            if error.certain or self.last_answer is None:
                raise error
            refusal.passing = True
        return refusal

    def error_of_refusing_all(
        self, error: errors.EndpointRefused | errors.RequestRefused, count: int
    ) -> errors.RunStopped:
        """Return what stops the run after `count` refusals and that of a plain question."""
        if isinstance(error, errors.NoCredit):
            return error
        return errors.EndpointRefused(
            f"{str(error).rstrip('.')}. {count} requests in a row were refused, and so was a plain"
            " question: check the key, the credit, the model and the settings"
        )

    def failed(self, error: errors.ServerFault, tries: int, has_failed_often: bool = False) -> None:
        """Count a fault or rate limit; raises what stops a run once it is given up."""
        wait = seconds_asked(error) or 0.0
        if wait > self._max_wait:
            raise errors.QuotaUsedUp(
                f"{error}. It asks to wait {duration(wait)}: come back {_time_after(wait)}"
            )
        if isinstance(error, errors.RateLimited):
            self._check_rate_limit(error)
        else:
            self._count_fault(error, tries, has_failed_often=has_failed_often)

    def _check_rate_limit(self, error: errors.RateLimited) -> None:
        """Raise QuotaUsedUp where rate limits have lasted for too long."""
        now = time.monotonic()
        if self._faults.limited_since is None:
            self._faults.limited_since = now
        waited = now - self._faults.limited_since
        # What was in flight at the first rate limit may still be answered, as late as the longest
        # answer takes. Until then, silence is no sign that the quota is used up.
        if waited > max(self._max_wait, self._longest_answer):
            raise errors.QuotaUsedUp(
                f"{error}. No answer came for {duration(waited)}: come back later"
            )

    def _count_fault(
        self, error: errors.ServerFault, tries: int, *, has_failed_often: bool
    ) -> None:
        now = time.monotonic()
        is_busy = isinstance(error, errors.ServerOverloaded)
        if self._faults.failed_since is None:  # this is the first fault since the last answer
            self._places_before_faults = self.share.found
            self._faults.failed_since = now
        if not is_busy:
            self._faults.count += 1
        if isinstance(error, errors.NoCompletion):
            self._faults.no_completions += 1
        has_ever_worked = self.last_answer is not None
        # One that has ever worked isn't given up here: it has an outage, which Outages waits out.
        # One that is busy exists, and will answer.
        if has_ever_worked or is_busy:
            return
        seconds = now - self._faults.failed_since
        if has_failed_often or self._is_hopeless(error, tries, seconds):
            raise errors.EndpointRefused(
                f"{error}. Nothing was answered: check the address and the server"
            )

    def _is_hopeless(self, error: errors.ServerFault, tries: int, seconds: float) -> bool:
        """Return whether one that never answered is given up, after `tries` of this request."""
        if isinstance(error, errors.Redirected):
            return True
        if isinstance(error, errors.EndpointUnreachable) and tries >= UNREACHABLE_TRIES:
            return True
        if self._faults.count >= FAULTS_AT_THE_START or seconds >= SECONDS_AT_THE_START:
            return True
        return self._faults.no_completions >= NO_COMPLETIONS_AT_THE_START

    def rest(self, why: errors.GroundingError) -> None:
        """Pass it over for 1 s, then 2, 4, …; then one request at a time is sent."""
        if not self.rests and not isinstance(why, errors.RateLimited):  # these are usual
            reason = str(why).rstrip(".")
            say(f"Warning: {reason}. It is passed over, and tried again now and then.")
        doublings = min(self.rests, 10)  # more make a number too large for a float at last
        usual_rest = min(2.0**doublings, LONGEST_REST)
        seconds = max(seconds_asked(why) or 0.0, usual_rest)
        self.rests += 1
        self.share.allow(0)
        asyncio.get_running_loop().call_later(seconds, self._end_rest)

    def _end_rest(self) -> None:
        if self.resting:
            self.share.allow(1)


class Endpoints:
    """The endpoints of one of a run's servings: one, or several."""

    def __init__(self, serving: Serving, options: RunOptions, serving_count: int) -> None:
        is_shared = options.shard is not None  # with the processes of other shards
        self.all = []
        for part, weight in serving.endpoints():
            share = share_of(part, serving_count, is_shared)
            self.all.append(Endpoint(part, weight, share, options.max_wait))
        # How many requests may be in flight to all of them together: the serving's `max_workers`.
        # A single endpoint may have as many, if the others have none.
        self.most = min(endpoint.share.most for endpoint in self.all)
        # limits what is in flight to all of several endpoints; None for a single one
        self._gate: Share | None = None
        if len(self.all) > 1:
            self._gate = gate_of([endpoint.share for endpoint in self.all])

    @property
    def have_answered(self) -> bool:
        return any(endpoint.last_answer is not None for endpoint in self.all)

    @property
    def worked_at(self) -> float:
        """When the last request that was answered was sent, by the process's clock; 0 for none."""
        return max(endpoint.worked_at for endpoint in self.all)

    def note_outage(self) -> None:
        for endpoint in self.all:
            endpoint.note_outage()

    def askable(self, failed: Collection[Endpoint]) -> list[Endpoint]:
        """Return the endpoints that may be asked now, without those in `failed`."""
        return [
            endpoint for endpoint in self.all if endpoint not in failed and not endpoint.resting
        ]

    async def acquire(
        self, priority: Any, failed: Collection[Endpoint], endpoint_number: int | None
    ) -> tuple[Endpoint, Sent]:
        """Wait for room at an endpoint that isn't in `failed`, or at the one of `endpoint_number`.
        Return it, and the request for `release`. Raises EndpointUnreachable where that one rests.
        """
        if self._gate is None:  # there is one endpoint: all have to wait for that
            return self.all[0], await self.all[0].share.acquire(priority)
        if endpoint_number is not None and self.all[endpoint_number].resting:
            raise errors.EndpointUnreachable(
                f"{self.all[endpoint_number].serving.endpoint} is passed over for now"
            )
        return await self._acquire_one_of_several(self._gate, priority, failed, endpoint_number)

    async def _acquire_one_of_several(
        self, gate: Share, priority: Any, failed: Collection[Endpoint], endpoint_number: int | None
    ) -> tuple[Endpoint, Sent]:
        """Pass the gate first: a request that waits there holds no endpoint's room."""
        through_gate = await gate.acquire(priority)
        try:
            while True:
                candidates = self._candidates(failed, endpoint_number)
                taken = self._taken_at_once(candidates)
                if taken is None:
                    taken = await _first_free(candidates, priority)
                if taken is not None:  # else it looks again which endpoints may be asked by now
                    return taken
        except BaseException:  # cancelled, say: the request won't be sent
            gate.release(through_gate, answered=False)
            raise

    def _taken_at_once(self, candidates: list[Endpoint]) -> tuple[Endpoint, Sent] | None:
        """Return a candidate with room, and the request that took it; None if none has room."""
        while True:
            free = [endpoint for endpoint in candidates if endpoint.share.is_free]
            if not free:
                return None
            endpoint = self._drawn_by_weight(free)
            sent = endpoint.share.take()
            if sent is not None:  # if it is None, another thread has just taken the room
                return endpoint, sent

    def _candidates(
        self, failed: Collection[Endpoint], endpoint_number: int | None
    ) -> list[Endpoint]:
        """Return the endpoints at which a request waits for room; some may have to rest first."""
        if endpoint_number is not None:
            return [self.all[endpoint_number]]
        if self.askable(failed):
            return [endpoint for endpoint in self.all if endpoint not in failed]
        return self.all  # all have failed or rest: the request waits for any of them

    def _drawn_by_weight(self, free: list[Endpoint]) -> Endpoint:
        """Draw by lot and weights, first of those with less than their part in flight."""
        # Else a slow one would come to hold all requests in flight. Of 12 requests, the parts of
        # two endpoints with the weights 2 and 1 are 8 and 4.
        that_do_not_rest = self.askable([])
        requests_per_weight = self.most / sum(endpoint.weight for endpoint in that_do_not_rest)
        below_their_part = []
        for endpoint in free:
            if endpoint.share.in_flight < requests_per_weight * endpoint.weight:
                below_their_part.append(endpoint)
        candidates = below_their_part or free
        weights = [endpoint.weight for endpoint in candidates]
        return random.choices(candidates, weights)[0]

    def release(self, endpoint: Endpoint, sent: Sent, *, refused: bool, answered: bool) -> None:
        """Give a request's room at an endpoint back, as Share.release."""
        endpoint.share.release(sent, refused=refused, answered=answered)
        if self._gate is not None:
            # `sent` is what the endpoint's share gave, not what the gate gave. The gate takes it
            # all the same, because it learns nothing from a request: its places never change.
            self._gate.release(sent, answered=False)

    def refused(
        self,
        endpoint: Endpoint,
        error: errors.EndpointRefused | errors.RequestRefused,
        failed: Collection[Endpoint],
    ) -> errors.RecordError:
        """Return the record's failure, or EndpointUnreachable to ask another endpoint."""
        try:
            refusal = endpoint.refused(error)
        except errors.EndpointRefused as why:
            self._give_up(endpoint, why)
            return errors.EndpointUnreachable(str(why))
        may_be_endpoints_fault = refusal.passing or endpoint.last_answer is None
        if may_be_endpoints_fault and self.askable([*failed, endpoint]):
            return errors.EndpointUnreachable(str(error))
        return refusal

    def give_up_refusing(
        self, endpoint: Endpoint, error: errors.EndpointRefused | errors.RequestRefused, count: int
    ) -> errors.EndpointUnreachable:
        """Give up an endpoint that refused `count` requests and a plain question; return why."""
        why = endpoint.error_of_refusing_all(error, count)
        self._give_up(endpoint, why)
        return errors.EndpointUnreachable(str(why))

    def failed(self, endpoint: Endpoint, error: errors.ServerFault, tries: int) -> None:
        """Count a fault or rate limit; raises what stops the run once all are given up."""
        if self._gate is None:  # there is one endpoint
            endpoint.failed(error, tries)
        elif not endpoint.resting:  # else the request was sent before the endpoint was passed over
            self._one_of_several_failed(endpoint, error)

    def _one_of_several_failed(self, endpoint: Endpoint, error: errors.ServerFault) -> None:
        endpoint.misses += 1
        # until the endpoint answers, for the first time or after a rest, a single miss is enough
        is_on_trial = endpoint.rests > 0 or endpoint.last_answer is None
        try:
            # The request's own tries don't count, because each may have been at another endpoint.
            # What counts is how often this one rested, and the rest that this fault brings.
            has_failed_often = endpoint.rests + 1 >= UNREACHABLE_TRIES
            endpoint.failed(error, tries=0, has_failed_often=has_failed_often)
        except errors.RunStopped as why:
            self._give_up(endpoint, why)
            return
        is_unreachable = isinstance(error, errors.EndpointUnreachable)
        if is_on_trial or is_unreachable or endpoint.misses >= FAULTS_IN_A_ROW:
            endpoint.rest(error)

    def _give_up(self, endpoint: Endpoint, why: errors.RunStopped) -> None:
        """Pass the endpoint over; once all are given up, raise an error with all reasons."""
        endpoint.given_up = why
        reasons = [each.given_up for each in self.all if each.given_up]
        if len(reasons) == len(self.all):
            error_class = type(why)
            # of all reasons, this is the one that the user can mend: by buying more
            if any(isinstance(reason, errors.NoCredit) for reason in reasons):
                error_class = errors.NoCredit
            each_once = dict.fromkeys(map(str, reasons))
            raise error_class("; ".join(each_once))
        if not endpoint.resting:
            endpoint.rest(why)


async def _first_free(endpoints: Sequence[Endpoint], priority: Any) -> tuple[Endpoint, Sent] | None:
    """Wait at all of them at once; None if none has room after LOOK_AGAIN_SECONDS."""
    endpoint_by_turn: dict[asyncio.Task[Sent], Endpoint] = {}
    for endpoint in endpoints:
        turn = asyncio.ensure_future(endpoint.share.acquire(priority))
        endpoint_by_turn[turn] = endpoint
    try:
        done, _ = await asyncio.wait(
            endpoint_by_turn, timeout=LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            return None
        chosen = next(iter(done))
        return endpoint_by_turn.pop(chosen), chosen.result()
    finally:
        for turn, endpoint in endpoint_by_turn.items():
            was_waiting = turn.cancel()  # False for a task that is done
            if not was_waiting:  # it has a place as well, which nobody else would give back
                endpoint.share.release(turn.result(), answered=False)


def _time_after(seconds: float) -> str:
    """Return the end of a wait: `at 14:05 on 2025-03-01`."""
    if seconds >= LONGEST_DATED_WAIT:
        return "later"
    return time.strftime("at %H:%M on %Y-%m-%d", time.localtime(time.time() + seconds))


def seconds_asked(error: errors.GroundingError) -> float | None:
    """Return the seconds that an endpoint asks to wait; None where its error names none."""
    seconds: float | None = getattr(error, "retry_after", None)
    return seconds


def most_tries(error: errors.ServerFault, usual: int) -> float:
    """Return how many tries a request has in all, if each ends in such an error."""
    if isinstance(error, errors.EndpointUnreachable):
        return math.inf  # at last the endpoint is given up, and not the request
    return OVERLOADED_TRIES if isinstance(error, errors.ServerOverloaded) else usual

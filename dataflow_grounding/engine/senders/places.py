"""The endpoints of a serving: which one a request goes to, and when there is a place for it.

Of several, each gets its part by weight. One that fails is left out but for one request every
OUT_SECONDS, until one is answered. A share (limiter.py) has an endpoint's places.
"""

import asyncio
import time
from collections.abc import Callable

from dataflow_grounding._util import errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.limiter import Sent, Share, gate_of, share_of
from dataflow_grounding.engine.senders.sender import Asked, Sender, Traffic, seconds_asked
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import Reply, Serving

FAULTS_IN_A_ROW = 5  # after which an endpoint is left out, where there are others
OUT_SECONDS = 30.0  # between two requests to one that is left out
LOOK_SECONDS = 0.05  # after which a request that found no place at several looks again


class Endpoint:
    """One endpoint, and how it does."""

    def __init__(
        self, number: int, serving: Serving, weight: float, share: Share, sender: Sender
    ) -> None:
        self.number = number
        self.serving = serving
        self.weight = weight
        self.share = share
        self.sender = sender
        self.taken = 0  # requests, for its turn
        self.has_answered = False
        self.misses = 0  # faults since the last answer
        self.why_out: errors.GroundingError | None = None  # why it is left out; None if it isn't
        self.next_try_at = 0.0  # of one that is left out, by the process's clock
        self._before_faults = share.found  # how many places it was found to have
        self._was_out = False  # whether there was an outage since its last answer
        # A wrong key or address is found out by one request, not by all that may be in flight.
        share.allow(1)

    @property
    def load(self) -> tuple[float, float]:
        """What its part has in flight, then what it had in all: the smallest is next."""
        return self.share.in_flight / self.weight, self.taken / self.weight

    def note_answer(self) -> None:
        self.has_answered = True
        self.misses = 0
        self.why_out = None
        if self._was_out:  # after the outage, as many as were found before it
            self._was_out = False
            self.share.resume(self._before_faults)
        if self.share.allowed < self.share.most:
            self.share.allow(self.share.most)

    def note_fault(self) -> None:
        if not self.misses:
            self._before_faults = self.share.found
        self.misses += 1

    def note_outage(self) -> None:
        self._was_out = True

    def leave_out(self, why: errors.GroundingError) -> None:
        if self.why_out is None and not isinstance(why, errors.RateLimited):  # these are usual
            reason = str(why).rstrip(".")
            say(f"Warning: {reason}. It is passed over, and tried again now and then.")
        self.why_out = why
        self.next_try_at = time.monotonic() + OUT_SECONDS


class Places:
    """Sends a request at an endpoint with a place for it."""

    def __init__(
        self,
        serving: Serving,
        traffic: Traffic,
        sender_of: Callable[[Serving], Sender],
        serving_count: int,  # of the run: they divide the connections it may open
        is_shared: bool,  # with the processes of other shards
    ) -> None:
        self.serving = serving
        self._traffic = traffic
        self.all = []
        for number, (part, weight) in enumerate(serving.endpoints()):
            share = share_of(part, serving_count, is_shared)
            self.all.append(Endpoint(number, part, weight, share, sender_of(part)))
        # How many requests may be in flight to all of them together: the serving's `max_workers`.
        # A single endpoint may have as many, if the others have none.
        self.most = min(endpoint.share.most for endpoint in self.all)
        # limits what is in flight to all of several endpoints; None for a single one
        self._gate = gate_of([each.share for each in self.all]) if len(self.all) > 1 else None

    @property
    def in_flight(self) -> int:
        return sum(endpoint.share.in_flight for endpoint in self.all)

    def let_check_in(self) -> None:
        """Open a place for a check, next to the first request."""
        for endpoint in self.all:
            if endpoint.share.allowed == 1:
                endpoint.share.allow(2)

    def note_outage(self) -> None:
        for endpoint in self.all:
            endpoint.note_outage()

    async def send(self, asked: Asked) -> Reply:
        refused: Endpoint | None = None  # another endpoint may take what one refuses
        while True:
            endpoint, sent = await self._place(asked)
            try:
                reply = await self._send_at(endpoint, sent, asked)
            except errors.RequestRefused as refusal:
                is_final = refused is not None or isinstance(refusal, errors.PictureTooLarge)
                if is_final or is_about_content(str(refusal)):
                    raise
                if not self._may_go_on(asked, endpoint):
                    raise
                refused = endpoint
            except (errors.ServerFault, errors.EndpointRefused) as fault:
                if self._gate is None:
                    raise
                self._note_miss(endpoint, fault)
                is_for_another = isinstance(
                    fault,
                    (errors.ServerOverloaded, errors.EndpointUnreachable, errors.EndpointRefused),
                )
                may_go_on = self._may_go_on(asked, endpoint)
                if not (is_for_another and may_go_on):
                    raise self._fault_of_all(fault) from None
            else:
                if refused is not None:
                    self._note_miss(refused, errors.EndpointRefused("it refuses what others take"))
                return reply

    async def _send_at(self, endpoint: Endpoint, sent: Sent, asked: Asked) -> Reply:
        is_busy = False
        is_answered = False
        try:
            reply = await endpoint.sender.send(asked)
            is_answered = True
            endpoint.note_answer()
            # A reply may ask for a pause before the next request. One that is longer than the run
            # waits is left to the next request, which may stop the run.
            if 0 < reply.hold <= self._traffic.max_wait:
                endpoint.share.hold(reply.hold)
            return reply
        except errors.RequestRefused:
            is_answered = True  # the endpoint had room for it
            raise
        except errors.ServerFault as fault:
            # a full service tier (`flex`, say) doesn't say how many requests the endpoint takes
            is_tier_full = isinstance(fault, errors.TierFull)
            is_busy = isinstance(fault, errors.ServerOverloaded) and not is_tier_full
            endpoint.note_fault()
            raise
        finally:
            endpoint.share.release(sent, refused=is_busy, answered=is_answered)
            if self._gate is not None:  # it takes any `sent`: its places never change
                self._gate.release(sent, answered=False)

    async def _place(self, asked: Asked) -> tuple[Endpoint, Sent]:
        """Wait for a place, and wait again if meanwhile a check comes due."""
        sending = asked.request.sending
        while True:
            if self._gate is None:
                endpoint = self.all[0]
                sent = await endpoint.share.acquire(asked.by.priority)
            else:
                endpoint, sent = await self._place_at_several(asked, self._gate)
            # `may_send` is asked last of all, because it counts what it lets pass as sent
            if sending.may_send is None or sending.may_send():
                return endpoint, sent
            endpoint.share.release(sent, answered=False)
            if self._gate is not None:
                self._gate.release(sent, answered=False)
            if sending.before_sending is not None:
                await sending.before_sending()  # until the check is done

    async def _place_at_several(self, asked: Asked, gate: Share) -> tuple[Endpoint, Sent]:
        """Pass the gate first: a request that waits there holds no endpoint's place."""
        through_gate = await gate.acquire(asked.by.priority)
        try:
            while True:
                self._traffic.check_stopped()
                candidates = self._candidates(asked)
                free = [endpoint for endpoint in candidates if endpoint.share.is_free]
                if free:
                    endpoint = min(free, key=lambda each: each.load)
                    sent = endpoint.share.take()
                    if sent is not None:  # else another thread has just taken it
                        endpoint.taken += 1
                        return endpoint, sent
                await asyncio.sleep(LOOK_SECONDS)
        except BaseException:
            gate.release(through_gate, answered=False)
            raise

    def _candidates(self, asked: Asked) -> list[Endpoint]:
        """Return the endpoints that a request may go to. Raises EndpointUnreachable for none."""
        number = asked.request.sending.endpoint_number
        if number is not None:
            if self.all[number].why_out is not None:
                raise errors.EndpointUnreachable(f"{self.all[number].serving.endpoint} is left out")
            return [self.all[number]]
        now = time.monotonic()
        for endpoint in self.all:
            if endpoint.why_out is not None and now >= endpoint.next_try_at:
                endpoint.next_try_at = now + OUT_SECONDS
                return [endpoint]
        there = [endpoint for endpoint in self.all if endpoint.why_out is None]
        if not there:
            raise self._fault_of_all(errors.EndpointUnreachable("no endpoint"))
        others = [endpoint for endpoint in there if endpoint.number not in asked.failed_at]
        if not others:
            asked.failed_at.clear()
        return others or there

    def _may_go_on(self, asked: Asked, failed: Endpoint) -> bool:
        """Whether another endpoint may take the request that has failed at this one."""
        if self._gate is None or asked.request.sending.endpoint_number is not None:
            return False
        asked.failed_at.add(failed.number)
        for endpoint in self.all:
            if endpoint.why_out is None and endpoint.number not in asked.failed_at:
                return True
        return False

    def _note_miss(self, endpoint: Endpoint, fault: errors.GroundingError) -> None:
        wait = seconds_asked(fault) or 0.0
        is_certain = isinstance(fault, (errors.EndpointRefused, errors.EndpointUnreachable))
        is_certain = is_certain or wait > self._traffic.max_wait
        is_busy = isinstance(fault, errors.ServerOverloaded)
        if (
            is_certain
            or endpoint.misses >= FAULTS_IN_A_ROW
            or not (endpoint.has_answered or is_busy)
        ):
            endpoint.leave_out(fault)
        elif is_busy and wait:
            endpoint.share.hold(wait)

    def _fault_of_all(
        self, fault: errors.ServerFault | errors.EndpointRefused
    ) -> errors.ServerFault | errors.EndpointRefused:
        """Return a fault with the reasons of all endpoints, if all are left out."""
        reasons = [endpoint.why_out for endpoint in self.all if endpoint.why_out is not None]
        if len(reasons) < len(self.all):
            return fault
        words = "; ".join(dict.fromkeys(map(str, reasons)))
        # of all reasons, this is the one that the user can mend: by buying more
        if any(isinstance(reason, errors.NoCredit) for reason in reasons):
            return errors.NoCredit(words)
        if all(isinstance(reason, errors.EndpointRefused) for reason in reasons):
            return errors.EndpointRefused(words)
        if all(isinstance(reason, errors.RateLimited) for reason in reasons):
            return errors.RateLimited(words, min(seconds_asked(each) or 0.0 for each in reasons))
        return errors.EndpointUnreachable(words)

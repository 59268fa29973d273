"""The endpoints of a serving: which one a request goes to, and when there is a place for it.

Of several, each gets its part by weight. One that fails is left out but for one request every
OUT_SECONDS, until one is answered. A share (limiter.py) has an endpoint's places.
"""

import asyncio
import time
from collections.abc import Callable

from dataflow_grounding._util import errors
from dataflow_grounding.engine.limiter import Sent, Share, gate_of, share_of
from dataflow_grounding.engine.senders import endpoint as endpoints
from dataflow_grounding.engine.senders.endpoint import Endpoint
from dataflow_grounding.engine.senders.sender import Asked, PlainAsker, Sender
from dataflow_grounding.engine.senders.traffic import Traffic, seconds_asked
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import Reply, Serving

FAULTS_IN_A_ROW = 5  # after which an endpoint is left out, where there are others
LOOK_SECONDS = 0.05  # after which a request that found no place at several looks again


class Places:
    """Sends a request at an endpoint with a place for it."""

    def __init__(
        self,
        serving: Serving,
        traffic: Traffic,
        sender_of: Callable[[Serving], Sender],
        serving_count: int,  # of the run: they divide the connections it may open
    ) -> None:
        self.serving = serving
        self._traffic = traffic
        self.all = []
        for number, (part, weight) in enumerate(serving.endpoints()):
            share = share_of(part, serving_count)
            self.all.append(Endpoint(number, part, weight, share, sender_of(part)))
        # How many requests may be in flight to all of them together: the serving's `max_workers`.
        # A single endpoint may have as many, if the others have none.
        self.most = min(endpoint.share.most for endpoint in self.all)
        # limits what is in flight to all of several endpoints; None for a single one
        self._gate = gate_of([each.share for each in self.all]) if len(self.all) > 1 else None

    @property
    def in_flight(self) -> int:
        return sum(endpoint.share.in_flight for endpoint in self.all)

    @property
    def are_used(self) -> bool:
        """Whether some call has a request of the serving's in flight."""
        return any(endpoint.share.serving_load.in_flight for endpoint in self.all)

    def let_check_in(self) -> None:
        """Open a place for a check, next to the first request."""
        for endpoint in self.all:
            if endpoint.share.allowed == 1:
                endpoint.share.allow(2)

    async def send(self, asked: Asked) -> Reply:
        # another endpoint may take what one refuses
        refused: tuple[Endpoint, errors.RequestRefused] | None = None
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
                refused = endpoint, refusal
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
                    refused[0].misses += 1
                    self._note_miss(*refused)
                return reply

    async def _send_at(self, endpoint: Endpoint, sent: Sent, asked: Asked) -> Reply:
        is_busy = False
        is_answered = False
        try:
            reply = await endpoint.sender.send(asked)
            is_answered = True
            # A reply may ask for a pause before the next request. One that is longer than the run
            # waits is left to the next request, which may stop the run.
            if 0 < reply.hold <= self._traffic.max_wait:
                endpoint.share.hold(reply.hold)
            endpoint.note_answer()  # this lets requests in
            return reply
        except errors.RequestRefused:
            is_answered = True  # the endpoint had room for it
            raise
        except errors.ServerFault as fault:
            # a full service tier (`flex`, say) doesn't say how many requests the endpoint takes
            is_tier_full = isinstance(fault, errors.TierFull)
            is_busy = isinstance(fault, errors.ServerOverloaded) and not is_tier_full
            endpoint.misses += 1
            raise
        finally:
            endpoint.share.release(sent, refused=is_busy, answered=is_answered)
            if self._gate is not None:  # it takes any `sent`: its places never change
                self._gate.release(sent, answered=False)

    async def _place(self, asked: Asked) -> tuple[Endpoint, Sent]:
        """Wait for a place, and wait again if meanwhile a check or a plain question comes due."""
        sending = asked.request.sending
        while True:
            if self._gate is None:
                endpoint = self.all[0]
                sent = await endpoint.share.acquire(asked.by.priority)
            else:
                endpoint, sent = await self._place_at_several(asked, self._gate)
            is_held = bool(self._traffic.questions) and not isinstance(asked.by, PlainAsker)
            # `may_send` is asked last of all, because it counts what it lets pass as sent
            if not is_held and (sending.may_send is None or sending.may_send()):
                return endpoint, sent
            endpoint.share.release(sent, answered=False)
            if self._gate is not None:
                self._gate.release(sent, answered=False)
            if is_held:
                await self._traffic.questions_answered()
            elif sending.before_sending is not None:
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
                    endpoint.taken += 1
                    return endpoint, endpoint.share.enter()
                await asyncio.sleep(LOOK_SECONDS)
        except BaseException:
            gate.release(through_gate, answered=False)
            raise

    def _candidates(self, asked: Asked) -> list[Endpoint]:
        """Return the endpoints that a request may go to. Raises EndpointUnreachable for none."""
        now = time.monotonic()
        number = asked.request.sending.endpoint_number
        meant = self.all if number is None else [self.all[number]]
        for endpoint in meant:
            if endpoint.why_out is not None and now >= endpoint.next_try_at:
                endpoint.next_try_at = now + endpoints.OUT_SECONDS
                return [endpoint]
        if number is not None:
            if meant[0].why_out is not None:
                raise errors.EndpointUnreachable(f"{meant[0].serving.endpoint} is left out")
            return meant
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

"""Which endpoint a request goes to: one with room, by weight where there is a choice, and none that is dead."""

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import Any

from dataflow_grounding import errors
from dataflow_grounding.engine.endpoint_state import UNREACHABLE_TRIES, EndpointState
from dataflow_grounding.engine.limiter import Level, Limiter, Share, limiter_of
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.terminal import say

FAULTS_IN_A_ROW = 5  # after which another endpoint is better
LONGEST_REST = 60.0


class Place(EndpointState):
    """One endpoint of a run, with its `share` of places: sent one request at a time until it answers."""

    def __init__(self, serving: Serving, weight: float, share: Share, max_wait: float) -> None:
        super().__init__(max_wait)
        self.serving, self.weight, self.share = serving, weight, share
        self.rests = self.misses = 0  # since it answered
        self.given_up: errors.RunStopped | None = None
        """What would stop a run that had no other endpoint."""
        share.allow(1)

    @property
    def resting(self) -> bool:
        """Whether it is passed over for now."""
        return not self.share.allowed

    def answered(self) -> None:
        """As for EndpointState; from now on it is sent what its limiter allows."""
        super().answered()
        self.rests, self.misses, self.given_up = 0, 0, None
        self.share.allow(self.share.most)

    def rest(self, why: errors.GroundingError) -> None:
        """Pass it over for a second, then two, four, …; one request tries it after each."""
        if not self.rests and not isinstance(why, errors.RateLimited):
            say(f"Warning: {str(why).rstrip('.')}. It is passed over, and tried again now and then.")
        seconds = max(getattr(why, "retry_after", None) or 0.0, min(2.0**self.rests, LONGEST_REST))
        self.rests += 1
        self.share.allow(0)
        asyncio.get_running_loop().call_later(seconds, lambda: self.share.allow(self.share.allowed or 1))


class Places:
    """Those of a serving: one, or one for each of its endpoints. `share` is of all of them together."""

    def __init__(self, serving: Serving, share: Share, max_wait: float) -> None:
        parts, self._gate = serving.endpoints(), None
        if len(parts) == 1:
            self.all = [Place(*parts[0], share, max_wait)]
            return
        self.all = [Place(*part, limiter_of(part[0]), max_wait) for part in parts]
        for place in self.all:
            place.held_lines = self.all[0].held_lines
        self._gate = Share(Limiter(Level(share.most)), share.most)

    def others(self, failed: Collection[Place]) -> list[Place]:
        """Those that may be asked now, but for those at which a request has `failed`."""
        return [place for place in self.all if place not in failed and not place.resting]

    async def acquire(self, priority: Any, failed: Collection[Place], at: int | None) -> tuple[Place, int]:
        """Wait for a place, and the request's number there. Raises EndpointUnreachable for one `at` that rests."""
        if self._gate is None:
            return self.all[0], await self.all[0].share.acquire(priority)
        fit = [place for place in self.all if place not in failed] if self.others(failed) else self.all
        fit = fit if at is None else [self.all[at]]
        if at is not None and fit[0].resting:
            raise errors.EndpointUnreachable(f"{fit[0].serving.endpoint} is passed over for now")
        await self._gate.acquire(priority)
        try:
            free = [place for place in fit if place.share.is_free]
            return await _first_free(self._drawn(free, self._gate.most) if free else fit, priority)
        except BaseException:
            self._gate.release(0, answered=False)
            raise

    def _drawn(self, free: list[Place], most: int) -> list[Place]:
        """One by weight, first of those that have less than their part: a slow one would come to have all requests."""
        part = most / sum(place.weight for place in self.others([]))
        less = [place for place in free if place.share.in_flight < part * place.weight] or free
        return random.choices(less, [place.weight for place in less])

    def release(self, place: Place, number: int, *, refused: bool, answered: bool) -> None:
        """Give the place back; see Share.release."""
        place.share.release(number, refused=refused, answered=answered)
        if self._gate is not None:
            self._gate.release(0, answered=answered)

    def refused(
        self, place: Place, error: errors.EndpointRefused | errors.RequestRefused, failed: Collection[Place]
    ) -> errors.RecordError:
        """What a refusal means for its request: its own, or EndpointUnreachable. Raises what stops the run."""
        try:
            refusal = place.refused(error)
        except errors.EndpointRefused as why:
            self._give_up(place, why)
            return errors.EndpointUnreachable(str(why))
        return errors.EndpointUnreachable(str(error)) if refusal.passing and self.others([*failed, place]) else refusal

    def failed(self, place: Place, error: errors.ServerFault, tries: int) -> None:
        """A fault or a wish to wait, of a request that had `tries` like it. Raises what stops the run."""
        if self._gate is None:
            place.failed(error, tries)
        elif not place.resting:  # else it was sent before
            place.misses += 1
            on_trial = place.rests or not place.has_answered
            try:
                place.failed(error, 0, worn=place.rests + 1 >= UNREACHABLE_TRIES)
            except errors.RunStopped as why:
                self._give_up(place, why)
            else:
                if on_trial or isinstance(error, errors.EndpointUnreachable) or place.misses >= FAULTS_IN_A_ROW:
                    place.rest(error)

    def _give_up(self, place: Place, why: errors.RunStopped) -> None:
        place.given_up = why
        if all(other.given_up for other in self.all):
            raise type(why)("; ".join(dict.fromkeys(str(other.given_up) for other in self.all)))
        if not place.resting:
            place.rest(why)


async def _first_free(places: Sequence[Place], priority: Any) -> tuple[Place, int]:
    """Wait at all of them for the first place, and the request's number there."""
    turns = {asyncio.ensure_future(place.share.acquire(priority)): place for place in places}
    chosen = None
    try:
        done, _ = await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
        chosen = done.pop()
        return turns[chosen], chosen.result()
    finally:
        for turn, place in turns.items():
            if turn is not chosen and not turn.cancel():  # it has a place already
                place.share.release(turn.result(), answered=False)

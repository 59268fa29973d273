"""What endpoints' errors say about them, and which one a request goes to: one with room, none that
is dead.
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
from dataflow_grounding.engine.limiter import Share, gate_of, limiter_of
from dataflow_grounding.engine.options import RunOptions
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
"""Refusals kept out of their stores until an answer has come, by key; whether they may be the
endpoint's.
"""


class Place:
    """One endpoint of a run, sent one request at a time until it answers; it counts what came since
    the last answer.
    """

    def __init__(
        self, serving: Serving, weight: float, share: Share, max_wait: float, held: Held
    ) -> None:
        self.serving, self.weight, self.share, self._max_wait, self._held = (
            serving,
            weight,
            share,
            max_wait,
            held,
        )
        self.last_answer: float | None = None  # when it came, in this run
        self._limited_since: float | None = None
        self._faults = self._odd = self._refused = 0
        self.rests = self.misses = 0
        self.given_up: errors.RunStopped | None = None
        """What would stop a run that had no other endpoint."""
        share.allow(1)

    @property
    def resting(self) -> bool:
        """Whether it is passed over for now."""
        return not self.share.allowed

    def answered(self) -> None:
        """An answer has come: the endpoint is well, and the refusals before it were about their
        records.
        """
        for key, (line, _, store) in self._held.items():
            store.put(key, line)
        self._held.clear()
        self.last_answer = time.monotonic()
        self._limited_since = None
        self._faults = self._odd = self._refused = self.rests = self.misses = 0
        self.given_up = None
        self.share.allow(self.share.most)

    def refused(
        self, error: errors.EndpointRefused | errors.RequestRefused
    ) -> errors.RequestRefused:
        """The refusal as its record's own. Raises EndpointRefused where no other request would fare
        better.
        """
        if is_about_content(str(error)):
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
            said = str(error).rstrip(".")
            count = f"{self._refused} requests were refused and none was answered"
            raise errors.EndpointRefused(
                f"{said}. {count}: check the key, the model and the settings"
            )
        return error

    def failed(self, error: errors.ServerFault, tries: int, worn: bool = False) -> None:
        """A fault or a wish to wait, `worn` after many. Raises EndpointRefused, OutOfService,
        QuotaUsedUp.
        """
        now, wait = time.monotonic(), getattr(error, "retry_after", None) or 0.0
        if wait > self._max_wait:
            then = time.localtime(time.time() + min(wait, 10**7))
            come = time.strftime("at %H:%M on %Y-%m-%d", then) if wait < 10**7 else "later"
            raise errors.QuotaUsedUp(f"{error}. It asks to wait {duration(wait)}: come back {come}")
        if isinstance(error, errors.RateLimited):
            self._limited_since = self._limited_since or now
            if (waited := now - self._limited_since) > self._max_wait:
                raise errors.QuotaUsedUp(
                    f"{error}. No answer came for {duration(waited)}: come back later"
                )
            return
        hopeless = isinstance(error, errors.EndpointUnreachable) and tries >= UNREACHABLE_TRIES
        self._faults += 1
        self._odd += isinstance(error, errors.NoCompletion)
        often = worn or self._faults >= FAULTS_BEFORE_FIRST_ANSWER
        if self.last_answer is None:
            if hopeless or often or self._odd >= ODD_BEFORE_FIRST_ANSWER:
                raise errors.EndpointRefused(
                    f"{error}. Nothing was answered: check the address and the server"
                )
        elif now - self.last_answer > OUTAGE_SECONDS and often:
            raise errors.OutOfService(
                f"{error}. Nothing was answered for {OUTAGE_SECONDS:g} s: run again to go on"
            )

    def rest(self, why: errors.GroundingError) -> None:
        """Pass it over for a second, then two, four, …; one request tries it after each."""
        if not self.rests and not isinstance(why, errors.RateLimited):
            say(
                f"Warning: {str(why).rstrip('.')}. It is passed over, and tried again now and then."
            )
        seconds = max(getattr(why, "retry_after", None) or 0.0, min(2.0**self.rests, LONGEST_REST))
        self.rests += 1
        self.share.allow(0)
        asyncio.get_running_loop().call_later(
            seconds, lambda: self.share.allow(self.share.allowed or 1)
        )


class Places:
    """Those of one of a run's `servings`: one, or one for each of its endpoints; `most` in flight
    are of all.
    """

    def __init__(self, serving: Serving, options: RunOptions, servings: int) -> None:
        parts, shared, wait = serving.endpoints(), options.shard is not None, options.max_wait
        self.held: Held = {}
        self.all = [
            Place(one, weight, limiter_of(one, servings, shared), wait, self.held)
            for one, weight in parts
        ]
        self.most = min(place.share.most for place in self.all)
        self._gate = (
            gate_of(serving, [place.share for place in self.all]) if len(self.all) > 1 else None
        )

    def settle(self) -> int:
        """Store the refusals that are surely about their records. Returns how many others the next
        run asks.
        """
        for key, (line, passing, store) in list(self.held.items()):
            if not passing and any(place.last_answer is not None for place in self.all):
                store.put(key, line)
                del self.held[key]
        return len(self.held)

    def others(self, failed: Collection[Place]) -> list[Place]:
        """Those that may be asked now, but for those at which a request has `failed`."""
        return [place for place in self.all if place not in failed and not place.resting]

    async def acquire(
        self, priority: Any, failed: Collection[Place], at: int | None
    ) -> tuple[Place, int]:
        """Wait for a place, and the request's number there. Raises EndpointUnreachable for one `at`
        that rests.
        """
        if self._gate is None:
            return self.all[0], await self.all[0].share.acquire(priority)
        if at is not None and self.all[at].resting:
            raise errors.EndpointUnreachable(
                f"{self.all[at].serving.endpoint} is passed over for now"
            )
        await self._gate.acquire(priority)
        try:
            while True:
                fit = (
                    [place for place in self.all if place not in failed]
                    if self.others(failed)
                    else self.all
                )
                fit = fit if at is None else [self.all[at]]
                while free := [place for place in fit if place.share.is_free]:
                    place = self._drawn(free)
                    if (number := place.share.take()) is not None:
                        # at once: else another may, and this one waits here
                        return place, number
                if found := await _first_free(fit, priority):
                    return found
        except BaseException:
            self._gate.release(0, answered=False)
            raise

    def _drawn(self, free: list[Place]) -> Place:
        """One by weight, first of those that have less than their part: a slow one would come to
        have all requests.
        """
        part = self.most / sum(place.weight for place in self.others([]))
        less = [place for place in free if place.share.in_flight < part * place.weight] or free
        return random.choices(less, [place.weight for place in less])[0]

    def release(self, place: Place, number: int, *, refused: bool, answered: bool) -> None:
        """Give the place back; see Share.release."""
        place.share.release(number, refused=refused, answered=answered)
        if self._gate is not None:
            self._gate.release(0, answered=answered)

    def refused(
        self,
        place: Place,
        error: errors.EndpointRefused | errors.RequestRefused,
        failed: Collection[Place],
    ) -> errors.RecordError:
        """What a refusal means for its request: its own, or EndpointUnreachable. Raises what stops
        the run.
        """
        try:
            refusal = place.refused(error)
        except errors.EndpointRefused as why:
            self._give_up(place, why)
            return errors.EndpointUnreachable(str(why))
        return (
            errors.EndpointUnreachable(str(error))
            if refusal.passing and self.others([*failed, place])
            else refusal
        )

    def failed(self, place: Place, error: errors.ServerFault, tries: int) -> None:
        """A fault or a wish to wait, of a request that had `tries` like it. Raises what stops the
        run.
        """
        if self._gate is None:
            place.failed(error, tries)
        elif not place.resting:  # else it was sent before
            place.misses += 1
            on_trial = place.rests or place.last_answer is None
            try:
                place.failed(error, 0, worn=place.rests + 1 >= UNREACHABLE_TRIES)
            except errors.RunStopped as why:
                self._give_up(place, why)
            else:
                if (
                    on_trial
                    or isinstance(error, errors.EndpointUnreachable)
                    or place.misses >= FAULTS_IN_A_ROW
                ):
                    place.rest(error)

    def _give_up(self, place: Place, why: errors.RunStopped) -> None:
        place.given_up = why
        if all(other.given_up for other in self.all):
            raise type(why)("; ".join(dict.fromkeys(str(other.given_up) for other in self.all)))
        if not place.resting:
            place.rest(why)


async def _first_free(places: Sequence[Place], priority: Any) -> tuple[Place, int] | None:
    """Wait a second at all of them for the first place, and the request's number there: which are
    fit may change.
    """
    turns = {asyncio.ensure_future(place.share.acquire(priority)): place for place in places}
    chosen = None
    try:
        done, _ = await asyncio.wait(turns, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        chosen = next(iter(done), None)
        return (turns[chosen], chosen.result()) if chosen else None
    finally:
        for turn, place in turns.items():
            if turn is not chosen and not turn.cancel():  # it has a place already
                place.share.release(turn.result(), answered=False)


def most_tries(error: errors.ServerFault, usual: int) -> float:
    """How often a request is tried that ends in this error each time; endlessly where it is the run
    that stops.
    """
    if isinstance(error, errors.EndpointUnreachable):
        return math.inf
    return OVERLOADED_TRIES if isinstance(error, errors.ServerOverloaded) else usual

"""When the endpoint is checked in a run, and what the replies in the store are worth after it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.geometry import Size
from dataflow_grounding.operators.check_sizes import CheckSizes
from dataflow_grounding.serving.base import Serving

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import Verdict

CHECK_EVERY = 100
"""Answers between two checks of the endpoint."""

LEAST_BETWEEN = 20
"""Answers between two checks, however much the numbers drift; as many after the last check ask for a closing one."""

SILENT = 2  # checks in a row that told nothing: no more are sent
FRESH = 600.0  # seconds for which a check holds for further calls in this process

_checked: dict[str, tuple[float, int]] = {}
"""For records in memory: when an endpoint was checked last in this process, and how many answers were asked for since."""


def checks_for(requests: int, every: int | None) -> int:
    """How many checks a run of so many requests sends, where no numbers drift."""
    if not requests or every is None:
        return 0
    times, rest = divmod(requests, every)
    return 1 + times + (rest >= min(LEAST_BETWEEN, every))


class EndpointChecks:
    """The checks of one run: one before its first request, one every `every` requests, one when it is told of a drift.

    `calibrated` says that the format has just been found out, which is as good as a first check; `in_memory` that the run has no
    files, and shares what is known of the endpoint with others like it. With `trusting`, replies that were set aside count.
    `coming` looks at the run's pictures: their sizes, the commonest first.
    """

    def __init__(
        self,
        serving: Serving,
        asked: BoxFormat,
        every: int | None,
        *,
        calibrated: bool = False,
        in_memory: bool = False,
        trusting: bool = False,
        coming: Callable[[], Sequence[Size]] = tuple,
    ) -> None:
        self._serving, self._asked, self._every = serving, asked, every
        self._in_memory, self._trusting = in_memory, trusting
        whose = json.dumps({**serving.identity(), "box_format": asked.name}, sort_keys=True, default=repr)
        self._of = f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"
        self._sizes = CheckSizes(asked.scale == "px")
        self._coming: Callable[[], Sequence[Size]] | None = coming
        if calibrated:
            self._sizes.trust_all()
        self._vouching: Vouching | None = None
        self._silent = 0
        self._marked = False
        self._at = time.monotonic() if calibrated else 0.0
        self.answers = self._answers_then = 0
        self.sent = self._sent_then = 0
        self.set_aside = 0
        """Replies that a check that failed has left unusable."""
        self._free = asyncio.Event()
        self._free.set()
        self.under_way = False
        self.begun = calibrated
        at, sent = _checked.get(self._of, (0.0, 0)) if in_memory else (0.0, 0)
        if at and time.monotonic() - at < FRESH:
            self.begun, self._at, self._sent_then = True, at, -sent

    @property
    def possible(self) -> bool:
        """Whether the endpoint can be checked at all."""
        return self._every is not None and self._serving.takes_probes and self._silent < SILENT

    def open(self, ask: Ask, size: Size) -> None:
        """A picture is asked about, sent in this size."""
        self._sizes.add(size)
        if self._vouching is None:
            self._vouching = ask.vouching(self._of, self._trusting)

    @property
    def to_begin(self) -> bool:
        """Whether a check has to come before anything is sent."""
        return not self.begun and self.possible

    @property
    def relied_on(self) -> bool:
        """Whether stored replies are about to be used that nobody has vouched for."""
        return bool(self._vouching and self._vouching.relied_on)

    def sending(self) -> None:
        """A request is about to be sent."""
        self.sent += 1
        if self.begun and self.possible and not self._marked and self._vouching is not None:
            self._marked = True
            self._vouching.begin()

    def due(self, drifted: bool) -> bool:
        """Whether it is time for a check."""
        if self._every is None or not self.begun or not self.possible:
            return False
        late = self.sent - self._sent_then >= self._every
        return late or ((drifted or self._sizes.outgrown) and self.answers - self._answers_then >= LEAST_BETWEEN)

    def due_at_the_end(self, drifted: bool) -> bool:
        """Whether so much came since the last check that the run should not end without one."""
        if self._every is None or not self.begun or not self.possible:
            return False
        return (
            drifted
            or self._sizes.outgrown
            or min(self.sent, self.sent - self._sent_then) >= min(LEAST_BETWEEN, self._every)
        )

    async def free(self) -> None:
        """Wait while a check is under way that nothing should be sent before."""
        await self._free.wait()

    async def check(self, ask: Ask, *, waiting: bool) -> Verdict:
        """Check the endpoint with pictures of the run's sizes. Nothing else is sent meanwhile where `waiting`, and where a
        picture is missed. Raises RunStopped.
        """
        from dataflow_grounding.calibration.checking import check

        assert self._vouching is not None
        place, self._sent_then, self._answers_then = self._vouching.here(), self.sent, self.answers
        self.under_way = True
        if waiting:
            self._free.clear()
        try:
            await self._look_ahead()
            sizes, limits = self._sizes.chosen(), self._serving.image_limits
            verdict = await check(ask, self._asked, sizes, limits, self._free.clear)
        finally:
            self.under_way = False
            self._free.set()
        self.begun = self._marked = True
        self._silent = self._silent + 1 if verdict.kind == "silent" else 0
        if verdict.kind == "fits":
            self._at = time.monotonic()
            self._vouching.good(place)
        elif verdict.kind == "silent":
            self._vouching.unclear()
        else:
            self.set_aside = self._vouching.bad()
            _checked.pop(self._of, None)
        return verdict

    async def _look_ahead(self) -> None:
        """Find out, before the first check, in which sizes the run's pictures will be sent."""
        coming, self._coming = self._coming, None
        if coming is not None:
            limits = self._serving.image_limits
            self._sizes.expect(limits.fitted(limits.padded(size)) for size in await asyncio.to_thread(coming))

    def finish(self) -> None:
        """The run is done."""
        if self._marked and self._vouching is not None:
            self._vouching.finished()
        if self._in_memory and self._at:
            _checked[self._of] = (self._at, self.sent - self._sent_then)

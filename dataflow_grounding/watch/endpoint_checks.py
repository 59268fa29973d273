"""When and in which sizes the endpoint is checked in a run, and what the replies in the store are worth after it."""

import asyncio
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.geometry import Size
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.watch.drift import Drift
from dataflow_grounding.watch.signs import Signs

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import CheckVerdict

# Answers between two checks, however the numbers drift; a run of as many ends with a check of several pictures.
LEAST_BETWEEN = 20
MORE_OFTEN = 25  # the same once a picture was clearly answered in another format
SEVERAL = 3  # pictures of a check that should find two formats mixed, which a single one often doesn't
SILENT = 2  # checks in a row that told nothing: no more are sent
FRESH = 600.0  # seconds for which a check holds for further calls in this process
NEARLY = 1.05  # how much longer a side may be before a size is another one
SQUARE, LONG = 1.2, 3.0  # padding doesn't show in a picture less elongated than this; in one more so, models err


class CheckSizes:
    """The sizes in which a run's pictures are sent, and those that checks should ask in.

    Formats in parts of the side are checked in the commonest size, if nearly square also in an elongated one, where
    padding shows. Pixel formats are checked in the largest sizes too, upright and lying: servers reduce them first.
    """

    def __init__(self, in_pixels: bool) -> None:
        self._in_pixels = in_pixels
        self._sent: Counter[Size] = Counter()
        self._expected: Sequence[Size] = ()
        self.checked: set[Size] | None = set()  # None: whatever is sent is known to be seen as it should
        self._largest: dict[tuple[bool, str], Size] = {}

    def add(self, size: Size) -> None:
        """A picture is sent in this size."""
        self._sent[size] += 1
        self._grow([size])

    def expect(self, sizes: Iterable[Size]) -> None:
        """These will be sent, the commonest first."""
        self._expected = list(dict.fromkeys(sizes))
        self._grow(self._expected)

    @property
    def outgrown(self) -> bool:
        """Whether pictures in pixels are sent that are larger than those checked so far."""
        if not self._in_pixels or (checked := self.checked) is None:
            return False
        return not all(any(_covers(one, size) for one in checked) for size in self._largest.values())

    def chosen(self) -> list[Size]:
        """The sizes that a check should ask in, the commonest first."""
        few = sum(self._sent.values()) < 20
        commonest = self._expected[0] if self._expected and few else self._sent.most_common(1)[0][0]
        more = list(self._largest.values()) if self._in_pixels else self._elongated(commonest)
        chosen = [commonest]
        for size in more:
            if not any(_covers(one, size) and (one != commonest or _covers(size, one)) for one in chosen):
                chosen.append(size)
        if self.checked is not None:
            self.checked.update(chosen)
        return chosen

    def _grow(self, sizes: Iterable[Size]) -> None:
        for size in sizes:
            for name, measure in (("area", math.prod), ("side", max)):
                place = (size[0] < size[1], name)
                self._largest[place] = max(self._largest.get(place, size), size, key=measure)

    def _elongated(self, commonest: Size) -> list[Size]:
        if _aspect(commonest) >= SQUARE:
            return []
        return [size for size in [*self._sent, *self._expected] if SQUARE <= _aspect(size) <= LONG][:1]


def _aspect(size: Size) -> float:
    return max(size) / min(size)


def _covers(one: Size, other: Size) -> bool:
    """Whether a limit on sides or area that leaves `one` alone leaves the `other` alone, or nearly so."""
    if (one[0] - one[1]) * (other[0] - other[1]) < 0:  # upright pictures may have a limit of their own
        return False
    return all(a * NEARLY >= b for a, b in zip(one, other, strict=True))


class Known:
    """What is known of an endpoint, model and format: in one run or, for records in memory, in all of this process."""

    def __init__(self, asked: BoxFormat) -> None:
        self.at = -math.inf
        """When it was checked last."""
        self.sent = 0
        """Requests since then."""
        self.answers = self.answers_then = 0
        """In all, and up to the last check."""
        self.vouched = self.returned = 0
        """Of the answers, those up to the last good check, and those that calls have returned."""
        self.silent = 0
        """Checks in a row that told nothing."""
        self.odd: str | None = None
        """The format in which a picture was clearly answered, though others were not."""
        self.sizes = CheckSizes(asked.scale == "px")
        self.signs, self.drift = Signs(asked), Drift(asked)


_checked: dict[str, Known] = {}
"""For records in memory: what is known of the endpoints that were asked in this process."""


def checks_for(requests: int, every: int | None, endpoints: int = 1) -> int:
    """How many probe pictures the checks of a run with this many requests take, in one size, if no numbers drift."""
    if not requests or every is None:
        return 0
    at_the_end = requests >= min(LEAST_BETWEEN, every)
    return endpoints * (1 + requests // every) + max(SEVERAL, endpoints) * at_the_end


class EndpointChecks:
    """The checks of one run: one before its first request, one every `every` requests, one when it is told of drift.

    `calibrated` says that the format has just been found out, which is as good as a first check. With `trusting`,
    replies that were set aside count. A run `in_memory`, without files, shares with others what is known.
    """

    def __init__(
        self, serving: Serving, asked: BoxFormat, every: int | None, start: RunStart, calibrated: bool, trusting: bool
    ) -> None:
        self._serving, self.asked, self._every = serving, asked, every
        self.in_memory, self._trusting = start.folder is None, trusting
        parts = serving.endpoints()
        self._endpoints = [one.endpoint for one, _ in parts] if len(parts) > 1 else [""]
        whose = json.dumps({**serving.identity(), "box_format": asked.name}, sort_keys=True, default=repr)
        self.of = f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"
        """What a check vouches for: all boxes in this format from this endpoint and model."""
        self.known = known = _checked.setdefault(self.of, Known(asked)) if self.in_memory else Known(asked)
        self._start: RunStart | None = start  # until its pictures were looked at
        self._vouching: Vouching | None = None
        self._marked = False
        self._unchecked = 0  # requests since the last check such as a run ends with; in memory, all of the run
        self._set_aside = 0
        self.free = asyncio.Event()  # not set while a check is under way that nothing should be sent before
        self.free.set()
        self.under_way = False
        if calibrated and len(parts) == 1:  # else it may have asked some of them only
            known.sizes.checked = None
            known.at, known.sent, known.vouched = time.monotonic(), 0, known.answers
        self.begun = time.monotonic() - known.at < FRESH
        if not self.begun:
            known.silent, known.odd, known.sent = 0, None, 0

    @property
    def possible(self) -> bool:
        """Whether the endpoint can be checked at all."""
        return self._every is not None and self._serving.takes_probes and self.known.silent < SILENT

    def open(self, ask: Ask, size: Size) -> bool:
        """A picture is asked about, sent in this size. Whether stored replies may be used that nobody vouched for."""
        self.known.sizes.add(size)
        self._vouching = self._vouching or ask.vouching(self.of, self._trusting)
        return self._vouching.relied_on

    def sending(self) -> None:
        """A request is about to be sent."""
        self.known.sent += 1
        self._unchecked += 1
        if self.begun and self.possible and not self._marked and self._vouching is not None:
            self._marked = True
            self._vouching.write("begun")

    def due(self, drifted: bool, last: bool) -> bool:
        """Whether it is time for a check; for the `last`, whether the run should not end without one."""
        if self._every is None or not self.begun or not self.possible:
            return False
        known, changed = self.known, drifted or self.known.sizes.outgrown
        if last:
            since = min(self._unchecked, known.sent) if self.in_memory else self._unchecked
            return changed or since >= min(LEAST_BETWEEN, self._every)
        late = known.sent >= (min(self._every, MORE_OFTEN) if known.odd else self._every)
        return late or (changed and known.answers - known.answers_then >= LEAST_BETWEEN)

    def doubt(self) -> None:
        """All replies are suspect, where the run goes on."""
        if self._trusting and self._vouching is not None:
            self._vouching.doubt()

    async def check(self, ask: Ask, *, waiting: bool, several: bool) -> "CheckVerdict":
        """Check with the run's sizes; nothing else is sent if `waiting`, or once one is missed. Raises RunStopped."""
        from dataflow_grounding.calibration.checking import check

        assert self._vouching is not None
        known, place = self.known, self._vouching.here()
        known.sent, known.answers_then = 0, known.answers
        self.under_way = True
        if waiting:
            self.free.clear()
        try:
            limits, start, self._start = self._serving.image_limits, self._start, None
            if start is not None:
                coming = await asyncio.to_thread(start.pictures)
                known.sizes.expect(limits.fitted(limits.padded(size)) for size in coming.sizes)
            self._unchecked = 0 if several and not self.in_memory else self._unchecked
            given = (ask, self.asked, known.sizes.chosen(), limits, self.free.clear)
            verdict = await check(*given, at_least=SEVERAL if several else 1, odd=known.odd, endpoints=self._endpoints)
        finally:
            self.under_way = False
            self.free.set()
        self.begun = self._marked = True
        known.at = time.monotonic()
        known.silent = known.silent + 1 if verdict.kind == "silent" else 0
        known.odd = known.odd or verdict.odd
        if verdict.kind == "fits" and known.odd is None:
            known.vouched = known.answers_then
            self._vouching.good(place)
        elif verdict.kind == "misses":
            self._set_aside = self._vouching.bad()
        else:
            self._vouching.write("unclear")
        return verdict

    def lost(self) -> str:
        """The format is another: what happens to answers that no check vouched for. The next call starts over."""
        known = self.known
        known.at, mixed, known.odd = -math.inf, known.odd is not None, None
        known.signs, known.drift = Signs(self.asked), Drift(self.asked)
        since, returned = known.answers - known.vouched, max(0, known.returned - known.vouched)
        if not self.in_memory:
            aside = f"The {self._set_aside} replies since the last good check are set aside"
            aside += ": the next run asks for them again"
            if mixed:
                aside += ". Earlier ones may be mixed too: workflow.force_reprocess asks for all again"
            return aside if self._set_aside else "Every reply so far is kept" if since else "No boxes were asked for"
        if not since:
            return "No boxes were asked for"
        already = f"{returned} of them already returned: don't use them" if returned else "none of them returned"
        return f"{since} answers came since the last good check, {already}"

    def finish(self, vouched: bool) -> None:
        """The run is done; `vouched`: and its format right, as far as checks can tell."""
        if vouched and self._marked and self._vouching is not None:
            self._vouching.finished()
        self.known.returned = self.known.answers

"""The probe pictures of one run: when they are due, and what they showed.

What they showed tells what stored replies are worth.
"""

import asyncio
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding._util.settings import setting
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.watch._evidence import Evidence
from dataflow_grounding.watch._probe_sizes import ProbeSizes, orientation_of

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import CheckVerdict

# answers between two checks, whatever calls for one; a run of as many ends with a check
LEAST_BETWEEN = 20
MORE_OFTEN = 25  # requests between two checks once a picture was clearly answered in another format
WORTH = 0.042  # share of requests that the watch may add where little is in doubt
MOST_AT_ONCE = 3  # of these at the end
SILENT = 2  # checks in a row that told nothing: no more are sent
FRESH = 600.0  # seconds for which a check holds for further calls in this process


class Known:
    """What is known of an endpoint, model and format.

    It is known of one run or, for records in memory, of all that this process asked.
    """

    def __init__(self, asked: BoxFormat) -> None:
        self.checked_at = -math.inf
        """When a probe picture was answered last, by the process's clock."""
        self.sent = 0
        """Requests since then."""
        self.answers = 0
        """In all."""
        self.answers_then = 0
        """Answers up to the last check."""
        self.vouched = 0
        """Answers up to the last good check."""
        self.returned = 0
        """Answers that calls have returned."""
        self.extra = 0
        """Requests beyond the run's own: probe pictures, and what was asked again."""
        self.silent = 0
        """Checks in a row that told nothing."""
        self.odd: str | None = None
        """The format in which a probe picture was clearly answered, though others were not."""
        self.good: dict[str, int] = {}
        """Up to which answer probe pictures of an orientation were answered as asked."""
        self.sizes = ProbeSizes(in_pixels=asked.scale == "px")
        self.evidence = Evidence(asked)


_known: dict[str, Known] = {}
"""For records in memory: what is known of the endpoints that were asked in this process."""


def checks_for(requests: int, every: int | None, endpoints: int = 1) -> int:
    """How many probe pictures a run of so many requests takes, its pictures all of one size."""
    if not requests or every is None:
        return 0
    checks = 1 + requests // every
    if requests % every >= min(LEAST_BETWEEN, every):
        checks += 1  # at the end
    return endpoints * checks


class Probing:
    """The checks of one run by probe pictures.

    Args:
        serving: Who is asked.
        asked: The format of the run's boxes.
        every: Requests between two checks; None for no checks.
        start: What is known before the first record.
        calibrated: Whether the format has been found out by calibrating.
        just_now: Whether that has just been, which is as good as a first check.
        trusting: Whether replies that were set aside count all the same.
        form: The form in which boxes are asked for; empty for the usual one.
    """

    def __init__(
        self,
        serving: Serving,
        asked: BoxFormat,
        every: int | None,
        start: RunStart,
        *,
        calibrated: bool,
        just_now: bool,
        trusting: bool,
        form: str = "",
    ) -> None:
        self.calibrated = calibrated
        self.asked = asked
        self.in_memory = start.folder is None
        self._serving = serving
        self._every = every
        self._trusting = trusting
        parts = serving.endpoints()
        self._endpoints = [part.endpoint for part, _ in parts] if len(parts) > 1 else [""]
        endpoint = {**serving.identity_there(), "box_format": asked.name}
        if form:  # without one, what earlier versions vouched for stays so
            endpoint["asking"] = form
        whose = json.dumps(endpoint, sort_keys=True, default=repr)
        self.of = f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"
        """What a check vouches for: all boxes in this format from this endpoint and model."""
        self.known = _known.setdefault(self.of, Known(asked)) if self.in_memory else Known(asked)
        # that of a run that ends here stays with those who share it
        self.evidence = self.known.evidence
        self._start: RunStart | None = start  # until its pictures were looked at
        self._vouching: Vouching | None = None
        self._is_block = bool(start.options.shard and start.options.shard.rows)
        self._marked = False
        self._unchecked = 0  # requests since the last check; in memory, all of the run
        self._set_aside = 0
        self.evidence.learns = self.wanted
        # Several endpoints may not all have been asked, and a format in parts of the side was found
        # out in other shapes than those of the run's own pictures.
        self._restarted(calibrated=just_now and len(parts) == 1 and asked.scale == "px")

    def _restarted(self, *, calibrated: bool) -> None:
        """Whether what is known still holds: a check is good for a while."""
        known = self.known
        if calibrated:
            known.sizes.checked = None
            known.checked_at = time.monotonic()
            known.sent = 0
            known.vouched = known.answers
        self.begun = time.monotonic() - known.checked_at < FRESH
        if not self.begun:
            known.silent = 0
            known.odd = None
            known.sent = 0

    @property
    def wanted(self) -> bool:
        """Whether there are to be checks in this run."""
        return self._every is not None and self._serving.takes_probes

    @property
    def possible(self) -> bool:
        """Whether there are, and they can tell anything."""
        return self.wanted and self.known.silent < SILENT

    # What the run does

    def meets(self, ask: Ask, size: Size) -> bool:
        """A picture is asked about, sent in this size.

        Returns whether stored replies may be read that nobody vouched for.
        """
        self.known.sizes.add(size)
        if self._vouching is None:
            self._vouching = ask.vouching(self.of, self._trusting)
        return self._vouching.relied_on

    @property
    def trusts_stored(self) -> bool:
        """Whether somebody vouched for all stored replies of earlier runs."""
        return self._vouching is not None and not self._vouching.relied_on

    def sending(self) -> None:
        """Count a request that is about to be sent.

        The first request of a run that makes checks writes down that they have begun: a later run
        then knows that replies are not vouched for until a check has ended well.
        """
        self.known.sent += 1
        self._unchecked += 1
        if self.begun and self.possible and not self._marked and self._vouching is not None:
            self._marked = True
            self._vouching.write("begun")

    def due(self) -> bool:
        """Whether it is time for a check."""
        if self._every is None or not self.begun or not self.possible:
            return False
        known = self.known
        every = min(self._every, MORE_OFTEN) if known.odd else self._every
        if known.sent >= every:
            return True
        return known.sizes.outgrown and known.answers - known.answers_then >= LEAST_BETWEEN

    def due_at_the_end(self) -> bool:
        """Whether the run should not end without a check."""
        if self._every is None or not self.begun or not self.possible:
            return False
        since = self._unchecked
        if self.in_memory:
            since = min(since, self.known.sent)
        # a run may be blocks of few requests alone
        enough = 1 if self._is_block else min(LEAST_BETWEEN, self._every)
        return self.known.sizes.outgrown or since >= enough

    @property
    def spare(self) -> int:
        """How many requests more may be spent on doubts, of those that a run is worth."""
        return max(0, min(MOST_AT_ONCE, int(WORTH * self.known.answers) - self.known.extra))

    def stands_for(self, size: Size) -> bool:
        """Whether a probe picture of this orientation was answered as asked not long ago."""
        then = self.known.good.get(orientation_of(size), -math.inf)
        return self.known.answers - then <= (self._every or 0)

    # What the pictures show

    async def check(
        self,
        ask: Ask,
        in_doubt: Callable[[], None],
        *,
        of_size: Size | None = None,
        orientation: str | None = None,
        last: bool = False,
    ) -> "CheckVerdict":
        """Ask for the boxes of probe pictures and say whether they are in the format asked for.

        A run's first check has a picture of each frequent orientation; its last one (`last`) also
        has one of each orientation that was never probed. Any other check has one picture: of
        `of_size` or of `orientation` where stated, else of the orientation whose turn it is.

        Calls `in_doubt` once a picture is missed. Raises RunStopped.
        """
        assert self._vouching is not None
        known = self.known
        position = self._vouching.here()
        known.sent = 0
        known.answers_then = known.answers
        # Taken at once: a check that begins meanwhile does not look at the run's pictures, too.
        start = self._start
        self._start = None
        await load_aside("dataflow_grounding.calibration.checking")  # with NumPy
        from dataflow_grounding.calibration.checking import check

        if start is not None:
            await self._expect_pictures(start)
        if of_size:
            sizes = [of_size]
        else:
            sizes = known.sizes.chosen(every=not self.begun, orientation=orientation, last=last)
        self._unchecked = 0
        known.extra += len(sizes)
        verdict = await check(
            ask,
            self.asked,
            sizes,
            self._serving.image_limits,
            in_doubt,
            odd=known.odd,
            endpoints=self._endpoints,
        )
        self._note(verdict, position)
        return verdict

    async def _expect_pictures(self, start: RunStart) -> None:
        """Look at the sizes of the run's pictures, as they will be sent."""
        limits = self._serving.image_limits
        coming = await asyncio.to_thread(start.pictures)
        fitted: Counter[Size] = Counter()
        for size, count in zip(coming.sizes, coming.counts, strict=True):
            fitted[limits.fitted(limits.padded(size))] += count
        self.known.sizes.expect(fitted)

    def _note(self, verdict: "CheckVerdict", position: int) -> None:
        """Take in what a check showed; it vouches for the replies stored up to `position`."""
        known = self.known
        vouching = self._vouching
        assert vouching is not None
        self.begun = True
        self._marked = True
        known.checked_at = time.monotonic()
        if verdict.kind == "silent":
            known.silent += 1
        else:
            known.silent = 0
        if known.silent >= SILENT:
            self.evidence.unlearn()
        known.odd = known.odd or verdict.odd
        if verdict.kind == "fits":
            # not where some were unanswered: that proves nothing for their orientation
            as_asked = {orientation_of(size) for size in verdict.answered}
            known.good.update(dict.fromkeys(as_asked, known.answers_then))
            self.evidence.withdraw(as_asked)
        if verdict.kind == "misses":
            self._set_aside = vouching.bad()
        elif verdict.kind == "fits" and known.odd is None and not known.evidence.proven:
            known.vouched = known.answers_then
            vouching.good(position)
        else:
            vouching.write("unclear")

    # How the run ends

    def set_aside(self) -> None:
        """Replies are proven to be in several formats: none since the last good check counts."""
        if self._vouching is not None:
            self._set_aside = self._vouching.bad()

    def doubt(self) -> None:
        """All replies are suspect, where the run goes on."""
        if self._trusting and self._vouching is not None:
            self._vouching.doubt()

    def lost(self) -> str:
        """The format is another: what happens to answers that no check vouched for.

        The next call starts over.
        """
        known = self.known
        mixed = known.odd is not None or known.evidence.proven > 0
        known.checked_at = -math.inf
        known.odd = None
        known.good = {}
        known.evidence = Evidence(self.asked)
        since = known.answers - known.vouched
        if not self.in_memory and self._set_aside:
            aside = f"The {self._set_aside} replies since the last good check are set aside"
            aside += ": the next run asks for them again"
            if mixed:
                aside += (
                    f". Earlier ones may be mixed too: {setting('workflow.force_reprocess')} asks"
                    " for all again"
                )
            return aside
        if not since:
            return "No boxes were asked for"
        if not self.in_memory:
            return "Every reply so far is kept"
        already = "none of them returned"
        returned = known.returned - known.vouched
        if returned > 0:
            already = f"{returned} of them already returned: don't use them"
        return f"{since} answers came since the last good check, {already}"

    def finish(self, *, vouched: bool) -> None:
        """The run is done; `vouched`: and its format right, as far as checks can tell."""
        if vouched and self._marked and self._vouching is not None:
            self._vouching.finished()
        self.known.returned = self.known.answers

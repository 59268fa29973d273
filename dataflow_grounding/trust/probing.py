"""Checks of an endpoint: rectangles are asked for in copies of pictures, and what they show.

The run's other requests go on meanwhile, because a server may treat pictures otherwise while it is
busy.

A copy fits if its rectangles are answered as asked, misses if they are answered otherwise, and is
silent if too few are answered (`showing.py`). A miss is confirmed by further copies, or cleared:
then it was an accident. It is clear, or odd, if it can't have been one of noise alone.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle
from typing import Any, Literal, NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.summary import (
    PROBE_AS_ASKED,
    PROBE_CLEARED,
    most_in_another_format,
)
from dataflow_grounding.images.image import Image
from dataflow_grounding.trust.own_probes import ask_about_copy
from dataflow_grounding.trust.probes import LAYOUTS, ProbedPicture
from dataflow_grounding.trust.showing import (
    Rectangles,
    Showing,
    drift_of,
    is_further_off,
    least_noticed,
    showing_of,
)

# Copies of the same picture that are asked for after one that misses. A model with 6% of noise and
# a fifth of its boxes anywhere misses by chance in 7 of 100 pictures, in 1 of 360 with all four.
CONFIRMING = 3
# Pictures whose lines are fitted together, so that a slow drift shows: of four, a line is known
# twice as exactly as of one.
LEAST_POOLED = 4
POOLED = 8  # at most: the last ones
COMPARED = 40  # pictures that further ones are compared with: the last ones
# Two odd answers count together if they are within as many pictures. Each comes by chance in one of
# 2,000 (`showing.LEAST_CHANCE`).
TOGETHER = 100
NO_FORMAT = "no known format"


@dataclass(frozen=True)
class Outcome:
    """What a check showed; `silent` if too few rectangles were answered."""

    kind: Literal["fits", "misses", "silent"]
    why: str = ""
    """What was seen; of pictures that went unanswered, too."""
    fitting: str | None = None
    """The name of another format that would fit, where one does."""
    odd: bool = False
    """Whether a picture was clearly answered in another format, though further copies of it fit."""
    as_asked: int = 0
    """How many pictures were answered as asked."""
    cleared: int = 0
    """How many pictures missed, though further copies of them fit."""
    shapes_differ: bool = False
    """Whether pictures of another kind fit, where some miss."""
    blind: Sequence[str] = ()
    """The addresses of endpoints that found no rectangle at all; "" for that of a single one."""

    def note(self, ask: Ask) -> None:
        """Note on a record what was seen, where the format is right."""
        if self.odd:
            ask.note("mixed_formats", "a probe picture was answered in another format")
        for _ in range(self.as_asked):
            ask.note(PROBE_AS_ASKED)
        for _ in range(self.cleared):
            ask.note(PROBE_CLEARED)
        if self.why:
            ask.note("unanswered_check", self.why)


class Target(NamedTuple):
    """A picture to ask about, and the endpoint to ask."""

    ask: Ask
    image: Image
    endpoint_number: int | None  # where there are several endpoints
    address: str  # of that endpoint, for messages; else ""


class _FirstCopy(NamedTuple):
    """The first copy of a picture in a check, and what it shows."""

    target: Target
    copy: ProbedPicture
    showing: Showing


class _ClearMiss(NamedTuple):
    """A picture that was clearly answered in another format."""

    format: str
    answered_before: int  # how many pictures were answered before this one


class Probing:
    """Asks for rectangles in copies of pictures, and knows what these have shown so far."""

    def __init__(self, asked: BoxFormat) -> None:
        self.as_asked = 0  # pictures that were answered so
        self.cleared = 0  # pictures that missed, though further copies of them fit
        self._asked = asked
        self._answered_pictures = 0  # without those that confirm a miss
        # of pictures whose miss was cleared, and of their further copies
        self._clear_misses: list[_ClearMiss] = []
        # of first copies that fit, for comparing further ones
        self._rectangles: deque[Rectangles] = deque(maxlen=COMPARED)
        # Two in succession are never the same.
        self._layouts = cycle(random.SystemRandom().sample(range(LAYOUTS), LAYOUTS))

    async def check(
        self,
        ask: Ask,
        images: Sequence[Image],
        addresses: Sequence[str],
    ) -> Outcome:
        """Ask for rectangles in a copy of each image at each address, and for more after a miss.

        The check misses with the first miss that is confirmed, or if boxes have drifted. Raises
        RunStopped.
        """
        endpoints: list[tuple[int | None, str]] = list(enumerate(addresses))
        if len(addresses) == 1:
            endpoints = [(None, "")]  # the serving itself knows where to send
        targets = [Target(ask, image, *endpoint) for image in images for endpoint in endpoints]
        copies = await asyncio.gather(*[self._copy(target) for target in targets])
        showings = self._showings([[copy] for copy in copies])  # of each copy alone
        first_copies = list(map(_FirstCopy, targets, copies, showings))
        for showing in showings:
            if showing.kind != "silent":
                self._answered_pictures += 1
            if showing.kind == "fits":
                self.as_asked += 1
                if showing.rectangles is not None:
                    self._rectangles.append(showing.rectangles)
        # `_confirm` adds to both. The outcome says how many it added in this check.
        cleared_before = self.cleared
        clear_before = len(self._clear_misses)
        do_others_fit = any(showing.kind == "fits" for showing in showings)
        for first in first_copies:
            if first.showing.kind == "misses":
                missed = await self._confirm(first, others_fit=do_others_fit)
                if missed is not None:
                    return missed
        drifted = await self._drift(targets[0])
        if drifted is not None:
            return Outcome("misses", drifted)
        outcome = _outcome_of(first_copies)
        return replace(
            outcome,
            odd=len(self._clear_misses) > clear_before,
            cleared=self.cleared - cleared_before,
        )

    async def _confirm(self, first: _FirstCopy, *, others_fit: bool) -> Outcome | None:
        """Ask for further copies after a miss: one may be answered badly by chance.

        - All copies together miss: the miss is confirmed.
        - Several formats, in these copies or lately: a miss that says so (`_mixture`).
        - Otherwise None: the miss is cleared.
        """
        target, first_copy, _ = first
        copies = [first_copy, *await self._further(target)]
        [together] = self._showings([copies])  # judged as if they were one picture
        one_by_one = self._showings([[copy] for copy in copies])
        clear_formats = self._formats_of_clear_misses(one_by_one)
        # If two copies missed clearly, and others fit, the miss is that of `_mixture`.
        are_mixed = len(clear_formats) > 1 and any(copy.kind == "fits" for copy in one_by_one)
        where = f"at {target.address}, " if target.address else ""
        if together.kind == "misses" and not are_mixed:
            # Where pictures of other shapes fit, the shape is the reason. With several endpoints
            # (only then a target has an address) the endpoint may be the reason instead.
            shapes_differ = others_fit and not target.address
            why = f"{where}{together.why}"
            return Outcome("misses", why, together.fitting, shapes_differ=shapes_differ)
        # The copies don't confirm it, so it counts as cleared. Its clear misses are kept: together
        # with those of earlier checks they may show a mixture.
        self.cleared += 1
        for name in clear_formats:
            self._clear_misses.append(_ClearMiss(name, answered_before=self._answered_pictures))
        return self._mixture(where)

    def _mixture(self, where: str) -> Outcome | None:
        """The miss if, lately, two pictures or more were clearly in other formats than asked."""
        lately = self.lately_odd_formats
        if len(lately) < 2:
            return None
        formats = " and ".join(dict.fromkeys(lately))
        why = f"{where}probe pictures were answered in {formats}, and others were not"
        return Outcome("misses", why, odd=True)

    @property
    def lately_odd_formats(self) -> list[str]:
        """One for each of the last TOGETHER pictures that was clearly in another format."""
        lately = []
        for miss in self._clear_misses:
            answered_since = self._answered_pictures - miss.answered_before
            if answered_since <= TOGETHER:
                lately.append(miss.format)
        return lately

    @property
    def other_format(self) -> str:
        return self._clear_misses[0].format if self._clear_misses else NO_FORMAT

    def _formats_of_clear_misses(self, copies: Sequence[Showing]) -> list[str]:
        """For each copy that misses clearly, the format that explains it, or NO_FORMAT."""
        usual = self._usual()  # a new list, to which this check's copies are added
        for copy in copies:
            if copy.kind == "fits" and copy.rectangles:
                usual += copy.rectangles.off
        formats = []
        for copy in copies:
            if copy.kind != "misses" or copy.rectangles is None:
                continue
            if copy.fitting:
                formats.append(copy.fitting)
            elif usual and is_further_off(copy.rectangles.off, usual):
                formats.append(NO_FORMAT)  # all boxes may be shifted, say
        return formats

    async def _drift(self, target: Target) -> str | None:
        """How all boxes have moved, in words, if the last pictures show it together.

        Each one alone fits. Further copies have to confirm it.
        """
        last = self._last_rectangles()
        if len(last) < LEAST_POOLED or drift_of(last) is None:
            return None
        further = await self._further(target)
        for showing in self._showings([[picture] for picture in further]):
            if showing.rectangles is not None:
                last.append(showing.rectangles)
        moved = drift_of(last)
        return f"in the last {len(last)} probe pictures {moved}" if moved else None

    def _last_rectangles(self) -> list[Rectangles]:
        return list(self._rectangles)[-POOLED:]

    def _usual(self) -> list[float]:
        """How far off the worst edge of each of the last rectangles was."""
        return list(chain.from_iterable(rectangles.off for rectangles in self._rectangles))

    def _showings(self, groups: Sequence[Sequence[ProbedPicture]]) -> list[Showing]:
        usual = self._usual()
        return [showing_of(pictures, self._asked, usual) for pictures in groups]

    async def _further(self, target: Target) -> list[ProbedPicture]:
        return await asyncio.gather(*[self._copy(target) for _ in range(CONFIRMING)])

    async def _copy(self, target: Target) -> ProbedPicture:
        layout = next(self._layouts)
        return await ask_about_copy(
            target.ask, target.image, self._asked, layout, target.endpoint_number
        )

    def facts(self) -> dict[str, Any]:
        """Return what the pictures prove; {} where none was answered as asked.

        - `as_asked`: how many pictures were answered in the format that was asked for
        - `odd`: how many pictures missed, though further copies of them fit
        - `at_most`: the largest share of replies that may be in another format, with 95%
          confidence; None without a bound
        - `least_shift`: if all boxes are off by a smaller share of a side, the pictures don't show
          it
        """
        if not self._rectangles:
            return {}
        at_most = most_in_another_format(self.as_asked, self.cleared)
        least_shift = least_noticed(self._last_rectangles())
        return {
            "as_asked": self.as_asked,
            "odd": self.cleared,
            "at_most": round(at_most, 4) if at_most < 1 else None,
            "least_shift": None if least_shift is None else round(least_shift, 4),
        }


def _outcome_of(first_copies: Sequence[_FirstCopy]) -> Outcome:
    """The outcome of a check without a confirmed miss: it fits if at least one picture fits."""
    seeing = set[str]()
    finding_nothing: list[str] = []
    for target, _, showing in first_copies:
        if showing.kind != "silent":
            seeing.add(target.address)
        if showing.finds_nothing:
            finding_nothing.append(target.address)
    as_asked = sum(first.showing.kind == "fits" for first in first_copies)
    silent = [first.showing for first in first_copies if first.showing.kind == "silent"]
    return Outcome(
        kind="fits" if as_asked else "silent",
        why=silent[0].why if silent else "",
        as_asked=as_asked,
        # An endpoint is blind if it said of a picture that no rectangle is there, and answered
        # enough rectangles in none.
        blind=[address for address in dict.fromkeys(finding_nothing) if address not in seeing],
    )

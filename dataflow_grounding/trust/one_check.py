"""One check of an endpoint: rectangles are asked for in copies of pictures, and what they show.

A miss has to be confirmed by further copies of the same picture. The run's other requests go on
meanwhile, because a server may treat pictures otherwise while it is busy.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image
from dataflow_grounding.trust.kinds import orientation_of
from dataflow_grounding.trust.own_probes import ask_about_copy
from dataflow_grounding.trust.probes import ProbedPicture
from dataflow_grounding.trust.seen_probes import NO_FORMAT, SeenProbes
from dataflow_grounding.trust.showing import Showing, is_further_off, shift_of, showing_of

# Copies of the same picture that are asked for after one that misses. A model with 6% of noise and
# a fifth of its boxes anywhere misses by chance in 7 of 100 pictures, in 1 of 360 with all four.
CONFIRMING = 3
# Pictures whose lines are fitted together, so that a slow drift shows: of four, a line is known
# twice as exactly as of one.
LEAST_POOLED = 4


@dataclass(frozen=True)
class Outcome:
    """What a check showed.

    Attributes:
        kind: `fits` if the format is right, `misses` if it isn't, `silent` if too few rectangles
            were answered.
        why: What was seen; of pictures that went unanswered, too.
        fitting: The name of another format that would fit, where one does.
        odd: Whether one picture was clearly answered in another format, though further copies of it
            fit.
        cleared: How many pictures missed, though further copies of them fit.
        as_asked: How many pictures were answered as asked.
        tells: For each orientation of pictures that were asked about, whether one was answered.
        shapes_differ: Whether pictures of another kind fit, where some miss.
    """

    kind: Literal["fits", "misses", "silent"]
    why: str = ""
    fitting: str | None = None
    odd: bool = False
    as_asked: int = 0
    cleared: int = 0
    tells: Mapping[str, bool] = field(default_factory=dict)
    shapes_differ: bool = False


class Wanted(NamedTuple):
    """A picture to ask about, and the number of the endpoint that is asked."""

    image: Image
    endpoint: int


class OneCheck:
    """A check of an endpoint.

    Args:
        ask: A record's means to send requests.
        asked: The run's format.
        endpoints: The addresses to check; a single one is "".
        seen: What earlier checks have seen; what this one sees is added.
    """

    def __init__(
        self, ask: Ask, asked: BoxFormat, endpoints: Sequence[str], seen: SeenProbes
    ) -> None:
        self._ask = ask
        self._asked = asked
        self._endpoints = endpoints
        self._seen = seen

    async def of(self, images: Sequence[Image], looks_like: str | None) -> Outcome:
        """Ask for rectangles in a copy of each image at each endpoint, and for more after a miss.

        `looks_like` is the format that replies look like, where they call for the check: a miss in
        that very format needs no other. Raises RunStopped.
        """
        wanted = [Wanted(image, at) for image in images for at in range(len(self._endpoints))]
        firsts = await asyncio.gather(*[self._copy(one) for one in wanted])
        showings = await self._showings([[picture] for picture in firsts])
        as_asked = sum(showing.kind == "fits" for showing in showings)
        self._seen.add(showings)
        is_odd = False
        cleared = 0
        for one, first, showing in zip(wanted, firsts, showings, strict=True):
            if showing.kind != "misses":
                continue
            if showing.fitting is not None and showing.fitting == looks_like:
                return Outcome("misses", showing.why, showing.fitting)
            in_others = len(self._seen.odd)
            missed = await self._confirm(one, first, others_fit=as_asked > 0)
            if missed is not None:
                return missed
            is_odd = is_odd or len(self._seen.odd) > in_others
            cleared += 1
        drifted = await self._drift(wanted[0])
        if drifted is not None:
            return Outcome("misses", drifted)
        return replace(_outcome_of(wanted, showings), odd=is_odd, cleared=cleared)

    async def _confirm(
        self, wanted: Wanted, first: ProbedPicture, *, others_fit: bool
    ) -> Outcome | None:
        # Ask for further copies of a picture that misses; return the miss if it is confirmed. It is
        # if all copies together miss, too: one may be answered badly by chance. It also is if two
        # were clearly answered in other formats, in this check or before, and others were not: then
        # the endpoint answers in several. `others_fit` says whether other pictures fit.
        further = await asyncio.gather(*[self._copy(wanted) for _ in range(CONFIRMING)])
        copies = [first, *further]
        one_by_one = [[picture] for picture in copies]
        together, *each = await self._showings([copies, *one_by_one])
        clear = self._clear(each)
        does_any_fit = any(one.kind == "fits" for one in each)
        address = self._endpoints[wanted.endpoint]
        where = f"at {address}, " if address else ""
        if together.kind == "misses" and not (does_any_fit and len(clear) > 1):
            shapes_differ = others_fit and not address
            why = f"{where}{together.why}"
            return Outcome("misses", why, together.fitting, shapes_differ=shapes_differ)
        self._seen.clear(clear)
        lately = self._seen.lately_odd
        if len(lately) > 1:
            formats = " and ".join(dict.fromkeys(lately))
            why = f"{where}probe pictures were answered in {formats}, and others were not"
            return Outcome("misses", why, odd=True)
        return None

    def _clear(self, copies: Sequence[Showing]) -> list[str]:
        # A miss is clear if another format explains it, or if it is further off than the copies
        # that fit, and than the run's others: a shift shows so.
        usual = [copy.rectangles.off for copy in copies if copy.kind == "fits" and copy.rectangles]
        of_run = self._seen.usual()
        if of_run is not None:
            usual.append(of_run)
        clear = []
        for copy in copies:
            if copy.kind != "misses" or copy.rectangles is None:
                continue
            if copy.fitting or (
                usual and is_further_off(copy.rectangles.off, np.concatenate(usual))
            ):
                clear.append(copy.fitting or NO_FORMAT)
        return clear

    async def _drift(self, wanted: Wanted) -> str | None:
        # Return in words how boxes have moved together by less than one picture shows. None where
        # the last pictures together don't show it, or further copies of one dissent.
        last = self._seen.last
        if len(last) < LEAST_POOLED or not await asyncio.to_thread(shift_of, last):
            return None
        further = await asyncio.gather(*[self._copy(wanted) for _ in range(CONFIRMING)])
        for showing in await self._showings([[picture] for picture in further]):
            if showing.rectangles is not None:
                last.append(showing.rectangles)
        moved = await asyncio.to_thread(shift_of, last)
        return f"in the last {len(last)} probe pictures {moved}" if moved else None

    async def _showings(self, groups: Sequence[Sequence[ProbedPicture]]) -> list[Showing]:
        usual = self._seen.usual()
        return await asyncio.to_thread(
            lambda: [showing_of(pictures, self._asked, usual) for pictures in groups]
        )

    async def _copy(self, wanted: Wanted) -> ProbedPicture:
        number = wanted.endpoint if len(self._endpoints) > 1 else None
        layout = self._seen.next_layout()
        return await ask_about_copy(self._ask, wanted.image, self._asked, layout, number)


def _outcome_of(wanted: Sequence[Wanted], showings: Sequence[Showing]) -> Outcome:
    tells: dict[str, bool] = {}
    for (image, _), showing in zip(wanted, showings, strict=True):
        orientation = orientation_of(image.sent_size)
        tells[orientation] = tells.get(orientation, False) or showing.kind != "silent"
    as_asked = sum(showing.kind == "fits" for showing in showings)
    silent = [showing.why for showing in showings if showing.kind == "silent"]
    kind: Literal["fits", "silent"] = "fits" if as_asked else "silent"
    why = silent[0] if silent else ""
    return Outcome(kind, why, as_asked=as_asked, tells=tells)

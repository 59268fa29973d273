"""Checks of an endpoint: rectangles are asked for in copies of pictures, and what they show.

The run's other requests go on meanwhile, because a server may treat pictures otherwise while it is
busy.

A copy fits if its rectangles are answered as asked, misses if they are answered otherwise, and is
silent if too few are answered (`showing.py`). After a miss three further copies are asked for:
what counts is what all four show together.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.summary import PROBE_AS_ASKED
from dataflow_grounding.images.image import Image
from dataflow_grounding.trust.own_probes import ask_about_copy
from dataflow_grounding.trust.probes import LAYOUTS, ProbedPicture
from dataflow_grounding.trust.showing import Showing, showing_of

# Copies of the same picture that are asked for after one that misses. A model with 6% of noise and
# a fifth of its boxes anywhere misses by chance in 7 of 100 pictures, in 1 of 360 with all four.
CONFIRMING = 3


@dataclass(frozen=True)
class Outcome:
    """What a check showed; `silent` if too few rectangles were answered."""

    kind: Literal["fits", "misses", "silent"]
    why: str = ""
    """What was seen; of pictures that went unanswered, too."""
    fitting: str | None = None
    """The name of another format that would fit, where one does."""
    as_asked: int = 0
    """How many pictures were answered as asked."""
    shapes_differ: bool = False
    """Whether pictures of another kind fit, where some miss."""
    blind: Sequence[str] = ()
    """The addresses of endpoints that found no rectangle at all; "" for that of a single one."""

    def note(self, ask: Ask) -> None:
        """Note on a record what was seen, where the format is right."""
        for _ in range(self.as_asked):
            ask.note(PROBE_AS_ASKED)
        if self.why:
            ask.note("unanswered_check", self.why)


class Target(NamedTuple):
    """A picture to ask about, and the endpoint to ask."""

    ask: Ask
    image: Image
    endpoint_number: int | None  # where there are several endpoints
    address: str  # of that endpoint, for messages; else ""


class Probing:
    """Asks for rectangles in copies of pictures."""

    def __init__(self, asked: BoxFormat) -> None:
        self._asked = asked
        # Two in succession are never the same.
        self._layouts = cycle(random.SystemRandom().sample(range(LAYOUTS), LAYOUTS))

    async def check(self, ask: Ask, images: Sequence[Image], addresses: Sequence[str]) -> Outcome:
        """Ask for rectangles in a copy of each image at each address, and for more after a miss.

        The check misses with the first miss that is confirmed. Raises RunStopped.
        """
        endpoints: list[tuple[int | None, str]] = list(enumerate(addresses))
        if len(addresses) == 1:
            endpoints = [(None, "")]  # the serving itself knows where to send
        targets = [Target(ask, image, *endpoint) for image in images for endpoint in endpoints]
        copies = await asyncio.gather(*[self._copy(target) for target in targets])
        showings = [showing_of([copy], self._asked) for copy in copies]
        do_others_fit = any(showing.kind == "fits" for showing in showings)
        for number, target in enumerate(targets):
            if showings[number].kind != "misses":
                continue
            further = [self._copy(target) for _ in range(CONFIRMING)]
            all_copies = [copies[number], *await asyncio.gather(*further)]
            showings[number] = together = showing_of(all_copies, self._asked)
            if together.kind == "misses":
                where = f"at {target.address}, " if target.address else ""
                # Where pictures of other shapes fit, the shape is the reason. With several
                # endpoints the endpoint may be the reason instead.
                shapes_differ = do_others_fit and not target.address
                why = f"{where}{together.why}"
                return Outcome("misses", why, together.fitting, shapes_differ=shapes_differ)
        return _outcome_of(targets, showings)

    async def _copy(self, target: Target) -> ProbedPicture:
        layout = next(self._layouts)
        return await ask_about_copy(
            target.ask, target.image, self._asked, layout, target.endpoint_number
        )


def _outcome_of(targets: Sequence[Target], showings: Sequence[Showing]) -> Outcome:
    """The outcome of a check without a miss: it fits if at least one picture fits."""
    seeing = set[str]()
    finding_nothing: list[str] = []
    for target, showing in zip(targets, showings, strict=True):
        if showing.kind == "fits":
            seeing.add(target.address)
        if showing.finds_nothing:
            finding_nothing.append(target.address)
    as_asked = sum(showing.kind == "fits" for showing in showings)
    silent = [showing for showing in showings if showing.kind == "silent"]
    return Outcome(
        kind="fits" if as_asked else "silent",
        why=silent[0].why if silent else "",
        as_asked=as_asked,
        # An endpoint is blind if it said of a picture that no rectangle is there, and answered
        # enough rectangles in none.
        blind=[address for address in dict.fromkeys(finding_nothing) if address not in seeing],
    )

"""The standing check: whether a run's boxes are in the format asked for, by checks of the endpoint and by signs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import SpecError, SuspectBoxes
from dataflow_grounding.images import Image
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.terminal import say

if TYPE_CHECKING:
    from dataflow_grounding.watch.watching import Watching

T = TypeVar("T")
OnSuspect: TypeAlias = Literal["warn", "stop"]

CHECK_EVERY = 100
"""Answers between two checks of the endpoint."""


class BoxWatch:
    """Watches the boxes of one run, and stops it, or warns once, where they are not in the format that was asked for.

    A sign in the first boxes or a drift of the numbers calls for a check of the endpoint, and so does every `every`-th
    request (None: no checks); a check that passes withdraws them. Where there can be no check, a sign is enough. It
    changes no record. Raises SpecError.
    """

    def __init__(self, on_suspect: OnSuspect, every: int | None = CHECK_EVERY) -> None:
        if on_suspect not in ("warn", "stop"):
            raise SpecError("on_suspect_boxes should be 'warn' or 'stop'")
        if every is not None and every < 1:
            raise SpecError("check_every should be 1 or more, or None")
        self.on_suspect = on_suspect
        self.every = every
        self.suspicion: str | None = None
        self.poor: str | None = None
        self._watching: Watching | None = None

    def __repr__(self) -> str:
        return f"BoxWatch({self.on_suspect!r})"

    def begun(self, serving: Serving, choice: FormatChoice, start: RunStart) -> "tuple[BoxWatch, Counter[str]]":
        """The watch of a run that starts, shared by all who ask in one format, and what settling the format took.

        Unless it has begun, and where boxes can be in no other format, requests pass unwatched. Raises as `settle`.
        """
        whose = (choice, self.on_suspect, self.every)
        if whose in start.shared:
            return start.shared[whose], Counter()
        watch = start.shared[whose] = BoxWatch(self.on_suspect, self.every)
        watch.poor = self.poor
        took, asked = choice.settle_to_ground(start, watch.on_poor), choice.format
        if not serving.exact_boxes and asked.scale != "grid_32":
            from dataflow_grounding.watch.endpoint_checks import FRESH, EndpointChecks
            from dataflow_grounding.watch.watching import Watching

            checks = EndpointChecks(
                serving,
                asked,
                self.every,
                calibrated=choice.is_new(FRESH),
                in_memory=start.folder is None,
                trusting=self.on_suspect == "warn",
                coming=lambda: start.pictures().sizes,
            )
            watch._watching = Watching(watch, asked, checks)
        return watch, took

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """The answer, which is looked at, to a request for boxes of `phrases`. Raises what failed, and SuspectBoxes."""
        if self._watching is None:
            return await ask(request)
        if self.suspicion is not None and self.on_suspect == "warn":
            return await ask(replace(request, of=self._watching.of))
        return await self._watching.ask(ask, request, image.sent_size, phrases)

    async def conclude(self, ask: Ask) -> None:
        """What is left to settle after the last record. Raises SuspectBoxes."""
        watching, self._watching = self._watching, None  # once, whichever operator comes first
        if watching is not None:
            await watching.conclude(ask)

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it, and `estimate` reckons with."""
        return {"suspect_boxes": self.suspicion or self.poor, "check_every": self.every}

    def on_poor(self, what: str) -> None:
        """Say that boxes in some pictures will be poor. Raises SuspectBoxes unless it only warns."""
        if self.on_suspect == "stop":
            raise SuspectBoxes(f"{what} (vlm.on_suspect_boxes: warn goes on all the same)")
        if self.poor != what:
            say(f"Warning: {what}.")
        self.poor = what

    def suspect(self, what: str, kept: str) -> None:
        """Report wrong boxes; `kept` says what happens to the replies. Raises SuspectBoxes unless set to warn."""
        self.suspicion = what
        if self.on_suspect == "stop":
            raise SuspectBoxes(f"{what}. {kept}")
        say(f"Warning: {what}.")

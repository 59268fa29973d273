"""The standing check of boxes, as operators have it: `BoxWatch`.

Here are its settings, how it begins with a run, and what it reports of one. A run has a `RunWatch`,
which does the work: it asks about probe pictures, with rectangles at known places.
"""

from collections import Counter
from typing import Any, Literal, TypeAlias, TypeVar

from dataflow_grounding._util.errors import SpecError, SuspectBoxes
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.fused import Fused
from dataflow_grounding.tasks.grounding import Found
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.choice import FormatChoice

T = TypeVar("T", list[Found], Fused)  # answers with boxes
OnSuspect: TypeAlias = Literal["warn", "stop"]

CHECK_EVERY = 100  # requests between two checks of the endpoint, on average


class BoxWatch:
    """Watches the boxes of a run: whether they are in the format that was asked for.

    Where they are not, it stops the run, or warns once. Before a run begins, and where boxes can be
    in no other format, requests pass unwatched. `every` is how many requests there are between two
    checks of the endpoint, on average; None for no checks. Raises SpecError.
    """

    def __init__(self, on_suspect: OnSuspect, every: int | None = CHECK_EVERY) -> None:
        if on_suspect not in ("warn", "stop"):
            raise SpecError("on_suspect_boxes should be 'warn' or 'stop'")
        if every is not None and every < 1:
            raise SpecError("check_every should be 1 or more, or None")
        self.on_suspect = on_suspect
        self.every = every
        self.suspicion: str | None = None
        """What speaks against the boxes of the run; None while nothing does."""
        self.poor: str | None = None
        """In which pictures boxes are poor, though in the format; None for none."""

    def __repr__(self) -> str:
        return f"BoxWatch({self.on_suspect!r})"

    def as_setting(self) -> str:
        """What the boxes of an operator depend on."""
        return repr(self)

    async def begun(
        self, serving: Serving, choice: FormatChoice, start: RunStart, form: str = ""
    ) -> "tuple[BoxWatch, Counter[str]]":
        """Settle the box format; return the run's watch, and counts of the requests that it took.

        All operators of a run that ask in one format, and in one `form` of question ("" is the
        usual one), share a watch. It is a RunWatch, unless boxes can't come in another format, as
        those of some servings and those in grid cells.

        Raises NoFit if the model's answers name no format, RunStopped, and SuspectBoxes if boxes in
        some pictures will be poor and the watch is set to stop.
        """
        from dataflow_grounding.trust.run_watch import RunWatch

        sharing_key = (choice, self.on_suspect, self.every, form)
        if sharing_key in start.shared:  # another operator of the run has begun
            return start.shared[sharing_key], Counter()
        # The run gets a watch of its own: `self` holds the operator's settings for all its runs.
        watch: BoxWatch = BoxWatch(self.on_suspect, self.every)
        watch.poor = self.poor  # so that `on_poor` warns of no pictures a second time
        counts = await choice.settle_to_ground(start, watch.on_poor)
        asked = choice.format
        may_write_another = not serving.exact_boxes and asked.scale != "grid_32"
        if may_write_another:
            calibrated = choice.is_calibrated
            watch = RunWatch(watch, serving, asked, start, form, calibrated=calibrated)
        start.shared[sharing_key] = watch
        return watch, counts

    async def ask(self, ask: Ask, request: Request[T], image: Image) -> T:
        """Return the answer to a request for boxes in an image.

        Raises what the request fails with, and SuspectBoxes.
        """
        return await ask(request)

    async def last_check(self, ask: Ask) -> None:
        """Send a check with a run's last requests, if one is due. Raises SuspectBoxes."""

    async def conclude(self, ask: Ask) -> None:
        """Settle what is left after a run's last record. Raises SuspectBoxes."""

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says of the watch; `estimate` uses it, too."""
        return {"suspect_boxes": self.suspicion or self.poor, "check_every": self.every}

    def on_poor(self, what: str) -> None:
        """Warn that boxes in some pictures will be poor, once in the same words.

        Raises SuspectBoxes where the watch is set to stop.
        """
        if self.on_suspect == "stop":
            raise SuspectBoxes(
                f"{what} ({setting('vlm.on_suspect_boxes', 'warn')} goes on all the same)"
            )
        if self.poor != what:
            say(f"Warning: {what}.")
        self.poor = what

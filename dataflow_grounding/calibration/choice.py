"""Which box format an operator asks for: by name, by the model's name, as calibrated, or to be
calibrated first.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from dataflow_grounding._util.errors import EndpointRefused, SpecError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format, format_of_model, known_formats
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._stored import (
    Calibration,
    cache_path,
    load,
    now,
    stored_calibration,
)
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving.base import Serving

# What an unknown model is asked for: models that follow instructions can, and a resize on the way
# changes nothing.
STATED = "xyxy_1000"
REQUESTS = "3 to 11 requests, 10 to 40 if it counts pixels"  # what a calibration takes
# What to do about a format that isn't known: the result is used even for a model whose name says
# something else.
CALIBRATE = "run dataflowgrounding calibrate and then set vlm.box_format: calibrated"
MOST_SIZES = 64  # that a calibration covers before no more are tried: data may have thousands
RUN_FILE = "calibration.json"  # where a run keeps its calibration, in its .ckpt
# what could not be written to the cache, for the rest of this process
_settled: dict[str, Calibration] = {}


class FormatChoice:
    """The box format of a serving's model, and how it is known.

    While `pending`, `format` is only what the first question will state: call `settle` before any
    box is asked for.

    Args:
        serving: The model; its `image_limits` are narrowed to the sizes in which it was calibrated.
        wanted: A name as in `vlm.box_format`; None takes the serving's.

    Raises:
        SpecError: The name isn't known, the model draws no boxes, or it is `calibrated` and no
            calibration is stored.
    """

    def __init__(self, serving: Serving, wanted: str | None = None) -> None:
        self._serving = serving
        self._unlimited = serving.image_limits  # by no calibration
        by_serving = wanted is None and type(serving).box_format == serving.box_format
        wanted = wanted or serving.box_format
        self.pending = False
        self._usual: float | None = None
        self._calibrated_at = -math.inf
        self.limits: SizeLimits | None = None
        self._found: Calibration | None = None
        name = wanted.strip().lower()
        candidate = format_of_model(serving.model, serving.box_formats)
        if name not in ("auto", "calibrated"):
            self.format = find_box_format(wanted, serving.model, serving.box_formats)
            if self.format != known_formats().get(name) or self.format.scale != "px":
                self.origin = "the serving's own" if by_serving else "vlm.box_format"
                return
        elif (
            name == "auto"
            and candidate is not None
            and (_is_proof(candidate) or not candidate.boxes)
        ):
            self.format = find_box_format("auto", serving.model, serving.box_formats)
            self.origin = "the model's name"
            return
        else:
            self.format = stated_format(serving.model)
        self.origin = "not known before it is calibrated"
        self.pending = True
        self.recall()
        if self.pending and name == "calibrated":
            raise SpecError(
                f"vlm.box_format is 'calibrated', but no calibration of {serving.model!r} at"
                f" {serving.endpoint} is stored: run dataflowgrounding calibrate first"
            )

    def __repr__(self) -> str:
        return repr((self.format, self.limits))

    def settle_to_ground(self, start: RunStart, on_poor: Callable[[str], None]) -> Counter[str]:
        """As `settle`, and whether to pad elongated pictures; `on_poor` is told where boxes are far
        off even so.
        """
        serving, counts = self._serving, self.settle(start)
        if self.format.scale in ("px", "grid_32") or not serving.takes_probes:
            return counts
        from dataflow_grounding.calibration._taken import elongated
        from dataflow_grounding.calibration.probes import by

        pictures = start.pictures()
        own = elongated(pictures.sizes)
        path = cache_path(serving.endpoint, serving.model, self.format.name)
        found = stored_calibration(serving.endpoint, serving.model, path) or _settled.get(path)
        missing = [size for size in own if found is None or not found.covers(size)]
        if missing:
            from dataflow_grounding.calibration.asking import calibrate_elongated

            found, asked = calibrate_elongated(
                serving, self.format, start, replace(pictures, sizes=missing), self._usual, found
            )
            counts += asked
            if found is not None:
                keep(found, elongated=self.format.name)
        if found is None:
            return counts
        for size in own:
            off = found.off_in(size)
            if off is not None:
                shape = f"pictures as elongated as {by(size)}"
                what = f"boxes of {serving.model} in {shape} are off by {off:.0%} of the side"
                on_poor(
                    f"{what}, padded or not: leave such pictures out, or cut them into shorter ones"
                )
        self._narrow(found)
        return counts

    @property
    def why(self) -> str:
        """Why it has to be calibrated, in words."""
        if self.format.scale == "px":
            return (
                f"{self._serving.model} counts pixels, and it is not known of which size it sees a"
                " picture here"
            )
        return f"It is not known how {self._serving.model} writes boxes"

    def recall(self, folder: str | None = None) -> None:
        """Take a stored calibration, the user's or that of the run in `folder`, if one is wanted.
        Sends nothing.
        """
        if not self.pending:
            return
        serving, path = self._serving, cache_path(self._serving.endpoint, self._serving.model)
        found = stored_calibration(
            serving.endpoint, serving.model, path, *_beside(folder)
        ) or _settled.get(path)
        if found is not None:
            self._take(found)

    def _take(self, found: Calibration) -> None:
        """Ask and read in what was found, and send no picture in a size at which it was not."""
        self.format, self.origin, self.pending = found.format, found.origin, False
        self._found = found
        self._usual = found.error_share
        self._narrow(found)

    def _narrow(self, found: Calibration) -> None:
        self.limits = found.limits
        if self.limits is not None:
            self._serving.image_limits = self._serving.image_limits.within(self.limits)

    @property
    def is_calibrated(self) -> bool:
        """Whether calibrating has found the format out, now or earlier."""
        return self._found is not None

    def is_new(self, seconds: float) -> bool:
        """Whether the model was calibrated in the last `seconds`, as good as a check of the
        endpoint: told once.
        """
        at, self._calibrated_at = self._calibrated_at, -math.inf
        return time.monotonic() - at < seconds

    def settle(self, start: RunStart) -> Counter[str]:
        """Calibrate if `pending`, and say so; returns counts of requests and tokens, empty where
        nothing was asked.

        What is stored is tried in sizes of the run that it doesn't cover, one picture each, and
        found out anew if it is wrong there. The run's folder keeps the result, to be resumed in the
        same format, and the replies, which the next try reads. Raises NoFit, RunStopped.
        """
        self.recall(start.folder)
        counts, paid = Counter[str](), start.budget.sent
        if not self.pending and self._found is not None and self._serving.takes_probes:
            start, counts = self._cover(start, self._found)
        return counts + self._calibrate(start, paid) if self.pending else counts

    def _cover(self, start: RunStart, found: Calibration) -> tuple[RunStart, Counter[str]]:
        """Try the calibration in sizes that it doesn't cover; `pending` again where it is wrong in
        one, which the start that is returned puts first.
        """
        in_pixels = found.format.scale == "px"
        if (
            (in_pixels and found.limits is None)
            or len(found.sizes) >= MOST_SIZES
            or found.format.scale == "grid_32"
        ):
            return start, Counter()
        from dataflow_grounding.calibration.alike_sizes import covers_for, most_own, uncovered
        from dataflow_grounding.calibration.asking import try_sizes
        from dataflow_grounding.calibration.probes import by

        pictures, covers = start.pictures(), covers_for(found.format.scale)
        sent, gone_on = (
            self._sizes_to_cover(pictures, in_pixels=in_pixels),
            self._gone_on_with(start.folder),
        )
        missing = uncovered(sent, [*found.sizes, *gone_on], covers, most_own(sum(pictures.counts)))
        if not missing:
            return start, Counter()
        sizes = ", ".join(map(by, missing))
        say(
            f"The calibration covers no pictures like those of {sizes} px: one request each tells"
            " whether it holds."
        )
        right, wrong, counts = try_sizes(
            self._serving, found.format, start, replace(pictures, sizes=missing)
        )
        if not wrong:
            found = replace(found, date=now(), sizes=[*found.sizes, *map(list, right)])
            keep(replace(found, untried=[*gone_on, *self._not_covered(found, start)]), start.folder)
            self._take(found)
            return start, counts
        say(f"Pictures of {', '.join(map(by, wrong))} px are not seen as the calibration says.")
        self.pending = True
        own = replace(
            pictures, sizes=[*wrong, *(size for size in pictures.sizes if size not in wrong)]
        )
        self._serving.image_limits = self._unlimited
        return replace(start, pictures=lambda: own), counts

    def _sizes_to_cover(self, pictures: OwnPictures, *, in_pixels: bool) -> list[Size]:
        """The sizes in which a run's pictures are sent, the commonest first, and a format is to be
        tried.
        """
        from dataflow_grounding.calibration._taken import is_elongated
        from dataflow_grounding.calibration.probes import legible

        limits = self._serving.image_limits
        sent = [limits.fitted(limits.padded(size)) for size in pictures.sizes]
        if in_pixels:
            return sent
        # How elongated ones are to be sent, and whether boxes are right then, is found out for
        # themselves.
        return [legible(size, limits.max_side) for size in sent if not is_elongated(size)]

    def _not_covered(self, found: Calibration, start: RunStart) -> list[list[int]]:
        """The sizes of the run's pictures, as sent, that what was found doesn't cover."""
        from dataflow_grounding.calibration.alike_sizes import covers_for

        sent = self._sizes_to_cover(start.pictures(), in_pixels=found.format.scale == "px")
        covers = covers_for(found.format.scale)
        return [list(size) for size in dict.fromkeys(sent) if not covers(size, found.sizes)]

    def _gone_on_with(self, folder: str | None) -> list[list[int]]:
        """The sizes that an earlier start of the same run went on with: done once, it sends nothing
        when repeated.
        """
        serving = self._serving
        earlier = (
            load(os.path.join(folder, RUN_FILE), serving.endpoint, serving.model)
            if folder
            else None
        )
        return earlier.untried if earlier is not None else []

    def _calibrate(self, start: RunStart, paid: int) -> Counter[str]:
        """Calibrate, in a run that had sent so many requests `paid` for its records before it came
        to that.
        """
        from dataflow_grounding.calibration.asking import calibrate
        from dataflow_grounding.calibration.probes import NoFit

        serving = self._serving
        say(f"{self.why}: calibrating, with {REQUESTS}.")
        try:
            found, _, counts = calibrate(serving, self.format, start)
        except NoFit as unclear:
            if paid:  # by steps that came first: then it isn't the end of a run that sent nothing
                raise EndpointRefused(str(unclear)) from None
            raise
        say(f"{serving.model} writes {found.box_format}: {summary(found)}.")
        self._take(found)
        keep(
            replace(found, untried=self._not_covered(found, start)) if start.folder else found,
            start.folder,
        )
        self._calibrated_at = time.monotonic()
        return counts


def choice_of(serving: Serving, wanted: str | None = None) -> FormatChoice:
    """The FormatChoice that all who ask this serving share, so that it is settled once. Raises
    SpecError.
    """
    if (
        serving.exact_boxes
        and isinstance(wanted, str)
        and wanted not in ("auto", serving.box_format)
    ):
        raise SpecError(
            f"{serving.model} writes boxes as {serving.box_format} alone: leave out vlm.box_format"
        )
    choices = vars(serving).setdefault("_format_choices", {})
    asked = (wanted, serving.box_format, serving.model, serving.endpoint, repr(serving.box_formats))
    choice: FormatChoice = choices.get(asked) or choices.setdefault(
        asked, FormatChoice(serving, wanted)
    )
    choice.recall()
    return choice


def stated_format(model: str) -> BoxFormat:
    """The format in which a model is asked first to calibrate it: that of the table for its name,
    else xyxy_1000.
    """
    candidate = format_of_model(model)
    return (
        candidate if candidate is not None and candidate.boxes else find_box_format(STATED, model)
    )


def _is_proof(candidate: BoxFormat) -> bool:
    """Whether a model's name settles its format: never pixels of the table, as servers reduce
    pictures as they like.
    """
    return candidate.verified and (
        candidate.scale != "px" or candidate != known_formats().get(candidate.name)
    )


def summary(found: Calibration) -> str:
    """How well the format fits, and what it took, in words."""
    share = f"{100 * found.error_share:.1f}% of the side"
    counted = f"{found.found} of {found.asked} rectangles found, {found.requests} requests"
    limits = (
        f", pictures sent with {_in_words(limits)}" if (limits := found.limits) is not None else ""
    )
    return (
        f"error {found.error_px:.1f} px ({share} for the median rectangle's worst edge),"
        f" {counted}{limits}"
    )


def _in_words(limits: SizeLimits) -> str:
    if limits.max_wide == limits.max_tall == 1:
        return f"sides of {limits.max_side} px, padded to squares"
    parts = [f"sides up to {limits.max_side} px"]
    if limits.max_short_side is not None:
        parts.append(f"the shorter one up to {limits.max_short_side} px")
    if limits.max_pixels is not None:
        parts.append(f"at most {limits.max_pixels:,} px in all")
    if limits.multiple > 1:
        parts.append(f"in multiples of {limits.multiple} px")
    return ", ".join(parts)


def keep(found: Calibration, folder: str | None = None, elongated: str = "") -> str | None:
    """Store `found` in the user's cache (`elongated` as for cache_path) and a run's `folder`; what
    can't be written is kept in memory. Returns the cache's file, None if it can't be written.
    """
    cached = cache_path(found.endpoint, found.model, elongated)
    written = set()
    for path in (cached, *_beside(folder)):
        try:
            (replace(found, untried=[]) if path == cached else found).save(path)
            written.add(path)
        except OSError as error:
            _settled[cached] = found
            say(f"The calibration can't be saved to {path}: {error.strerror or error}")
    return cached if cached in written else None


def _beside(folder: str | None) -> list[str]:
    return [os.path.join(folder, RUN_FILE)] if folder else []

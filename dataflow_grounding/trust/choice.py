"""Which box format an operator asks for, and how it came to be known.

It is stated by its name, known by the model's name, known from a calibration that is stored, or not
known before the model is calibrated.

Where a model counts pixels, its pictures are sent in a few exact sizes alone, called frames. A map
says what numbers mean in each of them.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dataflow_grounding._util.errors import EndpointRefused, SpecError
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format, format_of_model, known_formats
from dataflow_grounding.boxes.geometry import Size, size_text
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.kinds import most_elongated
from dataflow_grounding.trust.no_fit import NoFit

if TYPE_CHECKING:  # what is stored is read where a model's name doesn't tell its format
    from dataflow_grounding.trust.calibration_file import Calibration
    from dataflow_grounding.trust.padding import Shape

# The format that an unknown model is first asked for. Models that follow instructions can write it,
# and a resize on the way changes nothing.
DEFAULT_FORMAT = "xyxy_1000"
# What a calibration takes; a run of one size has one frame, of many sizes five.
REQUESTS = "3 to 11 requests, 2 to 8 more for each of up to 5 sizes if it counts pixels"
# Of the side, by which edges may be off: the goal of a map, as of the standing check.
PRECISE_ENOUGH = 0.01
SHARED = "_format_choices"  # the attribute of a serving that holds the choices of all who ask it


class NamedFormat(NamedTuple):
    """What names alone tell of a model's format; without an `origin`, it is only a first guess."""

    format: BoxFormat
    origin: str | None


class FormatChoice:
    """The box format of a serving's model, and how it is known.

    While `pending`, the model has to be calibrated: `settle` comes before any box is asked for, and
    `format` is only the one that the first question will state. The serving's `image_limits` are
    narrowed to the sizes in which it was calibrated.

    `wanted` is a name as in `vlm.box_format`; None takes the serving's. Raises SpecError where it
    isn't known, the model draws no boxes, or it is `calibrated` and no calibration is stored.
    """

    def __init__(self, serving: Serving, wanted: str | None = None) -> None:
        self._serving = serving
        # what the serving's limits go back to where a calibration proves wrong (`_make_pending`)
        self._uncalibrated_limits = serving.image_limits
        self._calibration: Calibration | None = None
        self._tried_shapes: list[Shape] = []  # of elongated pictures
        self.limits: SizeLimits | None = None  # the sizes in which pictures are sent; None for all
        self.pending = False
        named = _named_format(serving, wanted)
        self.format = named.format
        if named.origin is not None:
            self.origin = named.origin
            return
        self.origin = "not known before it is calibrated"
        self.pending = True
        self.recall()  # takes a stored calibration, with which it isn't pending any more
        stated = wanted or serving.box_format
        if self.pending and stated.strip().lower() == "calibrated":
            raise SpecError(
                f"{setting('vlm.box_format')} is 'calibrated', but no calibration of"
                f" {serving.model!r} at {serving.endpoint} is stored: run dataflowgrounding"
                " calibrate first"
            )

    def __repr__(self) -> str:
        return repr((self.format, self.limits))

    def as_setting(self) -> str:
        """What the boxes of an operator depend on."""
        return repr(self)

    @property
    def why(self) -> str:
        """Why the model has to be calibrated, in words."""
        if self.format.scale == "px":
            return (
                f"{self._serving.model} counts pixels, and it is not known of which size it sees a"
                " picture here"
            )
        return f"It is not known how {self._serving.model} writes boxes"

    @property
    def is_calibrated(self) -> bool:
        return self._calibration is not None

    # What is stored

    def recall(self, folder: str | None = None) -> None:
        """Take a stored calibration while `pending`: the user's, or that of the run in `folder`."""
        if not self.pending:
            return
        # Imported here because it imports Pillow: most models are known by their names.
        from dataflow_grounding.trust.calibration_file import stored_calibration

        serving = self._serving
        calibration = stored_calibration(serving.endpoint, serving.model, folder)
        if calibration is not None:
            self._take(calibration)

    def _take(self, calibration: "Calibration") -> None:
        self.format = calibration.format
        self.origin = calibration.origin
        self.pending = False
        self._calibration = calibration
        self._narrow(calibration.limits)

    def _narrow(self, limits: SizeLimits | None) -> None:
        self.limits = limits
        if limits is not None:
            self._serving.image_limits = self._serving.image_limits.within(limits)

    # What is asked

    async def settle(self, start: RunStart) -> Counter[str]:
        """Calibrate the model if `pending`; return counts of requests and tokens.

        The run's folder keeps the result, so that the run is resumed in the same format. Raises
        RunStopped where the endpoint doesn't answer, or the answers name no format; the latter is
        NoFit if the run sent nothing before.
        """
        self.recall(start.folder)
        counts = Counter[str]()
        # Requests that the run's earlier steps sent, and the user has paid for (see `_calibrate`).
        # It is read here, before the measuring below sends any.
        sent_before = start.budget.sent
        earlier = self._calibration
        may_measure = not self.pending and self._serving.takes_probes
        if may_measure and earlier is not None and earlier.frames:
            # This run's pictures may need other frames than those that were measured.
            counts = await self._measure_missing_frames(start, earlier)
        if self.pending:  # it may have become so just now, if the calibration proved wrong
            counts = counts + await self._calibrate(start, sent_before)
        return counts

    async def settle_to_ground(
        self, start: RunStart, on_poor: Callable[[str], None]
    ) -> Counter[str]:
        """Settle the format as `settle` does, and find out whether to pad elongated pictures.

        `on_poor` is called with a sentence for each size in which boxes are far off even so.
        """
        counts = await self.settle(start)
        # Pixels need no check: what they mean is measured in elongated frames, too. Boxes in grid
        # cells aren't checked at all.
        needs_no_check = self.format.scale in ("px", "grid_32")
        if needs_no_check or not self._serving.takes_probes:
            return counts
        pictures = await start.own_pictures()
        for size in most_elongated(pictures.sizes, self._serving.image_limits):
            shape, shape_counts = await self._shape_for(size, start)
            counts += shape_counts
            if shape.off is not None:  # boxes are off, and no padding helps
                on_poor(
                    f"boxes of {self._serving.model} in pictures as elongated as"
                    f" {_listed([size])} are off by {shape.off:.0%} of the side, padded or not:"
                    " leave such pictures out, or cut them into shorter ones"
                )
        return counts

    async def _shape_for(self, size: Size, start: RunStart) -> "tuple[Shape, Counter[str]]":
        """How pictures as elongated as this are sent; counts of what it took to find out."""
        for tried in self._tried_shapes:
            if tried.covers(size):  # it was found out with a picture of another size
                return tried, Counter()
        # Imported here because it imports Pillow: few runs have elongated pictures.
        from dataflow_grounding.trust.calibrating import shape_of_run

        shape, counts = await shape_of_run(self._serving, self.format, start, size)
        self._tried_shapes.append(shape)
        if shape.aspect is not None:  # padding is needed, and helps
            # Without limits of a calibration, only the serving's longest side is a limit so far.
            limits = self.limits or SizeLimits(self._serving.image_limits.max_side)
            if shape.size[0] > shape.size[1]:
                self._narrow(replace(limits, max_wide=shape.aspect))
            else:
                self._narrow(replace(limits, max_tall=shape.aspect))
        return shape, counts

    async def _measure_missing_frames(
        self, start: RunStart, earlier: "Calibration"
    ) -> Counter[str]:
        """Measure the frames of the run's pictures that the calibration doesn't have."""
        # Imported here because they import Pillow: most runs calibrate nothing.
        from dataflow_grounding.trust.calibrating import measure_frames_of
        from dataflow_grounding.trust.calibration_file import store_calibration

        pictures = await start.own_pictures()
        missing = _missing_frames(pictures, earlier)
        if not missing:
            return Counter()
        what_it_takes = "2 to 8 requests each tell what numbers mean in them"
        if not earlier.maps:  # parts of the side mean the same in every size
            what_it_takes = "a request each tells whether they are answered as others are"
        say(f"Pictures are sent in further sizes, {_listed(missing)} px: {what_it_takes}.")
        measured = await measure_frames_of(self._serving, earlier, start, pictures, missing)
        if measured.calibration is not None:
            _warn_of_vague_maps(measured.calibration)
            store_calibration(measured.calibration, start.folder)
            self._take(measured.calibration)
        elif isinstance(measured.failure, NoFit):
            say(f"The calibration doesn't hold there: {measured.failure}.")
            self._make_pending()
        else:
            # The endpoint refused to go on: only the frames that were measured before are used.
            say(f"Pictures are sent in the sizes that are measured: {measured.failure}")
            if start.folder:
                _keep_as_refused(missing, earlier, start.folder)
        return measured.counts

    def _make_pending(self) -> None:
        self.pending = True
        # The serving gets back the limits that it had without the calibration, but keeps what the
        # endpoint has told meanwhile: how large a picture's file may be.
        learnt = self._serving.image_limits.learnt_bytes
        self._serving.image_limits = replace(self._uncalibrated_limits, learnt_bytes=learnt)

    async def _calibrate(self, start: RunStart, sent_before: int) -> Counter[str]:
        # Imported here because they import Pillow: most runs calibrate nothing.
        from dataflow_grounding.trust.calibrating import calibrate
        from dataflow_grounding.trust.calibration_file import store_calibration

        serving = self._serving
        say(f"{self.why}: calibrating, with {REQUESTS}.")
        try:
            calibration, _, counts = await calibrate(serving, self.format, start)
        except NoFit as unclear:
            if sent_before:
                # NoFit is an error in the spec, for a run that has cost nothing yet. This run has
                # paid for earlier steps: EndpointRefused stops it so that it can be resumed.
                raise EndpointRefused(str(unclear)) from None
            raise
        say(f"{serving.model} writes {calibration.box_format}: {summary(calibration)}.")
        _warn_of_vague_maps(calibration)
        self._take(calibration)
        store_calibration(calibration, start.folder)
        return counts


def _missing_frames(pictures: OwnPictures, earlier: "Calibration") -> list[Size]:
    """The frames that a run's pictures need besides those that were measured."""
    from dataflow_grounding.trust.frames import missing_frames  # it imports Pillow

    # The calibration's other limits hold for new frames, too. Its frames are taken out of the
    # limits, because with them no other size is allowed.
    limits_without_frames = replace(earlier.limits or SizeLimits(), frames=())
    return missing_frames(
        pictures.sizes,
        limits_without_frames,
        measured=earlier.frames,
        refused=earlier.refused,
        answered=earlier.sizes,
    )


def advice_to_calibrate() -> str:
    # `calibrated` goes before what the model's name says.
    return f"run dataflowgrounding calibrate and then set {setting('vlm.box_format', 'calibrated')}"


def choice_of(serving: Serving, wanted: str | None = None) -> FormatChoice:
    """Return the FormatChoice that all who ask this serving share, so that it is settled once.

    Raises SpecError as FormatChoice does, and where `wanted` contradicts the serving.
    """
    _check_wanted(serving, wanted)
    sharing_key = (
        wanted,
        serving.box_format,
        serving.model,
        serving.endpoint,
        repr(serving.box_formats),
    )
    # The choices are kept on the serving itself. So they are freed with it, copies of it share
    # them, and a pipeline that is sent to another process takes them along.
    choices: dict[Hashable, FormatChoice] = vars(serving).setdefault(SHARED, {})
    choice = choices.get(sharing_key)
    if choice is None:
        # Two threads may come at once: setdefault gives both the same choice.
        choice = choices.setdefault(sharing_key, FormatChoice(serving, wanted))
    choice.recall()
    return choice


def _check_wanted(serving: Serving, wanted: str | None) -> None:
    """Raise SpecError where what is stated contradicts the serving, or isn't text."""
    stated: object = serving.box_format if wanted is None else wanted
    if not isinstance(stated, str):
        raise SpecError(
            f"{setting('vlm.box_format')} should be a name, such as xyxy_1000, or auto, by which a"
            f" model that counts pixels is measured, not {type(stated).__name__}"
        )
    is_another_stated = wanted is not None and wanted not in ("auto", serving.box_format)
    if serving.exact_boxes and is_another_stated:
        raise SpecError(
            f"{serving.model} writes boxes as {serving.box_format} alone: leave out"
            f" {setting('vlm.box_format')}"
        )


def check_calibratable(serving: Serving) -> None:
    """Raise SpecError where a serving has nothing to calibrate, or can't be asked."""
    if serving.exact_boxes:
        raise SpecError(
            f"{serving.model} always answers in {serving.box_format}: there is nothing to calibrate"
        )
    obstacles = serving.obstacles()
    if obstacles:
        raise SpecError("\n".join(obstacles))


def first_format(serving: Serving) -> BoxFormat:
    """Return the format that the model's name suggests, even unconfirmed, else DEFAULT_FORMAT."""
    candidate = format_of_model(serving.model, serving.box_formats)
    if candidate is not None and candidate.boxes:
        return candidate
    return find_box_format(DEFAULT_FORMAT, serving.model)


def _named_format(serving: Serving, wanted: str | None) -> NamedFormat:
    stated = wanted or serving.box_format  # a format's name, "auto" or "calibrated"
    name = stated.strip().lower()
    if name == "auto":
        return _named_by_model(serving)
    if name == "calibrated":  # the format is only the one to ask in first
        return NamedFormat(first_format(serving), origin=None)
    box_format = find_box_format(stated, serving.model, serving.box_formats)
    if _is_pixels_of_the_table(box_format, name):
        return NamedFormat(box_format, origin=None)
    # A serving's class may set its format; otherwise somebody stated it.
    is_set_by_class = wanted is None and type(serving).box_format == serving.box_format
    origin = "the serving's own" if is_set_by_class else setting("vlm.box_format")
    return NamedFormat(box_format, origin)


def _named_by_model(serving: Serving) -> NamedFormat:
    by_model_name = format_of_model(serving.model, serving.box_formats)
    if by_model_name is not None:
        draws_no_boxes = not by_model_name.boxes
        is_pixels = _is_pixels_of_the_table(by_model_name, by_model_name.name)
        is_proof = by_model_name.verified and not is_pixels  # somebody has confirmed it
        if draws_no_boxes or is_proof:
            # For a model that draws no boxes this raises SpecError: calibrating can't help it.
            box_format = find_box_format("auto", serving.model, serving.box_formats)
            return NamedFormat(box_format, "the model's name")
    return NamedFormat(first_format(serving), origin=None)


def _is_pixels_of_the_table(box_format: BoxFormat, name: str) -> bool:
    """Whether a family's format, named by its name in the table of formats, counts pixels."""
    # Such a name proves nothing: servers reduce pictures as they like, with any model.
    return box_format.scale == "px" and box_format == known_formats().get(name)


def _warn_of_vague_maps(calibration: "Calibration") -> None:
    vague: list[Size] = []
    for frame_map in calibration.maps:
        # two standard errors hold 95% of the edges
        if 2 * frame_map.error > PRECISE_ENOUGH:
            vague.append(frame_map.size)
    if vague:
        say(
            f"Warning: boxes in pictures of {_listed(vague)} px may be off by"
            f" {calibration.precision:.1%} of the side throughout: the answers about probe pictures"
            " are too noisy to tell."
        )


def _keep_as_refused(missing: Sequence[Size], earlier: "Calibration", folder: str) -> None:
    """Keep in a run's folder that the endpoint refused these sizes."""
    from dataflow_grounding.trust.calibration_file import run_file, utc_timestamp

    # The resumed run doesn't ask again. The user's other runs do.
    refused = [*earlier.refused, *missing]
    extended = replace(earlier, date=utc_timestamp(), refused=refused)  # the latest one counts
    extended.save(run_file(folder))


def _listed(sizes: Sequence[Size]) -> str:
    return ", ".join(map(size_text, sizes))


def summary(calibration: "Calibration") -> str:
    limits = ""
    if calibration.limits is not None:
        limits = f", pictures sent with exactly {_listed(calibration.frames)} px"
    share = 100 * calibration.error_share
    return (
        f"error {calibration.error_px:.1f} px"
        f" ({share:.1f}% of the side for the median rectangle's worst edge),"
        f" {calibration.found} of {calibration.asked} rectangles found,"
        f" {calibration.requests} requests{limits}"
    )

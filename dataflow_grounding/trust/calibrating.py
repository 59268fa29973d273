"""Calibrating: asks a model about probe pictures, and fits a box format to the answers.

The requests go through the engine, as a run's do: with its limits, retries and budget, and replies
are stored before they are read. What to ask next is decided in `finding.py`.

A probe picture has rectangles at known places (`probes.py`). Where a model counts pixels, pictures
are sent in a few exact sizes alone, called frames, and a map says what numbers mean in each.
"""

import asyncio
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import NamedTuple, TypeVar

from dataflow_grounding._util.errors import (
    EndpointRefused,
    RecordError,
    RequestRefused,
    UnreadableReply,
)
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import bare_address
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size, size_text
from dataflow_grounding.engine.annotating import StepAsk
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.keyed_log import CHECK, key_of
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.images.image import ImageLimits, SizeLimits
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.calibration_file import (
    Calibration,
    prompt_version,
    utc_timestamp,
)
from dataflow_grounding.trust.finding import Deciding, Decision, NothingAnswered, add_frames
from dataflow_grounding.trust.kinds import MODERATE
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.padding import MOST_ASKED, Shape, shape_of
from dataflow_grounding.trust.probes import (
    SUFFIXES,
    Probe,
    ProbedPicture,
    legible,
    question_of,
    reduced_to,
)

T = TypeVar("T")

# Added to a message of failure if the replies are stored.
_ADVICE_TO_ASK_AGAIN = ". The replies are kept: dataflowgrounding calibrate asks for them again"
CALIBRATION = "calibration"
"""The step under which replies to probe pictures are stored."""


def advice_to_state() -> str:
    return (
        f"State it, as in {setting('vlm.box_format', 'xyxy_1000')} (or yxyx_1000, xyxy_px, xyxy_1,"
        " or a family such as gemini or qwen3-vl), or in the environment's DF_BOX_FORMAT"
    )


class Calibrated(NamedTuple):
    """A calibration, what it rests on, and counts of the requests and tokens that it took."""

    calibration: Calibration
    decision: Decision
    counts: Counter[str]


async def calibrate(serving: Serving, stated: BoxFormat, start: RunStart) -> Calibrated:
    """Find out in which box format a model answers; stored replies answer first.

    The serving's connections are closed afterwards. Raises NoFit, whose message says how to state a
    format, and RunStopped.
    """
    own_pictures = await start.own_pictures()
    asker = _Asker(serving, start, own_pictures)
    try:
        return await _calibrated(asker, stated)
    except NoFit:
        if start.replies is None:
            raise
        with closing(ReplyLog(start.replies, read_only=True)) as store:
            was_asked_here = store.get(_asked_key_of(serving)) is not None
        if was_asked_here:
            raise
    # The stored replies came from another address, because replies are stored without one. This
    # address may answer otherwise, so everything is asked for again, stored or not.
    options = replace(start.options, force_reprocess=True)
    second_asker = _Asker(serving, replace(start, options=options), own_pictures)
    calibrated = await _calibrated(second_asker, stated)
    return calibrated._replace(counts=asker.asking.counts + calibrated.counts)


async def _calibrated(asker: "_Asker", stated: BoxFormat) -> Calibrated:
    serving, own_pictures = asker.serving, asker.own_pictures
    max_side = serving.image_limits.max_side
    deciding = Deciding(asker.ask, max_side, own_pictures.sizes)
    try:
        decision = await asker.closing(deciding.decide(stated))
    except NoFit as unclear:
        why = f"can't tell how {serving.model!r} writes boxes: {unclear}. {advice_to_state()}"
        why += ". If some pictures alone are answered otherwise, leave these out"
        if asker.are_replies_stored:
            why += _ADVICE_TO_ASK_AGAIN
        unclear.args = (why,)  # its message, in place of the short one
        raise
    return Calibrated(_calibration(asker, decision), decision, asker.asking.counts)


async def shape_of_run(
    serving: Serving, box_format: BoxFormat, start: RunStart, size: Size
) -> tuple[Shape, Counter[str]]:
    """Find out how a run's elongated pictures of a size are sent; return counts, too.

    The serving's connections are closed afterwards. Raises RunStopped.
    """
    say(
        f"Some pictures are over {MODERATE} times as long as wide: 1 to {MOST_ASKED}"
        " requests find out whether to pad them."
    )
    asker = _Asker(serving, start, replace(await start.own_pictures(), sizes=[size]))
    max_side = serving.image_limits.max_side
    # the size in which probe pictures are drawn: as elongated, and neither too small nor too large
    drawn = legible(reduced_to(size, max_side), max_side)

    async def ask(probe: Probe, aspect: float | None) -> ProbedPicture:
        # Both may be set: a wide picture only heeds `max_wide`, a tall one only `max_tall`.
        padding = SizeLimits(max_side, max_wide=aspect, max_tall=aspect)
        [picture] = await asker.ask([probe], box_format, padding)
        return picture

    shape = await asker.closing(shape_of(ask, size, drawn, box_format))
    if shape.off is None:  # boxes are right so; where they are off, the caller warns
        how = f"padded to {shape.aspect}:1" if shape.aspect else "sent as they are"
        say(f"Pictures as elongated as {size_text(size)} are {how}.")
    return shape, asker.asking.counts


class MeasuredFrames(NamedTuple):
    """What came of measuring further frames: a calibration, or why it failed."""

    calibration: Calibration | None
    failure: NoFit | EndpointRefused | None
    """None where it went well. NoFit: the answers in a frame lie on no line, or aren't in the
    format. EndpointRefused: the endpoint takes no requests at all.
    """
    counts: Counter[str]
    """Of requests and tokens, also where it failed."""


async def measure_frames_of(
    serving: Serving,
    earlier: Calibration,
    start: RunStart,
    own: OwnPictures,
    missing: Sequence[Size],
) -> MeasuredFrames:
    """Return the `earlier` calibration with the missing frames, or why it failed.

    The serving's connections are closed afterwards. Raises RunStopped for other reasons to stop,
    such as a budget that is used up.
    """
    asker = _Asker(serving, start, own)
    try:
        format_with_all_maps, pictures = await asker.closing(
            add_frames(asker.ask, earlier.format, missing)
        )
    except (NoFit, EndpointRefused) as failure:
        return MeasuredFrames(None, failure, asker.asking.counts)
    calibration = _extended(earlier, format_with_all_maps, pictures, missing)
    return MeasuredFrames(calibration, None, asker.asking.counts)


def _extended(
    earlier: Calibration,
    format_with_all_maps: BoxFormat,
    pictures: Sequence[ProbedPicture],
    frames_asked_for: Sequence[Size],
) -> Calibration:
    """The `earlier` calibration with the frames in which these pictures were answered."""
    answered = list(dict.fromkeys(picture.size for picture in pictures))  # each once
    refused = [size for size in frames_asked_for if size not in answered]
    limits = earlier.limits or SizeLimits()
    return replace(
        earlier,
        date=utc_timestamp(),
        requests=earlier.requests + len(pictures),
        limits=replace(limits, frames=(*limits.frames, *answered)),
        maps=list(format_with_all_maps.maps),
        refused=earlier.refused + refused,
        sizes=earlier.sizes + [picture.sent for picture in pictures],
    )


def _calibration(asker: "_Asker", decision: Decision) -> Calibration:
    fit = decision.fit
    serving = asker.serving
    return Calibration(
        endpoint=bare_address(serving.endpoint),
        model=serving.model,
        prompt=prompt_version(),
        box_format=fit.format.name,
        error_px=fit.error_px,
        error_share=fit.error_share,
        found=fit.found,
        asked=fit.asked,
        requests=asker.asking.counts["sent"] + asker.asking.counts["replayed"],
        date=utc_timestamp(),
        limits=decision.limits,
        maps=list(fit.format.maps),
        refused=decision.refused,
        sizes=[picture.sent for picture in decision.pictures],
    )


def _asked_key_of(serving: Serving) -> str:
    """The key under which the store says that this very address was asked."""
    # The keys of replies don't tell: they are without the address, so that a stored reply serves
    # any address.
    parts = ["calibration", serving.identity_there()]
    return key_of(json.dumps(parts, sort_keys=True, default=repr))


class _Asker:
    """Asks a serving about probe pictures, as a run sends its requests."""

    def __init__(self, serving: Serving, start: RunStart, own: OwnPictures) -> None:
        self.serving = serving
        self.own_pictures = own
        self.are_replies_stored = bool(start.replies)
        self.asking = Asking(serving, start.options, start.budget)
        suffixes = _suffixes(own, serving.image_limits)
        self._suffixes = itertools.cycle(suffixes)  # those of the run's own pictures in turn
        # A frame that scales or pads a picture sends it as JPEG, of any file type. So .jpg is added
        # unless all pictures are of one size: their frame has that size, and changes nothing.
        in_frames = [*suffixes, ".jpg"] if len(own.sizes) > 1 else suffixes
        self._suffixes_in_frames = itertools.cycle(dict.fromkeys(in_frames))  # each once
        self._store = ReplyLog(start.replies or "")  # without a path, nothing is stored
        # In file names: several pictures of one size may be drawn at once.
        self._number = itertools.count()
        # how often each question was asked, by the picture's digest and the question's text
        self._times_asked: Counter[tuple[str, str]] = Counter()

    async def closing(self, work: Awaitable[T]) -> T:
        """Return the result of `work`, and close connections and store, also where it fails.

        Raises what `work` raises, but EndpointRefused in place of NothingAnswered.
        """
        try:
            return await work
        except NothingAnswered as refused:
            raise EndpointRefused(
                f"calibrating {self.serving.model!r} got no answer, not even to a small picture:"
                f" {refused}. Check the address and the server. If other pictures are answered"
                f" there: {advice_to_state()}"
            ) from None
        finally:
            await self.asking.aclose()
            if self.asking.counts["answered"]:  # later runs see that this very address was asked
                self._store.put(_asked_key_of(self.serving), {"task": CHECK})
            self._store.close()

    async def ask(
        self, probes: Sequence[Probe], stated: BoxFormat, narrower: SizeLimits | None = None
    ) -> list[ProbedPicture]:
        """Ask about these pictures, all at once, in the format `stated`; the order is kept."""
        # Frames are left out of the limits: a probe picture may have a size that is no frame yet.
        limits = replace(self.serving.image_limits, frames=())
        if narrower is not None:
            limits = limits.within(narrower)
        with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
            return await asyncio.gather(
                *[self._ask(probe, stated, limits, folder) for probe in probes]
            )

    async def _ask(
        self, probe: Probe, stated: BoxFormat, limits: ImageLimits, folder: str
    ) -> ProbedPicture:
        # Where pixels are asked for, the run's pictures will be sent in frames.
        suffixes = self._suffixes_in_frames if stated.scale == "px" else self._suffixes
        name = f"{next(self._number)}-{size_text(probe.size)}{next(suffixes)}"
        path = within(folder, name)
        question = await asyncio.to_thread(question_of, probe, stated, limits, path)
        # One refusal may be an accident, so a refused picture is asked for a second time. It isn't
        # while nothing was answered yet: the endpoint may refuse every size.
        counts = self.asking.counts
        was_anything_answered = counts["answered"] or counts["replayed"]
        try:
            if was_anything_answered:
                with suppress(RequestRefused):  # then the line below asks again
                    return await self._answer(probe, question)
            return await self._answer(probe, question)
        except RecordError as refused:
            # A server fault that lasted over all tries counts as a refusal of the size, too: a
            # picture that is too large for a server may cause one.
            size = question.images[0].sent_size
            say(f"A probe picture of {size_text(size)} px got no answer: {refused}")
            return ProbedPicture(probe, size, [], refused=str(refused))

    async def _answer(self, probe: Probe, question: Request[ProbedPicture]) -> ProbedPicture:
        [image] = question.images
        key = (image.sent_digest, question.question)
        # A picture that is asked for again is another sample of the model, not the stored reply.
        question = replace(question, sample=self._times_asked[key])  # the first one is 0
        self._times_asked[key] += 1
        step = StepAsk(self.asking, self._store, CALIBRATION, priority=(probe.size,))
        try:
            picture, _ = await self.asking.answer(question, step)
            return picture
        except UnreadableReply as error:
            return ProbedPicture(probe, image.sent_size, [], trouble=str(error))


def _suffixes(own_pictures: OwnPictures, limits: ImageLimits) -> list[str]:
    """The file types of the run's pictures, as sent, which probe pictures take in turn."""
    suffixes = [SUFFIXES.get(media_type, ".jpg") for media_type in own_pictures.media_types]
    # Reduced pictures, and those of other types, are sent as JPEG.
    is_any_reduced = any(limits.sent(size) != size for size in own_pictures.sizes)
    if is_any_reduced or not suffixes:
        suffixes.append(".jpg")
    return list(dict.fromkeys(suffixes))

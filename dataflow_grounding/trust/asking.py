"""Calibrating: asks a model about probe pictures, and fits a box format to the answers.

The requests go through the engine, as a run's do: with its limits, retries and budget, and replies
are stored before they are read. What to ask next is decided in `finding.py`.
"""

import asyncio
import hashlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from dataflow_grounding._util.errors import EndpointRefused, RecordError, UnreadableReply
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import bare_address
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.engine.annotating import StepAsk
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import ImageLimits, SizeLimits
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.trust._accepted_sizes import MODERATE, NothingAnswered
from dataflow_grounding.trust.calibration_file import (
    Calibration,
    prompt_version,
    utc_timestamp,
)
from dataflow_grounding.trust.finding import Deciding, Decision, add_frames, fit_of
from dataflow_grounding.trust.padding import PADDINGS, PaddingVerdict, try_paddings
from dataflow_grounding.trust.probes import (
    SUFFIXES,
    NoFit,
    Probe,
    ProbedPicture,
    question_of,
    reduced_to,
    size_text,
)

T = TypeVar("T")

# What a message of failure says besides, where the replies are stored.
AFRESH = ". The replies are kept: dataflowgrounding calibrate asks for them afresh"
CALIBRATION = "calibration"
"""The step under which replies to probe pictures are stored."""


def way_out() -> str:
    """Return the advice for a message: what to do where a model's format can't be found out."""
    return (
        f"State it, as in {setting('vlm.box_format', 'xyxy_1000')} (or yxyx_1000, xyxy_px, xyxy_1,"
        " or a family such as gemini or qwen3-vl), or in the environment's DF_BOX_FORMAT"
    )


def calibrate(
    serving: Serving, stated: BoxFormat, start: RunStart
) -> tuple[Calibration, Decision, Counter[str]]:
    """Find out in which box format the serving's model answers.

    A model that counts pixels is asked in more sizes, until it is known in which of them it sees
    pictures as they are sent. Stored replies answer first; if they came from another address and
    name no format, this one is asked afresh.

    Args:
        serving: The model to ask; its connections are closed afterwards.
        stated: The format that the first picture is asked for in; its answer decides for the
            others.
        start: Retries, limits and budget as in a run, sizes and file types of its pictures, and the
            file that keeps the replies, so that no probe is paid for again; where there is none,
            probes are asked for afresh.

    Returns:
        What was found out, the fit and the pictures that it rests on, and counts of requests and
        tokens.

    Raises:
        NoFit: The answers name no format; the message says how to state it.
        RunStopped: The endpoint doesn't answer.
    """
    try:
        return _calibrated(serving, stated, start)
    except NoFit:
        if start.replies is None or _was_asked(serving, start.replies):
            raise
    # The stored replies are those of another address: this one may answer otherwise.
    anew = replace(start.options, force_reprocess=True)
    return _calibrated(serving, stated, replace(start, options=anew))


def _calibrated(
    serving: Serving, stated: BoxFormat, start: RunStart
) -> tuple[Calibration, Decision, Counter[str]]:
    """Find out the box format that a model answers in, as `calibrate` does, by one try.

    Returns the calibration to store, the decision with its pictures, and counts of requests and
    tokens. Raises RunStopped, and NoFit with its `pictures`, whose message then says what the user
    can do.
    """
    own = start.pictures()
    asker = _Asker(serving, start, own)
    max_side = serving.image_limits.max_side
    deciding = Deciding(asker.ask, max_side, own.sizes, own.counts)
    try:
        decision = run_blocking(lambda: asker.closing(deciding.decide(stated)))
    except NoFit as unclear:
        why = f"can't tell how {serving.model!r} writes boxes: {unclear}. {way_out()}"
        why += ". If some pictures alone are answered otherwise, leave these out"
        if start.replies:
            why += AFRESH
        unclear.args = (why,)  # the message
        unclear.pictures = deciding.pictures
        raise
    return _calibration(asker, decision), decision, asker.asking.counts


def calibrate_elongated(
    serving: Serving,
    known: BoxFormat,
    start: RunStart,
    own: OwnPictures,
    usual: float | None,
    earlier: Calibration | None,
) -> tuple[Calibration | None, Counter[str]]:
    """Find out whether the run's elongated pictures need padding.

    Args:
        serving: The model to ask; its connections are closed afterwards.
        known: The model's box format, which counts parts of the side.
        start: As for `calibrate`.
        own: The run's pictures, with the elongated sizes that are to be tried.
        usual: How far off boxes usually are, as a share of the side; None where that isn't known.
        earlier: The calibration that says the same of other elongated sizes; None without one.

    Returns:
        The `earlier` calibration with these sizes added, or a new one; None where nothing was
        answered and there was none. Then counts of requests and tokens.

    Raises:
        RunStopped: The endpoint doesn't answer.
    """
    _announce_padding_trials(own, usual)
    asker = _Asker(serving, start, own)
    max_side = serving.image_limits.max_side
    trials = run_blocking(
        lambda: asker.closing(_try_paddings_of_all(asker, own.sizes, known, usual))
    )
    calibration = earlier
    for verdict, pictures in trials:
        if verdict is None:
            say("Nothing was answered: they are sent as they are.")
            continue
        if calibration is None:
            fit = fit_of(known, pictures)  # however badly it fits
            calibration = _calibration(asker, Decision(fit, [], SizeLimits(max_side)))
        calibration = calibration.with_shape(verdict.size, verdict.aspect, verdict.off)
        if verdict.off is None:
            how = "sent as they are" if verdict.aspect is None else f"padded to {verdict.aspect}:1"
            say(f"Pictures as elongated as {size_text(verdict.size)} are {how}.")
    return calibration, asker.asking.counts


async def _try_paddings_of_all(
    asker: "_Asker", sizes: Sequence[Size], known: BoxFormat, usual: float | None
) -> list[tuple[PaddingVerdict | None, list[ProbedPicture]]]:
    """Return what `try_paddings` returns for each of these sizes, reduced as pictures are."""
    max_side = asker.serving.image_limits.max_side
    trials = []
    for size in sizes:
        asked = reduced_to(size, max_side)
        trials.append(await try_paddings(asker.ask, asked, known, max_side, usual))
    return trials


def _announce_padding_trials(own: OwnPictures, usual: float | None) -> None:
    """Tell the user how many requests it takes to find out whether to pad elongated pictures.

    For each shape it is one, where boxes are right without padding (the first of PADDINGS), to one
    for each of PADDINGS. It may be one more where `usual` is None: how far off boxes usually are,
    as a share of the side, isn't known yet.
    """
    most = len(PADDINGS)
    if usual is None:
        most += 1
    each = " for each shape" if len(own.sizes) > 1 else ""
    say(
        f"Some pictures are over {MODERATE} times as long as wide: 1 to {most} requests{each} find"
        " out whether to pad them."
    )


def measure_frames_of(
    serving: Serving,
    known: Calibration,
    start: RunStart,
    own: OwnPictures,
    missing: Sequence[Size],
) -> tuple[Calibration, Counter[str]]:
    """Measure the frames that a run's pictures need besides those that are measured.

    Args:
        serving: The model to ask; its connections are closed afterwards.
        known: The calibration, with the maps of the frames that are measured.
        start: As for `calibrate`.
        own: The run's pictures.
        missing: The frames.

    Returns:
        The calibration with all maps, and counts of requests and tokens.

    Raises:
        NoFit: The answers in a frame lie on no line.
        RunStopped: The endpoint doesn't answer.
    """
    asker = _Asker(serving, start, own)
    further, pictures = run_blocking(
        lambda: asker.closing(add_frames(asker.ask, known.format, missing))
    )
    frames = tuple(one.size for one in further.maps)
    refused = [size for size in missing if size not in frames]
    calibration = replace(
        known,
        date=utc_timestamp(),
        requests=known.requests + len(pictures),
        limits=replace(known.limits or SizeLimits(), frames=frames),
        maps=list(further.maps),
        refused=known.refused + refused,
        sizes=known.sizes + [list(picture.sent) for picture in pictures],
    )
    return calibration, asker.asking.counts


def _calibration(asker: "_Asker", decision: Decision) -> Calibration:
    """Return the calibration, dated now, that a decision and the requests it took come to."""
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
        sizes=[list(picture.sent) for picture in decision.pictures],
    )


def _asked_key_of(serving: Serving) -> str:
    """Return the key under which a store of replies says that an address was asked about probes.

    The replies' own keys don't have the address: a reply of one address answers for another.
    """
    where = json.dumps(["calibration", serving.identity_there()], sort_keys=True, default=repr)
    return hashlib.sha256(where.encode()).hexdigest()[:32]


def _was_asked(serving: Serving, replies: str) -> bool:
    """Whether any probe picture in the store `replies` was answered at this serving's address."""
    with closing(KeyedLog(replies, read_only=True)) as store:
        return store.get(_asked_key_of(serving)) is not None


class _Asker:
    """Asks a serving about probe pictures, as a run sends its requests.

    Args:
        serving: The serving.
        start: What the run starts with: options, budget, and the file that keeps replies.
        own: The run's pictures, whose file types probe pictures have in turn.

    Attributes:
        asking: How requests are sent; it counts them.
    """

    def __init__(self, serving: Serving, start: RunStart, own: OwnPictures) -> None:
        self.serving = serving
        self.asking = Asking(serving, start.options, start.budget)
        suffixes = _suffixes(own, serving.image_limits)
        self._suffixes = itertools.cycle(suffixes)
        # What a frame scales or pads goes out as JPEG, of any type that it is.
        in_frames = [*suffixes, ".jpg"] if len(own.sizes) > 1 else suffixes
        self._suffixes_in_frames = itertools.cycle(dict.fromkeys(in_frames))
        self._store = KeyedLog(start.replies or "")
        self._number = itertools.count()  # in file names, as pictures of one size are drawn at once
        self._asked: Counter[tuple[str, ...]] = Counter()  # how often each question was asked

    async def closing(self, work: Awaitable[T]) -> T:
        """Return the result of `work`, and close connections and store, also where it fails.

        Where anything was answered, the store then says that this address was asked. Raises what
        `work` raises, but EndpointRefused in place of NothingAnswered.
        """
        try:
            return await work
        except NothingAnswered as refused:
            raise EndpointRefused(
                f"calibrating {self.serving.model!r} got no answer, not even to a small picture:"
                f" {refused}. {way_out()}"
            ) from None
        finally:
            await self.serving.aclose()
            self.asking.endpoints.store_held_refusals()
            if self.asking.counts["answered"]:
                self._store.put(_asked_key_of(self.serving), {"task": CHECK})
            self._store.close()

    async def ask(self, asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        """Ask for these pictures, all at once, in the format `stated`; the order is kept."""
        with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
            return await asyncio.gather(*[self._ask(probe, stated, folder) for probe in asked])

    async def _ask(self, probe: Probe, stated: BoxFormat, folder: str) -> ProbedPicture:
        """Draw a probe picture into `folder`, send it, and return what was answered about it.

        A reply that is cut off, or a picture that is refused, has no boxes but says why. Raises
        RunStopped.
        """
        suffixes = self._suffixes_in_frames if stated.scale == "px" else self._suffixes
        name = f"{next(self._number)}-{size_text(probe.size)}{next(suffixes)}"
        path = within(folder, name)
        limits = replace(self.serving.image_limits, frames=())  # it may be of a new frame
        question = await asyncio.to_thread(question_of, probe, stated, limits, path)
        [image] = question.images
        key = (image.sent_digest, question.question)
        # A picture that is asked for again is another sample of the model, not the stored reply.
        question = replace(question, sample=self._asked[key])
        self._asked[key] += 1
        step = StepAsk(self.asking, self._store, CALIBRATION, (probe.size,), Counter())
        try:
            picture, _ = await self.asking.answer(question, step)
            return picture
        except UnreadableReply as error:  # the reply was cut off
            return ProbedPicture(probe, image.sent_size, [], str(error))
        except RecordError as error:
            # The picture was refused, or a fault lasted: what is too large for a server looks like
            # either.
            say(f"A probe picture of {size_text(image.sent_size)} px got no answer: {error}")
            return ProbedPicture(probe, image.sent_size, [], refused=str(error))


def _suffixes(own: OwnPictures, limits: ImageLimits) -> list[str]:
    """Return the suffixes of the file types in which the run sends its pictures, each once.

    Probe pictures take turns with them. What is reduced, or of another type, goes out as JPEG: its
    suffix is there for either, and where the run has no pictures.
    """
    suffixes = [SUFFIXES.get(media_type, ".jpg") for media_type in own.media_types]
    is_any_reduced = any(limits.sent(size) != size for size in own.sizes)
    if is_any_reduced or not suffixes:
        suffixes.append(".jpg")
    return list(dict.fromkeys(suffixes))

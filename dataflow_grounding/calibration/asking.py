"""Calibrating: puts probe pictures to a model, and fits a format to the answers.

They go through the engine, as a run's requests do.
"""

import asyncio
import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from dataflow_grounding._util.errors import EndpointRefused, RecordError, UnreadableReply
from dataflow_grounding._util.paths import bare_address
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._deciding import (
    PADDINGS,
    Deciding,
    Decision,
    PaddingVerdict,
    holds_at,
    verdict_on,
)
from dataflow_grounding.calibration._fitting import Scores
from dataflow_grounding.calibration._stored import Calibration, now, prompt_version
from dataflow_grounding.calibration._taken import MODERATE, NothingAnswered
from dataflow_grounding.calibration.alike_sizes import most_own
from dataflow_grounding.calibration.probes import (
    NoFit,
    PicturesDisagree,
    Probe,
    ProbedPicture,
    by,
    question_of,
    reduced_to,
)
from dataflow_grounding.engine.annotating import StepAsk
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.images.image import ImageLimits, SizeLimits
from dataflow_grounding.serving.base import Serving

T = TypeVar("T")

AFRESH = ". The replies are kept: dataflowgrounding calibrate asks for them afresh"
SUFFIXES = {"image/png": ".png", "image/webp": ".webp"}


def way_out() -> str:
    """What to do where a model's format can't be found out."""
    return (
        f"State it, as in {setting('vlm.box_format', 'xyxy_1000')} (or yxyx_1000, xyxy_px, xyxy_1,"
        " or a family such as gemini or qwen3-vl)"
    )


def calibrate(
    serving: Serving, stated: BoxFormat, start: RunStart
) -> tuple[Calibration, Decision, Counter[str]]:
    """Find out in which box format the serving's model answers.

    One that counts pixels is asked in more sizes, until it is known in which it sees pictures as
    they are sent.

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
    """Find out the box format that a model answers in; see `calibrate`.

    Returns what is stored of it, what the run goes by, and how many requests it took. Raises NoFit,
    which then says what the user can do.
    """
    own = start.pictures()
    asker = _Asker(serving, start, own)
    max_side = serving.image_limits.max_side
    deciding = Deciding(asker.ask, max_side, own.sizes, most_own(sum(own.counts)))
    try:
        decision = run_blocking(lambda: asker.closing(deciding.decide(stated)))
    except NoFit as unclear:
        why = f"can't tell how {serving.model!r} writes boxes: {unclear}. {way_out()}"
        if isinstance(unclear, PicturesDisagree):
            why += (
                ". Where a run is stopped even so: leave out what differs, or set"
                f" {setting('vlm.on_suspect_boxes', 'warn')}"
            )
        if start.replies:
            why += AFRESH
        unclear.args = (why,)
        unclear.pictures = deciding.pictures
        raise
    return _calibration(asker, decision), decision, asker.asking.counts


def calibrate_elongated(
    serving: Serving,
    known: BoxFormat,
    start: RunStart,
    own: OwnPictures,
    usual: float | None,
    found: Calibration | None,
) -> tuple[Calibration | None, Counter[str]]:
    """Find out whether the run's `own` elongated pictures need padding.

    That is added to what was `found` for others. `usual` is as for verdict_on. None where nothing
    was answered. Raises RunStopped.
    """
    _say_what_it_takes(own, usual)
    asker = _Asker(serving, start, own)
    max_side = serving.image_limits.max_side

    async def ask_all() -> list[tuple[PaddingVerdict | None, list[ProbedPicture]]]:
        verdicts = []
        for size in own.sizes:
            asked = reduced_to(size, max_side)
            verdicts.append(await verdict_on(asker.ask, asked, known, max_side, usual))
        return verdicts

    calibration = found
    for verdict, pictures in run_blocking(lambda: asker.closing(ask_all())):
        if verdict is None:
            say("Nothing was answered: they are sent as they are.")
            continue
        if calibration is None:
            fit = Scores(pictures, [known]).result(0)  # however badly it fits
            calibration = _calibration(asker, Decision(fit, [], SizeLimits(max_side)))
        calibration = calibration.with_shape(verdict.size, verdict.aspect, verdict.off)
        if verdict.off is None:
            how = "sent as they are" if verdict.aspect is None else f"padded to {verdict.aspect}:1"
            say(f"Pictures as elongated as {by(verdict.size)} are {how}.")
    return calibration, asker.asking.counts


def _say_what_it_takes(own: OwnPictures, usual: float | None) -> None:
    """Say how many requests it takes to find out whether very long pictures should be padded.

    `usual` is how far off boxes usually are, in pixels; None where that isn't known yet.
    """
    most = len(PADDINGS)
    if usual is None:
        most += 1  # to find out how far off boxes usually are
    each = " for each shape" if len(own.sizes) > 1 else ""
    say(
        f"Some pictures are over {MODERATE} times as long as wide: 1 to {most} requests{each} find"
        " out whether to pad them."
    )


def try_sizes(
    serving: Serving, known: BoxFormat, start: RunStart, own: OwnPictures
) -> tuple[list[Size], list[Size], Counter[str]]:
    """Find out in which of the run's `own` sizes a model writes boxes in the `known` format.

    Returns the sizes where it does and those where it doesn't; the others were not answered. A
    size counts as wrong if a second picture of it is wrong too. Raises RunStopped.
    """
    asker = _Asker(serving, start, own)

    async def ask_all() -> list[bool | None]:
        return [await holds_at(asker.ask, size, known) for size in own.sizes]

    right: list[Size] = []
    wrong: list[Size] = []
    verdicts = run_blocking(lambda: asker.closing(ask_all()))
    for size, holds in zip(own.sizes, verdicts, strict=True):
        if holds:
            right.append(size)
        elif holds is not None:
            wrong.append(size)
    return right, wrong, asker.asking.counts


def _calibration(asker: "_Asker", decision: Decision) -> Calibration:
    """Return what is stored of a calibration, of what was decided and what it took."""
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
        date=now(),
        limits=decision.limits,
        sizes=[list(picture.sent) for picture in decision.pictures],
    )


def _place_of(serving: Serving) -> str:
    """The key under which a store says that a serving's address was asked for probe pictures."""
    where = json.dumps(["calibration", serving.identity_there()], sort_keys=True, default=repr)
    return hashlib.sha256(where.encode()).hexdigest()[:32]


def _was_asked(serving: Serving, replies: str) -> bool:
    """Whether any probe picture of the store was answered at the serving's own address."""
    with closing(KeyedLog(replies, read_only=True)) as store:
        return store.get(_place_of(serving)) is not None


class _Asker:
    """Puts probe pictures to a serving, as a run puts its requests."""

    def __init__(self, serving: Serving, start: RunStart, own: OwnPictures) -> None:
        self.serving = serving
        self.asking = Asking(serving, start.options, start.budget)
        self._suffixes = itertools.cycle(_suffixes(own, serving.image_limits))
        self._store = KeyedLog(start.replies or "")
        self._number = itertools.count()  # pictures of one size may be drawn at once
        self._asked: Counter[tuple[str, ...]] = Counter()

    async def closing(self, work: Awaitable[T]) -> T:
        """The result of `work`; connections are closed. Raises NoFit, RunStopped."""
        try:
            return await work
        except NothingAnswered as refused:
            raise EndpointRefused(
                f"calibrating {self.serving.model!r} got no answer, not even to a small picture:"
                f" {refused}. {way_out()}"
            ) from None
        finally:
            await self.serving.aclose()
            self.asking.endpoints.settle()
            if self.asking.counts["answered"]:
                self._store.put(_place_of(self.serving), {"task": CHECK})
            self._store.close()

    async def ask(self, asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        """What comes back for these pictures, asked for all at once in a format."""
        with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
            return await asyncio.gather(*[self._ask(probe, stated, folder) for probe in asked])

    async def _ask(self, probe: Probe, stated: BoxFormat, folder: str) -> ProbedPicture:
        """Send a probe picture, and return what was answered about it.

        A reply that is cut off has no boxes, but a reason; so has a picture that is refused.
        """
        name = f"{next(self._number)}-{by(probe.size)}{next(self._suffixes)}"
        path = os.path.join(folder, name)
        limits = self.serving.image_limits
        question = await asyncio.to_thread(question_of, probe, stated, limits, path)
        [image] = question.images
        key = (image.sent_digest, question.question)
        question = replace(question, sample=self._asked[key])
        self._asked[key] += 1  # one that is asked for again is another
        ask = StepAsk(self.asking, self._store, "calibration", (probe.size,), Counter())
        try:
            picture, _ = await self.asking.answer(question, ask)
            return picture
        except UnreadableReply as error:  # cut off
            return ProbedPicture(probe, image.sent_size, [], str(error))
        except RecordError as error:
            # refused, or a fault that lasts: what is too large for a server looks like either
            say(f"A probe picture of {by(image.sent_size)} px got no answer: {error}")
            return ProbedPicture(probe, image.sent_size, [], refused=str(error))


def _suffixes(own: OwnPictures, limits: ImageLimits) -> list[str]:
    """The file types in which the run's pictures are sent.

    What is reduced, or of another type, goes out as JPEG.
    """
    suffixes = [SUFFIXES.get(media_type, ".jpg") for media_type in own.media_types]
    is_any_reduced = any(limits.fitted(limits.padded(size)) != size for size in own.sizes)
    if is_any_reduced or not suffixes:
        suffixes.append(".jpg")
    return list(dict.fromkeys(suffixes))

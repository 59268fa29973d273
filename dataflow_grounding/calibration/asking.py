"""Calibrating: puts probe pictures to a model, through the engine as a run does, and fits a format
to the answers.
"""

import asyncio
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

from dataflow_grounding._util.errors import EndpointRefused, RecordError, UnreadableReply
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._deciding import (
    WAYS,
    Deciding,
    Decision,
    PaddingVerdict,
    holds_at,
    verdict_on,
)
from dataflow_grounding.calibration._fitting import Scores
from dataflow_grounding.calibration._stored import Calibration, bare_address, now, prompt_version
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
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.images.image import ImageLimits, SizeLimits
from dataflow_grounding.serving.base import Serving

T = TypeVar("T")

WAY_OUT = (
    "State it, as in vlm.box_format: xyxy_1000 (or yxyx_1000, xyxy_px, xyxy_1, or a family such as"
    " gemini or qwen3-vl)"
)
SOME_SHAPES = (
    ". Where a run is stopped even so: leave out what differs, or set vlm.on_suspect_boxes: warn"
)
AFRESH = ". The replies are kept: dataflowgrounding calibrate asks for them afresh"


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
    own = start.pictures()
    asker = _Asker(serving, start, own)
    deciding = Deciding(
        asker.ask, serving.image_limits.max_side, own.sizes, most_own(sum(own.counts))
    )
    try:
        decision = run_blocking(lambda: asker.closing(deciding.decide(stated)))
    except NoFit as unclear:
        why = f"can't tell how {serving.model!r} writes boxes: {unclear}"
        way_out = WAY_OUT + SOME_SHAPES if isinstance(unclear, PicturesDisagree) else WAY_OUT
        unclear.args, unclear.pictures = (
            (f"{why}. {way_out}{AFRESH if start.replies else ''}",),
            deciding.pictures,
        )
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
    """Find out whether the run's `own` elongated pictures need padding, and add that to what was
    `found` for others.

    `usual` is as for verdict_on. None where nothing was answered. Raises RunStopped.
    """
    each = (
        f"1 to {len(WAYS) + (usual is None)}"
        f" requests{' for each shape' if len(own.sizes) > 1 else ''}"
    )
    say(
        f"Some pictures are over {MODERATE} times as long as wide: {each} find out whether to pad"
        " them."
    )
    asker = _Asker(serving, start, own)
    max_side = serving.image_limits.max_side

    async def verdicts() -> list[tuple[PaddingVerdict | None, list[ProbedPicture]]]:
        return [
            await verdict_on(asker.ask, reduced_to(size, max_side), known, max_side, usual)
            for size in own.sizes
        ]

    for verdict, pictures in run_blocking(lambda: asker.closing(verdicts())):
        if verdict is None:
            say("Nothing was answered: they are sent as they are.")
            continue
        if found is None:
            fit = Scores(pictures, [known]).result(0)  # however badly it fits
            found = _calibration(asker, Decision(fit, [], SizeLimits(max_side)))
        found = found.with_shape(verdict.size, verdict.aspect, verdict.off)
        if verdict.off is None:
            how = "sent as they are" if verdict.aspect is None else f"padded to {verdict.aspect}:1"
            say(f"Pictures as elongated as {by(verdict.size)} are {how}.")
    return found, asker.asking.counts


def try_sizes(
    serving: Serving, known: BoxFormat, start: RunStart, own: OwnPictures
) -> tuple[list[Size], list[Size], Counter[str]]:
    """In which of the run's `own` sizes, as sent, a model writes boxes in the `known` format, and
    in which not; the others were not answered. A size counts as wrong if a second picture of it is
    wrong too.

    Raises RunStopped.
    """
    asker = _Asker(serving, start, own)

    async def verdicts() -> list[bool | None]:
        return [await holds_at(asker.ask, size, known) for size in own.sizes]

    holds = dict(zip(own.sizes, run_blocking(lambda: asker.closing(verdicts())), strict=True))
    right, wrong = ([size for size in own.sizes if holds[size] is kind] for kind in (True, False))
    return right, wrong, asker.asking.counts


def _calibration(asker: "_Asker", decision: Decision) -> Calibration:
    fit, serving = decision.fit, asker.serving
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


class _Asker:
    def __init__(self, serving: Serving, start: RunStart, own: OwnPictures) -> None:
        self.serving = serving
        self.suffixes = itertools.cycle(_suffixes(own, serving.image_limits))
        self.asking = Asking(serving, start.options, start.budget)
        self._store = KeyedLog(start.replies or "")
        self._number = itertools.count()  # pictures of one size may be drawn at once
        self._asked: Counter[tuple[str, ...]] = Counter()

    async def closing(self, work: Awaitable[T]) -> T:
        """The result of `work`; connections are closed. Raises NoFit, RunStopped."""
        try:
            return await work
        except NothingAnswered as refused:
            why = (
                f"calibrating {self.serving.model!r} got no answer, not even to a small picture:"
                f" {refused}"
            )
            raise EndpointRefused(f"{why}. {WAY_OUT}") from None
        finally:
            await self.serving.aclose()
            self.asking.places.settle()
            self._store.close()

    async def ask(self, asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
            return await asyncio.gather(*(self._ask(probe, stated, folder) for probe in asked))

    async def _ask(self, probe: Probe, stated: BoxFormat, folder: str) -> ProbedPicture:
        path = os.path.join(folder, f"{next(self._number)}-{by(probe.size)}{next(self.suffixes)}")
        question = await asyncio.to_thread(
            question_of, probe, stated, self.serving.image_limits, path
        )
        [image] = question.images
        key = (image.sent_digest, question.question)
        self._asked[key] += 1  # one that is asked for again is another
        question = replace(question, sample=self._asked[key] - 1)
        ask = StepAsk(self.asking, self._store, "calibration", (probe.size,), Counter())
        try:
            return (await self.asking.answer(question, ask))[0]
        except UnreadableReply as error:  # cut off
            return ProbedPicture(probe, image.sent_size, [], str(error))
        except RecordError as error:
            # refused, or a fault that lasts: what is too large for a server looks like either
            say(f"A probe picture of {by(image.sent_size)} px got no answer: {error}")
            return ProbedPicture(probe, image.sent_size, [], refused=str(error))


def _suffixes(own: OwnPictures, limits: ImageLimits) -> list[str]:
    """The file types in which the run's pictures are sent: what is reduced, or of another type,
    goes out as JPEG.
    """
    reduced = any(limits.fitted(limits.padded(size)) != size for size in own.sizes)
    kinds = [
        {"image/png": ".png", "image/webp": ".webp"}.get(kind, ".jpg") for kind in own.media_types
    ]
    return list(dict.fromkeys([*kinds, *([".jpg"] if reduced or not kinds else [])]))

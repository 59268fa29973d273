"""What to ask a model, answer by answer, until its box format is known.

And how to send it elongated pictures.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat, Order, frame_of
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._canvas import on_canvas, one_order
from dataflow_grounding.calibration._covering import UNTOUCHED, Covering
from dataflow_grounding.calibration._fitting import Fit, first_guess, fit, fit_as
from dataflow_grounding.calibration._seen import (
    ONCE_OFF,
    Expected,
    SeenSize,
    check_whole,
    constant_side,
    measured_in,
    seen,
    sent_sizes,
    sizes_in_words,
)
from dataflow_grounding.calibration._taken import MODERATE, Taken, elongated, is_elongated, is_near
from dataflow_grounding.calibration.alike_sizes import MOST_OWN, is_alike, uncovered
from dataflow_grounding.calibration.checking import judge
from dataflow_grounding.calibration.probes import (
    OTHER_SHAPES,
    SIZES,
    USUAL_SHAPES,
    AskProbes,
    NoFit,
    PicturesDisagree,
    Probe,
    ProbedPicture,
    by,
    legible,
    probe_of,
    reduced_to,
)
from dataflow_grounding.images.image import SizeLimits

PADDINGS = (None, MODERATE, 2)  # elongated pictures as they are, and padded to these aspects
WORSE = 2.0  # how much worse than usual boxes have to be to try padding
BETTER = 0.6  # how much better they have to be with padding
# of the side: boxes that are further off than this, and than WORSE times the usual, are of no use
FAR = 0.05
USUAL = 0.01  # boxes are at least this far off in any picture
# share of the rectangles of an elongated picture: fewer say nothing about where boxes are
LEAST_ANSWERED = 1 / 4


@dataclass(frozen=True)
class Decision:
    """The format, and what it rests on.

    Attributes:
        fit: The format that fits.
        pictures: The pictures that speak for it.
        limits: Those within which pixels are the sent picture's.
    """

    fit: Fit
    pictures: list[ProbedPicture]
    limits: SizeLimits | None = None


class Deciding:
    """One model's case.

    What takes long to reckon is done by a thread: the event loop may have other things to do.

    Args:
        ask: Puts probe pictures to the model.
        max_side: The longest side that is ever sent, in pixels.
        own: Sizes of the run's pictures, the commonest first.
        most_own: How many of them are asked for at the most.
    """

    def __init__(
        self, ask: AskProbes, max_side: int, own: Sequence[Size] = (), most_own: int = MOST_OWN
    ) -> None:
        self.ask = ask
        self.max_side = max_side
        self.own = own
        self.most_own = most_own
        self.pictures: list[ProbedPicture] = []
        self.taken = Taken(max_side, own)

    async def decide(self, stated: BoxFormat) -> Decision:
        """The format that fits.

        The first picture is asked for in the `stated` one, the others as its answer suggests.
        Raises NoFit.
        """
        try:
            return await self._decided(stated)
        except NoFit as error:
            unclear = error
        order = one_order(self.pictures)
        if order is None:
            raise unclear
        return await self._as_squares(order, unclear)

    async def _decided(self, stated: BoxFormat) -> Decision:
        """Ask about ever more sizes and shapes of probe pictures until they tell one format.

        The common sizes come first. Other shapes are asked for only where what fitted so far would
        read them otherwise, and those of the run's own pictures where it can't be told without.
        `stated` is the format that the prompts ask for.
        """
        first, *further_sizes = [reduced_to(size, self.max_side) for size in SIZES]
        await self._ask_for([first], stated)
        stated = first_guess(self.pictures[0], stated)
        first_sent = self.pictures[0].sent
        unlike_first = [size for size in further_sizes if not is_near(size, [first_sent])]
        await self._ask_for(unlike_first, stated)
        best = await self._fit(stated)
        if best.format.frame != "sent" and best.format.scale != "px":
            await self._ask_for([reduced_to(size, self.max_side) for size in OTHER_SHAPES], stated)
            best = await self._fit(stated)
        if best.format.scale == "px":
            return await self._in_pixels(best.format)
        further = self._further_shapes(best.format)
        if further:
            await self._ask_further(further, stated)
            best = await self._fit(stated)
        if not self.taken.narrowed:
            return Decision(best, self.pictures)
        if self.own:
            await self._ask_for([self._legible(self.own[0])], stated)
        return Decision(best, self.pictures, self.taken.limits)

    async def _fit(self, stated: BoxFormat) -> Fit:
        return await asyncio.to_thread(fit, self.pictures, stated)

    def _legible(self, size: Size) -> Size:
        """The size, as large as it may be sent, and not too small to see anything in it."""
        return legible(reduced_to(size, self.max_side), self.max_side)

    async def _ask_further(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for further shapes.

        Those that are refused, or left without rectangles, say nothing.
        """
        before = len(self.pictures)
        with suppress(NoFit):  # no limit explains what is refused: such sizes stay untried
            await self._ask_for(sizes, asked)
        answered = []
        unanswered = []
        for picture in self.pictures[before:]:
            if judge([picture], asked).kind == "silent":
                unanswered.append(picture)
            else:
                answered.append(picture)
        if unanswered:
            sizes_in_words = ", ".join(by(picture.sent) for picture in unanswered)
            say(
                f"The rectangles in pictures of {sizes_in_words} px were not answered: boxes in"
                " such pictures are not known."
            )
        self.pictures = self.pictures[:before] + answered

    def _further_shapes(self, known: BoxFormat) -> list[Size]:
        """Shapes to ask for where a model counts parts of the side.

        Those are the run's own that none of the pictures stands for, or the usual ones. How
        elongated pictures are to be sent is found out by `verdict_on`.
        """
        sizes = self.own
        if not sizes and known.frame == "sent":
            sizes = USUAL_SHAPES
        drawn = [self._legible(size) for size in sizes]
        moderate = [size for size in drawn if not is_elongated(size)]
        return uncovered(moderate, sent_sizes(self.pictures), is_alike, self.most_own)

    async def _as_squares(self, order: Order, unclear: NoFit) -> Decision:
        """Decide for a model that counts pixels, though in no sizes those of the picture as sent.

        Raises `unclear` where squares of one size don't help.
        """
        try:
            frame, pictures, limits = await on_canvas(self.ask, order, self.max_side, self.taken)
        except NoFit as error:
            raise unclear from error
        self.pictures = pictures
        return Decision(fit_as(order, "px", frame, pictures), pictures, limits)

    async def _in_pixels(self, known: BoxFormat) -> Decision:
        """Return the limits within which a model's pixels are those of the sent picture."""
        measured = measured_in(self.pictures, known.order, known.frame)
        constant = constant_side(measured, known.frame)
        if constant is not None and constant.frame != "sent":
            # squares show as much to a server that pads to them itself
            raise NoFit(
                "the side of the squares that pictures are padded to is not known"
                f" ({sizes_in_words(measured)})"
            )
        if constant is not None:
            return await self._in_parts(known)
        try:
            covering = Covering(self.max_side, self.taken, self.own, self.most_own)
            limits, frame = await self._covered(known, covering)
        except NoFit:
            if not elongated(self.own):
                raise
            # Elongated pictures may be what is wrong: they can be padded.
            limits, frame = await self._covered_without_elongated(known)
        inside = [picture for picture in self.pictures if limits.allows(picture.sent)]
        return Decision(fit_as(known.order, "px", frame, inside), inside, limits)

    async def _covered_without_elongated(self, known: BoxFormat) -> tuple[SizeLimits, str]:
        self.pictures = [picture for picture in self.pictures if not is_elongated(picture.size)]
        padding = SizeLimits(self.max_side, max_wide=MODERATE, max_tall=MODERATE)
        own = [padding.padded(size) for size in self.own]
        covering = Covering(self.max_side, self.taken, own, self.most_own, MODERATE)
        return await self._covered(known, covering)

    async def _covered(self, known: BoxFormat, covering: Covering) -> tuple[SizeLimits, str]:
        """What the further pictures prove, as Covering.covered. Raises NoFit."""

        def measured() -> list[SeenSize]:
            return measured_in(self.pictures, known.order, known.frame)

        while True:
            sizes = await asyncio.to_thread(lambda: covering.next_sizes(measured()))
            if not sizes:
                return covering.covered(measured(), known.frame)
            await self._ask_for(sizes, known)

    async def _in_parts(self, known: BoxFormat) -> Decision:
        """Decide for a model that writes one number for the whole side of any picture.

        Raises NoFit unless further pictures say so too.
        """
        covering = Covering(self.max_side, self.taken, self.own, self.most_own)
        await self._ask_for([*covering.next_sizes([]), *OTHER_SHAPES], known)
        measured = measured_in(self.pictures, known.order, known.frame)
        constant = constant_side(measured, known.frame)
        if constant is None or constant.frame != "sent":
            raise PicturesDisagree(
                "the pictures disagree: some are counted in pixels, some in parts of the side"
            )
        smallest = min(map(math.prod, sent_sizes(measured)))
        named = fit_as(known.order, constant.number, constant.frame, self.pictures)
        check_whole(measured, named.format)
        return Decision(named, self.pictures, replace(covering.shaped, min_pixels=smallest))

    async def _ask_for(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for pictures of these sizes, and of others where some are refused.

        Raises NothingAnswered, NoFit.
        """
        sent = sent_sizes(self.pictures)
        fitted = dict.fromkeys(map(self.taken.fitted, sizes))
        sizes = [size for size in fitted if size in sizes or not is_near(size, sent)]
        while sizes:
            # A second picture of one size has its rectangles elsewhere.
            layouts = Counter(picture.size for picture in self.pictures)
            probes = [probe_of(size, layout=layouts[size]) for size in sizes]
            refused = []
            for picture in await self.ask(probes, asked):
                if picture.refused:
                    refused.append(picture)
                else:
                    self.pictures.append(picture)
            sizes = self.taken.instead(refused, sent_sizes(self.pictures))


async def holds_at(ask: AskProbes, size: Size, known: BoxFormat) -> bool | None:
    """Whether boxes in a picture of this size are where the format says; None if it can't be told.

    The rectangles have to be found before the scale is measured: it looks the same with x and y
    swapped.
    """
    for layout in (0, 1):
        [picture] = await ask([probe_of(size, layout)], known)
        verdict = judge([picture], known)
        if verdict.kind == "silent":
            return None
        if verdict.kind == "misses":
            continue
        measured = _seen_in(picture, known)
        if measured is None:
            return None
        within = UNTOUCHED if known.scale == "px" else ONCE_OFF
        if measured.is_as_expected(_expected(known, picture.sent), within):
            return True
    return False


def _seen_in(picture: ProbedPicture, known: BoxFormat) -> SeenSize | None:
    """A picture's size as numbers in this format count it; only padding moves the first edge."""
    frame = known.frame if known.frame.startswith("pad_square") else "sent"
    return seen(picture, known.order, frame)


def _expected(known: BoxFormat, sent: Size) -> Expected:
    """How many of the format's numbers should stand for a pixel of a picture sent in this size."""
    canvas = frame_of(known.frame, sent)
    if known.scale == "px":
        return Expected((canvas.image_width / sent[0], canvas.image_height / sent[1]))
    return Expected((float(known.scale) / canvas.width, float(known.scale) / canvas.height))


class PaddingVerdict(NamedTuple):
    """How pictures like `size` are to be sent.

    Attributes:
        size: Width and height in pixels.
        aspect: The aspect to pad to; None for no padding.
        off: Where that is no use: how far off boxes still are, as a share of the side.
    """

    size: Size
    aspect: float | None
    off: float | None


async def verdict_on(
    ask: AskProbes, size: Size, known: BoxFormat, max_side: int, usual: float | None
) -> tuple[PaddingVerdict | None, list[ProbedPicture]]:
    """Ask for a picture of this size, padded ever more while that may help.

    The `known` format counts parts of the side. `usual` is how far boxes are off otherwise; None
    to find out. No verdict where nothing is answered. A picture too narrow to draw rectangles in
    is enlarged. Returns the pictures, too.
    """
    pictures: list[ProbedPicture] = []
    off_with: dict[float | None, float] = {}
    drawn = legible(size, max_side)
    for aspect in PADDINGS:
        limits = SizeLimits(max_side, max_wide=aspect, max_tall=aspect)
        padded = Probe(limits.padded(drawn), probe_of(drawn).boxes, drawn)
        [picture] = await ask([padded], known)
        pictures.append(picture)
        if len(picture.answers) < LEAST_ANSWERED * picture.asked and not picture.refused:
            break
        off = max(median_error(picture, known), steady_error(picture, known))
        off_with[aspect] = off
        if off <= WORSE * max(usual or 0, USUAL) or (aspect and off <= FAR):
            break
    if not off_with or all(picture.refused for picture in pictures):
        return None, pictures
    best = min(off_with, key=lambda aspect: off_with[aspect])
    if off_with[best] >= BETTER * off_with[None]:
        best = None
    if off_with[best] <= FAR:
        return PaddingVerdict(size, best, None), pictures
    if usual is None:
        [picture] = await ask([probe_of(reduced_to(SIZES[0], max_side))], known)
        pictures.append(picture)
        usual = median_error(picture, known)
    if off_with[best] > WORSE * usual:
        return PaddingVerdict(size, best, off_with[best]), pictures
    return PaddingVerdict(size, best, None), pictures


def steady_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """How far all boxes of a picture are scaled or shifted together; 0 if that may be noise.

    As a share of the side. A server that pads pictures to multiples moves the boxes of long ones
    by more than those of others. Pictures that this package padded are not looked at: they have
    other sides.
    """
    if picture.probe.drawn is not None and picture.probe.drawn != picture.probe.size:
        return 0.0
    measured = _seen_in(picture, known)
    if measured is None:
        return 0.0
    expected = _expected(known, picture.sent)
    if measured.is_as_expected(expected, ONCE_OFF):
        return 0.0
    gaps = measured.scale_gaps(expected) + measured.shift_gaps(expected)
    return max(abs(gap.gap) for gap in gaps)


def median_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """The worst edge of the median rectangle, as a share of the side of what is drawn.

    Rectangles that did not come back are off by the whole side.
    """
    sides = (picture.probe.drawn or picture.size) * 2
    worst = []
    for answer in picture.answers:
        if len(answer.numbers) == 4:
            edges = zip(picture.in_pixels(answer, known), answer.asked, sides, strict=True)
            worst.append(max(abs(read - true) / side for read, true, side in edges))
    worst += [1.0] * (picture.asked - len(worst))
    return median(worst)

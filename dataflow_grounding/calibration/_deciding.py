"""What to ask a model, answer by answer, until its box format is known, and how to send it
elongated pictures.
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
    check_whole,
    constant_side,
    measured_in,
    seen,
    shown,
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

WAYS = (None, MODERATE, 2)  # as it is, and with padding to this aspect
# how much worse than usual boxes have to be, and how much better with padding
WORSE, BETTER = 2.0, 0.6
# of the side: boxes that are further off than this, and than WORSE times the usual, are of no use
FAR = 0.05
USUAL = 0.01  # boxes are at least this far off in any picture
# share of the rectangles of an elongated picture: fewer say nothing about where boxes are
LEAST_ANSWERED = 1 / 4


@dataclass(frozen=True)
class Decision:
    """The format, and the pictures that speak for it; `limits` are those within which pixels are
    the sent picture's.
    """

    fit: Fit
    pictures: list[ProbedPicture]
    limits: SizeLimits | None = None


class Deciding:
    """One model's case: `ask` puts probe pictures to it, `own` are sizes of the run's, the
    commonest first, of which up to `most_own` are asked for. What takes long to reckon is done by a
    thread: the event loop may have other things to do.
    """

    def __init__(
        self, ask: AskProbes, max_side: int, own: Sequence[Size] = (), most_own: int = MOST_OWN
    ) -> None:
        self.ask, self.max_side, self.own, self.most_own = ask, max_side, own, most_own
        self.pictures: list[ProbedPicture] = []
        self.taken = Taken(max_side, own)

    async def decide(self, stated: BoxFormat) -> Decision:
        """The format that fits: `stated` for the first picture, then as its answer suggests. Raises
        NoFit.
        """
        try:
            return await self._decided(stated)
        except NoFit as why:
            unclear, order = why, one_order(self.pictures)
        if order is None:
            raise unclear
        return await self._as_squares(order, unclear)

    async def _decided(self, stated: BoxFormat) -> Decision:
        first, *others = (reduced_to(size, self.max_side) for size in SIZES)
        await self._ask_for([first], stated)
        stated = first_guess(self.pictures[0], stated)
        await self._ask_for(
            [size for size in others if not is_near(size, [self.pictures[0].sent])], stated
        )
        found = await asyncio.to_thread(fit, self.pictures, stated)
        if found.format.frame != "sent" and found.format.scale != "px":
            await self._ask_for([reduced_to(size, self.max_side) for size in OTHER_SHAPES], stated)
            found = await asyncio.to_thread(fit, self.pictures, stated)
        if found.format.scale == "px":
            return await self._in_pixels(found.format)
        further = self._further_shapes(found.format)
        if further:
            await self._ask_further(further, stated)
            found = await asyncio.to_thread(fit, self.pictures, stated)
        if self.taken.narrowed and self.own:
            await self._ask_for(
                [legible(reduced_to(self.own[0], self.max_side), self.max_side)], stated
            )
        return Decision(found, self.pictures, self.taken.limits if self.taken.narrowed else None)

    async def _ask_further(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for further shapes, of which those that are refused, or left without rectangles, say
        nothing.
        """
        before = len(self.pictures)
        with suppress(NoFit):  # no limit explains what is refused: such sizes stay untried
            await self._ask_for(sizes, asked)
        further = self.pictures[before:]
        unanswered = [picture for picture in further if judge([picture], asked).kind == "silent"]
        if unanswered:
            them = ", ".join(by(picture.sent) for picture in unanswered)
            say(
                f"The rectangles in pictures of {them} px were not answered: boxes in such pictures"
                " are not known."
            )
        self.pictures = self.pictures[:before] + [
            picture for picture in further if picture not in unanswered
        ]

    def _further_shapes(self, found: BoxFormat) -> list[Size]:
        """For a model that counts parts of the side: the run's own shapes that none of the pictures
        stands for, or the usual ones. How elongated pictures are to be sent is found out by
        `verdict_on`.
        """
        usual = USUAL_SHAPES if found.frame == "sent" else ()
        own = [
            legible(reduced_to(size, self.max_side), self.max_side) for size in self.own or usual
        ]
        asked = [picture.sent for picture in self.pictures]
        return uncovered(
            [size for size in own if not is_elongated(size)], asked, is_alike, self.most_own
        )

    async def _as_squares(self, order: Order, unclear: NoFit) -> Decision:
        """For a model that counts pixels, though in no sizes those of the picture as sent. Raises
        `unclear`.
        """
        try:
            frame, pictures, limits = await on_canvas(self.ask, order, self.max_side, self.taken)
        except NoFit as why:
            raise unclear from why
        self.pictures = pictures
        return Decision(fit_as(order, "px", frame, pictures), pictures, limits)

    async def _in_pixels(self, found: BoxFormat) -> Decision:
        """For a model that counts pixels: the limits within which it counts those of the picture as
        sent.
        """
        measured = measured_in(self.pictures, found.order, found.frame)
        constant = constant_side(measured, found.frame)
        if constant is not None and constant[1] != "sent":
            # squares show as much to a server that pads to them itself
            raise NoFit(
                "the side of the squares that pictures are padded to is not known"
                f" ({shown(measured)})"
            )
        if constant is not None:
            return await self._in_parts(found)
        try:
            limits, frame = await self._covered(
                found, Covering(self.max_side, self.taken, self.own, self.most_own)
            )
        except NoFit:  # elongated pictures may be what is wrong: they can be padded
            if not elongated(self.own):
                raise
            self.pictures = [picture for picture in self.pictures if not is_elongated(picture.size)]
            padding = SizeLimits(self.max_side, max_wide=MODERATE, max_tall=MODERATE)
            own = [padding.padded(size) for size in self.own]
            limits, frame = await self._covered(
                found, Covering(self.max_side, self.taken, own, self.most_own, MODERATE)
            )
        inside = [picture for picture in self.pictures if limits.allows(picture.sent)]
        return Decision(fit_as(found.order, "px", frame, inside), inside, limits)

    async def _covered(self, found: BoxFormat, covering: Covering) -> tuple[SizeLimits, str]:
        """What the further pictures prove, as Covering.covered. Raises NoFit."""

        def next_sizes() -> list[Size]:
            return covering.next_sizes(measured_in(self.pictures, found.order, found.frame))

        while sizes := await asyncio.to_thread(next_sizes):
            await self._ask_for(sizes, found)
        return covering.covered(measured_in(self.pictures, found.order, found.frame), found.frame)

    async def _in_parts(self, found: BoxFormat) -> Decision:
        """For a model that writes one number for the whole side of any picture, if further pictures
        say so too.
        """
        covering = Covering(self.max_side, self.taken, self.own, self.most_own)
        await self._ask_for([*covering.next_sizes([]), *OTHER_SHAPES], found)
        measured = measured_in(self.pictures, found.order, found.frame)
        constant = constant_side(measured, found.frame)
        if constant is None or constant[1] != "sent":
            raise PicturesDisagree(
                "the pictures disagree: some are counted in pixels, some in parts of the side"
            )
        limits = replace(covering.shaped, min_pixels=min(math.prod(one.sent) for one in measured))
        named = fit_as(found.order, *constant, self.pictures)
        check_whole(measured, named.format)
        return Decision(named, self.pictures, limits)

    async def _ask_for(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for pictures of these sizes, and of others where some are refused. Raises
        NothingAnswered, NoFit.
        """
        sent = [picture.sent for picture in self.pictures]
        fitted = dict.fromkeys(map(self.taken.fitted, sizes))
        sizes = [size for size in fitted if size in sizes or not is_near(size, sent)]
        while sizes:
            before = Counter(picture.size for picture in self.pictures)
            answers = await self.ask([probe_of(size, layout=before[size]) for size in sizes], asked)
            self.pictures += [picture for picture in answers if not picture.refused]
            refused = [picture for picture in answers if picture.refused]
            sizes = self.taken.instead(refused, [picture.sent for picture in self.pictures])


async def holds_at(ask: AskProbes, size: Size, known: BoxFormat) -> bool | None:
    """Whether boxes in a picture of this size are where the format says; None if that can't be
    told.

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
        one = seen(
            picture, known.order, known.frame if known.frame.startswith("pad_square") else "sent"
        )
        if one is None:
            return None
        within = UNTOUCHED if known.scale == "px" else ONCE_OFF
        if one.is_as_expected(_expected(known, picture.sent), within):
            return True
    return False


def _expected(known: BoxFormat, sent: Size) -> Expected:
    """How many of the format's numbers should stand for a pixel of a picture sent in this size."""
    canvas = frame_of(known.frame, sent)
    if known.scale == "px":
        return Expected((canvas.image_width / sent[0], canvas.image_height / sent[1]))
    return Expected((float(known.scale) / canvas.width, float(known.scale) / canvas.height))


class PaddingVerdict(NamedTuple):
    """For pictures like `size`: the aspect to pad to, or None; where that's no use, how far `off`
    boxes still are.
    """

    size: Size
    aspect: float | None
    off: float | None


async def verdict_on(
    ask: AskProbes, size: Size, known: BoxFormat, max_side: int, usual: float | None
) -> tuple[PaddingVerdict | None, list[ProbedPicture]]:
    """Ask for a picture of this size in a format of parts of the side, padded ever more while that
    may help.

    `usual` is how far boxes are off otherwise; None to find out. No verdict where nothing is
    answered. A picture too narrow to draw rectangles in is enlarged.
    """
    pictures: list[ProbedPicture] = []
    offs: dict[float | None, float] = {}
    drawn = legible(size, max_side)
    for aspect in WAYS:
        limits = SizeLimits(max_side, max_wide=aspect, max_tall=aspect)
        padded = Probe(limits.padded(drawn), probe_of(drawn).boxes, drawn)
        pictures += await ask([padded], known)
        if (
            len(pictures[-1].answers) < LEAST_ANSWERED * pictures[-1].asked
            and not pictures[-1].refused
        ):
            break
        offs[aspect] = max(median_error(pictures[-1], known), steady_error(pictures[-1], known))
        if offs[aspect] <= WORSE * max(usual or 0, USUAL) or (aspect and offs[aspect] <= FAR):
            break
    if not offs or all(picture.refused for picture in pictures):
        return None, pictures
    plain, best = offs[None], min(offs, key=lambda aspect: offs[aspect])
    if offs[best] >= BETTER * plain:
        best = None
    if offs[best] <= FAR:
        return PaddingVerdict(size, best, None), pictures
    if usual is None:
        pictures += await ask([probe_of(reduced_to(SIZES[0], max_side))], known)
        usual = median_error(pictures[-1], known)
    return PaddingVerdict(size, best, offs[best] if offs[best] > WORSE * usual else None), pictures


def steady_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """How far all boxes of a picture are scaled or shifted together, as a share of the side; 0 if
    that may be noise.

    A server that pads pictures to multiples moves the boxes of long ones by more than those of
    others. Pictures that this package padded are not looked at: they have other sides.
    """
    if picture.probe.drawn is not None and picture.probe.drawn != picture.probe.size:
        return 0.0
    one = seen(
        picture, known.order, known.frame if known.frame.startswith("pad_square") else "sent"
    )
    if one is None:
        return 0.0
    expected = _expected(known, picture.sent)
    return (
        0.0
        if one.is_as_expected(expected, ONCE_OFF)
        else max(map(abs, (*one.gaps(expected), *one.shift)))
    )


def median_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """The worst edge of the median rectangle, as a share of the side of what is drawn; 1 where
    hardly any came back.
    """
    sides = (picture.probe.drawn or picture.size) * 2
    usable = [answer for answer in picture.answers if len(answer.numbers) == 4]
    pairs = [(picture.in_pixels(answer, known), answer.asked) for answer in usable]
    worst = [
        max(abs(a - b) / side for a, b, side in zip(*pair, sides, strict=True)) for pair in pairs
    ]
    return median([*worst, *[1.0] * (picture.asked - len(worst))])

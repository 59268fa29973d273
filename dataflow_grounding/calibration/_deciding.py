"""What to ask a model, answer by answer, until its box format is known.

`Deciding` asks about ever more probe pictures until one format is left that explains the answers.
`holds_at` tries a format that is known already in one more size, and `try_paddings` finds out how
to send elongated pictures.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple

from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat, FrameMap, Order
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._accepted_sizes import (
    MODERATE,
    AcceptedSizes,
    is_elongated,
    is_near,
)
from dataflow_grounding.calibration._fitting import Fit, Scores, first_guess, fit, fit_as
from dataflow_grounding.calibration._seen_size import (
    NO_SHIFT,
    ONCE_OFF,
    SeenSize,
    check_scale_spans_sides,
    constant_side,
    measure_seen_size,
    measure_seen_sizes,
    sent_sizes,
)
from dataflow_grounding.calibration.alike_sizes import MOST_OWN, is_alike, uncovered
from dataflow_grounding.calibration.checking import judge
from dataflow_grounding.calibration.frames import choose_frames
from dataflow_grounding.calibration.maps import fit_map, format_in_frames, order_of
from dataflow_grounding.calibration.probes import (
    INNER,
    OTHER_SHAPES,
    SIZES,
    USUAL_SHAPES,
    AskProbes,
    NoFit,
    PicturesDisagree,
    Probe,
    ProbedPicture,
    legible,
    probe_of,
    reduced_to,
    size_text,
)
from dataflow_grounding.images.image import SizeLimits

FIRST_PROBES = 2  # of each frame: one can't tell a rectangle that was missed from a shift
MOST_PROBES = 8  # of each frame, after which it is as precise as it gets
# Standard error of a map at the far edge, as a share of the side: a third of the 1% by which edges
# may be off, so that three standard errors are within it.
PRECISE = 0.0033
# Elongated pictures are tried unpadded first, then padded to these aspects (longer over shorter).
PADDINGS = (None, MODERATE, 2)
WORSE = 2.0  # boxes more than so many times as far off as usual are a reason to try padding
BETTER = 0.6  # padding is worth it if it brings the error down to this share, or lower
# Boxes further off than this share of the side, and than WORSE times the usual, are of no use.
FAR = 0.05
USUAL = 0.01  # share of the side that boxes are taken to be off in any picture
# Share of an elongated picture's rectangles that have to be answered to say anything about it.
LEAST_ANSWERED = 1 / 4


@dataclass(frozen=True)
class Decision:
    """The format that was found out, and what it rests on.

    Attributes:
        fit: The format that fits.
        pictures: The pictures that speak for it.
        limits: The sizes for which the format holds; None for all.
        refused: Frames that the endpoint doesn't take.
    """

    fit: Fit
    pictures: list[ProbedPicture]
    limits: SizeLimits | None = None
    refused: list[Size] = field(default_factory=list)


class Deciding:
    """Finds out one model's box format, by asking about probe pictures.

    Long computations run in a thread, as the event loop may have other things to do.

    Args:
        ask: Puts probe pictures to the model.
        max_side: The longest side that is ever sent, in pixels.
        own: Sizes of the run's pictures, the commonest first.
        counts: How many pictures there are of each; of equally many where nothing is said.
        most_own: How many of them are asked for at the most.

    Attributes:
        pictures: The pictures that were answered so far, without those that were set aside.
        accepted: The sizes that the endpoint accepts, as far as is known.
    """

    def __init__(
        self,
        ask: AskProbes,
        max_side: int,
        own: Sequence[Size] = (),
        counts: Sequence[int] = (),
        most_own: int = MOST_OWN,
    ) -> None:
        self.ask = ask
        self.max_side = max_side
        self.own = own
        self.counts = counts or [1] * len(own)
        self.most_own = most_own
        self.pictures: list[ProbedPicture] = []
        self.accepted = AcceptedSizes(max_side, own)

    async def decide(self, stated: BoxFormat) -> Decision:
        """Find out the format that fits; numbers that are no parts of the side are measured.

        Args:
            stated: The format that the first question asks for. The others ask for the one that the
                first answer suggests.

        Raises:
            NoFit: No format fits, and the numbers lie on no line.
            NothingAnswered: Not even a small picture was answered.
        """
        try:
            return await self._decide_by_sizes(stated)
        except NoFit as error:
            unclear = error
        is_answered = any(picture.answers for picture in self.pictures)
        if is_answered and len(self.pictures) == 1:  # the first alone suggested no format
            with suppress(NoFit):  # what is refused is left out
                await self._ask_for([reduced_to(size, self.max_side) for size in SIZES[1:]], stated)
        order = await asyncio.to_thread(order_of, self.pictures)
        if order is None:
            raise unclear
        try:
            return await self._decide_by_frames(order)
        except NoFit as error:
            raise unclear from error

    async def _decide_by_sizes(self, stated: BoxFormat) -> Decision:
        """Ask about ever more sizes and shapes of probe pictures until they tell one format.

        The three common sizes come first. Where a format with padding fits these, other shapes have
        to fit, too. A model that counts pixels is then asked about sizes until limits are proved
        (`_decide_pixels`); one that counts parts of the side, about further shapes
        (`_decide_by_shapes`). `stated` is the format that the first question asks for. Raises
        NoFit, NothingAnswered.
        """
        first, *further_sizes = [reduced_to(size, self.max_side) for size in SIZES]
        await self._ask_for([first], stated)
        guessed = first_guess(self.pictures[0], stated)
        first_sent = self.pictures[0].sent
        unlike_first = [size for size in further_sizes if not is_near(size, [first_sent])]
        await self._ask_for(unlike_first, guessed)
        best = await self._fit(guessed)
        if best.format.frame != "sent" and best.format.scale != "px":
            other_shapes = [reduced_to(size, self.max_side) for size in OTHER_SHAPES]
            await self._ask_for(other_shapes, guessed)
            best = await self._fit(guessed)
        if best.format.scale == "px":
            return await self._decide_pixels(best.format)
        return await self._decide_by_shapes(best, guessed)

    async def _decide_by_shapes(self, best: Fit, asked: BoxFormat) -> Decision:
        """Decide for a model that counts parts of the side, after asking for further shapes.

        These are the shapes of the run's own pictures, if they are known. Raises NoFit where no one
        format fits them as well.

        Args:
            best: The format that fits so far.
            asked: The format in which further pictures are asked for.
        """
        further = self._further_shapes(best.format)
        if further:
            await self._ask_further(further, asked)
            best = await self._fit(asked)
        if not self.accepted.is_narrowed:
            return Decision(best, self.pictures)
        # Some picture was refused, so the run's pictures are sent within limits. The commonest
        # size has to be accepted within them.
        if self.own:
            await self._ask_for([self._legible(self.own[0])], asked)
        return Decision(best, self.pictures, self.accepted.limits)

    async def _fit(self, stated: BoxFormat) -> Fit:
        """Find the one format in which all pictures so far were answered, as `fit` does.

        Raises NoFit.
        """
        return await asyncio.to_thread(fit, self.pictures, stated)

    def _legible(self, size: Size) -> Size:
        """Return a size reduced to `max_side`, then enlarged if rectangles can't be seen in it."""
        return legible(reduced_to(size, self.max_side), self.max_side)

    async def _ask_further(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for further shapes in the format `asked`, and keep the pictures that were answered.

        Pictures that are refused, or come back without boxes, are dropped, and the user is told.
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
            sizes_unanswered = ", ".join(size_text(picture.sent) for picture in unanswered)
            say(
                f"The rectangles in pictures of {sizes_unanswered} px were not answered: boxes in"
                " such pictures are not known."
            )
        self.pictures = self.pictures[:before] + answered

    def _further_shapes(self, known: BoxFormat) -> list[Size]:
        """Return further sizes to ask for where a model counts parts of the side.

        These are up to `most_own` of the run's own sizes that no picture so far stands for. If the
        run's are not known, the usual ones stand in, or none for a frame with padding, which other
        shapes had to fit already. Elongated ones are left out: `try_paddings` finds out how these
        are to be sent.
        """
        sizes = self.own
        if not sizes and known.frame == "sent":
            sizes = USUAL_SHAPES
        legible_sizes = [self._legible(size) for size in sizes]
        moderate = [size for size in legible_sizes if not is_elongated(size)]
        return uncovered(moderate, sent_sizes(self.pictures), is_alike, self.most_own)

    async def _decide_pixels(self, known: BoxFormat) -> Decision:
        """Decide for a model whose numbers look like pixels.

        They may only look so: where one number means the whole side of every picture, they are
        parts of the side. Raises NoFit.
        """
        constant = constant_side(self._measured_in(known), known.frame)
        if constant is not None and constant.frame == "sent":
            return await self._decide_parts(known)
        return await self._decide_by_frames(known.order)

    async def _decide_by_frames(self, order: Order) -> Decision:
        """Measure what numbers mean in the frames in which pictures will be sent.

        Raises NoFit where the answers in a frame lie on no line, or all frames are refused.
        """
        asked = find_box_format(f"{order}_px", "")
        answered: dict[Size, list[ProbedPicture]] = {}
        unwanted: set[Size] = set()  # frames that the endpoint doesn't take
        frames = choose_frames(self.own, self.counts, self.accepted.limits)
        missing = frames
        while missing:
            further, refused = await ask_frames(self.ask, asked, missing)
            answered |= further
            unwanted.update(picture.size for picture in refused)
            with suppress(NoFit):  # no limit explains it: then it is this frame alone
                self.accepted.replacements_for(refused, [*answered, *sent_sizes(self.pictures)])
            limits = self.accepted.limits
            frames = choose_frames(self.own, self.counts, limits, list(answered), unwanted)
            missing = [size for size in frames if size not in answered]
        if not frames:
            raise NoFit("pictures are refused in all sizes that were tried")
        used = {size: answered[size] for size in frames}
        maps, pictures = await measure_frames(self.ask, asked, used)
        scores = Scores(pictures, [format_in_frames(order, maps)])
        limits = replace(self.accepted.limits, frames=tuple(frames))
        return Decision(scores.fit_of(0), pictures, limits, sorted(unwanted))

    def _measured_in(self, known: BoxFormat) -> list[SeenSize]:
        """Return how large each picture so far was seen, by a format's order and frame."""
        return measure_seen_sizes(self.pictures, known.order, known.frame)

    async def _decide_parts(self, known: BoxFormat) -> Decision:
        """Decide for a model that writes one number for the whole side of any picture.

        Its numbers looked like pixels, as the size at which each picture is seen is measured
        freely. The number for the side may be any, such as 512. Raises NoFit unless further sizes
        and shapes show the same.

        Args:
            known: The format that fits so far: pixels, in a frame and an order.
        """
        shapes = [reduced_to(size, self.max_side) for size in [*USUAL_SHAPES, *OTHER_SHAPES]]
        await self._ask_for(shapes, known)
        measured = self._measured_in(known)
        constant = constant_side(measured, known.frame)
        if constant is None or constant.frame != "sent":
            raise PicturesDisagree(
                "the pictures disagree: some are counted in pixels, some in parts of the side"
            )
        smallest_area = min(map(math.prod, sent_sizes(measured)))
        fitting = fit_as(known.order, constant.number, constant.frame, self.pictures)
        check_scale_spans_sides(measured, fitting.format)
        # The scale is known by measuring alone: it holds for sizes like those that were measured.
        limits = replace(self.accepted.limits, min_pixels=smallest_area)
        return Decision(fitting, self.pictures, limits)

    async def _ask_for(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for pictures of these sizes in the format `asked`; add those answered to `pictures`.

        Sizes that the endpoint was seen to refuse are asked for as it accepts them, and so are
        those that it refuses now.

        Raises:
            NothingAnswered: Neither the first pictures nor a small one were answered.
            NoFit: No limit of size explains what the endpoint refuses.
            RunStopped: The run ended meanwhile.
        """
        sent = sent_sizes(self.pictures)
        accepted = dict.fromkeys(map(self.accepted.limits.sent, sizes))
        # A size that had to be changed tells nothing new if it is near one that was asked for.
        still_wanted = [size for size in accepted if size in sizes or not is_near(size, sent)]
        while still_wanted:
            # A second picture of one size has its rectangles elsewhere.
            layouts = Counter(picture.size for picture in self.pictures)
            probes = [probe_of(size, layout=layouts[size]) for size in still_wanted]
            refused = []
            for picture in await self.ask(probes, asked):
                if picture.refused:
                    refused.append(picture)
                else:
                    self.pictures.append(picture)
            still_wanted = self.accepted.replacements_for(refused, sent_sizes(self.pictures))


async def ask_frames(
    ask: AskProbes, asked: BoxFormat, frames: Sequence[Size]
) -> tuple[dict[Size, list[ProbedPicture]], list[ProbedPicture]]:
    """Ask for the FIRST_PROBES of each frame, in the format `asked`.

    Returns the pictures of each frame that were answered, and those that were refused.
    """
    answered: dict[Size, list[ProbedPicture]] = {}
    refused: list[ProbedPicture] = []
    probes = [probe_of(size, INNER + n) for size in frames for n in range(FIRST_PROBES)]
    for picture in await ask(probes, asked):
        if picture.refused:
            refused.append(picture)
        else:
            answered.setdefault(picture.sent, []).append(picture)
    return answered, refused


async def measure_frames(
    ask: AskProbes, asked: BoxFormat, answered: Mapping[Size, Sequence[ProbedPicture]]
) -> tuple[list[FrameMap], list[ProbedPicture]]:
    """Measure the map of each frame, with probe pictures until it is PRECISE, or there are MOST.

    Args:
        ask: Puts probe pictures to the model.
        asked: The format of pixels in which they are asked for.
        answered: The pictures of each frame that were answered so far.

    Returns:
        The maps, and all pictures that they rest on.

    Raises:
        NoFit: The answers in a frame lie on no line.
    """
    pictures = {size: list(of_size) for size, of_size in answered.items()}
    maps: dict[Size, FrameMap | NoFit] = {}
    further: Mapping[Size, Sequence[ProbedPicture]] = pictures  # of the frames to be fitted
    while True:
        maps |= await asyncio.to_thread(_maps_of, further, asked.order)
        vague = [
            size
            for size, measured in maps.items()
            if len(pictures[size]) < MOST_PROBES
            and (isinstance(measured, NoFit) or measured.error > PRECISE)
        ]
        if not vague:
            break
        probes = [probe_of(size, INNER + len(pictures[size])) for size in vague]
        for picture in await ask(probes, asked):
            pictures[picture.probe.size].append(picture)
        further = {size: pictures[size] for size in vague}
    sound: list[FrameMap] = []
    for measured in maps.values():
        if isinstance(measured, NoFit):
            raise measured
        sound.append(measured)
    return sound, [picture for of_size in pictures.values() for picture in of_size]


async def add_frames(
    ask: AskProbes, known: BoxFormat, missing: Sequence[Size]
) -> tuple[BoxFormat, list[ProbedPicture]]:
    """Measure further frames.

    Args:
        ask: Puts probe pictures to the model.
        known: The format, with the maps that are known.
        missing: The frames that have none.

    Returns:
        The format with all maps, and the pictures that were answered. A frame that is refused has
        no map.

    Raises:
        NoFit: The answers in a frame lie on no line.
    """
    asked = find_box_format(f"{known.order}_px", "")
    answered, _ = await ask_frames(ask, asked, missing)
    maps, pictures = await measure_frames(ask, asked, answered)
    return format_in_frames(known.order, [*known.maps, *maps]), pictures


def _maps_of(
    pictures: Mapping[Size, Sequence[ProbedPicture]], order: Order
) -> dict[Size, FrameMap | NoFit]:
    maps: dict[Size, FrameMap | NoFit] = {}
    for size, of_size in pictures.items():
        try:
            maps[size] = fit_map(of_size, order)
        except NoFit as error:
            maps[size] = error
    return maps


async def holds_at(ask: AskProbes, size: Size, known: BoxFormat) -> bool | None:
    """Whether boxes in a picture of this size are where the format says; None if it can't be told.

    One picture where they are is enough; where the first isn't such, a second one is asked for.
    It can't be told once too few rectangles of a picture are answered, or its size can't be
    measured. The rectangles have to be found, and then their scale and shift have to be right as
    well, which is the finer test; alone, it would take x and y swapped for right.
    """
    for layout in (0, 1):
        [picture] = await ask([probe_of(size, layout)], known)
        verdict = judge([picture], known)
        if verdict.kind == "silent":
            return None
        if verdict.kind == "misses":
            continue
        measured = _measure_in_format(picture, known)
        if measured is None:
            return None
        if measured.is_unshifted_at(_scale_of(known, picture.sent), ONCE_OFF):
            return True
    return False


def _measure_in_format(picture: ProbedPicture, known: BoxFormat) -> SeenSize | None:
    """Measure how large a model saw a picture that was answered in this format; None if it can't.

    Of the frames only those with padding matter: they move the picture's first edge.
    """
    frame = known.frame if known.frame.startswith("pad_square") else "sent"
    return measure_seen_size(picture, known.order, frame)


def _scale_of(known: BoxFormat, sent: Size) -> tuple[float, float]:
    """Return how many of the format's numbers stand for a pixel as sent, along x and along y."""
    canvas = known.canvas(sent)
    if known.scale == "px":
        return canvas.image_width / sent[0], canvas.image_height / sent[1]
    return float(known.scale) / canvas.width, float(known.scale) / canvas.height


class PaddingVerdict(NamedTuple):
    """How pictures like `size` are to be sent.

    Attributes:
        size: Width and height in pixels.
        aspect: The aspect (longer over shorter side) to pad to; None for no padding.
        off: How far off boxes are even so, as a share of the side; None where they are usable.
    """

    size: Size
    aspect: float | None
    off: float | None


async def try_paddings(
    ask: AskProbes, size: Size, known: BoxFormat, max_side: int, usual: float | None
) -> tuple[PaddingVerdict | None, list[ProbedPicture]]:
    """Find out whether elongated pictures of this size should be padded, and how much.

    A picture is asked for unpadded, then with each of PADDINGS, until boxes are right. Padding is
    preferred only where it makes boxes clearly better.

    Args:
        ask: Puts probe pictures to the model.
        size: Width and height in pixels; a picture too narrow to draw rectangles in is enlarged.
        known: The model's format, which counts parts of the side.
        max_side: The longest side that may be sent, in pixels.
        usual: How far off boxes are in pictures of usual shapes, as a share of the side; None to
            find out, if it matters, by one picture more.

    Returns:
        The verdict, None where all pictures were refused, or the first one came back with too few
        boxes; and the pictures that were asked for, answered or not.
    """
    pictures: list[ProbedPicture] = []
    error_by_aspect = await _try_each_padding(ask, size, known, max_side, usual, pictures)
    if not error_by_aspect or all(picture.refused for picture in pictures):
        return None, pictures
    best = min(error_by_aspect, key=lambda aspect: error_by_aspect[aspect])
    if error_by_aspect[best] >= BETTER * error_by_aspect[None]:
        best = None  # padding costs resolution: it has to be clearly better
    error = error_by_aspect[best]
    if error <= FAR:
        return PaddingVerdict(size, best, None), pictures
    if usual is None:
        [picture] = await ask([probe_of(reduced_to(SIZES[0], max_side))], known)
        pictures.append(picture)
        usual = median_error(picture, known)
    if error > WORSE * usual:
        return PaddingVerdict(size, best, error), pictures
    return PaddingVerdict(size, best, None), pictures


async def _try_each_padding(
    ask: AskProbes,
    size: Size,
    known: BoxFormat,
    max_side: int,
    usual: float | None,
    pictures: list[ProbedPicture],
) -> dict[float | None, float]:
    """Ask for pictures with ever more padding, until boxes are right or too few are answered.

    The arguments are those of `try_paddings`; each picture is added to `pictures`. Boxes are right
    if they are about as far off as usual or, with padding, by no more than FAR.

    Returns how far off boxes are with each aspect that was tried, as a share of the side; the
    aspect None is no padding. A picture that is refused counts as off by the whole side; one with
    too few answers isn't among them.
    """
    error_by_aspect: dict[float | None, float] = {}
    drawn = legible(size, max_side)
    for aspect in PADDINGS:
        limits = SizeLimits(max_side, max_wide=aspect, max_tall=aspect)
        padded = Probe(limits.padded(drawn), probe_of(drawn).boxes, drawn)
        [picture] = await ask([padded], known)
        pictures.append(picture)
        is_answered = len(picture.answers) >= LEAST_ANSWERED * picture.asked
        if not is_answered and not picture.refused:
            break
        error = max(median_error(picture, known), steady_error(picture, known))
        error_by_aspect[aspect] = error
        is_as_usual = error <= WORSE * max(usual or 0, USUAL)
        is_padded_and_usable = aspect is not None and error <= FAR
        if is_as_usual or is_padded_and_usable:
            break
    return error_by_aspect


def steady_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """Return how far all boxes of a picture are scaled or shifted together, as a share of the side.

    It is the largest gap of a scale or shift, and 0 if that may be noise. A server that pads
    pictures to multiples moves the boxes of long ones by more than those of others. For pictures
    that this package padded it is 0, too: their sides are others than those of what is drawn.
    """
    if picture.probe.drawn is not None and picture.probe.drawn != picture.probe.size:
        return 0.0
    measured = _measure_in_format(picture, known)
    if measured is None:
        return 0.0
    scale = _scale_of(known, picture.sent)
    if measured.is_unshifted_at(scale, ONCE_OFF):
        return 0.0
    gaps = measured.scale_gaps(scale) + measured.shift_gaps(NO_SHIFT)
    return max(abs(gap.gap) for gap in gaps)


def median_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """Return how far off the worst edge of a rectangle is, for the median rectangle of a picture.

    It is a share of the side of what is drawn, without padding. Rectangles that weren't answered
    with four numbers count as off by the whole side.
    """
    sides = (picture.probe.drawn or picture.size) * 2
    worst = []
    for answer in picture.answers:
        if len(answer.numbers) == 4:
            edges = zip(picture.in_pixels(answer, known), answer.asked, sides, strict=True)
            worst.append(max(abs(read - true) / side for read, true, side in edges))
    worst += [1.0] * (picture.asked - len(worst))
    return median(worst)

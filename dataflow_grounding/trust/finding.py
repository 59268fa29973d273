"""Finding out how a model writes boxes, from its answers about probe pictures.

The numbers of each picture lie on a line for x and one for y (`maps.py`). Where all lines run from
0 to the same number, numbers are parts of the side. Otherwise what they mean is measured in each
exact size in which pictures will be sent (`frames.py`). No rule of a server is inferred.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat, FrameMap, Order
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust._accepted_sizes import AcceptedSizes, is_elongated, is_near
from dataflow_grounding.trust.frames import choose_frames
from dataflow_grounding.trust.kinds import one_of_each_kind
from dataflow_grounding.trust.maps import Line, fit_map, format_in_frames, lines_of, order_of
from dataflow_grounding.trust.probes import (
    INNER,
    SIZES,
    USUAL_SHAPES,
    AskProbes,
    NoFit,
    ProbedPicture,
    legible,
    probe_of,
    reduced_to,
    size_text,
)
from dataflow_grounding.trust.showing import LEAST, plain_names, read_in

FIRST_PROBES = 2  # of each frame: one can't tell a rectangle that was missed from a shift
MOST_PROBES = 8  # of each frame, after which it is as precise as it gets
# Standard error of a map at the far edge, as a share of the side: a third of the 1% by which edges
# may be off, so that three standard errors are within it.
PRECISE = 0.0033
NEAR = 0.10  # share of the side within which a rectangle counts as found, ...
SURELY_NEAR = 0.05  # ... and as found in a second format
MIN_FOUND = 2 / 3  # share of all rectangles that parts of the side have to find
LEAST_OF_ONE = 1 / 3  # the same in a single picture, where outliers weigh more
MAX_ERROR = 0.05  # the most that the median rectangle may be off, as a share of the side
SEVERAL = 3  # rectangles that a second format explains and the first misses: no accident
# The scales of parts of the side, the more usual ones first. 999 is a thousandth off 1000, which no
# picture shows.
SCALES = (1000, 1, 100, 1024)
# How far a line may be from 0 to the scale. A server that pads or crops moves it by 2% and more;
# models are off by some thousandths besides chance. By chance, the mean of (off / error) squared is
# 1.
ONCE_OFF, SYSTEMATIC = 0.02, 0.003
MOST_OFF = 2.0
ERRORS = 3.0  # standard errors that chance may add to ONCE_OFF
AS_GOOD = 0.2  # of that mean, by which the usual scale may be worse


@dataclass(frozen=True)
class Fit:
    """The format that fits, and how well.

    Attributes:
        format: The format.
        error_px: An edge's mean distance, in pixels of the probe pictures.
        error_share: How far the median rectangle's worst edge is off, as a share of the side.
        found: How many of the rectangles are where the format says.
        asked: How many rectangles were asked for.
        boxes: For each picture, the phrases that were answered and their boxes in pixels.
    """

    format: BoxFormat
    error_px: float
    error_share: float
    found: int
    asked: int
    boxes: list[list[tuple[str, Bbox]]] = field(default_factory=list, repr=False)


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

    Long computations run in a thread, because the event loop may have other things to do.

    Args:
        ask: Puts probe pictures to the model.
        max_side: The longest side that is ever sent, in pixels.
        own: Sizes of the run's pictures, the commonest first.
        counts: How many pictures there are of each; of equally many where nothing is said.

    Attributes:
        pictures: The pictures that were answered so far.
        accepted: The sizes that the endpoint accepts, as far as is known.
    """

    def __init__(
        self,
        ask: AskProbes,
        max_side: int,
        own: Sequence[Size] = (),
        counts: Sequence[int] = (),
    ) -> None:
        self.ask = ask
        self.max_side = max_side
        self.own = own
        self.counts = counts or [1] * len(own)
        self.pictures: list[ProbedPicture] = []
        self.accepted = AcceptedSizes(max_side, own)

    async def decide(self, stated: BoxFormat) -> Decision:
        """Find out what the numbers mean.

        Args:
            stated: The format that the first question asks for. The others ask for the one that the
                first answer suggests.

        Raises:
            NoFit: The numbers lie on no lines, or are in several formats.
            NothingAnswered: Not even a small picture was answered.
        """
        first, *others = [reduced_to(size, self.max_side) for size in SIZES]
        await self._ask_for([first], stated)
        if not any(answer.usable for picture in self.pictures for answer in picture.answers):
            raise NoFit(described(self.pictures, "no box that could be read came back"))
        asked = _suggested(self.pictures, stated)
        sent = [picture.sent for picture in self.pictures]
        with suppress(NoFit):  # no limit explains what is refused: such sizes stay untried
            await self._ask_for([size for size in others if not is_near(size, sent)], asked)
        if await self._parts(asked) is not None:
            await self._ask_further(asked)
            found = await self._parts(asked)
            if found is not None:
                return await self._decision(found, asked)
        order = await asyncio.to_thread(order_in, self.pictures)
        if order is None:
            raise NoFit(described(self.pictures, "the numbers lie on no line"))
        try:
            return await self._decide_by_frames(order)
        except NoFit as why:
            raise NoFit(described(self.pictures, str(why))) from None

    async def _parts(self, asked: BoxFormat) -> Fit | None:
        return await asyncio.to_thread(fit_parts, self.pictures, asked)

    async def _decision(self, found: Fit, asked: BoxFormat) -> Decision:
        """Return the decision for parts of the side, within the sizes that are accepted."""
        if not self.accepted.is_narrowed:
            return Decision(found, self.pictures)
        # Some picture was refused, so the run's pictures are sent within limits. The commonest
        # size has to be accepted within them.
        if self.own:
            await self._ask_for([self._legible(self.own[0])], asked)
        return Decision(found, self.pictures, self.accepted.limits)

    def _legible(self, size: Size) -> Size:
        """Return a size reduced to `max_side`, then enlarged if rectangles can't be seen in it."""
        return legible(reduced_to(size, self.max_side), self.max_side)

    async def _ask_further(self, asked: BoxFormat) -> None:
        """Ask for a picture of each kind that the run has, where there was none.

        Those that are answered are kept. Without a run they are of usual shapes. Strips are left
        out: `try_paddings` finds out how these are to be sent.
        """
        before = len(self.pictures)
        sent = [picture.sent for picture in self.pictures]
        own = one_of_each_kind([self._legible(size) for size in self.own])
        further = [size for size in own or USUAL_SHAPES if not is_near(size, sent)]
        with suppress(NoFit):  # no limit explains what is refused: such sizes stay untried
            await self._ask_for([size for size in further if not is_elongated(size)], asked)
        answered: list[ProbedPicture] = []
        unanswered: list[ProbedPicture] = []
        for picture in self.pictures[before:]:
            is_answered = sum(answer.usable for answer in picture.answers) >= LEAST
            (answered if is_answered else unanswered).append(picture)
        if unanswered:
            say(
                f"The rectangles in pictures of"
                f" {', '.join(size_text(picture.sent) for picture in unanswered)} px were not"
                " answered: boxes in such pictures are not known."
            )
        self.pictures = self.pictures[:before] + answered

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
                sent = [picture.sent for picture in self.pictures]
                self.accepted.replacements_for(refused, [*answered, *sent])
            limits = self.accepted.limits
            frames = choose_frames(self.own, self.counts, limits, list(answered), unwanted)
            missing = [size for size in frames if size not in answered]
        if not frames:
            raise NoFit("pictures are refused in all sizes that were tried")
        used = {size: answered[size] for size in frames}
        maps, pictures = await measure_frames(self.ask, asked, used)
        limits = replace(self.accepted.limits, frames=tuple(frames))
        fit = fit_of(format_in_frames(order, maps), pictures)
        return Decision(fit, pictures, limits, sorted(unwanted))

    async def _ask_for(self, sizes: Sequence[Size], asked: BoxFormat) -> None:
        """Ask for pictures of these sizes in the format `asked`; add those answered to `pictures`.

        Sizes that the endpoint was seen to refuse are asked for as it accepts them, and so are
        those that it refuses now.

        Raises:
            NothingAnswered: Neither the first pictures nor a small one were answered.
            NoFit: No limit of size explains what the endpoint refuses.
            RunStopped: The run ended meanwhile.
        """
        sent = [picture.sent for picture in self.pictures]
        accepted = dict.fromkeys(map(self.accepted.limits.sent, sizes))
        # A size that had to be changed tells nothing new if it is near one that was asked for.
        still_wanted = [size for size in accepted if size in sizes or not is_near(size, sent)]
        while still_wanted:
            # A second picture of one size has its rectangles at other places.
            layouts = Counter(picture.size for picture in self.pictures)
            probes = [probe_of(size, layout=layouts[size]) for size in still_wanted]
            refused = []
            for picture in await self.ask(probes, asked):
                if picture.refused:
                    refused.append(picture)
                else:
                    self.pictures.append(picture)
            sent = [picture.sent for picture in self.pictures]
            still_wanted = self.accepted.replacements_for(refused, sent)


# Parts of the side


def fit_parts(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> Fit | None:
    """Return the format in parts of the side in which all pictures were answered; None without.

    It is the `asked` one where that means the same boxes.

    Raises:
        NoFit: Some rectangles were answered in a second format.
    """
    known = _format_in_parts(pictures, asked)
    if known is None:
        return None
    fit = fit_of(known, pictures)
    if fit.found < MIN_FOUND * fit.asked or fit.error_share > MAX_ERROR:
        return None
    for picture in pictures:
        if fit_of(known, [picture]).found < LEAST_OF_ONE * picture.asked:
            return None
    _check_one_format(pictures, known)
    return fit


def _format_in_parts(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> BoxFormat | None:
    """Return the format whose scale all lines reach from 0; None without."""
    families = {answer.family for picture in pictures for answer in picture.answers}
    if len(families) == 1 and None not in families:
        return known_formats()[str(families.pop())]
    order = order_in(pictures)
    lines: list[tuple[Line, int]] = []
    for picture in pictures:
        of_picture = lines_of([picture], order) if order else None
        if of_picture is None:
            return None
        lines += zip(of_picture, picture.sent, strict=True)
    scales = [asked.scale] if isinstance(asked.scale, int) else []
    far_off = {scale: _how_far_off(lines, scale) for scale in (*scales, *SCALES)}
    least = min(far_off.values())
    if least > MOST_OFF:
        return None
    scale = next(scale for scale, off in far_off.items() if off <= least + AS_GOOD)
    if (order, scale, "sent") == (asked.order, asked.scale, asked.frame):
        return asked
    return find_box_format(f"{order}_{scale}", "")


def _how_far_off(lines: Sequence[tuple[Line, int]], scale: float) -> float:
    """Return how far lines are from reaching from 0 to this scale, as a mean of squared errors.

    Infinite where one of them surely doesn't. Each line has the side that it is along, in pixels.
    """
    squares = []
    for line, side in lines:
        for off in (line.start / scale, line.number_at(side) / scale - 1):
            if abs(off) > ONCE_OFF + ERRORS * line.error:
                return math.inf
            squares.append((off / math.hypot(line.error, SYSTEMATIC)) ** 2)
    return sum(squares) / len(squares)


def _check_one_format(pictures: Sequence[ProbedPicture], known: BoxFormat) -> None:
    """Raise NoFit where several rectangles that a format misses are where another one puts them."""
    read, drawn = read_in(pictures, known)
    missed = np.abs(read - drawn).max(axis=1) > NEAR
    if missed.sum() < SEVERAL:
        return
    for name in plain_names(known):
        others, _ = read_in(pictures, find_box_format(name, ""))
        explained = int((np.abs(others - drawn).max(axis=1)[missed] <= SURELY_NEAR).sum())
        if explained >= SEVERAL:
            raise NoFit(
                described(
                    pictures,
                    f"the model answers in two formats: {known.name} for"
                    f" {int((~missed).sum())} rectangles, {name} for {explained}",
                )
            )


def order_in(pictures: Sequence[ProbedPicture]) -> Order | None:
    """Return the order of numbers that answers name, as keys do, or that lies on lines; or None."""
    named = {answer.order for picture in pictures for answer in picture.answers}
    if len(named) == 1 and None not in named:
        return named.pop()
    return order_of(pictures)


def _suggested(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> BoxFormat:
    """Return the format in which to ask further: what the answers so far suggest.

    Without an order that is clear it is the `stated` one; without a scale, pixels.
    """
    order = order_in(pictures)
    if order is None:
        return stated
    known = _format_in_parts(pictures, stated)
    return known or find_box_format(f"{order}_px", "")


def fit_of(known: BoxFormat, pictures: Sequence[ProbedPicture]) -> Fit:
    """Return how well a format fits, and the boxes of all answers read in it.

    Where it finds no rectangle, `error_px` is 0 and `error_share` 1.
    """
    boxes: list[list[tuple[str, Bbox]]] = []
    sides: list[tuple[int, ...]] = []
    for picture in pictures:
        read, _ = read_in([picture], known)
        usable = [answer for answer in picture.answers if answer.usable]
        edges = (read * (picture.shown * 2)).tolist()
        boxes.append(
            [(answer.phrase, box_of(box)) for answer, box in zip(usable, edges, strict=True)]
        )
        sides += [picture.shown * 2] * len(usable)
    read, drawn = read_in(pictures, known)
    off = np.abs(read - drawn)
    worst = off.max(axis=1)
    is_found = worst <= NEAR
    error_px = 0.0
    error_share = 1.0
    if is_found.any():
        error_px = round(float((off * np.array(sides))[is_found].mean()), 2)
        error_share = round(float(np.median(worst[is_found])), 5)
    asked = sum(picture.asked for picture in pictures)
    return Fit(known, error_px, error_share, int(is_found.sum()), asked, boxes)


def described(pictures: Sequence[ProbedPicture], why: str) -> str:
    """Return an error's message: why no format can be named, and what came back.

    For each picture that is how many boxes, in numbers from where to where, and its trouble.
    """
    parts = []
    for picture in pictures:
        part = f"{size_text(picture.size)}: {len(picture.answers)} of {picture.asked} boxes"
        numbers: list[float] = []
        for answer in picture.answers:
            numbers.extend(answer.numbers)
        if numbers:
            part += f", numbers from {min(numbers):g} to {max(numbers):g}"
        if picture.trouble:
            part += f", {picture.trouble}"
        parts.append(part)
    return f"{why} (seen: {'; '.join(parts)})"


# Frames


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

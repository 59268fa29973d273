"""Finding out how a model writes boxes, from its answers about probe pictures.

The numbers of each picture lie on a line for x and one for y (`maps.py`). Where all lines run from
0 to the same number, numbers are parts of the side. Otherwise what they mean is measured in each
exact size in which pictures will be sent (`frames.py`). No rule of a server is inferred.

Such a size is a frame, and what numbers mean in it is its map. A layout says where a probe picture
of a size has its rectangles (`probes.py`).
"""

import asyncio
import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat, FrameMap, Order
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Size, size_text
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.frames import frames_for, may_be_taken
from dataflow_grounding.trust.kinds import is_elongated, one_of_each_kind
from dataflow_grounding.trust.maps import Line, fit_map, format_in_frames, lines_of, order_of
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import (
    INNER,
    SIZES,
    USUAL_SHAPES,
    AskProbes,
    ProbedPicture,
    legible,
    probe_of,
    reduced_to,
)
from dataflow_grounding.trust.showing import LEAST_ANSWERS, SCALES, read_in

# Of each frame: one picture can't tell a missed rectangle from a shift.
FIRST_LAYOUTS = (INNER, INNER + 1)
# Two sizes whose sides differ by no more than this share need one picture: a rule that treats them
# differently would have to draw its line just between them.
SAME_SIZE = 0.02
MOST_PROBES = 8  # of each frame, after which it is as precise as it gets
# Standard error of a map at the far edge, as a share of the side: a third of the 1% by which edges
# may be off, so that three standard errors are within it.
PRECISE = 0.0033
NEAR = 0.10  # share of the side within which a rectangle counts as found
MIN_FOUND = 2 / 3  # share of all rectangles that parts of the side have to find
LEAST_OF_ONE = 1 / 3  # the same in a single picture, where outliers weigh more
MAX_ERROR = 0.05  # the most that the median rectangle may be off, as a share of the side
# The scales of parts of the side. 999 is a thousandth off 1000, which no picture shows.
PARTS = tuple(scale for scale in SCALES if isinstance(scale, int))
# How far a line's ends may be from 0 and the scale. A server that pads or crops moves them by 2%
# and more; models are off by some thousandths besides chance. By chance alone, the mean of
# (off / error) squared is 1.
ONCE_OFF, SYSTEMATIC = 0.02, 0.003
MOST_MEAN_SQUARE = 2.0
CHANCE_ERRORS = 3.0  # standard errors that chance may add to ONCE_OFF
USUAL_SCALE_MARGIN = 0.2  # of that mean, by which a more usual scale may be worse


class NothingAnswered(Exception):
    """Neither the first picture nor a small one was answered; the message is what was said."""


@dataclass(frozen=True)
class Fit:
    """The format that fits, and how well."""

    format: BoxFormat
    error_px: float
    """An edge's mean distance, in pixels of the probe pictures."""
    error_share: float
    """How far the median rectangle's worst edge is off, as a share of the side."""
    found_in: list[int]
    """How many of each picture's rectangles are where the format says."""
    asked: int
    """How many rectangles were asked for."""

    @property
    def found(self) -> int:
        return sum(self.found_in)


@dataclass(frozen=True)
class Decision:
    """The format that was found out, and what it rests on."""

    fit: Fit
    pictures: list[ProbedPicture]
    limits: SizeLimits | None = None
    """The sizes for which the format holds; None for all."""
    refused: list[Size] = field(default_factory=list)
    """Sizes that the endpoint doesn't take."""


class Deciding:
    """Finds out one model's box format, by asking about probe pictures.

    `own_sizes` are those of the run's pictures, the commonest first. Long computations run in a
    thread, because the event loop may have other things to do.
    """

    def __init__(
        self,
        ask: AskProbes,
        max_side: int,
        own_sizes: Sequence[Size] = (),
    ) -> None:
        self.ask = ask
        self.max_side = max_side
        self.own_sizes = own_sizes
        # what came back so far: the pictures that were answered, and the sizes that were refused
        self.pictures: list[ProbedPicture] = []
        self.refused: list[Size] = []

    async def decide(self, stated: BoxFormat) -> Decision:
        """Find out what the numbers mean; the first question asks for the format `stated`.

        Raises NoFit where they lie on no lines, and NothingAnswered.
        """
        first, small, *others = [reduced_to(size, self.max_side) for size in SIZES]
        await self._ask_first(first, small, stated)
        suggested = await asyncio.to_thread(_suggested, self.pictures, stated)
        # This asks about `small` only if `_ask_first` didn't.
        await self._ask_for([small, *others], suggested)
        decision = await self._decide_by_parts(suggested)
        if decision is not None:
            return decision
        order = await asyncio.to_thread(order_in, self.pictures)
        if order is None:
            raise NoFit(described(self.pictures, "the numbers lie on no line"))
        try:
            return await self._decide_by_frames(order)
        except NoFit as why:
            raise NoFit(described(self.pictures, str(why))) from None

    async def _ask_first(self, first: Size, small: Size, stated: BoxFormat) -> None:
        """Ask about the first picture or, if its size may be refused, a small one."""
        why_refused = await self._ask_for([first], stated)
        if why_refused:
            await self._ask_for([small], stated)
        if not self.pictures:
            raise NothingAnswered(why_refused)
        if not any(answer.usable for picture in self.pictures for answer in picture.answers):
            raise NoFit(described(self.pictures, "no box that could be read came back"))

    async def _decide_by_parts(self, asked: BoxFormat) -> Decision | None:
        """None where the numbers aren't parts of the side in all pictures."""
        if await self._fit_parts(asked) is None:
            return None
        await self._ask_further(asked)  # adds to `pictures`, and maybe to `refused`
        fit_of_all = await self._fit_parts(asked)
        if fit_of_all is None:
            return None
        if self.refused:
            return await self._parts_in_frames(asked)
        return Decision(fit_of_all, self.pictures)  # for pictures of all sizes

    async def _fit_parts(self, asked: BoxFormat) -> Fit | None:
        return await asyncio.to_thread(fit_parts, self.pictures, asked)

    async def _parts_in_frames(self, asked: BoxFormat) -> Decision | None:
        """Send pictures only in sizes that were answered, where others are refused."""
        # Why a size is refused isn't known: it may be its area, a side or the shape.
        count_before = len(self.pictures)
        pictures_by_frame = await self._answered_frames(asked, layouts=[0])
        # one picture of each frame, because there is one layout
        self.pictures += [picture for [picture] in pictures_by_frame.values()]
        self._leave_out_silent(count_before)
        fit = await self._fit_parts(asked)
        if fit is None:  # the answers in these frames are no parts of the side after all
            return None
        limits = SizeLimits(self.max_side, frames=tuple(pictures_by_frame))
        return Decision(fit, self.pictures, limits, self.refused)

    async def _ask_for(self, sizes: Sequence[Size], asked: BoxFormat) -> str:
        """Ask about each size that is new and may be taken; return why one was refused, or ""."""
        sent = [picture.sent for picture in self.pictures]
        new_sizes = [size for size in sizes if not is_near(size, sent)]
        worth_asking = [size for size in new_sizes if may_be_taken(size, self.refused, sent)]
        why_refused = ""
        for picture in await self.ask([probe_of(size) for size in worth_asking], asked):
            if picture.refused:
                self.refused.append(picture.size)
                why_refused = picture.refused
            else:
                self.pictures.append(picture)
        return why_refused

    async def _ask_further(self, asked: BoxFormat) -> None:
        """Ask in sizes of the run's pictures, or in usual shapes."""
        count_before = len(self.pictures)
        legible_sizes = [
            legible(reduced_to(size, self.max_side), self.max_side) for size in self.own_sizes
        ]
        further = one_of_each_kind(legible_sizes) or USUAL_SHAPES
        # Strips are left out: `padding.py` finds out how to send these.
        await self._ask_for([size for size in further if not is_elongated(size)], asked)
        self._leave_out_silent(count_before)

    def _leave_out_silent(self, count_before: int) -> None:
        """Leave out the pictures after the first `count_before` that were hardly answered."""
        # The first ones stay in any case, because they settle the format itself.
        silent = []
        for picture in self.pictures[count_before:]:
            if sum(answer.usable for answer in picture.answers) < LEAST_ANSWERS:
                silent.append(picture)
        if silent:
            say(
                f"The rectangles in pictures of"
                f" {', '.join(size_text(picture.sent) for picture in silent)} px were not"
                " answered: boxes in such pictures are not known."
            )
        self.pictures = [picture for picture in self.pictures if picture not in silent]

    async def _decide_by_frames(self, order: Order) -> Decision:
        asked = find_box_format(f"{order}_px", model="")
        pictures_by_frame = await self._answered_frames(asked, FIRST_LAYOUTS)
        maps, pictures = await measure_frames(self.ask, asked, pictures_by_frame)
        fit = fit_of(format_in_frames(order, maps), pictures)
        limits = SizeLimits(self.max_side, frames=tuple(pictures_by_frame))
        return Decision(fit, pictures, limits, self.refused)

    async def _answered_frames(
        self, asked: BoxFormat, layouts: Sequence[int]
    ) -> dict[Size, list[ProbedPicture]]:
        """Ask about frames until each is answered, or refused in every area."""
        sent = [picture.sent for picture in self.pictures]
        pictures_by_frame: dict[Size, list[ProbedPicture]] = {}
        missing = self._frames_to_ask(pictures_by_frame, sent)
        while missing:
            answered = await ask_frames(self.ask, asked, missing, layouts)
            pictures_by_frame |= answered
            # The next round has smaller frames in place of the refused ones.
            self.refused += [size for size in missing if size not in answered]
            missing = self._frames_to_ask(pictures_by_frame, sent)
        if not pictures_by_frame:
            raise NoFit("pictures are refused in all sizes that were tried")
        return pictures_by_frame

    def _frames_to_ask(self, answered: Mapping[Size, object], sent: Sequence[Size]) -> list[Size]:
        taken = [*sent, *answered]
        frames = frames_for(self.own_sizes, SizeLimits(self.max_side), self.refused, taken)
        return [size for size in frames if size not in answered]


def is_near(size: Size, known_sizes: Sequence[Size]) -> bool:
    """Whether asking for this size tells nothing new: both sides are nearly a known size's."""
    return any(
        abs(size[0] - width) <= SAME_SIZE * width and abs(size[1] - height) <= SAME_SIZE * height
        for width, height in known_sizes
    )


# Parts of the side


def fit_parts(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> Fit | None:
    """Return the format in parts of the side that fits all pictures, if there is one.

    It is the `asked` one where that means the same boxes.
    """
    box_format = _format_in_parts(pictures, asked, order_in(pictures))
    if box_format is None:
        return None
    fit = fit_of(box_format, pictures)
    if fit.found < MIN_FOUND * fit.asked or fit.error_share > MAX_ERROR:
        return None
    # All together may fit, though one picture was answered in another format.
    for picture, found in zip(pictures, fit.found_in, strict=True):
        if found < LEAST_OF_ONE * picture.asked:
            return None
    return fit


def _format_in_parts(
    pictures: Sequence[ProbedPicture], asked: BoxFormat, order: Order | None
) -> BoxFormat | None:
    """The format in which the lines of all pictures run from 0 to the same number."""
    # If all answers have one family's special tokens, these name the format already.
    families = {answer.family for picture in pictures for answer in picture.answers}
    if len(families) == 1 and None not in families:
        return known_formats()[str(families.pop())]
    lines = _side_lines(pictures, order) if order else None
    if lines is None:
        return None
    scale = _scale_of(lines, asked)
    if scale is None:
        return None
    # The format asked for may be a family's, which says more than order and scale.
    is_as_asked = (asked.order, asked.scale, asked.frame) == (order, scale, "sent")
    if is_as_asked:
        return asked
    return find_box_format(f"{order}_{scale}", model="")


def _scale_of(lines: "Sequence[_SideLine]", asked: BoxFormat) -> int | None:
    """The number at which all lines end; None if they fit no scale."""
    scales = [asked.scale] if isinstance(asked.scale, int) else []
    scales += PARTS
    off_by_scale = {scale: _how_far_off(lines, scale) for scale in scales}
    least = min(off_by_scale.values())
    if least > MOST_MEAN_SQUARE:
        return None
    # Several scales may fit about as well as the best. The first of them counts: the one asked for,
    # else the most usual.
    as_good = [scale for scale, off in off_by_scale.items() if off <= least + USUAL_SCALE_MARGIN]
    return as_good[0]


class _SideLine(NamedTuple):
    """The line of an axis, and the axis' side in pixels as sent."""

    line: Line
    side: int


def _side_lines(pictures: Sequence[ProbedPicture], order: Order) -> list[_SideLine] | None:
    """Two lines for each picture; None if the answers about any picture lie on no lines."""
    side_lines: list[_SideLine] = []
    for picture in pictures:
        axis_lines = lines_of([picture], order)
        if axis_lines is None:
            return None
        side_lines += map(_SideLine, axis_lines, picture.sent)
    return side_lines


def _how_far_off(side_lines: Sequence[_SideLine], scale: float) -> float:
    """How far off the ends of lines of this scale are: the mean square, in standard errors."""
    # A line of this scale has the number 0 at one end of the side, and `scale` at the other.
    squares = []
    for line, side in side_lines:
        # An end may be off by chance, and by what models are off besides: both errors add up.
        standard_error = math.hypot(line.error, SYSTEMATIC)
        off_at_begin = line.start / scale
        off_at_end = line.number_at(side) / scale - 1
        for off in (off_at_begin, off_at_end):
            if abs(off) > ONCE_OFF + CHANCE_ERRORS * line.error:
                return math.inf  # more than models and chance explain
            squares.append((off / standard_error) ** 2)
    return sum(squares) / len(squares)


def order_in(pictures: Sequence[ProbedPicture]) -> Order | None:
    """Return the order that all answers name, else that in which the numbers lie on lines."""
    named = {answer.order for picture in pictures for answer in picture.answers}
    if len(named) == 1 and None not in named:
        return named.pop()
    return order_of(pictures)


def _suggested(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> BoxFormat:
    """The format for the next questions, as the answers so far suggest it."""
    order = order_in(pictures)
    if order is None:
        return stated
    # no scale may fit: numbers are pixels then
    box_format = _format_in_parts(pictures, stated, order)
    return box_format or find_box_format(f"{order}_px", model="")


def fit_of(box_format: BoxFormat, pictures: Sequence[ProbedPicture]) -> Fit:
    """Return how well a format fits; its errors are those of rectangles that were found."""
    found_in: list[int] = []
    edges_off_px: list[float] = []
    worst_shares: list[float] = []
    for picture in pictures:
        width, height = picture.shown
        found = [edges for edges in read_in([picture], box_format).edges_off if max(edges) <= NEAR]
        found_in.append(len(found))
        for edges_off in found:  # how far off x1, y1, x2 and y2 are, in parts of the sides
            edges_off_px += map(operator.mul, edges_off, (width, height, width, height))
            worst_shares.append(max(edges_off))
    error_px = 0.0
    error_share = 1.0  # over MAX_ERROR: without a rectangle found, nothing fits
    if worst_shares:
        error_px = round(statistics.mean(edges_off_px), 2)
        error_share = round(statistics.median(worst_shares), 5)
    asked = sum(picture.asked for picture in pictures)
    return Fit(box_format, error_px, error_share, found_in, asked)


def described(pictures: Sequence[ProbedPicture], why: str) -> str:
    """Return an error's message: why no format can be named, and what came back."""
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
    ask: AskProbes, asked: BoxFormat, frames: Sequence[Size], layouts: Sequence[int]
) -> dict[Size, list[ProbedPicture]]:
    """Return the pictures that weren't refused, by frame; without any, a frame is left out."""
    answered: dict[Size, list[ProbedPicture]] = {}
    probes = [probe_of(size, layout) for size in frames for layout in layouts]
    for picture in await ask(probes, asked):
        if not picture.refused:
            answered.setdefault(picture.size, []).append(picture)
    return answered


async def measure_frames(
    ask: AskProbes, asked: BoxFormat, answered: Mapping[Size, Sequence[ProbedPicture]]
) -> tuple[list[FrameMap], list[ProbedPicture]]:
    """Measure the map of each frame until it is PRECISE, with MOST_PROBES pictures at the most.

    `answered` has those of each frame so far. Returns the maps, and all pictures that they rest on.
    Raises NoFit where the answers in a frame lie on no line.
    """
    pictures_by_frame = {frame: list(pictures) for frame, pictures in answered.items()}
    map_by_frame: dict[Size, FrameMap | None] = {}
    to_measure = list(pictures_by_frame)
    while to_measure:
        vague: list[Size] = []
        for frame in to_measure:
            pictures = pictures_by_frame[frame]
            frame_map = await _measured(pictures, asked.order)
            map_by_frame[frame] = frame_map
            is_vague = frame_map is None or frame_map.error > PRECISE
            if is_vague and len(pictures) < MOST_PROBES:
                vague.append(frame)
        # One more picture of each vague frame. The layouts so far are INNER, INNER + 1, …: the
        # count of a frame's pictures gives the next one.
        probes = [probe_of(frame, INNER + len(pictures_by_frame[frame])) for frame in vague]
        to_measure = vague
        if probes:
            for picture in await ask(probes, asked):
                pictures_by_frame[picture.size].append(picture)
    maps = [frame_map for frame_map in map_by_frame.values() if frame_map is not None]
    return maps, list(chain.from_iterable(pictures_by_frame.values()))


async def _measured(pictures: Sequence[ProbedPicture], order: Order) -> FrameMap | None:
    try:
        return await asyncio.to_thread(fit_map, pictures, order)
    except NoFit:
        if len(pictures) >= MOST_PROBES:
            raise
        return None  # these are so few that one more picture may show a line


async def add_frames(
    ask: AskProbes, box_format: BoxFormat, missing: Sequence[Size]
) -> tuple[BoxFormat, list[ProbedPicture]]:
    """Measure the missing frames; return the format with all maps, and the pictures answered.

    If numbers count pixels, each missing frame gets a map. If they are parts of the side there are
    no maps: the answers only have to be in the format. Raises NoFit where they aren't, or where
    those in a frame lie on no line.
    """
    if box_format.scale != "px":
        return box_format, await _checked_in_parts(ask, box_format, missing)
    asked = find_box_format(f"{box_format.order}_px", model="")
    answered = await ask_frames(ask, asked, missing, FIRST_LAYOUTS)
    maps, pictures = await measure_frames(ask, asked, answered)
    return format_in_frames(box_format.order, [*box_format.maps, *maps]), pictures


async def _checked_in_parts(
    ask: AskProbes, box_format: BoxFormat, missing: Sequence[Size]
) -> list[ProbedPicture]:
    """The pictures that were answered; none if all missing frames are refused."""
    answered = await ask_frames(ask, box_format, missing, layouts=[0])
    pictures = list(chain.from_iterable(answered.values()))
    if pictures:
        fit = fit_parts(pictures, box_format)
        if fit is None or fit.format != box_format:
            raise NoFit(described(pictures, f"the answers are not in {box_format.name}"))
    return pictures

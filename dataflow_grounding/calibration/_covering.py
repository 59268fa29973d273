"""For models that count pixels: the sizes at which a picture proved to be seen as it is sent.

Servers reduce pictures by rules of their own (a longest side, an area, a shortest side, sides in
multiples), which answers about some sizes never settle for all others. So no rule is named. Large
pictures of several shapes show how much the model saw of each; from that follow limits within which
all should arrive untouched; pictures at those limits prove it. A run then sends nothing outside of
them, so that its numbers count pixels of the picture as sent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._roundings import (
    ROUNDINGS,
    Rounding,
    discerning_sizes,
    plausible_roundings,
)
from dataflow_grounding.calibration._seen import (
    ROUNDED_PX,
    SeenSize,
    check_even,
    pooled,
    sent_sizes,
    sizes_in_words,
)
from dataflow_grounding.calibration._taken import Taken, is_near, most_elongated
from dataflow_grounding.calibration.alike_sizes import MOST_OWN, is_covered, uncovered
from dataflow_grounding.calibration.probes import SIZES, NoFit, by, reduced_to
from dataflow_grounding.images.image import SizeLimits

SMALL = math.prod(SIZES[1])
SHAPES = ((3, 4), (1, 1), (16, 9), (9, 16))
ASPECT = 4
MOST_ASPECT = 16
UNTOUCHED = 0.01  # how far a picture's scale may be from 1, beyond the errors of measuring
# the same for several pictures together, beyond one and a half standard errors
UNTOUCHED_MEAN = 0.006
ALIKE = 4  # this many pictures of about the same area are taken together
MARGIN = 0.95  # of a side: pictures are kept this far within a limit that was measured
CERTAIN = 0.02  # a limit needs no margin where the picture can't have been reduced by more
SLACK = 0.97  # of the least area, for sides in whole pixels
STEP = 1.7  # between the areas of two neighbours among the pictures that are asked for
MIDDLE = ((4, 3), (2, 3), (16, 9), (9, 16), (1, 1), (3, 2))  # shapes of pictures in between
ROUNDS = 7
MOST_MULTIPLE = 64  # sides in larger multiples would distort pictures


class Covering:
    """Decides, round by round, which sizes to ask for, until it can say what is covered.

    Sizes are (width, height) in pixels. Pictures up to `aspect` times as long as wide are asked
    for, and the run's longest, up to 16.

    Args:
        max_side: The longest side ever sent.
        taken: What the endpoint takes.
        own: Sizes of the run's pictures, the commonest first.
        most_own: How many of them are asked for at the most.
        aspect: See above.
    """

    def __init__(
        self,
        max_side: int,
        taken: Taken,
        own: Sequence[Size] = (),
        most_own: int = MOST_OWN,
        aspect: int = ASPECT,
    ) -> None:
        self.max_side = max_side
        self.taken = taken
        self.shapes = list(dict.fromkeys([*SHAPES, (aspect, 1), *_extreme(own, aspect)]))
        self.own = [reduced_to(size, max_side) for size in own]
        self.most_own = most_own
        self.least = SMALL
        self.rounds = 0

    @property
    def shaped(self) -> SizeLimits:
        """The limits that the shapes which are asked for set to others."""
        wide = max(shape[0] / shape[1] for shape in self.shapes)
        tall = max(shape[1] / shape[0] for shape in self.shapes)
        return SizeLimits(self.max_side, max_wide=wide, max_tall=tall).within(self.taken.limits)

    def next_sizes(self, measured: Sequence[SeenSize]) -> list[Size]:
        """The sizes to ask for next; none when `covered` can tell.

        Raises NoFit when asking on is useless.
        """
        check_even(measured)
        self.rounds += 1
        if self.rounds == 1:
            asked = sent_sizes(measured)
            largest = map(self.largest, self.shapes)
            return [size for size in largest if not is_near(size, asked)]
        limits = self.limits(measured)
        self._check_possible(limits, measured)
        inside = [picture for picture in measured if limits.allows(picture.sent)]
        wanted = self.unproven(inside, limits) or self.between(inside, limits)
        roundings = plausible_roundings(inside)
        if not roundings and self.rounds > 2:  # the smallest may have been enlarged a little
            self.least = round(self.least * 1.5)
        if self.rounds == 2 or len(roundings) != 1:
            least = self.limits(measured).min_pixels
            wanted += discerning_sizes(least, tuple(roundings or ROUNDINGS), self.rounds)
        elif not wanted:
            wanted = self.untried(inside, limits, roundings[0].factor)
        return wanted if self.rounds <= ROUNDS else []

    def _check_possible(self, limits: SizeLimits, measured: Sequence[SeenSize]) -> None:
        """Raises NoFit if the least area is more than the other limits leave of a shape."""
        for shape in self.shapes:
            if math.prod(limits.fitted(self.largest(shape))) < SLACK * limits.min_pixels:
                raise _no_sizes(measured)

    def largest(self, shape: tuple[int, int]) -> Size:
        """The largest size of this shape that may be sent and is taken."""
        scale = self.max_side / max(shape)
        return self.taken.fitted((max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))))

    def unproven(self, inside: Sequence[SeenSize], limits: SizeLimits) -> list[Size]:
        """The sizes at the limits, and the run's own, that were not asked for.

        `inside` were measured within the limits.
        """
        sent = sent_sizes(inside)
        edges: list[Size] = []
        for size in [*map(self.largest, self.shapes), *self.smallest(limits)]:
            fitted = limits.fitted(limits.padded(size))
            if fitted not in edges and not is_near(fitted, sent):
                edges.append(fitted)
        own = [limits.fitted(limits.padded(size)) for size in self.own]
        wanted = list(edges)
        for size in uncovered(own, (), is_covered, self.most_own):
            if not is_covered(size, [*sent, *edges]):
                wanted.append(size)
        return wanted

    def smallest(self, limits: SizeLimits) -> list[Size]:
        """The widest, the tallest and a square of the smallest pictures.

        Rules for the shorter side enlarge the first two, rules for the longer one the third.
        """
        by_shape = sorted(self.shapes, key=lambda shape: shape[0] / shape[1])
        shapes = (by_shape[0], by_shape[-1], (1, 1))
        return [_of_area(1.02 * limits.min_pixels, shape) for shape in shapes]

    def between(self, inside: Sequence[SeenSize], limits: SizeLimits) -> list[Size]:
        """Pictures between those asked for: servers may treat the middle-sized in another way."""
        areas = sorted(set(map(math.prod, sent_sizes(inside))))
        wanted: list[Size] = []
        for low, high in itertools.pairwise(areas):
            steps = math.ceil(math.log(high / low) / math.log(STEP))
            for step in range(1, steps):
                area = low * (high / low) ** (step / steps)
                size = _of_area(area, MIDDLE[len(wanted) % len(MIDDLE)])
                wanted.append(limits.fitted(limits.padded(size)))
        return wanted

    def untried(self, inside: Sequence[SeenSize], limits: SizeLimits, multiple: int) -> list[Size]:
        """A size in such multiples, as runs send them, where none was asked for.

        Others may look rounded by chance.
        """
        if multiple == 1:
            return []
        for picture in inside:
            if picture.sent[0] % multiple == 0 and picture.sent[1] % multiple == 0:
                return []
        return [replace(limits, multiple=multiple).fitted(self.largest(SHAPES[0]))]

    def covered(self, measured: Sequence[SeenSize], frame: str) -> tuple[SizeLimits, str]:
        """The limits within which pictures are seen as sent, and in which frame.

        Only where nothing was padded, in `frame` "sent", sides are left to be rounded. Raises
        NoFit, with what was seen.
        """
        check_even(measured)
        limits = self.limits(measured)
        self._check_possible(limits, measured)
        inside = [picture for picture in measured if limits.allows(picture.sent)]
        limits = limits.within(self.shaped)
        roundings = plausible_roundings(inside) if inside else []
        multiple = math.lcm(*[rounding.factor for rounding in roundings])
        unproven = self.unproven(inside, limits) or self.between(inside, limits)
        if len(roundings) == 1:
            unproven += self.untried(inside, limits, multiple)
        if not roundings or multiple > MOST_MULTIPLE or unproven:
            raise _no_sizes(measured)
        _check_untouched(inside, roundings[0], measured)
        rounded = roundings[0].frame
        if len(roundings) > 1 or rounded is None or frame != "sent":
            return replace(limits, multiple=multiple), frame
        return limits, rounded

    def limits(self, measured: Sequence[SeenSize]) -> SizeLimits:
        """The widest limits within which all should be seen as sent, and was taken."""
        least: float = self.least
        large = []
        for picture in measured:
            if picture.reduced - 1 > _doubt(picture):  # enlarged
                least = max(least, math.prod(picture.size))
            else:
                large.append(picture)
        min_pixels = math.ceil(least / MARGIN**2)
        if all(_is_surely_whole(picture) for picture in large):
            limits = SizeLimits(self.max_side, min_pixels=min_pixels)
            return limits.within(self.taken.limits)
        reduced = [_reduced_by(picture, self.max_side) for picture in large]
        safe = _safe_limits(sent_sizes(large), reduced)
        limits = SizeLimits(
            max_side=min(self.max_side, int(safe.long * MARGIN)),
            max_pixels=_whole_or_none(safe.area * MARGIN**2),
            max_short_side=_whole_or_none(safe.short * MARGIN),
            min_pixels=min_pixels,
        )
        return limits.within(self.taken.limits)


def _no_sizes(measured: Sequence[SeenSize]) -> NoFit:
    why = "there are no sizes at which pictures are surely seen as they are sent"
    return NoFit(f"{why} ({sizes_in_words(measured)})")


def _check_untouched(
    inside: Sequence[SeenSize], rounding: Rounding, measured: Sequence[SeenSize]
) -> None:
    """Raises NoFit unless rounding explains each picture, and pictures of each area together."""
    for picture in inside:
        if not picture.is_as_expected(rounding.expected(picture.sent), UNTOUCHED):
            raise NoFit(
                f"pictures of {by(picture.sent)} px are not seen as they are sent"
                f" ({sizes_in_words(measured)})"
            )
    by_area = sorted(inside, key=lambda picture: math.prod(picture.sent), reverse=True)
    for start in range(0, len(by_area), ALIKE):
        mean = pooled(by_area[start : start + ALIKE], rounding.expected)
        if not mean.is_within(UNTOUCHED_MEAN, 1.5):
            raise NoFit(
                f"how large a picture is seen depends on its size ({sizes_in_words(measured)})"
            )


def _reduced_by(picture: SeenSize, largest: int) -> float:
    """Return the factor that a picture's sides are reduced by.

    It is 1 where rounding alone can explain the sides.
    """
    # One of the largest side is taken at its word: rounding means little to it, and a limit just
    # below it could hide.
    scale = min(picture.reduced, 1 / picture.reduced)
    doubt = 0.0 if max(picture.sent) == largest else _doubt(picture)
    return scale if 1 - scale > doubt else 1.0


def _is_surely_whole(picture: SeenSize) -> bool:
    """Whether a picture can't have been reduced by more than what needs no margin."""
    return abs(1 - picture.reduced) + 3 * picture.reduced_error <= CERTAIN


def _doubt(picture: SeenSize) -> float:
    """Return how much a picture may look reduced or enlarged where sides are only rounded."""
    return CERTAIN / 2 + 3 * picture.reduced_error + ROUNDED_PX / min(picture.sent)


def _of_area(area: float, shape: tuple[int, int]) -> Size:
    side = math.sqrt(area / math.prod(shape))
    return round(shape[0] * side), round(shape[1] * side)


def _whole_or_none(limit: float) -> int | None:
    """A limit in whole pixels; None where there is none."""
    return int(limit) if limit < math.inf else None


@dataclass(frozen=True)
class SafeLimits:
    """A longest side, an area and a shorter side, in pixels; infinite where there is no limit."""

    long: float
    area: float
    short: float


def _safe_limits(sizes: Sequence[Size], scales: Sequence[float]) -> SafeLimits:
    """The limits that keep what was seen of each picture and leave the most of them.

    `scales` is by what each of the sizes was reduced. Every combination of limits that some of the
    pictures suggest is tried.
    """
    sent = np.array(sizes, float)
    reduced = np.array(scales)
    seen = sent * reduced[:, None]
    longs = np.unique(seen.max(1))
    areas = np.append(np.unique(seen.prod(1)), math.inf)
    shorts = np.append(np.unique(seen.min(1)), math.inf)
    # By what each picture is reduced under an area and a shorter side: [area, short, picture].
    by_area = np.sqrt(areas[:, None] / sent.prod(1))
    by_short = shorts[:, None] / sent.min(1)
    by_both = np.minimum(by_area[:, None], np.minimum(by_short, 1.0))
    best = SafeLimits(0.0, 0.0, 0.0)
    most_left = -math.inf
    for long in longs:
        left = np.minimum(by_both, long / sent.max(1))
        keeps = (left <= 1.02 * reduced).all(-1)
        total = np.where(keeps, np.log(left).sum(-1), -math.inf).ravel()
        # Of equal ones the last: the widest limits.
        area, short = divmod(int(np.flatnonzero(total == total.max())[-1]), len(shorts))
        if float(total.max()) >= most_left:
            most_left = float(total.max())
            best = SafeLimits(float(long), float(areas[area]), float(shorts[short]))
    return best


def _extreme(own: Sequence[Size], aspect: int) -> list[tuple[int, int]]:
    """The shapes of the run's widest and tallest pictures, where these are out of the ordinary.

    That is wider than `aspect` by 1, or taller than 9:16.
    """
    widest, tallest = most_elongated(own)
    wide = max(widest) / min(widest)
    tall = max(tallest) / min(tallest)
    shapes = []
    if wide > aspect:
        shapes.append((min(math.ceil(wide), MOST_ASPECT), 1))
    if tall > 1.8:
        shapes.append((1, min(max(math.ceil(tall), aspect), MOST_ASPECT)))
    return shapes

"""For models that count pixels: the sizes at which a picture proved to be seen as it is sent, and
what to ask next.

Servers reduce pictures by rules of their own (a longest side, an area, a shortest side, sides in
multiples), which answers about some sizes never settle for all others. So no rule is named. Large
pictures of several shapes show how much the model saw of each; from that follow limits within which
all should arrive untouched; pictures at those limits prove it. A run then sends nothing outside of
them, so that its numbers count pixels of the picture as sent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._roundings import (
    ROUNDINGS,
    Rounding,
    discerning_sizes,
    plausible_roundings,
)
from dataflow_grounding.calibration._seen import ROUNDED_PX, SeenSize, check_even, pooled, shown
from dataflow_grounding.calibration._taken import Taken, is_near, most_elongated
from dataflow_grounding.calibration.alike_sizes import MOST_OWN, is_covered, uncovered
from dataflow_grounding.calibration.probes import SIZES, NoFit, by, reduced_to
from dataflow_grounding.images.image import SizeLimits

SMALL = SIZES[1][0] * SIZES[1][1]
SHAPES = ((3, 4), (1, 1), (16, 9), (9, 16))
ASPECT = 4
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

    `own` are sizes of the run's pictures, the commonest first, of which up to `most_own` are asked
    for, `max_side` the longest side ever sent, `taken` what the endpoint takes. Sizes are (width,
    height) in pixels. Pictures up to `aspect` times as long as wide are asked for, and the run's
    longest, up to 16.
    """

    def __init__(
        self,
        max_side: int,
        taken: Taken,
        own: Sequence[Size] = (),
        most_own: int = MOST_OWN,
        aspect: int = ASPECT,
    ) -> None:
        self.max_side, self.taken = max_side, taken
        self.shapes = list(dict.fromkeys([*SHAPES, (aspect, 1), *_extreme(own, aspect)]))
        self.own = [reduced_to(size, max_side) for size in own]
        self.most_own = most_own
        self.least = SMALL
        self.rounds = 0

    @property
    def shaped(self) -> SizeLimits:
        """The limits that the shapes which are asked for set to others."""
        wide, tall = (
            max(shape[axis] / shape[1 - axis] for shape in self.shapes) for axis in (0, 1)
        )
        return SizeLimits(self.max_side, max_wide=wide, max_tall=tall).within(self.taken.limits)

    def next_sizes(self, measured: Sequence[SeenSize]) -> list[Size]:
        """The sizes to ask for next; none when `covered` can tell. Raises NoFit when asking on is
        useless.
        """
        check_even(measured)
        self.rounds += 1
        if self.rounds == 1:
            return [
                one
                for one in map(self.largest, self.shapes)
                if not is_near(one, [seen.sent for seen in measured])
            ]
        limits = self.limits(measured)
        self._check_possible(limits, measured)
        inside = [one for one in measured if limits.allows(one.sent)]
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
        if any(
            math.prod(limits.fitted(self.largest(shape))) < SLACK * limits.min_pixels
            for shape in self.shapes
        ):
            raise NoFit(
                "there are no sizes at which pictures are surely seen as they are sent"
                f" ({shown(measured)})"
            )

    def largest(self, shape: tuple[int, int]) -> Size:
        """The largest size of this shape that may be sent and is taken."""
        scale = self.max_side / max(shape)
        return self.taken.fitted((max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))))

    def unproven(self, inside: Sequence[SeenSize], limits: SizeLimits) -> list[Size]:
        """The sizes at the limits, and the run's own, that were not asked for; `inside` were
        measured within them.
        """
        fitted = [
            limits.fitted(limits.padded(size))
            for size in [*map(self.largest, self.shapes), *self.smallest(limits)]
        ]
        sent = [one.sent for one in inside]
        edges = [size for size in dict.fromkeys(fitted) if not is_near(size, sent)]
        own = uncovered(
            [limits.fitted(limits.padded(size)) for size in self.own], (), is_covered, self.most_own
        )
        return [*edges, *(size for size in own if not is_covered(size, [*sent, *edges]))]

    def smallest(self, limits: SizeLimits) -> list[Size]:
        """The widest, the tallest and a square of the smallest pictures: rules for the shorter side
        enlarge the first two, rules for the longer one the third.
        """
        shapes = sorted(self.shapes, key=lambda shape: shape[0] / shape[1])
        return [
            _of_area(1.02 * limits.min_pixels, shape) for shape in (shapes[0], shapes[-1], (1, 1))
        ]

    def between(self, inside: Sequence[SeenSize], limits: SizeLimits) -> list[Size]:
        """Pictures between those asked for: a server may treat the middle-sized in a way of their
        own.
        """
        areas = sorted({math.prod(one.sent) for one in inside})
        wanted: list[Size] = []
        for low, high in itertools.pairwise(areas):
            steps = math.ceil(math.log(high / low) / math.log(STEP))
            for step in range(1, steps):
                area = low * (high / low) ** (step / steps)
                wanted.append(
                    limits.fitted(limits.padded(_of_area(area, MIDDLE[len(wanted) % len(MIDDLE)])))
                )
        return wanted

    def untried(self, inside: Sequence[SeenSize], limits: SizeLimits, multiple: int) -> list[Size]:
        """A size in such multiples, as runs send them, where none was asked for: others may look
        rounded by chance.
        """
        if multiple == 1 or any(
            one.sent[0] % multiple == one.sent[1] % multiple == 0 for one in inside
        ):
            return []
        return [replace(limits, multiple=multiple).fitted(self.largest(SHAPES[0]))]

    def covered(self, measured: Sequence[SeenSize], frame: str) -> tuple[SizeLimits, str]:
        """The limits within which pictures are seen as sent, and in which frame; only where nothing
        was padded, in `frame` "sent", sides are left to be rounded. Raises NoFit, with what was
        seen.
        """
        check_even(measured)
        limits = self.limits(measured)
        self._check_possible(limits, measured)
        inside = [one for one in measured if limits.allows(one.sent)]
        limits = limits.within(self.shaped)
        roundings = plausible_roundings(inside) if inside else []
        multiple = math.lcm(*(rounding.factor for rounding in roundings)) if roundings else 0
        unproven = self.unproven(inside, limits) or self.between(inside, limits)
        if len(roundings) == 1:
            unproven += self.untried(inside, limits, multiple)
        if not 1 <= multiple <= MOST_MULTIPLE or unproven:
            raise NoFit(
                "there are no sizes at which pictures are surely seen as they are sent"
                f" ({shown(measured)})"
            )
        _check_untouched(inside, roundings[0], measured)
        rounded = roundings[0].frame
        if len(roundings) > 1 or rounded is None or frame != "sent":
            return replace(limits, multiple=multiple), frame
        return limits, rounded

    def limits(self, measured: Sequence[SeenSize]) -> SizeLimits:
        """The widest limits within which every picture measured so far should be seen as sent, and
        was taken.
        """
        enlarged = [one for one in measured if one.reduced - 1 > _doubt(one)]
        least = math.ceil(max([self.least, *(math.prod(one.size) for one in enlarged)]) / MARGIN**2)
        large = [one for one in measured if one not in enlarged]
        if all(abs(1 - one.reduced) + 3 * one.reduced_error <= CERTAIN for one in large):
            return SizeLimits(max_side=self.max_side, min_pixels=least).within(self.taken.limits)
        long, area, short = _safe_limits(
            [(one.sent, _limit_of(one, self.max_side)) for one in large]
        )
        return SizeLimits(
            max_side=min(self.max_side, int(long * MARGIN)),
            max_pixels=int(area * MARGIN**2) if area < math.inf else None,
            max_short_side=int(short * MARGIN) if short < math.inf else None,
            min_pixels=least,
        ).within(self.taken.limits)


def _check_untouched(
    inside: Sequence[SeenSize], rounding: Rounding, measured: Sequence[SeenSize]
) -> None:
    for one in inside:
        if not one.is_as_expected(rounding.expected(one.sent), UNTOUCHED):
            raise NoFit(
                f"pictures of {by(one.sent)} px are not seen as they are sent ({shown(measured)})"
            )
    by_area = sorted(inside, key=lambda one: math.prod(one.sent), reverse=True)
    groups = [by_area[place : place + ALIKE] for place in range(0, len(by_area), ALIKE)]
    means = [pooled(group, rounding.expected) for group in groups]
    if any(abs(mean) > UNTOUCHED_MEAN + 1.5 * error for mean, error in means):
        raise NoFit(f"how large a picture is seen depends on its size ({shown(measured)})")


def _limit_of(one: SeenSize, largest: int) -> float:
    """By what a picture's sides are reduced; 1 where rounding alone can explain it."""
    # One of the largest side is taken at its word: rounding means little to it, and a limit just
    # below it could hide.
    scale = min(one.reduced, 1 / one.reduced)
    doubt = 0.0 if max(one.sent) == largest else _doubt(one)
    return scale if 1 - scale > doubt else 1.0


def _doubt(one: SeenSize) -> float:
    """By how much a picture may look reduced or enlarged where sides are only rounded."""
    return CERTAIN / 2 + 3 * one.reduced_error + ROUNDED_PX / min(one.sent)


def _of_area(area: float, shape: tuple[int, int]) -> Size:
    side = math.sqrt(area / math.prod(shape))
    return round(shape[0] * side), round(shape[1] * side)


def _safe_limits(large: Sequence[tuple[Size, float]]) -> tuple[float, float, float]:
    """The limits (long side, area, short side) that keep what was seen of each picture and leave
    the most of them.
    """
    sent, scales = (
        np.array([size for size, _ in large], float),
        np.array([scale for _, scale in large]),
    )
    seen = sent * scales[:, None]
    longs = np.unique(seen.max(1))
    areas, shorts = (np.append(np.unique(sides), math.inf) for sides in (seen.prod(1), seen.min(1)))
    by_area, by_short = np.sqrt(areas[:, None] / sent.prod(1)), shorts[:, None] / sent.min(1)
    # for each area and short side, each picture's
    others = np.minimum(by_area[:, None], np.minimum(by_short, 1.0))
    most = (-math.inf, (0.0, 0.0, 0.0))
    for long in longs:
        left = np.minimum(others, long / sent.max(1))
        total = np.where((left <= 1.02 * scales).all(-1), np.log(left).sum(-1), -math.inf).ravel()
        area, short = divmod(int(np.flatnonzero(total == total.max())[-1]), len(shorts))
        most = max(
            most, (float(total.max()), (float(long), float(areas[area]), float(shorts[short])))
        )
    return most[1]


def _extreme(own: Sequence[Size], aspect: int) -> list[tuple[int, int]]:
    """The widest of the run's shapes, where it is wider than `aspect` by 1, and the tallest, where
    taller than 9:16.
    """
    wide, tall = (max(size) / min(size) for size in most_elongated(own))
    shapes = [(min(math.ceil(wide), 16), 1)] if wide > aspect else []
    return [*shapes, (1, min(max(math.ceil(tall), aspect), 16))] if tall > 1.8 else shapes

"""For models that count pixels: the limits of size within which a picture is seen as it is sent.

Servers reduce pictures by rules of their own (a longest side, an area, a shortest side, sides in
multiples). Answers about some sizes never settle what a rule does to all others, so no rule is
named. Instead, limits are found within which nothing is done to a picture:

1. Large pictures of several shapes are asked for, and it is measured how large each was seen.
2. Limits on sides and area follow, within which all pictures should arrive untouched.
3. Pictures at those limits, between them, and in the run's own sizes have to prove it.

A run then sends nothing outside of the limits, so that its numbers count pixels as sent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._accepted_sizes import AcceptedSizes, is_near, most_elongated
from dataflow_grounding.calibration._roundings import (
    ROUNDINGS,
    Rounding,
    discerning_sizes,
    plausible_roundings,
)
from dataflow_grounding.calibration._seen_size import (
    CHANCE,
    ROUNDED_PX,
    SeenSize,
    check_x_and_y_agree,
    mean_scale_gap,
    sent_sizes,
    sizes_in_words,
)
from dataflow_grounding.calibration.alike_sizes import MOST_OWN, is_covered, uncovered
from dataflow_grounding.calibration.probes import SIZES, NoFit, reduced_to, size_text
from dataflow_grounding.images.image import SizeLimits

SMALL = math.prod(SIZES[1])  # square pixels: the least area that is asked for at first
SHAPES = ((3, 4), (1, 1), (16, 9), (9, 16))  # width : height of the large pictures
ASPECT = 4  # the longest picture that is always asked for is this many times as wide as high
ORDINARY_TALL = 1.8  # up to so many times as high as wide, as 9:16 is, the run's own add no shape
MOST_ASPECT = 16  # no picture that is asked for is more elongated
UNTOUCHED = 0.01  # how far a picture's scale may be from 1, beyond the errors of measuring
UNTOUCHED_MEAN = 0.006  # the same for the mean of several pictures, ...
MEAN_ERRORS = 1.5  # ... beyond so many standard errors
ALIKE = 4  # this many pictures of about the same area are taken together
MARGIN = 0.95  # pictures are kept at this share of the longest side that was measured
CERTAIN = 0.02  # a limit needs no margin where the picture can't have been reduced by more
# A factor that is larger than the server's by no more than this counts as the same: it is measured.
MEASURED_SCALE = 1.02
ABOVE_LEAST = 1.02  # times the least area: whole pixels shall not bring a picture below it
SLACK = 0.97  # share of the least area that is enough, as sides are whole pixels
LEAST_GROWS = 1.5  # times: the least area, where small pictures may have been enlarged a little
STEP = 1.7  # the most that the area may grow from one picture asked for to the next larger one
MIDDLE = ((4, 3), (2, 3), (16, 9), (9, 16), (1, 1), (3, 2))  # shapes of pictures in between
ROUNDS = 7  # rounds of asking after which no more is asked for
MOST_MULTIPLE = 64  # sides in larger multiples would distort pictures


class UntouchedSizes:
    """Decides, round by round, which sizes to ask for, until limits of untouched sizes are proved.

    Sizes are (width, height) in pixels. Call `next_sizes` with all that was measured so far, ask
    for what it returns, and again; when it returns none, `proven_limits` gives the result.

    Args:
        max_side: The longest side ever sent.
        accepted: The sizes that the endpoint accepts.
        own: Sizes of the run's pictures, the commonest first.
        most_own: How many of them are asked for at the most.
        aspect: How many times as wide as high the widest picture is that is always asked for; the
            run's own widest and tallest are asked for beside it, up to MOST_ASPECT.
    """

    def __init__(
        self,
        max_side: int,
        accepted: AcceptedSizes,
        own: Sequence[Size] = (),
        most_own: int = MOST_OWN,
        aspect: int = ASPECT,
    ) -> None:
        self.max_side = max_side
        self.accepted = accepted
        self.shapes = list(dict.fromkeys([*SHAPES, (aspect, 1), *_extreme_shapes(own, aspect)]))
        self.own = [reduced_to(size, max_side) for size in own]
        self.most_own = most_own
        self.least = SMALL  # the area in square pixels below which nothing is asked for
        self.rounds = 0

    @property
    def shape_limits(self) -> SizeLimits:
        """The accepted sizes, without shapes wider or taller than those that are asked for."""
        wide = max(shape[0] / shape[1] for shape in self.shapes)
        tall = max(shape[1] / shape[0] for shape in self.shapes)
        return SizeLimits(self.max_side, max_wide=wide, max_tall=tall).within(self.accepted.limits)

    def next_sizes(self, measured: Sequence[SeenSize]) -> list[Size]:
        """Begin a round: return the sizes to ask for next.

        There are none when `proven_limits` can tell, and after ROUNDS rounds. The first round has
        the largest picture of each shape, the further ones what has to be proved.

        Args:
            measured: All pictures so far.

        Raises:
            NoFit: Asking on is useless.
        """
        check_x_and_y_agree(measured)
        self.rounds += 1
        if self.rounds == 1:
            asked = sent_sizes(measured)
            largest = map(self.largest_of_shape, self.shapes)
            return [size for size in largest if not is_near(size, asked)]
        wanted = self._sizes_to_prove(measured)
        return wanted if self.rounds <= ROUNDS else []

    def _sizes_to_prove(self, measured: Sequence[SeenSize]) -> list[Size]:
        """Return the sizes that have to prove the limits, and to tell plausible roundings apart.

        `least` grows where no rounding explains the pictures. Raises NoFit.
        """
        limits = self.estimated_limits(measured)
        self._check_shapes_fit(limits, measured)
        inside = [picture for picture in measured if limits.allows(picture.sent)]
        wanted = self.unproven_sizes(inside, limits) or self.sizes_between(inside, limits)
        roundings = plausible_roundings(inside)
        if not roundings and self.rounds > 2:
            # No rounding explains the pictures: the smallest may have been enlarged a little.
            self.least = round(self.least * LEAST_GROWS)
        if self.rounds == 2 or len(roundings) != 1:
            # The limits are estimated anew, as `least` may have grown.
            min_pixels = self.estimated_limits(measured).min_pixels
            wanted += discerning_sizes(min_pixels, tuple(roundings or ROUNDINGS), self.rounds)
        elif not wanted:
            wanted = self.size_in_multiples(inside, limits, roundings[0].factor)
        return wanted

    def _check_shapes_fit(self, limits: SizeLimits, measured: Sequence[SeenSize]) -> None:
        """Raise NoFit if pictures of some shape can't be both small and large enough.

        That is so where the largest picture of the shape that the limits let through has less area
        than they ask for; SLACK allows for sides in whole pixels. `measured` is for the message.
        """
        for shape in self.shapes:
            largest = limits.fitted(self.largest_of_shape(shape))
            if math.prod(largest) < SLACK * limits.min_pixels:
                raise _no_sizes(measured)

    def largest_of_shape(self, shape: tuple[int, int]) -> Size:
        """Return the largest size of a shape, width : height, that may be sent and is accepted."""
        scale = self.max_side / max(shape)
        width = max(1, round(shape[0] * scale))
        height = max(1, round(shape[1] * scale))
        return self.accepted.limits.sent((width, height))

    def unproven_sizes(self, inside: Sequence[SeenSize], limits: SizeLimits) -> list[Size]:
        """Return the sizes at the limits, and a few of the run's own, that are still to be proved.

        Sizes at the limits are proved by a picture of nearly the same size (`is_near`), the run's
        own by one that covers them (`is_covered`).

        Args:
            inside: The pictures that were measured within the limits.
            limits: The limits.
        """
        sent = sent_sizes(inside)
        at_limits: list[Size] = []
        for size in [*map(self.largest_of_shape, self.shapes), *self.smallest_sizes(limits)]:
            fitted = limits.sent(size)
            if fitted not in at_limits and not is_near(fitted, sent):
                at_limits.append(fitted)
        own = [limits.sent(size) for size in self.own]
        wanted = list(at_limits)
        for size in uncovered(own, (), is_covered, self.most_own):
            if not is_covered(size, [*sent, *at_limits]):
                wanted.append(size)
        return wanted

    def smallest_sizes(self, limits: SizeLimits) -> list[Size]:
        """Return the sizes of a tallest, a widest and a square picture of about the least area.

        A server's rule for the shorter side would enlarge the first two, one for the longer side
        the third.
        """
        by_shape = sorted(self.shapes, key=lambda shape: shape[0] / shape[1])
        shapes = (by_shape[0], by_shape[-1], (1, 1))
        return [_of_area(ABOVE_LEAST * limits.min_pixels, shape) for shape in shapes]

    def sizes_between(self, inside: Sequence[SeenSize], limits: SizeLimits) -> list[Size]:
        """Return sizes that fill gaps between the areas of pictures `inside` the limits.

        Servers may treat pictures of middle size in a way of their own. So the area may grow by no
        more than STEP from one picture to the next larger one. Shapes are those of MIDDLE in turn.
        """
        areas = sorted(set(map(math.prod, sent_sizes(inside))))
        wanted: list[Size] = []
        for low, high in itertools.pairwise(areas):
            steps = math.ceil(math.log(high / low) / math.log(STEP))
            for step in range(1, steps):
                area = low * (high / low) ** (step / steps)
                shape = MIDDLE[len(wanted) % len(MIDDLE)]
                wanted.append(limits.sent(_of_area(area, shape)))
        return wanted

    def size_in_multiples(
        self, inside: Sequence[SeenSize], limits: SizeLimits, multiple: int
    ) -> list[Size]:
        """Return a large size with sides in multiples of `multiple`, in a list; [] if not needed.

        It isn't where `multiple` is 1, or where a picture `inside` the limits has such sides. Runs
        send pictures with sides in these multiples, so one has to show that they arrive untouched:
        that pictures with other sides seem to be rounded to them may be chance.
        """
        if multiple == 1:
            return []
        for picture in inside:
            if picture.sent[0] % multiple == 0 and picture.sent[1] % multiple == 0:
                return []
        largest = self.largest_of_shape(SHAPES[0])
        return [replace(limits, multiple=multiple).fitted(largest)]

    def proven_limits(self, measured: Sequence[SeenSize], frame: str) -> tuple[SizeLimits, str]:
        """Return the limits within which pictures are seen as sent, and the frame to read them in.

        Where one rounding of sides is proved, and a frame has it, that is the frame. Otherwise
        `frame` stays, and the limits have pictures sent in a common multiple of the plausible
        roundings, which none of them changes. So they do where `frame` isn't "sent": the frames
        with padding don't round.

        Args:
            measured: All pictures that were measured.
            frame: The frame in which they were measured.

        Raises:
            NoFit: Something isn't proved; the message has the sizes that were seen.
        """
        check_x_and_y_agree(measured)
        limits = self.estimated_limits(measured)
        self._check_shapes_fit(limits, measured)
        inside = [picture for picture in measured if limits.allows(picture.sent)]
        limits = limits.within(self.shape_limits)
        roundings = plausible_roundings(inside) if inside else []
        multiple = math.lcm(*[rounding.factor for rounding in roundings])
        unproven = self.unproven_sizes(inside, limits) or self.sizes_between(inside, limits)
        if len(roundings) == 1:
            unproven += self.size_in_multiples(inside, limits, multiple)
        if not roundings or multiple > MOST_MULTIPLE or unproven:
            raise _no_sizes(measured)
        _check_untouched(inside, roundings[0], measured)
        rounded_frame = roundings[0].frame
        if len(roundings) > 1 or rounded_frame is None or frame != "sent":
            return replace(limits, multiple=multiple), frame
        return limits, rounded_frame

    def estimated_limits(self, measured: Sequence[SeenSize]) -> SizeLimits:
        """Return the widest limits within which all pictures should be seen as they are sent.

        They are an estimate, which pictures at these limits still have to prove. The least area
        follows from the pictures that were seen enlarged, the other limits from those that were
        seen reduced. All stay within what the endpoint accepts.
        """
        least: float = self.least
        not_enlarged = []
        for picture in measured:
            if picture.mean_scale - 1 > _doubt(picture):
                # The server enlarges pictures of less area than the model saw here.
                least = max(least, math.prod(picture.seen))
            else:
                not_enlarged.append(picture)
        min_pixels = math.ceil(least / MARGIN**2)  # MARGIN is of a side: of the area, its square
        if all(_is_surely_whole(picture) for picture in not_enlarged):
            limits = SizeLimits(self.max_side, min_pixels=min_pixels)
            return limits.within(self.accepted.limits)
        factors = [_reduced_by(picture, self.max_side) for picture in not_enlarged]
        safe = _safe_limits(sent_sizes(not_enlarged), factors)
        limits = SizeLimits(
            max_side=min(self.max_side, int(safe.longer_side * MARGIN)),
            max_pixels=_whole_or_none(safe.area * MARGIN**2),
            max_short_side=_whole_or_none(safe.shorter_side * MARGIN),
            min_pixels=min_pixels,
        )
        return limits.within(self.accepted.limits)


def _no_sizes(measured: Sequence[SeenSize]) -> NoFit:
    """Return the error that says that no limits could be proved, with the sizes as seen."""
    why = "there are no sizes at which pictures are surely seen as they are sent"
    return NoFit(f"{why} ({sizes_in_words(measured)})")


def _check_untouched(
    inside: Sequence[SeenSize], rounding: Rounding, measured: Sequence[SeenSize]
) -> None:
    """Raise NoFit unless one rounding explains how large the pictures `inside` limits were seen.

    It has to explain each picture, which has to begin at 0, and more exactly the mean of each ALIKE
    pictures of about the same area. `measured` are all pictures, for the message.
    """
    for picture in inside:
        if not picture.is_unshifted_at(rounding.expected(picture.sent).scale, UNTOUCHED):
            raise NoFit(
                f"pictures of {size_text(picture.sent)} px are not seen as they are sent"
                f" ({sizes_in_words(measured)})"
            )
    by_area = sorted(inside, key=lambda picture: math.prod(picture.sent), reverse=True)
    for start in range(0, len(by_area), ALIKE):
        mean = mean_scale_gap(by_area[start : start + ALIKE], rounding.expected)
        if not mean.is_within(UNTOUCHED_MEAN, MEAN_ERRORS):
            raise NoFit(
                f"how large a picture is seen depends on its size ({sizes_in_words(measured)})"
            )


def _reduced_by(picture: SeenSize, max_side: int) -> float:
    """Return the factor that a picture's sides were reduced by, 0 to 1.

    It is 1 where rounding can explain how large the picture was seen. `max_side` is the longest
    side that is ever sent, in pixels.
    """
    # A picture seen a little larger than sent counts as reduced by as much: it wasn't seen as sent.
    factor = min(picture.mean_scale, 1 / picture.mean_scale)
    # For a picture with the longest side, any reduction counts: rounding hardly changes it, and a
    # limit just below its side would go unnoticed.
    doubt = 0.0 if max(picture.sent) == max_side else _doubt(picture)
    return factor if 1 - factor > doubt else 1.0


def _is_surely_whole(picture: SeenSize) -> bool:
    """Whether a picture was surely seen as sent: reduced or enlarged by no more than CERTAIN."""
    return abs(1 - picture.mean_scale) + CHANCE * picture.mean_scale_error <= CERTAIN


def _doubt(picture: SeenSize) -> float:
    """Return how far from 1 `mean_scale` may be where sides were only rounded, not resized."""
    return CERTAIN / 2 + CHANCE * picture.mean_scale_error + ROUNDED_PX / min(picture.sent)


def _of_area(area: float, shape: tuple[int, int]) -> Size:
    """Return the size of this area, in square pixels, and this shape, width : height."""
    unit = math.sqrt(area / math.prod(shape))
    return round(shape[0] * unit), round(shape[1] * unit)


def _whole_or_none(limit: float) -> int | None:
    """Return a limit in whole pixels; None for an infinite one, which limits nothing."""
    return int(limit) if limit < math.inf else None


@dataclass(frozen=True)
class SafeLimits:
    """The most that sides and area may have, in (square) pixels; infinite where nothing limits."""

    longer_side: float
    area: float
    shorter_side: float


def _safe_limits(sizes: Sequence[Size], reduced_by: Sequence[float]) -> SafeLimits:
    """Return the limits under which the server reduces no picture further, and pictures stay large.

    The server reduced some of the pictures that were measured. Limits are safe if they reduce each
    of these to what was seen of it, or to less: then nothing is left for the server to do. Every
    combination of a longer side, an area and a shorter side that some picture was seen with is
    tried. Of the safe ones, those that reduce the pictures least are returned; of equal ones, the
    widest. Area and shorter side may also be infinite.

    Args:
        sizes: Width and height of the pictures as sent; there has to be one.
        reduced_by: The factor by which the server reduced the sides of each; 1 where it didn't.
    """
    sent = np.array(sizes, float)  # [picture, side]
    server_factors = np.array(reduced_by)  # [picture]
    seen = sent * server_factors[:, None]
    longer_sides = np.unique(seen.max(1))
    areas = np.append(np.unique(seen.prod(1)), math.inf)
    shorter_sides = np.append(np.unique(seen.min(1)), math.inf)
    best = SafeLimits(0.0, 0.0, 0.0)
    best_size = -math.inf
    for longer_side in longer_sides:
        by_longer = np.minimum(longer_side / sent.max(1), 1.0)
        for area in areas:
            by_both = np.minimum(by_longer, np.sqrt(area / sent.prod(1)))
            # With each of the shorter sides: the factor for each picture, [shorter side, picture].
            factors = np.minimum(by_both, shorter_sides[:, None] / sent.min(1))
            is_safe = (factors <= MEASURED_SCALE * server_factors).all(1)
            size = np.log(factors).sum(1)  # how large all pictures stay, taken together
            for number, shorter_side in enumerate(shorter_sides):
                # Limits grow in these loops: of those that do equally well, the widest are kept.
                if is_safe[number] and size[number] >= best_size:
                    best_size = size[number]
                    best = SafeLimits(float(longer_side), float(area), float(shorter_side))
    return best


def _extreme_shapes(own: Sequence[Size], aspect: int) -> list[tuple[int, int]]:
    """Return the shapes, width : height, of the run's widest and tallest pictures.

    They are left out where they are ordinary: no wider than `aspect` : 1, or no taller than
    1 : ORDINARY_TALL. A shape is rounded up to a whole number to 1, MOST_ASPECT at the most; a tall
    one is 1 : `aspect` at the least.
    """
    widest, tallest = most_elongated(own)
    widest_aspect = max(widest) / min(widest)
    tallest_aspect = max(tallest) / min(tallest)
    shapes = []
    if widest_aspect > aspect:
        shapes.append((min(math.ceil(widest_aspect), MOST_ASPECT), 1))
    if tallest_aspect > ORDINARY_TALL:
        shapes.append((1, min(max(math.ceil(tallest_aspect), aspect), MOST_ASPECT)))
    return shapes

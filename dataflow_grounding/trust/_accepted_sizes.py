"""Which picture sizes an endpoint accepts, learnt from the probe pictures that it refuses.

Nothing says why a picture is refused: it may be too large, too elongated, too long or too small. So
each refused picture is compared with those that were answered. Of the four measures, the one in
which most of the refused pictures exceed all answered ones is taken for the reason, and becomes a
limit. Pictures are then asked for again within that limit.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.probes import (
    SIZES,
    NoFit,
    ProbedPicture,
    reduced_to,
    size_text,
)

NEAR = 0.02  # two sizes whose sides differ by no more than this share count as the same
BEYOND = 1.02  # how many times the most that was answered a refused picture has to have
MOST_REFUSALS = 2  # of one size, after which it is not asked for again
ELONGATED = 2  # the aspect (longer side over shorter) from which on it may be why one is refused
MODERATE = 3  # the aspect to which elongated pictures are padded
ORDINARY = 16 / 9  # the aspect that elongated pictures are padded to if MODERATE was refused
SURELY_MODERATE = 1.1 * MODERATE  # MODERATE is tried where no aspect up to this was refused
JUST_BELOW = 0.95  # share of the least area refused, up to which the run's own areas are tried

Measure: TypeAlias = Literal["area", "aspect", "side", "smallness"]
"""How a picture may be too much: too large, too elongated, too long, too small."""
MEASURES: tuple[Measure, ...] = ("area", "aspect", "side", "smallness")


def _amount(measure: Measure, size: Size) -> float:
    """Return how much of a measure a picture has; more of it is more likely to be refused.

    It is in square pixels for `area`, in pixels for `side`, one over the area for `smallness`, and
    longer over shorter side for `aspect`, which counts as 0 up to ELONGATED.
    """
    if measure == "area":
        return math.prod(size)
    if measure == "side":
        return max(size)
    if measure == "smallness":
        return 1 / math.prod(size)
    return max(size) / min(size) if max(size) > ELONGATED * min(size) else 0.0


class NothingAnswered(Exception):
    """Neither the first picture nor a small one was answered.

    The message is what the endpoint said.
    """


class AcceptedSizes:
    """The limits within which an endpoint accepts pictures, as far as its refusals have told.

    Args:
        max_side: The longest side that is ever sent, in pixels.
        own: Sizes of the run's pictures, the commonest first. The limit on the area is chosen so
            that it leaves the commonest as they are, if it can.

    Attributes:
        limits: The limits so far.
    """

    def __init__(self, max_side: int, own: Sequence[Size] = ()) -> None:
        self.limits = SizeLimits(max_side)
        self._own_areas = [math.prod(reduced_to(size, max_side)) for size in own]
        self._first_refused: list[ProbedPicture] = []  # while none was answered
        self._doubted: set[Size] = set()  # sizes whose refusal may have been an accident
        self._refusals = Counter[Size]()  # how often each size was refused

    @property
    def is_narrowed(self) -> bool:
        """Whether refused pictures have narrowed the limits."""
        return self.limits != SizeLimits(self.limits.max_side)

    def replacements_for(
        self, refused: Sequence[ProbedPicture], answered: Sequence[Size]
    ) -> list[Size]:
        """Narrow the limits by what was refused, and return the sizes to ask for in its place.

        Sizes near those that were answered are left out. None are needed where nothing was refused.

        Args:
            refused: The probe pictures that were refused just now.
            answered: The sizes of all pictures that were ever answered.

        Raises:
            NothingAnswered: Neither the first pictures nor a small one were answered.
            NoFit: No limit explains why a picture is refused, for the second time; or a size was
                refused MOST_REFUSALS times, and the limits still leave it as it is.
        """
        self._refusals.update(picture.size for picture in refused)
        if not answered and self._first_refused:
            raise NothingAnswered(self._first_refused[0].refused)
        if not answered and refused:
            # The first pictures were all refused, so there is nothing to compare them with. A small
            # one tells whether the endpoint answers at all; after that, they are explained.
            self._first_refused = list(refused)
            return [reduced_to(SIZES[1], self.limits.max_side)]
        unexplained = [*self._first_refused, *refused]
        self._first_refused = []
        self._explain(unexplained, answered)
        replacements = dict.fromkeys(self.limits.sent(picture.size) for picture in unexplained)
        # Limits that leave a refused size as it is would have it asked for without end.
        for picture in unexplained:
            if picture.size in replacements and self._refusals[picture.size] >= MOST_REFUSALS:
                size = size_text(picture.size)
                raise NoFit(f"{size} px is refused whatever limits are tried: {picture.refused}")
        return [size for size in replacements if not is_near(size, answered)]

    def _explain(self, refused: Sequence[ProbedPicture], answered: Sequence[Size]) -> None:
        """Narrow the limits by each measure that explains why sizes were refused.

        The measure that explains the most refused sizes comes first, then the one that explains
        most of the rest. Sizes that none explains are left to `_doubt`, which may raise NoFit.
        """
        unexplained = [picture.size for picture in refused]
        while unexplained:
            explained_by: dict[Measure, list[Size]] = {}
            for measure in MEASURES:
                explained_by[measure] = _sizes_beyond(measure, unexplained, answered)
            likeliest = max(MEASURES, key=lambda measure: len(explained_by[measure]))
            explained = explained_by[likeliest]
            if not explained:
                self._doubt(unexplained, refused)
                return
            self._narrow(likeliest, explained, answered)
            unexplained = [size for size in unexplained if size not in explained]

    def _narrow(self, measure: Measure, refused: Sequence[Size], answered: Sequence[Size]) -> None:
        """Set the limit of one measure: below what was refused, but not below what was answered.

        For area, it is half of the least that was refused, or one of the run's own between both.
        For the longer side, it is the shortest that was refused, divided by the root of 2; for
        smallness, twice the largest area that was refused; for aspect, MODERATE or ORDINARY.

        Args:
            measure: The measure that explains why the `refused` sizes were refused.
            refused: Those sizes.
            answered: The sizes of all pictures that were ever answered.
        """
        least_refused = min(_amount(measure, size) for size in refused)
        most_answered = max(_amount(measure, size) for size in answered)
        half = least_refused / 2
        if measure == "area":
            # Where the run's own pictures lie just below what was refused, they are tried as they
            # are: half the area would reduce them without need.
            area = self._own_area_between(half, JUST_BELOW * least_refused) or half
            self.limits = replace(self.limits, max_pixels=int(max(area, most_answered)))
        elif measure == "aspect":
            aspect = MODERATE if least_refused > SURELY_MODERATE else ORDINARY
            aspect = max(aspect, most_answered)
            self.limits = replace(self.limits, max_wide=aspect, max_tall=aspect)
        elif measure == "side":
            # A side shorter by the root of 2 halves the area.
            side = max(least_refused / math.sqrt(2), most_answered)
            self.limits = replace(self.limits, max_side=int(side))
        else:
            # Smallness is one over the area.
            smallness = max(half, most_answered)
            self.limits = replace(self.limits, min_pixels=math.ceil(1 / smallness))

    def _own_area_between(self, low: float, high: float) -> int | None:
        """Return the area of the commonest size of the run's pictures that lies in this range.

        None if there is none. Areas are in square pixels.
        """
        for area in self._own_areas:
            if low <= area <= high:
                return area
        return None

    def _doubt(self, unexplained: Sequence[Size], refused: Sequence[ProbedPicture]) -> None:
        """Let sizes whose refusal nothing explains be asked for once more.

        The refusal may have been an accident.

        Args:
            unexplained: The sizes.
            refused: All pictures that were refused just now.

        Raises:
            NoFit: One of these was doubted before, and is refused again.
        """
        for picture in refused:
            if picture.size in self._doubted:
                size = size_text(picture.size)
                raise NoFit(
                    f"{size} px is refused, though larger and smaller pictures are not:"
                    f" {picture.refused}"
                )
        self._doubted.update(unexplained)


def _sizes_beyond(
    measure: Measure, refused: Sequence[Size], answered: Sequence[Size]
) -> list[Size]:
    """Return the refused sizes that exceed, by BEYOND in this measure, every size answered.

    There has to be a size that was answered.
    """
    most_answered = max(_amount(measure, size) for size in answered)
    return [size for size in refused if _amount(measure, size) > BEYOND * most_answered]


def elongated_extremes(own: Sequence[Size]) -> list[Size]:
    """Return the widest and the tallest of these sizes, each only if it `is_elongated`."""
    return [size for size in most_elongated(own) if is_elongated(size)]


def most_elongated(own: Sequence[Size]) -> tuple[Size, Size]:
    """Return the widest and the tallest of these sizes, in that order.

    A square, (1, 1), stands for either where no size is wider, or taller, than a square.
    """
    by_shape = sorted([*own, (1, 1)], key=lambda size: size[0] / size[1])
    return by_shape[-1], by_shape[0]


def is_elongated(size: Size) -> bool:
    """Whether a picture is over MODERATE times as long as wide, or as wide as long.

    Models may put boxes in such pictures in the wrong place, as Qwen3-VL does (QwenLM/Qwen3-VL
    issue 2020).
    """
    return max(size) > MODERATE * min(size)


def is_near(size: Size, known: Iterable[Size]) -> bool:
    """Whether both sides are within NEAR of those of a known size, so that asking tells nothing."""
    for width, height in known:
        if abs(size[0] - width) <= NEAR * width and abs(size[1] - height) <= NEAR * height:
            return True
    return False

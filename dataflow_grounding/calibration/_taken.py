"""Which sizes an endpoint takes.

A probe picture that it refuses or never answers is a limit, and isn't sent again.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration.probes import SIZES, NoFit, ProbedPicture, by, reduced_to
from dataflow_grounding.images.image import SizeLimits

NEAR = 0.02  # of a side, by which sizes may differ and count as one
BEYOND = 1.02  # a picture that is larger, or longer, by no more tells nothing new
ELONGATED = 2  # from which aspect on that may be why a picture is refused
MODERATE = 3  # the aspect to which elongated pictures are padded

Measure: TypeAlias = Literal["area", "aspect", "side", "smallness"]
"""How a picture may be too much: too large, too elongated, too long, too small."""
MEASURES: tuple[Measure, ...] = ("area", "aspect", "side", "smallness")


def _measured(measure: Measure, size: Size) -> float:
    """How much of it a picture has."""
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


class Taken:
    """The limits within which an endpoint takes pictures, as far as known.

    Args:
        max_side: The longest side that is ever sent, in pixels.
        own: Sizes of the run's pictures, which should be left as they are.
    """

    def __init__(self, max_side: int, own: Sequence[Size] = ()) -> None:
        self.limits = SizeLimits(max_side)
        self._own_areas = [math.prod(reduced_to(size, max_side)) for size in own]
        self._first_refused: list[ProbedPicture] = []
        self._doubted: set[Size] = set()

    @property
    def narrowed(self) -> bool:
        """Whether any picture was refused."""
        return self.limits != SizeLimits(self.limits.max_side)

    def fitted(self, size: Size) -> Size:
        """The size that is asked for in place of this one."""
        return self.limits.fitted(self.limits.padded(size))

    def instead(self, refused: Sequence[ProbedPicture], answered: Sequence[Size]) -> list[Size]:
        """The sizes to ask for in place of the `refused`, which limits now leave out.

        `answered` are all sizes in which a picture ever was. Raises NothingAnswered, NoFit.
        """
        if not answered and self._first_refused:
            raise NothingAnswered(self._first_refused[0].refused)
        if not answered and refused:
            # Before anything is known, a small picture tells whether the endpoint answers at all.
            self._first_refused = list(refused)
            return [reduced_to(SIZES[1], self.limits.max_side)]
        refused = [*self._first_refused, *refused]
        self._first_refused = []
        self._explain(refused, answered)
        again = dict.fromkeys(self.fitted(picture.size) for picture in refused)
        return [size for size in again if not is_near(size, answered)]

    def _explain(self, refused: Sequence[ProbedPicture], answered: Sequence[Size]) -> None:
        """Narrow the limits until they leave out what was refused. Raises NoFit."""
        unexplained = [picture.size for picture in refused]
        while unexplained:
            beyond = {measure: _beyond(measure, unexplained, answered) for measure in MEASURES}
            likeliest = max(MEASURES, key=lambda measure: len(beyond[measure]))
            explained = beyond[likeliest]
            if not explained:
                self._doubt(unexplained, refused)
                return
            self._narrow(likeliest, explained, answered)
            unexplained = [size for size in unexplained if size not in explained]

    def _narrow(self, measure: Measure, refused: Sequence[Size], answered: Sequence[Size]) -> None:
        """Allow half as much, or what was answered if that is more."""
        least = min(_measured(measure, size) for size in refused)
        most = max(_measured(measure, size) for size in answered)
        if measure == "area":
            half = self._own_area_between(least / 2, 0.95 * least) or least / 2
            self.limits = replace(self.limits, max_pixels=int(max(half, most)))
        elif measure == "aspect":
            aspect = max(MODERATE if least > 1.1 * MODERATE else 16 / 9, most)
            self.limits = replace(self.limits, max_wide=aspect, max_tall=aspect)
        elif measure == "side":
            self.limits = replace(self.limits, max_side=int(max(least / math.sqrt(2), most)))
        else:
            self.limits = replace(self.limits, min_pixels=math.ceil(1 / max(least / 2, most)))

    def _own_area_between(self, low: float, high: float) -> int | None:
        """The area of the run's commonest pictures in this range, which needn't be reduced then."""
        for area in self._own_areas:
            if low <= area <= high:
                return area
        return None

    def _doubt(self, unexplained: Sequence[Size], refused: Sequence[ProbedPicture]) -> None:
        """Let sizes that nothing explains be asked for once more. Raises NoFit the next time."""
        for picture in refused:
            if picture.size in self._doubted:
                raise NoFit(
                    f"{by(picture.size)} px is refused, though larger and smaller pictures are"
                    f" not: {picture.refused}"
                )
        self._doubted.update(unexplained)


def _beyond(measure: Measure, refused: Sequence[Size], answered: Sequence[Size]) -> list[Size]:
    """The refused sizes that have more of it than all that were answered."""
    most = max(_measured(measure, size) for size in answered)
    return [size for size in refused if _measured(measure, size) > BEYOND * most]


def elongated(own: Sequence[Size]) -> list[Size]:
    """The widest and the tallest of these sizes, where models may err in them."""
    return [size for size in most_elongated(own) if is_elongated(size)]


def most_elongated(own: Sequence[Size]) -> tuple[Size, Size]:
    """The widest and the tallest of these sizes; squares where there is none."""
    by_shape = sorted([*own, (1, 1)], key=lambda size: size[0] / size[1])
    return by_shape[-1], by_shape[0]


def is_elongated(size: Size) -> bool:
    """Whether a picture is so long or tall that models err in it.

    Qwen3-VL does (QwenLM/Qwen3-VL issue 2020).
    """
    return max(size) > MODERATE * min(size)


def is_near(size: Size, known: Iterable[Size]) -> bool:
    """Whether a known size is within 2% each way, so that this one tells nothing new."""
    for width, height in known:
        if abs(size[0] - width) <= NEAR * width and abs(size[1] - height) <= NEAR * height:
            return True
    return False

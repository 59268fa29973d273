"""Which sizes an endpoint takes: a probe picture that it refuses or never answers is a limit, and
isn't sent again.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration.probes import SIZES, NoFit, ProbedPicture, by, reduced_to
from dataflow_grounding.images.image import SizeLimits

BEYOND = 1.02  # a picture that is larger, or longer, by no more tells nothing new
ELONGATED = 2  # from which aspect on that may be why a picture is refused
MODERATE = 3  # the aspect to which elongated pictures are padded

# How a picture may be too much: too large, too elongated, too long, too small.
MEASURES: dict[str, Callable[[Size], float]] = {
    "area": math.prod,
    "aspect": lambda size: max(size) / min(size) if max(size) > ELONGATED * min(size) else 0.0,
    "side": max,
    "smallness": lambda size: 1 / math.prod(size),
}


class NothingAnswered(Exception):
    """Neither the first picture nor a small one was answered; the message is what the endpoint
    said.
    """


class Taken:
    """The limits within which an endpoint takes pictures, as far as known; `own` sizes should be
    left as they are.
    """

    def __init__(self, max_side: int, own: Sequence[Size] = ()) -> None:
        self.limits = SizeLimits(max_side)
        self._own = [math.prod(reduced_to(size, max_side)) for size in own]
        self._first: list[ProbedPicture] = []
        self._doubted: set[Size] = set()

    @property
    def narrowed(self) -> bool:
        """Whether any picture was refused."""
        return self.limits != SizeLimits(self.limits.max_side)

    def fitted(self, size: Size) -> Size:
        """The size that is asked for in place of this one."""
        return self.limits.fitted(self.limits.padded(size))

    def instead(self, refused: Sequence[ProbedPicture], answered: Sequence[Size]) -> list[Size]:
        """The sizes to ask for in place of the `refused`, which limits now leave out. Raises
        NothingAnswered, NoFit.
        """
        if not answered and self._first:
            raise NothingAnswered(self._first[0].refused)
        if not answered and refused:
            self._first = list(refused)
            return [reduced_to(SIZES[1], self.limits.max_side)]
        refused, self._first = [*self._first, *refused], []
        left = [picture.size for picture in refused]
        while left:
            explained = {
                kind: _beyond(measure, left, answered) for kind, measure in MEASURES.items()
            }
            kind = max(explained, key=lambda kind: len(explained[kind]))
            if not explained[kind]:
                self._doubt(left, refused)
                break
            self._narrow(kind, explained[kind], answered)
            left = [size for size in left if size not in explained[kind]]
        again = dict.fromkeys(self.fitted(picture.size) for picture in refused)
        return [size for size in again if not is_near(size, answered)]

    def _narrow(self, kind: str, refused: Sequence[Size], answered: Sequence[Size]) -> None:
        """Half as much, or what was answered if that is more."""
        least, most = min(map(MEASURES[kind], refused)), max(map(MEASURES[kind], answered))
        if kind == "area":
            own = next((area for area in self._own if least / 2 <= area <= 0.95 * least), least / 2)
            self.limits = replace(self.limits, max_pixels=int(max(own, most)))
        elif kind == "aspect":
            aspect = max(MODERATE if least > 1.1 * MODERATE else 16 / 9, most)
            self.limits = replace(self.limits, max_wide=aspect, max_tall=aspect)
        elif kind == "side":
            self.limits = replace(self.limits, max_side=int(max(least / math.sqrt(2), most)))
        else:
            self.limits = replace(self.limits, min_pixels=math.ceil(1 / max(least / 2, most)))

    def _doubt(self, left: Sequence[Size], refused: Sequence[ProbedPicture]) -> None:
        """Let sizes that nothing explains be asked for once more. Raises NoFit."""
        why = next((picture for picture in refused if picture.size in self._doubted), None)
        if why is not None:
            raise NoFit(
                f"{by(why.size)} px is refused, though larger and smaller pictures are not:"
                f" {why.refused}"
            )
        self._doubted.update(left)


def _beyond(
    measure: Callable[[Size], float], refused: Sequence[Size], answered: Sequence[Size]
) -> list[Size]:
    return [size for size in refused if measure(size) > BEYOND * max(map(measure, answered))]


def elongated(own: Sequence[Size]) -> list[Size]:
    """The widest and the tallest of these sizes, where models may err in them."""
    return [size for size in most_elongated(own) if is_elongated(size)]


def most_elongated(own: Sequence[Size]) -> tuple[Size, Size]:
    """The widest and the tallest of these sizes; squares where there is none."""
    shares = sorted([*own, (1, 1)], key=lambda size: size[0] / size[1])
    return shares[-1], shares[0]


def is_elongated(size: Size) -> bool:
    """Whether a picture is so long or tall that models err in it: Qwen3-VL does (QwenLM/Qwen3-VL
    issue 2020).
    """
    return max(size) > MODERATE * min(size)


def is_near(size: Size, asked: Iterable[Size]) -> bool:
    """Whether a size so near was asked for that this one would tell nothing new."""
    return any(all(abs(a - b) <= 0.02 * b for a, b in zip(size, one, strict=True)) for one in asked)

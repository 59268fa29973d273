"""How to send elongated pictures, in which some models put boxes in the wrong place.

Qwen3-VL does (QwenLM/Qwen3-VL issue 2020). Padding such pictures to a moderate shape may help.
Probe pictures tell, which have rectangles at known places (`probes.py`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.trust.kinds import MODERATE
from dataflow_grounding.trust.probes import INNER, SIZES, Probe, ProbedPicture, probe_of, reduced_to
from dataflow_grounding.trust.showing import read_in, showing_of

# Such pictures are padded to the first of these aspects that helps. Padding costs resolution.
PADDINGS = (MODERATE, 2)
MOST_ASKED = 2 + len(PADDINGS) + 1  # as they are, padded, and in a usual shape
# A picture this little less elongated than one that was tried is as elongated: by a twentieth,
# within which photographs cut to one shape differ.
NEARLY = 0.95

AskPadded: TypeAlias = Callable[[Probe, float | None], Awaitable[ProbedPicture]]
"""Puts a probe picture to a model, padded to an aspect; None for no padding."""


@dataclass(frozen=True)
class Shape:
    """How elongated pictures are sent, as it was found out with one of `size`."""

    size: Size
    aspect: float | None = None  # to pad to
    off: float | None = None  # share of the side by which boxes are off even so; None if right

    def covers(self, size: Size) -> bool:
        """Whether what was found out holds for pictures of another size, elongated the same way."""
        # Boxes that are right in one picture are right in less elongated ones, too. Boxes that are
        # off in one are off in more elongated ones.
        is_same_way = (self.size[0] > self.size[1]) == (size[0] > size[1])
        own_aspect = max(self.size) / min(self.size)
        other_aspect = max(size) / min(size)
        if self.off is None:
            return is_same_way and own_aspect >= NEARLY * other_aspect
        return is_same_way and other_aspect >= NEARLY * own_aspect


async def shape_of(ask: AskPadded, size: Size, drawn: Size, box_format: BoxFormat) -> Shape:
    """Find out how elongated pictures of a size are sent; probe pictures are of size `drawn`."""
    unpadded = []
    # Two pictures have to miss: by noise alone, one does now and then. The first has rectangles at
    # its edges, the second has them further inside.
    for layout in (0, INNER):
        picture = await ask(probe_of(drawn, layout), None)
        if not picture.refused and showing_of([picture], box_format).kind != "misses":
            return Shape(size)  # it fits, or too few rectangles were answered to tell
        unpadded.append(picture)
    for aspect in PADDINGS:
        picture = await ask(probe_of(drawn, INNER), aspect)
        if showing_of([picture], box_format).kind == "fits":
            return Shape(size, aspect)
    # No padding helps. If nothing was answered, or boxes are wrong in a usual shape too, the reason
    # isn't the shape: nothing is said of it here, and the run's checks find the reason.
    size_of_usual_shape = reduced_to(SIZES[0], max(drawn))
    usual = await ask(probe_of(size_of_usual_shape), None)
    rectangles = read_in(unpadded, box_format)
    if not rectangles.read or showing_of([usual], box_format).kind != "fits":
        return Shape(size)
    return Shape(size, off=rectangles.median_off)

"""In which exact sizes a run sends its pictures, where a model doesn't count parts of the side.

How a server resizes a picture is measured in each of these frames, instead of inferred for all
sizes. Each takes two to eight probe pictures, which have rectangles at known places (`probes.py`).
There are five: large, because small things need it. A run whose pictures all have one size has that
one alone.
"""

import math
from collections.abc import Collection, Sequence

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.probes import legible, reduced_to

# About 2.4 megapixels, or 1.05 where an endpoint refuses those, or 0.26, in five shapes (width to
# height). Their sides are multiples of 28, which few servers round.
AREAS = (1548**2, 1024**2, 512**2)
SHAPES = (1, 4 / 3, 3 / 4, 16 / 9, 9 / 16)
STEP = 28


def frames_for(
    sizes: Sequence[Size],
    limits: SizeLimits,
    refused: Collection[Size] = (),
    answered: Sequence[Size] = (),
) -> list[Size]:
    """Return the frames in which pictures of these sizes are sent.

    The endpoint is known to refuse the sizes `refused`, and to take those `answered`. Without
    `sizes`, the run isn't known.
    """
    sizes_as_sent = {limits.fitted(size) for size in sizes}
    if len(sizes_as_sent) == 1:
        own_frame = legible(sizes_as_sent.pop(), limits.max_side)
        if may_be_taken(own_frame, refused, answered):
            return [own_frame]
    frames = []
    for shape in SHAPES:
        of_shape = [_frame(area, shape, limits) for area in AREAS]
        taken = [frame for frame in of_shape if may_be_taken(frame, refused, answered)]
        frames += taken[:1]  # the largest; none if all are refused
    return list(dict.fromkeys(frames))  # each once


def missing_frames(
    sizes: Sequence[Size],
    limits: SizeLimits,
    measured: Collection[Size],
    refused: Collection[Size] = (),
    answered: Sequence[Size] = (),
) -> list[Size]:
    """Return the frames that a run's pictures need besides those that were measured."""
    fixed = {_frame(area, shape, limits) for area in AREAS for shape in SHAPES}
    if not sizes or not fixed.isdisjoint(measured):  # these are for all sizes
        return []
    frames = frames_for(sizes, limits, refused, answered)
    return [frame for frame in frames if frame not in measured]


def may_be_taken(size: Size, refused: Collection[Size], answered: Sequence[Size]) -> bool:
    """Whether it is worth asking for a size, given those that an endpoint refused and answered."""
    if size in refused:
        return False
    # Most servers limit the area. So a refused size may show their limit, if it is larger than all
    # that were answered. A smaller one was refused for a reason of its own.
    most_answered = max(map(math.prod, answered), default=0)
    refused_areas = [math.prod(refused_size) for refused_size in refused]
    too_large = [area for area in refused_areas if area > most_answered]
    return math.prod(size) < min(too_large, default=math.inf)


def _frame(area: float, shape: float, limits: SizeLimits) -> Size:
    width = round(math.sqrt(area * shape) / STEP) * STEP
    height = round(math.sqrt(area / shape) / STEP) * STEP
    width, height = limits.fitted(reduced_to((width, height), limits.max_side))
    # The limits may have changed the sides: they are cut to multiples of STEP again.
    return max(STEP, width // STEP * STEP), max(STEP, height // STEP * STEP)

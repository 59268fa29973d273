"""In which exact sizes a run sends its pictures, where a model doesn't count parts of the side.

How a server resizes a picture is measured in each of these frames, instead of inferred for all
sizes. Frames are few, because each takes two to eight probe pictures, and chosen so that padding
and loss of resolution cost little in the run's own pictures. A probe picture has rectangles at
known places, for which the model is asked (`probes.py`).
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits, frame_cost
from dataflow_grounding.trust.probes import legible, reduced_to

MOST_FRAMES = 8  # 8 x 3 probe pictures is what a run of a thousand records can bear
MOST_TRIED = 40  # of a run's own sizes, the commonest, that may become frames
WORTH_IT = 0.02  # a further frame has to save this share of what pictures cost without it
# Measured frames are good enough if pictures cost at most this many times what they would cost in
# frames of their own size: each further frame takes two probe pictures or more.
GOOD_ENOUGH = 1.1
# Frames of any run, and of a calibration that knows no run: about 0.26, 1.05 and 2.4 megapixels in
# seven shapes. Their sides are multiples of 28, which few servers round.
AREAS = (512**2, 1024**2, 1548**2)
SHAPES = (1, 4 / 3, 3 / 4, 16 / 9, 9 / 16, 3, 1 / 3)
USUAL_AREA = AREAS[1]
STEP = 28


def choose_frames(
    sizes: Sequence[Size],
    count_of_each: Sequence[int],
    limits: SizeLimits,
    measured: Sequence[Size] = (),
    refused: Collection[Size] = (),
    answered: Sequence[Size] = (),
) -> list[Size]:
    """Choose the frames in which pictures of these sizes, the commonest first, are sent.

    `count_of_each` says how many pictures have each size. The frames `measured` come first in the
    result; at most MOST_FRAMES are added. The endpoint is known to refuse the sizes `refused`, and
    to take those `answered`. Without `sizes`, the run isn't known: then the usual frames are added.
    """
    taken = [*measured, *answered]  # by the endpoint
    usual_frames = [frame for frame in grid(limits) if may_be_taken(frame, refused, taken)]
    if not sizes:
        of_usual_area = _of_area(USUAL_AREA, limits)
        # all of them, if the endpoint takes none of that area
        further = [frame for frame in usual_frames if frame in of_usual_area] or usual_frames
        return list(dict.fromkeys([*measured, *further]))  # each once
    fitted = [limits.fitted(size) for size in sizes]  # as they are sent without frames
    own_frames = [legible(size, limits.max_side) for size in fitted[:MOST_TRIED]]
    may_be_own = [frame for frame in own_frames if may_be_taken(frame, refused, taken)]
    candidates = list(dict.fromkeys([*may_be_own, *usual_frames]))  # each once
    best = _chosen(fitted, count_of_each, candidates, measured=[], cheap_enough=0.0)
    if not measured:
        return best
    # Measured frames are kept, because they cost no more probe pictures. The best frames only tell
    # what is cheap enough: others are added until pictures cost nearly as little as in these.
    cheap_enough = GOOD_ENOUGH * _total(_costs(fitted, best), count_of_each)
    return _chosen(fitted, count_of_each, candidates, measured, cheap_enough)


def _chosen(
    sizes: Sequence[Size],
    count_of_each: Sequence[int],
    candidates: Sequence[Size],
    measured: Sequence[Size],
    cheap_enough: float,
) -> list[Size]:
    """Add to `measured`, one by one, the frame that saves most, while one is worth it."""
    chosen = list(measured)
    costs = _costs(sizes, chosen)
    for _ in range(MOST_FRAMES):
        total = _total(costs, count_of_each)
        if total <= cheap_enough:
            break
        further = _cheapest_addition(sizes, count_of_each, candidates, costs)
        if further is None or further.total > (1 - WORTH_IT) * total:
            break
        chosen.append(further.frame)
        costs = further.costs
    return chosen


class _Addition(NamedTuple):
    """A frame, and what pictures of each size, and all together, cost once it is added."""

    frame: Size
    costs: list[float]
    total: float


def _cheapest_addition(
    sizes: Sequence[Size],
    count_of_each: Sequence[int],
    candidates: Sequence[Size],
    costs: Sequence[float],
) -> _Addition | None:
    """The candidate that lowers the total most, if any does. `costs` are those so far."""
    cheapest: _Addition | None = None
    lowest_total = _total(costs, count_of_each)
    for candidate in candidates:
        # a picture goes in the candidate only where it costs less there
        with_it = list(map(min, costs, _costs(sizes, [candidate])))
        total = _total(with_it, count_of_each)
        if total < lowest_total:
            cheapest = _Addition(candidate, with_it, total)
            lowest_total = total
    return cheapest


def _costs(sizes: Sequence[Size], frames: Sequence[Size]) -> list[float]:
    """What a picture of each size costs in the cheapest frame; infinite without frames."""
    costs: list[float] = []
    for size in sizes:
        costs.append(min((frame_cost(size, frame) for frame in frames), default=math.inf))
    return costs


def missing_frames(
    sizes: Sequence[Size],
    count_of_each: Sequence[int],
    limits: SizeLimits,
    measured: Sequence[Size],
    refused: Collection[Size] = (),
    answered: Sequence[Size] = (),
) -> list[Size]:
    if not sizes:  # `choose_frames` would choose for a run that isn't known
        return []
    chosen = choose_frames(sizes, count_of_each, limits, measured, refused, answered)
    return [frame for frame in chosen if frame not in measured]


def _total(costs: Sequence[float], count_of_each: Sequence[int]) -> float:
    return sum(cost * count for cost, count in zip(costs, count_of_each, strict=True))


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


def grid(limits: SizeLimits) -> list[Size]:
    frames: list[Size] = []
    for area in AREAS:
        frames += _of_area(area, limits)
    return list(dict.fromkeys(frames))


def _of_area(area: float, limits: SizeLimits) -> list[Size]:
    """One frame of each of SHAPES (width to height), whose sides are multiples of STEP."""
    frames: list[Size] = []
    for shape in SHAPES:
        width = round(math.sqrt(area * shape) / STEP) * STEP
        height = round(math.sqrt(area / shape) / STEP) * STEP
        width, height = limits.fitted(reduced_to((width, height), limits.max_side))
        # The limits may have changed the sides: they are cut to multiples of STEP again.
        width = max(STEP, width // STEP * STEP)
        height = max(STEP, height // STEP * STEP)
        frames.append((width, height))
    return frames

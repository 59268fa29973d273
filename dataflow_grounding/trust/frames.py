"""In which exact sizes a run sends its pictures, where a model doesn't count parts of the side.

How a server resizes a picture is measured in each of these frames, instead of inferred for all
sizes. Frames are few, because each takes two to eight probe pictures, and chosen so that padding
and loss of resolution cost little in the run's own pictures.
"""

import math
from collections.abc import Collection, Sequence

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

    At most MOST_FRAMES are added to those `measured`, which come first and cost no probe pictures.
    `count_of_each` says how many pictures have each size. Without `sizes`, the frames are for a run
    that isn't known.
    """
    are_taken = [*measured, *answered]  # by the endpoint
    all_usual = [frame for frame in grid(limits) if may_be_taken(frame, refused, are_taken)]
    if not sizes:
        usual = [frame for frame in all_usual if frame in _of_area(USUAL_AREA, limits)]
        return list(dict.fromkeys([*measured, *(usual or all_usual)]))
    sizes = [limits.fitted(size) for size in sizes]
    own_frames = [legible(size, limits.max_side) for size in sizes[:MOST_TRIED]]
    own_frames = [frame for frame in own_frames if may_be_taken(frame, refused, are_taken)]
    candidates = list(dict.fromkeys([*own_frames, *all_usual]))
    # the best that can be had, as if none was measured yet
    chosen = _chosen(sizes, count_of_each, candidates, measured=[], low_enough=0.0)
    if not measured:
        return chosen
    low_enough = GOOD_ENOUGH * _total(_costs(sizes, chosen), count_of_each)
    return _chosen(sizes, count_of_each, candidates, measured, low_enough)


def _chosen(
    sizes: Sequence[Size],
    count_of_each: Sequence[int],
    candidates: Sequence[Size],
    measured: Sequence[Size],
    low_enough: float,
) -> list[Size]:
    # Adds, one by one, the frame that saves most, until pictures cost no more than `low_enough`, or
    # no further frame is worth it.
    chosen = list(measured)
    costs = _costs(sizes, chosen)
    for _ in range(MOST_FRAMES):
        best: Size | None = None
        best_costs = costs
        for candidate in candidates:
            with_it = list(map(min, costs, _costs(sizes, [candidate])))
            if _total(with_it, count_of_each) < _total(best_costs, count_of_each):
                best, best_costs = candidate, with_it
        is_worth_it = _total(best_costs, count_of_each) <= (1 - WORTH_IT) * _total(
            costs, count_of_each
        )
        if best is None or not is_worth_it or _total(costs, count_of_each) <= low_enough:
            break
        chosen.append(best)
        costs = best_costs
    return chosen


def _costs(sizes: Sequence[Size], frames: Sequence[Size]) -> list[float]:
    return [min((frame_cost(size, one) for one in frames), default=math.inf) for size in sizes]


def missing_frames(
    sizes: Sequence[Size],
    count_of_each: Sequence[int],
    limits: SizeLimits,
    measured: Sequence[Size],
    refused: Collection[Size] = (),
    answered: Sequence[Size] = (),
) -> list[Size]:
    if not sizes:
        return []
    chosen = choose_frames(sizes, count_of_each, limits, measured, refused, answered)
    return [frame for frame in chosen if frame not in measured]


def _total(costs: Sequence[float], count_of_each: Sequence[int]) -> float:
    return sum(cost * count for cost, count in zip(costs, count_of_each, strict=True))


def may_be_taken(size: Size, refused: Collection[Size], answered: Sequence[Size]) -> bool:
    """Whether it is worth asking for a size, given those that an endpoint refused and answered."""
    # Most servers limit the area. So where a refused size is larger than all that were answered,
    # none as large is worth asking for. Any other refused size speaks against itself alone.
    most = max(map(math.prod, answered), default=0)
    too_large = [math.prod(one) for one in refused if math.prod(one) > most]
    return size not in refused and math.prod(size) < min(too_large, default=math.inf)


def grid(limits: SizeLimits) -> list[Size]:
    frames: list[Size] = []
    for area in AREAS:
        frames += _of_area(area, limits)
    return list(dict.fromkeys(frames))


def _of_area(area: float, limits: SizeLimits) -> list[Size]:
    frames: list[Size] = []
    for shape in SHAPES:
        width = round(math.sqrt(area * shape) / STEP) * STEP
        height = round(math.sqrt(area / shape) / STEP) * STEP
        width, height = limits.fitted(reduced_to((width, height), limits.max_side))
        frames.append((max(STEP, width // STEP * STEP), max(STEP, height // STEP * STEP)))
    return frames

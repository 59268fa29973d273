"""Many regions in several requests: groups of such as lie near each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from dataflow_grounding.errors import TruncatedReply
from dataflow_grounding.geometry import Bbox

T = TypeVar("T")


def near_groups(boxes: Sequence[Bbox], most: int) -> list[list[int]]:
    """The places of the boxes, each once, in groups of at most `most`; the same boxes always give the same groups.

    Cut in two halves at the median of the middles along the longer extent, and each half again, as in a k-d tree
    (Bentley 1975). Within a group the places rise.
    """
    return _cut(list(range(len(boxes))), boxes, max(1, most))


def _cut(places: list[int], boxes: Sequence[Bbox], most: int) -> list[list[int]]:
    if len(places) <= most:
        return [places] if places else []
    middles = {place: _middle(boxes[place]) for place in places}
    extents = [max(m[axis] for m in middles.values()) - min(m[axis] for m in middles.values()) for axis in (0, 1)]
    axis = 0 if extents[0] >= extents[1] else 1
    ordered = sorted(places, key=lambda place: (middles[place][axis], middles[place][1 - axis], place))
    half = (len(ordered) + 1) // 2
    return _cut(sorted(ordered[:half]), boxes, most) + _cut(sorted(ordered[half:]), boxes, most)


def _middle(box: Bbox) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


async def ask_in_parts(
    places: list[int], boxes: Sequence[Bbox] | Mapping[int, Bbox], ask_for: Callable[[list[int]], Awaitable[T]]
) -> list[tuple[list[int], T]]:
    """What `ask_for` says of the places; where its reply is cut off, of two halves that lie near each other."""
    try:
        return [(places, await ask_for(places))]
    except TruncatedReply:
        if len(places) < 2:
            raise
    found = []
    for half in near_groups([boxes[place] for place in places], (len(places) + 1) // 2):
        found += await ask_in_parts([places[n] for n in half], boxes, ask_for)
    return found

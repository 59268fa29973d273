"""Many regions or texts in several requests: those near each other together, no more than fit."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dataflow_grounding._util.errors import TruncatedReply
from dataflow_grounding.boxes.geometry import Bbox

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741


def near_groups(boxes: Sequence[Bbox], most: int) -> list[list[int]]:
    """Return groups of at most `most` boxes that lie near each other, by the boxes' places."""
    if not boxes:
        return []
    # The boxes are halved where their middles are spread most, across or down, and so are the
    # halves, as a k-d tree is built (Bentley 1975).
    middles = [middle_of(box) for box in boxes]
    return _split(list(range(len(boxes))), middles, max(1, most))


def _split(places: list[int], middles: Sequence[tuple[float, float]], most: int) -> list[list[int]]:
    if len(places) <= most:
        return [places]
    axis = _longer_axis([middles[place] for place in places])
    other_axis = 1 - axis

    def along_axis(place: int) -> tuple[float, float, int]:
        return middles[place][axis], middles[place][other_axis], place

    in_order = sorted(places, key=along_axis)
    middle = (len(in_order) + 1) // 2
    # sorted: within a group, boxes stay in the order of the record
    first_half, second_half = sorted(in_order[:middle]), sorted(in_order[middle:])
    return _split(first_half, middles, most) + _split(second_half, middles, most)


def _longer_axis(points: Sequence[tuple[float, float]]) -> int:
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    reach_across = max(xs) - min(xs)
    reach_down = max(ys) - min(ys)
    return 0 if reach_across >= reach_down else 1


def middle_of(box: Bbox) -> tuple[float, float]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2


def batched(items: list[I], most: int) -> list[list[I]]:
    """Split a list into lists of at most `most` items, in order."""
    return [items[start : start + most] for start in range(0, len(items), most)]


async def ask_in_parts(
    items: list[I],
    ask_for: Callable[[list[I]], Awaitable[T]],
    box_of_item: Callable[[I], Bbox] | None = None,
) -> list[tuple[list[I], T]]:
    """Ask about items, and if the reply is cut off, about each half of them in its own request."""
    try:
        return [(items, await ask_for(items))]
    except TruncatedReply:
        if len(items) < 2:
            raise
    # the reply was cut off: less is asked for at once
    middle = len(items) // 2
    halves = [items[:middle], items[middle:]]
    if box_of_item is not None:  # items near each other come into the same half
        boxes = [box_of_item(item) for item in items]
        most = len(items) - middle
        halves = [[items[place] for place in group] for group in near_groups(boxes, most)]
    answers: list[tuple[list[I], T]] = []
    for half in halves:
        answers += await ask_in_parts(half, ask_for, box_of_item)
    return answers

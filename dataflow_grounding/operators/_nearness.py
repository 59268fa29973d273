"""Many regions or texts in several requests: groups of regions that lie near each other, texts
grounded again.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from dataflow_grounding._util.errors import RecordError, TruncatedReply
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.engine.workers import all_done
from dataflow_grounding.tasks.phrase_grounding import Found

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741


def near_groups(boxes: Sequence[Bbox], most: int) -> list[list[int]]:
    """The boxes' places in groups of at most `most`, always the same: halves along the longer
    extent (Bentley 1975).
    """
    middles = [middle_of(box) for box in boxes]

    def cut(places: list[int]) -> list[list[int]]:
        if len(places) <= max(1, most):
            return [places] if places else []
        wide, high = (
            max(side) - min(side)
            for side in zip(*(middles[place] for place in places), strict=True)
        )
        axis = 0 if wide >= high else 1
        ordered = sorted(
            places, key=lambda place: (middles[place][axis], middles[place][1 - axis], place)
        )
        half = (len(ordered) + 1) // 2
        return cut(sorted(ordered[:half])) + cut(sorted(ordered[half:]))

    return cut(list(range(len(boxes))))


def middle_of(box: Bbox) -> tuple[float, float]:
    """The middle of a box, x and y."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def batched(items: list[I], most: int) -> list[list[I]]:
    """The items in lists of at most `most`."""
    return [items[start : start + most] for start in range(0, len(items), most)]


async def ask_in_parts(
    items: list[I],
    ask_for: Callable[[list[I]], Awaitable[T]],
    box_of_item: Callable[[I], Bbox] | None = None,
) -> list[tuple[list[I], T]]:
    """What `ask_for` says of the items; where its reply is cut off, of each half: of near ones, if
    they have boxes.
    """
    try:
        return [(items, await ask_for(items))]
    except TruncatedReply:
        if len(items) < 2:
            raise
    middle = len(items) // 2
    halves = [items[:middle], items[middle:]]
    if box_of_item is not None:
        near = near_groups([box_of_item(item) for item in items], (len(items) + 1) // 2)
        halves = [[items[n] for n in group] for group in near]
    return [part for half in halves for part in await ask_in_parts(half, ask_for, box_of_item)]


async def reground(
    ground: Callable[[list[str]], Awaitable[list[Found]]], texts: Iterable[str], at_once: int = 1
) -> dict[str, Found | RecordError]:
    """What each text is found at afresh, or why it isn't known. Equal texts are grounded once,
    `at_once` a request.
    """

    async def grounded(some: list[str]) -> Sequence[Found | RecordError]:
        try:
            return await ground(some)
        except RecordError as error:
            if isinstance(error, TruncatedReply) and len(some) > 1:
                raise  # its halves are asked for
            return [error] * len(some)

    chunks = batched(list(dict.fromkeys(texts)), at_once)
    found: dict[str, Found | RecordError] = {}
    for parts in await all_done(ask_in_parts(chunk, grounded) for chunk in chunks):
        for some, answer in parts:
            found.update(zip(some, answer, strict=True))
    return found

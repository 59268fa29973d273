"""Texts grounded again without showing any box, to see whether they are found where they were said to be."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.boxes.nearness import ask_in_parts, batched
from dataflow_grounding.errors import RecordError, TruncatedReply
from dataflow_grounding.geometry import box_of
from dataflow_grounding.tasks.phrase_grounding import Found


async def reground(
    ground: Callable[[list[str]], Awaitable[list[Found]]], texts: Iterable[str], at_once: int = 1
) -> dict[str, Found | RecordError]:
    """What each text is found at, or why it isn't known. Equal texts are grounded once, at most `at_once` a request."""

    async def grounded(some: list[str]) -> Sequence[Found | RecordError]:
        try:
            return await ground(some)
        except RecordError as error:
            if isinstance(error, TruncatedReply) and len(some) > 1:
                raise  # its halves are asked for
            return [error] * len(some)

    chunks = batched(list(dict.fromkeys(texts)), at_once)
    answers = await asyncio.gather(*(ask_in_parts(chunk, grounded) for chunk in chunks), return_exceptions=True)
    found: dict[str, Found | RecordError] = {}
    for parts in answers:
        if isinstance(parts, BaseException):
            raise parts
        for some, answer in parts:
            found.update(zip(some, answer, strict=True))
    return found


def agreement(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """Mean IoU of two answers' boxes, matched one to one by falling IoU; a box without a partner counts 0."""
    matched = match_boxes([box_of(b["bbox"]) for b in other], [box_of(a["bbox"]) for a in one], 0.0)
    return sum(overlap for _, overlap in matched.values()) / max(len(one), len(other), 1)

"""Verification by grounding each expression once more, alone."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dataflow_grounding.boxes.agreement import bbox_of
from dataflow_grounding.errors import RecordError
from dataflow_grounding.geometry import match_greedily
from dataflow_grounding.tasks import Found

VERIFIED_AT = 0.5  # mean IoU of the two answers' boxes


async def reground(
    ground: Callable[[str], Awaitable[Found]], expressions: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], RecordError | None]:
    """The expressions, those with boxes with `verified` and `verification`; and what failed, if anything did.

    `ground` finds one phrase afresh, in a request of its own. An expression whose request failed has `verified: null`.
    """
    with_boxes = [expression for expression in expressions if expression["instances"]]
    answers = await asyncio.gather(*(ground(e["text"]) for e in with_boxes), return_exceptions=True)
    results: dict[int, dict[str, Any]] = {}
    failed: RecordError | None = None
    for expression, answer in zip(with_boxes, answers, strict=True):
        if isinstance(answer, RecordError):
            failed = failed or copy.copy(answer)  # an error may be shared with an equal request of another record
            results[id(expression)] = {"verified": None, "verification": {"method": "reground", "reason": str(answer)}}
        elif isinstance(answer, BaseException):
            raise answer
        else:
            overlap = round(agreement(expression["instances"], answer.instances), 4)
            verification = {"method": "reground", "iou": overlap}
            results[id(expression)] = {"verified": overlap >= VERIFIED_AT, "verification": verification}
    return [{**expression, **results.get(id(expression), {})} for expression in expressions], failed


def agreement(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """Mean IoU of two answers' boxes, matched one to one by falling IoU; a box without a partner counts 0."""
    matched = match_greedily([bbox_of(a) for a in one], [bbox_of(b) for b in other])
    return sum(overlap for overlap, _, _ in matched) / max(len(one), len(other), 1)

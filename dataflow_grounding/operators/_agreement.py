"""Several answers to one question made one: boxes on which most answers agree."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from statistics import median
from typing import Any, TypeVar

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.tasks.phrase_grounding import Found

T = TypeVar("T")

# Where boxes are compared, a side counts as at least this share of the image's longer side. A model
# errs by a share of the picture, however small the thing is: it sees it in patches of 1 to 3% of
# its side. At IoU 0.5, sides of 7% let two answers differ by 2.3% along one side, or 1.3% along
# both. Larger boxes are compared as they are.
LEAST = 0.07


async def agreed(
    ask_once: Callable[[int], Awaitable[list[Found]]], samples: int, size: Size
) -> list[Found]:
    """The answers of `ask_once(number)`, merged; up to half may be unreadable. Raises what failed
    otherwise.
    """
    if samples == 1:
        return await ask_once(0)
    readable = _readable(await _gathered(ask_once, range(samples)), samples)
    return [merged(of_one, samples, LEAST * max(size)) for of_one in zip(*readable, strict=True)]


async def located(ask_once: Callable[[int], Awaitable[Found]], samples: int, size: Size) -> Found:
    """Where a thing is that was found before, by `samples` answers at most: those that find nothing
    have no vote.

    The first ones, just over half, are enough where they agree: the others couldn't outvote them.
    """
    if samples == 1:
        return await ask_once(0)
    least, enough = LEAST * max(size), samples // 2 + 1
    answers = await _gathered(ask_once, range(enough))
    if merged(_readable(answers, samples), enough, least).disagreement:
        answers += await _gathered(ask_once, range(enough, samples))
    readable = _readable(answers, samples)
    voting = [answer for answer in readable if answer.instances] or readable
    return merged(voting, len(voting), least)


async def _gathered(
    ask_once: Callable[[int], Awaitable[T]], numbers: Iterable[int]
) -> list[T | BaseException]:
    return await asyncio.gather(*map(ask_once, numbers), return_exceptions=True)


def _readable(answers: Sequence[T | BaseException], samples: int) -> list[T]:
    """The answers that could be read, where at most half of `samples` couldn't. Raises what failed
    otherwise.
    """
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in failed:
        if not isinstance(error, UnreadableReply) or 2 * len(failed) > samples:
            raise error
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def merged(answers: Sequence[Found], samples: int, least: float = 0.0) -> Found:
    """One answer of several to the same phrase: boxes that overlap at IoU 0.5 at their median.

    Sides count as `least` px or more. A box stays when half of `samples` answers have it, their
    share its score; where they differ and none stays, it is `ambiguous`. `disagreement` unless all
    agree; doubtful when half of `samples` are.
    """
    clusters: list[list[tuple[Bbox, dict[str, Any]]]] = []
    for answer in answers:
        _add(clusters, answer, least)
    kept = [cluster for cluster in clusters if 2 * len(cluster) >= samples]
    same = len(answers) == samples and all(len(cluster) == samples for cluster in clusters)
    disagreement = not (same and len({answer.status for answer in answers}) == 1)
    doubtful = 2 * sum(answer.doubtful for answer in answers) >= samples
    if kept:
        return Found(
            "grounded",
            [_instance(cluster, samples) for cluster in kept],
            None,
            disagreement,
            doubtful,
        )
    statuses = [answer.status for answer in answers]
    common = max(dict.fromkeys(statuses), key=statuses.count)
    reason = next((answer.reason for answer in answers if answer.status == common), None)
    return Found(
        "ambiguous" if common == "grounded" else common, [], reason, disagreement, doubtful
    )


def _add(clusters: list[list[tuple[Bbox, dict[str, Any]]]], answer: Found, least: float) -> None:
    """Sort one answer's boxes into the clusters, by falling IoU, at most one into each."""
    boxed = [(box_of(instance["bbox"]), instance) for instance in answer.instances]
    middles = [_grown(_middle(cluster), least) for cluster in clusters]
    same = match_boxes([_grown(box, least) for box, _ in boxed], middles)
    for k, (n, _) in same.items():
        clusters[k].append(boxed[n])
    placed = {n for n, _ in same.values()}
    clusters += [[one] for n, one in enumerate(boxed) if n not in placed]


def _grown(bbox: Bbox, least: float) -> Bbox:
    x, y = (max(0.0, least - (bbox[side + 2] - bbox[side])) / 2 for side in (0, 1))
    return bbox[0] - x, bbox[1] - y, bbox[2] + x, bbox[3] + y


def _middle(cluster: Sequence[tuple[Bbox, object]]) -> Bbox:
    x1, y1, x2, y2 = (median(edges) for edges in zip(*(bbox for bbox, _ in cluster), strict=True))
    return x1, y1, x2, y2


def _instance(cluster: Sequence[tuple[Bbox, dict[str, Any]]], samples: int) -> dict[str, Any]:
    bbox = [math.floor(edge + 0.5) for edge in _middle(cluster)]
    return {**cluster[0][1], "bbox": bbox, "score": round(len(cluster) / samples, 4)}

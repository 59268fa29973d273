"""Several answers to one question made one: boxes on which most answers agree."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Any

from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.geometry import Bbox, Size, box_of
from dataflow_grounding.tasks.phrase_grounding import Found

# Boxes are widened by this share of the image's longer side before they are compared: models err by pixels of the picture,
# and two answers to a box of 15 px that differ by 8 px still mean one thing.
SLACK = 0.01


async def agreed(ask_once: Callable[[int], Awaitable[list[Found]]], samples: int, size: Size) -> list[Found]:
    """The answers of `ask_once(number)`, merged; up to half may be unreadable. Raises what failed otherwise."""
    answers = await asyncio.gather(*(ask_once(number) for number in range(samples)), return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in failed:
        if not isinstance(error, UnreadableReply) or 2 * len(failed) > samples:
            raise error
    readable = [answer for answer in answers if not isinstance(answer, BaseException)]
    return [merged(of_one, samples, SLACK * max(size)) for of_one in zip(*readable, strict=True)]


def merged(answers: Sequence[Found], samples: int, slack: float = 0.0) -> Found:
    """One answer of several to the same phrase: boxes that overlap at IoU 0.5, widened by `slack` px, at their median.

    A box stays when half of `samples` answers have it, with their share as its score; where they found different things
    and none stays, it is `ambiguous`. `disagreement` unless all agree; doubtful when half of `samples` answers are.
    """
    clusters: list[list[tuple[Bbox, dict[str, Any]]]] = []
    for answer in answers:
        _add(clusters, answer, slack)
    kept = [cluster for cluster in clusters if 2 * len(cluster) >= samples]
    same = len(answers) == samples and all(len(cluster) == samples for cluster in clusters)
    disagreement = not (same and len({answer.status for answer in answers}) == 1)
    doubtful = 2 * sum(answer.doubtful for answer in answers) >= samples
    if kept:
        return Found("grounded", [_instance(cluster, samples) for cluster in kept], None, disagreement, doubtful)
    statuses = [answer.status for answer in answers]
    common = max(dict.fromkeys(statuses), key=statuses.count)
    reason = next((answer.reason for answer in answers if answer.status == common), None)
    return Found("ambiguous" if common == "grounded" else common, [], reason, disagreement, doubtful)


def _add(clusters: list[list[tuple[Bbox, dict[str, Any]]]], answer: Found, slack: float) -> None:
    """Sort one answer's boxes into the clusters, by falling IoU, at most one into each."""
    boxed = [(box_of(instance["bbox"]), instance) for instance in answer.instances]
    middles = [_widened(_middle(cluster), slack) for cluster in clusters]
    same = match_boxes([_widened(box, slack) for box, _ in boxed], middles)
    for k, (n, _) in same.items():
        clusters[k].append(boxed[n])
    placed = {n for n, _ in same.values()}
    clusters += [[one] for n, one in enumerate(boxed) if n not in placed]


def _widened(bbox: Bbox, by: float) -> Bbox:
    return bbox[0] - by, bbox[1] - by, bbox[2] + by, bbox[3] + by


def _middle(cluster: Sequence[tuple[Bbox, object]]) -> Bbox:
    x1, y1, x2, y2 = (median(edges) for edges in zip(*(bbox for bbox, _ in cluster), strict=True))
    return x1, y1, x2, y2


def _instance(cluster: Sequence[tuple[Bbox, dict[str, Any]]], samples: int) -> dict[str, Any]:
    bbox = [math.floor(edge + 0.5) for edge in _middle(cluster)]
    return {**cluster[0][1], "bbox": bbox, "score": round(len(cluster) / samples, 4)}

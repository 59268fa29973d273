"""Several answers to one question made one: boxes on which most answers agree.

`samples` is how many answers are asked for; fewer are left where some can't be read. A cluster
holds the boxes of one thing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from dataflow_grounding._util.errors import RepeatedReply, UnreadableReply
from dataflow_grounding.boxes.geometry import (
    LEAST_SIDE_SHARE,
    Bbox,
    Size,
    enlarged_to,
    median_box,
    nearest_pixels,
)
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.data.expressions import Instance
from dataflow_grounding.tasks.grounding import Found

T = TypeVar("T")


async def ask_and_merge(
    ask_once: Callable[[int], Awaitable[list[Found]]], samples: int, size: Size
) -> list[Found]:
    """Ask the same question `samples` times and return the answers merged, phrase by phrase."""
    if samples == 1:
        return await ask_once(0)
    # A score is a share of all answers, also of those that can't be read.
    answers = await _ask_all(ask_once, range(samples))  # without those that a cache repeated
    readable = _readable_answers(answers, len(answers))
    if len(answers) == 1:  # all others were repeated, so there is nothing to merge
        return [_without_scores(found) for found in readable[0]]
    least_side = LEAST_SIDE_SHARE * max(size)
    merged: list[Found] = []
    # Each answer is a list, with a Found for each phrase. Turned around: all answers to a phrase.
    for answers_for_phrase in zip(*readable, strict=True):
        merged.append(merge_answers(answers_for_phrase, len(answers), least_side))
    return merged


async def ask_until_agreed(
    ask_once: Callable[[int], Awaitable[Found]], samples: int, size: Size
) -> Found:
    """Ask where a thing is that was seen before, and return the answers merged."""
    if samples == 1:
        return await ask_once(0)
    least_side = LEAST_SIDE_SHARE * max(size)  # boxes of smaller things are compared enlarged
    # Just over half of the answers are asked for first: if they agree, no others outvote them.
    majority = samples // 2 + 1
    answers = await _ask_all(ask_once, range(majority))  # without those that a cache repeated
    # Raises only if more than half of all `samples` can't be read: the rest may still be asked for.
    readable = _readable_answers(answers, samples)
    # A missing answer counts as a disagreement: it may have said something else.
    of_majority = merge_answers(readable, majority, least_side)
    if of_majority.disagreement:
        answers += await _ask_all(ask_once, range(majority, samples))
        readable = _readable_answers(answers, samples)
    if len(answers) == 1:  # all others were repeated, so there is nothing to merge
        return _without_scores(readable[0])
    # Answers that find nothing have no vote, unless all find nothing.
    voters = [answer for answer in readable if answer.instances] or readable
    return merge_answers(voters, len(voters), least_side)  # scores are shares of the voters


async def _ask_all(
    ask_once: Callable[[int], Awaitable[T]], numbers: Iterable[int]
) -> list[T | BaseException]:
    """Return each number's answer or error, without those that a gateway's cache repeated."""
    answers = await asyncio.gather(*map(ask_once, numbers), return_exceptions=True)
    not_repeated = [answer for answer in answers if not isinstance(answer, RepeatedReply)]
    return not_repeated or answers  # if all are repeated, their errors


def _readable_answers(answers: Sequence[T | BaseException], samples: int) -> list[T]:
    """Return the answers that can be read; raise where too many can't, or for another error."""
    errors: list[BaseException] = []
    readable: list[T] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            errors.append(answer)
        else:
            readable.append(answer)
    too_many_failed = 2 * len(errors) > samples or not readable
    for error in errors:
        if too_many_failed or not isinstance(error, UnreadableReply):
            raise error
    return readable


def _without_scores(found: Found) -> Found:
    """Return an answer without scores: they are shares of answers, and there is one."""
    return replace(found, instances=[replace(instance, score=None) for instance in found.instances])


def merge_answers(answers: Sequence[Found], samples: int, least_side: float = 0.0) -> Found:
    """Merge several answers about the same phrase into one, with the boxes that half have."""
    # Boxes that overlap at IoU 0.5 or more become one: its edges are the medians of theirs, and its
    # score is the share of `samples` answers that have it.
    clusters: list[_Cluster] = []
    for answer in answers:
        _add_to_clusters(answer, clusters, least_side)
    staying = [cluster for cluster in clusters if 2 * len(cluster) >= samples]  # half have it
    doubt_about_boxes = ""
    if staying:
        merged = Found("grounded", [_instance_of(cluster, samples) for cluster in staying])
        doubt_about_boxes = _doubt_of_half([answer.own_doubt for answer in answers], samples)
    else:
        merged = _commonest_without_box(answers)
    any_missing = len(answers) < samples  # it can't be read, and may have said something else
    have_all_boxes = all(len(cluster) == samples for cluster in clusters)
    have_one_status = len({answer.status for answer in answers}) == 1
    return replace(
        merged,
        disagreement=any_missing or not (have_all_boxes and have_one_status),
        doubt=_doubt_of_half([answer.doubt for answer in answers], samples),
        own_doubt=doubt_about_boxes,
    )


def _commonest_without_box(answers: Sequence[Found]) -> Found:
    """Return an answer without boxes, of the commonest status."""
    statuses = [answer.status for answer in answers]
    commonest = max(dict.fromkeys(statuses), key=statuses.count)  # of several, the first
    first_of_commonest = answers[statuses.index(commonest)]
    # Most have boxes, but no box is in half of them.
    status = "ambiguous" if commonest == "grounded" else commonest
    return Found(status, [], first_of_commonest.reason)


def _doubt_of_half(doubts: Sequence[str], samples: int) -> str:
    """Return the first doubt, where at least half of the answers have one, else ""."""
    stated = [doubt for doubt in doubts if doubt]
    if not stated or 2 * len(stated) < samples:
        return ""
    return stated[0]


_Cluster: TypeAlias = list[Instance]
"""Instances of the same thing: one from each answer that has it."""


def _add_to_clusters(answer: Found, clusters: list[_Cluster], least_side: float) -> None:
    """Add each of an answer's boxes to the cluster whose median box it matches, or to a new one."""
    # Boxes of small things are compared enlarged, see LEAST_SIDE_SHARE.
    enlarged = [enlarged_to(instance.bbox, least_side) for instance in answer.instances]
    medians = [enlarged_to(_median_box(cluster), least_side) for cluster in clusters]
    matched: set[int] = set()  # indices of instances
    for cluster_index, (index, _overlap) in match_boxes(enlarged, medians).items():
        clusters[cluster_index].append(answer.instances[index])
        matched.add(index)
    for index, instance in enumerate(answer.instances):
        if index not in matched:
            clusters.append([instance])


def _median_box(cluster: _Cluster) -> Bbox:
    return median_box([instance.bbox for instance in cluster])


def _instance_of(cluster: _Cluster, samples: int) -> Instance:
    bbox = nearest_pixels(_median_box(cluster))
    return replace(cluster[0], bbox=bbox, score=round(len(cluster) / samples, 4))

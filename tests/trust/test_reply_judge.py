"""Whether single replies are in the format that was asked for: another one is told in most replies,
and honest ones are rarely asked for again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.trust.format_readings import SeenBox, Sent, other_readings
from dataflow_grounding.trust.reply_judge import (
    CHECK_AT,
    JudgedReply,
    ReplyJudge,
)
from tests.support.stand_ins.watched_model import MIXED, Scene

X, Y = "xyxy_1000", "yxyx_1000"
Seen = Sequence[tuple[str, Bbox]]
ANYTHING = Scene()


def scenes(seed: int, count: int, scene: Scene) -> Iterator[tuple[Size, Seen]]:
    """Pictures of photos' things: the size of each, and its boxes in pixels with their phrases."""
    draw = random.Random(seed)
    for _ in range(count):
        size = draw.choice(scene.sizes)
        things = draw.sample(MIXED, draw.randint(1, 4))
        yield size, [(thing.phrase, scene.box(draw, size, thing)) for thing in things]


def judged(judge: ReplyJudge, written: str, size: Size, seen: Seen) -> JudgedReply:
    """A reply in a format, as the judge finds it."""
    known = find_box_format(written, "")
    boxes = []
    for phrase, bbox in seen:
        numbers = known.from_pixels(bbox, original=size)
        boxes.append(SeenBox(box_of(numbers), None, phrase))
    return judge.judge(boxes, Sent(size))


def seen_again(chance: random.Random, size: Size, seen: Seen) -> Seen:
    """Boxes as a model sees them the second time: edges are off by a hundredth of the side."""
    again = []
    for phrase, bbox in seen:
        edges = [
            min(max(edge + chance.gauss(0, 0.01 * side), 0), side)
            for edge, side in zip(bbox, size * 2, strict=True)
        ]
        (left, right), (top, bottom) = sorted(edges[::2]), sorted(edges[1::2])
        again.append((phrase, (left, top, right, bottom)))
    return again


def experienced(asked: str, scene: Scene = ANYTHING) -> ReplyJudge:
    """A judge that has learnt from many right replies."""
    judge = ReplyJudge(find_box_format(asked, ""))
    for size, seen in scenes(1, 120, scene):
        judge.learn(judged(judge, asked, size, seen))
    return judge


@pytest.mark.parametrize(
    ("asked", "written", "least"),
    [
        (X, Y, 0.5),
        (X, "xyxy_px", 0.4),
        (X, "xyxy_100", 0.9),
        (X, "xywh_1000", 0.5),
        ("xyxy_px", X, 0.4),
    ],
)
def test_another_format_is_told_in_most_replies(asked: str, written: str, least: float) -> None:
    judge = experienced(asked)
    replies = [judged(judge, written, *found) for found in scenes(2, 100, ANYTHING)]
    assert sum(map(judge.shows_other, replies)) >= least * 100


@pytest.mark.parametrize(
    ("asked", "scene"),
    [
        (X, Scene(area=-6.5)),
        (Y, ANYTHING),
        ("xywh_1000", Scene(corner=True)),
        ("cxcywh_px", Scene(corner=True)),
        ("xyxy_1", Scene(level=False)),
    ],
    ids=str,
)
def test_honest_replies_are_rarely_doubted(asked: str, scene: Scene) -> None:
    judge = experienced(asked, scene)
    doubted = 0
    for found in scenes(2, 200, scene):
        reply = judged(judge, asked, *found)
        judge.add(reply, "lying")
        doubted += judge.is_doubtful(reply)
        judge.learn(reply)
    assert doubted <= 0.04 * 200


@pytest.mark.parametrize(
    ("asked", "scene"),
    [
        (X, ANYTHING),
        (Y, Scene(level=False)),
        ("xywh_1000", Scene(level=False)),
        ("cxcywh_1000", ANYTHING),
    ],
    ids=str,
)
def test_right_replies_are_rarely_asked_for_again(asked: str, scene: Scene) -> None:
    runs, replies, first_ones = 3, 200, 50
    asked_again = 0
    for seed in range(runs):
        judge, chance = ReplyJudge(find_box_format(asked, "")), random.Random(seed)
        for number, (size, seen) in enumerate(scenes(seed, replies, scene)):
            reply = judged(judge, asked, size, seen)
            judge.add(reply, "lying")
            if judge.is_doubtful(reply):
                asked_again += number >= first_ones
                second = judged(judge, asked, size, seen_again(chance, size, seen))
                judge.add(second, "lying")
                judge.compare(reply, second)
                reply = second
            judge.learn(reply)
    assert asked_again <= 0.015 * runs * (replies - first_ones)


def test_replies_that_were_asked_for_again_in_vain_make_the_next_one_take_more() -> None:
    judge = experienced(X)
    found = next(scenes(2, 1, ANYTHING))
    odd, right = judged(judge, Y, *found), judged(judge, X, *found)
    assert judge.shows_other(odd)
    for _ in range(20):
        assert judge.compare(right, right) is None
    assert not judge.shows_other(odd)


@pytest.mark.parametrize("written", ["xyxy_500", "xyxy_px", Y])
@pytest.mark.parametrize("scene", [ANYTHING, Scene(logo=True)], ids=["photos", "a logo"])
def test_another_format_is_certain_within_140_replies(written: str, scene: Scene) -> None:
    for seed in range(3):
        judge = ReplyJudge(find_box_format(X, ""))
        certain = []
        for size, seen in scenes(seed, 140, scene):
            judge.add(judged(judge, written, size, seen), "lying")
            certain.append(judge.newly_certain("lying"))
        assert set(certain) == {None, written}


def test_two_corners_that_are_written_axis_by_axis_are_told() -> None:
    judge = experienced(X)
    told = 0
    for size, seen in scenes(3, 100, ANYTHING):
        boxes = []
        for phrase, bbox in seen:
            x1, y1, x2, y2 = find_box_format(X, "").from_pixels(bbox, original=size)
            boxes.append(SeenBox(box_of([x1, x2, y1, y2]), None, phrase))
        reply = judge.judge(boxes, Sent(size))
        told += judge.shows_other(reply) and reply.likeliest == "x1, x2, y1, y2 of 1000"
    assert told >= 0.5 * 100


@pytest.mark.parametrize(
    ("numbers", "may_be"),
    [
        ((100, 100, 900, 1900), ["xyxy_px"]),
        ((100, 100, 1500, 400), ["xyxy_px"]),
        ((100, 100, 9000, 9000), []),
    ],
)
def test_numbers_out_of_range_are_in_no_format_whose_range_they_pass(
    numbers: Bbox, may_be: list[str]
) -> None:
    judge = ReplyJudge(find_box_format(X, ""))
    reply = judge.judge([SeenBox(numbers, None, "a mug")], Sent((2000, 2000)))
    assert set(reply.ratios) <= {"xyxy_px", "yxyx_px", "xywh_px"}
    assert set(may_be) <= set(reply.ratios)
    assert (reply.likeliest is None) == (not may_be)
    assert judge.shows_other(reply) == bool(may_be)


def test_a_reply_without_boxes_says_nothing() -> None:
    judge = ReplyJudge(find_box_format(X, ""))
    reply = judge.judge([], Sent((640, 480)))
    judge.add(reply, "lying")
    assert (reply.likeliest, judge.shows_other(reply), judge.alarm("lying")) == (None, False, None)


def test_no_format_is_compared_with_itself_or_what_a_reply_cannot_tell_from_it() -> None:
    names = [reading.name for reading in other_readings(find_box_format(X, ""))]
    assert len(names) == len(set(names))
    assert not {X, "xyxy_999", "xyxy_1024"} & set(names)
    assert {Y, "xywh_1000", "cxcywh_1000", "xyxy_px", "yxyx_px", "xyxy_100", "xyxy_1"} <= set(names)


def test_replies_sum_up_to_an_alarm_and_a_good_check_takes_it_back() -> None:
    lying = Scene(sizes=((640, 480),))
    judge = experienced(X, lying)
    count = 0
    for size, seen in scenes(4, 60, lying):
        if judge.alarm("lying") is None:
            judge.add(judged(judge, Y, size, seen), "lying")
            count += 1
    assert judge.alarm("lying") == Y
    assert judge.alarm("upright") is None, "of which it says nothing"
    assert CHECK_AT / 3 <= count <= 12, "no reply counts for more than three"
    judge.calm("upright")
    assert judge.alarm("lying") == Y
    judge.calm("lying")
    assert judge.alarm("lying") is None


def test_of_several_formats_that_are_likelier_the_likeliest_is_named() -> None:
    judge = ReplyJudge(find_box_format(X, ""))
    boxes = [SeenBox((0.1, 0.1, 0.9, 0.9), None, "a mug")]
    reply = replace(judge.judge(boxes, Sent((640, 480))), ratios={"first": 2.5, "second": 3.5})
    for _ in range(12):
        judge.add(reply, "lying")
    assert judge.alarm("lying") == judge.alarm_without_check("lying", others_told=True) == "second"


def test_right_replies_raise_no_alarm() -> None:
    judge = experienced(X)
    for size, seen in scenes(5, 200, ANYTHING):
        reply = judged(judge, X, size, seen)
        judge.add(reply, "lying")
        judge.learn(reply)
        assert judge.alarm_without_check("lying", others_told=False) is None


@pytest.mark.parametrize("written", [Y, "xyxy_100"])
def test_a_second_reply_proves_the_format_of_the_first(written: str) -> None:
    judge = ReplyJudge(find_box_format(X, ""))
    chance = random.Random(6)
    proven = []
    for size, seen in scenes(6, 60, ANYTHING):
        second = judged(judge, X, size, seen_again(chance, size, seen))
        proven.append(judge.compare(judged(judge, written, size, seen), second))
    assert proven.count(written) >= 30
    assert len(proven) - proven.count(None) - proven.count(written) <= 3, "seldom for another one"


def test_two_right_replies_prove_nothing() -> None:
    judge = ReplyJudge(find_box_format(X, ""))
    chance = random.Random(7)
    for size, seen in scenes(7, 120, ANYTHING):
        second = judged(judge, X, size, seen_again(chance, size, seen))
        assert judge.compare(judged(judge, X, size, seen), second) is None
    assert judge.mixed is None


@pytest.mark.parametrize("written", [("xyxy_px", Y), (Y, "xyxy_px")])
def test_of_two_mixed_formats_the_one_that_was_proven_first_is_named(
    written: tuple[str, str],
) -> None:
    judge = ReplyJudge(find_box_format(X, ""))
    size = (640, 480)
    seen = [("a dog", (32.0, 120.0, 224.0, 216.0)), ("a mug", (256.0, 24.0, 448.0, 120.0))]
    for other in written:
        reply = judged(judge, other, size, seen)
        assert judge.compare(reply, judged(judge, X, size, seen)) == other
    assert judge.mixed == written[0]

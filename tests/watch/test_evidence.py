"""What replies say of their format: one by itself, many together, two to one question; ordinary
ones never speak.
"""

from __future__ import annotations

import random

import pytest

from benchmarks.stand_ins.watched_model import PEOPLE, Scene
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.watch._evidence import SAME_BOX, SHOWS, UNKNOWN, Evidence
from dataflow_grounding.watch._readings import JudgedReply, SeenBox, Sent

X, Y = "xyxy_1000", "yxyx_1000"
SIZES: list[Size] = [
    (640, 480),
    (480, 640),
    (1024, 768),
    (1920, 1080),
    (2048, 1365),
    (1200, 1600),
    (500, 375),
]
LARGE: list[Size] = [(1920, 1080), (2048, 1365), (1500, 2000)]
SMALL: list[Size] = [(640, 480), (480, 640), (500, 375)]


class Photos:
    """Photos with things in them, and a model that writes their boxes."""

    def __init__(
        self, seed: int, sizes: list[Size], scene: Scene | None = None, noise: float = 0.01
    ) -> None:
        self.draw = random.Random(seed)
        self.sizes, self.scene, self.noise = sizes, scene or Scene(), noise

    def question(self) -> tuple[Size, dict[str, Bbox]]:
        """The size of a picture, and where its things are."""
        size = self.draw.choice(self.sizes)
        things = {
            thing.phrase: thing
            for thing in self.draw.choices(self.scene.things, k=self.draw.randint(1, 4))
        }
        return size, {
            text: self.scene.box(self.draw, size, thing) for text, thing in things.items()
        }

    def reply(
        self, written: str, question: tuple[Size, dict[str, Bbox]]
    ) -> tuple[list[SeenBox], Sent]:
        """The boxes as a model writes them that errs a little."""
        size, boxes = question
        seen = []
        for text, bbox in boxes.items():
            edges = [
                min(max(edge + self.draw.gauss(0, self.noise) * side, 0), side)
                for edge, side in zip(bbox, size * 2, strict=True)
            ]
            x1, x2, y1, y2 = *sorted(edges[0::2]), *sorted(edges[1::2])
            numbers = find_box_format(written, "").from_pixels((x1, y1, x2, y2), original=size)
            seen.append(SeenBox(box_of(numbers), None, text))
        return seen, Sent(size)


def judged(evidence: Evidence, photos: Photos, written: str) -> JudgedReply:
    reply = evidence.judge(*photos.reply(written, photos.question()))
    evidence.add(reply)
    return reply


# --- All replies, where there are no probe pictures


@pytest.mark.slow
@pytest.mark.parametrize("name", [X, Y, "xyxy_px", "xywh_px", "xyxy_1", "cxcywh_1", "xyxy_100"])
def test_ordinary_photos_are_never_taken_for_another_format(name: str) -> None:
    for seed in range(20):
        evidence = Evidence(find_box_format(name, ""), learns=False)
        photos = Photos(seed, SIZES, noise=0.005 * (seed % 4))
        for _ in range(150):
            judged(evidence, photos, name)
            assert evidence.overwhelming is None


WRONG = [
    (X, "xyxy_px", LARGE),
    (X, "xyxy_px", SMALL),
    ("xyxy_px", X, LARGE),
    ("xyxy_px", "xyxy_1", SIZES),
    (X, "xyxy_1", SIZES),
    (X, "xyxy_100", SIZES),
    (X, "xywh_1000", SIZES),
    ("xywh_1000", X, SIZES),
    (X, Y, SIZES),
    (Y, X, SIZES),
    ("xyxy_px", "yxyx_px", LARGE),
    (X, "yxyx_px", SMALL),
]


@pytest.mark.parametrize(
    ("asked", "written", "sizes"),
    [pytest.param(*case, id=f"{case[1]} for {case[0]}") for case in WRONG],
)
def test_another_format_is_noticed_and_named(asked: str, written: str, sizes: list[Size]) -> None:
    named = []
    for seed in range(10):
        evidence, photos = Evidence(find_box_format(asked, ""), learns=False), Photos(seed, sizes)
        count = 0
        while evidence.overwhelming is None:
            judged(evidence, photos, written)
            count += 1
            assert count <= 40
        named.append(evidence.overwhelming)
    assert named.count(written) >= 9


def test_one_box_for_everything_is_noticed() -> None:
    evidence = Evidence(find_box_format(X, ""), learns=False)
    for _ in range(20):
        boxes = [SeenBox((100, 100, 900, 900), None, phrase) for phrase in ("a mug", "a dog")]
        evidence.add(evidence.judge(boxes, Sent((640, 480))))
    assert evidence.overwhelming == SAME_BOX


def test_boxes_far_out_of_the_picture_are_in_a_format_that_nobody_knows() -> None:
    evidence, draw = Evidence(find_box_format(X, ""), learns=False), random.Random(1)
    for _ in range(20):
        x, y = draw.randint(900, 1500), draw.randint(900, 1500)
        evidence.add(
            evidence.judge([SeenBox((x, y, x + 700, y + 700), None, "a mug")], Sent((900, 900)))
        )
    assert evidence.overwhelming == UNKNOWN


def test_a_few_people_lying_down_are_no_evidence() -> None:
    evidence = Evidence(find_box_format(X, ""), learns=False)
    for n in range(5):
        evidence.add(
            evidence.judge([SeenBox((100, 400, 900, 500 + n), None, "a man")], Sent((900, 900)))
        )
        assert evidence.overwhelming is None


# --- One reply, given those before it


@pytest.mark.slow
@pytest.mark.parametrize(
    "scene", [Scene(), Scene(things=PEOPLE), Scene(area=-6.5), Scene(logo=True)]
)
def test_hardly_any_right_reply_is_doubtful_and_most_swapped_ones_are(scene: Scene) -> None:
    doubtful = dict.fromkeys((X, Y), 0)
    for written in doubtful:
        evidence, photos = Evidence(find_box_format(X, "")), Photos(3, SMALL, scene)
        for _ in range(100):
            evidence.learn(judged(evidence, photos, X))
        doubtful[written] = sum(
            judged(evidence, photos, written).ratio >= SHOWS for _ in range(200)
        )
    assert doubtful[X] <= 8
    assert doubtful[Y] >= 80


def test_things_that_are_always_at_one_place_are_expected_there() -> None:
    logo = (820.0, 40.0, 970.0, 120.0)
    evidence = Evidence(find_box_format(X, ""))
    for n in range(30):
        reply = evidence.judge(
            [SeenBox((logo[0] - n % 3, *logo[1:]), None, "the logo")], Sent((640, 480))
        )
        evidence.add(reply)
        evidence.learn(reply)
    assert evidence.judge([SeenBox(logo, None, "the logo")], Sent((640, 480))).ratio < 0
    turned = evidence.judge([SeenBox((40, 820, 120, 970), None, "the logo")], Sent((640, 480)))
    assert (turned.likeliest, turned.ratio >= SHOWS) == (Y, True)
    assert evidence.alarmed is None


def test_after_a_probe_picture_has_shown_that_all_is_well_it_takes_more_to_alarm() -> None:
    evidence, photos = Evidence(find_box_format(X, "")), Photos(1, SMALL)

    def until_alarmed() -> int:
        count = 0
        while evidence.alarmed is None:
            judged(evidence, photos, Y)
            count += 1
        return count

    first = until_alarmed()
    evidence.withdraw({"landscape", "portrait"})
    assert evidence.alarmed is None
    assert until_alarmed() > first


# --- Two replies to one question


@pytest.mark.parametrize(
    "written", [Y, "xyxy_px", "xywh_1000", "cxcywh_1000", "xyxy_100", "yxyx_px"]
)
def test_a_second_reply_proves_in_which_format_the_first_was(written: str) -> None:
    evidence, photos = Evidence(find_box_format(X, "")), Photos(5, SMALL, noise=0.02)
    named = []
    for _ in range(60):
        question = photos.question()
        first, second = (evidence.judge(*photos.reply(name, question)) for name in (written, X))
        evidence.add(first)
        named.append(evidence.compare(first, second))
    assert named.count(written) >= 45
    assert evidence.mixed_with == written


@pytest.mark.slow
def test_two_replies_as_asked_prove_nothing_however_they_differ() -> None:
    for noise in (0.005, 0.03, 0.06):
        evidence, photos = Evidence(find_box_format(X, "")), Photos(6, SMALL, noise=noise)
        for _ in range(500):
            question = photos.question()
            first, second = (evidence.judge(*photos.reply(X, question)) for _ in range(2))
            elsewhere = evidence.judge(*photos.reply(X, (question[0], photos.question()[1])))
            evidence.add(first)
            assert evidence.compare(first, second) is None
            evidence.compare(elsewhere, second)
            assert evidence.mixed_with is None


@pytest.mark.slow
def test_one_slip_in_a_long_run_is_no_mixture_and_two_near_each_other_are() -> None:
    evidence, photos = Evidence(find_box_format(X, "")), Photos(7, SMALL)

    def slip() -> None:
        question = photos.question()
        while len(question[1]) < 3:
            question = photos.question()
        first, second = (evidence.judge(*photos.reply(name, question)) for name in ("xywh_1000", X))
        assert evidence.compare(first, second) == "xywh_1000"

    for _ in range(300):
        judged(evidence, photos, X)
    slip()
    assert evidence.mixed_with is None
    for _ in range(500):
        judged(evidence, photos, X)
    slip()
    assert evidence.mixed_with is None, "the first is too long ago"
    slip()
    assert evidence.mixed_with == "xywh_1000"


def test_hostile_boxes_are_judged_too() -> None:
    evidence = Evidence(find_box_format(X, ""))
    for numbers in (
        (0, 0, 0, 0),
        (1e300, -1e300, 1e308, 1e-300),
        (-1, -1, -1, -1),
        (1000, 1000, 0, 0),
    ):
        reply = evidence.judge([SeenBox(numbers, None, "a" * 100_000)] * 1000, Sent((1, 1)))
        evidence.add(reply)
        evidence.learn(reply)
        evidence.compare(reply, reply)
    assert evidence.replies == 4

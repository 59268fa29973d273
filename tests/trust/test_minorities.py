"""A part of the replies in another format: found in a single reply, proven by a second one, never
written as done.
"""

from __future__ import annotations

import json
import random
import shutil
from typing import Any

import pytest

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import PEOPLE, Scene, WatchedModel, grounding_input
from tests.support.workplace import Done, Workplace

pytestmark = pytest.mark.slow

X, Y = "xyxy_1000", "yxyx_1000"
SELDOM = 10**6  # requests between two checks: none but the first and the last one come
ONE_PHRASE = Scene(most_phrases=1, empty=0.0)


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.settings |= {"vlm.check_every": SELDOM, "vlm.box_format": X}
    workplace.settings |= {"workflow.steps": ["1"], "workflow.max_workers": 1}
    return workplace


def run(place: Workplace, server: LoopbackServer, **settings: Any) -> Done:
    return place.run(**{"vlm.openai.base_url": server.base_url, **settings})


def turned_if_upright(number: int, size: Size) -> str:
    return Y if size[1] > size[0] else X


def test_x_and_y_swapped_in_portraits_alone_are_found_before_a_second_box_is_asked_for(
    place: Workplace,
) -> None:
    scene = Scene(sizes=((640, 480), (480, 640)))
    grounding_input(place, scene, 20)
    model = WatchedModel(turned_if_upright, scene, noise=0.02, outliers=0.05)
    with LoopbackServer(model) as server:
        done = run(place, server, **{"workflow.max_workers": 8})
    assert (done.code, model.given, place.annotations()) == (2, 1, []), done
    assert (
        f"{Y} would fit these, where pictures of other shapes come as asked: leave pictures like"
        in done.err
    )
    assert "vlm.on_suspect_boxes: warn" in done.err
    assert "dataflowgrounding calibrate" not in done.err, "that finds no format for both either"


def test_a_tenth_of_the_replies_in_another_format_is_never_written(place: Workplace) -> None:
    """`benchmarks.box_watch` plays other formats, shares and seeds."""
    grounding_input(place, Scene(), 120, 3)
    model = WatchedModel(
        lambda number, _: "xywh_1000" if number % 10 == 7 else X,
        Scene(),
        seed=3,
        noise=0.01,
        outliers=0.05,
    )
    with LoopbackServer(model) as server:
        done = run(place, server, **{"workflow.max_workers": 8})
    assert (done.code, place.annotations()) == (2, []), done
    assert "The endpoint answers in more than one format" in done.err
    wrong = sum(any(reply.written != X for reply in replies) for replies in model.replies.values())
    assert wrong <= 8


def boxes(place: Workplace) -> list[Any]:
    return [[e["instances"] for e in record["expressions"]] for record in place.annotations()]


def test_one_reply_that_shows_it_is_asked_again_and_the_second_counts(place: Workplace) -> None:
    grounding_input(place, ONE_PHRASE, 40)
    model = WatchedModel(
        lambda number, _: "xyxy_100" if number == 30 else X, ONE_PHRASE, noise=0.03
    )
    with LoopbackServer(model) as server:
        done = run(place, server)
        assert (done.code, model.answered, model.wrong(X)) == (0, 40, 0), done
        assert 1 <= model.again <= 3
        assert done.summary["notes"]["mixed_formats"] == 1
        assert (
            "Warning: 1 reply came in xyxy_100 and, asked again, in xyxy_1000 as asked" in done.err
        )
        first, sent = boxes(place), server.count()
        for path in (
            place.results / "annotations.jsonl",
            place.results / ".ckpt" / "finished.json",
        ):
            path.unlink()
        again = run(place, server)
        assert (again.code, server.count()) == (0, sent), (
            "what was asked again then is known from the store"
        )
    assert boxes(place) == first


def test_a_killed_runs_doubtful_reply_is_asked_again_by_the_next(place: Workplace) -> None:
    def is_played() -> bool:
        shutil.rmtree(place.results, ignore_errors=True)
        grounding_input(place, ONE_PHRASE, 40)
        model = WatchedModel(
            lambda number, _: "xyxy_100" if number == 20 else X, ONE_PHRASE, noise=0.03
        )
        with LoopbackServer(model) as server:
            # three probe pictures, one of each kind, another that the numbers call for, and up to
            # that reply
            stopped = run(place, server, **{"workflow.max_requests": 25})
            if model.given < 20:
                return False  # they called for more
            assert (stopped.code, model.given <= 22, model.wrong(X)) == (3, True, 1), stopped
            done = run(place, server)
            assert (done.code, model.answered, model.wrong(X)) == (0, 40, 0), done
            assert 1 <= model.again <= 3
        return True

    assert any(is_played() for _ in range(3))


def test_a_run_that_may_go_on_is_warned_once_and_stays_suspect(place: Workplace) -> None:
    grounding_input(place, Scene(), 90)
    model = WatchedModel(lambda number, _: Y if number % 10 == 7 else X, Scene(), noise=0.01)
    with LoopbackServer(model) as server:
        done = run(place, server, **{"vlm.on_suspect_boxes": "warn"})
    assert (done.code, done.err.count("Warning:")) == (0, 1), done
    assert "The endpoint answers in more than one format" in done.err
    assert place.run_json()["suspect_boxes"]


class Lying(WatchedModel):
    """Somebody lies where all others stand: the model says so as often as it is asked, and it is
    so.
    """

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer = super().__call__(request)
        if not asks_for_rectangles(request):
            question = f"{request.image_digests[0]} {json.dumps(request.input['phrases'])}"
            if list(self.replies).index(question) == 40:
                answer["objects"][0]["bbox_2d"] = [250, 510, 750, 620]
        return answer


@pytest.mark.parametrize("sees_rectangles", [True, False])
def test_a_reply_that_stays_odd_is_marked_unless_a_check_vouches_for_it(
    place: Workplace, sees_rectangles: bool
) -> None:
    scene = Scene(things=PEOPLE, most_phrases=1, empty=0.0, sizes=((640, 480),))
    grounding_input(place, scene, 50)
    model = Lying(lambda *_: X, scene)

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        is_last_probe = asks_for_rectangles(request) and model.given >= 40
        return {"objects": []} if is_last_probe and not sees_rectangles else model(request)

    with LoopbackServer(answers) as server:
        done = run(place, server)
        first_run = place.annotations()
        for file in place.results.iterdir():  # another run reads the same replies
            if file.is_file() and "replies" not in file.name:
                file.unlink()
        given = model.given
        run(place, server)
        assert model.given == given
    assert (done.code, done.summary["failed"]) == (0, 0), done
    assert 1 <= done.summary["notes"]["odd_boxes"] <= 2
    marked = [record for record in first_run if record.get("suspect_boxes")]
    assert all(record in place.annotations() for record in marked)
    boxes_of_it = [record["expressions"][0]["instances"][0]["bbox"] for record in marked]
    lying = [box for box in boxes_of_it if box[2] - box[0] > 2 * (box[3] - box[1])]
    assert bool(lying) is not sees_rectangles


@pytest.mark.parametrize(
    ("scene", "how"),
    [
        pytest.param(Scene(logo=True), {"noise": 0.02, "swapped": 0.15}, id="swapped corners"),
        pytest.param(Scene(), {"noise": 0.06}, id="noise"),
    ],
)
def test_honest_runs_are_not_stopped_however_odd_they_are(
    place: Workplace, scene: Scene, how: dict[str, float]
) -> None:
    grounding_input(place, scene, 60, 1)
    model = WatchedModel(lambda *_: X, scene, seed=1, outliers=0.05, **how)
    with LoopbackServer(model) as server:
        done = run(place, server, **{"vlm.check_every": 100})
    assert done.code == 0, done
    suspects = [record for record in place.annotations() if record.get("suspect_boxes")]
    assert len(suspects) <= 1, "of sixty"
    assert model.again <= 4


class Shifting(WatchedModel):
    """Three replies in ten are further to the right by a tenth of the width."""

    requests = 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer = super().__call__(request)
        self.requests += 1
        if random.Random(self.requests).random() < 0.3:
            for found in answer["objects"]:
                x1, y1, x2, y2 = found["bbox_2d"]
                found["bbox_2d"] = [min(x1 + 100, 1000), y1, min(x2 + 100, 1000), y2]
        return answer


def test_three_replies_in_ten_that_are_shifted_are_found_where_probe_pictures_meet_them(
    place: Workplace,
) -> None:
    """No other format explains them, and further copies of the same picture fit."""
    grounding_input(place, ONE_PHRASE, 60)
    model = Shifting(lambda *_: X, ONE_PHRASE, noise=0.01)
    with LoopbackServer(model) as server:
        done = run(place, server, **{"vlm.check_every": 5})
    assert (done.code, place.annotations()) == (2, []), done

"""A part of the replies in another format: found in a single reply, proven by a second one, never
written as done.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import PEOPLE, FormatOf, Scene, WatchedModel, watched
from tests.support.workplace import Workplace

X, Y = "xyxy_1000", "yxyx_1000"
ONE_PHRASE = Scene(most_phrases=1, empty=0.0)


@pytest.fixture
def place(place: Workplace) -> Workplace:
    place.settings["workflow.max_workers"] = 1
    return place


def turned_if_upright(number: int, size: Size) -> str:
    return Y if size[1] > size[0] else X


def test_x_and_y_swapped_in_portraits_alone_are_found_before_a_second_box_is_asked_for(
    place: Workplace, server: LoopbackServer
) -> None:
    scene = Scene(sizes=((640, 480), (480, 640)))
    model = watched(place, server, turned_if_upright, scene, 20, noise=0.02, outliers=0.05)
    done = place.run(**{"workflow.max_workers": 8})
    assert (done.code, model.given, place.annotations()) == (2, 1, []), done
    assert (
        f"{Y} would fit these, where pictures of other shapes come as asked: leave pictures like"
        in done.err
    )
    assert "vlm.on_suspect_boxes: warn" in done.err
    assert "dataflowgrounding calibrate" not in done.err, "that finds no format for both either"


def one_in_ten(other: str) -> FormatOf:
    """The format of replies of which one in ten comes in another one."""
    return lambda number, _: other if number % 10 == 7 else X


def once(at: int) -> FormatOf:
    """The format of replies of which one comes in parts of a hundred."""
    return lambda number, _: "xyxy_100" if number == at else X


def test_a_tenth_of_the_replies_in_another_format_is_never_written(
    place: Workplace, server: LoopbackServer
) -> None:
    """`benchmarks.box_watch` plays other formats, shares and seeds."""
    errors = {"noise": 0.01, "outliers": 0.05}
    model = watched(place, server, one_in_ten("xywh_1000"), records=120, seed=3, **errors)
    done = place.run(**{"workflow.max_workers": 8})
    assert (done.code, place.annotations()) == (2, []), done
    assert "The endpoint answers in more than one format" in done.err
    wrong = sum(any(reply.written != X for reply in replies) for replies in model.replies.values())
    assert wrong <= 8


def boxes(place: Workplace) -> list[Any]:
    return [[e["instances"] for e in record["expressions"]] for record in place.annotations()]


def test_one_reply_that_shows_it_is_asked_again_and_the_second_counts(
    place: Workplace, server: LoopbackServer
) -> None:
    model = watched(place, server, once(30), ONE_PHRASE, noise=0.03)
    done = place.run()
    assert (done.code, model.answered, model.wrong(X)) == (0, 40, 0), done
    assert 1 <= model.again <= 3
    assert done.summary["notes"]["mixed_formats"] == 1
    assert "Warning: 1 reply came in xyxy_100 and, asked again, in xyxy_1000 as asked" in done.err
    first, sent = boxes(place), server.count()
    (place.results / "annotations.jsonl").unlink()
    (place.results / ".ckpt" / "finished.json").unlink()
    again = place.run()
    assert (again.code, server.count()) == (0, sent), (
        "what was asked again then is known from the store"
    )
    assert boxes(place) == first


def test_a_killed_runs_doubtful_reply_is_asked_again_by_the_next(
    place: Workplace, server: LoopbackServer
) -> None:
    model = watched(place, server, once(20), ONE_PHRASE, noise=0.03)
    # three probe pictures, one of each kind, another that the numbers call for, and up to that reply
    stopped = place.run(**{"workflow.max_requests": 25})
    assert (stopped.code, model.wrong(X)) == (3, 1), stopped
    assert 20 < model.given <= 22
    done = place.run()
    assert (done.code, model.answered, model.wrong(X)) == (0, 40, 0), done
    assert 1 <= model.again <= 3


def test_a_run_that_may_go_on_is_warned_once_and_stays_suspect(
    place: Workplace, server: LoopbackServer
) -> None:
    watched(place, server, one_in_ten(Y), records=90, noise=0.01)
    done = place.run(**{"vlm.on_suspect_boxes": "warn"})
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
    place: Workplace, sees_rectangles: bool, server: LoopbackServer
) -> None:
    scene = Scene(things=PEOPLE, most_phrases=1, empty=0.0, sizes=((640, 480),))
    model = watched(place, server, lambda *_: X, scene, 50, kind=Lying)

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        is_last_probe = asks_for_rectangles(request) and model.given >= 40
        return {"objects": []} if is_last_probe and not sees_rectangles else model(request)

    server.answers = answers
    done = place.run()
    first_run = place.annotations()
    for file in place.results.iterdir():  # another run reads the same replies
        if file.is_file() and "replies" not in file.name:
            file.unlink()
    given = model.given
    place.run()
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
    place: Workplace, scene: Scene, how: dict[str, float], server: LoopbackServer
) -> None:
    model = watched(place, server, lambda *_: X, scene, 60, seed=1, outliers=0.05, **how)
    done = place.run(**{"vlm.check_every": 100})
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
    place: Workplace, server: LoopbackServer
) -> None:
    """No other format explains them, and further copies of the same picture fit."""
    watched(place, server, lambda *_: X, ONE_PHRASE, 60, kind=Shifting, noise=0.01)
    done = place.run(**{"vlm.check_every": 5})
    assert (done.code, place.annotations()) == (2, []), done

"""While the boxes of a run are in doubt: nothing more is sent than was in flight, and no doubt that
was settled returns.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.box_watch import grounding_input
from benchmarks.places.workplace import Done, Workplace
from benchmarks.stand_ins.watched_model import Scene, Thing, WatchedModel
from dataflow_grounding.extras.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.extras.testing.answers import asks_for_rectangles, probe_in

pytestmark = pytest.mark.slow

X, Y = "xyxy_1000", "yxyx_1000"
IN_FLIGHT = 2
# seconds that replies take: while one is slow, all that wait could be answered
USUAL, SLOW = 0.03, 0.6


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.settings |= {"vlm.box_format": X, "vlm.check_every": 100, "workflow.steps": ["1"]}
    return workplace


def run(place: Workplace, server: LoopbackServer, **settings: Any) -> Done:
    return place.run(**{"vlm.openai.base_url": server.base_url, **settings})


class SlowProbe:
    """How long replies take: the probe picture of this number takes long, and how many boxes were
    asked for is noted when it comes.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.probes = self.boxes = 0
        self.boxes_when_it_came: int | None = None

    def __call__(self, request: ReceivedRequest) -> float:
        if not asks_for_rectangles(request):
            self.boxes += 1
            return USUAL
        self.probes += 1
        if self.probes != self._number:
            return USUAL
        self.boxes_when_it_came = self.boxes
        return SLOW

    @property
    def boxes_since(self) -> int:
        """How many boxes were asked for while it was on its way, and after it."""
        assert self.boxes_when_it_came is not None
        return self.boxes - self.boxes_when_it_came


@pytest.mark.parametrize(
    ("check_every", "scene", "slow"),
    [
        pytest.param(
            40,
            Scene(things=(Thing("a ball", 0.0, 0.1),), level=False),
            3,
            id="a probe picture was missed",
        ),
        pytest.param(1000, Scene(), 2, id="the replies alone look like another format"),
    ],
)
def test_requests_that_wait_for_room_are_held_while_the_run_is_in_doubt(
    place: Workplace, check_every: int, scene: Scene, slow: int
) -> None:
    grounding_input(place, Scene(**{**vars(scene), "sizes": ((640, 480),)}), 200)
    times = SlowProbe(slow)
    model = WatchedModel(lambda number, _: X if number < 38 else Y, scene, noise=0.01)
    with LoopbackServer(model, latency=times) as server:
        done = run(
            place, server, **{"vlm.check_every": check_every, "workflow.max_workers": IN_FLIGHT}
        )
    assert done.code == 2, done
    assert times.boxes_since <= IN_FLIGHT, "eight more had passed the watch, and waited for room"


def test_requests_that_were_held_are_sent_once_the_doubt_is_settled(place: Workplace) -> None:
    scene = Scene(sizes=((640, 480),))
    grounding_input(place, scene, 80)
    times = SlowProbe(3)
    model = WatchedModel(lambda number, _: X, scene, noise=0.01)

    def missed_once(request: ReceivedRequest) -> dict[str, Any]:
        if probe_in(request) is None or model.probes != 1:
            return model(request)
        other = WatchedModel(lambda *_: Y, scene)
        model.probes += 1
        return other(request)

    with LoopbackServer(missed_once, latency=times) as server:
        done = run(place, server, **{"vlm.check_every": 40, "workflow.max_workers": IN_FLIGHT})
    assert (done.code, model.answered, done.summary["failed"]) == (0, 80, 0), done
    assert done.summary["notes"]["mixed_formats"] == 1


# --- early replies that are judged once more, where the run only warns

BADGE = Scene(
    things=(Thing("the badge", 0.0, 0.1),),
    sizes=((640, 480),),
    logo=True,
    most_phrases=1,
    empty=0.0,
)
"""One thing at one place: once that is known, where it was seen elsewhere stands out."""


def test_a_run_that_warns_stays_suspect_once_the_review_has_proven_it(place: Workplace) -> None:
    # too few for a review before the end, where a check is due as well
    grounding_input(place, BADGE, 30)
    model = WatchedModel(lambda number, _: Y if number in (1, 3, 5) else X, BADGE, noise=0.01)
    with LoopbackServer(model) as server:
        done = run(place, server, **{"vlm.on_suspect_boxes": "warn"})
    assert (done.code, done.err.count("Warning:")) == (0, 1), done
    assert "The endpoint answers in more than one format" in done.err
    assert model.probes == 1, "that before the first request: none can settle it any more"
    assert model.given == 30 + 1, "the first reply that was asked again has proven it"
    assert all(record["suspect_boxes"] for record in place.annotations())


# --- probe pictures of one shape that nothing answers


class SilentOnSquares(WatchedModel):
    """Finds no rectangle in square probe pictures."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer, probe = super().__call__(request), probe_in(request)
        return {"objects": []} if probe is not None and probe.size[0] == probe.size[1] else answer


MANY_SQUARES = Scene(sizes=((640, 480), (480, 640), (700, 700)), most_phrases=4)


def test_probe_pictures_that_are_answered_vouch_for_no_shape_that_is_not(place: Workplace) -> None:
    grounding_input(place, MANY_SQUARES, 100)
    model = SilentOnSquares(
        lambda _, size: Y if size[0] == size[1] else X, MANY_SQUARES, noise=0.01
    )
    with LoopbackServer(model) as server:
        done = run(place, server)
    assert (done.code, place.annotations()) == (2, []), done
    assert f"{Y} would fit" in done.err


@pytest.mark.parametrize("asked", [X, "auto"])
def test_a_shape_whose_probe_pictures_go_unanswered_is_noted_and_ends_no_run(
    place: Workplace, asked: str
) -> None:
    grounding_input(place, MANY_SQUARES, 30)
    model = SilentOnSquares(lambda *_: X, MANY_SQUARES, noise=0.01)
    with LoopbackServer(model) as server:
        done = run(place, server, **{"vlm.box_format": asked})
    assert (done.code, done.summary["failed"]) == (0, 0), done
    assert done.summary["notes"]["unanswered_check"]
    assert ("The rectangles in pictures of 700x700 px were not answered" in done.err) is (
        asked == "auto"
    )

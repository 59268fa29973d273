"""How far a run's boxes reach: too little is said, and checked at once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.trust.reach import ENOUGH, Reach
from tests.support.workplace import Done, Workplace

X = "xyxy_1000"
SELDOM = 10**6  # requests between two checks: none but the first and the last one come


def run(place: Workplace, widest: int, count: int, **settings: Any) -> tuple[Done, list[bool]]:
    """A run whose boxes reach up to `widest` thousandths of the width.

    Also returns, of each request for boxes, whether it is a probe.
    """

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        if request.task != "phrase_grounding" or asks_for_rectangles(request):
            return EchoAnswers(X)(request)
        objects = []
        for phrase in request.input["phrases"]:
            # what is asked again is answered as before
            draw = random.Random(f"{request.image_digests} {phrase}")
            x, y = draw.randint(0, widest - 200), draw.randint(0, 700)
            box = [x, y, x + draw.randint(60, 200), y + draw.randint(60, 300)]
            objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": box})
        return {"objects": objects}

    place.rows(
        {"image_path": place.picture(f"{n}.jpg", (640, 400 + n)), "caption": "Alpha Beta Gamma"}
        for n in range(count)
    )
    with LoopbackServer(answers) as server:
        settings = {"vlm.box_format": X, "vlm.check_every": SELDOM, **settings}
        done = place.run(**{"vlm.openai.base_url": server.base_url, **settings})
        asked = [asks_for_rectangles(r) for r in server.requests if r.task == "phrase_grounding"]
    return done, asked


def test_boxes_that_never_pass_the_middle_are_told_once_and_checked(workplace: Workplace) -> None:
    done, asked = run(workplace, 490, 60)
    assert done.code == 0, done
    told = [line for line in done.err.splitlines() if line.startswith("Note: ")]
    assert len(told) == 1
    assert " boxes none passes " in told[0]
    assert "of the width. Look at some, if their things are not all there." in told[0]
    assert done.summary["notes"]["short_reach"] == 1
    assert any(asked[1:-1]), "a check that nothing else called for"
    assert workplace.run_json()["suspect_boxes"] is None


@pytest.mark.parametrize(
    ("widest", "count"),
    [pytest.param(900, 60, id="they pass it"), pytest.param(490, 30, id="they are too few")],
)
def test_nothing_is_told_of_others(workplace: Workplace, widest: int, count: int) -> None:
    done, _ = run(workplace, widest, count)
    assert (done.code, "Note: " in done.err) == (0, False), done
    assert "short_reach" not in done.summary["notes"]


def reach_of(size: Size, asked: str, boxes: int, furthest: float) -> str | None:
    whole = find_box_format(asked, "").limits(size)
    smaller = (1000, 1000) if asked == "xyxy_px" else size
    reach = Reach()
    for _ in range(boxes):
        of_whole = (smaller[0] / whole[0], smaller[1] / whole[1])
        reach.add([(0.1, 0.1, furthest, furthest)], of_whole)
    return reach.short()


@pytest.mark.parametrize(
    ("size", "asked", "boxes", "furthest", "told"),
    [
        ((640, 480), X, ENOUGH, 0.5, "of 100 boxes none passes 50% of the width"),
        ((640, 480), X, ENOUGH - 1, 0.5, None),
        ((640, 480), X, ENOUGH, 0.51, "of 100 boxes no number passes the width of its picture in"),
        ((640, 480), X, ENOUGH, 0.65, None),
        ((2000, 2000), X, ENOUGH, 0.65, None),  # pixels would be the larger range
        ((2000, 2000), "xyxy_px", ENOUGH, 0.45, "of 100 boxes none passes 45% of the width"),
        ((1600, 1600), "xyxy_px", ENOUGH, 0.6, "of 100 boxes no number passes the width of its"),
        ((640, 480), "xyxy_px", ENOUGH, 0.6, None),  # thousandths would be the larger range
        ((640, 480), "xyxy_1", ENOUGH, 0.6, None),
    ],
)
def test_what_reaches_too_little(
    size: Size, asked: str, boxes: int, furthest: float, told: str | None
) -> None:
    found = reach_of(size, asked, boxes, furthest)
    assert (found is None) == (told is None), found
    assert (found or "").startswith(told or "")


def test_one_box_that_reaches_further_settles_it() -> None:
    reach = Reach()
    reach.add([(0.1, 0.1, 0.3, 0.3)] * 150, (0.64, 0.48))
    assert reach.short()
    reach.add([(0.1, 0.1, 0.9, 0.9)], (0.64, 0.48))
    assert reach.short() is None
    reach.add([], (0.64, 0.48))
    assert reach.boxes == 151

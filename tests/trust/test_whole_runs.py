"""Whole runs: one kind of picture in another format is found, and honest ones are not stopped."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import PEOPLE, Scene, WatchedModel, watched
from tests.support.workplace import Workplace, rows_of

X, Y = "xyxy_1000", "yxyx_1000"


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


class SilentOnce(WatchedModel):
    """Finds no rectangle in its third probe picture."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        answer = super().__call__(request)
        is_third_probe = asks_for_rectangles(request) and self.probes == 3
        return {"objects": []} if is_third_probe else answer


def test_five_captions_of_one_picture_are_not_five_signs(
    place: Workplace, server: LoopbackServer
) -> None:
    """Boxes of the same things come five times: what one picture shows says nothing of a run."""
    scene = Scene(empty=0.0, things=PEOPLE, area=-6.5)
    model = watched(place, server, lambda *_: X, scene, 8, kind=SilentOnce, noise=0.02)
    [step_0] = place.results.rglob("annotations.jsonl")
    rows = rows_of(step_0)
    place.after_step_0([{**row, "caption": f"caption {n}"} for row in rows for n in range(5)])
    done = place.run(**{"vlm.check_every": 100, "workflow.max_workers": 4})
    assert (done.code, done.summary["done"]) == (0, 40), done
    assert done.summary["notes"].get("suspect_boxes", 0) == 0
    assert model.probes >= 3

"""The standing check in a run: boxes in another format than was asked for are noticed, ordinary
ones never are.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.workplace import Workplace


def pixels(request: ReceivedRequest) -> dict[str, Any]:
    """Boxes in pixels, no matter what was asked for, most of them within 1000."""
    if request.task == "expression_extraction":
        return EchoAnswers()(request)
    width, height = request.input["image"]["width"], request.input["image"]["height"]
    draw, objects = random.Random(request.text), []
    for phrase in request.input["phrases"]:
        w, h = (side * min(1.0, draw.lognormvariate(-1.4, 0.8)) for side in (width, height))
        x, y = draw.uniform(0, width - w), draw.uniform(0, height - h)
        box = [round(edge) for edge in (x, y, x + w, y + h)]
        objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": box})
    return {"objects": objects}


@pytest.fixture
def album(place: Workplace, server: LoopbackServer) -> Workplace:
    """Its runs send no probe pictures: signs alone can tell."""
    names = [place.picture(f"p{n}.jpg", (1500, 1000 + n)) for n in range(24)]
    place.rows({"image_path": name, "caption": f"Alpha Beta Gamma {name}"} for name in names)
    place.settings |= {"vlm.check_every": None, "workflow.max_workers": 1}
    server.answers = pixels
    return place


def test_a_run_that_may_go_on_warns_once_and_says_so_in_run_json(album: Workplace) -> None:
    done = album.run(**{"vlm.on_suspect_boxes": "warn"})
    assert done.err.count("Warning: the boxes don't look like xyxy_1000") == 1
    assert "xyxy_px would fit" in done.err
    run = album.run_json()
    assert (run["state"], "xyxy_px would fit" in run["suspect_boxes"]) == ("finished", True)
    assert all(record["suspect_boxes"] for record in album.annotations()), (
        "nothing vouches for any of them"
    )


def test_a_sign_alone_stops_a_run_where_nothing_can_be_checked_and_says_it_again(
    album: Workplace, server: LoopbackServer
) -> None:
    done = album.run()
    assert done.code == 2, done
    assert "xyxy_px would fit" in done.err
    sent = server.count()
    assert sent < 24
    run = album.run_json()
    assert (run["state"], "xyxy_px would fit" in run["suspect_boxes"]) == ("stopped", True)
    again = album.run()
    # the stored replies are enough to say it again
    assert (again.code, server.count() - sent <= 2) == (2, True)
    assert album.run(**{"vlm.box_format": "xyxy_px"}).code == 0

"""The standing check in a run: boxes in another format than was asked for are noticed, ordinary
ones never are.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow

TALL, WIDE, ANY = (
    ("a tall man", "the woman in red"),
    ("a red car", "the bus"),
    ("a mug", "a dog", "the sign", "two birds"),
)


def things(draw: random.Random, size: Size, phrase: str) -> Bbox:
    """A box as photos have them: a twentieth to all of the side, somewhere; people upright, cars
    wide, mostly.
    """
    w, h = (side * min(1.0, draw.lognormvariate(-1.4, 0.8)) for side in size)
    usual = draw.random() < 0.88
    if (phrase in TALL) == usual and phrase not in ANY and phrase not in WIDE:
        w, h = min(w, h * 0.5), h
    if phrase in WIDE and usual:
        w, h = w, min(h, w * 0.6)
    x, y = draw.uniform(0, size[0] - w), draw.uniform(0, size[1] - h)
    return x, y, x + w, y + h


def pixels(request: ReceivedRequest) -> dict[str, Any]:
    """Answers in pixels, no matter what was asked for."""
    size = (request.input["image"]["width"], request.input["image"]["height"])
    draw = random.Random(request.text)
    return {
        "objects": [
            {
                "id": p["id"],
                "label": p["text"],
                "bbox_2d": [round(edge) for edge in things(draw, size, p["text"])],
            }
            for p in request.input.get("phrases", [])
        ]
    }


def words(request: ReceivedRequest) -> dict[str, Any]:
    return EchoAnswers()(request) if request.task == "expression_extraction" else pixels(request)


@pytest.fixture
def photo_album(workplace: Workplace) -> Workplace:
    workplace.rows(
        {"image_path": f"p{n}.jpg", "caption": f"Alpha Beta Gamma number{n}"} for n in range(24)
    )
    return workplace


SIGNS_ALONE: dict[str, Any] = {"vlm.check_every": None, "vlm.box_format": "xyxy_1000"}


def test_a_run_that_may_go_on_warns_once_and_says_so_in_run_json(photo_album: Workplace) -> None:
    for n in range(24):  # most boxes are within 1000, and can be read
        photo_album.picture(f"p{n}.jpg", (1500, 1000 + n))
    with LoopbackServer(words) as server:
        photo_album.settings |= {**SIGNS_ALONE, "vlm.openai.base_url": server.base_url}
        done = photo_album.run(**{"vlm.on_suspect_boxes": "warn"})
    assert done.err.count("Warning: the boxes don't look like xyxy_1000") == 1
    assert "xyxy_px would fit" in done.err
    run = photo_album.run_json()
    assert (run["state"], "xyxy_px would fit" in run["suspect_boxes"]) == ("finished", True)
    assert all(record["suspect_boxes"] for record in photo_album.annotations()), (
        "nothing vouches for any of them"
    )


def test_a_sign_alone_stops_a_run_where_nothing_can_be_checked_and_says_it_again(
    photo_album: Workplace,
) -> None:
    for n in range(24):
        photo_album.picture(f"p{n}.jpg", (1800, 1300 + n))
    with LoopbackServer(words) as server:
        stop = {**SIGNS_ALONE, "vlm.openai.base_url": server.base_url, "workflow.max_workers": 1}
        done = photo_album.run(**stop)
        assert done.code == 2, done
        assert "xyxy_px would fit" in done.err
        sent = server.count()
        assert sent < 24
        run = photo_album.run_json()
        assert (run["state"], "xyxy_px would fit" in run["suspect_boxes"]) == ("stopped", True)
        again = photo_album.run(**stop)
        # the stored replies are enough to say it again
        assert (again.code, server.count() - sent <= 2) == (2, True)
        assert photo_album.run(**{**stop, "vlm.box_format": "xyxy_px"}).code == 0

"""What all replies of a run say together: formats that no single reply shows, and equal numbers."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import Scene, grounding_input
from tests.support.workplace import Workplace

X = "xyxy_1000"


def one_box(request: ReceivedRequest) -> Any:
    """The same box for each phrase of each picture."""
    if request.task != "phrase_grounding" or asks_for_rectangles(request):
        return EchoAnswers(X)(request)
    box = {"bbox_2d": [200, 300, 700, 800]}
    phrases = request.input["phrases"]
    return {"objects": [{"id": one["id"], "label": one["text"], **box} for one in phrases]}


def test_equal_numbers_for_many_pictures_are_told_of_once(
    place: Workplace, server: LoopbackServer
) -> None:
    grounding_input(place, Scene(), 25, 1)
    server.answers = one_box
    done = place.run(**{"workflow.steps": ["1"]})
    assert done.code == 0, done
    assert done.err.count("the boxes of 10 pictures in a row have the same numbers") == 1
    assert done.summary["notes"]["equal_boxes"] == 1


def test_equal_numbers_for_one_picture_are_not_told_of(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(12)
    server.answers = one_box
    done = place.run()
    assert (done.code, "in a row" in done.err) == (0, False), done

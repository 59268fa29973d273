"""What all replies of a run say together: formats that no single reply shows, and equal numbers."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import Scene, WatchedModel, grounding_input, watched
from tests.support.workplace import Workplace

X = "xyxy_1000"


class SeesProbesRight(WatchedModel):
    """Answers probe pictures as asked, or finds nothing in them where it is `blind` to these."""

    blind = False

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if asks_for_rectangles(request):
            self.probes += 1
            return {"objects": []} if self.blind else EchoAnswers(X)(request)
        return super().__call__(request)


@pytest.fixture
def model(place: Workplace, server: LoopbackServer) -> SeesProbesRight:
    """Writes in a format that no single reply shows; `place` has pictures of its scene."""
    written, kind = "xyxy_500", SeesProbesRight
    return watched(place, server, lambda *_: written, records=50, seed=1, kind=kind, noise=0.01)


def test_a_format_that_no_single_reply_shows_is_told_of(
    place: Workplace, model: SeesProbesRight
) -> None:
    done = place.run()
    assert done.code == 0, done
    assert done.err.count("Note: the boxes of this run look like xyxy_500") == 1, done.err
    assert done.summary["notes"]["likelier_format"] == 1
    assert model.probes > 2, "it was checked besides the beginning and the end"


def test_where_no_check_tells_it_stops_the_run(place: Workplace, model: SeesProbesRight) -> None:
    model.blind = True
    done = place.run()
    assert done.code == 2, done
    assert "the last replies are far likelier in another format" in done.err


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

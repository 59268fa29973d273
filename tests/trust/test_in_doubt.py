"""While the boxes of a run are in doubt: a check holds nothing up but the first request, a doubt that
was settled doesn't return, and what goes unanswered vouches for nothing.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.serving import OpenAIServing, Reply
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import Scene, WatchedModel, watched
from tests.support.workplace import HANGING, Workplace

X, Y = "xyxy_1000", "yxyx_1000"
IN_FLIGHT = 2


class PatientProbes(OpenAIServing):
    """Holds the answer to its second probe picture back until ten more boxes were asked for."""

    def __init__(self, *named: Any, **settings: Any) -> None:
        super().__init__(*named, **settings)
        self.probes = self.boxes = 0
        self.boxes_before_the_first_answer: int | None = None
        self.were_enough = False
        self._enough_from = 10**6
        self._are_enough = threading.Event()

    async def answer(self, request: Request[Any]) -> Reply:
        if not request.input["phrases"][0]["text"].endswith(" rectangle"):
            self.boxes += 1
            if self.boxes >= self._enough_from:
                self._are_enough.set()
            return await super().answer(request)
        self.probes += 1
        number = self.probes
        if number == 2:
            self._enough_from = self.boxes + 10
            self.were_enough = await asyncio.to_thread(self._are_enough.wait, HANGING)
        reply = await super().answer(request)
        if number == 1:
            self.boxes_before_the_first_answer = self.boxes
        return reply


def test_the_run_goes_on_while_a_check_is_under_way_but_for_the_first_one(
    place: Workplace, server: LoopbackServer
) -> None:
    picture = str(place.folder / place.picture(size=(640, 480)))
    rows = [{"image_path": picture, "expressions": [f"a mug {n}"]} for n in range(45)]
    server.answers = EchoAnswers(X)
    serving = PatientProbes(server.base_url, "patient", box_format=X, max_workers=IN_FLIGHT)
    found = PhraseGrounder(serving, check_every=20)(rows)
    assert serving.boxes_before_the_first_answer == 1
    assert serving.were_enough
    assert len(found) == 45
    assert serving.probes >= 3, "the next ones aren't kept from coming"


# --- probe pictures of one shape that nothing answers


class SilentOnSquares(WatchedModel):
    """Finds no rectangle in square probe pictures."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        [(width, height)] = request.image_sizes
        if asks_for_rectangles(request) and width == height:
            return {"objects": []}
        return super().__call__(request)


MANY_SQUARES = Scene(sizes=((640, 480), (480, 640), (700, 700)), most_phrases=4)


@pytest.mark.parametrize("asked", [X, "auto"])
def test_a_shape_whose_probe_pictures_go_unanswered_is_noted_and_ends_no_run(
    place: Workplace, server: LoopbackServer, asked: str
) -> None:
    watched(place, server, lambda *_: X, MANY_SQUARES, 6, kind=SilentOnSquares, noise=0.01)
    done = place.run(**{"vlm.box_format": asked})
    assert (done.code, done.summary["failed"]) == (0, 0), done
    assert done.summary["notes"]["unanswered_check"]
    assert ("The rectangles in pictures of 700x700 px were not answered" in done.err) is (
        asked == "auto"
    )

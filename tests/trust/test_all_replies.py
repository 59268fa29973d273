"""What all replies of a run say together: formats that no single reply shows, and equal numbers."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.stand_ins.watched_model import Scene, WatchedModel, grounding_input
from tests.support.workplace import Done, Workplace

X = "xyxy_1000"
RECORDS = 50


class SeesProbesRight(WatchedModel):
    """Answers probe pictures as asked, or finds nothing in them where it is `blind` to these."""

    blind = False

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if asks_for_rectangles(request):
            self.probes += 1
            return {"objects": []} if self.blind else EchoAnswers(X)(request)
        return super().__call__(request)


def run(place: Workplace, model: Any, **settings: Any) -> Done:
    place.settings |= {"vlm.box_format": X, "vlm.check_every": 10**6}
    with LoopbackServer(model) as server:
        return place.run(**{"vlm.openai.base_url": server.base_url, **settings})


def run_of_a_scene(place: Workplace, model: SeesProbesRight, scene: Scene, seed: int) -> Done:
    grounding_input(place, scene, RECORDS, seed)
    return run(place, model, **{"workflow.steps": ["1"]})


def test_a_format_that_no_single_reply_shows_is_told_of(workplace: Workplace) -> None:
    scene, written = Scene(), "xyxy_500"
    model = SeesProbesRight(lambda *_: written, scene, seed=1, noise=0.01)
    done = run_of_a_scene(workplace, model, scene, 1)
    assert done.code == 0, done
    assert done.err.count(f"Note: the boxes of this run look like {written}") == 1, done.err
    assert done.summary["notes"]["likelier_format"] == 1
    assert model.probes > 2, "it was checked besides the beginning and the end"


def test_where_no_check_tells_it_stops_the_run(workplace: Workplace) -> None:
    scene = Scene()
    model = SeesProbesRight(lambda *_: "xyxy_500", scene, seed=1, noise=0.01)
    model.blind = True
    done = run_of_a_scene(workplace, model, scene, 1)
    assert done.code == 2, done
    assert "the last replies are far likelier in another format" in done.err


def test_equal_numbers_for_many_pictures_are_told_of_once(workplace: Workplace) -> None:
    def blind(request: ReceivedRequest) -> Any:
        if request.task != "phrase_grounding" or asks_for_rectangles(request):
            return EchoAnswers(X)(request)
        return {
            "objects": [
                {"id": phrase["id"], "label": phrase["text"], "bbox_2d": [200, 300, 700, 800]}
                for phrase in request.input["phrases"]
            ]
        }

    grounding_input(workplace, Scene(), 25, 1)
    done = run(workplace, blind, **{"workflow.steps": ["1"]})
    assert done.code == 0, done
    assert done.err.count("the boxes of 10 pictures in a row have the same numbers") == 1
    assert done.summary["notes"]["equal_boxes"] == 1
    workplace.many(25)
    done = run(workplace, blind, **{"workflow.steps": [], "workflow.force_reprocess": True})
    assert "in a row" not in done.err, "they are about one picture"

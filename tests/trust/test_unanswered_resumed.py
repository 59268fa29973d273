"""A run that goes on where probe pictures went unanswered takes its finished rows as they are, once a
probe picture has gone unanswered again, and only while nothing speaks against their replies.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.trust import open_replies
from tests.support.endpoint import seldom_checked, with_settings
from tests.support.stand_ins.watched_model import FormatOf, Scene, WatchedModel, grounding_input
from tests.support.workplace import LONG_AGO, Workplace

X, Y = "xyxy_1000", "yxyx_1000"
ENOUGH = 40  # replies that may speak for themselves; without these tests 200
RECORDS, BEFORE_THE_STOP = 65, 52
IN_FLIGHT = 2
ROWS_THAT_WAIT = IN_FLIGHT + 8  # for the first check
SCENE = Scene(empty=0.0)


class Silent(WatchedModel):
    """Finds no rectangle in probe pictures, until it `sees_rectangles`."""

    def __init__(self, format_of: FormatOf, scene: Scene = SCENE) -> None:
        super().__init__(lambda *reply: self.format_of(*reply), scene, noise=0.01)
        self.format_of = format_of
        self.sees_rectangles = False

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if asks_for_rectangles(request) and not self.sees_rectangles:
            self.probes += 1
            return {"objects": []}
        return super().__call__(request)


def right(number: int, size: tuple[int, int]) -> str:
    return X


def wrong(number: int, size: tuple[int, int]) -> str:
    return Y


def place_in(folder: Path, server: LoopbackServer) -> Workplace:
    settings = {"vlm.check_every": 100, "workflow.max_workers": IN_FLIGHT}
    return seldom_checked(folder, server, **settings, **{"workflow.steps": ["1"]})


@pytest.fixture(scope="module", autouse=True)
def _few_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_replies, "ENOUGH", ENOUGH)
        yield


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory, one_server: LoopbackServer) -> Workplace:
    """A run whose probe pictures go unanswered, and which is stopped before its end."""
    place = place_in(tmp_path_factory.mktemp("stopped"), one_server)
    input_of(place, SCENE, RECORDS)
    with_settings(one_server, Silent(right))
    assert place.run(**{"workflow.max_requests": BEFORE_THE_STOP}).code == 3
    return place


@pytest.fixture
def stopped(stopped_run: Workplace, tmp_path: Path, server: LoopbackServer) -> Workplace:
    """The pictures of that run, and a copy of its results."""
    place = place_in(stopped_run.folder, server)
    place.results = tmp_path / "results"
    shutil.copytree(stopped_run.results, place.results)
    return place


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> Workplace:
    return place_in(tmp_path, server)


def input_of(place: Workplace, scene: Scene, records: int) -> None:
    grounding_input(place, scene, records)
    for picture in place.folder.glob("*.jpg"):
        os.utime(picture, LONG_AGO)


def lose_replies(place: Workplace) -> None:
    """Of all that is stored, only what checks have said is found again. A row whose replies aren't
    found costs a request, unless it is taken as it is.
    """
    lines = [json.loads(line) for line in place.replies.read_text().splitlines()]
    lost = [line if line["task"] == "check" else {**line, "key": "0" * 32} for line in lines]
    place.replies.write_text("".join(json.dumps(line) + "\n" for line in lost))


def test_finished_rows_of_a_run_that_was_stopped_are_taken_as_they_are(
    stopped: Workplace, server: LoopbackServer
) -> None:
    lose_replies(stopped)
    server.answers = model = Silent(right)
    again = stopped.run()
    assert again.code == 0, again
    assert model.given >= RECORDS - BEFORE_THE_STOP
    assert model.given <= RECORDS - ENOUGH + 2 * ROWS_THAT_WAIT
    assert model.probes > 0, "no row is taken before the run's own check"
    assert all(record["expressions"][0]["status"] == "grounded" for record in stopped.annotations())


@pytest.mark.parametrize("on_suspect", ["stop", "warn"])
def test_a_later_check_that_fails_sets_finished_rows_aside(
    stopped: Workplace, server: LoopbackServer, on_suspect: str
) -> None:
    stopped.settings["vlm.on_suspect_boxes"] = on_suspect
    server.answers = model = Silent(wrong)
    model.sees_rectangles = True
    done = stopped.run()
    if on_suspect == "warn":
        assert done.code == 0, done
        marked = [record for record in stopped.annotations() if record.get("suspect_boxes")]
        assert len(marked) == RECORDS
        return
    assert (done.code, model.given) == (2, 0), done
    assert "are set aside: the next run asks for them again" in done.err
    model.format_of = right
    # of the first rows, which would be taken
    assert stopped.run(**{"workflow.max_requests": 30}).code == 3
    assert model.given >= 25


def test_rows_are_not_taken_once_replies_speak_against_each_other(
    tmp_path: Path, server: LoopbackServer, place: Workplace
) -> None:
    """What the run has said of the first of them doesn't count any more."""
    place.settings["vlm.on_suspect_boxes"] = "warn"
    scene = Scene(empty=0.0, most_phrases=8)
    input_of(place, scene, 100)
    wrong_from = ENOUGH + 4
    server.answers = Silent(lambda n, _: X if n < wrong_from else Y, scene)
    warned = place.run()
    assert (warned.code, f"{Y} would fit" in warned.err) == (0, True), warned
    before = place.files()
    assert all(record.get("suspect_boxes") for record in place.annotations())
    (place.results / ".ckpt" / "finished.json").unlink()
    again = place.run()
    assert (again.code, place.files()) == (0, before), again


def test_rows_with_odd_boxes_are_marked_again(place: Workplace, server: LoopbackServer) -> None:
    odd_size, records = (652, 480), 90
    scene = Scene(sizes=(*[(640, 480)] * 19, odd_size), empty=0.0, most_phrases=12)
    input_of(place, scene, records)
    model = Silent(lambda _, size: Y if size == odd_size else X, scene)
    server.answers = model
    assert place.run().code == 0
    given = model.given
    before = place.files()
    marked = [record for record in place.annotations() if record.get("suspect_boxes")]
    assert 1 <= len(marked) <= records / 15
    (place.results / ".ckpt" / "finished.json").unlink()
    again = place.run()
    assert (again.code, model.given, place.files()) == (0, given, before), again
    (place.results / ".ckpt" / "finished.json").unlink()
    lose_replies(place)
    assert place.run().code == 0
    assert model.given - given <= len(marked) * 2 + ROWS_THAT_WAIT, "the others were taken"

"""Two servers behind one address that write boxes differently: a picture clearly answered in
another format is remembered.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.workplace import Workplace, command

X, Y = "xyxy_1000", "yxyx_1000"


class Balanced:
    """Answers ordinary questions in `X`, and the n-th probe picture in the format that `of_probe`
    names.
    """

    def __init__(self, of_probe: Callable[[int], str]) -> None:
        self.of_probe = of_probe
        self.probes = 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if not asks_for_rectangles(request):
            return EchoAnswers(X)(request)
        self.probes += 1
        return EchoAnswers(self.of_probe(self.probes))(request)


@pytest.fixture
def place(place: Workplace) -> Workplace:
    place.settings["workflow.max_workers"] = 1
    return place


@pytest.fixture
def model(server: LoopbackServer) -> Balanced:
    """Who answers."""
    balanced = Balanced(lambda n: X)
    server.answers = balanced
    return balanced


@pytest.mark.parametrize("second", [2, 4])
def test_a_second_picture_in_another_format_stops_the_run_though_others_fit(
    place: Workplace, model: Balanced, second: int
) -> None:
    place.many(12)
    model.of_probe = lambda n: Y if n in (1, second) else X
    done = place.run()
    assert (done.code, model.probes) == (2, 1 + 3), done
    assert f"probe pictures were answered in {Y}, and others were not" in done.err
    assert "The endpoint answers in more than one format: see whether several servers" in done.err
    assert "The reply since the last good check is set aside" in done.err


def test_one_in_each_of_two_checks_stops_it_too(place: Workplace, model: Balanced) -> None:
    place.many(22)
    # four at the start, and one at the end
    model.of_probe = lambda n: Y if n in (1, 5) else X
    done = place.run()
    assert (done.code, model.probes) == (2, 4 + 4), done
    assert f"probe pictures were answered in {Y}, and others were not" in done.err
    aside = re.search(r"The (\d+) replies since the last good check are set aside", done.err)
    assert aside is not None
    assert int(aside[1]) == 22, "no check vouches for a mixture"
    assert "workflow.force_reprocess asks for all again" in done.err
    again = place.run()
    assert (again.code, len(place.annotations())) == (0, 22)


def test_two_formats_in_two_checks_are_both_named(place: Workplace, model: Balanced) -> None:
    place.many(22)
    formats = {1: Y, 5: "xyxy_px"}
    model.of_probe = lambda n: formats.get(n, X)
    done = place.run()
    assert done.code == 2, done
    assert f"probe pictures were answered in {Y} and xyxy_px, and others were not" in done.err


def test_one_alone_is_a_warning_at_the_end(place: Workplace, model: Balanced) -> None:
    place.many(22)
    model.of_probe = lambda n: Y if n == 1 else X
    done = place.run()
    assert (done.code, done.summary["notes"]["mixed_formats"], model.probes) == (0, 1, 4 + 1), done
    assert (done.summary["done"], done.summary["notes"].get("suspect_boxes", 0)) == (22, 0)
    warned = f"Warning: 1 probe picture was answered in {Y}, others in {X} as asked"
    assert done.err.count(warned) == 1
    assert "share its address. Look at some boxes." in done.err
    checks = place.run_json()["box_checks"]
    assert (checks["as_asked"], checks["odd"]) == (1, 1)
    assert checks["at_most"] is None, "a miss in two pictures leaves no bound"


def anywhere(request: ReceivedRequest) -> dict[str, Any]:
    """Boxes that have nothing to do with what is asked for."""
    draw = random.Random(request.text)
    objects = []
    for phrase in request.input["phrases"]:
        x, y = draw.randint(0, 900), draw.randint(0, 900)
        box = [x, y, draw.randint(x, 1000), draw.randint(y, 1000)]
        objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": box})
    return {"objects": objects}


def anywhere_at(*missed: int) -> Callable[[ReceivedRequest], dict[str, Any]]:
    """Answers that are right, but for the boxes of these probe pictures."""
    probes = 0

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        nonlocal probes
        probes += asks_for_rectangles(request)
        is_missed = probes in missed and asks_for_rectangles(request)
        return anywhere(request) if is_missed else EchoAnswers(X)(request)

    return answers


def test_a_second_miss_that_fits_no_format_stops_the_run(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(32)
    server.answers = anywhere_at(3, 8)  # the next three after a miss are of the same picture
    done = place.run(**{"vlm.check_every": 4})
    assert (done.code, place.annotations()) == (2, []), done
    assert "probe pictures were answered in no known format, and others were not" in done.err


def test_a_miss_that_fits_no_format_stays_in_the_figures(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(32)
    server.answers = anywhere_at(3)
    done = place.run(**{"vlm.check_every": 4})
    assert done.code == 0, done
    checks = place.run_json()["box_checks"]
    assert (checks["odd"], done.summary["notes"]["probe_cleared"]) == (1, 1)
    assert checks["as_asked"] == done.summary["notes"]["probe_as_asked"] > 5
    assert checks["at_most"] == pytest.approx(4.744 / (checks["as_asked"] + 1), abs=1e-3)
    assert done.err.count("Warning: 1 probe picture was answered in no known format") == 1
    # what the same command shows a second time
    shown = command(["generate", "-e", str(place.folder / "spec.yaml"), "--no-report"])
    assert "came as asked, 1 did not: at most" in shown.out + shown.err

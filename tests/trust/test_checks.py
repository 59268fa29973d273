"""What the checks of a run are: at places that nobody can foresee, and of its own pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import SuspectBoxes
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles, probe_in
from tests.support.workplace import Workplace, caption, command

pytestmark = pytest.mark.slow

X, Y = "xyxy_1000", "yxyx_1000"


@pytest.fixture
def place(place: Workplace) -> Workplace:
    """One request after the other, so that it is known what came before what."""
    place.settings["workflow.max_workers"] = 1
    return place


def asked_of(server: LoopbackServer) -> list[bool]:
    """Of each request for boxes, whether it is a probe."""
    return [asks_for_rectangles(r) for r in server.requests if r.task == "phrase_grounding"]


def photograph(path: Path, size: Size = (208, 156)) -> str:
    """Write a picture of many colors; returns its path."""
    draw = np.random.default_rng(7)
    coarse = draw.integers(90, 190, (12, 16, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return str(path)


def gaps_of(
    server: LoopbackServer, places: Workplace, name: str, every: int, rows: int
) -> list[int]:
    """How many requests lie before the first probe, between each two, and after the last one, where
    a script asks about one picture after the other and waits for each check.
    """
    picture = photograph(places.folder / "a.png")
    before = len(server.requests)
    serving = OpenAIServing(server.base_url, name, box_format=X)
    grounder = PhraseGrounder(serving, check_every=every)
    for number in range(rows):
        grounder({"image_path": picture, "expressions": [f"a mug {number}"]})
    asked = map(asks_for_rectangles, server.requests[before:])
    return [len(gap) for gap in "".join("P" if is_probe else "." for is_probe in asked).split("P")]


@pytest.mark.parametrize("every", [2, 6])
def test_each_stretch_has_a_check(place: Workplace, server: LoopbackServer, every: int) -> None:
    server.answers = EchoAnswers(X)
    gaps = gaps_of(server, place, "one run", every, 10 + 2 * every)
    # from the beginning of one stretch to the end of the next one, and one that is asked again
    assert max(gaps) <= 2 * every + 1


def test_probes_come_at_places_that_differ_from_run_to_run(
    place: Workplace, server: LoopbackServer
) -> None:
    server.answers = EchoAnswers(X)
    runs = [gaps_of(server, place, f"run {number}", 20, 45) for number in range(3)]
    assert all(first <= 1 for first, *_ in runs), "before the second request for boxes"
    # that two of three pairs agree in two places of twenty and twenty is a chance in thousands
    assert len(set(map(tuple, runs))) >= 2


def test_operators_with_settings_of_their_own_check_no_more_often(
    place: Workplace, server: LoopbackServer
) -> None:
    picture = photograph(place.folder / "a.png")
    server.answers = EchoAnswers(X)
    serving = OpenAIServing(server.base_url, "two settings", box_format=X)
    seldom = PhraseGrounder(serving, check_every=40)
    more_often = PhraseGrounder(serving, check_every=20)
    for number in range(18):
        seldom({"image_path": picture, "expressions": [f"a mug {number}"]})
        more_often({"image_path": picture, "expressions": [f"a cup {number}"]})
    probes = sum(map(asks_for_rectangles, server.requests))
    assert probes <= 1 + 3 + 4, "three for the stretches, and perhaps some for odd boxes"


class Choosing:
    """Answers in X, but in Y where pictures are as `is_other` says."""

    def __init__(self, is_other: Callable[[Image.Image], bool]) -> None:
        self.is_other = is_other

    def __call__(self, request: ReceivedRequest) -> Any:
        if request.task != "phrase_grounding":
            return EchoAnswers(X)(request)
        picture = Image.open(io.BytesIO(base64.b64decode(request.encoded_images[-1])))
        return EchoAnswers(Y if self.is_other(picture) else X)(request)


def is_photograph(picture: Image.Image) -> bool:
    """Whether a picture has more colors than a drawing of a dozen rectangles."""
    colors = picture.convert("RGB").resize((64, 64), Image.Resampling.NEAREST).getcolors(4096)
    return colors is None or len(colors) > 200


def test_a_server_that_reads_photographs_otherwise_than_drawings_is_noticed(
    place: Workplace, server: LoopbackServer
) -> None:
    photograph(place.folder / "a.png")
    place.rows({"image_path": "a.png", "caption": caption(n)} for n in range(8))
    server.answers = Choosing(is_photograph)
    done = place.run()
    assert (done.code, place.annotations()) == (2, []), done
    assert "don't look like" in done.err
    assert f"{Y} would fit" in done.err
    assert asked_of(server).count(False) == 1, "before the second request for boxes"


def test_a_calibration_just_made_leaves_the_first_check_to_the_runs_own_pictures(
    place: Workplace, server: LoopbackServer
) -> None:
    picture = photograph(place.folder / "a.png")
    server.answers = Choosing(is_photograph)
    serving = OpenAIServing(server.base_url, "just calibrated", box_format="auto")
    with pytest.raises(SuspectBoxes, match=f"{Y} would fit"):
        PhraseGrounder(serving)({"image_path": picture, "expressions": ["a mug"]})


class Shifted:
    """Answers all boxes further to the left, by a fiftieth of the width, from its second probe on."""

    def __init__(self) -> None:
        self.probes = 0

    def __call__(self, request: ReceivedRequest) -> Any:
        probe = probe_in(request)
        if probe is None:
            return EchoAnswers(X)(request)
        self.probes += 1
        left = 20 if self.probes > 1 else 0
        objects = []
        for phrase in request.input["phrases"]:
            if phrase["text"] in probe.boxes:
                box = probe.boxes[phrase["text"]]
                x1, y1, x2, y2 = find_box_format(X, "").from_pixels(box, original=probe.size)
                numbers = [x1 - left, y1, x2 - left, y2]
                objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": numbers})
        return {"objects": objects}


def test_boxes_that_are_shifted_a_little_are_noticed(
    place: Workplace, server: LoopbackServer
) -> None:
    photograph(place.folder / "a.png")
    place.rows({"image_path": "a.png", "caption": caption(n)} for n in range(20))
    server.answers = Shifted()
    done = place.run(**{"vlm.check_every": 3})
    assert (done.code, place.annotations()) == (2, []), done
    assert "all boxes are off by" in done.err
    assert "of the width at its beginning" in done.err


def test_the_last_lines_say_how_many_checks_went_well(
    place: Workplace, server: LoopbackServer
) -> None:
    sizes = {"a.png": (208, 156), "b.png": (156, 208), "c.png": (180, 180)}
    for name, size in sizes.items():
        photograph(place.folder / name, size)
    names = [*sizes] * 7
    place.rows({"image_path": name, "caption": caption(n)} for n, name in enumerate(names))
    server.answers = EchoAnswers(X)
    done = place.run(**{"vlm.check_every": 4})
    good = sum(asked_of(server))
    assert (done.code, done.summary["probes"]) == (0, good), done
    assert good >= len(sizes) + 1, "one of each kind, and one at the end"
    assert done.summary["notes"]["probe_as_asked"] == good
    told = command(["generate", "-e", str(place.folder / "spec.yaml"), "--no-report"])
    assert f"{good} probe pictures came as asked" in told.out + told.err


def test_a_miss_that_three_further_copies_do_not_confirm_is_none(
    place: Workplace, server: LoopbackServer
) -> None:
    photograph(place.folder / "a.png")
    place.rows({"image_path": "a.png", "caption": caption(n)} for n in range(22))
    probes = 0

    def first_y_first(request: ReceivedRequest) -> Any:
        nonlocal probes
        if not asks_for_rectangles(request):
            return EchoAnswers(X)(request)
        probes += 1
        return EchoAnswers("yxyx_1000" if probes == 1 else X)(request)

    server.answers = first_y_first
    done = place.run()
    assert (done.code, done.summary["done"], probes) == (0, 22, 4 + 1), done
    assert "Warning" not in done.err

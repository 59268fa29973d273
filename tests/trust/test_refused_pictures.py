"""Probe pictures that an endpoint refuses, or never answers: limits of what a run sends, and no end
of the run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.testing.faults import Fault
from dataflow_grounding.trust.calibration_file import cache_path
from dataflow_grounding.trust.probes import Probe, ProbedPicture
from tests.support import faults
from tests.support.seen_boxes import offs, scene
from tests.support.stand_ins.probe_model import ProbeModel, answered
from tests.support.stand_ins.resized_model import decided
from tests.support.stand_ins.seeing_model import SeeingModel
from tests.support.workplace import Workplace


def too_much(test: Callable[[Size], bool]) -> Callable[[ReceivedRequest], bool]:
    return lambda request: any(test(size) for size in request.image_sizes)


TOO_LONG = faults.bad_request(
    "The decoder prompt (length 4488) is longer than the maximum model length of 4096."
)
LARGE = faults.bad_request("image too large")
REFUSALS: dict[str, tuple[str, Callable[[Size], bool], Fault]] = {
    "over a model's length": ("xyxy_1000", lambda size: math.prod(size) > 2_700_000, TOO_LONG),
    "over a number of pixels": ("xyxy_px", lambda size: math.prod(size) > 500_000, LARGE),
    "a long side": ("xyxy_1000", lambda size: max(size) > 1200, LARGE),
    "elongated": (
        "xyxy_px",
        lambda size: max(size) > 3.5 * min(size),
        faults.bad_request("absolute aspect ratio too large"),
    ),
    "small": (
        "xyxy_1000",
        lambda size: min(size) < 300,
        faults.bad_request("sides must be at least 300"),
    ),
    "never answered": ("xyxy_px", lambda size: math.prod(size) > 2_500_000, faults.hang()),
}
"""What is refused → the scale that the model writes in, the sizes, and how they are refused."""


@pytest.fixture
def place(place: Workplace) -> Workplace:
    """One picture, and a model that is to be calibrated."""
    place.settings |= {"vlm.box_format": "auto", "vlm.check_every": None}
    place.rows([{"image_path": place.picture(size=(640, 480)), "caption": "A mug."}])
    return place


@pytest.mark.parametrize("what", REFUSALS)
def test_a_size_that_is_refused_is_a_limit(
    place: Workplace, what: str, server: LoopbackServer
) -> None:
    scale, test, fault = REFUSALS[what]
    server.answers = ProbeModel(scale, noise=0.003, outliers=0)
    server.faults = on(fault, where=too_much(test))
    done = place.run(**{"vlm.openai.timeout": 2 if what == "never answered" else 60})
    assert done.code == 0, done
    stored = json.loads(Path(cache_path(server.base_url, "loopback")).read_text())
    refused = Counter(r.image_sizes for r in server.requests if r.status_sent != 200 and r.images)
    assert stored["box_format"] == (f"{scale}@measured" if scale == "xyxy_px" else scale)
    assert not any(test((width, height)) for width, height in stored["sizes"])
    probes = [size for size in refused if test(size[0])]
    assert len(probes) <= 5
    assert all(count <= 3 for count in refused.values())  # a fault is tried as often as in a run
    if probes:
        assert "got no answer" in done.err


def test_where_nothing_is_answered_the_run_stops_and_says_what_was_refused(
    place: Workplace, server: LoopbackServer
) -> None:
    server.answers = ProbeModel("xyxy_px")
    server.faults = on(faults.bad_request("no pictures today"), task="phrase_grounding")
    done = place.run()
    assert done.code == 4, done
    assert len({r.image_sizes for r in server.requests}) == 2
    assert "no pictures today" in done.err
    assert "vlm.box_format" in done.err


def test_refusals_of_wide_and_of_large_pictures_come_to_an_end(
    place: Workplace, server: LoopbackServer
) -> None:
    """Aspects above 1.7 are refused, which no limit that is tried says, and large ones as well:
    the same few sizes were asked for without end.
    """

    def is_refused(size: Size) -> bool:
        return max(size) > 1.7 * min(size) or math.prod(size) > 600_000

    server.answers = ProbeModel("xyxy_px", noise=0.003, outliers=0)
    server.faults = on(
        faults.bad_request("no"), where=too_much(is_refused), task="phrase_grounding"
    )
    done = place.run()
    sizes = Counter(r.image_sizes for r in server.requests if r.status_sent == 400)
    assert max(sizes.values()) <= 3
    assert len(server.requests) < 60
    assert done.code in (0, 2, 4), done
    if done.code:
        assert "vlm.box_format" in done.err


@pytest.mark.parametrize(
    "fault", [Fault(413, "Payload too large"), faults.bad_request("no such shape")]
)
def test_a_shape_of_the_runs_own_that_is_refused_ends_no_run(
    place: Workplace, fault: Fault, server: LoopbackServer
) -> None:
    def is_square_probe(request: ReceivedRequest) -> bool:
        return asks_for_rectangles(request) and any(
            width == height for width, height in request.image_sizes
        )

    names = [place.picture(size=(640, 480)), place.picture("b.jpg", (700, 700))]
    place.rows({"image_path": name, "caption": "A mug."} for name in names)
    server.answers = ProbeModel("xyxy_1000")
    server.faults = [on(fault, where=is_square_probe)]
    done = place.run()
    refused = sum(r.status_sent != 200 for r in server.requests)
    stored = json.loads(Path(cache_path(server.base_url, "loopback")).read_text())
    assert (done.code, done.summary["done"]) == (0, 2), done
    # a square of each area, twice, and once without a seed, which may be the reason
    assert refused <= 12
    assert [700, 700] not in stored["limits"]["frames"]


def test_pictures_of_parts_of_the_side_go_in_sizes_that_are_taken(
    tmp_path: Path, server: LoopbackServer
) -> None:
    """For any reason why others aren't: here a side of 1000 px."""
    sizes = [(640, 480), (1200, 900), (300, 1050)]
    rows = [scene(tmp_path, size) for size in sizes]
    server.answers = SeeingModel()
    server.faults = on(faults.bad_request("no"), where=too_much(lambda size: max(size) > 1000))

    def found(rows: list[dict[str, Any]]) -> float:
        """How far boxes are off at the most, of a serving of its own, as in another process."""
        return max(offs(OpenAIServing(server.base_url, "somebody"), rows))

    assert found(rows) <= 0.01
    asked = [r for r in server.requests if not asks_for_rectangles(r)]
    assert [r.status_sent for r in asked] == [200] * 3
    assert all(max(size) <= 1000 for r in asked for size in r.image_sizes)
    sent = server.count()
    assert found(rows) <= 0.01
    assert server.count() == sent + 3
    # Frames are for all sizes: those of a later run are asked about at once, but for a check.
    assert found([scene(tmp_path, (900, 900))]) <= 0.01
    assert server.count() == sent + 3 + 1 + 1


@pytest.mark.parametrize("name", ["xyxy_px", "xyxy_1000"])
def test_what_is_as_large_as_refused_pictures_is_not_tried(name: str) -> None:
    """Of a run whose dozen sizes are all too large."""
    known = find_box_format(name, "")
    refused: list[Size] = []

    def model(probe: Probe) -> ProbedPicture:
        if math.prod(probe.size) > 800_000:
            refused.append(probe.size)
            return ProbedPicture(probe, probe.size, [], refused="too large")
        return answered(probe, lambda _: known, dict(probe.boxes))

    own = [(1400 + 50 * n, 1800 - 70 * n) for n in range(12)]
    decision, _ = decided(model, own)
    assert decision.limits is not None
    assert all(math.prod(frame) <= 800_000 for frame in decision.limits.frames)
    assert len(set(refused)) <= 8  # 24 without what is known of those before


def test_a_refusal_by_accident_changes_nothing_of_what_is_sent(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.answers = SeeingModel()
    server.faults = on(
        faults.bad_request("no"),
        where=lambda request: (1134, 2016) in request.image_sizes,
        times=1,
    )
    offs(OpenAIServing(server.base_url, "somebody"), [scene(tmp_path, (640, 480))])
    stored = json.loads(Path(cache_path(server.base_url, "somebody")).read_text())
    assert (stored["limits"], stored["refused"]) == (None, [])

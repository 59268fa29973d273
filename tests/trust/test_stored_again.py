"""Stored calibrations that a later run meets: tried once in sizes that they don't cover; damage in
them is passed over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import SuspectBoxes
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.testing.faults import Fault
from dataflow_grounding.trust.calibration_file import (
    Calibration,
    load_calibration,
    prompt_version,
)
from tests.support import faults
from tests.support.endpoint import calibrate
from tests.support.seen_boxes import PARTS, scene
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.stand_ins.seeing_model import MODEL, SeeingModel
from tests.support.workplace import Workplace, caption


@pytest.fixture
def place(place: Workplace) -> Workplace:
    """One lying picture, and a model that is to be calibrated."""
    place.settings |= {"vlm.box_format": "auto", "vlm.check_every": 100}
    place.rows([{"image_path": place.picture("lying.jpg", (640, 480)), "caption": caption(0)}])
    return place


def later(place: Workplace, *sizes: Size) -> Workplace:
    """Another data set with one picture of each size."""
    later = Workplace(place.folder / "later", **place.settings)
    paths = [later.picture(f"{n}.jpg", size) for n, size in enumerate(sizes)]
    later.rows({"image_path": path, "caption": caption(1 + n)} for n, path in enumerate(paths))
    return later


def test_a_finished_run_whose_sizes_were_not_all_tried_sends_nothing_when_it_is_repeated(
    place: Workplace, server: LoopbackServer
) -> None:
    place.settings["vlm.openai.model_name"] = MODEL
    server.answers = EchoAnswers("xyxy_px")
    assert place.run().code == 0
    another = later(place, *[(300 + 120 * n, 1100 - 110 * n) for n in range(6)])
    done = another.run()
    assert (done.code, "Pictures are sent in further sizes" in done.err) == (0, True), done
    sent = server.count()
    assert another.run().code == 0
    (another.results / ".ckpt" / "facts.json").unlink()
    assert another.run().code == 0
    assert server.count() == sent


@pytest.mark.parametrize(
    ("later_format", "refusal", "message"),
    [
        ("yxyx_1000", None, "The calibration doesn't hold there"),
        ("xyxy_1000", Fault(401, "no key"), "Pictures are sent in the sizes that are measured"),
    ],
)
def test_requests_for_further_sizes_are_counted_though_measuring_these_fails(
    place: Workplace, server: LoopbackServer, later_format: str, refusal: Fault | None, message: str
) -> None:
    def is_square_probe(request: ReceivedRequest) -> bool:
        return asks_for_rectangles(request) and (700, 700) in request.image_sizes

    server.answers = ProbeModel("xyxy_1000")
    server.faults = on(
        faults.bad_request("no"),
        where=lambda request: any(max(size) > 1000 for size in request.image_sizes),
    )
    assert place.run().code == 0
    sent = server.count()
    server.answers = ProbeModel(later_format)
    server.faults = () if refusal is None else on(refusal, where=is_square_probe, times=1)
    done = later(place, (700, 700)).run()
    assert (done.code, message in done.err) == (0, True), done
    assert done.summary["requests"] == server.count() - sent


def test_a_shape_of_a_later_run_that_is_seen_otherwise_is_measured_by_calibrating_again(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.answers = SeeingModel(
        "xyxy_px", resized=lambda w, h: (1000, 900 if 1.2 < h / w < 1.5 else 1000), noise=0.01
    )
    lying, upright = [scene(tmp_path, (640, 480))], [scene(tmp_path, (480, 640))]

    def bottom_of_red(rows: list[dict[str, Any]]) -> float:
        [record] = PhraseGrounder(OpenAIServing(server.base_url, "somebody"))(rows)
        [box] = record["expressions"][0]["instances"]
        return box["bbox"][3]

    assert bottom_of_red(lying) == pytest.approx(PARTS["red"][1] * 480, abs=20)
    sent = server.count()
    bottom_of_red(lying)
    assert server.count() <= sent + 1 + 1  # a question, and one standing check
    with pytest.raises(SuspectBoxes, match="calibrate"):
        bottom_of_red(upright)
    calibrate(server, "somebody")
    assert bottom_of_red(upright) == pytest.approx(PARTS["red"][1] * 640, abs=20)


@pytest.mark.parametrize(
    "edit",
    [
        "",
        '{"endpoint": "http',
        "[1, 2]",
        {"box_format": "zyx_7"},
        {"error_px": "small"},
        {"sizes": [[640]]},
        {"prompt": "0"},
        {"model": "somebody"},
        {"limits": {"max_pixels": 1}},
        {"limits": {"max_side": 5}},
        {"limits": {"max_short_side": 0.4}},
        {"limits": {"max_wide": 1e-9}},
        {"limits": {"min_pixels": None}},
        {"limits": {"multiple": 1.5}},
        {"limits": {"max_pixels": 10**400}},
        {"sizes": [[10**400, 3]]},
        {"box_format": "xyxy_px@smart_resize_0_0_0"},
        {"box_format": f"xyxy_px@round_{'9' * 400}"},
    ],
    ids=lambda edit: json.dumps(edit)[:40],
)
def test_a_calibration_that_is_damaged_or_was_edited_by_hand_is_ignored(
    tmp_path: Path, edit: str | dict[str, Any]
) -> None:
    path = str(tmp_path / "calibration.json")
    facts = ("http://localhost/v1", "a model", prompt_version(), "xyxy_1000", 3.0, 0.01, 30, 36, 12)
    date = "2026-11-22T00:00:00Z"
    Calibration(*facts, date, limits=SizeLimits(), sizes=[[640, 480]]).save(path)
    assert load_calibration(path, "http://localhost/v1", "a model") is not None
    if isinstance(edit, str):
        Path(path).write_text(edit)
    else:
        row = json.loads(Path(path).read_text())
        limits = {**row["limits"], **edit.get("limits", {})}
        Path(path).write_text(json.dumps({**row, **edit, "limits": limits}))
    assert load_calibration(path, "http://localhost/v1", "a model") is None

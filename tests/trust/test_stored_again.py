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
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, faults, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.testing.faults import Fault
from dataflow_grounding.trust.calibration_file import (
    Calibration,
    load_calibration,
    prompt_version,
)
from tests.support.endpoint import endpoint_of
from tests.support.seen_boxes import PARTS, scene
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.stand_ins.seeing_model import SeeingModel
from tests.support.workplace import Workplace, caption, command

MODEL = "qwen2.5-vl-7b-instruct"


def test_a_finished_run_whose_sizes_were_not_all_tried_sends_nothing_when_it_is_repeated(
    workplace: Workplace,
) -> None:
    place = workplace
    place.settings |= {
        "vlm.openai.model_name": MODEL,
        "vlm.box_format": "auto",
        "vlm.check_every": 100,
    }
    with endpoint_of(place, EchoAnswers("xyxy_px")) as server:
        place.rows([{"image_path": place.picture("one.jpg", (640, 480)), "caption": caption(0)}])
        assert place.run().code == 0
        later = Workplace(place.folder / "later", **place.settings)
        sizes = [(300 + 120 * n, 1100 - 110 * n) for n in range(6)]
        paths = [later.picture(f"{n}.jpg", size) for n, size in enumerate(sizes)]
        later.rows([{"image_path": path, "caption": caption(n)} for n, path in enumerate(paths)])
        done = later.run()
        assert (done.code, "Pictures are sent in further sizes" in done.err) == (0, True), done
        sent = server.count()
        assert later.run().code == 0
        (later.results / ".ckpt" / "finished.json").unlink()
        assert later.run().code == 0
        assert server.count() == sent


@pytest.mark.parametrize(
    ("later_format", "refusal", "message"),
    [
        ("yxyx_1000", None, "The calibration doesn't hold there"),
        ("xyxy_1000", Fault(401, "no key"), "Pictures are sent in the sizes that are measured"),
    ],
)
def test_requests_for_further_sizes_are_counted_though_measuring_these_fails(
    workplace: Workplace, later_format: str, refusal: Fault | None, message: str
) -> None:
    place = workplace
    place.settings |= {"vlm.box_format": "auto", "vlm.check_every": 100}
    place.rows([{"image_path": place.picture("lying.jpg", (640, 480)), "caption": caption(0)}])
    too_long = on(
        faults.bad_request("no"),
        where=lambda request: any(max(size) > 1000 for size in request.image_sizes),
    )
    with LoopbackServer(ProbeModel("xyxy_1000"), faults=[too_long]) as server:
        address = server.base_url
        assert place.run(**{"vlm.openai.base_url": address}).code == 0
    later = Workplace(place.folder / "later", **place.settings)
    later.rows([{"image_path": later.picture("square.jpg", (700, 700)), "caption": caption(1)}])

    def is_square_probe(request: ReceivedRequest) -> bool:
        return asks_for_rectangles(request) and (700, 700) in request.image_sizes

    refusals = [] if refusal is None else [on(refusal, where=is_square_probe, times=1)]
    port = int(address.split(":")[2].split("/")[0])
    with LoopbackServer(ProbeModel(later_format), port=port, faults=refusals) as server:
        done = later.run(**{"vlm.openai.base_url": address})
        sent = server.count()
    assert (done.code, message in done.err) == (0, True), done
    assert done.summary["requests"] == sent


@pytest.mark.slow
def test_a_shape_of_a_later_run_that_is_seen_otherwise_is_measured_by_calibrating_again(
    tmp_path: Path,
) -> None:
    model = SeeingModel(
        "xyxy_px", resized=lambda w, h: (1000, 900 if 1.2 < h / w < 1.5 else 1000), noise=0.01
    )
    lying = [scene(tmp_path, size) for size in ((640, 480), (800, 600))]
    upright = [scene(tmp_path, size) for size in ((480, 640), (600, 800))]
    with LoopbackServer(model, keep_bodies=True) as server:

        def grounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return PhraseGrounder(OpenAIServing(server.base_url, "somebody"))(rows)

        [box] = grounded(lying)[0]["expressions"][0]["instances"]
        assert box["bbox"][3] == pytest.approx(PARTS["red"][1] * 480, abs=20)
        sent = server.count()
        grounded(lying)
        assert server.count() <= sent + 2 + 1  # two questions, and one standing check
        with pytest.raises(SuspectBoxes, match="calibrate"):
            grounded(upright)
        assert (
            command(["calibrate", "--base-url", server.base_url, "--model", "somebody"]).code == 0
        )
        for record, height in zip(grounded(upright), (640, 800), strict=True):
            [box] = record["expressions"][0]["instances"]
            assert box["bbox"][3] == pytest.approx(PARTS["red"][1] * height, abs=20)


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

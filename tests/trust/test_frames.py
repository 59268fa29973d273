"""Frames: pictures go out in a few exact sizes, whose maps are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import PhraseGrounder, read_boxes
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import FrameMap
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.trust.calibration_file import (
    Calibration,
    cache_path,
    prompt_version,
    run_file,
)
from dataflow_grounding.trust.choice import FormatChoice
from dataflow_grounding.trust.maps import format_in_frames
from tests.support import faults
from tests.support.seen_boxes import off, offs, scene
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.stand_ins.resize_rules import reduced
from tests.support.stand_ins.seeing_model import MODEL, SeeingModel
from tests.support.workplace import ORIENTATION, Workplace


def test_strips_large_and_turned_pictures_are_mapped_within_the_precision(
    tmp_path: Path, server: LoopbackServer
) -> None:
    sizes = [(1600, 100), (120, 1800), (2100, 1000), (640, 480), (300, 300)]
    rows = [scene(tmp_path, size) for size in sizes]
    with Image.open(rows[3]["image_path"]) as picture:  # the same turned, as cameras write it
        turned = picture.transpose(Image.Transpose.ROTATE_90).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    rows.append({**rows[3], "image_path": str(tmp_path / "turned.jpg")})
    server.answers = SeeingModel(resized=reduced(edge=800))
    records = PhraseGrounder(OpenAIServing(server.base_url, MODEL))(rows)
    stored = json.loads(Path(cache_path(server.base_url, MODEL)).read_text())
    frames = {tuple(one["size"]) for one in stored["maps"]}
    assert {size for r in server.requests[-len(rows) :] for size in r.image_sizes} <= frames
    for record, size in zip(records, [*sizes, sizes[3]], strict=True):
        assert (record["width"], record["height"]) == size
        assert off(record) <= 0.03, size


def test_noise_that_leaves_a_map_vague_is_told(place: Workplace, server: LoopbackServer) -> None:
    place.rows([{"image_path": place.picture(size=(640, 480)), "caption": "A mug."}])
    server.answers = ProbeModel("xyxy_px", noise=0.06, outliers=0)
    place.settings |= {"vlm.openai.model_name": MODEL, "vlm.box_format": "auto"}
    done = place.run(**{"vlm.check_every": None})
    assert done.code == 0, done
    assert "may be off by 1." in done.err
    assert "maps precise to 1." in place.run_json()["box_format"]["from"]


def test_a_stored_calibration_of_pixels_without_maps_is_measured_again(tmp_path: Path) -> None:
    serving = OpenAIServing("http://127.0.0.1:9/v1", MODEL)
    facts = (serving.endpoint, MODEL, prompt_version(), "xyxy_px@round_28", 3.0, 0.01, 30, 36, 12)
    stored = Calibration(
        *facts, "2026-11-22T00:00:00Z", limits=SizeLimits(1200), sizes=[[640, 480]]
    )
    stored.save(cache_path(serving.endpoint, MODEL))
    stored.save(run_file(str(tmp_path)))
    choice = FormatChoice(serving)
    choice.recall(str(tmp_path))
    assert choice.pending


class ByType(SeeingModel):
    """Sees JPEGs at half the size that PNGs have."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        [image] = request.images
        scale = 0.5 if image.format == "JPEG" else 1.0
        self._resized = lambda width, height: (width * scale, height * scale)
        return super().__call__(request)


def test_what_a_frame_pads_goes_out_as_jpeg_and_is_probed_so(
    tmp_path: Path, server: LoopbackServer
) -> None:
    rows = [scene(tmp_path, size) for size in ((640, 480), (639, 479), (600, 450))]
    server.answers = ByType("xyxy_px")
    with pytest.raises(SpecError, match=r"box_format"):
        offs(OpenAIServing(server.base_url, MODEL), rows)


def test_a_frame_that_is_refused_is_remembered(tmp_path: Path, server: LoopbackServer) -> None:
    rows = [scene(tmp_path, size) for size in ((480, 640), (640, 480))]
    server.answers = SeeingModel(resized=reduced(edge=800))
    server.faults = on(
        faults.bad_request("no"), where=lambda request: any(w < h for w, h in request.image_sizes)
    )
    assert max(offs(OpenAIServing(server.base_url, MODEL), rows)) <= 0.01
    asked = server.count()
    assert max(offs(OpenAIServing(server.base_url, MODEL), rows)) <= 0.01
    assert server.count() == asked + 2


def test_a_picture_that_is_not_of_the_shape_sent_is_refused() -> None:
    frame = FrameMap((1764, 588), (0, 0), (1764, 588), 0.001)
    known = format_in_frames("xyxy", [frame])
    reply = '[{"bbox_2d": [10, 20, 300, 200]}]'
    for size in ((4000, 1333), (3000, 1000), (3, 1)):
        assert read_boxes(reply, format=known, image_size=size, sent_size=frame.size).boxes
    with pytest.raises(SpecError, match="with its padding"):
        read_boxes(reply, format=known, image_size=(3000, 200), sent_size=frame.size)

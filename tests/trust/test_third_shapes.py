"""What fits the sizes that were asked for isn't taken to fit others: shapes, sizes in between,
sizes of later runs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import frame_of
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.trust.calibration_file import cache_path
from dataflow_grounding.trust.frames import MOST_FRAMES, choose_frames, missing_frames
from dataflow_grounding.trust.probes import Probe, ProbedPicture, probe_of
from tests.support.seen_boxes import off, scene
from tests.support.stand_ins.probe_model import answered
from tests.support.stand_ins.resize_rules import (
    Placing,
    at_least,
    drifting,
    grids_of,
    halved,
    letterboxed,
    openai,
    reduced,
    scaled_to,
    smart,
    tiled,
)
from tests.support.stand_ins.resized_model import SIZES, decided, furthest_off, with_rule
from tests.support.stand_ins.seeing_model import MODEL, SeeingModel


def stepped(width: int, height: int) -> tuple[float, float]:
    """A rule that a stranger makes up: pictures of a range of areas are seen smaller, and sides in
    multiples of 48.
    """
    scale = 0.75 if 500_000 <= width * height < 1_250_000 else 1.0
    return max(48, round(width * scale / 48) * 48), max(48, round(height * scale / 48) * 48)


OWN: tuple[Size, ...] = ((640, 480), (1242, 375), (1000, 1000), (600, 900))
USUAL = tuple(size for size in SIZES if max(size) <= 3 * min(size))


@pytest.mark.parametrize(
    ("rule", "noise", "outliers", "own"),
    [
        pytest.param(smart(28, 3136, 12845056), 0.005, 0.0, (), id="smart_resize"),
        pytest.param(openai, 0.015, 0.0, (), id="OpenAI's"),
        pytest.param(scaled_to(672), 0.03, 0.0, (), id="small ones enlarged"),
        pytest.param(halved(3e5, 7e5), 0.005, 0.0, (), id="middle ones"),
        pytest.param(at_least(420, 600), 0.005, 0.0, (), id="a long edge but in small squares"),
        pytest.param(stepped, 0.015, 0.0, (), id="made up"),
        # its bands are narrow in 4:3 and 16:9, and a quarter of the side in other shapes
        pytest.param(letterboxed(grids_of(384, 9), 1000), 0.005, 0.2, (), id="parts of a canvas"),
        # the two of 780 models of a long run that were once read wrong
        pytest.param(tiled(336, 6), 0.005, 0.0, OWN, id="x and y that differ by an eighth"),
        pytest.param(drifting(-0.05), 0.005, 0.2, OWN, id="sides that look rounded by chance"),
    ],
)
def test_pixels_are_read_right_whatever_the_server_does_to_pictures(
    rule: Placing, noise: float, outliers: float, own: Sequence[Size]
) -> None:
    """In all usual sizes, whether or not they were known. `benchmarks.resize_rules` plays all
    rules.
    """
    decision, _ = decided(with_rule(rule, random.Random(0), noise, outliers), own)
    assert furthest_off(rule, decision, own or USUAL)[0] <= 0.01


def test_a_padded_square_is_measured_in_frames() -> None:
    known = find_box_format("xyxy_1000@pad_square", "")
    decision, _ = decided(lambda probe: answered(probe, lambda _: known, dict(probe.boxes)))
    assert decision.fit.format.name == "xyxy_px@measured"
    for frame_map in decision.fit.format.maps:
        for bbox in probe_of(frame_map.size).boxes.values():
            numbers = known.from_pixels(bbox, original=frame_map.size)
            read = decision.fit.format.to_pixels(numbers, original=frame_map.size)
            assert read == pytest.approx(bbox, abs=0.005 * max(frame_map.size))


@pytest.mark.parametrize(
    ("own", "shapes"),
    [
        ([], [1.33, 1.78, 0.56, 1.0, 1.5, 0.75]),
        ([(1600, 1200), (320, 240), (700, 500)], [1.33, 1.78, 0.56, 1.33, 1.33, 1.4]),
        ([(1200, 1600), (640, 640), (300, 301), (2000, 400)], [1.33, 1.78, 0.56, 0.75, 1.0, 1.0]),
    ],
    ids=["no pictures are known", "lying ones", "upright, square and elongated ones"],
)
def test_a_model_of_fractions_is_asked_in_the_shapes_of_the_run(
    own: list[Size], shapes: list[float]
) -> None:
    known = find_box_format("yxyx_1000", "")
    sizes: list[Size] = []

    def model(probe: Probe) -> ProbedPicture:
        sizes.append(probe.size)
        return answered(probe, lambda _: known, dict(probe.boxes))

    assert decided(model, own)[0].fit.format.name == "yxyx_1000"
    assert [round(width / height, 2) for width, height in sizes] == shapes


ODD_IN_PARTS: dict[str, Placing] = {
    "squares shifted": lambda w, h: (1000, 1000, 50, 50) if w == h else (1000, 1000),
    "small ones in pixels": lambda w, h: (w, h) if max(w, h) < 400 else (1000, 1000),
    "padded at the right and bottom to multiples of 64": lambda w, h: (
        1000 * w / (-w // 64 * -64),
        1000 * h / (-h // 64 * -64),
    ),
}


@pytest.mark.parametrize(("seed", "what"), list(enumerate(ODD_IN_PARTS)))
def test_parts_of_the_side_that_are_other_in_some_pictures_are_measured_in_frames(
    what: str, seed: int
) -> None:
    own: list[Size] = [(640, 427), (500, 500), (300, 400), (2048, 1536), (260, 200)]
    rule = ODD_IN_PARTS[what]
    decision, _ = decided(with_rule(rule, random.Random(seed), 0.015, 0.1), own)
    assert decision.limits is not None
    assert decision.limits.frames
    assert furthest_off(rule, decision, own)[0] <= 0.01


@pytest.mark.parametrize(
    "rule", [drifting(0.05), tiled(448, 12)], ids=["growing with the size", "tiles"]
)
def test_where_no_size_arrives_as_sent_each_frame_has_its_map(rule: Placing) -> None:
    decision, _ = decided(with_rule(rule, random.Random(1), 0.005, 0.0))
    assert decision.limits is not None
    assert {one.size for one in decision.fit.format.maps} == set(decision.limits.frames)
    assert furthest_off(rule, decision)[0] <= 0.01


@pytest.mark.parametrize(
    ("sizes", "frames"),
    [
        ([(640, 480)], [(640, 480)]),
        ([(16, 16)], [(224, 224)]),  # rectangles can't be drawn in less
        ([(12000, 9000)], [(2048, 1536)]),
        ([(4000, 200)], [(2048, 102)]),
    ],
)
def test_a_run_of_one_size_has_one_frame(sizes: list[Size], frames: list[Size]) -> None:
    assert choose_frames(sizes, [1], SizeLimits(2048)) == frames


def test_frames_are_few_and_those_that_are_measured_are_taken_first() -> None:
    sides = range(200, 2000, 450)
    sizes = [(width, height) for width in sides for height in sides]
    counts = [1] * len(sizes)
    chosen = choose_frames(sizes, counts, SizeLimits(2048))
    assert 3 <= len(chosen) <= MOST_FRAMES
    assert missing_frames(sizes, counts, SizeLimits(2048), chosen) == []
    limits = SizeLimits(2048, frames=tuple(chosen))
    for size in sizes:
        padded = limits.padded(size)
        assert limits.sent(size) in chosen
        assert padded[0] >= size[0]
        assert padded[1] >= size[1]


def test_a_frame_of_one_size() -> None:
    known = find_box_format("xyxy_px@seen_768_384", "")
    assert frame_of("seen_768_384", (1008, 1008))[:2] == (768, 384)
    assert known.to_pixels((384, 96, 768, 384), original=(2016, 1008), sent=(1008, 1008)) == (
        1008,
        252,
        2016,
        1008,
    )
    assert known.from_pixels((1008, 252, 2016, 1008), original=(2016, 1008)) == [384, 96, 768, 384]
    assert "768 px wide and 384 px high" in known.instructions((1008, 1008))
    for name in ("seen_0_384", "smart_resize_28_0_0", "long_edge_0", "long_edge_9_patch_0_1"):
        with pytest.raises(SpecError, match="unknown box frame"):
            frame_of(name, (10, 10))


def ask_for(server: LoopbackServer, row: dict[str, object]) -> float:
    """How far the boxes of a row are off at the most, in a process of its own as it were, as a
    share of the side.
    """
    [record] = PhraseGrounder(OpenAIServing(server.base_url, MODEL))([row])
    return off(record)


def test_a_stored_calibration_is_tried_in_sizes_that_it_never_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: LoopbackServer
) -> None:
    server.answers = SeeingModel(resized=reduced(edge=1280))
    assert ask_for(server, scene(tmp_path, (640, 480))) <= 0.01
    asked = server.count()
    new = scene(tmp_path, (520, 700))
    assert ask_for(server, new) <= 0.01
    # two probes of the new frame, a check with the picture itself, one answer
    assert server.count() == asked + 4
    assert "520x700" in capsys.readouterr().err
    stored = json.loads(Path(cache_path(server.base_url, MODEL)).read_text())
    assert [520, 700] in stored["sizes"]
    assert ask_for(server, new) <= 0.01
    assert server.count() == asked + 5  # its map is known by now

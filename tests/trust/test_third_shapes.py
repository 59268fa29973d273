"""What fits the sizes that were asked for isn't taken to fit others: shapes, sizes in between,
sizes of later runs.
"""

from __future__ import annotations

import json
import random
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
from tests.support.stand_ins.pixel_frames import MODEL
from tests.support.stand_ins.probe_model import answered
from tests.support.stand_ins.processors import PROCESSORS, at_least, made_up
from tests.support.stand_ins.resize_rules import OTHERS, Placing, reduced
from tests.support.stand_ins.rule_runs import decided, furthest_off, one_rule, with_rule
from tests.support.stand_ins.seeing_model import SeeingModel


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("halved from 300,000 to 700,000 px", id="middle ones"),
        pytest.param("shorter side at least 448", id="small ones"),
        pytest.param("Llama 4, enlarged to the canvas", id="a canvas"),
    ],
)
def test_servers_that_treat_some_sizes_otherwise_are_read_right(name: str) -> None:
    """In all sizes of tests/support/stand_ins/rule_runs.py, whether or not they were known; noisy
    models may be refused. `benchmarks.resize_rules` plays all rules.
    """
    outcomes = [one_rule(name, PROCESSORS[name], seed) for seed in (0, 9)]
    assert [outcome.why for outcome in outcomes if outcome.kind == "wrong"] == []
    assert outcomes[0].kind == "right"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("made up 3/7", 1),
        # its bands are narrow in 4:3 and 16:9, and a quarter of the side in other shapes
        pytest.param("DeepSeek-VL2, parts of 9 tiles of 384", 6, id="parts of a canvas"),
    ],
)
def test_a_rule_that_a_stranger_makes_up_is_never_read_wrong(name: str, seed: int) -> None:
    outcome = one_rule(name, {**PROCESSORS, **made_up(12, 3)}[name], seed)
    assert outcome.kind != "wrong", outcome.why


@pytest.mark.slow
def test_a_long_edge_that_small_squares_do_not_have_is_no_constant_side() -> None:
    rule = at_least(420, 600)
    decision, _ = decided(with_rule(rule, random.Random(0), 0.005, 0.0))
    assert furthest_off(rule, decision)[0] <= 0.01


@pytest.mark.slow
def test_a_padded_square_is_measured_in_frames() -> None:
    known = find_box_format("xyxy_1000@pad_square", "")
    decision, _ = decided(lambda probe: answered(probe, lambda _: known, dict(probe.boxes)))
    assert decision.fit.format.name == "xyxy_px@measured"
    for frame_map in decision.fit.format.maps:
        for bbox in probe_of(frame_map.size).boxes.values():
            numbers = known.from_pixels(bbox, original=frame_map.size)
            read = decision.fit.format.to_pixels(numbers, original=frame_map.size)
            assert read == pytest.approx(bbox, abs=0.005 * max(frame_map.size))


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["growing with the size", "12 tiles of 448, counted as tiles"])
def test_where_no_size_arrives_as_sent_each_frame_has_its_map(name: str) -> None:
    rule = OTHERS[name]
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


@pytest.mark.slow
def test_a_stored_calibration_is_tried_in_sizes_that_it_never_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LoopbackServer(SeeingModel(resized=reduced(edge=1280)), keep_bodies=True) as server:
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

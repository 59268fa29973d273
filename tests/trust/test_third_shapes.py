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
from dataflow_grounding.trust.frames import frames_for, missing_frames
from dataflow_grounding.trust.probes import Probe, ProbedPicture
from tests.support.seen_boxes import off, scene
from tests.support.stand_ins.probe_model import answered
from tests.support.stand_ins.resize_rules import (
    Placing,
    View,
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


def cornered(width: int, height: int) -> tuple[float, float]:
    """Thousandths of a square, the picture in its corner."""
    return 1000 * width / max(width, height), 1000 * height / max(width, height)


def centered(width: int, height: int) -> View:
    """Thousandths of a square, the picture in its middle."""
    across, down = cornered(width, height)
    return across, down, 500 - across / 2, 500 - down / 2


def padded(width: int, height: int) -> tuple[float, float]:
    """Thousandths of a picture that is padded at its right and bottom to multiples of 64."""
    return 1000 * width / (-width // 64 * -64), 1000 * height / (-height // 64 * -64)


OWN: tuple[Size, ...] = ((640, 480), (1242, 375), (1000, 1000), (600, 900))
OTHERS: tuple[Size, ...] = ((640, 427), (500, 500), (300, 400), (2048, 1536), (260, 200))
RULES: dict[str, tuple[Placing, float, float, Sequence[Size]]] = {
    "smart_resize": (smart(28, 3136, 12845056), 0.005, 0.0, ()),
    "OpenAI's": (openai, 0.015, 0.0, ()),
    "small ones enlarged": (scaled_to(672), 0.03, 0.0, ()),
    "middle ones": (halved(3e5, 7e5), 0.005, 0.0, ()),
    "a long edge but in small squares": (at_least(420, 600), 0.005, 0.0, ()),
    "made up": (stepped, 0.015, 0.0, ()),
    "growing with the size": (drifting(0.05), 0.005, 0.0, ()),
    "tiles": (tiled(448, 12), 0.005, 0.0, ()),
    "a padded square": (centered, 0.0, 0.0, ()),
    # a long edge of about the same number in every picture: pixels would explain it, too
    "a square, hardly any noise": (cornered, 0.001, 0.0, ()),
    "a square": (cornered, 0.015, 0.0, ()),
    # its bands are narrow in 4:3 and 16:9, and a quarter of the side in other shapes
    "parts of a canvas": (letterboxed(grids_of(384, 9), 1000), 0.005, 0.2, ()),
    # the two of 780 models of a long run that were once read wrong
    "x and y that differ by an eighth": (tiled(336, 6), 0.005, 0.0, OWN),
    "sides that look rounded by chance": (drifting(-0.05), 0.005, 0.2, OWN),
    # parts of the side that are other in some pictures
    "squares shifted": (
        lambda w, h: (1000, 1000, 50, 50) if w == h else (1000, 1000),
        0.015,
        0.1,
        OTHERS,
    ),
    "small ones in pixels": (
        lambda w, h: (w, h) if max(w, h) < 400 else (1000, 1000),
        0.015,
        0.1,
        OTHERS,
    ),
    "padded to multiples of 64": (padded, 0.015, 0.1, OTHERS),
}
"""What a server does → its rule, the model's noise and outliers, and the sizes of the run, if they
are known. `benchmarks.resize_rules` plays many more.
"""


@pytest.mark.parametrize("name", RULES)
def test_boxes_are_read_right_in_frames_whatever_the_server_does_to_pictures(name: str) -> None:
    """In the run's sizes, or in all usual ones."""
    rule, noise, outliers, own = RULES[name]
    decision, _ = decided(with_rule(rule, random.Random(1), noise, outliers), own)
    assert decision.limits is not None
    assert {one.size for one in decision.fit.format.maps} == {*decision.limits.frames} != set()
    usual = [size for size in SIZES if max(size) <= 3 * min(size)]
    assert furthest_off(rule, decision, own or usual)[0] <= 0.01


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
    assert frames_for(sizes, SizeLimits(2048)) == frames


def test_of_many_sizes_there_are_five_large_frames() -> None:
    sides = range(200, 2000, 450)
    sizes = [(width, height) for width in sides for height in sides]
    limits = SizeLimits(2048)
    frames = frames_for(sizes, limits)
    assert frames == frames_for([], limits), "the same where the run's pictures aren't known"
    assert len(frames) == 5
    assert all(2.2e6 < width * height < 2.5e6 for width, height in frames)
    assert missing_frames(sizes, limits, frames) == missing_frames([], limits, []) == []
    in_frames = SizeLimits(2048, frames=tuple(frames))
    for size in sizes:
        padded = in_frames.padded(size)
        assert in_frames.sent(size) in frames
        assert padded[0] >= size[0]
        assert padded[1] >= size[1]


def test_where_large_frames_are_refused_there_are_smaller_ones() -> None:
    limits = SizeLimits(2048)
    large = frames_for([], limits)
    smaller = frames_for([], limits, refused=large)
    assert len(smaller) == 5
    assert all(width * height < 1.1e6 for width, height in smaller)
    square, *others = large
    assert frames_for([], limits, refused=[square], answered=others)[1:] == others


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

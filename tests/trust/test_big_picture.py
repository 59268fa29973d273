"""A huge picture and a tiny one, of a model that counts pixels of a reduced picture: boxes are as near as
the measured map is said to be precise.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.trust.calibration_file import cache_path
from tests.support.stand_ins.resize_rules import reduced
from tests.support.stand_ins.seeing_model import COLORS, GROUND, SeeingModel

# Shares of both sides at which a box begins and ends. They are whole pixels of all sizes here.
PARTS = {"red": (0.125, 0.375), "blue": (0.625, 0.875)}


def scene(path: Path, size: Size) -> None:
    """Write a picture with the boxes of PARTS."""
    picture = Image.new("RGB", size, GROUND)
    width, height = size
    for color, (start, end) in PARTS.items():
        box = (start * width, start * height, end * width, end * height)
        picture.paste(COLORS[color], tuple(round(edge) for edge in box))  # type: ignore[arg-type]
    picture.save(path, quality=90)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("big.jpg", (10_400, 8_800), id="92 million pixels"),
        pytest.param("small.png", (16, 16), id="16 x 16"),
    ],
)
def test_boxes_are_within_the_precision_that_is_stated(
    tmp_path: Path, name: str, size: Size, server: LoopbackServer
) -> None:
    scene(tmp_path / name, size)
    row = {
        "image_path": str(tmp_path / name),
        "expressions": [f"the {color} box" for color in PARTS],
    }
    server.answers = SeeingModel(resized=reduced(edge=800))
    record = PhraseGrounder(OpenAIServing(server.base_url, "counts-pixels"))(row)
    stored = json.loads(Path(cache_path(server.base_url, "counts-pixels")).read_text())
    # As "maps precise to" says it: two standard errors of the least exact map.
    precision = 2 * max(one["error"] for one in stored["maps"])
    assert precision < 0.01
    # Boxes are in whole pixels of the picture.
    for expression, (start, end) in zip(record["expressions"], PARTS.values(), strict=True):
        [instance] = expression["instances"]
        true_shares = (start, start, end, end)
        for edge, share, side in zip(instance["bbox"], true_shares, size * 2, strict=True):
            assert abs(edge / side - share) <= precision

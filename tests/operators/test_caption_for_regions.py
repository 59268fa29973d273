"""CaptionForRegions: a picture with regions gets a caption, one without costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import CaptionForRegions, CaptionGenerator, OpenAIServing
from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.testing import EchoAnswers, LoopbackServer

REGION = {"bbox": [2, 2, 30, 20], "type": "cup"}


def row_of(folder: Path, **columns: Any) -> dict[str, Any]:
    path = folder / "a.png"
    Image.new("RGB", (64, 48), "red").save(path)
    return {"image_path": str(path), **columns}


@pytest.mark.parametrize("regions", [[], None, [REGION]], ids=["none", "null", "one"])
def test_a_picture_is_asked_about_where_it_has_regions(tmp_path: Path, regions: Any) -> None:
    row = row_of(tmp_path, regions=regions)
    with LoopbackServer(EchoAnswers("xyxy_px")) as server:
        serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_px")
        done = CaptionForRegions(serving)(row)
        assert server.count() == int(bool(regions))
        without = dict.fromkeys(("caption", "cleaned_caption"))
        each = CaptionGenerator(serving)(row)
    assert (done["width"], done["height"]) == (64, 48)
    assert dict(done) == (dict(each) if regions else {**each, **without})
    assert CaptionForRegions(serving).name == CaptionGenerator.name, "its folder and its replies"


def test_a_row_whose_label_could_not_be_read_fails_without_regions_too(tmp_path: Path) -> None:
    row = row_of(tmp_path, regions=[], seed_error="line 2 has 3 columns")
    with LoopbackServer(EchoAnswers("xyxy_px")) as server:
        serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_px")
        with pytest.raises(RecordError, match="line 2 has 3 columns"):
            CaptionForRegions(serving)(row)
        assert server.count() == 0

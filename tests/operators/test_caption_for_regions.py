"""CaptionForRegions: a picture with regions gets a caption, one without costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import CaptionGenerator
from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.operators import CaptionForRegions
from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import serving_of

REGION = {"bbox": [2, 2, 30, 20], "type": "cup"}


def row_of(regions: Any, **columns: Any) -> dict[str, Any]:
    return {"image_path": Image.new("RGB", (64, 48), "red"), "regions": regions, **columns}


@pytest.mark.parametrize("regions", [[], None, [REGION]], ids=["none", "null", "one"])
def test_a_picture_is_asked_about_where_it_has_regions(
    server: LoopbackServer, regions: Any
) -> None:
    serving = serving_of(server, "xyxy_px")
    done = CaptionForRegions(serving)(row_of(regions))
    assert server.count() == int(bool(regions))
    without = dict.fromkeys(("caption", "cleaned_caption"))
    each = CaptionGenerator(serving)(row_of(regions))
    assert (done["width"], done["height"]) == (64, 48)
    same = {**each, "image_path": done["image_path"]}
    assert dict(done) == (same if regions else {**same, **without})
    assert CaptionForRegions(serving).name == CaptionGenerator.name, "its folder and its replies"


def test_a_row_whose_label_could_not_be_read_fails_without_regions_too(
    server: LoopbackServer,
) -> None:
    row = row_of([], seed_error="line 2 has 3 columns")
    with pytest.raises(RecordError, match="line 2 has 3 columns"):
        CaptionForRegions(serving_of(server))(row)
    assert server.count() == 0

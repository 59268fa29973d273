"""Box formats of the user's own, and records whose replies needed much mending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import GroundingError, PhraseGrounder, Serving
from dataflow_grounding.serving import Reply


class Answering(Serving):
    """Gives one text to every request."""

    def __init__(self, text: str, model: str = "our-own-vlm-7b") -> None:
        self.text, self.model = text, model

    async def answer(self, request: Any) -> Reply:
        return Reply(self.text)


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    Image.new("RGB", (200, 100), "white").save(tmp_path / "a.png")
    return {"image_path": str(tmp_path / "a.png"), "expressions": ["a cat", "a dog"]}


def test_a_row_of_the_users_own_settles_how_an_unknown_model_writes_boxes(
    row: dict[str, Any],
) -> None:
    serving = Answering('{"objects": [{"id": 1, "label": "a cat", "box": [100, 200, 500, 600]}]}')
    serving.box_formats = [{"models": ["our-own-*"], "order": "yxyx", "scale": 1000, "key": "box"}]
    record = PhraseGrounder(serving)(row)
    assert record["expressions"][0]["instances"][0]["bbox"] == [40, 10, 120, 50]
    assert "doubtful" not in record


def test_a_row_that_makes_no_sense_is_refused_with_what_it_may_say(row: dict[str, Any]) -> None:
    serving = Answering("")
    serving.box_formats = [{"models": ["our-own-*"], "order": "zigzag", "scale": 1000}]
    with pytest.raises(GroundingError, match="order must be one of xyxy"):
        PhraseGrounder(serving)


def test_a_record_whose_boxes_were_mostly_moved_is_marked_doubtful(row: dict[str, Any]) -> None:
    cat, dog = (
        '"label": "a cat", "bbox_2d": [900, 10, 1060, 400]',
        '"label": "a dog", "bbox_2d": [10, 900, 400, 1080]',
    )
    far = f'{{"objects": [{{"id": 1, {cat}}}, {{"id": 2, {dog}}}]}}'
    record = PhraseGrounder(Answering(far), box_format="xyxy_1000")(row)
    assert (record["doubtful"], record["doubt"]) == (True, "much was dropped or moved")
    near = far.replace("1060", "990").replace("1080", "990")
    assert PhraseGrounder(Answering(near), box_format="xyxy_1000")(record)["doubtful"] is False

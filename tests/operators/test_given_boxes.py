"""A question of the user's own about given boxes: put in the numbers of its model, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import OpenAIServing, Operator, RegionOperator, Request, errors, open_image
from dataflow_grounding import read_regions as regions_of
from dataflow_grounding.testing import CannedAnswers, LoopbackServer
from tests.support.workplace import command

BOX = [90, 60, 180, 240]
ROW = {"image_path": "example_data/images/toys.jpg", "regions": [{"bbox": BOX, "type": "toy"}]}
SAYS = CannedAnswers('{"hidden": [false]}')


def hidden_parts(image: Any, regions: Any) -> Request[list[bool]]:
    return Request(
        task="hidden_parts",
        input={"regions": regions},
        images=(image,),
        instructions="Is a part of it hidden? {box_format}",
        schema={"type": "object"},
        read=lambda reply: (json.loads(reply)["hidden"], []),
    )


class HiddenParts(RegionOperator):
    name = "hidden_parts"
    tasks = ("hidden_parts",)
    input_keys = {"image": "image_path", "regions": "regions"}
    output_keys = {"hidden": "hidden"}

    async def described(self, record: Any, image: Any, regions: Any, ask: Any) -> Any:
        [(_, hidden)] = await self.ask_about(image, regions, hidden_parts, ask)
        return {self.keys.hidden: hidden}


class WithoutFormat(Operator):
    name = "without_format"
    tasks = ("hidden_parts",)
    input_keys = {"image": "image_path", "regions": "regions"}
    output_keys = {"hidden": "hidden"}

    def __init__(self, serving: Any) -> None:
        self.serving = serving

    async def annotate(self, record: Any, ask: Any) -> Any:
        image = open_image(record, self.keys.image)
        regions = regions_of(record, self.keys.regions)
        return {self.keys.hidden: await ask(hidden_parts(image, regions))}


@pytest.mark.parametrize(
    ("box_format", "key", "numbers"),
    [
        ("xyxy_px", "bbox_2d", BOX),
        ("xyxy_1000", "bbox_2d", [141, 125, 281, 500]),
        ("yxyx_1000", "box_2d", [125, 141, 500, 281]),
    ],
)
def test_boxes_are_written_in_the_models_numbers(
    box_format: str, key: str, numbers: list[int]
) -> None:
    with LoopbackServer(SAYS) as server:
        serving = OpenAIServing(server.base_url, "any", box_format=box_format)
        assert HiddenParts(serving)(ROW)["hidden"] == [False]
    [request] = server.requests
    assert request.input["regions"] == [{"id": 1, key: numbers, "type": "toy"}]
    assert f'under the key "{key}"' in request.text


def test_an_operator_without_a_format_is_stopped_before_it_asks() -> None:
    with LoopbackServer(SAYS) as server:
        serving = OpenAIServing(server.base_url, "any", box_format="xyxy_px")
        with pytest.raises(errors.NoBoxFormat, match="derive the operator from RegionOperator"):
            WithoutFormat(serving)(ROW)
    assert not server.requests


MODULE = """
from dataflow_grounding import Pipeline
from tests.operators.test_given_boxes import WithoutFormat

class Hidden(Pipeline):
    name = "hidden"

    def __init__(self, storage, serving):
        self.storage = storage
        self.operator = WithoutFormat(serving)

    def forward(self):
        self.operator.run(self.storage.step())
"""


@pytest.mark.slow
def test_check_refuses_it_and_a_run_ends_with_2(tmp_path: Path) -> None:
    picture = str(Path(ROW["image_path"]).absolute())  # type: ignore[arg-type]
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, "image_path": picture}) + "\n")
    (tmp_path / "hidden_parts_pipeline.py").write_text(MODULE)
    with LoopbackServer(SAYS) as server:
        openai = {"base_url": server.base_url, "model_name": "any"}
        block = {
            "vlm": {"backend": "openai", "box_format": "xyxy_px", "openai": openai},
            "data": {"input_jsonl": "rows.jsonl"},
        }
        spec = {
            "results_dir": str(tmp_path / "out"),
            "autolabel_type": "hidden_parts_pipeline:Hidden",
            "hidden": block,
        }
        (tmp_path / "spec.yaml").write_text(json.dumps(spec))
        for name in ("check", "generate"):
            done = command([name, "-e", str(tmp_path / "spec.yaml")])
            assert done.code == 2, done
            assert "derive the operator from RegionOperator" in done.err + done.out
    assert not server.requests

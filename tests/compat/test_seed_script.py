"""DataFlow's names: the script of its documentation runs with its imports changed and
nothing else.
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import OPERATOR_REGISTRY, GroundingError, PhraseGrounder
from dataflow_grounding.compat import (
    APIVLMServing_openai,
    DataFlowServing,
    ExistingBBoxDataGenConfig,
    FileStorage,
    ImageBboxGenerator,
    PromptedVQAGenerator,
)
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.testing import LoopbackServer
from tests.support.steps import storage_in

SEEDS = Path(__file__).resolve().parents[3] / "shared" / "seeds"
SEED_PAGE = SEEDS / "dataflow_mm_image_region_caption.txt"
SERVICE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
ANSWER = "In <region1>, the focus is on the lower half of a person wearing high-heeled shoes."


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_API_KEY", "k")


def indented(page: str) -> str:
    """The page's script; the copy of it that we have has lost its indentation, which is put back
    here.
    """
    head, of, body = page[page.rindex("import os\nos.environ") :].partition("class ")
    depth, lines = 0, []
    for line in (of + body).splitlines():
        depth = (
            4
            if line.startswith(("def ", "):"))
            else 0
            if line.startswith(("class ", "if __name__"))
            else depth
        )
        lines.append(" " * depth + line)
        depth = 8 if line.endswith("):") else 4
        if line.startswith(("def __init__", "if __name__")):
            depth = 4
        elif not line.endswith(":"):
            depth = len(lines[-1]) - len(line)
    return head + "\n".join(lines) + "\n"


@pytest.mark.skipif(not SEED_PAGE.exists(), reason="the page is not here")
def test_the_script_of_dataflows_page_runs_with_its_imports_changed(
    tmp_path: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = indented(SEED_PAGE.read_text(encoding="utf-8"))
    ours = re.sub(r"from dataflow\.[\w.]+ import", "from dataflow_grounding.compat import", script)
    assert ours.count("dataflow_grounding.compat") == 4
    ours = ours.replace(SERVICE, server.base_url)  # where the user's model is
    data = tmp_path / "example_data" / "image_region_caption"
    data.mkdir(parents=True)
    Image.new("RGB", (1536, 832), "teal").save(data / "20.png")
    row = {"image": "../example_data/image_region_caption/20.png", "bbox": [[196, 104, 310, 495]]}
    (data / "image_region_caption_demo.jsonl").write_text(json.dumps(row) + "\n")
    folder = tmp_path / "api_pipelines"
    folder.mkdir()
    (folder / "script.py").write_text(ours)
    monkeypatch.chdir(folder)
    server.answers = lambda request: ANSWER
    runpy.run_path(str(folder / "script.py"), run_name="__main__")
    [record] = read_records("../cache/image_region_caption/region_caption_step1.jsonl")
    nine = {
        "image": "../example_data/image_region_caption/20.png",
        "type": "with_bbox",
        "bbox": [[196, 104, 310, 495]],
        "normalized_bbox": [[0.128, 0.125, 0.329, 0.72], *[[0.0] * 4] * 9],
        "result_file": "../cache/image_region_caption",
        "image_with_bbox": "../cache/image_region_caption/1_bbox_vis.jpg",
        "valid_bboxes_num": 1,
        "prompt": "Describe the content of each marked region in the image. There are 1 regions: <region1> to <region1>.",
        "answer": ANSWER,
    }
    assert {name: record[name] for name in nine} == nine
    [request] = server.requests
    assert request.input["prompt"] == record["prompt"]
    assert "You are a helpful assistant." in request.text
    runpy.run_path(str(folder / "script.py"), run_name="__main__")
    assert server.count() == 1  # a second run is paid for already


def pictures(folder: Path, count: int) -> list[str]:
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.new("RGB", (60 + n, 40), "navy").save(path)
    return [str(path) for path in paths]


def test_no_error_text_passes_for_an_answer(tmp_path: Path, server: LoopbackServer) -> None:
    serving = APIVLMServing_openai(api_url=server.base_url, model_name="loopback", timeout=20)
    with pytest.raises(GroundingError, match="no image"):
        serving.generate_from_input([*pictures(tmp_path, 1), str(tmp_path / "missing.png")])
    assert server.count() == 0  # the call fails as a whole, so before anything is paid


class TheirServing:
    """A serving as DataFlow's operators know it: lists of paths and prompts in, texts out."""

    model_name = "theirs"
    max_workers = 2

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.seen: list[Any] = []

    def generate_from_input_one_image(
        self, image_paths: list[str], text_prompts: list[str], system_prompt: str
    ) -> list[str]:
        self.seen += [
            (Image.open(path).size, prompt)
            for path, prompt in zip(image_paths, text_prompts, strict=True)
        ]
        return [self.reply for _ in image_paths]


def test_our_operators_ask_a_serving_of_dataflows(tmp_path: Path) -> None:
    theirs = TheirServing('{"objects": [{"id": 1, "label": "a cup", "bbox_2d": [5, 5, 30, 30]}]}')
    serving = DataFlowServing(theirs, box_format="xyxy_px")
    record = PhraseGrounder(serving, check_every=None)(
        {"image_path": pictures(tmp_path, 1)[0], "expressions": ["a cup"]}
    )
    assert record["expressions"][0]["instances"][0]["bbox"] == [5, 5, 30, 30]
    [(size, prompt)] = theirs.seen
    assert size == (60, 40)
    assert '"task": "phrase_grounding"' in prompt


def test_an_error_in_the_place_of_a_text_is_no_answer(tmp_path: Path) -> None:
    asker = PromptedVQAGenerator(TheirServing("Error: 500"))
    once = holding(current_options, RunOptions(max_attempts=1))
    with once, pytest.raises(GroundingError, match="gave no reply"):
        asker({"image": pictures(tmp_path, 1)[0], "prompt": "what?"})


@pytest.mark.slow
def test_rows_without_boxes_and_the_storages_own_files(tmp_path: Path) -> None:
    scene = Image.new("RGB", (300, 200), "white")
    scene.paste("red", (50, 50, 120, 150))
    scene.save(tmp_path / "scene.png")
    storage = storage_in(tmp_path, {"image": "scene.png"})
    marker = ImageBboxGenerator(ExistingBBoxDataGenConfig(max_boxes=3))
    assert marker.run(storage.step()) == "image_with_bbox"
    [record] = read_records(str(tmp_path / "cache" / "x_step1.jsonl"))
    assert record["type"] == "without_bbox"
    assert len(record["normalized_bbox"]) == 3
    assert {region["proposed_by"] for region in record["regions"]} == {"opencv"}


def test_the_registry_has_both_names() -> None:
    for name in ("ImageBboxGenerator", "PromptedVQAGenerator", "RegionMarker", "RegionCaptioner"):
        assert OPERATOR_REGISTRY.get(name).__name__ == name
        assert OPERATOR_REGISTRY.get_obj_map()[name].get_desc("zh") != OPERATOR_REGISTRY.get(
            name
        ).get_desc("en")


def test_what_is_not_supported_is_said(tmp_path: Path, server: LoopbackServer) -> None:
    storage = FileStorage(str(tmp_path / "in.jsonl"), str(tmp_path))
    serving = APIVLMServing_openai(api_url=server.base_url, model_name="loopback")
    with pytest.raises(GroundingError, match="input_video_key is not supported"):
        PromptedVQAGenerator(serving=serving).run(storage.step(), input_video_key="video")
    with pytest.raises(
        GroundingError, match=r"image_io is not supported: .* Give max_workers by its name"
    ):
        APIVLMServing_openai(server.base_url, "DF_API_KEY", "loopback", 10)


def test_a_script_without_a_pipeline_is_told_of_rows_that_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [name] = pictures(tmp_path, 1)
    rows = [{"image": name, "bbox": [[1, 1, 9, 9]]}, {"image": "no.png", "bbox": [[1, 1, 9, 9]]}]
    ImageBboxGenerator().run(storage_in(tmp_path, *rows).step())
    assert "1 of 2 rows failed in image_bbox: see" in capsys.readouterr().err
    assert len(read_records(str(tmp_path / "cache" / "x_step1.jsonl"))) == 1

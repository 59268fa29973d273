"""Run by the Python of an environment that has `open-dataflow`: both libraries' parts at work
together.

    PYTHONPATH=. DF_API_KEY=... PYTHON tests/compat/with_dataflow.py BASE_URL FOLDER

Prints a line for each thing that was done, and fails at the first that is not as it should be.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import dataflow
from PIL import Image

# Its serving package imports PyTorch, vLLM and more for local models; only the API's serving is
# wanted here.
servings = types.ModuleType("dataflow.serving")
servings.__path__ = [f"{dataflow.__path__[0]}/serving"]
sys.modules["dataflow.serving"] = servings

from dataflow.operators.core_vision import PromptedVQAGenerator as TheirOperator  # noqa: E402
from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai as TheirServing  # noqa: E402
from dataflow.utils.registry import OPERATOR_REGISTRY as THEIR_REGISTRY  # noqa: E402
from dataflow.utils.storage import FileStorage as TheirStorage  # noqa: E402

import dataflow_grounding as dfg  # noqa: E402
from dataflow_grounding.compat import APIVLMServing_openai as OurServing  # noqa: E402
from dataflow_grounding.compat import DataFlowServing  # noqa: E402


def rows(folder: Path) -> str:
    """Two pictures, each with a caption's expressions, boxes, and its path again where their
    operator looks for it.
    """
    lines = []
    for number in range(2):
        path = folder / f"{number}.png"
        Image.new("RGB", (64 + number, 48), "navy").save(path)
        row = {
            "image_path": str(path),
            "raw_content": str(path),
            "expressions": ["a mug"],
            "bbox": [[5, 5, 20, 20]],
        }
        lines.append(json.dumps(row))
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "in.jsonl")


def paths_in(file: str) -> list[str]:
    """The pictures of the rows."""
    return [json.loads(line)["image_path"] for line in Path(file).read_text().splitlines()]


def boxes(storage: Any) -> list[Any]:
    """What a storage says of the step that was written last."""
    found = storage.step().read("dict")
    return [row["expressions"][0]["instances"][0]["bbox"] for row in found]


def main(base_url: str, folder: Path) -> None:
    first = rows(folder)
    arguments = [
        list(inspect.signature(kind).parameters.values())[:4]
        for kind in (dfg.FileStorage, TheirStorage)
    ]
    assert [(p.name, p.default) for p in arguments[0]] == [
        (p.name, p.default) for p in arguments[1]
    ]
    for kind in ("jsonl", "json", "csv", "parquet"):
        for name, (one, other) in {
            "o": (dfg.FileStorage, TheirStorage),
            "t": (TheirStorage, dfg.FileStorage),
        }.items():
            path = (
                one(first, str(folder / kind), name, kind)
                .step()
                .write(TheirStorage(first).step().read())
            )
            again = other(path, str(folder / kind), name, kind).step().read()
            assert (os.path.basename(path), list(again["image_path"])) == (
                f"{name}_step1.{kind}",
                paths_in(first),
            ), path
    print("each library's FileStorage reads what the other's wrote")

    ours = OurServing(api_url=base_url, model_name="loopback", timeout=20, box_format="xyxy_px")
    theirs = TheirServing(api_url=base_url, model_name="loopback", max_workers=4, timeout=20)

    storage = TheirStorage(first, str(folder / "a"), "a")
    dfg.PhraseGrounder(ours).run(storage.step(), input_image_key="image_path")
    dfg.RegionMarker(folder / "a").run(storage.step(), input_image_key="image_path")
    dfg.RegionCaptioner(ours).run(storage.step(), input_image_key="image_path")
    frame = storage.step().read("dataframe")
    assert len(frame) == 2
    assert all(len(captions) == 1 for captions in frame["region_captions"])
    print(f"three operators of ours on their FileStorage: {list(frame.columns)}")

    storage = TheirStorage(first, str(folder / "b"), "b")
    dfg.PhraseGrounder(DataFlowServing(theirs, box_format="xyxy_px")).run(
        storage.step(), input_image_key="image_path"
    )
    by_theirs = boxes(storage)
    print(f"our operator with their serving: {by_theirs}")
    storage = TheirStorage(first, str(folder / "c"), "c")
    dfg.PhraseGrounder(ours).run(storage.step(), input_image_key="image_path")
    assert boxes(storage) == by_theirs

    for name, serving in (("their", theirs), ("our", ours)):
        mine = dfg.FileStorage(first, str(folder / name), "d")
        key = TheirOperator(serving, "What is this?").run(mine.step())
        answers = [row[key] for row in mine.step().read("dict")]
        assert answers == ["A navy picture."] * 2, answers
        print(f"their operator on our FileStorage with {name} serving: {answers}")

    class Mixed(dfg.Pipeline):
        def __init__(self) -> None:
            self.storage = dfg.FileStorage(first, str(folder / "mixed"), "m")
            self.grounder = dfg.PhraseGrounder(ours)
            self.vqa = TheirOperator(theirs, "What is this?")

        def forward(self) -> None:
            self.grounder.run(self.storage.step(), input_image_key="image_path")
            self.vqa.run(self.storage.step())

    pipeline = Mixed()
    pipeline.compile()
    assert pipeline.forward().exit_code == 0
    [row, _] = dfg.FileStorage(str(folder / "mixed" / "m_step2.jsonl")).step().read("dict")
    assert row["generated_content"] == "A navy picture."
    assert row["expressions"][0]["status"] == "grounded"
    print("both libraries' operators in one pipeline, compiled")

    for registry in (dfg.OPERATOR_REGISTRY, THEIR_REGISTRY):
        registry.register(dfg.PhraseGrounder)
        registry.register()(TheirOperator)
        for cls in (dfg.PhraseGrounder, TheirOperator):
            assert registry.get(cls.__name__) is cls
            assert cls.__name__ in registry
            assert registry.get_obj_map()[cls.__name__] is cls
            assert dict(iter(registry))[cls.__name__] is cls
            assert cls.get_desc("zh") != cls.get_desc("en")
    print("both registries hold both libraries' operators")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

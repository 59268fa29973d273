"""A pipeline's steps run when `forward()` is through: what it changes meanwhile is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    ExpressionExtractor,
    FileStorage,
    OpenAIServing,
    Operator,
    Pipeline,
    RunOptions,
)
from dataflow_grounding._util.errors import PlanError
from dataflow_grounding.data.rows import read_records
from tests.support.steps import storage_in

QUIET = RunOptions(progress=False)


class Adding(Operator):
    """Adds a column with the words that it has at the time."""

    input_keys = {"caption": "caption"}
    output_keys = {"output": "out"}
    needs_image = False

    def __init__(self, *words: str) -> None:
        self.words = list(words)

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        return {self.keys.output: " ".join(self.words)}


class ChangingOperator(Pipeline):
    def __init__(self, folder: Path) -> None:
        self.storage = storage_in(folder, {"caption": "a", "image_path": "a.jpg"})
        self.add = Adding("one")

    def forward(self) -> None:
        self.add.run(self.storage.step())
        self.add.words.append("two")
        self.add.run(self.storage.step(), output_key="more")


class ChangingInput(ChangingOperator):
    def forward(self) -> None:
        for number in range(2):
            path = Path(self.storage.first_entry_file_name)
            path.write_text(json.dumps({"caption": f"part {number}"}) + "\n")
            self.add.run(FileStorage(str(path), str(path.parent / f"cache{number}")).step())


class ChangingServing(ChangingOperator):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.serving = OpenAIServing("http://127.0.0.1:9/v1", "m", api_key="k")
        self.extract = ExpressionExtractor(self.serving)

    def forward(self) -> None:
        for number, temperature in enumerate((0.1, 0.9)):
            self.serving.temperature = temperature
            path = self.storage.first_entry_file_name
            self.extract.run(FileStorage(path, f"{path}.{number}").step())


@pytest.mark.parametrize("pipeline", [ChangingOperator, ChangingInput, ChangingServing])
def test_what_changes_between_a_steps_call_and_its_run_is_refused(
    tmp_path: Path, pipeline: type[ChangingOperator]
) -> None:
    with pytest.raises(PlanError, match=r"forward\(\) changes .* after it has called"):
        pipeline(tmp_path).run(options=QUIET)
    assert not list(tmp_path.rglob("*_step1.jsonl"))


def test_a_look_between_the_calls_runs_each_with_what_it_had(tmp_path: Path) -> None:
    class Looking(ChangingOperator):
        def forward(self) -> None:
            self.add.run(self.storage.step())
            self.storage.path_of(1)
            self.add.words.append("two")
            self.add.run(self.storage.step(), output_key="more")

    pipeline = Looking(tmp_path)
    pipeline.run(options=QUIET)
    [record] = read_records(pipeline.storage.path_of(2))
    assert (record["out"], record["more"]) == ("one", "one two")


def test_what_is_set_on_another_librarys_operator_is_set(tmp_path: Path) -> None:
    class Foreign:
        prompt = "A"

        def run(self, storage: Any, output_key: str = "out") -> None:
            frame = storage.read("dataframe")
            frame[output_key] = self.prompt
            storage.write(frame)

    class Setting(ChangingOperator):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.foreign = Foreign()

        def forward(self) -> None:
            self.foreign.prompt = "B"
            self.foreign.run(self.storage.step())

    pipeline = Setting(tmp_path)
    pipeline.run(options=QUIET)
    [record] = read_records(pipeline.storage.path_of(1))
    assert (record["out"], pipeline.foreign.prompt) == ("B", "B")

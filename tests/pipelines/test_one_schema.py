"""Records of every pipeline have `regions`, and `verified` in each expression and caption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataflow_grounding import FileStorage, PhraseGrounder, PhraseLister, Pipeline
from dataflow_grounding import OpenAIServing as Serving
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, command, rows_of


def block(workplace: Workplace, name: str, **settings: Any) -> Path:
    """The workplace's spec for another pipeline."""
    spec = json.loads(workplace.spec(**settings).read_text())
    inner = spec.pop("image_grounding")
    path = workplace.folder / "other.yaml"
    path.write_text(json.dumps({**spec, "autolabel_type": name, name.split(":")[0]: inner}))
    return path


def test_image_grounding(workplace: Workplace, server: LoopbackServer) -> None:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.picture()
    region = {"bbox": [1, 2, 9, 9], "type": "cup", "mine": 7}
    row = {"image_path": "a.jpg", "caption": "A cup."}
    workplace.rows([row, {**row, "caption": "A cat.", "regions": [region]}])
    done = workplace.run(**{"workflow.stream": False})
    assert done.code == 0, done
    assert "not checked" not in done.out
    for step in ("step_0_expression_extraction", "step_1_grounding", "."):
        records = rows_of(workplace.results / step / "annotations.jsonl")
        # what the user brings stays
        assert [record["regions"] for record in records] == [[], [region]]
        for record in records:
            assert record["expressions"]
            assert all(row["verified"] is None for row in record["expressions"])
    assert command(["report", str(workplace.results)]).code == 0
    assert "<dt>unverified</dt>" not in (workplace.results / "report.html").read_text()


MINE = """
from dataflow_grounding import Operator, PhraseLister, Pipeline
class Cut(Operator):
    name = "cut"
    input_keys = {"image": "image_path"}
    output_keys = {"regions": "regions"}
    async def annotate(self, record, ask):
        return {"regions": [{"bbox": [1, 2, 9, 9]}]}
class Mine(Pipeline):
    name = "mine"
    def __init__(self, storage, serving):
        self.storage = storage
        self.lister = PhraseLister(["a cup"])
        self.cut = Cut()
    def forward(self):
        self.lister.run(self.storage.step())
        self.cut.run(self.storage.step())
"""


def test_a_later_step_may_fill_in_regions(workplace: Workplace, server: LoopbackServer) -> None:
    """Also where it goes on from an earlier step's file, which has `regions: []`."""
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(2)
    (workplace.folder / "mine.py").write_text(MINE)
    spec = block(workplace, "mine:Mine", **{"workflow.stream": False})
    run = ["generate", "-e", str(spec), "--no-progress", "--json"]
    assert command([*run, "mine.workflow.steps=['0']"]).code == 0
    done = command([*run, "mine.workflow.steps=['1']"])
    assert done.code == 0, done
    for record in rows_of(workplace.results / "annotations.jsonl"):
        assert record["regions"] == [{"bbox": [1, 2, 9, 9]}]
        assert [row["verified"] for row in record["expressions"]] == [None]
    assert command(["check", "-e", str(spec), "mine.workflow.steps=['1']"]).code == 0


def test_an_operator_alone_adds_no_keys_of_pipelines(workplace: Workplace) -> None:
    workplace.many(1)
    storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
    PhraseLister(["a cup"]).run(storage.step())
    [record] = rows_of(Path(storage.output_path))
    assert "regions" not in record


class Named(Pipeline):
    """Written by hand, with a name."""

    name = "named"

    def __init__(self, workplace: Workplace, url: str) -> None:
        self.storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
        serving = Serving(url, "loopback", box_format="xyxy_px")
        self.lister = PhraseLister(["a cup"])
        self.grounder = PhraseGrounder(serving, check_every=None)

    def forward(self) -> None:
        self.lister.run(self.storage.step())
        self.grounder.run(self.storage.step())


def test_pipelines_by_hand_that_have_a_name(workplace: Workplace, server: LoopbackServer) -> None:
    workplace.many(2)
    pipeline = Named(workplace, server.base_url)
    assert pipeline.run().exit_code == 0
    for record in rows_of(Path(pipeline.storage.output_path)):
        assert record["regions"] == []
        assert [row["verified"] for row in record["expressions"]] == [None]

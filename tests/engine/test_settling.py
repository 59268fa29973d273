"""What is found out before a run: once, before any step is paid for, and only where something will
be asked.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    BoxRefiner,
    CaptionGenerator,
    EmbeddedServing,
    ExpressionExtractor,
    FileStorage,
    Operator,
    PhraseGrounder,
    Pipeline,
    RegionCaptioner,
)
from dataflow_grounding._util.errors import BrokenRow, GroundingError, PlanError, SpecError
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.workplace import Workplace

QUIET = RunOptions(progress=False)


def blind(request: ReceivedRequest) -> dict[str, Any]:
    """A model that finds no rectangle, so that its format can't be settled."""
    return {"objects": []} if request.task == "phrase_grounding" else EchoAnswers()(request)


class TwoSteps(Pipeline):
    """Over one row."""

    def __init__(self, folder: Path, server: LoopbackServer, row: dict[str, Any]) -> None:
        path = folder / "in.jsonl"
        path.write_text(json.dumps(row) + "\n")
        self.storage = FileStorage(str(path), str(folder / "cache"))
        serving = OpenAIServing(server.base_url, "odd")
        self.extractor, self.grounder = ExpressionExtractor(serving), PhraseGrounder(serving)

    def forward(self) -> None:
        self.extractor.run(self.storage.step())
        self.grounder.run(self.storage.step())


class AfterAnIdleStep(TwoSteps):
    """Its first step has no region to ask about."""

    def __init__(self, folder: Path, server: LoopbackServer, row: dict[str, Any]) -> None:
        super().__init__(folder, server, row)
        self.captioner = RegionCaptioner(self.grounder.serving)

    def forward(self) -> None:
        self.captioner.run(self.storage.step())
        super().forward()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    from PIL import Image

    Image.new("RGB", (640, 480), "navy").save(tmp_path / "a.jpg")
    return str(tmp_path / "a.jpg")


def tasks(server: LoopbackServer) -> Counter[str]:
    return Counter(str(request.task) for request in server.requests)


@pytest.mark.slow
def test_a_script_settles_the_format_before_its_first_step_is_paid_for(
    tmp_path: Path, picture: str
) -> None:
    row = {"image_path": picture, "caption": "A dog runs."}
    with LoopbackServer(blind) as server:
        with pytest.raises(SpecError, match="can't tell how 'odd' writes boxes"):
            TwoSteps(tmp_path, server, row).run(options=QUIET)
        assert tasks(server) == {"phrase_grounding": 1}
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        assert TwoSteps(tmp_path, server, row).run(options=QUIET).exit_code == 0
        calibrated, checked, asked = 4, 1, 1
        assert tasks(server) == {
            "phrase_grounding": calibrated + checked + asked,
            "expression_extraction": 1,
        }


@pytest.mark.slow
@pytest.mark.parametrize("is_compiled", [True, False])
def test_the_format_is_settled_before_the_first_step_that_asks(
    tmp_path: Path, picture: str, is_compiled: bool
) -> None:
    row = {"image": picture, "image_path": picture, "regions": [], "caption": "A dog runs."}
    with LoopbackServer(blind) as server:
        pipeline = AfterAnIdleStep(tmp_path, server, row)
        if is_compiled:
            pipeline.compile()
        with pytest.raises(SpecError, match="can't tell how 'odd' writes boxes"):
            pipeline.run(options=RunOptions(progress=False, stream=False))
        assert tasks(server) == {"phrase_grounding": 1}


def test_probes_are_paid_for_once_though_the_run_is_tried_again(workplace: Workplace) -> None:
    workplace.many(3)
    with LoopbackServer(blind) as server:
        settings = {"vlm.openai.base_url": server.base_url, "vlm.box_format": "auto"}
        first, second = workplace.run(**settings), workplace.run(**settings)
        assert (first.code, second.code) == (2, 2), first
        assert tasks(server) == {"phrase_grounding": 1}, "one probe, and nothing of step 0"
        assert "dataflowgrounding calibrate asks for them again" in second.err
        forced = workplace.run(**settings, **{"workflow.force_reprocess": True})
        assert (forced.code, server.count()) == (2, 2)


@pytest.mark.slow
def test_where_nothing_would_be_asked_nothing_is_sent(tmp_path: Path, picture: str) -> None:
    empty, large = [], [{"text": "a", "instances": [{"bbox": [0, 0, 300, 300]}]}]
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        serving = OpenAIServing(server.base_url, "odd")
        for operator in (PhraseGrounder(serving), BoxRefiner(serving)):
            rows = [{"image_path": picture, "expressions": value} for value in (empty, "x", [3])]
            assert [place for place, _ in operator(rows).failures] == [1, 2]
        assert BoxRefiner(serving)({"image_path": picture, "expressions": large})["expressions"]
        assert RegionCaptioner(serving)({"image": picture, "regions": []})["region_captions"] == []
        pipeline = TwoSteps(tmp_path, server, {"image_path": picture, "caption": ""})
        assert pipeline.run(options=QUIET).failed == 1
        assert server.count() == 0


@pytest.mark.slow
def test_a_grounder_of_the_users_own_is_calibrated_whatever_its_records_hold(picture: str) -> None:
    class Mine(PhraseGrounder):
        async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
            return await super().annotate(record.updated({"expressions": ["the dog"]}), ask)

    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        Mine(OpenAIServing(server.base_url, "odd"))({"image_path": picture, "expressions": []})
        assert server.count() == 4 + 1 + 1, "calibrated, checked, asked"


def test_the_first_row_in_order_that_is_seen_to_be_wrong_is_named(picture: str) -> None:
    rows = [
        {"image_path": picture, "expressions": "x"},
        {"image_path": "no.jpg", "expressions": ["a"]},
    ]
    with pytest.raises(BrokenRow, match="row 0: column 'expressions'"):
        PhraseGrounder(EmbeddedServing())(rows, on_error="raise")


def test_a_caption_without_a_model_says_so(tmp_path: Path, picture: str) -> None:
    captioner: Operator = CaptionGenerator(EmbeddedServing())
    with pytest.raises(GroundingError, match="image_caption has no model"):
        captioner({"image_path": picture})
    (tmp_path / "in.jsonl").write_text(json.dumps({"image_path": picture}) + "\n")
    with pytest.raises(PlanError, match="image_caption has no model"):
        captioner.run(FileStorage(str(tmp_path / "in.jsonl"), str(tmp_path / "cache")).step())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_requests": "x"},
        {"max_wait": "x"},
        {"pilot": True},
        {"stream": 1},
        {"prices": 3},
        {"replies": 3},
    ],
)
def test_an_option_of_the_wrong_type_is_named(wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(SpecError, match=rf"RunOptions\({name}=…\) should be"):
        RunOptions(**wrong)

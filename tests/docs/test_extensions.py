"""The files of `extensions/`, each run as a reader would run it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import textwrap
from types import ModuleType
from typing import Any

import pytest

from benchmarks.workplace import REPOSITORY, Workplace, command
from dataflow_grounding import (
    ExpressionExtractor,
    FileStorage,
    OpenAIServing,
    PhraseGrounder,
    Pipeline,
)
from dataflow_grounding.extras.testing import (
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
    faults,
    on,
)

EXTENSIONS = REPOSITORY / "extensions"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Counting(EchoAnswers):
    """Answers the task of the extension, the first time in words."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task != "count":
            return super().__call__(request)
        self.told.append(request.text)
        return {"count": "three"} if len(self.told) == 1 else {"count": 3}


def test_every_file_is_in_the_table_of_the_page() -> None:
    page = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    for path in EXTENSIONS.iterdir():
        if path.is_file():
            assert f"(../extensions/{path.name})" in page, path


def test_the_operator_works_in_a_pipeline_and_on_a_record(workplace: Workplace) -> None:
    share = load("operator_of_your_own").BoxShare()
    boxes = [{"bbox": [0, 0, 50, 20], "score": None}]
    record = share(
        {"expressions": [{"text": "a mug", "instances": boxes}], "width": 100, "height": 100}
    )
    assert record["expressions"][0]["box_share"] == 0.1
    workplace.many(2)
    with LoopbackServer(EchoAnswers()) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")

        class Mine(Pipeline):
            def __init__(self) -> None:
                self.storage = FileStorage(
                    str(workplace.input), str(workplace.folder / "cache"), "mine"
                )
                self.extractor, self.grounder, self.share = (
                    ExpressionExtractor(serving),
                    PhraseGrounder(serving),
                    share,
                )

            def forward(self) -> None:
                self.extractor.run(self.storage.step())
                self.grounder.run(self.storage.step())
                self.share.run(self.storage.step())

        pipeline = Mine()
        pipeline.compile()
        assert pipeline.forward().done == 2
    lines = (
        (workplace.folder / "cache" / "mine_step3.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert all(e["box_share"] > 0 for line in lines for e in json.loads(line)["expressions"])


def test_the_task_is_asked_again_with_what_was_wrong(workplace: Workplace) -> None:
    counter = load("task_of_your_own").ThingCounter
    answers = Counting()
    with LoopbackServer(answers) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
        record = counter(serving, "person")(
            {"image_path": str(workplace.folder / workplace.picture())}, output_count_key="people"
        )
    assert record["people"] == 3
    assert len(answers.told) == 2
    assert '"count" should be a whole number' in answers.told[1]


def test_the_serving_asks_the_second_what_the_first_refuses(workplace: Workplace) -> None:
    fallback = load("serving_of_your_own").WithFallback
    refusing = on(faults.bad_request("your input was flagged"), task="phrase_grounding")
    picture = str(workplace.folder / workplace.picture())
    with (
        LoopbackServer(EchoAnswers(), faults=[refusing]) as first,
        LoopbackServer(EchoAnswers()) as second,
    ):
        serving = fallback(
            *(OpenAIServing(s.base_url, "loopback", box_format="xyxy_px") for s in (first, second))
        )
        grounder = PhraseGrounder(serving, check_every=None)
        record = grounder({"image_path": picture, "expressions": ["a mug"]})
        assert record["expressions"][0]["status"] == "grounded"
        assert [len(second.requests), first.requests[-1].status_sent] == [1, 400]


def test_the_box_format_is_known_by_the_models_name(workplace: Workplace) -> None:
    workplace.many(2)
    spec = str(EXTENSIONS / "box_format_of_your_own.yaml")
    with LoopbackServer(InPlaces()) as server:
        settings = {
            "vlm.openai.base_url": server.base_url,
            "vlm.openai.model_name": "my-finetune-3b",
            "vlm.box_format": "auto",
        }
        done = workplace.run("-e", spec, **settings)
        assert done.code == 0, done
    for row in workplace.annotations():
        for expression in row["expressions"]:
            assert [i["bbox"] for i in expression["instances"]] == [
                [row["width"] // 4, row["height"] // 4, row["width"] // 2, row["height"] // 2]
            ]


class InPlaces(EchoAnswers):
    """Writes the boxes as the file says: x, y, width, height of 512, under "place"."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if request.task != "phrase_grounding":
            return super().__call__(request)
        phrases = request.input["phrases"]
        return {
            "objects": [
                {"id": p["id"], "label": p["text"], "place": [128, 128, 128, 128], "score": None}
                for p in phrases
            ]
        }


def test_the_pipeline_runs_from_the_spec_that_its_file_shows(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.many(2)
    shutil.copy(EXTENSIONS / "pipeline_of_your_own.py", workplace.folder)
    lines = (EXTENSIONS / "pipeline_of_your_own.py").read_text(encoding="utf-8").split("\n\n")[2]
    (workplace.folder / "shares.yaml").write_text(textwrap.dedent(lines), encoding="utf-8")
    monkeypatch.chdir(workplace.folder)
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        settings = [
            f"box_shares.vlm.openai.base_url={server.base_url}",
            "box_shares.vlm.box_format=xyxy_1000",
        ]
        for name in ("check", "estimate", "generate", "generate"):
            done = command(
                [name, "-e", "shares.yaml", *settings, "box_shares.vlm.check_every=null"]
            )
            assert done.code == 0, done
        assert "nothing to do" in done.err + done.out, "the second run sends nothing"
    records = (
        (workplace.folder / "out" / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert [json.loads(line)["boxes"] > 0 for line in records] == [True, True]

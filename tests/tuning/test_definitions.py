"""`tune --definitions`: classes defined from errors, kept where other pictures say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from benchmarks.places.workplace import Done, Workplace, command
from benchmarks.stand_ins.check_quality import scenes
from benchmarks.stand_ins.confusing_model import ConfusingModel, Habits
from dataflow_grounding import DefinitionWriter
from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer, faults, on
from dataflow_grounding.serving import OpenAIServing

Gold = list[dict[str, Any]]
TAKEN = {"red": "pink", "blue": "cyan"}


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Gold:
    records = scenes(tmp_path_factory.mktemp("pictures"), 40)
    for record in records:
        for expression in record["expressions"]:
            expression["class"] = expression["text"].split()[1]
    return records


@pytest.fixture
def here(tmp_path: Path, gold: Gold, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(record) + "\n" for record in gold))
    (tmp_path / "ways.yaml").write_text("- {name: loudly, set: {workflow.guidance: LOUDLY}}\n")
    return tmp_path


def spec_at(here: Path, server: LoopbackServer, **settings: Any) -> str:
    place = Workplace(here, server.base_url, **{"vlm.box_format": "xyxy_1000", **settings})
    place.rows([{"image_path": "a.jpg", "caption": "A box."}])
    return str(place.spec())


def tune(spec: str, *more: str) -> Done:
    arguments = ["--gold", "gold.jsonl", "--candidates", "ways.yaml", "--definitions", "--json"]
    return command(["tune", spec, *arguments, *more])


@pytest.mark.slow
def test_confused_classes_are_defined_and_nothing_is_sent_twice(here: Path) -> None:
    model = ConfusingModel(Habits(TAKEN, harmful=0.0))
    with LoopbackServer(model, keep_bodies=True) as server:
        spec = spec_at(here, server)
        done = tune(spec)
        assert done.code == 0, done
        sent = server.count()
        classes = done.summary["definitions"]["classes"]
        assert {label for label, of_class in classes.items() if of_class["kept"]} == {"red", "blue"}
        assert done.summary["requests"] == sent <= 160
        assert tune(spec).summary == done.summary
        assert server.count() == sent
        [red] = [
            request
            for request in server.requests
            if request.task == "class_definition" and request.input["class"] == "red"
        ]
        planned = command(["estimate", "-e", spec, "-e", "tuning/tuned.yaml", "--json"])
    assert {crop.get("is") for crop in red.input["crops"] if crop["error"] == "false"} == {"pink"}
    assert planned.code == 0, planned
    tuned = yaml.safe_load((here / "tuning/tuned.yaml").read_text())["image_grounding"]
    assert tuned["data"]["glossary"]["the red box"] == "Things that are red, not pink."
    assert "Things that are red, not pink." in (here / "tuning/tuning.html").read_text()
    [drawn] = (here / "tuning/definitions/sheets").glob("red-*.png")
    with Image.open(drawn) as sheet:
        assert sheet.width > 500


@pytest.mark.slow
def test_definition_that_harms_elsewhere_is_not_kept(here: Path) -> None:
    model = ConfusingModel(Habits(TAKEN, harmful=1.0))
    with LoopbackServer(model, keep_bodies=True) as server:
        done = tune(spec_at(here, server))
    assert done.code == 0, done
    classes = done.summary["definitions"]["classes"]
    assert classes
    assert not any(of_class["kept"] for of_class in classes.values())
    assert done.summary["keys"] == {}


@pytest.mark.slow
def test_class_that_the_spec_defines_is_defined_anew_in_its_place(here: Path) -> None:
    stated = {"red": {"phrases": ["the red box"], "definition": "boxes that are red"}}
    model = ConfusingModel(Habits({"red": "pink"}, harmful=0.0))
    with LoopbackServer(model, keep_bodies=True) as server:
        done = tune(spec_at(here, server, **{"data.classes": stated}))
        asked = [r.input for r in server.requests if r.task == "class_definition"]
    assert done.code == 0, done
    assert {question.get("definition") for question in asked} == {"boxes that are red"}
    assert done.summary["keys"] == {
        "data.classes": {"red": {"definition": "Things that are red, not pink."}}
    }


@pytest.mark.slow
def test_reference_in_a_reply_stays_words(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "do-not-tell")

    class Sly(ConfusingModel):
        def _defined(self, question: Any) -> str:
            return "Red, not pink. ${oc.env:SECRET_OF_MINE}"

    with LoopbackServer(Sly(Habits({"red": "pink"})), keep_bodies=True) as server:
        done = tune(spec_at(here, server))
        assert done.code == 0, done
        for request in server.requests:
            assert "do-not-tell" not in request.text
    for path in here.rglob("*"):
        assert not path.is_file() or b"do-not-tell" not in path.read_bytes(), path


@pytest.mark.slow
def test_budget_holds_with_definitions(here: Path) -> None:
    with LoopbackServer(ConfusingModel(Habits(TAKEN)), keep_bodies=True) as server:
        done = tune(spec_at(here, server), "--max-requests", "50")
        assert done.code == 0, done
        assert server.count() <= 50


@pytest.mark.slow
def test_retries_of_definitions_count_for_the_budget(here: Path) -> None:
    garbled = on(faults.says("I would rather not."), task="class_definition")
    model = ConfusingModel(Habits(TAKEN, missed=0.8))
    with LoopbackServer(model, faults=[garbled], keep_bodies=True) as server:
        done = tune(spec_at(here, server), "--max-requests", "44")
        assert done.code == 0, done
        assert server.count() <= 44
        assert any(request.task == "class_definition" for request in server.requests)
    assert done.summary["keys"] == {}


@pytest.mark.slow
def test_replies_of_a_judging_that_breaks_off_are_counted(here: Path) -> None:
    model = ConfusingModel(Habits(TAKEN, harmful=0.0))
    with LoopbackServer(model, keep_bodies=True) as server:
        server.faults = on(
            faults.says("I would rather not."),
            task="phrase_grounding",
            where=lambda _: server.by_task["class_definition"] > 0,
        )
        done = tune(spec_at(here, server), "--max-requests", "130")
        assert done.code == 0, done
        assert done.summary["definitions"]["ended"] == "the budget of requests was spent"
        assert done.summary["requests"] == server.count() == 130


WRONG = {
    "no crops": ({"crops": []}, "'crops' should be a list"),
    "an unknown error": ({"crops": [{"id": 1, "error": "odd"}]}, "an error out of false"),
    "no class": ({"class": ""}, "class"),
    "phrases that are none": ({"phrases": "a dog"}, "'phrases' should be a list"),
}


@pytest.mark.parametrize(("columns", "said"), WRONG.values(), ids=WRONG)
def test_writer_refuses_a_record_that_it_can_not_read(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"image_path": str(tmp_path / "a.png"), "class": "cup"}
    row |= {"crops": [{"id": 1, "error": "false"}], **columns}
    with LoopbackServer(CannedAnswers('{"definition": "Cups."}')) as server:
        writer = DefinitionWriter(OpenAIServing(server.base_url, "any"))
        with pytest.raises(Exception, match=said):
            writer(row)
        assert server.count() == 0


@pytest.mark.parametrize("reply", ['{"definition": ""}', '{"definition": "%s"}' % ("x" * 601)])
def test_empty_and_endless_definitions_are_not_read(tmp_path: Path, reply: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"image_path": str(tmp_path / "a.png"), "class": "cup"}
    row["crops"] = [{"id": 1, "error": "false"}]
    with (
        LoopbackServer(CannedAnswers(reply)) as server,
        pytest.raises(Exception, match="definition"),
    ):
        DefinitionWriter(OpenAIServing(server.base_url, "any"))(row)

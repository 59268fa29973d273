"""Questions in the user's own words: prompts, guidance and definitions."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    CaptionGenerator,
    ExpressionExtractor,
    NegativePhraser,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.tasks.prompts import prompt_names
from dataflow_grounding.tasks.wording import Wording, ejected
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.answering import Answering
from tests.support.workplace import Workplace, command

GUIDANCE = "Write Chinese. Use the terms forklift, pallet jack."


class Ran:
    """A run in the library's own words, and its server."""

    def __init__(self, place: Workplace, server: LoopbackServer) -> None:
        self.place, self.server = place, server
        place.many(3)
        assert place.run().code == 0

    def again(self, **settings: Any) -> list[ReceivedRequest]:
        """Run again with these settings; return what is asked."""
        before = len(self.server.requests)
        done = self.place.run(**settings)
        assert done.code == 0, done
        return self.server.requests[before:]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    with LoopbackServer() as server:
        yield Ran(Workplace(tmp_path_factory.mktemp("wording"), server.base_url), server)


def of_task(requests: Iterable[ReceivedRequest], task: str) -> list[ReceivedRequest]:
    return [request for request in requests if request.task == task]


@pytest.mark.slow
def test_prompts_as_written_out_ask_the_same_questions(ran: Ran) -> None:
    folder = ran.place.folder / "prompts"
    done = command(["prompts", "eject", str(folder)])
    assert done.code == 0, done
    assert {path.stem for path in folder.iterdir()} == set(prompt_names())
    assert ran.again(**{"prompts.dir": str(folder)}) == []


@pytest.mark.slow
def test_a_prompt_of_ones_own_is_asked_and_redoes_what_depends_on_it(ran: Ran) -> None:
    folder = ran.place.folder / "own"
    assert command(["prompts", "eject", str(folder), "phrase_grounding"]).code == 0
    prompt = folder / "phrase_grounding.txt"
    text = prompt.read_text().replace("Task: find", "Task: look closely, and find")
    # the data need not come last
    prompt.write_text(text.replace("\n<input>", "") + "\n<input>\nThat is all.")
    (folder / "system.txt").write_text("You are a warehouse inspector.\n")
    settings = {"prompts.dir": "own"}  # next to the spec
    new = ran.again(**settings)
    assert {request.system for request in new} == {"You are a warehouse inspector."}
    new = [request for request in new if request.task == "phrase_grounding"]
    assert len(new) == 3
    for request in new:
        assert request.text.startswith("Task: look closely, and find the boxes")
        assert request.text.endswith("</input>\n\nThat is all.")
        assert "{" not in request.text.partition("Reply:")[0]  # the placeholders are filled
    assert ran.place.run(**settings).summary["already_complete"]


@pytest.mark.slow
def test_guidance_is_in_every_question_and_part_of_its_key(ran: Ran) -> None:
    questions = ran.again(**{"workflow.guidance": GUIDANCE})
    assert len(questions) == 6
    for request in questions:
        instructions, _, _ = request.text.partition("<input>")
        assert instructions.rstrip().endswith(GUIDANCE)
    assert len(ran.again(**{"workflow.guidance": "Write English."})) == 6
    assert ran.again(**{"workflow.guidance": GUIDANCE}) == []  # what was paid for is kept


def test_checks_of_the_endpoint_are_put_in_the_same_words(workplace: Workplace) -> None:
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        workplace.many(3)
        settings = {"vlm.check_every": 1, "vlm.box_format": "xyxy_1000"}
        done = workplace.run(**settings, **{"workflow.guidance": GUIDANCE})
        assert done.code == 0, done
        boxes = of_task(server.requests, "phrase_grounding")
    assert len(boxes) > 3
    assert all(GUIDANCE in request.text for request in boxes)


CLASSES = {
    "person": {"phrases": ["a man", "a woman"], "definition": "people, not on posters"},
    "a lorry": "vehicle",
    "dog": {},
}


@pytest.mark.slow
def test_definitions_are_data_of_the_questions_whose_words_they_define(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ran.place, "results", tmp_path / "results")
    glossary = {"lorry": "also a pickup", "cat": "no toys"}
    [first, *_] = ran.again(**{"data.classes": CLASSES, "data.glossary": glossary})
    assert first.input["definitions"] == {
        "lorry": "also a pickup",
        "a man": "people, not on posters",
        "a woman": "people, not on posters",
    }
    assert '"definitions"' in first.text.partition("<input>")[0]
    [record, *_] = ran.place.annotations()
    found = [(phrase["text"], phrase["class"]) for phrase in record["expressions"]]
    assert found == [
        ("a man", "person"),
        ("a woman", "person"),
        ("a lorry", "vehicle"),
        ("dog", "dog"),
    ]
    out = tmp_path / "yolo"
    done = command(["export", str(ran.place.results), "--format", "yolo", "-o", str(out)])
    assert done.code == 0, done
    names = [line.split(": ")[1] for line in (out / "data.yaml").read_text().splitlines()[-3:]]
    assert [name.strip("'\"") for name in names] == ["person", "vehicle", "dog"]


@pytest.fixture
def row(workplace: Workplace) -> dict[str, Any]:
    return {"image_path": str(workplace.folder / workplace.picture()), "caption": "A cup."}


@pytest.mark.parametrize(
    ("term", "caption", "is_defined"),
    [
        ("car", "A red car.", True),
        ("car", "A red carpet.", False),
        ("car", "A scar.", False),
        ("Car", "the CAR", True),
        ("手推车", "一辆手推车旁边", True),
        ("red car", "a red\u00a0car", False),
        ("car", "scar, then a car", True),
    ],
)
def test_a_term_is_defined_where_it_stands_as_words(
    row: dict[str, Any], term: str, caption: str, is_defined: bool
) -> None:
    serving = Answering('{"cleaned_caption": "x", "expressions": []}')
    worded = ExpressionExtractor(serving).with_words(definitions={term: "what it is"})
    worded({**row, "caption": caption})
    [request] = serving.requests
    assert ("definitions" in request.input) is is_defined


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("phrase_grounding", ("<input>", ""), "lacks <input>, the place of the question's data"),
        ("phrase_grounding", ("<input>", "<input> <input>"), "should have only once <input>"),
        ("phrase_grounding", ("{box_format}", ""), "lacks {box_format}: compare it"),
        ("phrase_grounding", ('"objects"', "objects"), 'lacks "objects": compare it'),
        ("expression_extraction", ("noun_chunk", "chunk"), 'lacks "noun_chunk": compare it'),
        ("box_check", ('"verdict"', '"says"'), 'lacks "verdict": compare it'),
        ("box_check", ('"verdict": "right"', "a verdict"), 'lacks "verdict": compare it'),
        ("phrase_grounding_lines", ("[n, n, n, n]", "a box"), "lacks [n, n, n, n]: compare it"),
    ],
)
def test_a_prompt_that_could_not_be_read_is_refused(
    name: str, change: tuple[str, str], wrong: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(f"the prompt {name} {wrong}")):
        Wording(prompts={name: ejected(name).replace(*change)})


@pytest.mark.parametrize(
    "name", [name for name in prompt_names() if name not in ("system", "system_text_only")]
)
def test_a_prompt_without_the_form_of_its_reply_is_refused(name: str) -> None:
    """Though its instructions name all that the reply holds."""
    lines = ejected(name).splitlines()
    [first] = [number for number, line in enumerate(lines) if line.startswith("Reply")]
    own = "\n".join([*lines[:first], "<input>"])
    with pytest.raises(SpecError, match=f"the prompt {name} lacks "):
        Wording(prompts={name: own})
    Wording(prompts={name: ejected(name).replace('":', '" :')})


def refusal(workplace: Workplace, **settings: Any) -> str:
    """Why a run with these settings is refused before it asks anything."""
    workplace.settings["vlm.openai.base_url"] = "http://127.0.0.1:9/v1"
    done = workplace.run(**settings)
    assert done.code == 2, done
    return done.err


def test_files_that_are_no_prompts_are_refused(workplace: Workplace) -> None:
    workplace.many(1)
    folder = workplace.folder / "prompts"
    settings = {"prompts.dir": str(folder)}
    assert "can't read the prompts in" in refusal(workplace, **settings)
    folder.mkdir()
    wrong = folder / "phrase_groundin.txt"
    wrong.write_text("x")
    assert "is it 'phrase_grounding'?" in refusal(workplace, **settings)
    wrong.unlink()
    path = folder / "phrase_grounding.txt"
    path.write_text(ejected("phrase_grounding").replace("<input>", ""))
    [line] = refusal(workplace, **settings).strip().splitlines()
    assert f"{path}: the prompt phrase_grounding lacks <input>" in line
    checked = command(["check", "-e", str(workplace.spec(**settings))])
    [line] = (checked.err or checked.out).strip().splitlines()
    assert f"{path}: the prompt phrase_grounding lacks <input>" in line
    path.unlink()
    (folder / "system.txt").write_bytes(b"\xff\xfe\x00a")
    assert "system.txt: it is not UTF-8" in refusal(workplace, **settings)


def test_guidance_with_the_place_of_the_data_is_refused(workplace: Workplace) -> None:
    workplace.many(1)
    told = refusal(workplace, **{"workflow.guidance": "put it in <input>"})
    assert "guidance can't hold <input>" in told


def test_operators_take_words_of_their_own(row: dict[str, Any]) -> None:
    serving = Answering('{"caption": "A cup."}')
    captioner = CaptionGenerator(serving)
    own = ejected("image_caption").replace("Task: write", "Task: in one word, write")
    captioner.with_words(prompt=own)(row)
    captioner(row)
    first, second = (request.text for request in serving.requests)
    assert first.startswith("Task: in one word, write")
    assert second.startswith("Task: write")


def test_words_of_an_operator_are_added_to_one_another(row: dict[str, Any]) -> None:
    serving = Answering('{"objects": []}')
    grounder = PhraseGrounder(serving, check_every=None).with_words(guidance=GUIDANCE)
    grounder.with_words(definitions={"cup": "no mugs"})({**row, "expressions": ["the cup"]})
    [request] = serving.requests
    assert GUIDANCE in request.text
    assert request.input["definitions"] == {"cup": "no mugs"}


def test_words_for_a_prompt_that_an_operator_does_not_ask_are_refused() -> None:
    with pytest.raises(SpecError, match="asks negative_phrases and phrase_grounding: name"):
        NegativePhraser(Answering()).with_words(prompt="x")
    with pytest.raises(SpecError, match="is it 'phrase_grounding'"):
        PhraseGrounder(Answering()).with_words(prompts={"phrase_groundings": "x"})


def test_words_of_an_operator_go_before_those_of_the_spec(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(1)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    (workplace.folder / "worded.py").write_text(
        "from dataflow_grounding import Pipeline, PhraseLister, PhraseGrounder\n"
        "class Mine(Pipeline):\n"
        "    name = 'mine'\n"
        "    def __init__(self, storage, serving):\n"
        "        self.storage = storage\n"
        "        self.lister = PhraseLister(['a cup'])\n"
        "        self.grounder = PhraseGrounder(serving).with_words(guidance='Mine.')\n"
        "    def forward(self):\n"
        "        self.lister.run(self.storage.step())\n"
        "        self.grounder.run(self.storage.step())\n"
    )
    spec = json.loads(workplace.spec(**{"workflow.guidance": "The spec's."}).read_text())
    block = spec.pop("image_grounding")
    path = workplace.folder / "own.yaml"
    path.write_text(json.dumps({**spec, "autolabel_type": "worded:Mine", "mine": block}))
    done = command(["generate", "-e", str(path), "--json", "--no-progress", "--no-report"])
    assert done.code == 0, done
    [request] = of_task(server.requests, "phrase_grounding")
    assert "Mine." in request.text
    assert "spec's" not in request.text


def test_a_serving_that_reads_no_words_is_told_of(workplace: Workplace) -> None:
    workplace.many(1)
    settings = {"vlm.backend": "embedded", "workflow.guidance": GUIDANCE}
    done = command(["check", "-e", str(workplace.spec(**settings))])
    assert done.code == 0, done
    assert "reads no prompts, guidance or definitions" in done.out + done.err


def _asking_operators() -> Iterator[type[Operator]]:
    from dataflow_grounding.operators import OPERATOR_REGISTRY

    for operator in OPERATOR_REGISTRY.get_obj_map().values():
        if not operator.__module__.startswith("dataflow_grounding."):  # another test's own
            continue
        # whoever brings a serving of its own asks by it: ImageBboxGenerator of DataFlow's
        takes_serving = "serving" in inspect.signature(operator.__init__).parameters
        if issubclass(operator, Operator) and operator.tasks and takes_serving:
            yield operator


def test_every_prompt_is_shown_and_every_operator_names_prompts_there_are() -> None:
    listed = command(["prompts", "list"]).out
    assert "phrase_grounding_lines  as phrase_grounding, with vlm.asking lines\n" in listed
    assert "as phrase_grounding, with vlm.asking lists or json_lists\n" in listed
    for name in prompt_names():
        assert name in listed
        shown = command(["prompts", "show", name])
        assert shown.out.strip() == ejected(name).strip()
    for operator in _asking_operators():
        assert set(operator.tasks) <= set(prompt_names()), operator
    assert command(["prompts", "show", "phrase_groundin"]).code == 2


def test_prompts_written_out_never_replace_changed_ones(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    assert command(["prompts", "eject", str(folder), "system"]).code == 0
    (folder / "system.txt").write_text("mine")
    done = command(["prompts", "eject", str(folder)])
    assert done.code == 2
    assert "is there already: add --force" in done.err
    assert (folder / "system.txt").read_text() == "mine"
    assert command(["prompts", "eject", str(folder), "--force"]).code == 0
    assert (folder / "system.txt").read_text() == ejected("system")


def test_a_spec_says_how_many_phrases_are_asked_for_at_once(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.picture()
    workplace.rows([{"image_path": "a.jpg"}])
    settings = {"data.classes": list("abcde"), "workflow.phrases_per_request": 2}
    estimated = command(["estimate", "-e", str(workplace.spec(**settings)), "--json"]).summary
    assert workplace.run(**settings).code == 0
    counts = [
        len(request.input["phrases"]) for request in of_task(server.requests, "phrase_grounding")
    ]
    assert sorted(counts) == [1, 2, 2]
    assert estimated["requests"] == 3

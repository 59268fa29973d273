"""Questions in the user's own words: prompts, guidance and definitions."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    BoxVerifier,
    CaptionGenerator,
    ExpressionExtractor,
    NegativePhraser,
    OpenAIServing,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.tasks.prompts import prompt_names
from dataflow_grounding.tasks.wording import Wording, ejected
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.workplace import Workplace, command

GUIDANCE = "Write Chinese. Use the terms forklift, pallet jack."


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(3)
    return workplace


def asked(server: LoopbackServer, task: str) -> list[ReceivedRequest]:
    return [request for request in server.requests if request.task == task]


def test_prompts_as_written_out_ask_the_same_questions(
    place: Workplace, server: LoopbackServer
) -> None:
    assert place.run().code == 0
    before = server.received
    folder = place.folder / "prompts"
    done = command(["prompts", "eject", str(folder)])
    assert done.code == 0, done
    names = {path.stem for path in folder.iterdir()}
    assert names == set(prompt_names())
    assert place.run(**{"prompts.dir": str(folder)}).code == 0
    assert server.received == before


def test_a_prompt_of_ones_own_is_asked_and_redoes_what_depends_on_it(
    place: Workplace, server: LoopbackServer
) -> None:
    assert place.run().code == 0
    folder = place.folder / "prompts"
    assert command(["prompts", "eject", str(folder), "phrase_grounding"]).code == 0
    prompt = folder / "phrase_grounding.txt"
    text = prompt.read_text().replace("Task: find", "Task: look closely, and find")
    # the data need not come last
    prompt.write_text(text.replace("\n<input>", "") + "\n<input>\nThat is all.")
    (folder / "system.txt").write_text("You are a warehouse inspector.\n")
    settings = {"prompts.dir": "prompts"}  # next to the spec
    before = len(server.requests)
    assert place.run(**settings).code == 0
    new = server.requests[before:]
    assert {request.system for request in new} == {"You are a warehouse inspector."}
    new = [request for request in new if request.task == "phrase_grounding"]
    assert len(new) == 3
    for request in new:
        assert request.text.startswith("Task: look closely, and find the boxes")
        assert request.text.endswith("</input>\n\nThat is all.")
        assert "{" not in request.text.partition("Reply:")[0]  # the placeholders are filled
    assert place.run(**settings).summary["already_complete"]


def test_guidance_is_in_every_question_and_part_of_its_key(
    place: Workplace, server: LoopbackServer
) -> None:
    assert place.run(**{"workflow.guidance": GUIDANCE}).code == 0
    questions = [request for request in server.requests if request.task]
    assert len(questions) == 6
    for request in questions:
        instructions, _, _ = request.text.partition("<input>")
        assert instructions.rstrip().endswith(GUIDANCE)
    before = server.received
    assert place.run(**{"workflow.guidance": "Write English."}).code == 0
    assert server.received == before + 6
    assert place.run(**{"workflow.guidance": GUIDANCE}).code == 0
    assert server.received == before + 6  # what was paid for is kept


def test_checks_of_the_endpoint_are_put_in_the_same_words(workplace: Workplace) -> None:
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        workplace.many(3)
        settings = {"vlm.check_every": 1, "vlm.box_format": "xyxy_1000"}
        done = workplace.run(**settings, **{"workflow.guidance": GUIDANCE})
        assert done.code == 0, done
        boxes = asked(server, "phrase_grounding")
        assert len(boxes) > 3
        assert all(GUIDANCE in request.text for request in boxes)


CLASSES = {
    "person": {"phrases": ["a man", "a woman"], "definition": "people, not on posters"},
    "a lorry": "vehicle",
    "dog": {},
}


def test_definitions_are_data_of_the_questions_whose_words_they_define(
    place: Workplace, server: LoopbackServer, tmp_path: Path
) -> None:
    done = place.run(
        **{"data.classes": CLASSES, "data.glossary": {"lorry": "also a pickup", "cat": "no toys"}}
    )
    assert done.code == 0, done
    [first, *_] = asked(server, "phrase_grounding")
    assert first.input["definitions"] == {
        "lorry": "also a pickup",
        "a man": "people, not on posters",
        "a woman": "people, not on posters",
    }
    assert '"definitions"' in first.text.partition("<input>")[0]
    [record, *_] = map(json.loads, (place.results / "annotations.jsonl").open())
    found = [(phrase["text"], phrase["class"]) for phrase in record["expressions"]]
    assert found == [
        ("a man", "person"),
        ("a woman", "person"),
        ("a lorry", "vehicle"),
        ("dog", "dog"),
    ]
    out = tmp_path / "yolo"
    done = command(["export", str(place.results), "--format", "yolo", "-o", str(out)])
    assert done.code == 0, done
    names = [line.split(": ")[1] for line in (out / "data.yaml").read_text().splitlines()[-3:]]
    assert [name.strip("'\"") for name in names] == ["person", "vehicle", "dog"]


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
    workplace: Workplace, server: LoopbackServer, term: str, caption: str, is_defined: bool
) -> None:
    path = workplace.folder / workplace.picture()
    extractor = ExpressionExtractor(OpenAIServing(server.base_url, "loopback"))
    worded = extractor.with_words(definitions={term: "what it is"})
    worded({"image_path": str(path), "caption": caption})
    [request] = asked(server, "expression_extraction")
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


def test_files_that_are_no_prompts_are_refused(place: Workplace, server: LoopbackServer) -> None:
    folder = place.folder / "prompts"
    folder.mkdir()
    wrong = folder / "phrase_groundin.txt"
    wrong.write_text("x")
    done = place.run(**{"prompts.dir": str(folder)})
    assert done.code == 2
    assert "did you mean phrase_grounding?" in done.err
    wrong.unlink()
    path = folder / "phrase_grounding.txt"
    path.write_text(ejected("phrase_grounding").replace("<input>", ""))
    for done in (
        place.run(**{"prompts.dir": str(folder)}),
        command(["check", "-e", str(place.spec(**{"prompts.dir": str(folder)}))]),
    ):
        assert done.code == 2, done
        [line] = (done.err or done.out).strip().splitlines()
        assert f"{path}: the prompt phrase_grounding lacks <input>" in line
    path.unlink()
    (folder / "system.txt").write_bytes(b"\xff\xfe\x00a")
    done = place.run(**{"prompts.dir": str(folder)})
    assert done.code == 2
    assert "system.txt: it is not UTF-8" in done.err
    done = place.run(**{"prompts.dir": str(folder / "nothing")})
    assert done.code == 2
    assert "can't read the prompts in" in done.err
    done = place.run(**{"workflow.guidance": "put it in <input>"})
    assert done.code == 2
    assert "guidance can't hold <input>" in done.err
    assert server.received == 0


def test_operators_take_words_of_their_own(
    server: LoopbackServer, tmp_path: Path, workplace: Workplace
) -> None:
    workplace.picture()
    row: dict[str, Any] = {"image_path": str(workplace.folder / "a.jpg"), "caption": "A cup."}
    serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
    captioner = CaptionGenerator(serving)
    own = ejected("image_caption").replace("Task: write", "Task: in one word, write")
    captioner.with_words(prompt=own)(row)
    captioner(row)
    texts = [request.text for request in asked(server, "image_caption")]
    assert texts[0].startswith("Task: in one word, write")
    assert texts[1].startswith("Task: write")
    grounder = PhraseGrounder(serving, check_every=None).with_words(guidance=GUIDANCE)
    grounder.with_words(definitions={"cup": "no mugs"})({**row, "expressions": ["the cup"]})
    [request] = asked(server, "phrase_grounding")
    assert GUIDANCE in request.text
    assert request.input["definitions"] == {"cup": "no mugs"}
    with pytest.raises(SpecError, match="asks negative_phrases and phrase_grounding: name"):
        NegativePhraser(serving).with_words(prompt="x")
    with pytest.raises(SpecError, match="did you mean phrase_grounding"):
        BoxVerifier(serving).with_words(prompts={"phrase_groundings": "x"})


def test_words_of_an_operator_go_before_those_of_the_spec(
    place: Workplace, server: LoopbackServer
) -> None:
    (place.folder / "worded.py").write_text(
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
    spec = json.loads(place.spec(**{"workflow.guidance": "The spec's."}).read_text())
    block = spec.pop("image_grounding")
    spec |= {"autolabel_type": "worded:Mine", "mine": block}
    path = place.folder / "own.yaml"
    path.write_text(json.dumps(spec))
    done = command(["generate", "-e", str(path), "--json", "--no-progress", "--no-report"])
    assert done.code == 0, done
    boxes = asked(server, "phrase_grounding")
    assert boxes
    assert all("Mine." in request.text and "spec's" not in request.text for request in boxes)


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
    place: Workplace, server: LoopbackServer
) -> None:
    place.rows([{"image_path": "a.jpg"}])
    settings = {"data.classes": list("abcde"), "workflow.phrases_per_request": 2}
    estimated = command(["estimate", "-e", str(place.spec(**settings)), "--json"]).summary
    assert place.run(**settings).code == 0
    counts = [len(request.input["phrases"]) for request in asked(server, "phrase_grounding")]
    assert sorted(counts) == [1, 2, 2]
    assert estimated["requests"] == 3

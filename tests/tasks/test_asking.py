"""Forms of asking: `vlm.asking`, behind a model that answers in no form but the one asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding import GeminiServing, OpenAIServing, PhraseGrounder
from dataflow_grounding._util.errors import SpecError, UnreadableReply
from dataflow_grounding.tasks.ways_to_ask import objects_of_lines
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.answering import Answering
from tests.support.stand_ins.heeding_model import Heeding
from tests.support.workplace import Workplace, command

FORMS = ["json", "lines", "lists", "json_lists", "bbox_2d", "box_2d", "bbox"]
ROW = {"image_path": "square.png", "expressions": ["the red square", "a dog"]}
CHECKED = {"vlm.box_format": "xyxy_1000", "vlm.check_every": 2}
URL = "http://127.0.0.1:9/v1"
BOX = [375, 333, 625, 667]
SQUARE = {"id": 1, "label": "the red square", "bbox_2d": BOX}
SQUARES = {**SQUARE, "bbox_2d": [BOX]}
NO_DOG = {"id": 2, "label": "a dog", "bbox_2d": []}


@pytest.fixture(autouse=True)
def _picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`square.png` with a red square in it."""
    picture = PIL.Image.new("RGB", (800, 600), "white")
    picture.paste("red", (300, 200, 500, 400))
    monkeypatch.chdir(tmp_path)
    picture.save("square.png")


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(4)
    workplace.settings.update(CHECKED)
    return workplace


def boxes_of(place: Workplace) -> list[Any]:
    """The boxes of each expression of each record."""
    return [
        [[box["bbox"] for box in expression["instances"]] for expression in record["expressions"]]
        for record in place.annotations()
    ]


class Asked:
    """A run with the usual form, whose boxes and requests are known, and its server."""

    def __init__(self, place: Workplace, server: LoopbackServer) -> None:
        self.place, self.server = place, server
        self.of_forms: dict[str, list[ReceivedRequest]] = {}
        done = place.run()
        assert done.code == 0, done
        self.usual = boxes_of(place)
        self.first = list(server.requests)

    def again(self, asking: Any) -> list[ReceivedRequest]:
        """Run again with a form, which leaves the same boxes; return what is asked."""
        before = len(self.server.requests)
        done = self.place.run(**{"vlm.asking": asking})
        assert (done.code, done.summary["failed"]) == (0, 0), done
        assert boxes_of(self.place) == self.usual
        new = self.server.requests[before:]
        self.of_forms.setdefault(str(asking), new)
        return new


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with LoopbackServer(Heeding()) as server:
        place = Workplace(tmp_path_factory.mktemp("asked"), server.base_url)
        place.many(4)
        place.settings.update(CHECKED)
        yield Asked(place, server)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_leaves_the_same_boxes_and_its_replies_are_stored(
    asked: Asked, form: str
) -> None:
    assert all(any(boxes) for boxes in asked.usual)
    asked.again(form)
    assert asked.of_forms[form] or form == "bbox_2d"  # which is json, with the usual key
    asked.again("auto")
    assert not asked.again(form)


@pytest.mark.slow
def test_probes_are_asked_in_the_form_too(asked: Asked) -> None:
    asked.again("lines")
    probes = [new for new in asked.of_forms["lines"] if "rectangle" in new.text]
    assert probes
    assert all("without JSON" in probe.text for probe in probes)


@pytest.mark.slow
def test_auto_is_asked_as_before_to_the_last_byte(asked: Asked) -> None:
    assert not asked.again("auto")
    assert not asked.again({"reply": "schema"})
    assert all("response_format" in request.settings for request in asked.first)


@pytest.mark.slow
def test_another_form_asks_again_for_boxes_and_for_nothing_else(asked: Asked) -> None:
    new = asked.again({"reply": "json", "key": "rect"})
    assert {request.task for request in new} == {"phrase_grounding"}
    assert all("response_format" not in request.settings for request in new)


@pytest.mark.parametrize(
    ("model", "level", "field"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "off", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("gpt-5.4-mini", "off", {"reasoning_effort": "none"}),
        ("openai/gpt-5-mini", "low", {"reasoning_effort": "low"}),
        ("gpt-5-mini", "off", {"reasoning_effort": "minimal"}),
    ],
)
def test_how_much_a_model_thinks_is_said_in_its_own_fields(
    model: str, level: str, field: dict[str, Any]
) -> None:
    with LoopbackServer(lambda request: {"objects": [SQUARE]}) as server:
        given = {"chat_template_kwargs": {"custom": 1}}
        serving = OpenAIServing(server.base_url, model, box_format="xyxy_1000", extra_body=given)
        grounder = PhraseGrounder(serving, check_every=None)
        grounder.with_words(asking={"from": "json", "thinking": level})(ROW)
        grounder(ROW)
        told, usual = (request.settings for request in server.requests)
    for name, value in field.items():
        if isinstance(value, dict):
            assert told[name] == {**value, "custom": 1}  # what is stated besides stays
        else:
            assert told[name] == value
            assert name not in usual
    assert usual["chat_template_kwargs"] == {"custom": 1}
    assert ("response_format" in told, "response_format" in usual) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "level", "config"),
    [
        ("gemini-2.5-flash", "off", {"thinkingBudget": 0}),
        ("gemini-3.1-flash-lite-preview", "off", {"thinkingLevel": "minimal"}),
        ("gemini-3-pro-preview", "low", {"thinkingLevel": "low"}),
    ],
)
def test_gemini_is_told_in_its_fields_and_asked_without_a_schema(
    model: str, level: str, config: dict[str, Any]
) -> None:
    pytest.importorskip("google.genai")
    square = {"id": 1, "label": "the red square", "box_2d": BOX}
    with LoopbackServer(lambda request: {"objects": [square]}) as server:
        serving = GeminiServing(model, base_url=server.address, api_key="any key")
        grounder = PhraseGrounder(serving, check_every=None)
        grounder.with_words(asking={"reply": "json", "thinking": level})(ROW)
        settings = server.requests[0].settings
    assert settings["thinkingConfig"] == config
    assert not {"responseSchema", "responseMimeType"} & set(settings)


def saying(*replies: str) -> Answering:
    """A model that gives these replies in turn, whose boxes are in thousandths."""
    return Answering(*replies, box_format="xyxy_1000")


def grounded(serving: Answering, asking: str, *phrases: str) -> list[dict[str, Any]]:
    """The expressions, where boxes are asked for in a form."""
    grounder = PhraseGrounder(serving, check_every=None).with_words(asking=asking)
    row = {**ROW, "expressions": list(phrases) or ROW["expressions"]}
    expressions: list[dict[str, Any]] = grounder(row)["expressions"]
    return expressions


@pytest.mark.parametrize(
    "reply",
    [
        "1. the red square: [375, 333, 625, 667]\n2. a dog: none",
        "Here they are:\n\n1) the red square: [375,333,625,667]\n2) a dog: None.",
        "```\n1. the red square: [375 333 625 667]\n2. a dog: none\n```",
        "<think>1. the red square: [1, 2, 3, 4]?</think>1: [375, 333, 625, 667]\n2: none",
        "1. the red square: (375, 333, 625, 667) (score: 0.9)\n2. a dog: none",
        "1. the red square (left): [375, 333, 625, 667] (score: 0.9)\n2. a dog: none",
        "- 1. **the red square**: [375, 333, 625, 667]\n- 2. a dog: none\nThese are all.",
        "1. the red square: [375, 333, 625, 667]\n2. a dog: not visible",
        "1. the red square: [375, 333, 625, 667]\n2. a dog: N/A",
        "1. the red square: [375.0, 333, 625, 667.0]\r\n2. a dog: none\r\n",
        # a form of its own is read as any reply is
        '{"objects": [{"id": 1, "label": "the red square", "bbox_2d": [375, 333, 625, 667]}]}',
    ],
)
def test_lines_as_models_write_them(reply: str) -> None:
    square, dog = grounded(saying(reply), "lines")
    assert [box["bbox"] for box in square["instances"]] == [[300, 200, 500, 400]]
    assert (dog["instances"], dog["status"]) == ([], "none")


def test_zero_is_a_number_and_several_boxes_are_several_lines() -> None:
    reply = "1. the red square: [0, 0, 10, 10]\n1. the red square: [0, 500, 1000, 1000]"
    square, _ = grounded(saying(f"{reply}\n2. a dog: none"), "lines")
    first, second = square["instances"]
    assert (first["bbox"][:2], second["bbox"][0]) == ([0, 0], 0)


@pytest.mark.parametrize(
    "reply",
    [
        "1. the red square: [375, 333, 625, 667]\n2. a dog: [10, 20,",  # cut off
        "1. the red square: [375, 333, 625, 667]\n2. a do",
        "1. the red square: [375, 333, 625, 667]\n1. the red square: none",
        "1. the red square: [375, 333, 625]\n2. a dog: none",
        "1. the red square: [375, 333, 625, 667, 900]\n2. a dog: none",
        "1. the red square: perhaps [375, 333, 625, 667] or so\n2. a dog: none",
        "1. the red square: (375, 333, 625)\n2. a dog: none",
        "1. the red square: [375, 333, 625, 667] (a circle)\n2. a dog: none",
        "1. the red square (score: 0.9)\n2. a dog: none",
        "the red square: [375, 333, 625, 667]",
        "9. a dog: [375, 333, 625, 667]",
        "1. the red square: [375, 333, 625, 667]",
    ],
)
def test_a_line_that_is_not_as_asked_is_no_answer_and_asked_again(reply: str) -> None:
    serving = saying(reply, "1. the red square: [375, 333, 625, 667]\n2. a dog: none")
    square, _ = grounded(serving, "lines")
    assert square["instances"][0]["bbox"] == [300, 200, 500, 400]
    assert serving.requests[1].text.endswith("Reply with these lines alone.")


@pytest.mark.parametrize(
    ("objects", "requests", "found"),
    [
        ([SQUARES, NO_DOG], 1, ["grounded", "none"]),
        ([SQUARES, {"label": "dog", "bbox_2d": None}], 1, ["grounded", "none"]),
        ([], 1, ["none", "none"]),
        # what is left out isn't there in no other form
        ([SQUARES], 2, ["grounded", "none"]),
    ],
)
def test_a_phrase_that_lists_leave_out_is_asked_for_again(
    objects: Any, requests: int, found: list[str]
) -> None:
    serving = saying(*(json.dumps({"objects": each}) for each in (objects, [SQUARES, NO_DOG])))
    assert [one["status"] for one in grounded(serving, "lists")] == found
    assert serving.given == requests


@pytest.mark.slow
@given(st.text(alphabet="1.: []nonea,-0\n`(", max_size=80))
def test_no_reply_in_lines_breaks_the_reader(reply: str) -> None:
    try:
        objects, _ = objects_of_lines(reply, "bbox_2d")
    except UnreadableReply:
        return
    assert all(isinstance(item["bbox_2d"], list | None) for item in objects)


def test_a_label_that_names_the_key_stays_a_label() -> None:
    boxes = [
        {"id": 2, "label": "the red square", "bbox": BOX, "score": None},
        {"id": 1, "label": "bbox", "bbox": [0, 0, 100, 100], "score": None},
    ]
    serving = saying(json.dumps({"objects": boxes}))
    first, second = grounded(serving, "bbox", "bbox", "the red square")
    assert first["instances"][0]["bbox"][:2] == [0, 0]
    assert second["instances"][0]["bbox"] == [300, 200, 500, 400]


@pytest.mark.parametrize(
    ("asking", "why"),
    [
        ("jason", "no form 'jason' of asking"),
        ("jason", "is it 'json'"),
        ({"reply": "xml"}, "asking.reply 'xml' is none of schema, json, lines"),
        ({"replies": "json"}, "asking has no 'replies'"),
        ({"from": "nope"}, "no form 'nope'"),
        ({"reply": "lines", "key": "bbox"}, "leave key and boxes out"),
        ({"key": 'a"b'}, "should be a word such as bbox"),
        ("no_thinking", "how to set thinking off for any-model isn't known"),
        ({"thinking": False}, "isn't known"),  # as YAML reads off
    ],
)
def test_a_form_that_there_is_not_is_told_before_anything_is_sent(
    workplace: Workplace, asking: Any, why: str
) -> None:
    workplace.many(1)
    workplace.settings["vlm.openai.model_name"] = "any-model"
    workplace.settings["vlm.openai.base_url"] = URL
    done = command(["check", "-e", str(workplace.spec(**{"vlm.asking": asking}))])
    assert done.code != 0
    assert why in str(done)
    assert "asking" in str(done)
    assert "Traceback" not in str(done)


def test_an_own_prompt_that_a_form_does_not_ask_is_told() -> None:
    grounder = PhraseGrounder(OpenAIServing(URL, "any", box_format="xyxy_1000"))
    own = command(["prompts", "show", "phrase_grounding"]).out
    with pytest.raises(SpecError, match="phrase_grounding_lines"):
        grounder.with_words(prompt=own, asking="lines")
    grounder.with_words(prompt=own, asking="json")  # the same prompt


def test_a_model_that_writes_other_boxes_in_a_form_is_noticed(place: Workplace) -> None:
    """Its numbers are right in JSON, and y stands first in lines."""

    class Turned(Heeding):
        def __call__(self, request: ReceivedRequest) -> Any:
            reply = super().__call__(request)
            if not isinstance(reply, str) or reply.startswith("{"):
                return reply
            return re.sub(r"\[(.+), (.+), (.+), (.+)\]", r"[\2, \1, \4, \3]", reply)

    with LoopbackServer(Turned()) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        assert place.run().code == 0
        done = place.run(**{"vlm.asking": "lines"})
    assert done.code != 0
    assert "boxes" in done.err


def test_estimate_reckons_with_a_form(place: Workplace) -> None:
    counts = []
    for form in ("auto", "lines"):
        spec = place.spec(**{"vlm.asking": form, "vlm.openai.base_url": URL})
        done = command(["estimate", "-e", str(spec), "--json"])
        assert done.code == 0, done
        counts.append(done.summary["requests"])
    assert counts[0] == counts[1]

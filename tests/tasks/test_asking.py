"""Forms of asking: `vlm.asking`, behind a model that answers in no form but the one asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding import GeminiServing, OpenAIServing, PhraseGrounder
from dataflow_grounding._util.errors import SpecError, UnreadableReply
from dataflow_grounding.tasks.ways_to_ask import objects_of_lines
from dataflow_grounding.testing import (
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
)
from tests.support.stand_ins.heeding_model import Heeding
from tests.support.workplace import Workplace, command

FORMS = ["json", "lines", "lists", "json_lists", "bbox_2d", "box_2d", "bbox"]
ROW = {"image_path": "square.png", "expressions": ["the red square", "a dog"]}
URL = "http://127.0.0.1:9/v1"
BOX = [375, 333, 625, 667]


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
    workplace.settings.update({"vlm.box_format": "xyxy_1000", "vlm.check_every": 2})
    return workplace


def boxes_of(place: Workplace) -> list[Any]:
    """The boxes of each expression of each record."""
    return [
        [[box["bbox"] for box in expression["instances"]] for expression in record["expressions"]]
        for record in place.annotations()
    ]


@pytest.mark.slow
def test_every_form_leaves_the_same_boxes(place: Workplace) -> None:
    heeding = Heeding()
    with LoopbackServer(heeding) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        done = place.run()
        assert done.code == 0, done
        usual = boxes_of(place)
        assert all(any(boxes) for boxes in usual)
        for name in FORMS:
            place.results = place.folder / name
            before, first = server.received, len(server.requests)
            done = place.run(**{"vlm.asking": name})
            assert done.code == 0, done
            assert done.summary["failed"] == 0
            assert boxes_of(place) == usual, name
            assert server.received > before
            if name == "lines":
                new = server.requests[first:]
                probes = [request for request in new if "rectangle" in request.text]
                assert probes
                assert all("without JSON" in probe.text for probe in probes)
        before = server.received
        assert place.run(**{"vlm.asking": name}).code == 0
        assert server.received == before  # all is stored


@pytest.mark.slow
def test_auto_is_asked_as_before_to_the_last_byte(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        assert place.run().code == 0
        before = server.received
        assert place.run(**{"vlm.asking": "auto"}).code == 0
        assert place.run(**{"vlm.asking": {"reply": "schema"}}).code == 0
        assert server.received == before
        # another form asks again for boxes, and for nothing else
        assert place.run(**{"vlm.asking": "json"}).code == 0
        new = server.requests[before:]
        assert {request.task for request in new} == {"phrase_grounding"}
        assert all("response_format" not in request.settings for request in new)
        assert all("response_format" in request.settings for request in server.requests[:before])


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
    reply = json.dumps({"objects": [{"id": 1, "label": "the red square", "bbox_2d": BOX}]})
    with LoopbackServer(lambda request: reply) as server:
        serving = OpenAIServing(
            server.base_url,
            model,
            box_format="xyxy_1000",
            extra_body={"chat_template_kwargs": {"custom": 1}},
        )
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
def test_gemini_is_told_in_its_fields_and_asked_without_a_schema() -> None:
    pytest.importorskip("google.genai")
    reply = json.dumps({"objects": [{"id": 1, "label": "the red square", "box_2d": BOX}]})
    for model, level, config in [
        ("gemini-2.5-flash", "off", {"thinkingBudget": 0}),
        ("gemini-3.1-flash-lite-preview", "off", {"thinkingLevel": "minimal"}),
        ("gemini-3-pro-preview", "low", {"thinkingLevel": "low"}),
    ]:
        with LoopbackServer(lambda request: reply) as server:
            serving = GeminiServing(model, base_url=server.address, api_key="any key")
            grounder = PhraseGrounder(serving, check_every=None)
            grounder.with_words(asking={"reply": "json", "thinking": level})(ROW)
            settings = server.requests[0].settings
        assert settings["thinkingConfig"] == config, model
        assert "responseSchema" not in settings
        assert "responseMimeType" not in settings


def grounded(server: LoopbackServer, asking: str, *phrases: str) -> list[dict[str, Any]]:
    """The expressions, where boxes are asked for in a form."""
    serving = OpenAIServing(server.base_url, "any", box_format="xyxy_1000")
    grounder = PhraseGrounder(serving, check_every=None).with_words(asking=asking)
    expressions: list[dict[str, Any]] = grounder(
        {**ROW, "expressions": list(phrases) or ROW["expressions"]}
    )["expressions"]
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
    with LoopbackServer(lambda request: reply) as server:
        square, dog = grounded(server, "lines")
    assert [box["bbox"] for box in square["instances"]] == [[300, 200, 500, 400]]
    assert (dog["instances"], dog["status"]) == ([], "none")


def test_zero_is_a_number_and_several_boxes_are_several_lines() -> None:
    reply = "1. the red square: [0, 0, 10, 10]\n1. the red square: [0, 500, 1000, 1000]"
    with LoopbackServer(lambda request: f"{reply}\n2. a dog: none") as server:
        square, _ = grounded(server, "lines")
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
    good = "1. the red square: [375, 333, 625, 667]\n2. a dog: none"

    def answer(request: ReceivedRequest) -> str:
        return good if request.index else reply

    with LoopbackServer(answer) as server:
        square, _ = grounded(server, "lines")
        again = server.requests[1].text
    assert square["instances"][0]["bbox"] == [300, 200, 500, 400]
    assert again.endswith("Reply with these lines alone.")


SQUARE = {"id": 1, "label": "the red square", "bbox_2d": [BOX]}


@pytest.mark.parametrize(
    ("objects", "requests", "found"),
    [
        ([SQUARE, {"id": 2, "label": "a dog", "bbox_2d": []}], 1, ["grounded", "none"]),
        ([SQUARE, {"label": "dog", "bbox_2d": None}], 1, ["grounded", "none"]),
        ([], 1, ["none", "none"]),
        # what is left out isn't there in no other form
        ([SQUARE], 2, ["grounded", "none"]),
    ],
)
def test_a_phrase_that_lists_leave_out_is_asked_for_again(
    objects: Any, requests: int, found: list[str]
) -> None:
    good = [SQUARE, {"id": 2, "label": "a dog", "bbox_2d": []}]

    def answer(request: ReceivedRequest) -> Any:
        return {"objects": good if request.index else objects}

    with LoopbackServer(answer) as server:
        expressions = grounded(server, "lists")
        assert server.count() == requests
    assert [one["status"] for one in expressions] == found


@pytest.mark.slow
@given(st.text(alphabet="1.: []nonea,-0\n`(", max_size=80))
def test_no_reply_in_lines_breaks_the_reader(reply: str) -> None:
    try:
        objects = objects_of_lines(reply, "bbox_2d")
    except UnreadableReply:
        return
    assert objects is None or all(isinstance(item["bbox_2d"], list | None) for item in objects)


def test_a_label_that_names_the_key_stays_a_label() -> None:
    boxes = [
        {"id": 2, "label": "the red square", "bbox": BOX, "score": None},
        {"id": 1, "label": "bbox", "bbox": [0, 0, 100, 100], "score": None},
    ]
    with LoopbackServer(lambda request: {"objects": boxes}) as server:
        first, second = grounded(server, "bbox", "bbox", "the red square")
    assert first["instances"][0]["bbox"][:2] == [0, 0]
    assert second["instances"][0]["bbox"] == [300, 200, 500, 400]


@pytest.mark.parametrize(
    ("asking", "why"),
    [
        ("jason", "no form 'jason' of asking"),
        ("jason", "did you mean json"),
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
            lines = []
            for line in reply.splitlines():
                label, _, numbers = line.rpartition(": ")
                if numbers == "none":
                    lines.append(line)
                    continue
                x1, y1, x2, y2 = json.loads(numbers)
                lines.append(f"{label}: {[y1, x1, y2, x2]}")
            return "\n".join(lines)

    with LoopbackServer(Turned()) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        assert place.run().code == 0
        done = place.run(**{"vlm.asking": "lines"})
    assert done.code != 0
    assert "boxes" in done.err


def test_estimate_reckons_with_a_form(place: Workplace) -> None:
    place.settings["vlm.openai.base_url"] = URL
    counts = []
    for form in ("auto", "lines"):
        spec = str(place.spec(**{"vlm.asking": form}))
        done = command(["estimate", "-e", spec, "--json"])
        assert done.code == 0, done
        counts.append(done.summary["requests"])
    assert counts[0] == counts[1]

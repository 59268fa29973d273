"""The loopback server's answers, asked over HTTP as a client asks."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.testing import Answer, CannedAnswers, EchoAnswers, LoopbackServer, on
from tests.support import faults
from tests.support.takes import Takes
from tests.testing.conftest import Renewed


def picture(width: int = 200, height: int = 100, *, shade: int = 90, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 120, 40)).save(file, kind)
    return file.getvalue()


def text_part(task: str, given: dict[str, Any]) -> str:
    inside = json.dumps({"task": task, **given}).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"Do it. Put nothing between <input> and </input> but data.\n<input>{inside}</input>"


def openai_body(task: str, given: dict[str, Any], *images: bytes, **more: Any) -> dict[str, Any]:
    """A chat completion as wire.md has it."""
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    user = {"role": "user", "content": [*parts, {"type": "text", "text": text_part(task, given)}]}
    return {
        "model": "m",
        "messages": [{"role": "system", "content": "Answer with JSON."}, user],
        "max_tokens": 99,
        **more,
    }


def gemini_body(task: str, given: dict[str, Any], *images: bytes) -> dict[str, Any]:
    """A generateContent request with the same content."""
    parts: list[dict[str, Any]] = [
        {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(image).decode()}}
        for image in images
    ]
    return {
        "systemInstruction": {"parts": [{"text": "Answer with JSON."}]},
        "contents": [{"role": "user", "parts": [*parts, {"text": text_part(task, given)}]}],
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        },
    }


def post(
    server: LoopbackServer, body: Any, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request("POST", path, data, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def ask(
    server: LoopbackServer, task: str, given: dict[str, Any], *images: bytes, **more: Any
) -> dict[str, Any]:
    """The answer's JSON over the OpenAI protocol."""
    more.setdefault("response_format", {"type": "json_object"})
    status, reply = post(server, openai_body(task, given, *images, **more))
    assert status == 200, reply
    answer: dict[str, Any] = json.loads(reply["choices"][0]["message"]["content"])
    return answer


def grounding(*phrases: str, width: int = 200, height: int = 100) -> dict[str, Any]:
    listed = [{"id": number, "text": text} for number, text in enumerate(phrases, 1)]
    return {"image": {"width": width, "height": height}, "phrases": listed}


def test_echo_gives_one_box_inside_the_picture_to_each_phrase_and_the_same_one_again(
    endpoint: Renewed,
) -> None:
    phrases = [f"thing {number}" for number in range(40)]
    server = endpoint(answers=EchoAnswers(), record=False)
    first, again = (
        ask(server, "phrase_grounding", grounding(*phrases, width=9, height=3)) for _ in range(2)
    )
    assert first == again
    assert [found["id"] for found in first["objects"]] == list(range(1, 41))
    for found in first["objects"]:
        x1, y1, x2, y2 = found["bbox_2d"]
        assert 0 <= x1 < x2 <= 9
        assert 0 <= y1 < y2 <= 3


def test_echo_makes_negatives_of_phrases_in_colors_that_they_have_not(endpoint: Renewed) -> None:
    phrases = [{"id": 1, "text": "the red car"}, {"id": 2, "text": "a dog"}]
    server = endpoint()
    answer = ask(server, "negative_phrases", {"phrases": phrases, "count": 5}, picture())
    assert [(negative["id"], negative["text"]) for negative in answer["negatives"]] == [
        (1, "the blue car"),
        (2, "a red dog"),
        (1, "the green car"),
        (2, "a blue dog"),
        (1, "the white car"),
    ]


def test_echo_takes_the_telling_words_of_a_caption(endpoint: Renewed) -> None:
    server = endpoint()
    caption = "Ann's dog, a  <poodle>, eats pie"
    answer = ask(server, "expression_extraction", {"caption": caption}, picture())
    assert answer["cleaned_caption"] == "Ann's dog, a <poodle>, eats pie"
    assert [each["text"] for each in answer["expressions"]] == ["Ann's", "poodle", "eats"]


def test_what_was_received_is_kept_small_and_exact(endpoint: Renewed) -> None:
    big = picture(900, 700, shade=3)
    server = endpoint()
    ask(server, "phrase_grounding", grounding("a"), big, temperature=0.3)
    (request,) = server.requests
    assert request.image_digests == (hashlib.sha256(big).hexdigest(),)
    assert request.image_sizes == ((900, 700),)
    assert request.encoded_images == ()
    assert (request.task, request.model) == ("phrase_grounding", "m")
    assert request.system == "Answer with JSON."
    assert request.settings["temperature"] == 0.3
    assert request.body is None
    assert request.status_sent == 200


def test_a_caption_that_speaks_of_base64_is_read_like_any_other(endpoint: Renewed) -> None:
    caption = "data:image/png;base64," + "A" * 5000 + '" end'
    server = endpoint(keep_bodies=True)
    answer = ask(server, "expression_extraction", {"caption": caption}, picture())
    assert server.requests[0].body is not None
    assert answer["cleaned_caption"] == caption


def test_gemini_gets_the_same_answer_in_its_own_shape(endpoint: Renewed) -> None:
    expected = ask(endpoint(), "phrase_grounding", grounding("cup"), picture())
    server = endpoint(key="g-key")
    path = "/v1beta/models/gemini-x:generateContent"
    asked = gemini_body("phrase_grounding", grounding("cup"), picture())
    status, reply = post(server, asked, path, **{"x-goog-api-key": "g-key"})
    refused, error = post(server, asked, path, **{"x-goog-api-key": "other"})
    assert server.requests[0].model == "gemini-x"
    candidate = reply["candidates"][0]
    assert (status, candidate["finishReason"]) == (200, "STOP")
    assert json.loads(candidate["content"]["parts"][0]["text"]) == expected
    assert reply["usageMetadata"]["promptTokenCount"] > 0
    assert reply["usageMetadata"]["cachedContentTokenCount"] == 0
    assert (refused, error["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.slow
def test_googles_own_client_may_write_its_base64(endpoint: Renewed) -> None:
    genai = pytest.importorskip("google.genai")
    # noise, so that both of the letters in which the alphabets differ are in it
    drawn = Image.effect_noise((64, 64), 90)
    server = endpoint(answers=CannedAnswers("Seen."), key="g-key")
    options = genai.types.HttpOptions(base_url=server.address)
    client = genai.Client(api_key="g-key", http_options=options)
    reply = client.models.generate_content(model="gemini-x", contents=["What?", drawn])
    assert reply.text == "Seen."
    assert server.requests[0].image_sizes == ((64, 64),)


def test_gemini_tells_a_blocked_prompt_and_a_cut_off_answer(endpoint: Renewed) -> None:
    rules = [on(faults.refusal(), indexes={0}), on(faults.truncated(), indexes={1})]
    server = endpoint(faults=rules)
    path, body = "/v1beta/models/m:generateContent", gemini_body("image_caption", {}, picture())
    blocked, cut = (post(server, body, path)[1] for _ in range(2))
    assert blocked["promptFeedback"]["blockReason"] == "SAFETY"
    assert "candidates" not in blocked
    assert cut["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_azure_names_the_model_in_the_path(endpoint: Renewed) -> None:
    body = openai_body("image_caption", {}, picture())
    server = endpoint(key="k")
    path = "/openai/deployments/mine/chat/completions"
    status, reply = post(server, body, f"{path}?api-version=2024-10-21", **{"api-key": "k"})
    without, _ = post(server, body, path, **{"api-key": "k"})
    assert (status, reply["model"], without) == (200, "mine", 404)


OPEN_INSIDE = {"type": "array", "items": {"type": "object", "properties": {}}}
STRICT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
NAMED = {"type": {"type": "string"}, "properties": {"type": "string"}}
VALUES = {"enum": [STRICT, NAMED]}


def schema_format(**changes: Any) -> dict[str, Any]:
    schema = {"name": "t", "strict": True, "schema": {**STRICT, **changes}}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


FORMAT = "response_format"
TAKEN: dict[str, tuple[dict[str, Any], str | None]] = {
    "a closed schema is taken": (schema_format(), None),
    "an optional property is not": (schema_format(required=[]), FORMAT),
    "nor an open object": (schema_format(additionalProperties=True), FORMAT),
    "nor one inside a list": (schema_format(properties={"a": OPEN_INSIDE}), FORMAT),
    "nor one without a type": (schema_format(items={"properties": {}}), FORMAT),
    "names are no keywords": (schema_format(properties=NAMED, required=[*NAMED]), None),
    "and values no schemas": (schema_format(properties={"a": VALUES}), None),
    "no streams": ({"stream": True}, "stream"),
}


@pytest.mark.parametrize(("more", "refused"), TAKEN.values(), ids=TAKEN)
def test_an_endpoint_refuses_what_its_rule_says(
    endpoint: Renewed, more: dict[str, Any], refused: str | None
) -> None:
    server = endpoint(takes=Takes())
    body = openai_body("image_caption", {}, picture(), **more)
    got, reply = post(server, body)
    assert got == (400 if refused else 200)
    assert (reply["error"]["param"] if refused else None) == refused


@pytest.mark.parametrize(
    ("body", "word"),
    [
        pytest.param(b"{", "parse", id="no JSON"),
        pytest.param({"model": "m", "messages": []}, "messages", id="no messages"),
        pytest.param(openai_body("fly", {}, picture()), "task", id="an unknown task"),
        pytest.param(openai_body("image_caption", {}, b"no picture"), "image", id="no picture"),
        pytest.param(openai_body("image_caption", {}, picture()[:60]), "image", id="half a head"),
    ],
)
def test_a_request_that_breaks_the_wire_contract_is_told_so(
    endpoint: Renewed, body: Any, word: str
) -> None:
    server = endpoint()
    status, reply = post(server, body)
    assert status == 400
    assert word in reply["error"]["message"]


def test_a_function_of_ones_own_answers(endpoint: Renewed) -> None:
    server = endpoint(answers=lambda request: Answer(f"{request.index}", finish_reason="length"))
    _, reply = post(server, openai_body("image_caption", {}, picture()))
    assert reply["choices"][0]["message"]["content"] == "0"
    assert reply["choices"][0]["finish_reason"] == "length"


def test_an_error_in_ones_own_answers_is_raised_when_the_server_stops() -> None:
    def answers(request: object) -> str:
        raise ZeroDivisionError("mine")

    server = LoopbackServer(answers).start()
    status, _ = post(server, openai_body("image_caption", {}, picture()))
    assert status == 500
    with pytest.raises(ZeroDivisionError, match="mine"):
        server.__exit__(None, None, None)


def test_canned_answers_throw_bodies_away_unread(endpoint: Renewed) -> None:
    server = endpoint(answers=CannedAnswers("hello"), record=False)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    for size in (3_000_000, 3):
        # on one connection: what is thrown away ends where the next request begins
        connection.request("POST", "/v1/chat/completions", b"\0" * size)
        reply = connection.getresponse()
        assert reply.status == 200
        assert json.loads(reply.read())["choices"][0]["message"]["content"] == "hello"
    connection.close()
    assert server.bytes_received == 3_000_003


def test_a_beginning_that_was_seen_lately_counts_as_cached(endpoint: Renewed) -> None:
    server = endpoint(record=False)
    for shade in (1, 2, 1):
        _, reply = post(server, openai_body("image_caption", {}, picture(shade=shade)))
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 0

"""OpenAI-compatible servers as they differ: the records are the same with each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding._util.errors import RequestRefused, SpecError
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.operators import ExpressionExtractor
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.serving._chat_completions import (
    completion_in,
    error_in,
    first_habits,
    first_limits,
    reply_in,
    usage_in,
)
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.faults import Fault
from tests.support import faults
from tests.support.streams import streamed
from tests.support.takes import Takes
from tests.support.workplace import Workplace

SECRET = "header-secret-42"


@pytest.fixture(scope="module")
def usual(
    one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The records that an endpoint gives that takes everything."""
    place = Workplace(tmp_path_factory.mktemp("usual") / "work", one_server.base_url)
    place.many(4)
    assert place.run().code == 0
    return place.annotations()


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    """Four rows for the endpoint."""
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(4)
    return workplace


def extractor(server: LoopbackServer) -> ExpressionExtractor:
    return ExpressionExtractor(OpenAIServing(server.base_url, "loopback", box_format="xyxy_px"))


def in_prose(request: ReceivedRequest) -> str:
    """The answer of a model that passes over `response_format`."""
    answer = json.dumps(EchoAnswers()(request))
    return f"Here is what I found:\n```json\n{answer}\n```\nLet me know if you need more."


HARDLY = Takes(
    response_formats=(), max_completion_tokens=True, temperature=False, system_messages=False
)
SERVERS: dict[str, tuple[dict[str, Any], int]] = {
    "knows no json_schema": ({"takes": Takes(response_formats=("json_object",))}, 1),
    "ignores response_format": ({"answers": in_prose}, 0),
    "takes one image": ({"takes": Takes(max_images=1)}, 0),
    "takes hardly anything": ({"takes": HARDLY}, 5),
}


@pytest.mark.parametrize(("served", "refused"), SERVERS.values(), ids=SERVERS)
def test_the_records_are_the_same_and_what_it_takes_is_found_out_once(
    place: Workplace,
    server: LoopbackServer,
    usual: list[dict[str, Any]],
    served: dict[str, Any],
    refused: int,
) -> None:
    vars(server).update(served)
    done = place.run()
    assert done.code == 0, done
    assert (server.count(400), server.count(200)) == (refused, 8)
    for request in server.requests:
        assert "careful image annotator" in (request.system or request.text)
    records = place.annotations()
    for record in records:
        record.pop("remark", None)  # the prose around the answer
    assert records == usual


BLIND = {
    "400": {"takes": Takes(max_images=0)},
    # ggml-org/llama.cpp#13566
    "500": {"faults": [on(Fault(500, "image input is not supported by this server"))]},
}


@pytest.mark.parametrize("blind", BLIND.values(), ids=BLIND)
def test_a_model_without_eyes_stops_the_run_within_a_few_requests(
    place: Workplace, server: LoopbackServer, blind: dict[str, Any]
) -> None:
    place.many(30)
    vars(server).update(blind)
    done = place.run()
    assert (done.code, server.count() <= 8) == (4, True), done
    assert "takes no images" in done.err


def test_a_first_record_that_is_refused_for_itself_doesnt_change_how_the_others_are_asked(
    place: Workplace, server: LoopbackServer
) -> None:
    server.faults = on(faults.bad_request("bad picture"), containing="Cup 0 ")
    done = place.run(**{"workflow.max_workers": 1})
    assert done.code == 1, done
    good = [r.settings["response_format"]["type"] for r in server.requests if r.status_sent == 200]
    assert set(good) == {"json_schema"}


def test_extra_body_is_sent_and_asks_anew(place: Workplace, server: LoopbackServer) -> None:
    place.many(2)
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 0.5, "temperature": 0.25}
    with_extra = {"vlm.openai.extra_body": extra}
    sent = [place.run(**settings).summary["requests"] for settings in ({}, with_extra, with_extra)]
    assert sent == [4, 4, 0]
    settings = server.requests[-1].settings
    assert {name: settings[name] for name in extra} == extra


@pytest.mark.parametrize("name", ["messages", "model", "n"])
def test_extra_body_cant_take_over_what_is_ours(name: str) -> None:
    with pytest.raises(SpecError, match=f"extra_body can't hold '{name}'"):
        OpenAIServing("http://127.0.0.1:9", "m", extra_body={name: 1})


def test_extra_headers_are_sent_cost_nothing_and_stay_secret(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(2)
    assert place.run().summary["requests"] == 4
    headers = {"api-key": SECRET, "HTTP-Referer": "https://example.org"}
    place.settings["vlm.openai.extra_headers"] = headers
    assert place.run().summary["requests"] == 0
    server.key = SECRET
    again = {"workflow.force_reprocess": True}
    done = place.run(**again)
    assert (done.code, done.summary["requests"]) == (0, 4)
    assert server.requests[-1].headers["http-referer"] == "https://example.org"
    server.faults = faults.leaky(on(faults.bad_request("no")))
    done = place.run(**again)
    assert done.code == 4
    assert SECRET not in done.out + done.err
    assert any("***" in failure["message"] for failure in place.failures())
    for path, content in place.everything():
        assert SECRET.encode() not in content, path


def test_an_azure_deployments_address_keeps_its_api_version(
    row: dict[str, Any], server: LoopbackServer
) -> None:
    path = "/openai/deployments/mine{}?api-version=2024-10-21"
    server.key = SECRET
    serving = OpenAIServing(
        server.address + path.format(""), "mine", api_key="x", extra_headers={"api-key": SECRET}
    )
    assert ExpressionExtractor(serving)(row)["expressions"]
    assert [request.path for request in server.requests] == [path.format("/chat/completions")]


# --- replies


def completion(
    message: dict[str, Any], finish_reason: Any = "stop", usage: Any = None
) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage}


REPLIES: list[tuple[str, dict[str, Any], tuple[str, str, str | None]]] = [
    ("plain", completion({"content": "{}"}), ("{}", "stop", None)),
    ("in parts", completion({"content": [{"type": "text", "text": "{"}, {"text": "}"}]}), ("{}", "stop", None)),
    ("thinking parts are left out", completion({"content": [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "{}"}]}), ("{}", "stop", None)),
    ("thoughts beside the answer are left alone", completion({"content": "{}", "reasoning_content": "let me see"}), ("{}", "stop", None)),
    ("an answer where the thoughts should be", completion({"content": None, "reasoning_content": '{"objects": []}'}), ('{"objects": []}', "stop", None)),
    ("the same under another name", completion({"content": "", "reasoning": "{}"}), ("{}", "stop", None)),
    ("thoughts that used up all tokens", completion({"content": None, "reasoning_content": "let me see"}, "length"), ("", "length", None)),
    ("a refusal", completion({"content": None, "refusal": "no"}), ("", "stop", "no")),
    ("a filter", completion({"content": ""}, "content_filter"), ("", "content_filter", "content filter (content_filter)")),
    (
        "the arguments of a tool call, BerriAI/litellm#6741",
        completion(
            {"content": None, "tool_calls": [{"function": {"arguments": "{}"}}]}, "tool_calls"
        ),
        ("{}", "stop", None),
    ),
    (
        "the same as an object, under the older name",
        completion({"content": "", "function_call": {"arguments": {"a": 1}}}, "function_call"),
        ('{"a": 1}', "stop", None),
    ),
    (
        "text and a call say so, as nobody knows which counts",
        completion({"content": "[]", "tool_calls": [{"function": {"arguments": "{}"}}]}),
        ("[]\n\nThe tool call, in other words, has:\n{}", "stop", None),
    ),
    ("two tool calls are no answer", completion({"content": None, "tool_calls": [{"function": {"arguments": "{}"}}] * 2}), ("", "stop", None)),
    ("no finish reason", completion({"content": "{}"}, None), ("{}", "stop", None)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"), [pytest.param(*case[1:], id=case[0]) for case in REPLIES]
)
def test_replies(data: dict[str, Any], expected: tuple[str, str, str | None]) -> None:
    reply = reply_in(data, 0.0)
    assert (reply.text, reply.finish_reason, reply.refusal) == expected


def test_a_streamed_answer_is_read() -> None:
    """BerriAI/litellm#25766, unslothai/unsloth#6570: servers that stream unless told not to."""
    reply = reply_in(completion_in(streamed('{"objects": ["é"]}')), 0.0)
    assert (reply.text, reply.finish_reason) == ('{"objects": ["é"]}', "stop")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (9, 2)


def chunk(finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": {"content": "[1]"}, "finish_reason": finish_reason}
    return json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


def test_a_single_chunk_as_json_is_read() -> None:
    """Gateways that were told not to stream."""
    completion = completion_in(chunk("stop"))
    assert error_in(completion) is None
    assert reply_in(completion, 0.0).text == "[1]"


BROKEN_STREAMS = {
    "a single chunk as JSON that isn't the last one": chunk(None),
    "no end": b'data: {"choices": [{"delta": {"content": "none"}}]}\n\n',
    "an error without choices": streamed("[]").replace(b"[DONE]", b'{"detail": "out of memory"}'),
}


@pytest.mark.parametrize("body", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
def test_a_stream_that_breaks_off_is_no_answer(body: bytes) -> None:
    try:
        completion = completion_in(body)
    except ValueError:
        return
    assert error_in(completion) is not None


def test_a_streamed_tool_call_is_read() -> None:
    pieces = ['{"a"', ": 1}"]
    lines = [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}]}
        for piece in pieces
    ]
    lines.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    body = "".join(f"data: {json.dumps(line)}\n\n" for line in lines).encode()
    assert reply_in(completion_in(body), 0.0).text == '{"a": 1}'


NONE_THERE = {"content": '{"objects": []}'}
FINISHED = {
    "held back": [
        "sensitive",  # z.ai
        "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII",  # Gemini
        "refusal",  # Anthropic
        "guardrail_intervened", "content_filtered",  # Bedrock
        "ERROR_TOXIC",  # Cohere
    ],
    "broken off": [
        "abort",
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # z.ai
        "cancelled", "time_limit", "timeout",  # watsonx, TensorRT-LLM
        "malformed_model_output",  # Bedrock
        "MALFORMED_RESPONSE",  # Gemini
        "ERROR",
    ],
    "whole": ["stop", "STOP", "eos", "end_turn", "stop_sequence", "COMPLETE", "", None, 0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "end"), [(reason, end) for end, reasons in FINISHED.items() for reason in reasons]
)
def test_what_a_finish_reason_means(reason: Any, end: str) -> None:
    data = completion(NONE_THERE, reason)
    assert (error_in(data) is not None) == (end == "broken off")
    refusal = f"content filter ({reason})" if end == "held back" else None
    reply = reply_in(data, 0.0)
    assert (reply.text, reply.refusal) == (NONE_THERE["content"], refusal)


NO_ANSWERS: dict[str, dict[str, Any]] = {
    "errors next to choices": {**completion({"content": "[]"}), "errors": ["no room"]},
    "MiniMax": {**completion({"content": "[]"}), "base_resp": {"status_code": 1002}},
}


@pytest.mark.parametrize("data", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_a_server_says_of_an_answer_counts(data: dict[str, Any]) -> None:
    assert error_in(data) is not None


@pytest.mark.parametrize(
    ("message", "is_error"),
    [
        ({"content": ""}, True),
        ({"content": None, "reasoning": "Let me see"}, True),
        ({"content": "[]"}, False),
        ({"content": None, "tool_calls": [{"function": {"arguments": "[]"}}]}, False),
    ],
)
def test_an_empty_answer_that_the_provider_broke_off_is_a_fault(
    message: dict[str, Any], is_error: bool
) -> None:
    data = completion(message)
    data["choices"][0]["native_finish_reason"] = "error"
    assert (error_in(data) is not None) is is_error


@pytest.mark.parametrize(
    ("finish_reason", "of_provider", "reasons"),
    [
        ("error", None, "finish_reason: error"),
        ("error", "stop", "finish_reason: error, native_finish_reason: stop"),
        ("stop", "error", "finish_reason: stop, native_finish_reason: error"),
    ],
)
def test_an_answer_that_breaks_off_names_both_reasons(
    finish_reason: str, of_provider: str | None, reasons: str
) -> None:
    data = completion({"content": ""}, finish_reason)
    data["choices"][0]["native_finish_reason"] = of_provider
    assert error_in(data) == {"message": f"the endpoint broke off ({reasons})"}


def test_codes_that_are_no_errors_are_passed_over() -> None:
    for error in ({"code": 0, "message": ""}, {"code": 200, "message": "ok"}, {}, None):
        assert error_in({**completion({"content": "{}"}), "error": error}) is None


def test_the_choice_with_index_0_counts() -> None:
    choices = [
        {"index": 1, "message": {"content": "[]"}},
        {"index": 0, "message": {"content": "{}"}},
    ]
    assert reply_in({"choices": choices}, 0.0).text == "{}"


def test_a_server_that_streams_is_told_not_to_and_read_all_the_same(
    row: dict[str, Any], server: LoopbackServer
) -> None:
    usual = extractor(server)(row)

    def streams(request: ReceivedRequest) -> Fault:
        text = json.dumps(EchoAnswers("xyxy_px")(request))
        return Fault(200, body=streamed(text), headers={"content-type": "text/event-stream"})

    server.faults = streams
    assert extractor(server)(row) == usual
    assert [request.settings["stream"] for request in server.requests] == [False] * 2


def inside(**error: Any) -> Fault:
    """An error in the choice of an answer with status 200."""
    choice = {"finish_reason": "error", "error": error, "message": {"content": ""}}
    return Fault(200, body=json.dumps({"choices": [choice]}).encode())


RAW = json.dumps({"error": {"message": "Unknown name additionalProperties"}})
MALFORMED = {"choices": [{"finish_reason": "error", "native_finish_reason": "MALFORMED"}]}
INSIDE = {
    "waited for: nodetool-ai/nodetool#5755": (inside(code=429, message="Rate limit exceeded"), 1),
    "tried again: no code": (inside(message="upstream gave up"), 2),
    "tried again": (Fault(200, body=json.dumps(MALFORMED).encode()), 2),
}


@pytest.mark.parametrize(("fault", "attempts"), INSIDE.values(), ids=INSIDE)
def test_an_error_inside_a_200_is_that_error(
    row: dict[str, Any], server: LoopbackServer, fault: Fault, attempts: int
) -> None:
    server.faults = on(fault, times=1)
    with holding(current_options, RunOptions(max_attempts=attempts)):
        assert extractor(server)(row)["expressions"]
    assert server.count() == 2


def test_a_refusal_inside_a_200_tries_the_next_response_format(
    row: dict[str, Any], server: LoopbackServer
) -> None:
    """OpenRouterTeam/openrouter-examples#14: the provider's reason is in `metadata.raw`."""
    error = {"code": 400, "message": "Provider returned error", "metadata": {"raw": RAW}}
    refused = Fault(200, body=json.dumps({"error": error}).encode())

    def has_schema(request: ReceivedRequest) -> bool:
        return bool(request.settings.get("response_format", {}).get("type") == "json_schema")

    server.faults = on(refused, where=has_schema)
    assert extractor(server)(row)["expressions"]
    server.faults = on(refused)
    said = "answered 400 inside a 200: Provider returned error: Unknown name"
    with pytest.raises(RequestRefused, match=said):
        extractor(server)(row)


USAGES = [
    ("OpenAI, vLLM", {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 4, 2)),
    ("no details", {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}, (9, 0, 2)),
    ("DeepSeek", {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, (9, 4, 2)),
    ("Moonshot", {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4}, (9, 4, 2)),
    ("responses", {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}, (9, 4, 2)),
    ("none", None, (0, 0, 0)),
    ("nonsense", {"prompt_tokens": "many", "completion_tokens": -3, "prompt_tokens_details": [1]}, (0, 0, 0)),
    ("more cached than sent", {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}, (3, 3, 0)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"), [pytest.param(*case[1:], id=case[0]) for case in USAGES]
)
def test_usage(data: Any, expected: tuple[int, int, int]) -> None:
    usage = usage_in(data)
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == expected


def test_run_json_has_the_spec_without_its_secrets(place: Workplace) -> None:
    given = {"vlm.openai.api_key": SECRET, "vlm.openai.extra_headers": {"X-Title": "mine"}}
    assert place.run(**given).code == 0
    said = place.run_json()["spec"]["image_grounding"]["vlm"]["openai"]
    assert (said["api_key"], said["extra_headers"]) == ("***", {"X-Title": "***"})
    assert said["extra_body"] == {}


# --- what is known by the address


NIM, OPENAI = "NVIDIA's hosted NIMs", "OpenAI's own service"
ADDRESSES = {
    "https://integrate.api.nvidia.com/v1": NIM,
    "https://0f3c.invocation.api.nvcf.nvidia.com/v1": NIM,
    "https://user:word@NVIDIA.com:8443/v1?key=1#part": NIM,
    "https://eu.api.openai.com/v1": OPENAI,
    "https://mine.openai.azure.com/openai/v1": OPENAI,
    "http://[::1]:8000/v1": "",
    "https://evilnvidia.com/v1": "",
    "https://notopenai.com/v1": "",
    "https://api.nvidia.com.evil.org/v1?host=.nvidia.com": "",
    "https://nvidia.com@evil.org/v1": "",
    "http://nim.internal:8000/v1/nvidia": "",
}


@pytest.mark.parametrize(("url", "whose"), ADDRESSES.items())
def test_limits_and_habits_are_those_of_the_host(url: str, whose: str) -> None:
    """At OpenAI's own service a schema for each task, which stands before the picture, would keep
    the picture out of the prompt cache.
    """
    limits = first_limits(url)
    small, usual = (1024, 134_000), (2048, 15 * 2**20)
    assert (limits.max_side, limits.max_bytes) == (small if whose == NIM else usual)
    first = "json_object" if whose == OPENAI else "json_schema"
    assert first_habits(url).response_format == first

"""OpenAI-compatible servers as they differ: the records are the same with each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.serving._chat_completions import (
    completion_in,
    error_in,
    first_habits,
    first_limits,
    reply_in,
    usage_in,
)
from dataflow_grounding.testing import (
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
    Takes,
    faults,
    on,
)
from dataflow_grounding.testing.faults import Fault
from tests.support.streams import streamed
from tests.support.workplace import Workplace

SECRET = "header-secret-42"


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records that an endpoint gives that takes everything."""
    place = Workplace(tmp_path_factory.mktemp("usual") / "work")
    place.many(4)
    with LoopbackServer() as server:
        assert place.run(**{"vlm.openai.base_url": server.base_url}).code == 0
    return place.annotations()


SERVERS = {
    "knows no json_schema": (Takes(response_formats=("json_object",)), 1),
    "ignores response_format": (Takes(ignores_format=True), 0),
    "takes one image": (Takes(max_images=1), 0),
    "takes hardly anything": (
        Takes(
            response_formats=(),
            max_completion_tokens=True,
            temperature=False,
            system_messages=False,
        ),
        5,
    ),
}


@pytest.mark.parametrize(
    ("takes", "refused"), [pytest.param(*case, id=name) for name, case in SERVERS.items()]
)
def test_the_records_are_the_same_and_what_it_takes_is_found_out_once(
    workplace: Workplace, usual: list[dict[str, Any]], takes: Takes, refused: int
) -> None:
    workplace.many(4)
    with LoopbackServer(takes=takes) as server:
        done = workplace.run(**{"vlm.openai.base_url": server.base_url})
        assert done.code == 0, done
        assert (server.count(400), server.count(200)) == (refused, 8)
        if not takes.system_messages:
            assert all(
                "careful image annotator" in request.text
                for request in server.requests
                if not request.system
            )
    assert workplace.annotations() == usual


BLIND = {
    "400": {"takes": Takes(max_images=0)},
    # ggml-org/llama.cpp#13566
    "500": {"faults": [on(Fault(500, "image input is not supported by this server"))]},
}


@pytest.mark.parametrize("blind", BLIND.values(), ids=BLIND)
def test_a_model_without_eyes_stops_the_run_within_a_few_requests(
    workplace: Workplace, blind: dict[str, Any]
) -> None:
    workplace.many(30)
    with LoopbackServer(**blind) as server:
        done = workplace.run(**{"vlm.openai.base_url": server.base_url})
        assert (done.code, server.count() <= 8) == (4, True), done
    assert "takes no images" in done.err


def test_a_first_record_that_is_refused_for_itself_doesnt_change_how_the_others_are_asked(
    workplace: Workplace,
) -> None:
    workplace.many(3)
    with LoopbackServer(
        faults=[on(faults.bad_request("bad picture"), containing="Cup 0 ")]
    ) as server:
        done = workplace.run(**{"vlm.openai.base_url": server.base_url, "workflow.max_workers": 1})
        assert done.code == 1, done
        good = [
            r.settings["response_format"]["type"] for r in server.requests if r.status_sent == 200
        ]
    assert set(good) == {"json_schema"}


@pytest.mark.parametrize(
    ("url", "first"),
    [
        ("https://api.openai.com/v1", "json_object"),
        ("https://mine.openai.azure.com/openai/v1", "json_object"),
        ("https://eu.api.openai.com/v1", "json_object"),
        ("http://localhost:8000/v1", "json_schema"),
        ("https://notopenai.com/v1", "json_schema"),
    ],
)
def test_openais_own_service_is_asked_for_json_object(url: str, first: str) -> None:
    """Its schema stands before the picture, and one for each task would keep the picture out of the
    prompt cache.
    """
    assert first_habits(url).response_format == first


def test_extra_body_is_sent_and_asks_anew(workplace: Workplace) -> None:
    workplace.many(2)
    with LoopbackServer(key=None) as server:
        settings: dict[str, Any] = {"vlm.openai.base_url": server.base_url}
        assert workplace.run(**settings).summary["requests"] == 4
        extra = {
            "chat_template_kwargs": {"enable_thinking": False},
            "top_p": 0.5,
            "temperature": 0.25,
        }
        settings["vlm.openai.extra_body"] = extra
        assert workplace.run(**settings).summary["requests"] == 4
        assert workplace.run(**settings).summary["requests"] == 0
        sent = server.requests[-1].settings
    assert {name: sent[name] for name in extra} == extra


@pytest.mark.parametrize("name", ["messages", "model", "n"])
def test_extra_body_cant_take_over_what_is_ours(workplace: Workplace, name: str) -> None:
    workplace.many(1)
    done = workplace.run(
        **{"vlm.openai.base_url": "http://127.0.0.1:9", "vlm.openai.extra_body": {name: 1}}
    )
    assert done.code == 2, done
    assert f"extra_body can't hold '{name}'" in done.err


def test_extra_headers_are_sent_cost_nothing_and_stay_secret(workplace: Workplace) -> None:
    workplace.many(2)
    with LoopbackServer() as server:
        settings = {"vlm.openai.base_url": server.base_url}
        assert workplace.run(**settings).summary["requests"] == 4
        settings["vlm.openai.extra_headers"] = {
            "api-key": SECRET,
            "HTTP-Referer": "https://example.org",
        }
        assert workplace.run(**settings).summary["requests"] == 0
        server.key, server.leaky = SECRET, True
        done = workplace.run("image_grounding.workflow.force_reprocess=true", **settings)
        assert (done.code, done.summary["requests"]) == (0, 4)
        assert server.requests[-1].headers["http-referer"] == "https://example.org"
        server.faults = [on(faults.bad_request("no"))]
        done = workplace.run("image_grounding.workflow.force_reprocess=true", **settings)
        assert done.code == 4
        assert SECRET not in done.out + done.err
    assert any("***" in failure["message"] for failure in workplace.failures())
    for path, content in workplace.everything():
        assert SECRET.encode() not in content, path


def test_an_azure_deployments_address_keeps_its_api_version(workplace: Workplace) -> None:
    workplace.many(1)
    with LoopbackServer(key=SECRET) as server:
        url = f"{server.address}/openai/deployments/mine?api-version=2024-10-21"
        done = workplace.run(
            **{
                "vlm.openai.base_url": url,
                "vlm.openai.extra_headers": {"api-key": SECRET},
                "vlm.openai.api_key": "x",
            }
        )
        assert done.code == 0, done
        assert {request.path for request in server.requests} == {
            "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
        }


# --- replies


def completion(
    message: dict[str, Any], finish_reason: Any = "stop", usage: Any = None
) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage}


REPLIES: list[tuple[str, dict[str, Any], tuple[str, str, str | None]]] = [
    ("plain", completion({"content": "{}"}), ("{}", "stop", None)),
    (
        "in parts",
        completion({"content": [{"type": "text", "text": "{"}, {"text": "}"}]}),
        ("{}", "stop", None),
    ),
    (
        "thinking parts are left out",
        completion(
            {"content": [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "{}"}]}
        ),
        ("{}", "stop", None),
    ),
    (
        "thoughts beside the answer are left alone",
        completion({"content": "{}", "reasoning_content": "let me see"}),
        ("{}", "stop", None),
    ),
    (
        "an answer where the thoughts should be",
        completion({"content": None, "reasoning_content": '{"objects": []}'}),
        ('{"objects": []}', "stop", None),
    ),
    (
        "the same under another name",
        completion({"content": "", "reasoning": "{}"}),
        ("{}", "stop", None),
    ),
    (
        "thoughts that used up all tokens",
        completion({"content": None, "reasoning_content": "let me see"}, "length"),
        ("", "length", None),
    ),
    ("a refusal", completion({"content": None, "refusal": "no"}), ("", "stop", "no")),
    (
        "a filter",
        completion({"content": ""}, "content_filter"),
        ("", "content_filter", "content filter (content_filter)"),
    ),
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
    (
        "two tool calls are no answer",
        completion({"content": None, "tool_calls": [{"function": {"arguments": "{}"}}] * 2}),
        ("", "stop", None),
    ),
    ("no finish reason", completion({"content": "{}"}, None), ("{}", "stop", None)),
]


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


NO_ANSWERS: dict[str, dict[str, Any]] = {
    "aborted": completion({"content": "none"}, "abort"),
    "errors next to choices": {**completion({"content": "[]"}), "errors": ["no room"]},
    "MiniMax": {**completion({"content": "[]"}), "base_resp": {"status_code": 1002}},
}


NONE_THERE = {"content": '{"objects": []}'}


@pytest.mark.parametrize(
    "finish_reason",
    [
        "sensitive",  # z.ai
        "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII",  # Gemini
        "refusal",  # Anthropic
        "guardrail_intervened", "content_filtered",  # Bedrock
        "ERROR_TOXIC",  # Cohere
    ],
)  # fmt: skip
def test_a_reply_held_back_for_its_content_is_a_refusal(finish_reason: str) -> None:
    refusal = reply_in(completion(NONE_THERE, finish_reason), 0.0).refusal
    assert refusal == f"content filter ({finish_reason})"


@pytest.mark.parametrize(
    "finish_reason",
    [
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # z.ai
        "cancelled", "time_limit", "timeout",  # watsonx, TensorRT-LLM
        "malformed_model_output",  # Bedrock
        "MALFORMED_RESPONSE",  # Gemini
        "ERROR",
    ],
)  # fmt: skip
def test_a_reply_that_the_server_broke_off_is_a_fault(finish_reason: str) -> None:
    assert error_in(completion(NONE_THERE, finish_reason)) is not None


@pytest.mark.parametrize(
    "finish_reason", ["stop", "STOP", "eos", "end_turn", "stop_sequence", "COMPLETE", "", None, 0]
)
def test_other_finish_reasons_leave_the_reply(finish_reason: Any) -> None:
    data = completion(NONE_THERE, finish_reason)
    assert error_in(data) is None
    reply = reply_in(data, 0.0)
    assert (reply.text, reply.refusal) == (NONE_THERE["content"], None)


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
    workplace: Workplace, usual: list[dict[str, Any]]
) -> None:
    workplace.many(4)

    def streams(request: ReceivedRequest) -> Fault:
        text = json.dumps(EchoAnswers("xyxy_px")(request))
        return Fault(200, body=streamed(text), headers={"content-type": "text/event-stream"})

    with LoopbackServer(faults=[streams]) as server:
        done = workplace.run(**{"vlm.openai.base_url": server.base_url})
        assert done.code == 0, done
        assert {request.settings["stream"] for request in server.requests} == {False}
    assert workplace.annotations() == usual


def inside(**error: Any) -> Fault:
    """An error in the choice of an answer with status 200."""
    choice = {"finish_reason": "error", "error": error, "message": {"content": ""}}
    return Fault(200, body=json.dumps({"choices": [choice]}).encode())


RAW = json.dumps({"error": {"message": "Unknown name additionalProperties"}})
INSIDE = {
    "waited for: nodetool-ai/nodetool#5755": inside(code=429, message="Rate limit exceeded"),
    "tried again: no code": inside(message="upstream gave up"),
    "tried again": Fault(
        200,
        body=b'{"choices": [{"finish_reason": "error", "native_finish_reason": "MALFORMED"}]}',
    ),
}


@pytest.mark.parametrize("fault", INSIDE.values(), ids=INSIDE)
def test_an_error_inside_a_200_is_that_error(
    workplace: Workplace, usual: list[dict[str, Any]], fault: Fault
) -> None:
    workplace.many(4)
    with LoopbackServer(faults=[on(fault, times=4, task="phrase_grounding")]) as server:
        settings = {"vlm.openai.base_url": server.base_url, "workflow.max_attempts": 5}
        assert workplace.run(**settings).code == 0
    assert workplace.annotations() == usual


def test_a_refusal_inside_a_200_tries_the_next_response_format(workplace: Workplace) -> None:
    """OpenRouterTeam/openrouter-examples#14: the provider's reason is in `metadata.raw`."""
    error = {"code": 400, "message": "Provider returned error", "metadata": {"raw": RAW}}
    refused = Fault(200, body=json.dumps({"error": error}).encode())
    workplace.many(2)

    def has_schema(request: ReceivedRequest) -> bool:
        return bool(request.settings.get("response_format", {}).get("type") == "json_schema")

    with LoopbackServer(faults=[on(refused, where=has_schema)]) as server:
        assert workplace.run(**{"vlm.openai.base_url": server.base_url}).code == 0
    with LoopbackServer(faults=[on(refused)]) as server:
        settings = {"vlm.openai.base_url": server.base_url, "workflow.force_reprocess": True}
        done = workplace.run(**settings)
    assert done.code == 4, done
    said = workplace.failures()[0]["message"]
    assert "answered 400 inside a 200: Provider returned error: Unknown name" in said


USAGES = [
    (
        "OpenAI, vLLM",
        {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
        (9, 4, 2),
    ),
    (
        "no details",
        {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None},
        (9, 0, 2),
    ),
    (
        "DeepSeek",
        {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4},
        (9, 4, 2),
    ),
    ("Moonshot", {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4}, (9, 4, 2)),
    (
        "responses",
        {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
        (9, 4, 2),
    ),
    ("none", None, (0, 0, 0)),
    (
        "nonsense",
        {"prompt_tokens": "many", "completion_tokens": -3, "prompt_tokens_details": [1]},
        (0, 0, 0),
    ),
    (
        "more cached than sent",
        {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}},
        (3, 3, 0),
    ),
]


@pytest.mark.parametrize(
    ("data", "expected"), [pytest.param(*case[1:], id=case[0]) for case in USAGES]
)
def test_usage(data: Any, expected: tuple[int, int, int]) -> None:
    usage = usage_in(data)
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == expected


def test_run_json_has_the_spec_without_its_secrets(workplace: Workplace, tmp_path: Path) -> None:
    workplace.many(1)
    with LoopbackServer() as server:
        given = {"vlm.openai.api_key": SECRET, "vlm.openai.extra_headers": {"X-Title": "mine"}}
        assert workplace.run(**{"vlm.openai.base_url": server.base_url, **given}).code == 0
    openai = workplace.run_json()["spec"]["image_grounding"]["vlm"]["openai"]
    assert (openai["api_key"], openai["extra_headers"], openai["extra_body"]) == (
        "***",
        {"X-Title": "***"},
        {},
    )


# --- images


@pytest.mark.parametrize(
    "url",
    [
        "https://integrate.api.nvidia.com/v1",
        "https://ai.api.nvidia.com/v1/vlm/nvidia/neva-22b",
        "https://api.nvcf.nvidia.com/v2/nvcf/pexec/functions/0f3c",
        "https://0f3c.invocation.api.nvcf.nvidia.com/v1",
        "https://NVIDIA.com/v1",
        "https://user:word@Integrate.API.nvidia.com.:8443/v1?key=1#part",
    ],
)
def test_hosted_nims_take_small_pictures(url: str) -> None:
    limits = first_limits(url)
    assert (limits.max_side, limits.max_bytes) == (1024, 134_000)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "https://evilnvidia.com/v1",
        "https://api.nvidia.com.evil.org/v1",
        "https://nvidia.com@evil.org/v1",
        "https://evil.org/v1?host=.nvidia.com",
        "https://nvidia.com.cn/v1",
        "http://nim.internal:8000/v1/nvidia",
        "http://[::1]:8000/v1",
    ],
)
def test_other_servers_take_large_pictures(url: str) -> None:
    limits = first_limits(url)
    assert (limits.max_side, limits.max_bytes) == (2048, 15 * 2**20)

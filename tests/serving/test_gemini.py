"""The Gemini backend, as a user of `generate` meets it, against a loopback endpoint that speaks
`generateContent`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import ExpressionExtractor
from dataflow_grounding._util.errors import RateLimited, RequestRefused, ServerFault
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.serving import GeminiServing
from dataflow_grounding.serving.http_errors import error_of
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, on
from dataflow_grounding.testing.faults import Fault, FaultRule
from tests.support import faults
from tests.support.endpoint import Serves
from tests.support.workplace import REPOSITORY, Workplace, caption, command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("google.genai") is None, reason="without the extra gemini"),
]  # fmt: skip
SEED_PAGE = REPOSITORY.parent / "shared" / "seeds" / "tao_2d_grounding_docs.txt"
KEY = "AIzaVerySecretKey-123"


@pytest.fixture
def gemini(workplace: Workplace) -> Workplace:
    """Three records for a Gemini endpoint that is still to be named."""
    workplace.settings = {
        "vlm.backend": "gemini",
        "vlm.gemini.api_key": KEY,
        "vlm.gemini.timeout": 20,
        "vlm.check_every": None,
    }
    workplace.many(3)
    return workplace


def server(serves: Serves, *rules: FaultRule, **settings: Any) -> LoopbackServer:
    return serves(EchoAnswers("gemini"), faults=list(rules), **{"key": KEY, **settings})


def at(endpoint: LoopbackServer) -> dict[str, Any]:
    return {"vlm.gemini.base_url": endpoint.address}


def test_every_setting_is_in_the_requests_and_another_one_asks_again(
    gemini: Workplace, serves: Serves
) -> None:
    gemini.many(1)
    extra = {
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}, "topK": 5},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    }
    given = {
        "vlm.gemini.temperature": 0.55,
        "vlm.gemini.max_output_tokens": 777,
        "vlm.gemini.media_resolution": "MEDIA_RESOLUTION_LOW",
        "vlm.gemini.model": "gemini-2.5-flash",
        "vlm.gemini.extra": extra,
        "workflow.samples": 3,
    }
    gemini.settings |= given
    endpoint = server(serves, keep_bodies=True)
    gemini.settings |= at(endpoint)
    done = gemini.run()
    assert done.code == 0, done
    asked = list(endpoint.requests)
    assert len(asked) == 4
    sent = []
    for setting in (
        {},
        {"vlm.gemini.temperature": 0.9},
        {"vlm.gemini.media_resolution": "MEDIA_RESOLUTION_HIGH"},
        {"vlm.gemini.timeout": 7},
        {"vlm.gemini.extra": {}},
    ):
        sent.append(gemini.run(**setting).summary["requests"])
    assert sent == [0, 4, 4, 0, 4]
    for request in asked:
        assert request.model == "gemini-2.5-flash"
        assert request.settings["temperature"] == 0.55
        assert request.settings["maxOutputTokens"] == 777
        assert request.settings["mediaResolution"] == "MEDIA_RESOLUTION_LOW"
        assert request.settings["responseMimeType"] == "application/json"
        assert request.headers["x-server-timeout"] == "20"
        assert request.headers["x-goog-api-key"] == KEY
        assert KEY not in request.path
        assert request.system.startswith("You")
        assert len(request.images) == 1
        assert request.body is not None
        assert request.body["safetySettings"] == extra["safetySettings"]
        config = request.body["generationConfig"]
        assert (config["thinkingConfig"], config["topK"]) == ({"thinkingBudget": 0}, 5)
    seeds = [request.body["generationConfig"].get("seed") for request in asked if request.body]
    assert sorted(seed for seed in seeds if seed is not None) == [1, 2]
    assert done.summary["repeated_replies"] == 0
    assert done.summary["answered_by"] == {"gemini-2.5-flash": 4}
    [row] = gemini.annotations()
    boxes = [instance for one in row["expressions"] for instance in one["instances"]]
    assert {box["score"] for box in boxes} == {1.0}


def test_without_settings_the_seeds_defaults_are_sent_and_records_are_those_of_openai(
    gemini: Workplace, tmp_path: Path, serves: Serves
) -> None:
    gemini.settings.pop("vlm.gemini.timeout")
    endpoint = server(serves, key=None)
    other = Workplace(tmp_path / "other", endpoint.base_url, **{"vlm.box_format": "gemini"})
    other.many(3)
    assert gemini.run(**at(endpoint)).code == 0
    asked = [*endpoint.requests]
    assert len(asked) == 6
    assert other.run().code == 0
    assert gemini.annotations() == other.annotations()
    assert all(
        one["status"] == "grounded" for row in gemini.annotations() for one in row["expressions"]
    )
    assert asked[0].model == "gemini-3.1-flash-lite-preview"
    wanted = {
        "temperature": 0.3,
        "maxOutputTokens": 8192,
        "mediaResolution": "MEDIA_RESOLUTION_HIGH",
    }
    assert {name: asked[0].settings[name] for name in wanted} == wanted
    assert asked[0].headers["x-server-timeout"] == "120"
    # Gemini's dialect of JSON Schema
    schemas = json.dumps([request.settings["responseSchema"] for request in asked])
    assert "additionalProperties" not in schemas
    assert '"type": ["' not in schemas
    assert '"nullable": true' in schemas
    assert '"propertyOrdering": ["cleaned_caption", "expressions"]' in schemas


def ends(reason: str, *, empty: bool = False) -> Fault:
    """The true answer, or one without text, that ends for a reason."""
    return Fault(
        change=lambda answer: replace(
            answer, text="" if empty else answer.text, finish_reason=reason
        )
    )


def twice(reason: str) -> list[FaultRule]:
    return [once(ends(reason, empty=True)), once(ends(reason))]


def always(fault: Fault) -> Any:
    return lambda caption: on(fault, containing=caption)


def once(fault: Fault) -> Any:
    return lambda caption: on(fault, containing=caption, times=1)


# What happens to the first step of a record, how often it is asked about, and why it fails. Of one
# that doesn't fail there is one more request, in the second step.
FATES: dict[str, tuple[list[Any], int, str, str]] = {
    "nothing": ([], 1, "", ""),
    "a blocked prompt": ([always(faults.refusal("about weapons"))], 1, "refused", "blocked by Gemini (SAFETY): about weapons"),
    "stopped for safety": ([always(ends("SAFETY", empty=True))], 1, "refused", "Gemini (SAFETY)"),
    "recitation": ([always(ends("RECITATION", empty=True))], 1, "refused", "(RECITATION)"),
    # epam/ai-dial-adapter-vertexai#85, archestra-ai/archestra#5487: nobody knows whether it is whole
    "another reason": (twice("OTHER"), 3, "", ""),
    "a malformed response": (twice("MALFORMED_RESPONSE"), 3, "", ""),
    "a new reason": (twice("SOMETHING_NEW"), 3, "", ""),
    "thoughts that used up all tokens": ([always(ends("length", empty=True))], 3, "truncated_reply", ""),
    "a cut reply": ([lambda c: on(faults.truncated(), containing=c, times=2)], 3, "", ""),
    "a request with the key": ([always(faults.bad_request("no"))], 1, "refused", "***"),
    "server faults": ([always(faults.server_error(500))], 3, "server_fault", "***"),
    # the client sends nothing again by itself
    "a server fault": ([once(faults.server_error(500))], 2, "", ""),
    "a reply that breaks off": ([once(faults.cut_body(0.6))], 2, "", ""),
    "a closed connection": ([once(faults.disconnect())], 2, "", ""),
    "an empty body": ([once(faults.empty_body())], 2, "", ""),
    "half a JSON": ([once(faults.invalid_json())], 2, "", ""),
    "another protocol": ([once(faults.odd_json('{"choices": 7}'))], 2, "", ""),
}  # fmt: skip


def test_what_becomes_of_each_reply(gemini: Workplace, serves: Serves) -> None:
    gemini.many(len(FATES))
    captions = {name: f'"caption": "{caption(number)}"' for number, name in enumerate(FATES)}
    rules = [rule(captions[name]) for name, (given, *_) in FATES.items() for rule in given]
    endpoint = server(serves, *map(faults.leaky, rules))
    settings = {**at(endpoint), "vlm.gemini.temperature": 1.0, "workflow.max_workers": 1}
    done = gemini.run(**settings)
    assert done.code == 1, done
    asked = {
        name: [request for request in endpoint.requests if captions[name] in request.text]
        for name in FATES
    }
    assert endpoint.count() == done.summary["requests"]
    failures = {int(failure["id"][1:]): failure for failure in gemini.failures()}
    for number, (name, (_, requests, kind, said)) in enumerate(FATES.items()):
        failure = failures.pop(number, {"kind": "", "message": ""})
        # Where no other request is answered meanwhile, one more try tells that it isn't an outage.
        more = int(kind == "server_fault" and len(asked[name]) == requests + 1)
        assert (len(asked[name]), failure["kind"]) == (requests + more, kind), (name, failure)
        assert said in failure["message"], name
    assert [r.settings["temperature"] for r in asked["a cut reply"]] == [1.0, 0.5, 0.25]
    again = gemini.run(**settings)
    requests = endpoint.requests[done.summary["requests"] :]
    assert again.summary["requests"] == len(requests) > 0
    unanswered = [captions["server faults"], captions["a request with the key"]]
    for request in requests:  # nothing else is asked again by itself
        assert any(text in request.text for text in unanswered)
    assert KEY not in done.out + done.err
    for path, content in gemini.everything():
        assert KEY.encode() not in content, path


def test_the_timeout_is_kept(gemini: Workplace, serves: Serves) -> None:
    row = {"image_path": str(gemini.folder / "a.jpg"), "caption": "A cup"}
    endpoint = server(serves, on(faults.hang()))
    with (
        holding(current_options, RunOptions(max_attempts=1)),
        pytest.raises(ServerFault, match="did not answer within 1 s"),
    ):
        ExpressionExtractor(GeminiServing(api_key=KEY, base_url=endpoint.address, timeout=1))(row)


def test_what_no_request_can_mend_stops_the_run(gemini: Workplace, serves: Serves) -> None:
    gemini.many(20)
    wrong_key = faults.bad_request("API key not valid.", "API_KEY_INVALID")
    endpoint = server(serves, faults.leaky(on(wrong_key)))
    done = gemini.run(**at(endpoint))
    assert done.code == 4, done
    assert endpoint.count() <= 8
    assert "Check the API key" in done.err
    assert len(done.err.splitlines()) == 1
    assert KEY not in done.out + done.err


def test_rate_limits_are_waited_for_and_cost_no_attempt(gemini: Workplace, serves: Serves) -> None:
    gemini.many(1)
    endpoint = server(serves, on(faults.too_many_requests(0.05), times_each=3))
    done = gemini.run(**at(endpoint), **{"workflow.max_attempts": 1})
    assert done.code == 0, done
    assert (endpoint.count(429), endpoint.count(200)) == (6, 2)


@pytest.mark.parametrize(
    "as_list", [False, True], ids=["an object", "a list, as its OpenAI-compatible address"]
)
def test_the_wait_may_stand_in_the_errors_details(as_list: bool) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    given = {"error": {"code": 429, "message": "slow down", "details": details}}
    error = error_of(429, {}, json.dumps([given] if as_list else given).encode(), where="here")
    assert isinstance(error, RateLimited)
    assert error.retry_after == 34.5
    assert str(error) == "here answered 429: slow down"


@pytest.mark.parametrize(
    "body", ["null", '{"message": "no", "details": [{"reason": "API_KEY_INVALID"}]}']
)
def test_details_of_no_error_and_no_json_say_what_they_are(body: str) -> None:
    error = error_of(400, {}, body.encode(), where="here")
    assert isinstance(error, RequestRefused), "it is about this request alone"
    assert (
        str(error) == f"here answered 400: {json.loads(body)['message'] if '{' in body else body}"
    )


def test_an_address_where_nobody_listens_stops_the_run(gemini: Workplace) -> None:
    done = gemini.run(**{"vlm.gemini.base_url": "http://127.0.0.1:9"})
    assert done.code == 4, done
    assert "no connection to http://127.0.0.1:9" in done.err


def test_key_and_address_may_come_from_the_environment(
    gemini: Workplace, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    gemini.settings.pop("vlm.gemini.api_key")
    endpoint = server(serves)
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", endpoint.address + "/v1beta")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    assert gemini.run().code == 0
    assert endpoint.count() == 6


WRONG = [
    ("vlm.gemini.media_resolution", "ULTRA", "not one of MEDIA_RESOLUTION_HIGH"),
    ("vlm.gemini.base_url", "localhost:1", "http://"),
    ("vlm.gemini.api_key", "", "set vlm.gemini.api_key, GOOGLE_API_KEY or GEMINI_API_KEY"),
    ("vlm.gemini.model", "", "vlm.gemini.model"),
    ("vlm.gemini.extra", {"generationConfig": 3}, "generationConfig should be a mapping, not 3"),
    ("vlm.gemini.extra", {"contents": []}, "vlm.gemini.extra can't hold 'contents'"),
]


@pytest.mark.parametrize(
    ("key", "value", "said"), [pytest.param(*case, id=case[2]) for case in WRONG]
)
def test_what_is_wrong_is_found_before_the_first_request(
    gemini: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    value: Any,
    said: str,
    serves: Serves,
) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    endpoint = server(serves)
    done = gemini.run(**{**at(endpoint), key: value})
    assert endpoint.count() == 0
    assert done.code == 2, done
    assert said in done.err


def test_without_the_extra_it_says_what_to_install(
    gemini: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import google

    monkeypatch.delattr(google, "genai", raising=False)
    monkeypatch.setitem(sys.modules, "google.genai", None)
    done = gemini.run(**{"vlm.gemini.base_url": "http://127.0.0.1:9"})
    assert done.code == 2, done
    assert done.err.strip() == (
        "Error: vlm.backend gemini needs an optional part: pip install 'dataflow-grounding[gemini]'"
    )


def seed_spec() -> str:
    """The whole specification of the seed page, whose text has lost its indentation."""
    text = SEED_PAGE.read_text(encoding="utf-8")
    lines = (
        text[text.index("results_dir: /path/to/results") :]
        .split("To run the image referring")[0]
        .splitlines()
    )
    outer = {
        "results_dir": 0,
        "autolabel_type": 0,
        "image_grounding": 0,
        "vlm": 1,
        "workflow": 1,
        "data": 1,
    }
    inner = {
        "backend": 2,
        "gemini": 2,
        "steps": 2,
        "max_workers": 2,
        "force_reprocess": 2,
        "input_jsonl": 2,
        "image_root": 2,
    }
    depth = {**outer, **inner}
    return "".join("  " * depth.get(line.split(":")[0], 3) + line + "\n" for line in lines)


@pytest.mark.skipif(not SEED_PAGE.exists(), reason="the seed pages are not here")
def test_the_seed_pages_spec_runs_as_it_stands(
    gemini: Workplace, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    spec = gemini.folder / "image_grounding.yaml"
    spec.write_text(
        seed_spec().replace("/path/to/input.jsonl", str(gemini.input)), encoding="utf-8"
    )
    endpoint = server(serves)
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", endpoint.address)
    done = command(["generate", "-e", str(spec), f"results_dir={gemini.results}"])
    assert done.code == 0, done
    assert endpoint.count() == 7  # three records in two steps, and a check of the endpoint
    [settings] = {
        json.dumps({k: v for k, v in r.settings.items() if k not in ("responseSchema", "seed")})
        for r in endpoint.requests
    }
    assert json.loads(settings)["mediaResolution"] == "MEDIA_RESOLUTION_HIGH"
    assert len(gemini.annotations()) == 3

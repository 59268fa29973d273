"""The Gemini backend, as a user of `generate` meets it, against a loopback endpoint that speaks
`generateContent`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, faults, on
from dataflow_grounding.testing.faults import Fault, FaultRule
from tests.support.forking import Forked
from tests.support.waiting import wait_until
from tests.support.workplace import REPOSITORY, Workplace, command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("google.genai") is None, reason="without the extra gemini"
    ),
]
SEED_PAGE = REPOSITORY.parent / "shared" / "seeds" / "tao_2d_grounding_docs.txt"
KEY = "AIzaVerySecretKey-123"
FINISH_SAFETY = Fault(change=lambda answer: type(answer)("", "SAFETY"))


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


def server(*rules: FaultRule, **settings: Any) -> LoopbackServer:
    return LoopbackServer(EchoAnswers("gemini"), faults=list(rules), **{"key": KEY, **settings})


def at(endpoint: LoopbackServer) -> dict[str, Any]:
    return {"vlm.gemini.base_url": endpoint.address}


def test_every_setting_of_the_seed_is_in_the_requests(gemini: Workplace) -> None:
    given = {
        "vlm.gemini.temperature": 0.55,
        "vlm.gemini.max_output_tokens": 777,
        "vlm.gemini.media_resolution": "MEDIA_RESOLUTION_LOW",
        "vlm.gemini.model": "gemini-2.5-flash",
    }
    with server() as endpoint:
        assert gemini.run(**at(endpoint), **given).code == 0
        assert endpoint.count() == 6
        for request in endpoint.requests:
            assert request.model == "gemini-2.5-flash"
            assert request.settings["temperature"] == 0.55
            assert request.settings["maxOutputTokens"] == 777
            assert request.settings["mediaResolution"] == "MEDIA_RESOLUTION_LOW"
            assert request.settings["responseMimeType"] == "application/json"
            assert request.headers["x-goog-api-key"] == KEY
            assert KEY not in request.path
            assert request.system.startswith("You")
            assert len(request.images) == 1


def test_without_settings_the_seeds_defaults_are_sent(gemini: Workplace) -> None:
    gemini.settings.pop("vlm.gemini.timeout")
    with server() as endpoint:
        assert gemini.run(**at(endpoint)).code == 0
        [first, *_] = endpoint.requests
    assert first.model == "gemini-3.1-flash-lite-preview"
    wanted = {
        "temperature": 0.3,
        "maxOutputTokens": 8192,
        "mediaResolution": "MEDIA_RESOLUTION_HIGH",
    }
    assert {name: first.settings[name] for name in wanted} == wanted
    assert first.headers["x-server-timeout"] == "120"


def test_further_answers_have_seeds_and_count_by_their_ids(gemini: Workplace) -> None:
    with server(keep_bodies=True) as endpoint:
        done = gemini.run(**at(endpoint), **{"workflow.samples": 3})
        assert done.code == 0, done
        seeds = [request.body["generationConfig"].get("seed") for request in endpoint.requests]
    assert sorted(seed for seed in seeds if seed is not None) == [1] * 3 + [2] * 3
    assert done.summary["repeated_replies"] == 0
    assert done.summary["answered_by"] == {"gemini-3.1-flash-lite-preview": 12}
    instances = [
        instance
        for row in gemini.annotations()
        for expression in row["expressions"]
        for instance in expression["instances"]
    ]
    assert {instance["score"] for instance in instances} == {1.0}


def test_a_reply_that_is_cut_off_is_asked_for_again_cooler(gemini: Workplace) -> None:
    with server(on(faults.truncated(), containing='"caption": "Cup 1 ', times=2)) as endpoint:
        done = gemini.run(**at(endpoint), **{"vlm.gemini.temperature": 1.0})
        assert done.code == 0, done
        sent = [
            r.settings["temperature"] for r in endpoint.requests if '"caption": "Cup 1 ' in r.text
        ]
    assert sent == [1.0, 0.5, 0.25]


def test_the_timeout_is_kept(gemini: Workplace) -> None:
    with server(on(faults.hang(), containing="Cup 1 ")) as endpoint:
        settings = {**at(endpoint), "vlm.gemini.timeout": 2, "workflow.max_attempts": 2}
        done = gemini.run(**settings)
    assert done.code == 1, done
    [failure] = gemini.failures()
    # Where no other request is answered meanwhile, one more try tells that it isn't an outage.
    assert failure["kind"] == "server_fault"
    assert failure["attempts"] in (2, 3)
    assert "did not answer within 2 s" in failure["message"]


def test_schemas_are_in_geminis_dialect(gemini: Workplace) -> None:
    with server() as endpoint:
        assert gemini.run(**at(endpoint)).code == 0
        sent = json.dumps([request.settings["responseSchema"] for request in endpoint.requests])
    assert "additionalProperties" not in sent
    assert '"type": ["' not in sent
    assert '"nullable": true' in sent
    assert '"propertyOrdering": ["cleaned_caption", "expressions"]' in sent


def test_records_are_those_of_an_openai_endpoint(gemini: Workplace, tmp_path: Path) -> None:
    other = Workplace(tmp_path / "other", **{"vlm.box_format": "gemini"})
    other.many(3)
    with server() as endpoint, server(key=None) as second:
        assert gemini.run(**at(endpoint)).code == 0
        assert other.run(**{"vlm.openai.base_url": second.base_url}).code == 0
    assert gemini.annotations() == other.annotations()
    assert all(
        e["status"] == "grounded" for record in gemini.annotations() for e in record["expressions"]
    )


BLOCKED = [
    (
        "a blocked prompt",
        faults.refusal("about weapons"),
        "blocked by Gemini (SAFETY): about weapons",
    ),
    ("a reply stopped for safety", FINISH_SAFETY, "blocked by Gemini (SAFETY)"),
    (
        "a reply stopped as recitation",
        Fault(change=lambda a: type(a)("", "RECITATION")),
        "(RECITATION)",
    ),
]


@pytest.mark.parametrize(
    ("fault", "said"), [pytest.param(*case[1:], id=case[0]) for case in BLOCKED]
)
def test_what_is_blocked_fails_its_record_with_the_providers_reason(
    gemini: Workplace, fault: Fault, said: str
) -> None:
    with server(on(fault, containing="Cup 1 ")) as endpoint:
        done = gemini.run(**at(endpoint))
        assert (done.code, endpoint.count()) == (1, 5), done
        [failure] = gemini.failures()
        assert (failure["id"], failure["kind"]) == ("r1", "refused")
        assert said in failure["message"]
        assert gemini.run(**at(endpoint)).summary["requests"] == 0, (
            "it is not asked again by itself"
        )


@pytest.mark.parametrize("reason", ["OTHER", "MALFORMED_RESPONSE", "SOMETHING_NEW"])
def test_a_reply_that_ends_for_a_reason_of_its_own_is_read_or_asked_again(
    gemini: Workplace, reason: str
) -> None:
    """epam/ai-dial-adapter-vertexai#85, archestra-ai/archestra#5487"""
    empty = Fault(change=lambda answer: replace(answer, text="", finish_reason=reason))
    whole = Fault(change=lambda answer: replace(answer, finish_reason=reason))
    with server(on(empty, times=1), on(whole, times=1)) as endpoint:
        assert gemini.run(**at(endpoint)).code == 0
        assert endpoint.count() == 8, "nobody knows whether its text is whole"


def test_a_reply_at_the_token_limit_is_no_refusal(gemini: Workplace) -> None:
    rule = on(
        faults.truncated(0.5), task="phrase_grounding", where=lambda r: len(r.input["phrases"]) > 1
    )
    with server(rule) as endpoint:
        done = gemini.run(**at(endpoint))
        assert done.code == 0, done
        sizes = [len(r.input["phrases"]) for r in endpoint.requests if r.task == "phrase_grounding"]
    assert sorted(sizes) == [1] * 4 + [2] * 3, "asked again by halves, the half that all share once"
    assert gemini.failures() == []


def test_a_caption_reply_at_the_token_limit_fails_as_truncated(gemini: Workplace) -> None:
    empty = Fault(change=lambda answer: type(answer)("", "length"))  # thoughts used up all of it
    with server(on(empty, containing="Cup 1 ")) as endpoint:
        assert gemini.run(**at(endpoint)).code == 1
    assert [f["kind"] for f in gemini.failures()] == ["truncated_reply"]


STOPS = [
    ("a wrong key", on(faults.unauthorized()), "Check the API key"),
    ("a key that may not", on(faults.forbidden()), "Check the API key"),
    ("an unknown model", on(faults.model_not_found()), "the model's name"),
]


@pytest.mark.parametrize(("rule", "said"), [pytest.param(*case[1:], id=case[0]) for case in STOPS])
def test_what_no_request_can_mend_stops_the_run(
    gemini: Workplace, rule: FaultRule, said: str
) -> None:
    gemini.many(60)
    with server(rule, leaky=True) as endpoint:
        done = gemini.run(**at(endpoint))
        assert done.code == 4, done
        assert endpoint.count() <= 8
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert KEY not in done.out + done.err


def test_the_key_is_in_no_output_and_no_file(gemini: Workplace) -> None:
    rules = [
        on(faults.bad_request("no"), containing="Cup 1 "),
        on(faults.server_error(500), containing="Cup 2 "),
    ]
    with server(*rules, leaky=True) as endpoint:
        done = gemini.run(**at(endpoint))
    assert done.code == 1, done
    assert KEY not in done.out + done.err
    for path, content in gemini.everything():
        assert KEY.encode() not in content, path
    assert any("***" in failure["message"] for failure in gemini.failures()), (
        "the endpoint did repeat it"
    )


def test_rate_limits_are_waited_for_and_cost_no_attempt(gemini: Workplace) -> None:
    rule = on(faults.too_many_requests(0.05), times_each=4)
    with server(rule) as endpoint:
        done = gemini.run(**at(endpoint), **{"workflow.max_attempts": 1})
        assert done.code == 0, done
        assert (endpoint.count(429), endpoint.count(200)) == (24, 6)


@pytest.mark.parametrize(
    "as_list", [False, True], ids=["an object", "a list, as its OpenAI-compatible address"]
)
def test_the_wait_may_stand_in_the_errors_details(as_list: bool) -> None:
    from dataflow_grounding._util.errors import RateLimited
    from dataflow_grounding.serving.http_errors import error_of

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
    from dataflow_grounding._util.errors import RequestRefused
    from dataflow_grounding.serving.http_errors import error_of

    error = error_of(400, {}, body.encode(), where="here")
    assert isinstance(error, RequestRefused), "it is about this request alone"
    assert (
        str(error) == f"here answered 400: {json.loads(body)['message'] if '{' in body else body}"
    )


PASSING = [
    ("a server fault", faults.server_error(500)),
    ("a cut reply", faults.cut_body(0.6)),
    ("a closed connection", faults.disconnect()),
    ("an empty body", faults.empty_body()),
    ("half a JSON", faults.invalid_json()),
    ("another protocol", faults.odd_json('{"choices": 7}')),
]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in PASSING])
def test_what_passes_is_tried_again_and_every_try_is_counted(
    gemini: Workplace, fault: Fault
) -> None:
    with server(on(fault, containing="Cup 1 ", times=1)) as endpoint:
        done = gemini.run(**at(endpoint))
        assert done.code == 0, done
        assert endpoint.count() == 7 == done.summary["requests"], (
            "the client sends nothing again by itself"
        )


def test_an_address_where_nobody_listens_stops_the_run(gemini: Workplace) -> None:
    done = gemini.run(**{"vlm.gemini.base_url": "http://127.0.0.1:9"})
    assert done.code == 4, done
    assert "no connection to http://127.0.0.1:9" in done.err


def test_a_finished_run_sends_nothing_and_another_setting_asks_again(gemini: Workplace) -> None:
    with server() as endpoint:
        gemini.settings |= at(endpoint)
        sent = []
        for setting in [
            {},
            {},
            {"vlm.gemini.temperature": 0.9},
            {"vlm.gemini.media_resolution": "MEDIA_RESOLUTION_LOW"},
            {"vlm.gemini.timeout": 7},
        ]:
            sent.append(gemini.run(**setting).summary["requests"])
    assert sent == [6, 0, 6, 6, 0]


def test_key_and_address_may_come_from_the_environment(
    gemini: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemini.settings.pop("vlm.gemini.api_key")
    with server() as endpoint:
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
]


@pytest.mark.parametrize(
    ("key", "value", "said"), [pytest.param(*case, id=case[0]) for case in WRONG]
)
def test_what_is_wrong_is_found_before_the_first_request(
    gemini: Workplace, monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with server() as endpoint:
        done = gemini.run(**{**at(endpoint), key: value})
        assert endpoint.count() == 0
    assert done.code == 2, done
    assert said in done.err


def test_without_the_extra_it_says_what_to_install(gemini: Workplace) -> None:
    """A process in which google-genai can't be imported."""
    spec = gemini.spec(**{"vlm.gemini.base_url": "http://127.0.0.1:9"})
    code = (
        "import sys; sys.modules['google.genai'] = None; sys.argv = ['dataflowgrounding', 'generate', '-e', "
        f"{str(spec)!r}]; from dataflow_grounding.cli.main import main; main()"
    )
    running = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert running.returncode == 2
    assert running.stderr.strip() == (
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
    gemini: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gemini.folder / "image_grounding.yaml"
    spec.write_text(
        seed_spec().replace("/path/to/input.jsonl", str(gemini.input)), encoding="utf-8"
    )
    with server() as endpoint:
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


def test_kill_9_pays_again_at_most_for_what_was_in_flight(gemini: Workplace) -> None:
    count, in_flight = 30, 4
    gemini.many(count)
    gemini.settings["workflow.max_workers"] = in_flight
    with server(latency=0.02) as endpoint:
        running = Forked(gemini.arguments(**at(endpoint)))
        wait_until(lambda: endpoint.count() >= 25, running)
        running.kill()
        running.communicate()
        done = gemini.run(**at(endpoint))
        assert done.code == 0, done
        assert 2 * count <= endpoint.count() <= 2 * count + in_flight
        assert gemini.run(**at(endpoint)).summary["requests"] == 0


def test_image_referring_expression_runs_and_its_records_are_those_of_an_openai_endpoint(
    workplace: Workplace,
) -> None:
    labels = workplace.folder / "labels"
    labels.mkdir()
    for n in range(3):
        workplace.picture(f"images/p{n}.jpg", (320 + 8 * n, 240))
        (labels / f"p{n}.txt").write_text(
            "Car 0 0 0 10.5 20 90 140 1 1 1 0 0 0 0\nVan 0 0 0 100 20 190 140 1 1 1 0 0 0 0\n"
        )
    written = []
    with server() as endpoint, server(key=None) as other:
        for name, vlm in {
            "gemini": {
                "backend": "gemini",
                "gemini": {"api_key": KEY, "base_url": endpoint.address},
            },
            "openai": {
                "backend": "openai",
                "openai": {"base_url": other.base_url, "model_name": "gemini-2.5-flash"},
            },
        }.items():
            block = {"vlm": vlm, "data": {"image_dir": "images", "kitti_label_dir": "labels"}}
            whole = {
                "results_dir": name,
                "autolabel_type": "image_referring_expression",
                "image_referring_expression": block,
            }
            (workplace.folder / f"{name}.yaml").write_text(json.dumps(whole))
            done = command(
                ["generate", "-e", str(workplace.folder / f"{name}.yaml"), "--no-progress"]
            )
            assert done.code == 0, done
            written.append((workplace.folder / name / "annotations.jsonl").read_bytes())
        assert endpoint.count() == other.count() == 12
    assert written[0] == written[1]
    assert written[0].count(b"\n") == 3


def test_further_fields_of_the_api_are_sent_and_are_a_part_of_the_question(
    gemini: Workplace,
) -> None:
    extra = {
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}, "topK": 5},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    }
    with server() as endpoint:
        endpoint.keep_bodies = True
        assert gemini.run(**at(endpoint), **{"vlm.gemini.extra": extra}).code == 0
        [body, *_] = [request.body for request in endpoint.requests]
        assert body["safetySettings"] == extra["safetySettings"]
        config = body["generationConfig"]
        assert (config["thinkingConfig"], config["topK"]) == ({"thinkingBudget": 0}, 5)
        assert config["temperature"] == 0.3
        asked = endpoint.received
        assert gemini.run(**at(endpoint), **{"vlm.gemini.extra": extra}).code == 0
        assert endpoint.received == asked
        assert gemini.run(**at(endpoint)).code == 0
        assert endpoint.received == 2 * asked
    done = gemini.run(**{"vlm.gemini.extra": {"generationConfig": 3}})
    assert (done.code, "generationConfig should be a mapping, not 3" in done.err) == (2, True)
    done = gemini.run(**{"vlm.gemini.extra": {"contents": []}})
    assert (done.code, "vlm.gemini.extra can't hold 'contents'" in done.err) == (2, True)

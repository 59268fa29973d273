"""Keys, tokens and passwords: wherever a run gets them from, they reach no file and no terminal,
and no data is taken for one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dataflow_grounding import ExpressionExtractor, GroundingError, OpenAIServing, RecordedServing
from dataflow_grounding._util.errors import ServerFault
from dataflow_grounding._util.secrets import blotted_message, is_no_word, names_secret
from dataflow_grounding.compat import DataFlowServing
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.serving import GeminiServing
from dataflow_grounding.testing import EchoAnswers, Fault, LoopbackServer, on
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.answering import Answering
from tests.support.endpoint import with_settings
from tests.support.forgetting import forgetting
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Done, Workplace, command


def stays_secret(place: Workplace, secret: str, *done: Done) -> None:
    for one in done:
        assert secret not in one.out + one.err
    for path, content in place.everything():
        assert secret.encode() not in content, path


def repeats(
    what: Callable[[ReceivedRequest], str], status: int | None = None
) -> Callable[[ReceivedRequest], Fault]:
    """An endpoint that says what it was sent: in an error, or (status None) in its thinking."""

    def fault(request: ReceivedRequest) -> Fault:
        said = what(request)
        if status:
            return Fault(status, f"you sent {said}")
        thinking = f"<think>You sent {said}.</think>"
        return Fault(change=lambda answer: replace(answer, text=thinking + answer.text))

    return fault


def no_answer(secret: str) -> Fault:
    """A text that no answer can be read from."""
    return Fault(change=lambda answer: replace(answer, text=f"no answer to {secret}"))


AGAIN = "image_grounding.workflow.force_reprocess=true"
AT_ONCE = {"workflow.max_attempts": 1}
KEY = "vlm.openai.api_key"
ADDRESS = "vlm.openai.base_url"


def authorization(request: ReceivedRequest) -> str:
    return request.headers["authorization"]


@pytest.fixture
def secret(request: pytest.FixtureRequest) -> str:
    """A test's own: what one test has made known, the process blots out for all."""
    return f"9f41-{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(3)
    return workplace


@pytest.fixture
def row(place: Workplace) -> dict[str, str]:
    """A row of a script."""
    return {"image_path": str(place.folder / "a.jpg"), "caption": "A cup"}


def openai_of(place: Workplace) -> dict[str, Any]:
    """What `run.json` says of `vlm.openai`."""
    said: dict[str, Any] = place.run_json()["spec"]["image_grounding"]["vlm"]["openai"]
    return said


# --- what an endpoint repeats


def test_a_key_that_a_reply_repeats_is_not_kept_and_a_replay_is_the_same(
    secret: str, place: Workplace, server: LoopbackServer
) -> None:
    assert place.run().code == 0
    usual = place.files()
    shutil.rmtree(place.results)  # else the replies without a key would count
    server.faults = repeats(authorization)
    done = place.run(**{KEY: secret})
    assert done.code == 0, done
    assert b"You sent Bearer ***." in place.replies.read_bytes()
    again = place.run("image_grounding.workflow.max_attempts=2", **{KEY: secret})
    assert (again.code, again.summary["requests"], again.summary["replayed"]) == (0, 0, 6)
    assert place.files() == usual
    stays_secret(place, secret, done, again)


def test_a_key_in_a_reply_that_fails_its_record_is_not_kept(
    secret: str, place: Workplace, server: LoopbackServer
) -> None:
    refusal = {"text": "", "finish_reason": "stop", "refusal": f"not with {secret}"}
    refuses = Fault(change=lambda answer: replace(answer, **refusal))
    server.faults = [on(refuses, containing="Cup 0"), on(no_answer(secret), containing="Cup 1")]
    done = place.run(**{KEY: secret})
    assert done.code == 1, done
    refused, unreadable = place.failures()
    assert refused["message"] == "not with ***"
    assert unreadable["reply"] == "no answer to ***"
    stays_secret(place, secret, done)


def test_a_key_that_an_older_store_holds_reaches_no_other_file(
    secret: str, place: Workplace, server: LoopbackServer
) -> None:
    server.faults = on(no_answer(secret), containing="Cup 0")
    assert place.run().code == 1
    again = place.run("--pilot", "2", **{KEY: secret})
    assert (again.code, again.summary["requests"]) == (1, 0)
    assert [line["reply"] for line in place.failures()] == ["no answer to ***"]


@pytest.mark.parametrize(
    ("status", "name", "value"),
    [
        (401, "Authorization", "Bearer SECRET"),
        (500, "X-Project-Token", "SECRET"),
        (400, "Cookie", "theme=dark; session=SECRET"),
        (401, "X-Portal", "SECRET"),
    ],
)
def test_a_header_that_an_error_repeats_is_not_told(
    secret: str, place: Workplace, server: LoopbackServer, status: int, name: str, value: str
) -> None:
    server.faults = repeats(lambda request: request.headers[name.lower()].split()[-1], status)
    headers = {"vlm.openai.extra_headers": {name: value.replace("SECRET", secret)}}
    done = place.run(**headers, **AT_ONCE)
    assert done.code == 4, done
    assert "***" in done.err + "".join(line["message"] for line in place.failures())
    stays_secret(place, secret, done)


@pytest.mark.parametrize("room", range(100, 130, 7))
def test_half_a_key_at_the_end_of_an_excerpt_is_not_told(
    secret: str, row: dict[str, str], server: LoopbackServer, room: int
) -> None:
    server.faults = on(Fault(200, body=("x" * room + secret).encode()))
    serving = OpenAIServing(server.base_url, "m", api_key=secret)
    once = holding(current_options, RunOptions(max_attempts=1))
    with once, pytest.raises(GroundingError) as caught:
        ExpressionExtractor(serving)(row)
    assert secret[:4] not in str(caught.value)


def test_a_key_that_is_a_word_stays_in_replies_and_not_in_errors(
    place: Workplace, server: LoopbackServer
) -> None:
    """It may be a word of a caption: to blot it out would damage data."""
    place.rows([{"image_path": "a.jpg", "caption": "A teapotlid"}])
    assert place.run().code == 0
    usual = place.files()
    headers = {"X-Debug-Auth": "true", "X-Tokens": "1"}
    place.settings |= {KEY: "teapotlid", "vlm.openai.extra_headers": headers}
    assert place.run(AGAIN).code == 0
    assert place.files() == usual
    server.faults = repeats(authorization, 401)
    assert "you sent Bearer ***" in place.run(AGAIN).err


# --- what a spec holds


def test_run_json_has_references_to_the_environment_as_they_stand_and_no_file_has_a_secret(
    secret: str, place: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHO", "jane")
    monkeypatch.setenv("MY_TOKEN", secret)
    monkeypatch.setenv("KEY_OF_OURS", f"k-{secret}")
    body = {"user": "${oc.env:WHO}", "note": "${oc.env:MY_TOKEN}", "top_p": 0.5}
    server.faults = repeats(lambda request: str(request.settings["note"]))
    place.settings |= {
        KEY: "${oc.env:KEY_OF_OURS}",
        "vlm.openai.extra_body": body,
        "vlm.openai.model_name": "m-${oc.env:MY_TOKEN}",
    }
    done = [place.run() for _ in range(2)]
    assert [one.code for one in done] == [0, 0], done
    assert server.count() == 6
    assert server.requests[0].settings["user"] == "jane"
    openai = openai_of(place)
    assert (openai["api_key"], openai["extra_body"]) == ("${oc.env:KEY_OF_OURS}", body)
    stays_secret(place, secret, *done)
    stays_secret(place, "jane")


def test_run_json_has_no_secret_of_extra_body_however_deep(
    secret: str, place: Workplace, server: LoopbackServer
) -> None:
    def body(hidden: str) -> dict[str, Any]:
        model = {"model_name": "m", "litellm_params": {"api_key": hidden, "max_tokens": 7}}
        config = {"user_config": {"model_list": [model]}, "provider_token": hidden}
        return {**config, "auth": {"any": [hidden]}, "seed": 3}

    headers = {"X-Title": "mine", "X-Portal": "mine"}
    server.faults = repeats(lambda request: str(request.settings["auth"]))
    place.settings |= {"vlm.openai.extra_body": body(secret), "vlm.openai.extra_headers": headers}
    done = place.run()
    assert done.code == 0, done
    openai = openai_of(place)
    assert openai["extra_body"] == body("***")
    assert openai["extra_headers"] == {"X-Title": "***", "X-Portal": "***"}
    stays_secret(place, secret, done)


def test_nothing_is_kept_of_geminis_key_and_of_secrets_in_its_extra_fields(
    secret: str, place: Workplace, server: LoopbackServer
) -> None:
    token = f"t-{secret[::-1]}"
    server.answers = EchoAnswers("gemini")
    server.faults = repeats(lambda request: request.headers["x-goog-api-key"])
    place.settings |= {
        "vlm.backend": "gemini",
        "vlm.box_format": "auto",
        "vlm.gemini.base_url": server.address,
        "vlm.gemini.api_key": secret,
        "vlm.gemini.extra": {"labels": {"token": token, "pin": 7, "password": 83915}},
    }
    done = place.run()
    assert done.code == 0, done
    extra = place.run_json()["spec"]["image_grounding"]["vlm"]["gemini"]["extra"]
    assert extra == {"labels": {"token": "***", "pin": 7, "password": "***"}}
    assert b"You sent ***" in place.replies.read_bytes()
    for hidden in (secret, token):
        stays_secret(place, hidden, done)


def test_a_secret_among_settings_of_ours_is_told_apart(place: Workplace) -> None:
    """`key` in a row of box_formats is a JSON key."""
    formats = [{"models": ["loop*"], "order": "xyxy", "scale": "px", "key": "box_2d"}]
    assert place.run(**{"vlm.box_formats": formats}).code == 0
    assert place.run_json()["spec"]["image_grounding"]["vlm"]["box_formats"] == formats


def test_an_override_that_lost_its_name_is_not_repeated(secret: str, place: Workplace) -> None:
    done = place.run(secret)
    assert done.code == 2
    assert "override 1 has no '='" in done.err
    assert secret not in done.err


# --- what an address holds


def test_a_token_in_the_address_is_sent_and_never_shown(
    secret: str, place: Workplace, server: LoopbackServer
) -> None:
    with_settings(server, faults=repeats(lambda request: request.path))
    query = f"?api-version=2024-10-21&code={secret}"
    place.settings[ADDRESS] = server.base_url + query
    dry, done = place.run("--dry-run"), place.run()
    assert done.code == 0, done
    assert {request.path for request in server.requests} == {f"/v1/chat/completions{query}"}
    another = {ADDRESS: f"{server.base_url}?api-version=2024-10-21&code=another-1234567"}
    assert place.run("--retry-failed", **another).summary["requests"] == 0
    server.faults = repeats(lambda request: request.path, 400)
    refused = place.run(AGAIN)
    assert refused.code == 4
    assert place.run_json()["endpoint"] == f"{server.base_url}?api-version=2024-10-21&code=***"
    stays_secret(place, secret, dry, done, refused)


def test_what_looks_like_a_key_in_an_address_is_not_shown_whatever_the_parameter_is_called(
    place: Workplace,
) -> None:
    key = "sk-abcdefgh12345XYZ"
    gone = place.run(**{ADDRESS: f"http://127.0.0.1:9/v1?tenant={key}"}, **AT_ONCE)
    assert gone.code == 4, gone
    assert "no connection to http://127.0.0.1:9/v1/chat/completions?tenant=***" in gone.err
    stays_secret(place, key, gone)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://host/v1?API_KEY=SECRET", KEY),
        ("http://host/v1?x=1&subscription-key=SECRET", KEY),
        ("http://host/v1#SECRET", "'#'"),
        ("http://SECRET@host/v1", KEY),
        ("http://host/me:SECRET@there", KEY),
        ("SECRET", "http://"),
    ],
)
def test_an_address_with_what_has_its_own_place_is_refused(
    secret: str, workplace: Workplace, address: str, expected: str
) -> None:
    done = workplace.run(**{ADDRESS: address.replace("SECRET", secret)})
    assert done.code == 2, done
    assert expected in done.err
    assert secret not in done.err


def test_geminis_address_may_hold_no_key(secret: str) -> None:
    with pytest.raises(GroundingError, match=r"give it as api_key") as caught:
        GeminiServing(base_url=f"https://me:{secret}@host")
    assert secret not in str(caught.value)


def test_a_serving_of_dataflows_hides_what_its_address_holds(secret: str) -> None:
    class Others:
        api_url = f"https://me:sunshine@host/v1?token={secret}"

        def generate_from_input_one_image(self, *_: Any) -> list[str]:
            return []

    serving = DataFlowServing(Others(), box_format="xyxy_px")
    assert serving.endpoint == "https://***@host/v1?token=***"


# --- proxies


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("password", ["pa55-word-of-a-proxy", "sunshine"])
def test_a_proxys_password_is_in_no_message(
    place: Workplace, server: LoopbackServer, scheme: str, password: str
) -> None:
    header = "proxy-authorization"
    server.faults = repeats(lambda request: request.headers.get(header, "nothing"), 407)
    with forgetting():
        os.environ[f"{scheme}_proxy"] = f"http://me:{password}@127.0.0.1:{server.port}"
        os.environ["no_proxy"] = ""
        done = place.run(**{ADDRESS: f"{scheme}://elsewhere.invalid/v1"}, **AT_ONCE)
    assert done.code == 4, done
    told = done.err + "".join(line["message"] for line in place.failures())
    assert "***" in told
    stays_secret(place, password, done)
    if scheme == "http":
        assert "you sent Basic ***" in told


# --- Python


@pytest.mark.parametrize("written", [str, lambda key: json.dumps(key)[1:-1], quote])
def test_a_message_that_repeats_a_key_shows_none(
    secret: str, written: Callable[[str], str]
) -> None:
    key = f"{secret}&<'\">{secret[::-1]}"
    OpenAIServing("http://127.0.0.1:9/v1", "m", api_key=key)
    error = ServerFault(f"no access with {written(key)}")
    assert str(error) == "no access with ***"
    assert secret not in repr(error)


def test_debug_shows_a_traceback_without_secrets(
    secret: str, place: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    with_settings(server, faults=repeats(authorization, 401))
    done = command(["--debug", "generate", "-e", str(place.spec())])
    assert done.code == 4, done
    assert "Traceback" in done.err
    assert "***" in done.err
    stays_secret(place, secret, done)


def test_a_recording_has_no_secret_and_is_played_back(
    secret: str, tmp_path: Path, row: dict[str, str], server: LoopbackServer
) -> None:
    server.faults = repeats(authorization)
    path = tmp_path / "recorded.jsonl"
    live = OpenAIServing(
        f"{server.base_url}?token=t-{secret}",
        "m",
        api_key=secret,
        extra_body={"password": secret},
        box_format="xyxy_px",
    )
    first = ExpressionExtractor(RecordedServing(path, live))(row)
    assert ExpressionExtractor(RecordedServing(path))(row) == first
    assert secret not in path.read_text()
    assert "You sent Bearer ***" in path.read_text()


def test_a_recording_of_a_serving_of_ones_own_has_no_secret_of_its_address(
    secret: str, tmp_path: Path, row: dict[str, str]
) -> None:
    serving = Answering('{"cleaned_caption": "A cup", "expressions": []}')
    serving.endpoint = f"http://me:{secret}@10.0.0.5/v1?token=t-{secret}"
    path = tmp_path / "recorded.jsonl"
    first = ExpressionExtractor(RecordedServing(path, serving))(row)
    assert secret not in path.read_text()
    assert ExpressionExtractor(RecordedServing(path))(row) == first


NAMES = ["api_key", "X-Auth-Token", "authorization", "Cookie", "sig", "X-Amz-Signature"]
NO_NAMES = ["max_tokens", "tokenizer", "author", "keywords", "cache_key", "design", "passage"]


def test_what_a_name_says_of_its_value() -> None:
    assert [name for name in [*NAMES, *NO_NAMES] if names_secret(name)] == NAMES


def test_the_calibrations_file_has_no_token_of_the_address(
    secret: str, server: LoopbackServer
) -> None:
    server.answers = ProbeModel("yxyx_1000")
    url = f"{server.base_url}?token={secret}"
    done = command(["calibrate", "--json", "--base-url", url, "--model", "unheard-of"])
    assert done.code == 0, done
    [kept] = Path(os.environ["XDG_CACHE_HOME"]).rglob("calibration-*.json")
    assert secret not in kept.read_text() + done.out + done.err


@pytest.mark.slow
def test_addresses_without_end_in_a_text_come_to_an_end(tmp_path: Path) -> None:
    """A caption or a path of a stranger's passes here before it is shown: a search that is quadratic
    in its length would not come to an end.
    """
    rows = []
    for part in ("x://b:c", "x://a:b/c", "x://", "?a=", "x://a:@"):
        long = part * (120_000 // len(part))
        expressions = [{"text": long, "instances": []}]
        rows.append({"image_path": long, "caption": long, "expressions": expressions})
    write_rows(str(tmp_path / "annotations.jsonl"), rows)
    assert command(["lint", str(tmp_path), "--no-pictures"]).code == 1


def test_a_password_with_slashes_is_blotted_up_to_hundreds_of_characters() -> None:
    for length in (10, 100, 400):
        secret = ("ab/cd+" * 100)[:length]
        assert secret not in blotted_message(f"can't open s3://AKIAKEY:{secret}@bucket/a.jpg")


def test_what_a_caption_may_have_is_a_word() -> None:
    words = ["secret", "hunter2", "correct-horse", "1234567"]
    keys = ["sk-abc12", "Password1", "aBcDeFgH", "123456789012"]
    assert [value for value in [*words, *keys] if is_no_word(value)] == keys

"""Keys, tokens and passwords: wherever a run gets them from, they reach no file and no terminal,
and no data is taken for one.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape as xml_escape

import pytest

from dataflow_grounding import ExpressionExtractor, GroundingError, OpenAIServing, RecordedServing
from dataflow_grounding._util.errors import ServerFault
from dataflow_grounding._util.secrets import blotted_message, is_no_word, names_secret
from dataflow_grounding.compat import DataFlowServing
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.serving import GeminiServing, Serving
from dataflow_grounding.testing import EchoAnswers, Fault, LoopbackServer, faults, on
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.forgetting import forgetting
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Done, Workplace, command

ROW = {"image_path": "a.jpg", "caption": "A cup"}


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
        return Fault(
            change=lambda answer: replace(
                answer, text=f"<think>You sent {said}.</think>{answer.text}"
            )
        )

    return fault


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


# --- what an endpoint repeats


@pytest.mark.slow
def test_a_key_that_a_reply_repeats_is_not_kept_and_a_replay_is_the_same(
    secret: str, place: Workplace
) -> None:
    with LoopbackServer() as plain:
        assert place.run(**{"vlm.openai.base_url": plain.base_url}).code == 0
        usual = place.files()
    shutil.rmtree(place.results)  # else the replies of the first address would count for the second
    with LoopbackServer(faults=repeats(authorization)) as server:
        given = {"vlm.openai.base_url": server.base_url, "vlm.openai.api_key": secret}
        done = place.run(**given)
        assert done.code == 0, done
        assert b"You sent Bearer ***." in place.replies.read_bytes()
        again = place.run("image_grounding.workflow.max_attempts=2", **given)
        assert (again.code, again.summary["requests"], again.summary["replayed"]) == (0, 0, 6)
    assert place.files() == usual
    stays_secret(place, secret, done, again)


def test_a_key_in_a_reply_that_fails_its_record_is_not_kept(secret: str, place: Workplace) -> None:
    fault = Fault(
        change=lambda answer: replace(
            answer, text="", finish_reason="stop", refusal=f"not with {secret}"
        )
    )
    garbled = Fault(change=lambda answer: replace(answer, text=f"no answer to {secret}"))
    with LoopbackServer(
        faults=[on(fault, containing="Cup 0"), on(garbled, containing="Cup 1")]
    ) as server:
        done = place.run(**{"vlm.openai.base_url": server.base_url, "vlm.openai.api_key": secret})
    assert done.code == 1, done
    refused, unreadable = place.failures()
    assert refused["message"] == "not with ***"
    assert unreadable["reply"] == "no answer to ***"
    stays_secret(place, secret, done)


def test_a_key_that_an_older_store_holds_reaches_no_other_file(
    secret: str, place: Workplace
) -> None:
    garbled = Fault(change=lambda answer: replace(answer, text=f"no answer to {secret}"))
    with LoopbackServer(faults=[on(garbled, containing="Cup 0")]) as server:
        assert place.run(**{"vlm.openai.base_url": server.base_url}).code == 1
        again = place.run(
            "--pilot", "2", **{"vlm.openai.base_url": server.base_url, "vlm.openai.api_key": secret}
        )
    assert (again.code, again.summary["requests"]) == (1, 0)
    assert [line["reply"] for line in place.failures()] == ["no answer to ***"]


@pytest.mark.slow
def test_a_header_that_an_error_repeats_is_not_told(secret: str, place: Workplace) -> None:
    for status, name, value in (
        (401, "Authorization", f"Bearer {secret}"),
        (500, "X-Project-Token", secret),
        (400, "Cookie", f"theme=dark; session={secret}"),
        (401, "X-Portal", secret),
    ):
        bare = repeats(lambda request, of=name: request.headers[of.lower()].split()[-1], status)
        with LoopbackServer(faults=bare) as server:
            openai = {"base_url": server.base_url, "extra_headers": {name: value}}
            done = place.run(**{f"vlm.openai.{key}": given for key, given in openai.items()})
        assert done.code == 4, done
        assert "***" in done.err + "".join(line["message"] for line in place.failures()), name
        stays_secret(place, secret, done)


@pytest.mark.slow
def test_half_a_key_at_the_end_of_an_excerpt_is_not_told(secret: str, place: Workplace) -> None:
    for room in range(100, 130, 7):
        page = Fault(200, body=("x" * room + secret).encode())
        with LoopbackServer(faults=on(page)) as server:
            serving = OpenAIServing(server.base_url, "m", api_key=secret)
            row = {**ROW, "image_path": str(place.folder / "a.jpg")}
            once = holding(current_options, RunOptions(max_attempts=1))
            with once, pytest.raises(GroundingError) as caught:
                ExpressionExtractor(serving)(row)
        assert secret[:4] not in str(caught.value)


def test_a_key_that_is_a_word_stays_in_replies_and_not_in_errors(place: Workplace) -> None:
    """It may be a word of a caption: to blot it out would damage data."""
    place.rows([{"image_path": "a.jpg", "caption": "A teapotlid"}])
    given = {
        "vlm.openai.api_key": "teapotlid",
        "vlm.openai.extra_headers": {"X-Debug-Auth": "true", "X-Tokens": "1"},
    }
    with LoopbackServer() as plain, LoopbackServer() as server:
        assert place.run(**{"vlm.openai.base_url": plain.base_url}).code == 0
        usual = place.files()
        assert place.run(**{"vlm.openai.base_url": server.base_url, **given}).code == 0
        assert place.files() == usual
        server.faults = repeats(authorization, 401)
        done = place.run(
            "image_grounding.workflow.force_reprocess=true",
            **given,
            **{"vlm.openai.base_url": server.base_url},
        )
    assert "you sent Bearer ***" in done.err


# --- what a spec holds


def test_run_json_has_references_to_the_environment_as_they_stand_and_no_file_has_a_secret(
    secret: str, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHO", "jane")
    monkeypatch.setenv("MY_TOKEN", secret)
    monkeypatch.setenv("KEY_OF_OURS", f"k-{secret}")
    body = {"user": "${oc.env:WHO}", "note": "${oc.env:MY_TOKEN}", "top_p": 0.5}
    with LoopbackServer(faults=repeats(lambda request: str(request.settings["note"]))) as server:
        given = {
            "base_url": server.base_url,
            "api_key": "${oc.env:KEY_OF_OURS}",
            "extra_body": body,
            "model_name": "m-${oc.env:MY_TOKEN}",
        }
        place.settings |= {f"vlm.openai.{name}": value for name, value in given.items()}
        done = [place.run() for _ in range(2)]
        assert [one.code for one in done] == [0, 0], done
        assert server.count() == 6
        assert server.requests[0].settings["user"] == "jane"
    openai = place.run_json()["spec"]["image_grounding"]["vlm"]["openai"]
    assert (openai["api_key"], openai["extra_body"]) == ("${oc.env:KEY_OF_OURS}", body)
    stays_secret(place, secret, *done)
    stays_secret(place, "jane")


def test_run_json_has_no_secret_of_extra_body_however_deep(secret: str, place: Workplace) -> None:
    model = {"model_name": "m", "litellm_params": {"api_key": secret, "max_tokens": 7}}
    body = {
        "user_config": {"model_list": [model]},
        "provider_token": secret,
        "auth": {"any": [secret]},
        "seed": 3,
    }
    headers = {"X-Title": "mine", "X-Portal": "mine"}
    with LoopbackServer(faults=repeats(lambda request: str(request.settings["auth"]))) as server:
        given = {"base_url": server.base_url, "extra_body": body, "extra_headers": headers}
        done = place.run(**{f"vlm.openai.{name}": value for name, value in given.items()})
    assert done.code == 0, done
    openai = place.run_json()["spec"]["image_grounding"]["vlm"]["openai"]
    kept = {"model_name": "m", "litellm_params": {"api_key": "***", "max_tokens": 7}}
    assert openai["extra_body"] == {
        "user_config": {"model_list": [kept]},
        "provider_token": "***",
        "auth": {"any": ["***"]},
        "seed": 3,
    }
    assert openai["extra_headers"] == {"X-Title": "***", "X-Portal": "***"}
    stays_secret(place, secret, done)


@pytest.mark.slow
def test_nothing_is_kept_of_geminis_key_and_of_secrets_in_its_extra_fields(
    secret: str, place: Workplace
) -> None:
    token = f"t-{secret[::-1]}"
    rule = repeats(lambda request: request.headers["x-goog-api-key"])
    with LoopbackServer(EchoAnswers("gemini"), faults=rule) as server:
        gemini = {
            "base_url": server.address,
            "api_key": secret,
            "extra": {"labels": {"token": token, "pin": 7, "password": 83915}},
        }
        settings = {f"vlm.gemini.{name}": value for name, value in gemini.items()}
        done = place.run(**{"vlm.backend": "gemini", "vlm.box_format": "auto", **settings})
    assert done.code == 0, done
    extra = place.run_json()["spec"]["image_grounding"]["vlm"]["gemini"]["extra"]
    assert extra == {"labels": {"token": "***", "pin": 7, "password": "***"}}
    assert b"You sent ***" in place.replies.read_bytes()
    for hidden in (secret, token):
        stays_secret(place, hidden, done)


def test_a_secret_among_settings_of_ours_is_told_apart(place: Workplace) -> None:
    """`key` in a row of box_formats is a JSON key."""
    formats = [{"models": ["loop*"], "order": "xyxy", "scale": "px", "key": "box_2d"}]
    with LoopbackServer() as server:
        assert (
            place.run(**{"vlm.openai.base_url": server.base_url, "vlm.box_formats": formats}).code
            == 0
        )
    assert place.run_json()["spec"]["image_grounding"]["vlm"]["box_formats"] == formats


def test_an_override_that_lost_its_name_is_not_repeated(secret: str, place: Workplace) -> None:
    done = place.run(secret, **{"vlm.openai.base_url": "http://127.0.0.1:9/v1"})
    assert done.code == 2
    assert "override 1 has no '='" in done.err
    assert secret not in done.err


# --- what an address holds


@pytest.mark.slow
def test_a_token_in_the_address_is_sent_and_never_shown(secret: str, place: Workplace) -> None:
    with LoopbackServer(leaky=True, faults=repeats(lambda request: request.path)) as server:
        url = f"{server.base_url}?api-version=2024-10-21&code={secret}"
        dry = place.run("--dry-run", **{"vlm.openai.base_url": url})
        done = place.run(**{"vlm.openai.base_url": url})
        assert done.code == 0, done
        assert {request.path for request in server.requests} == {
            f"/v1/chat/completions?api-version=2024-10-21&code={secret}"
        }
        another = place.run(
            "--retry-failed", **{"vlm.openai.base_url": url.replace(secret, "another-1234567")}
        )
        assert another.summary["requests"] == 0
        server.faults = [on(faults.bad_request())]
        refused = place.run(
            "image_grounding.workflow.force_reprocess=true", **{"vlm.openai.base_url": url}
        )
    assert place.run_json()["endpoint"] == f"{server.base_url}?api-version=2024-10-21&code=***"
    gone = place.run(
        "image_grounding.workflow.force_reprocess=true", **{"vlm.openai.base_url": url}
    )
    assert (refused.code, gone.code) == (4, 4)
    stays_secret(place, secret, dry, done, refused, gone)


def test_what_looks_like_a_key_in_an_address_is_not_shown_whatever_the_parameter_is_called(
    place: Workplace,
) -> None:
    key = "sk-abcdefgh12345XYZ"
    gone = place.run(**{"vlm.openai.base_url": f"http://127.0.0.1:9/v1?tenant={key}"})
    assert gone.code == 4, gone
    assert "no connection to http://127.0.0.1:9/v1/chat/completions?tenant=***" in gone.err
    stays_secret(place, key, gone)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://host/v1?API_KEY=SECRET", "vlm.openai.api_key"),
        ("http://host/v1?x=1&subscription-key=SECRET", "vlm.openai.api_key"),
        ("http://host/v1#SECRET", "'#'"),
        ("http://SECRET@host/v1", "vlm.openai.api_key"),
        ("http://host/me:SECRET@there", "vlm.openai.api_key"),
        ("SECRET", "http://"),
    ],
)
def test_an_address_with_what_has_its_own_place_is_refused(
    secret: str, place: Workplace, address: str, expected: str
) -> None:
    done = place.run(**{"vlm.openai.base_url": address.replace("SECRET", secret)})
    assert done.code == 2, done
    assert expected in done.err
    assert secret not in done.err


def test_gemini_and_other_servings_hide_what_their_addresses_hold(secret: str) -> None:
    class Others:
        api_url = f"https://me:sunshine@host/v1?token={secret}"

        def generate_from_input_one_image(self, *_: Any) -> list[str]:
            raise ConnectionError(f"{self.api_url} is gone")

    with pytest.raises(GroundingError, match=r"give it as api_key") as caught:
        GeminiServing(base_url=f"https://me:{secret}@host")
    assert secret not in str(caught.value)
    assert (
        DataFlowServing(Others(), box_format="xyxy_px").endpoint == "https://***@host/v1?token=***"
    )


# --- proxies


@pytest.fixture
def proxy() -> Iterator[LoopbackServer]:
    with LoopbackServer(
        faults=repeats(lambda request: request.headers.get("proxy-authorization", "nothing"), 407)
    ) as one:
        yield one


@pytest.mark.slow
def test_a_proxys_password_is_in_no_message(place: Workplace, proxy: LoopbackServer) -> None:
    for scheme in ("http", "https"):
        for password in ("pa55-word-of-a-proxy", "sunshine"):
            with forgetting():
                os.environ[f"{scheme}_proxy"] = f"http://me:{password}@127.0.0.1:{proxy.port}"
                os.environ["no_proxy"] = ""
                done = place.run(**{"vlm.openai.base_url": f"{scheme}://elsewhere.invalid/v1"})
            assert done.code == 4, done
            told = done.err + "".join(line["message"] for line in place.failures())
            assert "***" in told
            stays_secret(place, password, done)
            if scheme == "http":
                assert "you sent Basic ***" in told


# --- Python


def by_number(text: str) -> str:
    """As templates of Go, mustache and others write signs."""
    return text.replace("&", "&#38;").replace("<", "&#x3C;").replace("'", "&#039;")


@pytest.mark.parametrize(
    "escape", [str, html.escape, partial(html.escape, quote=False), xml_escape, by_number]
)
def test_a_text_or_page_that_repeats_a_key_shows_none(
    secret: str, escape: Callable[[str], str]
) -> None:
    key = f"{secret}&<'\">{secret[::-1]}"
    OpenAIServing("http://127.0.0.1:9/v1", "m", api_key=key)
    error = ServerFault(f"<h1>no access with {escape(key)}</h1>")
    assert str(error) == "<h1>no access with ***</h1>"
    assert secret not in repr(error)


@pytest.mark.slow
def test_debug_shows_a_traceback_without_secrets(
    secret: str, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    with LoopbackServer(key="x", leaky=True) as server:
        spec = place.spec(**{"vlm.openai.base_url": server.base_url})
        done = command(["--debug", "generate", "-e", str(spec)])
    assert done.code == 4, done
    assert "Traceback" in done.err
    assert "***" in done.err
    stays_secret(place, secret, done)


def test_a_recording_has_no_secret_and_is_played_back(secret: str, place: Workplace) -> None:
    path = place.folder / "recorded.jsonl"
    row = {**ROW, "image_path": str(place.folder / "a.jpg")}
    with LoopbackServer(faults=repeats(authorization)) as server:
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
    secret: str, place: Workplace
) -> None:
    class Own(Serving):
        model = "own"
        endpoint = f"http://me:{secret}@10.0.0.5/v1?token=t-{secret}"

        async def answer(self, request: Any) -> str:
            return '{"cleaned_caption": "A cup", "expressions": []}'

    path = place.folder / "recorded.jsonl"
    row = {**ROW, "image_path": str(place.folder / "a.jpg")}
    first = ExpressionExtractor(RecordedServing(path, Own()))(row)
    assert secret not in path.read_text()
    assert ExpressionExtractor(RecordedServing(path))(row) == first


def test_what_a_name_says_of_its_value() -> None:
    for name in ("api_key", "X-Auth-Token", "authorization", "Cookie", "sig", "X-Amz-Signature"):
        assert names_secret(name), name
    for name in ("max_tokens", "tokenizer", "author", "keywords", "cache_key", "design", "passage"):
        assert not names_secret(name), name


@pytest.mark.slow
def test_the_calibrations_file_has_no_token_of_the_address(secret: str, place: Workplace) -> None:
    with LoopbackServer(ProbeModel("yxyx_1000")) as server:
        url = f"{server.base_url}?token={secret}"
        done = command(["calibrate", "--json", "--base-url", url, "--model", "unheard-of"])
    assert done.code == 0, done
    kept = Path(os.environ["XDG_CACHE_HOME"]).rglob("calibration-*.json")
    assert all(secret not in path.read_text() for path in kept)
    assert secret not in done.out + done.err


@pytest.mark.slow
def test_addresses_without_end_in_a_text_come_to_an_end(tmp_path: Path) -> None:
    """A caption or a path of a stranger's passes here before it is shown: a search that is quadratic
    in its length would not come to an end.
    """
    rows = []
    for part in ("x://b:c", "x://a:b/c", "x://", "?a=", "x://a:@"):
        long = part * (250_000 // len(part))
        expressions = [{"text": long, "instances": []}]
        row = {"image_path": long, "caption": long, "image_id": part, "expressions": expressions}
        rows.append(json.dumps(row) + "\n")
    (tmp_path / "annotations.jsonl").write_text("".join(rows))
    assert command(["lint", str(tmp_path), "--no-pictures"]).code == 1


def test_a_password_with_slashes_is_blotted_up_to_hundreds_of_characters() -> None:
    for length in (10, 100, 400):
        secret = ("ab/cd+" * 100)[:length]
        assert secret not in blotted_message(f"can't open s3://AKIAKEY:{secret}@bucket/a.jpg")


def test_what_a_caption_may_have_is_a_word() -> None:
    for value in ("secret", "hunter2", "correct-horse", "1234567"):
        assert not is_no_word(value), value
    for value in ("sk-abc12", "Password1", "aBcDeFgH", "123456789012"):
        assert is_no_word(value), value

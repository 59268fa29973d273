"""OpenAI's own client, from the spec and by hand: requests, stored replies and errors as with
`direct`; Azure.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import pytest

from dataflow_grounding import ExpressionExtractor, OpenAISdkServing, OpenAIServing
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.testing import LoopbackServer, Takes, faults, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import Serves
from tests.support.workplace import Workplace, command

pytestmark = pytest.mark.slow

KEY = "sk-7f3a-very-secret-key"
TOKEN = "entra-2b91-very-secret-token"
VERSION = "2024-10-21"
SDK = {"vlm.openai.client": "sdk"}


# --- the same questions


@pytest.mark.parametrize(
    "takes",
    [
        pytest.param(Takes(), id="all"),
        pytest.param(Takes(("json_object",), max_completion_tokens=True, temperature=False), id="little"),
    ],
)  # fmt: skip
def test_both_clients_send_the_same_json_under_the_same_digests(
    workplace: Workplace, takes: Takes, serves: Serves
) -> None:
    workplace.many(3)
    workplace.settings |= {
        "workflow.max_workers": 1,
        "vlm.openai.extra_body": {"top_k": 20, "deep": {"é": [1.5, None]}},
    }
    bodies, stored = [], []
    server = serves(takes=takes, keep_bodies=True)
    for client in ("direct", "sdk"):
        workplace.results = workplace.folder / client
        before = server.count()
        done = workplace.run(
            **{"vlm.openai.base_url": server.base_url, "vlm.openai.client": client}
        )
        assert done.summary["done"] == 3, done
        bodies.append(
            sorted(json.dumps(request.body, sort_keys=True) for request in server.requests[before:])
        )
        stored.append(
            {json.loads(line)["key"] for line in workplace.replies.read_text().splitlines()}
        )
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) >= 6
    assert stored[0] == stored[1]


def test_azure_has_the_stored_replies_of_its_address(workplace: Workplace, serves: Serves) -> None:
    workplace.many(2)
    server = serves(key=KEY)
    address = f"{server.address}/openai/deployments/mine?api-version={VERSION}"
    header = {"vlm.openai.extra_headers": {"api-key": KEY}}
    workplace.settings |= {"vlm.openai.model_name": "mine"}
    assert workplace.run(**header, **{"vlm.openai.base_url": address}).summary["requests"] == 4
    done = workplace.run(**azure(server), **header)
    assert (done.code, done.summary["done"], server.count()) == (0, 2, 4), done


# --- the same errors


def sdk_or_direct(
    kind: type[OpenAIServing], server: LoopbackServer, **settings: Any
) -> OpenAIServing:
    return kind(
        server.base_url,
        "loopback",
        **{"api_key": KEY, "timeout": 60, "box_format": "xyxy_px", **settings},
    )


def test_no_connection_is_the_same_error(row: dict[str, Any]) -> None:
    found = []
    with holding(current_options, RunOptions(max_attempts=1)):
        for kind in (OpenAIServing, OpenAISdkServing):
            with pytest.raises(GroundingError) as caught:
                ExpressionExtractor(
                    kind("http://127.0.0.1:9/v1", "loopback", box_format="xyxy_px")
                )(row)
            found.append((type(caught.value), str(caught.value)))
    assert found[0] == found[1]
    assert (
        "no connection to http://127.0.0.1:9/v1/chat/completions: Connection refused" in found[0][1]
    )


def test_a_connection_that_takes_too_long_is_the_same_error(
    row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow_grounding.serving._transport.CONNECT_SECONDS", 0.3)
    with (
        holding(current_options, RunOptions(max_attempts=1)),
        socket.socket() as listening,
        socket.socket() as first,
        socket.socket() as second,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for waiting in (first, second):  # which fill its queue
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        for kind in (OpenAIServing, OpenAISdkServing):
            asking = ExpressionExtractor(kind(url, "loopback", box_format="xyxy_px", timeout=60))
            said = f"^no connection to {url}/chat/completions within 0.3 s"
            with pytest.raises(GroundingError, match=said):
                asking(row)


@pytest.mark.parametrize("kind", [OpenAIServing, OpenAISdkServing])
def test_what_limit_headers_ask_for_is_heeded(
    row: dict[str, Any], kind: type[OpenAIServing], serves: Serves
) -> None:
    limits = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "600ms"}
    server = serves(faults=on(Fault(headers=limits), indexes=range(1)))
    used = ExpressionExtractor(sdk_or_direct(kind, server))
    used([{**row, "caption": f"Cup {letter}"} for letter in "ab"])
    first, second = server.requests
    assert second.time - (first.time_sent or first.time) >= 0.5


@pytest.mark.parametrize("kind", [OpenAIServing, OpenAISdkServing])
@pytest.mark.parametrize("reset", ["9" * 300, "12h"])
def test_no_limit_header_holds_a_run_past_max_wait(
    row: dict[str, Any], kind: type[OpenAIServing], reset: str, serves: Serves
) -> None:
    """A run that heeded it, or that waited as long as it may, would not come to an end."""
    limits = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    server = serves(faults=on(Fault(headers=limits)))
    with (
        holding(current_options, RunOptions(max_wait=3600)),
    ):
        used = ExpressionExtractor(sdk_or_direct(kind, server))
        assert len(used([{**row, "caption": f"Cup {letter}"} for letter in "abcd"])) == 4


@pytest.mark.parametrize("key", ["", KEY], ids=["no key", "a key"])
def test_a_key_is_sent_where_there_is_one(
    row: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    for name in ("OPENAI_API_KEY", "DF_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = serves(key=key or None)
    used = sdk_or_direct(OpenAISdkServing, server, api_key=key, extra_headers={"X-Title": "mine"})
    for _ in range(2):  # each call has an event loop of its own
        ExpressionExtractor(used)(row)
    headers = [request.headers for request in server.requests]
    assert [head.get("authorization") for head in headers] == [f"Bearer {key}" if key else None] * 2
    assert [head["x-title"] for head in headers] == ["mine"] * 2


# --- Azure


def azure(server: LoopbackServer, **settings: Any) -> dict[str, Any]:
    """The spec's keys for a deployment on Azure that the loopback server plays."""
    block = {"endpoint": server.address, "api_version": VERSION, **settings}
    return {**SDK, **{f"vlm.openai.azure.{name}": value for name, value in block.items()}}


PROVIDERS = f"""
import asyncio
def token(): return {TOKEN!r}
async def later():
    await asyncio.sleep(0)
    return {TOKEN!r}
def fails(): raise RuntimeError("signed out\\nsign in, {TOKEN}")
calls = []
def later_fails():
    calls.append(1)
    if len(calls) > 1:
        raise RuntimeError("refused {TOKEN}, and {TOKEN[:12]}")
    return {TOKEN!r}
def prints():
    print("asked for a token")
    return {TOKEN!r}
def empty(): return None
def none_left(): return next(iter([]))
def ends(): raise SystemExit(0)
def broken(): return {TOKEN + chr(10)!r}
text = "x"
"""


@pytest.fixture
def providers(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The workplace, as the current folder, with a module of token providers."""
    (workplace.folder / "my_tokens.py").write_text(PROVIDERS)
    (workplace.folder / "my_exit.py").write_text("raise SystemExit(0)\n")
    (workplace.folder / "my_leak.py").write_text(f"raise ValueError({TOKEN!r})\n")
    monkeypatch.chdir(workplace.folder)
    # as for the installed command
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_tokens", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-providers-key")
    workplace.settings |= {"vlm.openai.model_name": "mine"}
    workplace.many(1)
    return workplace


@pytest.mark.parametrize("provider", ["my_tokens:token", "my_tokens:later"])
def test_azure_with_entra_from_the_spec(
    providers: Workplace, provider: str, serves: Serves
) -> None:
    leak = faults.bad_request(f"no such thing, {TOKEN}")
    server = serves(faults=on(leak, task="phrase_grounding"))
    done = providers.run(**azure(server, token_provider=provider))
    assert (done.code, server.count(200)) == (4, 1), done
    for request in server.requests:
        assert request.path == f"/openai/deployments/mine/chat/completions?api-version={VERSION}"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert "api-key" not in request.headers
    assert "***" in str(providers.failures())
    assert all(TOKEN.encode() not in data for _, data in providers.everything())
    assert TOKEN not in done.out + done.err


@pytest.mark.parametrize("given", ["spec", "environment"])
def test_azure_with_a_key(
    providers: Workplace, given: str, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    key = {"vlm.openai.api_key": KEY} if given == "spec" else {}
    if given == "environment":
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    server = serves(key=KEY)
    done = providers.run(**azure(server), **key)
    assert (done.code, server.count(200)) == (0, 2), done
    assert {request.headers["api-key"] for request in server.requests} == {KEY}
    bearers = {request.headers.get("authorization") for request in server.requests}
    assert bearers <= {None, f"Bearer {KEY}"}  # openai before 3 sends it in both headers


@pytest.mark.parametrize(
    "provider", ["fails", "later_fails", "none_left", "empty", "ends", "broken"]
)
def test_a_provider_without_a_token_is_told_in_one_line(
    providers: Workplace, provider: str, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    monkeypatch.chdir("/")
    server = serves()
    arguments = providers.arguments(**azure(server, token_provider=f"my_tokens:{provider}"))
    done = command(["--debug", *arguments])
    assert (done.code, server.count()) == (4, int(provider == "later_fails")), done
    # after a first answer it is the record's failure
    told = [failure["message"] for failure in providers.failures()]
    [line] = told or [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert line.removeprefix("Error: ").startswith("vlm.openai.azure.token_provider ")
    assert (
        "fails" not in provider or " it raised RuntimeError; call it in Python to see why" in line
    )
    written = (
        done.out
        + done.err
        + "".join(data.decode("utf-8", "replace") for _, data in providers.everything())
    )
    assert TOKEN[:12] not in written
    assert "sign in" not in written


def test_what_a_provider_prints_is_not_in_the_answer(providers: Workplace, serves: Serves) -> None:
    server = serves()
    done = providers.run(**azure(server, token_provider="my_tokens:prints"))
    assert done.summary["done"] == 1
    assert "asked for a token" in done.err


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("direct", {"client": "direct", "azure.endpoint": "https://x"}, "set vlm.openai.client to sdk"),
    ("no version", {"azure.endpoint": "https://x"}, "vlm.openai.azure.api_version is missing"),
    ("no endpoint", {"azure.api_version": VERSION}, "vlm.openai.azure.endpoint is missing"),
    ("no scheme", {"azure.endpoint": "x", "azure.api_version": VERSION}, "vlm.openai.azure.endpoint should begin with"),
    ("two addresses", {"base_url": "http://x", "azure.endpoint": "https://x"}, "are both set"),
    ("no function", {"azure.token_provider": "my_tokens"}, "is not of the form module:name"),
    ("no module", {"azure.token_provider": "nobodys_tokens:token"}, "no module 'nobodys_tokens' in /"),
    ("no name", {"azure.token_provider": "my_tokens:tokne"}, "my_tokens.py; is it 'token'?"),
    ("a text", {"azure.token_provider": "my_tokens:text"}, "should be a function"),
    ("a module that ends the process", {"azure.token_provider": "my_exit:token"}, "can't be imported: SystemExit (/"),
    ("a module with a secret", {"azure.token_provider": "my_leak:token"}, "can't be imported: ValueError (/"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_settings_that_cannot_be_are_told_in_one_line(
    providers: Workplace, settings: dict[str, Any], says: str
) -> None:
    if "azure.token_provider" in settings:
        settings = {"azure.endpoint": "https://x", "azure.api_version": VERSION, **settings}
    given = {"client": "sdk", **settings}
    done = providers.run(**{f"vlm.openai.{name}": value for name, value in given.items()})
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert says in line
    assert TOKEN not in line


def test_by_hand_a_provider_is_a_function(row: dict[str, Any], serves: Serves) -> None:
    server = serves()
    used = OpenAISdkServing(
        model_name="mine",
        azure_endpoint=server.address + "/",
        api_version=VERSION,
        token_provider=lambda: TOKEN,
        box_format="xyxy_px",
    )
    assert used.has_key
    assert ExpressionExtractor(used)(row)["expressions"]
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"

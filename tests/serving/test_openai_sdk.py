"""OpenAI's own client, from the spec and by hand: requests, stored replies and errors as with
`direct`.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from dataflow_grounding import ExpressionExtractor, OpenAIServing
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.serving import OpenAISdkServing
from dataflow_grounding.testing import LoopbackServer, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import Serves
from tests.support.takes import Takes
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow

KEY = "sk-7f3a-very-secret-key"
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
    done = workplace.run(**SDK, **header, **{"vlm.openai.base_url": address})
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
    monkeypatch.setattr("dataflow_grounding.serving.client_errors.CONNECT_SECONDS", 0.3)
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

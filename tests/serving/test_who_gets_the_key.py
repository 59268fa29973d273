"""Key, headers and picture go to the endpoint and to nobody else: no proxy, no other host, nobody
without a certificate.
"""

from __future__ import annotations

import base64
import copy
import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dataflow_grounding.serving
from dataflow_grounding import ExpressionExtractor, OpenAIServing
from dataflow_grounding._util.errors import EndpointRefused, GroundingError, SpecError
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving import Serving
from dataflow_grounding.spec.problems import keys_of
from dataflow_grounding.spec.schema import PipelineBlock
from dataflow_grounding.testing import LoopbackServer, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import Serves
from tests.support.servings import HEADER, KEY, KINDS, VERSION, secrets_in
from tests.support.wires import RecordingProxy, TlsFront, certificate
from tests.support.workplace import Workplace, one_after_another

pytestmark = pytest.mark.slow

ELSEWHERE = {"LocalServing"}
"""Sends nothing."""

AT_ONCE = "import dataflow_grounding.engine.senders.retry as e; e.UNREACHABLE_TRIES = 1"
"""Who is not trusted is given up at the first try."""

each = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(1)
    return workplace


def extractor_of(kind: str, place: Workplace, address: str) -> ExpressionExtractor:
    """One whose serving is that of a spec which asks there."""
    block = load_spec(str(place.spec(**KINDS[kind][1](address)))).block
    return ExpressionExtractor(serving_of(block.vlm, block.workflow))


def row_of(place: Workplace) -> dict[str, Any]:
    return {"image_path": str(place.folder / "a.jpg"), "caption": "a cup"}


@pytest.fixture(autouse=True)
def _with_gemini(request: pytest.FixtureRequest) -> None:
    kind = getattr(getattr(request.node, "callspec", None), "params", {}).get("kind")
    if kind == "gemini" and importlib.util.find_spec("google.genai") is None:
        pytest.skip("without the extra gemini")


def test_no_serving_is_left_out() -> None:
    servings = set()
    for name in dataflow_grounding.serving.__all__:
        exported = getattr(dataflow_grounding.serving, name)
        if isinstance(exported, type) and issubclass(exported, Serving):
            servings.add(name)
    assert servings - {"Serving"} == {kind.__name__ for kind, _ in KINDS.values()} | ELSEWHERE


# --- a proxy, and certificates


def test_a_proxy_is_told_its_own_password_and_nothing_else_and_a_wrong_certificate_is_refused(
    tmp_path: Path,
) -> None:
    """All kinds in one process, which reads at its start whom it trusts."""
    named, here = certificate(tmp_path, "models.example"), certificate(tmp_path, "127.0.0.1")
    (tmp_path / "own").mkdir()
    own = certificate(tmp_path / "own", "127.0.0.1")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(named.read_bytes() + here.read_bytes())
    with (
        LoopbackServer() as server,
        LoopbackServer() as unasked,
        TlsFront(server.port, named) as front,
        RecordingProxy(front.port) as proxy,
        TlsFront(server.port, here) as direct,
        TlsFront(unasked.port, own) as nobody_vouches,
        TlsFront(unasked.port, named) as of_another_host,
    ):
        addresses = {
            "by proxy": "https://models.example",
            "directly": f"https://127.0.0.1:{direct.port}",
            "nobody vouches for it": f"https://127.0.0.1:{nobody_vouches.port}",
            "another host's": f"https://127.0.0.1:{of_another_host.port}",
        }
        lines = {}
        for kind, (_, settings) in KINDS.items():
            if kind == "gemini" and importlib.util.find_spec("google.genai") is None:
                continue
            # the others send with the client of one of these
            ways = addresses if kind in ("direct", "sdk", "gemini") else ["by proxy"]
            for way in ways:
                place = Workplace(tmp_path / kind / way, **{"workflow.max_attempts": 1})
                place.many(1)
                lines[kind, way] = place.arguments(**settings(addresses[way]))
        env = {
            "https_proxy": f"http://me:of-the-proxy-0815@127.0.0.1:{proxy.port}",
            "no_proxy": "127.0.0.1",
            "SSL_CERT_FILE": str(trusted),
        }
        done = one_after_another(lines.values(), env=env, first=AT_ONCE)
        ends = dict(zip(lines, done, strict=True))
    for (kind, way), done in ends.items():
        if way in ("by proxy", "directly"):
            assert done.code == 0, (kind, way, done)
            continue
        assert done.code == 4, (kind, way, done)
        [line] = [line for line in done.err.splitlines() if line.startswith("Error: ")]
        assert "certificate" in line, (kind, way)
        assert "SSL_CERT_FILE" in line, (kind, way)
    assert unasked.bytes_received == 0
    assert len(proxy.told) >= len({kind for kind, _ in lines})
    password = base64.b64encode(b"me:of-the-proxy-0815").decode()
    for told in proxy.told:
        assert told.startswith("CONNECT models.example:443 ")
        assert f"Proxy-Authorization: Basic {password}\r\n" in told
        assert not secrets_in(told), told
    assert all(KEY in str(request.headers) for request in server.requests)


# --- a redirect


@pytest.fixture(scope="module")
def thief() -> Iterator[LoopbackServer]:
    """Nobody may ask it."""
    with LoopbackServer() as server:
        yield server
        assert server.bytes_received == server.received == 0


@pytest.fixture
def server(serves: Serves, thief: LoopbackServer) -> LoopbackServer:
    """One that sends everybody to the thief."""
    elsewhere = {"Location": f"http://127.0.0.1:{thief.port}/v1/chat/completions"}
    return serves(faults=on(Fault(307, "moved", headers=elsewhere)))


@each
def test_no_serving_follows_a_redirect(
    kind: str, place: Workplace, server: LoopbackServer, thief: LoopbackServer
) -> None:
    with pytest.raises(GroundingError, match=r"redirected.*check the address") as caught:
        extractor_of(kind, place, server.address)(row_of(place))
    assert isinstance(caught.value, EndpointRefused), "which stops a run"
    assert server.count() >= 1
    assert thief.received == 0


@pytest.mark.parametrize("azure", [False, True])
def test_a_client_of_ones_own_follows_none_here_either(
    azure: bool, place: Workplace, server: LoopbackServer, thief: LoopbackServer
) -> None:
    import openai  # half a second, which whoever only collects tests needn't wait

    client = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY)
    if azure:
        client = openai.AsyncAzureOpenAI(
            azure_endpoint=server.address, api_key=KEY, api_version=VERSION
        )
    extractor = ExpressionExtractor(OpenAIServing(model_name="m", client=client))
    with pytest.raises(GroundingError, match="redirected"):
        extractor(row_of(place))
    assert thief.received == 0


# --- a file of one's own


@each
def test_a_pickled_operator_has_the_variables_name_and_not_the_key(
    kind: str,
    place: Workplace,
    serves: Serves,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DF_API_KEY", KEY)
    monkeypatch.setenv("GATEWAY_TOKEN", HEADER)
    server = serves()
    extractor = extractor_of(kind, place, server.address)
    data = pickle.dumps(extractor)
    assert not secrets_in(data.decode("latin-1"))
    again = pickle.loads(data)
    assert repr(again) == repr(extractor)
    for asking in (again, ExpressionExtractor(copy.deepcopy(extractor.serving))):
        assert asking(row_of(place))["expressions"]
    assert server.count() == 2
    assert all(KEY in str(request.headers) for request in server.requests)
    monkeypatch.delenv("DF_API_KEY")
    with pytest.raises(SpecError, match="DF_API_KEY is not set on"):
        pickle.loads(data)
    with pytest.raises(SpecError, match="a key that is not in the environment"):
        pickle.dumps(extractor.serving)


def test_no_key_of_a_spec_turns_certificates_off() -> None:
    words = ("verify", "ssl", "tls", "cert", "insecure", "trust", "proxy", "proxies")
    assert [
        key for key in keys_of(PipelineBlock) if any(word in key.lower() for word in words)
    ] == []

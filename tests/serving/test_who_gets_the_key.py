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
from PIL import Image

import dataflow_grounding.serving
from dataflow_grounding import ExpressionExtractor, OpenAIServing
from dataflow_grounding._util.errors import GroundingError, SpecError
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving import Serving
from dataflow_grounding.spec.problems import keys_of
from dataflow_grounding.spec.schema import PipelineBlock
from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.testing.faults import Fault
from tests.support.servings import HEADER, KEY, KINDS, VERSION, secrets_in
from tests.support.wires import RecordingProxy, TlsFront, certificate
from tests.support.workplace import Done, Workplace, ended

pytestmark = pytest.mark.slow

ELSEWHERE = {"LocalServing", "RecordedServing"}
"""Servings that send nothing themselves."""

each = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(1)
    workplace.settings["workflow.max_attempts"] = 1
    return workplace


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


# --- a proxy


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    return certificate(tmp_path, "models.example")


@each
def test_a_proxy_is_told_its_own_password_and_nothing_else(
    kind: str, place: Workplace, trusted: Path
) -> None:
    with (
        LoopbackServer() as server,
        TlsFront(server.port, trusted) as front,
        RecordingProxy(front.port) as proxy,
    ):
        address = f"http://me:of-the-proxy-0815@127.0.0.1:{proxy.port}"
        env = {"https_proxy": address, "no_proxy": "", "SSL_CERT_FILE": str(trusted)}
        done = ended(place.start(env=env, **KINDS[kind][1]("https://models.example")))
    assert done.code == 0, done
    assert proxy.told
    own = base64.b64encode(b"me:of-the-proxy-0815").decode()
    for told in proxy.told:
        assert told.startswith("CONNECT models.example:443 ")
        assert f"Proxy-Authorization: Basic {own}\r\n" in told
        assert not secrets_in(told), told
    assert all(KEY in str(request.headers) for request in server.requests)


# --- a redirect


@pytest.fixture
def thief() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@each
@pytest.mark.parametrize("status", [302, 307])
def test_no_serving_follows_a_redirect(
    kind: str, status: int, place: Workplace, thief: LoopbackServer
) -> None:
    elsewhere = Fault(
        status, "moved", headers={"Location": f"http://127.0.0.1:{thief.port}/v1/chat/completions"}
    )
    with LoopbackServer(faults=lambda request: elsewhere) as server:
        done = place.run(**KINDS[kind][1](server.address))
    assert done.code == 4, done
    assert server.count() >= 1
    assert thief.bytes_received == thief.received == 0
    assert "redirected" in done.err + "".join(line["message"] for line in place.failures())


@pytest.mark.parametrize("azure", [False, True])
def test_a_client_of_ones_own_follows_none_here_either(
    azure: bool, tmp_path: Path, thief: LoopbackServer
) -> None:
    import openai  # half a second, which whoever only collects tests needn't wait

    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    elsewhere = Fault(
        307, "moved", headers={"Location": f"http://127.0.0.1:{thief.port}/v1/chat/completions"}
    )
    with LoopbackServer(faults=lambda request: elsewhere) as server:
        client: Any = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY)
        if azure:
            client = openai.AsyncAzureOpenAI(
                azure_endpoint=server.address, api_key=KEY, api_version=VERSION
            )
        extractor = ExpressionExtractor(OpenAIServing(model_name="m", client=client))
        with pytest.raises(GroundingError, match="redirected"):
            extractor({"image_path": str(tmp_path / "a.png"), "caption": "a cup"})
    assert thief.received == 0


# --- TLS


@pytest.mark.sampled
@each
def test_a_wrong_certificate_is_refused(kind: str, place: Workplace, tmp_path: Path) -> None:
    own, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "models.example")
    with (
        LoopbackServer() as server,
        TlsFront(server.port, own) as front,
        TlsFront(server.port, other) as front_of_another_host,
    ):
        for shown_by in (front, front_of_another_host):  # nobody vouches for it; another host's
            refused = of_tls(place, kind, shown_by, trusts=other)
            assert server.bytes_received == 0
            assert refused.code == 4, refused
            [line] = [line for line in refused.err.splitlines() if line.startswith("Error: ")]
            assert "certificate" in line
            assert "SSL_CERT_FILE" in line
        right = of_tls(place, kind, front, trusts=own)
        assert right.code == 0, right


def of_tls(place: Workplace, kind: str, front: TlsFront, trusts: Path) -> Done:
    """A run over TLS that trusts one certificate."""
    settings = KINDS[kind][1](f"https://127.0.0.1:{front.port}")
    return ended(place.start(env={"SSL_CERT_FILE": str(trusts), "no_proxy": "*"}, **settings))


# --- a file of one's own


@each
@pytest.mark.parametrize("operator", [False, True])
def test_a_pickled_serving_has_the_variables_name_and_not_the_key(
    kind: str, operator: bool, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DF_API_KEY", KEY)
    monkeypatch.setenv("GATEWAY_TOKEN", HEADER)
    with LoopbackServer() as server:
        block = load_spec(str(place.spec(**KINDS[kind][1](server.address)))).block
        serving = serving_of(block.vlm, block.workflow)
        data = pickle.dumps(ExpressionExtractor(serving) if operator else serving)
        assert not secrets_in(data.decode("latin-1"))
        again = pickle.loads(data)
        assert repr(again if operator else [again]) == repr(
            ExpressionExtractor(serving) if operator else [serving]
        )
        for extractor in (
            again if operator else ExpressionExtractor(again),
            ExpressionExtractor(copy.deepcopy(serving)),
        ):
            assert extractor({"image_path": str(place.folder / "a.jpg"), "caption": "a cup"})[
                "expressions"
            ]
        assert server.count() == 2
        assert all(KEY in str(request.headers) for request in server.requests)
    monkeypatch.delenv("DF_API_KEY")
    with pytest.raises(SpecError, match="DF_API_KEY is not set on"):
        pickle.loads(data)
    with pytest.raises(SpecError, match="a key that is not in the environment"):
        pickle.dumps(serving)


def test_no_key_of_a_spec_turns_certificates_off() -> None:
    words = ("verify", "ssl", "tls", "cert", "insecure", "trust", "proxy", "proxies")
    assert [
        key for key in keys_of(PipelineBlock) if any(word in key.lower() for word in words)
    ] == []

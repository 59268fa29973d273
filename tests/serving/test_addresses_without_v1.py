"""A server that has nothing at the path asks whether `/v1` was forgotten, wherever that is said."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding import ExpressionExtractor, OpenAIServing
from dataflow_grounding._util.errors import EndpointRefused
from dataflow_grounding.serving.http_errors import error_of
from tests.support.wires import FixedAnswer

NOT_FOUND = b'{"detail":"Not Found"}'
BARE = {
    "Go, as Ollama": b"404 page not found\n",
    "FastAPI, as vLLM": NOT_FOUND,
    "llama.cpp": b'{"error":{"code":404,"message":"File Not Found","type":"not_found"}}',
    "OpenAI": b'{"error":{"message":"Invalid URL (POST /chat/completions)"}}',
    "Express": b'{"message":"Cannot POST /chat/completions","error":"Not Found"}',
    "an ingress": b"default backend - 404",
    "a page": b"<html><h1>404 Not Found</h1></html>",
    "nothing": b"",
}
# lmstudio-ai/lmstudio-bug-tracker#618
LM_STUDIO = b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'
ABOUT_THE_MODEL = {
    "Ollama": b'{"error":{"message":"model \'x\' not found","type":"not_found_error"}}',
    "vLLM": b'{"error":{"message":"The model `x` does not exist.","code":404}}',
    "text": b"model x not found",
    "a string": b'{"error": "model \'x\' not found, try pulling it first"}',
}
CHECK = "Check the address and the model's name"
HERE = "http://127.0.0.1:8000"
# what is set after the host, and what is asked about it
PATHS = {
    "/": f"Is it {HERE}/v1? ",
    "/chat/completions": f"Is it {HERE}/v1? ",
    "/api": "Should it end in /v1? ",
    "/v1": "",
    "/v1beta/openai": "",
    "/api/paas/v4": "",
    "/openai/deployments/m?api-version=2024-10-21": "",
}


def said_of(body: bytes, address: str = HERE) -> str:
    return str(error_of(404, {}, body, where="here", address=address))


@pytest.mark.parametrize("body", BARE.values(), ids=BARE)
def test_a_server_without_such_a_path_is_asked_whether_it_is_at_v1(body: bytes) -> None:
    assert said_of(body).endswith(f". Is it {HERE}/v1? {CHECK}.")


@pytest.mark.parametrize("body", ABOUT_THE_MODEL.values(), ids=ABOUT_THE_MODEL)
def test_a_404_about_the_model_says_nothing_of_the_address(body: bytes) -> None:
    said = said_of(body)
    assert said.endswith(f". {CHECK}.")
    assert "/v1" not in said


@pytest.mark.parametrize(("path", "asked"), PATHS.items())
def test_only_an_address_without_a_version_is_asked_about(path: str, asked: str) -> None:
    endpoint = OpenAIServing(HERE + path, "m").endpoint
    assert said_of(NOT_FOUND, endpoint) == f"here answered 404: Not Found. {asked}{CHECK}."


@pytest.mark.parametrize(
    ("status", "body", "path", "asked"),
    [
        (200, LM_STUDIO, "", "Is it {address}/v1?"),
        # a key in the path is not shown
        (404, b"", "/sk-abcdefghijklmnop1234567890", "Should it end in /v1?"),
    ],
)
def test_an_operator_s_error_asks_so(
    row: dict[str, Any], status: int, body: bytes, path: str, asked: str
) -> None:
    with FixedAnswer(status, body) as server, pytest.raises(EndpointRefused) as refused:
        ExpressionExtractor(OpenAIServing(server.address + path, "m", box_format="xyxy_px"))(row)
    said = str(refused.value)
    assert said.endswith(f". {asked.format(address=server.address)} {CHECK}."), said
    assert "abcdefgh" not in said

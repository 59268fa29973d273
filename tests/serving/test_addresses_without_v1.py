"""A server that has nothing at the path asks whether `/v1` was forgotten, wherever that is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dataflow_grounding import OpenAIServing, PhraseGrounder
from dataflow_grounding._util.errors import EndpointRefused
from tests.support.wires import FixedAnswer

NOT_FOUND = b'{"detail":"Not Found"}'
BARE = {
    "Go, as Ollama": (404, b"404 page not found\n"),
    "FastAPI, as vLLM": (404, NOT_FOUND),
    "llama.cpp": (404, b'{"error":{"code":404,"message":"File Not Found","type":"not_found"}}'),
    "OpenAI": (404, b'{"error":{"message":"Invalid URL (POST /chat/completions)"}}'),
    "Express": (404, b'{"message":"Cannot POST /chat/completions","error":"Not Found"}'),
    "an ingress": (404, b"default backend - 404"),
    "a page": (404, b"<html><h1>404 Not Found</h1></html>"),
    "nothing": (404, b""),
    # lmstudio-ai/lmstudio-bug-tracker#618
    "LM Studio": (200, b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'),
}
ABOUT_THE_MODEL = {
    "Ollama": b'{"error":{"message":"model \'x\' not found","type":"not_found_error"}}',
    "vLLM": b'{"error":{"message":"The model `x` does not exist.","code":404}}',
    "text": b"model x not found",
    "a string": b'{"error": "model \'x\' not found, try pulling it first"}',
}
CHECK = "Check the address and the model's name"
# what is set after http://127.0.0.1:PORT, and what is asked about it
PATHS = {
    "/": "Is it http://127.0.0.1:{port}/v1? ",
    "/chat/completions": "Is it http://127.0.0.1:{port}/v1? ",
    "/api": "Should it end in /v1? ",
    "/v1": "",
    "/v1beta/openai": "",
    "/api/paas/v4": "",
    "/openai/deployments/m?api-version=2024-10-21": "",
}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def refusal(address: str, picture: str) -> str:
    """What grounding a phrase there raises."""
    grounder = PhraseGrounder(OpenAIServing(address, "m", box_format="xyxy_px"))
    with pytest.raises(EndpointRefused) as refused:
        grounder({"image_path": picture, "expressions": ["the mug"]})
    return str(refused.value)


@pytest.mark.parametrize(("status", "body"), BARE.values(), ids=BARE)
def test_a_server_without_such_a_path_is_asked_whether_it_is_at_v1(
    picture: str, status: int, body: bytes
) -> None:
    with FixedAnswer(status, body) as server:
        said = refusal(server.address, picture)
    assert said.endswith(f". Is it {server.address}/v1? {CHECK}."), said


@pytest.mark.parametrize("body", ABOUT_THE_MODEL.values(), ids=ABOUT_THE_MODEL)
def test_a_404_about_the_model_says_nothing_of_the_address(picture: str, body: bytes) -> None:
    with FixedAnswer(404, body) as server:
        said = refusal(server.address, picture)
    assert said.endswith(f". {CHECK}.")
    assert "/v1" not in said


@pytest.mark.parametrize(("path", "asked"), PATHS.items())
def test_only_an_address_without_a_version_is_asked_about(
    picture: str, path: str, asked: str
) -> None:
    with FixedAnswer(404, NOT_FOUND) as server:
        said = refusal(f"{server.address}{path}", picture)
    assert said.endswith(f"answered 404: Not Found. {asked.format(port=server.port)}{CHECK}.")


def test_a_key_in_the_path_is_not_shown(picture: str) -> None:
    with FixedAnswer(404, b"") as server:
        said = refusal(f"{server.address}/sk-abcdefghijklmnop1234567890", picture)
    assert "Should it end in /v1?" in said
    assert "abcdefgh" not in said

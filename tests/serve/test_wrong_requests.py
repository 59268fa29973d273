"""Requests that can't be answered: 4xx with one sentence, never a traceback."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.served import Served

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-test-0123456789"
PHRASES = {"phrases": ["a cup"]}


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "no JSON object"),
        (b"[]", 400, "no JSON object"),
        (b"\xff", 400, "no JSON object"),
        (b"[" * 200_000, 400, "no JSON object"),
        ({"image_path": "0.png"}, 400, "`phrases`"),
        ({"image_path": "0.png", "phrases": [" "]}, 400, "`phrases`"),
        ({"image_path": "0.png", "phrases": ["a"] * 1001}, 400, "1 to 1000 texts"),
        ({"image_path": "0.png", "phrases": {"a": 1}}, 400, "`phrases`"),
        (PHRASES, 400, "one of image, image_path, image_url"),
        ({"image_path": "0.png", "image": "QQ==", **PHRASES}, 400, "one of image"),
        ({"image_path": "no.png", **PHRASES}, 400, "no image 'no.png'"),
        ({"image_path": "../root/0.png", **PHRASES}, 400, "not the name of a file"),
        ({"image_path": "/etc/passwd", **PHRASES}, 400, "not the name of a file"),
        ({"image_path": "link.png", **PHRASES}, 403, "leads out of"),
        ({"image_path": "broken.png", **PHRASES}, 400, "broken.png"),
        ({"image_path": "e'\".\u200b.png", **PHRASES}, 400, "is empty"),
        ({"image_path": 7, **PHRASES}, 400, "as a text"),
        ({"image": "§", **PHRASES}, 400, "no base64"),
        ({"image": 7, **PHRASES}, 400, "as a text"),
        ({"image": base64.b64encode(b"x" * 99).decode(), **PHRASES}, 400, "the picture"),
        ({"image": "A" * 2**21, **PHRASES}, 413, "more than 1 MiB"),
        ({"image_url": "http://example.com/a.png", **PHRASES}, 403, "data.allow_hosts"),
        ({"image_url": "file:///etc/passwd", **PHRASES}, 403, "data.allow_hosts"),
    ],
)
def test_what_is_wrong_is_said(served: Served, body: Any, status: int, sentence: str) -> None:
    answer = served.post("/ground", body)
    assert (answer.status, sentence in answer.body["error"]) == (status, True), answer.body
    assert "\n" not in answer.body["error"]
    assert "/tmp" not in answer.body["error"]


def test_routes_and_content_types_that_are_none(served: Served) -> None:
    assert served.get("/grund").status == 404
    assert served.get("/ground").status == 405
    assert served.post("/ground", b"a=b", **{"Content-Type": "text/plain"}).status == 415


def test_what_is_no_http_leaves_no_traceback(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert client.recv(12).startswith(b"HTTP/1.")
    assert served.get("/health").status == 200


def test_pages_of_the_web_may_not_ask(served: Served) -> None:
    body = {"image_path": "0.png", **PHRASES}
    assert served.post("/ground", body, Origin="https://example.com").status == 403
    rebound = served.post("/ground", body, Host=f"example.com:{served.port}")
    assert rebound.status == 403
    assert served.post("/ground", body).status == 200


def test_the_token_is_asked_for_in_three_forms(tmp_path: Path) -> None:
    with Served(tmp_path, "--host", "0.0.0.0", DF_SERVE_TOKEN=TOKEN) as served:
        served.address = f"http://127.0.0.1:{served.port}"
        basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
        right: list[dict[str, str]] = [
            {"Authorization": f"Bearer {TOKEN}"},
            {"Authorization": f"Basic {basic}"},
            {"Token": TOKEN},
        ]
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": "Basic §"},
            {"Authorization": f"Basic {basic[:-4]}"},
            {"Token": ""},
        ]
        assert [served.get("/health", **headers).status for headers in right] == [200] * 3
        assert [served.get("/health", **headers).status for headers in wrong[:3]] == [401] * 3
        assert [served.get("/v1/models", **headers).status for headers in wrong[4:]] == [401] * 2
        _, said = served.end()
    assert TOKEN not in said


def test_others_are_let_in_with_a_token_only(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="reached by others: set DF_SERVE_TOKEN"):
        Served(tmp_path, "--host", "0.0.0.0")


def test_a_port_that_is_taken_and_a_folder_that_is_at_work(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        with pytest.raises(
            AssertionError, match=f"127.0.0.1:{served.port}: Address already in use"
        ):
            Served(tmp_path, "--port", str(served.port))
        with pytest.raises(AssertionError, match="another run is working in"):
            Served(tmp_path)

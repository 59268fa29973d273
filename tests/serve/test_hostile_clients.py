"""Half-sent bodies, odd headers, odd JSON: a 4xx with a sentence, and no place is held."""

from __future__ import annotations

import base64
import gzip
import json
import re
import select
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer, on
from tests.support import faults
from tests.support.served import Served
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

OK = json.dumps({"image_path": "0.png", "phrases": ["a cup"]}).encode()
CONFIG = (
    '<View><Image name="i" value="$image"/><RectangleLabels name="b" toName="i">'
    '<Label value="cup"/></RectangleLabels></View>'
)
JSON = {"Content-Type": "application/json"}


def connected(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=60)


def head(path: str, length: int, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in {"Host": "127.0.0.1", **headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of what comes back."""
    data = b""
    while not (found := re.match(rb"(?s)HTTP/1.. (\d+).*?Content-Length: (\d+).*?\r\n\r\n", data)):
        more = client.recv(65536)
        assert more, f"the connection was cut: {data!r}"
        data += more
    while len(data) < found.end() + int(found[2]):
        data += client.recv(65536)
    return int(found[1]), data[found.end() :]


def asked(served: Served, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    with connected(served) as client:
        client.sendall(head(path, len(body), **headers) + body)
        return answer_of(client)


def labels(count: int) -> str:
    """A configuration with that many labels, each of which would be asked for."""
    several = "".join(f'<Label value="cup {number}"/>' for number in range(count))
    return CONFIG.replace('<Label value="cup"/>', several)


def task(address: str, config: str = CONFIG) -> bytes:
    tasks = [{"id": 1, "data": {"image": address}}]
    return json.dumps({"tasks": tasks, "label_config": config}).encode()


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/ground", OK, {"Content-Type": "application/json; charset=zzz"}),
        ("/ground", OK, {"Content-Type": "application/json; charset=utf-16"}),
        ("/ground", OK, {**JSON, "Content-Encoding": "gzip"}),
        ("/ground", OK, {**JSON, "Content-Encoding": "deflate"}),
        ("/ground", gzip.compress(b" " * 2**22 + OK), {**JSON, "Content-Encoding": "gzip"}),
        ("/ground", OK, {**JSON, "Host": "127.0.0.1:abc"}),
        ("/ground", OK, {**JSON, "Host": "127.0.0.1:99999"}),
        ("/ground", OK, {**JSON, "Host": "\xff"}),
        ("/ground?%00", b"", JSON),
        ("/%00", OK, JSON),
        ("/ground", b"", JSON),
        ("/ground", b'{"image_path": "\\ud800", "phrases": ["a cup"]}', JSON),
        ("/ground", b'{"image_path": "0.png", "phrases": ["\\ud800"]}', JSON),
        ("/ground", b'{"image_path": "0.png\\u0000", "phrases": ["a cup"]}', JSON),
        ("/ground", b'{"image_path": "0.png", "phrases": NaN}', JSON),
        ("/ground", b'{"image_path": "0.png", "phrases": ' + b"9" * 5000 + b"}", JSON),
        ("/ground", b'{"phrases": ' + b'{"a":' * 99_999, JSON),
        ("/predict", task("//[x"), JSON),
        ("/predict", task("http://[x"), JSON),
        ("/predict", task("/data/%00"), JSON),
        ("/predict", task("/data/0.png", "\ud800"), JSON),
        ("/predict", task("/data/0.png", "<View>\0</View>"), JSON),
        ("/predict", task("/data/0.png", "<a>" * 200_000), JSON),
        ("/predict", task("/data/0.png", labels(1001)), JSON),
        ("/ground", json.dumps({"image_path": "0.png", "phrases": ["a" * 20_000]}).encode(), JSON),
        ("/v1/predict", b'{"model": "\\ud800"}', JSON),
    ],
)
def test_an_odd_request_is_refused_in_a_sentence(
    served: Served, path: str, body: bytes, headers: dict[str, str]
) -> None:
    status, text = asked(served, path, body, headers)
    error = json.loads(text)["error"]
    sentence = error["message"] if path.startswith("/v1/") else error
    assert 400 <= status < 500, sentence
    assert sentence
    assert sentence.isprintable()


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    with connected(served) as client:
        client.sendall(f"{method} /ground HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert client.recv(16).startswith(b"HTTP/1.1 405")


def test_half_sent_bodies_hold_no_places(
    tmp_path: Path, pictures: Path, variables: dict[str, Any]
) -> None:
    bounds = {"QUEUE": 0, "SECONDS": 600}
    with Served(tmp_path, "--root", str(pictures), bounds=bounds, **variables) as served:
        clients = [connected(served) for _ in range(60)]
        for client in clients:
            client.sendall(head("/ground", 1000, **JSON) + b"{")
        assert served.post("/ground", OK).status == 200
        code, _ = served.end()  # nor are they waited for at the end
        answers = {answer_of(client)[0] for client in clients}
        assert (code, answers) == (0, {503})


def test_a_body_has_to_come_in_time(tmp_path: Path) -> None:
    with Served(tmp_path, bounds={"SECONDS": 0.5}) as served, connected(served) as client:
        client.sendall(head("/ground", 1000, **JSON) + b"{")
        status, text = answer_of(client)
    assert (status, "0.5 s" in json.loads(text)["error"]) == (408, True)


def test_bodies_take_only_so_much_memory(tmp_path: Path) -> None:
    with Served(tmp_path, bounds={"BODY_MB": 1}) as served:
        clients = [connected(served) for _ in range(20)]
        for client in clients:
            client.sendall(head("/ground", 2**20, **JSON) + b" " * (2**20 - 1))
        [refused, *_] = select.select(clients, [], [], 60)[0]
        status, text = answer_of(refused)
        assert (status, "memory" in json.loads(text)["error"]) == (429, True)
        for client in clients:
            client.close()


def test_a_kill_leaves_no_pictures(
    tmp_path: Path, pictures: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    data = (pictures / "1.png").read_bytes()
    (tmp_path / "tmp").mkdir()
    variables["TMPDIR"] = str(tmp_path / "tmp")
    endpoint.faults = on(faults.Fault(hang=True))
    with Served(tmp_path, **variables) as served, connected(served) as client:
        picture = base64.b64encode(data).decode()
        body = json.dumps({"image": picture, "phrases": ["a cup"]}).encode()
        client.sendall(head("/ground", len(body), **JSON) + body)
        wait_until(lambda: len(endpoint.requests) > 0)
        served.end(signal.SIGKILL)
    left = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
    assert data not in [path.read_bytes() for path in left]
    with Served(tmp_path, **variables):
        left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert data not in [path.read_bytes() for path in left]

"""One event loop for all calls of a process: its connections, forks, and calls within calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import (
    CaptionGenerator,
    OpenAIServing,
    Operator,
    Reply,
    Request,
    Serving,
    operator,
)
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import OperatorFailed
from dataflow_grounding.testing import CannedAnswers, LoopbackServer
from tests.support.workplace import HANGING

CAPTION = '{"caption": "A cup."}'


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(CannedAnswers(CAPTION)) as server:
        yield server


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48), "navy").save(path)
    return str(path)


def captions(url: str, picture: str, count: int = 1) -> list[Any]:
    asking = CaptionGenerator(OpenAIServing(url, "loopback"))
    return [asking({"image_path": picture})["caption"] for _ in range(count)]


class Completions(BaseHTTPRequestHandler):
    """Answers all on one connection, and notes from which ports that are asked."""

    protocol_version = "HTTP/1.1"
    ports: set[int]

    def do_POST(self) -> None:
        self.ports.add(self.client_address[1])
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": CAPTION}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"id": "1", "model": "loopback", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_calls_one_after_the_other_share_a_connection(picture: str) -> None:
    class Noted(Completions):
        ports: set[int] = set()

    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Noted)
    endpoint.daemon_threads = True
    threading.Thread(target=endpoint.serve_forever).start()
    try:
        url = f"http://127.0.0.1:{endpoint.server_address[1]}/v1"
        assert captions(url, picture, 3) == ["A cup."] * 3
        assert len(Noted.ports) == 1
    finally:
        endpoint.shutdown()
        endpoint.server_close()


def test_what_a_serving_of_ones_own_opens_is_closed_after_each_call(
    server: LoopbackServer, picture: str
) -> None:
    """A user's class may keep what works on one event loop alone, and be asked after a fork."""

    class Mine(Serving):
        model = "mine"
        closed = 0

        async def answer(self, request: Request[Any]) -> Reply | str:
            return CAPTION

        async def aclose(self) -> None:
            self.closed += 1

    mine = Mine()
    CaptionGenerator(mine)({"image_path": picture})
    CaptionGenerator(mine)({"image_path": picture})
    assert mine.closed == 2


# --- calls within calls


def test_calls_in_the_threads_of_a_call_have_threads_of_their_own(
    server: LoopbackServer, picture: str
) -> None:
    """As many as one call has, and more, wait for calls that need some: none waits for ever."""

    @operator(reads=["image_path"], writes=["found"])
    def within(record: Record) -> Update:
        return {"found": captions(server.base_url, record["image_path"])}

    found: list[Any] = []
    rows = [{"image_path": picture}] * 2 * (os.cpu_count() or 1) + [{"image_path": picture}] * 8
    calling = threading.Thread(target=lambda: found.extend(within(rows)), daemon=True)
    calling.start()
    calling.join(HANGING)
    assert [row["found"] for row in found] == [["A cup."]] * len(rows)


class Blocking(Operator):
    """Calls another operator in async code, which holds the loop that the call needs."""

    name = "blocking"
    input_keys = {"image": "image_path"}
    output_keys = {"found": "found"}

    def __init__(self, url: str) -> None:
        self.url = url

    async def annotate(self, record: Record, ask: Ask) -> Update:
        return {self.keys.found: captions(self.url, record["image_path"])}


def test_a_call_that_would_wait_for_itself_is_refused(server: LoopbackServer, picture: str) -> None:
    with pytest.raises(OperatorFailed, match=r"write await asyncio.to_thread\(operator, record\)"):
        Blocking(server.base_url)({"image_path": picture})
    assert server.count() == 0


# --- ends of processes

ASKS = """
import gc, os, sys
from dataflow_grounding import CaptionGenerator, OpenAIServing
def asks(**more):
    CaptionGenerator(serving)({{"image_path": {picture!r}, **more}})
serving = OpenAIServing({url!r}, "loopback", timeout=20)
asks()
"""
FORKS = """
for asks_again in (True, False):
    child = os.fork()
    if child == 0:
        if asks_again:
            asks()
        del serving
        gc.collect()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    asks()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize(
    ("rest", "code", "requests"),
    [
        pytest.param("", 0, 1, id="as usual"),
        pytest.param("sys.exit(3)", 3, 1, id="with a code"),
        pytest.param(FORKS, 0, 4, id="after forks"),
    ],
)
def test_a_process_ends_without_a_word_of_its_connections(
    rest: str, code: int, requests: int, server: LoopbackServer, picture: str
) -> None:
    """A forked one doesn't touch its parent's: its parent asks each thing once."""
    script = ASKS.format(picture=picture, url=server.base_url) + rest
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert server.count() == requests

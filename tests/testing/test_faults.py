"""Each fault of the loopback server, seen by a raw HTTP client; limits, counts, and the server as a
process.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPMessage, IncompleteRead, RemoteDisconnected
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
import pytest

from dataflow_grounding.testing import CannedAnswers, LoopbackServer, on
from dataflow_grounding.testing.faults import Fault
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support import faults
from tests.support.forking import Forked
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING
from tests.testing.conftest import Renewed

PATH = "/v1/chat/completions"
CANNED = '{"objects": []}'


def question(caption: str = "a cup", task: str = "image_caption") -> bytes:
    given = json.dumps({"task": task, "caption": caption})
    messages = [{"role": "user", "content": f"<input>{given}</input>"}]
    return json.dumps({"model": "m", "messages": messages}).encode()


@dataclass
class Reply:
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def content(self) -> Any:
        return self.json["choices"][0]["message"]["content"]


def send(
    port: int, body: bytes = b"{}", path: str = PATH, timeout: float = 10, **headers: str
) -> Reply:
    with closing(HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("POST", path, body, headers)
        with connection.getresponse() as reply:
            return Reply(reply.status, reply.headers, reply.read())


@pytest.fixture
def faulty(endpoint: Renewed) -> Renewed:
    """The running server, whose requests meet these faults in turn; the last one meets all others."""

    def with_faults(*kinds: Fault) -> LoopbackServer:
        left = list(kinds)

        def rule(request: ReceivedRequest) -> Fault:
            return left.pop(0) if len(left) > 1 else left[0]

        return endpoint(answers=CannedAnswers(CANNED), faults=rule, record=False)

    return with_faults


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        pytest.param(faults.too_many_requests(), 429, "rate_limit_exceeded", id="rate limit"),
        pytest.param(faults.quota_exceeded(), 429, "insufficient_quota", id="quota"),
        pytest.param(faults.unauthorized(), 401, "invalid_api_key", id="wrong key"),
        pytest.param(faults.forbidden(), 403, "permission_denied", id="forbidden"),
        pytest.param(faults.model_not_found(), 404, "model_not_found", id="unknown model"),
        pytest.param(faults.content_filter(), 400, "content_filter", id="content filter"),
        pytest.param(faults.bad_request("no", "odd"), 400, "odd", id="any 400"),
        pytest.param(faults.server_error(), 500, "server_error", id="500"),
        pytest.param(faults.server_error(529), 529, "server_error", id="529"),
    ],
)
def test_an_error_has_its_status_and_its_code(
    faulty: Renewed, fault: Fault, status: int, code: str
) -> None:
    server = faulty(fault)
    reply = send(server.port)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert (server.count(status), server.paid) == (1, 0)


def test_a_429_says_when_to_come_back_in_seconds_as_a_date_or_not_at_all(
    faulty: Renewed,
) -> None:
    server = faulty(
        faults.too_many_requests(2.5, headers={"x-ratelimit-reset-requests": "1.5s"}),
        faults.too_many_requests(90, http_date=True),
        faults.too_many_requests(),
    )
    seconds, date, none = (send(server.port).headers for _ in range(3))
    assert (seconds["Retry-After"], seconds["x-ratelimit-reset-requests"]) == ("2.5", "1.5s")
    wait = parsedate_to_datetime(date["Retry-After"]) - parsedate_to_datetime(date["Date"])
    assert 89 <= wait.total_seconds() <= 91
    assert "Retry-After" not in none


@pytest.mark.parametrize(
    ("fault", "read"),
    [
        pytest.param(faults.garbage(), b"\x80\x81", id="garbage"),
        pytest.param(faults.empty_body(), b"", id="an empty body"),
        pytest.param(faults.invalid_json(), b'{"choices": [{', id="JSON that breaks off"),
        pytest.param(faults.odd_json("[1]"), b"[1]", id="JSON of another shape"),
        pytest.param(faults.html_error(), b"<!DOCTYPE html>", id="a page"),
    ],
)
def test_a_body_that_is_no_reply(faulty: Renewed, fault: Fault, read: bytes) -> None:
    reply = send(faulty(fault).port)
    assert reply.status == fault.status
    assert reply.body.startswith(read) if read else reply.body == b""


@pytest.mark.slow
def test_answers_are_cut_off_refused_filtered_replaced_or_blown_up(
    faulty: Renewed,
) -> None:
    server = faulty(
        faults.truncated(0.5),
        faults.refusal("no"),
        faults.filtered_reply(),
        faults.says("hi"),
        faults.huge_reply(),
    )
    choices = [send(server.port).json["choices"][0] for _ in range(5)]
    assert server.paid == 5
    cut, refused, filtered, other, huge = choices
    assert (cut["finish_reason"], cut["message"]["content"]) == ("length", CANNED[:7])
    assert (refused["message"]["refusal"], refused["message"]["content"]) == ("no", None)
    assert (filtered["finish_reason"], filtered["message"]["content"]) == ("content_filter", "")
    assert other["message"]["content"] == "hi"
    assert len(huge["message"]["content"]) == 10_000_000


IMPATIENT = 0.3
UNSERVED: dict[str, tuple[Fault, type[Exception]]] = {
    "a cut body": (faults.cut_body(0.9), IncompleteRead),
    "a disconnect": (faults.disconnect(), RemoteDisconnected),
    "a hang": (faults.hang(), TimeoutError),
    "a slow reply": (faults.slow(30), TimeoutError),
    "a dripping reply": (faults.slow_drip(1), TimeoutError),
}


@pytest.mark.parametrize(("fault", "seen"), UNSERVED.values(), ids=UNSERVED)
def test_a_client_that_gets_no_whole_reply_has_not_been_served(
    faulty: Renewed, fault: Fault, seen: type[Exception]
) -> None:
    server = faulty(fault)
    with pytest.raises(seen):
        send(server.port, timeout=IMPATIENT)
    wait_until(lambda: server.abandoned == 1)
    assert (server.paid, server.in_flight) == (0, 0)


def test_a_dripping_reply_comes_in_pieces(faulty: Renewed) -> None:
    server = faulty(faults.slow_drip(1000))
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", PATH, b"{}")
        reply = connection.getresponse()
        first = reply.read1()
        assert 0 < len(first) < int(reply.headers["Content-Length"])
        assert json.loads(first + reply.read())["choices"]
    assert server.paid == 1


@pytest.mark.slow
def test_a_reply_that_the_client_did_not_read_to_its_end_is_not_paid(
    faulty: Renewed,
) -> None:
    server = faulty(faults.huge_reply(30_000_000))
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", PATH, b"{}")
        connection.getresponse().read(1000)
    wait_until(lambda: server.abandoned == 1)
    assert (server.paid, server.in_flight, server.count(200)) == (0, 0, 0)


@pytest.mark.slow
def test_a_server_that_goes_away_comes_back_on_its_port() -> None:
    rule = on(faults.refuse_connections(3.0), times=1)
    with LoopbackServer(CannedAnswers(CANNED), faults=rule, record=False) as server:
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            send(server.port)
        with pytest.raises(ConnectionRefusedError):
            send(server.port)
        wait_until(lambda: is_open(server.port))
        assert send(server.port).content == CANNED
        server.refuse_connections(3600)
        with pytest.raises(ConnectionRefusedError):
            send(server.port)


@pytest.mark.slow
def test_a_stalled_server_answers_everybody_afterwards() -> None:
    with LoopbackServer(CannedAnswers(CANNED), record=False) as server:
        server.stall(1)
        with pytest.raises(TimeoutError):
            send(server.port, timeout=0.1)
        assert send(server.port).content == CANNED


def received(number: int) -> ReceivedRequest:
    text, task = ("a cup", "see") if number % 2 == 0 else ("a dog", "fly")
    return ReceivedRequest(number, 0.0, PATH, {}, input={"task": task}, text=text)


RULES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "a burst": ({"indexes": range(1, 3)}, [1, 2]),
    "the first two": ({"times": 2}, [0, 1]),
    "each question once": ({"times_each": 1}, [0, 1]),
    "one record": ({"containing": "cup"}, [0, 2, 4]),
    "one task": ({"task": "fly"}, [1, 3, 5]),
    "a function": ({"where": lambda request: request.index == 4}, [4]),
    "all conditions together": ({"task": "fly", "times": 1}, [1]),
}


@pytest.mark.parametrize(("conditions", "struck"), RULES.values(), ids=RULES)
def test_a_rule_strikes_the_requests_that_it_names(
    conditions: dict[str, Any], struck: list[int]
) -> None:
    rule = on(faults.hang(), **conditions)
    assert [number for number in range(6) if rule(received(number))] == struck


def test_a_share_of_requests_is_the_same_with_the_same_seed() -> None:
    first, again, other = (on(faults.hang(), share=0.2, seed=seed) for seed in (1, 1, 2))
    struck = [
        [number for number in range(1000) if rule(received(number))]
        for rule in (first, again, other)
    ]
    assert struck[0] == struck[1] != struck[2]
    assert 150 < len(struck[0]) < 250


@pytest.mark.slow
def test_above_its_capacity_a_server_answers_429_and_the_capacity_can_change() -> None:
    async def burst(server: LoopbackServer, count: int) -> list[int]:
        async with aiohttp.ClientSession() as session:

            async def one() -> int:
                async with session.post(f"{server.base_url}/chat/completions", data=b"{}") as reply:
                    await reply.read()
                    return reply.status

            return await asyncio.gather(*(one() for _ in range(count)))

    limit = faults.too_many_requests(0.25)
    with LoopbackServer(
        CannedAnswers(), capacity=3, latency=1.5, limit_fault=limit, record=False
    ) as server:
        assert sorted(asyncio.run(burst(server, 8))) == [200] * 3 + [429] * 5
        server.capacity = 6
        assert sorted(asyncio.run(burst(server, 8))) == [200] * 6 + [429] * 2
        assert (server.paid, server.count(429), server.count()) == (9, 7, 16)


def test_only_the_right_key_is_accepted(endpoint: Renewed) -> None:
    server = endpoint(key="sk-right")
    keys = ("Bearer sk-wrong-one", "Bearer sk-right")
    replies = [send(server.port, question(), Authorization=key) for key in keys]
    assert [reply.status for reply in replies] == [401, 200]


def test_models_are_listed_and_others_are_unknown(endpoint: Renewed) -> None:
    server = endpoint(models=["a", "b"], key="k")
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer k"})
        listed = json.loads(connection.getresponse().read())
    unknown = send(server.port, question(), Authorization="Bearer k")
    assert (unknown.status, server.count(), len(server.requests)) == (404, 1, 1)
    assert [model["id"] for model in listed["data"]] == ["a", "b"]


NOT_TAKEN = {
    "an unknown path": (b"POST /nowhere HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"404"),
    "a chunked body": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
    "a body too long": (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
    "a length below 0": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
    "no HTTP": (b"HELLO\r\n\r\n", b"400"),
    "a head without end": (b"x" * 70_000, b"431"),
}


@pytest.mark.parametrize(("raw", "status"), NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_a_request_that_it_does_not_take_is_answered_all_the_same(
    faulty: Renewed, raw: bytes, status: bytes
) -> None:
    port = faulty(Fault()).port
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(raw)
        assert client.recv(4096).split(b" ")[1] == status


def test_requests_in_small_pieces_and_two_at_once_are_read_right(endpoint: Renewed) -> None:
    body = question("a cup on a table")
    raw = f"POST {PATH} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    server = endpoint()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(raw), 7):
            client.sendall(raw[start : start + 7])
        client.sendall(raw + raw)
        received = b""
        while received.count(b"HTTP/1.1 200") < 3:
            received += client.recv(65536)
    assert {request.input["caption"] for request in server.requests} == {"a cup on a table"}


def test_a_port_that_is_taken_is_an_error_and_leaves_no_thread(one_server: LoopbackServer) -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        LoopbackServer(port=one_server.port).start()
    assert threading.active_count() == before


@pytest.mark.slow
def test_the_server_by_itself_prints_its_address_and_serves_until_it_is_told_to_stop() -> None:
    with by_itself("--text", '{"count": 3}', "--key", "k") as (running, address):
        assert (address.hostname, address.path) == ("127.0.0.1", "/v1")
        assert address.port
        assert send(address.port).status == 401
        own, shipped = (
            send(address.port, asked, Authorization="Bearer k")
            for asked in (question(task="count"), question())
        )
        assert own.content == '{"count": 3}'
        assert json.loads(shipped.content)["caption"].startswith("A ")
        running.terminate()
        assert running.wait(HANGING) == 0


@pytest.mark.slow
def test_the_server_by_itself_answers_shipped_tasks_alone_without_a_text() -> None:
    with by_itself() as (_, address):
        assert address.port
        own = send(address.port, question(task="count"))
        shipped = send(address.port, question())
    assert own.status == 400
    told = own.json["error"]["message"]
    assert "knows the shipped tasks only, not 'count': start it with --text" in told
    assert json.loads(shipped.content)["caption"].startswith("A ")


BY_ITSELF = """
import runpy, sys
sys.argv[1:] = {arguments!r}
runpy.run_module("dataflow_grounding.testing", run_name="__main__")
sys.exit()
"""


@contextmanager
def by_itself(*arguments: str) -> Iterator[tuple[Forked, SplitResult]]:
    """The server as a command, and the address that it prints."""
    running = Forked([], first=BY_ITSELF.format(arguments=arguments))
    try:
        yield running, urlsplit(running.stdout.readline().strip())
    finally:
        running.kill()
        running.communicate()


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0

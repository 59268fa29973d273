"""The endpoint down, the budget over, clients that hang up, a kill: nothing is paid twice."""

from __future__ import annotations

import base64
import io
import json
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support import faults
from tests.support.served import Answer, Served, paid_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def body_of(number: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (number, 90, 160)).save(file, "PNG")
    return {"image": base64.b64encode(file.getvalue()).decode(), "phrases": ["a cup"]}


def digests(requests: Iterable[ReceivedRequest]) -> list[str]:
    """The pictures that were asked about, without those of checks."""
    return [one.images[0].digest for one in requests if not asks_for_rectangles(one)]


def asked_together(served: Served, count: int, at_once: int) -> list[Answer]:
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda number: served.post("/ground", body_of(number)), range(count)))


def test_equal_requests_at_once_are_paid_once(
    tmp_path: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    with Served(tmp_path, **variables) as served, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: served.post("/ground", body_of(1)), range(8)))
    assert [answer.body for answer in answers] == [answers[0].body] * 8
    assert paid_for(endpoint) == 1


def test_killed_amid_fifty_requests_nothing_is_paid_twice(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    endpoint.latency = 0.05
    with Served(tmp_path, **variables) as served, ThreadPoolExecutor(8) as pool:
        for number in range(50):
            pool.submit(_ask_until_cut, served, number)
        wait_until(lambda: paid_for(endpoint) >= 20)
        served.process.kill()
        served.process.wait()
    wait_until(lambda: endpoint.in_flight == 0)
    before = len(endpoint.requests)
    stored = _stored_pictures(tmp_path)
    with Served(tmp_path, **variables) as served:
        answers = asked_together(served, 50, 8)
    assert [answer.status for answer in answers] == [200] * 50
    answered = digests(one for one in endpoint.requests[:before] if one.status_sent == 200)
    again = digests(endpoint.requests[before:])
    assert len(again) == len(set(again)) == 50 - stored
    # a reply that was on its way when the process was killed is lost; no other is
    assert len(set(answered).intersection(again)) <= 8


def _ask_until_cut(served: Served, number: int) -> None:
    try:
        served.post("/ground", body_of(number))
    except OSError:
        pass


def _stored_pictures(folder: Path) -> int:
    [store] = folder.glob("cache/**/.ckpt/replies.jsonl")
    lines = [json.loads(line) for line in store.read_text().splitlines() if line.endswith("}")]
    return sum("reply" in line and "rectangle" not in line["reply"] for line in lines)


def test_an_endpoint_that_is_down_is_503_with_the_reason_and_may_come_back(
    tmp_path: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    with Served(tmp_path, **variables) as served:
        endpoint.refuse_connections(3600)
        down = served.post("/ground", body_of(1))
        port = endpoint.port
        with LoopbackServer(EchoAnswers("xyxy_px"), port=port):
            up = served.post("/ground", body_of(1))
        code, said = served.end()
    assert down.status == 503
    assert f"127.0.0.1:{port}" in down.body["error"]
    assert "check the address and the server" in down.reason
    assert (up.status, code) == (200, 0)
    assert "Traceback" not in said


def test_a_wrong_key_is_told_without_the_key(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    message = f"Incorrect API key provided: {variables['DF_API_KEY']}."
    rule = on(faults.Fault(401, message, "invalid_api_key"))
    endpoint.faults = rule
    with Served(tmp_path, **variables) as served:
        answer = served.post("/ground", body_of(1))
        _, said = served.end()
    assert answer.status == 503
    assert "Incorrect API key" in answer.body["error"]
    for text in (json.dumps(answer.body), answer.reason, said):
        assert variables["DF_API_KEY"] not in text


def test_over_the_budget_stored_replies_are_still_answered(
    tmp_path: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    settings = ["image_grounding.workflow.max_requests=1", "image_grounding.vlm.check_every=null"]
    with Served(tmp_path, "--results", "results", *settings, **variables) as served:
        first = served.post("/ground", body_of(1))
        over = [served.post("/ground", body_of(number)) for number in (2, 3)]
        again = served.post("/ground", body_of(1))
    assert [first.status, again.status] == [200, 200]
    assert [answer.status for answer in over] == [503, 503], "a budget stays used up"
    assert "workflow.max_requests" in over[0].body["error"]
    assert again.body == first.body
    assert paid_for(endpoint) == 1
    assert (tmp_path / "results" / ".ckpt" / "replies.jsonl").exists()


def test_on_a_full_disk_nothing_more_is_paid_for_until_a_restart(
    tmp_path: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    store = tmp_path / "results" / ".ckpt" / "replies.jsonl"
    with Served(tmp_path, "--results", str(tmp_path / "results"), **variables) as served:
        assert served.post("/ground", body_of(0)).status == 200
        full = (store.stat().st_size, resource.RLIM_INFINITY)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, full)
        lost = [served.post("/ground", body_of(number)) for number in (1, 2, 1)]
        assert [answer.status for answer in lost] == [503] * 3
        assert "can't write .ckpt/replies.jsonl" in lost[0].body["error"]
        assert str(tmp_path) not in str(lost)
        # an error of another kind in between changes nothing
        broken = {"image": base64.b64encode(b"no picture").decode(), "phrases": ["a cup"]}
        assert served.post("/ground", broken).status == 400
        assert served.post("/ground", body_of(3)).status == 503
        assert paid_for(endpoint) == 2
        assert served.post("/ground", body_of(0)).status == 200
    with Served(tmp_path, "--results", str(tmp_path / "results"), **variables) as served:
        assert served.post("/ground", body_of(1)).status == 200
    assert paid_for(endpoint) == 3


def test_too_many_that_wait_are_429_and_told_when_to_come_again(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    endpoint.faults = on(faults.Fault(hang=True))
    with Served(tmp_path, bounds={"QUEUE": 0, "SECONDS": 3}, **variables) as served:
        answers = asked_together(served, 40, 40)
        late = served.post("/ground", body_of(1))
    busy = [answer for answer in answers if answer.status == 429]
    assert len(busy) == 40 - 32  # 16 in flight, and as many that are made ready
    assert {answer.headers["Retry-After"] for answer in busy} == {"5"}
    waited = [answer for answer in answers if answer.status == 503]
    assert len(waited) == 32
    assert "no answer in 3 s" in waited[0].body["error"]
    assert late.status == 503


def test_a_reply_is_kept_whose_client_hung_up(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    endpoint.latency = 0.3
    with Served(tmp_path, **variables) as served:
        data = json.dumps(body_of(1)).encode()
        head = f"POST /ground HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n"
        client = socket.create_connection(("127.0.0.1", served.port))
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
        wait_until(lambda: paid_for(endpoint) == 1)
        client.close()
        wait_until(lambda: endpoint.in_flight == 0)
        answer = served.post("/ground", body_of(1))
        code, said = served.end()
    assert (answer.status, paid_for(endpoint), code) == (200, 1, 0)
    assert "Traceback" not in said


def test_ctrl_c_finishes_what_is_in_flight(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    endpoint.latency = 0.5
    with Served(tmp_path, **variables) as served, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(served.post, "/ground", body_of(n)) for n in range(4)]
        wait_until(lambda: paid_for(endpoint) == 4)
        code, said = served.end()
        answers = [one.result() for one in waiting]
    assert [answer.status for answer in answers] == [200] * 4
    assert code == 0
    assert "Finishing what is in flight" in said


def test_it_goes_on_where_its_folder_of_pictures_is_removed(
    tmp_path: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    with Served(tmp_path, "--results", "results", **variables) as served:
        assert served.post("/ground", body_of(1)).status == 200
        shutil.rmtree(tmp_path / "results" / ".ckpt" / "pictures")
        assert served.post("/ground", body_of(2)).status == 200
    assert paid_for(endpoint) == 2


def test_a_second_ctrl_c_ends_at_once(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    endpoint.faults = on(faults.Fault(hang=True))
    with Served(tmp_path, **variables) as served:
        thread = threading.Thread(target=_ask_until_cut, args=(served, 1))
        thread.start()
        wait_until(lambda: len(endpoint.requests) > 0)
        served.process.send_signal(signal.SIGINT)
        while "Finishing" not in served.process.stderr.readline():
            pass
        code, _ = served.end()
        thread.join()
    assert code == 130


def test_what_is_in_flight_is_shared_when_another_request_stops_the_run(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    def refuse(request: ReceivedRequest) -> faults.Fault | None:
        asked = [phrase["text"] for phrase in request.input.get("phrases", [])]
        return faults.Fault(401, "no", "invalid_api_key") if asked == ["bad"] else None

    def latency(request: ReceivedRequest) -> float:
        asked = [phrase["text"] for phrase in request.input.get("phrases", [])]
        return 1.0 if asked == ["slow"] else 0.0

    endpoint.faults = refuse
    endpoint.latency = latency
    with Served(tmp_path, **variables) as served, ThreadPoolExecutor(2) as pool:
        assert served.post("/ground", body_of(1)).status == 200
        slow = {**body_of(2), "phrases": ["slow"]}
        first = pool.submit(served.post, "/ground", slow)
        wait_until(lambda: paid_for(endpoint) == 2)
        assert served.post("/ground", {**body_of(3), "phrases": ["bad"]}).status == 503
        second = pool.submit(served.post, "/ground", slow)
        assert (first.result().status, second.result().status) == (200, 200)
    assert paid_for(endpoint) == 3

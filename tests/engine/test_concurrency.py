"""A second run of a folder sends as many requests at once, from its first answer on, as the first
one did at its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dataflow_grounding.engine import limiter
from dataflow_grounding.engine.concurrency import resumed
from dataflow_grounding.serving import OpenAIServing, SeveralEndpoints
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, faults
from tests.support.workplace import Done, Workplace, ended

pytestmark = pytest.mark.slow

MOST = 64
START = 32  # with which a run begins that knows nothing
ENOUGH = 48  # half-way: a busy machine doesn't send all of them before the first answers come
SECONDS = 0.6  # that an answer takes: a busy machine sends as many requests meanwhile


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(EchoAnswers(), latency=SECONDS) as running:
        yield running


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    workplace.settings |= {"vlm.openai.base_url": server.base_url, "workflow.max_workers": MOST}
    return workplace


def run(place: Workplace, server: LoopbackServer, rows: int, **settings: Any) -> int:
    """Have that many rows done; how many requests were on their way at once after the first answer,
    until there was another.
    """
    place.many(rows)
    server.requests.clear()
    done = run_without_memory(place, **settings)
    assert done.code == 0, done
    return at_once(server)


def run_without_memory(place: Workplace, **settings: Any) -> Done:
    """A run that knows of earlier ones what its folder tells, as one in a new process does."""
    limiter._limiters.clear()
    return place.run(**settings)


def slow_after_the_first(server: LoopbackServer) -> None:
    """From now on all but the first of the answers that are under way at once take so long that a
    busy machine has sent its requests before them.
    """
    before = server.count()

    def latency(request: ReceivedRequest) -> float:
        if request.index == before:
            return SECONDS
        return 6 * SECONDS if request.index < before + MOST else SECONDS / 6

    server.latency = latency


def at_once(server: LoopbackServer) -> int:
    first, *others = sorted(
        (request for request in server.requests), key=lambda request: request.time
    )
    second_answer = min(request.time_sent or 1e9 for request in others)
    assert first.time_sent is not None
    return sum(first.time_sent <= request.time < second_answer for request in others)


def test_a_second_run_begins_where_the_first_one_ended(
    place: Workplace, server: LoopbackServer
) -> None:
    assert run(place, server, 60) <= START + 1
    place.many(130)
    server.requests.clear()
    slow_after_the_first(server)
    assert ended(place.start()).code == 0
    assert at_once(server) >= ENOUGH


def test_a_lower_limit_another_endpoint_and_nonsense_begin_anew(
    place: Workplace, server: LoopbackServer
) -> None:
    run(place, server, 60)
    server.max_in_flight = 0
    run(place, server, 65, **{"workflow.max_workers": 4})
    assert server.max_in_flight == 4
    kept = place.results / ".ckpt" / "concurrency.json"
    known = json.loads(kept.read_text())
    assert len(known) == 2
    with LoopbackServer(EchoAnswers(), latency=SECONDS) as other:
        assert run(place, other, 105, **{"vlm.openai.base_url": other.base_url}) <= START + 1
    known = json.loads(kept.read_text())
    assert found(server, place) in known.values()
    kept.unlink()
    as_new = found(server, place)
    assert as_new not in known.values()
    for nonsense in (
        "[",
        "[1]",
        *(json.dumps({name: {"places": value} for name in known}) for value in (1e400, "many", -3)),
    ):
        kept.write_text(nonsense)
        assert found(server, place) == as_new


def found(server: LoopbackServer, place: Workplace) -> dict[str, float | None]:
    """With how many places a run would begin that knows what the folder tells."""
    limiter._limiters.clear()
    serving = OpenAIServing(server.base_url, "loopback", max_workers=MOST)
    with resumed(str(place.results / ".ckpt"), [serving]):
        return limiter.share_of(serving).found._asdict()


def test_an_endpoint_that_refused_is_not_overrun_again(
    place: Workplace, server: LoopbackServer
) -> None:
    server.capacity, server.limit_fault = 6, faults.too_many_requests()
    run(place, server, 40)
    place.many(55)
    server.requests.clear()
    assert run_without_memory(place).code == 0
    assert [request.status_sent for request in server.requests[:20]].count(429) == 0


def test_of_several_endpoints_each_goes_on(workplace: Workplace, server: LoopbackServer) -> None:
    with LoopbackServer(latency=SECONDS) as other:
        addresses = [server.base_url, other.base_url]
        both = {"vlm.openai.endpoints": addresses, "workflow.max_workers": 2 * MOST}
        workplace.many(120)
        assert run_without_memory(workplace, **both, **{"vlm.openai.base_url": ""}).code == 0
    known = json.loads((workplace.results / ".ckpt" / "concurrency.json").read_text())
    assert len(known) == 2
    limiter._limiters.clear()
    parts = [OpenAIServing(address, "loopback", max_workers=2 * MOST) for address in addresses]
    with resumed(str(workplace.results / ".ckpt"), [SeveralEndpoints(parts)]):
        for part in parts:
            found = limiter.share_of(part).found
            assert found.places > START
            assert found._asdict() in known.values()

"""How many requests a run sends at once: to an endpoint of which it knows nothing, to one that an earlier
run asked, and after refusals that come late.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dataflow_grounding import CaptionGenerator, PhraseGrounder
from dataflow_grounding._util.errors import EndpointRefused
from dataflow_grounding.engine import limiter
from dataflow_grounding.engine.concurrency import resumed
from dataflow_grounding.engine.facts import keep_fact
from dataflow_grounding.engine.limiter import Level, Sent
from dataflow_grounding.serving import OpenAIServing, SeveralEndpoints
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support import faults
from tests.support.workplace import Done, Workplace, ended


def grow(level: Level, places: int) -> None:
    while level.places < places:
        answered(level, level.send())


def answered(level: Level, sent: Sent) -> None:
    level.answered(sent)


def test_a_refusal_at_a_probe_is_not_counted_with_a_flight_of_long_ago() -> None:
    level = Level(most=1000)
    grow(level, 100)
    for number in [level.send() for _ in range(14)]:
        level.refused(number, in_flight=100)
    assert level.places == 85  # cut once for the flight, of which 86 were accepted
    while level.places <= level.found.places:
        before_probe = level.send()
        answered(level, before_probe)
    probed = level.places
    level.refused(before_probe, in_flight=probed)
    assert level.places == probed  # it was sent before the probe, and tells nothing of it
    level.refused(level.send(), in_flight=probed)
    assert level.places == probed - 1  # back to where the probe began


def test_refusals_of_one_flight_are_counted_together() -> None:
    level = Level(most=1000)
    grow(level, 100)
    numbers = [level.send() for _ in range(100)]
    for number in numbers[:30]:
        level.refused(number, in_flight=100)
    assert level.places == 70


START, MOST = 32, 64  # places: with which a run begins that knows nothing, and max_workers


def rows(place: Workplace, count: int) -> list[dict[str, Any]]:
    path = str(place.folder / place.picture())
    return [{"image_path": path, "expressions": [f"a cup {n}"]} for n in range(count)]


def grounder(server: LoopbackServer, **settings: Any) -> PhraseGrounder:
    settings = {"max_workers": MOST, "box_format": "xyxy_px", **settings}
    return PhraseGrounder(OpenAIServing(server.base_url, "loopback", **settings))


def received_before(server: LoopbackServer, answers: int) -> list[ReceivedRequest]:
    """The requests that came before so many were answered."""
    times = sorted(request.time_sent or 1e9 for request in server.requests)
    return [request for request in server.requests if request.time < times[answers - 1]]


def test_the_first_request_and_the_check_go_out_together_and_nothing_else(
    workplace: Workplace,
) -> None:
    with LoopbackServer(latency=1.0) as server:
        grounder(server)(rows(workplace, 4))
        first = received_before(server, 1)
        assert sorted(map(asks_for_rectangles, first)) == [False, True]
        assert server.count() >= 5


def test_a_wrong_key_costs_two_requests_and_one_where_nothing_is_checked(
    workplace: Workplace,
) -> None:
    with LoopbackServer(key="right") as server:
        with pytest.raises(EndpointRefused):
            grounder(server)(rows(workplace, 8))
        sent = server.count()
        assert sent == server.count(401) <= 2
        with pytest.raises(EndpointRefused):
            CaptionGenerator(OpenAIServing(server.base_url, "another"))(rows(workplace, 8))
        assert server.count() == sent + 1


def test_the_first_answer_opens_32_places_and_the_answers_of_these_64(workplace: Workplace) -> None:
    def latency(request: ReceivedRequest) -> float:
        return 0.2 if request.index < 2 else 2.0

    with LoopbackServer(latency=latency) as server:
        grounder(server, timeout=900)(rows(workplace, 1 + START + MOST))
        assert len(received_before(server, 3)) == 2 + START
        assert server.max_in_flight == MOST


def test_a_server_that_answers_one_by_one_is_soon_asked_no_more_than_it_answers_in_time(
    workplace: Workplace,
) -> None:
    service, timeout = 0.15, 3.0
    free_at = 0.0

    def latency(request: ReceivedRequest) -> float:
        nonlocal free_at
        free_at = max(free_at, request.time) + service
        return free_at - request.time

    with LoopbackServer(latency=latency) as server:
        found = grounder(server, timeout=timeout)(rows(workplace, 50))
        assert len(found) == 50
        # the last of 32 wait too long; each of them is asked once more
        assert server.max_in_flight <= START
        assert server.count() - server.count(200) <= 2 * START


def test_a_server_with_8_places_refuses_one_request_in_eleven_at_most(workplace: Workplace) -> None:
    with LoopbackServer(latency=0.2, capacity=8, record=False) as server:
        found = grounder(server)(rows(workplace, 400))
        assert len(found) == 400
        assert server.count(429) > 0
        assert server.count() <= 1.1 * server.count(200)


ENOUGH = 48  # half-way between them: a busy machine doesn't send all of them before the first answers come
SECONDS = 0.4  # that an answer takes: a busy machine sends as many requests meanwhile


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(latency=SECONDS) as running:
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
        return 8 * SECONDS if request.index < before + MOST else SECONDS / 6

    server.latency = latency


def at_once(server: LoopbackServer) -> int:
    first, *others = sorted(server.requests, key=lambda request: request.time)
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
    kept = place.results / ".ckpt" / "facts.json"
    known = json.loads(kept.read_text())["facts"]["places"]
    assert len(known) == 2
    with LoopbackServer(latency=SECONDS) as other:
        assert run(place, other, 105, **{"vlm.openai.base_url": other.base_url}) <= START + 1
    known = json.loads(kept.read_text())["facts"]["places"]
    assert found(server, place) in known.values()
    kept.unlink()
    renew = found(server, place)
    assert renew not in known.values()
    for nonsense in ("[", "[1]", '{"facts": 3}', '{"facts": {"places": {}}, "sum": 1}'):
        kept.write_text(nonsense)
        assert found(server, place) == renew
    for value in ("many", -3, [1]):
        keep_fact(str(kept.parent), "places", {name: {"places": value} for name in known})
        assert found(server, place) == renew


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
        workplace.many(90)
        assert run_without_memory(workplace, **both, **{"vlm.openai.base_url": ""}).code == 0
    facts = json.loads((workplace.results / ".ckpt" / "facts.json").read_text())["facts"]
    known = facts["places"]
    assert len(known) == 2
    limiter._limiters.clear()
    parts = [OpenAIServing(address, "loopback", max_workers=2 * MOST) for address in addresses]
    with resumed(str(workplace.results / ".ckpt"), [SeveralEndpoints(parts)]):
        for part in parts:
            found = limiter.share_of(part).found
            assert found.places > START
            assert found._asdict() in known.values()

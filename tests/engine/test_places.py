"""How many requests a run sends at once: to an endpoint of which it knows nothing, and after refusals
that come late.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from dataflow_grounding import CaptionGenerator, PhraseGrounder
from dataflow_grounding._util.errors import EndpointRefused
from dataflow_grounding.engine.limiter import Level
from dataflow_grounding.grounded import Grounded, aground
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.workplace import Workplace


def grow(level: Level, places: int) -> None:
    while level.places < places:
        level.answered(level.send(in_flight=2))


def test_a_refusal_at_a_probe_is_not_counted_with_a_flight_of_long_ago() -> None:
    level = Level(most=1000)
    grow(level, 100)
    for number in [level.send() for _ in range(14)]:
        level.refused(number, in_flight=100)
    assert level.places == 86  # as many were accepted
    while level.places == 86:
        before_probe = level.send()
        level.answered(before_probe)
    assert level.places == 87
    level.refused(before_probe, in_flight=87)
    assert level.places == 87  # it was sent before the probe, and tells nothing of it
    level.refused(level.send(), in_flight=87)
    assert level.places == 86


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
        # The last of 32 wait too long; each of them is asked once more. On a busy machine a few more
        # are let in before the pace is known.
        assert server.max_in_flight < 2 * START
        assert server.count() - server.count(200) <= 2 * START


def test_a_server_with_8_places_refuses_one_request_in_eleven_at_most(workplace: Workplace) -> None:
    with LoopbackServer(latency=0.2, capacity=8, record=False) as server:
        found = grounder(server)(rows(workplace, 400))
        assert len(found) == 400
        assert server.count(429) > 0
        assert server.count() <= 1.1 * server.count(200)


def test_calls_that_begin_leave_those_alone_who_wait_for_a_place(workplace: Workplace) -> None:
    """Each is prepared in the thread of its caller, while others wait on the loop's for a place."""
    picture = workplace.folder / workplace.picture()
    before = sys.getswitchinterval()

    async def all_of_them(serving: OpenAIServing) -> list[Grounded]:
        settings: dict[str, Any] = {"serving": serving, "check_every": None}
        return await asyncio.gather(*(aground(picture, f"c {n}", **settings) for n in range(300)))

    with LoopbackServer(record=False) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px", max_workers=4)
        sys.setswitchinterval(1e-5)  # threads take turns at nearly every step
        try:
            found = asyncio.run(all_of_them(serving))
        finally:
            sys.setswitchinterval(before)
    assert len(found) == 300

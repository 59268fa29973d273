"""How many requests a run sends at once to an endpoint of which it knows nothing."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding import CaptionGenerator, PhraseGrounder
from dataflow_grounding._util.errors import EndpointRefused
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.workplace import Workplace

FIRST, THEN = 32, 64  # places


def rows(place: Workplace, count: int) -> list[dict[str, Any]]:
    path = str(place.folder / place.picture())
    return [{"image_path": path, "expressions": [f"a cup {n}"]} for n in range(count)]


def grounder(server: LoopbackServer, **settings: Any) -> PhraseGrounder:
    settings = {"max_workers": THEN, "box_format": "xyxy_px", **settings}
    return PhraseGrounder(OpenAIServing(server.base_url, "loopback", **settings))


def received_before(server: LoopbackServer, answers: int) -> list[ReceivedRequest]:
    """The requests that came before so many were answered."""
    times = sorted(request.time_sent or 1e9 for request in server.requests)
    return [request for request in server.requests if request.time < times[answers - 1]]


def test_the_first_request_and_the_check_go_out_together_and_nothing_else(
    workplace: Workplace,
) -> None:
    with LoopbackServer(EchoAnswers(), latency=1.0) as server:
        grounder(server)(rows(workplace, 8))
        first = received_before(server, 1)
        assert sorted(map(asks_for_rectangles, first)) == [False, True]
        assert server.count() >= 9


def test_a_wrong_key_costs_two_requests_and_one_where_nothing_is_checked(
    workplace: Workplace,
) -> None:
    with LoopbackServer(EchoAnswers(), key="right") as server:
        with pytest.raises(EndpointRefused):
            grounder(server)(rows(workplace, 8))
        sent = server.count()
        assert sent == server.count(401) <= 2
        with pytest.raises(EndpointRefused):
            CaptionGenerator(OpenAIServing(server.base_url, "another"))(rows(workplace, 8))
        assert server.count() == sent + 1


def test_the_first_answer_opens_32_places_and_the_answers_of_these_64(workplace: Workplace) -> None:
    def latency(request: ReceivedRequest) -> float:
        return 0.3 if request.index < 2 else 3.0

    with LoopbackServer(EchoAnswers(), latency=latency) as server:
        grounder(server, timeout=900)(rows(workplace, 1 + FIRST + THEN))
        assert len(received_before(server, 3)) == 2 + FIRST
        assert server.max_in_flight == THEN


def test_a_server_that_answers_one_by_one_is_asked_nothing_twice(workplace: Workplace) -> None:
    service, timeout = 0.25, 5.0
    free_at = 0.0

    def latency(request: ReceivedRequest) -> float:
        nonlocal free_at
        free_at = max(free_at, request.time) + service
        return free_at - request.time

    with LoopbackServer(EchoAnswers(), latency=latency) as server:
        grounder(server, timeout=timeout)(rows(workplace, 60))
        assert server.count() == server.count(200)
        assert server.max_in_flight < timeout / service, "the last of 32 would wait too long"


def test_a_server_with_8_places_refuses_one_request_in_eleven_at_most(
    workplace: Workplace,
) -> None:
    with LoopbackServer(EchoAnswers(), latency=0.25, capacity=8) as server:
        found = grounder(server)(rows(workplace, 500))
        assert len(found) == 500
        assert server.count(429) > 0
        assert server.count() <= 1.1 * server.count(200)

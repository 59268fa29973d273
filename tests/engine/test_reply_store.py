"""The store of a run's replies, as those find it who only read."""

from __future__ import annotations

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace, command

pytestmark = pytest.mark.slow

COUNT = 6


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(COUNT)
    workplace.settings |= {"vlm.check_every": 100, "vlm.box_format": "xyxy_1000"}
    return workplace


def run(place: Workplace, server: LoopbackServer) -> int:
    return place.run(**{"vlm.openai.base_url": server.base_url}).code


def test_an_estimate_touches_no_store_not_even_a_line_that_is_being_written(
    place: Workplace,
) -> None:
    with endpoint_of(place, EchoAnswers("xyxy_1000")) as server:
        before = command(["estimate", "-e", str(place.spec()), "--json"]).summary
        assert (before["stored"], place.replies.parent.exists()) == (0, False)
        assert run(place, server) == 0
        with place.replies.open("ab") as store:
            store.write(b'{"key": "0123')
        held = place.replies.read_bytes()
        after = command(["estimate", "-e", str(place.spec()), "--json"]).summary
    assert (after["requests"], after["stored"]) == (0, 2 * COUNT)
    assert place.replies.read_bytes() == held

"""A living gateway in front of a dead model: found out by a few requests, and said at once."""

from __future__ import annotations

import json
import re

import pytest

from dataflow_grounding.engine import _endpoints
from dataflow_grounding.testing import faults, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace

# what LiteLLM 1.108.7 answers where it can't reach the model
SAID = "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error."
DEAD = Fault(500, body=json.dumps({"error": {"message": SAID, "code": "500"}}).encode())


@pytest.fixture
def ten(workplace: Workplace) -> Workplace:
    workplace.many(10)
    return workplace


def test_ten_failed_requests_stop_the_run_and_nothing_is_marked(ten: Workplace) -> None:
    with endpoint_of(ten, faults=on(DEAD)) as server:
        done = ten.run()
        assert done.code == 4, done
        assert server.received == 10
        assert server.max_in_flight == 1
        assert re.search(r"Note: no answer in 0 s, still trying: .*Connection error", done.err)
        assert "Nothing was answered: check the address and the server" in done.err
        assert not ten.failures()
        server.faults = []
        again = ten.run()
        assert (again.code, again.summary["done"]) == (0, 10), again


def test_a_minute_of_failed_requests_stops_the_run(
    ten: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_endpoints, "SECONDS_AT_THE_START", 0.3)
    with endpoint_of(ten, faults=on(DEAD), latency=0.2) as server:
        done = ten.run()
    assert done.code == 4, done
    assert 2 <= server.received <= 5


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.server_error(503), id="busy"),
        pytest.param(Fault(500, "loading", retry_after=0.05), id="asks to wait"),
    ],
)
def test_a_server_that_is_not_ready_yet_is_waited_for(
    ten: Workplace, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_endpoints, "SECONDS_AT_THE_START", 0.1)
    rule = on(fault, indexes=range(6))
    with endpoint_of(ten, faults=rule):
        done = ten.run()
    assert (done.code, done.summary["done"]) == (0, 10), done

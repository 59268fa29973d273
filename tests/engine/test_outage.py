"""An endpoint that answers nothing for a while costs no record a try; for too long, or from the start, it
ends the run.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from dataflow_grounding.engine import progress
from dataflow_grounding.engine.senders import retry, silence
from dataflow_grounding.testing import LoopbackServer, on
from dataflow_grounding.testing.faults import Fault
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support import faults
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace, caption, command


def down(after: int, seconds: float) -> Callable[[ReceivedRequest], bool]:
    """Whether the server is down: from this many requests on, for this long."""
    began: list[float] = []

    def is_down(request: ReceivedRequest) -> bool:
        if request.index < after:
            return False
        began.append(time.monotonic())
        return began[-1] - began[0] < seconds

    return is_down


def questions(server: LoopbackServer) -> int:
    return sum(map(is_small, server.requests))


def is_small(request: ReceivedRequest) -> bool:
    return not request.images


def test_an_outage_costs_no_record_a_try_and_the_progress_line_says_for_how_long(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "OUTAGE_AFTER", 1.0)
    monkeypatch.setattr(silence, "SAID_AFTER", 1.0)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.3)
    workplace.many(20)
    rule = on(Fault(503, "upstream down"), where=down(14, 3.0))
    with endpoint_of(workplace, faults=rule, latency=0.05) as server:
        done = command([each for each in workplace.arguments() if each != "--no-progress"])
        assert (done.code, done.summary["done"]) == (0, 20), done
        said = [line for line in done.err.splitlines() if "no answer for" in line]
        # before it, a note may say that the endpoint is slow, where the machine is
        assert any(re.search("no answer for [0-9]+ s: 503: upstream down", line) for line in said)
        assert not any(" left" in line for line in said)
        assert questions(server) >= 2
        # sixteen records are under way, each tried three times before an outage is suspected
        # a question without a picture is followed by one with the picture that was answered last
        assert server.received <= 40 + 16 * 3 + 2 * questions(server)


@pytest.mark.parametrize(
    "fault", [faults.disconnect(), faults.empty_body()], ids=["closed", "empty"]
)
def test_nothing_that_is_no_answer_costs_a_try(
    workplace: Workplace, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "OUTAGE_AFTER", 0.5)
    workplace.many(12)
    rule = on(fault, where=down(14, 2.5))
    with endpoint_of(workplace, faults=rule, latency=0.05) as server:
        done = workplace.run()
        assert (done.code, done.summary["done"]) == (0, 12), done
        assert questions(server) >= 2


def test_one_that_lasts_too_long_ends_the_run_and_the_same_command_goes_on(
    workplace: Workplace,
) -> None:
    workplace.many(12)
    rule = on(faults.server_error(503), indexes=range(14, 1000))
    with endpoint_of(workplace, faults=rule, latency=0.05) as server:
        workplace.settings["vlm.openai.timeout"] = 1  # an answer may take that long
        done = workplace.run(**{"workflow.max_wait": 1})
        assert done.code == 3, done
        assert "Nothing was answered for" in done.err
        assert "run again to go on" in done.err
        assert not workplace.failures()
        server.faults = []
        again = workplace.run(**{"workflow.max_wait": 1})
        assert (again.code, again.summary["done"]) == (0, 12), again
        assert server.paid == 24


def test_waiting_for_a_slow_answer_is_no_outage(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "OUTAGE_AFTER", 0.2)
    workplace.many(6)
    with endpoint_of(workplace, latency=1.0) as server:
        assert workplace.run().code == 0
        assert questions(server) == 0


def test_an_endpoint_that_hangs_ends_the_run_within_a_request_s_timeout(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SAID_AFTER", 0.5)
    workplace.many(12)
    with endpoint_of(workplace, faults=on(faults.slow(300), indexes=range(5, 1000))) as server:
        done = workplace.run(**{"workflow.max_wait": 2, "vlm.openai.timeout": 300})
        assert done.code == 3, done
        assert "workflow.max_wait: 2 is less than the timeout of a request (300 s)" in done.err
        assert done.err.count("the endpoint is slow, or hangs") == 1
        assert "requests hang. Nothing was answered for 2 s" in done.err
        server.faults = []
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 12), again


def test_a_wait_that_one_reply_asks_for_stops_no_run_whose_other_requests_are_answered(
    workplace: Workplace,
) -> None:
    workplace.many(20)
    rule = on(faults.too_many_requests(3600), indexes=[20])
    with endpoint_of(workplace, faults=rule, latency=0.05):
        done = workplace.run()
    assert (done.code, done.summary["done"]) == (0, 20), done


def test_an_endpoint_that_is_busy_from_the_start_is_waited_for(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "OUTAGE_AFTER", 0.5)
    workplace.many(4)
    with endpoint_of(workplace, faults=on(faults.server_error(503), where=down(0, 2.5))):
        assert workplace.run().code == 0


def test_an_outage_that_ends_when_the_question_is_asked_costs_no_record(
    workplace: Workplace,
) -> None:
    workplace.many(30)
    rule = on(faults.server_error(500), where=down(20, 1.9))
    with endpoint_of(workplace, faults=rule, latency=0.05):
        done = workplace.run(**{"workflow.max_workers": 16})
    assert (done.code, done.summary["done"]) == (0, 30), done


def test_answers_to_earlier_requests_say_nothing_of_an_endpoint_now(workplace: Workplace) -> None:
    workplace.many(40)
    is_down = down(30, 5.0)
    rules = [
        on(faults.server_error(502), where=is_down),
        on(Fault(delay=2.0), where=lambda request: request.index % 3 == 0),
    ]
    with endpoint_of(workplace, faults=rules, latency=0.2):
        done = workplace.run(**{"workflow.max_workers": 16})
    assert (done.code, done.summary["done"]) == (0, 40), done


def test_rate_limits_in_an_outage_do_not_end_it(workplace: Workplace) -> None:
    workplace.many(30)
    is_down = down(20, 4.5)
    rules = [
        on(faults.too_many_requests(), where=is_down, share=0.5, seed=3),
        on(faults.server_error(502), where=is_down),
    ]
    with endpoint_of(workplace, faults=rules, latency=0.05):
        done = workplace.run(**{"workflow.max_workers": 16})
    assert (done.code, done.summary["done"]) == (0, 30), done


def test_where_words_alone_are_answered_pictures_fail_and_the_run_ends(
    workplace: Workplace,
) -> None:
    workplace.many(30)
    rule = on(
        faults.server_error(500), where=lambda request: request.index > 24 and bool(request.images)
    )
    with endpoint_of(workplace, faults=rule, latency=0.02):
        done = workplace.run()
    assert done.code == 1, done
    assert all(failure["retry"] for failure in workplace.failures())


def test_at_a_server_that_fails_without_a_picture_records_fail_alone_as_well(
    workplace: Workplace,
) -> None:
    workplace.many(12)
    rule = on(
        faults.server_error(500),
        where=lambda request: not request.images or caption(11) in request.text,
    )
    with endpoint_of(workplace, faults=rule):
        done = workplace.run(**{"workflow.max_workers": 1})
    assert (done.code, done.summary["failed"]) == (1, 1), done


# --- from the start: a living gateway in front of a dead model, say

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
        assert SAID in done.err
        assert "Nothing was answered: check the address and the server" in done.err
        assert not ten.failures()
        server.faults = []
        again = ten.run()
        assert (again.code, again.summary["done"]) == (0, 10), again


def test_a_minute_of_failed_requests_stops_the_run(
    ten: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SECONDS_AT_THE_START", 0.3)
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
    monkeypatch.setattr(retry, "SECONDS_AT_THE_START", 0.1)
    rule = on(fault, indexes=range(6))
    with endpoint_of(ten, faults=rule):
        done = ten.run()
    assert (done.code, done.summary["done"]) == (0, 10), done

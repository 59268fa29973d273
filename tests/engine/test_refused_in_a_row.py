"""Ten refusals in a row: a plain question tells whether they are the endpoint's or the records'."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace

FILTERED = "Your request was flagged by our content policy."
PLAIN = "the blue rectangle"


def refusal(status: int, message: str) -> Fault:
    return Fault(status, body=json.dumps({"error": {"message": message}}).encode())


def is_plain(request: ReceivedRequest) -> bool:
    return PLAIN in request.text


def about(numbers: range) -> Callable[[ReceivedRequest], bool]:
    """Whether a request is about one of these records."""
    texts = [f"Cup {n} of" for n in numbers] + [f"cup {n} of" for n in numbers]
    return lambda request: any(text in request.text for text in texts)


ALL_REFUSED = [
    (400, "this month's allowance is spent"),
    (422, "quota: 25 of 25 used"),
    (403, FILTERED),  # a content filter that takes nothing
]


def test_an_endpoint_that_refuses_all_stops_the_run_and_nothing_is_marked(
    workplace: Workplace,
) -> None:
    """Three times, each after 10 further answers; then one that takes all does the rest."""
    workplace.many(30)
    for status, message in ALL_REFUSED:
        rule = on(refusal(status, message), indexes=range(10, 10_000))
        with LoopbackServer(EchoAnswers(), faults=rule, latency=0.02) as server:
            done = workplace.run(**{"vlm.openai.base_url": server.base_url})
            assert done.code == 4, done
            assert message in done.err
            assert "requests in a row were refused, and so was a plain question" in done.err
            assert [is_plain(request) for request in server.requests].count(True) == 1
            assert server.received <= 10 + 10 + 8 + 8
            assert server.paid == 10
            assert not workplace.failures()
    with LoopbackServer(EchoAnswers()) as server:
        again = workplace.run(**{"vlm.openai.base_url": server.base_url})
        assert (again.code, again.summary["done"]) == (0, 30), again
        assert server.paid == 60 - 10 * len(ALL_REFUSED)


def test_a_slow_answer_to_an_earlier_request_vouches_for_no_later_refusal(
    workplace: Workplace,
) -> None:
    workplace.many(30)
    slow = on(Fault(delay=0.5), indexes=range(20))
    rule = on(refusal(400, "limit reached"), indexes=range(20, 10_000))
    with endpoint_of(workplace, faults=[slow, rule]) as server:
        done = workplace.run(**{"workflow.max_workers": 32})
        assert done.code == 4, done
        server.faults = []
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 30), again


def test_the_last_refusal_of_a_run_is_asked_about_too(workplace: Workplace) -> None:
    workplace.many(20)
    rule = on(refusal(400, "limit reached"), indexes=range(39, 10_000))
    with endpoint_of(workplace, faults=rule) as server:
        done = workplace.run(**{"workflow.max_workers": 2})
        assert done.code == 1, done
        assert is_plain(server.requests[-1])
        server.faults = []
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 20), again
        assert server.paid == 40


@pytest.mark.parametrize("status", [400, 403])
def test_records_that_are_refused_one_after_the_other_are_refusals(
    workplace: Workplace, status: int
) -> None:
    workplace.many(24)
    bad = range(6, 20)
    rule = on(refusal(status, FILTERED if status == 403 else "too odd"), where=about(bad))
    with endpoint_of(workplace, faults=rule, latency=0.02) as server:
        done = workplace.run(**{"workflow.max_workers": 2})
        assert done.code == 1, done
        assert done.summary["failures"] == {"refused": len(bad)}
        assert {failure["retry"] for failure in workplace.failures()} == {False}
        asked = [is_plain(request) for request in server.requests].count(True)
        assert 1 <= asked <= 2
        assert done.summary["probes"] == asked
        sent = server.received
        again = workplace.run()
        assert again.summary["failures"] == {"refused": len(bad)}
        assert server.received == sent


def test_bad_records_at_the_start_of_a_run_do_not_stop_it(workplace: Workplace) -> None:
    workplace.many(30)
    rule = on(refusal(400, "too odd"), where=about(range(12)))
    with endpoint_of(workplace, faults=rule):
        done = workplace.run()
    assert done.code == 1, done
    assert (done.summary["done"], done.summary["failed"]) == (18, 12)


def test_without_an_answer_the_tenth_refusal_and_a_plain_one_stop_the_run(
    workplace: Workplace,
) -> None:
    workplace.many(30)
    with endpoint_of(workplace, faults=on(refusal(400, "no such setting"))) as server:
        done = workplace.run()
        assert done.code == 4, done
        assert server.received <= 10 + 4 + 3
    assert not workplace.failures()


def test_of_several_endpoints_one_that_refuses_all_is_passed_over(workplace: Workplace) -> None:
    workplace.many(40)
    rule = on(refusal(400, "allowance is spent"), indexes=range(10, 10_000))
    with (
        LoopbackServer(EchoAnswers(), faults=rule, latency=0.01) as poor,
        LoopbackServer(EchoAnswers(), latency=0.01) as rich,
    ):
        del workplace.settings["vlm.openai.base_url"]
        workplace.settings["vlm.openai.endpoints"] = [poor.base_url, rich.base_url]
        done = workplace.run()
        again = workplace.run()
    assert done.code in (0, 1), done
    assert (again.code, again.summary["done"]) == (0, 40), again

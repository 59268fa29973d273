"""Refusals: no credit left, which stops an endpoint, and ten in a row, after which a plain question tells
whether they are the endpoint's or the records'.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dataflow_grounding._util.errors import NoCredit
from dataflow_grounding.serving.http_errors import error_of
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace

NONE_LEFT: dict[str, tuple[int, dict[str, str]]] = {
    "402": (402, {"message": "Insufficient credits"}),
    "OpenAI": (429, {"message": "You exceeded it", "code": "insufficient_quota"}),
    "billing": (400, {"message": "Billing hard limit", "code": "billing_hard_limit_reached"}),
    "LiteLLM": (422, {"message": "You are over it", "type": "budget_exceeded", "code": "422"}),
    "LiteLLM, by a hook": (422, {"message": "Budget has been exceeded! Max budget: 2.0"}),
    "LiteLLM, of a deployment": (
        429,
        {"message": "No deployments available - crossed budget: Exceeded budget for deployment"},
    ),
    "LiteLLM, of an hour": (429, {"message": "ExceededBudget: Key over 1h budget"}),
    "OpenRouter": (403, {"message": "Key limit exceeded (total limit). Manage it using"}),
    "DashScope": (400, {"message": "Access denied", "code": "Arrearage"}),
}
FEWER = "This request requires more credits, or fewer max_tokens. You can only afford 87"


@pytest.mark.parametrize(("status", "error"), NONE_LEFT.values(), ids=NONE_LEFT)
def test_it_is_understood_however_it_is_said(status: int, error: dict[str, str]) -> None:
    told = error_of(status, {}, json.dumps({"error": error}).encode(), where="here")
    assert isinstance(told, NoCredit)
    assert told.certain
    assert error["message"] in str(told)


def test_one_refusal_stops_the_run_and_after_a_top_up_it_goes_on(workplace: Workplace) -> None:
    workplace.many(12)
    with endpoint_of(workplace, faults=on(Fault(402, "No credit."), indexes=[9])) as server:
        done = workplace.run()
        assert done.code == 3, done
        assert "Top up the account, and run again to go on" in done.err
        assert server.received <= 9 + 8
        assert not workplace.failures()
        again = workplace.run()
        assert (again.code, again.summary["done"], server.paid) == (0, 12, 24), again


def test_one_request_that_is_too_dear_fails_its_record_until_the_next_run(
    workplace: Workplace,
) -> None:
    workplace.many(12)
    with endpoint_of(workplace, faults=on(Fault(402, FEWER), indexes=[9])) as server:
        done = workplace.run()
        assert (done.code, done.summary["failed"]) == (1, 1), done
        [failure] = workplace.failures()
        assert (failure["kind"], failure["retry"]) == ("no_credit", True)
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 12), again
        assert server.paid == 24


def test_two_such_in_a_row_mean_that_no_credit_is_left(workplace: Workplace) -> None:
    workplace.many(12)
    with endpoint_of(workplace, faults=on(Fault(402, FEWER), indexes=range(9, 1000))):
        assert workplace.run().code == 3
        assert not workplace.failures()


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


ALL_REFUSED = [(400, "allowance is spent"), (403, FILTERED)]  # FILTERED: a filter takes nothing


def test_an_endpoint_that_refuses_all_stops_the_run_and_nothing_is_marked(
    workplace: Workplace,
) -> None:
    """Twice, each after 10 further answers; then one that takes all does the rest."""
    workplace.many(24)
    for status, message in ALL_REFUSED:
        rule = on(refusal(status, message), indexes=range(10, 10_000))
        with endpoint_of(workplace, faults=rule, latency=0.02) as server:
            done = workplace.run()
            assert done.code == 4, done
            assert message in done.err
            assert "requests in a row were refused, and so was a plain question" in done.err
            assert [is_plain(request) for request in server.requests].count(True) == 1
            assert server.received <= 10 + 10 + 8 + 8
            assert server.paid == 10
            assert not workplace.failures()
            assert (done.summary["failed"], done.summary["failures"]) == (0, {})
    with endpoint_of(workplace) as server:
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 24), again
        assert server.paid == 48 - 10 * len(ALL_REFUSED)


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
        assert {failure["retry"] for failure in workplace.failures()} == {True}
        asked = [is_plain(request) for request in server.requests].count(True)
        assert 1 <= asked <= 2
        assert done.summary["probes"] == asked
        server.faults = []
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 24), again
        assert server.paid == 48 + asked


def test_a_refusal_by_an_error_is_final_within_a_run_and_is_not_stored(
    workplace: Workplace,
) -> None:
    """As of a filter that refuses with 400 what it lets pass later (inspect_ai#4846)."""
    workplace.rows({"image_path": "a.jpg", "image_id": f"r{n}"} for n in range(3))
    workplace.picture("a.jpg")
    workplace.settings |= {"data.classes": ["cup"], "workflow.max_workers": 1}
    with endpoint_of(workplace, faults=on(refusal(400, FILTERED), containing="cup")) as server:
        done = workplace.run()
        assert done.summary["failures"] == {"refused": 3}, done
        assert server.received == 1
        assert "--retry-failed" not in done.err
        server.faults = []
        again = workplace.run()
        assert (again.code, again.summary["done"], server.received) == (0, 3, 2), again


def test_a_refusal_that_an_older_store_has_is_passed_over(workplace: Workplace) -> None:
    workplace.many(1)
    with endpoint_of(workplace) as server:
        assert workplace.run().code == 0
        store = workplace.results / ".ckpt" / "replies.jsonl"
        lines = []
        for text in store.read_text().splitlines():
            line = json.loads(text)
            line.pop("sum", None)
            line |= {"reply": "", "finish_reason": "refused", "refusal": "no", "usage": [0, 0, 0]}
            lines.append(json.dumps(line))
        workplace.forget_all_but_replies()
        store.write_text("".join(f"{line}\n" for line in lines))
        before = server.received
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 1), again
        assert server.received > before


def test_bad_records_at_the_start_of_a_run_do_not_stop_it(workplace: Workplace) -> None:
    workplace.many(30)
    rule = on(refusal(400, "too odd"), where=about(range(12)))
    with endpoint_of(workplace, faults=rule):
        done = workplace.run()
    assert done.code == 1, done
    assert (done.summary["done"], done.summary["failed"]) == (18, 12)


def test_of_several_endpoints_one_that_refuses_all_is_passed_over(workplace: Workplace) -> None:
    workplace.many(24)
    rule = on(refusal(400, "allowance is spent"), indexes=range(10, 10_000))
    with LoopbackServer(faults=rule, latency=0.01) as poor, LoopbackServer(latency=0.01) as rich:
        del workplace.settings["vlm.openai.base_url"]
        workplace.settings["vlm.openai.endpoints"] = [poor.base_url, rich.base_url]
        done = workplace.run()
        again = workplace.run()
    assert done.code in (0, 1), done
    assert (again.code, again.summary["done"]) == (0, 24), again

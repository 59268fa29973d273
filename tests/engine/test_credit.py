"""No credit left: that stops an endpoint, no record is marked, and after a top-up the run goes on."""

from __future__ import annotations

import json

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, on
from dataflow_grounding.testing.faults import Fault
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace

NONE_LEFT: dict[str, tuple[int, dict[str, str]]] = {
    "402": (402, {"message": "Insufficient credits"}),
    "OpenAI": (429, {"message": "You exceeded it", "code": "insufficient_quota"}),
    "billing": (400, {"message": "Billing hard limit", "code": "billing_hard_limit_reached"}),
    "LiteLLM": (
        422,
        {"message": "Budget has been exceeded!", "type": "budget_exceeded", "code": "422"},
    ),
    "LiteLLM, by a hook": (
        422,
        {
            "message": "Budget has been exceeded! Current cost: 2.0, Max budget: 2.0",
            "type": "invalid_request_error",
            "code": "422",
        },
    ),
    "LiteLLM, of a deployment": (
        429,
        {
            "message": "No deployments available - crossed budget: Exceeded budget for deployment"
            " model_name: m, litellm_params.model: openai/m-upstream: 0.021 >= 1d",
            "code": "429",
        },
    ),
    "LiteLLM, of an hour": (429, {"message": "ExceededBudget: Key over 1h budget"}),
    "OpenRouter": (
        403,
        {"message": "Key limit exceeded (total limit). Manage it using https://openrouter.ai"},
    ),
    "DashScope": (400, {"message": "Access denied", "code": "Arrearage"}),
}
FEWER = "This request requires more credits, or fewer max_tokens. You can only afford 87"


def said(status: int, error: dict[str, str]) -> Fault:
    return Fault(status, body=json.dumps({"error": error}).encode())


def test_the_run_stops_however_it_is_said(workplace: Workplace) -> None:
    workplace.many(12)
    for name, (status, error) in NONE_LEFT.items():
        with LoopbackServer(EchoAnswers(), faults=on(said(status, error))) as server:
            done = workplace.run(**{"vlm.openai.base_url": server.base_url})
            assert (done.code, server.received <= 8) == (3, True), (name, done)
        assert error["message"] in done.err
        assert "Top up the account, and run again to go on" in done.err
        assert not workplace.failures()


def test_after_a_top_up_it_goes_on(workplace: Workplace) -> None:
    workplace.many(12)
    rule = on(said(*NONE_LEFT["402"]), indexes=range(9, 1000))
    with endpoint_of(workplace, faults=rule) as server:
        assert workplace.run().code == 3
        assert server.received <= 9 + 8
        assert not workplace.failures()
        server.faults = []
        assert server.paid == 9
        again = workplace.run()
        assert (again.code, again.summary["done"], server.paid) == (0, 12, 24), again


def test_one_request_that_is_too_dear_fails_its_record_until_the_next_run(
    workplace: Workplace,
) -> None:
    workplace.many(12)
    rule = on(Fault(402, FEWER), indexes=[9])
    with endpoint_of(workplace, faults=rule) as server:
        done = workplace.run()
        assert (done.code, done.summary["failed"]) == (1, 1), done
        [failure] = workplace.failures()
        assert (failure["kind"], failure["retry"]) == ("no_credit", True)
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 12), again
        assert server.paid == 24


def test_two_such_in_a_row_mean_that_no_credit_is_left(workplace: Workplace) -> None:
    workplace.many(12)
    rule = on(Fault(402, FEWER), indexes=range(9, 1000))
    with endpoint_of(workplace, faults=rule) as server:
        assert workplace.run().code == 3
        assert not workplace.failures()
        server.faults = []
        assert workplace.run().code == 0

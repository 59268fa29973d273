"""No credit left: that stops an endpoint, no record is marked, and after a top-up the run goes on."""

from __future__ import annotations

import json

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, faults, on
from dataflow_grounding.testing.faults import Fault
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


@pytest.mark.slow
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
    with LoopbackServer(EchoAnswers(), faults=rule) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        assert workplace.run().code == 3
        assert server.received <= 9 + 8
        assert not workplace.failures()
        server.faults = []
        assert server.paid == 9
        again = workplace.run()
        assert (again.code, again.summary["done"], server.paid) == (0, 12, 24), again


def test_of_several_endpoints_the_one_with_credit_does_all(workplace: Workplace) -> None:
    workplace.many(20)
    with (
        LoopbackServer(EchoAnswers(), faults=on(Fault(402, "No credit."))) as poor,
        LoopbackServer(EchoAnswers()) as rich,
    ):
        del workplace.settings["vlm.openai.base_url"]
        workplace.settings["vlm.openai.endpoints"] = [
            {"base_url": poor.base_url},
            {"base_url": rich.base_url},
        ]
        done = workplace.run()
        assert (done.code, done.summary["done"]) == (0, 20), done
        assert rich.paid == 40


def test_one_request_that_is_too_dear_fails_its_record_until_the_next_run(
    workplace: Workplace,
) -> None:
    workplace.many(12)
    rule = on(Fault(402, FEWER), indexes=[9])
    with LoopbackServer(EchoAnswers(), faults=rule) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
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
    with LoopbackServer(EchoAnswers(), faults=rule) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        assert workplace.run().code == 3
        assert not workplace.failures()
        server.faults = []
        assert workplace.run().code == 0


@pytest.mark.slow
def test_403_for_all_from_the_middle_of_a_run_stops_it_and_marks_nothing(
    workplace: Workplace,
) -> None:
    workplace.many(40)
    rule = on(faults.forbidden(), indexes=range(20, 1000))
    with LoopbackServer(EchoAnswers(), faults=rule, latency=0.05) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        done = workplace.run()
        assert done.code == 4, done
        assert "requests in a row were refused, and so was a plain question" in done.err
        assert server.received <= 20 + 10 + 8
        assert not workplace.failures()
        server.faults = []
        again = workplace.run()
        assert (again.code, again.summary["done"]) == (0, 40), again
        assert server.paid == 80


def test_a_redirect_of_every_request_stops_the_run_at_the_start(workplace: Workplace) -> None:
    workplace.many(12)
    with LoopbackServer(EchoAnswers(), faults=on(Fault(307, "moved"))) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        done = workplace.run()
        assert done.code == 4, done
        assert "check the address" in done.err
        assert server.received == 1

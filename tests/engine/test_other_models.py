"""Another model answers than the one that was asked for: said, counted, and checked."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers
from tests.support.stand_ins.gateway import OF_LITELLM, gateway_before
from tests.support.workplace import Done, Workplace

FALLEN_BACK = {**OF_LITELLM, "x-litellm-attempted-fallbacks": "1"}


def run(workplace: Workplace, names: list[str], **gateway: Any) -> Done:
    """One run of 6 records, whose replies name these models, the last one from then on."""
    workplace.many(6)
    left = list(names)

    def changed(completion: dict[str, Any]) -> dict[str, Any]:
        name = left.pop(0) if len(left) > 1 else left[0]
        return {**completion, "model": name}

    with gateway_before(EchoAnswers(), changed=changed, **gateway) as between:
        return workplace.run(**{"vlm.openai.base_url": between.base_url, "vlm.check_every": 500})


@pytest.mark.parametrize(
    "names",
    [
        [
            "loopback",
            "openai/loopback",
            "loopback-2025-08-06",
            "loopback-20250806",
            "Loopback:latest",
        ],
        [""],
    ],
)
def test_other_names_of_the_same_model_are_no_other_model(
    workplace: Workplace, names: list[str]
) -> None:
    done = run(workplace, names)
    assert done.code == 0, done
    assert "was asked for" not in done.err
    assert done.summary["probes"] == 1
    assert set(done.summary["answered_by"]) == {name for name in names if name}


def test_another_model_is_said_once_counted_and_checked(workplace: Workplace) -> None:
    done = run(workplace, ["loopback"] * 5 + ["loopback-mini"])
    assert done.code == 0, done
    assert done.err.count("loopback-mini answers at") == 1
    assert "where loopback was asked for" in done.err
    answered_by = done.summary["answered_by"]
    assert answered_by["loopback"] == 5
    assert answered_by["loopback-mini"] == done.summary["answered"] - 5
    assert done.summary["probes"] == 2
    assert workplace.run_json()["summary"]["answered_by"] == answered_by


@pytest.mark.parametrize("after", ["my-alias", "loopback"])
def test_another_name_is_said_at_the_first_reply_that_has_it(
    workplace: Workplace, after: str
) -> None:
    """An alias or another model: LiteLLM gives either name, by its version (BerriAI/litellm#22709)."""
    done = run(workplace, ["my-alias"] * 4 + [after])
    assert done.code == 0, done
    assert done.err.count("my-alias answers at") == 1
    assert done.summary["answered_by"]["my-alias"] >= 4


def test_another_model_that_answers_now_and_then_is_said_once(workplace: Workplace) -> None:
    done = run(workplace, ["llama-3.2", "loopback"] * 6)
    assert done.err.count("llama-3.2 answers at") == 1


@pytest.mark.parametrize("names", [[f"m{n}-x" for n in range(40)], [str(n) for n in range(40)]])
def test_names_that_differ_in_each_reply_are_not_told_each_time(
    workplace: Workplace, names: list[str]
) -> None:
    done = run(workplace, names)
    assert done.code == 0, done
    assert done.err.count("answers at") == 3
    assert done.summary["probes"] <= 1 + 3


def test_a_fallback_is_said_though_it_gives_all_replies(workplace: Workplace) -> None:
    done = run(workplace, ["m-upstream"], headers=FALLEN_BACK)
    assert done.code == 0, done
    assert done.err.count("m-upstream (fallback) answers at") == 1
    assert "disable_fallbacks: true in vlm.openai.extra_body" in done.err
    assert done.summary["answered_by"] == {"m-upstream (fallback)": done.summary["answered"]}

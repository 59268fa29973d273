"""Every line of the fault table, quickly; `python -m benchmarks.faults` plays them at
full length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_cases.fault_case import Case
from benchmarks.faults import CASES
from tests.support.workplace import Workplace

OF_A_STRANGER = {
    "a proxy before ": "test_a_proxy_is_told_its_own_password_and_nothing_else",
    "a redirect of ": "test_no_serving_follows_a_redirect",
    "a certificate ": "test_a_wrong_certificate_is_refused",
}
PLAYED_ELSEWHERE = {
    # with two workers killed, an endpoint that refuses, and the content compared
    "Ray: workers and the driver killed": (
        "scale/test_ray.py",
        "test_lost_workers_and_a_killed_driver_cost_what_was_in_flight",
    ),
    "the interrupt of a notebook": (
        "engine/test_interrupts.py",
        "test_an_interrupted_cell_of_a_notebook_has_ended_and_can_be_run_again",
    ),
    "ulimit -n 64 and 100 workers": ("engine/test_limits.py", "open_files"),
    "token counts that no number holds, and negative ones": (
        "serving/test_token_counts.py",
        "test_no_claim_of_an_endpoint_spoils_a_folder",
    ),
    # with redirects of all kinds, and certificates shown to every serving
    **{
        case.name: ("serving/test_who_gets_the_key.py", test)
        for case in CASES
        for start, test in OF_A_STRANGER.items()
        if case.name.startswith(start)
    },
}
"""Lines that a test of a room plays, and more: a second time they would show nothing."""
RELIABILITY = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


LONG = {
    "Ray": 1,  # each begins a cluster of its own
    "a bucket": 3,  # each is several runs
    "open files": 1,
    "a clock that jumps": 1,
    "a request that never ends": 1,
}
"""How many of the lines that begin so are drawn a run: each takes seconds."""
NEVER_END = {"a hang", "bodies too slow for the timeout"}


def _param_of(case: Case) -> Any:
    """A line of the table."""
    name = "a request that never ends" if case.name in NEVER_END else case.name
    marks = [
        pytest.mark.sampled(count, part=start)
        for start, count in LONG.items()
        if name.startswith(start)
    ]
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [_param_of(case) for case in CASES if case.name not in PLAYED_ELSEWHERE]
)
def test_it_is_survived(workplace: Workplace, case: Case) -> None:
    if case.needs:
        pytest.importorskip(case.needs)
    outcome = case.play(workplace, False)
    assert outcome.lost == 0
    assert outcome.twice <= outcome.twice_allowed


def test_what_is_played_elsewhere_is_there() -> None:
    assert {case.name for case in CASES} >= set(PLAYED_ELSEWHERE)
    tests = Path(__file__).resolve().parents[1]
    for file, test in PLAYED_ELSEWHERE.values():
        assert f"def {test}(" in (tests / file).read_text(encoding="utf-8")


def test_every_fault_has_its_line_in_the_documentation() -> None:
    lines = RELIABILITY.read_text(encoding="utf-8").splitlines()
    missing = [case.name for case in CASES if f"| {case.name} | {case.promise} |" not in lines]
    assert missing == []


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)

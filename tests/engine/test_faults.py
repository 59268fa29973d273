"""Every line of the fault table, quickly; `python -m benchmarks.faults` plays them at
full length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_cases.fault_case import Case
from benchmarks.fault_tables import PAGE, lists, with_lists
from benchmarks.faults import CASES
from tests.support.workplace import Workplace

OF_A_STRANGER = {
    "a proxy: ": "test_a_proxy_is_told_its_own_password_and_nothing_else",
    "redirected: ": "test_no_serving_follows_a_redirect",
    "a certificate: ": "test_a_wrong_certificate_is_refused",
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
    "huge and negative token counts": (
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


LONG = {
    "Ray": 1,  # each begins a cluster of its own
    "a bucket": 1,  # each is several runs
    "open files": 1,
    "a clock: jumps": 1,
    "a request that never ends": 1,
    "a large one": 1,
}
"""How many of the lines that begin so are drawn a run: each takes seconds."""
NEVER_END = {"a hang", "a body: too slow"}
LARGE = {
    "a million-line input",
    "image: four of 361 million pixels",
    "a quota on files",
}


def _param_of(case: Case) -> Any:
    """A line of the table."""
    name = "a request that never ends" if case.name in NEVER_END else case.name
    name = "a large one" if case.name in LARGE else name
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


def test_the_page_has_the_lists_that_the_cases_make() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_lists(page), "run: python -m benchmarks.fault_tables"


def test_the_lists_name_every_fault_and_what_is_promised_of_it() -> None:
    """Each item has all faults of one promise, names with a common start shortened."""
    items = lists().replace("\n  ", " ").splitlines()
    shown = [line[2:].removesuffix("**").split(". **") for line in items if line.startswith("- ")]
    for case in CASES:
        start, _, end = case.name.partition(": ")
        faults = [names for names, promise in shown if promise == case.promise]
        assert any(start in names and end in names for names in faults), case.name


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)

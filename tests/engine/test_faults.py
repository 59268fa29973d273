"""Every line of the fault table, quickly; `python -m benchmarks.faults` plays them at
full length.
"""

from __future__ import annotations

import pytest

from tests.support.fault_cases.every_fault import CASES
from tests.support.fault_cases.fault_case import Case
from tests.support.workplace import Workplace

PLAYED_BY_ITS_ROOM = (
    # with two workers killed, an endpoint that refuses, and the content compared
    "Ray: workers and the driver killed",  # scale/test_ray.py
    "the interrupt of a notebook",  # engine/test_interrupts.py
    "ulimit -n 64 and 100 workers",  # engine/test_limits.py
    "huge and negative token counts",  # serving/test_token_counts.py
    # with redirects of all kinds, and certificates shown to every serving
    "a proxy: ",  # serving/test_who_gets_the_key.py, as the next two
    "redirected: ",
    "a certificate: ",
)
"""How lines begin that a test of a room plays, and more: a second time they would show nothing."""
LONG = (
    "Ray",  # each begins a cluster of its own
    "a bucket",  # each is several runs
    "open files",
    "a clock: jumps",
    "a hang",
    "a body: too slow",
    "a million-line input",
    "image: four of 361 million pixels",
    "a quota on files",
)
"""How lines begin that take seconds each."""
PLAYED = [case for case in CASES if not case.name.startswith(PLAYED_BY_ITS_ROOM)]


def is_survived(place: Workplace, case: Case) -> None:
    if case.needs:
        pytest.importorskip(case.needs)
    outcome = case.play(place, False)
    assert outcome.lost == 0
    assert outcome.twice <= outcome.twice_allowed


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in PLAYED if not c.name.startswith(LONG)]
)
def test_it_is_survived(workplace: Workplace, case: Case) -> None:
    is_survived(workplace, case)


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in PLAYED if c.name.startswith(LONG)]
)
def test_it_is_survived_and_takes_long(workplace: Workplace, case: Case) -> None:
    is_survived(workplace, case)


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)

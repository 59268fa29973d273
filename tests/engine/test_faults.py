"""Every line of the fault table, quickly; `python -m benchmarks.faults` plays them at
full length.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_cases import (
    endpoint_faults,
    image_faults,
    script_faults,
    telling_faults,
)
from tests.support.fault_cases.every_fault import CASES
from tests.support.fault_cases.fault_case import Case
from tests.support.workplace import Workplace

PLAYED_BY_ITS_ROOM = (
    # with two workers killed, an endpoint that refuses, and the content compared
    "Ray: workers and the driver killed",  # scale/test_ray.py
    "no credit: ",  # engine/test_credit.py
    "for all records: 403 after a few answers",  # engine/test_refused_in_a_row.py
    "503 for minutes",  # engine/test_outage.py, as the next
    "a server: stops too long",
    "a picture replaced: same size and time",  # engine/test_resume.py
    "a day's quota used up: 429",  # engine/test_limits.py
    "image: four of 361 million pixels",  # images/test_images.py
    "the interrupt of a notebook",  # engine/test_interrupts.py
    "ulimit -n 64 and 100 workers",  # engine/test_limits.py
    "huge and negative token counts",  # serving/test_token_counts.py
    "an import that unpacks beyond memory",  # formats/test_bombs.py
    # with redirects of all kinds, and certificates shown to every serving
    "a proxy: ",  # serving/test_who_gets_the_key.py, as the next two
    "redirected: ",
    "a certificate: ",
)
"""How lines begin that a test of a room plays, and more: a second time they would show nothing."""
LONG = (
    "Ray",  # each begins a cluster of its own
    "a bucket",  # each is several runs
    "open files: run out for good",
    "a clock: jumps",
    "a hang",
    "a body: too slow",
    "a million-line input",
)
"""How lines begin that take seconds each."""
TOGETHER = {
    *(
        one.case().name
        for one in (
            *endpoint_faults.PASSING,
            *endpoint_faults.OF_ONE,
            *endpoint_faults.OF_ALL,
            *endpoint_faults.WAITS,
            *image_faults.PICTURES,
        )
    ),
    *(case.name for case in telling_faults.TELLING),
    "SIGTERM",  # with "SIGTERM at a hanging endpoint"; all else is as at Ctrl-C
    *(f"an operator: {what}" for what in script_faults.CLUMSY),
}
"""Lines of one kind that are played in one run here, and each in its own run by the benchmark."""
PLAYED = [
    case
    for case in CASES
    if case.name not in TOGETHER and not case.name.startswith(PLAYED_BY_ITS_ROOM)
]


def is_survived(place: Workplace, case: Case) -> None:
    if case.needs:
        pytest.importorskip(case.needs)
    outcome = case.play(place, False)
    assert outcome.lost == 0
    assert outcome.twice <= outcome.twice_allowed


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in PLAYED if not c.name.startswith(LONG)]
)
def test_it_is_survived(workplace: Workplace, case: Case) -> None:
    is_survived(workplace, case)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in PLAYED if c.name.startswith(LONG)]
)
def test_it_is_survived_and_takes_long(workplace: Workplace, case: Case) -> None:
    is_survived(workplace, case)


@pytest.mark.parametrize(
    "play",
    [
        endpoint_faults.play_passing,
        endpoint_faults.play_of_one,
        endpoint_faults.play_of_all,
        endpoint_faults.play_waits,
        telling_faults.play_all,
        script_faults.play_clumsy,
    ],
)
def test_many_faults_of_a_kind_are_survived_in_one_run(
    workplace: Workplace, play: Callable[[Workplace], None]
) -> None:
    play(workplace)


def test_pictures_of_every_kind_are_taken_or_fail_alone_in_one_run(workplace: Workplace) -> None:
    assert image_faults.play(image_faults.PICTURES, workplace, False).lost == 0


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)

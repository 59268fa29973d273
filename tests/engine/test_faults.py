"""Faults that a run should survive, quickly; `python -m benchmarks.faults` plays them at full length,
and those that take long, or that tests of other rooms show.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_cases import (
    endpoint_faults,
    file_faults,
    image_faults,
    lock_faults,
    machine_faults,
    script_faults,
    shard_faults,
    shortage_faults,
    signal_faults,
    telling_faults,
)
from tests.support.fault_cases.fault_case import Case
from tests.support.workplace import Workplace

PLAYED: list[Case] = [
    *(weather.case() for weather in endpoint_faults.ALONE),
    *endpoint_faults.REACHING,
    *signal_faults.SIGNALS,
    *machine_faults.MACHINE,
    *lock_faults.LOCKS,
    *file_faults.FILES,
    *shard_faults.SHARDS,
    *shortage_faults.SHORTAGES,
    *script_faults.SCRIPTS,
]


@pytest.mark.parametrize("case", PLAYED, ids=lambda case: case.name)
def test_it_is_survived(workplace: Workplace, case: Case) -> None:
    outcome = case.play(workplace, False)
    assert outcome.lost == 0
    assert outcome.twice <= outcome.twice_allowed


@pytest.mark.parametrize(
    "play",
    [
        endpoint_faults.play_passing,
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

"""Every fault that a run should survive, by the heading of its table."""

from __future__ import annotations

from benchmarks.fault_cases.bucket_faults import BUCKETS
from benchmarks.fault_cases.endpoint_faults import AT_THE_START, OF_ONE, OF_ROOMS
from benchmarks.fault_cases.machine_faults import OF_MACHINE, OF_PICTURES, OF_SCRIPTS
from benchmarks.fault_cases.ray_faults import ON_RAY
from benchmarks.fault_cases.shard_faults import OF_SHARDS
from benchmarks.fault_cases.stranger_faults import STRANGERS
from tests.support.fault_cases.endpoint_faults import (
    ALONE,
    OF_ALL,
    PASSING,
    REACHING,
    WAITS,
)
from tests.support.fault_cases.fault_case import Case
from tests.support.fault_cases.file_faults import FILES
from tests.support.fault_cases.image_faults import PICTURES
from tests.support.fault_cases.lock_faults import LOCKS
from tests.support.fault_cases.machine_faults import MACHINE
from tests.support.fault_cases.script_faults import SCRIPTS
from tests.support.fault_cases.shard_faults import SHARDS
from tests.support.fault_cases.shortage_faults import SHORTAGES
from tests.support.fault_cases.signal_faults import SIGNALS
from tests.support.fault_cases.telling_faults import TELLING

WEATHERS = [*OF_ALL, *AT_THE_START, *WAITS, *ALONE, *OF_ROOMS, *OF_ONE, *PASSING]
SECTIONS: dict[str, list[Case]] = {
    "The endpoint": [*(each.case() for each in WEATHERS), *REACHING, *TELLING],
    "Strangers": STRANGERS,
    "The machine and the user": [
        *SIGNALS,
        *MACHINE,
        *LOCKS,
        *FILES,
        *SHARDS,
        *SHORTAGES,
        *OF_MACHINE,
        *OF_SHARDS,
    ],
    "Pictures and rows": [*(each.case() for each in PICTURES), *OF_PICTURES],
    "Scripts, Ray, buckets": [*SCRIPTS, *OF_SCRIPTS, *ON_RAY, *BUCKETS],
}
"""The cases by the heading of their table."""
CASES = [case for section in SECTIONS.values() for case in section]
assert len({case.name for case in CASES}) == len(CASES), "each name is one case's"

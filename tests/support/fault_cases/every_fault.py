"""Every fault that a run should survive, by the heading under which docs/reliability.md has it."""

from __future__ import annotations

from tests.support.fault_cases.endpoint_faults import ENDPOINT
from tests.support.fault_cases.fault_case import Case
from tests.support.fault_cases.file_faults import FILES
from tests.support.fault_cases.image_faults import IMAGES
from tests.support.fault_cases.lock_faults import LOCKS
from tests.support.fault_cases.machine_faults import MACHINE
from tests.support.fault_cases.ray_faults import ON_RAY
from tests.support.fault_cases.row_faults import ROWS
from tests.support.fault_cases.script_faults import SCRIPTS
from tests.support.fault_cases.shard_faults import SHARDS
from tests.support.fault_cases.shortage_faults import SHORTAGES
from tests.support.fault_cases.signal_faults import SIGNALS
from tests.support.fault_cases.store_faults import STORES
from tests.support.fault_cases.stranger_faults import STRANGERS
from tests.support.fault_cases.telling_faults import TELLING

SECTIONS: dict[str, list[Case]] = {
    "The endpoint": [*ENDPOINT, *TELLING],
    "Strangers": STRANGERS,
    "The machine and the user": [*SIGNALS, *MACHINE, *LOCKS, *FILES, *SHARDS, *SHORTAGES],
    "Pictures and rows": [*IMAGES, *ROWS],
    "Scripts, Ray, buckets": [*SCRIPTS, *ON_RAY, *STORES],
}
"""The cases by the heading under which docs/reliability.md has them."""
CASES = [case for section in SECTIONS.values() for case in section]

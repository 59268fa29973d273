"""The limits that a user states hold: lines of the table in docs/reliability.md. Those of what is paid
for are in test_resume.py, that of tries in test_asking.py, `workflow.max_workers` in test_several_endpoints.py.
"""

from __future__ import annotations

import importlib.util
import resource
from collections.abc import Callable
from functools import partial

import pytest

from dataflow_grounding.testing import LoopbackServer, on
from tests.support import faults
from tests.support.fault_cases.shortage_faults import few_files
from tests.support.servings import KINDS
from tests.support.workplace import Workplace, ended, interpreter

pytestmark = pytest.mark.slow

COUNT = 20


def max_wait(place: Workplace) -> None:
    with LoopbackServer(faults=[on(faults.too_many_requests(3600))]) as server:
        done = place.run(**{"vlm.openai.base_url": server.base_url, "workflow.max_wait": 5})
    assert (done.code, server.count()) == (3, 1), done
    with LoopbackServer(faults=[on(faults.too_many_requests(0.2))]) as server:
        done = place.run(**{"vlm.openai.base_url": server.base_url, "workflow.max_wait": 1})
    assert done.code == 3, done


def timeout(place: Workplace) -> None:
    """Of every serving, for answers that never begin and for those that never end."""
    place.many(1)
    for name, (_, settings_at) in KINDS.items():
        if name == "azure":  # the same serving at another address
            continue
        if name == "gemini" and importlib.util.find_spec("google.genai") is None:
            continue
        backend = "gemini" if name == "gemini" else "openai"
        limits = {
            f"vlm.{backend}.timeout": 0.6,
            "workflow.max_attempts": 1,
            "workflow.force_reprocess": True,
        }
        for trouble in (faults.slow(20), faults.slow_drip(5)):
            with LoopbackServer(faults=[on(trouble)]) as server:
                done = place.run(**settings_at(server.address), **limits)
            assert (done.code, server.count()) == (4, 1), (name, done)


def memory(place: Workplace) -> None:
    with LoopbackServer() as server:
        line = place.arguments(
            **{"vlm.openai.base_url": server.base_url, "workflow.max_workers": 100}
        )
        limited = partial(resource.setrlimit, resource.RLIMIT_AS, (700 * 2**20, 700 * 2**20))
        done = ended(interpreter(line, preexec_fn=limited, cwd=place.folder))
    assert done.code == 0, done


def open_files(place: Workplace) -> None:
    assert few_files(place, full=False).lost == 0


LIMITS: dict[str, Callable[[Workplace], None]] = {
    "`workflow.max_wait`": max_wait,
    "`vlm.openai.timeout`, `vlm.gemini.timeout`": timeout,
    "memory (`ulimit -v`)": memory,
    "open files (`ulimit -n`)": open_files,
}


@pytest.mark.parametrize("limit", LIMITS)
def test_it_holds(workplace: Workplace, limit: str) -> None:
    workplace.many(COUNT)
    LIMITS[limit](workplace)

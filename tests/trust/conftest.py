"""One endpoint for all tests of a module, which each of them finds as new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import as_new, seldom_checked
from tests.support.workplace import Workplace


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    """The endpoint, for runs that several tests of a module look at."""
    with LoopbackServer(keep_bodies=True) as server:
        yield server


@pytest.fixture
def server(running: LoopbackServer) -> Iterator[LoopbackServer]:
    """It echoes; a test sets what it answers, its faults and its latency."""
    with as_new(running) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> Workplace:
    """A folder whose runs ask for xyxy_1000, and check the endpoint at their beginning and end."""
    return seldom_checked(tmp_path / "work", server)

"""A played endpoint that a module's tests ask one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.testing._endpoint import Endpoint

Renewed = Callable[..., LoopbackServer]


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def endpoint(running: LoopbackServer) -> Renewed:
    """Gives the running server these settings, and the counts of a new one."""

    def renewed(**settings: Any) -> LoopbackServer:
        vars(running).update(vars(Endpoint(port=running.port, **settings)))
        running.requests.clear()
        return running

    return renewed

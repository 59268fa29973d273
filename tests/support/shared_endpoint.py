"""An endpoint that the tests of a module share: what a test sets on it, and what it counts, is that
test's own. A room's conftest.py imports both fixtures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer


@pytest.fixture(scope="module")
def endpoint() -> Iterator[LoopbackServer]:
    """The server that is running; tests ask for `server`."""
    with LoopbackServer(keep_bodies=True) as running:
        yield running


@pytest.fixture
def server(endpoint: LoopbackServer) -> Iterator[LoopbackServer]:
    """An endpoint that answers every task, and has counted nothing yet."""
    endpoint.answers, endpoint.faults = EchoAnswers(), ()
    endpoint.latency, endpoint.key = 0.0, None
    endpoint.received, endpoint.by_task, endpoint.by_status = 0, Counter(), Counter()
    endpoint.requests.clear()
    yield endpoint
    errors = endpoint.errors[:]
    endpoint.errors.clear()
    if errors:
        raise errors[0]


def serving_of(server: LoopbackServer, box_format: str = "xyxy_1000") -> OpenAIServing:
    """A serving that asks there."""
    return OpenAIServing(server.base_url, "loopback", box_format=box_format)

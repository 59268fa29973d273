"""The module's endpoint, which keeps no bodies unless it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import Serves

Renewed = Callable[..., LoopbackServer]


@pytest.fixture
def endpoint(serves: Serves) -> Renewed:
    """Gives the module's server these settings, and the counts of a new one."""

    def renewed(answers: Any = None, **settings: Any) -> LoopbackServer:
        return serves(answers, **{"keep_bodies": False, **settings})

    return renewed

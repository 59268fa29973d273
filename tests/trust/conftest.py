"""One endpoint for all tests of a module, which each of them finds as new."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import seldom_checked
from tests.support.workplace import Workplace


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> Workplace:
    """A folder whose runs ask for xyxy_1000, and check the endpoint at their beginning and end."""
    return seldom_checked(tmp_path / "work", server)

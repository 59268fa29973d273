"""Fixtures for rooms whose tests ask a loopback server of their module, each as if it were new: a
`conftest.py` imports them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace


@pytest.fixture
def workplace(tmp_path: Path, server: LoopbackServer) -> Workplace:
    """An empty folder whose runs ask that endpoint."""
    return Workplace(tmp_path / "work", server.base_url)

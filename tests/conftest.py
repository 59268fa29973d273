"""What all tests share: the folder in which `generate` is run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.places.workplace import Workplace
from dataflow_grounding.jobs.diagnosis import NAMES

if TYPE_CHECKING:
    from dataflow_grounding.extras.testing import LoopbackServer


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """An empty folder for pictures, input, spec and results."""
    return Workplace(tmp_path / "work")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """An endpoint that answers every task."""
    # here, so that what needs no endpoint can be tested without that room
    from dataflow_grounding.extras.testing import LoopbackServer

    with LoopbackServer() as running:
        yield running


settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

# A shell that starts the tests in the background has Ctrl-C ignored, and every process that they
# start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations are kept in the user's cache folder: no test may meet another's, or the user's
    own. Nor may one rely on the check of a server that listened on the same port before, or on an
    endpoint that the user's environment names.
    """
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("dataflow_grounding.watch.probing._known", {})
    monkeypatch.setattr("dataflow_grounding.watch.judge_watch._results", {})

"""What all tests share: the folder in which `generate` is run, and how much of long tables is
drawn.
"""

from __future__ import annotations

import gc
import itertools
import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from dataflow_grounding.jobs.diagnosis import NAMES
from tests.support import workplace as places
from tests.support.warm import WarmProcesses
from tests.support.workplace import Workplace

if TYPE_CHECKING:
    from dataflow_grounding.testing import LoopbackServer

# What is collected stays to the end: looking through it again and again for garbage, while
# collecting and in every test, would take a tenth of the time.
gc.disable()
_cache_numbers = itertools.count()
LONG_FILES = (
    "tests/scale/test_ray.py",
    "tests/docs/test_scale_page.py",
    "tests/engine/test_faults.py",
    "tests/docs/test_pages_run.py",
    "tests/scale/test_remote_results.py",
    "tests/jobs/test_remote_inputs.py",
)
"""Files of tests that take minutes, the longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tables")
    group.addoption("--whole", action="store_true", help="run all cases of tables marked `sampled`")
    group.addoption("--table-seed", type=int, help="draw those cases that a run with it has drawn")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("whole" if config.option.whole else "project")
    if config.option.table_seed is None:
        # all workers of pytest-xdist have to draw the same
        drawn = getattr(config, "workerinput", {}).get("table_seed")
        config.option.table_seed = drawn or random.SystemRandom().randrange(1, 10**6)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed on to a worker."""
    node.workerinput["table_seed"] = node.config.option.table_seed


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draw some cases of each table that is marked `sampled`, and leave the rest out.

    A table of simulations is thousands of draws of the same sentence: another part of it a run says
    as much as the whole each time. A case that is asked for by its name is always run.
    """
    tables = defaultdict(list)  # by the test, the part of its table, and how many of it are drawn
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker and not config.option.whole:
            test = item.nodeid.partition("[")[0]
            tables[test, marker.kwargs.get("part", ""), marker.args[0]].append(item)
    left_out = set()
    for (test, part, count), cases in tables.items():
        draw = random.Random(f"{config.option.table_seed} {test} {part}")
        drawn = draw.sample(cases, min(count, len(cases)))
        left_out.update(set(cases) - set(drawn))
    if left_out:
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in left_out]
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    items[:] = _longest_first(items, workers)


def _longest_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Order tests so that those of each long file are the first that a worker is given.

    `--dist worksteal` gives every worker as many tests, one after the other, and a worker without
    any the last of another's. A file that takes minutes would otherwise be what is left for one
    worker at the end, while the other cores idle.
    """
    long_files: dict[str, list[pytest.Item]] = {name: [] for name in LONG_FILES[:workers]}
    others = []
    for item in items:
        long_files.get(item.nodeid.partition("::")[0], others).append(item)
    ordered = []
    for share, long_file in enumerate(long_files.values(), 1):
        ordered += long_file
        room = max(0, share * len(items) // workers - len(ordered))
        ordered += others[:room]
        del others[:room]
    return ordered + others


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what was collected, and work again, more rarely.

    Python's own way, after each 700 new objects, takes a fifteenth of the time of all tests.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave alone at the end what was collected.

    pytest would look through it five times for what tests have dropped, and Python once more as it
    ends: of 13,000 tests that takes each worker three seconds.
    """
    gc.freeze()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not config.option.whole:
        terminalreporter.write_line(
            f"of tables marked `sampled` a part ran: the same with --table-seed"
            f" {config.option.table_seed}, all of it with --whole"
        )


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """An empty folder for pictures, input, spec and results."""
    return Workplace(tmp_path / "work")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """An endpoint that answers every task."""
    # here, so that what needs no endpoint can be tested without that room
    from dataflow_grounding.testing import LoopbackServer

    with LoopbackServer() as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def _warm_processes() -> Iterator[None]:
    """Processes of the command line are forked from one that has imported it."""
    warm = WarmProcesses()
    places.WARM.append(warm)
    yield
    places.WARM.remove(warm)
    warm.close()


settings.register_profile(
    "project", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("whole", settings.get_profile("project"), max_examples=200)

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
    # one that isn't there yet: to make it by `mktemp` takes longer than many a test
    cache = tmp_path_factory.getbasetemp() / "caches" / str(next(_cache_numbers))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("dataflow_grounding.trust.known._known", {})
    monkeypatch.setattr("dataflow_grounding.operators.judge_test._results", {})

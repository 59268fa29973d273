"""What all tests share: the folder in which `generate` is run, chance that has a seed, and which
cases of long tables are played.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import random
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from dataflow_grounding.jobs.diagnosis import NAMES
from tests.support.workplace import Workplace

if TYPE_CHECKING:
    from dataflow_grounding.testing import LoopbackServer

OF_RUNS = {"workplace", "server", "endpoint", "served"}
"""Fixtures that a test asks for where it runs `generate`, or a server."""

WAITING = [
    f"tests/{module}.py"
    for module in (
        "serving/test_local",
        "scale/test_ray",
        "docs/test_pages_run",
        "engine/test_outage",
        "engine/test_faults",
        "bucket/test_remote_results",
        "engine/test_places",
        "serving/test_who_gets_the_key",
        "docs/test_scale_page",
        "engine/test_several_endpoints",
        "serving/test_service_tier",
        "engine/test_progress",
        "formats/test_bombs",
    )
]
"""Modules whose tests wait for more than they work, those with the longest tests first."""

_cache_numbers = itertools.count()

# A shell that starts the tests in the background has Ctrl-C ignored, and every process that they
# start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "project",
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("whole", settings.get_profile("project"), max_examples=200)
# Hypothesis also draws numbers and texts that are written in the modules imported so far, so a
# test's examples would depend on the tests that ran before it.
providers._get_local_constants = lambda: providers._local_constants


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="play all cases of `sampled` tables")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("whole" if config.option.whole else "project")


def pytest_collection_finish() -> None:
    """What is imported and collected lives to the end: Python need not look through it for dead
    objects again and again, which took 3% of the tests' time.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs `generate`, or asks a server, as slow; leave out most of the tables that are
    marked `sampled`; let workers begin with what waits.
    """
    for item in items:
        if isinstance(item, pytest.Function) and OF_RUNS.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    if not config.option.whole:
        play_a_tenth_of_tables(config, items)
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    items[:] = with_waiting_first(items, workers)


def play_a_tenth_of_tables(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out nine tenths of each table that is marked `sampled`, the same at each run.

    A table of simulations is many draws of the same sentence. The cases whose names have the lowest
    digests are played, at least one. A case that is asked for by its name is alone in its table.
    """
    tables = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled"):
            tables[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for cases in tables.values():
        cases.sort(key=digest_of_name)
        tenth = -(-len(cases) // 10)
        left_out.update(cases[tenth:])
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def with_waiting_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Put modules of WAITING where workers begin: others work while these wait, and none is left
    for the end. Each worker is given a part of neighbours of about the same length, in this order.
    """
    by_module = defaultdict(list)
    for item in items:
        by_module[item.nodeid.partition("::")[0]].append(item)
    waiting = [by_module.pop(module) for module in WAITING if module in by_module]
    others = list(itertools.chain.from_iterable(by_module.values()))
    part_length = len(items) / workers
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        ordered += itertools.chain.from_iterable(waiting[worker::workers])
        missing = max(round(part_length * (worker + 1)) - len(ordered), 0)
        ordered += others[:missing]
        del others[:missing]
    return ordered + others


def digest_of_name(item: pytest.Item) -> str:
    return hashlib.sha256(item.nodeid.encode()).hexdigest()


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """An empty folder for pictures, input, spec and results."""
    return Workplace(tmp_path / "work")


@pytest.fixture(scope="module")
def one_server(_surroundings_of_a_module: None) -> Iterator[LoopbackServer]:
    """An endpoint for all tests of a module, which answers every task."""
    # here, so that what needs no endpoint can be tested without that room
    from dataflow_grounding.testing import LoopbackServer
    from tests.support.takes import Takes

    with LoopbackServer(keep_bodies=True, takes=Takes()) as running:
        yield running


@pytest.fixture
def serves(one_server: LoopbackServer) -> Iterator[Callable[..., LoopbackServer]]:
    """The module's endpoint, to be called with what a LoopbackServer takes, as if it had just begun."""
    from tests.support.endpoint import with_settings

    yield partial(with_settings, one_server)
    with_settings(one_server)


@pytest.fixture
def server(serves: Callable[..., LoopbackServer]) -> LoopbackServer:
    """The module's endpoint as if it had just begun: it answers every task."""
    return serves()


@pytest.fixture(autouse=True, scope="module")
def _surroundings_of_a_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """For runs that several tests of a module look at, which are made before one test begins."""
    with pytest.MonkeyPatch.context() as patch:
        surround(patch, request.node.nodeid, tmp_path_factory.getbasetemp())
        yield


@pytest.fixture(autouse=True)
def _surroundings(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surround(monkeypatch, request.node.nodeid, tmp_path_factory.getbasetemp())


def surround(patch: pytest.MonkeyPatch, name: str, base: Path) -> None:
    """Give a test, or what a module's tests share, a cache and chance of its own.

    Calibrations are kept in the user's cache folder: no test may meet another's, or the user's own.
    Nor may one rely on what was found of a server that listened on the same port before, or on an
    endpoint that the user's environment names. A run asks about probe pictures at times that nobody
    can predict: in a test they are the same at each run.
    """
    for variable in NAMES:
        patch.delenv(variable, raising=False)
    # one that isn't there yet: to make it by `mktemp` takes longer than many a test
    patch.setenv("XDG_CACHE_HOME", str(base / "caches" / str(next(_cache_numbers))))
    patch.setattr("dataflow_grounding.trust.known._known", {})
    patch.setattr("dataflow_grounding.engine.limiter._limiters", {})
    random.seed(name)
    chance = random.Random(name)
    patch.setattr(random, "SystemRandom", lambda: chance)

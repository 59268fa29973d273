"""The one limiter of all workers on Ray: no limit is passed, whoever is lost.

Workers are threads here, with runs of their own; tests/scale/test_ray.py has them on Ray.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import GroundingError, RunStopped
from dataflow_grounding.engine.limiter import Level
from dataflow_grounding.jobs.executing import execute_spec
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import ready_to_run
from dataflow_grounding.scale.cluster.limits import (
    AtEndpoint,
    Ended,
    Leave,
    Permits,
    Report,
    SharedLimiter,
    shared_limits,
)
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, faults
from tests.support.waiting import wait_until
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow

KEY = ("http://one", "model")
MOST = 10**6


class Worker:
    """Says what it wants of one endpoint, and holds what it is given."""

    def __init__(self, limiter: SharedLimiter, name: str) -> None:
        self.limiter, self.name = limiter, name
        self.places: list[int] = []
        self.leaves = 0
        self.stopped = ""

    def exchange(
        self,
        wanted: int = 0,
        ended: list[Ended] | None = None,
        settled: list[tuple[float, float]] | None = None,
        waiting: list[Leave] | None = None,
    ) -> int:
        """Report; return how many places it has now."""
        for one in ended or []:
            self.places.remove(one.number)
        said = {KEY: AtEndpoint(MOST, wanted, ended or [])}
        permits = self.limiter.exchange(self.name, Report(said, settled or [], waiting or []))
        self.places += permits.places.get(KEY, [])
        self.leaves, self.stopped = permits.leaves, permits.stopped
        return len(self.places)


def workers(limiter: SharedLimiter, count: int) -> list[Worker]:
    return [Worker(limiter, f"w{number}") for number in range(count)]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        pytest.param([100], [8], id="alone: all"),
        pytest.param([100, 100], [4, 4], id="two: half"),
        pytest.param([1, 100, 100], [1, 4, 3], id="what one doesn't want is for the others"),
        pytest.param([100] * 8, [1] * 8, id="as many workers as places: one each"),
        pytest.param([0, 0, 3], [0, 0, 3], id="no more than wanted"),
    ],
)
def test_places_are_shared_out_by_demand(wanted: list[int], given: list[int]) -> None:
    """8 is where a level starts; what one holds beyond its share goes on as its requests end."""
    those = workers(SharedLimiter(), len(wanted))
    for _ in range(12):
        for worker, want in zip(those, wanted, strict=True):
            ended = [Ended(number, False, False) for number in worker.places[:1]]
            worker.exchange(want, ended)
            assert sum(len(each.places) for each in those) <= 8
    for worker, want in zip(those, wanted, strict=True):
        worker.exchange(want)
    assert sorted(len(worker.places) for worker in those) == sorted(given)


def test_a_lost_worker_gives_up_its_places_and_what_it_had_in_flight_counts() -> None:
    limiter = SharedLimiter(max_requests=10, budget_usd=10.0)
    lost, living = workers(limiter, 2)
    assert lost.exchange(100, waiting=[Leave(1.0, 1)] * 6) == 8
    assert lost.leaves == 6
    assert living.exchange(100, waiting=[Leave(1.0, 1)] * 6) == 0
    assert living.leaves == 4
    assert "max_requests=10" in living.stopped
    limiter.gone("w0")
    assert living.exchange(100) == 8
    assert lost.exchange(100, waiting=[Leave(1.0, 1)]) == 8  # nothing new, though it lives on
    assert lost.leaves == 0
    living.exchange(100, settled=[(1.0, 0.25)] * 4)
    assert limiter.totals() == (10, 7.0)


@pytest.mark.parametrize("places", [4, 30])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_level_is_what_one_limiter_alone_comes_to(places: int, count: int) -> None:
    """An endpoint that takes a number at once and refuses the others; each turn all that may be in
    flight are sent.
    """
    alone = Level(MOST)
    chance = random.Random(1)
    limiter = SharedLimiter()
    those = workers(limiter, count)
    levels: list[tuple[float, float]] = []
    for _ in range(400):
        sent = [alone.send() for _ in range(alone.places)]
        for turn, number in enumerate(sent):
            alone.ended(number, len(sent), refused=turn >= places, answered=turn < places)
        in_flight = [number for worker in those for number in worker.places]
        taken = set(chance.sample(in_flight, min(places, len(in_flight))))
        for worker in those:
            ended = [Ended(each, each not in taken, each in taken) for each in worker.places]
            worker.exchange(100, ended)
        found = limiter.found()[KEY]
        levels.append((alone.found.places, found.places))
    means = [sum(pair[which] for pair in levels[100:]) / 300 for which in (0, 1)]
    assert means[1] == pytest.approx(means[0], rel=0.15), means


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(20))
def test_the_limits_are_kept_to_the_last_request_whoever_is_lost(seed: int) -> None:
    """Workers ask, send, settle and are lost in an order that chance decides."""
    chance = random.Random(seed)
    limiter = SharedLimiter(max_requests=200, budget_usd=150.0)
    those = workers(limiter, 5)
    in_flight: dict[str, list[float]] = {worker.name: [] for worker in those}
    sent = 0
    spent = of_lost = 0.0
    for turn in range(2000):
        worker = chance.choice(those)
        own = in_flight[worker.name]
        settled = []
        while own and chance.random() < 0.5:
            worst = own.pop()
            settled.append((worst, worst * chance.choice([0.5, 0.75])))
        waiting = [Leave(chance.choice([0.5, 1.0]), 1)] * chance.randrange(4)
        worker.exchange(3, settled=settled, waiting=waiting)
        own += [leave.worst for leave in waiting[: worker.leaves]]
        sent += worker.leaves
        spent += sum(cost for _, cost in settled)
        if turn % 500 == 250:  # one is lost, and another takes its place
            limiter.gone(worker.name)
            of_lost += sum(in_flight.pop(worker.name))
            those.remove(worker)
            those.append(Worker(limiter, f"new{turn}"))
            in_flight[f"new{turn}"] = []
        reserved = sum(map(sum, in_flight.values()))
        assert sent <= 200
        assert spent + of_lost + reserved <= 150.0 + 1e-9
    assert any(worker.stopped for worker in those)
    assert limiter.totals() == (sent, pytest.approx(spent + of_lost))


# --- workers that run


class Running:
    """A run in a thread of its own, which shares a limiter with others."""

    def __init__(self, limiter: Any, name: str, place: Workplace, **settings: Any) -> None:
        self.error: GroundingError | None = None
        self.run = ready_to_run(load_spec([str(place.spec(**settings))]), progress=False)
        self._exchange = limiter.exchange
        self._name = name
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        with shared_limits(lambda report: self._exchange(self._name, report)) as limits:
            self.run.options = replace(self.run.options, shared_limits=limits)
            try:
                execute_spec(self.run)
            except GroundingError as error:
                self.error = error

    def ended(self) -> GroundingError | None:
        """Wait for its end; return what stopped it."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


class OneAtATime:
    """A limiter that threads call, until it is `silent`."""

    def __init__(self, limiter: SharedLimiter) -> None:
        self.limiter, self.silent = limiter, False
        self._lock = threading.Lock()

    def exchange(self, worker: str, report: Report) -> Permits:
        with self._lock:
            if self.silent:
                raise OSError("silent")
            return self.limiter.exchange(worker, report)


@pytest.fixture
def busy() -> Iterator[LoopbackServer]:
    limit = faults.too_many_requests()
    with LoopbackServer(EchoAnswers(), latency=0.03, capacity=8, limit_fault=limit) as server:
        yield server


def started(
    limiter: SharedLimiter | OneAtATime,
    server: LoopbackServer,
    folder: Path,
    counts: list[int],
    **settings: Any,
) -> list[Running]:
    shared = OneAtATime(limiter) if isinstance(limiter, SharedLimiter) else limiter
    running = []
    for number, rows in enumerate(counts):
        of_place = {"workflow.max_workers": 32, **settings}
        place = Workplace(folder / f"w{number}", server.base_url, **of_place)
        place.many(rows)
        running.append(Running(shared, f"w{number}", place))
    return running


def test_what_the_endpoint_takes_is_found_out_together(
    busy: LoopbackServer, tmp_path: Path
) -> None:
    limiter = SharedLimiter()
    running = started(limiter, busy, tmp_path, [40, 40, 40])
    assert [each.ended() for each in running] == [None] * 3
    assert busy.count(200) == 240
    assert busy.count(429) <= busy.count(200) * 0.15
    [found] = limiter.found().values()
    # It climbs until the next refusal, so that it may end above the 8 that the endpoint takes.
    assert 5 <= found.places < 16
    assert limiter.totals()[0] == busy.count()


def test_max_workers_is_of_all(tmp_path: Path) -> None:
    with LoopbackServer(EchoAnswers(), latency=0.03) as server:
        settings = {"workflow.max_workers": 3}
        running = started(SharedLimiter(), server, tmp_path, [15, 15], **settings)
        assert [each.ended() for each in running] == [None] * 2
        assert 1 < server.max_in_flight <= 3


def test_max_workers_is_of_all_endpoints(tmp_path: Path) -> None:
    in_flight: list[int] = []

    def latency(_: Any) -> float:
        in_flight.append(one.in_flight + other.in_flight)
        return 0.03

    with (
        LoopbackServer(EchoAnswers(), latency=latency) as one,
        LoopbackServer(EchoAnswers(), latency=latency) as other,
    ):
        both = {"vlm.openai.base_url": "", "vlm.openai.endpoints": [one.base_url, other.base_url]}
        settings = {"workflow.max_workers": 4, **both}
        running = started(SharedLimiter(), one, tmp_path, [15, 15], **settings)
        assert [each.ended() for each in running] == [None] * 2
        assert min(one.count(200), other.count(200)) > 0
        assert one.count(200) + other.count(200) == 60
    assert 1 < max(in_flight) <= 4


def test_the_last_request_of_all_is_sent_and_no_other(busy: LoopbackServer, tmp_path: Path) -> None:
    """The last worker needs few requests, and leaves the others the rest."""
    running = started(SharedLimiter(max_requests=60), busy, tmp_path, [40, 40, 2])
    errors = [each.ended() for each in running]
    assert busy.count() == 60
    for error in errors[:2]:
        assert "stopped before passing max_requests=60" in str(error)


def test_a_budget_in_usd_is_of_all(busy: LoopbackServer, tmp_path: Path) -> None:
    prices = {"vlm.prices": {"input": 100.0, "output": 1000.0}, "vlm.openai.max_tokens": 300}
    limiter = SharedLimiter(budget_usd=8.0)
    settings = {"workflow.budget_usd": 8.0, **prices}
    running = started(limiter, busy, tmp_path, [60, 60], **settings)
    for error in [each.ended() for each in running]:
        assert "stopped before passing budget_usd=8" in str(error)
    assert 6 < limiter.totals()[1] <= 8


def test_a_limiter_that_is_gone_stops_the_run(busy: LoopbackServer, tmp_path: Path) -> None:
    limiter = OneAtATime(SharedLimiter())
    [running] = started(limiter, busy, tmp_path, [200])
    wait_until(lambda: busy.count(200) >= 50)
    limiter.silent = True
    error = running.ended()
    assert isinstance(error, RunStopped)
    assert "can't reach the limiter of all workers (OSError: silent)" in str(error)
    assert busy.count() < 400

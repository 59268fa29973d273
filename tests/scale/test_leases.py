"""Leases: many workers keep to one limit, exactly where it is of requests or USD, whoever dies or
is not heard of.
"""

from __future__ import annotations

import gc
import json
import random
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.leased import Served
from benchmarks.places.waiting import wait_until
from benchmarks.places.workplace import Workplace, ended
from dataflow_grounding import OpenAIServing
from dataflow_grounding._util.errors import BudgetExceeded
from dataflow_grounding.engine.limiter import Level, share_of
from dataflow_grounding.engine.options import limiters_of
from dataflow_grounding.extras.scale import leases
from dataflow_grounding.extras.scale.leases import (
    REQUESTS,
    USD,
    Grant,
    LeasePool,
    Outcomes,
    Part,
    Report,
    UsedUp,
    leasing,
)
from dataflow_grounding.extras.testing import EchoAnswers, LoopbackServer, faults

pytestmark = pytest.mark.slow

KEY = ("http://one", "model")


class Clock:
    """A time that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """Says what it wants, and goes by what it is told."""

    def __init__(self, pool: LeasePool, name: str) -> None:
        self.pool, self.name, self.number = pool, name, 0
        self.sent = self.wanted = self.may_send = self.places = self.tick = 0
        self.spent = self.reserved = self.may_spend = 0.0
        self.used_up: UsedUp | None = None

    def report(
        self, places: int = 0, outcomes: Outcomes | None = None, cost: float = 0.0
    ) -> Report:
        self.number += 1
        used = self.spent + self.reserved
        parts = {
            KEY: Part(self.places, places),
            REQUESTS: Part(max(self.sent, self.may_send), self.wanted, self.sent, self.sent),
            USD: Part(max(used, self.may_spend), self.wanted * cost, used, self.spent, cost),
        }
        return Report(self.name, self.number, parts, {KEY: outcomes or Outcomes()})

    def take(self, grant: Grant) -> None:
        self.places, self.tick, self.used_up = int(grant.ceilings[KEY]), grant.tick, grant.used_up
        self.may_send, self.may_spend = grant.ceilings[REQUESTS], grant.ceilings[USD]

    def renew(self, places: int = 0, **seen: Any) -> int:
        self.take(self.pool.renew(self.report(places, **seen)))
        return self.places


def workers(pool: LeasePool, count: int) -> list[Worker]:
    return [Worker(pool, f"w{n}") for n in range(count)]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        pytest.param([100], [8], id="alone: all"),
        pytest.param([100, 100], [4, 4], id="two: half"),
        pytest.param([1, 100, 100], [1, 4, 3], id="what one doesn't want is for the others"),
        pytest.param([100] * 8, [1] * 8, id="as many workers as places: one each"),
        pytest.param([2] * 10, [1] * 8 + [0] * 2, id="more workers than places"),
        pytest.param([0, 0, 3], [0, 0, 3], id="no more than wanted"),
    ],
)
def test_places_are_shared_out_by_demand(wanted: list[int], given: list[int]) -> None:
    """8 is where a level starts."""
    those = workers(LeasePool(), len(wanted))
    for _ in range(4):
        for worker, want in zip(those, wanted, strict=True):
            worker.renew(want)
            assert sum(one.places for one in those) <= 8
    assert sorted(worker.places for worker in those) == sorted(given)


def test_a_worker_that_is_silent_gives_up_its_places_and_what_it_may_have_sent_counts() -> None:
    clock = Clock()
    pool = LeasePool(max_requests=100, now=clock)
    dead, living = workers(pool, 2)
    dead.wanted = living.wanted = 30
    assert dead.renew(100) == 8
    assert living.renew(100) == 0
    clock.now = 1.9
    assert living.renew(100) == 0
    clock.now = 2.1
    assert living.renew(100) == 8
    living.wanted = 1000
    living.renew(100)
    assert living.may_send == 70
    dead.sent, dead.may_send, dead.wanted = 10, 30, 0  # it was only slow: it has sent 10 of the 30
    assert dead.renew() == 0
    assert dead.may_send == 10
    dead.renew()
    living.renew(100)
    assert living.may_send == 90


def test_a_worker_that_reports_no_limits_stops_nobody_when_it_is_silent() -> None:
    clock = Clock()
    pool = LeasePool(max_requests=100, now=clock)
    pool.renew(Report("odd", 1, {}, {}))
    [living] = workers(pool, 1)
    living.wanted = 30
    clock.now = 2.1
    assert living.renew(100) == 8
    assert living.may_send == 30


def test_a_report_that_comes_late_changes_nothing() -> None:
    pool = LeasePool(max_requests=10)
    first, second = workers(pool, 2)
    first.wanted = 6
    late = first.report(100)
    first.renew(100)
    first.sent, first.wanted = 6, 0
    first.renew(100)
    assert pool.renew(late) == Grant()
    second.wanted = 100
    second.renew(100)
    assert second.may_send == 4


def test_what_a_worker_was_not_told_to_give_back_is_not_given_to_others() -> None:
    pool = LeasePool(max_requests=10)
    first, second = workers(pool, 2)
    first.wanted, second.wanted = 6, 100
    assert first.renew(8) == 8
    first.wanted = 0
    pool.renew(first.report())  # what it is told is lost: it goes on with 6 requests and 8 places
    assert second.renew(8) == 0
    assert second.may_send == 4
    first.renew()
    first.renew()
    assert second.renew(8) == 8
    assert second.may_send == 10


@pytest.mark.parametrize("places", [4, 8, 30])
@pytest.mark.parametrize("count", [1, 4])
def test_the_level_is_what_one_limiter_alone_comes_to(places: int, count: int) -> None:
    """An endpoint that takes so many at once and refuses the others; each turn all that may be in
    flight are sent.
    """
    alone = Level(10**6)
    pool = LeasePool()
    those = workers(pool, count)
    for worker in those:
        worker.renew(100)
    levels: list[tuple[int, int]] = []
    for _ in range(400):
        numbers = [alone.send() for _ in range(alone.places)]
        for n, number in enumerate(numbers):
            if n >= places:
                alone.refused(number, len(numbers))
            else:
                alone.answered(number)
        taken = 0
        for worker in those:
            accepted = min(worker.places, places - taken)
            taken += accepted
            worker.renew(
                100,
                outcomes=Outcomes(
                    {(True, worker.tick): accepted, (False, worker.tick): worker.places - accepted}
                ),
            )
        levels.append((alone.places, pool.levels[KEY].places))
    last = levels[100:]
    means = [sum(pair[n] for pair in last) / len(last) for n in (0, 1)]
    assert means[1] == pytest.approx(means[0], rel=0.15), means
    assert max(pair[1] for pair in last) <= places + 2


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", range(20))
def test_the_limits_are_kept_to_the_last_request_whatever_is_lost(seed: int) -> None:
    """Workers send, come, go and die, reports and grants are lost on the way, in an order that
    chance decides.
    """
    chance, clock = random.Random(seed), Clock()
    pool = LeasePool(max_requests=200, budget_usd=150.0, now=clock)
    those, lost, worst = workers(pool, 5), 0, 1.0
    for turn in range(4000):
        clock.now += 0.01
        worker = chance.choice(those)
        worker.wanted = chance.choice([0, 1, 3, 10]) if turn < 3000 else 1
        while chance.random() < 0.7 and worker.sent < worker.may_send:
            if worker.spent + worker.reserved + worst > worker.may_spend:
                break
            worker.sent, worker.reserved = worker.sent + 1, worker.reserved + worst
        while worker.reserved and chance.random() < 0.8:
            worker.reserved, worker.spent = (
                worker.reserved - worst,
                worker.spent + chance.choice([0.5, 0.75]),
            )
        report = worker.report(3, cost=worst)
        fate = chance.random()
        if fate > 0.1:
            grant = pool.renew(report)
            if fate > 0.2:
                worker.take(grant)
        if turn % 500 == 250:  # one is lost, and another takes its place
            gone = those.pop(0)
            lost += max(0, gone.may_send - gone.sent)
            those.append(Worker(pool, f"new{turn}"))
            dead = getattr(pool, "dead", [])
            pool.dead = [*dead, gone]  # type: ignore[attr-defined]
        everyone = [*those, *getattr(pool, "dead", [])]
        assert sum(one.sent for one in everyone) <= 200
        assert sum(one.spent + one.reserved for one in everyone) <= 150.0
    assert any(one.used_up for one in those)
    assert 200 - lost - sum(one.sent for one in everyone) <= 0 or any(
        one.used_up and "budget_usd=150" in one.used_up.why() for one in those
    )


# --- workers that are processes


def places_of(server: LoopbackServer, folder: Path, count: int, rows: int) -> list[Workplace]:
    made = [
        Workplace(folder / f"w{n}", server.base_url, **{"workflow.max_workers": 32})
        for n in range(count)
    ]
    for place in made:
        place.many(rows)
    return made


@pytest.fixture
def busy() -> Iterator[LoopbackServer]:
    with LoopbackServer(
        EchoAnswers(), latency=0.03, capacity=8, limit_fault=faults.too_many_requests()
    ) as server:
        yield server


def test_one_of_three_processes_is_killed_and_begun_again(
    busy: LoopbackServer, tmp_path: Path
) -> None:
    served = Served(LeasePool())
    those = places_of(busy, tmp_path, 3, 150)
    running = [served.start(place.arguments()) for place in those]
    wait_until(lambda: busy.count(200) >= 120)
    running[0].kill()
    ended(running[0])
    running[0] = served.start(those[0].arguments())
    for one, place in zip(running, those, strict=True):
        done = ended(one)
        assert done.code == 0, done
        assert len(place.annotations()) == 150
    assert 900 <= busy.count(200) <= 900 + 32
    [key] = served.pool.levels
    assert 6 <= served.pool.levels[key].places <= 12
    assert busy.count() - busy.count(200) <= busy.count(200) * 0.15
    wait_until(lambda: all_free(served.pool, key))


def all_free(pool: LeasePool, key: tuple[str, str]) -> bool:
    """Whether a new worker may have all places."""
    name = f"asks at {time.monotonic()}"
    granted = pool.renew(Report(name, 1, {key: Part(0, 1000)}, {key: Outcomes()})).ceilings[key]
    pool.renew(Report(name, 2, {key: Part(0, 0)}, {key: Outcomes()}))
    time.sleep(0.1)
    return granted == pool.levels[key].places


def test_the_last_request_of_all_is_sent_and_no_other(
    busy: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 30.0)  # on a busy machine nobody is taken for gone
    served = Served(LeasePool(max_requests=100))
    those = places_of(busy, tmp_path, 4, 60)  # 120 requests each
    those[3].many(2)  # it needs few, and leaves the others the rest
    for place in those:
        place.settings["workflow.max_requests"] = 100
    done = [ended(one) for one in [served.start(place.arguments()) for place in those]]
    assert busy.count() == 100
    assert [one.code for one in done[:3]] == [3, 3, 3], done
    assert done[3].code in (0, 3), done[3]  # on a busy machine it comes when nothing is left
    assert all("stopped before passing workflow.max_requests=100" in one.err for one in done[:3])


def test_a_budget_in_usd_is_of_all(busy: LoopbackServer, tmp_path: Path) -> None:
    served = Served(LeasePool(budget_usd=1.0))
    settings = {"workflow.budget_usd": 1.0, "vlm.prices": {"input": 1.0, "output": 1.0}}
    done = [
        ended(served.start(place.arguments(**settings)))
        for place in places_of(busy, tmp_path, 1, 3)
    ]
    assert done[0].code == 0, done
    one = json.loads(done[0].out)["cost_usd"]
    limit = one * 20
    served = Served(LeasePool(budget_usd=limit))
    settings["workflow.budget_usd"] = limit
    running = [
        served.start(place.arguments(**settings))
        for place in places_of(busy, tmp_path / "more", 2, 60)
    ]
    done = [ended(one) for one in running]
    assert [one.code for one in done] == [3, 3], done
    assert all(f"workflow.budget_usd={limit:g}" in one.err for one in done)


def test_a_pool_that_is_gone_is_waited_for_and_then_stops_the_run(
    busy: LoopbackServer, tmp_path: Path
) -> None:
    served = Served(LeasePool())
    [place] = places_of(busy, tmp_path, 1, 400)
    running = served.start(place.arguments(), max_wait=3.0)
    wait_until(lambda: busy.count(200) >= 50)
    served.silent = True
    done = ended(running)
    assert done.code == 130, done
    said = done.err.strip().splitlines()[-1]
    assert "can't reach the pool" in said
    assert "silent" in said
    assert busy.count() < 800


def test_outside_of_it_all_is_as_before(busy: LoopbackServer, tmp_path: Path) -> None:
    [place] = places_of(busy, tmp_path, 1, 10)
    with leasing(LeasePool(max_requests=5).renew):
        assert place.run().code == 3
    assert busy.count() == 5
    assert place.run().code == 0
    assert BudgetExceeded.exit_code == 3


def test_what_a_lease_held_goes_with_it(busy: LoopbackServer) -> None:
    """A worker works through hundreds of shards, each under a lease of its own."""
    serving = OpenAIServing(busy.base_url, model_name="m")
    with leasing(LeasePool().renew) as options:
        lease = weakref.ref(options.shared_limits)
        assert share_of(serving, limiters=limiters_of(options)).level == 0  # none is leased yet
        del options
    gc.collect()
    assert lease() is None

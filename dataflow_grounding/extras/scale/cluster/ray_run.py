"""A run on Ray, as its driver sees it: the input split, shards handed to workers, their files put
together.
"""

import asyncio
import atexit
import logging
import os
import re
import socket
import sys
import sysconfig
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

from dataflow_grounding._util.errors import InputError, NoRoom, RunStopped, SpecError
from dataflow_grounding._util.terminal import counted, say, speaks_of_specs
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.working_folder import address_of
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.workers import GRACE_SECONDS, Workers
from dataflow_grounding.extras.scale.cluster import LEAVING
from dataflow_grounding.extras.scale.cluster._shipping import shipped
from dataflow_grounding.extras.scale.cluster._worker import Done, Work, Worker
from dataflow_grounding.extras.scale.leases import Grant, LeasePool, Report
from dataflow_grounding.extras.scale.shard_files import join, split
from dataflow_grounding.serving.base import check_counts

# shards: several for each worker, as long as not too many files are open at once
FEWEST, EACH, MOST = 8, 4, 256
LEAVE_SECONDS = 30.0
# without any worker: it is said, then each minute; a Ray of our own gives up
SAY_SECONDS, START_SECONDS = 8.0, 60.0
LOOK_SECONDS = 1.0
# looks, of up to 2 s, in turn: a worker that is silent so long can't send anything any more
MOST_SILENCES = 30
# without the head of the cluster, which some can start anew; after 60 its workers end themselves
HEAD_SECONDS = 30.0
MOST_LOSSES = 10  # workers lost over one shard: then it is the shard
_SET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # else Ray ends the driver without the head, with exit code 1
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


class RayRun(Run):
    """One pass over a source by workers on Ray, which leaves what a Run in this process would.

    `address` and `workers` are those of `Pipeline.run_on_ray`, `given` is what a Run is given.
    """

    def __init__(self, address: str | None, workers: int | None, *given: Any) -> None:
        super().__init__(*given)
        if not isinstance(address, str | None):
            what = f"Ray's address should be a text, and {type(address).__name__} is none"
            raise SpecError(f"{what}: rows are read from the pipeline's FileStorage")
        check_counts(workers=1 if workers is None else workers)
        self._address, self._count = address, workers
        results = address_of(self.steps[0].storage.cache_path)
        self._shipped = shipped(
            Work(self.steps, self.options, self.source.name, results, speaks_of_specs.get())
        )
        self._gpus: float = max(
            (getattr(step.operator.serving, "num_gpus", 0) for step in self.steps), default=0
        )
        # the workers' own grace ends before
        self._workers = Workers(self._interrupt, GRACE_SECONDS + 2)
        self._shards: dict[Shard, int] = {}  # with rows, and how many
        self._waiting: deque[Shard] = deque()
        self._at_work: dict[Shard, Any] = {}  # who works on it
        self._nows: dict[Shard, Now] = {}
        self._losses = Counter[Shard | None]()
        self._sent, self._paid = 0, 0.0  # by workers that came to say what they did
        self._silences = Counter[Any]()  # of workers
        self._started = False

    async def _execute(self) -> None:
        with _connected(self._address, self._count) as (self._ray, self._own):
            self._count = self._count or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            of = max(FEWEST, self._count, min(EACH * self._count, MOST))
            shards = split(self.source, of, self.steps[0].storage.cache_path)
            self._shards = {shard: rows for shard, rows in shards.items() if rows}
            await self._work_through()
        join(self.steps, list(self._shards), self.summary)

    async def _work_through(self) -> None:
        self._waiting.extend(self._shards)
        near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        # which no other node can be lost with
        here = near(self._ray.get_runtime_context().get_node_id(), soft=True)
        pool = self._ray.remote(LeasePool).options(num_cpus=0, scheduling_strategy=here)
        budget = self._budget
        self._pool = pool.remote(
            budget.max_requests, budget.usd, before=(budget.sent, budget.spent)
        )
        try:
            async with self._helped_by(
                self._look(), self._watch_the_start(), self._watch_the_cluster()
            ):
                await self._workers.do(
                    self._serve() for _ in range(min(self._count or 1, len(self._shards)))
                )
        finally:
            await self._count_the_lost()
            self._end(self._pool)

    def stop(self, why: RunStopped) -> None:
        """Begin nothing more; what is in flight may finish."""
        if self.stopped is None:
            self.stopped = why
            for worker in self._at_work.values():
                worker.interrupt.remote()
            self._leave()

    def _leave(self) -> None:
        """Where nobody is at work, and nobody should be, wait for no more worker to begin."""
        if not self._at_work and (self.stopped or not self._waiting):
            self._workers.cancel()

    async def _serve(self) -> None:
        """Have a worker take shards until none is left; where it is lost, another one
        in its place.
        """
        while self.stopped is None and self._waiting:
            shard: Shard | None = None
            # several calls at once: one works, the others tell how far it is
            made = self._ray.remote(Worker).options(
                num_cpus=1, num_gpus=self._gpus, max_concurrency=4
            )
            worker = made.remote(partial(_renewed, self._pool))
            try:
                if wrong := await worker.begin.remote(
                    self._shipped, os.getcwd(), _own_modules(), __version__
                ):
                    raise wrong.kind(wrong.text)
                self._started, self._losses[None] = True, 0
                while self.stopped is None and self._waiting:
                    shard = self._waiting.popleft()
                    self._at_work[shard] = worker
                    self._take(shard, await worker.work_on.remote(shard))
            except self._ray.exceptions.RayError as lost:
                self._waiting.extendleft([shard] if shard else [])
                self._losses[shard] += 1
                if self._losses[shard] >= MOST_LOSSES:
                    said = (str(lost).strip().splitlines() or [""])[-1].strip()
                    what = f"with {shard}" if shard else "that were to begin"
                    self.stop(
                        RunStopped(
                            f"Ray lost {MOST_LOSSES} workers {what}: {said}. The same command"
                            " goes on"
                        )
                    )
            except Exception:
                self.stop(RunStopped("stopped by an error"))
                raise
            finally:
                self._at_work.pop(shard, None) if shard else None
                self._end(worker)
        self._leave()

    def _take(self, shard: Shard, done: Done) -> None:
        del self._at_work[shard]
        self._nows[shard] = done.now
        self.summary.add_part(done.summary)
        self._sent, self._paid = (
            self._sent + done.summary.requests["sent"],
            self._paid + (done.summary.cost_usd or 0.0),
        )
        error = done.wrong and done.wrong.kind(done.wrong.text)
        if isinstance(error, RunStopped):
            self.stop(error)
        elif error is not None:
            raise error

    async def _count_the_lost(self) -> None:
        """Add what lost workers have sent and spent, as far as they came to tell the pool."""
        if not self._losses.total():
            return
        with suppress(Exception):  # the pool is lost too
            sent, usd = await asyncio.wait_for(self._pool.told.remote(), LOOK_SECONDS)
            self.summary.requests["sent"] += max(0, sent - self._sent)
            if self.summary.cost_usd is not None:
                self.summary.cost_usd += max(0.0, usd - self._paid)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            asked = list(self._at_work.items())
            calls = (asyncio.wait_for(worker.now.remote(), LOOK_SECONDS) for _, worker in asked)
            nows = await asyncio.gather(*calls, return_exceptions=True)
            for (shard, worker), now in zip(asked, nows, strict=True):
                if self._at_work.get(shard) is not worker:
                    continue
                if isinstance(now, Now):
                    self._nows[shard] = now
                self._silences[worker] = (
                    self._silences[worker] + 1 if isinstance(now, asyncio.TimeoutError) else 0
                )
                if self._silences[worker] >= MOST_SILENCES:
                    self._end(worker)  # another one takes its place

    def now(self, total: int | None) -> Now:
        """How far all are together."""
        sums: list[Any] = [
            sum(value or 0 for value in values) for values in zip(*self._nows.values(), strict=True)
        ]
        now = Now(*(sums or [0] * 8))
        return now._replace(
            total=sum(self._shards.values()), cost_usd=now.cost_usd if self._budget.prices else None
        )

    async def _watch_the_start(self) -> None:
        """Say now and then that no worker has begun, and in the end give up."""
        gpus = f" and {self._gpus:g} GPU" if self._gpus else ""
        wanted = f"{counted(self._count or 1, 'worker')} of 1 CPU{gpus} each"
        most = START_SECONDS if self._own else max(START_SECONDS, self.options.max_wait)
        for pause in chain([SAY_SECONDS, START_SECONDS - SAY_SECONDS], repeat(START_SECONDS)):
            await asyncio.sleep(pause)
            most -= pause
            if self._started or most <= 0:
                break
            say(f"No worker has begun yet: {wanted} are wanted, and {_room(self._ray)}")
        if not self._started:
            self.stop(NoRoom(f"no worker has begun: {wanted} are wanted, and {_room(self._ray)}"))

    async def _watch_the_cluster(self) -> None:
        """Stop where its head is gone, without which no worker can begin, or the pool, without
        which none may send.
        """
        address = self._ray.get_runtime_context().gcs_address
        listened = time.monotonic()
        while self.stopped is None:
            await asyncio.sleep(LOOK_SECONDS)
            if await _listens(address):
                listened = time.monotonic()
            elif time.monotonic() - listened > HEAD_SECONDS:
                on = "on a cluster or without one"
                self.stop(
                    RunStopped(f"Ray's head at {address} is gone. The same command goes on, {on}")
                )
            try:
                await asyncio.wait_for(self._pool.__ray_ready__.remote(), LOOK_SECONDS)
            except self._ray.exceptions.RayActorError:
                self.stop(RunStopped("Ray lost the pool of leases. The same command goes on"))
            except (self._ray.exceptions.RayError, asyncio.TimeoutError):  # it may come yet
                pass

    def _end(self, actor: Any) -> None:
        with suppress(Exception):  # it is gone already
            self._ray.kill(actor)


def _own_modules() -> list[str]:
    """Where this process finds modules that aren't installed: beside a spec or a script."""
    known = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    installed = tuple(os.path.join(place, "") for place in known)
    own = (
        os.path.join(os.path.abspath(place), "")
        for place in sys.path
        if os.path.isdir(place or ".")
    )
    return [place.rstrip(os.sep) for place in own if not place.startswith(installed)]


def _renewed(pool: Any, report: Report) -> Grant:
    """What the pool grants, asked by a worker. Raises what keeps the pool from answering in a
    moment.
    """
    import ray

    grant: Grant = ray.get(pool.renew.remote(report), timeout=1.0)
    return grant


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[tuple[Any, bool]]:
    """The module `ray`, with a cluster, and whether that is started here, to end with the block.
    Raises InputError.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _SET.items()})
    import ray.util.scheduling_strategies

    if ray.is_initialized():  # the user's own, in a notebook, say
        yield ray, False
        return
    cpus = max(workers or 1, os.cpu_count() or 1)
    own = {
        "address": "local",
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,
    }
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if hasattr(inside := ray._private.worker, "print_to_stdstream"):
        # on standard output, of each worker that is lost
        inside.print_to_stdstream = lambda *_, **__: None
    try:
        if place := re.search(r"([^/@]+):(\d+)$", address or ""):  # Ray would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=5).close()
        ray.init(
            log_to_driver=False,
            configure_logging=False,
            **({"address": address} if address else own),
        )
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"can't reach Ray at {address}: {said}" if address else f"can't start Ray: {said}"
        ) from None
    try:
        yield ray, address is None
    finally:
        _leave_cluster(ray)


def _leave_cluster(ray: Any) -> None:
    """End the connection; a head that doesn't answer, a machine that was cut off, say, keeps Ray
    waiting for ever.
    """
    leaving = threading.Thread(target=ray.shutdown, name=LEAVING, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)


async def _listens(address: str) -> bool:
    """Whether somebody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    with suppress(OSError, asyncio.TimeoutError):
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), int(port)), LOOK_SECONDS
        )
        writer.close()
        return True
    return False


def _room(ray: Any) -> str:
    has, free = ray.cluster_resources(), ray.available_resources()
    kinds = [kind for kind in ("CPU", "GPU") if kind == "CPU" or has.get(kind)]
    parts = [f"{free.get(kind, 0):g} of {has.get(kind, 0):g} {kind}" for kind in kinds]
    return (
        f"Ray has {' and '.join(parts)} free on"
        f" {counted(sum(node['Alive'] for node in ray.nodes()), 'node')}"
    )

"""A run on Ray: its cluster, its workers, and what becomes of both."""

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

from dataflow_grounding._util.errors import InputError, NoRoom, RunStopped, SpecError
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding._util.threads import LEAVING
from dataflow_grounding._util.version import __version__
from dataflow_grounding.engine.limiter import Found, Key
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.extras.scale.cluster._shipping import shipped
from dataflow_grounding.extras.scale.cluster._worker import Done, Work, Worker, Wrong
from dataflow_grounding.extras.scale.cluster.driver import LOOK_SECONDS, DrivenRun, Hand, WorkerLost
from dataflow_grounding.extras.scale.leases import Grant, LeasePool, Report
from dataflow_grounding.serving.base import check_counts

# shards: several for each worker, as long as not too many files are open at once
FEWEST = 8
EACH = 4
MOST = 256
LEAVE_SECONDS = 30.0
SAY_SECONDS = 8.0  # without any worker, until it is said
START_SECONDS = 60.0  # between saying it again; a Ray of our own gives up after so long
# without the head of the cluster, which some can start anew; after 60 its workers end themselves
HEAD_SECONDS = 30.0
NO_LIMIT = 10**6  # of requests in flight to an endpoint: each worker has its own
_SET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # else Ray ends the driver without the head, with exit code 1
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


class RayRun(DrivenRun):
    """One pass over a source by workers on Ray, which leaves what a Run in this process would.

    `address` and `workers` are those of `Pipeline.run_on_ray`, `arguments` are a Run's.
    """

    whose = "Ray"

    def __init__(self, address: str | None, workers: int | None, *arguments: Any) -> None:
        if not isinstance(address, str | None):
            what = f"Ray's address should be a text, and {type(address).__name__} is none"
            raise SpecError(f"{what}: rows are read from the pipeline's FileStorage")
        check_counts(workers=1 if workers is None else workers)
        super().__init__(*arguments)
        self._address = address
        self._count = workers
        gpus = [getattr(step.operator.serving, "num_gpus", 0) for step in self.steps]
        self._gpus: float = max(gpus, default=0)

    def _ship(self, work: Work) -> bytes:
        return shipped(work)

    async def _execute(self) -> None:
        """Split the rows, have Ray's workers work them through, and put the parts together.

        Limits and budget are leased by an actor on this node.
        """
        with _connected(self._address, self._count) as (self._ray, self._own):
            self._count = self._count or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            self._split(max(FEWEST, self._count, min(EACH * self._count, MOST)))
            near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            # which no other node is lost with
            here = near(self._ray.get_runtime_context().get_node_id(), soft=True)
            pool = self._ray.remote(LeasePool).options(num_cpus=0, scheduling_strategy=here)
            budget = self._budget
            before = (budget.sent, budget.spent)
            levels = {key: self._begun_level(key, NO_LIMIT) for key in self._endpoints()}
            self._pool = pool.remote(budget.max_requests, budget.usd, before=before, levels=levels)
            try:
                await self._take_through(
                    self._count, self._watch_the_start(), self._watch_the_cluster()
                )
            finally:
                with suppress(Exception):  # it is gone already
                    self._ray.kill(self._pool)
        self._join()

    async def _make_hand(self) -> Hand:
        """Start a worker on the cluster. Raises WorkerLost."""
        try:
            # several calls at once: one works, the others tell how far it is
            made = self._ray.remote(Worker).options(
                num_cpus=1, num_gpus=self._gpus, max_concurrency=4
            )
            return _Actor(self._ray, made.remote(partial(_renewed, self._pool)))
        except self._ray.exceptions.RayError as lost:
            raise WorkerLost(_last_line(lost)) from None

    async def _told_to_the_pool(self) -> tuple[int, float]:
        told: tuple[int, float] = await self._pool.told.remote()
        return told

    async def _found_by_the_pool(self) -> dict[Key, Found]:
        levels: dict[Key, Found] = await self._pool.found.remote()
        return levels

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
        """Stop where its head is gone, or the pool.

        Without the head no worker can begin, without the pool none may send.
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


class _Actor:
    """A worker on Ray; see Hand."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    async def begin(self, work: bytes) -> Wrong | None:
        wrong: Wrong | None = await self._answer(
            self._actor.begin.remote(work, __version__, os.getcwd(), _own_modules())
        )
        return wrong

    async def work_on(self, shard: Shard) -> Done:
        done: Done = await self._answer(self._actor.work_on.remote(shard))
        return done

    async def now(self) -> Now | None:
        now: Now | None = await self._answer(self._actor.now.remote())
        return now

    def interrupt(self) -> None:
        self._actor.interrupt.remote()

    def end(self) -> None:
        with suppress(Exception):  # it is gone already
            self._ray.kill(self._actor)

    async def _answer(self, call: Any) -> Any:
        try:
            return await call
        except self._ray.exceptions.RayError as lost:
            raise WorkerLost(_last_line(lost)) from None


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1].strip()


def _own_modules() -> list[str]:
    """Where this process finds modules that aren't installed: beside a spec or a script."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = tuple(os.path.join(sysconfig.get_path(name), "") for name in names)
    own = []
    for path in sys.path:
        folder = os.path.join(os.path.abspath(path), "")
        if os.path.isdir(path or ".") and not folder.startswith(installed):
            own.append(folder.rstrip(os.sep))
    return own


def _renewed(pool: Any, report: Report) -> Grant:
    """What the pool grants, asked by a worker.

    Raises what keeps the pool from answering in a moment.
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
    inside = ray._private.worker
    if hasattr(inside, "print_to_stdstream"):
        # on standard output, of each worker that is lost
        inside.print_to_stdstream = lambda *_, **__: None
    cluster = {"address": address} if address else own
    try:
        host_and_port = re.search(r"([^/@]+):(\d+)$", address or "")
        if host_and_port:  # Ray would try for minutes
            host, port = host_and_port.groups()
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(log_to_driver=False, configure_logging=False, **cluster)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if address:
            raise InputError(f"can't reach Ray at {address}: {why}") from None
        raise InputError(f"can't start Ray: {why}") from None
    try:
        yield ray, address is None
    finally:
        _leave_cluster(ray)


def _leave_cluster(ray: Any) -> None:
    """End the connection.

    A head that doesn't answer, a machine that was cut off, say, keeps Ray waiting for ever.
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
    """What the cluster has free, in words."""
    has = ray.cluster_resources()
    free = ray.available_resources()
    parts = []
    for resource in ("CPU", "GPU"):
        if resource == "CPU" or has.get(resource):
            parts.append(f"{free.get(resource, 0):g} of {has.get(resource, 0):g} {resource}")
    nodes = counted(sum(node["Alive"] for node in ray.nodes()), "node")
    return f"Ray has {' and '.join(parts)} free on {nodes}"

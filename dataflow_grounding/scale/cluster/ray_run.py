"""A run on Ray: its cluster, its workers, and what becomes of both."""

import asyncio
import atexit
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError, NoRoom, RunStopped, SpecError
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding._util.threads import LEAVING
from dataflow_grounding.engine.limiter import FoundPlaces, Key, share_of
from dataflow_grounding.scale.cluster._worker import Worker
from dataflow_grounding.scale.cluster.driver import (
    LOOK_SECONDS,
    DrivenRun,
    WorkerHandle,
    WorkerLost,
    last_line,
)
from dataflow_grounding.scale.cluster.limits import Permits, Report, SharedLimiter
from dataflow_grounding.serving.serving import check_counts

# How many blocks the rows are split into, see `_block_count`.
FEWEST_BLOCKS = 8
BLOCKS_OF_WORKER = 4
MOST_BLOCKS = 256
LEAVE_SECONDS = 30.0  # the longest wait for Ray to end the connection
SAY_SECONDS = 8.0  # after so long without any worker, it is said
# Then it is said each time that so long has passed. A cluster of our own isn't waited for any
# longer, as nobody else is at work there who might leave room.
START_SECONDS = 60.0
# How long the head of the cluster may be gone. Some clusters start it again; after 60 s its workers
# end themselves.
HEAD_SECONDS = 30.0
_RAY_DEFAULTS = {  # variables of the environment, where they aren't set
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default Ray ends the driver soon after the head is gone, with exit code 1.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    # By default Ray's workers give way to all else on the machine, by 15 of 19 steps. Where it is
    # busy they would stand still, and so would the limiter, which all of them wait for.
    "RAY_worker_niceness": "0",
}
# The host and the port in "ray://head.local:10001" and "10.0.0.1:6379".
_HOST_AND_PORT = re.compile(r"([^/@]+):(\d+)$")


class RayRun(DrivenRun):
    """One pass over a source by workers on Ray, which leaves what a Run in this process would.

    Args:
        address: Of the cluster; None for a local one, which is started. Where this process is
            connected to a cluster already, that one is used.
        workers: How many; None for one for each CPU of the cluster.
        *arguments: A Run's.

    Raises:
        SpecError: One of them is wrong, or the steps can't be sent to workers.
    """

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

    async def _execute(self) -> None:
        # An actor on this node is the limiter of all workers.
        with _connected(self._address, self._count) as connection:
            self._ray = connection.ray
            self._is_own_cluster = connection.is_own
            self._count = self._count or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            self._split(_block_count(self._count))
            # It is kept on the driver's own node: so it isn't lost with another one.
            on_node = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            on_this_node = on_node(self._ray.get_runtime_context().get_node_id(), soft=True)
            limiter = self._ray.remote(SharedLimiter).options(
                num_cpus=0, scheduling_strategy=on_this_node
            )
            budget = self._budget
            self._limiter = limiter.remote(
                budget.max_requests,
                budget.usd,
                before=(budget.sent, budget.spent),
                found={key: share_of(one).found for key, one in self._endpoints().items()},
                of_spec=speaks_of_specs.get(),
            )
            try:
                await self._take_through(
                    self._count, self._watch_the_start(), self._watch_the_cluster()
                )
            finally:
                with suppress(Exception):  # it is gone already
                    self._ray.kill(self._limiter)
        self._join()

    async def _start_worker(self) -> WorkerHandle:
        try:
            # Several calls at once: one works, the others ask how far it is.
            worker_class = self._ray.remote(Worker).options(
                num_cpus=1, num_gpus=self._gpus, max_concurrency=4
            )
            name = uuid.uuid4().hex
            actor = worker_class.remote(partial(_exchanged, self._limiter, name))
            return WorkerHandle(self._ray, actor, partial(self._limiter.gone.remote, name))
        except self._ray.exceptions.RayError as lost:
            raise WorkerLost(last_line(lost)) from None

    async def _totals(self) -> tuple[int, float]:
        totals: tuple[int, float] = await self._limiter.totals.remote()
        return totals

    async def _found(self) -> dict[Key, FoundPlaces]:
        found: dict[Key, FoundPlaces] = await self._limiter.found.remote()
        return found

    async def _watch_the_start(self) -> None:
        gpus = f" and {self._gpus:g} GPU" if self._gpus else ""
        wanted = f"{counted(self._count or 1, 'worker')} of 1 CPU{gpus} each"
        most_seconds = START_SECONDS
        if not self._is_own_cluster:
            # Others may be at work on the cluster, and leave room later.
            most_seconds = max(START_SECONDS, self.options.max_wait)
        waited = 0.0
        pause = SAY_SECONDS
        while True:
            await asyncio.sleep(pause)
            waited += pause
            if self._started:
                return
            if waited >= most_seconds:
                break
            say(f"No worker has begun yet: {wanted} are wanted, and {_room(self._ray)}")
            pause = START_SECONDS - waited % START_SECONDS
        self.stop(NoRoom(f"no worker has begun: {wanted} are wanted, and {_room(self._ray)}"))

    async def _watch_the_cluster(self) -> None:
        # Without the head no worker can begin, without the limiter none may send.
        address = self._ray.get_runtime_context().gcs_address
        last_listened = time.monotonic()
        while self.stopped is None:
            await asyncio.sleep(LOOK_SECONDS)
            if await _listens(address):
                last_listened = time.monotonic()
            elif time.monotonic() - last_listened > HEAD_SECONDS:
                on = "on a cluster or without one"
                self.stop(
                    RunStopped(f"Ray's head at {address} is gone. The same command goes on, {on}")
                )
            try:
                await asyncio.wait_for(self._limiter.__ray_ready__.remote(), LOOK_SECONDS)
            except self._ray.exceptions.RayActorError:
                self.stop(
                    RunStopped("Ray lost the limiter of all workers. The same command goes on")
                )
            except (self._ray.exceptions.RayError, asyncio.TimeoutError):  # it may answer yet
                pass


def _block_count(workers: int) -> int:
    # Several for each worker, so that a late one holds up little; but no more than MOST_BLOCKS,
    # whose files are open at once, unless there are more workers.
    return max(FEWEST_BLOCKS, workers, min(BLOCKS_OF_WORKER * workers, MOST_BLOCKS))


def _exchanged(limiter: Any, worker: str, seconds: float, report: Report) -> Permits:
    import ray

    try:
        permits: Permits = ray.get(limiter.exchange.remote(worker, report), timeout=seconds)
    except ray.exceptions.RayActorError as error:
        raise ConnectionError("Ray lost the limiter") from error
    return permits


class _Connection(NamedTuple):
    """The module `ray`, connected to a cluster, and whether that is one that we have started."""

    ray: Any
    is_own: bool


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[_Connection]:
    # The connection, and with it a local cluster, is ended afterwards. One that the process has
    # already, in a notebook, say, is used at any address, and stays.
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import ray.util.scheduling_strategies

    if ray.is_initialized():
        yield _Connection(ray, is_own=False)
        return
    _silence(ray)
    cluster: dict[str, Any] = {"address": address}
    if not address:
        cluster = _local_cluster(workers or 1)
    try:
        if address:
            _try_to_reach(address)
        ray.init(log_to_driver=False, configure_logging=False, **cluster)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if address:
            raise InputError(f"can't reach Ray at {address}: {why}") from None
        raise InputError(f"can't start Ray: {why}") from None
    try:
        yield _Connection(ray, is_own=not address)
    finally:
        _leave_cluster(ray)


def _silence(ray: Any) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    worker_module = ray._private.worker
    if hasattr(worker_module, "print_to_stdstream"):
        worker_module.print_to_stdstream = lambda *_, **__: None


def _local_cluster(workers: int) -> dict[str, Any]:
    # Return the arguments of `ray.init` for a cluster of our own with room for these workers. Each
    # counts as one CPU, even if this machine has fewer.
    return {
        "address": "local",
        "num_cpus": max(workers, os.cpu_count() or 1),
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,  # bytes; all that goes through it is small
    }


def _try_to_reach(address: str) -> None:
    # Nothing happens where an address ends in none, as "auto".
    host_and_port = _HOST_AND_PORT.search(address)
    if host_and_port:
        host, port = host_and_port.groups()
        socket.create_connection((host, int(port)), timeout=5).close()


def _leave_cluster(ray: Any) -> None:
    # A head that doesn't answer, of a machine that was cut off, say, keeps Ray waiting for ever.
    leaving = threading.Thread(target=ray.shutdown, name=LEAVING, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)  # which would wait again when the process ends


async def _listens(address: str) -> bool:
    # Return whether somebody listens at `host:port`, and is reached within LOOK_SECONDS. False as
    # well where the address isn't of that form.
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError, asyncio.TimeoutError):
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), int(port)), LOOK_SECONDS
        )
        writer.close()
        return True
    return False


def _room(ray: Any) -> str:
    # GPUs are named where it has any; nodes that are gone don't count.
    has = ray.cluster_resources()
    free = ray.available_resources()
    parts = []
    for resource in ("CPU", "GPU"):
        if resource == "CPU" or has.get(resource):
            parts.append(f"{free.get(resource, 0):g} of {has.get(resource, 0):g} {resource}")
    nodes = counted(sum(node["Alive"] for node in ray.nodes()), "node")
    return f"Ray has {' and '.join(parts)} free on {nodes}"

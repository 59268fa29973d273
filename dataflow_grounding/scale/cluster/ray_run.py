"""A run on Ray: a task for each shard of the input, and what one machine would leave.

The driver, this process, splits the input into a shard for each worker, has Ray run a task for
each, and puts their files together. Each task is a run of its own, with its part of the limits.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from dataflow_grounding._util.errors import (
    BudgetExceeded,
    InputError,
    Interrupted,
    NoRoom,
    RunStopped,
    SpecError,
)
from dataflow_grounding._util.settings import setting, speaks_of_specs
from dataflow_grounding._util.terminal import addressed, counted, say
from dataflow_grounding._util.threads import LEAVING
from dataflow_grounding._util.version import __version__
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.workers import GRACE_SECONDS
from dataflow_grounding.scale.cluster._shipping import shipped
from dataflow_grounding.scale.cluster._task import (
    Home,
    ShardOutcome,
    Work,
    what_is_wrong,
    work_on,
)
from dataflow_grounding.scale.shard_files import join, write_shards
from dataflow_grounding.serving.serving import check_counts

# How often a shard goes on whose worker was lost; with a limit of requests or USD it isn't begun
# again, because its part of that would be used twice.
MOST_LOSSES = 10
# How long tasks have after the run was told to stop, until they are cancelled. It is a bit longer
# than their own time to finish what is in flight (GRACE_SECONDS), so that they can report.
STOP_SECONDS = GRACE_SECONDS + 2
MOST_WORKERS = 1000  # the rows of all are written at once, each to a file of its own
LEAVE_SECONDS = 30.0  # the longest wait for Ray to end the connection
SAY_SECONDS = 8.0  # after so long without any worker, it is said
# And after so long, the run stops where it has started the cluster: nobody else is at work there
# who might leave room.
START_SECONDS = 60.0
_RAY_DEFAULTS = {  # variables of the environment, where they aren't set
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default Ray's workers give way to all else on the machine, by 15 of 19 steps. Where it is
    # busy they would stand still.
    "RAY_worker_niceness": "0",
}
# The host and the port in "ray://head.local:10001" and "10.0.0.1:6379".
_HOST_AND_PORT = re.compile(r"([^/@]+):(\d+)$")


class RayRun(Run):
    """One pass over a source by tasks on Ray, which leaves what a Run in this process would."""

    grace = STOP_SECONDS

    def __init__(self, address: str | None, workers: int | None, *arguments: Any) -> None:
        if not isinstance(address, str | None):
            what = f"Ray's address should be a text, and {type(address).__name__} is none"
            raise SpecError(f"{what}: rows are read from the pipeline's FileStorage")
        if workers is not None:
            check_counts(workers=workers)
        super().__init__(*arguments)
        self._address = address  # None: a local cluster is started
        self._worker_count = workers  # None: one for each CPU of the cluster
        # A worker has the GPUs of the step that needs most. Only a serving whose model runs in the
        # worker's own process has `num_gpus`.
        gpus = [getattr(step.operator.serving, "num_gpus", 0) for step in self.steps]
        self._gpus: float = max(gpus, default=0)
        self._results = self.steps[0].storage.cache_path
        results = addressed(self._results)
        of_spec = speaks_of_specs.get()
        # An earlier step may have had a run of its own, which has used some of the limits.
        budget = self._budget
        left = replace(
            self.options,
            max_requests=None if budget.max_requests is None else budget.max_requests - budget.sent,
            budget_usd=None if budget.usd is None else max(0.0, budget.usd - budget.spent),
        )
        self._shipped = shipped(Work(self.steps, left, self.source.name, results, of_spec))
        self._home = Home(__version__, os.getcwd(), _own_modules())
        self._rows_of_shards: dict[Shard, int] = {}  # of all shards that have rows
        self._at_work: set[Any] = set()  # Ray's references to tasks
        self._outcomes: dict[Shard, ShardOutcome] = {}

    async def _execute(self) -> None:
        with _connected(self._address, self._worker_count) as (ray, is_own_cluster):
            self._ray = ray
            cpus = int(ray.cluster_resources().get("CPU", 1))
            # A worker has a request in flight or more, and all together have `max_workers`.
            limits = [each.max_workers for each in self._servings() if "://" in each.endpoint]
            count = min(self._worker_count or max(1, cpus), *limits, MOST_WORKERS)
            shards = write_shards(self.source, count, self._results)
            self._rows_of_shards = {shard: rows for shard, rows in shards.items() if rows}
            try:
                async with self._with_helpers():
                    start = partial(self._wait_for_a_worker, count, is_own_cluster)
                    await self.do([self._stopping_run(start)])
                    if self.stopped is None:
                        works = [partial(self._work_on, shard) for shard in self._rows_of_shards]
                        await self.do(map(self._stopping_run, works))
                    if self.stopped is None:
                        self._stop_at_limits()
            finally:  # also of a run that is stopped, what was done and paid counts
                for outcome in self._outcomes.values():
                    self.summary.add_part(outcome.summary)
                    self._budget.sent += outcome.summary.requests["sent"]
                    self._budget.spent += outcome.summary.cost_usd or 0.0
        join(self.steps, list(self._rows_of_shards), self.summary)

    async def _wait_for_a_worker(self, count: int, is_own_cluster: bool) -> None:
        """Ask one worker what is wrong, before any has a shard: all would have the same error."""
        gpus = f" and {self._gpus:g} GPU" if self._gpus else ""
        wanted = f"{counted(count, 'worker')} of 1 CPU{gpus} each are wanted"
        first = asyncio.ensure_future(self._result_of(what_is_wrong))
        await asyncio.wait([first], timeout=SAY_SECONDS)
        if not first.done():
            say(f"No worker has begun yet: {wanted}, and {_room(self._ray)}")
            await asyncio.wait([first], timeout=START_SECONDS if is_own_cluster else None)
        if not first.done():
            first.cancel()
            raise NoRoom(f"no worker has begun: {wanted}, and {_room(self._ray)}")
        wrong = await first
        if wrong is not None:
            raise wrong.error()

    async def _work_on(self, shard: Shard) -> None:
        """Have a task take a shard through the steps, with its part of the limits."""
        for _ in range(MOST_LOSSES):
            outcome: ShardOutcome = await self._result_of(work_on, shard)
            self._outcomes[shard] = outcome
            wrong = outcome.wrong
            was_interrupted = wrong is not None and wrong.error_class is Interrupted
            # Its machine asked it to end, and this run hasn't.
            goes_on = was_interrupted and self.stopped is None and not self._has_limit()
            if not goes_on:
                break
        if wrong is not None and wrong.error_class is not BudgetExceeded:
            raise wrong.error()

    async def _result_of(self, task: Any, *arguments: Any) -> Any:
        """Return what a task returns; cancelled, it cancels that."""
        retries = 0 if self._has_limit() else MOST_LOSSES
        remote = self._ray.remote(task)
        options = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": retries}
        reference = remote.options(**options).remote(self._shipped, self._home, *arguments)
        self._at_work.add(reference)
        try:
            return await reference
        except asyncio.CancelledError:
            with suppress(Exception):  # Ray is gone
                self._ray.cancel(reference, force=True)
            raise
        except self._ray.exceptions.RayError as lost:
            lines = str(lost).strip().splitlines() or [""]  # the last says what happened
            raise RunStopped(
                f"Ray lost a worker: {lines[-1].strip(' .')}. The same command goes on"
            ) from None
        finally:
            self._at_work.discard(reference)

    def _has_limit(self) -> bool:
        return self._budget.max_requests is not None or self._budget.usd is not None

    def _stop_at_limits(self) -> None:
        """Stop where shards have used their parts of a limit."""
        unfinished = [each for each in self._outcomes.values() if each.wrong is not None]
        if not unfinished:
            return
        limits = []
        if self._budget.max_requests is not None:
            limits.append(f"{setting('workflow.max_requests')}={self._budget.max_requests}")
        if self._budget.usd is not None:
            limits.append(f"{setting('workflow.budget_usd')}={self._budget.usd:g}")
        shards = counted(len(self._rows_of_shards), "shard")
        self.stop(
            BudgetExceeded(
                f"stopped before passing {' and '.join(limits)}: {len(unfinished)} of {shards} have"
                " used their parts, and the others may have left some of theirs"
            )
        )

    def stop(self, why: RunStopped) -> None:
        """Begin nothing more; what is in flight may finish. The first reason to stop counts."""
        if self.stopped is None:
            self.stopped = why
            for reference in self._at_work:
                with suppress(Exception):  # Ray is gone
                    self._ray.cancel(reference)  # its run takes that as an interrupt

    def now(self, total: int | None) -> Now:
        """Return how far the run is: what shards did that have ended."""
        summaries = [outcome.summary for outcome in self._outcomes.values()]
        cost_usd: float | None = None  # without prices it isn't known
        if self._budget.prices:
            cost_usd = sum(summary.cost_usd or 0.0 for summary in summaries)
        return Now(
            finished=sum(summary.records for summary in summaries),
            replayed=0,
            failed=sum(summary.failed for summary in summaries),
            total=sum(self._rows_of_shards.values()),
            sent=sum(summary.requests["sent"] for summary in summaries),
            in_flight=0,
            waiting_for_rate_limit=0,
            cost_usd=cost_usd,
        )


def _own_modules() -> list[str]:
    """Return the folders of `sys.path` that have the user's modules, next to a spec or script."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")  # Python's own, and installed ones
    # The empty part adds a slash at the end, so that "/lib/python3" isn't taken for a folder that
    # "/lib/python3.12" is in.
    installed = tuple(os.path.join(sysconfig.get_path(name), "") for name in names)
    own = []
    for path in sys.path:
        folder = os.path.join(os.path.abspath(path), "")
        is_folder = os.path.isdir(path or ".")  # zip files aren't; "" is the current folder
        if is_folder and not folder.startswith(installed):
            own.append(folder.rstrip(os.sep))
    return own


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[tuple[Any, bool]]:
    """Yield Ray, connected to a cluster for the block, and whether we have started that."""
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():  # by a notebook, say: then it stays connected as it is
        yield ray, False
        return
    # Ray would write its own lines among those of this run.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    worker_module = ray._private.worker
    if hasattr(worker_module, "print_to_stdstream"):
        worker_module.print_to_stdstream = lambda *_, **__: None
    _connect(ray, address, workers)
    try:
        yield ray, not address
    finally:
        _leave_cluster(ray)


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    """Connect to a cluster, or start a local one; raises InputError."""
    cluster: dict[str, object] = {"address": address}
    if not address:
        cluster = {
            "address": "local",
            # each worker counts as one CPU, even if this machine has fewer
            "num_cpus": max(workers or 1, os.cpu_count() or 1),
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,  # bytes; all that goes through it is small
        }
    try:
        if address:
            _try_to_reach(address)
        ray.init(log_to_driver=False, configure_logging=False, **cluster)
    except Exception as error:
        lines = str(error).strip().splitlines()
        why = lines[0] if lines else type(error).__name__
        if address:
            raise InputError(f"can't reach Ray at {address}: {why}") from None
        raise InputError(f"can't start Ray: {why}") from None


def _try_to_reach(address: str) -> None:
    """Raise OSError where nobody answers within 5 s; "auto" has no port, and isn't tried."""
    host_and_port = _HOST_AND_PORT.search(address)
    if host_and_port:
        host, port = host_and_port.groups()
        socket.create_connection((host, int(port)), timeout=5).close()


def _leave_cluster(ray: Any) -> None:
    """Shut Ray down in a thread, because that never ends where the head was cut off."""
    leaving = threading.Thread(target=ray.shutdown, name=LEAVING, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)  # which would wait again when the process ends


def _room(ray: Any) -> str:
    """Return what is free, in words; GPUs are named where there are any."""
    has = ray.cluster_resources()
    free = ray.available_resources()
    parts = []
    for resource in ("CPU", "GPU"):
        if resource == "CPU" or has.get(resource):
            parts.append(f"{free.get(resource, 0):g} of {has.get(resource, 0):g} {resource}")
    nodes = counted(sum(node["Alive"] for node in ray.nodes()), "node")
    return f"Ray has {' and '.join(parts)} free on {nodes}"

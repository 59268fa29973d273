"""A run on Ray: a task for each shard of the input, and what one machine would leave.

The driver, this process, splits the input into several shards for each worker, has Ray run a task
for each shard, and puts their files together. Each task is a run of its own, with a part of the
limits. Of `max_workers`, the most requests in flight, a task has the part of its lane: there is a
lane for each worker, in which one task follows the other.
"""

import asyncio
import atexit
import logging
import math
import os
import re
import socket
import sys
import sysconfig
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.terminal import addressed, counted, say
from dataflow_grounding._util.threads import LEAVING
from dataflow_grounding._util.version import __version__
from dataflow_grounding.engine.budget import no_request_left, no_usd_left
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.senders.traffic import USUAL_WAIT
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import GRACE_SECONDS, Workers
from dataflow_grounding.scale.cluster._shipping import shipped
from dataflow_grounding.scale.cluster._task import (
    Grant,
    Home,
    ShardOutcome,
    Work,
    progress_path,
    read_progress,
    what_is_wrong,
    work_on,
)
from dataflow_grounding.scale.shard_files import join, write_shards
from dataflow_grounding.serving.serving import check_counts

# How many blocks the rows are split into, see `_block_count`.
FEWEST_BLOCKS = 8
BLOCKS_OF_WORKER = 4
MOST_BLOCKS = 256
LOOK_SECONDS = 1.0  # between two looks at how far tasks are, and whether Ray's head is there
# How many workers may be lost over one shard, or before any had one. Then the run stops, because
# the shard or the machine is at fault.
MOST_LOSSES = 10
# How long tasks have after the run was told to stop, until they are cancelled. It is a bit longer
# than their own time to finish what is in flight (GRACE_SECONDS), so that they can report.
STOP_SECONDS = GRACE_SECONDS + 2
LEAVE_SECONDS = 30.0  # the longest wait for Ray to end the connection
SAY_SECONDS = 8.0  # after so long without any worker, it is said
# And it is said again each time after so long. Where we have started the cluster, the run then
# stops: nobody else is at work there who might leave room.
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
    # busy they would stand still.
    "RAY_worker_niceness": "0",
}
# The host and the port in "ray://head.local:10001" and "10.0.0.1:6379".
_HOST_AND_PORT = re.compile(r"([^/@]+):(\d+)$")


class WorkerLost(Exception):
    """A task's worker is gone; the text says how, as far as that is known."""


class RayRun(Run):
    """One pass over a source by tasks on Ray, which leaves what a Run in this process would."""

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
        self._shipped = shipped(Work(self.steps, self.options, self.source.name, results, of_spec))
        self._home = Home(__version__, os.getcwd(), _own_modules())
        self._workers = Workers(self._interrupt, STOP_SECONDS)
        self._rows_of_shards: dict[Shard, int] = {}  # of all shards that have rows
        self._waiting: deque[Shard] = deque()  # shards that have no task now, and are to get one
        self._unfinished: list[Shard] = []  # as their part of the budget was too small
        self._at_work: dict[Shard | None, Any] = {}  # by shard: Ray's reference to its task
        # By shard, of its task that runs, or has ended last.
        self._progress: dict[Shard, Now] = {}
        self._summaries: dict[Shard, Summary] = {}
        self._stored_before = Counter[Shard]()  # replies that earlier tasks of a shard have stored
        self._losses = Counter[Shard | None]()  # of workers; None: before they had a shard
        self._lost_grants = 0  # how many grants of lost workers count as used
        self._started = False  # whether any worker has begun

    async def _execute(self) -> None:
        with _connected(self._address, self._worker_count) as (ray, is_own_cluster):
            self._ray = ray
            self._is_own_cluster = is_own_cluster
            # Without retries: a task that Ray repeats could use what it was granted twice.
            needs = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": 0}
            self._what_is_wrong = self._ray.remote(what_is_wrong).options(**needs)
            self._work_on = self._ray.remote(work_on).options(**needs)
            cpus = int(self._ray.cluster_resources().get("CPU", 1))
            self._worker_count = min(self._worker_count or max(1, cpus), self._most_workers())
            shards = write_shards(self.source, _block_count(self._worker_count), self._results)
            self._rows_of_shards = {shard: rows for shard, rows in shards.items() if rows}
            self._waiting.extend(self._rows_of_shards)
            try:
                await self._take_through()
            finally:  # also of a run that is stopped, what was done and paid counts
                for summary in self._summaries.values():
                    self.summary.add_part(summary)
        join(self.steps, list(self._rows_of_shards), self.summary)

    def _most_workers(self) -> int:
        """Return how many workers have something to do: each has a request in flight or more."""
        # all workers together have at most `max_workers` requests in flight
        limits: list[int] = []
        for serving in self._servings():
            is_at_address = "://" in serving.endpoint
            if is_at_address:  # else its model runs in each worker's process
                limits.append(serving.max_workers)
        return min(limits, default=MOST_BLOCKS)

    async def _take_through(self) -> None:
        """Take all shards through the steps, while helpers watch."""
        helpers = self._watch_the_start(), self._watch_the_cluster(), self._look_at_progress()
        async with self._with_helpers(*helpers):
            await self._do(self._wait_for_a_worker)
            count = min(self._worker_count or 1, len(self._waiting))
            # A lane's numbers say which part of `max_workers` its tasks have. It has no rows.
            lanes = [Shard(number, count) for number in range(1, count + 1)]
            await self._do(*[partial(self._round, lane) for lane in lanes])
            await self._do(self._second_round)

    async def _do(self, *work: Callable[[], Any]) -> None:
        """Do all of it at once; an error of any stops the run."""
        await self._workers.do(self._stopping_run(each) for each in work)

    async def _wait_for_a_worker(self) -> None:
        """Ask one worker what is wrong, before any has a shard: all would have the same error."""
        while self.stopped is None and not self._started:
            try:
                wrong = await self._result_of(None, self._what_is_wrong)
            except WorkerLost as lost:
                self._note_loss(None, lost)
                continue
            self._started = True
            if wrong is not None:
                raise wrong.error()

    async def _round(self, lane: Shard, *, is_last: bool = False) -> None:
        """Have the shards that wait worked on in a lane, one after the other."""
        while self.stopped is None and self._waiting:
            # Shards differ in what they cost, so each may use twice an equal part of the budget
            # that is left. Of 8 shards, each may use a fourth.
            parts = math.ceil(len(self._waiting) / 2)
            if is_last:  # one shard follows the other, and each may use all that is left
                parts = 1
            shard = self._waiting.popleft()
            outcome = await self._worked_on(shard, lane, self._granted(parts))
            if outcome is None:  # the worker was lost, and the shard waits again
                continue
            if outcome.wrong is None:  # the shard is finished
                continue
            if outcome.wrong.error_class is not BudgetExceeded:
                raise outcome.wrong.error()
            if is_last:
                raise self._budget_exceeded()
            self._unfinished.append(shard)

    async def _second_round(self) -> None:
        """Give shards whose part of the budget was too small all that is left, and all requests."""
        self._waiting.extend(self._unfinished)
        has_no_request_left = self._budget.sent == self._budget.max_requests
        if self._waiting and has_no_request_left:  # a task could send nothing
            raise self._budget_exceeded()
        await self._round(Shard(1, 1), is_last=True)

    def _granted(self, parts: int) -> Grant:
        """Return one of `parts` equal parts of the budget that is left."""
        budget = self._budget
        requests: int | None = None
        usd: float | None = None
        if budget.max_requests is not None:
            requests = math.ceil((budget.max_requests - budget.sent) / parts)
        if budget.usd is not None:
            usd = max(0.0, budget.usd - budget.spent) / parts
        return Grant(requests, usd)

    def _budget_exceeded(self) -> BudgetExceeded:
        budget = self._budget
        if budget.max_requests is not None and budget.sent >= budget.max_requests:
            why = no_request_left(budget.max_requests)
        else:
            why = no_usd_left(budget.usd or 0.0, budget.spent)
        if self._lost_grants:
            why += ". What a lost worker was granted counts in full"
        return BudgetExceeded(why)

    async def _worked_on(self, shard: Shard, lane: Shard, grant: Grant) -> ShardOutcome | None:
        """Have a task take a shard through the steps; None where the worker was lost."""
        self._begin_again(shard)
        try:
            outcome = await self._outcome_within(grant, shard, lane)
        except WorkerLost as lost:
            # What it had in flight isn't known, so all that it was granted stays counted.
            self._lost_grants += 1
            # The lost task's file tells, up to a second before, how far it was, and what it paid.
            now = self._progress_of(shard)
            self._progress[shard] = now
            sent = Counter(sent=now.sent)
            self._summaries[shard] = Summary(requests=sent, cost_usd=now.cost_usd)
            self._note_loss(shard, lost)
            return None
        self._progress[shard] = outcome.now
        # The task counts every stored reply that it reads as "replayed", one of an earlier run. But
        # an earlier task of this run may have stored some of them: these are taken off.
        requests = outcome.summary.requests
        requests["replayed"] = max(0, requests["replayed"] - self._stored_before[shard])
        self._summaries[shard] = outcome.summary
        wrong = outcome.wrong
        was_interrupted = wrong is not None and wrong.error_class is Interrupted
        if was_interrupted and self.stopped is None:  # this run has interrupted nothing
            self._note_loss(shard, WorkerLost("its machine asked it to end"))
            return None
        return outcome

    async def _outcome_within(self, grant: Grant, shard: Shard, lane: Shard) -> ShardOutcome:
        """Count the grant as used until the task has ended, for good if its worker is lost."""
        budget = self._budget
        granted_requests = grant.requests or 0
        granted_usd = grant.usd or 0.0
        budget.sent += granted_requests
        budget.spent += granted_usd
        outcome: ShardOutcome = await self._result_of(shard, self._work_on, shard, lane, grant)
        # From now on, what it has used counts.
        budget.sent += outcome.sent - granted_requests
        budget.spent += outcome.usd - granted_usd
        return outcome

    def _begin_again(self, shard: Shard) -> None:
        """Forget how far an earlier task of the shard came, but not what it has sent and paid."""
        with suppress(OSError):
            os.remove(progress_path(shard.folder(self._results)))
        self._progress.pop(shard, None)
        earlier = self._summaries.pop(shard, None)
        if earlier is None:
            return
        # Its replies are stored, and the next task reads them: see `_worked_on`.
        self._stored_before[shard] += earlier.requests["answered"]
        earlier.requests["replayed"] = 0  # the next task reads and counts these again
        paid = Summary(requests=earlier.requests, cost_usd=earlier.cost_usd, models=earlier.models)
        self.summary.add_part(paid)

    async def _result_of(self, shard: Shard | None, task: Any, *arguments: Any) -> Any:
        """Return what a task returns; `stop` cancels it meanwhile. Raises WorkerLost."""
        reference = task.remote(self._shipped, self._home, *arguments)
        self._at_work[shard] = reference
        try:
            return await reference
        except asyncio.CancelledError:
            with suppress(Exception):  # Ray is gone
                self._ray.cancel(reference, force=True)
            raise
        except self._ray.exceptions.RayError as lost:
            lines = str(lost).strip().splitlines() or [""]
            raise WorkerLost(lines[-1].strip()) from None  # the last says what happened
        finally:
            del self._at_work[shard]

    def _note_loss(self, shard: Shard | None, lost: WorkerLost) -> None:
        """Let the shard wait again, before all others; raises RunStopped after too many losses."""
        if shard is not None:
            self._waiting.appendleft(shard)
        self._losses[shard] += 1
        if self._losses[shard] >= MOST_LOSSES:
            what = f"with {shard}" if shard else "that were to begin"
            why = f"Ray lost {MOST_LOSSES} workers {what}: {lost}"
            raise RunStopped(f"{why}. The same command goes on")

    def stop(self, why: RunStopped) -> None:
        """Begin nothing more; what is in flight may finish. The first reason to stop counts."""
        if self.stopped is None:
            self.stopped = why
            for reference in self._at_work.values():
                with suppress(Exception):  # Ray is gone
                    self._ray.cancel(reference)  # its run takes that as an interrupt

    async def _watch_the_start(self) -> None:
        """Say that no worker has begun, after 8 s, 60 s, 120 s and so on; at last stop the run."""
        gpus = f" and {self._gpus:g} GPU" if self._gpus else ""
        workers = f"{counted(self._worker_count or 1, 'worker')} of 1 CPU{gpus} each"
        most_seconds = START_SECONDS
        if not self._is_own_cluster:
            # Others may be at work on the cluster, and leave room later.
            most_seconds = max(START_SECONDS, self.options.max_wait or USUAL_WAIT)
        waited = 0.0
        next_look = SAY_SECONDS
        while waited < most_seconds:
            await asyncio.sleep(next_look - waited)
            waited = next_look
            if self._started:
                return
            if waited < most_seconds:
                say(f"No worker has begun yet: {workers} are wanted, and {_room(self._ray)}")
            # at 60 s after 8 s, at 120 s after 60 s: the next multiple
            next_look += START_SECONDS - waited % START_SECONDS
        self.stop(NoRoom(f"no worker has begun: {workers} are wanted, and {_room(self._ray)}"))

    async def _watch_the_cluster(self) -> None:
        """Stop the run once the head is gone, without which no worker can begin."""
        address = self._ray.get_runtime_context().gcs_address
        last_listened = time.monotonic()
        while time.monotonic() - last_listened <= HEAD_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            if await _listens(address):
                last_listened = time.monotonic()
        on = "on a cluster or without one"
        self.stop(RunStopped(f"Ray's head at {address} is gone. The same command goes on, {on}"))
        # Tasks that haven't ended by then are cancelled, as after an interrupt.
        await asyncio.sleep(STOP_SECONDS)
        self._workers.cancel()

    async def _look_at_progress(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for shard in list(self._at_work):
                if shard is not None:
                    now = await asyncio.to_thread(self._progress_of, shard)
                    has_ended = shard not in self._at_work  # meanwhile: then its outcome counts
                    if not has_ended:
                        self._progress[shard] = now

    def _progress_of(self, shard: Shard) -> Now:
        """Read its file, which is seen here where workers share a folder with the driver."""
        return read_progress(shard.folder(self._results))

    def now(self, total: int | None) -> Now:
        """Return how far all shards are together; their rows are counted in place of `total`."""
        nows = list(self._progress.values())
        # `summary` has what earlier tasks of shards that were begun again have sent and paid.
        sent_earlier = self.summary.requests["sent"]
        cost_usd: float | None = None  # without prices it isn't known
        if self._budget.prices:
            paid_earlier = self.summary.cost_usd or 0.0
            cost_usd = paid_earlier + sum(now.cost_usd or 0.0 for now in nows)
        outages = [now.outage for now in nows if now.outage]
        return Now(
            finished=sum(now.finished for now in nows),
            replayed=sum(now.replayed for now in nows),
            failed=sum(now.failed for now in nows),
            total=sum(self._rows_of_shards.values()),
            sent=sent_earlier + sum(now.sent for now in nows),
            in_flight=sum(now.in_flight for now in nows),
            waiting_for_rate_limit=sum(now.waiting_for_rate_limit for now in nows),
            cost_usd=cost_usd,
            outage=outages[0] if outages else "",
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


def _block_count(workers: int) -> int:
    """Return several for each worker, so that a late one holds up little: 1 -> 8, 4 -> 16."""
    # all their files are open at once, so there is a limit: 100 -> 256, but 300 -> 300
    several_each = min(BLOCKS_OF_WORKER * workers, MOST_BLOCKS)
    return max(FEWEST_BLOCKS, workers, several_each)


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
    cluster: dict[str, Any] = {"address": address}
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


async def _listens(address: str) -> bool:
    """Return whether `host:port` is reached within LOOK_SECONDS."""
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError, asyncio.TimeoutError):
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), int(port)), LOOK_SECONDS
        )
        writer.close()
        return True
    return False


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

"""A worker: takes shards through the steps, one after the other, and never raises.

Ray makes it in another process. What goes wrong is returned to the driver, which raises it there.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import (
    FolderTaken,
    GroundingError,
    InputError,
    Interrupted,
    RunStopped,
)
from dataflow_grounding._util.files import within
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.mirror import CKPT
from dataflow_grounding.data.working_folder import present, working_folder
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.run_lock import YOUNG_SECONDS
from dataflow_grounding.engine.shard import Shard, lines_path
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.scale.cluster._shipping import unshipped
from dataflow_grounding.scale.cluster.limits import Permits, Report, shared_limits

# for so long a shard's folder may still be held by a worker that was lost
TAKEN_SECONDS = YOUNG_SECONDS + 10


class Work(NamedTuple):
    """What all shards have in common.

    Attributes:
        steps: What is done with each row.
        options: The run's.
        name: The run's.
        results: Their results folder, or its address.
        of_spec: Whether messages speak of a spec.
    """

    steps: list[Step]
    options: RunOptions
    name: str | None
    results: str
    of_spec: bool


class WorkError(NamedTuple):
    """An error by its class and text, to be raised by the driver.

    An exception that was pickled itself would no longer know whether its text speaks of a spec.
    """

    error_class: type[GroundingError]
    text: str


class ShardOutcome(NamedTuple):
    """What became of a shard; `wrong` is what kept it from being finished."""

    summary: Summary
    now: Now
    wrong: WorkError | None


class Worker:
    """Runs in a separate process: `work_on` in one thread, the other methods in others.

    Args:
        exchange: Takes a report to the limiter of all workers; returns its answer, or raises if
            none comes for the given seconds.
    """

    def __init__(self, exchange: Callable[[float, Report], Permits]) -> None:
        self._exchange = exchange
        self._run: Run | None = None
        self._interrupted = False

    def begin(
        self, work: bytes, version: str, folder: str, modules: Sequence[str]
    ) -> WorkError | None:
        """Make ready for a shipped Work; return what keeps it from that, None if nothing does.

        Args:
            work: The Work.
            version: The driver's version of this package, which must be this one.
            folder: The driver's current folder, which relative paths start from. It becomes this
                process's, if this machine has it, and `.env` files are read there.
            modules: Folders with the user's own modules, to be added to `sys.path`.
        """
        here = socket.gethostname()
        if version != __version__:
            what = (
                f"{here} has dataflow-grounding {__version__}, the driver {version}: install one on"
                " both"
            )
            return WorkError(InputError, what)
        sys.path += [path for path in modules if path not in sys.path]
        try:
            with suppress(OSError):  # there need be no relative path
                os.chdir(folder)
            read_env_files()
            self._work: Work = unshipped(work)
        except Exception as error:
            return WorkError(
                InputError, f"{here} can't take up the work: {_as_work_error(error).text}"
            )
        return None

    def work_on(self, shard: Shard) -> ShardOutcome:
        """Take a shard's rows through the steps; return what became of it, errors included.

        What was answered before is not asked again.
        """
        self._run = None
        speaks_of_specs.set(self._work.of_spec)
        summary = Summary()
        wrong: WorkError | None = None
        try:
            summary = self._execute(shard, time.monotonic() + TAKEN_SECONDS)
        except Exception as error:
            wrong = _as_work_error(error)
            if self._run is not None and self._run.stopped is not None:
                # Why the run was stopped says more than what then failed.
                wrong = _as_work_error(self._run.stopped)
        now = self.now()
        if now is None or self._run is None:
            # The shard was finished by an earlier run, or could not begin.
            at_end = Now(
                finished=summary.records,
                replayed=summary.records,
                failed=summary.failed,
                total=0,
                sent=0,
                in_flight=0,
                waiting_for_rate_limit=0,
                cost_usd=None,
            )
            return ShardOutcome(summary, at_end, wrong)
        self._run.summary.handover.takes = self._takes()
        return ShardOutcome(self._run.summary, now, wrong)

    def _takes(self) -> str:
        # An example is "response_format json_schema, max_tokens, a system message, temperature"; it
        # is empty where no step's serving knows. The driver can't tell: its own servings have sent
        # nothing, and so have found out nothing.
        for step in self._work.steps:
            serving = step.operator.serving
            takes = None
            with suppress(Exception):  # a user's own may raise
                takes = serving.facts().get("takes") if serving is not None else None
            if takes:
                return str(takes)
        return ""

    def now(self) -> Now | None:
        """Return how far the current shard is; None where its run hasn't begun yet.

        Its `total` is 0: the driver knows how many rows there are.
        """
        if self._run is None or not self._run.begun:
            return None
        return self._run.now(0)

    def interrupt(self) -> None:
        """Finish what is in flight, and no more; a shard that is to begin later won't."""
        self._interrupted = True
        if self._run:
            self._run.interrupt()

    def _execute(self, shard: Shard, until: float) -> Summary:
        # While another worker still holds its folder, this is tried again each second, until the
        # `time.monotonic()` of `until` has passed: then it raises FolderTaken. It raises what else
        # fails in the run.
        steps, options, name, results, _ = self._work
        folder = working_folder(results, shard.folder(""))
        rows = within(os.path.join(folder, CKPT), os.path.basename(shard.rows))
        shard = shard._replace(rows=present(rows, lines_path(rows), refresh=True))
        steps = [replace(step, storage=step.storage.in_folder(folder)) for step in steps]
        options = replace(options, pilot=None, stream=True, shard=shard, progress=False)
        while True:
            try:
                with shared_limits(partial(self._exchange, options.max_wait)) as limits:
                    limited = replace(options, shared_limits=limits)
                    done = execute(steps, limited, name, run=self._make_run)
                if is_remote(results):
                    os.remove(shard.rows)  # this machine's copy, which has been used
                return done
            except FolderTaken:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)

    def _make_run(self, *arguments: Any) -> Run:
        if self._interrupted:
            raise Interrupted("interrupted")
        self._run = Run(*arguments)
        return self._run


def _as_work_error(error: Exception) -> WorkError:
    # Return an error as the driver is to raise it. One that stops a run keeps its class; any other
    # of ours becomes an InputError, and what no code of ours raises on purpose a RunStopped,
    # "internal error: …".
    if not isinstance(error, GroundingError):
        return WorkError(RunStopped, f"internal error: {type(error).__name__}: {error}")
    if isinstance(error, RunStopped):
        return WorkError(type(error), str(error))
    return WorkError(InputError, str(error))

"""What a Ray task does: it takes one shard's rows through the steps, as a run in this process.

It raises nothing. What goes wrong is returned to the driver, which raises it there.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

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
from dataflow_grounding.data import bucket
from dataflow_grounding.data.records import read_object, write_bytes
from dataflow_grounding.data.results_folder import CKPT
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import RunOptions, budget_of
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.run_lock import YOUNG_SECONDS
from dataflow_grounding.engine.shard import Shard, divide_max_workers, lines_path
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import in_background
from dataflow_grounding.scale.cluster._shipping import unshipped

# for so long a shard's folder may still be held by a worker that was lost
TAKEN_SECONDS = YOUNG_SECONDS + 10
TELL_SECONDS = 1.0  # between two times that a task writes how far it is
NOTHING = Now(0, 0, 0, 0, 0, 0, 0, None)


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


class Home(NamedTuple):
    """Where the driver runs: its version of this package, its current folder, the user's modules.

    Each task takes relative paths from that folder, if its machine has it, and reads `.env` there.
    """

    version: str
    folder: str
    modules: list[str]


class Grant(NamedTuple):
    """The requests and USD that a task may use; None is without limit."""

    requests: int | None = None
    usd: float | None = None


class WorkError(NamedTuple):
    """An error by its class and text, to be raised by the driver.

    An exception that was pickled itself would no longer know whether its text speaks of a spec.
    """

    error_class: type[GroundingError]
    text: str

    def error(self) -> GroundingError:
        """Return the error."""
        return self.error_class(self.text)


class ShardOutcome(NamedTuple):
    """What became of a shard; `wrong` is what kept it from being finished.

    `now` is how far its rows are, `sent` and `usd` what the task used of its Grant.
    """

    summary: Summary
    now: Now
    sent: int
    usd: float
    wrong: WorkError | None


def progress_path(folder: str) -> str:
    """Return the file in which a task of a shard's folder says how far it is."""
    return os.path.join(folder, CKPT, "progress.json")


def read_progress(folder: str) -> Now:
    """Return how far the task of a shard's folder is, as far as its file can be read."""
    told = read_object(progress_path(folder))  # {} where there is no such file
    return Now(**told) if told.keys() == NOTHING._asdict().keys() else NOTHING


def what_is_wrong(work: bytes, home: Home) -> WorkError | None:
    """Return what keeps a worker from taking up shipped Work; None if nothing does."""
    try:
        _taken_up(work, home)
    except GroundingError as error:
        return WorkError(InputError, str(error))
    return None


def work_on(work: bytes, home: Home, shard: Shard, lane: Shard, grant: Grant) -> ShardOutcome:
    """Take a shard's rows through the steps. What was answered before is not asked again.

    Args:
        work: The shipped Work.
        home: Where the driver runs.
        shard: The shard, whose rows the driver has written.
        lane: Which part of all requests in flight it has.
        grant: What it may send and spend.
    """
    task = _Task(shard)
    try:
        task.execute(_taken_up(work, home), lane, grant)
    except KeyboardInterrupt:  # before or after the run; within it, the run ends by itself
        task.wrong = WorkError(Interrupted, "interrupted")
    except Exception as error:
        task.wrong = _as_work_error(error)
    return task.outcome()


def _taken_up(data: bytes, home: Home) -> Work:
    # Prepares this process, so that the work goes as in the driver's: with its modules, its current
    # folder and its keys. Raises InputError.
    here = socket.gethostname()
    if home.version != __version__:
        raise InputError(
            f"{here} has dataflow-grounding {__version__}, the driver {home.version}: install one"
            " on both"
        )
    sys.path += [path for path in home.modules if path not in sys.path]
    try:
        # This machine may not have the folder. Only relative paths need it.
        with suppress(OSError):
            os.chdir(home.folder)
        read_env_files()
        work: Work = unshipped(data)
    except Exception as error:
        why = _as_work_error(error).text
        raise InputError(f"{here} can't take up the work: {why}") from None
    speaks_of_specs.set(work.of_spec)
    return work


class _Task:
    """A shard's run in this process."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._run: Run | None = None
        self._summary = Summary()
        self._budget: Budget | None = None
        self.wrong: WorkError | None = None

    def execute(self, work: Work, lane: Shard, grant: Grant) -> None:
        """Take the rows through the steps; raises what the run does."""
        part_of_results = self._shard.folder("")  # "shards/block-2-8"
        folder = bucket.local(work.results, part_of_results)
        shard = self._shard._replace(rows=_rows_here(self._shard, folder))
        steps = [replace(step, storage=step.storage.in_folder(folder)) for step in work.steps]
        servings = [step.operator.serving for step in steps if step.operator.serving is not None]
        divide_max_workers(servings, lane)
        options = replace(
            work.options,
            pilot=None,  # the driver has chosen its rows
            stream=True,  # where steps don't stream, the driver makes a run of each
            shard=shard,
            progress=False,
            max_requests=grant.requests,
            budget_usd=grant.usd,
        )
        self._budget = budget_of(options)
        with in_background(partial(self._write_progress, folder)):
            self._execute_once_free(steps, options, work.name)
        self._summary.handover.takes = _accepted_by_any(servings)  # for the driver
        is_copy = folder != self._shard.folder(work.results)
        if is_copy:
            os.remove(shard.rows)  # they have been used

    def _execute_once_free(self, steps: list[Step], options: RunOptions, name: str | None) -> None:
        # A worker that was lost may still hold the shard's folder: this waits until it is free.
        until = time.monotonic() + TAKEN_SECONDS
        while True:
            try:
                self._summary = execute(steps, options, name, self._budget, run=self._make_run)
                return
            except FolderTaken:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)

    def _make_run(self, *arguments: Any) -> Run:
        self._run = Run(*arguments)
        return self._run

    def _write_progress(self, folder: str, over: threading.Event) -> None:
        # In a thread, until `over` is set.
        while not over.wait(TELL_SECONDS):
            with suppress(OSError):  # the next time may get through
                if self._run is not None and self._run.begun:
                    now = self._run.now(0)  # without the total, which the driver knows
                    write_bytes(progress_path(folder), json.dumps(now._asdict()).encode())

    def outcome(self) -> ShardOutcome:
        """Return what became of the shard."""
        run = self._run
        # Where the run was stopped, `execute` returned no summary, but the run has the counts.
        summary = self._summary if run is None else run.summary
        if run is not None and run.begun:
            now = run.now(0)
        else:  # no row was begun: an earlier run may have finished all of them
            now = NOTHING._replace(
                finished=self._summary.records,
                replayed=self._summary.records,
                failed=self._summary.failed,
            )
        wrong = self.wrong
        if wrong is not None and run is not None and run.stopped is not None:
            wrong = _as_work_error(run.stopped)  # it says more than what failed afterwards
        sent = self._budget.sent if self._budget else 0
        usd = self._budget.spent if self._budget else 0.0
        return ShardOutcome(summary, now, sent, usd, wrong)


def _rows_here(shard: Shard, folder: str) -> str:
    # The file of a shard's rows, in its folder on this machine. Where the results are at an
    # address, this fetches a copy of it and of its file of places.
    rows = within(os.path.join(folder, CKPT), os.path.basename(shard.rows))
    bucket.bring(rows, lines_path(rows))
    return rows


def _accepted_by_any(servings: Sequence[Any]) -> str:
    # Which parameters the endpoint turned out to take, such as "response_format json_schema,
    # max_tokens"; "" where no serving knows. The driver's own servings have sent nothing, so it
    # can't find that out itself.
    for serving in servings:
        with suppress(Exception):  # a user's own may raise
            accepted = str(serving.facts().get("takes") or "")
            if accepted:
                return accepted
    return ""


def _as_work_error(error: Exception) -> WorkError:
    if isinstance(error, RunStopped):  # or a subclass, such as BudgetExceeded, which is kept
        return WorkError(type(error), str(error))
    if isinstance(error, GroundingError):
        return WorkError(InputError, str(error))
    # No code of ours raises it on purpose.
    return WorkError(RunStopped, f"internal error: {type(error).__name__}: {error}")

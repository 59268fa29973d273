"""What a Ray task does: it takes one shard's rows through the steps, as a run in this process.

It raises nothing. What goes wrong is returned to the driver, which raises it there.
"""

import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
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
from dataflow_grounding._util.results_names import CKPT
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.version import __version__
from dataflow_grounding.bucket import bucket
from dataflow_grounding.engine.execute import MakeRun, execute
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard, divide_max_workers, lines_path
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.scale.cluster._shipping import unshipped

# for so long a shard's folder may still be held by a worker that was lost
TAKEN_SECONDS = 70.0


class Work(NamedTuple):
    """What all shards have in common."""

    steps: list[Step]
    options: RunOptions
    name: str | None  # of the run
    results: str  # their results folder, or its address
    of_spec: bool  # whether messages speak of a spec


class Home(NamedTuple):
    """Where the driver runs."""

    version: str  # of this package
    folder: str  # for relative paths and `.env` in each task, if its machine has it
    modules: list[str]  # folders of the user's modules


class WorkError(NamedTuple):
    """An error that the driver raises."""

    # An exception that was pickled itself would not know whether its text speaks of a spec.
    error_class: type[GroundingError]
    text: str

    def error(self) -> GroundingError:
        return self.error_class(self.text)


class ShardOutcome(NamedTuple):
    """What became of a shard."""

    summary: Summary
    wrong: WorkError | None  # what kept the shard from being finished


def what_is_wrong(work: bytes, home: Home) -> WorkError | None:
    """Return what keeps a worker from taking up shipped Work; None if nothing does."""
    try:
        _taken_up(work, home)
    except GroundingError as error:
        return WorkError(InputError, str(error))
    return None


def work_on(work: bytes, home: Home, shard: Shard) -> ShardOutcome:
    """Take a shard's rows through the steps, with its part of the limits."""
    runs: list[Run] = []  # one, once its steps have begun

    def make_run(*arguments: Any) -> Run:
        runs.append(Run(*arguments))
        return runs[-1]

    summary = Summary()
    wrong = None
    try:
        summary = _executed(_taken_up(work, home), shard, make_run)
    except KeyboardInterrupt:  # before or after the run; within it, the run ends by itself
        wrong = WorkError(Interrupted, "interrupted")
    except Exception as error:
        wrong = _as_work_error(error)
    if runs and wrong is not None:
        summary = runs[-1].summary
        if runs[-1].stopped is not None:  # it says more than what failed afterwards
            wrong = _as_work_error(runs[-1].stopped)
    return ShardOutcome(summary, wrong)


def _taken_up(data: bytes, home: Home) -> Work:
    """Prepare this process like the driver's: modules, folder, keys. Return the Work."""
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


def _executed(work: Work, shard: Shard, make_run: MakeRun) -> Summary:
    """Take the shard's rows through the steps; raises what the run does."""
    folder = bucket.local(work.results, shard.folder(""))  # "shards/block-2-8"
    rows = within(os.path.join(folder, CKPT), os.path.basename(shard.rows))
    bucket.bring(rows, lines_path(rows))  # from the results' address, if they are at one
    is_copy = folder != shard.folder(work.results)
    shard = shard._replace(rows=rows)
    steps = [replace(step, storage=step.storage.in_folder(folder)) for step in work.steps]
    servings = [step.operator.serving for step in steps if step.operator.serving is not None]
    divide_max_workers(servings, shard)
    most_requests = work.options.max_requests
    most_usd = work.options.budget_usd
    options = replace(
        work.options,
        pilot=None,  # the driver has chosen its rows
        stream=True,  # where steps don't stream, the driver makes a run of each
        shard=shard,
        progress=False,
        max_requests=None if most_requests is None else shard.part_of(most_requests),
        budget_usd=None if most_usd is None else most_usd / shard.of,
    )
    until = time.monotonic() + TAKEN_SECONDS
    while True:
        try:
            summary = execute(steps, options, work.name, run=make_run)
            break
        except FolderTaken:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
    if is_copy:
        os.remove(shard.rows)  # they have been used
    return summary


def _as_work_error(error: Exception) -> WorkError:
    if isinstance(error, RunStopped):  # or a subclass, such as BudgetExceeded, which is kept
        return WorkError(type(error), str(error))
    if isinstance(error, GroundingError):
        return WorkError(InputError, str(error))
    # No code of ours raises it on purpose.
    return WorkError(RunStopped, f"internal error: {type(error).__name__}: {error}")

"""A worker: takes shards through the steps, one after the other, and never raises."""

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
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
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.working_folder import CKPT, present, working_folder
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard, lines_path
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.extras.scale.cluster._shipping import unshipped
from dataflow_grounding.extras.scale.leases import Grant, Report, leasing

TAKEN_SECONDS = 60.0  # for how long a worker that was lost may hold a shard's folder


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


class Wrong(NamedTuple):
    """An error to be made where it is told.

    One that is unpickled doesn't know whether it speaks of a spec.
    """

    kind: type[GroundingError]
    text: str


class Done(NamedTuple):
    """What became of a shard; `wrong` is what kept it from being finished."""

    summary: Summary
    now: Now
    wrong: Wrong | None


class Worker:
    """Lives in a process of its own: `work_on` in one thread, the other methods in others.

    Args:
        renew: Takes a report to the pool from which all workers lease their limits; returns its
            grant.
        together: Whether the pool has a limit of the run's requests in flight, too, which else is
            each worker's own.
    """

    def __init__(self, renew: Callable[[Report], Grant], together: bool = False) -> None:
        self._renew = renew
        self._together = together
        self._run: Run | None = None
        self._interrupted = False

    def begin(
        self, work: bytes, version: str, folder: str = "", modules: Sequence[str] = ()
    ) -> Wrong | None:
        """Make ready for a shipped Work. Returns what is in the way.

        Args:
            work: The Work.
            version: The driver's version of this package.
            folder: Where the driver was started, from which relative paths are meant; without it,
                this process has all that from the driver.
            modules: The folders that the driver has the user's own modules from.
        """
        here = socket.gethostname()
        if version != __version__:
            what = (
                f"{here} has dataflow-grounding {__version__}, the driver {version}: install one on"
                " both"
            )
            return Wrong(InputError, what)
        sys.path += [path for path in modules if path not in sys.path]
        try:
            if folder:
                with suppress(OSError):  # there need be no relative path
                    os.chdir(folder)
                read_env_files()
            self._work: Work = unshipped(work)
        except Exception as error:
            return Wrong(InputError, f"{here} can't take up the work: {_in_words(error).text}")
        return None

    def work_on(self, shard: Shard) -> Done:
        """Take a shard's rows through the steps; what was answered before is not asked again."""
        self._run = None
        speaks_of_specs.set(self._work.of_spec)
        summary = Summary()
        wrong: Wrong | None = None
        try:
            summary = self._execute(shard, time.monotonic() + TAKEN_SECONDS)
        except Exception as error:
            # not what one machine says of what is left
            wrong = _in_words((self._run and self._run.stopped) or error)
        now = self.now()
        if now is None or self._run is None:
            # it was finished before, or could not begin
            at_end = Now(summary.records, summary.records, summary.failed, 0, 0, 0, 0, None)
            return Done(summary, at_end, wrong)
        self._run.summary.takes = self._takes()
        return Done(self._run.summary, now, wrong)

    def _takes(self) -> str:
        """What the first serving that says so has found that its endpoint takes; else empty.

        It was found in this process: the driver's own serving has sent nothing.
        """
        for step in self._work.steps:
            serving = step.operator.serving
            takes = None
            with suppress(Exception):  # a user's own may raise
                takes = serving.facts().get("takes") if serving is not None else None
            if takes:
                return str(takes)
        return ""

    def now(self) -> Now | None:
        """How far the shard is that is worked on."""
        return self._run.now(0) if self._run and self._run.begun else None

    def interrupt(self) -> None:
        """Finish what is in flight, and no more."""
        self._interrupted = True
        if self._run:
            self._run.interrupt()

    def _execute(self, shard: Shard, until: float) -> Summary:
        """Work a shard through; wait until `until` where another worker still holds its folder.

        Raises FolderTaken once that time has come.
        """
        steps, options, name, results, _ = self._work
        folder = working_folder(results, shard.folder(""))
        rows = within(os.path.join(folder, CKPT), os.path.basename(shard.rows))
        shard = shard._replace(rows=present(rows, lines_path(rows), anew=True))
        steps = [replace(step, storage=step.storage.in_folder(folder)) for step in steps]
        options = replace(options, pilot=None, stream=True, shard=shard, progress=False)
        while True:
            try:
                with leasing(self._renew, options.max_wait, self._together) as leased:
                    limited = replace(options, shared_limits=leased.shared_limits)
                    done = execute(steps, limited, name, run=self._make_run)
                if is_elsewhere(results):
                    os.remove(shard.rows)
                return done
            except FolderTaken:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)

    def _make_run(self, *arguments: Any) -> Run:
        """Make a Run that can be asked how far it is, and interrupted."""
        if self._interrupted:
            raise Interrupted("interrupted")
        self._run = Run(*arguments)
        return self._run


def _in_words(error: Exception) -> Wrong:
    """What the driver makes of an error: a stopped run, or an input error."""
    if not isinstance(error, GroundingError):
        return Wrong(RunStopped, f"internal error: {type(error).__name__}: {error}")
    if isinstance(error, RunStopped):
        return Wrong(type(error), str(error))
    return Wrong(InputError, str(error))

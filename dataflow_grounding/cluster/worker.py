"""A worker: takes shards through the steps, one after the other, and never raises."""

import asyncio
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from dataflow_grounding.cluster.shipping import unshipped
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import RunOptions, budget_of
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.env_files import read_env_files
from dataflow_grounding.errors import GroundingError, InputError, Interrupted, RunStopped
from dataflow_grounding.version import __version__


class Work(NamedTuple):
    """What all shards have in common."""

    steps: list[Step]
    options: RunOptions
    name: str | None


class Done(NamedTuple):
    """What became of a shard; `error` is what kept it from being finished."""

    summary: Summary
    now: Now
    error: GroundingError | None


class Worker:
    """Lives in a process of its own: `work_on` in one thread, the other methods in others.

    Args:
        work: A shipped Work.
        folder: Where the driver was started, which relative paths are meant from.
        version: The driver's, which has to be this process's, too.
    """

    def __init__(self, work: bytes, folder: str, version: str) -> None:
        self._given = work, folder, version
        self._work: Work | None = None
        self._run: _ShardRun | None = None
        self._interrupted = False

    def begin(self) -> GroundingError | None:
        """Make ready; returns what is in the way."""
        work, folder, version = self._given
        here = socket.gethostname()
        if version != __version__:
            return InputError(f"{here} has dataflow-grounding {__version__}, the driver {version}: install one on both")
        with suppress(OSError):  # no relative path need be there
            os.chdir(folder)
        try:
            read_env_files()
            self._work = unshipped(work)
            self._budget = budget_of(self._work.options)
        except GroundingError as error:
            return error
        except Exception as error:
            return InputError(f"{here} can't take up the work: {type(error).__name__}: {error}")
        return None

    def work_on(self, shard: Shard) -> Done:
        """Take a shard's rows through the steps; what was answered before is not asked again."""
        self._run = None
        summary, error = Summary(), None
        try:
            summary = self._execute(shard)
        except GroundingError as raised:
            error = raised
        except Exception as raised:
            error = RunStopped(f"internal error: {type(raised).__name__}: {raised}")
        if self._run is None or not self._run.begun:  # it was finished before, or could not begin
            return Done(summary, Now(summary.records, summary.records, summary.failed, None, 0, 0, 0, None), error)
        # what stopped the run itself, without what this machine would say of what is left
        return Done(self._run.summary, self._run.now(None), self._run.stopped or error)

    def now(self) -> Now | None:
        """How far the shard is that is worked on."""
        run = self._run
        return run.now(None) if run and run.begun else None

    def interrupt(self) -> None:
        """Finish what is in flight, and no more."""
        self._interrupted = True
        if self._run:
            self._run.interrupt()

    def _execute(self, shard: Shard) -> Summary:
        assert self._work is not None
        steps, options, name = self._work
        places = [step.storage.in_folder(shard.folder(step.storage.cache_path)) for step in steps]
        steps = [replace(step, storage=place) for step, place in zip(steps, places, strict=True)]
        options = replace(options, pilot=None, stream=True, shard=shard, progress=False)
        return execute(steps, options, name, self._budget, run=self._make_run)

    def _make_run(
        self,
        steps: list[Step],
        source: Source,
        options: RunOptions,
        name: str | None,
        budget: Budget,
        idle: Collection[int],
    ) -> Run:
        self._run = _ShardRun(steps, source, options, name, budget, idle)
        if self._interrupted:
            raise Interrupted("interrupted")
        return self._run


class _ShardRun(Run):
    """A run that other threads may look at and interrupt."""

    _loop: asyncio.AbstractEventLoop | None = None
    begun = False

    async def execute(self) -> Summary:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(setattr, self, "begun", True)  # once it has begun
        return await super().execute()

    def interrupt(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(super().interrupt)

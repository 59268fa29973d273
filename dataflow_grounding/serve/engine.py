"""One engine for all requests: stores, limits and servings are opened once, not for each."""

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from dataflow_grounding._util import errors
from dataflow_grounding._util.files import new_file, within
from dataflow_grounding._util.threads import off_loop
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.annotating import RowWork
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.keyed_log import other_stores, store_path
from dataflow_grounding.engine.loop import Loop
from dataflow_grounding.engine.options import OwnPictures, RunStart, budget_of
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.run import keep_on_disk
from dataflow_grounding.engine.source import IMAGE_COLUMN, pictures_of
from dataflow_grounding.images.image import open_image, pin
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.serve.requests import Picture, Pictures, phrases_of
from dataflow_grounding.trust.kinds import is_elongated


class Engine:
    """Grounds pictures as they come, all with one store of replies, one budget and one limit.

    It has to be made while the lock of the run's folder is held.
    """

    def __init__(self, run: SpecRun, pictures: Pictures, timeout: float) -> None:
        self._run = run
        self._folder = run.job.steps[0].storage.checkpoint_folder
        self.pictures = pictures
        self._timeout = timeout
        self.model = run.serving.model
        servings = run.job.servings
        # twice as many as requests in flight: some prepare pictures while others wait for replies
        self.at_once = 2 * sum(serving.max_workers for serving in servings)
        self._turns = asyncio.Semaphore(self.at_once)  # one for each picture at work
        self._tasks: set[asyncio.Task[Record]] = set()  # of requests that aren't done yet
        self._budget = budget_of(run.options)
        self._loop = Loop(run.job.steps)
        others = other_stores(self._folder)
        self._loop.store = ReplyLog(store_path(self._folder), others=others)
        self._askings = self._loop.askings
        for serving in servings:
            asking = Asking(serving, run.options, self._budget, serving_count=len(servings))
            self._askings[id(serving)] = asking
        self._is_settled = False  # the box format
        self._settled_sizes: set[Size] = set()  # of elongated pictures, how to send them
        self._lock_of_settling = asyncio.Lock()
        # A picture that came in a request is a file in here while it is asked about, because users'
        # operators may open it. Its name is one of `_numbers`.
        self._spool = os.path.join(self._folder, "pictures")
        shutil.rmtree(self._spool, ignore_errors=True)  # what a killed process has left
        self._numbers = itertools.count()

    async def working(self, _: web.Application) -> AsyncIterator[None]:
        """Put replies on disk until the service ends; then wait for all work, and close all."""
        # aiohttp runs this up to the `yield` when it starts, and the rest when it ends.
        self._keeping = asyncio.create_task(keep_on_disk(self._loop.store, self._folder))
        yield
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout)
        self._keeping.cancel()
        for asking in self._askings.values():
            await asking.aclose()
        self._loop.store.close()

    @property
    def model_version(self) -> str:
        """The model and the box format that it is asked for."""
        choice = self._run.job.box_format
        if choice is None or choice.pending:
            return f"{self.model} (box format not known yet)"
        return f"{self.model} {choice.format.name}"

    async def ground(self, request: web.Request, picture: Picture, phrases: Any) -> Record:
        """Return the record of a picture with the boxes of phrases; ServerFault after `timeout`."""
        begun = asyncio.Event()  # `_in_turn` sets it: from then on the work goes on to its end
        task = asyncio.create_task(self._ground(request, picture, phrases_of(phrases), begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait([task], timeout=self._timeout)
        if done:
            return task.result()
        # Nobody waits for the task any more: asyncio would complain of an error nobody looks at.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if not begun.is_set():
            task.cancel()  # nothing is paid for yet, and the picture need not stay in memory
        text = f"no answer in {self._timeout:g} s"
        for asking in self._askings.values():  # what the endpoints said last may be why
            if asking.traffic.last_fault is not None:
                text += f" ({str(asking.traffic.last_fault).rstrip('.')})"
        raise errors.ServerFault(f"{text}: ask again, what comes meanwhile is kept")

    async def _ground(
        self, request: web.Request, picture: Picture, phrases: list[str], begun: asyncio.Event
    ) -> Record:
        path = picture.path or within(self._spool, str(next(self._numbers)))
        open_it = partial(self._open, picture, phrases, path)
        try:
            columns = await self._in_turn(request, picture.is_far, open_it, begun)
        except errors.GroundingError as error:
            self._begin_again_after(error)
            # Strangers needn't know this machine's paths, neither the picture's nor the folder's.
            message = picture.named(str(error), path)
            error.args = (message.replace(self._folder, ".ckpt"),)
            raise
        finally:
            if not picture.path:  # then `_open` has made the file at `path`
                with suppress(OSError):
                    os.unlink(path)
        return Record({IMAGE_COLUMN: picture.name, **columns})

    async def _in_turn(
        self,
        request: web.Request,
        is_far: bool,
        open_it: Callable[[], Record],
        begun: asyncio.Event,
    ) -> Update:
        """Return the columns of the steps. `begun` is set once the work goes on to its end."""
        record = None
        if is_far:  # it is fetched before its turn: its host may be silent for long
            begun.set()  # a thread that fetches can't be cancelled
            record = await off_loop(open_it)
        async with self._turns:
            if request.transport is None or request.transport.is_closing():
                raise errors.ServerFault("the client has left before anything was paid for")
            begun.set()
            if record is None:  # its bytes are in memory, or on this machine's disk
                record = await self._loop.memo.of_disk(open_it)
            await self._settle(record, open_image(record, IMAGE_COLUMN).size)
            if self._keeping.done():
                self._keeping.result()  # raises why nothing can be kept any more
            began_at = time.monotonic()  # requests of the picture that began first go first
            results = await self._loop.results_of_steps(began_at, record, RowWork())
        columns: Update = {}
        for update, error in results:
            if error is not None:
                raise error
            columns |= update or {}
        for marked in self._loop.marks.values():
            marked.clear()  # no record is marked after it was answered
        return columns

    def _open(self, picture: Picture, phrases: list[str], path: str) -> Record:
        """The record of a picture. Its image is pinned: all steps see it as it was read."""
        data = picture.read()
        if not picture.path:  # it came in the request, or from the web
            with errors.errors_as(errors.MachineBusy, "can't write in the results folder"):
                os.makedirs(self._spool, exist_ok=True)
                with new_file(path, buffering=0) as file:
                    file.write(data)
        record = Record({IMAGE_COLUMN: path, "expressions": phrases})
        facts = pin(record, IMAGE_COLUMN, data, self._run.serving.image_limits)
        if picture.path:
            record.image_id = os.path.splitext(picture.name)[0]  # `cups/1` of `cups/1.jpg`
        else:
            record.image_id = facts.digest[:32]
        return record

    async def _settle(self, record: Record, size: Size) -> None:
        """Settle the box format, and for each elongated size, whether it is padded: once."""
        is_new_shape = is_elongated(size) and size not in self._settled_sizes
        if self._is_settled and not is_new_shape:
            return
        async with self._lock_of_settling:  # one at a time: nothing is to be measured twice
            # replies to probe pictures are kept in a file of their own: this store is open
            options = replace(self._run.options, replies=os.path.join(self._folder, "probes.jsonl"))
            # which pictures come isn't known: the format has to hold for all sizes
            start = RunStart(options, self._budget, folder=None, pictures=OwnPictures)
            if not self._is_settled:
                for operator in self._run.job.operators:
                    await operator.prepare(start)
                self._is_settled = True
            if is_new_shape and size not in self._settled_sizes:
                of_record = partial(pictures_of, [record], IMAGE_COLUMN)
                start = replace(start, pictures=of_record)
                for operator in self._run.job.operators:
                    if await operator.settle(start):
                        # They are sent otherwise from here on, and watched so.
                        await operator.prepare(start)
                self._settled_sizes.add(size)

    def _begin_again_after(self, error: errors.GroundingError) -> None:
        if isinstance(error, errors.StorageFailed):
            for asking in self._askings.values():
                asking.stopped = error  # what is paid for from now on would be lost
        for key, asking in list(self._askings.items()):
            # What has stopped it may be over; our full disk or used-up budget isn't. Where it was
            # the watch of the box format, that stops the new one again.
            is_of_endpoint = isinstance(asking.stopped, errors.QuotaUsedUp)
            is_ours = isinstance(asking.stopped, errors.StorageFailed | errors.BudgetExceeded)
            if asking.stopped is not None and (is_of_endpoint or not is_ours):
                self._askings[key] = asking.renewed()

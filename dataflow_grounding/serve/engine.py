"""One engine for all requests: stores, limits and servings are opened once, not for each."""

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from dataflow_grounding._util.errors import BudgetExceeded, QuotaUsedUp, RunStopped, StorageFailed
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog, other_stores, store_path
from dataflow_grounding.engine.options import RunStart, budget_of
from dataflow_grounding.engine.run import SYNC_SECONDS
from dataflow_grounding.engine.run_lock import check_held
from dataflow_grounding.engine.source import IMAGE_COLUMN, identify, pictures_of
from dataflow_grounding.engine.workers import Workers
from dataflow_grounding.images.image import open_image
from dataflow_grounding.serve.plan import ServedJob
from dataflow_grounding.serving.serving import Serving

MOST_SIZES = 4096  # sizes of pictures that are known to be settled


class Engine:
    """Grounds pictures as they come, all with one store of replies, one budget and one limit.

    It is made in the event loop in which it works, where the lock of the job's folder is held. It
    works on `at_once` pictures at a time: more wait. Raises StorageFailed.
    """

    def __init__(self, job: ServedJob) -> None:
        self.job = job
        self.at_once = 2 * sum(serving.max_workers for serving in job.servings)
        self._turns = asyncio.Semaphore(self.at_once)
        self._numbers = itertools.count()  # the first comes first, where requests wait
        self._budget = budget_of(job.options)
        self._operators = job.operators
        self._askings: dict[int, Asking] = {}
        self._settled: set[Size] = set()
        self._settling = asyncio.Lock()
        self._workers = Workers(lambda: False)
        self._memo = ImageMemo(None)
        self._store = KeyedLog(store_path(job.folder), others=other_stores(job.folder))
        self._failed: StorageFailed | None = None  # once nothing can be kept
        self._syncing = asyncio.create_task(self._sync_now_and_then())

    async def close(self) -> None:
        """Put all replies on disk, and close what is open."""
        self._syncing.cancel()
        for asking in self._askings.values():
            asking.endpoints.store_held_refusals()
        for serving in self.job.servings:
            with suppress(Exception):
                await serving.aclose()
        self._store.close()

    @property
    def box_format(self) -> str:
        """The name of the box format that is asked for; empty while it has to be measured."""
        choice = self.job.box_format
        return "" if choice is None or choice.pending else choice.format.name

    def last_fault(self) -> str:
        """Return what requests wait for to pass, in words; empty where nothing is wrong."""
        faults = [asking.last_fault for asking in self._askings.values()]
        return "; ".join(str(fault).rstrip(".") for fault in faults if fault is not None)

    async def ground(
        self, path: str, phrases: Sequence[str], image_id: str | None, wanted: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Return the columns that the operators add to the picture at `path` with its phrases.

        `image_id` None makes one of the path. None is returned where nobody wants the columns any
        more when their turn comes, before anything is paid for. Raises RecordError for this
        picture, RunStopped where none can be done for now.
        """
        async with self._turns:
            if not wanted():
                return None
            record = Record({IMAGE_COLUMN: path, "expressions": list(phrases)}, image_id=image_id)
            if image_id is None:
                identify(record, IMAGE_COLUMN, None, NumberTable())
            try:
                await self._settle(record)
                return await self._through_all_steps(record)
            except RunStopped as stopped:
                self._begin_again_after(stopped)
                raise

    async def _settle(self, record: Record) -> None:
        # The watch begins with the first picture. By the sizes of later ones a model that counts
        # pixels may have to be measured further.
        await self._memo.prepare(record, IMAGE_COLUMN, self.job.serving.image_limits)
        size = open_image(record, IMAGE_COLUMN).size
        if size in self._settled:
            return
        async with self._settling:
            pictures = partial(pictures_of, [record], IMAGE_COLUMN)
            # replies to probe pictures are kept in a file of their own: this store is open
            probes = os.path.join(self.job.folder, "probes.jsonl")
            options = replace(self.job.options, replies=probes)
            start = RunStart(options, self._budget, None, pictures)
            for operator in self._operators:
                work = operator.settle if self._settled else operator.prepare
                await asyncio.to_thread(work, start)
            if len(self._settled) >= MOST_SIZES:
                self._settled.pop()
            self._settled.add(size)

    async def _through_all_steps(self, record: Record) -> dict[str, Any]:
        number = next(self._numbers)
        columns: dict[str, Any] = {}
        for place, operator in enumerate(self._operators):
            if self._failed is not None:
                raise self._failed
            asking = self._asking(operator.serving)
            label = self.job.steps[place].label
            wording = operator.wording
            ask = StepAsk(asking, self._store, label, (number, place), wording=wording)
            update, error = await self._workers.until_done(
                partial(annotated, operator, record.updated(columns), ask, self._memo)
            )
            if error is not None:
                raise error
            columns |= update or {}
        return columns

    def _asking(self, serving: Serving | None) -> Asking | None:
        if serving is None:
            return None
        if id(serving) not in self._askings:
            servings = len(self.job.servings)
            asking = Asking(serving, self.job.options, self._budget, servings=servings)
            self._askings[id(serving)] = asking
        return self._askings[id(serving)]

    def _begin_again_after(self, stopped: RunStopped) -> None:
        # An endpoint that was down may be up by the next request. A budget that is used up stays
        # so, and so does what the watch has found: it raises that again by itself.
        if isinstance(stopped, BudgetExceeded) and not isinstance(stopped, QuotaUsedUp):
            return
        for key, asking in list(self._askings.items()):
            if asking.stopped is not None:
                asking.endpoints.store_held_refusals()
                del self._askings[key]

    async def _sync_now_and_then(self) -> None:
        while self._failed is None:
            await asyncio.sleep(SYNC_SECONDS)
            try:
                check_held(self.job.folder)
                if self._store.unsynced:
                    await asyncio.to_thread(self._store.sync)
            except StorageFailed as error:
                self._failed = error
                say(f"Error: {error}")

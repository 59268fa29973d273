"""What a run holds open: its servings, its stores of replies, what it knows of images."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress

from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.reply_store import other_stores, store_path
from dataflow_grounding.engine.run_lock import check_held
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import RunStopped, StorageFailed, told_as

SYNC_SECONDS = 0.5
SYNC_LINES = 50


class Resources:
    """Opened for one run of some steps. Raises StorageFailed."""

    def __init__(
        self, steps: list[Step], options: RunOptions, budget: Budget, stop: Callable[[RunStopped], None]
    ) -> None:
        self.budget, self._spent_before, self._stop = budget, budget.spent, stop
        self._folder = steps[0].storage.checkpoint_folder  # that of all steps
        with ExitStack() as opened:
            with told_as(StorageFailed, f"can't read or write the replies in {self._folder}"):
                replies = KeyedLog(store_path(self._folder), others=other_stores(self._folder))
            self.replies = opened.enter_context(closing(replies))
            images = opened.enter_context(closing(KeyedLog(os.path.join(self._folder, "images.jsonl"), buffered=True)))
            self._opened = opened.pop_all()
        self.memo = ImageMemo(images)
        servings = {id(serving): serving for step in steps if (serving := step.operator.serving) is not None}
        self.askings = {
            which: Asking(serving, options, budget, stop, len(servings)) for which, serving in servings.items()
        }

    async def sync_now_and_then(self) -> None:
        """Until cancelled: put replies on disk twice a second, or sooner when there are many."""
        while True:
            for _ in range(10):
                await asyncio.sleep(SYNC_SECONDS / 10)
                if self.replies.unsynced >= SYNC_LINES:
                    break
            try:
                check_held(self._folder)
                await self.sync()
            except RunStopped as why:
                self._stop(why)
                return

    async def sync(self) -> None:
        """Put all replies on disk, off the event loop."""
        if self.replies.unsynced:
            await asyncio.to_thread(self.replies.sync)

    async def close(self, summary: Summary) -> None:
        """Close connections and files; enter requests, tokens, models and cost. Raises StorageFailed."""
        with self._opened:
            for asking in self.askings.values():
                with suppress(Exception):
                    await asking.serving.aclose()
                summary.passing_failures += asking.places.settle()
                summary.requests.update(asking.counts)
                if asking.serving.model not in summary.models:
                    summary.models.append(asking.serving.model)
            summary.cost_usd = self.budget.spent - self._spent_before if self.budget.prices else None

"""The loop of all work on records: rows from somewhere, through the steps, to somewhere.

A subclass says where rows come from (`take`) and what becomes of their results (`put`): files in
run.py, a caller's own records in in_memory.py. The service takes each record that it is sent
through `results_of_steps`. A `place` is a row's number among the rows of this run, from 0. An
`asking` answers the requests to one serving.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from dataflow_grounding._util.errors import ImageChanged, RecordError, RunStopped
from dataflow_grounding.data.records import REMARK, Record, in_one_schema
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.engine.annotating import RowWork, StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.plan import Result, Step, levels, no_marks
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.workers import Workers, all_done

AFTER_ALL = math.inf  # a place: a request's priority begins with it
DEFAULT_WORKERS = 4  # the assumed number of requests in flight, if no step asks anything


class Taken(NamedTuple):
    """A row that is taken through the steps next."""

    place: int
    record: Record | RecordError  # the error of a row that can't be read
    line: int = 0  # in the input


class Loop(Workers):
    """Workers take row after row, each through all steps in order."""

    store: ReplyLog  # is set before the first row is taken

    def __init__(
        self, steps: list[Step], idle: Collection[int] = (), *, one_schema: bool = False
    ) -> None:
        super().__init__()
        self.steps = steps
        self.memo = ImageMemo(None)
        self.stopped: RunStopped | None = None  # why nothing more is sent
        self.askings: dict[int, Asking] = {}  # by the id of a serving
        self.notes = Counter[str]()  # remarks by code
        # By the code of a note: each (place of a row, index of a step) whose result may be wrong.
        # StepAsk.note adds them, because a record's priority is such a pair.
        self.marks = no_marks()
        self._idle = idle  # indices of steps that have nothing to ask about: these can't ask
        # whether records get the columns that those of every pipeline have
        self._one_schema = one_schema
        self._levels = levels(steps)
        self._workers_left = 0  # workers that may still take a row

    async def take(self) -> Taken | None:
        """Return the next row; None where there is no other."""
        raise NotImplementedError

    def put(self, taken: Taken, results: Sequence[Result], work: RowWork) -> None:
        """Take in what the steps made of a row: of one that can't be read, its error alone."""
        raise NotImplementedError

    async def work_through(self, worker_count: int) -> None:
        """Take all rows through the steps; where the work is stopped, what is in flight ends."""
        self._workers_left = worker_count
        await self.do(self._stopping_run(self._work) for _ in range(worker_count))

    def stop(self, why: RunStopped) -> None:
        """Send nothing more; what is in flight may finish. Only the first reason counts."""
        if self.stopped is None:
            self.stopped = why
            for asking in self.askings.values():
                asking.stopped = why

    async def _stopping_run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work, an error of which stops the run."""
        try:
            await work()
        except RunStopped as why:
            # it is raised in the end: others may finish what is in flight until then
            self.stop(why)
        except Exception as error:  # a defect of ours: stop the run rather than lose a row
            self.stop(RunStopped(f"internal error: {type(error).__name__}: {error}"))
            raise

    async def _work(self) -> None:
        while self.stopped is None:
            taken = await self.take()
            if taken is None:
                break
            work = RowWork()
            if isinstance(taken.record, RecordError):
                results: list[Result] = [(None, taken.record)]
            else:
                results = await self._results_of_present_image(taken.place, taken.record, work)
            if work.notes:
                self.notes.update(work.notes)
            self.put(taken, results, work)
            # A row with stored replies waits for nothing: without this, others would have no turn.
            await asyncio.sleep(0)
        self._workers_left -= 1
        if self._workers_left or self.stopped is not None:
            return
        for index, step in enumerate(self.steps):  # the last worker concludes
            work = RowWork()
            await step.operator.conclude(self.ask(index, AFTER_ALL, work))
            self.notes.update(work.notes)

    async def _results_of_present_image(
        self, place: int, record: Record, work: RowWork
    ) -> list[Result]:
        """Take a record through the steps; once more where its image was replaced meanwhile."""
        results = await self.results_of_steps(place, record, work)
        for columns, error in results:
            if columns is None and isinstance(error, ImageChanged):
                work.back_to(RowWork())  # the second time notes, counts and marks all of it again
                for marked in self.marks.values():
                    marked.difference_update((place, index) for index in range(len(self.steps)))
                return await self.results_of_steps(place, record, work)
        return results

    async def results_of_steps(self, place: float, record: Record, work: RowWork) -> list[Result]:
        """Return each step's result; the steps of a level work side by side."""
        results: list[Result] = [(None, None)] * len(self.steps)
        first_failed = len(self.steps)  # index; none so far
        for level in self._levels:
            # Levels don't follow the order of steps: step 2 may be on an earlier level than step 1.
            # If step 2 fails, step 1 is done all the same, because it has a file of its own. Step 3
            # isn't: its result stays (None, None).
            indices = [index for index in level if index < first_failed]
            record_so_far = record  # with the columns of earlier levels
            for columns, _ in results:
                if columns is not None:
                    record_so_far = record_so_far.updated(columns)
            jobs = [self._annotate(index, place, record_so_far, work) for index in indices]
            if len(jobs) == 1:  # nearly always: it needs no task of its own
                results_of_level = [await jobs[0]]
            else:
                results_of_level = await all_done(jobs)
            for index, result in zip(indices, results_of_level, strict=True):
                results[index] = result
                columns, _ = result
                if columns is None:
                    first_failed = min(first_failed, index)
                elif columns.get(REMARK):  # steps of one level don't see each other's
                    work.remark = joined_remarks([work.remark, columns[REMARK]])
                    columns[REMARK] = work.remark
        return results

    async def _annotate(self, index: int, place: float, record: Record, work: RowWork) -> Result:
        annotate = partial(
            annotated,
            self.steps[index].operator,
            record,
            self.ask(index, place, work),
            self.memo,
            lambda: self.cancelled,
        )
        # tried again for a while where the machine has no room for it
        columns, error = await self.until_done(annotate)
        # They have one schema before they are written, because the next step is to get the same
        # record, be it streamed or read from a file.
        if columns is not None and self._one_schema:
            columns = in_one_schema(record, columns)
        return columns, error

    def ask(self, index: int, place: float, work: RowWork) -> StepAsk:
        """Return the `ask` of a step for the row at a place."""
        step = self.steps[index]
        asking = None  # a step without a serving has none
        if index not in self._idle:
            asking = self.askings.get(id(step.operator.serving))
        return StepAsk(
            asking,
            self.store,
            step.label,
            priority=(place, index),
            work=work,
            marks=self.marks,
            wording=step.operator.wording,
            format_choice=step.operator.format_choice,
        )

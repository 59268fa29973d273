"""Whether the servings of a run's steps can answer what these ask.

A task is a kind of question, such as `phrase_grounding`. A serving of the user's own may answer
some tasks only, and an operator of the user's own needn't state which it asks.
"""

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from dataflow_grounding._util.errors import NoBoxFormat, RecordError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import STATUSES, Record, Update, as_json
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.image_memo import ImageMemo
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import open_image
from dataflow_grounding.jobs.job import cannot_answer
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.serving.serving import Reply, Serving
from dataflow_grounding.tasks import Request

TRIED = 20
"""How many first records are worked through to see what steps of the user's own ask."""


class _NotSent(RecordError, kind="not_sent"):
    """Nothing is sent here."""


class _Listener(Serving):
    """Stands in for a step's serving, notes the tasks that it can't answer, and answers nothing."""

    def __init__(self, serving: Serving) -> None:
        self.model = serving.model
        self.image_limits = serving.image_limits
        self.tasks = serving.tasks
        self.unanswerable: set[str] = set()

    async def answer(self, request: Request[Any]) -> Reply:
        if self.tasks is not None and request.task not in self.tasks:
            self.unanswerable.add(request.task)
        raise _NotSent("nothing is sent")


def unanswerable(run: SpecRun) -> list[str]:
    """Return a line for each question of steps that can't be put: its serving doesn't answer it, or
    it shows boxes in no format.
    """
    lines = run.job.unanswerable()
    if lines:
        return lines
    operators = [step.operator for step in run.job.steps]
    if any(isinstance(operator, WholeFile) for operator in operators):
        return []  # it takes no records one by one, so it can't be tried
    for operator in operators:
        serving = operator.serving
        if serving is None:
            continue
        states_tasks = bool(getattr(operator, "tasks", ()))
        may_ask_what_is_not_answered = serving.tasks is not None and not states_tasks
        is_shipped = type(operator).__module__.startswith("dataflow_grounding.")
        may_show_boxes = operator.format_choice is None and not (is_shipped and states_tasks)
        if may_ask_what_is_not_answered or may_show_boxes:
            return _unanswerable_when_tried(run)
    return []  # all tasks that matter are stated, and can be answered


def _unanswerable_when_tried(run: SpecRun) -> list[str]:
    listeners = [_Listener(step.operator.serving or run.serving) for step in run.job.steps]
    source = Source(run.job.steps)
    records = []
    for row in itertools.islice(run.job.input.rows(), TRIED):
        with suppress(RecordError):
            records.append(source.record(row))
    try:
        run_blocking(lambda: _call_each(run, listeners, records))
    except NoBoxFormat as error:
        return [str(error)]
    lines = []
    for step, listener in zip(run.job.steps, listeners, strict=True):
        for task in sorted(listener.unanswerable):
            lines.append(cannot_answer(step, task, listener.model))
    return lines


async def _call_each(
    run: SpecRun, listeners: Sequence[_Listener], records: Iterable[Record]
) -> None:
    """Take records through the steps; requests come to the listeners, and updates are made up."""
    memo = ImageMemo(log=None, keeps=False)
    unlimited = Budget(max_requests=None, usd=None, prices=None)
    askings = [Asking(listener, run.options, unlimited) for listener in listeners]
    for record in records:
        for step, asking in zip(run.job.steps, askings, strict=True):
            update, _ = await annotated(step.operator, record, _ask_of(step, asking), memo)
            if update is None:  # nothing was sent, but later steps need columns before they can ask
                update = _made_up(step, record)
            record = record.updated(update)


def _ask_of(step: Step, asking: Asking) -> StepAsk:
    return StepAsk(
        asking,
        ReplyLog(path=""),  # which stores nothing
        step.label,
        priority=(0,),  # the same for all: no request waits here
        wording=step.operator.wording,
        format_choice=step.operator.format_choice,
    )


def _made_up(step: Step, record: Record) -> Update:
    """Return what the step would have added, had it got replies."""
    size = _size_of_picture(step, record)
    text = str(record.get("caption") or "a thing")
    value_by_usual_name = {
        "caption": text,
        "cleaned_caption": text,
        "expressions": _expression_of_each_status(text, size),
    }
    update: Update = {"width": size[0], "height": size[1]}
    # Role → the column's usual name; the user may have bound the role to another column.
    usual_names = getattr(step.operator, "output_keys", {})
    for role, column in step.operator.writes().items():
        usual_name = usual_names.get(role, column)
        update[column] = value_by_usual_name.get(usual_name)  # None for other columns
    return as_json(update)


def _size_of_picture(step: Step, record: Record) -> Size:
    with suppress(RecordError):
        column = image_column(step.operator, record)
        if column is not None:
            return open_image(record, column).size
    return 1, 1  # of a record whose picture is missing or broken


def _expression_of_each_status(text: str, size: Size) -> list[Expression]:
    """A later step may ask about expressions of some status only."""
    expressions = [Expression(text, status, noun_chunk=text, status=status) for status in STATUSES]
    expressions[0].instances.append(Instance((0, 0, *size), bbox_id="0"))  # it is grounded
    return expressions

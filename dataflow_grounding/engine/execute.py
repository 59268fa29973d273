"""The engine's door: checks a plan, then runs it, segment by segment."""

import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TypeAlias

from dataflow_grounding._util.errors import (
    BudgetExceeded,
    InputError,
    PlanError,
    SpecError,
    StorageFailed,
    told_as,
)
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine._manifest import Manifest
from dataflow_grounding.engine.at_work import at_work
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.keyed_log import store_path
from dataflow_grounding.engine.options import (
    Beside,
    RunOptions,
    RunStart,
    budget_of,
    current_options,
    sent_beside,
)
from dataflow_grounding.engine.plan import (
    Annotator,
    Step,
    WholeFile,
    check,
    holding,
    levels,
    segments,
)
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary

MakeRun: TypeAlias = Callable[[list[Step], Source, RunOptions, Budget, Collection[int]], Run]


def execute(
    steps: list[Step],
    options: RunOptions,
    name: str | None = None,
    budget: Budget | None = None,
    locked: str | None = None,
    ahead: Iterable[Annotator] = (),
    run: MakeRun = Run,
) -> Summary:
    """Run the steps over their storage's files.

    Args:
        steps: In order; a step that doesn't read what the one before it wrote begins a new segment.
        options: How the run goes; `run`: makes what takes the rows through the steps.
        name: What `source` and `pipeline_steps` of the records say; None leaves them out.
        budget: Shared by several calls that make one run; without it the options' limits are this
            call's.
        locked: A checkpoint folder whose lock (`at_work`) the caller holds.
        ahead: Operators of further runs over what these steps write: they settle before anything is
            paid for.

    Returns:
        The last segment's summary, with what the earlier ones sent and lost.

    Raises:
        PlanError, InputError, SpecError: A segment can't be run; nothing of it was sent.
        RunStopped: The run could not be finished; what was paid for is stored.
    """
    _check_plan(steps, options, run)
    budget = budget or budget_of(options)
    ahead = [*(step.operator for step in steps), *ahead]
    total, held = None, {locked}
    with ExitStack() as locks:
        for segment in segments(steps):
            if isinstance(operator := segment[0].operator, WholeFile):
                with as_part_of_the_run(segment[0], options, budget) as beside:
                    operator.work()
                total = published(segment[0], beside, total)
                continue
            folder = segment[0].storage.checkpoint_folder
            if folder not in held:
                locks.enter_context(at_work(folder))
                held.add(folder)
            for part in [segment] if options.stream else _stages(segment):
                summary, ahead = _execute_segment(part, options, name, budget, ahead, run), []
                if total is not None:
                    summary.add_earlier(total)
                total = summary
                if total.failed and not total.done:
                    return total
    return total or Summary()


@contextmanager
def as_part_of_the_run(step: Step, options: RunOptions, budget: Budget) -> Iterator[Beside]:
    """What our servings answer an operator from elsewhere is kept with the replies of the run's own
    steps, and counts against its limits.
    """
    folder = step.storage.checkpoint_folder
    with told_as(StorageFailed, f"can't write in {folder}"):
        os.makedirs(folder, exist_ok=True)
        keeping = replace(options, replies=store_path(folder))
    beside, before = Beside(budget), budget.spent
    with holding(current_options, keeping), holding(sent_beside, beside):
        yield beside
    if budget.prices is not None:
        beside.cost_usd = budget.spent - before


def published(step: Step, beside: Beside, earlier: Summary | None = None) -> Summary | None:
    """The summary after an operator that writes a whole file: that file's rows, and what was sent
    `beside`; `earlier` where it wrote none.
    """
    path = step.storage.output_path
    if not os.path.exists(path):
        return earlier
    summary = Summary(annotations=path, failures_file=step.storage.failures_path)
    summary.requests, summary.models, summary.cost_usd = (
        beside.requests,
        beside.models,
        beside.cost_usd,
    )
    for summary.done, row in enumerate(read_rows(path), 1):
        summary.count_expressions(Record(row.data or {}, place=row.line))
    summary.records = summary.done
    if earlier is not None:
        summary.add_earlier(earlier)
    return summary


def _check_plan(steps: list[Step], options: RunOptions, run: MakeRun) -> None:
    """Raises PlanError without steps, InputError for a foreign file, SpecError for a budget that
    can't be kept to.
    """
    if not steps:
        raise PlanError("the pipeline has no steps")
    for step in steps:
        if not isinstance(step.operator, WholeFile):
            refuse_foreign(
                step.storage.checkpoint_folder,
                [step.storage.output_path, step.storage.failures_path],
            )
        elif options.shard is not None or run is not Run:
            raise PlanError(f"{step.label} works on whole files: it can't run on a part of one")
    if options.budget_usd is None:
        return
    if options.prices is None:
        raise SpecError(
            "workflow.budget_usd needs the model's prices: set vlm.prices (input and output)"
        )
    if not 0 <= options.budget_usd < math.inf:
        raise SpecError(f"workflow.budget_usd {options.budget_usd} should be a number of USD")


def _stages(segment: list[Step]) -> list[list[Step]]:
    """The segment cut where all records should have finished before the next step begins."""
    ends = sorted({*accumulate((max(group) + 1 for group in levels(segment)), max)})
    return [segment[place:end] for place, end in pairwise([0, *ends])]


def _execute_segment(
    steps: list[Step],
    options: RunOptions,
    name: str | None,
    budget: Budget,
    ahead: list[Annotator],
    make_run: MakeRun,
) -> Summary:
    steps[0].storage.begin()
    source = Source(steps, name, options.pilot, options.shard)
    refuse_to_overwrite(
        source.path, [*(step.storage.output_path for step in steps), steps[0].storage.failures_path]
    )
    manifest = Manifest(steps, source, options)
    check(steps, source.columns())
    start = RunStart(
        options, budget, steps[0].storage.checkpoint_folder, functools.cache(source.pictures)
    )
    asked, idle = _prepared(steps, ahead, start, source)
    summary = None if options.force_reprocess or options.retry_failed else manifest.finished()
    if summary is None:
        run = make_run(steps, source, options, budget, idle)
        try:
            summary = run_blocking(run.execute)
        except BudgetExceeded as stopped:
            raise _with_what_is_left(stopped, run.summary, source.length(), len(steps)) from None
        summary.requests.update(asked)
        manifest.write(summary)
    summary.seen, summary.digest = source.seen, source.digest  # which is read to tell, too
    return summary


def refuse_foreign(checkpoint_folder: str, outputs: Iterable[str]) -> None:
    """Raises InputError where an output is there already, but not the folder that a run of ours
    leaves beside it.
    """
    there = next(filter(os.path.exists, outputs), "")
    if there and not os.path.exists(checkpoint_folder):
        place = os.path.dirname(checkpoint_folder)
        what = f"{there} is from elsewhere: {place} has no .ckpt, where this package keeps replies"
        raise InputError(f"{what}. Choose another folder, or move the results away")


def refuse_to_overwrite(input_path: str, outputs: Iterable[str]) -> None:
    """Raises InputError when the input is one of the files that a run writes."""
    if os.path.realpath(input_path) in map(os.path.realpath, outputs):
        raise InputError(
            f"the run would overwrite its input {input_path}: choose another folder for the results"
        )


def _prepared(
    steps: list[Step], ahead: list[Annotator], start: RunStart, source: Source
) -> tuple[Counter[str], set[int]]:
    """What the operators had to ask before the first record, and the places of those with no record
    to ask about.
    """
    asked, idle = Counter[str](), set[int]()
    made: set[str] = set()  # columns
    anything = False  # whether a step doesn't name what it makes
    for index, operator in enumerate(step.operator for step in steps):
        asks = anything or source.may_ask(operator, made)
        if asks:
            asked.update(operator.prepare(start))
        else:
            idle.add(index)
        anything = anything or operator.sees_all
        if asks is not None:
            own = set(operator.writes().values())
            made |= own if asks else own.difference(operator.reads().values())
    for operator in ahead if len(idle) < len(steps) else ():
        if all(operator is not step.operator for step in steps):
            asked.update(operator.settle(start))
    return asked, idle


def _with_what_is_left(
    stopped: BudgetExceeded, done: Summary, total: int | None, requests_each: int
) -> BudgetExceeded:
    """The stop with what is done and what the rest would take, at one request per step and what
    these ones cost.
    """
    answered = done.requests["replayed"] + done.requests["answered"]
    # others' may be stored as well
    text = f"{stopped}. This run has taken {counted(answered, 'reply')}"
    if total is not None:
        left = max(total * requests_each - answered, 1)
        cost = (
            done.cost_usd / done.requests["answered"]
            if done.cost_usd and done.requests["answered"]
            else 0.0
        )
        text += f"; the rest takes about {counted(left, 'more request')}" + (
            f", {cost * left:.4f} USD" if cost else ""
        )
        text += ", if nothing of it is stored"
    told = type(stopped)(f"{text}. The same command goes on")
    told.summary = stopped.summary
    return told

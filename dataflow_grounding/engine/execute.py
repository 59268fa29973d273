"""The engine's door: checks a plan, then runs it, segment by segment.

In a segment, each step reads what the one before wrote (`segments`). A level has steps that may
work on a record side by side (`levels`). Unless records are streamed, a segment runs in stages, one
after the other: these are its parts; else it is one part. An operator settles when it finds out
what it must know of the model. A step is idle where it has no record to ask about.
"""

import functools
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeAlias

from dataflow_grounding._util.errors import (
    BudgetExceeded,
    InputError,
    PlanError,
    SpecError,
    StorageFailed,
    errors_as,
)
from dataflow_grounding._util.exit_codes import note_exit_code
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.engine._manifest import Manifest
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.keyed_log import store_path
from dataflow_grounding.engine.options import (
    RunOptions,
    RunStart,
    SideRequests,
    budget_of,
    current_options,
    side_requests,
)
from dataflow_grounding.engine.outputs import remove_unfinished_of_shards
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
from dataflow_grounding.engine.run_lock import locked_folder
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.workers import run_blocking

MakeRun: TypeAlias = Callable[[list[Step], Source, RunOptions, Budget, Collection[int]], Run]
"""Makes what takes the rows through the steps, of the arguments of `Run`."""


def execute(
    steps: list[Step],
    options: RunOptions,
    name: str | None = None,  # the pipeline's; None where operators run without one
    budget: Budget | None = None,
    locked: str | None = None,  # a checkpoint folder whose lock the caller holds
    # operators of further runs over what these steps write, which haven't settled ahead of it
    unsettled: list[Annotator] | None = None,
    run: MakeRun = Run,
) -> Summary:
    """Run the steps over files; return the last part's summary, with what all sent and lost."""
    _check_plan(steps, options, run)
    budget = budget or budget_of(options)
    if unsettled is None:
        unsettled = []
    unsettled += [step.operator for step in steps]
    parts: list[list[Step]] = []
    for segment in segments(steps):
        parts += [segment] if options.stream else _stages(segment)
    total: Summary | None = None
    locked_folders = {locked}  # the caller's, or None, and those that are locked here
    # Locks are kept to the end of the run, not of their part: later parts read what an earlier one
    # wrote, and nobody else may change it meanwhile.
    with ExitStack() as locks:
        for part in parts:
            operator = part[0].operator
            if isinstance(operator, WholeFile):  # it is alone in its part
                with counted_in_run(part[0], options, budget) as counted_requests:
                    operator.work()
                total = summary_of_whole_file(part[0], counted_requests, total)
                continue
            folder = part[0].storage.checkpoint_folder
            if folder not in locked_folders:
                locks.enter_context(locked_folder(folder))
                locked_folders.add(folder)
            summary = _execute_part(part, options, name, budget, unsettled, run)
            if total is not None:
                summary.add_earlier(total)
            total = summary
            if total.failed and not total.done:  # no row is left for the next part
                break
    return total or Summary()


@contextmanager
def counted_in_run(step: Step, options: RunOptions, budget: Budget) -> Iterator[SideRequests]:
    """Count as a part of the run what an operator of another library sends by our servings."""
    folder = step.storage.checkpoint_folder
    with errors_as(StorageFailed, f"can't write in {folder}"):
        os.makedirs(folder, exist_ok=True)
        options_of_block = replace(options, replies=store_path(folder))
    side = SideRequests(budget)
    spent_before = budget.spent
    # by these the servings that the block calls know of the run
    with holding(current_options, options_of_block), holding(side_requests, side):
        yield side  # its `cost_usd` is set at the block's end
    if budget.prices is not None:
        side.cost_usd = budget.spent - spent_before


def summary_of_whole_file(
    step: Step, side: SideRequests, earlier: Summary | None = None
) -> Summary | None:
    """Return the summary after an operator of a whole file, in which all rows are done."""
    path = step.storage.output_path
    if not os.path.exists(path):
        return earlier  # what the steps before it did
    summary = Summary(annotations=path, failures_file=step.storage.failures_path)
    summary.requests = side.requests
    summary.models = side.models
    summary.cost_usd = side.cost_usd
    summary.count_rows(path)
    summary.records = summary.done
    if earlier is not None:
        summary.add_earlier(earlier)
    return summary


def _check_plan(steps: list[Step], options: RunOptions, run: MakeRun) -> None:
    if not steps:
        raise PlanError("the pipeline has no steps")
    # another class of runs is Ray's, which divides the rows
    is_divided = options.shard is not None or run is not Run
    for step in steps:
        if not isinstance(step.operator, WholeFile):
            refuse_foreign(
                step.storage.checkpoint_folder,
                [step.storage.output_path, step.storage.failures_path],
            )
        elif is_divided:
            raise PlanError(f"{step.label} works on whole files: it can't run on a part of one")
    check_budget(options)


def check_budget(options: RunOptions) -> None:
    """Raise SpecError for a budget that is no number of USD, or has no prices to be counted by."""
    if options.budget_usd is None:
        return
    if options.prices is None:
        raise SpecError(
            f"{setting('workflow.budget_usd')} needs the model's prices: set"
            f" {setting('vlm.prices')} (input and output)"
        )
    if not 0 <= options.budget_usd < math.inf:
        name = setting("workflow.budget_usd")
        raise SpecError(f"{name} {options.budget_usd} should be a number of USD")


def _stages(segment: list[Step]) -> list[list[Step]]:
    """Cut a segment into stages, each of which is done for all records before the next one."""
    # The steps of a level run side by side, so that one stage has all of them, and the steps in
    # between: the levels [0, 2] and [1] are one stage with three steps.
    stages = []
    start = 0  # of the next stage
    end = 0  # after the last step of the levels so far
    for level in levels(segment):
        end = max(end, max(level) + 1)
        if end > start:
            stages.append(segment[start:end])
            start = end
    return stages


def _execute_part(
    steps: list[Step],
    options: RunOptions,
    name: str | None,
    budget: Budget,
    unsettled: list[Annotator],
    make_run: MakeRun,
) -> Summary:
    storage = steps[0].storage
    storage.begin()
    # The order matters: nothing is read before it is sure that the run won't overwrite its input,
    # and nothing is asked before the columns are known to fit.
    source = Source(steps, name, options.pilot, options.shard)
    outputs = [step.storage.output_path for step in steps]
    refuse_to_overwrite(source.path, [*outputs, storage.failures_path])
    # Made before the first row is read: it notes the input's state, to see at the end whether that
    # has changed.
    manifest = Manifest(steps, source, options)
    columns = source.columns()
    check(steps, columns, source.empty_columns)
    # looked at only if an operator wants to know of them, and once for all operators
    pictures = functools.cache(source.pictures)
    start = RunStart(options, budget, storage.checkpoint_folder, pictures)
    # Before the manifest compares settings: what operators settle is a part of these.
    asked, idle = _prepare(steps, unsettled, start, source)
    summary = None
    if not (options.force_reprocess or options.retry_failed):
        summary = manifest.finished()
    if summary is None:
        run = make_run(steps, source, options, budget, idle)
        try:
            summary = run_blocking(run.execute, signal.SIGINT, signal.SIGTERM)
        except BudgetExceeded as stopped:
            raise _with_what_is_left(stopped, run, idle) from None
        summary.requests.update(asked)
        manifest.write(summary)
    if options.shard is None:  # a shard would remove what the others are writing
        remove_unfinished_of_shards(steps)
    # Shards are merged only if these are the same: then they read the same input. Where nothing was
    # to be done, the manifest has read all rows.
    summary.handover.seen = source.seen
    summary.handover.digest = source.digest
    note_exit_code(summary.annotations, summary.exit_code)
    return summary


def refuse_foreign(checkpoint_folder: str, outputs: Iterable[str]) -> None:
    """Raise InputError for an output without its checkpoint folder: no run here made it."""
    if os.path.exists(checkpoint_folder):
        return
    for path in outputs:
        if os.path.exists(path):
            folder = os.path.dirname(checkpoint_folder)
            raise InputError(
                f"{path} was not made by a run here: {folder} has no .ckpt, where this package"
                " keeps replies. Choose another folder, or move the results away"
            )


def refuse_to_overwrite(input_path: str, outputs: Iterable[str]) -> None:
    if os.path.realpath(input_path) in map(os.path.realpath, outputs):
        raise InputError(
            f"the run would overwrite its input {input_path}: choose another folder for the results"
        )


def _prepare(
    steps: list[Step], unsettled: list[Annotator], start: RunStart, source: Source
) -> tuple[Counter[str], set[int]]:
    """Prepare the operators that may ask; others might send requests for nothing.

    Returns counts of requests and tokens, and the indices of steps that have no record to ask
    about.
    """
    asked = Counter[str]()
    idle: set[int] = set()
    made_columns: set[str] = set()  # that the rows get from earlier steps
    may_have_any_column = False  # because an earlier step may make columns that it doesn't name
    for index, step in enumerate(steps):
        operator = step.operator
        if may_have_any_column:  # what it asks about may be in columns that the input doesn't have
            asks: bool | None = True
        else:
            asks = source.may_ask(operator, made_columns)  # None: no record gets to this step
        if asks:
            asked.update(run_blocking(functools.partial(operator.prepare, start)))
        else:
            idle.add(index)
        does_any_record_get_here = asks is not None
        if does_any_record_get_here:
            written = set(operator.writes().values())
            if not asks:  # then a column that it rewrites is taken to stay as the input has it
                written -= set(operator.reads().values())
            made_columns |= written
        if operator.sees_all:
            may_have_any_column = True
    own = {id(step.operator) for step in steps}
    unsettled[:] = [operator for operator in unsettled if id(operator) not in own]
    # Operators of later parts settle now: what would stop them stops the run before anything is
    # paid for. If this part asks nothing, it costs nothing, and they may settle later.
    will_ask = len(idle) < len(steps)
    if will_ask:
        for operator in unsettled:
            asked.update(run_blocking(functools.partial(operator.settle, start)))
        unsettled.clear()
    return asked, idle


def _with_what_is_left(stopped: BudgetExceeded, run: Run, idle: Collection[int]) -> BudgetExceeded:
    """Return the error with what the rest takes, where the number of records is known."""
    done = run.summary
    total = run.source.length()
    answered = done.requests["replayed"] + done.requests["answered"]
    text = f"{stopped}. This run has taken {counted(answered, 'reply')}"
    if total is not None:
        requests_per_record = 0
        for index, step in enumerate(run.steps):
            if step.operator.serving is not None and index not in idle:
                requests_per_record += 1
        # Checks of the box format are about no record.
        about_records = answered - done.requests["probes"]
        # Replies to further tries are among `about_records`, so the difference may be 0 or less.
        # But the run was stopped before its end: at least one request is left.
        left = max(total * requests_per_record - about_records, 1)
        rest = counted(left, "more request")
        if done.cost_usd and done.requests["answered"]:  # at the mean price of these
            rest += f", {done.cost_usd / done.requests['answered'] * left:.4f} USD"
        text += f"; the rest takes about {rest}, if nothing of it is stored"
    with_rest = type(stopped)(f"{text}. The same command goes on")
    with_rest.summary = stopped.summary
    return with_rest

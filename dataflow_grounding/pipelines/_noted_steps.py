"""The steps that a pipeline's `forward()` calls: checked as they are called, and run one by one.

A step is an operator at work on a step of a storage: it reads one file and writes the next. Steps
that read each other's files are a segment, through which a run may stream records.
"""

import itertools
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError, PlanError, RunStopped
from dataflow_grounding._util.paths import kind_of, state_of
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import (
    Annotator,
    Step,
    WholeFile,
    check,
    outside_forward,
    segments,
)
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.operators.operator_base import Operator

MOST_COMPARED = 10_000  # characters of an attribute of another library's operator


class _FileColumns(NamedTuple):
    names: list[str]
    empty: list[str]  # those that hold empty lists only


class CheckedSteps(list[Step]):
    """The steps that `forward()` calls, the columns of each checked as it is called."""

    def __init__(self) -> None:
        super().__init__()
        self._columns_by_path: dict[str, _FileColumns] = {}

    def append(self, step: Step) -> None:
        """Take in a step. Raises PlanError or InputError if it can't read its file or columns."""
        # Each step of a segment reads what the step before it writes. Only the file that the
        # segment's first step reads may exist already.
        *earlier_segments, segment = segments([*self, step])  # the last one has `step`
        first = segment[0]
        path = first.storage.input_path
        # A file that an earlier step is to write isn't there yet, and a pipe can be read only once:
        # both are checked when the step runs.
        written = _written_by(itertools.chain(*earlier_segments))
        can_be_read_now = path not in written and kind_of(path) != "pipe"
        is_of_other_library = isinstance(first.operator, WholeFile)  # it looks at its file itself
        if can_be_read_now and not is_of_other_library:
            if path not in self._columns_by_path:  # each step of the segment asks for them
                source = Source(segment)
                self._columns_by_path[path] = _FileColumns(source.columns(), source.empty_columns)
            columns = self._columns_by_path[path]
            check(segment, columns.names, columns.empty)  # whether each step has its columns
        super().append(step)


def _written_by(steps: Iterable[Step]) -> set[str]:
    return {step.storage.output_path for step in steps}


# No Exception, because a `forward()` that looks at a file has the steps run by that, and may have
# an `except Exception` around it.
class NoRecordLeft(BaseException):
    """No record got through a step, so that the further ones aren't run."""


class StepByStep(CheckedSteps):
    """The steps that `forward()` calls, each checked as it is called, and run one by one.

    Steps wait until `forward()` is through, or asks for a file that one of them writes.
    """

    def __init__(self, name: str | None, budget: Budget, ahead: Sequence[Operator]) -> None:
        super().__init__()
        self._name = name
        self._budget = budget
        # What these have to know, such as the box format of a model, is settled before the first
        # step of ours runs. `execute` takes out those whose turn has come.
        self._unsettled: list[Annotator] = list(ahead)
        self._started = 0  # how many steps have run, or are running; those after them wait
        # What each step was made of when it was called, as `_parts_of` has it: until it runs, that
        # has to stay.
        self._parts_when_called: list[dict[str, object]] = []
        self._stopped: BaseException | None = None  # what has ended the run
        self.summaries: list[Summary] = []

    def append(self, step: Step) -> None:
        """Take in a step, which waits. Raises PlanError or InputError if it can't be run."""
        try:
            super().append(step)
        except InputError:  # its file can't be read
            waiting = self[self._started :]
            if not waiting:
                raise
            # One of these may write the file: it is looked for again once they have run.
            self.run()
            super().append(step)
        written = _written_by(self[:-1])
        self._parts_when_called.append(_made_of(step, written))

    def refuse_early_look(self, path: Any) -> None:
        """Raise PlanError where a path is that of a file that a step is still to write."""
        if not isinstance(path, str):  # an error may name none
            return
        for step in self[self._started :]:
            written = step.storage.output_path
            if os.path.abspath(path) == os.path.abspath(written):
                raise PlanError(
                    f"forward() opens {path} before {step.label} has written it: ask the storage"
                    f" for it, self.storage.path_of({step.storage.operator_step + 1})"
                )

    def run(self) -> None:
        """Run the steps that wait; raise again what has stopped an earlier call."""
        if self._stopped is not None:
            raise self._stopped
        try:
            self._run_waiting()
        except (RunStopped, PlanError, NoRecordLeft) as stopped:
            self._stopped = stopped
            raise

    def _run_waiting(self) -> None:
        """Run the steps that wait, and add their summaries. Raises NoRecordLeft."""
        first_waiting = self._started
        waiting = self[first_waiting:]
        self._started = len(self)  # set first: if one of them fails, none is run a second time
        self._refuse_changed(waiting, first_waiting)
        for step in waiting:
            with outside_forward():  # now steps run, and aren't noted
                summary = execute(
                    [step],
                    current_options.get(),
                    self._name,
                    self._budget,
                    unsettled=self._unsettled,
                )
            if not summary.annotations:  # an operator of another library, which wrote no file
                continue
            self.summaries.append(summary)
            if summary.failed and not summary.done:
                raise NoRecordLeft

    def _refuse_changed(self, waiting: Sequence[Step], first_waiting: int) -> None:
        """Raise PlanError where a step isn't what it was when `forward()` called it."""
        for number, step in enumerate(waiting, first_waiting):
            parts_now = _made_of(step, _written_by(self[:number]))
            for what, part_when_called in self._parts_when_called[number].items():
                if parts_now.get(what) != part_when_called:
                    raise PlanError(
                        f"forward() changes {what} after it has called {step.label}, which runs"
                        " later: make one for each call, or have the steps so far run first, by"
                        f" self.storage.path_of({step.storage.operator_step + 1})"
                    )


def _made_of(step: Step, written: Collection[str]) -> dict[str, object]:
    """Return what a step is made of, by the names that a message has for its parts.

    As {"grounding's settings": …, "the serving's settings": …, "captions.jsonl": its state}.
    `written` are the files that earlier steps write: they change when those run, and are no part.
    """
    # In `forward()`, a look at a file of a storage has the waiting steps run: not here.
    with outside_forward():
        return _parts_of(step, written)


def _parts_of(step: Step, written: Collection[str]) -> dict[str, object]:
    operator = step.operator
    parts: dict[str, object] = {}
    if isinstance(operator, WholeFile):
        # It runs an operator of another library. ForeignOperator made `work`, as
        # partial(that_operator.run, …).
        run_method = getattr(operator.work, "func", None)
        that_operator = getattr(run_method, "__self__", None)
        parts[f"{operator.name}'s attributes"] = _attributes_of(that_operator)
    else:
        settings = (repr(operator.settings()), _attributes_of(operator))
        parts[f"{operator.name}'s settings"] = settings
        identity = getattr(operator.serving, "identity", None)
        parts["the serving's settings"] = repr(identity()) if identity is not None else None
    path = step.storage.input_path
    if path not in written:
        parts[path] = state_of(path)
    return parts


def _attributes_of(thing: Any) -> dict[str, object]:
    """Return for each attribute what shows later whether it has changed."""
    attributes: dict[str, object] = {}
    for name, value in getattr(thing, "__dict__", {}).items():
        # Of a plain value its text, because a list may be changed in place. Of any other object its
        # id, which tells whether it was replaced.
        is_plain = isinstance(value, (str, int, float, bool, list, tuple, dict, set, type(None)))
        attributes[name] = repr(value)[:MOST_COMPARED] if is_plain else id(value)
    return attributes

"""The steps that a pipeline's `forward()` calls: checked as they are called, and run one by one."""

import os
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError, PlanError, RunStopped
from dataflow_grounding._util.paths import kind_of, state_of
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import Step, WholeFile, check, outside_forward, segments
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
        # Each step of a segment reads what the one before wrote. `step` is in the last segment.
        *earlier, segment = segments([*self, step])
        path = segment[0].storage.input_path
        written = {one.storage.output_path for part in earlier for one in part}
        # A file that an earlier step writes is looked at when that step is through; so is a pipe,
        # which can be read only once.
        is_there_now = path not in written and kind_of(path) != "pipe"
        if is_there_now and not isinstance(segment[0].operator, WholeFile):
            if path not in self._columns_by_path:  # the segment's first step: the file is read once
                source = Source(segment)
                self._columns_by_path[path] = _FileColumns(source.columns(), source.empty_columns)
            columns = self._columns_by_path[path]
            check(segment, columns.names, columns.empty)
        super().append(step)


class NoRecordLeft(BaseException):
    """No record got through a step; no Exception, which `forward()` may catch around a look."""


class StepByStep(CheckedSteps):
    """The steps that `forward()` calls, each checked as it is called, and run one by one. The
    operators `ahead` settle what they have to know before the first step runs.
    """

    def __init__(self, name: str | None, budget: Budget, ahead: Sequence[Operator]) -> None:
        super().__init__()
        self._name = name
        self._budget = budget
        self._ahead = ahead
        self._started = 0  # how many steps have run, or are running
        # of each step, as `_parts_of` has them
        self._parts_when_called: list[dict[str, Any]] = []
        self._stopped: BaseException | None = None  # what has ended the run
        self.summaries: list[Summary] = []

    def append(self, step: Step) -> None:
        try:
            super().append(step)
        except InputError:
            if self._started == len(self):
                raise
            # the steps so far may write the file that it reads
            self.run()
            super().append(step)
        written = {one.storage.output_path for one in self[:-1]}
        self._parts_when_called.append(_made_of(step, written))

    def refuse_early_look(self, path: Any) -> None:
        """Raise PlanError where a path is that of a file that a step is still to write."""
        for step in self[self._started :]:
            written = step.storage.output_path
            if isinstance(path, str) and os.path.abspath(path) == os.path.abspath(written):
                raise PlanError(
                    f"forward() opens {path} before {step.label} has written it: ask the storage"
                    f" for it, self.storage.path_of({step.storage.operator_step + 1})"
                )

    def run(self) -> None:
        """Run the steps that haven't run; raise again what has stopped an earlier call. Raises
        PlanError where `forward()` has changed what a step is made of after it has called it.
        """
        if self._stopped is not None:
            raise self._stopped
        try:
            self._run_waiting()
        except (RunStopped, PlanError, NoRecordLeft) as stopped:
            self._stopped = stopped
            raise

    def _run_waiting(self) -> None:
        begin = self._started
        waiting = self[begin:]
        self._started = len(self)
        self._refuse_changed(waiting, begin)
        for step in waiting:
            with outside_forward():
                summary = execute(
                    [step], current_options.get(), self._name, self._budget, ahead=self._ahead
                )
            if not isinstance(step.operator, WholeFile):  # which settles nothing
                self._ahead = ()
            if not summary.annotations:  # an operator of another library that wrote no file
                continue
            self.summaries.append(summary)
            if summary.failed and not summary.done:
                raise NoRecordLeft

    def _refuse_changed(self, waiting: Sequence[Step], begin: int) -> None:
        for number, step in enumerate(waiting, begin):
            made_of = _made_of(step, {one.storage.output_path for one in self[:number]})
            for what, before in self._parts_when_called[number].items():
                if made_of.get(what) != before:
                    raise PlanError(
                        f"forward() changes {what} after it has called {step.label}, which runs"
                        " later: make one for each call, or have the steps so far run first, by"
                        f" self.storage.path_of({step.storage.operator_step + 1})"
                    )


def _made_of(step: Step, written: Collection[str]) -> dict[str, Any]:
    with outside_forward():  # a look at a path would have the steps run
        return _parts_of(step, written)


def _parts_of(step: Step, written: Collection[str]) -> dict[str, Any]:
    # Each under the name that a message has for it. A file that an earlier step writes is no part.
    operator = step.operator
    made_of: dict[str, Any] = {}
    if isinstance(operator, WholeFile):
        # `work` is a partial of the `run` method of another library's operator
        of_other_library = getattr(getattr(operator.work, "func", None), "__self__", None)
        made_of[f"{operator.name}'s attributes"] = _attributes_of(of_other_library)
    else:
        made_of[f"{operator.name}'s settings"] = repr(operator.settings()), _attributes_of(operator)
        serving = operator.serving
        identity = getattr(serving, "identity", None)
        made_of["the serving's settings"] = repr(identity()) if identity is not None else None
    path = step.storage.input_path
    if path not in written:
        made_of[path] = state_of(path)
    return made_of


def _attributes_of(thing: Any) -> dict[str, Any]:
    # Of plain values their text, of all else only which object it is: to tell whether any changed.
    attributes = {}
    for name, value in getattr(thing, "__dict__", {}).items():
        is_plain = isinstance(value, (str, int, float, bool, list, tuple, dict, set, type(None)))
        attributes[name] = repr(value)[:MOST_COMPARED] if is_plain else id(value)
    return attributes

"""The steps that a pipeline's `forward()` calls: checked as they are called, and run one by one."""

import os
from collections.abc import Sequence
from typing import Any

from dataflow_grounding._util.errors import InputError, PlanError
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import Step, WholeFile, check, out_of_forward, segments
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.operators.operator_base import Operator


class CheckedSteps(list[Step]):
    """The steps that `forward()` calls, the columns of each checked as it is called."""

    def __init__(self) -> None:
        super().__init__()
        self._source_of_path: dict[str, tuple[list[str], list[str]]] = {}  # its columns, the empty

    def append(self, step: Step) -> None:
        """Add a step. Raises PlanError for columns that don't fit, InputError for its input."""
        *earlier, segment = segments([*self, step])
        path = segment[0].storage.input_path
        written = {one.storage.output_path for part in earlier for one in part}
        # A file that an earlier step writes is looked at when that step is through; so is a pipe,
        # which can be read only once.
        is_there_now = path not in written and kind_of(path) != "pipe"
        if is_there_now and not isinstance(segment[0].operator, WholeFile):
            if path not in self._source_of_path:  # the segment's first step: the file is read once
                source = Source(segment)
                self._source_of_path[path] = source.columns(), source.empty_columns
            check(segment, *self._source_of_path[path])
        super().append(step)


class NoRecordLeft(Exception):
    """No record got through a step: those that come have nothing to do."""


class StepByStep(CheckedSteps):
    """The steps that `forward()` calls, each checked as it is called, and run one by one.

    Args:
        name: The pipeline's, for the records' column `source`.
        budget: Of all steps.
        ahead: Operators that settle what they have to know before the first step runs.

    Attributes:
        summaries: Of the steps that have run.
    """

    def __init__(self, name: str | None, budget: Budget, ahead: Sequence[Operator]) -> None:
        super().__init__()
        self._name = name
        self._budget = budget
        self._ahead = ahead
        self._started = 0  # how many steps have run, or are running
        self.summaries: list[Summary] = []

    def append(self, step: Step) -> None:
        """Add a step, as `CheckedSteps` does."""
        try:
            super().append(step)
        except InputError:
            if self._started == len(self):
                raise
            # the steps so far may write what it reads, those of another library any file
            self.run()
            super().append(step)

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
        """Run the steps that haven't run. Raises NoRecordLeft where one leaves no record."""
        waiting = self[self._started :]
        self._started = len(self)
        for step in waiting:
            with out_of_forward():
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

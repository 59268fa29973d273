"""A pipeline: a plan written as plain calls of operators in `forward()`."""

import copy
import functools
import inspect
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from dataflow_grounding._util.errors import PlanError
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine import plan
from dataflow_grounding.engine.execute import (
    as_part_of_the_run,
    check_budget,
    execute,
    summary_of_whole_file,
)
from dataflow_grounding.engine.options import RunOptions, budget_of, current_options
from dataflow_grounding.engine.plan import (
    Step,
    WholeFile,
    current_pipeline,
    holding,
    recorded_steps,
)
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.operators.operator_base import Operator

P = TypeVar("P", bound="Pipeline")


class Pipeline:
    """Subclass it, and call operators one after the other in `forward()`, each on
    `self.storage.step()`.

    `run()` works step by step; after `compile()` it streams records through all steps, to the same
    files. `run(resume_step=k)` begins with step k, whose input file must be there. As in DataFlow,
    an object's `forward(…)` is the same call. Operators of other libraries (anything with
    `run(storage, …)`), kept as attributes, run in their turn on whole files.
    """

    name: ClassVar[str | None] = None
    """What `source` and `pipeline_steps` of its records say; None leaves them out."""

    def __new__(cls: type[P], *args: Any, **kwargs: Any) -> P:
        """Return a pipeline whose attribute `forward` is `run`, in place of the class's method."""
        # DataFlow's shape wants both: a class with `forward(self)`, and an object with
        # `forward(resume_step=…)` that shares one budget over its steps, ends in a Summary, and
        # streams once compiled. The class stays as written, and `run` calls its `forward(self)`.
        pipeline = super().__new__(cls)
        pipeline.__dict__["forward"] = functools.partial(Pipeline.run, pipeline)
        return pipeline

    def __repr__(self) -> str:
        """Return the class's name, its storage and the names of its operators, without secrets."""
        storage = vars(self).get("storage")
        operators = ", ".join(self._operator_names()) or "no operators"
        return excerpt(f"{type(self).__name__}({storage!r}: {operators})")

    def _operator_names(self) -> list[str]:
        values: list[Any] = []
        for value in vars(self).values():
            if isinstance(value, (list, tuple)):
                values += value
            else:
                values.append(value)
        return [type(value).__name__ for value in values if callable(getattr(value, "run", None))]

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without `forward`: a copy gets one of its own in `__new__`."""
        return {name: value for name, value in vars(self).items() if name != "forward"}

    def forward(self) -> Any:
        """Call the operators. Raises NotImplementedError unless a subclass overrides it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def compile(self) -> list[Step]:
        """Return the steps that `forward()` calls, none of them run, and check their columns.

        `run` then streams records through those that `forward()` calls by then. Columns of files
        that an earlier step writes, and of pipes, aren't checked yet. Raises PlanError without a
        step or for columns that don't fit, InputError for a file that can't be read.
        """
        steps = self._checked_steps()
        if not steps:
            raise PlanError(f"{type(self).__name__}.forward() calls no operator")
        self.__dict__["_is_compiled"] = True
        return steps

    def steps(self) -> list[Step]:
        """Return the steps that `forward()` calls, none of them run."""
        return self._record([])

    def _checked_steps(self) -> list[Step]:
        return self._record(_CheckedSteps())

    def _record(self, steps: list[Step]) -> list[Step]:
        with holding(recorded_steps, steps):
            self._call_operators()
        return steps

    def _refuse_bad_plan(self) -> None:
        # A rehearsal, by a copy with storages of its own, so that nothing is left of it here. What
        # fails in it may only want what the steps before it will have written: the run itself tells
        # that. Without a storage of its own to copy, a rehearsal would count the steps twice.
        rehearsed = copy.copy(self)
        storages = {
            name: copy.copy(value)
            for name, value in vars(self).items()
            if callable(getattr(value, "step", None))
        }
        if not storages:
            return
        vars(rehearsed).update(storages)
        try:
            for storage in storages.values():
                # else an operator of another library, in a list, say, would do its work twice
                storage.read = plan.refuse_in_rehearsal
                storage.write = plan.refuse_in_rehearsal
            with holding(plan.is_rehearsal, True):
                rehearsed._checked_steps()
        except PlanError:
            raise
        except Exception:
            return

    def _call_operators(self) -> None:
        # While it runs, wrappers stand in place of the operators of other libraries, so that they
        # take part in the run as steps.
        foreign = self._foreign_operators()
        strays: list[str] = []
        try:
            for one in self._storages():
                one.reset()
                one.strays = strays
            for name, operator in foreign.items():
                vars(self)[name] = _ForeignOperator(operator)
            returned = type(self).forward(self)
            _check_plain(returned, type(self).__name__)
            if strays:
                raise PlanError(strays[0])
        except AttributeError as error:
            # The commonest mistake has a message of its own: a pipeline without a storage.
            storage = vars(self).get("storage")
            is_of_storage = error.name == "step" or (error.name, error.obj) == ("storage", self)
            if not is_of_storage or callable(getattr(storage, "step", None)):
                raise
            problem = "has no storage"
            if storage is not None:
                problem = f"has {type(storage).__name__} {storage!r} for a storage"
            raise PlanError(
                f"{type(self).__name__} {problem}: give it"
                " self.storage = FileStorage('captions.jsonl', './cache')"
            ) from None
        finally:
            vars(self).update(foreign)
            for one in self._storages():
                one.strays = None

    def _storages(self) -> list[FileStorage]:
        return [value for value in vars(self).values() if isinstance(value, FileStorage)]

    def _foreign_operators(self) -> dict[str, Any]:
        # Return the attributes, by name, that have a `run` and are of other libraries. Those in
        # lists aren't among them.
        foreign = {}
        for name, value in vars(self).items():
            if isinstance(value, (Operator, Pipeline, type)):
                continue
            if callable(getattr(value, "run", None)):
                foreign[name] = value
        return foreign

    def run(self, resume_step: int = 0, options: RunOptions | None = None) -> Summary:
        """Run what `forward()` calls. Calling `forward()` of a pipeline from outside does the same.

        After `compile()` records are streamed through all steps, else each step runs where
        `forward()` calls it. With `resume_step`, steps are streamed, too.

        Args:
            resume_step: The step to begin with, from 0; its input file must be there.
            options: Limits of requests and cost, attempts, and so on; None takes those in force.

        Returns:
            What was done. Printed, it says so in words; `exit_code` is 0 where every record got
            through.

        Raises:
            PlanError, InputError, SpecError: Before anything is sent.
            RunStopped: The run could not be finished; what was paid for is stored.
        """
        options = options or current_options.get()
        if self.__dict__.get("_is_compiled") or resume_step:
            # called anew, as operators may have been exchanged or changed since it was compiled
            steps = self.steps()
            if not steps:
                raise PlanError(f"forward() of {self.name} runs no operator")
            if not 0 <= resume_step < len(steps):
                raise PlanError(
                    f"resume_step={resume_step}: the pipeline has steps 0 to {len(steps) - 1}"
                )

            return execute(steps[resume_step:], options, self.name)
        outer = current_pipeline.get()
        summary = self._run_step_by_step(options)
        if outer is not None:  # another pipeline's `forward()` has called this one
            outer.summaries.append(summary)
        return summary

    def _run_step_by_step(self, options: RunOptions) -> Summary:
        # Where no record is left after a step, the further ones aren't run.
        check_budget(options)
        self._refuse_bad_plan()
        ahead: list[plan.Annotator] = [
            value for value in vars(self).values() if isinstance(value, Operator)
        ]
        at_work = plan.PipelineRun(self.name, budget_of(options), ahead)
        with (
            holding(current_options, options),
            holding(current_pipeline, at_work),
            suppress(plan.NoRecordLeft),
        ):
            self._call_operators()
            # Steps of other libraries may leave no summary, but they go on to a step.
            if not at_work.summaries and all(one.operator_step < 0 for one in self._storages()):
                raise PlanError(f"{type(self).__name__}.forward() calls no operator")
        *earlier, last = at_work.summaries or [Summary()]
        for summary in earlier:
            last.add_earlier(summary)
        return last

    def run_on_ray(
        self,
        address: str | None = None,
        workers: int | None = None,
        options: RunOptions | None = None,
    ) -> Summary:
        """Run what `forward()` calls on a Ray cluster.

        What `run` has done isn't done again, nor the other way round.

        Args:
            address: Of the cluster, as `ray.init` takes it; None starts one on this machine, for as
                long as it takes.
            workers: How many processes work, of one CPU each; None takes as many as there are CPUs.
            options: As for `run`; the limits are those of all workers together.

        Returns:
            What was done.

        Raises:
            PlanError, InputError, SpecError, MissingExtra: Also where Ray can't be reached, or has
                no room.
            RunStopped: The run could not be finished; what was paid for is stored.
        """
        from dataflow_grounding.scale.cluster.ray_run import RayRun  # few runs are on Ray

        run = functools.partial(RayRun, address, workers)
        return execute(self.compile(), options or current_options.get(), self.name, run=run)


class _CheckedSteps(list[Step]):
    """The steps that `forward()` calls, the columns of each checked as it is called."""

    def __init__(self) -> None:
        super().__init__()
        self._source_of_path: dict[str, tuple[list[str], list[str]]] = {}  # its columns, the empty

    def append(self, step: Step) -> None:
        """Add a step. Raises PlanError for columns that don't fit, InputError for its input."""
        *earlier, segment = plan.segments([*self, step])
        path = segment[0].storage.input_path
        written = {one.storage.output_path for part in earlier for one in part}
        # A file that an earlier step writes is looked at when that step is through; so is a pipe,
        # which can be read only once.
        is_there_now = path not in written and kind_of(path) != "pipe"
        if is_there_now and not isinstance(segment[0].operator, WholeFile):
            if path not in self._source_of_path:  # the segment's first step: the file is read once
                source = Source(segment)
                self._source_of_path[path] = source.columns(), source.empty_columns
            plan.check(segment, *self._source_of_path[path])
        super().append(step)


class _ForeignOperator:
    """Stands for an operator of another library while `forward()` is called.

    It has the operator's attributes, but a `run` of its own.
    """

    def __init__(self, operator: Any) -> None:
        self._operator = operator

    def run(self, *arguments: Any, **keys: Any) -> Any:
        """Run the operator on the file of the storage's step, as one step of the run.

        Args:
            arguments: What `forward()` passes. Without a storage among these and the `keys`, the
                operator is called as if there were no pipeline.
            keys: The same, by name.

        Returns:
            What the operator returns. While the pipeline is compiled, it isn't run: then the column
            that the call says it writes.
        """
        storage = _storage_in([*arguments, *keys.values()])
        if storage is None:
            return self._operator.run(*arguments, **keys)
        work = functools.partial(self._operator.run, *arguments, **keys)
        step = Step(WholeFile(type(self._operator).__name__, work), storage)
        steps = recorded_steps.get()
        if steps is not None:
            steps.append(step)
            return _output_column(keys)
        pipeline = current_pipeline.get()
        if pipeline is None:
            plan.check_thread(storage, type(self._operator).__name__)
            return work()
        # What our servings are asked by the operator is counted in `sent`, as the step's.
        with as_part_of_the_run(step, current_options.get(), pipeline.budget) as sent:
            returned = work()
        summary = summary_of_whole_file(step, sent)
        if summary:
            pipeline.summaries.append(summary)
        return returned

    def __getattr__(self, name: str) -> Any:
        """Return the operator's attribute."""
        return getattr(self._operator, name)


def _check_plain(returned: Any, name: str) -> None:
    # Raise PlanError for a forward() whose body hasn't run yet.
    is_waiting = inspect.iscoroutine(returned) or inspect.isgenerator(returned)
    if is_waiting:
        returned.close()
    if is_waiting or inspect.isasyncgen(returned):
        raise PlanError(
            f"{name}.forward() is async, or has a yield: write it as plain calls of the operators"
        )


def _storage_in(arguments: list[Any]) -> FileStorage | None:
    for argument in arguments:
        if isinstance(argument, FileStorage):
            return argument
    return None


def _output_column(keys: dict[str, Any]) -> Any:
    # Return the column that a call says its operator writes, as `output_key=…`; "" for none. It is
    # the first argument whose name begins with `output`.
    for name, value in keys.items():
        if name.startswith("output"):
            return value
    return ""

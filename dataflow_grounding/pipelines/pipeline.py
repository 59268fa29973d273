"""A pipeline: a plan written as plain calls of operators in `forward()`."""

import functools
import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from dataflow_grounding._util.errors import PlanError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.storage import FileStorage, before_looking
from dataflow_grounding.engine.execute import check_budget, execute
from dataflow_grounding.engine.options import RunOptions, budget_of, current_options
from dataflow_grounding.engine.plan import Step, holding, noted_steps, outside_forward
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.operators.operator_base import Operator
from dataflow_grounding.pipelines._noted_steps import CheckedSteps, NoRecordLeft, StepByStep
from dataflow_grounding.pipelines._other_libraries import stand_in_for

P = TypeVar("P", bound="Pipeline")


class Pipeline:
    """Subclass it, and call operators one after the other in `forward()`, each on
    `self.storage.step()`.

    `run()` calls `forward()` once, which notes the steps down and checks each, then runs them step
    by step; after `compile()` it streams records through all steps, to the same files.
    `run(resume_step=k)` begins with step k, whose input file must be there. As in DataFlow, an
    object's `forward(…)` is the same call. Operators of other libraries (anything with
    `run(storage, …)`), kept as attributes, run in their turn on whole files.
    """

    name: ClassVar[str | None] = None
    """What `source` and `pipeline_steps` of its records say; None leaves them out."""
    questions: ClassVar[Mapping[str, str]] = {}
    """An operator's name → what a person should ask of its file after a pilot."""

    def __new__(cls: type[P], *args: Any, **kwargs: Any) -> P:
        """Return a pipeline whose attribute `forward` is `run`, in place of the class's method."""
        # As in DataFlow, a pipeline's class has `forward(self)`, and its user calls
        # `pipeline.forward(resume_step=2)`. That call has to do what `run` does: share one budget
        # over all steps, return a Summary, stream records once compiled. So it is `run`, which
        # calls the class's `forward(self)`.
        pipeline = super().__new__(cls)
        pipeline.__dict__["forward"] = functools.partial(Pipeline.run, pipeline)
        return pipeline

    def __init__(self, storage: Any = None, serving: Any = None) -> None:
        self.storage = storage
        self.serving = serving

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

    def __getstate__(self) -> dict[str, object]:
        """Return the attributes without `forward`: a copy gets a new one in `__new__`."""
        return {name: value for name, value in vars(self).items() if name != "forward"}

    def forward(self) -> Any:
        """Call the operators. Raises NotImplementedError unless a subclass overrides it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def compile(self) -> list[Step]:
        """Return the steps that `forward()` calls, none of them run, and check their columns.

        `run` then streams records through all steps, which it has `forward()` call once more.
        Columns of files that an earlier step writes, and of pipes, are only checked in a run.
        Raises PlanError without a step or for columns that don't fit, InputError for a file that
        can't be read.
        """
        steps = self._record(CheckedSteps())
        if not steps:
            raise PlanError(f"{type(self).__name__}.forward() calls no operator")
        self.__dict__["_is_compiled"] = True
        return steps

    def steps(self) -> list[Step]:
        """Return the steps that `forward()` calls, none of them run."""
        return self._record([])

    def _record(self, steps: list[Step]) -> list[Step]:
        """Add the steps that `forward()` calls to `steps`, and return it."""
        # None is run: not even, as in a run, before `forward()` looks at a file.
        with holding(noted_steps, steps), holding(before_looking, None):
            self._call_operators()
        return steps

    def _call_operators(self) -> None:
        """Call `forward()`, whose operators note their steps."""
        # Only steps that this thread calls are noted. For one that another thread calls, the
        # storage puts an error's text here.
        errors_of_threads: list[str] = []
        replaced: dict[str, object] = {}  # the attributes to put back in the end
        try:
            for storage in self._storages():
                storage.reset()  # to its first step
                bucket.fill(storage.cache_path)  # if that is an address, its files are fetched
                storage.strays = errors_of_threads
            replaced = self._replace_foreign()
            returned = type(self).forward(self)
            _check_plain(returned, type(self).__name__)
            if errors_of_threads:
                raise PlanError(errors_of_threads[0])
        except AttributeError as error:
            self._refuse_without_storage(error)
            raise
        finally:
            vars(self).update(replaced)
            for storage in self._storages():
                storage.strays = None

    def _replace_foreign(self) -> dict[str, object]:
        """Put stand-ins in place of what is of other libraries; return that by attribute."""
        # Their operators become steps of the run, and it is noticed when `forward()` looks at a
        # file of their storages. Operators in lists stay as they are.
        stand_ins: dict[str, object] = {}
        for name, value in vars(self).items():
            is_ours = isinstance(value, (Operator, Pipeline, FileStorage, type))
            stand_in = None if is_ours else stand_in_for(value)
            if stand_in is not None:
                stand_ins[name] = stand_in
        replaced = {name: vars(self)[name] for name in stand_ins}
        vars(self).update(stand_ins)
        return replaced

    def _refuse_without_storage(self, error: AttributeError) -> None:
        """Raise PlanError if the error comes of a pipeline without a storage."""
        storage = vars(self).get("storage")
        is_storage = callable(getattr(storage, "step", None))
        # `self.storage` failed, or `self.storage.step`
        is_about_storage = error.name == "storage" and error.obj is self
        is_about_step = error.name == "step"
        if is_storage or not (is_about_storage or is_about_step):
            return
        if storage is None:
            problem = "has no storage"
        else:
            problem = f"has {type(storage).__name__} {storage!r} for a storage"
        raise PlanError(
            f"{type(self).__name__} {problem}: give it"
            " self.storage = FileStorage('captions.jsonl', './cache')"
        ) from None

    def _storages(self) -> list[FileStorage]:
        return [value for value in vars(self).values() if isinstance(value, FileStorage)]

    def run(self, resume_step: int = 0, options: RunOptions | None = None) -> Summary:
        """Run what `forward()` calls. Calling `forward()` of a pipeline from outside does the same.

        After `compile()`, and with `resume_step`, records are streamed through all steps. Else the
        steps run one after the other, once `forward()` has called them all; where it asks for a
        file of its storages, those that it has called so far run first.

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
        steps_of_caller = noted_steps.get()
        if steps_of_caller is None:  # no other pipeline calls this one
            return self._run(resume_step, options)
        # The `forward()` of another pipeline, the caller, calls this one.
        if not isinstance(steps_of_caller, StepByStep):
            # The caller only notes its steps, for `compile()` or `steps()`: these are noted, too.
            for step in self.steps()[resume_step:]:
                steps_of_caller.append(step)
            return Summary()
        # The caller runs. Its steps so far come first: this pipeline may read what they write.
        steps_of_caller.run()
        with outside_forward():
            summary = self._run(resume_step, options)
        steps_of_caller.summaries.append(summary)
        return summary

    def _run(self, resume_step: int, options: RunOptions) -> Summary:
        if self.__dict__.get("_is_compiled") or resume_step:
            # `forward()` is called once more: since `compile()`, operators may have been changed.
            steps = self.steps()
            if not steps:
                raise PlanError(f"forward() of {self.name} runs no operator")
            if not 0 <= resume_step < len(steps):
                raise PlanError(
                    f"resume_step={resume_step}: the pipeline has steps 0 to {len(steps) - 1}"
                )
            return execute(steps[resume_step:], options, self.name)
        return self._run_step_by_step(options)

    def _run_step_by_step(self, options: RunOptions) -> Summary:
        check_budget(options)
        # All operators find out first what they have to know, such as a model's box format, even
        # those that `forward()` calls late. If one can't, nothing was paid for yet.
        operators = [value for value in vars(self).values() if isinstance(value, Operator)]
        steps = StepByStep(self.name, budget_of(options), ahead=operators)
        with holding(current_options, options), suppress(NoRecordLeft):
            self._call_and_run(steps)
        if not steps.summaries:  # only steps of other libraries ran
            return Summary()
        *earlier, last = steps.summaries
        for summary in earlier:
            last.add_earlier(summary)
        return last

    def _call_and_run(self, steps: StepByStep) -> None:
        """Run the steps that `forward()` calls. Raises NoRecordLeft."""
        try:
            # Where `forward()` looks at a file of a storage, the steps so far are run first.
            with holding(noted_steps, steps), holding(before_looking, steps.run):
                self._call_operators()
        except FileNotFoundError as error:
            steps.refuse_early_look(error.filename)  # a PlanError, if a step is to write this file
            raise
        steps.run()
        # An operator of another library may leave no summary, but its storage has gone on a step.
        has_taken_step = any(storage.operator_step >= 0 for storage in self._storages())
        if not has_taken_step and not steps.summaries:
            raise PlanError(f"{type(self).__name__}.forward() calls no operator")

    def run_on_ray(
        self,
        address: str | None = None,
        workers: int | None = None,
        options: RunOptions | None = None,
    ) -> Summary:
        """Run what `forward()` calls on a Ray cluster.

        What `run` has done isn't done again, and vice versa.

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


def _check_plain(returned: Any, name: str) -> None:
    """Raise PlanError where `forward()` returned something that has yet to be run."""
    # Then it has called no operator.
    is_waiting = inspect.iscoroutine(returned) or inspect.isgenerator(returned)
    if is_waiting:
        returned.close()  # else Python warns that nobody awaits it
    if is_waiting or inspect.isasyncgen(returned):
        raise PlanError(
            f"{name}.forward() is async, or has a yield: write it as plain calls of the operators"
        )

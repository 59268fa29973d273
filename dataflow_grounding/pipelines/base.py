"""A pipeline: a plan written as plain calls of operators in `forward()`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import RunOptions, budget_of, current_options
from dataflow_grounding.engine.plan import Step, check, current_pipeline, recorded_steps
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import PlanError
from dataflow_grounding.storage import FileStorage


class Pipeline:
    """Subclass it, and call operators one after the other in `forward()`, each on `self.storage.step()`.

    `forward()` runs as it stands, step by step. After `compile()` it streams: records flow through all steps without
    waiting for each other, and the files come out the same. `forward(resume_step=k)` begins with step k, whose input file
    must be there. Returns a Summary.
    """

    name: ClassVar[str | None] = None
    """What `source` and `pipeline_steps` of its records say; None leaves them out."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            setattr(cls, "forward", _runnable(cls.__dict__["forward"]))  # noqa: B010

    def forward(self) -> Any:
        """Call the operators."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def compile(self) -> list[Step]:
        """Note the steps that `forward()` calls, without running them, and check that their columns fit the input.

        Raises PlanError, InputError.
        """
        steps = self.steps()
        if not steps:
            raise PlanError(f"{type(self).__name__}.forward() calls no operator")
        image_key = next((step.image_key for step in steps if step.image_key), None)
        check(steps, Source(steps[0], image_key, self.name, None).columns())
        self.__dict__["_compiled"] = steps
        return steps

    def steps(self) -> list[Step]:
        """The steps that `forward()` calls, none of them run."""
        steps: list[Step] = []
        token = recorded_steps.set(steps)
        try:
            with self._fresh_storages():
                type(self).forward.__wrapped__(self)  # type: ignore[attr-defined]
        finally:
            recorded_steps.reset(token)
        return steps

    @contextmanager
    def _fresh_storages(self) -> Iterator[None]:
        """Storages begin at their first step, however often forward() ran before."""
        storages = [value for value in vars(self).values() if isinstance(value, FileStorage)]
        for storage in storages:
            storage.reset()
        yield

    def _run(self, body: Callable[[Any], Any], resume_step: int, options: RunOptions) -> Summary:
        steps: list[Step] | None = self.__dict__.get("_compiled")
        if steps is None and resume_step:
            steps = self.steps()
        if steps is not None:
            if not 0 <= resume_step < len(steps):
                raise PlanError(f"resume_step={resume_step}: the pipeline has steps 0 to {len(steps) - 1}")
            return execute(steps[resume_step:], options, self.name)
        self.summaries: list[Summary] = []
        self.budget = budget_of(options)
        tokens = current_options.set(options), current_pipeline.set(self)
        try:
            with self._fresh_storages():
                body(self)
        finally:
            current_options.reset(tokens[0])
            current_pipeline.reset(tokens[1])
        if not self.summaries:
            raise PlanError(f"{type(self).__name__}.forward() calls no operator")
        *earlier, last = self.summaries
        for summary in earlier:
            last.add_earlier(summary)
        return last


def _runnable(body: Callable[[Any], Any]) -> Callable[..., Summary]:
    @functools.wraps(body)
    def forward(self: Pipeline, resume_step: int = 0, options: RunOptions | None = None) -> Summary:
        return self._run(body, resume_step, options or current_options.get())

    return forward

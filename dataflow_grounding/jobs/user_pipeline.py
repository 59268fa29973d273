"""The job of a pipeline of the user's own, `autolabel_type: module:Pipeline`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from dataflow_grounding.engine.plan import Step
from dataflow_grounding.errors import GroundingError, SpecError
from dataflow_grounding.jobs.base import RowsJob
from dataflow_grounding.jobs.user_code import described
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.secrets import learn_fields
from dataflow_grounding.spec import Json, PipelineBlock, RowsData, WorkflowBlock
from dataflow_grounding.spec.problems import nearest
from dataflow_grounding.storage import ResultsStorage

BLOCK = "pipeline"  # the key of the block of a pipeline without a `name`


class UserWorkflow(WorkflowBlock):
    """`workflow`; no `steps` means all."""

    steps: list[str] = []


class UserBlock(PipelineBlock):
    """`settings` are keyword arguments of the pipeline's class."""

    workflow: UserWorkflow = UserWorkflow()
    data: RowsData
    settings: Json = {}


class UserJob(RowsJob):
    """Runs a subclass of Pipeline, made as `Pipeline(storage, serving, **settings)`, on the user's rows."""

    block = UserBlock
    pipeline_class: ClassVar[type[Pipeline]]

    @property
    def source(self) -> str | None:
        """The pipeline's own name."""
        return self.pipeline_class.name

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        """Raises SpecError for settings that the class doesn't take, and for what its code raises."""
        block, key = self.spec.block, f"autolabel_type {self.spec.autolabel_type}"
        assert isinstance(block, UserBlock)
        learn_fields(block.settings)
        _check_settings(self.pipeline_class, block.settings, f"{self.name}.settings")
        make: Callable[..., Pipeline] = self.pipeline_class
        try:
            steps = make(storage, self.serving, **block.settings).steps()
        except (GroundingError, KeyboardInterrupt):
            raise
        except BaseException as error:  # code that ends the process, too
            raise SpecError(f"{key}: {described(error)}") from error
        if not steps or any(not isinstance(step.storage, ResultsStorage) for step in steps):
            how = "forward() should run each operator on step() of the storage that the class is given"
            raise SpecError(f"{key}: {how}")
        return steps

    def wanted(self, steps: list[Step]) -> list[str]:
        """All, where the spec names none."""
        return super().wanted(steps) or [str(place) for place in range(len(steps))]


def _check_settings(kind: type[Pipeline], settings: dict[str, Any], key: str) -> None:
    """Raises SpecError for a class that can't be made as `kind(storage, serving, **settings)`."""
    signature = inspect.signature(kind)
    takes = list(signature.parameters)[2:]
    try:
        signature.bind(None, None, **settings)
    except TypeError as error:
        for name in settings:
            if name not in takes:
                raise SpecError(f"{key}.{name} is not a setting of {kind.__name__}{nearest(name, takes)}") from None
        raise SpecError(f"{kind.__name__} is made with (storage, serving, **settings), {key}: {error}") from None

"""The job of a pipeline of the user's own, `autolabel_type: module:Pipeline`."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import learn_fields
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.rows_job import RowsJob
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.spec import Json, PipelineBlock, RowsData, WorkflowBlock
from dataflow_grounding.spec.problems import nearest
from dataflow_grounding.spec.user_code import in_one_line

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
    """Runs a subclass of Pipeline, made as `Pipeline(storage, serving, **settings)`, on the user's
    rows.
    """

    block = UserBlock
    pipeline_class: ClassVar[type[Pipeline]]

    @property
    def source(self) -> str | None:
        return self.pipeline_class.name

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        """Raises SpecError for settings that the class doesn't take, and for what its
        code raises.
        """
        block, key = self.spec.block, f"autolabel_type {self.spec.autolabel_type}"
        assert isinstance(block, UserBlock)
        learn_fields(block.settings)
        _check_settings(self.pipeline_class, block.settings, f"{self.name}.settings")
        make: Callable[..., Pipeline] = self.pipeline_class
        with in_one_line(key):
            pipeline = make(storage, self.serving, **block.settings)
            storage.reset()  # which it may have stepped through: compile() does
            steps = pipeline.steps()
        places = [
            step.storage.operator_step for step in steps if isinstance(step.storage, ResultsStorage)
        ]
        if not steps or places != [*range(len(steps))]:
            how = (
                "forward() should run each operator on a step() of its own of the storage that the"
                " class is given"
            )
            raise SpecError(f"{key}: {how}")
        return steps

    def wanted(self, steps: list[Step]) -> list[str]:
        return super().wanted(steps) or [str(place) for place in range(len(steps))]


def _check_settings(kind: type[Pipeline], settings: dict[str, Any], key: str) -> None:
    """Raises SpecError for a class that can't be made as `kind(storage, serving, **settings)`."""
    made = (
        f"{kind.__name__}.__init__ is given storage and serving, and what {key} holds as keyword"
        " arguments"
    )
    if kind.__init__ is object.__init__:
        raise SpecError(
            f"{made}: write def __init__(self, storage, serving), which keeps both for forward()"
        )
    signature = inspect.signature(kind.__init__)
    parameters = list(signature.parameters.values())[3:]
    takes = [
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]
    try:
        signature.bind(None, None, None, **settings)
    except TypeError as error:
        for name in settings:
            if name not in takes and not any(one.kind is one.VAR_KEYWORD for one in parameters):
                hint = nearest(name, takes) or f"; it takes {', '.join(takes) or 'none'}"
                raise SpecError(f"{key}.{name} is not a setting of {kind.__name__}{hint}") from None
        raise SpecError(f"{made}: {error}") from None

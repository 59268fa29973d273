"""A pipeline of the user's own, `autolabel_type: module:Pipeline`."""

import inspect
from collections.abc import Callable, Sequence

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import learn_fields
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.jobs.job import Job, put_in_folders
from dataflow_grounding.jobs.rows_job import input_of, job_on_rows, storage_of
from dataflow_grounding.pipelines.pipeline import Pipeline
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Json, PipelineBlock, RowsData, Spec, WorkflowBlock
from dataflow_grounding.spec.user_code import in_one_line


class UserWorkflow(WorkflowBlock):
    steps: list[str] = []


class UserBlock(PipelineBlock):
    workflow: UserWorkflow = UserWorkflow()
    data: RowsData
    settings: Json = {}


def job_of_pipeline(
    pipeline_class: type[Pipeline], spec: Spec, servings: Sequence[Serving], pilot: int | None
) -> Job:
    """Return the job of a pipeline that is made as `Pipeline(storage, serving, **settings)`."""
    block = spec.block
    assert isinstance(block, UserBlock)
    source = input_of(spec)
    storage = storage_of(spec, source)
    learn_fields(block.settings)  # so that secrets among them are masked where they would be shown
    _check_settings(pipeline_class, block.settings, f"{spec.block_name}.settings")
    make: Callable[..., Pipeline] = pipeline_class  # its own arguments, not Pipeline's
    key = f"autolabel_type {spec.autolabel_type}"
    with in_one_line(key):
        pipeline = make(storage, servings[0], **block.settings)
        storage.reset()  # the class may have gone through its steps already, by compile()
        steps = pipeline.steps()
    _refuse_other_numbers(steps, key)
    put_in_folders(steps)
    # all, if none is stated
    wanted = block.workflow.steps or [str(number) for number in range(len(steps))]
    return job_on_rows(spec, servings, source, steps, wanted, pilot)


def _refuse_other_numbers(steps: Sequence[Step], key: str) -> None:
    numbers = [
        step.storage.operator_step for step in steps if isinstance(step.storage, ResultsStorage)
    ]
    # Two operators on one step() have the same number, and one on another storage has none.
    if not steps or numbers != list(range(len(steps))):
        raise SpecError(
            f"{key}: forward() should run each operator on a step() of its own of the storage that"
            " the class is given"
        )


def _check_settings(pipeline: type[Pipeline], settings: JsonObject, key: str) -> None:
    """Refuse settings that don't fit the class's signature; no instance is made to find out."""
    signature = inspect.signature(pipeline.__init__)
    names = list(signature.parameters)[3:]  # after self, storage, serving
    try:
        signature.bind(None, None, None, **settings)
    except TypeError as error:
        raise SpecError(
            f"{pipeline.__name__}.__init__ is given storage and serving, and what {key} holds as"
            f" keyword arguments: {error}; it takes {', '.join(names) or 'none'}"
        ) from None

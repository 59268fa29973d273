"""The pipelines that a spec can name, and specs read with them."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import create_model

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.jobs.spec_job import SpecJob
from dataflow_grounding.jobs.user_pipeline import BLOCK, UserJob
from dataflow_grounding.pipelines.pipeline import Pipeline
from dataflow_grounding.spec import PipelineBlock, Spec
from dataflow_grounding.spec.loading import read_spec
from dataflow_grounding.spec.schema import OTHER_KEYS, SpecHead
from dataflow_grounding.spec.user_code import named

JOBS = {
    "image_grounding": "ImageGroundingJob",
    "image_referring_expression": "ImageReferringExpressionJob",
    "image_region_caption": "ImageRegionCaptionJob",
}
"""A shipped pipeline's `autolabel_type`, which is its job's module as well → the job's class."""


def job_named(autolabel_type: str, folders: Sequence[str] = ()) -> type[SpecJob]:
    """Return the job of a shipped pipeline, or of a user's Pipeline or SpecJob (`module:Name`)."""
    if autolabel_type in JOBS:
        # A run takes one of them: the others, and what they import, are left alone.
        module = importlib.import_module(f"dataflow_grounding.jobs.{autolabel_type}")
        shipped: type[SpecJob] = getattr(module, JOBS[autolabel_type])
        return shipped
    job = named(autolabel_type, "autolabel_type", JOBS, folders)
    if isinstance(job, type) and issubclass(job, Pipeline):
        job = _job_of_pipeline(job)
    if not (isinstance(job, type) and issubclass(job, SpecJob)):
        raise SpecError(
            f"autolabel_type: {autolabel_type} is not a subclass of dataflow_grounding.Pipeline"
        )
    if not isinstance(getattr(job, "name", None), str):
        raise SpecError(
            f"autolabel_type: {autolabel_type} needs a `name`, a text: the key of its block in the"
            " spec"
        )
    if job.name in SpecHead.model_fields or job.name in OTHER_KEYS["blocks"]:
        raise SpecError(
            f"autolabel_type: {autolabel_type} needs another `name`: {job.name!r} is a key of"
            " every spec"
        )
    return job


def _job_of_pipeline(pipeline: type[Pipeline]) -> type[SpecJob]:
    attributes = {
        "name": pipeline.name or BLOCK,
        "questions": getattr(pipeline, "questions", {}),
        "pipeline_class": pipeline,
    }
    return type(pipeline.__name__, (UserJob,), attributes)


def load_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str] = (),
    *,
    whole: bool = True,
    fixed: Mapping[str, Any] | None = None,
) -> Spec:
    """Load a spec; SpecError with everything that is wrong, one line each."""
    spec, problems = look_into_spec(paths, overrides, whole=whole, fixed=fixed)
    if problems or spec is None:
        raise SpecError("\n".join(problems))
    return spec


def spec_of_endpoint(paths: Sequence[str], overrides: Sequence[str]) -> Spec | None:
    """Return the spec whose endpoint a command asks; None without one: that of the environment."""
    if paths:
        return load_spec(paths, overrides, whole=False)
    if overrides:
        raise SpecError(f"{overrides[0]!r}: key=value goes with a spec (-e SPEC)")
    return None


def look_into_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str] = (),
    *,
    whole: bool = True,
    fixed: Mapping[str, Any] | None = None,
) -> tuple[Spec | None, list[str]]:
    """Return a spec and everything wrong with it, one line each, as `read_spec` does. Without
    `whole`, `data` and `results_dir` needn't be there: only the spec's model will be asked.
    """

    def block_of(autolabel_type: str, folders: Sequence[str]) -> tuple[str, type[PipelineBlock]]:
        job = job_named(autolabel_type, folders)
        block: type[PipelineBlock] = job.block
        if not whole:
            block = create_model(block.__name__, __base__=block, data=(Any, None))
        return job.name, block

    return read_spec(paths, overrides, block_of, JOBS, whole, fixed)

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
"""A shipped pipeline's `autolabel_type`, which is its job's module as well → the job's class there.

A pipeline of the user's own needs no row.
"""


def job_named(autolabel_type: str, folders: Sequence[str] = ()) -> type[SpecJob]:
    """Return the job of a shipped pipeline, or of a user's Pipeline or SpecJob.

    Args:
        autolabel_type: A key of JOBS, or `module:Name` for a class of the user's own.
        folders: Where the user's modules are looked for.

    Raises:
        SpecError: There is no such job, or its class isn't one, or the class's `name`, which is the
            key of its block in the spec, is none or is taken.
    """
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
    # A pipeline without a `name` has its block under `pipeline`.
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
    """Load a spec, whose arguments are those of `look_into_spec`.

    Raises SpecError with everything that is wrong, one line each.
    """
    spec, problems = look_into_spec(paths, overrides, whole=whole, fixed=fixed)
    if problems or spec is None:
        raise SpecError("\n".join(problems))
    return spec


def spec_of_endpoint(paths: Sequence[str], overrides: Sequence[str]) -> Spec | None:
    """Return the spec whose endpoint a command asks; None without one: that of the environment.

    Raises SpecError, also for overrides without a spec.
    """
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
    """Return a spec and everything wrong with it, one line each, as `read_spec` does.

    The spec is None where something keeps it from being read at all.

    Args:
        paths: The spec's file, or several, of which later ones override earlier ones.
        overrides: Settings of the command line, `key=value`.
        whole: Whether `data` and `results_dir` have to be there; not where only the spec's model
            will be asked.
        fixed: Values that count for those of the spec, as `read_spec` says.

    Raises:
        SpecError: A file can't be read, or names no pipeline that is there.
    """

    def block_of(autolabel_type: str, folders: Sequence[str]) -> tuple[str, type[PipelineBlock]]:
        """Return the key of a pipeline's block, and the block's class. Raises SpecError."""
        job = job_named(autolabel_type, folders)
        block: type[PipelineBlock] = job.block
        if not whole:
            block = create_model(block.__name__, __base__=block, data=(Any, None))
        return job.name, block

    return read_spec(paths, overrides, block_of, JOBS, whole, fixed)

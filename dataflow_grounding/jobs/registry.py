"""The pipelines that a spec can name, and specs read with them."""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_grounding.errors import SpecError
from dataflow_grounding.jobs.base import SpecJob
from dataflow_grounding.jobs.image_grounding import ImageGroundingJob
from dataflow_grounding.jobs.image_referring_expression import ImageReferringExpressionJob
from dataflow_grounding.jobs.image_region_caption import ImageRegionCaptionJob
from dataflow_grounding.jobs.user_code import add_folders
from dataflow_grounding.jobs.user_pipeline import job_of
from dataflow_grounding.spec import PipelineBlock, Spec, read_spec

JOBS: dict[str, type[SpecJob]] = {
    job.name: job for job in (ImageGroundingJob, ImageReferringExpressionJob, ImageRegionCaptionJob)
}
"""The shipped pipelines, by `autolabel_type`; a pipeline of the user's own needs no row."""


def job_named(autolabel_type: str) -> type[SpecJob]:
    """The job of a shipped pipeline or of one of the user's own, `module:Pipeline`. Raises SpecError."""
    return job_of(autolabel_type, JOBS)


def load_spec(paths: str | Sequence[str], overrides: Sequence[str] = ()) -> Spec:
    """As `look_into_spec`. Raises SpecError with everything that is wrong, one line each."""
    spec, problems = look_into_spec(paths, overrides)
    if problems or spec is None:
        raise SpecError("\n".join(problems))
    return spec


def look_into_spec(paths: str | Sequence[str], overrides: Sequence[str] = ()) -> tuple[Spec | None, list[str]]:
    """A spec and everything wrong with it, one line each; see `read_spec`. Raises SpecError."""
    return read_spec(paths, overrides, _block_of, JOBS)


def _block_of(autolabel_type: str, folders: Sequence[str]) -> tuple[str, type[PipelineBlock]]:
    add_folders(folders)
    job = job_named(autolabel_type)
    return job.name, job.block

"""The pipelines that a spec can name, and specs read with them."""

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import create_model

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.jobs.job import Kind
from dataflow_grounding.jobs.user_pipeline import UserBlock, job_of_pipeline
from dataflow_grounding.pipelines.pipeline import Pipeline
from dataflow_grounding.spec import PipelineBlock, Spec
from dataflow_grounding.spec.schema import OTHER_BLOCKS, SpecHead
from dataflow_grounding.spec.user_code import named

PIPELINES = ("image_grounding", "image_referring_expression", "image_region_caption")
"""The shipped pipelines: each is an `autolabel_type`, and a module here."""


def kind_named(autolabel_type: str, folders: Sequence[str] = ()) -> Kind:
    """Return what a spec's `autolabel_type` names: a shipped pipeline, or `module:Pipeline`."""
    if autolabel_type not in PIPELINES:
        return _users_kind(autolabel_type, folders)
    # A run takes one of them: the others, and what they import, aren't imported.
    module = importlib.import_module(f"dataflow_grounding.jobs.{autolabel_type}")
    shipped: Kind = module.KIND
    return shipped


def _users_kind(autolabel_type: str, folders: Sequence[str]) -> Kind:
    pipeline = named(autolabel_type, "autolabel_type", PIPELINES, folders)
    if not (isinstance(pipeline, type) and issubclass(pipeline, Pipeline)):
        raise SpecError(
            f"autolabel_type: {autolabel_type} is not a subclass of dataflow_grounding.Pipeline"
        )
    kind = Kind(pipeline, UserBlock, partial(job_of_pipeline, pipeline))
    if not isinstance(kind.name, str):
        raise SpecError(
            f"autolabel_type: {autolabel_type} needs a `name`, a text: the key of its block in the"
            " spec"
        )
    if kind.name in SpecHead.model_fields or kind.name in OTHER_BLOCKS:
        raise SpecError(
            f"autolabel_type: {autolabel_type} needs another `name`: {kind.name!r} is a key of"
            " every spec"
        )
    return kind


def load_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str] = (),
    *,
    whole: bool = True,
    fixed: JsonObject | None = None,
) -> Spec:
    """Load a spec by `look_into_spec`. Raises SpecError with all that is wrong, one line each."""
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
    fixed: JsonObject | None = None,
) -> tuple[Spec | None, list[str]]:
    """Return a spec and what is wrong with it. Only a `whole` one needs data and results_dir."""
    from dataflow_grounding.spec.loading import read_spec  # imports OmegaConf

    def block_of(autolabel_type: str, folders: Sequence[str]) -> tuple[str, type[PipelineBlock]]:
        """Return the key and the model of the pipeline's block."""
        kind = kind_named(autolabel_type, folders)
        block: type[PipelineBlock] = kind.block
        if not whole:  # the same model, with a `data` that may be anything
            block = create_model(block.__name__, __base__=block, data=(Any, None))
        return kind.name, block

    return read_spec(paths, overrides, block_of, PIPELINES, whole, fixed)

"""What is served: the run of a spec without its input, of the environment, or the embedded one."""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.engine.execute import check_budget
from dataflow_grounding.jobs.image_grounding import (
    GROUND,
    GroundingData,
    ImageGroundingBlock,
    ImageGroundingJob,
)
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun, ready_to_run
from dataflow_grounding.spec import Spec

OF_ENVIRONMENT = os.path.join(os.path.dirname(__file__), "of_environment.yaml")
"""The spec if none is given: variables name the endpoint; without them, the embedded grounder."""


def served_run(
    paths: Sequence[str], overrides: Sequence[str] = (), results: str | None = None
) -> SpecRun:
    """Return what spec files with `key=value` overrides name; without any, the environment.

    Its steps find boxes, and look at them again. `results` keeps the replies; else the spec's
    folder does, else one in the user's cache. Raises SpecError, InputError, MissingExtra.
    """
    spec = _spec_of(paths or [OF_ENVIRONMENT], overrides)
    block = spec.block
    if not isinstance(block, ImageGroundingBlock):
        raise SpecError(
            f"serve finds phrases: give a spec of image_grounding, not {spec.autolabel_type}"
        )
    # Phrases come with each picture: no captions are read, and no negatives made up of them.
    own = {"steps": [str(GROUND)], "negatives": 0, "fuse": False}
    workflow = block.workflow.model_copy(update=own)
    data = block.data or GroundingData(input_jsonl="")
    data = data.model_copy(update={"proposals": ""})
    spec.block = block.model_copy(update={"workflow": workflow, "data": data})
    spec.results_dir = results or spec.results_dir or os.path.join(cache_folder(), "serve")
    run = ready_to_run(spec, partial(ImageGroundingJob, has_input=False))
    run.job.refuse_obstacles()
    check_budget(run.options)
    return run


def _spec_of(paths: Sequence[str], overrides: Sequence[str]) -> Spec:
    # A spec for a run also says where pictures may come from and where replies go; its input is
    # ignored. A spec without results_dir says who answers.
    with suppress(SpecError):
        return load_spec(paths, [*overrides, "image_grounding.data.input_jsonl=none"])
    spec = load_spec(paths, overrides, whole=False)
    spec.results_dir = ""
    return spec

"""What is served: the run of a spec without its input, of the environment, or the embedded one."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.engine.execute import check_budget
from dataflow_grounding.jobs.image_grounding import (
    GROUND,
    GroundingData,
    ImageGroundingBlock,
    ImageGroundingJob,
)
from dataflow_grounding.jobs.registry import JOBS
from dataflow_grounding.jobs.spec_run import SpecRun, ready_to_run
from dataflow_grounding.spec.loading import read_spec

OF_ENVIRONMENT = os.path.join(os.path.dirname(__file__), "of_environment.yaml")
"""The spec if none is given: variables name the endpoint; without them, the embedded grounder."""


class ServedData(GroundingData):
    """`data` of a spec that is served: pictures and phrases come with requests."""

    input_jsonl: str = ""


class ServedBlock(ImageGroundingBlock):
    """`image_grounding` of a spec that is served."""

    data: ServedData = ServedData()


def served_run(
    paths: Sequence[str], overrides: Sequence[str] = (), results: str | None = None
) -> SpecRun:
    """Return what spec files with `key=value` overrides name; without any, the environment.

    Its steps find boxes, and check them. Replies are kept in `results`, else in the spec's folder;
    without a spec, in the user's cache. Raises SpecError, InputError, MissingExtra.
    """
    results = results or ("" if paths else os.path.join(cache_folder(), "serve"))
    settings = [f"results_dir={results}", *overrides] if results else overrides
    spec, problems = read_spec(paths or [OF_ENVIRONMENT], settings, _block_of, JOBS, whole=True)
    if problems or spec is None:
        raise SpecError("\n".join(problems))
    block: Any = spec.block
    # Phrases come with each picture: no captions are read, and no negatives made up of them.
    own = {"steps": [str(GROUND)], "negatives": 0, "fuse": False}
    workflow = block.workflow.model_copy(update=own)
    data = block.data.model_copy(update={"proposals": ""})
    spec.block = block.model_copy(update={"workflow": workflow, "data": data})
    run = ready_to_run(spec, partial(ImageGroundingJob, has_input=False))
    run.job.refuse_obstacles()
    check_budget(run.options)
    return run


def _block_of(autolabel_type: str, _: Sequence[str]) -> tuple[str, type[ServedBlock]]:
    if autolabel_type != ImageGroundingJob.name:
        raise SpecError(
            f"serve finds phrases: give a spec of image_grounding, not {autolabel_type}"
        )
    return autolabel_type, ServedBlock

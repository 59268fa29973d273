"""What is served: the run of a spec without its input, of the environment, or the embedded one."""

import os
from collections.abc import Sequence

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding.engine.execute import check_budget
from dataflow_grounding.jobs.image_grounding import GROUND, WITHOUT_INPUT
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun, ready_to_run

OF_ENVIRONMENT = os.path.join(os.path.dirname(__file__), "of_environment.yaml")
"""The spec if none is given: variables name the endpoint; without them, the embedded grounder."""
FIXED = {
    "autolabel_type": WITHOUT_INPUT.name,
    "image_grounding.data.input_jsonl": "none",
    "image_grounding.data.proposals": "",
    "image_grounding.workflow.steps": [str(GROUND)],
    "image_grounding.workflow.negatives": 0,
    "image_grounding.workflow.fuse": False,
}
"""Phrases come with each picture: no captions are read, and no negatives made up of them."""


def served_run(
    paths: Sequence[str], overrides: Sequence[str] = (), results: str | None = None
) -> SpecRun:
    """Return the run of spec files, or without them of what the environment names."""
    settings = list(overrides)
    if not paths:  # at the front, so that the user's own override may name another folder
        settings.insert(0, f"results_dir={os.path.join(cache_folder(), 'serve')}")
    if results:
        # `load_spec` refuses a spec without a results_dir. So it gets one here; `results` replaces
        # it below.
        settings.append("results_dir=.")
    spec = load_spec(paths or [OF_ENVIRONMENT], settings, fixed=FIXED)
    if results:
        spec.results_dir = results
    run = ready_to_run(spec, WITHOUT_INPUT)
    run.job.refuse_obstacles()
    check_budget(run.options)
    return run

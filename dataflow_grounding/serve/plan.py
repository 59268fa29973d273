"""What is served: operators and endpoint of a spec, of the environment, or the embedded ones."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.environment import cache_folder, read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.mirror import CKPT
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.data.working_folder import working_folder
from dataflow_grounding.engine.execute import check_budget
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.jobs.image_grounding import (
    GROUND,
    GroundingData,
    ImageGroundingBlock,
    ImageGroundingJob,
)
from dataflow_grounding.jobs.pricing import price_others, pricing_of
from dataflow_grounding.jobs.registry import load_spec, look_into_spec
from dataflow_grounding.jobs.rows_job import watch_as_stated
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.jobs.spec_job import SpecJob
from dataflow_grounding.jobs.spec_run import options_of
from dataflow_grounding.spec import Spec
from dataflow_grounding.spec.environment import with_environment
from dataflow_grounding.spec.schema import spec_with


class ServedJob(ImageGroundingJob):
    """`image_grounding` without input: the steps that find boxes, and look at them again.

    `data` says where pictures may come from, `folder` keeps the replies. Raises SpecError.
    """

    def __init__(self, spec: Spec, data: GroundingData, folder: str) -> None:
        vlm, workflow = spec.block.vlm, spec.block.workflow
        serving = serving_of(vlm, workflow, spec.folders)
        SpecJob.__init__(self, spec, serving)  # the class between would look for the input
        self.data = data
        self._data = data
        self.folder = os.path.join(folder, CKPT)
        all_steps = self.make_steps(ResultsStorage("", folder))
        for step in all_steps:
            watch_as_stated(step.operator, vlm)
        self.take_steps(all_steps)
        self.put_in_words()
        obstacles = self.obstacles()
        if obstacles:
            raise SpecError("\n".join(obstacles))
        options = options_of(vlm, workflow)
        prices, _ = pricing_of(options.prices, serving)
        self.options: RunOptions = replace(options, prices=prices)
        price_others(self.servings, spec.block.vlms, self.steps, options.budget_usd)
        check_budget(self.options)

    def wanted(self, steps: list[Any]) -> list[str]:
        """Return the numbers of all steps but the one that finds phrases: these are asked for."""
        return [str(number) for number in range(GROUND, len(steps))]


def served_job(
    paths: Sequence[str], overrides: Sequence[str] = (), results: str | None = None
) -> ServedJob:
    """Return what spec files with `key=value` overrides name; without any, the environment.

    `results` keeps the replies; else the spec's folder does, else one in the user's cache. Raises
    SpecError, InputError, MissingExtra.
    """
    spec = _spec_of(paths, overrides) if paths else _spec_of_environment()
    block = spec.block
    if not isinstance(block, ImageGroundingBlock):
        raise SpecError(
            f"serve finds phrases: give a spec of image_grounding, not {spec.autolabel_type}"
        )
    data = block.data or GroundingData(input_jsonl="")
    # Phrases come with each picture: no captions are read, and no negatives made up of them.
    workflow = block.workflow.model_copy(update={"negatives": 0, "fuse": False})
    data = data.model_copy(update={"proposals": ""})
    spec.block = block.model_copy(update={"workflow": workflow, "data": data})
    folder = results or spec.results_dir or os.path.join(cache_folder(), "serve")
    return ServedJob(spec, data, working_folder(folder))


def _spec_of(paths: Sequence[str], overrides: Sequence[str]) -> Spec:
    # A spec for a run says where pictures may come from, and where replies are, whatever its input
    # is. One without results_dir is for its endpoint.
    stated = [*overrides, "image_grounding.data.input_jsonl=none"]
    with suppress(SpecError):
        spec, problems = look_into_spec(paths, stated)
        if spec is not None and not problems:
            return spec
    spec = load_spec(paths, overrides, whole=False)
    spec.results_dir = ""
    return spec


def _spec_of_environment() -> Spec:
    read_env_files()
    block = {"vlm": {"backend": "auto"}, "workflow": {"max_workers": 16}}
    values = {"image_grounding": {**block, "data": {"input_jsonl": ""}}}
    model = spec_with("image_grounding", ImageGroundingBlock)
    spec = model(results_dir=".", autolabel_type="image_grounding", **values)
    spec.results_dir = ""
    spec.block.vlm = with_environment(spec.block.vlm)
    return spec

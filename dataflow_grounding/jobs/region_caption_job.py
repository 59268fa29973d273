"""The job `image_region_caption`: the user's file in, marked pictures and texts out."""

from __future__ import annotations

import os

from dataflow_grounding.errors import InputError
from dataflow_grounding.jobs.spec_job import SpecJob, chosen
from dataflow_grounding.pipelines.image_region_caption import STEPS, ImageRegionCaptionPipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import Spec
from dataflow_grounding.storage import ResultsStorage


class RegionCaptionJob(SpecJob):
    """The input is the user's file; pictures with boxes are written into `results_dir` itself."""

    name = "image_region_caption"

    def __init__(self, spec: Spec, serving: Serving) -> None:
        block = spec.image_region_caption
        assert block is not None
        data, flow = block.data, block.workflow
        self.serving = serving
        storage = ResultsStorage(data.input_jsonl, spec.results_dir, STEPS, data.image_root or None)
        pipeline = ImageRegionCaptionPipeline(
            storage,
            serving,
            spec.results_dir,
            max_boxes=flow.max_boxes,
            marks=flow.marks,
            proposals=flow.proposals,
            on_suspect_boxes=block.vlm.on_suspect_boxes,
            check_every=block.vlm.check_every,
        )
        self.format_choice = pipeline.captioner.format_choice
        for choice in (pipeline.marker.format_choice, self.format_choice):
            if choice is not None:
                choice.recall_beside(storage.checkpoint_folder)
        self.steps = chosen(pipeline.steps(), flow.steps)
        self.inputs = [data.input_jsonl]
        first = self.steps[0]
        if not os.path.exists(first.storage.input_path):
            if first.storage.operator_step:
                raise InputError(f"step {flow.steps[0]} reads {first.storage.input_path}: run step 0 first")
            raise InputError(f"no input file {first.storage.input_path}: check data.input_jsonl")

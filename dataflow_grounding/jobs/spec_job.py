"""What a spec's run needs to know of its pipeline: its steps, its input, and what it leaves besides the step files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar

from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import Source
from dataflow_grounding.errors import InputError, SpecError
from dataflow_grounding.operators import RegionMarker
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.pipelines.image_grounding import GROUND, ImageGroundingPipeline, step_folders
from dataflow_grounding.rows import Row, read_rows
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import Spec
from dataflow_grounding.storage import ResultsStorage


class SpecJob:
    """One pipeline as a spec states it. Made from a spec and its serving; raises SpecError, InputError for what is wrong."""

    name: ClassVar[str]
    serving: Serving
    steps: list[Step]
    """The steps that are asked for."""
    format_choice: FormatChoice
    inputs: list[str]
    """Files of the user that must not be written over."""

    def __init__(self, spec: Spec, serving: Serving) -> None:
        raise NotImplementedError

    @property
    def reads(self) -> str:
        """What the run begins from, for people."""
        return self.steps[0].storage.input_path

    def obstacles(self) -> list[str]:
        """What keeps the servings from sending, a sentence each."""
        return self.serving.obstacles()

    def prepare(self) -> None:
        """Make the first step's input file where it isn't the user's own. Raises InputError."""

    def rows(self) -> Iterator[Row]:
        """The first step's rows, without writing a file."""
        return read_rows(self.steps[0].storage.input_path)

    def where(self, row: Row) -> str:
        """Where a row stands, for people."""
        return f"{self.steps[0].storage.input_path}, line {row.line}"

    def columns(self) -> list[str]:
        """The columns of the first step's rows. Raises InputError."""
        first = self.steps[0]
        return Source(first, first.image_key, self.name, None).columns()

    def remarks(self) -> list[str]:
        """What is good to know of the input before a run, a line each."""
        return []

    def facts(self) -> dict[str, Any]:
        """What `run.json` says besides what it says of every pipeline."""
        watches = [step.operator.watch for step in self.steps if isinstance(step.operator, (BoxOperator, RegionMarker))]
        said = (what for watch in watches if (what := watch.suspicion or watch.poor))
        return {"suspect_boxes": next(said, None)} if watches else {}

    def finish(self) -> None:
        """Leave what the pipeline leaves besides step files. Raises StorageFailed."""


class ImageGroundingJob(SpecJob):
    """`image_grounding`: the input is the user's file."""

    name = "image_grounding"

    def __init__(self, spec: Spec, serving: Serving) -> None:
        block = spec.image_grounding
        assert block is not None
        data = block.data
        self.serving = serving
        flow, names = block.workflow, list(block.workflow.steps)
        further = {"zoom": flow.zoom, "verify": flow.verify == "reground"}
        folders = step_folders(**further)
        storage = ResultsStorage(data.input_jsonl, spec.results_dir, folders, data.image_root or None)
        pipeline = ImageGroundingPipeline(
            storage,
            serving,
            samples=flow.samples,
            merge_iou=flow.merge_iou,
            on_suspect_boxes=block.vlm.on_suspect_boxes,
            check_every=block.vlm.check_every,
            **further,
        )
        self.format_choice = pipeline.grounder.format_choice
        self.format_choice.recall_beside(storage.checkpoint_folder)
        if str(GROUND) in names:  # what looks at its boxes again goes with it
            names += [str(place) for place in range(GROUND + 1, len(folders))]
        self.steps = chosen(pipeline.steps(), names)
        self.inputs = [data.input_jsonl]
        first = self.steps[0]
        if not os.path.exists(first.storage.input_path):
            if first.storage.operator_step:
                place = first.storage.operator_step
                raise InputError(f"step {place} reads {first.storage.input_path}: run step {place - 1} first")
            raise InputError(f"no input file {first.storage.input_path}: check data.input_jsonl")


def chosen(steps: list[Step], names: list[str]) -> list[Step]:
    """The steps that the spec asks for, in order. Raises SpecError for a name that no step has, or a gap."""
    known = [str(place) for place in range(len(steps))]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise SpecError(f"workflow.steps {names}: the steps are {', '.join(known)}")
    return [step for place, step in enumerate(steps) if str(place) in names]

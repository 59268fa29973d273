"""The job `image_referring_expression`: seeds from labels, four steps in subsets, files of the old
layout.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import look
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.execute import refuse_to_overwrite
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.extras.formats.label_seeds import Seeds
from dataflow_grounding.extras.formats.seed_records import Made, find_seeds, write_seeds
from dataflow_grounding.extras.formats.tao_records import refuse_taos_results
from dataflow_grounding.jobs.base import SpecJob, chosen, in_folders, recalled
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.pipelines.shipped import ImageReferringExpressionPipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import Block, PipelineBlock, Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import ReferringData

CAPTION, MERGE, CHECK = 1, 2, 3
LOOKED_AT = 50  # records that tell whether a file has what a step needs


class ReferringWorkflow(WorkflowBlock):
    """`image_referring_expression.workflow`."""

    steps: list[str] = ["0", "1", "2", "3"]
    marks: Literal["none", "outline"] = "none"


class DoubleCheckBlock(Block):
    """`image_referring_expression.double_check`: how step 3 checks; `vlm` grounds afresh, if
    another model is to.
    """

    method: Literal["ask", "reground", "both"] = "ask"
    iou: float = Field(0.5, gt=0, le=1)
    vlm: VlmBlock | None = None


class ImageReferringExpressionBlock(PipelineBlock):
    """`image_referring_expression`."""

    workflow: ReferringWorkflow = ReferringWorkflow()
    double_check: DoubleCheckBlock = DoubleCheckBlock()
    data: ReferringData

    @property
    def vlms(self) -> list[VlmBlock]:
        """With that of the double check, if another is to ground afresh."""
        check = self.double_check
        return [self.vlm, *([check.vlm] if check.vlm and check.method != "ask" else [])]


class ImageReferringExpressionJob(SpecJob):
    """Reads what the first of its steps needs: the seeds, or the file of the last
    step before it.
    """

    name = "image_referring_expression"
    block = ImageReferringExpressionBlock
    questions = {
        "region_expr": "Do type, color and description fit each region, and no other?",
        "image_caption": "Does the caption name what matters, and nothing that is not there?",
        "grounding_expr": "Does each expression mean its regions alone?",
        "double_check": (
            "Are the expressions with verified: false wrong, and those with true right?"
        ),
    }

    def __init__(self, spec: Spec, serving: Serving) -> None:
        super().__init__(spec, serving)
        block = spec.block
        assert isinstance(block, ImageReferringExpressionBlock)
        self._data = block.data
        check = block.double_check
        self.servings += [serving_of(vlm, block.workflow, spec.folders) for vlm in block.vlms[1:]]
        self._seed_file = os.path.join(spec.results_dir, "seed_annotations.jsonl")
        storage = ResultsStorage(self._seed_file, spec.results_dir)
        settings = {"method": check.method, "iou": check.iou, **block.workflow.own()}
        reground_serving = next(iter(self.servings[1:]), None)
        pipeline = ImageReferringExpressionPipeline(
            storage, serving, reground_serving=reground_serving, **settings
        )
        all_steps = in_folders(pipeline.steps())
        names = self._with_caption(
            list(block.workflow.steps), all_steps, block.workflow.force_reprocess
        )
        self.steps = chosen(all_steps, names)
        self.box_format = recalled(all_steps)
        pipeline.checker.reground_choice.recall(storage.checkpoint_folder)
        places = [step.storage.operator_step for step in self.steps]
        if not os.path.exists(storage.checkpoint_folder):  # with one, the folder is ours
            refuse_taos_results(
                spec.results_dir,
                [self._seed_file, *(step.storage.output_path for step in all_steps)],
            )
        self._seeds: Seeds = find_seeds(
            self._data, _made(all_steps, places), places in ([CAPTION], [CHECK])
        )
        self.inputs = self._seeds.files
        for path in self.inputs:
            refuse_to_overwrite(path, [self._seed_file])
        self._report: dict[str, Any] = {}
        self._chain(all_steps)
        self._from_seeds = self.steps[0].storage.input_path == self._seed_file

    def _with_caption(self, names: list[str], all_steps: list[Step], force: bool) -> list[str]:
        """With step 0 also step 1 if it was run before: its replies are stored, and its file lacks
        what step 0 adds.
        """
        describe, caption = all_steps[:MERGE]
        if "0" not in names or "1" in names or force:
            return names
        return (
            [*names, "1"] if _made_without(caption.storage.output_path, describe.label) else names
        )

    def _chain(self, all_steps: list[Step]) -> None:
        """Let each step read what the one before it in this run writes, the first what there is.
        Raises InputError.
        """
        before = ""
        for step in self.steps:
            assert isinstance(step.storage, ResultsStorage)
            step.storage.folders = self._seeds.folders
            step.storage.reads = os.path.relpath(
                before or self._first_input(step, all_steps), self.spec.results_dir
            )
            before = step.storage.output_path

    def _first_input(self, first: Step, all_steps: list[Step]) -> str:
        place = first.storage.operator_step
        if place == 0:
            return self._seed_file
        before = all_steps[place - 1].storage.output_path
        there = os.path.exists(before)
        given = self._data.input_annotations_jsonl
        newer = given and (not there or look(given).changed > os.stat(before).st_mtime_ns)
        seeds = not there if place == CAPTION else newer  # a caption needs no more than the image
        for path in [*([self._seed_file] if seeds else []), *([before] if there else [])]:
            if self._holds(path):
                return path
        reader, steps, needs = (
            MERGE,
            "steps 0 and 1",
            "regions with a description, and a cleaned_caption",
        )
        if place == CHECK:
            reader, steps, needs = CHECK, "step 2", "expressions"
        nothing = f"{before} has none" if there else f"there is no {before}"
        or_give = "or give data.input_annotations_jsonl records that have them"
        raise InputError(f"step {reader} needs {needs} ({nothing}): run {steps} first, {or_give}")

    def _holds(self, path: str) -> bool:
        """Whether the first records of a file, or of the seeds, have what the steps of this run
        need and don't make.
        """
        places = [step.storage.operator_step for step in self.steps]
        rows = (
            self._seeds.records()
            if path == self._seed_file
            else (row.data or {} for row in read_rows(path))
        )
        readable = (record for record in rows if record.get("image_path"))
        if places[0] == CHECK:
            return isinstance(next(readable, {}).get("expressions"), list)
        if MERGE not in places:
            return True
        with_regions = list(
            itertools.islice((record for record in readable if record.get("regions")), LOOKED_AT)
        )
        captioned = CAPTION in places or all("cleaned_caption" in record for record in with_regions)
        return bool(with_regions) and captioned and all(map(_described, with_regions))

    @property
    def reads(self) -> str:
        return self._seeds.origin if self._from_seeds else self.steps[0].storage.input_path

    def prepare(self) -> None:
        if self._from_seeds:
            state = os.path.join(self.steps[0].storage.checkpoint_folder, "seeds.json")
            self._report = write_seeds(self._seeds, self._seed_file, state)

    def rows(self) -> Iterator[Row]:
        if not self._from_seeds:
            return super().rows()
        return (Row(number, record) for number, record in enumerate(self._seeds.records(), 1))

    def where(self, row: Row) -> str:
        """A seed is known by its image."""
        return (
            str((row.data or {}).get("image_path") or self.reads)
            if self._from_seeds
            else super().where(row)
        )

    def columns(self) -> list[str]:
        if not self._from_seeds:
            return super().columns()
        first = itertools.islice(self._seeds.records(), 50)
        return list(dict.fromkeys(column for record in first for column in record))

    def remarks(self) -> list[str]:
        return self._seeds.remarks()

    def facts(self) -> dict[str, Any]:
        return {"input": self._report}


def _made(all_steps: list[Step], places: list[int]) -> Made:
    """What the steps at these places make of given annotations, and the steps after them later."""
    steps = [all_steps[place] for place in [*places, *range(places[-1] + 1, len(all_steps))]]
    new = [step for step in steps if step.storage.operator_step != CHECK]
    columns = {column for step in new for column in step.operator.writes().values()}
    return Made(sorted(columns - {"regions"}), [step.label for step in steps])


def _described(record: dict[str, Any]) -> bool:
    return any(
        isinstance(region, dict) and region.get("description") for region in record["regions"]
    )


def _made_without(path: str, label: str) -> bool:
    """Whether a step's file is there, and its records did not go through the step of this label."""
    with suppress(InputError):
        first = next((row.data for row in read_rows(path) if row.data), {"pipeline_steps": [label]})
        made_by = first.get("pipeline_steps")
        return not (isinstance(made_by, list) and label in made_by)
    return False

"""The job `image_referring_expression`: seeds from labels, four steps in subsets, files of the old layout."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field

from dataflow_grounding.engine.plan import Step
from dataflow_grounding.errors import InputError
from dataflow_grounding.formats.seed_records import Seeds, find_seeds, write_seeds
from dataflow_grounding.jobs.base import SpecJob, chosen, in_folders, recalled
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.pipelines.image_referring_expression import ImageReferringExpressionPipeline
from dataflow_grounding.rows import Row, read_rows
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import Block, PipelineBlock, ReferringData, Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.storage import ResultsStorage

CAPTION, MERGE, CHECK = 1, 2, 3


class SeededStorage(ResultsStorage):
    """Begins from the seed file; images are looked for in `folders`. Steps may read different files."""

    def __init__(self, seed_file: str, results_dir: str, folders: tuple[str, ...]) -> None:
        super().__init__(seed_file, results_dir, (), folders[0] if len(folders) == 1 else None)
        self.folders = folders
        self.reads: str | None = None

    @property
    def input_path(self) -> str:
        """The file that this step reads."""
        return self.reads or super().input_path

    @property
    def image_folders(self) -> tuple[str, ...]:
        """Where relative image paths are looked for, in order."""
        return self.folders


class ReferringWorkflow(WorkflowBlock):
    """`image_referring_expression.workflow`."""

    steps: list[str] = ["0", "1", "2", "3"]
    marks: Literal["none", "outline"] = "none"


class DoubleCheckBlock(Block):
    """`image_referring_expression.double_check`: how step 3 checks; `vlm` grounds afresh, if another model is to."""

    method: Literal["ask", "reground", "both"] = "ask"
    iou: float = Field(0.5, gt=0, le=1)
    vlm: VlmBlock | None = None


class ImageReferringExpressionBlock(PipelineBlock):
    """`image_referring_expression`."""

    workflow: ReferringWorkflow = ReferringWorkflow()
    double_check: DoubleCheckBlock = DoubleCheckBlock()
    data: ReferringData


class ImageReferringExpressionJob(SpecJob):
    """Reads what the first of its steps needs: the seeds, or the file of the last step before it."""

    name = "image_referring_expression"
    block = ImageReferringExpressionBlock
    questions = {
        "region_expr": "Do type, color and description fit each region, and no other?",
        "image_caption": "Does the caption name what matters, and nothing that is not there?",
        "grounding_expr": "Does each expression mean its regions alone?",
        "double_check": "Are the expressions with verified: false wrong, and those with true right?",
    }

    def __init__(self, spec: Spec, serving: Serving) -> None:
        super().__init__(spec, serving)
        block = spec.block
        assert isinstance(block, ImageReferringExpressionBlock)
        self._data = block.data
        check = block.double_check
        other = serving_of(check.vlm, block.workflow, spec.folders) if check.vlm and check.method != "ask" else None
        self.servings += [other] if other else []
        self._seed_file = os.path.join(spec.results_dir, "seed_annotations.jsonl")
        storage = SeededStorage(self._seed_file, spec.results_dir, ("",))
        pipeline = ImageReferringExpressionPipeline(
            storage, serving, method=check.method, reground_serving=other, iou=check.iou, marks=block.workflow.marks
        )
        all_steps = in_folders(pipeline.steps())
        names = self._with_caption(list(block.workflow.steps), all_steps, block.workflow.force_reprocess)
        self.steps = chosen(all_steps, names)
        self.box_format = recalled(all_steps)
        pipeline.checker.reground_choice.recall_beside(storage.checkpoint_folder)
        places = [step.storage.operator_step for step in self.steps]
        self._seeds: Seeds = find_seeds(self._data, self._left_out(all_steps, places), boxless=places[0] == CHECK)
        self.inputs = self._seeds.files
        self._report: dict[str, Any] = {}
        self._chain(all_steps)

    def _with_caption(self, names: list[str], all_steps: list[Step], force: bool) -> list[str]:
        """With step 0 also step 1 if it was run before: its replies are stored, and its file lacks what step 0 adds."""
        describe, caption = all_steps[:MERGE]
        if "0" not in names or "1" in names or force:
            return names
        return [*names, "1"] if _made_without(caption.storage.output_path, describe.label) else names

    def _left_out(self, all_steps: list[Step], places: list[int]) -> list[str]:
        """Columns of given annotations that the steps make anew, now or later."""
        made = [*places, *range(places[-1] + 1, len(all_steps))]
        made = [place for place in made if place != CHECK]
        written = [column for place in made for column in all_steps[place].operator.writes().values()]
        return sorted(set(written) - {"regions"})

    def _chain(self, all_steps: list[Step]) -> None:
        """Let each step read what the one before it in this run writes, the first what there is. Raises InputError."""
        chained = []
        for number, step in enumerate(self.steps):
            storage = copy.copy(step.storage)
            assert isinstance(storage, SeededStorage)
            storage.folders = self._seeds.folders
            storage.image_root = storage.folders[0] if len(storage.folders) == 1 else None
            storage.reads = self.steps[number - 1].storage.output_path if number else self._first_input(step, all_steps)
            chained.append(Step(step.operator, storage))
        self.steps = chained

    def _first_input(self, first: Step, all_steps: list[Step]) -> str:
        place = first.storage.operator_step
        if place == 0:
            return self._seed_file
        before = all_steps[place - 1].storage.output_path
        there = os.path.exists(before)
        if place == CAPTION:  # it needs no more than the image
            return before if there else self._seed_file
        if self._data.input_annotations_jsonl:
            given = self._data.input_annotations_jsonl
            newer = not there or os.stat(given).st_mtime_ns > os.stat(before).st_mtime_ns
            if newer and self._seeds_hold(place):
                return self._seed_file
        if there:
            return before
        needs = "expressions" if place == CHECK else "regions with a description, and a cleaned_caption"
        raise InputError(
            f"step {place} reads {before}: run step{'s 0 and 1' if place == MERGE else ' 2'} first, or give "
            f"data.input_annotations_jsonl records with {needs}"
        )

    def _seeds_hold(self, place: int) -> bool:
        """Whether the given annotations have what a step reads."""
        record = next((record for record in self._seeds.records() if record.get("image_path")), {})
        if place == CHECK:
            return isinstance(record.get("expressions"), list)
        described = [region for region in record.get("regions") or [] if isinstance(region, dict)]
        return "cleaned_caption" in record and all(region.get("description") for region in described)

    @property
    def reads(self) -> str:
        """The labels, where the run begins from them."""
        return self._seeds.origin if self._from_seeds else self.steps[0].storage.input_path

    @property
    def _from_seeds(self) -> bool:
        return self.steps[0].storage.input_path == self._seed_file

    def prepare(self) -> None:
        """Write the seeds."""
        if self._from_seeds:
            state = os.path.join(self.steps[0].storage.checkpoint_folder, "seeds.json")
            self._report = write_seeds(self._seeds, self._seed_file, state)

    def rows(self) -> Iterator[Row]:
        """The seeds, or the rows of the file that the first step reads."""
        if not self._from_seeds:
            return super().rows()
        return (Row(number, record) for number, record in enumerate(self._seeds.records(), 1))

    def where(self, row: Row) -> str:
        """A seed is known by its image."""
        return str((row.data or {}).get("image_path") or self.reads) if self._from_seeds else super().where(row)

    def columns(self) -> list[str]:
        """The columns of the first seeds or rows."""
        if not self._from_seeds:
            return super().columns()
        found = [record for _, record in zip(range(50), self._seeds.records(), strict=False)]
        return list(dict.fromkeys(column for record in found for column in record))

    def remarks(self) -> list[str]:
        """Images without labels, labels without images."""
        return self._seeds.remarks()

    def facts(self) -> dict[str, Any]:
        """What was found of the input."""
        return {"input": self._report}


def _made_without(path: str, label: str) -> bool:
    """Whether a step's file is there, and its records did not go through the step of this label."""
    with suppress(InputError):
        first = next((row.data for row in read_rows(path) if row.data), None)
        made_by = first.get("pipeline_steps") if first is not None else None
        return first is not None and not (isinstance(made_by, list) and label in made_by)
    return False

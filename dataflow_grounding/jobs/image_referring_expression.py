"""The job `image_referring_expression`: seeds from labels, then four steps or some of them."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from pydantic import Field

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import look
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.execute import refuse_to_overwrite
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.formats import seed_records
from dataflow_grounding.formats.seeds import Made, Seeds
from dataflow_grounding.jobs.judge import judge_block, judge_of
from dataflow_grounding.jobs.other_images import types_in_regions
from dataflow_grounding.jobs.spec_job import SpecJob
from dataflow_grounding.operators import CaptionGenerator, NegativePhraser
from dataflow_grounding.pipelines.shipped import ImageReferringExpressionPipeline
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Block, PipelineBlock, Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import MOST_NEGATIVES, JudgedVlmBlock, ReferringData

# the numbers of the steps after the first, 0, which describes regions
CAPTION = 1
MERGE = 2
CHECK = 3
VERIFIED = "Are the expressions with verified: false wrong, and those with true right?"
LOOKED_AT = 50  # records that tell whether a file has what a step needs


class ReferringWorkflow(WorkflowBlock):
    steps: list[str] = ["0", "1", "2", "3"]
    marks: Literal["none", "outline"] = "none"
    negatives: int = Field(0, ge=0, le=MOST_NEGATIVES)


class DoubleCheckBlock(Block):
    method: Literal["ask", "reground", "both"] = "ask"
    iou: float = Field(0.5, gt=0, le=1)


class ImageReferringExpressionBlock(PipelineBlock):
    vlm: JudgedVlmBlock = JudgedVlmBlock()
    workflow: ReferringWorkflow = ReferringWorkflow()
    double_check: DoubleCheckBlock = DoubleCheckBlock()
    data: ReferringData

    @property
    def vlms(self) -> list[VlmBlock]:
        judges = self.double_check.method != "ask" or self.workflow.negatives > 0
        if self.vlm.judge is None or not judges:
            return [self.vlm]
        return [self.vlm, judge_block(self.vlm, self.vlm.judge)]


class ImageReferringExpressionJob(SpecJob):
    """Reads what the first of its steps needs: the seeds, or the file of the step before it."""

    name = "image_referring_expression"
    block = ImageReferringExpressionBlock
    questions = {
        "region_expr": "Do type, color and description fit each region, and no other?",
        "image_caption": "Does the caption name what matters, and nothing that is not there?",
        "grounding_expr": "Does each expression mean its regions alone?",
        "negative_phrases": "Are the expressions with source: negative absent from their images?",
        "double_check": VERIFIED,
        "box_verification": VERIFIED,
    }

    def __init__(self, spec: Spec, serving: Serving) -> None:
        super().__init__(spec, serving)
        block = spec.block
        assert isinstance(block, ImageReferringExpressionBlock)
        self._data = block.data
        self._seed_file = os.path.join(spec.results_dir, "seed_annotations.jsonl")
        storage = ResultsStorage(self._seed_file, spec.results_dir)
        all_steps = self._pipeline(block, storage).steps()
        self.take_steps(all_steps)
        if not os.path.exists(storage.checkpoint_folder):  # a folder with one is a run's of ours
            outputs = [step.storage.output_path for step in all_steps]
            seed_records.refuse_taos_results(spec.results_dir, [self._seed_file, *outputs])
        # of the steps of this run, from 0
        self._numbers = [step.storage.operator_step for step in self.steps]
        if self._numbers == [CAPTION]:
            # a caption is all that is asked for: each picture gets one
            [step] = self.steps
            self.steps = [replace(step, operator=CaptionGenerator(self.serving))]
        self._seeds = self._find_seeds(all_steps)
        self._report: dict[str, Any] = {}  # on the seeds, once they are written
        self._connect(all_steps)
        # whether the first step reads the seeds, not an earlier step's file
        self._from_seeds = self.steps[0].storage.input_path == self._seed_file
        if block.workflow.negatives:
            self._tell_types()

    def wanted(self, steps: list[Step]) -> list[str]:
        """With step 3, the check, all steps after it are wanted."""
        workflow = self.spec.block.workflow
        names = list(super().wanted(steps))
        if not workflow.force_reprocess:
            names = _with_caption(names, steps)
        if str(CHECK) in names:
            names += [str(number) for number in range(CHECK + 1, len(steps))]
        return names

    def _pipeline(
        self, block: ImageReferringExpressionBlock, storage: ResultsStorage
    ) -> ImageReferringExpressionPipeline:
        check = block.double_check
        settings = {"method": check.method, "iou": check.iou, **block.workflow.own()}
        judge = judge_of(self.spec)
        if judge is not None:
            self.servings.append(judge)
        return ImageReferringExpressionPipeline(storage, self.serving, judge=judge, **settings)

    def _find_seeds(self, all_steps: list[Step]) -> Seeds:
        # A run of the caption alone, or from the check on, does without regions in the seeds.
        without_regions = self._numbers == [CAPTION] or self._numbers[0] == CHECK
        made = _made_by_steps(all_steps, self._numbers)
        seeds = seed_records.find_seeds(self._data, made, without_regions)
        self.inputs = seeds.files
        for path in self.inputs:
            refuse_to_overwrite(path, [self._seed_file])
        return seeds

    def _tell_types(self) -> None:
        types = types_in_regions(self._readable_records(self.steps[0].storage.input_path))
        for step in self.steps:
            if isinstance(step.operator, NegativePhraser):
                step.operator.phrases = tuple(types)

    def _connect(self, all_steps: list[Step]) -> None:
        path = self._first_input(all_steps)
        for step in self.steps:
            assert isinstance(step.storage, ResultsStorage)
            step.storage.folders = self._seeds.folders
            step.storage.reads = os.path.relpath(path, self.spec.results_dir)
            path = step.storage.output_path

    def _first_input(self, all_steps: list[Step]) -> str:
        # The seeds or the step before's file: the first that has what this run's steps need.
        number = self._numbers[0]
        if number == 0:
            return self._seed_file
        before = all_steps[number - 1].storage.output_path
        was_made = os.path.exists(before)
        candidates = []
        if self._prefers_seeds(number, before):
            candidates.append(self._seed_file)
        if was_made:
            candidates.append(before)
        for path in candidates:
            if self._holds(path):
                return path
        lacks = _LACKS[CHECK if number == CHECK else MERGE]
        nothing = f"{before} has none" if was_made else f"there is no {before}"
        or_give = "or give data.input_annotations_jsonl records that have them"
        raise InputError(
            f"step {lacks.number} needs {lacks.needs} ({nothing}): run {lacks.made_by} first,"
            f" {or_give}"
        )

    def _prefers_seeds(self, number: int, before: str) -> bool:
        # `before` is the file of the step before. The caption's step needs images alone, which that
        # file has; later steps need what the user's annotations may have, if they are newer.
        was_made = os.path.exists(before)
        if number == CAPTION:
            return not was_made
        annotations = self._data.input_annotations_jsonl
        if not annotations:
            return False
        return not was_made or look(annotations).changed > os.stat(before).st_mtime_ns

    def _holds(self, path: str) -> bool:
        # The first LOOKED_AT records with regions tell.
        records = self._readable_records(path)
        if self._numbers[0] == CHECK:
            return isinstance(next(records, {}).get("expressions"), list)
        if MERGE not in self._numbers:
            return True
        records = (record for record in records if record.get("regions"))
        with_regions = list(itertools.islice(records, LOOKED_AT))
        makes_captions = CAPTION in self._numbers
        for record in with_regions:
            has_caption = makes_captions or "cleaned_caption" in record
            if not has_caption or not _has_description(record):
                return False
        return bool(with_regions)

    def _readable_records(self, path: str) -> Iterator[dict[str, Any]]:
        if path == self._seed_file:
            records = self._seeds.records()
        else:
            records = (row.data or {} for row in read_rows(path))
        return (record for record in records if record.get("image_path"))

    @property
    def reads(self) -> str:
        return self._seeds.origin if self._from_seeds else self.steps[0].storage.input_path

    def prepare(self) -> None:
        if self._from_seeds:
            state = os.path.join(self.steps[0].storage.checkpoint_folder, "seeds.json")
            self._report = seed_records.write_seeds(self._seeds, self._seed_file, state)

    def rows(self) -> Iterator[Row]:
        """Return the first step's rows; seeds are numbered from 1, and needn't be written."""
        if not self._from_seeds:
            return super().rows()
        return (Row(number, record) for number, record in enumerate(self._seeds.records(), 1))

    def where(self, row: Row) -> str:
        if not self._from_seeds:
            return super().where(row)
        return str((row.data or {}).get("image_path") or self.reads)

    def columns(self) -> list[str]:
        if not self._from_seeds:
            return super().columns()
        first = itertools.islice(self._seeds.records(), LOOKED_AT)
        return list(dict.fromkeys(column for record in first for column in record))

    def remarks(self) -> list[str]:
        return [*super().remarks(), *self._seeds.found.remarks()]

    def facts(self) -> dict[str, Any]:
        return {"input": self._report}


class _Lacks(NamedTuple):
    """What a step needs that isn't there, and which steps make it, in words for the message."""

    number: int
    needs: str
    made_by: str


# the number of a step that needs more than images → what it needs
_LACKS = {
    MERGE: _Lacks(MERGE, "regions with a description, and a cleaned_caption", "steps 0 and 1"),
    CHECK: _Lacks(CHECK, "expressions", "step 2"),
}


def _with_caption(names: list[str], all_steps: list[Step]) -> list[str]:
    # Step 1's file then lacks what step 0 adds. Its replies are stored, so it costs nothing.
    describe = all_steps[0]
    caption = all_steps[CAPTION]
    if "0" not in names or str(CAPTION) in names:
        return names
    if _was_made_without(caption.storage.output_path, describe.label):
        return [*names, str(CAPTION)]
    return names


def _made_by_steps(all_steps: list[Step], numbers: list[int]) -> Made:
    # `regions`, and what the check and later steps write, are changed, not made.
    steps = [all_steps[number] for number in numbers] + all_steps[numbers[-1] + 1 :]
    columns: set[str] = set()
    for step in steps:
        if step.storage.operator_step < CHECK:
            columns.update(step.operator.writes().values())
    return Made(sorted(columns - {"regions"}), [step.label for step in steps])


def _has_description(record: dict[str, Any]) -> bool:
    return any(
        isinstance(region, dict) and region.get("description") for region in record["regions"]
    )


def _was_made_without(path: str, label: str) -> bool:
    # The first record names the steps that made it.
    with suppress(InputError):
        first = next((row.data for row in read_rows(path) if row.data), None)
        if first is None:
            return False
        made_by = first.get("pipeline_steps")
        return not (isinstance(made_by, list) and label in made_by)
    return False

"""The job `image_referring_expression`: seeds from labels, then four steps or some of them."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
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
from dataflow_grounding.jobs.job import Job, JobInput, Kind, put_in_folders, wanted_steps
from dataflow_grounding.jobs.judge import vlms_of
from dataflow_grounding.jobs.other_images import types_in_regions
from dataflow_grounding.operators import CaptionGenerator, NegativePhraser
from dataflow_grounding.pipelines.shipped import ImageReferringExpressionPipeline
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Block, PipelineBlock, Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import MOST_NEGATIVES, JudgedVlmBlock, ReferringData

# the numbers of the steps after the first, 0, which describes regions
CAPTION = 1
MERGE = 2
CHECK = 3
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
        return vlms_of(self.vlm, judges=judges)


def _job_of(spec: Spec, servings: Sequence[Serving], pilot: int | None) -> Job:
    block = spec.block
    assert isinstance(block, ImageReferringExpressionBlock)
    seed_file = os.path.join(spec.results_dir, "seed_annotations.jsonl")
    pipeline = ImageReferringExpressionPipeline(
        ResultsStorage(seed_file, spec.results_dir),
        servings[0],
        judge=servings[-1],
        **block.double_check.model_dump(),
        **block.workflow.own(),
    )
    all_steps = put_in_folders(pipeline.steps())
    steps = wanted_steps(all_steps, _wanted(block.workflow, all_steps))
    _refuse_taos_results(spec.results_dir, seed_file, all_steps)
    numbers = [step.storage.operator_step for step in steps]
    if numbers == [CAPTION]:
        # a caption is all that is asked for: each picture gets one
        steps = [replace(steps[0], operator=CaptionGenerator(servings[0]))]
    # A run of the caption alone, or from the check on, does without regions in the seeds.
    without_regions = numbers == [CAPTION] or numbers[0] == CHECK
    seeds = seed_records.find_seeds(block.data, _made_by_steps(all_steps, numbers), without_regions)
    for path in seeds.files:
        refuse_to_overwrite(path, [seed_file])
    first = _first_file(all_steps, numbers, block.data, seeds, seed_file)
    _chain_files(steps, first.path, seeds.folders)
    if block.workflow.negatives:
        _tell_types(steps, first)
    kind_of_input = _SeedInput if first.path == seed_file else _LaterInput
    return Job(servings, all_steps, steps, kind_of_input(steps, seeds), seeds.files)


def _refuse_taos_results(results_dir: str, seed_file: str, all_steps: list[Step]) -> None:
    has_run_of_ours = os.path.exists(all_steps[0].storage.checkpoint_folder)
    if not has_run_of_ours:
        outputs = [step.storage.output_path for step in all_steps]
        seed_records.refuse_taos_results(results_dir, [seed_file, *outputs])


def _wanted(workflow: WorkflowBlock, all_steps: list[Step]) -> list[str]:
    # With step 3, the check, all steps after it are wanted.
    names = list(workflow.steps)
    if not workflow.force_reprocess:  # else a step that wasn't named would be paid for again
        names = _with_caption(names, all_steps)
    if str(CHECK) in names:
        names += [str(number) for number in range(CHECK + 1, len(all_steps))]
    return names


def _chain_files(steps: Sequence[Step], path: str, folders: tuple[str, ...]) -> None:
    # The first step reads `path`, each further one the file of the step before it.
    for step in steps:
        assert isinstance(step.storage, ResultsStorage)
        step.storage.folders = folders
        step.storage.reads = os.path.relpath(path, step.storage.cache_path)
        path = step.storage.output_path


class _File(NamedTuple):
    """A file that the first step may read, and its records, which may not be written yet."""

    path: str
    all_records: Callable[[], Iterator[dict[str, Any]]]

    def records(self) -> Iterator[dict[str, Any]]:
        return (record for record in self.all_records() if record.get("image_path"))


def _first_file(
    all_steps: list[Step], numbers: list[int], data: ReferringData, seeds: Seeds, seed_file: str
) -> _File:
    # The seeds or the file of the step before: the first that has what this run's steps need.
    file_of_seeds = _File(seed_file, seeds.records)
    number = numbers[0]
    if number == 0:
        return file_of_seeds
    file_before = all_steps[number - 1].storage.output_path
    was_made = os.path.exists(file_before)
    candidates = []
    if _are_seeds_preferred(number, file_before, data.input_annotations_jsonl):
        candidates.append(file_of_seeds)
    if was_made:
        candidates.append(
            _File(file_before, lambda: (row.data or {} for row in read_rows(file_before)))
        )
    for file in candidates:
        if _has_what_steps_need(file, numbers):
            return file
    raise _no_first_file(number, file_before, was_made)


def _no_first_file(number: int, file_before: str, was_made: bool) -> InputError:
    needs = "step 2 needs regions with a description, and a cleaned_caption"
    made_by = "steps 0 and 1"
    if number == CHECK:
        needs = "step 3 needs expressions"
        made_by = "step 2"
    nothing = f"{file_before} has none" if was_made else f"there is no {file_before}"
    or_give = "or give data.input_annotations_jsonl records that have them"
    return InputError(f"{needs} ({nothing}): run {made_by} first, {or_give}")


def _are_seeds_preferred(number: int, file_before: str, annotations: str | None) -> bool:
    # `file_before` is the file of the step before. The caption's step needs images alone, which
    # that file has; later steps need what the user's annotations may have, if they are newer.
    was_made = os.path.exists(file_before)
    if number == CAPTION:
        return not was_made
    if not annotations:
        return False
    return not was_made or look(annotations).changed > os.stat(file_before).st_mtime_ns


def _has_what_steps_need(file: _File, numbers: list[int]) -> bool:
    # The first LOOKED_AT records with regions tell.
    if numbers[0] == CHECK:
        return isinstance(next(file.records(), {}).get("expressions"), list)
    if MERGE not in numbers:
        return True
    records = (record for record in file.records() if record.get("regions"))
    with_regions = list(itertools.islice(records, LOOKED_AT))
    makes_captions = CAPTION in numbers
    for record in with_regions:
        has_caption = makes_captions or "cleaned_caption" in record
        if not has_caption or not _has_description(record):
            return False
    return bool(with_regions)


def _tell_types(steps: Sequence[Step], first: _File) -> None:
    types = types_in_regions(first.records())
    for step in steps:
        if isinstance(step.operator, NegativePhraser):
            step.operator.phrases = tuple(types)


class _LaterInput(JobInput):
    """The file of a step before, which was made of seeds."""

    report = {}

    def __init__(self, steps: list[Step], seeds: Seeds) -> None:
        super().__init__(steps)
        self._seeds = seeds

    def remarks(self) -> list[str]:
        return self._seeds.found.remarks()


class _SeedInput(_LaterInput):
    """Seeds, which are written before the run, and needn't be to look at them."""

    @property
    def reads(self) -> str:
        return self._seeds.origin

    def prepare(self) -> None:
        storage = self.steps[0].storage
        state = os.path.join(storage.checkpoint_folder, "seeds.json")
        self.report = seed_records.write_seeds(self._seeds, storage.input_path, state)

    def rows(self) -> Iterator[Row]:
        """Return the first step's rows, numbered from 1."""
        return (Row(number, record) for number, record in enumerate(self._seeds.records(), 1))

    def where(self, row: Row) -> str:
        return str((row.data or {}).get("image_path") or self.reads)

    def columns(self) -> tuple[list[str], Sequence[str]]:
        first = itertools.islice(self._seeds.records(), LOOKED_AT)
        return list(dict.fromkeys(column for record in first for column in record)), ()


def _with_caption(names: list[str], all_steps: list[Step]) -> list[str]:
    # Step 1's file may be of an earlier run without step 0, and lack what that adds. Where step 0
    # is wanted now, step 1 then runs again, too: its replies are stored, so it costs nothing.
    describe = all_steps[0].label
    path = all_steps[CAPTION].storage.output_path
    if "0" in names and str(CAPTION) not in names and _was_made_without(path, describe):
        return [*names, str(CAPTION)]
    return names


def _made_by_steps(all_steps: list[Step], numbers: list[int]) -> Made:
    # What steps make now, or later from this run's files. `regions`, and what the check and later
    # steps write, are changed by steps, not made.
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


KIND = Kind(ImageReferringExpressionPipeline, ImageReferringExpressionBlock, _job_of)

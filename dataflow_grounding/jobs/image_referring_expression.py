"""The job `image_referring_expression`: seeds from labels, then four steps or some of them.

Seeds are records, each an image with its labelled regions, that are made of the user's label files
or of earlier records.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal, NamedTuple

from pydantic import Field

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import look
from dataflow_grounding.data.records import JsonObject
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
from dataflow_grounding.spec import PipelineBlock, Spec, VlmBlock, WorkflowBlock
from dataflow_grounding.spec.schema import MOST_NEGATIVES, JudgedVlmBlock, ReferringData

# the numbers of the steps after the first, 0, which describes regions
CAPTION = 1
MERGE = 2  # makes expressions of the regions' descriptions and the caption
CHECK = 3
LOOKED_AT = 50  # records that tell whether a file has what a step needs


class ReferringWorkflow(WorkflowBlock):
    steps: list[str] = ["0", "1", "2", "3"]
    marks: Literal["none", "outline"] = "none"
    negatives: int = Field(0, ge=0, le=MOST_NEGATIVES)


class ImageReferringExpressionBlock(PipelineBlock):
    vlm: JudgedVlmBlock = JudgedVlmBlock()
    workflow: ReferringWorkflow = ReferringWorkflow()
    data: ReferringData

    @property
    def vlms(self) -> list[VlmBlock]:
        return vlms_of(self.vlm, judges=self.workflow.negatives > 0)


def _job_of(spec: Spec, servings: Sequence[Serving], pilot: int | None) -> Job:
    block = spec.block
    assert isinstance(block, ImageReferringExpressionBlock)
    seed_file = os.path.join(spec.results_dir, "seed_annotations.jsonl")
    all_steps = _all_steps(spec, block, servings, seed_file)
    steps = wanted_steps(all_steps, _wanted(block.workflow, all_steps))
    _refuse_taos_results(spec.results_dir, seed_file, all_steps)
    numbers = [step.storage.operator_step for step in steps]
    if numbers == [CAPTION]:
        # The pipeline's own step passes over pictures without regions. Here each gets a caption.
        steps = [replace(steps[0], operator=CaptionGenerator(servings[0]))]
    seeds = _seeds_for(numbers, all_steps, block.data)
    for path in seeds.files:
        refuse_to_overwrite(path, [seed_file])
    first_file = _first_file(all_steps, numbers, block.data, seeds, seed_file)
    _chain_files(steps, first_file.path, seeds.folders)
    if block.workflow.negatives:  # phrases are made up of things in other images
        types = tuple(types_in_regions(first_file.records()))
        for step in steps:
            if isinstance(step.operator, NegativePhraser):
                step.operator.phrases = types
    reads_seeds = first_file.path == seed_file
    job_input = _SeedInput(steps, seeds) if reads_seeds else _LaterInput(steps, seeds)
    return Job(servings, all_steps, steps, job_input, seeds.files)


def _all_steps(
    spec: Spec,
    block: ImageReferringExpressionBlock,
    servings: Sequence[Serving],
    seed_file: str,
) -> list[Step]:
    pipeline = ImageReferringExpressionPipeline(
        ResultsStorage(seed_file, spec.results_dir),
        servings[0],
        judge=servings[-1],  # the same one, unless the spec names a judge
        **block.workflow.own(),
    )
    return put_in_folders(pipeline.steps())


def _seeds_for(numbers: list[int], all_steps: list[Step], data: ReferringData) -> Seeds:
    makes_captions_alone = numbers == [CAPTION]
    begins_with_check = numbers[0] == CHECK  # which reads expressions
    needs_no_regions = makes_captions_alone or begins_with_check
    made = _made_by_steps(all_steps, numbers)
    return seed_records.find_seeds(data, made, boxless=needs_no_regions)


def _refuse_taos_results(results_dir: str, seed_file: str, all_steps: list[Step]) -> None:
    has_run_of_ours = os.path.exists(all_steps[0].storage.checkpoint_folder)
    if not has_run_of_ours:
        # TAO's auto-label writes files of the same names.
        outputs = [step.storage.output_path for step in all_steps]
        seed_records.refuse_taos_results(results_dir, [seed_file, *outputs])


def _wanted(workflow: WorkflowBlock, all_steps: list[Step]) -> list[str]:
    """Return the numbers of the wanted steps, as texts; with the check, all steps after it."""
    names = list(workflow.steps)
    if not workflow.force_reprocess:  # else a step that wasn't named would be paid for again
        names = _with_stale_caption_step(names, all_steps)
    if str(CHECK) in names:
        names += [str(number) for number in range(CHECK + 1, len(all_steps))]
    return names


def _chain_files(steps: Sequence[Step], path: str, folders: tuple[str, ...]) -> None:
    """Have the first step read `path`, and each further one the file of the step before it."""
    for step in steps:
        assert isinstance(step.storage, ResultsStorage)
        step.storage.folders = folders
        step.storage.reads = os.path.relpath(path, step.storage.cache_path)
        path = step.storage.output_path


class _File(NamedTuple):
    """A file that the first step may read, and its records, which may not be written yet."""

    path: str
    all_records: Callable[[], Iterator[JsonObject]]

    def records(self) -> Iterator[JsonObject]:
        # without those of no image, such as a line that can't be read
        return (record for record in self.all_records() if record.get("image_path"))


def _first_file(
    all_steps: list[Step], numbers: list[int], data: ReferringData, seeds: Seeds, seed_file: str
) -> _File:
    """Return what the first step reads: the seeds, if they will do, else the file before it."""
    of_seeds = _File(seed_file, seeds.records)
    number = numbers[0]
    if number == 0:
        return of_seeds
    path_before = all_steps[number - 1].storage.output_path
    may_be_seeds = _may_seeds_be_read(number, path_before, data.input_annotations_jsonl)
    if may_be_seeds and _has_what_steps_need(of_seeds, numbers):
        return of_seeds
    was_made = os.path.exists(path_before)
    if was_made:
        of_step_before = _File(
            path_before, lambda: (row.data or {} for row in read_rows(path_before))
        )
        if _has_what_steps_need(of_step_before, numbers):
            return of_step_before
    raise _no_first_file(number, path_before, was_made)


def _no_first_file(number: int, file_before: str, was_made: bool) -> InputError:
    needs = "step 2 needs regions with a description, and a cleaned_caption"
    made_by = "steps 0 and 1"
    if number == CHECK:
        needs = "step 3 needs expressions"
        made_by = "step 2"
    nothing = f"{file_before} has none" if was_made else f"there is no {file_before}"
    or_give = "or give data.input_annotations_jsonl records that have them"
    return InputError(f"{needs} ({nothing}): run {made_by} first, {or_give}")


def _may_seeds_be_read(number: int, file_before: str, annotations: str | None) -> bool:
    """Return whether a step may read the seeds in place of the file of the step before it."""
    was_made = os.path.exists(file_before)
    if number == CAPTION:  # it needs images alone: `file_before` has them, and descriptions, too
        return not was_made
    # Later steps need columns that an earlier step writes. Of seeds only those made of annotations
    # may have them.
    if not annotations:
        return False
    if not was_made:
        return True
    # The user may have changed the annotations since the step ran: then these count.
    return look(annotations).changed > os.stat(file_before).st_mtime_ns


def _has_what_steps_need(file: _File, numbers: list[int]) -> bool:
    """Return whether a file has what the steps read; step 0 isn't among them."""
    if numbers[0] == CHECK:
        first_record: JsonObject = next(file.records(), {})
        return isinstance(first_record.get("expressions"), list)
    if MERGE in numbers:
        return _has_what_merge_needs(file, makes_captions=CAPTION in numbers)
    return True  # captions are made of images, which all records have


def _has_what_merge_needs(file: _File, *, makes_captions: bool) -> bool:
    """Return whether regions have descriptions, and records a caption, unless a step makes it."""
    with_regions = (record for record in file.records() if record.get("regions"))
    first_records = list(itertools.islice(with_regions, LOOKED_AT))
    for record in first_records:
        gets_caption = makes_captions or "cleaned_caption" in record
        if not gets_caption or not _has_description(record):
            return False
    return bool(first_records)


class _LaterInput(JobInput):
    """The file of a step before, which was made of seeds."""

    report = {}

    def __init__(self, steps: list[Step], seeds: Seeds) -> None:
        super().__init__(steps)
        self._seeds = seeds

    def remarks(self) -> list[str]:
        return self._seeds.found.remarks()


class _SeedInput(_LaterInput):
    """Seeds. A run writes them to a file first; their rows can be read without it."""

    @property
    def reads(self) -> str:
        return self._seeds.origin

    def prepare(self) -> None:
        storage = self.steps[0].storage
        self.report = seed_records.write_seeds(
            self._seeds, storage.input_path, storage.checkpoint_folder
        )

    def rows(self) -> Iterator[Row]:
        """Return the first step's rows, numbered from 1."""
        return (Row(number, record) for number, record in enumerate(self._seeds.records(), 1))

    def where(self, row: Row) -> str:
        return str((row.data or {}).get("image_path") or self.reads)

    def columns(self) -> tuple[list[str], Sequence[str]]:
        columns: dict[str, None] = {}  # in the order in which they come
        for record in itertools.islice(self._seeds.records(), LOOKED_AT):
            columns.update(dict.fromkeys(record))
        return list(columns), ()  # no column is known to hold empty lists alone


def _with_stale_caption_step(names: list[str], all_steps: list[Step]) -> list[str]:
    """Return the names with step 1, if its file was made without step 0, which is wanted now."""
    describe = all_steps[0].label
    path = all_steps[CAPTION].storage.output_path
    describes_without_caption_step = "0" in names and str(CAPTION) not in names
    if describes_without_caption_step and _was_made_without(path, describe):
        # It writes its file again, with descriptions, by stored replies, which cost nothing.
        return [*names, str(CAPTION)]
    return names


def _made_by_steps(all_steps: list[Step], numbers: list[int]) -> Made:
    """Return the columns that steps make: they aren't taken over from the user's annotations."""
    steps_now = [all_steps[number] for number in numbers]
    later_steps = all_steps[numbers[-1] + 1 :]  # a later run may go on with them
    making_steps = [*steps_now, *later_steps]
    columns: set[str] = set()
    for step in making_steps:
        if step.storage.operator_step < CHECK:  # the check and later steps only change columns
            columns.update(step.operator.writes().values())
    columns.discard("regions")  # steps only change it
    return Made(sorted(columns), [step.label for step in making_steps])


def _has_description(record: JsonObject) -> bool:
    return any(
        isinstance(region, dict) and region.get("description") for region in record["regions"]
    )


def _was_made_without(path: str, label: str) -> bool:
    """Return whether the first record of a step's file was made without the step of this label."""
    with suppress(InputError):  # there is no such file
        for row in read_rows(path):
            if row.data:
                made_by = row.data.get("pipeline_steps")
                return not isinstance(made_by, list) or label not in made_by
    return False


KIND = Kind(ImageReferringExpressionPipeline, ImageReferringExpressionBlock, _job_of)

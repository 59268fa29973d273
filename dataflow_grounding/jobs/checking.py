"""Looking everything over before a run: spec, folders, every row, every image's header.

Nothing is sent.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dataflow_grounding._util.errors import (
    GroundingError,
    ImageMissing,
    InputError,
    RecordError,
    told_as,
)
from dataflow_grounding._util.paths import is_absolute, is_elsewhere, joined
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted, counted_items
from dataflow_grounding.boxes.regions import check_seed, read_regions
from dataflow_grounding.calibration.choice import REQUESTS
from dataflow_grounding.data.records import Record, has_id, read_text
from dataflow_grounding.data.rows import Row
from dataflow_grounding.data.shared_stems import SharedStems
from dataflow_grounding.data.working_folder import is_mirrored, mirrors
from dataflow_grounding.engine.keyed_log import store_path
from dataflow_grounding.engine.limiter import files_left
from dataflow_grounding.engine.plan import Step, image_column
from dataflow_grounding.engine.plan import check as check_plan
from dataflow_grounding.engine.source import Source
from dataflow_grounding.images.image import find_image, open_image
from dataflow_grounding.jobs.estimating import unanswerable
from dataflow_grounding.jobs.missing_pictures import MOST_NAMES, advice
from dataflow_grounding.jobs.registry import look_into_spec
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.spec import Spec

SMALL_DISK = 100 * 2**20


@dataclass
class Findings:
    """What was found out about a run.

    Attributes:
        problems: What should be fixed before a run, line by line.
        remarks: What is good to know, line by line.
        records: How many were looked over.
        asks: Model and address of who would be asked.
        advice: What to add to the command to mend problems, line by line.
    """

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    records: int = 0
    asks: str = ""
    advice: list[str] = field(default_factory=list)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Turn an error that the block raises into problems; lines that are there stay single."""
        try:
            yield
        except GroundingError as error:
            self.problems += [line for line in str(error).splitlines() if line not in self.problems]


def check_spec(paths: str | Sequence[str], overrides: Sequence[str] = ()) -> Findings:
    """Return all that is wrong with a spec and with what it names."""
    findings = Findings()
    run: SpecRun | None = None
    with findings.taking():
        spec, findings.problems = look_into_spec(paths, overrides)
        if spec is not None:
            findings.remarks += spec.remarks
            run = _run_of(spec, findings)
    if run is None:
        return findings
    with _leaving_nothing_behind(run):
        _check_run(run, findings)
    return findings


def _check_run(run: SpecRun, findings: Findings) -> None:
    """Find what the run would meet: columns, folders, servings, limits and every row."""
    with findings.taking():
        columns = run.job.columns()
        check_plan(run.steps, columns, run.job.empty_columns)
    _check_folder(run.spec.results_dir, findings)
    findings.problems += run.job.obstacles()
    findings.remarks += run.job.needs()
    findings.remarks += run.remarks()
    if run.box_format is not None and run.box_format.pending:
        stating = f"set {setting('vlm.box_format')}"
        first = f"the run starts with a calibration of {REQUESTS} (or {stating})"
        findings.remarks.append(f"{run.box_format.why}: {first}")
    workers = run.serving.max_workers
    connections = files_left()
    if workers > connections:
        allowed = f"ulimit -n allows {connections} connections: raise the limit to use them all"
        findings.remarks.append(f"max_workers is {workers}, but {allowed}")
    with findings.taking():
        _check_rows(run, findings)
    if not findings.problems:
        with findings.taking():
            findings.problems += unanswerable(run)


@contextmanager
def _leaving_nothing_behind(run: SpecRun) -> Iterator[None]:
    """Delete at the block's end what was made in it of the input, in folders that weren't there.

    A folder with a `.ckpt` would pass for that of a run. What was fetched from the web stays, so
    that it is fetched once.
    """
    results = run.spec.results_dir
    checkpoints = run.steps[0].storage.checkpoint_folder
    inner = [checkpoints, os.path.join(results, "pictures")]
    missing_inner = [folder for folder in inner if not os.path.exists(folder)]
    outer = [results, *_missing_parents(results)]
    missing_outer = [folder for folder in outer if not os.path.exists(folder)]
    try:
        yield
    finally:
        _delete_made(run, missing_inner, missing_outer)


def _delete_made(run: SpecRun, inner: Sequence[str], outer: Sequence[str]) -> None:
    """Delete folders that a check has made: `inner` ones whole, `outer` ones if they are empty.

    Nothing is deleted where a run has begun there meanwhile, or pictures were fetched.
    """
    checkpoints = run.steps[0].storage.checkpoint_folder
    lock = os.path.join(checkpoints, "lock")
    is_a_runs = os.path.exists(lock) or os.path.exists(store_path(checkpoints))
    if is_a_runs or getattr(run.block.data, "fetches", False):
        return
    for folder in inner:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in outer:
        with suppress(OSError):  # it isn't empty, or isn't there
            os.rmdir(folder)


def _missing_parents(folder: str) -> Iterator[str]:
    """Yield the folders above one that aren't there, the nearest first."""
    parent = os.path.dirname(os.path.abspath(folder))
    while not os.path.exists(parent):
        yield parent
        parent = os.path.dirname(parent)


def _run_of(spec: Spec, findings: Findings) -> SpecRun:
    """Return the spec's run, with the embedded grounder where its model can't be used.

    So the input is looked over even where the model's settings are wrong. Raises GroundingError.
    """
    with findings.taking():
        run = SpecRun(spec)
        findings.asks = run.who
        return run
    embedded = spec.model_copy(deep=True)
    embedded.block.vlm.backend = "embedded"
    embedded.block.vlm.box_format = "auto"
    return SpecRun(embedded)


def _check_folder(folder: str, findings: Findings) -> None:
    """Find whether the results can be written, here and, where they go elsewhere, there."""
    if is_mirrored(folder):
        with findings.taking():
            mirrors(folder).check_writable(folder)
    existing = folder
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or "."
    with (
        findings.taking(),
        told_as(InputError, f"results_dir {folder}: cannot write to {existing}"),
    ):
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
        if free < SMALL_DISK:
            findings.problems.append(
                f"results_dir {folder}: less than {SMALL_DISK >> 20} MiB free on its disk"
            )


class _RowCheck:
    """Looks rows over, one after the other, and notes those that repeat an earlier one."""

    def __init__(self, step: Step, name: str | None) -> None:
        self.source = Source([step], name)
        self.folders: Counter[str] = Counter()  # how many images were found in each
        self.repeated: list[str] = []  # which line repeats which, in words
        self.stems = SharedStems()
        self.missing_count = 0  # of images that aren't found
        self.missing: list[str] = []  # what rows call the first of them
        self._step = step
        self._reads = step.operator.reads()
        self._texts = set(self._reads.values()) - {self.source.image_key}
        self._lines_of_ids: dict[str, int] = {}
        self._lines_of_questions: dict[int, int] = {}

    def check(self, row: Row) -> str | None:
        """Return in words that a row states an image_id of an earlier one; None where it doesn't.

        Notes what else there is to tell of it: its image's folder, a question asked before. Raises
        RecordError where the row, its image, or the labels that it was made from can't be read.
        """
        record = self.source.record(row)
        check_seed(record)
        if self._has_image(record):
            self._check_image(record, row.line)
        operator = self._step.operator
        if isinstance(operator, Operator):
            operator.look_over(record)
        if self._reads.get("caption") == "caption":
            read_text(record, "caption")
        if "regions" in self._reads:
            read_regions(record, "regions")
        return self._check_id(str(record.image_id), row)

    def _has_image(self, record: Record) -> bool:
        if image_column(self._step.operator, record):
            return True
        return self._step.image_key is None and self.source.image_key in record

    def _check_image(self, record: Record, line: int) -> None:
        """Open the image, and note whether an earlier row asks the same of it."""
        image_key = self.source.image_key
        self.stems.add(str(record.get(image_key) or ""))
        try:
            find_image(record, image_key)
        except ImageMissing:
            self.missing_count += 1
            if len(self.missing) < MOST_NAMES:
                self.missing.append(str(record[image_key]))
            raise
        self.folders[_folder_of(record, image_key)] += 1
        open_image(record, image_key)
        path = os.path.realpath(find_image(record, image_key).path)
        # Only a hash is kept, as there may be a million rows.
        question = hash(repr([path, *map(record.get, self._texts)]))
        first_line = self._lines_of_questions.setdefault(question, line)
        if first_line != line:
            self.repeated.append(f"line {line} that of line {first_line}")

    def _check_id(self, image_id: str, row: Row) -> str | None:
        """Return what is wrong with an id that an earlier row has, if this row states it."""
        first_line = self._lines_of_ids.get(image_id)
        if first_line is None:
            self._lines_of_ids[image_id] = row.line
        elif row.data and has_id(row.data.get("image_id")):
            return f"image_id {image_id!r} is used in line {first_line} too"
        return None


def _check_rows(run: SpecRun, findings: Findings) -> None:
    """Look over every row and the header of its image, and note what there is to know of them."""
    check = _RowCheck(run.steps[0], run.job.source)
    earlier = tuple(findings.problems)
    for row in run.job.rows():
        findings.records += 1
        where = run.job.where(row)
        try:
            problem = check.check(row)
        except RecordError as error:
            problem = str(error)
        # Where no row could be read, the first one was told as the reason.
        told = f"line {row.line}: {problem}"
        if problem is not None and not any(line.endswith(told) for line in earlier):
            findings.problems.append(f"{where}: {problem}")
    if check.missing_count > check.folders.total():
        findings.advice += filter(None, [advice(run.job, check.missing)])
    findings.remarks += run.job.remarks()
    repeats = "rows repeat the picture and text of an earlier row, and are paid for once"
    findings.remarks += counted_items(repeats, check.repeated)
    findings.remarks += check.stems.remarks()
    for folder, count in check.folders.items():
        if folder:
            findings.remarks.append(f"{counted(count, 'image')} found in {folder}")


def _folder_of(record: Record, image_key: str) -> str:
    """Return the folder in which a relative path's image was found; "" for an absolute path."""
    named = str(record.get(image_key))
    path = find_image(record, image_key).path
    if is_absolute(named):
        return ""
    for folder in record.folders:
        if joined(folder, named) == path:
            return folder if is_elsewhere(folder) else os.path.normpath(folder)
    return ""

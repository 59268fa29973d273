"""Looking everything over before a run: spec, folders, every row, every image's header.

Nothing is sent.
"""

import functools
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dataflow_grounding._util.errors import (
    GroundingError,
    InputError,
    RecordError,
    errors_as,
)
from dataflow_grounding._util.paths import is_absolute, joined
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted, counted_items
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.expressions import check_labels_were_read, read_regions
from dataflow_grounding.data.records import Record, has_id, read_text
from dataflow_grounding.data.rows import Row
from dataflow_grounding.data.shared_stems import SharedStems
from dataflow_grounding.engine.annotating import RowWork, failure_of
from dataflow_grounding.engine.keyed_log import store_path
from dataflow_grounding.engine.limiter import files_left
from dataflow_grounding.engine.loop import Loop
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.plan import check as check_plan
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import find_image, name_at_source, open_image
from dataflow_grounding.jobs.registry import look_into_spec
from dataflow_grounding.jobs.spec_run import SpecRun, ready_to_run
from dataflow_grounding.operators import Operator
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Spec
from dataflow_grounding.spec.user_code import described
from dataflow_grounding.trust.choice import REQUESTS

SMALL_DISK = 100 * 2**20  # bytes free on a disk, below which a run had better not begin


@dataclass
class Findings:
    """What was found out about a run, line by line."""

    problems: list[str] = field(default_factory=list)  # what should be fixed before it
    remarks: list[str] = field(default_factory=list)  # what is good to know
    records: int = 0  # that were checked
    asks: str = ""  # model and address of what would be asked, in words

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Turn a GroundingError that the block raises into problems, one for each of its lines."""
        try:
            yield
        except GroundingError as error:
            self.problems += [line for line in str(error).splitlines() if line not in self.problems]


def check_spec(paths: str | Sequence[str], overrides: Sequence[str] = ()) -> Findings:
    """Return what is wrong with a spec and what it names, and remarks on both; nothing is sent."""
    findings = Findings()
    run: SpecRun | None = None
    with findings.taking():
        spec, findings.problems = look_into_spec(paths, overrides)
        if spec is not None:
            findings.remarks += spec.remarks
            run = _run_of(spec, findings)
    if run is None:
        return findings
    with _without_traces(run):
        _check_run(run, findings)
    return findings


def _check_run(run: SpecRun, findings: Findings) -> None:
    with findings.taking():
        columns, empty_columns = run.job.input.columns()
        check_plan(run.job.steps, columns, empty_columns)
    _check_folder(run.spec.results_dir, findings)
    findings.problems += run.job.obstacles() + run.job.unanswerable()
    findings.remarks += _needs_of(run)
    findings.remarks += run.remarks
    findings.remarks += _remarks_on_calibration(run)
    findings.remarks += _remarks_on_connections(run.serving)
    with findings.taking():
        _check_rows(run, findings)
    if not findings.problems:
        with findings.taking():
            _put_first_questions(run)


def _put_first_questions(run: SpecRun) -> None:
    """Have the user's own steps put a question about the first row; nothing is sent.

    Raises NoBoxFormat where it shows boxes, and the step chooses no format for them.
    """
    source = Source(run.job.steps)
    for row in itertools.islice(run.job.input.rows(), 1):
        record = source.record(row)
        for step in run.job.steps:
            is_shipped = type(step.operator).__module__.startswith("dataflow_grounding.")
            has_format = step.operator.format_choice is not None
            if is_shipped or has_format or isinstance(step.operator, WholeFile):
                continue
            loop = Loop([step])  # without an `asking`, a question goes no further than into words
            loop.store = ReplyLog("")
            run_blocking(functools.partial(loop.results_of_steps, 0, record, RowWork()))


def _remarks_on_calibration(run: SpecRun) -> list[str]:
    box_format = run.job.box_format
    if box_format is None or not box_format.pending:
        return []
    instead = f"set {setting('vlm.box_format')}"
    calibration = f"the run starts with a calibration of {REQUESTS} (or {instead})"
    return [f"{box_format.why}: {calibration}"]


def _remarks_on_connections(serving: Serving) -> list[str]:
    workers = serving.max_workers
    connections = files_left()
    if workers <= connections:
        return []
    allowed = f"ulimit -n allows {connections} connections: raise the limit to use them all"
    return [f"max_workers is {workers}, but {allowed}"]


def _needs_of(run: SpecRun) -> list[str]:
    """Return what servings and operators say that they need, each line once."""
    lines: list[str] = []
    parts: list[Serving | Operator] = [*run.job.servings, *run.job.operators]
    for part in parts:
        try:
            lines += part.needs()
        except (Exception, SystemExit) as error:  # of a user's own code
            lines.append(f"needs() of {type(part).__name__} raised {described(error)}")
    return list(dict.fromkeys(lines))


def _remarks_on_unread_words(run: SpecRun) -> list[str]:
    models: set[str] = set()
    for operator in run.job.operators:
        if operator.wording and operator.serving is not None and not operator.serving.is_vlm:
            models.add(operator.serving.model)
    return [
        f"{model} reads no prompts, guidance or definitions: they change nothing of its answers"
        for model in sorted(models)
    ]


@contextmanager
def _without_traces(run: SpecRun) -> Iterator[None]:
    """Delete the folders that are made in the block, unless a run has begun there meanwhile."""
    results = run.spec.results_dir
    checkpoints = run.job.steps[0].storage.checkpoint_folder
    fetches = getattr(run.spec.block.data, "fetches", False)
    folders_inside = [checkpoints, os.path.join(results, "pictures")]
    new_inside = [folder for folder in folders_inside if not os.path.exists(folder)]
    new_around = []  # the innermost first
    folder = os.path.abspath(results)
    while not os.path.exists(folder):
        new_around.append(folder)
        folder = os.path.dirname(folder)
    try:
        yield
    finally:
        files_of_a_run = [os.path.join(checkpoints, "lock"), store_path(checkpoints)]
        has_run_begun = any(os.path.exists(file) for file in files_of_a_run)
        # A folder with a `.ckpt` would pass for a run's. But a run should find the pictures that a
        # check has fetched.
        if not fetches and not has_run_begun:
            for folder in new_inside:
                shutil.rmtree(folder, ignore_errors=True)
            for folder in new_around:
                with suppress(OSError):  # it isn't empty, or isn't there
                    os.rmdir(folder)


def _run_of(spec: Spec, findings: Findings) -> SpecRun:
    """Return the spec's run; with the embedded grounder if the model's settings are wrong."""
    # A wrong key has its default in `spec`, so only the problems tell: "a.yaml, line 6:
    # image_grounding.vlm.backend should be …".
    backend_key = f"{spec.autolabel_type}.vlm.backend "
    is_backend_wrong = any(backend_key in problem for problem in findings.problems)
    if not is_backend_wrong:
        with findings.taking():  # after an error, which becomes a finding, it goes on below
            run = ready_to_run(spec)
            findings.asks = run.who
            return run
    embedded = spec.model_copy(deep=True)  # so that the input is looked over all the same
    embedded.block.vlm.backend = "embedded"
    embedded.block.vlm.box_format = "auto"
    return ready_to_run(embedded)


def _check_folder(folder: str, findings: Findings) -> None:
    with findings.taking():
        bucket.check_writable(folder)
    with findings.taking():
        if _free_bytes_at(folder) < SMALL_DISK:
            findings.problems.append(
                f"results_dir {folder}: less than {SMALL_DISK >> 20} MiB free on its disk"
            )


def _free_bytes_at(folder: str) -> int:
    """Raises InputError where nothing can be written in the folder, or the nearest one above it."""
    existing = folder
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or "."
    cannot_write = errors_as(InputError, f"results_dir {folder}: cannot write to {existing}")
    with cannot_write, tempfile.TemporaryFile(dir=existing):  # it is removed at once
        return shutil.disk_usage(existing).free


class _RowCheck:
    """Looks rows over, one after the other. Its public attributes say what was found so far."""

    def __init__(self, step: Step, name: str | None) -> None:
        self.source = Source([step], name)
        # how many images, by the folder that their relative paths start from; "" for absolute ones
        self.found_in_folder: Counter[str] = Counter()
        self.repeated: list[str] = []  # "line 7 that of line 2": it has the same question
        self.shared_stems = SharedStems()  # images whose names differ in their endings alone
        self.stretched: list[str] = []  # what rows call images that are sent stretched
        self._step = step
        self._reads = step.operator.reads()
        self._text_columns = set(self._reads.values()) - {self.source.image_key}
        self._line_of_id: dict[str, int] = {}  # image_id → the first line that has it
        self._line_of_question: dict[int, int] = {}  # hash of a question → the first line with it

    def check(self, row: Row) -> str | None:
        """Look over the next row; return a problem in words, or None. Raises RecordError."""
        record = self.source.record(row)
        check_labels_were_read(record)
        # where the operator names no column of images, the row may have the usual one
        has_usual_image = self._step.image_key is None and self.source.image_key in record
        if has_usual_image or image_column(self._step.operator, record):
            self._check_image(record, row.line)
        self._check_other_columns(record)
        return self._note_id(str(record.image_id), row)

    def _check_other_columns(self, record: Record) -> None:
        """Raise what the step could not use: all is called for its errors alone."""
        operator = self._step.operator
        if isinstance(operator, Operator):
            _look_over(operator, record)
        caption_column = self._reads.get("caption")
        if caption_column is not None and "caption" not in operator.optional_keys:
            read_text(record, caption_column)
        if "regions" in self._reads:
            read_regions(record, "regions")

    def _check_image(self, record: Record, line: int) -> None:
        image_key = self.source.image_key
        self.shared_stems.add(str(record.get(image_key) or ""))
        path = find_image(record, image_key).path
        self.found_in_folder[_folder_of(record, image_key, path)] += 1
        with name_at_source(record):
            image = open_image(record, image_key)
        if image.facts.stretched:
            self.stretched.append(repr(record[image_key]))
        self._note_question(record, path, line)

    def _note_question(self, record: Record, path: str, line: int) -> None:
        """Note a row with the picture and texts of an earlier one: its question is paid once."""
        # Only a hash is kept, since there may be a million rows.
        question = hash(repr([os.path.realpath(path), *map(record.get, self._text_columns)]))
        first_line = self._line_of_question.setdefault(question, line)
        if first_line != line:
            self.repeated.append(f"line {line} that of line {first_line}")

    def _note_id(self, image_id: str, row: Row) -> str | None:
        """Return a problem in words if an earlier row has the id; else None."""
        first_line = self._line_of_id.setdefault(image_id, row.line)
        if first_line == row.line:  # this row is the first with the id
            return None
        # An id that the row doesn't state is made of the image's name, which several rows of one
        # image may have.
        states_id = row.data is not None and has_id(row.data.get("image_id"))
        if not states_id:
            return None
        return f"image_id {image_id!r} is used in line {first_line} too"


def _look_over(operator: Operator, record: Record) -> None:
    try:
        operator.look_over(record)
    except GroundingError:
        raise
    except Exception as error:  # the user's own code
        raise failure_of(operator, error) from error


def _check_rows(run: SpecRun, findings: Findings) -> None:
    check = _RowCheck(run.job.steps[0], run.kind.pipeline.name)
    problems_before = tuple(findings.problems)
    for row in run.job.input.rows():
        findings.records += 1
        try:
            problem = check.check(row)
        except RecordError as error:
            problem = str(error)
        if problem is None:
            continue
        # `_check_run` has read the columns of the first rows already. If none of these could be
        # read, it has told the first row's error.
        ending = f"line {row.line}: {problem}"  # of "rows.jsonl, line 1: …"
        was_told = any(line.endswith(ending) for line in problems_before)
        if was_told:
            continue
        where = run.job.input.where(row)
        begin, _, _ = problem.partition("' ")  # "'/data/photos/a.jpg' is not a readable image"
        names_place = begin.startswith("'") and begin.endswith(where)  # "photos/a.jpg"
        if not names_place:
            problem = f"{where}: {problem}"
        findings.problems.append(problem)
    findings.remarks += _remarks_on_unread_words(run)
    findings.remarks += run.job.input.remarks()
    repeats = "rows repeat the picture and text of an earlier row, and are paid for once"
    findings.remarks += counted_items(repeats, check.repeated)
    stretched = "images of 16 bits are sent stretched: least value black, largest white"
    findings.remarks += counted_items(stretched, check.stretched)
    findings.remarks += check.shared_stems.remarks()
    for folder, count in check.found_in_folder.items():
        has_relative_paths = folder != ""  # absolute ones are counted under ""
        if has_relative_paths:
            findings.remarks.append(f"{counted(count, 'image')} found in {folder}")


def _folder_of(record: Record, image_key: str, path: str) -> str:
    """Return the folder from which the record's relative path leads to `path`; "" for none."""
    stated_path = str(record.get(image_key))
    if is_absolute(stated_path):
        return ""
    for folder in record.folders:
        if joined(folder, stated_path) == path:
            return folder
    return ""

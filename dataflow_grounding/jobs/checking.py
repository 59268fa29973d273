"""Looking everything over before a run: spec, folders, every row, every image's header; nothing is
sent.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dataflow_grounding._util.errors import GroundingError, InputError, RecordError, told_as
from dataflow_grounding._util.paths import is_absolute, is_elsewhere, joined
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.regions import check_seed, read_regions
from dataflow_grounding.calibration.choice import REQUESTS
from dataflow_grounding.data.records import Record, has_id, read_text
from dataflow_grounding.data.working_folder import is_mirrored, mirrors
from dataflow_grounding.engine.limiter import files_left
from dataflow_grounding.engine.plan import check as check_plan
from dataflow_grounding.engine.plan import image_column
from dataflow_grounding.engine.source import Source
from dataflow_grounding.extras.formats.label_seeds import counted_items
from dataflow_grounding.images.image import find_image, open_image
from dataflow_grounding.jobs.registry import look_into_spec
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.spec import Spec

SMALL_DISK = 100 * 2**20


@dataclass
class Findings:
    """`problems` should be fixed before a run; `remarks` are good to know."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    records: int = 0

    @contextmanager
    def taking(self) -> Iterator[None]:
        """What an error says that is raised within becomes problems, but for lines that are told
        already.
        """
        try:
            yield
        except GroundingError as error:
            self.problems += [line for line in str(error).splitlines() if line not in self.problems]


def check_spec(paths: str | Sequence[str], overrides: Sequence[str] = ()) -> Findings:
    """All that is wrong with a spec and what it names."""
    found = Findings()
    run: SpecRun | None = None
    with found.taking():
        spec, found.problems = look_into_spec(paths, overrides)
        if spec is not None:
            found.remarks += spec.remarks
            run = _run_of(spec, found)
            check_plan(run.steps, run.job.columns())
    if run is None:
        return found
    _check_folder(run.spec.results_dir, found)
    found.problems += run.job.obstacles()
    found.remarks += run.job.needs()
    if run.box_format is not None and run.box_format.pending:
        first = f"the run starts with a calibration of {REQUESTS} (or set vlm.box_format)"
        found.remarks.append(f"{run.box_format.why}: {first}")
    workers, most = run.serving.max_workers, files_left()
    if workers > most:
        allowed = f"ulimit -n allows {most} connections: raise the limit to use them all"
        found.remarks.append(f"max_workers is {workers}, but {allowed}")
    with found.taking():
        _check_rows(run, found)
    return found


def _run_of(spec: Spec, found: Findings) -> SpecRun:
    """The spec's run, with the embedded grounder where its model can't be used. Raises
    GroundingError.
    """
    with found.taking():
        return SpecRun(spec)
    other = spec.model_copy(deep=True)
    other.block.vlm.backend, other.block.vlm.box_format = "embedded", "auto"
    return SpecRun(other)


def _check_folder(folder: str, found: Findings) -> None:
    if is_mirrored(folder):
        with found.taking():
            mirrors(folder).check_writable(folder)
    there = folder
    while not os.path.exists(there):
        there = os.path.dirname(there) or "."
    with found.taking(), told_as(InputError, f"results_dir {folder}: cannot write to {there}"):
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
        if free < SMALL_DISK:
            found.problems.append(
                f"results_dir {folder}: less than {SMALL_DISK >> 20} MiB free on its disk"
            )


def _check_rows(run: SpecRun, found: Findings) -> None:
    step = run.steps[0]
    source = Source([step])
    ids: dict[str, int] = {}
    folders: Counter[str] = Counter()
    texts = set(step.operator.reads().values()) - {source.image_key}
    asked: dict[int, int] = {}
    repeated: list[str] = []
    for row in run.job.rows():
        found.records += 1
        where = run.job.where(row)
        try:
            record = source.record(row)
            check_seed(record)
            if image_column(step.operator, record) or (
                step.image_key is None and source.image_key in record
            ):
                folders[_folder_of(record, source.image_key)] += 1
                open_image(record, source.image_key)
                read = [
                    os.path.realpath(find_image(record, source.image_key).path),
                    *map(record.get, texts),
                ]
                first = asked.setdefault(hash(repr(read)), row.line)
                repeated += [f"line {row.line} that of line {first}"] if first != row.line else []
            if isinstance(step.operator, Operator):
                step.operator.look_over(record)
            if step.operator.reads().get("caption") == "caption":
                read_text(record, "caption")
            if "regions" in step.operator.reads():
                read_regions(record, "regions")
            image_id = str(record.image_id)
            if row.data and has_id(row.data.get("image_id")) and image_id in ids:
                found.problems.append(
                    f"{where}: image_id {image_id!r} is used in line {ids[image_id]} too"
                )
            ids.setdefault(image_id, row.line)
        except RecordError as error:
            found.problems.append(f"{where}: {error}")
    found.remarks += run.job.remarks()
    again = "rows repeat the picture and text of an earlier row, and are paid for once"
    found.remarks += counted_items(again, repeated)
    found.remarks += [
        f"{counted(count, 'image')} found in {folder}"
        for folder, count in folders.items()
        if folder
    ]


def _folder_of(record: Record, image_key: str) -> str:
    given = str(record.get(image_key))
    path = find_image(record, image_key).path
    found = (f for f in record.folders if joined(f, given) == path and not is_absolute(given))
    return next(
        (folder if is_elsewhere(folder) else os.path.normpath(folder) for folder in found), ""
    )

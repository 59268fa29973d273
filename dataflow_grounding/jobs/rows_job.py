"""Jobs that read rows of the user's: in place, or made into rows of our own.

The source, an `Input`, is `plain` if it is a data file that can be read as it is, and `bare` if its
rows are pictures and nothing else. A role is what a step reads a column as, such as `caption`.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from itertools import chain, islice, pairwise
from typing import Any

from dataflow_grounding._util.addresses import is_web
from dataflow_grounding._util.errors import InputError, SpecError, errors_as
from dataflow_grounding._util.nearest import nearest, nearest_file
from dataflow_grounding._util.paths import joined, kind_of, state_of
from dataflow_grounding._util.results_names import CKPT, PICTURES
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.inputs import JSON_LINES, Input, plain_input
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.rows import Row, RowWriter, as_line
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.facts import fact, keep_fact
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import IMAGE_COLUMN, in_pilot
from dataflow_grounding.jobs.downloads import Downloads
from dataflow_grounding.jobs.input_rows import guess_column, record_rows
from dataflow_grounding.jobs.job import Job, JobInput, wanted_steps
from dataflow_grounding.operators import CaptionGenerator
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import RowsData, Spec

FIRST = 50  # rows whose columns are looked at before a run
CAPTIONS = "captions"
"""The folder of the step that captions pictures, before step 0."""


def input_of(spec: Spec) -> Input:
    """Return what `data.input_jsonl` names."""
    data = _data_of(spec)
    path = data.input_jsonl
    # JSON lines are read as they are: importing the readers of all other formats is saved.
    if path.endswith(JSON_LINES) and kind_of(path) == "file":
        return plain_input(path)
    from dataflow_grounding.formats.inputs import find_other_input  # readers of all formats

    return find_other_input(path, data.split, spec.results_dir) or plain_input(path)


def storage_of(spec: Spec, source: Input) -> ResultsStorage:
    """Return a pipeline's storage, on the source's own file or on rows that `RowsInput` makes."""
    data = _data_of(spec)
    image_folders = (data.image_root,) if data.image_root else source.folders
    is_read_in_place = source.plain and not data.columns and not data.fetches
    if is_read_in_place:
        storage = ResultsStorage(source.path, spec.results_dir, image_root=data.image_root)
        storage.folders = image_folders
        return storage
    path_of_made_rows = os.path.join(spec.results_dir, CKPT, "input.jsonl")
    storage = ResultsStorage(path_of_made_rows, spec.results_dir, image_root=data.image_root)
    storage.made_of = source.path
    storage.folders = image_folders
    # Files of text can't hold pictures as bytes, and rows of a folder of pictures name files.
    is_text = source.path.endswith((".jsonl", ".json", ".csv", ".tsv"))
    may_hold_bytes = not is_text and not source.bare
    if data.fetches or may_hold_bytes:
        # `RowsInput` puts these pictures into files in the results folder.
        storage.folders = (*image_folders, spec.results_dir)
    return storage


def job_on_rows(
    spec: Spec,
    servings: Sequence[Serving],
    source: Input,
    all_steps: list[Step],
    step_names: Sequence[str],
    pilot: int | None,
) -> Job:
    """Return the job of a pipeline whose first step reads rows of the source."""
    steps = wanted_steps(all_steps, step_names)
    files = [_data_of(spec).input_jsonl]
    first = steps[0]
    reads_file_of_step_before = first.storage.operator_step > 0
    if reads_file_of_step_before:
        number = first.storage.operator_step
        path = first.storage.input_path
        if not os.path.exists(path):
            raise InputError(f"step {number} reads {path}: run step {number - 1} first")
        _refuse_gaps(steps)
        return Job(servings, all_steps, steps, JobInput(steps), files)
    # A folder, a pattern or a data set was looked for when the source was made of it.
    if source.plain and not kind_of(source.path):
        near = nearest_file(source.path) or ": check data.input_jsonl"
        raise InputError(f"no input file {source.path}{near}")
    _refuse_gaps(steps)
    steps = [*_caption_step(spec, servings[0], source, first), *steps]
    return Job(servings, all_steps, steps, RowsInput(spec, source, first, steps, pilot), files)


def is_pipe(source: Input) -> bool:
    """Return whether a source is a pipe or the like, which can be read only once."""
    return source.plain and kind_of(source.path) != "file"


def _data_of(spec: Spec) -> RowsData:
    data = spec.block.data
    assert isinstance(data, RowsData)
    return data


def _roles_of(first: Step) -> dict[str, str]:
    """Return columns by role: {"image": "image_path", "caption": "caption", …}."""
    return {"image": IMAGE_COLUMN, **first.operator.reads(), "image_id": "image_id"}


def _caption_step(spec: Spec, serving: Serving, source: Input, first: Step) -> list[Step]:
    """Return a step that captions pictures, if `first` reads captions and the input has none."""
    needs_captions = "caption" in first.operator.reads()
    if not (source.bare and needs_captions):
        return []
    if serving.needs_labels:  # such as the embedded grounder: it can't tell what things are
        raise _no_captions(spec, serving, source)
    assert isinstance(first.storage, ResultsStorage)
    storage = copy(first.storage)
    storage.steps = (CAPTIONS,)
    first.storage.reads = os.path.join(CAPTIONS, "annotations.jsonl")
    roles = _roles_of(first)
    # Both of its outputs go into one column. The cleaned caption is set last, so it stays.
    captioner = CaptionGenerator(serving).bound(
        input_image_key=roles["image"],
        output_caption_key=roles["caption"],
        output_cleaned_caption_key=roles["caption"],
    )
    return [Step(captioner, storage, numbered=False)]  # the numbers of the others stay


def _no_captions(spec: Spec, serving: Serving, source: Input) -> SpecError:
    what = f"{source.path} has pictures without captions, and {serving.model} can't write captions"
    instead = ""
    if hasattr(spec.block.data, "classes"):
        instead = f", or name what to look for in {spec.block_name}.data.classes"
    return SpecError(f"{what}: choose another vlm.backend{instead}")


class RowsInput(JobInput):
    """The user's rows, read in place, or made into rows of our own."""

    def __init__(
        self, spec: Spec, source: Input, first: Step, steps: list[Step], pilot: int | None
    ) -> None:
        super().__init__(steps)
        self._data = _data_of(spec)
        self._data_key = f"{spec.block_name}.data"
        self._results_dir = spec.results_dir
        self._input = source
        # `first` is the pipeline's own: it comes after a step that writes captions, if any.
        self._operator = first.operator
        self._roles = _roles_of(first)
        self._pilot = pilot  # how many rows a trial run takes; None for all rows
        # of the rows of our own; None where the user's are read in place
        self._made_path = first.storage.first_entry_file_name if first.storage.made_of else None
        self._ready = False  # whether `prepare` has looked at the input, and made its rows
        self.image_root_key = f"{self._data_key}.image_root"
        self.passed_over = source.passed_over

    @property
    def reads(self) -> str:
        return self._input.path

    def where(self, row: Row) -> str:
        if not self._input.bare:
            return super().where(row)
        # A folder has no lines: its rows are pictures.
        picture = (row.data or {}).get(self._roles["image"], "")
        return joined(self._input.path, str(picture))

    def remarks(self) -> list[str]:
        return list(filter(None, [self._input.remark, self._input.passed_over]))

    def prepare(self) -> None:
        """Look at the first rows, and write rows of our own if the first step reads such; once."""
        if self._ready:
            return
        needs_made_rows = self._made_path is not None
        if is_pipe(self._input):
            # It can be read only once, which is for the first step to do.
            if needs_made_rows:
                raise InputError(
                    f"{self._input.path} is not a file: save its rows in one to use"
                    f" {self._data_key}.columns"
                )
        else:
            sources = self._checked_sources()
            if needs_made_rows:
                self._make_rows(sources)
        self._ready = True

    def _checked_sources(self) -> dict[str, str]:
        """Return the user's columns by the record's: {"image_path": "photo"}. Refuse wrong ones."""
        rows = [row.data for row in islice(self._input.read(), FIRST) if row.data is not None]
        columns = list(dict.fromkeys(chain.from_iterable(rows)))
        self._check_stated_columns(columns)
        column_by_role: dict[str, str] = {}
        for role, column in self._input.columns.items():  # as the input's format has them
            if column in columns:
                column_by_role[role] = column
        column_by_role.update(self._data.columns)  # as the spec states them
        sources = {self._roles[role]: column for role, column in column_by_role.items()}
        self._refuse_if_column_is_misnamed(rows, columns, sources)
        self._refuse_unfetched_addresses(rows, sources)
        return sources

    def _check_stated_columns(self, columns: list[str]) -> None:
        for role, column in self._data.columns.items():
            key = f"{self._data_key}.columns.{role}"
            if role not in self._roles:
                raise SpecError(
                    f"{key} is not one of {', '.join(self._roles)}{self._hint_at_role(role)}"
                )
            if columns and column not in columns:  # without rows no column is known
                hint = nearest(column, columns) or f"; it has {', '.join(columns)}"
                raise InputError(f"{key}: {self._input.path} has no column {column!r}{hint}")

    def _hint_at_role(self, name: str) -> str:
        if name == "caption" and getattr(self._data, "classes", None):
            return f": captions aren't read with {self._data_key}.classes, so leave it out"
        for role, column in self._roles.items():
            if column == name:
                return f": write {role}, whose column is {name}"
        return ""

    def _refuse_if_column_is_misnamed(
        self, rows: Sequence[Mapping[str, object]], columns: list[str], sources: dict[str, str]
    ) -> None:
        """Refuse rows without a column that is read, if another column looks like it."""
        if self._input.bare:
            return
        present: list[str] = []  # columns that the step reads under their own names
        missing: dict[str, str] = {}  # role → column
        for role, column in self._operator.reads().items():
            if role in self._operator.optional_keys:
                continue
            if column in columns:
                present.append(column)
            elif column not in sources:  # none of the user's columns is renamed to it
                missing[role] = column
        taken = [*sources.values(), *present]
        candidates = _columns_that_look_like(missing, rows, taken)
        if candidates:  # else the check of the run's plan reports a missing column later
            raise self._misnamed(missing, candidates)

    def _misnamed(self, missing: dict[str, str], candidates: dict[str, str]) -> InputError:
        """Return the error on `missing` columns; `candidates` look like them. Both are by role."""
        no_columns = []
        meant = []
        settings = []
        for role, column in candidates.items():
            no_columns.append(f"no column {missing[role]!r}")
            meant.append(repr(column))
            settings.append(shlex.quote(f"{self._data_key}.columns.{role}={column}"))
        return InputError(
            f"{self._input.path} has {' and '.join(no_columns)}; if {' and '.join(meant)} should"
            f" be taken, add {' '.join(settings)}"
        )

    def _refuse_unfetched_addresses(
        self, rows: Sequence[Mapping[str, object]], sources: dict[str, str]
    ) -> None:
        """Refuse an input whose pictures are all at addresses, unless some may be fetched."""
        if self._data.fetches:
            return
        image = self._roles["image"]
        column = sources.get(image, image)
        pictures = [row[column] for row in rows if row.get(column)]
        # If only some are at addresses, each of them is a failure of its own record.
        if pictures and all(is_web(picture) for picture in pictures):
            what = (
                f"{self._input.path} has pictures at http addresses, which are not fetched unasked"
            )
            raise InputError(
                f"{what}: add {self._data_key}.allow_http=true, or name their hosts in allow_hosts"
            )

    def _make_rows(self, sources: dict[str, str]) -> None:
        """Write the rows, unless those of an earlier run still hold, as a fact of it tells."""
        path = self._made_path
        assert path is not None
        folder = os.path.dirname(path)
        made_of = self._what_rows_are_made_of(sources)
        state_before = fact(folder, "input") or {}
        if self._do_rows_still_hold(path, state_before, made_of):
            return
        broken_count = _write(path, self._rows_of_our_own(sources))
        may_lack_a_picture = self._data.fetches and broken_count > 0
        if may_lack_a_picture:
            return  # without the fact, the next run makes the rows again, and fetches it
        state = {"known": made_of, "pilot": self._pilot, "made": self._state_of_made(path)}
        keep_fact(folder, "input", state)

    def _rows_of_our_own(self, sources: dict[str, str]) -> Iterator[Row]:
        fetch = None
        if self._data.fetches:
            hosts = self._data.allow_hosts
            no_others = not self._data.allow_http
            fetch = Downloads(self._results_dir, hosts=hosts, no_others=no_others).fetch
            say(f"Fetching the pictures of {self._input.path} that aren't here yet.")
        row_count = None  # needed for a pilot alone, whose rows are spread over all
        if self._pilot is not None:
            row_count = sum(1 for _ in self._input.read())
        return record_rows(
            self._input.read(),
            sources,
            image_column=self._roles["image"],
            results_dir=self._results_dir,
            fetch=fetch,
            is_wanted=lambda place: in_pilot(place, row_count, self._pilot),
        )

    def _what_rows_are_made_of(self, sources: dict[str, str]) -> list[Any] | None:
        """Return all that rows depend on but the pilot; None where changes can't be seen."""
        if not self._input.files:
            return None
        states = [state_of(file) for file in self._input.files]
        return [__version__, self._data.model_dump(), sources, *states]

    def _do_rows_still_hold(self, path: str, before: JsonObject, made_of: list[Any] | None) -> bool:
        """Return whether rows of an earlier run, whose state is `before`, still hold."""
        is_of_same_input = made_of is not None and before.get("known") == made_of
        is_unchanged = before.get("made") == self._state_of_made(path)
        if not is_of_same_input or not is_unchanged:
            return False
        # Rows that were made for a pilot have files for the pilot's pictures alone. Rows of a whole
        # run (None) have files for all pictures, and so for any pilot's.
        return before["pilot"] in (None, self._pilot)

    def _state_of_made(self, path: str) -> list[Any]:
        has_pictures = os.path.isdir(os.path.join(self._results_dir, PICTURES))
        return [state_of(path), has_pictures]  # somebody may have removed the folder


def _columns_that_look_like(
    missing: Iterable[str], rows: Sequence[Mapping[str, object]], taken: Sequence[str]
) -> dict[str, str]:
    """Guess the user's column for each role whose column is missing; one column has one role."""
    candidates: dict[str, str] = {}
    for role in missing:
        candidate = guess_column(role, rows, [*taken, *candidates.values()])
        if candidate is not None:
            candidates[role] = candidate
    return candidates


def _refuse_gaps(steps: list[Step]) -> None:
    for step, following in pairwise(steps):
        if step.storage.operator_step + 1 != following.storage.operator_step:
            between = f"between {step.label} and {following.label}"
            raise SpecError(f"workflow.steps: {between} there is a step: name it too")


def _write(path: str, rows: Iterator[Row]) -> int:
    """Write rows in the lines that they have in the user's file; return how many are broken."""
    broken_count = 0
    last_line = 0
    with errors_as(InputError, f"can't write {path}"), closing(RowWriter(path)) as writer:
        for row in rows:
            skipped_count = row.line - last_line - 1  # messages name the user's lines
            empty_lines = "\n" * skipped_count
            writer.write_line(empty_lines + as_line(row))
            last_line = row.line
            if row.error is not None:
                broken_count += 1
        writer.commit()
    return broken_count

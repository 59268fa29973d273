"""The job of a pipeline that reads rows of the user's: in place, or made into rows of our own."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import closing
from itertools import islice, pairwise
from typing import Any

from dataflow_grounding._util.addresses import is_web
from dataflow_grounding._util.errors import InputError, SpecError, errors_as
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding._util.paths import joined, kind_of, state_of
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.inputs import JSON_LINES, Input, plain_input
from dataflow_grounding.data.records import as_json, read_object
from dataflow_grounding.data.results_folder import PICTURES
from dataflow_grounding.data.rows import Row, RowWriter, as_line, write_text
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.engine.keyed_log import sealed, unsealed
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import IMAGE_COLUMN, in_pilot
from dataflow_grounding.jobs.downloads import Downloads
from dataflow_grounding.jobs.input_rows import guess_column, record_rows
from dataflow_grounding.jobs.spec_job import SpecJob
from dataflow_grounding.operators import CaptionGenerator
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import RowsData, Spec

FIRST = 50  # rows whose columns are looked at before a run
CAPTIONS = "captions"
"""The folder of the step that captions pictures, before step 0."""


class RowsJob(SpecJob):
    """A pipeline whose first step reads what `data.input_jsonl` names. Without `has_input`, the
    caller has records from somewhere else, and takes them through `steps` by itself.
    """

    def __init__(self, spec: Spec, serving: Serving, *, has_input: bool = True) -> None:
        super().__init__(spec, serving)
        data = spec.block.data
        assert isinstance(data, RowsData)
        self._data = data
        self._data_key = f"{self.name}.data"
        self._ready = False  # whether `prepare` has looked at the input, and made its rows
        self._from_input = False  # whether the first step reads it, not an earlier step's file
        self.inputs = []
        if has_input:
            self._take_input()
        else:
            self._take_steps_on(ResultsStorage("", spec.results_dir))

    def _take_input(self) -> None:
        self.inputs = [self._data.input_jsonl]
        self._input = self.find_input()
        storage = self._find_storage()
        self._take_steps_on(storage)
        # the first wanted step; one that writes captions may come before it, and has no number
        self._first = self.steps[0]
        self._from_input = self._first.storage.operator_step == 0
        self._check_input()
        _refuse_gaps(self.steps)
        if self._from_input:
            self.steps = [*self._captioning(storage), *self.steps]

    def _take_steps_on(self, storage: ResultsStorage) -> None:
        # All steps are made, wanted or not: a step's folder and input go by those before it.
        self.take_steps(self.make_steps(storage))

    def find_input(self) -> Input:
        path = self._data.input_jsonl
        # JSON lines are read as they are: importing the readers of all other formats is saved.
        if path.endswith(JSON_LINES) and kind_of(path) == "file":
            return plain_input(path)
        from dataflow_grounding.formats.inputs import find_other_input  # readers of all formats

        other = find_other_input(path, self._data.split, self.spec.results_dir)
        return plain_input(path) if other is None else other

    def _find_storage(self) -> ResultsStorage:
        # Rows are made where the file can't be read as it is, its columns have other names, or its
        # pictures are fetched.
        data = self._data
        folders = (data.image_root,) if data.image_root else self._input.folders
        self._made: str | None = None
        if not self._input.plain or data.columns or data.fetches:
            self._made = os.path.join(self.spec.results_dir, ".ckpt", "input.jsonl")
            # Rows in files of text, and folders of pictures, hold none.
            is_text = self._input.path.endswith((".jsonl", ".json", ".csv", ".tsv"))
            if data.fetches or not (self._input.bare or is_text):
                folders = (*folders, self.spec.results_dir)
        storage = ResultsStorage(
            self._made or self._input.path, self.spec.results_dir, image_root=data.image_root
        )
        storage.folders = folders
        if self._made:
            storage.made_of = self._input.path
        return storage

    def _check_input(self) -> None:
        first = self._first.storage
        if self._from_input:
            path = self._data.input_jsonl
            if self._input.plain and not kind_of(path):
                raise InputError(f"no input file {path}: check data.input_jsonl")
        elif not os.path.exists(first.input_path):
            before = first.operator_step - 1
            raise InputError(
                f"step {first.operator_step} reads {first.input_path}: run step {before} first"
            )

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        """Return all steps of the pipeline as the spec states it, on `storage`."""
        raise NotImplementedError

    @property
    def reads(self) -> str:
        return self._input.path if self._from_input else super().reads

    @property
    def _is_pipe(self) -> bool:  # or the like, which can be read only once
        return self._input.plain and kind_of(self._input.path) != "file"

    def definitions(self) -> dict[str, str]:
        return dict(self._data.glossary)

    def where(self, row: Row) -> str:
        if not self._from_input or not self._input.bare:
            return super().where(row)
        # A folder has no lines: its rows are pictures.
        picture = (row.data or {}).get(self._roles["image"], "")
        return joined(self._input.path, str(picture))

    def remarks(self) -> list[str]:
        if not self._from_input:
            return super().remarks()
        of_input = [self._input.remark, self._input.passed_over]
        return [*super().remarks(), *filter(None, of_input)]

    @property
    def image_root_key(self) -> str:
        return f"{self._data_key}.image_root" if self._from_input else ""

    @property
    def passed_over(self) -> str:
        return self._input.passed_over if self._from_input else ""

    def _captioning(self, storage: ResultsStorage) -> list[Step]:
        # Where the first step reads captions, and the input is pictures alone, it reads this step's
        # file.
        if not self._input.bare or "caption" not in self._first.operator.reads():
            return []
        if self.serving.needs_labels:
            what = (
                f"{self._input.path} has pictures without captions, and {self.serving.model} can't"
                " write captions"
            )
            instead = ""
            if hasattr(self._data, "classes"):
                instead = f", or name what to look for in {self._data_key}.classes"
            raise SpecError(f"{what}: choose another vlm.backend{instead}")
        storage = storage.reset().step()
        storage.steps = (CAPTIONS,)
        assert isinstance(self._first.storage, ResultsStorage)
        self._first.storage.reads = os.path.join(CAPTIONS, "annotations.jsonl")
        # Of its two outputs, the cleaned caption comes last: the column has that one.
        captioner = CaptionGenerator(self.serving).bound(
            input_image_key=self._roles["image"],
            output_caption_key=self._roles["caption"],
            output_cleaned_caption_key=self._roles["caption"],
        )
        return [Step(captioner, storage, numbered=False)]  # the numbers of the others stay

    @property
    def _roles(self) -> dict[str, str]:
        return {"image": IMAGE_COLUMN, **self._first.operator.reads(), "image_id": "image_id"}

    def prepare(self) -> None:
        """Look at the first rows, and write this job's own rows if it needs any; once."""
        if self._ready or not self._from_input:
            return
        if not self._is_pipe:
            sources = self._sources()
            if self._made is not None:
                self._make(self._made, sources)
        elif self._made is not None:
            raise InputError(
                f"{self._input.path} is not a file: save its rows in one to use"
                f" {self._data_key}.columns"
            )
        self._ready = True

    def _sources(self) -> dict[str, str]:
        rows = [row.data for row in islice(self._input.read(), FIRST) if row.data is not None]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        for role, column in self._data.columns.items():
            key = f"{self._data_key}.columns.{role}"
            if role not in self._roles:
                raise SpecError(
                    f"{key} is not one of {', '.join(self._roles)}{self._hint_at_role(role)}"
                )
            if columns and column not in columns:
                hint = nearest(column, columns) or f"; it has {', '.join(columns)}"
                raise InputError(f"{key}: {self._input.path} has no column {column!r}{hint}")
        by_role = {
            role: column for role, column in self._input.columns.items() if column in columns
        }
        by_role.update(self._data.columns)
        sources = {self._roles[role]: column for role, column in by_role.items()}
        self._look_for_columns(rows, columns, sources)
        self._look_for_addresses(rows, sources)
        return sources

    def _hint_at_role(self, name: str) -> str:
        if name == "caption" and getattr(self._data, "classes", None):
            return f": captions aren't read with {self._data_key}.classes, so leave it out"
        for role, column in self._roles.items():
            if column == name:
                return f": write {role}, whose column is {name}"
        return ""

    def _look_for_columns(
        self, rows: list[dict[str, Any]], columns: list[str], sources: dict[str, str]
    ) -> None:
        # Where no other looks like a missing one, the run's plan is checked later.
        if self._input.bare:
            return
        operator = self._first.operator
        taken = list(sources.values())
        missing: dict[str, str] = {}  # role → column
        for role, column in operator.reads().items():
            if role in operator.optional_keys:
                continue
            if column in columns:
                taken.append(column)
            elif column not in sources:
                missing[role] = column
        if not missing:
            return
        candidates: dict[str, str] = {}  # role → the user's column that may be it
        for role in missing:
            candidate = guess_column(role, rows, taken)
            if candidate is not None:
                candidates[role] = candidate
                taken.append(candidate)
        if not candidates:
            return
        lacking = " and ".join(f"no column {missing[role]!r}" for role in candidates)
        meant = " and ".join(repr(column) for column in candidates.values())
        keys = " ".join(
            shlex.quote(f"{self._data_key}.columns.{role}={column}")
            for role, column in candidates.items()
        )
        raise InputError(
            f"{self._input.path} has {lacking}; if {meant} should be taken, add {keys}"
        )

    def _look_for_addresses(self, rows: list[dict[str, Any]], sources: dict[str, str]) -> None:
        # Where only some would, each of them is its record's failure.
        if self._data.fetches:
            return
        image = self._roles["image"]
        column = sources.get(image, image)
        pictures = [row[column] for row in rows if row.get(column)]
        if pictures and all(is_web(picture) for picture in pictures):
            what = (
                f"{self._input.path} has pictures at http addresses, which are not fetched unasked"
            )
            raise InputError(
                f"{what}: add {self._data_key}.allow_http=true, or name their hosts in allow_hosts"
            )

    def _make(self, path: str, sources: dict[str, str]) -> None:
        # Next to the rows is what they were made of, by which the next run tells whether they still
        # hold. It isn't written where a picture couldn't be fetched: the next run tries again.
        state_path = os.path.join(os.path.dirname(path), "input.json")
        made_of: list[Any] | None = None  # all that the rows depend on; None for a pipe, say
        if self._input.files:
            states = [state_of(file) for file in self._input.files]
            made_of = [__version__, self._data.model_dump(), sources, *states]
        before = unsealed(read_object(state_path)) or {}
        if (
            made_of is not None
            and before.get("known") == made_of
            and before.get("made") == self._state(path)
            and before["pilot"] in (None, self.pilot)
        ):
            return
        fetch = None
        if self._data.fetches:
            data = self._data
            fetch = Downloads(
                self.spec.results_dir, hosts=data.allow_hosts, no_others=not data.allow_http
            ).fetch
            say(f"Fetching the pictures of {self._input.path} that aren't here yet.")
        image = self._roles["image"]
        total = None if self.pilot is None else sum(1 for _ in self._input.read())
        rows = record_rows(
            self._input.read(),
            sources,
            image,
            self.spec.results_dir,
            fetch,
            lambda place: in_pilot(place, total, self.pilot),
        )
        broken = _write(path, rows)
        if broken and fetch:
            return
        state = {"known": made_of, "pilot": self.pilot, "made": self._state(path)}
        write_text(state_path, json.dumps(sealed(as_json(state))) + "\n")

    def _state(self, path: str) -> list[Any]:
        return [state_of(path), os.path.isdir(os.path.join(self.spec.results_dir, PICTURES))]


def _refuse_gaps(steps: list[Step]) -> None:
    for step, following in pairwise(steps):
        if step.storage.operator_step + 1 != following.storage.operator_step:
            between = f"between {step.label} and {following.label}"
            raise SpecError(f"workflow.steps: {between} there is a step: name it too")


def _write(path: str, rows: Iterator[Row]) -> int:
    # Each is in the line that it has in the user's file; other lines are left empty.
    broken = 0
    last_line = 0
    with errors_as(InputError, f"can't write {path}"), closing(RowWriter(path)) as writer:
        for row in rows:
            empty_lines = "\n" * (row.line - last_line - 1)
            writer.write_line(empty_lines + as_line(row))
            last_line = row.line
            if row.error is not None:
                broken += 1
        writer.commit()
    return broken

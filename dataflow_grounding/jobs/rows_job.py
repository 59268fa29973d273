"""The job of a pipeline that reads rows of the user's: in place, or made into rows in the results
folder.
"""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import closing
from itertools import islice, pairwise
from typing import Any

from dataflow_grounding._util.errors import InputError, SpecError, told_as
from dataflow_grounding._util.paths import is_web, kind_of, state_of
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import as_json, read_object
from dataflow_grounding.data.rows import Row, RowWriter, as_line, write_text
from dataflow_grounding.data.storage import ResultsStorage
from dataflow_grounding.data.working_folder import present
from dataflow_grounding.engine.keyed_log import sealed, unsealed
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import IMAGE_COLUMN
from dataflow_grounding.extras.formats.inputs import find_input, guessed, record_rows
from dataflow_grounding.extras.formats.pictures import FOLDER, Downloads
from dataflow_grounding.jobs.base import SpecJob, chosen, in_folders, recalled
from dataflow_grounding.operators import CaptionGenerator
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import RowsData, Spec, VlmBlock
from dataflow_grounding.spec.problems import nearest
from dataflow_grounding.watch.box_watch import BoxWatch

FIRST = 50  # rows whose columns are looked at
CAPTIONS = "captions"
"""The folder of the step that captions pictures, before step 0."""


class RowsJob(SpecJob):
    """A pipeline whose first step reads what `data.input_jsonl` names. Raises InputError,
    SpecError, MissingExtra.
    """

    def __init__(self, spec: Spec, serving: Serving) -> None:
        super().__init__(spec, serving)
        assert isinstance(spec.block.data, RowsData)
        data = self._data = spec.block.data
        self._block, self._ready = f"{self.name}.data", False
        self.inputs = [data.input_jsonl]
        self._given = find_input(data.input_jsonl, data.split, spec.results_dir)
        as_it_is = self._given.plain and not data.columns and not data.allow_http
        self._made = None if as_it_is else os.path.join(spec.results_dir, ".ckpt", "input.jsonl")
        storage = ResultsStorage(
            self._made or self._given.path, spec.results_dir, image_root=data.image_root
        )
        folders = (data.image_root,) if data.image_root else self._given.folders
        storage.folders = folders if as_it_is else (*folders, spec.results_dir)
        all_steps = in_folders(self.make_steps(storage))
        for step in all_steps:
            _watch_as_stated(step.operator, spec.block.vlm)
        steps = self.steps = chosen(all_steps, self.wanted(all_steps))
        self.box_format = recalled(all_steps)
        self._first, first = steps[0], steps[0].storage
        self._from_input = first.operator_step == 0
        if self._from_input:
            if self._given.plain and not kind_of(data.input_jsonl):
                raise InputError(f"no input file {data.input_jsonl}: check data.input_jsonl")
            self.steps = [*self._captioning(storage), *steps]
        elif not os.path.exists(present(first.input_path)):
            before = first.operator_step - 1
            raise InputError(
                f"step {first.operator_step} reads {first.input_path}: run step {before} first"
            )
        for one, next_one in pairwise(steps):
            if one.storage.operator_step + 1 != next_one.storage.operator_step:
                between = f"between {one.label} and {next_one.label}"
                raise SpecError(f"workflow.steps: {between} there is a step: name it too")

    def make_steps(self, storage: ResultsStorage) -> list[Step]:
        """All steps of the pipeline as the spec states it, on `storage`."""
        raise NotImplementedError

    @property
    def reads(self) -> str:
        return self._given.path if self._from_input else super().reads

    def remarks(self) -> list[str]:
        return [self._given.remark] if self._from_input and self._given.remark else []

    def wanted(self, steps: list[Step]) -> list[str]:
        """The numbers of those of all `steps` that the spec asks for."""
        return self.spec.block.workflow.steps

    def _captioning(self, storage: ResultsStorage) -> list[Step]:
        """The step that comes before the first, where that needs captions and there are none.
        Raises SpecError.
        """
        if not self._given.bare or "caption" not in self._first.operator.reads():
            return []
        if self.serving.needs_labels:
            what = (
                f"{self._given.path} has pictures without captions, and {self.serving.model} can't"
                " write captions"
            )
            instead = (
                f", or name what to look for in {self._block}.classes"
                if hasattr(self._data, "classes")
                else ""
            )
            raise SpecError(f"{what}: choose another vlm.backend{instead}")
        storage = storage.reset().step()
        storage.steps = (CAPTIONS,)
        assert isinstance(self._first.storage, ResultsStorage)
        self._first.storage.reads = os.path.join(CAPTIONS, "annotations.jsonl")
        captioner = CaptionGenerator(self.serving).bound(
            input_image_key=self._roles["image"],
            output_caption_key=self._roles["caption"],
            output_cleaned_caption_key=self._roles["caption"],
        )
        return [Step(captioner, storage, numbered=False)]  # the numbers of the others stay

    @property
    def _roles(self) -> dict[str, str]:
        """Role → the record's column: what can be named in `data.columns`."""
        return {"image": IMAGE_COLUMN, **self._first.operator.reads(), "image_id": "image_id"}

    def prepare(self) -> None:
        """Look at the first rows; make the rows of our own, where they aren't made. Raises
        InputError, SpecError.
        """
        if self._ready or not self._from_input:
            return
        if not self._given.plain or kind_of(self._given.path) == "file":
            sources = self._sources()
            if self._made is not None:
                self._make(self._made, sources)
        elif self._made is not None:  # of a pipe, which can be read once
            raise InputError(
                f"{self._given.path} is not a file: save its rows in one to use"
                f" {self._block}.columns"
            )
        self._ready = True

    def _sources(self) -> dict[str, str]:
        """The record's column → the user's, by the format and by `data.columns`. Raises InputError,
        SpecError.
        """
        rows = [row.data for row in islice(self._given.read(), FIRST) if row.data is not None]
        there = list(dict.fromkeys(name for row in rows for name in row))
        own = {role: column for role, column in self._given.columns.items() if column in there}
        by_role = {**own, **self._data.columns}
        for role, column in self._data.columns.items():
            key = f"{self._block}.columns.{role}"
            if role not in self._roles:
                raise SpecError(f"{key} is not one of {', '.join(self._roles)}")
            if there and column not in there:
                hint = nearest(column, there) or f"; it has {', '.join(there)}"
                raise InputError(f"{key}: {self._given.path} has no column {column!r}{hint}")
        sources = {self._roles[role]: column for role, column in by_role.items()}
        self._look(rows, there, sources)
        return sources

    def _look(self, rows: list[dict[str, Any]], there: list[str], sources: dict[str, str]) -> None:
        """Raises InputError where columns are missing that others may stand for, or pictures are
        somewhere else.
        """
        operator = self._first.operator
        needed = {
            role: name
            for role, name in operator.reads().items()
            if role not in operator.optional_keys
        }
        needed = {} if self._given.bare else needed
        missing = {
            role: name for role, name in needed.items() if name not in there and name not in sources
        }
        taken, found = [*sources.values(), *(set(needed.values()) & set(there))], dict[str, str]()
        for role in missing:
            if (column := guessed(role, rows, [*taken, *found.values()])) is not None:
                found[role] = column
        if found:
            lacking = " and ".join(f"no column {missing[role]!r}" for role in found)
            meant = " and ".join(map(repr, found.values()))
            keys = " ".join(
                shlex.quote(f"{self._block}.columns.{role}={name}") for role, name in found.items()
            )
            raise InputError(
                f"{self._given.path} has {lacking}; if {meant} should be taken, add {keys}"
            )
        self._look_for_addresses(rows, sources)

    def _look_for_addresses(self, rows: list[dict[str, Any]], sources: dict[str, str]) -> None:
        """Raises InputError where all pictures would have to be fetched, and none may be."""
        image = self._roles["image"]
        named = [given for row in rows if (given := row.get(sources.get(image, image)))]
        if named and not self._data.allow_http and all(map(is_web, named)):
            # of some, each is its record's failure
            what = (
                f"{self._given.path} has pictures at http addresses, which are not fetched unasked"
            )
            raise InputError(f"{what}: add {self._block}.allow_http=true")

    def _make(self, path: str, sources: dict[str, str]) -> None:
        """Write the rows, each in the line in which it stands in the user's file, unless they are
        there.
        """
        files, state_path = self._given.files, os.path.join(os.path.dirname(path), "input.json")
        # what the rows depend on; None where that can't be told
        known = (
            [__version__, self._data.model_dump(), sources, *map(state_of, files)]
            if files
            else None
        )
        state = unsealed(read_object(state_path)) or {}
        unchanged = known is not None and [state.get("known"), state.get("made")] == [
            known,
            self._state(path),
        ]
        if unchanged and state["pilot"] in (None, self.pilot):
            return
        fetch = Downloads(self.spec.results_dir).fetch if self._data.allow_http else None
        if fetch is not None:
            say(f"Fetching the pictures of {self._given.path} that aren't here yet.")
        image = self._roles["image"]
        rows = record_rows(
            islice(self._given.read(), self.pilot), sources, image, self.spec.results_dir, fetch
        )
        broken = self._write(path, rows)
        if not (broken and fetch):  # what could not be fetched is tried again
            made = {"known": known, "pilot": self.pilot, "made": self._state(path)}
            write_text(state_path, json.dumps(sealed(as_json(made))) + "\n")

    def _write(self, path: str, rows: Iterator[Row]) -> int:
        broken = at = 0
        with told_as(InputError, f"can't write {path}"), closing(RowWriter(path)) as writer:
            for row in rows:
                writer.write_line("\n" * (row.line - at - 1) + as_line(row))
                broken, at = broken + (row.error is not None), row.line
            writer.commit()
        return broken

    def _state(self, path: str) -> list[Any]:
        """That of the rows, and whether their pictures are there."""
        return [state_of(path), os.path.isdir(os.path.join(self.spec.results_dir, FOLDER))]


def _watch_as_stated(operator: Any, vlm: VlmBlock) -> None:
    watch = getattr(operator, "watch", None)
    if isinstance(watch, BoxWatch):
        stated = vlm.model_fields_set
        on_suspect = vlm.on_suspect_boxes if "on_suspect_boxes" in stated else watch.on_suspect
        operator.watch = BoxWatch(
            on_suspect, vlm.check_every if "check_every" in stated else watch.every
        )

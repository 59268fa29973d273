"""A spec's `data.input_jsonl` as the first step reads it: in place, or made into rows in the results folder."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from dataflow_grounding.elsewhere import kind_of, state_of
from dataflow_grounding.engine.keyed_log import sealed, unsealed
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import IMAGE_COLUMN
from dataflow_grounding.errors import InputError, SpecError, told_as
from dataflow_grounding.formats.inputs import find_input, guessed, record_rows
from dataflow_grounding.formats.pictures import FOLDER, Downloads, is_address
from dataflow_grounding.operators import CaptionGenerator
from dataflow_grounding.records import as_json, read_object
from dataflow_grounding.rows import Row, RowWriter, as_line, write_text
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import RowsData
from dataflow_grounding.spec.problems import nearest
from dataflow_grounding.storage import ResultsStorage
from dataflow_grounding.terminal import say
from dataflow_grounding.version import __version__

FIRST = 50  # rows whose columns are looked at
CAPTIONS = "captions"
"""The folder of the step that captions pictures, before step 0."""


class SpecInput:
    """The input that `data` names. Raises InputError, SpecError, MissingExtra.

    Args:
        data: The spec's block.
        results_dir: Where rows and pictures are put that are not in files of the user.
        block: What the block is called, for messages.
    """

    def __init__(self, data: RowsData, results_dir: str, block: str) -> None:
        self.given = find_input(data.input_jsonl, data.split, results_dir)
        self._data, self._results_dir, self._block = data, results_dir, block
        as_it_is = self.given.plain and not data.columns and not data.allow_http
        self._made = None if as_it_is else os.path.join(results_dir, ".ckpt", "input.jsonl")
        self.storage = ResultsStorage(self._made or self.given.path, results_dir, image_root=data.image_root)
        folders = (data.image_root,) if data.image_root else self.given.folders
        self.storage.folders = folders if as_it_is else (*folders, results_dir)
        self.first: Step | None = None
        self._ready = False

    def begin(self, first: Step, serving: Serving) -> list[Step]:
        """Let the pipeline's first step read the input; what has to come before it, if anything. Raises SpecError."""
        self.first = first
        if not self.given.bare or "caption" not in first.operator.reads():
            return []
        if serving.needs_labels:
            what = f"{self.given.path} has pictures without captions, and {serving.model} can't write captions"
            instead = f", or name what to look for in {self._block}.classes" if hasattr(self._data, "classes") else ""
            raise SpecError(f"{what}: choose another vlm.backend{instead}")
        storage = self.storage.reset().step()
        storage.steps = (CAPTIONS,)
        assert isinstance(first.storage, ResultsStorage)
        first.storage.reads = os.path.join(CAPTIONS, "annotations.jsonl")
        captioner = CaptionGenerator(serving).bound(
            input_image_key=self._roles["image"],
            output_caption_key=self._roles["caption"],
            output_cleaned_caption_key=self._roles["caption"],
        )
        return [Step(captioner, storage, numbered=False)]  # the numbers of the others stay

    @property
    def _roles(self) -> dict[str, str]:
        """Role → the record's column: what can be named in `data.columns`."""
        assert self.first is not None
        return {"image": IMAGE_COLUMN, **self.first.operator.reads(), "image_id": "image_id"}

    def prepare(self, pilot: int | None) -> None:
        """Look at the first rows; make the rows of our own, where they aren't made. Raises InputError, SpecError."""
        if self.first is None or self._ready:
            return
        if not self.given.plain or kind_of(self.given.path) == "file":
            sources = self._sources()
            if self._made is not None:
                self._make(self._made, sources, pilot)
        elif self._made is not None:  # of a pipe, which can be read once
            raise InputError(f"{self.given.path} is not a file: save its rows in one to use {self._block}.columns")
        self._ready = True

    def _sources(self) -> dict[str, str]:
        """The record's column → the user's, by the format and by `data.columns`. Raises InputError, SpecError."""
        rows = [row.data for row in islice(self.given.read(), FIRST) if row.data is not None]
        there = list(dict.fromkeys(name for row in rows for name in row))
        own = {role: column for role, column in self.given.columns.items() if column in there}
        by_role = {**own, **self._data.columns}
        for role, column in self._data.columns.items():
            key = f"{self._block}.columns.{role}"
            if role not in self._roles:
                raise SpecError(f"{key} is not one of {', '.join(self._roles)}")
            if there and column not in there:
                hint = nearest(column, there) or f"; it has {', '.join(there)}"
                raise InputError(f"{key}: {self.given.path} has no column {column!r}{hint}")
        sources = {self._roles[role]: column for role, column in by_role.items()}
        self._look(rows, there, sources)
        return sources

    def _look(self, rows: list[dict[str, Any]], there: list[str], sources: dict[str, str]) -> None:
        """Raises InputError where columns are missing that others may stand for, or pictures are somewhere else."""
        assert self.first is not None
        operator = self.first.operator
        needed = {role: name for role, name in operator.reads().items() if role not in operator.optional_keys}
        needed = {} if self.given.bare else needed
        missing = {role: name for role, name in needed.items() if name not in there and name not in sources}
        taken, found = [*sources.values(), *(set(needed.values()) & set(there))], dict[str, str]()
        for role in missing:
            if (column := guessed(role, rows, [*taken, *found.values()])) is not None:
                found[role] = column
        if found:
            lacking = " and ".join(f"no column {missing[role]!r}" for role in found)
            meant = " and ".join(map(repr, found.values()))
            keys = " ".join(shlex.quote(f"{self._block}.columns.{role}={name}") for role, name in found.items())
            raise InputError(f"{self.given.path} has {lacking}; if {meant} should be taken, add {keys}")
        image = self._roles["image"]
        if not self._data.allow_http and any(is_address(row.get(sources.get(image, image))) for row in rows):
            what = f"{self.given.path} has pictures at http addresses, which are not fetched unasked"
            raise InputError(f"{what}: add {self._block}.allow_http=true")

    def _make(self, path: str, sources: dict[str, str], pilot: int | None) -> None:
        """Write the rows, each in the line in which it stands in the user's file, unless they are there."""
        files, state_path = self.given.files, os.path.join(os.path.dirname(path), "input.json")
        # what the rows depend on; None where that can't be told
        known = [__version__, self._data.model_dump(), sources, *map(state_of, files)] if files else None
        state = unsealed(read_object(state_path)) or {}
        unchanged = known is not None and [state.get("known"), state.get("made")] == [known, self._state(path)]
        if unchanged and state["pilot"] in (None, pilot):
            return
        fetch = Downloads(self._results_dir).fetch if self._data.allow_http else None
        if fetch is not None:
            say(f"Fetching the pictures of {self.given.path} that aren't here yet.")
        image = self._roles["image"]
        rows = record_rows(islice(self.given.read(), pilot), sources, image, self._results_dir, fetch)
        broken = self._write(path, rows)
        if not (broken and fetch):  # what could not be fetched is tried again
            made = {"known": known, "pilot": pilot, "made": self._state(path)}
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
        return [state_of(path), os.path.isdir(os.path.join(self._results_dir, FOLDER))]

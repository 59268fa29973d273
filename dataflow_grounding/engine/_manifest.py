"""What a finished run leaves in its folder, so that the same run isn't done again."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from dataflow_grounding._util.paths import state_of
from dataflow_grounding._util.secrets import blotted
from dataflow_grounding._util.version import OUTPUT
from dataflow_grounding.data.records import JsonObject, Record, as_json
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.facts import fact, keep_fact
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.source import Source, files_of_images
from dataflow_grounding.engine.summary import MAY_CHANGE, Summary

FINISHED = "finished"  # the name of the fact


class Manifest:
    """A segment's entry in `.ckpt/facts.json`: digests of its input, and its output's state."""

    def __init__(self, steps: list[Step], source: Source, options: RunOptions) -> None:
        self._folder = steps[0].storage.checkpoint_folder
        # its key there: "step0_ExpressionExtractor..step1_PhraseGrounder"
        self._entry = f"{steps[0].label}..{steps[-1].label}"
        # before the run reads anything, to see at the end whether the input has changed
        self._input_before = state_of(source.path)
        self._started = time.time_ns()  # since 1970
        self._steps = steps
        self._source = source
        self._run_settings = {
            "version": OUTPUT,
            "name": source.name,
            "pilot": options.pilot,
            "attempts": options.max_attempts,
        }

    @cached_property
    def _settings(self) -> str | None:
        """A digest, which is kept; operators settle some settings only before the first record."""
        return settings_of(self._steps, self._run_settings)

    def finished(self) -> Summary | None:
        """Return the summary of the earlier run that did just this, if all is as it left it."""
        entry = self._entries().get(self._entry)
        if entry is None or self._settings is None or entry.get("settings") != self._settings:
            return None
        # each finished run leaves one, even an empty one
        if not os.path.exists(self._steps[0].storage.failures_path):
            return None
        if entry.get("outputs") != self._output_states():
            return None
        # There may be more files than these: another pipeline's in the same folder.
        if self._files_there() < entry.get("files_there", 0):
            return None
        # This comes last because it takes longest: all rows and images are looked at.
        if entry.get("input") != self._source.fingerprint():
            return None
        if entry.get("pictures", "") != self._further_pictures():
            return None
        return self._summary_of(entry)

    def _summary_of(self, entry: JsonObject) -> Summary:
        summary = Summary(
            annotations=self._steps[-1].storage.output_path,
            failures_file=self._steps[0].storage.failures_path,
            already_complete=True,
        )
        for name, value in entry["summary"].items():  # fields of Summary, as `_entry_of` kept them
            is_counter = isinstance(value, dict)  # what JSON made of one
            setattr(summary, name, Counter(value) if is_counter else value)
        return summary

    def write(self, summary: Summary) -> None:
        """Remember a finished run if doing it again would give the same; else forget it."""
        if summary.notes["image_changed"]:
            entries: dict[
                str, JsonObject
            ] = {}  # other segments may have used the image: none counts as finished
        else:
            entries = self._entries()
            entries.pop(self._entry, None)
        fingerprint = None  # where it is None, no entry is written
        if self._would_come_out_the_same(summary):
            fingerprint = self._source.fingerprint(unchanged_since=self._started)
        if self._input_before != state_of(self._source.path):
            # the run may have read some rows of the old input and some of the new one
            summary.notes["input_changed"] += 1
        has_changed = summary.notes["input_changed"] or summary.notes["image_changed"]
        if fingerprint is not None and not has_changed:
            entries[self._entry] = self._entry_of(summary, fingerprint)
        keep_fact(self._folder, FINISHED, entries)

    def _entries(self) -> dict[str, JsonObject]:
        return dict(fact(self._folder, FINISHED) or {})

    def _would_come_out_the_same(self, summary: Summary) -> bool:
        """Return whether it would, as far as the run itself tells."""
        # without settings, nobody knows what its steps depend on
        if self._settings is None or not summary.done:
            return False
        noted_codes = {code for code, count in summary.notes.items() if count}
        return not summary.handover.passing_failures and noted_codes.isdisjoint(MAY_CHANGE)

    def _entry_of(self, summary: Summary, fingerprint: str) -> JsonObject:
        names = ["records", "done", "failed", "expressions", "notes", "failures"]
        fields = {name: getattr(summary, name) for name in names}
        fields["models"] = [blotted(model) for model in summary.models]
        entry: JsonObject = {
            "settings": self._settings,
            "input": fingerprint,
            "outputs": self._output_states(),
            "files_there": self._files_there(),
            "pictures": self._further_pictures(),
        }
        return as_json({**entry, "summary": fields})

    def _further_pictures(self) -> str:
        """Return a digest of pictures in the last step's file that the input doesn't name."""
        columns = {step.image_key for step in self._steps if step.image_key}
        input_column = self._source.image_key
        written_columns: set[str] = set()
        for step in self._steps:
            written_columns.update(step.operator.writes().values())
        if input_column not in written_columns:  # it has the input's pictures: see `fingerprint`
            columns.discard(input_column)
        path = self._steps[-1].storage.output_path
        if not columns or not os.path.exists(path):
            return ""
        digest = hashlib.sha256()
        folders = self._steps[0].storage.image_folders
        for column in sorted(columns):
            records = (Record(row.data or {}, folders) for row in read_rows(path))
            for file in files_of_images(records, column):
                digest.update(repr(file).encode())
        return digest.hexdigest()

    def _files_there(self) -> int:
        return sum(step.operator.files_there() or 0 for step in self._steps)

    def _output_states(self) -> list[list[int] | None]:
        states: list[list[int] | None] = []
        for step in self._steps:
            state = state_of(step.storage.output_path)
            states.append(None if state is None else state[:2])  # its size and time
        return states


def settings_of(steps: Sequence[Step], extra: JsonObject) -> str | None:
    """Return a digest of all that the columns depend on besides rows and replies, if known."""
    parts: list[Any] = [extra]
    for step in steps:
        operator = step.operator
        # complete once the operator has settled what it asks, before the first record
        settings = operator.settings()
        if settings is None:
            return None
        serving = operator.serving
        who_answers: list[Any] | None = None
        if serving is not None:
            who_answers = [serving.identity(), repr(serving.image_limits)]
            # a limit that the user has stated isn't part of the limits' repr
            if serving.image_limits.picture_bytes is not None:
                who_answers.append(serving.image_limits.picture_bytes)
        parts.append([step.label, operator.reads(), operator.writes(), settings, who_answers])
    try:
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except (TypeError, ValueError):  # the settings of a user's operator may be no JSON
        return None

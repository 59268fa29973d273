"""The files of a run: rows leave in input order, and each file is written whole or not at all."""

import glob
import os
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from dataflow_grounding._util.errors import RecordError, RunStopped
from dataflow_grounding._util.results_names import SHARDS
from dataflow_grounding._util.secrets import blotted
from dataflow_grounding._util.terminal import shown
from dataflow_grounding.data.records import JsonObject, Record, Update, dump_line, parse_line
from dataflow_grounding.data.rows import RowWriter, remove_unfinished
from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.plan import SUSPECT, UNSEEN, Step, no_marks, with_unseen
from dataflow_grounding.engine.shard import BLOCK_ROWS, write_line_numbers
from dataflow_grounding.engine.summary import Summary


class _WaitingRow(NamedTuple):
    """A row that can't be written yet: one before it isn't finished."""

    input_line: int
    records: list[str]  # as lines of JSON, after each step that the row got through
    failures: list[str]  # the same


@dataclass
class Outcome:
    """What became of one row."""

    line: int  # in the input
    image_id: str | None
    records: list[Record] = field(default_factory=list)  # after each step that it got through
    failures: list[tuple[str, RecordError]] = field(default_factory=list)  # by its step's label


class Outputs:
    """Writes one file per step, and `failures.jsonl`, in the order of rows."""

    def __init__(self, steps: list[Step], summary: Summary, keep_lines: bool = False) -> None:
        self.steps = steps
        self.summary = summary
        self.next = 0  # the place of the oldest row that is not finished
        self._waiting: dict[int, _WaitingRow] = {}  # by the row's place
        self._failed_after = Counter[int]()  # failed rows by how many steps they got through
        # for each step, the places of the rows that its file lacks, in order ("q": 64-bit numbers)
        self._missing = [array("q") for _ in steps]
        # For each step, the input's lines of the rows in its file: shards are merged by them. []
        # unless they are kept.
        self._input_lines: list[array[int]] = []
        if keep_lines:
            self._input_lines = [array("q") for _ in steps]
        # By the code of a note: each (place of a row, index of a step) whose result may be wrong.
        # StepAsk.note adds them, because a record's priority is such a pair.
        self.marks = no_marks()
        self.failures_path = steps[0].storage.failures_path
        with storing(steps[0].storage.output_path):
            self._writers = [RowWriter(step.storage.output_path) for step in steps]
            self._failures = RowWriter(self.failures_path)

    def put(self, place: int, outcome: Outcome) -> None:
        """Take the outcome of the row at a place; write all rows up to the first unfinished one."""
        self._count(outcome)
        for _, error in outcome.failures:
            name = outcome.image_id or f"line {outcome.line}"
            line = shown(f"{name:.60}: {error!s:.400}", lines=False)
            self.summary.tell_failure(place, line)
        self._waiting[place] = _WaitingRow(
            input_line=outcome.line,
            records=[dump_line(record) for record in outcome.records],
            failures=[
                dump_line(_failure(outcome, step, error)) for step, error in outcome.failures
            ],
        )
        with storing(self.failures_path):
            while self.next in self._waiting:
                row = self._waiting.pop(self.next)
                for index, writer in enumerate(self._writers):
                    has_got_through = index < len(row.records)
                    if not has_got_through:  # it failed in this step, or before it
                        self._missing[index].append(self.next)
                        continue
                    writer.write_line(row.records[index])
                    if self._input_lines:
                        self._input_lines[index].append(row.input_line)
                for line in row.failures:
                    self._failures.write_line(line)
                self.next += 1

    def _set_marks(self) -> None:
        """Mark rows in doubt in the file of the step that found that, and of later steps."""
        for step, writer in enumerate(self._writers):
            suspects = self._numbers_in_file(SUSPECT, step)
            if suspects:
                writer.set_in(suspects, lambda row: {SUSPECT: True})
                self.summary.notes[SUSPECT] = len(suspects)
            unseen = self._numbers_in_file(UNSEEN, step)
            if unseen:
                # the summary has the count of the last step's file
                is_last = step == len(self.steps) - 1
                writer.set_in(unseen, partial(self._with_unseen, is_counted=is_last))

    def _with_unseen(self, row: JsonObject, is_counted: bool) -> Update:
        columns, unseen = with_unseen(row)
        if is_counted:
            self.summary.count_unseen(row, unseen)
        return columns

    def _numbers_in_file(self, code: str, step: int) -> set[int]:
        """Return at which numbers, from 0, a step's file has the rows in doubt."""
        # a doubt of a later step came after this file's row was made
        in_doubt = {place for place, marked_step in self.marks[code] if marked_step <= step}
        if not in_doubt:
            return set()
        missing = set(self._missing[step])
        written = (place for place in range(self.next) if place not in missing)
        return {number for number, place in enumerate(written) if place in in_doubt}

    def _count(self, outcome: Outcome) -> None:
        for _, error in outcome.failures:
            self.summary.failures[error.kind] += 1
            if error.passing:
                self.summary.handover.passing_failures += 1
            else:
                self.summary.handover.lasting_failures[error.kind] += 1
        self.summary.records += 1
        if len(outcome.records) == len(self.steps):  # perhaps with a failure: what a Partial lacks
            self.summary.done += 1
            self.summary.count_expressions(outcome.records[-1])
        else:
            self.summary.failed += 1
            if outcome.failures:  # else a defect has lost the row, which `_check` tells
                self._failed_after[len(outcome.records)] += 1

    def commit(self, rows: int) -> None:
        """Put the files in place, if each of the `rows` is written or among the failures."""
        self._check(rows)
        with storing(self.failures_path):
            # read before the file is replaced: failures of other steps, which aren't run now, stay
            for line in other_failures(self.failures_path, {step.label for step in self.steps}):
                self._failures.write(line)
            self._set_marks()
            self._failures.commit()
            keeps_lines = bool(self._input_lines)
            is_input_empty = not self.summary.records
            for index, writer in enumerate(self._writers):
                # Where no row got through a step, an earlier run's file stays. But line numbers
                # have to fit the file.
                may_be_empty = keeps_lines or is_input_empty
                if writer.count or may_be_empty:
                    writer.commit()
                if keeps_lines:
                    write_line_numbers(writer.path, self._input_lines[index])

    def _check(self, rows: int) -> None:
        """Raise RunStopped for a lost row: of each step, rows = written + failed."""
        failed = 0  # in this step, or an earlier one
        for number, (step, writer) in enumerate(zip(self.steps, self._writers, strict=True)):
            failed += self._failed_after[number]
            if writer.count + failed != rows:
                raise RunStopped(
                    f"internal error: of {rows} rows, {step.label} wrote {writer.count} and"
                    f" {failed} failed. Nothing was replaced, every reply is kept: run the same"
                    " command again, and report this"
                )

    def close(self) -> None:
        """Leave the files that are not put in place as they were before the run."""
        for writer in [*self._writers, self._failures]:
            writer.close()


def other_failures(path: str, labels: set[str]) -> list[JsonObject]:
    """Return the lines of a failures file that are of other steps than those with these labels."""
    kept: list[JsonObject] = []
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for line in file:
            with suppress(RecordError):  # a damaged line says nothing
                failure = parse_line(line)
                if failure.get("step") not in labels:
                    kept.append(failure)
    return kept


def _failure(outcome: Outcome, step: str, error: RecordError) -> JsonObject:
    line: dict[str, object] = {
        "id": outcome.image_id,
        "line": outcome.line,
        "step": step,
        "kind": error.kind,
        "message": str(error),
        "attempts": error.attempts,
        "retry": error.passing,
    }
    if error.reply is not None:
        line["reply"] = blotted(error.reply)
    return line


def remove_unfinished_of_shards(steps: list[Step]) -> None:
    """Remove half-written files that killed workers left in shards' folders."""
    results = steps[0].storage.cache_path
    folders = glob.glob(os.path.join(glob.escape(results), SHARDS, "*"))
    for folder in folders:
        in_shard = [step.storage.in_folder(folder) for step in steps]
        paths = [storage.output_path for storage in in_shard]
        paths.append(in_shard[0].failures_path)
        paths.append(os.path.join(in_shard[0].checkpoint_folder, BLOCK_ROWS))
        for path in paths:
            with suppress(OSError):  # a file that stays does no harm
                remove_unfinished(path)

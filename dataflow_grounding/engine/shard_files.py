"""An input split into shards in one pass, and the files of all shards put together in the input's order."""

import heapq
import json
import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.outputs import other_failures
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.shard import Shard, lines_path, read_places, write_places
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import InputError, RunStopped, told_as
from dataflow_grounding.rows import RowWriter, broken_row

Line: TypeAlias = tuple[int, str]  # where its row stood in the input, and a line of a file


def split(source: Source, of: int, results_dir: str) -> dict[Shard, int]:
    """Write each shard's rows into its folder; returns how many each has. Raises InputError."""
    all_of = [Shard(number, of, "rows.jsonl", tuple(source.columns())) for number in range(1, of + 1)]
    shards = [one._replace(rows=os.path.join(one.folder(results_dir), ".ckpt", one.rows)) for one in all_of]
    with ExitStack() as undo, storing(results_dir):
        writers = [RowWriter(shard.rows) for shard in shards]
        lines = [array("q") for _ in shards]
        for writer in writers:
            undo.callback(writer.discard)
        for number, row in source.split(of):
            writers[number - 1].write(broken_row(row.error) if row.error is not None else row.data or {})
            lines[number - 1].append(row.line)
        for writer, places in zip(writers, lines, strict=True):
            writer.commit()
            write_places(writer.path, places)
    return {shard: writer.count for shard, writer in zip(shards, writers, strict=True)}


def join(steps: list[Step], shards: list[Shard], summary: Summary) -> None:
    """Put the shards' files together in place of the steps' own. Raises InputError, RunStopped."""
    places = [[step.storage.in_folder(one.folder(step.storage.cache_path)) for one in shards] for step in steps]
    with ExitStack() as undo, storing(steps[0].storage.failures_path):
        failures = joined([one.failures_path for one in places[0]], summary.failures_file, undo, failed_lines)
        writers = []
        for step, of_shards in zip(steps, places, strict=True):
            writers.append(joined([one.output_path for one in of_shards], step.storage.output_path, undo))
        if writers[-1].count != summary.done:
            counts = f"{summary.done} rows were done, and {writers[-1].count} are in the shards"
            raise RunStopped(f"internal error: {counts}")
        for line in other_failures(failures.path, {step.label for step in steps}):
            failures.write(line)
        failures.commit()
        for writer in writers:
            if writer.count:  # else the earlier file stays
                writer.commit()
        for shard in shards:
            os.remove(shard.rows)


def joined(
    paths: list[str], target: str, undo: ExitStack, read: Callable[[str], Iterator[Line]] | None = None
) -> RowWriter:
    """A writer of `target` with the lines of all these files; discarded by `undo`. Raises InputError."""
    with told_as(InputError, f"can't write {target}"):
        writer = RowWriter(target)
        undo.callback(writer.discard)
        for _, line in heapq.merge(*map(read or step_lines, paths), key=lambda one: one[0]):
            writer.write_line(line)
    return writer


def step_lines(path: str) -> Iterator[Line]:
    """The lines of a step's file. Raises InputError where they aren't as many as were written."""
    if not os.path.exists(lines_path(path)):  # no row got so far
        return
    try:
        places = read_places(path)
        with open(path, encoding="utf-8", newline="\n") as file:
            yield from zip(places, file, strict=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not as its run left it: run that shard again ({error})") from None


def failed_lines(path: str) -> Iterator[Line]:
    """The lines of a file of failures. Raises InputError for one that is damaged."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            try:
                yield json.loads(line)["line"], line
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path} is not as its run left it: run that shard again") from None

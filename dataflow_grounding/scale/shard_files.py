"""An input split into shards, and the files of all shards put together in the input's order.

A shard has the rows of the input that fall to it. Next to its rows is a file of their places in
the whole input, and next to each file of a step one of the places of its rows: by these, the files
of all shards are merged.
"""

import heapq
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from operator import itemgetter
from typing import IO, TypeAlias

from dataflow_grounding._util.errors import InputError, RunStopped
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.rows import RowWriter, as_line
from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.outputs import other_failures
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.shard import (
    BLOCK_ROWS,
    Shard,
    lines_path,
    read_line_numbers,
    write_line_numbers,
)
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary

# The place of a row in the whole input, from 1, and a line of a file that is about the row.
PlacedLine: TypeAlias = tuple[int, str]


def write_shards(source: Source, count: int, results_dir: str) -> dict[Shard, int]:
    """Split an input into `count` blocks, with files of their rows; return how many each has."""
    shards = _blocks(count, tuple(source.columns()), results_dir)
    # Writers that were not committed leave nothing when they are closed.
    with ExitStack() as open_writers, storing(results_dir):
        writers = [open_writers.enter_context(closing(RowWriter(shard.rows))) for shard in shards]
        # For each shard: the line of each row in its file of the input, and the row's place in the
        # whole input, in turn.
        lines_and_places = [array("q") for _ in shards]
        for number, row in source.split(count):  # `number` is that of the row's shard, from 1
            writers[number - 1].write_line(as_line(row))
            lines_and_places[number - 1].extend((row.line, row.place))
        for writer, numbers_of_shard in zip(writers, lines_and_places, strict=True):
            writer.commit()
            write_line_numbers(writer.path, numbers_of_shard)
    paths = [shard.rows for shard in shards]
    bucket.send_files(*paths, *map(lines_path, paths))
    return {shard: writer.count for shard, writer in zip(shards, writers, strict=True)}


def _blocks(count: int, columns: tuple[str, ...], results_dir: str) -> list[Shard]:
    blocks: list[Shard] = []
    for number in range(1, count + 1):
        # With `rows`, its folder is called `block-2-8`. The path of its rows is within that.
        block = Shard(number, count, BLOCK_ROWS, columns)
        path = os.path.join(block.folder(results_dir), ".ckpt", BLOCK_ROWS)
        blocks.append(block._replace(rows=path))
    return blocks


def join(steps: list[Step], shards: list[Shard], summary: Summary) -> None:
    """Put the shards' files together in place of the steps' own, and remove the shards' rows."""
    files: dict[str, list[str]] = {}  # by the file to write, the shards' files of a step
    failures_of_shards: list[str] = []
    for step in steps:
        folders = [shard.folder(step.storage.cache_path) for shard in shards]
        storages_of_shards = [step.storage.in_folder(folder) for folder in folders]
        files[step.storage.output_path] = [each.output_path for each in storages_of_shards]
        # A shard has one file for the failures of all steps.
        failures_of_shards = [each.failures_path for each in storages_of_shards]
    # The file of failures is replaced. It may have some of steps that aren't run now.
    failures_of_other_steps = other_failures(summary.failures_file, {step.label for step in steps})
    # Where the results are at an address, the files are fetched: workers have written them there.
    shard_files = list(chain.from_iterable(files.values()))
    bucket.bring(*shard_files, *map(lines_path, shard_files), *failures_of_shards)
    write_joined(
        files, summary.failures_file, failures_of_shards, summary.done, failures_of_other_steps
    )
    for shard in shards:
        os.remove(shard.rows)
        bucket.remove(shard.rows)  # at the address, too, if there is one


def write_joined(
    files: Mapping[str, list[str]],
    failures: str,
    shard_failures: list[str],
    done: int,  # how many rows the last step should have
    earlier_failures: Iterable[JsonObject] = (),  # which come after the others
) -> list[str]:
    """Write shards' files as one for each step and one for failures; return the steps' files."""
    with ExitStack() as open_writers, storing(failures):
        failures_writer = open_writers.enter_context(closing(RowWriter(failures)))
        for _, line in _in_order(map(_failed_lines, shard_failures)):
            failures_writer.write_line(line)
        writers: list[RowWriter] = []
        for target, paths in files.items():
            writer = open_writers.enter_context(closing(RowWriter(target)))
            for _, line in _in_order(map(_step_lines, paths)):
                writer.write_line(line)
            writers.append(writer)
        rows = writers[-1].count
        if rows != done:
            raise RunStopped(f"internal error: {done} rows were done, and {rows} are in the shards")
        for failure in earlier_failures:
            failures_writer.write(failure)
        # An earlier run's file of a step stays where no row got through the step now. The file of
        # failures is always replaced.
        with_rows = [writer for writer in writers if writer.count]
        # only now, when all files are written, is the first one put in its place
        for writer in (failures_writer, *with_rows):
            writer.commit()
    return [writer.path for writer in with_rows]


def _in_order(parts: Iterable[Iterator[PlacedLine]]) -> Iterator[PlacedLine]:
    """Merge by place; lines of the same place come in the order of the parts."""
    return heapq.merge(*parts, key=itemgetter(0))


def _step_lines(path: str) -> Iterator[PlacedLine]:
    """Yield a shard's rows of a step, each after its place."""
    if not os.path.exists(lines_path(path)):  # no row got as far as this step
        return
    with _undamaged(path) as file:
        yield from zip(read_line_numbers(path), file, strict=True)


def _failed_lines(path: str) -> Iterator[PlacedLine]:
    """Yield a shard's failures, each after the place of its row, which may have several."""
    with _undamaged(path) as file:
        for line in file:
            yield json.loads(line)["line"], line


@contextmanager
def _undamaged(path: str) -> Iterator[IO[str]]:
    """Raise InputError where an error in the block shows that the file is damaged."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} is not as its run left it: run that shard again ({error})"
        ) from None

"""An input split into shards in one pass, and the files of all shards put together in the input's
order.
"""

import hashlib
import heapq
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import pairwise
from operator import itemgetter
from typing import IO, Any, TypeAlias

from dataflow_grounding._util.errors import InputError, RecordError, RunStopped
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import RowWriter, as_line, read_rows
from dataflow_grounding.data.working_folder import present
from dataflow_grounding.engine.keyed_log import storing
from dataflow_grounding.engine.outputs import other_failures
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.shard import Shard, lines_path, read_places, write_places
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.extras.scale.mirror import mirror_of
from dataflow_grounding.images.image import find_image, is_far

Line: TypeAlias = tuple[int, str]  # where its row stood in the input, and a line of a file


def split(source: Source, of: int, results_dir: str) -> dict[Shard, int]:
    """Write each shard's rows into its folder; returns how many each has. Raises InputError."""
    all_of = [
        Shard(number, of, "rows.jsonl", tuple(source.columns())) for number in range(1, of + 1)
    ]
    shards = [
        one._replace(rows=os.path.join(one.folder(results_dir), ".ckpt", one.rows))
        for one in all_of
    ]
    with ExitStack() as undo, storing(results_dir):
        writers = [undo.enter_context(closing(RowWriter(shard.rows))) for shard in shards]
        lines = [array("q") for _ in shards]
        for number, row in source.split(of):
            writers[number - 1].write_line(as_line(row))
            lines[number - 1].extend((row.line, row.place))
        for writer, places in zip(writers, lines, strict=True):
            writer.commit()
            write_places(writer.path, places)
    if (mirror := mirror_of(results_dir)) is not None:
        there = [path for shard in shards for path in (shard.rows, lines_path(shard.rows))]
        mirror.send(*(os.path.relpath(path, mirror.root) for path in there))
    return {shard: writer.count for shard, writer in zip(shards, writers, strict=True)}


def join(steps: list[Step], shards: list[Shard], summary: Summary) -> None:
    """Put the shards' files together in place of the steps' own. Raises InputError, RunStopped."""
    files: dict[str, list[str]] = {}
    for step in steps:
        parts = [step.storage.in_folder(one.folder(step.storage.cache_path)) for one in shards]
        files[step.storage.output_path] = [part.output_path for part in parts]
    kept = other_failures(summary.failures_file, {step.label for step in steps})
    failed, there = (
        [part.failures_path for part in parts],
        [path for paths in files.values() for path in paths],
    )
    present(*there, *map(lines_path, there), *failed, anew=True)
    joined(files, summary.failures_file, failed, summary.done, kept)
    mirror = mirror_of(summary.failures_file)
    for shard in shards:
        os.remove(shard.rows)
        if mirror is not None:
            with suppress(OSError):
                # all is done: what stays there is of no more use, and does no harm
                mirror.remove(os.path.relpath(shard.rows, mirror.root))


def joined(
    files: Mapping[str, list[str]],
    failures: str,
    failed: list[str],
    done: int,
    kept: Iterable[dict[str, Any]] = (),
) -> list[str]:
    """Put shards' files together: step files, by target, and those of failures, behind which come
    those to be `kept`.

    Returns the step files that have rows: of others, an earlier one stays. Raises InputError,
    RunStopped.
    """
    with ExitStack() as undo, storing(failures):
        writers: list[RowWriter] = []
        for target, paths in [(failures, failed), *files.items()]:
            writer = undo.enter_context(closing(RowWriter(target)))
            read = _step_lines if writers else _failed_lines
            before = 0
            for place, line in heapq.merge(*map(read, paths), key=itemgetter(0)):
                if writers and place <= before:
                    # a row may have several failures, but stands in a file once
                    what = (
                        f"two shards have line {place} of the input in"
                        f" {os.path.basename(os.path.dirname(target))}"
                    )
                    raise InputError(f"{what}: run them again, then merge")
                writer.write_line(line)
                before = place
            writers.append(writer)
        if writers[-1].count != done:
            raise RunStopped(
                f"internal error: {done} rows were done, and {writers[-1].count} are in the shards"
            )
        for row in kept:
            writers[0].write(row)
        with_rows = [writer for writer in writers[1:] if writer.count]
        for writer in (writers[0], *with_rows):
            writer.commit()
    return [writer.path for writer in with_rows]


def bytes_of(path: str) -> int:
    """How long a file of a shard is; 0 without it."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def digest_of(path: str) -> str:
    """What tells a step's file of a shard, with the places of its rows, from any other."""
    digest = hashlib.sha256()
    for part in filter(os.path.exists, (path, lines_path(path))):
        with open(part, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def pictures_of(path: str, folders: Sequence[Any]) -> list[str]:
    """Digests of where the pictures of a step's file are on this machine, and of their sizes and
    times; those elsewhere are not asked for.
    """
    places, states = hashlib.sha256(), hashlib.sha256()
    within = tuple(
        folder for folder in folders if isinstance(folder, str) and not is_elsewhere(folder)
    )
    for row in read_rows(path) if os.path.exists(path) else ():
        record = Record(row.data or {}, within)
        column = "image_path" if record.get("image_path") else "image"
        if isinstance(record.get(column), str) and not is_far(record, column):
            with suppress(RecordError):
                file = find_image(record, column)
                places.update(os.fsencode(f"{file.path}\n"))
                states.update(f"{file.file_bytes} {file.mtime_ns}\n".encode())
    return [places.hexdigest(), states.hexdigest()]


def _step_lines(path: str) -> Iterator[Line]:
    if not os.path.exists(lines_path(path)):  # no row got so far
        return
    with _as_left(path) as file:
        places = read_places(path)
        if any(place <= before for before, place in pairwise([0, *places])):
            raise ValueError("the places of its rows are not in order")
        yield from zip(places, file, strict=True)


def _failed_lines(path: str) -> Iterator[Line]:
    with _as_left(path) as file:
        yield from ((json.loads(line)["line"], line) for line in file)


@contextmanager
def _as_left(path: str) -> Iterator[IO[str]]:
    """A file of a shard. Raises InputError where it is damaged, or has not as many lines as were
    written.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} is not as its run left it: run that shard again ({error})"
        ) from None

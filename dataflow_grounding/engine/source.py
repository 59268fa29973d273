"""The rows that a run works on: read in order, a few at a time, each made into a record."""

import asyncio
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    MachineBusy,
    RecordError,
    RunStopped,
)
from dataflow_grounding._util.paths import is_absolute, kind_of, open_file
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.data.records import ROW_OF_IMAGE, Record, has_id, image_id_of
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.working_folder import present
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.engine.plan import Annotator, Step, image_column, may_ask
from dataflow_grounding.engine.shard import Shard, lines_path, read_places, shard_of
from dataflow_grounding.images.files import Header, read_header
from dataflow_grounding.images.image import ImageFile, find_image, is_far

SAMPLE = 1000  # pictures looked at before a run to know their sizes
# times as long as wide: in longer pictures no model sees anything, a probe's rectangles neither
LONGEST_SHAPE = 50

IMAGE_COLUMN = "image_path"  # the column of the image's path, unless a step names another


def identify(
    record: Record, image_key: str, image_root: str | None, rows_of_image: NumberTable
) -> None:
    """Give the record its `image_id`, and tell it apart from the rows before it, which
    `rows_of_image` remembers.
    """
    image_id = record.image_id = _told_apart(record, image_key, image_root, rows_of_image)
    if image_id is None:
        return
    stated, earlier = record.get(ROW_OF_IMAGE), rows_of_image.get(hash(image_id)) or 0
    record.occurrence = stated - 1 if isinstance(stated, int) and stated > 1 else earlier
    while record.occurrence and rows_of_image.get(hash(record.unique_id)):
        # another row is really called x@2
        record.occurrence += 1
    rows_of_image.set(hash(image_id), earlier + 1)
    if record.occurrence:
        rows_of_image.set(hash(record.unique_id), 1)


def _told_apart(
    record: Record, image_key: str, image_root: str | None, rows_of_image: NumberTable
) -> str | None:
    """The record's id; absolute paths that are called the same without their folders get numbers
    from the second on.
    """
    image_id, path = image_id_of(record, image_key, image_root), record.get(image_key)
    given = has_id(record.get("image_id")) or not isinstance(path, str) or not is_absolute(path)
    if image_id is None or "/" in image_id or given:
        return image_id
    number = rows_of_image.get(hash((image_id, path)))
    if number is None:
        number = (rows_of_image.get(hash((image_id,))) or 0) + 1
        rows_of_image.set(hash((image_id,)), number)
        rows_of_image.set(hash((image_id, path)), number)
    return image_id if number == 1 else f"{image_id}~{number}"


def pictures_of(records: Iterable[Record], image_key: str) -> OwnPictures:
    """The pictures of the first thousand records, without sizes of strips that are longer than
    LONGEST_SHAPE.
    """
    some = itertools.islice(records, SAMPLE)
    headers = list(
        filter(
            None, side_by_side(partial(_header, image_key), some, partial(is_far, key=image_key))
        )
    )
    sizes = Counter(
        header.size for header in headers if max(header.size) <= LONGEST_SHAPE * min(header.size)
    )
    media_types = Counter(header.media_type for header in headers)
    of_sizes, kinds = sizes.most_common(), [kind for kind, _ in media_types.most_common()]
    return OwnPictures([size for size, _ in of_sizes], kinds, [count for _, count in of_sizes])


def _header(image_key: str, record: Record) -> Header | None:
    with suppress(GroundingError):  # each tells its own trouble when its turn comes
        return read_header(find_image(record, image_key).path, b"")
    return None


class Source:
    """The first step's input file. Rows come with their place in it, from 0.

    Args:
        steps: Those that the rows go through; the first reads the file, the first with images names
            their column.
        name: What `source` of the records says; None leaves it out.
        pilot: Only the first so many rows; None takes all.
        shard: Only the rows of this part; None takes all.

    `seen` counts the rows that a shard's source has read, of all shards, and `digest` tells them
    from others.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str | None = None,
        pilot: int | None = None,
        shard: Shard | None = None,
    ) -> None:
        storage, keys = steps[0].storage, [step.image_key for step in steps]
        self.path = (shard and shard.rows) or present(storage.input_path)
        self.image_key = next(filter(None, keys), IMAGE_COLUMN)
        self._first_image_key = keys[0] or IMAGE_COLUMN
        self.name, self._pilot, self._shard = name, pilot, shard
        # not the user's own
        self._is_made = self.path.startswith(os.path.join(storage.cache_path, ""))
        self.seen, self.digest = 0, ""
        self._folders = storage.image_folders
        self._image_root = next(iter(self._folders), None)
        self._rows_of_image = NumberTable()
        self._numbered = self._rows()
        self._read_more = asyncio.Lock()

    def _rows(self) -> Iterator[tuple[int, Row]]:
        rows = enumerate(itertools.islice(read_rows(self.path), self._pilot))
        return enumerate(self._own(row._replace(place=place) for place, row in rows))

    def _own(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows of the shard; of a step's file of a shard all, with where in the input they
        stood.
        """
        if self._shard is None:
            yield from rows
        elif self._shard.rows:
            lines = read_places(self.path)
            for row, line, place in zip(rows, lines[::2], lines[1::2], strict=False):
                yield row._replace(line=line, place=place)
        elif self._keeps_lines():
            for row, line in zip(rows, read_places(self.path), strict=False):
                yield row._replace(line=line, place=line - 1)
        else:
            seen, digest = 0, hashlib.sha256()
            for seen, row in enumerate(rows, 1):  # noqa: B007
                digest.update(json.dumps([row.line, row.data], default=repr).encode())
                if self._shard.has(row, self.image_key, self._image_root):
                    yield row
            # else the file was not read to its end
            self.seen, self.digest = seen, digest.hexdigest()

    def _keeps_lines(self) -> bool:
        """Whether the file is of a shard's rows, and beside it is where in the input they stood."""
        if self._shard is None:
            return False
        return bool(self._shard.rows) or (self._is_made and os.path.exists(lines_path(self.path)))

    def columns(self) -> list[str]:
        """The columns of the first rows. The rows read for this are kept. Raises InputError when no
        row can be read.
        """
        if self._shard is not None and self._shard.columns:
            return list(self._shard.columns)
        ahead = [row for _, row in itertools.islice(self._numbered, 50)]
        readable = [row.data for row in ahead if row.data is not None] or self._first_readable(
            ahead
        )
        if not readable and self._shard is not None:  # a shard may have no rows
            readable = [
                row.data
                for row in itertools.islice(read_rows(self.path), 50)
                if row.data is not None
            ]
        if not readable:
            why = f"line {ahead[0].line}: {ahead[0].error}" if ahead else "it has no rows"
            raise InputError(f"nothing to do in {self.path}: {why}")
        self._numbered = itertools.chain(enumerate(ahead), self._numbered)
        return list(dict.fromkeys(column for row in readable for column in row))

    def _first_readable(self, ahead: list[Row]) -> list[dict[str, Any]]:
        """The first row that can be read, however far down. A file is read anew; what is read of a
        pipe is kept.
        """
        rows = self._rows() if kind_of(self.path) == "file" else self._numbered
        for _, row in rows:
            if rows is self._numbered:
                ahead.append(row)
            if row.data is not None:
                return [row.data]
        return []

    def split(self, of: int) -> Iterator[tuple[int, Row]]:
        """The rows, each with the number of the shard that it is in. Raises InputError if they
        can't be read.
        """
        return (
            (shard_of(row, of, self.image_key, self._image_root), row) for _, row in self._numbered
        )

    async def take(self, most: int) -> list[tuple[int, Row]]:
        """The next rows, read off the event loop; an empty list at the end. Raises RunStopped if
        they can't be read.
        """
        async with self._read_more:
            try:
                return await asyncio.to_thread(lambda: list(itertools.islice(self._numbered, most)))
            except InputError as error:
                raise RunStopped(f"{error}. Fix that, then run the same command again") from None

    def record(self, row: Row) -> Record:
        """The row as a record with its `image_id`. Raises the row's error."""
        if row.data is None:
            assert row.error is not None
            raise row.error
        record = Record(row.data, self._folders, place=row.place)
        identify(record, self.image_key, self._image_root, self._rows_of_image)
        if record.occurrence and self._first_image_key in record:
            record[ROW_OF_IMAGE] = record.occurrence + 1
        if self.name is not None:
            steps = record.get("pipeline_steps")  # to which steps add their labels
            if steps is not None and not (
                isinstance(steps, list) and all(isinstance(step, str) for step in steps)
            ):
                raise BrokenRow("column 'pipeline_steps' should be a list of texts")
            record.setdefault("source", self.name)
        return record

    def pictures(self) -> OwnPictures:
        """What the first pictures are. Reads the rows anew."""
        return pictures_of(self._records(), self._first_image_key)

    def may_ask(self, operator: Annotator, made: set[str]) -> bool | None:
        """Whether it may ask about any record; None where none gets that far. Steps make the
        columns `made` first.
        """
        if kind_of(self.path) != "file":
            return True
        unknown = not made.isdisjoint(operator.reads().values())
        found = None
        for record in self._records():
            try:
                column = image_column(operator, record)
                if column is not None and column not in made:
                    find_image(record, column)
                if unknown or may_ask(operator, record):
                    return True
                found = False
            except RecordError as error:
                if isinstance(error, MachineBusy):
                    return True
        return found

    def _records(self) -> Iterator[Record]:
        return (Record(row.data, self._folders) for _, row in self._rows() if row.data is not None)

    def length(self) -> int | None:
        """How many rows there are, as far as a quick look tells: exact for JSONL, of a shard about;
        else None.
        """
        if not (self.path.endswith((".jsonl", ".csv", ".tsv")) and os.path.isfile(self.path)):
            return None
        with open(self.path, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        lines = min(lines, self._pilot) if self._pilot else lines
        return lines // self._shard.of if self._shard else lines

    def fingerprint(self, unchanged_since: int | None = None) -> str | None:
        """Digest of rows and images; None if one can't be read twice, or changed at
        `unchanged_since` (ns) or after.
        """
        digest = hashlib.sha256()
        try:
            if kind_of(self.path) != "file":
                return None
            # the same rows may have moved in the input
            own = [lines_path(self.path)] if self._keeps_lines() else []
            for path in (self.path, *own):
                with open_file(path) as file:
                    for block in iter(lambda: file.read(1 << 20), b""):
                        digest.update(block)
            for state in side_by_side(
                self._image_state, self._records(), partial(is_far, key=self.image_key)
            ):
                if (
                    unchanged_since is not None
                    and state
                    and unchanged_since <= state[2] <= time.time_ns()
                ):
                    return None
                digest.update(repr(state).encode())
        except (OSError, GroundingError):
            return None
        return digest.hexdigest()

    def _image_state(self, record: Record) -> ImageFile | None:
        with suppress(GroundingError):
            return find_image(record, self.image_key)
        return None

"""The rows that a run works on: read in order, a few at a time, each made into a record.

A pilot is a run over some rows, to try a plan. A shard is one part of an input, worked on by
itself; one whose rows were split off into a file is a block, and has that file as `rows`.
"""

import asyncio
import functools
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    MachineBusy,
    RecordError,
    RunStopped,
)
from dataflow_grounding._util.number_table import ALL_BITS, NumberTable
from dataflow_grounding._util.paths import is_absolute, kind_of, open_input
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import ROW_OF_IMAGE, Record, has_id, image_id_of
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.engine.plan import Annotator, Step, image_column, may_ask
from dataflow_grounding.engine.shard import (
    lines_path,
    read_line_numbers,
    read_row_positions,
    shard_of,
)
from dataflow_grounding.images.files import Header, read_header
from dataflow_grounding.images.image import SECOND_NS, ImageFile, find_image, is_far, opened

if TYPE_CHECKING:
    from dataflow_grounding.engine.shard import Shard

BLOCK = 1 << 20  # bytes that are read at a time
SAMPLE = 1000  # pictures looked at before a run to know their sizes
FIRST_ROWS = 50  # of which the columns are looked at
# times as long as wide: in longer pictures no model sees anything, a probe's rectangles neither
LONGEST_SHAPE = 50

IMAGE_COLUMN = "image_path"  # the column of the image's path, unless a step names another


RowsOfImage: TypeAlias = "dict[int, int] | NumberTable"
"""How many rows each image had so far, and who has which id: hashes and numbers."""


def identify(
    record: Record, image_key: str, image_root: str | None, rows_of_image: RowsOfImage
) -> None:
    """Give a record `image_id` and `occurrence` (1 for `x@2`); call it in the order of rows."""
    image_id = _distinct_image_id(record, image_key, image_root, rows_of_image)
    record.image_id = image_id
    if image_id is None:
        return
    earlier_count = rows_of_image.get(hash(image_id)) or 0
    # If the input is an earlier run's output, the row may state which one of its image it is. That
    # number counts, because rows that failed in that run aren't here to be counted.
    stated_number = record.get(ROW_OF_IMAGE)
    if isinstance(stated_number, int) and stated_number > 1:
        record.occurrence = stated_number - 1
    else:
        record.occurrence = earlier_count
    # x@2 may be the `image_id` that an earlier row states itself: then this one is x@3
    while record.occurrence and rows_of_image.get(hash(record.unique_id)):
        record.occurrence += 1  # which changes `unique_id`
    rows_of_image[hash(image_id)] = earlier_count + 1
    if record.occurrence:
        # the other way round: a later row that states `image_id` x@2 is a second row of x@2
        rows_of_image[hash(record.unique_id)] = 1


def _distinct_image_id(
    record: Record, image_key: str, image_root: str | None, rows_of_image: RowsOfImage
) -> str | None:
    """Return the row's own id, else one from its picture's path that pictures rarely share."""
    image_id = image_id_of(record, image_key, image_root)
    path = record.get(image_key)
    states_id = has_id(record.get("image_id"))
    if image_id is None or states_id or not isinstance(path, str):
        return image_id
    is_name_alone = is_absolute(path) and "/" not in image_id
    if is_name_alone:  # files of this name may be in many folders: /one/x.jpg, then /two/x.jpg
        return _numbered_id(image_id, path, rows_of_image)
    # x.jpg, then x.png -> x, x.png
    file_name = f"{image_id}{os.path.splitext(path)[1]}"
    for candidate in (image_id, file_name):
        if _owns_or_takes(candidate, file_name, rows_of_image):
            return candidate
    # Both belong to other pictures: x.jpg has `x`, and x.png.jpg has `x.png`. This row counts as a
    # further one of the latter.
    return file_name


def _owns_or_takes(candidate: str, file_name: str, rows_of_image: RowsOfImage) -> bool:
    """Return whether a picture has this id; it gets the id if no picture has it."""
    # next to counts of rows, the table has each id's owner: a hash of the picture's `file_name`
    owner_key = hash((candidate, "whose"))
    own_hash = hash(file_name) & ALL_BITS
    owner = rows_of_image.get(owner_key)
    if owner is None:
        rows_of_image[owner_key] = own_hash
        return True
    return owner == own_hash


def _numbered_id(image_id: str, path: str, rows_of_image: RowsOfImage) -> str:
    """Return `x` for the first path of this name, `x~2` for the second; each keeps its number."""
    path_key = hash((image_id, path))
    # a tuple, because `identify` counts rows at the hash of the id itself
    last_number_key = hash((image_id,))
    number = rows_of_image.get(path_key)
    if number is None:
        number = (rows_of_image.get(last_number_key) or 0) + 1
        rows_of_image[last_number_key] = number
        rows_of_image[path_key] = number
    return image_id if number == 1 else f"{image_id}~{number}"


def pictures_of(records: Iterable[Record], image_key: str) -> OwnPictures:
    """Return the first SAMPLE pictures' sizes, but for long strips, and types, commonest first."""
    sizes: Counter[Size] = Counter()
    media_types: Counter[str] = Counter()
    examples: dict[Size, str] = {}
    sample = itertools.islice(records, SAMPLE)
    # pictures in stores are far: they are waited for side by side
    is_record_far = functools.partial(is_far, key=image_key)
    look = functools.partial(_path_and_header, image_key)
    for picture in side_by_side(look, sample, waits=is_record_far):
        if picture is None:  # the record has no picture that can be read
            continue
        path, header = picture
        media_types[header.media_type] += 1
        is_strip = max(header.size) > LONGEST_SHAPE * min(header.size)
        if not is_strip:
            sizes[header.size] += 1
            examples.setdefault(header.size, path)  # the first one stays
    commonest = sizes.most_common()
    return OwnPictures(
        sizes=[size for size, _ in commonest],
        media_types=[media_type for media_type, _ in media_types.most_common()],
        counts=[count for _, count in commonest],
        examples=[examples[size] for size, _ in commonest],
    )


def _path_and_header(image_key: str, record: Record) -> tuple[str, Header] | None:
    image = opened(record, image_key)
    if image is not None:
        header = Header(image.size, image.facts.media_type, orientation=1)  # its size is upright
        return image.path, header
    with suppress(GroundingError):  # the record fails of that when its turn comes
        path = find_image(record, image_key).path
        # A PNG's end may say how it is turned. A sample can do without, and needn't read all of it.
        return path, read_header(path, whole_png=False)
    return None


def in_pilot(place: int, total: int | None, pilot: int | None) -> bool:
    """Return whether a pilot takes a row: evenly spread, or the first if `total` is unknown."""
    if pilot is None:
        return True
    if total is None:
        return place < pilot
    # of 10 rows, a pilot of 3 takes those at 0, 4 and 7
    return place * pilot % max(total, 1) < pilot


def files_of_images(records: Iterable[Record], key: str) -> Iterator[ImageFile | None]:
    """Yield the file that each record names in column `key`; None where it can't be found."""
    find = functools.partial(_file_of_image, key=key)
    return side_by_side(find, records, waits=functools.partial(is_far, key=key))


def _file_of_image(record: Record, key: str) -> ImageFile | None:
    with suppress(GroundingError):
        return find_image(record, key)
    return None


class Source:
    """The rows of the first step's input, or of one part of it, each after its number: how many
    rows of this part come before it. Its own `place` is its position in the whole input.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str | None = None,
        pilot: int | None = None,
        shard: "Shard | None" = None,
    ) -> None:
        storage = steps[0].storage
        if shard is not None and shard.rows:
            self.path = shard.rows
        else:
            self.path = storage.input_path
        self._storage = storage
        image_keys = [step.image_key for step in steps]
        # The column of the pictures that tell rows apart. It is named by the first step that looks
        # at pictures, which may be a later one, such as the second.
        self.image_key = next(filter(None, image_keys), IMAGE_COLUMN)
        # The same as the very first step has it; the usual column if that step looks at none.
        self._first_image_key = image_keys[0] or IMAGE_COLUMN
        self.name = name  # the pipeline's; None where operators run without one
        self._pilot = pilot
        # by the place of a pilot's row that isn't a record yet: its image's id, its occurrence
        self._identities: dict[int, tuple[str | None, int]] = {}
        self._shard = shard
        # how many rows all shards have, and a digest of them, once the whole input was read
        self.seen = 0
        self.digest = ""
        self._folders = storage.image_folders
        self._image_root = next(iter(self._folders), None)
        self._rows_of_image = NumberTable()
        self._numbered_rows = self._rows(identifies=True)  # the rows that weren't taken yet
        self.empty_columns: list[str] = []  # that hold an empty list in each of the first rows
        # Many workers take rows: a generator that is at work in one thread can't be asked by
        # another.
        self._read_more = asyncio.Lock()

    def _rows(self, *, identifies: bool = False) -> Iterator[tuple[int, Row]]:
        """Yield the rows of pilot and shard, each after its number.

        A pilot's rows are identified only in the iteration from which the run makes its records.
        """
        numbered = enumerate(read_rows(self.path))  # by their places in the whole input
        rows: Iterator[Row] = (row._replace(place=place) for place, row in numbered)
        if self._pilot is not None:
            rows = itertools.islice(self._rows_of_pilot(rows, identifies), self._pilot)
        if self._shard is not None:
            rows = self._rows_of_shard(rows, self._shard)
        return enumerate(rows)  # by their numbers in this part

    def _rows_of_pilot(self, rows: Iterator[Row], identifies: bool) -> Iterator[Row]:
        """Yield a pilot's rows. All rows are identified, so that ids are those of a full run."""
        total = self._total
        # Where the total isn't known, the pilot takes the first rows and passes over none: then it
        # is enough that `record` identifies them in order.
        passes_over_rows = total is not None
        for row in rows:
            is_taken = in_pilot(row.place, total, self._pilot)
            if identifies and passes_over_rows and row.data is not None:
                record = Record(row.data, self._folders)
                identify(record, self.image_key, self._image_root, self._rows_of_image)
                if is_taken:
                    self._identities[row.place] = (record.image_id, record.occurrence)
            if is_taken:
                yield row

    @functools.cached_property
    def _total(self) -> int | None:
        if kind_of(self.path) != "file":
            return None
        return sum(1 for _ in read_rows(self.path))

    def _rows_of_shard(self, rows: Iterator[Row], shard: "Shard") -> Iterator[Row]:
        """Yield the shard's rows, each with its line and place in the whole input."""
        if shard.rows:  # a block, whose rows were split off into this file
            positions = read_row_positions(self.path)
            # strict=False: a pilot has fewer rows than there are positions
            for row, (line, place) in zip(rows, positions, strict=False):
                yield row._replace(line=line, place=place)
        elif self._keeps_lines():
            # It is an earlier step's output, with line numbers alone. In such an input each row
            # takes one line, so that its place, which counts from 0, is one less.
            for row, line in zip(rows, read_line_numbers(self.path), strict=False):
                yield row._replace(line=line, place=line - 1)
        else:
            yield from self._picked_from_all(rows, shard)

    def _picked_from_all(self, rows: Iterator[Row], shard: "Shard") -> Iterator[Row]:
        """Yield the shard's rows of the whole input; sets `seen` and `digest` at its end."""
        seen = 0
        digest = hashlib.sha256()
        for row in rows:
            seen += 1
            digest.update(json.dumps([row.line, row.data], default=repr).encode())
            if shard.has(row, self.image_key, self._image_root):
                yield row
        # set only here, because a caller that takes some rows hasn't read the whole input
        self.seen = seen
        self.digest = digest.hexdigest()

    def _keeps_lines(self) -> bool:
        """Return whether the file has the shard's rows alone, next to a file of their lines."""
        if self._shard is None:
            return False
        if self._shard.rows:  # a block
            return True
        is_output_of_run = self.path.startswith(os.path.join(self._storage.cache_path, ""))
        return is_output_of_run and os.path.exists(lines_path(self.path))

    def columns(self) -> list[str]:
        """Return the columns of the first rows, and set `empty_columns`; call it once, at first."""
        if self._shard is not None and self._shard.columns:
            return list(self._shard.columns)
        numbered = list(itertools.islice(self._numbered_rows, FIRST_ROWS))
        readable = [row.data for _, row in numbered if row.data is not None]
        if not readable and kind_of(self.path) == "file":  # its rows are read again
            of_shard = (row.data for _, row in self._rows() if row.data is not None)
            readable = list(itertools.islice(of_shard, 1))
        elif not readable:  # a pipe can't be: all up to the first row that can be read
            for number, row in self._numbered_rows:
                numbered.append((number, row))
                if row.data is not None:
                    readable = [row.data]
                    break
        if not readable and self._shard is not None:
            # The shard may have no rows. Then the first rows of the whole input tell the columns.
            of_all = itertools.islice(read_rows(self.path), FIRST_ROWS)
            readable = [row.data for row in of_all if row.data is not None]
        if not readable:
            storage = self._storage
            is_first_input = storage.input_path == storage.first_entry_file_name
            # the first step's rows may be in a file of ours, made of the user's own
            path = storage.made_of if is_first_input and storage.made_of else self.path
            why = "it has no rows"
            if numbered:
                _, first = numbered[0]
                why = f"line {first.line}: {first.error}"
            raise InputError(f"nothing to do in {path}: {why}")
        self._numbered_rows = itertools.chain(numbered, self._numbered_rows)
        columns = list(dict.fromkeys(column for row in readable for column in row))
        for column in columns:
            if all(row.get(column) == [] for row in readable):
                self.empty_columns.append(column)
        return columns

    def split(self, shard_count: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows, each after the number of the shard that it is in, from 1."""
        for _, row in self._numbered_rows:
            yield shard_of(row, shard_count, self.image_key, self._image_root), row

    async def take(self, most: int) -> list[tuple[int, Row]]:
        """Return the next rows, each after its number; [] at the end."""
        async with self._read_more:
            try:
                return await asyncio.to_thread(
                    lambda: list(itertools.islice(self._numbered_rows, most))
                )
            except InputError as error:
                raise RunStopped(f"{error}. Fix that, then run the same command again") from None

    def record(self, row: Row) -> Record:
        """Return the row as a record with its `image_id`; call it in the order of rows."""
        if row.data is None:
            assert row.error is not None
            raise row.error
        record = Record(row.data, self._folders, place=row.place)
        if row.place in self._identities:
            record.image_id, record.occurrence = self._identities.pop(row.place)
        else:
            identify(record, self.image_key, self._image_root, self._rows_of_image)
        # a row without an image may repeat an `image_id`, too, but is no row of an image
        if record.occurrence and self._first_image_key in record:
            record[ROW_OF_IMAGE] = record.occurrence + 1
        if self.name is not None:
            steps = record.get("pipeline_steps")  # to which steps add their labels
            are_texts = isinstance(steps, list) and all(isinstance(step, str) for step in steps)
            if steps is not None and not are_texts:
                raise BrokenRow("column 'pipeline_steps' should be a list of texts")
            record.setdefault("source", self.name)
        return record

    def pictures(self) -> OwnPictures:
        """Return what the first pictures are, as `pictures_of` does; the rows are read again."""
        return pictures_of(self._records(), self._first_image_key)

    def may_ask(self, operator: Annotator, made: set[str]) -> bool | None:
        """Return whether an operator may ask about any record; None if none gets that far."""
        if kind_of(self.path) != "file":  # it can be read only once
            return True
        # what earlier steps put into `made` columns isn't known yet: any record may be asked about
        reads_made = not made.isdisjoint(operator.reads().values())
        gets_that_far = False
        for record in self._records():
            try:
                column = image_column(operator, record)
                if column is not None and column not in made:
                    find_image(record, column)  # raises for a picture that isn't there
                if reads_made or may_ask(operator, record):
                    return True
                gets_that_far = True
            except MachineBusy:  # the machine may have room when the record's turn comes
                return True
            except RecordError:  # the record fails of that when its turn comes
                continue
        return False if gets_that_far else None

    def _records(self) -> Iterator[Record]:
        return (Record(row.data, self._folders) for _, row in self._rows() if row.data is not None)

    def length(self) -> int | None:
        """Return about how many rows there are, to show progress; None where a look can't tell."""
        if not (self.path.endswith((".jsonl", ".csv", ".tsv")) and os.path.isfile(self.path)):
            return None
        # A file that was made of the user's own has each row in the line that it has there. In
        # between are empty lines, in place of a CSV's line of names, say.
        with open(self.path, "rb") as file:
            row_count = sum(1 for line in file if line != b"\n")
        if not self.path.endswith(".jsonl"):
            row_count = max(0, row_count - 1)  # without the line of names
        if self._pilot:
            row_count = min(row_count, self._pilot)
        has_rows_of_shard_alone = self._keeps_lines()
        if self._shard is None or has_rows_of_shard_alone:
            return row_count
        return row_count // self._shard.of  # shards have about as many rows each

    def fingerprint(self, unchanged_since: int | None = None) -> str | None:
        """Return a digest of the rows and their images' states; None if one can't be read, or has
        changed since a time (ns since 1970): then the run may have seen it before or after that.
        """
        digest = hashlib.sha256()
        try:
            if kind_of(self.path) != "file":
                return None
            for block in self._blocks():
                digest.update(block)
            for image in files_of_images(self._records(), self.image_key):
                if image is not None and unchanged_since is not None:
                    # An image from the future has its time from a wrong clock, and wasn't changed
                    # during the run. But a second ahead is now: where a system counts whole
                    # seconds, `changed_ns` is the end of the second.
                    latest_right = time.time_ns() + SECOND_NS
                    if unchanged_since <= image.changed_ns <= latest_right:
                        return None
                digest.update(repr(image).encode())
        except (OSError, GroundingError):
            return None
        return digest.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        paths = [self.path]
        if self._keeps_lines():
            # the same rows may have moved in the input
            paths.append(lines_path(self.path))
        for path in paths:
            with open_input(path) as file:
                while block := file.read(BLOCK):
                    yield block

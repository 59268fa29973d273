"""One of n parts of an input, worked on by itself; all rows of a picture are in one part."""

import hashlib
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.files import write_bytes
from dataflow_grounding._util.results_names import SHARDS
from dataflow_grounding.data.records import image_id_of
from dataflow_grounding.data.rows import Row
from dataflow_grounding.serving.serving import Serving

BLOCK_ROWS = "rows.jsonl"
# what ids of a picture's later rows (`x@2`), and of others of its name (`x~2`), end with
_NUMBERED = re.compile(r"([@~]\d+)+$")


class Shard(NamedTuple):
    """One part of an input: a shard, or a block, whose rows were split off already."""

    number: int  # from 1
    of: int
    rows: str = ""  # of a block, the file of its rows alone
    columns: tuple[str, ...] = ()  # of a block, those of the whole input

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that a text such as `2/8` names. Raises SpecError for any other text."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise SpecError(f"--shard {text!r} should be i/n, such as 1/8 for the first of eight")
        return shard

    def __str__(self) -> str:
        """Return what its folder is called: `2-of-8`, or `block-2-8`."""
        return f"block-{self.number}-{self.of}" if self.rows else f"{self.number}-of-{self.of}"

    def folder(self, results_dir: str) -> str:
        return os.path.join(results_dir, SHARDS, str(self))

    def part_of(self, limit: int) -> int:
        """Return this part's share of a limit; the shares of all parts add up to the limit."""
        share, remainder = divmod(limit, self.of)
        return share + 1 if self.number <= remainder else share

    def has(self, row: Row, image_key: str, image_root: str | None) -> bool:
        return shard_of(row, self.of, image_key, image_root) == self.number


def divide_max_workers(servings: Iterable[Serving], shard: Shard) -> list[tuple[Serving, int]]:
    """Leave each serving the shard's part of its `max_workers`; return what they had."""
    with_old_max = []
    each_once = {id(serving): serving for serving in servings}
    for serving in each_once.values():
        is_in_process = "://" not in serving.endpoint
        if is_in_process:  # each shard has its own model
            continue
        with_old_max.append((serving, serving.max_workers))
        serving.max_workers = max(1, shard.part_of(serving.max_workers))
        # it isn't divided among several endpoints: a single one may have all of the shard's part
        for endpoint, _ in serving.endpoints():
            endpoint.max_workers = serving.max_workers
    return with_old_max


def shard_of(row: Row, shard_count: int, image_key: str, image_root: str | None) -> int:
    """Return a row's shard, from 1, by its picture's name: rows added later move no others."""
    name = image_id_of(row.data, image_key, image_root) if row.data is not None else None
    # Ids get numbers: `x~2` for another picture of the same name, `x@2` for a further row of a
    # picture. Each shard counts these for itself. So all rows of one name have to be in the same
    # shard, and the number that a row may state already is taken off.
    key = f"line {row.line}" if name is None else _NUMBERED.sub("", name)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % shard_count + 1


def write_line_numbers(output_path: str, lines: "array[int]") -> None:
    """Write, next to a file of rows, the numbers of their lines in the input: 8 bytes a number.
    For a block's input, `lines` has two numbers for each row: its line, then its place from 0.
    """
    write_bytes(lines_path(output_path), lines.tobytes())


def lines_path(output_path: str) -> str:
    return f"{output_path}.lines"


def read_row_positions(rows_path: str) -> Iterator[tuple[int, int]]:
    """Return the line and the place in the input of each row of a block's input."""
    numbers = read_line_numbers(rows_path)
    return zip(numbers[::2], numbers[1::2], strict=False)


def read_line_numbers(output_path: str) -> "array[int]":
    """Return what `write_line_numbers` wrote next to a file; ValueError if it isn't whole."""
    with open(lines_path(output_path), "rb") as file:
        return array("q", file.read())


def digest_of(output_path: str) -> str:
    """Return a digest of a file of rows and of their line numbers, by which a copy is compared."""
    digest = hashlib.sha256()
    for path in (output_path, lines_path(output_path)):
        if os.path.exists(path):  # no row may have got as far as this step
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()

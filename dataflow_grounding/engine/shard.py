"""One of n parts of an input, which is worked on apart from the others.

All rows of a picture are in one part.
"""

import os
import re
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.records import image_id_of, write_bytes
from dataflow_grounding.data.results_folder import SHARDS
from dataflow_grounding.data.rows import Row
from dataflow_grounding.serving.serving import Serving

BLOCK_ROWS = "rows.jsonl"
"""The file with a block's rows, in its checkpoint folder."""
# what ids of a picture's later rows (`x@2`), and of others of its name (`x~2`), end with
_NUMBERED = re.compile(r"([@~]\d+)+$")


class Shard(NamedTuple):
    """One part of an input: a shard, or a block, whose rows somebody has split off already.

    Attributes:
        number: Which part it is, from 1.
        of: How many parts there are.
        rows: Of a block, the file of its rows alone; "" for a shard, which has to be looked for in
            the input.
        columns: Of a block, the columns of the whole input.

    Example:
        >>> shard = Shard.parse("2/8")
        >>> shard.folder("results")
        'results/shards/2-of-8'
    """

    number: int
    of: int
    rows: str = ""
    columns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that a text such as `2/8` names. Raises SpecError for any other text."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise SpecError(f"--shard {text!r} should be i/n, such as 1/8 for the first of eight")
        return shard

    def __str__(self) -> str:
        """Return what its folder is called: `2-of-8`, or `block-2-8`."""
        return f"block-{self.number}-{self.of}" if self.rows else f"{self.number}-of-{self.of}"

    def folder(self, results_dir: str) -> str:
        """Return the folder of its results, in that of the run."""
        return os.path.join(results_dir, SHARDS, str(self))

    def part_of(self, limit: int) -> int:
        """Return this part's share of a limit; the shares of all parts add up to the limit.

        Example:
            >>> [Shard(number, 4).part_of(10) for number in (1, 2, 3, 4)]
            [3, 3, 2, 2]
        """
        share, remainder = divmod(limit, self.of)
        return share + 1 if self.number <= remainder else share

    def has(self, row: Row, image_key: str, image_root: str | None) -> bool:
        """Return whether a row of the input is in this part, as `shard_of` tells."""
        return shard_of(row, self.of, image_key, image_root) == self.number


def divide_places(servings: Iterable[Serving], shard: Shard) -> list[tuple[Serving, int]]:
    """Give each serving its part of `max_workers`, in place; return them with what they had.

    A model in this process isn't divided: each shard has its own.
    """
    divided = []
    for serving in {id(each): each for each in servings}.values():
        if "://" not in serving.endpoint:
            continue
        divided.append((serving, serving.max_workers))
        serving.max_workers = max(1, shard.part_of(serving.max_workers))
        for endpoint, _ in serving.endpoints():
            endpoint.max_workers = serving.max_workers
    return divided


def shard_of(row: Row, shard_count: int, image_key: str, image_root: str | None) -> int:
    """Return the number, from 1 to `shard_count`, of the shard that a row is in.

    That follows from what its picture is called, so rows that are added later move no other. Of a
    row that can't be read or names no picture, it follows from its line.

    Args:
        row: The row.
        shard_count: How many shards there are.
        image_key: The column with the image's path.
        image_root: The folder that paths are taken from; None for none.
    """
    name = image_id_of(row.data, image_key, image_root) if row.data is not None else None
    # All pictures of one name outside of the root are in one shard, as they are numbered there.
    key = f"line {row.line}" if name is None else _NUMBERED.sub("", name)
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % shard_count + 1


def write_line_numbers(output_path: str, lines: "array[int]") -> None:
    """Write next to a file of rows in which lines of the input they were: 8 bytes for each number.

    For a block's input, `lines` has two numbers for each row: its line, and its place among all
    rows, from 0. Raises OSError.
    """
    write_bytes(lines_path(output_path), lines.tobytes())


def lines_path(output_path: str) -> str:
    """Return the path of the file with the line numbers of a file's rows."""
    return f"{output_path}.lines"


def read_row_positions(rows_path: str) -> Iterator[tuple[int, int]]:
    """Return the line and the place in the input of each row of a block's input.

    `write_line_numbers` wrote both next to it, by turns. Raises OSError, ValueError.
    """
    numbers = read_line_numbers(rows_path)
    return zip(numbers[::2], numbers[1::2], strict=False)


def read_line_numbers(output_path: str) -> "array[int]":
    """Return what `write_line_numbers` wrote next to a file.

    Raises OSError, ValueError where it isn't whole numbers of 8 bytes.
    """
    with open(lines_path(output_path), "rb") as file:
        return array("q", file.read())

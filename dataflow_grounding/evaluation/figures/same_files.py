"""Which pictures of data sets are the same file, by size and digest: no picture is decoded."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.engine.image_memo import digest_of, log_of
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.images.image import find_file, waits

T = TypeVar("T")


class DataSet:
    """A data set's pictures, numbered from 0 as they come.

    `number_of` has each picture's number by its name; `counts` has by that number how many phrases,
    or records, it has. Relative paths are looked for in `folders`. `checkpoint` is the folder in
    which the data set's run remembers pictures; it may be missing.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.folders: tuple[str, ...] = ()
        self.checkpoint = ""
        self.number_of: dict[str, int] = {}
        self.counts = array("q")
        # by a picture's number, its path where that isn't its name: few have one, as a rule
        self._other_paths: dict[int, str] = {}

    def add(self, name: str, path: str, count: int) -> None:
        """Add to the count of the picture that is called `name`; of its paths the first counts."""
        number = self.number_of.setdefault(name, len(self.number_of))
        if number == len(self.counts):  # a new picture
            self.counts.append(0)
            if path != name:
                self._other_paths[number] = path
        self.counts[number] += count

    def paths(self) -> Iterator[str]:
        for name, number in self.number_of.items():
            yield self._other_paths.get(number, name)


def short_digest(text: str) -> bytes:
    """Return 8 bytes of the text's digest, the same on every machine."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def files_of(data_sets: Sequence[DataSet]) -> tuple[list[bytes], set[str]]:
    """Return for each picture some bytes that tell its file from others, and the missing pictures.

    Few files are read. If no other file has a file's size, its bytes are made of its name and size.
    Otherwise they are a digest of the content. A picture that can't be read has bytes made of its
    name.
    """
    # In arrays, because there may be millions of pictures.
    sizes_by_data_set = []
    size_counts = Counter[int]()
    for data_set in data_sets:
        size_of = partial(_size_of, folders=data_set.folders)
        sizes = array("q", _side_by_side(size_of, data_set.paths(), data_set.folders))
        sizes_by_data_set.append(sizes)
        size_counts.update(sizes)
    shared_sizes = {size for size, count in size_counts.items() if size > 0 and count > 1}
    files: list[bytes] = []
    missing = set[str]()
    for data_set, sizes in zip(data_sets, sizes_by_data_set, strict=True):
        files_of_data_set = _files_of_data_set(data_set, sizes, shared_sizes)
        for name, file in zip(data_set.number_of, files_of_data_set, strict=True):
            if file is None:
                missing.add(name)
            files.append(file or short_digest(name))
    return files, missing


def _files_of_data_set(
    data_set: DataSet, sizes: Sequence[int], shared_sizes: Collection[int]
) -> Iterator[bytes | None]:
    # For each picture, bytes that tell its file from others; None for one that can't be read.
    paths_of_shared_sizes = []
    for path, size in zip(data_set.paths(), sizes, strict=True):
        if size in shared_sizes:
            paths_of_shared_sizes.append(path)
    digests = _digests_of(paths_of_shared_sizes, data_set)  # in the same order
    for name, size in zip(data_set.number_of, sizes, strict=True):
        if size == 0:  # the file wasn't found, or is empty
            yield None
        elif size in shared_sizes:
            yield next(digests)
        else:
            yield short_digest(f"{name} {size}")


def _size_of(path: str, folders: tuple[str, ...]) -> int:
    # 0 for a file that isn't found
    try:
        return find_file(path, folders).file_bytes
    except RecordError:
        return 0


def _digests_of(paths: Sequence[str], data_set: DataSet) -> Iterator[bytes | None]:
    # None for a file that can't be read
    with closing(log_of(data_set.checkpoint)) as log:
        digest_of_path = partial(_digest_of, folders=data_set.folders, log=log)
        yield from _side_by_side(digest_of_path, paths, data_set.folders)


def _digest_of(path: str, folders: tuple[str, ...], log: KeyedLog) -> bytes | None:
    try:
        file = find_file(path, folders)
        digest = digest_of(file, log)
    except RecordError:
        return None
    return bytes.fromhex(digest)[:16]  # enough to tell files apart, and half the memory


def _side_by_side(
    work: Callable[[str], T], paths: Iterable[str], folders: tuple[str, ...]
) -> Iterator[T]:
    return side_by_side(work, paths, lambda path: waits(path, folders))

"""Which pictures of data sets are the same file: told by size and digest, so that no picture is
decoded.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.image_memo import log_of, remembered
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.images.files import read_file
from dataflow_grounding.images.image import find_image

T = TypeVar("T")


@dataclass
class DataSet:
    """A data set's pictures.

    Attributes:
        name: What the data set is called.
        folders: Where relative paths of its pictures are looked for.
        checkpoint: The folder in which its run remembers pictures; it may be missing.
        paths: Each picture's path as its records have it, by what the picture is called.
        phrases: How many phrases each picture has.
    """

    name: str
    folders: tuple[str, ...] = ()
    checkpoint: str = ""
    paths: dict[str, str] = field(default_factory=dict)
    phrases: Counter[str] = field(default_factory=Counter)


def short_digest(text: str) -> bytes:
    """8 bytes that stand for the text, the same on every machine."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def files_of(data_sets: Sequence[DataSet]) -> tuple[list[bytes], set[str]]:
    """What tells each picture's file from others, data set by data set, and the pictures that
    aren't there.

    A file whose size no other has is told by name and size. Of others the bytes count: their digest
    is the one that the run remembers of a file with this size and time, else the file is read. What
    isn't there is told by its name.
    """
    sizes = [array("q", _sizes_of(one)) for one in data_sets]
    times = Counter(size for some in sizes for size in some)
    told, missing = list[bytes](), set[str]()
    for one, own in zip(data_sets, sizes, strict=True):
        shared = [
            path
            for path, size in zip(one.paths.values(), own, strict=True)
            if size > 0 and times[size] > 1
        ]
        digests = _digests_of(shared, one)
        for name, size in zip(one.paths, own, strict=True):
            if size <= 0:
                file = None
            elif times[size] > 1:
                file = next(digests)
            else:
                file = short_digest(f"{name} {size}")
            told.append(file or short_digest(name))
            if file is None:
                missing.add(name)
    return told, missing


def _sizes_of(data_set: DataSet) -> Iterator[int]:
    """Bytes of each picture's file; 0 where there is none, or where nothing is in it."""
    return _each(
        partial(_size_of, folders=data_set.folders), data_set.paths.values(), data_set.folders
    )


def _size_of(path: str, folders: tuple[str, ...]) -> int:
    try:
        return find_image(Record({"image": path}, folders), "image").file_bytes
    except RecordError:
        return 0


def _digests_of(paths: Sequence[str], data_set: DataSet) -> Iterator[bytes | None]:
    """The digest of each file at these paths; None for one that can't be read."""
    with closing(log_of(data_set.checkpoint)) as log:
        yield from _each(
            partial(_digest_of, folders=data_set.folders, log=log), paths, data_set.folders
        )


def _digest_of(path: str, folders: tuple[str, ...], log: KeyedLog) -> bytes | None:
    try:
        file = find_image(Record({"image": path}, folders), "image")
        facts = remembered(log, file)
        whole = facts.digest if facts else hashlib.sha256(read_file(file.path)).hexdigest()
    except RecordError:
        return None
    return bytes.fromhex(whole)[:16]


def _each(work: Callable[[str], T], paths: Iterable[str], folders: tuple[str, ...]) -> Iterator[T]:
    """What `work` returns for each path, in order; threads wait for stores."""
    far = any(map(is_elsewhere, folders))
    return side_by_side(work, paths, lambda path: far or is_elsewhere(path))

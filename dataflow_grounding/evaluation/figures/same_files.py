"""Which pictures of data sets are the same file, by size and digest: no picture is decoded."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.engine.image_memo import digest_of, log_of
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.images.image import find_file, waits

T = TypeVar("T")


@dataclass(slots=True)
class Picture:
    """What is known of a picture; there may be millions."""

    path: str
    number: int  # among those of its data set, from 0
    count: int = 0  # of its phrases, or records
    file: bytes = b""  # tells its file from others


class DataSet:
    """A data set's pictures by their names, in the order in which they come."""

    def __init__(self) -> None:
        self.name = ""
        self.folders: tuple[str, ...] = ()  # in which relative paths are looked for
        self.checkpoint = ""  # the folder in which its run remembers pictures; it may be missing
        self.pictures: dict[str, Picture] = {}

    def add(self, name: str, path: str) -> Picture:
        """Return the picture that is called `name`; of its paths the first counts."""
        if name not in self.pictures:
            # most paths are the name: then only one of the two texts is kept
            self.pictures[name] = Picture(name if path == name else path, len(self.pictures))
        return self.pictures[name]

    def paths(self) -> Iterator[str]:
        for picture in self.pictures.values():
            yield picture.path


def short_digest(text: str) -> bytes:
    """Return 8 bytes of the text's digest, the same on every machine."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def tell_apart(data_sets: Sequence[DataSet]) -> set[str]:
    """Set each picture's `file`, and return the names of those that can't be read.

    Few files are read. If no other file has a file's size, its bytes are made of its name and size.
    Otherwise they are a digest of the content. A picture that can't be read has bytes made of its
    name.
    """
    sizes_by_data_set = []
    size_counts = Counter[int]()
    for data_set in data_sets:
        size_of = partial(_size_of, folders=data_set.folders)
        sizes = list(_side_by_side(size_of, data_set.paths(), data_set.folders))
        sizes_by_data_set.append(sizes)
        size_counts.update(sizes)
    missing = set[str]()
    for data_set, sizes in zip(data_sets, sizes_by_data_set, strict=True):
        sharing_size: dict[str, Picture] = {}  # pictures, of which some may be the same file
        for (name, picture), size in zip(data_set.pictures.items(), sizes, strict=True):
            if size == 0:  # the file wasn't found, or is empty
                missing.add(name)
                picture.file = short_digest(name)
            elif size_counts[size] > 1:
                sharing_size[name] = picture
            else:
                picture.file = short_digest(f"{name} {size}")
        if not sharing_size:
            continue
        paths = [picture.path for picture in sharing_size.values()]
        digests = _digests_of(paths, data_set)
        for (name, picture), digest in zip(sharing_size.items(), digests, strict=True):
            if digest is None:
                missing.add(name)
            picture.file = digest or short_digest(name)
    return missing


def _size_of(path: str, folders: tuple[str, ...]) -> int:
    """Return a file's size; 0 if it isn't found."""
    try:
        return find_file(path, folders).file_bytes
    except RecordError:
        return 0


def _digests_of(paths: Sequence[str], data_set: DataSet) -> Iterator[bytes | None]:
    """Yield each file's digest; None if it can't be read."""
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

"""Samples of WebDataset's shards, as the package `webdataset` reads and groups them.

Its decoders stay off, as some of them unpickle. Source: webdataset's tariterators.py.
"""

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from dataflow_grounding._util.errors import InputError, errors_as, needs_extra
from dataflow_grounding._util.paths import open_input
from dataflow_grounding.images.files import ENDINGS

_TAR_END = 2**20  # bytes after the last member that are looked at


class TarSample(NamedTuple):
    """Members of a shard that follow each other and have the same name up to its first dot.

    `parts` are by the rest of the name in lower case: `jpg`, `json`, `seg.png`.
    """

    where: str
    key: str
    parts: dict[str, bytes]

    @property
    def picture(self) -> str:
        """The ending of the sample's first picture, as in `parts`; "" where it has none."""
        return next((ending for ending in self.parts if f".{ending}" in ENDINGS), "")


def tar_samples(path: str) -> Iterator[TarSample]:
    """Yield the samples of a shard in its order. Raises InputError, MissingExtra."""
    # a package that few runs need
    with needs_extra("Reading WebDataset's shards", "webdataset"):
        from webdataset.tariterators import group_by_keys, tar_file_expander
    try:
        with errors_as(InputError, f"can't read {path}"), open_input(path) as file:
            # It opens no addresses itself, as one may be a command: "pipe:…".
            opened = [{"url": path, "stream": file}]
            count = 0
            for members in group_by_keys(tar_file_expander(opened)):
                count += 1
                key = members["__key__"]
                parts = {name: members[name] for name in members if not name.startswith("__")}
                yield TarSample(f"{path}, sample {key!r} (names up to the first dot)", key, parts)
            # Python's tarfile takes a damaged head for the end, after which there are only zeros.
            if any(file.read(_TAR_END)):
                raise tarfile.ReadError(f"it is damaged after {count} samples")
    except (tarfile.TarError, ValueError, EOFError) as error:
        why = str(error.args[0]).splitlines()[0].partition(" @ ")[0]
        raise InputError(f"{path} is not a tar file that can be read: {why}") from None

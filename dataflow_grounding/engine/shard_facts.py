"""What a shard says of its files, so that they are put together only as it left them."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.data.records import path_of
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine import image_memo
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.shard import lines_path
from dataflow_grounding.images.image import find_file, waits

BLOCK = 1 << 20  # bytes that are read at a time


def bytes_of(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def digest_of(path: str) -> str:
    """Return a digest of a step's file of a shard, and of its rows' line numbers."""
    digest = hashlib.sha256()
    for part in (path, lines_path(path)):
        if not os.path.exists(part):
            continue
        with open(part, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def pictures_of(path: str, folders: Sequence[Any], checkpoint: str) -> list[str]:
    """Return digests of the paths and the contents of local pictures that a step's file names."""
    paths_digest = hashlib.sha256()
    contents_digest = hashlib.sha256()
    if not os.path.exists(path):
        return [paths_digest.hexdigest(), contents_digest.hexdigest()]
    # `folders` may come from a run.json that was edited
    folder_paths = tuple(folder for folder in folders if isinstance(folder, str))
    paths = (path_of(row.data or {}) for row in read_rows(path))
    with closing(image_memo.log_of(checkpoint)) as log:  # what the run remembers of pictures
        look = partial(_local_picture, folders=folder_paths, log=log)
        # on all cores, because none of these waits for a store
        for picture in side_by_side(look, paths, waits=lambda _: False, cores=True):
            if picture is not None:
                picture_path, digest = picture
                paths_digest.update(os.fsencode(f"{picture_path}\n"))
                contents_digest.update(f"{digest}\n".encode())
    return [paths_digest.hexdigest(), contents_digest.hexdigest()]


def _local_picture(path: str, folders: tuple[str, ...], log: KeyedLog) -> tuple[str, str] | None:
    """Return the path and the digest of a picture; None where one would wait for it."""
    if waits(path, folders):
        return None
    with suppress(RecordError):  # a picture that can't be read tells nothing
        file = find_file(path, folders)
        return file.path, image_memo.digest_of(file, log)
    return None

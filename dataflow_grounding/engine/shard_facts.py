"""What a shard says of its files, so that they are put together only as it left them."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.shard import lines_path
from dataflow_grounding.images.image import find_image, is_far


def bytes_of(path: str) -> int:
    """How long a file of a shard is; 0 without it."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def digest_of(path: str) -> str:
    """What tells a step's file of a shard, with the places of its rows, from any other."""
    digest = hashlib.sha256()
    for part in (path, lines_path(path)):
        if not os.path.exists(part):
            continue
        with open(part, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def pictures_of(path: str, folders: Sequence[Any]) -> list[str]:
    """Digests of where the pictures of a step's file are, and of their sizes and times.

    These are the pictures on this machine. Those elsewhere are not asked for.
    """
    places = hashlib.sha256()
    states = hashlib.sha256()
    if not os.path.exists(path):
        return [places.hexdigest(), states.hexdigest()]
    here = [folder for folder in folders if isinstance(folder, str) and not is_elsewhere(folder)]
    for row in read_rows(path):
        record = Record(row.data or {}, tuple(here))
        column = "image_path" if record.get("image_path") else "image"
        if not isinstance(record.get(column), str) or is_far(record, column):
            continue
        with suppress(RecordError):  # a picture that can't be found tells nothing
            file = find_image(record, column)
            places.update(os.fsencode(f"{file.path}\n"))
            states.update(f"{file.file_bytes} {file.mtime_ns}\n".encode())
    return [places.hexdigest(), states.hexdigest()]

"""What `data.input_jsonl` names, as an `Input`. Other kinds than a data file are in `formats`."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dataflow_grounding.data.rows import Row, read_rows

DATASETS = "datasets:"
"""The prefix of an input that is a data set of Hugging Face's, on disk or on the hub."""
JSON_LINES = ".jsonl"


@dataclass(frozen=True)
class Input:
    """Rows from somewhere.

    A picture in a row is a path, an address, bytes, or `{"bytes": ..., "path": ...}`.

    Args:
        path: What is read, for messages.
        read: Returns the rows, from the first on at each call.
        folders: The folders where relative paths of pictures are looked for, in order.
        files: The files whose sizes and times tell that the rows are still the same; none where
            nothing tells that.
        columns: From role to column, where the format itself fixes it.
        plain: Whether it is a data file that can be read as it is.
        bare: Whether the rows are pictures and nothing else.
        remark: A sentence for the user; "" for none.
        passed_over: A sentence on files of a folder that aren't taken for pictures; "" for none.
    """

    path: str
    read: Callable[[], Iterator[Row]]
    folders: tuple[str, ...]
    files: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    bare: bool = False
    remark: str = ""
    passed_over: str = ""


def plain_input(path: str) -> Input:
    """Return the input that is a data file: of one that isn't there, reading raises InputError."""
    folders = (os.path.dirname(path) or ".", ".")
    return Input(path, lambda: read_rows(path), folders, (path,), plain=True)

"""What `data.input_jsonl` names: a data file that is read as it is, or what an extension reads."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dataflow_grounding._util.extensions import extension, names_of, required
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.data.rows import Row, read_rows

DATASETS = "datasets:"
"""Begins an input that is a data set of Hugging Face's, on disk or on the hub."""
JSON_LINES = ".jsonl"
SHIPPED = "others"
"""The library's own extension, which knows folders, shards, data sets of Hugging Face's, COCO."""


@dataclass(frozen=True)
class Input:
    """Rows from somewhere.

    A picture in a row is a path, an address, bytes, or `{"bytes": ..., "path": ...}`.

    Args:
        path: What is read, for people.
        read: Gives the rows, anew each time.
        folders: Where relative paths of pictures are looked for, in order.
        files: What tells, by size and time, that the rows are the same; none where nothing does.
        columns: Role to column, where the format itself says so.
        plain: A data file that can be read as it is.
        bare: Pictures and nothing else.
        remark: What is good to know of it.
    """

    path: str
    read: Callable[[], Iterator[Row]]
    folders: tuple[str, ...]
    files: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    bare: bool = False
    remark: str = ""


def find_input(path: str, split: str = "", results_dir: str = "") -> Input:
    """The input that is at `path`.

    Extensions, entry points of the group `dataflow_grounding.inputs`, are asked in turn: functions
    of these arguments that return an Input, or None for what isn't theirs; those of users' own
    packages before the library's, `others`. What none of them takes is a data file.

    Args:
        path: As the spec states it.
        split: That of a `datasets` data set, where it has several.
        results_dir: Pictures in there are none of the input's.

    Raises:
        InputError: There is none, or it can't be read.
        MissingExtra: Its library isn't installed.
    """
    names = names_of("inputs")
    names.sort(key=lambda name: name == SHIPPED)
    if SHIPPED in names and path.endswith(JSON_LINES) and kind_of(path) == "file":
        names.remove(SHIPPED)  # which takes what isn't plain, and needs readers of all of that
    for name in names:
        find = extension("inputs", name)
        source: Input | None = find(path, split, results_dir) if find else None
        if source is not None:
            return source
    if path.startswith(DATASETS):
        required("inputs", SHIPPED, f"{path} as input")
    if kind_of(path) == "folder":
        required("inputs", SHIPPED, f"the folder {path} as input")
    folders = (os.path.dirname(path) or ".", ".")
    return Input(path, lambda: read_rows(path), folders, (path,), plain=True)

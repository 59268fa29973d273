"""What `data.input_jsonl` names: a data file that is read as it is, or what an extension reads.

`find_input` asks the extensions in turn, and returns an `Input`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dataflow_grounding._util.extensions import extension, names_of, required
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.data.rows import Row, read_rows

DATASETS = "datasets:"
"""The prefix of an input that is a data set of Hugging Face's, on disk or on the hub."""
JSON_LINES = ".jsonl"
SHIPPED = "others"
"""The name of the library's own extension.

It knows folders, shards, data sets of Hugging Face's, COCO.
"""


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


def find_input(path: str, split: str = "", results_dir: str = "") -> Input:
    """Return the input that is at `path`.

    Extensions, entry points of the group `dataflow_grounding.inputs`, are asked in turn: functions
    of these arguments that return an Input, or None for what isn't theirs. Those of users' own
    packages come before the library's, `others`. What none of them takes is read as a data file: of
    one that isn't there, reading the rows raises InputError.

    Args:
        path: The path or address as the spec states it.
        split: The split to read of a `datasets` data set, where it has several.
        results_dir: The run's results folder: pictures in it are no part of the input.

    Raises:
        InputError: An extension can't read what is there, or finds no rows or pictures in it.
        MissingExtra: A library that an extension needs isn't installed.
        SpecError: It is a folder or a data set of Hugging Face's, and the library's own extension,
            which reads these, isn't installed.
    """
    names = names_of("inputs")
    names.sort(key=lambda name: name == SHIPPED)  # the library's own goes last
    if SHIPPED in names and path.endswith(JSON_LINES) and kind_of(path) == "file":
        # JSON lines are read as they are: importing the readers of all other formats can be saved.
        names.remove(SHIPPED)
    for name in names:
        find = extension("inputs", name)
        source: Input | None = find(path, split, results_dir) if find else None
        if source is not None:
            return source
    # `required` is called for its error alone, which says that the library's extension is missing.
    if path.startswith(DATASETS):
        required("inputs", SHIPPED, f"{path} as input")
    if kind_of(path) == "folder":
        required("inputs", SHIPPED, f"the folder {path} as input")
    folders = (os.path.dirname(path) or ".", ".")
    return Input(path, lambda: read_rows(path), folders, (path,), plain=True)

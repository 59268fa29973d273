"""What `data.input_jsonl` names, as an `Input`. Other kinds than a data file are in `formats`."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dataflow_grounding.data.rows import Row, read_rows

DATASETS = "datasets:"
JSON_LINES = ".jsonl"


@dataclass(frozen=True)
class Input:
    path: str
    read: Callable[[], Iterator[Row]]
    folders: tuple[str, ...]  # where relative paths of pictures are looked for
    files: tuple[str, ...] = ()  # whose sizes and times tell that the rows are still the same
    columns: Mapping[str, str] = field(default_factory=dict)  # by role, where the format fixes it
    plain: bool = False  # whether it is a data file that can be read as it is
    bare: bool = False  # whether the rows are pictures and nothing else
    remark: str = ""  # for the user
    passed_over: str = ""  # for the user, on files of a folder that aren't taken for pictures


def plain_input(path: str) -> Input:
    folders = (os.path.dirname(path) or ".", ".")
    return Input(path, lambda: read_rows(path), folders, (path,), plain=True)

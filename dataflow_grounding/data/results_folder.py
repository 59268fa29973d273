"""What a command's RESULTS names, here or elsewhere: a run's folder, or a file of records; where
its pictures are.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import absolute, joined, kind_of, may_be_named
from dataflow_grounding.data.dataframes import holds_bytes
from dataflow_grounding.data.records import Record, read_object
from dataflow_grounding.data.rows import file_type_of, read_whole_rows


def annotations_of(results: str) -> str:
    """The file of records. Raises InputError where there is none."""
    path = joined(results, "annotations.jsonl") if kind_of(results) == "folder" else results
    if not kind_of(path):
        raise InputError(f"no {path}: is {results} the results_dir of a finished run?")
    if file_type_of(path) == "parquet" and holds_bytes(path):
        first = f"dataflowgrounding import {path} --format datasets -o FOLDER"
        raise InputError(f"{path} holds its pictures: make it records first: {first}")
    return path


def run_of(results: str) -> dict[str, Any]:
    """What `run.json` says of the run; also where RESULTS is the folder of one of its steps. Empty
    without it.
    """
    folder = absolute(joined(_folder_of(results), ""))
    paths = [joined(at, "run.json") for at in (folder, os.path.dirname(folder))]
    return next(filter(None, map(read_object, filter(kind_of, paths))), {})


def _folder_of(results: str) -> str:
    return results if kind_of(results) == "folder" else os.path.dirname(results) or "."


def stated_in(run: Mapping[str, Any], part: str) -> Iterator[dict[str, Any]]:
    """What blocks of a run's spec state under `part`, such as `data`; that of its
    pipeline first.
    """
    spec = run["spec"] if isinstance(run.get("spec"), dict) else {}
    for block in (spec.get(str(spec.get("autolabel_type"))), *spec.values()):
        # a user's pipeline has another name
        if isinstance(block, dict) and isinstance(block.get(part), dict):
            yield block[part]


def image_folders_of(results: str, image_root: str | None = None) -> tuple[str, ...]:
    """Where relative paths of pictures are looked for: in `image_root`, else where the run looked.

    `run.json` may be a stranger's: of what it names, only folders that a row could name too.
    """
    if image_root:
        return (image_root,)
    found = run_of(results).get("image_folders")
    known = [path for path in found if isinstance(path, str)] if isinstance(found, list) else []
    known = [path for path in known if may_be_named(path, [results])]
    return tuple(dict.fromkeys([*known, _folder_of(results), "."]))


def records_of(results: str) -> Iterator[Record]:
    """The records, one at a time. Raises InputError that names file and line of one that can't be
    read.
    """
    for line, data in read_whole_rows(annotations_of(results)):
        yield Record(data, place=line - 1)

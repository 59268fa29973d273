"""What a command's RESULTS names, here or elsewhere: a run's folder, or a file of records.

And where its pictures are.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import absolute, joined, kind_of, may_be_named
from dataflow_grounding.data.dataframes import holds_bytes
from dataflow_grounding.data.records import Record, read_object
from dataflow_grounding.data.rows import file_type_of, read_unbroken_rows


def annotations_of(results: str) -> str:
    """The file of records. Raises InputError where there is none."""
    path = joined(results, "annotations.jsonl") if kind_of(results) == "folder" else results
    if not kind_of(results):
        raise InputError(f"no {results}: name a finished run's results_dir, or a file of records")
    if not kind_of(path):
        raise InputError(f"no {path}: is {results} the results_dir of a finished run?")
    if file_type_of(path) == "parquet" and holds_bytes(path):
        first = f"dataflowgrounding import {path} --format datasets -o FOLDER"
        raise InputError(f"{path} holds its pictures: make it records first: {first}")
    return path


def run_of(results: str) -> dict[str, Any]:
    """What `run.json` says of the run; empty without it.

    RESULTS may also be the folder of one of its steps.
    """
    folder = absolute(joined(folder_of_results(results), ""))
    for candidate in (folder, os.path.dirname(folder)):
        path = joined(candidate, "run.json")
        run = read_object(path) if kind_of(path) else {}
        if run:
            return run
    return {}


def folder_of_results(results: str) -> str:
    """The folder that RESULTS names, or that holds the file."""
    return results if kind_of(results) == "folder" else os.path.dirname(results) or "."


def stated_in(run: Mapping[str, Any], part: str) -> Iterator[dict[str, Any]]:
    """What blocks of a run's spec state under `part`, such as `data`.

    That of its pipeline comes first.
    """
    spec = run["spec"] if isinstance(run.get("spec"), dict) else {}
    # A user's pipeline has another name than its block, so that all blocks are looked at.
    for block in (spec.get(str(spec.get("autolabel_type"))), *spec.values()):
        if isinstance(block, dict) and isinstance(block.get(part), dict):
            yield block[part]


def image_folders_of(results: str, image_root: str | None = None) -> tuple[str, ...]:
    """Where relative paths of pictures are looked for: in `image_root`, else where the run looked.

    `run.json` may be a stranger's: of what it names, only folders that a row could name too.
    """
    if image_root:
        return (image_root,)
    stated = run_of(results).get("image_folders")
    if not isinstance(stated, list):
        stated = []
    folders = []
    for path in stated:
        if isinstance(path, str) and may_be_named(path, [results]):
            folders.append(path)
    return tuple(dict.fromkeys([*folders, folder_of_results(results), "."]))


def records_of(results: str) -> Iterator[Record]:
    """The records, one at a time.

    Raises InputError that names file and line of one that can't be read.
    """
    for line, data in read_unbroken_rows(annotations_of(results)):
        yield Record(data, place=line - 1)


class RecordsOf:
    """The records of `records_of`, for whoever reads them twice.

    Raises InputError where they are iterated.
    """

    def __init__(self, results: str) -> None:
        self._results = results

    def __iter__(self) -> Iterator[Record]:
        return records_of(self._results)

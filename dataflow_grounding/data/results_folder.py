"""What a command's argument RESULTS names: a run's folder, or a file of records.

It may be on this machine or at an address (s3://, …). Here are what its run states, and where its
records and its pictures are.
"""

import os
from collections.abc import Iterator
from typing import Any

from dataflow_grounding._util.addresses import may_be_named
from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import absolute, joined, kind_of
from dataflow_grounding._util.results_names import RUN_JSON
from dataflow_grounding.data.dataframes import holds_bytes
from dataflow_grounding.data.records import JsonObject, read_object
from dataflow_grounding.data.rows import file_type_of


def annotations_of(results: str) -> str:
    """Return the path of the records that RESULTS names. Raises InputError where there are none."""
    if not kind_of(results):
        raise InputError(
            f"there is no {results}: name a finished run's results_dir, or a file of records"
        )
    path = joined(results, "annotations.jsonl") if kind_of(results) == "folder" else results
    if not kind_of(path):
        raise InputError(f"no {path}: is {results} the results_dir of a finished run?")
    if file_type_of(path) == "parquet" and holds_bytes(path):
        first = f"dataflowgrounding import {path} --format datasets -o FOLDER"
        raise InputError(f"{path} holds its pictures: make it records first: {first}")
    return path


def run_of(results: str) -> JsonObject:
    """Return what `run.json` in the folder of RESULTS, or in the one above, says; else {}."""
    # Without a / at the end: of "run/", os.path.dirname makes "run", which isn't the folder above.
    # joined() takes it off an address, absolute() off a path.
    folder = absolute(joined(folder_of_results(results), ""))
    # A step's folder has no run.json, but the run's folder above it has one.
    for candidate in (folder, os.path.dirname(folder)):
        run = run_in(candidate)
        if run:
            return run
    return {}


def run_in(folder: str) -> JsonObject:
    """Return what `run.json` in a folder says; else {}."""
    path = joined(folder, RUN_JSON)
    return read_object(path) if kind_of(path) else {}


def folder_of_results(results: str) -> str:
    """Return the folder that RESULTS names, or that holds the file which it names."""
    return results if kind_of(results) == "folder" else os.path.dirname(results) or "."


def stated_in(run: JsonObject, part: str) -> Iterator[dict[str, Any]]:
    """Yield what the blocks of a run's spec have at `part`, its pipeline's block first."""
    spec = run["spec"] if isinstance(run.get("spec"), dict) else {}
    # A user's pipeline has another name than its block, so all blocks are looked at. A shipped
    # pipeline's block comes twice, which does no harm: the first one counts.
    for block in (spec.get(str(spec.get("autolabel_type"))), *spec.values()):
        if isinstance(block, dict) and isinstance(block.get(part), dict):
            yield block[part]


def image_folders_of(results: str, image_root: str | None = None) -> tuple[str, ...]:
    """Return the folders where relative paths of pictures are looked for, in order."""
    if image_root:
        return (image_root,)
    stated = run_of(results).get("image_folders")
    if not isinstance(stated, list):
        stated = []
    # `run.json` may be a stranger's: folders that a row of a file may not name are left out.
    folders = []
    for path in stated:
        if isinstance(path, str) and may_be_named(path, [results]):
            folders.append(path)
    return tuple(dict.fromkeys([*folders, folder_of_results(results), "."]))

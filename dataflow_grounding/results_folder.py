"""What a command's RESULTS names: a run's folder, or a file of records; where its annotations and pictures are."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding.dataframes import holds_bytes
from dataflow_grounding.elsewhere import kind_of
from dataflow_grounding.errors import InputError
from dataflow_grounding.records import Record, read_object
from dataflow_grounding.rows import file_type_of, read_whole_rows


def annotations_of(results: str) -> str:
    """The file of records. Raises InputError where there is none."""
    path = os.path.join(results, "annotations.jsonl") if os.path.isdir(results) else results
    if not kind_of(path):
        raise InputError(f"no {path}: is {results} the results_dir of a finished run?")
    if file_type_of(path) == "parquet" and holds_bytes(path):
        first = f"dataflowgrounding import {path} --format datasets -o FOLDER"
        raise InputError(f"{path} holds its pictures: make it records first: {first}")
    return path


def run_of(results: str) -> dict[str, Any]:
    """What `run.json` says of the run; also where RESULTS is the folder of one of its steps. Empty without it."""
    folder = os.path.abspath(results if os.path.isdir(results) else os.path.dirname(results))
    inside, beside = (os.path.join(at, "run.json") for at in (folder, os.path.dirname(folder)))
    return read_object(inside) or read_object(beside)


def data_of(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What blocks of a run's spec name under `data`, that of its pipeline first."""
    spec = run["spec"] if isinstance(run.get("spec"), dict) else {}
    for block in (spec.get(str(spec.get("autolabel_type"))), *spec.values()):  # a user's pipeline has another name
        if isinstance(block, dict) and isinstance(block.get("data"), dict):
            yield block["data"]


def image_folders_of(results: str, image_root: str | None = None) -> tuple[str, ...]:
    """Where relative paths of pictures are looked for: in `image_root`, else where the run looked."""
    if image_root:
        return (image_root,)
    found = run_of(results).get("image_folders")
    known = [path for path in found if isinstance(path, str)] if isinstance(found, list) else []
    beside = results if os.path.isdir(results) else os.path.dirname(results) or "."
    return tuple(dict.fromkeys([*known, beside, "."]))


def records_of(results: str) -> Iterator[Record]:
    """The records, one at a time. Raises InputError that names file and line of one that can't be read."""
    for line, data in read_whole_rows(annotations_of(results)):
        yield Record(data, place=line - 1)

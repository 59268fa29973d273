"""The report of a results file: where its records, failures and images are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import GroundingError, InputError
from dataflow_grounding.images import find_image
from dataflow_grounding.records import Record, read_object
from dataflow_grounding.review.report import write_report
from dataflow_grounding.rows import copy_file, read_rows
from dataflow_grounding.storage import FileStorage


def report_results(
    annotations: str,
    out_path: str,
    *,
    summary: Mapping[str, Any],
    image_folders: Sequence[str] = (),
    failures_file: str = "",
    image_key: str = "image_path",
    title: str = "Grounded annotations",
) -> int:
    """Write the page of an annotations file, and return how many records it shows.

    Args:
        summary, title: As for write_report.
        image_folders: Where relative image paths are looked for, in this order.
        failures_file: Failures to list; it may be missing.
        image_key: Column of the image's path; `image` for records that don't have it.

    Raises:
        InputError: A file can't be read or written.
    """
    folders = tuple(image_folders)

    def image_of(record: Mapping[str, Any]) -> str | None:
        try:
            return find_image(Record(record, folders), image_key if image_key in record else "image").path
        except GroundingError:
            return None

    failures = _objects(failures_file) if failures_file and os.path.exists(failures_file) else iter(())
    try:
        return write_report(
            _objects(annotations),
            find_image=image_of,
            out_path=out_path,
            title=title,
            summary=summary,
            failures=failures,
        )
    except OSError as error:
        raise InputError(f"can't write {out_path}: {error.strerror or error}") from None


def publish(summary: Summary, storage: FileStorage) -> None:
    """Leave `annotations.jsonl` and `report.html` of a run that is done in its folder; `summary` then names them."""
    annotations = os.path.join(storage.cache_path, "annotations.jsonl")
    page = os.path.join(storage.cache_path, "report.html")
    if summary.done:
        copy_file(summary.annotations, annotations)
        report_results(
            annotations,
            page,
            summary={**summary.to_json(), "model": ", ".join(summary.models)},
            image_folders=storage.image_folders,
            failures_file=summary.failures_file,
        )
        summary.annotations, summary.report = annotations, page


def report_folder(results_dir: str, out_path: str | None = None, image_root: str | None = None) -> tuple[str, int]:
    """Write the page of a finished run's folder; returns the page's path and how many records it shows.

    Args:
        results_dir: The folder, with `annotations.jsonl`; what `run.json` and `failures.jsonl` say is shown too.
        out_path: The page; None for `report.html` in that folder.
        image_root: Where relative image paths are looked for; None for where the run looked.

    Raises:
        InputError: The folder has no annotations, or the page can't be written.
    """
    annotations = os.path.join(results_dir, "annotations.jsonl")
    if not os.path.exists(annotations):
        raise InputError(f"no {annotations}: is {results_dir} the results_dir of a finished run?")
    run = read_object(os.path.join(results_dir, "run.json"))
    found, counts = run.get("image_folders"), run.get("summary")
    known = [folder for folder in found if isinstance(folder, str)] if isinstance(found, list) else []
    folders = [image_root] if image_root else [*known, "."]
    summary = {**(counts if isinstance(counts, dict) else {}), "model": run.get("model")}
    path = out_path or os.path.join(results_dir, "report.html")
    failures = os.path.join(results_dir, "failures.jsonl")
    shown = report_results(annotations, path, summary=summary, image_folders=folders, failures_file=failures)
    return path, shown


def _objects(path: str) -> Iterator[dict[str, Any]]:
    for row in read_rows(path):
        if row.data is not None:
            yield row.data

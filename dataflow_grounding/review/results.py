"""The static report of results: pages with the failures, and each picture with its boxes and its caption."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import GroundingError, InputError
from dataflow_grounding.images import find_image
from dataflow_grounding.mirror import address_of, sent
from dataflow_grounding.records import Record
from dataflow_grounding.results_folder import image_folders_of, run_of
from dataflow_grounding.review.page_html import Report, failure_html, page_html
from dataflow_grounding.review.pages import Pieces, write_pages
from dataflow_grounding.review.record_html import FindImage, record_html
from dataflow_grounding.review.record_view import FIRST, view_of
from dataflow_grounding.rows import copy_file, file_type_of, read_rows, write_rows
from dataflow_grounding.storage import PREFIX, FileStorage

_MOST_KINDS = 20  # of failures that have a filter of their own; the others share one


def report_results(
    annotations: str,
    out_path: str,
    *,
    summary: Mapping[str, Any],
    image_folders: Sequence[str] = (),
    failures_file: str = "",
    title: str = "Grounded annotations",
) -> int:
    """Write the report of an annotations file.

    Args:
        annotations: Records as JSON lines, or as the file's ending says.
        out_path: The first page, HTML.
        summary: Shown of it: `model` and `seconds`.
        image_folders: Where relative image paths are looked for, in this order.
        failures_file: Failures to list; it may be missing, as the annotations may.
        title: The heading: what ran, and on which data.

    Returns:
        How many records it shows.

    Raises:
        InputError: A file can't be read or written.
    """

    def image_of(record: Mapping[str, Any]) -> str | None:
        try:
            key = "image_path" if "image_path" in record else "image"
            return find_image(Record(record, tuple(image_folders)), key).path
        except GroundingError:
            return None

    records, failures = _objects(annotations), _objects(failures_file)
    try:
        return write_report(
            records, find_image=image_of, out_path=out_path, title=title, summary=summary, failures=failures
        )
    except OSError as error:
        raise InputError(f"can't write {out_path}: {error.strerror or error}") from None


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: FindImage,
    out_path: str | os.PathLike[str],
    title: str,
    summary: Mapping[str, Any],
    failures: Iterable[Mapping[str, Any]] = (),
    per_page: int = 500,
) -> int:
    """Write the report of records and failures, which are read once: pages of `per_page` each, all or none.

    A page loads nothing, runs no script, and shows all text as text. Failures come first, then suspect, doubtful and
    unverified records. Further pages are beside the first, as `report-2.html` and so on; those of a longer report go.
    `find_image` gives the path of a record's image file, or None.

    Raises:
        OSError: A page can't be written, or its name is taken by a file that is not a page of a report.
    """
    folder, name = os.path.split(os.path.abspath(out_path))
    with ExitStack() as files:
        report = Report(name, title, summary, Pieces(folder, files), Pieces(folder, files, FIRST), per_page)
        for failure in failures:
            kind, known = str(failure.get("kind") or "unknown"), report.failures.marks
            report.failures.add(failure_html(failure), [kind if kind in known or len(known) < _MOST_KINDS else "other"])
        for record in records:
            view = view_of(record)
            report.include(view)
            report.records.add(record_html(view, find_image, folder), view.marks)
        write_pages(folder, name, _pages(report))
    return report.records.count


def _pages(report: Report) -> Iterator[Iterator[str]]:
    failures, records = iter(report.failures), iter(report.records)
    for number in range(1, report.pages + 1):
        failed, shown = list(islice(failures, report.per_page)), list(islice(records, report.per_page))
        yield page_html(report, number, failed, shown)


def publish(summary: Summary, storage: FileStorage) -> None:
    """Leave `annotations.jsonl` and `report.html` of a run in its folder, where any record of it got through.

    Args:
        summary: What `Pipeline.run()` returned; it then names both files.
        storage: The pipeline's, with the folder; what it reads is named in the title.

    Raises:
        InputError: A file can't be read or written.
    """
    annotations = os.path.join(storage.cache_path, "annotations.jsonl")
    page = os.path.join(storage.cache_path, "report.html")
    if summary.done:
        if file_type_of(summary.annotations) == "jsonl":
            copy_file(summary.annotations, annotations)
        else:
            write_rows(annotations, _objects(summary.annotations))
        said = {**summary.to_json(), "model": ", ".join(summary.models)}
        title, folders = _title_of_script(annotations, storage), storage.image_folders
        failures = summary.failures_file
        report_results(annotations, page, summary=said, image_folders=folders, failures_file=failures, title=title)
        summary.annotations, summary.report = address_of(annotations), sent(page)


def report_folder(results_dir: str, out_path: str | None = None, image_root: str | None = None) -> tuple[str, int]:
    """Write the report of a run's folder.

    Args:
        results_dir: The folder, or one of its steps', with `annotations.jsonl`, or `failures.jsonl` where all records
            failed; `run.json` says what ran.
        out_path: The first page; None for `report.html` in that folder.
        image_root: Where relative image paths are looked for; None for where the run looked.

    Returns:
        The path of the first page, and how many records the report shows.

    Raises:
        InputError: The folder has neither, or a page can't be written.
    """
    annotations, failures = (os.path.join(results_dir, name) for name in ("annotations.jsonl", "failures.jsonl"))
    if not os.path.exists(annotations) and not os.path.exists(failures):
        raise InputError(f"no {annotations}: is {results_dir} the results_dir of a finished run?")
    run, folders = run_of(results_dir), image_folders_of(results_dir, image_root)
    counts = run.get("summary")
    summary = {**(counts if isinstance(counts, dict) else {}), "model": run.get("model")}
    path = out_path or os.path.join(results_dir, "report.html")
    if os.path.splitext(path)[1] in (".json", ".jsonl"):
        raise InputError(f"{path} is a name for data: call the report something that ends with .html")
    pipeline, data = _pipeline_and_data(run.get("spec"))
    title = _title(pipeline or _source(annotations), data) or os.path.basename(os.path.abspath(results_dir))
    shown = report_results(
        annotations, path, summary=summary, image_folders=folders, failures_file=failures, title=title
    )
    return path, shown


def _pipeline_and_data(spec: Any) -> tuple[str, str]:
    """The pipeline that a run's spec names, and the first file or folder that its `data` does; empty where unknown."""
    spec = spec if isinstance(spec, dict) else {}
    named = spec.get("autolabel_type")
    pipeline = named if isinstance(named, str) else ""
    blocks = [spec.get(pipeline), *spec.values()]  # a user's pipeline has a block of another name
    found = (block["data"] for block in blocks if isinstance(block, dict) and isinstance(block.get("data"), dict))
    return pipeline, next((value for value in next(found, {}).values() if value and isinstance(value, str)), "")


def _title_of_script(annotations: str, storage: FileStorage) -> str:
    """By its records, else by what it calls its files; and the images, where it made the file of records itself."""
    prefix = "" if storage.file_name_prefix == PREFIX else storage.file_name_prefix
    first = storage.first_entry_file_name
    made = os.path.dirname(os.path.abspath(first)) == os.path.abspath(storage.cache_path)
    return _title(_source(annotations) or prefix, storage.image_root if made and storage.image_root else first)


def _source(annotations: str) -> str:
    """The pipeline that the first record comes from; empty where it doesn't say."""
    source = next(_objects(annotations), {}).get("source")
    return source if isinstance(source, str) else ""


def _title(pipeline: str, data: str) -> str:
    return " · ".join(filter(None, [pipeline, os.path.basename(os.path.normpath(data)) if data else ""]))


def _objects(path: str) -> Iterator[dict[str, Any]]:
    """The rows of a file that can be read; none without the file."""
    for row in read_rows(path) if os.path.exists(path) else ():
        if row.data is not None:
            yield row.data

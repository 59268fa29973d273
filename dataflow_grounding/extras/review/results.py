"""The report of results: of a run's folder, of a script's, or of two runs beside each other."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from typing import Any

from dataflow_grounding._util.errors import GroundingError, InputError, told_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute
from dataflow_grounding.data.records import Record, dump_text, read_object
from dataflow_grounding.data.results_folder import (
    annotations_of,
    image_folders_of,
    run_of,
    stated_in,
)
from dataflow_grounding.data.rows import (
    Row,
    copy_file,
    file_type_of,
    read_rows,
    write_rows,
    write_text,
)
from dataflow_grounding.data.storage import PREFIX, FileStorage
from dataflow_grounding.data.working_folder import address_of, sent
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.extras.evaluation.figures.counting import FigureCounts
from dataflow_grounding.extras.review._record_view import path_of_picture
from dataflow_grounding.extras.review._report import write_report
from dataflow_grounding.extras.review._versions import Version, steps_of


def report_results(
    annotations: str,
    out_path: str,
    *,
    image_folders: Sequence[str] = (),
    failures_file: str = "",
    versions: Sequence[tuple[str, str]] = (),
    is_run: bool = False,
    **how: Any,
) -> int:
    """Write the report of an annotations file.

    Args:
        annotations: Records as JSON lines, or as the file's ending says.
        out_path: The page, HTML; beside it is a folder for what it shows, `report_files` for
            `report.html`.
        image_folders: Where relative image paths are looked for, in this order.
        failures_file: Failures to list; it may be missing, as the annotations may.
        versions: Names and files of earlier versions of the records, in order, the last one's the
            annotations' own.
        is_run: Whether they are of two runs, not of a run's steps.
        how: `title`, `summary`, `single`, `copies`, `on_progress`, as for `write_report`.

    Returns:
        How many records it shows.

    Raises:
        InputError: A file can't be read or written, or a single file would be too large.

    Example:
        ``report_results("out/annotations.jsonl", "out/report.html", title="A run",
        summary={"model": "a-model"})``
    """

    def image_of(record: Mapping[str, Any]) -> str | None:
        try:
            return path_of_picture(Record(record, tuple(image_folders)))
        except GroundingError:
            return None

    counts = FigureCounts()

    def figures() -> dict[str, Any] | None:
        counts.end_data_set()
        return counts.figures() if os.path.exists(annotations) else None

    how |= {"figures": figures, "called": versions[-1][0] if versions else ""}
    with told_as(InputError, f"can't write {out_path}"), ExitStack() as stack:
        how["versions"] = [
            stack.enter_context(closing(Version(*one, is_run))) for one in versions[:-1]
        ]
        records, failures = (
            _counted(annotations, counts),
            chain(_objects(failures_file), _unread(annotations)),
        )
        return write_report(
            records, find_image=image_of, out_path=out_path, failures=failures, **how
        )


def publish(summary: Summary, storage: FileStorage) -> None:
    """Leave `annotations.jsonl`, `report.html` and `run.json` of a run in its folder, where any
    record got through.

    Args:
        summary: What `Pipeline.run()` returned; it then names both files.
        storage: The pipeline's, with the folder; what it reads is named in the title.

    Raises:
        InputError: A file can't be read or written.
    """
    annotations, run = (
        os.path.join(storage.cache_path, name) for name in ("annotations.jsonl", "run.json")
    )
    if summary.done:
        if file_type_of(summary.annotations) == "jsonl":
            copy_file(summary.annotations, annotations)
        else:
            write_rows(annotations, _objects(summary.annotations))
        said = {**summary.to_json(), "model": ", ".join(summary.models)}
        if "spec" not in read_object(run):
            folders = [*map(absolute, storage.image_folders)]
            known = {"model": said["model"], "image_folders": folders, "summary": said}
            write_text(run, dump_text(known, 1) + "\n")
        page, _ = report_folder(
            storage.cache_path, title=_title_of_script(annotations, storage), summary=said
        )
        summary.annotations, summary.report = address_of(annotations), sent(page)


def report_folder(
    results_dir: str,
    out_path: str | None = None,
    image_root: str | None = None,
    *,
    other: str | None = None,
    single: bool = False,
    copies: bool = False,
    **how: Any,
) -> tuple[str, int]:
    """Write the report of a run's folder, or of two beside each other.

    Args:
        results_dir: The folder, or one of its steps', with `annotations.jsonl`, or `failures.jsonl`
            where all records failed; `run.json` says what ran. Where steps changed records, their
            versions are beside each other.
        out_path: The page; None for `report.html` in that folder, or `report_with_NAME.html` with
            another of that name.
        image_root: Where relative image paths are looked for; None for where the runs looked.
        other: Another run's folder: its records are shown, and `results_dir`'s as the earlier
            versions of them.
        single: Whether the page is to hold everything, without a folder beside it.
        copies: Whether every picture is to have a small copy: a page that is moved without them
            shows these.
        how: `title` and `summary`, if not what the folder's files say; `on_progress` is told how
            many records are done.

    Returns:
        The path of the page, and how many records the report shows.

    Raises:
        InputError: A folder has neither, the page can't be written, or a single file would be too
            large.
    """
    for folder in filter(None, (results_dir, other)):
        if not any(
            os.path.exists(os.path.join(folder, name))
            for name in ("annotations.jsonl", "failures.jsonl")
        ):
            folder = address_of(folder)
            raise InputError(
                f"no {folder}/annotations.jsonl: is {folder} the results_dir of a finished run?"
            )
    shown = other or results_dir
    path = out_path or os.path.join(
        results_dir, f"report_with_{_last(other)}.html" if other else "report.html"
    )
    if os.path.splitext(path)[1] in (".json", ".jsonl"):
        raise InputError(
            f"{path} is a name for data: call the report something that ends with .html"
        )
    run, annotations = run_of(shown), os.path.join(shown, "annotations.jsonl")
    counts = run["summary"] if isinstance(run.get("summary"), dict) else {}
    title = _title_of_run(run, _source(annotations)) or _last(shown)
    how = {"title": title, "summary": {**counts, "model": run.get("model")}, **how}
    folders, versions = image_folders_of(shown, image_root), steps_of(shown)
    if other:
        names = (
            (_last(results_dir), _last(other))
            if _last(results_dir) != _last(other)
            else (results_dir, other)
        )
        versions = [
            (name, annotations_of(folder))
            for name, folder in zip(names, (results_dir, other), strict=True)
        ]
        how["title"], folders = (
            " → ".join(names),
            folders + image_folders_of(results_dir, image_root),
        )
    failures = within(
        shown, os.path.basename(str(how["summary"].get("failures_file") or "failures.jsonl"))
    )
    how |= {
        "failures_file": failures,
        "versions": versions,
        "is_run": bool(other),
        "image_folders": folders,
    }
    return path, report_results(annotations, path, single=single, copies=copies, **how)


def _last(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder))


def _title_of_run(run: Mapping[str, Any], source: str) -> str:
    """By the pipeline that its spec names, else that of its records; and the first file or folder
    among its data.
    """
    spec = run.get("spec")
    pipeline = spec.get("autolabel_type") if isinstance(spec, dict) else None
    named = (
        value
        for value in next(stated_in(run, "data"), {}).values()
        if value and isinstance(value, str)
    )
    return _title(pipeline if pipeline and isinstance(pipeline, str) else source, next(named, ""))


def _title_of_script(annotations: str, storage: FileStorage) -> str:
    """By its records, else by what it calls its files; and the images, where it made the file of
    records itself.
    """
    prefix = "" if storage.file_name_prefix == PREFIX else storage.file_name_prefix
    first = storage.first_entry_file_name
    made = os.path.dirname(os.path.abspath(first)) == os.path.abspath(storage.cache_path)
    return _title(
        _source(annotations) or prefix, storage.image_root if made and storage.image_root else first
    )


def _source(annotations: str) -> str:
    """The pipeline that the first record comes from; empty where it doesn't say."""
    source = next(_objects(annotations), {}).get("source")
    return source if isinstance(source, str) else ""


def _title(pipeline: str, data: str) -> str:
    return " · ".join(
        filter(None, [pipeline, os.path.basename(os.path.normpath(data)) if data else ""])
    )


def _rows(path: str) -> Iterator[Row]:
    return read_rows(path) if os.path.exists(path) else iter(())


def _unread(path: str) -> Iterator[dict[str, Any]]:
    """The rows of a file that can't be read, as failures."""
    for row in _rows(path):
        if row.error is not None:
            yield {
                "id": f"line {row.line}",
                "step": "report",
                "kind": row.error.kind,
                "message": str(row.error),
            }


def _counted(path: str, counts: FigureCounts) -> Iterator[dict[str, Any]]:
    """The records of a file, as they are counted."""
    for row in _rows(path):
        if row.data is None:
            counts.add_broken()
        else:
            counts.add(row.data, f"record {row.line} of {path}")
            yield row.data


def _objects(path: str) -> Iterator[dict[str, Any]]:
    return (row.data for row in _rows(path) if row.data is not None)

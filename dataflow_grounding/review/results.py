"""The report of results: of a run's folder, of a script's, or of two runs next to each other."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain

from dataflow_grounding._util.errors import GroundingError, InputError, errors_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.terminal import addressed
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.records import JsonObject, Record, Update, dump_text, read_object
from dataflow_grounding.data.remarks import remarks_in
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
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.evaluation.figures.counting import FigureCounts
from dataflow_grounding.images.image import ImageFile
from dataflow_grounding.review._record_view import file_of_picture, known_classes
from dataflow_grounding.review._report import write_report
from dataflow_grounding.review._versions import Version, steps_of


def report_results(
    annotations: str,
    out_path: str,
    *,
    image_folders: Sequence[str] = (),
    failures_file: str = "",
    versions: Sequence[tuple[str, str]] = (),
    is_run: bool = False,
    title: str,
    summary: JsonObject,
    single: bool = False,
    copies: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the report of an annotations file, and count the records that it shows.

    Rows that can't be read are listed among the failures. `versions` are names and files: earlier
    ones, which are shown next to the records, and last the annotations themselves. They are a run's
    steps, or with `is_run` two runs. Of two runs, records that one of them alone has are shown,
    too, and the page begins with the records that differ. Raises InputError.
    """
    classes = known_classes(annotations)
    counts = FigureCounts()
    counts.list_classes(list(classes.names))  # a copy: classes of records are added to `names`
    own_name = versions[-1][0] if versions else ""
    with errors_as(InputError, f"can't write {out_path}"), ExitStack() as open_files:
        earlier = []
        for name, path in versions[:-1]:
            earlier.append(open_files.enter_context(closing(Version(name, path, is_run))))
        return write_report(
            counts.counted(_rows(annotations), annotations),
            find_image=partial(_image_in, tuple(image_folders)),
            out_path=out_path,
            failures=chain(_objects(failures_file), _unread(annotations)),
            versions=earlier,
            own_name=own_name,
            begins_with="changed" if is_run else "",
            classes=classes,
            # Only the counts of all records tell which remarks are rare, so they are read before.
            remarks=remarks_in([annotations] if os.path.exists(annotations) else []),
            single=single,
            copies=copies,
            figures=partial(_figures_of, annotations, counts),
            on_progress=on_progress,
            title=title,
            summary=summary,
        )


def _image_in(folders: tuple[str, ...], record: Record) -> ImageFile | None:
    try:
        return file_of_picture(Record(record, folders))
    except GroundingError:
        return None


def _figures_of(annotations: str, counts: FigureCounts) -> JsonObject | None:
    """Return the figures once all records were counted; None for a run with failures alone."""
    counts.end_data_set()
    return counts.figures() if os.path.exists(annotations) else None


def publish(summary: Summary, storage: FileStorage) -> None:
    """Write `annotations.jsonl`, `report.html` and `run.json` into a run's folder.

    Nothing is written where no record got through. A `run.json` that a spec's run left is kept.

    Args:
        summary: What `Pipeline.run()` returned. Its `annotations` and `report` are set to where
            these files are.
        storage: The pipeline's, with the folder; what it reads is named in the title.

    Raises:
        InputError: A file can't be read or written.
    """
    if not summary.done:
        return
    annotations = os.path.join(storage.cache_path, "annotations.jsonl")
    if file_type_of(summary.annotations) == "jsonl":
        copy_file(summary.annotations, annotations)
    else:  # a CSV file, for instance
        write_rows(annotations, _objects(summary.annotations))
    summary.annotations = annotations
    run_summary = {**summary.to_json(), "model": ", ".join(summary.models)}
    run_file = os.path.join(storage.cache_path, "run.json")
    if "spec" not in read_object(run_file):  # else a spec's run left it
        _write_run_file(run_file, run_summary, storage)
    title = _title_of_script(annotations, storage)
    page, _ = report_folder(storage.cache_path, title=title, summary=run_summary)
    bucket.send(page)  # and what else was written, where the folder is of a bucket
    summary.shown.report = page


def _write_run_file(path: str, run_summary: JsonObject, storage: FileStorage) -> None:
    about_run = {
        "model": run_summary["model"],
        "image_folders": [absolute(folder) for folder in storage.image_folders],
        "summary": run_summary,
    }
    # A folder that is sent to a store is named by its address there.
    text = addressed(dump_text(about_run, 1))
    write_text(path, text + "\n")


def report_folder(
    results_dir: str,
    out_path: str | None = None,
    image_root: str | None = None,
    *,
    other: str | None = None,
    title: str | None = None,
    summary: JsonObject | None = None,
    single: bool = False,
    copies: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[str, int]:
    """Write the report of a run's folder, or of two next to each other; return its path and count.

    The page is `report.html` in that folder, or `report_with_NAME.html`, unless `out_path` names
    it. `copies` are for a page that is moved without the pictures. `title` and `summary` are what
    the folder's files say, unless they are given. Raises InputError where a folder has neither
    annotations nor failures, or the page can't be written.
    """
    _check_results(results_dir)
    if other:
        _check_results(other)
    page = f"report_with_{_folder_name(other)}.html" if other else "report.html"
    path = out_path or os.path.join(results_dir, page)
    _refuse_name_for_data(path)
    folder = other or results_dir
    run = run_of(folder)
    image_folders = image_folders_of(folder, image_root)
    if other:  # the page is of this run, and has the first one as its earlier version
        name, other_name = _distinct_names(results_dir, other)
        title = f"{name} → {other_name}"
        versions = [(name, annotations_of(results_dir)), (other_name, annotations_of(other))]
        image_folders += image_folders_of(results_dir, image_root)
    else:
        versions = steps_of(results_dir)
        if title is None:
            title = _title_of_run(folder, run) or _folder_name(folder)
    if summary is None:
        summary = _summary_of_run(run)
    # Only the file's name is taken of the path in the summary: the folder may have been moved
    # since.
    failures = os.path.basename(str(summary.get("failures_file") or "failures.jsonl"))
    shown_records = report_results(
        os.path.join(folder, "annotations.jsonl"),
        path,
        image_folders=image_folders,
        failures_file=within(folder, failures),
        versions=versions,
        is_run=bool(other),
        title=title,
        summary=summary,
        single=single,
        copies=copies,
        on_progress=on_progress,
    )
    bucket.send(path, ".html", ".js", ".webp", ".jpg", ".txt")  # where the folder is of a bucket
    return path, shown_records


def _check_results(folder: str) -> None:
    for name in ("annotations.jsonl", "failures.jsonl"):
        if os.path.exists(os.path.join(folder, name)):
            return
    if os.path.isfile(folder):
        raise InputError(f"{folder} is a file: name the folder of the run that it is of")
    raise InputError(
        f"no {folder}/annotations.jsonl: is {folder} the results_dir of a finished run?"
    )


def _refuse_name_for_data(path: str) -> None:
    if os.path.splitext(path)[1] in (".json", ".jsonl"):
        raise InputError(
            f"{path} is a name for data: call the report something that ends with .html"
        )


def _distinct_names(folder_a: str, folder_b: str) -> tuple[str, str]:
    """Return the folders' names, or the folders as they were named where these are equal."""
    name_a, name_b = _folder_name(folder_a), _folder_name(folder_b)
    return (folder_a, folder_b) if name_a == name_b else (name_a, name_b)


def _folder_name(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder))


def _summary_of_run(run: JsonObject) -> JsonObject:
    about_model = {"model": run.get("model"), "box_format": run.get("box_format")}
    summary = run.get("summary")
    return {**summary, **about_model} if isinstance(summary, dict) else about_model


def _title_of_run(folder: str, run: JsonObject) -> str:
    spec = run.get("spec")
    pipeline = spec.get("autolabel_type") if isinstance(spec, dict) else None
    if not isinstance(pipeline, str) or not pipeline:
        pipeline = _pipeline_in(os.path.join(folder, "annotations.jsonl"))
    # The first text among the `data` of a run's spec is nearly always the path of its input.
    data = next(stated_in(run, "data"), {})
    texts = [value for value in data.values() if value and isinstance(value, str)]
    input_path = texts[0] if texts else ""
    return _title(pipeline, input_path)


def _title_of_script(annotations: str, storage: FileStorage) -> str:
    """Return a title that names the pipeline, and the records or images that the script read."""
    input_path = storage.first_entry_file_name
    input_folder = os.path.dirname(os.path.abspath(input_path))
    is_made_by_script = input_folder == os.path.abspath(storage.cache_path)
    if is_made_by_script and storage.image_root:
        input_path = storage.image_root
    pipeline = _pipeline_in(annotations)
    # Without a pipeline's name, the prefix of the step files takes its place, if the script chose
    # one: the default prefix says nothing.
    if not pipeline and storage.file_name_prefix != PREFIX:
        pipeline = storage.file_name_prefix
    return _title(pipeline, input_path)


def _pipeline_in(annotations: str) -> str:
    """Return the name of the pipeline that made the first record."""
    source = next(_objects(annotations), {}).get("source")
    return source if isinstance(source, str) else ""


def _title(pipeline: str, input_path: str) -> str:
    """Return `image_grounding · captions.jsonl`, without what isn't known."""
    parts = [pipeline]
    if input_path:
        parts.append(os.path.basename(os.path.normpath(input_path)))
    return " · ".join(part for part in parts if part)


def _rows(path: str) -> Iterator[Row]:
    if os.path.exists(path):
        yield from read_rows(path)


def _unread(path: str) -> Iterator[Update]:
    """Yield the rows that can't be read, as lines of failures.jsonl."""
    for row in _rows(path):
        if row.error is not None:
            yield {
                "id": f"line {row.line}",
                "step": "report",
                "kind": row.error.kind,
                "message": str(row.error),
            }


def _objects(path: str) -> Iterator[JsonObject]:
    return (row.data for row in _rows(path) if row.data is not None)

"""Writing a report: one pass over the records, with all that is not needed at the end kept on disk."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import IO, Any
from urllib.parse import quote

from dataflow_grounding.review.door_html import door_html
from dataflow_grounding.review.record_data import view_data
from dataflow_grounding.review.record_index import FLAGS, RecordIndex, rank_of
from dataflow_grounding.review.record_view import FIRST, MEANING, View, view_of
from dataflow_grounding.review.report_files import PER_FILE, ReportFiles, script_json
from dataflow_grounding.review.thumbnails import Thumbnails
from dataflow_grounding.review.versions import Version, beside
from dataflow_grounding.secrets import blotted_message

FindImage = Callable[[Mapping[str, Any]], "str | None"]

_MOST_KINDS = 20  # of failures that have a filter of their own; the others share one


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: FindImage,
    out_path: str | os.PathLike[str],
    title: str,
    summary: Mapping[str, Any],
    failures: Iterable[Mapping[str, Any]] = (),
    versions: Sequence[Version] = (),
    called: str = "",
    plots: Sequence[str] = (),
    single: bool = False,
) -> int:
    """Write the report of records and failures, which are read once; all of it or nothing.

    The page opens from disk and asks no network. Failures come first, then suspect, doubtful and unverified records.

    Args:
        find_image: Gives the path of a record's image file, or None.
        out_path: The page. Data and small pictures are in a folder beside it, `report_files` for `report.html`.
        title, summary, plots: See `door_html`.
        versions: Earlier versions of the records, to be shown where they differ.
        called: What these records are called among them.
        single: Whether the page is to hold everything.

    Returns:
        How many records it shows.

    Raises:
        InputError: It is too large for a single file.
        OSError: A file can't be written, or its name is taken by what is no report's.
    """
    with ExitStack() as stack:
        files = stack.enter_context(ReportFiles(out_path, single))
        kinds = _write_failures(files, failures)
        rows, index = _Sorted(stack), RecordIndex()
        counts = Counter(failures=kinds.total())
        thumbnails = Thumbnails(files.folder, files.thumbnails)
        views = ((item, find_image(item[0].record)) for item in _with_versions(records, versions, called))
        for (view, more), picture in thumbnails.along(views):
            data = {**view_data(view, picture), **more}
            data["notes"] += more.get("notes", [])
            rows.add(rank_of(view), script_json(index.row(view, data)), script_json(data))
            counts.update(view.counts)
            counts["changed"] += "changes" in more
        files.write_parts("records", rows.texts(1))
        first = {"heads": list(index.heads), "models": list(index.models)}
        files.write("index", chain([script_json(first)], rows.texts(0)))
        data_folder = "" if single else os.path.relpath(files.data, files.folder)
        about = {
            "files": f"{quote(os.fsencode(data_folder))}/",
            "perFile": PER_FILE,
            "flags": FLAGS,
            "marked": index.marked,
            "meaning": MEANING,
            "first": FIRST,
            "kinds": kinds,
            "records": counts["images"],
            "failures": counts["failures"],
        }
        files.put(door_html(title, summary, counts, kinds, plots=plots, about=about, inline=files.inline()))
        thumbnails.remove_others()
    return counts["images"]


def _with_versions(
    records: Iterable[Mapping[str, Any]], versions: Sequence[Version], name: str
) -> Iterator[tuple[View, dict[str, Any]]]:
    """Each record, and what is added to its data because of its other versions; then those that only one has."""
    run = versions[0] if versions and versions[0].is_run else None
    for record in records:
        view = view_of(record)
        others = [(version.name, version.take(record)) for version in versions]
        more = beside(view, others, name)
        if run and others[0][1] is None:
            more["notes"] = [f"Only in {name}."]
        yield view, more
    for view in run.left() if run else ():
        yield view, {"notes": [f"Only in {run.name}."]} if run else {}


def _write_failures(files: ReportFiles, failures: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Write them, and count their kinds."""
    kinds = Counter[str]()

    def rows() -> Iterator[str]:
        for failure in failures:
            kind = str(failure.get("kind") or "unknown")
            shared = kind if kind in kinds or len(kinds) < _MOST_KINDS else "other"
            kinds[shared] += 1
            cells = [failure.get(key) for key in ("id", "message", "kind", "step")]
            if cells[0] is None and failure.get("line") is not None:
                cells[0] = f"line {failure['line']}"
            texts = ["" if cell is None else blotted_message(str(cell)) for cell in cells]
            yield script_json([*texts, shared])

    files.write_parts("failures", rows())
    return kinds


class _Sorted:
    """Pairs of texts kept on disk, which come out by rank, then as they came."""

    def __init__(self, files: ExitStack) -> None:
        self._files: list[tuple[IO[str], IO[str]]] = [
            (self._file(files), self._file(files)) for _ in range(len(FIRST) + 1)
        ]

    def _file(self, files: ExitStack) -> IO[str]:
        file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115
        files.enter_context(file)
        return file

    def add(self, rank: int, *texts: str) -> None:
        for file, text in zip(self._files[rank], texts, strict=True):
            file.write(f"{text}\n")

    def texts(self, which: int) -> Iterator[str]:
        for pair in self._files:
            pair[which].seek(0)
            yield from (line.rstrip("\n") for line in pair[which])

"""Writing a report: one pass over the records, with what the page holds last kept on disk.

A mark is what the page may filter records by, such as `doubtful` (FLAGS has all). A record's rank
says where it comes on the page: those with the marks of FIRST come first. Its view is what the page
shows of it, and its row in the index is what the page needs to filter and count it unseen.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import IO, Any, TypeAlias

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.data.records import STATUSES, JsonObject, Record, Update, path_of
from dataflow_grounding.data.remarks import Remarks, remarks_of
from dataflow_grounding.images.image import ImageFile
from dataflow_grounding.review._door_html import door_html
from dataflow_grounding.review._index import Index, marks_of
from dataflow_grounding.review._record_view import (
    FIRST,
    PageClasses,
    Picture,
    View,
    phrases_of,
    view_of,
)
from dataflow_grounding.review._report_files import PER_FILE, ReportFiles, script_json
from dataflow_grounding.review._versions import (
    Earlier,
    Version,
    changes_of,
    with_versions,
)

TOLD_EVERY = 100  # records between two calls of `on_progress`
_MOST_KINDS = 20  # of failures that have a separate filter; the others share one
# Where a record's two lines are in the file of its rank: `_write_row` writes one after the other.
_INDEX_LINE = 0
_VIEW_LINE = 1
_WithFile: TypeAlias = tuple[Record, Earlier, ImageFile | None]  # a record's


def write_report(
    records: Iterable[Record],
    *,
    find_image: Callable[[Record], ImageFile | None],
    out_path: str | os.PathLike[str],
    failures: Iterable[JsonObject] = (),
    versions: Sequence[Version] = (),
    own_name: str = "",
    begins_with: str = "",
    classes: PageClasses | None = None,
    remarks: Remarks | None = None,
    single: bool = False,
    copies: bool = False,
    figures: Callable[[], JsonObject | None] = lambda: None,
    on_progress: Callable[[int], None] = lambda _: None,
    title: str,
    summary: JsonObject,
) -> int:
    """Write the report of records and failures, all of it or nothing, and count its records.

    - `own_name` is what the records are called next to `versions`.
    - `begins_with` is the flag of the records that the page shows at first.
    - `classes` are those that the data set lists; records add theirs to them.
    - `remarks` tells which remarks are rare; without it every remark is.
    - `figures` is called once all records were read.
    - With `copies` even small pictures are copied.
    """
    remarks = remarks or Remarks()
    with ExitStack() as stack:
        # Unless `put` was called, closing it removes what was written.
        files = stack.enter_context(closing(ReportFiles(out_path, single, copies)))
        failure_kinds = Counter[str]()  # how many failures each of the page's filters has
        files.write_parts("failures", _failure_rows(failures, failure_kinds))
        # a temporary file for each mark that puts a record first, and one for all others
        rank_files = [stack.enter_context(files.spool()) for _ in range(len(FIRST) + 1)]
        written = _Written(rank_files, classes or PageClasses(), remarks, own_name)
        shown = _with_pictures(with_versions(records, versions, own_name), find_image, files)
        for record_count, (record, earlier, picture) in enumerate(shown, 1):
            written.add(record, earlier, picture)
            if record_count % TOLD_EVERY == 0:
                on_progress(record_count)
        files.write_parts("records", _lines(rank_files, _VIEW_LINE))
        files.write("index", _lines(rank_files, _INDEX_LINE))
        counts = written.counts_of_page(failure_kinds.total(), summary.get("failed"))
        page = door_html(
            {
                **written.index.facts(),
                "files": files.address,
                "perFile": PER_FILE,
                "kinds": failure_kinds,
                "beginsWith": begins_with,
                "failures": failure_kinds.total(),
            },
            files.inline,
            title=title,
            counts=counts,
            failure_kinds=failure_kinds,
            summary=summary,
            plots=figures(),
            said_next_to_answers=remarks.line(),
        )
        files.put(page)
    return written.count


class _Written:
    """Writes records into the files of their ranks, and has what the page knows of all of them."""

    def __init__(
        self, rank_files: Sequence[IO[str]], classes: PageClasses, remarks: Remarks, own_name: str
    ) -> None:
        self._rank_files = rank_files
        self._remarks = remarks
        self._own_name = own_name
        self._pictures = set[int]()  # hashes of the paths of those that are counted
        self.index = Index(classes)
        self.counts = Counter[str]()  # the figures of the records
        self.count = 0  # of records that are shown

    def add(self, record: Record, earlier: Earlier, picture: Picture) -> None:
        phrases = phrases_of(record)
        classes = self.index.classes
        view = view_of(record, picture, classes, phrases=phrases, each_thing_once=True)
        changes = changes_of(view, earlier, self._own_name, classes)
        marks = marks_of(record, phrases)
        if changes.only or changes.changes:
            marks.add("changed")
        if picture.missing:
            marks.add("without picture")
        is_of_this_run = changes.only in ("", self._own_name)
        # This run's remarks alone were counted, so only these can be called rare.
        if is_of_this_run and self._remarks.is_rare(remarks_of(record)):
            marks.add("unusual")
        self.count += 1
        self.counts["changed"] += "changed" in marks
        row = self.index.row_of(record, phrases, marks)
        _write_row(self._rank_files, {**view.to_json(), **changes.to_json()}, row, marks)
        if is_of_this_run:  # else it is shown, but isn't among the figures
            self.counts.update(_counts_of(record, view, marks))
            path = path_of(record)  # each picture counts once; one that names none is of its own
            self.counts["images"] += not path or hash(path) not in self._pictures
            self._pictures.add(hash(path))

    def counts_of_page(self, failure_count: int, failed: Any) -> Counter[str]:
        """Return the figures of the page; `failed` is how many of the run's images aren't done."""
        counts = Counter(self.counts)
        counts["failures"] = failure_count
        # `failed` may be less than `failure_count`, which counts failed checks of done images, too.
        if isinstance(failed, int) and failed > 0:
            # So far `images` counts the records shown, which were done. With those that failed it
            # is the number of images in the run's summary.
            counts["done"] = counts["images"]
            counts["images"] += failed
        return counts


def _with_pictures(
    records: Iterable[tuple[Record, Earlier]],
    find_image: Callable[[Record], ImageFile | None],
    files: ReportFiles,
) -> Iterator[tuple[Record, Earlier, Picture]]:
    """Yield each record with its picture as the page shows it, in the same order."""
    with_files: Iterator[_WithFile] = (
        (record, earlier, find_image(record)) for record, earlier in records
    )

    def is_far(item: _WithFile) -> bool:
        _, _, file = item
        return file is not None and file.is_far

    def with_picture(item: _WithFile) -> tuple[Record, Earlier, Picture]:
        record, earlier, file = item
        return record, earlier, files.picture(file)

    # A decoded picture takes memory, so only one for each core is made into a small copy at a time.
    # Files that are far, in a store, are waited for by more threads.
    return side_by_side(with_picture, with_files, is_far, cores=True)


def _failure_rows(failures: Iterable[JsonObject], kind_counts: Counter[str]) -> Iterator[str]:
    """Yield [id, message, kind, step, filter] of each failure in JSON; count the filters."""
    for failure in failures:
        kind_of_filter = str(failure.get("kind") or "unknown")
        if kind_of_filter not in kind_counts and len(kind_counts) >= _MOST_KINDS:
            kind_of_filter = "other"
        kind_counts[kind_of_filter] += 1
        id = failure.get("id")
        if id is None and failure.get("line") is not None:
            id = f"line {failure['line']}"
        cells = [id, failure.get("message"), failure.get("kind"), failure.get("step")]
        texts = ["" if cell is None else blotted_message(str(cell)) for cell in cells]
        yield script_json([*texts, kind_of_filter])


def _write_row(
    rank_files: Sequence[IO[str]], view: Update, row: list[Any], marks: Collection[str]
) -> None:
    rank = 0  # the index in FIRST of the first mark that the record has, or len(FIRST)
    while rank < len(FIRST) and FIRST[rank] not in marks:
        rank += 1
    rank_files[rank].write(f"{script_json(row)}\n{script_json(view)}\n")


def _lines(rank_files: Sequence[IO[str]], first_line: int) -> Iterator[str]:
    """Yield one line of each record, _INDEX_LINE or _VIEW_LINE, in the order of ranks."""
    for file in rank_files:
        file.seek(0)
        for line in islice(file, first_line, None, 2):
            yield line.rstrip("\n")


def _counts_of(record: Record, view: View, marks: Collection[str]) -> Counter[str]:
    """Return what the record adds to the page's figures; without a key, a figure isn't shown."""
    expressions = view.expressions
    counts = Counter[str]()
    for mark in ("doubtful", "unusual", "disputed", "suspect"):
        if mark in marks:
            counts[mark] = 1
    regions = record.get("regions") or record.get("region_captions")
    if isinstance(regions, list):
        counts["regions"] = len(regions)
    if view.kind == "region_captions":
        counts["captions"] = 0
        if expressions:  # else the column is empty, or can't be read
            rows = record["region_captions"]
            counts["captions"] = sum(
                isinstance(row, dict) and bool(row.get("text")) for row in rows
            )
    if view.kind == "expressions":
        counts["expressions"] = len(expressions)
        counts.update(dict.fromkeys(STATUSES, 0))  # the page tells that 0 are `grounded`, too
        counts.update(expression.status for expression in expressions)
    counts.update(expression.check for expression in expressions if expression.check)
    return counts

"""Writing a report: one pass over the records, with what the page holds last kept on disk.

A mark is what the page may filter records by, such as `doubtful` (FLAGS has all). A record's rank
says where it comes on the page: those with the marks of FIRST come first. Its view is what the page
shows of it, and its row in the index is what the page needs to filter and count it unseen.
"""

import os
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import IO, Any, TypeAlias

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import COCO_SIZES, area, box_of, coco_size
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.data.records import STATUSES, doubt_of_reply, path_of
from dataflow_grounding.data.remarks import Remarks, remarks_of
from dataflow_grounding.images.image import ImageFile
from dataflow_grounding.review._door_html import door_html
from dataflow_grounding.review._record_view import (
    FIRST,
    MEANING,
    PageClasses,
    PageNames,
    Picture,
    View,
    view_of,
)
from dataflow_grounding.review._report_files import PER_FILE, ReportFiles, script_json
from dataflow_grounding.review._versions import (
    Earlier,
    Version,
    changes_view,
    with_versions,
)

FLAGS = (*MEANING, "verified", *COCO_SIZES, "changed", "without picture")
"""What a record may be marked with: the page's filters, and sizes of boxes.

The index in this tuple is the number of the bit in a row of the index, which `report.js` reads.
"""
_SCORE_BINS = 10  # equal parts of 0 to 1
_SIDES = (16, 32, 64, 128, 256)  # px, the root of a box's area; report.js has the same
TOLD_EVERY = 100  # records between two calls of `on_progress`
_MOST_KINDS = 20  # of failures that have a separate filter; the others share one
# Where a record's two lines are in the file of its rank: `_write_row` writes one after the other.
_INDEX_LINE = 0
_VIEW_LINE = 1
_WithFile: TypeAlias = tuple[Mapping[str, Any], Earlier, ImageFile | None]  # a record's


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: Callable[[Mapping[str, Any]], ImageFile | None],
    out_path: str | os.PathLike[str],
    failures: Iterable[Mapping[str, Any]] = (),
    versions: Sequence[Version] = (),
    own_name: str = "",
    begins_with: str = "",
    classes: PageClasses | None = None,
    remarks: Remarks | None = None,
    single: bool = False,
    copies: bool = False,
    figures: Callable[[], Mapping[str, Any] | None] = lambda: None,
    on_progress: Callable[[int], None] = lambda _: None,
    title: str,
    summary: Mapping[str, Any],
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
            counts,
            failure_kinds,
            _page_facts(written, failure_kinds, files.address, begins_with),
            files.inline,
            title=title,
            summary=summary,
            plots=figures(),
            said_next_to_answers=remarks.line(),
        )
        files.put(page)
    return counts["shown"]


class _Written:
    """Writes records into the files of their ranks, and has what the page knows of all of them."""

    def __init__(
        self, rank_files: Sequence[IO[str]], classes: PageClasses, remarks: Remarks, own_name: str
    ) -> None:
        self._rank_files = rank_files
        self._remarks = remarks
        self._own_name = own_name
        self._pictures = set[int]()  # hashes of the paths of those that are counted
        self.classes = classes
        self.models = PageNames()
        self.heads = PageNames()  # the head nouns of phrases that state no class
        self.counts = Counter[str]()  # the figures of the records, and how many are `shown`
        self.marked = Counter[str]()  # how many records have each of FLAGS

    def add(self, record: Mapping[str, Any], earlier: Earlier, picture: Picture) -> None:
        view = view_of(record, picture, self.classes, each_thing_once=True)
        view.update(changes_view(view, earlier, self._own_name, self.classes))
        marks = marks_of(record, view)
        # Next to another run, `only` names the run that alone has the record.
        is_of_this_run = view.get("only", self._own_name) == self._own_name
        # This run's remarks alone were counted, so only these can be called rare.
        if is_of_this_run and self._remarks.is_rare(remarks_of(record)):
            marks.add("unusual")
        index_row = _index_row(view, marks, self.classes, self.heads, self.models)
        _write_row(self._rank_files, view, index_row, marks)
        if is_of_this_run:  # else it is shown, but isn't among the figures
            self.counts.update(_counts_of(record, view, marks))
            self._count_picture(record)
        self.counts["shown"] += 1
        self.marked.update(marks)

    def _count_picture(self, record: Mapping[str, Any]) -> None:
        """Count a record's picture once; one that names none is of its own."""
        path = path_of(record)
        self.counts["images"] += not path or hash(path) not in self._pictures
        self._pictures.add(hash(path))

    def counts_of_page(self, failure_count: int, failed: Any) -> Counter[str]:
        """Return the figures of the page; `failed` is how many of the run's images aren't done."""
        counts = Counter(self.counts)
        counts["changed"] = self.marked["changed"]
        counts["failures"] = failure_count
        # `failed` may be less than `failure_count`, which counts failed checks of done images, too.
        if isinstance(failed, int) and failed > 0:
            # So far `images` counts the records shown, which were done. With those that failed it
            # is the number of images in the run's summary.
            counts["done"] = counts["images"]
            counts["images"] += failed
        return counts


def _page_facts(
    written: _Written, failure_kinds: Mapping[str, int], address: str, begins_with: str
) -> dict[str, Any]:
    """Return what `report.js` begins with."""
    return {
        "files": address,
        "perFile": PER_FILE,
        "flags": FLAGS,
        "marked": written.marked,
        "meaning": MEANING,
        "kinds": failure_kinds,
        "beginsWith": begins_with,
        "records": written.counts["shown"],
        "failures": sum(failure_kinds.values()),
        "classes": written.classes.names,
        "heads": written.heads.names,
        "models": written.models.names,
    }


def _with_pictures(
    records: Iterable[tuple[Mapping[str, Any], Earlier]],
    find_image: Callable[[Mapping[str, Any]], ImageFile | None],
    files: ReportFiles,
) -> Iterator[tuple[Mapping[str, Any], Earlier, Picture]]:
    """Yield each record with its picture as the page shows it, in the same order."""
    with_files: Iterator[_WithFile] = (
        (record, earlier, find_image(record)) for record, earlier in records
    )

    def is_far(item: _WithFile) -> bool:
        _, _, file = item
        return file is not None and file.is_far

    def with_picture(item: _WithFile) -> tuple[Mapping[str, Any], Earlier, Picture]:
        record, earlier, file = item
        return record, earlier, files.picture(file)

    # A decoded picture takes memory, so only one for each core is made into a small copy at a time.
    # Files that are far, in a store, are waited for by more threads.
    return side_by_side(with_picture, with_files, is_far, cores=True)


def _failure_rows(
    failures: Iterable[Mapping[str, Any]], kind_counts: Counter[str]
) -> Iterator[str]:
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
    rank_files: Sequence[IO[str]], view: View, index_row: list[Any], marks: Collection[str]
) -> None:
    rank = 0  # the index in FIRST of the first mark that the record has, or len(FIRST)
    while rank < len(FIRST) and FIRST[rank] not in marks:
        rank += 1
    rank_files[rank].write(f"{script_json(index_row)}\n{script_json(view)}\n")


def _lines(rank_files: Sequence[IO[str]], first_line: int) -> Iterator[str]:
    """Yield one line of each record, _INDEX_LINE or _VIEW_LINE, in the order of ranks."""
    for file in rank_files:
        file.seek(0)
        for line in islice(file, first_line, None, 2):
            yield line.rstrip("\n")


def marks_of(record: Mapping[str, Any], view: View) -> set[str]:
    """Return those of FLAGS that a record has, but for `unusual`, which depends on all records."""
    expressions = view["expressions"]
    checks = {expression["check"] for expression in expressions}
    reasons = {  # a record has a mark if its reason is true, or isn't empty
        "suspect": record.get("suspect_boxes") is True,
        "unreadable": view["problem"],
        "doubtful": doubt_of_reply(record),
        "disputed": any(expression["disputed"] for expression in expressions),
        "undecided": "undecided" in checks,
        # a check didn't say yes, or couldn't be asked
        "unverified": checks - {"", "verified", "undecided"},
        "verified": "verified" in checks,
        "changed": view.get("changes") or view.get("only"),
        "without picture": view["missing"],
    }
    marks = {mark for mark, reason in reasons.items() if reason}
    for expression in expressions:
        if view["kind"] == "expressions":
            marks.add(expression["status"])
        for instance in expression["instances"]:
            marks.add(coco_size(area(box_of(instance["bbox"]))))
    return marks


def _index_row(
    view: View,
    marks: Collection[str],
    classes: PageClasses,
    heads: PageNames,
    models: PageNames,
) -> list[Any]:
    """Return what `report.js` reads: ["a.jpg", 8, [["red cup", 4]], 95, 95, 0, 2560].

    These are the record's id, a bit for each of FLAGS, the phrases, the lowest and the highest
    score in hundredths (-1 without any), the model's number, and the bins of histograms.
    """
    phrases: list[list[Any]] = []
    scores: list[float] = []
    for expression in view["expressions"]:
        phrases.append(_phrase_in_index(expression, _label(expression, classes, heads)))
        for box in expression["instances"]:
            if box["score"] is not None:
                scores.append(box["score"])
    lowest = _hundredths(min(scores)) if scores else -1
    highest = _hundredths(max(scores)) if scores else -1
    flag_bits = sum(1 << bit for bit, flag in enumerate(FLAGS) if flag in marks)
    model_number = models.number_of(view["model"])
    model = view["model"] if model_number is None else model_number
    return [view["id"], flag_bits, phrases, lowest, highest, model, _bins_of(view)]


def _phrase_in_index(expression: Mapping[str, Any], label: str | int) -> list[Any]:
    """Return a phrase's words, class and number of boxes: ["red cups", 4, 2]. A last 1 is left out.

    In ["red cups", 4, 2, [[0, 3]]] the first box is of a thing that the record's phrase 3 has a
    surer box of: that one is shown in its place.
    """
    words = " ".join(expression["text"].lower().split())
    instances = expression["instances"]
    shown_as = []
    for index, box in enumerate(instances):
        if "shownAs" in box:
            shown_as.append([index, box["shownAs"]])
    if shown_as:  # the number comes before it, also if it is 1
        return [words, label, len(instances), shown_as]
    if len(instances) != 1:
        return [words, label, len(instances)]
    return [words, label]


def _bins_of(view: View) -> int:
    """Return a bit for each bin of the page's histograms, set if a box of the record is in it.

    The lowest _SCORE_BINS bits are for scores, those above for sides: below 16 px, from 16 on, from
    32 on. A box with a side of 20 px and a score of 0.95 sets bits 9 and 11.
    """
    bits = 0
    for expression in view["expressions"]:
        for instance in expression["instances"]:
            if "shownAs" in instance:  # another box of the same thing is shown, and counts
                continue
            side = area(box_of(instance["bbox"])) ** 0.5
            bits |= 1 << (_SCORE_BINS + bisect(_SIDES, side))
            if instance["score"] is not None:
                score_bin = _hundredths(instance["score"]) * _SCORE_BINS // 100
                bits |= 1 << min(score_bin, _SCORE_BINS - 1)  # a score of 1 is in the last bin
    return bits


def _label(expression: Mapping[str, Any], classes: PageClasses, heads: PageNames) -> str | int:
    """Return the number of a class, from 0, or of a head noun, from -1 down; else the name."""
    if "class" in expression:
        number = classes.number_of(expression["class"])
        return expression["class"] if number is None else number
    head = head_of(expression["text"])
    number = heads.number_of(head)
    return head if number is None else -1 - number


def _hundredths(score: float) -> int:
    return round(100 * min(max(score, 0), 1))


def _counts_of(record: Mapping[str, Any], view: View, marks: Collection[str]) -> Counter[str]:
    """Return what the record adds to the page's figures; without a key, a figure isn't shown."""
    expressions = view["expressions"]
    counts = Counter[str]()
    for mark in ("doubtful", "unusual", "disputed", "suspect"):
        if mark in marks:
            counts[mark] = 1
    regions = record.get("regions") or record.get("region_captions")
    if isinstance(regions, list):
        counts["regions"] = len(regions)
    if view["kind"] == "region_captions":
        counts["captions"] = 0
        if expressions:  # else the column is empty, or can't be read
            for row in record["region_captions"]:
                if isinstance(row, Mapping) and row.get("text"):
                    counts["captions"] += 1
    if view["kind"] == "expressions":
        counts["expressions"] = len(expressions)
        counts.update(dict.fromkeys(STATUSES, 0))  # the page tells that 0 are `grounded`, too
        counts.update(expression["status"] for expression in expressions)
    counts.update(expression["check"] for expression in expressions if expression["check"])
    return counts

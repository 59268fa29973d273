"""From decisions to a file: the records as their reviewers left them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, errors_as
from dataflow_grounding.data.classes import keep_classes
from dataflow_grounding.data.records import Record, annotated_column
from dataflow_grounding.data.rejected import WithoutRejected
from dataflow_grounding.data.reviewed import digest_of, note_source
from dataflow_grounding.data.rows import Row, read_rows, write_rows
from dataflow_grounding.review._decisions import (
    Decisions,
    ReviewFiles,
    objects_under,
    review_files,
)
from dataflow_grounding.review._overlay import (
    as_reviewed,
    reviewer_verdict,
    version_of,
)
from dataflow_grounding.review.reviewable import Reviewable, records_with_keys

RECORD_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of the files that reviewed records can be written to."""


def apply_decisions(
    results: str,
    out: str | None = None,
    downloads: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write the records with all decisions on them; the file that was reviewed stays as it is.

    - `out` is a new file for training, without what was rejected; None for
      annotations.reviewed.jsonl next to the records, which has all.
    - `downloads` are files of decisions, which a page offers when its server is gone.
    """
    files = review_files(results)
    path = out or files.reviewed
    if out:
        _refuse_as_out(out, downloads)
    new_count, refused = _take_downloads(results, downloads)
    decisions = Decisions(files.decisions)
    decisions.tell_damaged()
    # Later reviews and pipelines go on from the review's own file. So it always has the rejected
    # boxes, too, even if the user names it as `out` and wants none.
    is_own_file = os.path.realpath(path) == os.path.realpath(files.reviewed)
    _refuse_overwriting(path, files, is_own_file)
    if not decisions.lines:
        raise _no_decisions(results, files, refused)
    held = set[int]()  # the numbers of the decisions that say something of the records
    counts = Counter(records=0, verified=0, rejected=0, outlines_left_out=0)

    def reviewed_records() -> Iterator[Record]:
        for record, reviewed in _with_reviewed(files, decisions, held):
            _count_reviewed(record, reviewed, counts)
            yield reviewed
        if not held:  # nothing is written then
            raise _no_decisions(results, files, refused)

    with errors_as(InputError, f"can't write {path}"):
        without_rejected = WithoutRejected(is_own_file)
        write_rows(path, without_rejected(reviewed_records()))
    if is_own_file:
        note_source(files.annotations, digest_of(files.annotations) or "")
    else:
        keep_classes(results, path)
    return {
        "reviewed": path,
        **counts,
        "boxes_left_out": without_rejected.boxes,
        "decisions": len(held),
        "taken_over": new_count,
        "refused": refused,
    }


def _refuse_as_out(out: str, downloads: tuple[str, ...]) -> None:
    is_file_of_records = os.path.splitext(out)[1] in RECORD_FILES
    if not is_file_of_records or out in downloads:
        raise InputError(
            f"{out} would be overwritten, or is no file of records: name one that ends in .jsonl"
        )


def _no_decisions(results: str, files: ReviewFiles, refused: list[str]) -> InputError:
    if refused:
        return InputError(
            f"no decision in these files belongs to {files.annotations}: {refused[0]}"
        )
    return InputError(
        f"no decisions on {files.annotations} in {files.decisions}: run `dataflowgrounding review"
        f" {results}` first"
    )


def _refuse_overwriting(path: str, files: ReviewFiles, is_own_file: bool) -> None:
    real_path = os.path.realpath(path)
    if real_path in (os.path.realpath(files.annotations), os.path.realpath(files.decisions)):
        raise InputError(
            f"{path} would be overwritten: choose another name for the reviewed records"
        )
    if os.path.lexists(path) and not is_own_file:  # its own file each call writes again
        raise InputError(f"{path} is there already: remove it, or choose another name")


def _with_reviewed(
    files: ReviewFiles, decisions: Decisions, held: set[int]
) -> Iterator[tuple[Record, Record]]:
    """Yield each record as the pipeline wrote it, and with all decisions on it."""
    for _, record in records_with_keys(files.annotations):
        try:
            review = decisions.review_of(record)
        except BrokenRow:  # it has no phrases that a decision could be on
            yield record, record
        else:
            held.update(review.decisions)
            yield record, as_reviewed(record, review.outcomes, review.comment)


def _count_reviewed(record: Record, reviewed: Record, counts: Counter[str]) -> None:
    """Count the record, its verdicts, and the boxes whose outline the review dropped."""
    counts["records"] += 1
    rows = reviewed.get(annotated_column(reviewed))
    if isinstance(rows, list):
        verdicts = [reviewer_verdict(row) for row in rows if isinstance(row, dict)]
        counts["verified"] += verdicts.count(True)
        counts["rejected"] += verdicts.count(False)
    was_outlined = dict(_outlined_boxes(record))
    for box_id, is_outlined in _outlined_boxes(reviewed):
        # An outline is dropped where a person drew the box with other edges.
        if was_outlined.get(box_id, False) and not is_outlined:
            counts["outlines_left_out"] += 1


def _outlined_boxes(record: Record) -> Iterator[tuple[str, bool]]:
    """Yield of each box its id, and whether it has an outline."""
    for row in _objects_in(record, "expressions"):
        for box in _objects_in(row, "instances"):
            if box.get("bbox_id") is not None:
                yield str(box["bbox_id"]), box.get("outline") is not None


def _objects_in(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = row.get(key)
    if not isinstance(items, list):
        return []
    return [item for item in items if isinstance(item, dict)]


def _refuse_log(path: str, own: str) -> None:
    """Refuse decisions that `review` itself wrote; `own` is this review's file, for the message."""
    for row in read_rows(path):  # it may be of a review on another machine
        if row.data and "picture" in row.data:  # a page's download hasn't
            raise InputError(
                f"{path} is what `review` itself wrote: name what a page has downloaded, or copy it"
                f" to {own} where there is none yet"
            )


def _take_downloads(results: str, downloads: tuple[str, ...]) -> tuple[int, list[str]]:
    """Return how many decisions weren't here before, and a line for each that is refused."""
    if not downloads:
        return 0, []
    reviewable = Reviewable(results)
    decisions = reviewable.decisions
    count_before = len(decisions.lines)
    for path in downloads:  # all of them, before a decision of any is taken
        _refuse_log(path, decisions.path)
    refused: list[str] = []
    for path in downloads:
        download = _Download(reviewable, decisions)
        for row in read_rows(path):
            try:
                download.take(row)
            except (InputError, BrokenRow) as why:
                refused.append(f"{path}, line {row.line}: {why}")
    decisions.sync()
    return len(decisions.lines) - count_before, refused


class _Download:
    """Takes one downloaded file of decisions over, line by line, with versions from here."""

    def __init__(self, reviewable: Reviewable, decisions: Decisions) -> None:
        self._reviewable = reviewable
        self._decisions = decisions
        # The version that this file's last decision left, by record and the expression's id. If
        # that decision was refused, "refused" takes its place. No expression has that version, so
        # later decisions that build on the refused one are refused, too.
        self._versions: dict[tuple[str, str], str] = {}

    def take(self, row: Row) -> None:
        """Take a line over. Raises InputError or BrokenRow, and takes nothing, if it is refused."""
        decision = row.data or {}
        key = str(decision.get("record"))
        ids: list[str] = []
        try:
            if row.error is not None:  # the line can't be read
                raise InputError(str(row.error))
            ids = [str(act.get("id")) for act in objects_under(decision, "acts")]
            self._decide(key, decision)
        except (InputError, BrokenRow):
            for id in ids:  # so that later decisions that build on them are refused
                self._versions[key, id] = "refused"
            raise

    def _decide(self, key: str, decision: Mapping[str, Any]) -> None:
        if key not in self._reviewable.index_of:
            raise InputError(f"there is no record {key!r} here")
        record = self._reviewable.record(self._reviewable.index_of[key])
        stated = decision.get("versions")
        versions = dict(stated) if isinstance(stated, Mapping) else {}
        for id in versions:
            versions[id] = self._versions.get((key, id), versions[id])
        who = str(decision.get("who") or "unknown")
        decision_here = {**decision, "record": key, "versions": versions}
        for made in self._decisions.decide(record, key, decision_here, who):
            self._versions[key, made["id"]] = version_of(made["after"])

"""From decisions to a file: the records as their reviewers left them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, told_as
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.data.records import Record, annotated_column
from dataflow_grounding.data.rows import Row, read_rows, write_rows
from dataflow_grounding.extras.evaluation.metrics.agreeing import agreement
from dataflow_grounding.extras.review._decisions import (
    Decisions,
    ReviewFiles,
    Standing,
    listed,
    review_files,
)
from dataflow_grounding.extras.review._overlay import version_of, word_of
from dataflow_grounding.extras.review.queues import Reviewable, records_with_keys

RECORD_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def apply_decisions(
    results: str, out: str | None = None, downloads: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Write the records as reviewed, in their order and with their ids.

    The file that was reviewed stays as it is.

    Args:
        results: A results folder, one of its steps', or a file of records.
        out: The file to write; None for `annotations.reviewed.jsonl` beside the records.
        downloads: Files of decisions from folders that `review --static` wrote: they are taken over
            first.

    Returns:
        `reviewed` (the file), counts of `records`, of `expressions` that are `verified` and
        `rejected`, of `decisions` taken over and `refused` (one line each, why), and
        `second_reviews`: how far blind second ones agree.

    Raises:
        InputError: There are no records or decisions, or a file can't be read or written.
    """
    files = review_files(results)
    if out and (os.path.splitext(out)[1] not in RECORD_FILES or out in downloads):
        raise InputError(
            f"{out} would be overwritten, or is no file of records: name one that ends in .jsonl"
        )
    refused: list[str] = []
    taken_over = 0
    if downloads:
        refused, taken_over = _take_over(results, downloads)
    decisions = Decisions(files.decisions)
    decisions.tell_damaged()
    if not decisions.count and refused:
        raise InputError(f"none of these decisions is of {files.annotations}: {refused[0]}")
    if not decisions.count:
        raise InputError(
            f"no decisions in {files.decisions}: run `dataflowgrounding review {results}` first"
        )
    counts = Counter(records=0, verified=0, rejected=0)
    homeless = set(decisions.standing[""].truths)
    path = out or files.reviewed
    _refuse_overwriting(path, out, files)
    with told_as(InputError, f"can't write {path}"):
        write_rows(path, _reviewed(files, decisions, counts, homeless))
    if homeless:
        more = ", …" if len(homeless) > 1 else ""
        say(
            f"Note: decisions on {counted(len(homeless), 'record')} that {files.annotations}"
            f" doesn't have: {min(homeless)!r}{more}"
        )
    return {
        "reviewed": path,
        **counts,
        "decisions": decisions.count,
        "taken_over": taken_over,
        "refused": refused,
        "second_reviews": _agreement(files, decisions),
    }


def _refuse_overwriting(path: str, out: str | None, files: ReviewFiles) -> None:
    """Raise InputError where the file to write, `out` if the user named it, is of use already."""
    real_path = os.path.realpath(path)
    if real_path in (os.path.realpath(files.annotations), os.path.realpath(files.decisions)):
        raise InputError(
            f"{path} would be overwritten: choose another name for the reviewed records"
        )
    if out and os.path.lexists(out) and real_path != os.path.realpath(files.reviewed):
        raise InputError(f"{out} is there already: remove it, or choose another name")


def _reviewed(
    files: ReviewFiles, decisions: Decisions, counts: Counter[str], homeless: set[str]
) -> Iterator[Record]:
    """The records as reviewed.

    `counts` takes up how many there are and what was said of them; those of which there are
    decisions go out of `homeless`.
    """
    for key, record in records_with_keys(files.annotations):
        homeless.discard(key)
        reviewed = decisions.standing[""].reviewed(record, key)
        counts["records"] += 1
        rows = reviewed.get(annotated_column(reviewed))
        if isinstance(rows, list):
            words = [word_of(row) for row in rows if isinstance(row, dict)]
            counts["verified"] += words.count(True)
            counts["rejected"] += words.count(False)
        yield reviewed


def bring_up_to_date(annotations: str) -> None:
    """Apply the decisions on a file of records anew, where they were applied before.

    The file may be another by now.
    """
    files = review_files(annotations)
    if not os.path.exists(files.reviewed):
        return
    decisions = Decisions(files.decisions)
    if decisions.count:
        write_rows(files.reviewed, _reviewed(files, decisions, Counter(), set()))


def _refuse_log(path: str, own: str) -> None:
    """Raise InputError for decisions as they stand after they were taken.

    These have what a page doesn't send.
    """
    for row in read_rows(path):
        changes = row.data.get("changes") if row.data else None
        if not isinstance(changes, list):
            continue
        if any(isinstance(change, dict) and "before" in change for change in changes):
            raise InputError(
                f"{path} is what `review` itself wrote: name what a page has downloaded, or copy it"
                f" to {own} where there is none yet"
            )


def _take_over(results: str, downloads: tuple[str, ...]) -> tuple[list[str], int]:
    """Take decisions over from downloaded files: why some were refused, and how many were taken."""
    reviewable = Reviewable(results)
    decisions = Decisions(reviewable.files.decisions)
    before = decisions.count
    for path in downloads:
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
    return refused, decisions.count - before


class _Download:
    """A downloaded file of decisions that is taken over, line by line.

    Its page knew nothing of the decisions that are here, and gave ids of its own to expressions
    that were added in it.
    """

    def __init__(self, reviewable: Reviewable, decisions: Decisions) -> None:
        self._reviewable = reviewable
        self._decisions = decisions
        # By record and expression: the version that the file's last decision left, and "refused",
        # which is no version, where it was refused. What builds on that is refused, too.
        self._versions: dict[tuple[str, str], str] = {}
        self._ids: dict[str, str] = {}  # here, by the file's own, of expressions that it added

    def take(self, row: Row) -> None:
        """Take a line over. Raises InputError, BrokenRow where it is refused."""
        given = row.data or {}
        key = str(given.get("record"))
        changes: list[Mapping[str, Any]] = []
        try:
            if row.error is not None:
                raise InputError(str(row.error))
            changes = listed(given, "changes")
            self._decide(key, given, changes)
        except (InputError, BrokenRow):
            for change in changes:
                self._versions[key, str(change.get("id"))] = "refused"
            raise

    def _decide(self, key: str, given: Mapping[str, Any], changes: list[Mapping[str, Any]]) -> None:
        if key not in self._reviewable.places:
            raise InputError(f"there is no record {key!r} here")
        record = self._reviewable.record(self._reviewable.places[key])
        wanted = []
        for change in changes:
            file_id = str(change.get("id"))
            id = self._ids.get(file_id, file_id)
            version = self._versions.get((key, id), change.get("version"))
            wanted.append({**change, "id": id, "version": version})
        who = str(given.get("who") or "unknown")
        decision = {**given, "record": key, "changes": wanted}
        taken = self._decisions.decide(record, key, decision, who)
        for change, now in zip(changes, taken, strict=False):
            if change.get("fresh"):
                self._ids[str(change.get("id"))] = now["id"]
        for now in taken:
            self._versions[key, now["id"]] = version_of(now["after"])


def _agreement(files: ReviewFiles, decisions: Decisions) -> dict[str, Any] | None:
    """How far blind second reviews agree with the first ones, on what both decided.

    None where there are none.
    """
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    counting = decisions.standing[""]
    for key, record in records_with_keys(files.annotations):
        for who, blind in decisions.standing.items():
            if not who:
                continue
            both = counting.truths.get(key, {}).keys() & blind.truths.get(key, {}).keys()
            if both:
                first.append(_rows_of(counting, record, key, both))
                second.append(_rows_of(blind, record, key, both))
    return agreement(first, second) if first else None


def _rows_of(standing: Standing, record: Record, key: str, ids: set[str]) -> dict[str, Any]:
    """A record with those of its expressions, as they stand, that have one of the `ids`."""
    rows = standing.rows(record, key)
    return {**record, "expressions": [row for id, row in rows.items() if id in ids]}

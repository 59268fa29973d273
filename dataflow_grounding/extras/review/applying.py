"""From decisions to a file: the records as their reviewers left them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, told_as
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.data.records import Record, annotated_column
from dataflow_grounding.data.rows import read_rows, write_rows
from dataflow_grounding.extras.evaluation.metrics.agreeing import agreement
from dataflow_grounding.extras.review._decisions import Decisions, ReviewFiles, listed, review_files
from dataflow_grounding.extras.review._overlay import version_of, word_of
from dataflow_grounding.extras.review.queues import Reviewable, records_with_keys


def apply_decisions(
    results: str, out: str | None = None, downloads: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Write the records as reviewed, in their order and with their ids; the file that was reviewed
    stays as it is.

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
    if out and (
        os.path.splitext(out)[1] not in (".jsonl", ".json", ".csv", ".tsv", ".parquet")
        or out in downloads
    ):
        raise InputError(
            f"{out} would be overwritten, or is no file of records: name one that ends in .jsonl"
        )
    refused, taken = _taken_over(results, downloads) if downloads else ([], 0)
    decisions = Decisions(files.decisions)
    decisions.tell_damaged()
    if not decisions.count and refused:
        raise InputError(f"none of these decisions is of {files.annotations}: {refused[0]}")
    if not decisions.count:
        raise InputError(
            f"no decisions in {files.decisions}: run `dataflowgrounding review {results}` first"
        )
    counts, homeless = Counter(records=0, verified=0, rejected=0), {*decisions.standing[""].truths}
    path = out or files.reviewed
    if os.path.realpath(path) in map(os.path.realpath, (files.annotations, files.decisions)):
        raise InputError(
            f"{path} would be overwritten: choose another name for the reviewed records"
        )
    if out and os.path.lexists(out) and os.path.realpath(out) != os.path.realpath(files.reviewed):
        raise InputError(f"{out} is there already: remove it, or choose another name")
    with told_as(InputError, f"can't write {path}"):
        write_rows(path, _reviewed(files, decisions, counts, homeless))
    if homeless:
        first = f"{min(homeless)!r}{', …' if len(homeless) > 1 else ''}"
        say(
            f"Note: decisions on {counted(len(homeless), 'record')} that {files.annotations}"
            f" doesn't have: {first}"
        )
    more = {"taken_over": taken, "refused": refused, "second_reviews": _agreement(files, decisions)}
    return {"reviewed": path, **counts, "decisions": decisions.count, **more}


def _reviewed(
    files: ReviewFiles, decisions: Decisions, counts: Counter[str], homeless: set[str]
) -> Iterator[Record]:
    """The records as reviewed, which are counted, with what was said of them; those there are
    aren't `homeless`.
    """
    for key, record in records_with_keys(files.annotations):
        homeless.discard(key)
        reviewed = decisions.standing[""].reviewed(record, key)
        rows = reviewed.get(annotated_column(reviewed))
        words = (
            [word_of(row) for row in rows if isinstance(row, dict)]
            if isinstance(rows, list)
            else []
        )
        told = {
            "verified": sum(word is True for word in words),
            "rejected": sum(word is False for word in words),
        }
        counts.update({"records": 1, **told})
        yield reviewed


def bring_up_to_date(annotations: str) -> None:
    """Apply the decisions on a file of records anew, where they were applied before: it may be
    another by now.
    """
    files = review_files(annotations)
    if os.path.exists(files.reviewed) and (decisions := Decisions(files.decisions)).count:
        write_rows(files.reviewed, _reviewed(files, decisions, Counter(), set()))


def _refuse_log(path: str, own: str) -> None:
    """Raise InputError for decisions as they stand after they were taken, with what a page doesn't
    send.
    """
    lists = [row.data.get("changes") for row in read_rows(path) if row.data]
    if any(
        isinstance(one, dict) and "before" in one
        for some in lists
        if isinstance(some, list)
        for one in some
    ):
        instead = f"name what a page has downloaded, or copy it to {own} where there is none yet"
        raise InputError(f"{path} is what `review` itself wrote: {instead}")


def _taken_over(results: str, downloads: tuple[str, ...]) -> tuple[list[str], int]:
    """Take decisions over from downloaded files: why some were refused, and how many were taken."""
    reviewable, refused = Reviewable(results), list[str]()
    decisions = Decisions(reviewable.files.decisions)
    before = decisions.count
    for path in downloads:
        _refuse_log(path, decisions.path)
    for path in downloads:
        # what the file's last decision on an expression left; "": it was refused
        own: dict[tuple[str, str], str] = {}
        ids: dict[str, str] = {}  # of expressions that the file added
        for row in read_rows(path):
            given, changes = row.data or {}, list[Mapping[str, Any]]()
            key = str(given.get("record"))
            try:
                if row.error is not None:
                    raise InputError(str(row.error))
                changes = listed(given, "changes")
                if key not in reviewable.places:
                    raise InputError(f"there is no record {key!r} here")
                record, made_on = reviewable.record(reviewable.places[key]), []
                for change in changes:
                    id = ids.get(str(change.get("id")), str(change.get("id")))
                    made_on.append(
                        {**change, "id": id, "version": own.get((key, id), change.get("version"))}
                    )
                who = str(given.get("who") or "unknown")
                left = decisions.decide(
                    record, key, {**given, "record": key, "changes": made_on}, who
                )
                ids |= {
                    str(c.get("id")): now["id"]
                    for c, now in zip(changes, left, strict=False)
                    if c.get("fresh")
                }
                own |= {(key, now["id"]): version_of(now["after"]) for now in left}
            except (InputError, BrokenRow) as why:
                refused.append(f"{path}, line {row.line}: {why}")
                own |= {(key, str(change.get("id"))): "refused" for change in changes}
    decisions.sync()
    return refused, decisions.count - before


def _agreement(files: ReviewFiles, decisions: Decisions) -> dict[str, Any] | None:
    """How far blind second reviews agree with the first ones, on what both decided; None without
    any.
    """
    first, second = list[dict[str, Any]](), list[dict[str, Any]]()
    for key, record in records_with_keys(files.annotations):
        for who, said in decisions.standing.items():
            both = (
                decisions.standing[""].truths.get(key, {}).keys() & said.truths.get(key, {}).keys()
                if who
                else ()
            )
            for side, of in ((first, decisions.standing[""]), (second, said)) if both else ():
                rows = of.rows(record, key)
                side.append(
                    {**record, "expressions": [row for id, row in rows.items() if id in both]}
                )
    return agreement(first, second) if first else None

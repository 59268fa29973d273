"""From decisions to a file: the records as their reviewers left them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from dataflow_grounding._util.errors import BrokenRow, InputError, errors_as
from dataflow_grounding.data.classes import keep_classes
from dataflow_grounding.data.expressions import OF_A_SHAPE, Expression, read_any_expressions
from dataflow_grounding.data.records import (
    JsonObject,
    Record,
    Update,
    annotated_column,
    has_id,
)
from dataflow_grounding.data.rejected import WithoutRejected
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.data.reviewed import digest_of, note_source
from dataflow_grounding.data.rows import read_rows, write_rows
from dataflow_grounding.review._acts import Review
from dataflow_grounding.review._decisions import (
    Decisions,
    ReviewFiles,
    objects_under,
    review_files,
)
from dataflow_grounding.review._overlay import JUDGEMENT, version_of
from dataflow_grounding.review.reviewable import Reviewable, records_with_keys

RECORD_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of the files that reviewed records can be written to."""


@dataclass
class Applied:
    """What was written, and of what."""

    reviewed: str  # the file
    records: int = 0
    verified: int = 0  # phrases whose boxes are all right
    rejected: int = 0  # phrases with a wrong one
    outlines_left_out: int = 0
    boxes_left_out: int = 0
    decisions: int = 0  # that say something of the records
    taken_over: int = 0  # of downloads
    refused: list[str] = field(default_factory=list)  # a line for each that isn't taken over


def apply_decisions(
    results: str,
    out: str | None = None,
    downloads: tuple[str, ...] = (),
    image_root: str | None = None,
) -> Applied:
    """Write the records with all decisions on them; the file that was reviewed stays as it is.

    - `out` is a new file for training, without what was rejected; None for
      annotations.reviewed.jsonl next to the records, which has all.
    - `downloads` are files of decisions, which a page offers when its server is gone.
    - `image_root` is the folder of pictures that `review` was told of.
    """
    files = review_files(results)
    path = out or files.reviewed
    if out:
        _refuse_as_out(out, downloads)
    applied = Applied(path)
    if downloads:
        _take_downloads(Reviewable(results, image_root), downloads, applied)
    decisions = Decisions(files.decisions)
    decisions.tell_damaged()
    # Later reviews and pipelines go on from the review's own file. So it always has the rejected
    # boxes, too, even if the user names it as `out` and wants none.
    is_own_file = os.path.realpath(path) == os.path.realpath(files.reviewed)
    _refuse_overwriting(path, files, is_own_file)
    if not decisions.lines:
        raise _no_decisions(results, files, applied.refused)

    def reviewed_records() -> Iterator[Record]:
        held = set[int]()  # the numbers of the decisions
        folders = image_folders_of(results, image_root)
        for _, record in records_with_keys(files.annotations, folders):
            reviewed = record
            with suppress(BrokenRow):  # else it has no phrases that a decision could be on
                review = decisions.review_of(record)
                held.update(review.decisions)
                reviewed = _as_reviewed(record, review)
            _count_reviewed(record, reviewed, applied)
            yield reviewed
        applied.decisions = len(held)
        if not held:  # nothing is written then
            raise _no_decisions(results, files, applied.refused)

    with errors_as(InputError, f"can't write {path}"):
        without_rejected = WithoutRejected(is_own_file)
        write_rows(path, without_rejected(reviewed_records()))
    if is_own_file:
        note_source(files.annotations, digest_of(files.annotations) or "")
    else:
        keep_classes(results, path)
    applied.boxes_left_out = without_rejected.boxes
    return applied


def _as_reviewed(record: Record, review: Review) -> Record:
    """Return the record with what reviewers decided; what nobody judged stays as it is."""
    if not review.outcomes and review.comment is None:
        return record
    column = annotated_column(record) or "expressions"
    # Expressions were read from the column's items, one from each, in their order.
    item_of_id = dict(zip(review.written, record.get(column) or (), strict=True))
    new_items: list[object] = []
    for id, row in review.standing().items():
        if column != "expressions":
            old_region = item_of_id.get(id, {})  # {} for one that a reviewer added
            new_items.extend(_regions(old_region, column, row))
        elif id in review.outcomes:
            new_items.append(row.to_json())
        else:  # as the file has it, perhaps as a mere text: "a cup"
            item = item_of_id[id]
            columns = item if isinstance(item, dict) else {"text": item}
            if not has_id(columns.get("expression_id")):
                columns = {**columns, "expression_id": row.expression_id}
            new_items.append(columns)
    changes: Update = {column: new_items}
    if review.comment is not None:
        changes["review_comment"] = review.comment
    return record.updated(changes)


def _regions(old_region: JsonObject, column: str, row: Expression) -> Iterator[Update]:
    """Yield a region for each box of a reviewed expression; the first has the old one's columns."""
    text_key = "text" if column == "region_captions" else "type"
    columns = row.to_json()
    judgement = {name: columns[name] for name in JUDGEMENT if name in columns}
    first = dict(old_region)
    # An unchanged text stays where it is: it may be in another column, such as `description`.
    if row.text not in old_region.values():
        first[text_key] = row.text
    for index, instance in enumerate(row.instances):
        region = first if index == 0 else {text_key: row.text}
        drawn: Update = {}
        if instance.evidence == "person":
            # The others were of the pipeline's box.
            region = {key: region[key] for key in region if key not in (*OF_A_SHAPE, "score")}
            drawn = {"evidence": "person"}
        yield {**region, **judgement, **drawn, "bbox": list(instance.bbox)}
    # A reviewer confirmed that there is no such thing: the expression is right without a box, so
    # the old region, which has one, was wrong.
    if not row.instances and row.verified is True:
        yield {**first, **judgement, "verified": False}


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
        f" {results}` first, and give its --image-root here, too"
    )


def _refuse_overwriting(path: str, files: ReviewFiles, is_own_file: bool) -> None:
    real_path = os.path.realpath(path)
    if real_path in (os.path.realpath(files.annotations), os.path.realpath(files.decisions)):
        raise InputError(
            f"{path} would be overwritten: choose another name for the reviewed records"
        )
    if os.path.lexists(path) and not is_own_file:  # its own file each call writes again
        raise InputError(f"{path} is there already: remove it, or choose another name")


def _count_reviewed(record: Record, reviewed: Record, applied: Applied) -> None:
    """Count the record, its verdicts, and the boxes whose outline the review dropped."""
    applied.records += 1
    rows = reviewed.get(annotated_column(reviewed))
    for row in rows if isinstance(rows, list) else ():  # expressions or regions
        if isinstance(row, dict) and row.get("reviewed_by"):
            applied.verified += row.get("verified") is True
            applied.rejected += row.get("verified") is False
    outlined = _outlined(record)
    if outlined:
        still_there = {
            box.bbox_id for row in read_any_expressions(reviewed) for box in row.instances
        }
        # An outline is dropped where a person drew the box with other edges.
        applied.outlines_left_out += len((outlined & still_there) - _outlined(reviewed))


def _outlined(record: Record) -> set[str | None]:
    """Return the ids of a record's boxes that have an outline."""
    with suppress(BrokenRow):
        boxes = [box for row in read_any_expressions(record) for box in row.instances]
        return {box.bbox_id for box in boxes if box.outline is not None} - {None}
    return set()


def _refuse_log(path: str, own: str) -> None:
    """Refuse decisions that `review` itself wrote; `own` is this review's file, for the message."""
    for row in read_rows(path):  # it may be of a review on another machine
        if row.data and "picture" in row.data:  # a page's download hasn't
            raise InputError(
                f"{path} is what `review` itself wrote: name what a page has downloaded, or copy it"
                f" to {own} where there is none yet"
            )


def _take_downloads(reviewable: Reviewable, downloads: tuple[str, ...], applied: Applied) -> None:
    decisions = reviewable.decisions
    count_before = len(decisions.lines)
    for path in downloads:  # all of them, before a decision of any is taken
        _refuse_log(path, decisions.path)
    for path in downloads:
        _take_download(path, reviewable, applied.refused)
    decisions.sync()
    applied.taken_over = len(decisions.lines) - count_before


def _take_download(path: str, reviewable: Reviewable, refused: list[str]) -> None:
    """Take a downloaded file of decisions over, line by line, with versions from here."""
    # The version that this file's last decision left, by record and the expression's id. If that
    # decision was refused, "refused" takes its place. No expression has that version, so later
    # decisions that build on the refused one are refused, too.
    versions: dict[tuple[str, str], str] = {}
    for row in read_rows(path):
        decision = row.data or {}
        key = str(decision.get("record"))
        ids: list[str] = []
        try:
            if row.error is not None:  # the line can't be read
                raise InputError(str(row.error))
            ids = [str(act.get("id")) for act in objects_under(decision, "acts")]
            if key not in reviewable.index_of:
                raise InputError(f"there is no record {key!r} here")
            record = reviewable.record(reviewable.index_of[key])
            stated = decision.get("versions")
            seen = dict(stated) if isinstance(stated, Mapping) else {}
            for id in seen:
                seen[id] = versions.get((key, id), seen[id])
            here = {**decision, "record": key, "versions": seen}
            who = str(decision.get("who") or "unknown")
            made = reviewable.decisions.decide(record, key, here, who)
            standing = reviewable.decisions.review_of(record).standing()
            for id in made:
                versions[key, id] = version_of(standing.get(id))
        except (InputError, BrokenRow) as why:
            for id in ids:
                versions[key, id] = "refused"
            refused.append(f"{path}, line {row.line}: {why}")

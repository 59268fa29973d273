"""What is wrong with a data set, by the rules of lint_rules.yaml, and what of it is mended without
a question.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError, RecordError
from dataflow_grounding._util.tables import load_table
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import (
    MERGE_IOU,
    Size,
    area,
    box_of,
    clamp,
    without_duplicates,
)
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    has_id,
    is_score,
    path_of,
    read_annotations,
    stated_size,
)
from dataflow_grounding.data.results_folder import annotations_of, image_folders_of
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.spans import Span, as_compared, find_spans
from dataflow_grounding.engine.image_memo import log_of, remembered
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.extras.evaluation.figures._phrases import said_twice, sharing_boxes
from dataflow_grounding.extras.evaluation.metrics.annotations import head_of
from dataflow_grounding.extras.formats.base import TOKEN, stands
from dataflow_grounding.extras.formats.export import status_of
from dataflow_grounding.images.files import decoding, parse_facts, read_file
from dataflow_grounding.images.image import find_image, is_far

RULES: dict[str, dict[str, Any]] = load_table(__package__, "lint_rules.yaml")
# those that ask for pictures' sizes
_OF_SIZES = {rule for rule in RULES if rule.startswith(("DG1", "DG4"))}
_BREAKING = re.compile(rf" \. |{TOKEN.pattern}")


class Finding(NamedTuple):
    """What a rule found in a record: where, or what exactly, and what mends it there."""

    rule: str
    where: str
    mend: Callable[[], object] | None = None


class _KnownRow(NamedTuple):
    """A row with its picture's size, where the run remembers it; `unread` says that the file has to
    be opened.
    """

    row: Row
    size: Size | None
    unread: bool


def lint(
    data: str,
    tell: Callable[[int, Finding], object],
    rules: Collection[str] = tuple(RULES),
    *,
    fix: bool = False,
    image_root: str | None = None,
    read: bool = True,
) -> Iterator[dict[str, Any]]:
    """Each row of a results folder or a file of records that can be read, after what these rules
    find in it was told.

    Args:
        tell: Called with the line (or the place of the row, from 1) and what was found there.
        fix: Mend what can be, give the rows so, and tell what is found in those.
        image_root, read: Where pictures are, if not where the run found them; whether they are
            read, in threads.

    Raises InputError where a row that can't be read would be lost by `fix`.
    """
    ids, path = set[int](), annotations_of(data)
    read &= not _OF_SIZES.isdisjoint(rules)
    for row, picture in _with_sizes(path, image_folders_of(data, image_root), read):
        if row.data is None and fix:
            raise InputError(
                f"{path}, line {row.line}: {row.error}: mend or remove it first, as --fix can't"
                " keep it"
            )
        found = _found_by(rules, row, picture)
        while fix and (mends := [(one, one.mend) for one in found if one.mend]):
            for one, mend in mends:
                tell(row.line, one)
                mend()
            found = _found_by(rules, row, picture)
        for one in (*found, *(_told_before(row.data or {}, ids) if "DG003" in rules else ())):
            tell(row.line, one)
        yield row.data or {}


def _with_sizes(
    path: str, folders: tuple[str, ...], read: bool
) -> Iterator[tuple[Row, Size | str | None]]:
    """Each row with its picture's size, or why it can't be read; None where it isn't asked for."""
    size_of = lru_cache(2**16)(partial(_size_of, folders=folders))

    def looked_at(one: _KnownRow) -> tuple[Row, Size | str | None]:
        return one.row, size_of(path_of(one.row.data or {})) if one.unread else one.size

    yield from side_by_side(looked_at, _known_rows(path, folders, read), lambda one: one.unread)


def _known_rows(path: str, folders: tuple[str, ...], read: bool) -> Iterator[_KnownRow]:
    with closing(log_of(os.path.join(os.path.dirname(path), ".ckpt"))) as log:
        for row in read_rows(path):
            if read and row.data is not None:
                size = _remembered_size(row.data, folders, log)
                yield _KnownRow(row, size, size is None)
            else:
                yield _KnownRow(row, None, False)


def _found_by(rules: Collection[str], row: Row, picture: Size | str | None) -> list[Finding]:
    found = [Finding("DG001", str(row.error))] if row.data is None else _found_in(row.data, picture)
    return [one for one in found if one.rule in rules]


def _found_in(record: dict[str, Any], picture: Size | str | None) -> Iterator[Finding]:
    size = picture if isinstance(picture, tuple) else stated_size(record)
    yield from _of_picture(record, picture)
    try:
        expressions = read_annotations(Record(record))
    except BrokenRow as error:
        yield Finding("DG002", str(error))
        return
    yield from (Finding("DG204", repr(text)) for text in said_twice(expressions))
    for one, other, all_boxes in sharing_boxes(expressions):
        if all_boxes and head_of(one["text"]) != head_of(other["text"]):
            yield Finding("DG205", f"{one['text']!r}, {other['text']!r}")
    given = record.get("expressions") or []
    caption = record.get("cleaned_caption") or record.get("caption") if given else ""
    caption = caption if isinstance(caption, str) else ""
    if _BREAKING.search(caption):
        yield Finding("DG206", f"the caption {caption!r}")
    places = _places_of(expressions, caption)
    for number, (expression, place) in enumerate(zip(expressions, places, strict=True)):
        for instance in expression["instances"]:
            yield from _of_box(repr(expression["text"]), instance, size)
        yield from _of_expression(expression, caption, place, partial(_change, given, number))


def _places_of(expressions: Sequence[Mapping[str, Any]], caption: str) -> list[Span | None]:
    """For each expression without a right span its place, where its words stand as often as
    expressions say them.
    """
    if all(right := [stands(one["text"], one.get("char_span"), caption) for one in expressions]):
        return [None] * len(right)
    texts, places = [as_compared(one["text"]) for one in expressions], list[Span | None]()
    taken = {tuple(one["char_span"]) for one, fits in zip(expressions, right, strict=True) if fits}
    times, found = (
        Counter(texts),
        dict[str, list[Span | None]](),
    )  # by text: its places, and None where it stands once less
    for one, text, fits in zip(expressions, texts, right, strict=True):
        if text not in found and not fits:
            found[text] = find_spans([one["text"]] * (times[text] + 1), caption)
        spans = [] if fits else found[text]
        certain = None in spans and spans.index(None) == len(spans) - 1
        places.append(next((place for place in spans if certain and place not in taken), None))
        taken.add(places[-1] or (0, 0))
    return places


def _of_picture(record: Mapping[str, Any], read: Size | str | None) -> Iterator[Finding]:
    if isinstance(read, str):
        yield Finding("DG401", read)
    elif read and stated_size(record) not in (None, read):
        yield Finding(
            "DG402", f"{read[0]}x{read[1]} is stated as {record['width']}x{record['height']}"
        )


def _remembered_size(
    record: Mapping[str, Any], folders: tuple[str, ...], log: KeyedLog
) -> Size | None:
    """What the run read of the picture, where its file is as it was.

    Of JPEGs alone: one whose end is there can be decoded. A run reads headers, and others may be
    broken behind them.
    """
    named = Record({"image": path_of(record)}, folders)
    if not len(log) or is_far(named, "image"):
        return None
    try:
        facts = remembered(log, find_image(named, "image"))
    except RecordError:
        return None
    return facts.size if facts and facts.media_type == "image/jpeg" else None


def _size_of(path: str, folders: tuple[str, ...]) -> Size | str:
    try:
        path = find_image(Record({"image": path}, folders), "image").path
        with decoding(data := read_file(path), path, at_least=(1, 1)):
            # a header is whole also where pixels are lost
            return parse_facts(data, path).size
    except RecordError as error:
        return str(error)


def _told_before(record: Mapping[str, Any], ids: set[int]) -> Iterator[Finding]:
    given = record.get("expressions")
    for one in given if isinstance(given, list) else ():
        own = one.get("expression_id") if isinstance(one, dict) else None
        if has_id(own) and hash(repr(own)) in ids:
            yield Finding("DG003", repr(own))
        ids.add(hash(repr(own)))


def _of_box(text: str, instance: dict[str, Any], size: Size | None) -> Iterator[Finding]:
    """Of an instance that the record has itself, to be mended in place."""
    box, score = box_of(instance["bbox"]), instance["score"]
    beyond = max(-box[0], -box[1], box[2] - size[0], box[3] - size[1]) if size else 0
    wrong = {
        "DG303": not is_score(score),
        "DG103": min(box[2] - box[0], box[3] - box[1]) < 1,
        "DG101": beyond >= 1,
        "DG102": 0 < beyond < 1,
        "DG107": (size is None or min(size) > 1) and 0 <= min(box) < max(box) <= 1,
        "DG106": size is not None and beyond <= 0 and area(box) > 0.95 * size[0] * size[1],
    }
    inside = clamp(box, size) if size else box
    thin = min(inside[2] - inside[0], inside[3] - inside[1]) < 1
    mends = {} if thin else {"DG102": partial(instance["bbox"].__setitem__, slice(None), inside)}
    where = f"{text}, {[*box]}{f' in {size[0]}x{size[1]}' if size else ''}, score {score}"
    yield from (Finding(rule, where, mends.get(rule)) for rule, found in wrong.items() if found)


def _of_expression(
    one: Mapping[str, Any], caption: str, place: Span | None, change: Callable[..., None]
) -> Iterator[Finding]:
    text, span, status, boxes = (
        one["text"],
        one.get("char_span"),
        one.get("status"),
        one["instances"],
    )
    apart = [{"bbox": box} for box in dict.fromkeys(tuple(instance["bbox"]) for instance in boxes)]
    wrong = {
        "DG201": span is not None and not stands(text, span, caption),
        "DG202": span is None and find_spans([text], caption) != [None],
        "DG206": _BREAKING.search(text) is not None,
        "DG301": status not in (None, *STATUSES),
        "DG302": status in STATUSES and bool(boxes) != (status == "grounded"),
        "DG104": len(apart) < len(boxes),
        "DG105": len(without_duplicates(apart, MERGE_IOU)) < len(apart),
    }
    stale = {"caption_span": None} if "caption_span" in one else {}
    mends = {
        rule: partial(change, char_span=[*place], **stale) for rule in ("DG201", "DG202") if place
    }
    if wrong["DG104"] and all(is_score(one["score"]) for one in boxes):
        mends["DG104"] = partial(change, instances=without_duplicates(boxes, 1.0))
    where = f"{text!r} ({status_of(one)}, boxes: {len(boxes)}, char_span: {span})"
    yield from (Finding(rule, where, mends.get(rule)) for rule, found in wrong.items() if found)


def _change(given: list[Any], number: int, **columns: Any) -> None:
    one = given[number]
    given[number] = {**({"text": one} if isinstance(one, str) else one), **columns}

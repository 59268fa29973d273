"""What is wrong with a data set, by the rules of lint_rules.yaml."""

import os
import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, RecordError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import (
    MERGE_IOU,
    Bbox,
    Size,
    area,
    without_duplicates,
)
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance, read_any_expressions
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    caption_of_spans,
    has_id,
    is_score,
    path_of,
    stated_size,
)
from dataflow_grounding.data.results_folder import annotations_of, image_folders_of
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.engine.image_memo import log_of, remembered
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.english.heads import head_of
from dataflow_grounding.english.spans import as_compared, find_spans
from dataflow_grounding.evaluation.figures._phrases import (
    said_twice,
    same_box_twice,
    sharing_boxes,
)
from dataflow_grounding.formats.format import TOKEN, is_at_span
from dataflow_grounding.images.files import ImageFacts, decoding, parse_facts, read_file
from dataflow_grounding.images.image import find_file, waits

RULES: dict[str, str] = load_table(__package__, "lint_rules.yaml")
# the rules for which pictures' sizes are read
_SIZE_RULES = {rule for rule in RULES if rule.startswith(("DG1", "DG4"))}
# what trainers take for something else than text: " . ", the mark between phrases, and tokens such
# as "<loc_12>"
_BREAKING = re.compile(rf" \. |{TOKEN.pattern}")
_MOST_OF_PICTURE = 0.95  # of its area: a box with more is over the whole picture


class Finding(NamedTuple):
    """What a rule of RULES found in a record, and where, for people."""

    rule: str
    where: str
    # What of the picture it is about, such as a box of a class: it is told once, also where
    # several records of the picture have it. None for what is the record's own.
    thing: Hashable = None


FactsOrWhy: TypeAlias = ImageFacts | str  # of a picture, or why it can't be read


def lint(
    data: str,
    rules: Collection[str] = tuple(RULES),
    *,
    image_root: str | None = None,
    read: bool = True,
) -> Iterator[tuple[int, Finding]]:
    """Yield each finding with its line (or the place of the row, from 1)."""
    path = annotations_of(data)
    # Pictures are read, in threads, only if a rule needs their sizes.
    read_sizes = read and not _SIZE_RULES.isdisjoint(rules)
    for line, finding in _all_findings(path, image_folders_of(data, image_root), read_sizes):
        if finding.rule in rules:
            yield line, finding


def _all_findings(
    path: str, folders: tuple[str, ...], read_sizes: bool
) -> Iterator[tuple[int, Finding]]:
    ids_seen = set[int]()  # hashes
    things_told = set[int]()  # hashes of the picture, the rule and the thing
    path_before, boxes_before = "", set[Bbox]()  # of the row before
    for row, picture in _with_facts(path, folders, read_sizes):
        if row.data is None:
            yield row.line, Finding("DG001", str(row.error))
            boxes_before = set()  # the next row isn't compared with one that can't be read
            continue
        record = Record(row.data)
        picture_path = path_of(record)
        expressions: list[Expression] = []
        findings = list(_findings_in_picture(record, picture))
        try:
            expressions = read_any_expressions(record)
        except BrokenRow as error:
            findings.append(Finding("DG002", str(error)))
        size = picture.size if isinstance(picture, ImageFacts) else stated_size(record)
        findings += _findings_in_record(record, expressions, size)
        for finding in findings:
            told = hash((picture_path, finding.rule, finding.thing))
            if finding.thing is None or told not in things_told:
                yield row.line, finding
            if finding.thing is not None:
                things_told.add(told)
        for finding in _repeated_ids(record, ids_seen):
            yield row.line, finding
        # A server that mixes up pictures gives the boxes of one for the next (vllm-project/vllm
        # issue 20261, sgl-project/sglang issue 5455). One box alone may be the same by chance.
        boxes = {box.bbox for expression in expressions for box in expression.instances}
        if len(boxes) > 1 and boxes == boxes_before and picture_path != path_before:
            yield row.line, Finding("DG108", f"{len(boxes)} boxes as in {path_before!r}")
        path_before, boxes_before = picture_path, boxes


def _with_facts(
    path: str, folders: tuple[str, ...], reads_pictures: bool
) -> Iterator[tuple[Row, FactsOrWhy | None]]:
    """Yield each row with its picture's facts; None if it names none, or none are read."""
    if not reads_pictures:
        yield from ((row, None) for row in read_rows(path))
        return
    checkpoint = os.path.join(os.path.dirname(path), ".ckpt")  # in which a run remembers pictures
    # Records of one picture often follow each other, so facts are kept.
    facts_of = lru_cache(2**16)(partial(_read_facts, folders=folders))

    def is_unread(item: tuple[Row, ImageFacts | None]) -> bool:
        row, facts = item  # a row that can't be read names no picture
        return facts is None and row.data is not None

    def with_facts(item: tuple[Row, ImageFacts | None]) -> tuple[Row, FactsOrWhy | None]:
        row, facts = item
        return row, facts_of(path_of(row.data or {})) if is_unread(item) else facts

    with closing(log_of(checkpoint)) as log:
        rows = ((row, _remembered_facts(row, folders, log)) for row in read_rows(path))
        # Threads read the pictures that no run remembers.
        yield from side_by_side(with_facts, rows, is_unread)


def _findings_in_record(
    record: Record, expressions: Sequence[Expression], size: Size | None
) -> Iterator[Finding]:
    yield from _findings_across_expressions(expressions)
    caption = caption_of_spans(record) if expressions else ""
    if _BREAKING.search(caption):
        yield Finding("DG206", f"the caption {caption!r}")
    # All texts at once: searching a long caption for each of many would take forever.
    without_span = [each for each in expressions if each.stated("char_span") is None]
    texts = {as_compared(expression.text) for expression in without_span}
    spans = find_spans([*texts], caption)
    in_caption = {text for text, span in zip(texts, spans, strict=True) if span is not None}
    for expression in expressions:
        for instance in expression.instances:
            yield from _findings_in_box(expression, instance, size)
        yield from _findings_in_expression(expression, caption, in_caption)


def _findings_across_expressions(expressions: Sequence[Expression]) -> Iterator[Finding]:
    for text in said_twice(expressions):
        yield Finding("DG204", repr(text))
    for text in same_box_twice(expressions):
        yield Finding("DG207", repr(text))
    for first, second, has_all_boxes_in_common in sharing_boxes(expressions):
        if not has_all_boxes_in_common:
            continue
        # Two phrases of one noun, "a red car" and "the car on the left", may box the same things.
        has_same_head = head_of(first.text) == head_of(second.text)
        # So may two words of one class.
        is_of_one_class = first.class_name is not None and first.class_name == second.class_name
        if not has_same_head and not is_of_one_class:
            yield Finding("DG205", f"{first.text!r}, {second.text!r}")


def _findings_in_picture(record: Record, picture: FactsOrWhy | None) -> Iterator[Finding]:
    if isinstance(picture, str):
        yield Finding("DG401", picture, thing="")
        return
    if picture is None:
        return
    size_in_record = stated_size(record)
    if size_in_record is not None and size_in_record != picture.size:
        stated = f"{record['width']}x{record['height']}"
        found = f"{picture.width}x{picture.height}"
        yield Finding("DG402", f"{found} is stated as {stated}", thing=stated)
    if picture.stretched:
        why = "sent with its least value as black and its largest as white"
        yield Finding("DG403", why, thing="")


def _remembered_facts(row: Row, folders: tuple[str, ...], log: KeyedLog) -> ImageFacts | None:
    """Return what a run remembers of the row's picture; None if it has to be read here."""
    if row.data is None or len(log) == 0:
        return None
    path = path_of(row.data)
    if waits(path, folders):  # `find_file` would ask a store, which is slow: threads do that later
        return None
    try:
        facts = remembered(log, find_file(path, folders))
    except RecordError:
        return None
    # Of other files a run reads the header alone, and what follows may be broken.
    is_jpeg = facts is not None and facts.media_type == "image/jpeg"
    return facts if is_jpeg else None


def _read_facts(path: str, folders: tuple[str, ...]) -> FactsOrWhy:
    try:
        file_path = find_file(path, folders).path
        data = read_file(file_path)
        # Decoding shows whether the file is broken: the header may be whole where pixels are lost.
        # A JPEG is decoded to its smallest size, which is fastest.
        with decoding(data, file_path, at_least=(1, 1)):
            pass
        return parse_facts(data, file_path)
    except RecordError as error:
        return str(error)


def _repeated_ids(record: Record, ids_seen: set[int]) -> Iterator[Finding]:
    """Yield a finding for each id that was seen; the record's ids are added to `ids_seen`."""
    expressions = record.get("expressions")
    if not isinstance(expressions, list):
        return
    for expression in expressions:
        own_id = expression.get("expression_id") if isinstance(expression, dict) else None
        if not has_id(own_id):
            continue
        hash_of_id = hash(repr(own_id))  # smaller than the id: there may be millions
        if hash_of_id in ids_seen:
            yield Finding("DG003", repr(own_id))
        ids_seen.add(hash_of_id)


def _findings_in_box(
    expression: Expression, instance: Instance, size: Size | None
) -> Iterator[Finding]:
    box = instance.bbox
    score = instance.stated("score")
    x1, y1, x2, y2 = box
    # How far the box is out of the picture, in pixels: 0 or less inside, 0 if its size isn't known.
    beyond = 0.0
    is_whole_picture = False
    if size is not None:
        width, height = size
        beyond = max(-x1, -y1, x2 - width, y2 - height)
        is_whole_picture = beyond <= 0 and area(box) > _MOST_OF_PICTURE * width * height
    # lint_rules.yaml says what each rule is about
    wrong = {
        "DG303": not is_score(score),
        "DG103": min(x2 - x1, y2 - y1) < 1,  # thin, or corners swapped
        "DG101": beyond >= 1,  # far out of the picture
        "DG102": 0 < beyond < 1,  # a little out of it
        "DG107": _is_in_parts(box, size),
        "DG106": is_whole_picture,
    }
    in_size = f" in {size[0]}x{size[1]}" if size else ""
    where = f"{expression.text!r}, {list(box)}{in_size}, score {score}"
    thing = (class_key(expression.stated_class or expression.text), box)
    for rule, is_wrong in wrong.items():
        if is_wrong:
            yield Finding(rule, where, thing)


def _is_in_parts(box: Bbox, size: Size | None) -> bool:
    """Return whether all numbers are from 0 to 1: likely parts of the sides, not pixels."""
    if size is not None and min(size) <= 1:
        return False  # in so small a picture, a box in pixels has such numbers, too
    return 0 <= min(box) < max(box) <= 1


def _findings_in_expression(
    expression: Expression, caption: str, in_caption: Collection[str]
) -> Iterator[Finding]:
    text = expression.text
    span = expression.stated("char_span")
    status = expression.stated("status")
    boxes = expression.instances
    distinct_boxes = list(dict.fromkeys(instance.bbox for instance in boxes))
    unscored = [Instance(box) for box in distinct_boxes]
    any_near = len(without_duplicates(unscored, MERGE_IOU)) < len(unscored)
    # lint_rules.yaml says what each rule is about
    wrong = {
        "DG201": span is not None and not is_at_span(text, span, caption),  # a wrong span
        "DG202": span is None and as_compared(text) in in_caption,  # none, though it could
        "DG206": _BREAKING.search(text) is not None,
        "DG301": status not in (None, *STATUSES),  # an unknown status
        # grounded without boxes, or boxes under another status
        "DG302": status in STATUSES and bool(boxes) != (status == "grounded"),
        "DG104": len(distinct_boxes) < len(boxes),  # equal boxes
        "DG105": any_near,
    }
    where = f"{text!r} ({expression.shown_status}, boxes: {len(boxes)}, char_span: {span})"
    for rule, is_wrong in wrong.items():
        if is_wrong:
            yield Finding(rule, where)

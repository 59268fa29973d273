"""What is wrong with a data set, by the rules of lint_rules.yaml, and what `--fix` mends of it."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError, RecordError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.boxes.geometry import (
    MERGE_IOU,
    Bbox,
    Size,
    area,
    box_of,
    clamp,
    without_duplicates,
)
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    has_id,
    is_score,
    path_of,
    read_any_expressions,
    stated_size,
)
from dataflow_grounding.data.results_folder import annotations_of, image_folders_of
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.data.spans import Span, as_compared, caption_of_spans, find_spans
from dataflow_grounding.engine.image_memo import log_of, remembered
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.evaluation.figures._phrases import (
    said_twice,
    same_box_twice,
    sharing_boxes,
)
from dataflow_grounding.formats.format import TOKEN, is_at_span
from dataflow_grounding.formats.selection import status_of
from dataflow_grounding.images.files import ImageFacts, decoding, parse_facts, read_file
from dataflow_grounding.images.image import find_image, is_far

RULES: dict[str, dict[str, Any]] = load_table(__package__, "lint_rules.yaml")
# the rules for which pictures' sizes are read
_SIZE_RULES = {rule for rule in RULES if rule.startswith(("DG1", "DG4"))}
# what trainers take for something else than text: " . ", the mark between phrases, and tokens such
# as "<loc_12>"
_BREAKING = re.compile(rf" \. |{TOKEN.pattern}")
_MOST_OF_PICTURE = 0.95  # of its area: a box with more is over the whole picture


class Finding(NamedTuple):
    """What a rule found in a record.

    Attributes:
        rule: A key of RULES.
        where: Where it is, or what exactly, for people.
        mend: Changes the record in place so that it is right; None where that isn't certain.
    """

    rule: str
    where: str
    mend: Callable[[], object] | None = None


def lint(
    data: str,
    tell: Callable[[int, Finding], object],
    rules: Collection[str] = tuple(RULES),
    *,
    fix: bool = False,
    image_root: str | None = None,
    read: bool = True,
) -> Iterator[dict[str, Any]]:
    """Check rows, and yield each after `tell` was called with its findings.

    Nothing is checked before the first row is asked for. A row that can't be read is a finding, and
    yielded as an empty one. With `fix` the rows are mended when they are yielded, and findings that
    were mended are reported, too, each with its `mend`.

    Args:
        data: A results folder, or a file of records.
        tell: Called with the line (or the place of the row, from 1) and a finding in it.
        rules: Those of RULES that are checked.
        fix: Mend what can be mended.
        image_root: Where pictures are, if not where the run found them; None for there.
        read: Whether pictures are read, in threads, if a rule needs their sizes.

    Raises:
        InputError: A row can't be read, which `fix` would lose.
    """
    path = annotations_of(data)
    read_sizes = read and not _SIZE_RULES.isdisjoint(rules)
    ids_seen = set[int]()
    before = ("", set[Bbox]())
    for row, picture in _with_facts(path, image_folders_of(data, image_root), read_sizes):
        if row.data is None and fix:
            raise InputError(
                f"{path}, line {row.line}: {row.error}: mend or remove it first, as --fix can't"
                " keep it"
            )
        findings = _findings(rules, row, picture)
        while fix and any(finding.mend for finding in findings):
            # A mend may make, or end, another finding: the row is checked until none can be mended.
            for finding in findings:
                if finding.mend:
                    tell(row.line, finding)
                    finding.mend()
            findings = _findings(rules, row, picture)
        for finding in findings:
            tell(row.line, finding)
        # Two rules look at several rows.
        record = row.data or {}
        if "DG003" in rules:
            for finding in _repeated_ids(record, ids_seen):
                tell(row.line, finding)
        here = (path_of(record), _boxes_of(record))
        if "DG108" in rules and _has_boxes_of(before, here):
            tell(row.line, Finding("DG108", f"{len(here[1])} boxes as in {before[0]!r}"))
        before = here
        yield record


def _with_facts(
    path: str, folders: tuple[str, ...], read: bool
) -> Iterator[tuple[Row, ImageFacts | str | None]]:
    # The second value is why a picture can't be read, where it can't. It is None without `read`,
    # and for a row that can't be read itself.
    # Records of one picture often follow each other.
    facts_of = lru_cache(2**16)(partial(_facts_of, folders=folders))

    def is_unread(known: tuple[Row, ImageFacts | None]) -> bool:
        row, facts = known
        return read and facts is None and row.data is not None

    def with_facts(known: tuple[Row, ImageFacts | None]) -> tuple[Row, ImageFacts | str | None]:
        row, facts = known
        return row, facts_of(path_of(row.data or {})) if is_unread(known) else facts

    with closing(log_of(os.path.join(os.path.dirname(path), ".ckpt"))) as log:
        remembered_facts = partial(_remembered_facts, folders=folders, log=log)
        known_rows = (
            (row, remembered_facts(row.data) if read and row.data is not None else None)
            for row in read_rows(path)
        )
        yield from side_by_side(with_facts, known_rows, is_unread)


def _findings(rules: Collection[str], row: Row, picture: ImageFacts | str | None) -> list[Finding]:
    # `picture` are its picture's facts, a text if it can't be read (why), None if it wasn't read.
    if row.data is None:
        findings = [Finding("DG001", str(row.error))]
    else:
        findings = list(_findings_in_record(row.data, picture))
    return [finding for finding in findings if finding.rule in rules]


def _findings_in_record(
    record: dict[str, Any], picture: ImageFacts | str | None
) -> Iterator[Finding]:
    # Mends change the record itself, by its own expressions.
    size = picture.size if isinstance(picture, ImageFacts) else stated_size(record)
    yield from _findings_in_picture(record, picture)
    try:
        expressions = read_any_expressions(Record(record))
    except BrokenRow as error:
        yield Finding("DG002", str(error))
        return
    for text in said_twice(expressions):
        yield Finding("DG204", repr(text))
    for text in same_box_twice(expressions):
        yield Finding("DG207", repr(text))
    for first, second, all_boxes in sharing_boxes(expressions):
        if all_boxes and head_of(first["text"]) != head_of(second["text"]):
            yield Finding("DG205", f"{first['text']!r}, {second['text']!r}")
    # the record's own list, which mends change, and not a copy
    own_expressions = record.get("expressions") or []
    caption = caption_of_spans(record) if own_expressions else ""
    if _BREAKING.search(caption):
        yield Finding("DG206", f"the caption {caption!r}")
    spans = _standing_spans(expressions, caption)
    for index, (expression, standing) in enumerate(zip(expressions, spans, strict=True)):
        for instance in expression["instances"]:
            yield from _findings_in_box(repr(expression["text"]), instance, size)
        change = partial(_change, own_expressions, index)
        yield from _findings_in_expression(expression, standing, change)


class _Standing(NamedTuple):
    """How an expression's span and its caption go together.

    Attributes:
        is_right: Whether the span holds the expression's text.
        is_in_caption: Whether the caption has that text, where the span is not right.
        place: The span that the expression should have; None if that isn't certain.
    """

    is_right: bool
    is_in_caption: bool = False
    place: Span | None = None


def _standing_spans(expressions: Sequence[Mapping[str, Any]], caption: str) -> list[_Standing]:
    # The span that an expression should have is certain if the caption has the text exactly as
    # often as expressions do. No span is given twice.
    right = [is_at_span(each["text"], each.get("char_span"), caption) for each in expressions]
    if all(right):
        return [_Standing(is_right=True)] * len(right)
    taken = set[tuple[int, ...]]()
    for expression, is_right in zip(expressions, right, strict=True):
        if is_right:
            taken.add(tuple(expression["char_span"]))
    texts = [as_compared(expression["text"]) for expression in expressions]
    spans_of = _spans_of(texts, caption)
    free_of = {text: _free_places(spans, taken) for text, spans in spans_of.items()}
    standing = []
    for text, is_right in zip(texts, right, strict=True):
        place = None if is_right else next(free_of[text], None)
        if place:
            taken.add(place)
        standing.append(_Standing(is_right, spans_of[text][0] is not None, place))
    return standing


def _spans_of(texts: Sequence[str], caption: str) -> dict[str, list[Span | None]]:
    # Return for each text one span more than it occurs among the texts. All are looked for at once:
    # to go through the caption for each would take forever where both are long.
    times = Counter(texts)
    wanted = [text for text in times for _ in range(times[text] + 1)]
    spans = iter(find_spans(wanted, caption))
    return {text: list(islice(spans, times[text] + 1)) for text in times}


def _free_places(
    spans: Sequence[Span | None], taken: Collection[tuple[int, ...]]
) -> Iterator[Span]:
    # Yield those of a text's spans that no expression has; none if that isn't certain. The last
    # span is surplus: if it has a place, or another has none, the caption has the text more often,
    # or less often, than expressions do.
    *spans_of_text, surplus_span = spans
    if surplus_span is not None or None in spans_of_text:
        return
    for span in spans_of_text:
        if span is not None and span not in taken:
            yield span


def _findings_in_picture(
    record: Mapping[str, Any], picture: ImageFacts | str | None
) -> Iterator[Finding]:
    if isinstance(picture, str):
        yield Finding("DG401", picture)
        return
    if picture is None:
        return
    if stated_size(record) not in (None, picture.size):
        stated = f"{record['width']}x{record['height']}"
        yield Finding("DG402", f"{picture.width}x{picture.height} is stated as {stated}")
    if picture.stretched:
        yield Finding("DG403", "sent with its least value as black and its largest as white")


def _remembered_facts(
    record: Mapping[str, Any], folders: tuple[str, ...], log: KeyedLog
) -> ImageFacts | None:
    # Return the facts that the run read of a picture, if its file is as it was and a JPEG. None for
    # others, which have to be decoded: a run reads headers, and what is after them may be broken.
    # Of a JPEG the run has seen the end.
    named = Record({"image": path_of(record)}, folders)
    if not len(log) or is_far(named, "image"):
        return None
    try:
        facts = remembered(log, find_image(named, "image"))
    except RecordError:
        return None
    return facts if facts and facts.media_type == "image/jpeg" else None


def _facts_of(path: str, folders: tuple[str, ...]) -> ImageFacts | str:
    try:
        file_path = find_image(Record({"image": path}, folders), "image").path
        data = read_file(file_path)
        # Decoded, since a header is whole also where pixels are lost.
        with decoding(data, file_path, at_least=(1, 1)):
            pass
        return parse_facts(data, file_path)
    except RecordError as error:
        return str(error)


def _has_boxes_of(before: tuple[str, set[Bbox]], here: tuple[str, set[Bbox]]) -> bool:
    # Both are a picture's path and its boxes. A server that mixes up pictures gives the boxes of
    # one for the next (vllm-project/vllm issue 20261, sgl-project/sglang issue 5455). One box alone
    # may be the same by chance.
    (path_before, boxes_before), (path, boxes) = before, here
    return len(boxes) > 1 and boxes == boxes_before and path != path_before


def _boxes_of(record: Mapping[str, Any]) -> set[Bbox]:
    with suppress(BrokenRow):
        expressions = read_any_expressions(Record(record))
        return {box_of(one["bbox"]) for each in expressions for one in each["instances"]}
    return set()


def _repeated_ids(record: Mapping[str, Any], ids_seen: set[int]) -> Iterator[Finding]:
    # The set has hashes of the ids of all earlier records.
    expressions = record.get("expressions")
    if not isinstance(expressions, list):
        return
    for expression in expressions:
        own_id = expression.get("expression_id") if isinstance(expression, dict) else None
        # Hashes, as there may be millions of ids.
        digest = hash(repr(own_id))
        if has_id(own_id) and digest in ids_seen:
            yield Finding("DG003", repr(own_id))
        ids_seen.add(digest)


def _findings_in_box(text: str, instance: dict[str, Any], size: Size | None) -> Iterator[Finding]:
    box = box_of(instance["bbox"])
    score = instance["score"]
    # how far the box is out of the picture, in pixels; 0 or less inside
    beyond = max(-box[0], -box[1], box[2] - size[0], box[3] - size[1]) if size else 0
    # within one pixel, so likely in parts of the sides
    is_in_parts = (size is None or min(size) > 1) and 0 <= min(box) < max(box) <= 1
    is_whole_picture = False
    if size is not None and beyond <= 0:
        is_whole_picture = area(box) > _MOST_OF_PICTURE * size[0] * size[1]
    # lint_rules.yaml says what each rule is about
    wrong = {
        "DG303": not is_score(score),
        "DG103": _shorter_side(box) < 1,  # thin, or corners swapped
        "DG101": beyond >= 1,  # far out of the picture
        "DG102": 0 < beyond < 1,  # a little out of it
        "DG107": is_in_parts,
        "DG106": is_whole_picture,
    }
    in_size = f" in {size[0]}x{size[1]}" if size else ""
    where = f"{text}, {list(box)}{in_size}, score {score}"
    inside = clamp(box, size) if size else box
    for rule, is_wrong in wrong.items():
        if not is_wrong:
            continue
        mend = None
        # A box of which less than a pixel is left would be another finding.
        if rule == "DG102" and _shorter_side(inside) >= 1:
            mend = partial(instance["bbox"].__setitem__, slice(None), inside)
        yield Finding(rule, where, mend)


def _shorter_side(box: Bbox) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _findings_in_expression(
    expression: Mapping[str, Any], standing: _Standing, change: Callable[..., None]
) -> Iterator[Finding]:
    text = expression["text"]
    span = expression.get("char_span")
    status = expression.get("status")
    boxes = expression["instances"]
    distinct = dict.fromkeys(tuple(instance["bbox"]) for instance in boxes)
    has_equal_boxes = len(distinct) < len(boxes)
    # Without their scores, which don't matter here and may be no numbers.
    unscored = [{"bbox": box} for box in distinct]
    has_near_boxes = len(without_duplicates(unscored, MERGE_IOU)) < len(unscored)
    # lint_rules.yaml says what each rule is about
    wrong = {
        "DG201": span is not None and not standing.is_right,  # a wrong span
        "DG202": span is None and standing.is_in_caption,  # none, though it could
        "DG206": _BREAKING.search(text) is not None,
        "DG301": status not in (None, *STATUSES),  # an unknown status
        "DG302": status in STATUSES and bool(boxes) != (status == "grounded"),
        "DG104": has_equal_boxes,
        "DG105": has_near_boxes,
    }
    mends: dict[str, Callable[[], None]] = {}
    if standing.place:
        columns: dict[str, Any] = {"char_span": list(standing.place)}
        if "caption_span" in expression:
            # It was made from the span that was wrong.
            columns["caption_span"] = None
        mends["DG201"] = partial(change, **columns)
        mends["DG202"] = mends["DG201"]
    # Of equal boxes the one with the best score stays, so that all scores have to be readable.
    if wrong["DG104"] and all(is_score(instance["score"]) for instance in boxes):
        mends["DG104"] = partial(change, instances=_each_once(expression))
    where = f"{text!r} ({status_of(expression)}, boxes: {len(boxes)}, char_span: {span})"
    for rule, is_wrong in wrong.items():
        if is_wrong:
            yield Finding(rule, where, mends.get(rule))


def _each_once(expression: Mapping[str, Any]) -> list[dict[str, Any]]:
    # What a person found right goes before what one found wrong, that before what nobody judged; of
    # boxes that are alike in this the best score counts, of equal scores the first.
    best: dict[tuple[float, ...], dict[str, Any]] = {}
    for box in expression["instances"]:
        corners = tuple(box["bbox"])
        if corners not in best or _weight(box, expression) > _weight(best[corners], expression):
            best[corners] = box
    return list(best.values())


def _weight(box: Mapping[str, Any], expression: Mapping[str, Any]) -> tuple[int, float]:
    # The verdict is 2 for right, 1 for wrong, 0 where no person judged the box or its expression. A
    # box without a score has -1.
    score = box.get("score")
    score_or_less = -1.0 if score is None else float(score)
    verdict = box.get("verified", expression.get("verified"))
    is_judged = box.get("reviewed_by") or expression.get("reviewed_by")
    if not is_judged or not isinstance(verdict, bool):
        return 0, score_or_less
    return (2 if verdict else 1), score_or_less


def _change(expressions: list[Any], index: int, **columns: Any) -> None:
    # A bare text becomes an object with this `text`.
    expression = expressions[index]
    if isinstance(expression, str):
        expression = {"text": expression}
    expressions[index] = {**expression, **columns}

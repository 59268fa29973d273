"""What reviewers said of a record, laid over what a pipeline said of it.

And what a reviewer makes of an expression, and the version by which an expression is known.
"""

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.boxes.geometry import area, box_of, iou
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    annotated_column,
    expression_id,
    is_box,
)
from dataflow_grounding.extras.evaluation.metrics.annotations import is_span
from dataflow_grounding.extras.review._record_view import Expression, caption_of, expressions_of

_OF_THE_TEXT = ("noun_chunk", "caption_span")  # what holds no longer for another text
# nor for another box
_OF_THE_NUMBERS = ("zoomed", "area", "segmentation", "mask", "polygon", "keypoints")
_SAME_BOX_IOU = 0.5  # from which a later run's box is taken for the one that was reviewed


class Truth(NamedTuple):
    """How a reviewer left an expression.

    `expression` is None where it was deleted, `before` None where it was added. `positions` says of
    each box of `before` where it stands in `expression` now, None where it is gone or moved.
    """

    expression: Expression | None
    before: Expression | None
    positions: Sequence[int | None] = ()

    @classmethod
    def of(cls, expression: Expression | None, before: Expression | None) -> "Truth":
        """The truth with its positions.

        Boxes are known again by their numbers and ids. An id may have been given since, so one that
        no box had before counts as none; boxes that are alike in both are taken in their order.
        """
        old_boxes = before["instances"] if before else []
        new_boxes = expression["instances"] if expression else []
        old_ids = {str(box.get("bbox_id")) for box in old_boxes}
        unmatched = defaultdict[tuple[str, str], deque[int]](deque)
        for position, box in enumerate(new_boxes):
            id = str(box.get("bbox_id"))
            if id not in old_ids:
                id = "None"
            unmatched[str(box["bbox"]), id].append(position)
        positions: list[int | None] = []
        for box in old_boxes:
            alike = unmatched[str(box["bbox"]), str(box.get("bbox_id"))]
            positions.append(alike.popleft() if alike else None)
        return cls(expression, before, positions)

    def box(self, number: int) -> dict[str, Any] | None:
        """What a box that was there before is now; None where it is gone or moved."""
        if self.expression is None or number >= len(self.positions):
            return None
        position = self.positions[number]
        if position is None:
            return None
        box: dict[str, Any] = self.expression["instances"][position]
        return box

    def texts(self) -> list[str]:
        """The expression's text as it is and as it was."""
        return [side["text"] for side in (self.expression, self.before) if side]


class Match(NamedTuple):
    """A record's expression that may be a reviewed one, and what speaks for it."""

    overlap: float
    same_span: bool
    same_id: bool
    id: str
    reviewed_id: str


def version_of(expression: Mapping[str, Any] | None) -> str:
    """A short digest of an expression; empty for none.

    Example:
        >>> version_of({"text": "a dog"}), version_of(None)
        ('688b9936d95f', '')
    """
    if expression is None:
        return ""
    text = json.dumps(expression, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def word_of(row: Mapping[str, Any]) -> bool | None:
    """What a reviewer said of an expression or a box: right, wrong, or None."""
    if not row.get("reviewed_by"):
        return None
    verified = row.get("verified")
    return verified if isinstance(verified, bool) else None


def is_judged(expression: Expression | None) -> bool:
    """Whether a reviewer said something of it, or of one of its boxes."""
    if expression is None:
        return False
    return any(row.get("reviewed_by") for row in (expression, *expression["instances"]))


def overlaid(record: Record, truths: Mapping[str, Truth], comment: str | None = None) -> Record:
    """The record as its reviewers left it, whatever a later run says of the same phrases.

    `truths` is what they said of its expressions, by id. A phrase of a later run that took a
    reviewed one's id gets another; a rejection is of the boxes that were seen, so other boxes of a
    later run stand, unjudged, in their place. What nobody judged stays as it was written.
    """
    if not truths and comment is None:
        return record
    column = annotated_column(record) or "expressions"
    expressions = expressions_of(record)
    rows = rows_of(record, expressions, truths)
    items: list[Any] = []
    if column == "expressions":
        written = dict(zip(expressions, record.get(column) or (), strict=True))
        for id, row in rows.items():
            if row is expressions.get(id):
                items.append(_as_written(written[id], row["expression_id"]))
            else:
                items.append(row)
    else:
        written = dict(zip(expressions, record[column], strict=True))
        for id, row in rows.items():
            items.extend(_regions(written.get(id, {}), column, row))
    changes: dict[str, Any] = {column: items}
    if comment is not None:
        changes["review_comment"] = comment
    return record.updated(changes)


def _as_written(item: Any, id: str) -> dict[str, Any]:
    """An expression that nobody judged, as it stands in the file, where it may be a bare text."""
    row = item if isinstance(item, dict) else {"text": item}
    return {**row, "expression_id": id}


def rows_of(
    record: Record, expressions: Mapping[str, Expression], truths: Mapping[str, Truth]
) -> dict[str, Expression]:
    """What stands of a record's `expressions`, in order, then what reviewers added.

    Both are by id, and ids stay their own: one that reviewers know goes to no other phrase.
    """
    reviewed_ids = _reviewed_ids(expressions, truths)
    now = {reviewed_id: expressions[id] for id, reviewed_id in reviewed_ids.items()}
    left: dict[str, Expression] = {}
    standing: dict[str, Expression] = {}
    for id, truth in truths.items():
        if truth.expression:
            left[id] = _in_captions(record, truth, now.get(id))
            if _stands(left[id], truth.before, now.get(id)):
                standing[id] = left[id]
    rows: dict[str, Expression] = {}
    for id, expression in expressions.items():
        reviewed_id = reviewed_ids.get(id)
        if reviewed_id in standing:
            rows[reviewed_id] = standing[reviewed_id]
        elif reviewed_id is not None and reviewed_id not in left:
            continue  # a reviewer deleted it
        elif id not in truths or reviewed_id == id:
            # nobody judged it, or other boxes of it were rejected
            rows[id] = expression
        else:
            free_id = next_id(record, {**expressions, **truths, **rows})
            rows[free_id] = {**expression, "expression_id": free_id}
    for id, expression in standing.items():
        rows.setdefault(id, expression)
    return rows


def _reviewed_ids(
    expressions: Mapping[str, Expression], truths: Mapping[str, Truth]
) -> dict[str, str]:
    """Of a record's expressions those that were reviewed: their ids, and those of their truths.

    A later run may give the same ids to other phrases. Of several that read alike, those whose
    boxes meet are the same, then those at one place in the caption, then those with one id.
    """
    reviewed_ids: dict[str, str] = {}
    for id, truth in truths.items():
        if id in expressions and expressions[id] == truth.before:  # it is the same run
            reviewed_ids[id] = id
    unknown = {id: row for id, row in expressions.items() if id not in reviewed_ids}
    unmatched = {id: truth for id, truth in truths.items() if id not in reviewed_ids}
    matches = list(_matches(unknown, unmatched))
    matches.sort(key=lambda match: (match.overlap, match.same_span, match.same_id), reverse=True)
    for match in matches:
        if match.id in unknown and match.reviewed_id in unmatched:
            reviewed_ids[match.id] = match.reviewed_id
            del unknown[match.id]
            del unmatched[match.reviewed_id]
    return reviewed_ids


def _matches(expressions: Mapping[str, Expression], truths: Mapping[str, Truth]) -> Iterator[Match]:
    """Each two that read alike and may be the same."""
    text_counts = Counter(expression["text"] for expression in expressions.values())
    for reviewed_id, truth in truths.items():
        sides = [side for side in (truth.expression, truth.before) if side]
        texts = truth.texts()
        spans = [side.get("char_span") for side in sides]
        for id, expression in expressions.items():
            text = expression["text"]
            if text not in texts:
                continue
            span = expression.get("char_span")
            match = Match(
                overlap=max(_overlap(expression, side) for side in sides),
                same_span=bool(span) and span in spans,
                same_id=id == reviewed_id,
                id=id,
                reviewed_id=reviewed_id,
            )
            is_the_only_one = truth.before is not None and text_counts[text] == 1
            if match.overlap or match.same_span or match.same_id or is_the_only_one:
                yield match


def _overlap(expression: Expression, reviewed: Expression) -> float:
    """The least IoU of their boxes, in order; 0 below a half, and where there are not as many."""
    boxes = [box_of(instance["bbox"]) for instance in expression["instances"]]
    reviewed_boxes = [box_of(instance["bbox"]) for instance in reviewed["instances"]]
    if len(boxes) != len(reviewed_boxes):
        return 0.0
    least = min(map(iou, boxes, reviewed_boxes), default=0.0)
    return least if least >= _SAME_BOX_IOU else 0.0


def _in_captions(record: Record, truth: Truth, now: Expression | None) -> Expression:
    """A reviewer's expression with its place in captions that may be others by now.

    `now` is the same expression as the record has it. Where its place isn't clear, it has none.
    """
    expression = dict(truth.expression or {})
    before = truth.before or {}
    text = expression["text"]
    captions = {"char_span": caption_of(record), "caption_span": str(record.get("caption"))}
    for name, caption in captions.items():
        span = expression.get(name)
        if now and text == now["text"] and span == before.get(name):
            # the reviewer left it as it was, so it goes with the record
            if name in expression:
                expression[name] = now.get(name)
        elif span is not None and not _is_place_of(text, span, caption):
            start = caption.find(text)
            is_clear = caption.count(text) == 1
            expression[name] = [start, start + len(text)] if is_clear else None
    return expression


def _is_place_of(text: str, span: Any, caption: str) -> bool:
    """Whether a span [start, end) is one in which a text stands in a caption."""
    return is_span(span, len(caption)) and caption[slice(*span)] == text


def _stands(expression: Expression, before: Expression | None, now: Expression | None) -> bool:
    """Whether a reviewer's word stands.

    A rejection of all its boxes is of those that were seen, and of no others.
    """
    if expression.get("verified") is not False or any(map(word_of, expression["instances"])):
        return True
    if now is None:
        return False
    seen = [_bboxes(side) for side in (expression, before) if side]
    return _bboxes(now) in seen


def _bboxes(expression: Expression) -> list[Any]:
    return [instance["bbox"] for instance in expression["instances"]]


def next_id(record: Record, taken: Mapping[str, Any]) -> str:
    """An id for a further expression of the record."""
    for number in count(len(taken)):
        id = expression_id(record, number)
        if id not in taken:
            break
    return id


def _regions(before: Mapping[str, Any], column: str, row: Expression) -> Iterator[Any]:
    """The items that an expression makes in a column of regions: one for each box.

    `before` is the region as it was, empty for what a reviewer added.
    """
    text_key = "text" if column == "region_captions" else "type"
    word: Expression = {key: row[key] for key in ("verified", "reviewed_by") if key in row}
    region = dict(before)
    if row["text"] not in before.values():
        region[text_key] = row["text"]
    for number, instance in enumerate(row["instances"]):
        item = {text_key: row["text"]} if number else dict(region)
        is_drawn = instance.get("evidence") == "person"
        if is_drawn:
            for key in (*_OF_THE_NUMBERS, "score"):
                item.pop(key, None)
        item.update(word)
        if is_drawn:
            item["evidence"] = "person"
        item["bbox"] = instance["bbox"]
        yield item
    if not row["instances"] and word.get("verified") is True:
        # the reviewer says that there is no such thing: then the region is wrong
        yield {**region, **word, "verified": False}


def changed(
    record: Record,
    id: str,
    before: Expression | None,
    given: Mapping[str, Any],
    who: str,
    others: Mapping[str, Expression],
) -> Expression:
    """An expression as a reviewer wants it.

    Args:
        record: Whose caption the span is of.
        id: The expression's.
        before: As it stands, None for a new one.
        given: `instances`, each a `bbox` in pixels of the upright picture, `from` (its place in
            `before`, None for one drawn now; or `of`, the `id` and `box` of one of the `others`)
            and `verified`; `status`; `verified` of one without boxes; and, where they change,
            `text` and `char_span` ([start, end) in code points, or None).
        who: The reviewer.
        others: The record's other expressions.

    Raises:
        InputError: Something of `given` is not of that form.
    """
    if not isinstance(given, Mapping):
        raise InputError(
            f"expression {id}: what comes after should be an object or null, not {given!r:.40}"
        )
    old: Expression = before or {"expression_id": id, "instances": []}
    after = dict(old)
    if "text" in given or not before:
        after.update(_text(record, id, given))
    if after.get("text") != old.get("text"):
        for name in _OF_THE_TEXT:
            if name in after and after[name] == old.get(name):
                del after[name]
    items = given.get("instances")
    status = given.get("status")
    if status not in (*STATUSES, "pending") or not isinstance(items, list):
        raise InputError(
            f"expression {id}: 'instances' should be a list, 'status' one of {', '.join(STATUSES)}"
        )
    if status == "pending" and (items, given.get("verified")) == ([], True):
        status = "none"  # a person looked, and there is no such thing
    instances = []
    for item in items:
        wanted = item if isinstance(item, Mapping) else {}
        instances.append(_reviewed_box(id, _box_before(id, wanted, old, others), wanted, who))
    _number_boxes(id, instances)
    return _judged({**after, "instances": instances, "status": status}, given, who)


def _box_before(
    id: str, item: Mapping[str, Any], old: Expression, others: Mapping[str, Expression]
) -> dict[str, Any]:
    """The box of an item before, of its phrase or of one that joins it.

    One that is drawn now has no numbers.
    """
    number = item.get("from")
    boxes = old["instances"]
    joined = item.get("of")
    if isinstance(joined, Mapping):
        number = joined.get("box")
        boxes = others.get(str(joined.get("id")), {"instances": []})["instances"]
    if number is None:
        return {"bbox": [None] * 4}
    if number not in range(len(boxes)):
        raise InputError(f"expression {id}: there is no box {number!r}")
    return dict(boxes[number])


def _number_boxes(id: str, instances: list[dict[str, Any]]) -> None:
    """Give ids to the boxes that have none, with numbers behind the highest."""
    highest = -1
    for instance in instances:
        number = str(instance.get("bbox_id")).rpartition(".")[2]
        if number.isdecimal():
            highest = max(highest, int(number))
    for instance in instances:
        if not instance.get("bbox_id"):
            highest += 1
            instance["bbox_id"] = f"{id}.{highest}"


def _text(record: Record, id: str, given: Mapping[str, Any]) -> Expression:
    """Text and span, as they change. Raises InputError."""
    text = given.get("text")
    span = given.get("char_span")
    caption = caption_of(record)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"expression {id}: 'text' should be a text")
    if span is not None and not _is_place_of(text, span, caption):
        raise InputError(
            f"expression {id}: 'char_span' {span!r} is not where {text!r} stands in the caption"
        )
    changes = {"text": text, "char_span": span}
    if caption == record.get("caption"):
        changes["caption_span"] = span
    return changes


def _judged(after: Expression, given: Mapping[str, Any], who: str) -> Expression:
    """The expression with the reviewer's word on it, once all its boxes are judged.

    Until then it has none: what was said before was of something else.
    """
    instances = after["instances"]
    verdicts = {word_of(instance) for instance in instances}
    if not instances:
        verified = given.get("verified")
    elif False in verdicts:
        verified = False
    else:
        verified = True if verdicts == {True} else None
    if isinstance(verified, bool):
        return {**after, "verified": verified, "reviewed_by": who}
    judged = dict(after)
    # what a pipeline's check said of boxes holds until a reviewer judges them
    if after.get("reviewed_by") or not instances:
        judged.pop("verified", None)
        judged.pop("reviewed_by", None)
    return judged


def _reviewed_box(
    id: str, old: dict[str, Any], item: Mapping[str, Any], who: str
) -> dict[str, Any]:
    """A box as a reviewer left it: `old` with a word on it, or one that was drawn in its place."""
    bbox: Any = item.get("bbox")
    verified = item.get("verified")
    is_as_written = bbox == list(old["bbox"])
    # what is no box at all can still be rejected
    is_rejected = is_as_written and verified is not True
    if not is_rejected and not (is_box(bbox) and area(box_of(bbox))):
        raise InputError(
            f"expression {id}: a box should be [x1, y1, x2, y2] with x1 < x2 and y1 < y2, not"
            f" {bbox!r}"
        )
    if is_as_written:  # its numbers stay so
        if isinstance(verified, bool) and verified != word_of(old):
            return {**old, "verified": verified, "reviewed_by": who}
        return old
    numbers = []
    for number, was in zip(bbox, old["bbox"], strict=True):
        numbers.append(was if number == was else _rounded(number, old["bbox"]))
    kept = {name: value for name, value in old.items() if name not in _OF_THE_NUMBERS}
    return {
        **kept,
        "bbox": numbers,
        "score": None,
        "evidence": "person",
        "verified": True,
        "reviewed_by": who,
    }


def _rounded(value: float, like: list[Any]) -> float:
    """In hundredths of a pixel; whole where it is, unless the box had floats."""
    rounded = round(float(value), 2)
    if rounded.is_integer() and not any(isinstance(number, float) for number in like):
        return int(rounded)
    return rounded

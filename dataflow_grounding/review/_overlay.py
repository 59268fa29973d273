"""What reviewers decided on an expression, and how that goes over what a pipeline wrote.

Two directions: `reviewed_expression` turns a reviewer's request into the new expression, and
`as_reviewed` puts the expressions that were decided on back into a record.
"""

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import GroundingError, InputError
from dataflow_grounding.boxes.geometry import Size, area, box_of, clamp
from dataflow_grounding.boxes.regions import SHAPE_COLUMNS, with_corners
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    annotated_column,
    expression_id,
    is_box,
    is_number,
    stated_size,
)
from dataflow_grounding.data.spans import caption_of_spans
from dataflow_grounding.evaluation.metrics.annotations import is_span
from dataflow_grounding.images.files import read_header
from dataflow_grounding.review._record_view import (
    Expression,
    expressions_of,
    file_of_picture,
)

# Columns of an expression that are wrong once its text has changed.
_TEXT_COLUMNS = ("noun_chunk", "caption_span")
_SAME_SIZE = 0.02  # px: corners that a person drew are rounded to hundredths
_MOST_DIGITS = 4000  # of a number in a box id that is read: Python reads no int of over 4,300
_JUDGEMENT = ("verified", "reviewed_by")  # who judged an expression or a box, and how


class Outcome(NamedTuple):
    """An expression as the pipeline wrote it, and as reviewers left it."""

    after: Expression | None  # None where it was deleted
    before: Expression | None  # None where it was added
    # For each box of `before` the index of the same box in `after`, None where it was deleted or
    # redrawn. If the first of two boxes was deleted, it is [None, 0].
    positions: Sequence[int | None] = ()
    who: str = ""

    @classmethod
    def between(
        cls, after: Expression | None, before: Expression | None, who: str = ""
    ) -> "Outcome":
        """Return an outcome; boxes are the same if their corners and their ids are equal."""
        old_boxes = before["instances"] if before else []
        new_boxes = after["instances"] if after else []
        return cls(after, before, _positions_of_same(old_boxes, new_boxes), who)

    def on(self, current: Expression) -> "Outcome":
        """Rebase this outcome onto a later `before` with the same text and boxes, in this order."""
        if self.after is None or self.before is None:  # it was deleted, or added, as a whole
            return self._replace(before=current)
        if current == self.before:  # a later run left it as it was
            return self._replace(before=current)
        # `positions` turned round: from the index of a box in `after` to its index in `before`
        old_index_of = {new: old for old, new in enumerate(self.positions) if new is not None}
        instances = []
        for new_index, box in enumerate(self.after["instances"]):
            if new_index not in old_index_of:  # a person drew it: it isn't in `before`
                instances.append(box)
                continue
            old_index = old_index_of[new_index]
            box_before = self.before["instances"][old_index]
            box_now = current["instances"][old_index]
            instances.append(_with_change(box_now, before=box_before, after=box))
        if current["expression_id"] != self.before["expression_id"]:
            # Ids of boxes begin with that of their expression, `a.jpg#2.0`.
            instances = _with_ids_of(current, self.before, instances)
        changed = _with_change(current, before=self.before, after=self.after)
        return self._replace(after={**changed, "instances": instances}, before=current)

    def box_after(self, index: int) -> dict[str, Any] | None:
        """Return a box of `before` as it is in `after`; None if it was deleted or redrawn."""
        if self.after is None or index >= len(self.positions):
            return None
        position = self.positions[index]
        if position is None:
            return None
        box: dict[str, Any] = self.after["instances"][position]
        return box

    def index_after(self, index: int) -> int | None:
        """Return where `after` has a box of `before` or its redrawn one; None if deleted."""
        if self.after is None:
            return None
        if index < len(self.positions) and self.positions[index] is not None:
            return self.positions[index]
        # `positions` has None both for a redrawn box and for a deleted one. A redrawn box keeps
        # its index; after a deleted one, the others move up:
        # a, b -> a redrawn, b: `positions` is [None, 1], and index 0 is free for the drawn box
        # a, b -> b:            `positions` is [None, 0], and b has index 0
        is_moved_up = index in self.positions
        is_beyond_end = index >= len(self.after["instances"])
        return None if is_moved_up or is_beyond_end else index

    def added_boxes(self) -> list[dict[str, Any]]:
        """Return the boxes that a person drew, but none drawn in place of a box of `before`."""
        boxes = self.after["instances"] if self.after else []
        indices_of_old = {self.index_after(index) for index in range(len(self.positions))}
        return [
            box
            for index, box in enumerate(boxes)
            if box.get("evidence") == "person" and index not in indices_of_old
        ]

    def is_mended(self) -> bool:
        """Return whether boxes are rejected, and each of them has a right one that was added."""
        boxes = self.after["instances"] if self.after else []
        verdicts = [reviewer_verdict(box) for box in boxes]
        if None in verdicts:
            return False
        has_rejected = False in verdicts
        has_right = True in verdicts  # it has none if all that was added was rejected, too
        # Nobody says which added box is for which rejected one, so only their numbers are compared.
        return has_rejected and has_right and self.boxes_to_draw() <= 0

    def boxes_to_draw(self) -> int:
        """Return the rejected boxes less the added ones: 1 with two rejected and one added."""
        boxes = self.after["instances"] if self.after else []
        rejected = [reviewer_verdict(box) for box in boxes].count(False)
        # An added box that is rejected itself counts as both, and so neither way.
        return rejected - len(self.added_boxes())


def _positions_of_same(
    old_boxes: Sequence[Mapping[str, Any]], new_boxes: Sequence[Mapping[str, Any]]
) -> list[int | None]:
    """Return for each old box the index of the same box among the new ones, else None."""
    # Corners and ids are compared as texts, because in a wrong file they may be of any type.
    old_ids = {str(box.get("bbox_id")) for box in old_boxes}  # "None" for a box without an id
    # the new boxes that no old box was matched with yet, by corners and id
    free_indices = defaultdict[tuple[str, str], deque[int]](deque)
    for index, box in enumerate(new_boxes):
        id = str(box.get("bbox_id"))
        if id not in old_ids:
            # The review gave this id to a box that had none, so it is compared without one.
            id = str(None)
        free_indices[str(box["bbox"]), id].append(index)
    positions: list[int | None] = []
    for box in old_boxes:
        free = free_indices[str(box["bbox"]), str(box.get("bbox_id"))]
        # Several boxes may have equal corners and no id: they are matched in their order.
        positions.append(free.popleft() if free else None)
    return positions


def _with_change(
    current: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `current` with the change that a reviewer made from `before` to `after`."""
    changed = dict(current)
    for name in {**before, **after}:
        # An earlier decision may have set a judgement in `before`, too. It is equal then, but a
        # later run has written `current` without it.
        if name not in _JUDGEMENT and before.get(name) == after.get(name):
            continue
        if name in after:
            changed[name] = after[name]
        else:
            changed.pop(name, None)
    return changed


def _with_ids_of(
    current: Expression, before: Expression, boxes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the boxes with ids of `current`, which has the boxes of `before` in the same order."""
    new_id_of: dict[str, Any] = {}
    for old, new in zip(before["instances"], current["instances"], strict=True):
        if "bbox_id" in old and "bbox_id" in new:
            new_id_of[str(old["bbox_id"])] = new["bbox_id"]
    renamed = []
    for box in boxes:
        new_id = new_id_of.get(str(box.get("bbox_id")))  # None for a drawn box
        renamed.append({**box, "bbox_id": new_id})
    _add_missing_ids(current["expression_id"], renamed)
    return renamed


def version_of(expression: Mapping[str, Any] | None) -> str:
    """Return 12 digits of an expression's SHA-256, all columns included; "" for None."""
    if expression is None:
        return ""
    text = json.dumps(expression, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def reviewer_verdict(row: Mapping[str, Any]) -> bool | None:
    """Return whether a reviewer found an expression or a box right; None if none judged it."""
    if not row.get("reviewed_by"):  # `verified` is of a pipeline's check then
        return None
    verified = row.get("verified")
    return verified if isinstance(verified, bool) else None


def was_judged(expression: Expression | None) -> bool:
    """Return whether a reviewer judged the expression, or one of its boxes."""
    if expression is None:
        return False
    return any(row.get("reviewed_by") for row in (expression, *expression["instances"]))


def as_reviewed(
    record: Record, outcomes: Mapping[str, Outcome], comment: str | None = None
) -> Record:
    """Return the record with what reviewers decided; what nobody judged stays as it is."""
    if not outcomes and comment is None:
        return record
    column = annotated_column(record) or "expressions"
    expressions = expressions_of(record)
    # Expressions were read from the column's items, one from each, in their order.
    item_of_id = dict(zip(expressions, record.get(column) or (), strict=True))
    new_items: list[Any] = []
    for id, row in standing_expressions(record, expressions, outcomes).items():
        if column != "expressions":
            old_region = item_of_id.get(id, {})  # {} for one that a reviewer added
            new_items.extend(_regions(old_region, column, row))
        elif id in outcomes:
            new_items.append(row)
        else:  # as the file has it, perhaps as a mere text: "a cup"
            item = item_of_id[id]
            columns = item if isinstance(item, dict) else {"text": item}
            new_items.append({**columns, "expression_id": row["expression_id"]})
    changes: dict[str, Any] = {column: new_items}
    if comment is not None:
        changes["review_comment"] = comment
    return record.updated(changes)


def standing_expressions(
    record: Record, expressions: Mapping[str, Expression], outcomes: Mapping[str, Outcome]
) -> dict[str, Expression]:
    """Return a record's expressions with the decisions on them, by id: added ones come last."""
    rows: dict[str, Expression] = {}
    for id in {**expressions, **outcomes}:
        if id not in outcomes:
            rows[id] = expressions[id]
            continue
        row = outcomes[id].after
        if row is None:  # a reviewer deleted it
            continue
        reviewed = _with_right_spans(record, row, outcomes[id].before or {})  # a copy
        if outcomes[id].is_mended():
            reviewed["verified"] = True
        rows[id] = reviewed
    return rows


def _with_right_spans(
    record: Record, expression: Expression, before: Mapping[str, Any]
) -> Expression:
    """Return a copy whose spans are right in the caption, which a later run may have replaced."""
    row = dict(expression)
    text = row["text"]
    caption_as_given = record.get("caption")
    if not isinstance(caption_as_given, str):  # the record has none
        caption_as_given = ""
    caption_of_column = {"char_span": caption_of_spans(record), "caption_span": caption_as_given}
    for name, caption in caption_of_column.items():
        span = row.get(name)
        is_set_by_review = span is not None and span != before.get(name)
        if is_set_by_review and not _is_place_of(text, span, caption):
            row[name] = None
            if caption.count(text) == 1:
                start = caption.index(text)
                row[name] = [start, start + len(text)]
    return row


def _is_place_of(text: str, span: Any, caption: str) -> bool:
    return is_span(span, len(caption)) and caption[slice(*span)] == text


def judgement_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a box or an expression that say who judged it, and how."""
    return {name: item[name] for name in _JUDGEMENT if name in item}


def next_id(record: Record, taken: Mapping[str, Any]) -> str:
    """Return an id for a further expression of the record, one that isn't `taken`: `a.jpg#3`."""
    for number in count(len(taken)):
        id = expression_id(record, number)
        if id not in taken:
            break
    return id


def _regions(old_region: Mapping[str, Any], column: str, row: Expression) -> Iterator[Any]:
    """Yield a region for each box of a reviewed expression; the first has the old one's columns."""
    text_key = "text" if column == "region_captions" else "type"
    judgement = judgement_of(row)
    first = dict(old_region)
    # An unchanged text stays where it is: it may be in another column, such as `description`.
    if row["text"] not in old_region.values():
        first[text_key] = row["text"]
    for index, instance in enumerate(row["instances"]):
        region = first if index == 0 else {text_key: row["text"]}
        yield _region_of_box(region, instance, judgement)
    # A reviewer confirmed that there is no such thing: the expression is right without a box, so
    # the old region, which has one, was wrong.
    if not row["instances"] and judgement.get("verified") is True:
        yield {**first, **judgement, "verified": False}


def _region_of_box(
    region: Mapping[str, Any], instance: Mapping[str, Any], judgement: Mapping[str, Any]
) -> dict[str, Any]:
    is_drawn = instance.get("evidence") == "person"
    item = dict(region)
    if is_drawn:
        for key in (*SHAPE_COLUMNS, "score"):  # they were of the pipeline's box
            item.pop(key, None)
    item.update(judgement)
    if is_drawn:
        item["evidence"] = "person"
    item["bbox"] = instance["bbox"]
    return item


def reviewed_expression(
    record: Record,
    id: str,
    before: Expression | None,
    wanted: Mapping[str, Any],
    who: str,
    others: Mapping[str, Expression],
) -> Expression:
    """Return an expression as a reviewer's page asks for it, checked and with the review on it.

    `before` is the expression as it is now, None for a new one. `wanted` has:

    - `status`; and `verified` if it has no boxes
    - `text` and `char_span` (code points), where they change
    - `instances`: the boxes, each with `bbox` (pixels of the upright picture), `verified`, and
      `unjudged` if it was shifted. `from` is its index in `before`, None if it is drawn now. A
      box that comes from one of the `others` has `of` instead: {"id": "a.jpg#2", "box": 0}.

    Boxes of `before` that `wanted` doesn't name are deleted. Raises InputError for what is not of
    that form.
    """
    if not isinstance(wanted, Mapping):
        raise InputError(
            f"expression {id}: what comes after should be an object or null, not {wanted!r:.40}"
        )
    old: Expression = before or {"expression_id": id, "instances": []}
    after = dict(old)
    is_new = "text" not in old
    if "text" in wanted or is_new:  # `_text_and_spans` refuses a new one without a text
        after.update(_text_and_spans(record, id, wanted))
    if after["text"] != old.get("text"):
        _adapt_to_text(after, old, others)
    _check_verdict(id, wanted)
    status, wanted_boxes = _status_and_boxes(id, wanted)
    # Without boxes the picture isn't looked for: others wait for the lock of reviews.jsonl.
    size = _size_of_picture(record) if wanted_boxes else None
    instances = []
    for wanted_box in wanted_boxes:
        _check_verdict(id, wanted_box)
        old_box = _box_before(id, wanted_box, old, others)
        instances.append(_reviewed_box(id, old_box, wanted_box, who, size))
    _add_missing_ids(id, instances)
    reviewed = {**after, "instances": instances, "status": status}
    return _with_judgement(reviewed, wanted.get("verified"), who, _states_verdicts(record))


def _status_and_boxes(id: str, wanted: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    items = wanted.get("instances")
    status = wanted.get("status")
    if status not in (*STATUSES, "pending") or not isinstance(items, list):
        raise InputError(
            f"expression {id}: 'instances' should be a list, 'status' one of {', '.join(STATUSES)}"
        )
    is_confirmed_absence = not items and wanted.get("verified") is True
    if status == "pending" and is_confirmed_absence:
        status = "none"  # a person looked, and there is no such thing
    # What is no object becomes {}: that has no `bbox`, so `_reviewed_box` refuses it.
    return status, [item if isinstance(item, Mapping) else {} for item in items]


def _adapt_to_text(
    after: Expression, old_expression: Expression, other_expressions: Mapping[str, Expression]
) -> None:
    """Remove from `after`, whose text is new, what held for the old one; give it a known class."""
    for column in _TEXT_COLUMNS:
        if column in after and after[column] == old_expression.get(column):  # not set by the review
            del after[column]
    after.pop("class", None)
    new_text = class_key(after["text"])
    # Another expression may have the new text, or have it as its class.
    for other in other_expressions.values():
        name = other.get("class")
        if not isinstance(name, str):
            continue
        if new_text in (class_key(str(other.get("text"))), class_key(name)):
            after["class"] = name
            return


def _box_before(
    id: str,
    wanted_box: Mapping[str, Any],
    old: Expression,
    other_expressions: Mapping[str, Expression],
) -> dict[str, Any]:
    """Return a copy of the box that `wanted_box` was; its corners are None if it is drawn now."""
    boxes = old["instances"]
    index = wanted_box.get("from")
    place_in_other = wanted_box.get("of")
    if isinstance(place_in_other, Mapping):
        other = other_expressions.get(str(place_in_other.get("id")))
        boxes = [] if other is None else other["instances"]
        index = place_in_other.get("box")
    if index is None:
        return {"bbox": [None] * 4}
    # type, not isinstance: true and 1.0 are equal to 1, but no index
    if type(index) is not int or index not in range(len(boxes)):
        raise InputError(f"expression {id}: there is no box {index!r}")
    return dict(boxes[index])


def _add_missing_ids(id: str, instances: list[dict[str, Any]]) -> None:
    """Number the `instances` without an id above all others: "a.jpg#2.3" after "a.jpg#2.2"."""
    highest = -1
    for instance in instances:
        number = str(instance.get("bbox_id")).rpartition(".")[2]
        if number.isdecimal() and len(number) <= _MOST_DIGITS:
            highest = max(highest, int(number))
    for instance in instances:
        if not instance.get("bbox_id"):
            highest += 1
            instance["bbox_id"] = f"{id}.{highest}"


def _text_and_spans(record: Record, id: str, wanted: Mapping[str, Any]) -> Expression:
    """Return the columns that a reviewer's new text sets: the text, and its places in captions."""
    text = wanted.get("text")
    span = wanted.get("char_span")
    caption = caption_of_spans(record)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"expression {id}: 'text' should be a text")
    if span is not None and not _is_place_of(text, span, caption):
        raise InputError(
            f"expression {id}: 'char_span' {span!r} is not the place of {text!r} in the caption"
        )
    changes = {"text": text, "char_span": span}
    if caption == record.get("caption"):
        # `char_span` is a place in the cleaned caption, `caption_span` in the caption as it came.
        # Only if nothing was cleaned do we know the second one, too.
        changes["caption_span"] = span
    return changes


def _states_verdicts(record: Record) -> bool:
    """Return whether expressions have `verified`; older pipelines left it out of unchecked ones."""
    rows = record.get(annotated_column(record))
    return isinstance(rows, list) and any(
        isinstance(row, dict) and "verified" in row for row in rows
    )


def _with_judgement(
    after: Expression, verdict: bool | None, who: str, states_verdicts: bool
) -> Expression:
    """Return the expression with the verdict of its boxes; with `verdict` if it has none."""
    instances = after["instances"]
    verified = _verdict_of_boxes(instances) if instances else verdict
    if verified is not None:
        return {**after, "verified": verified, "reviewed_by": who}
    was_reviewed = bool(after.get("reviewed_by"))
    if instances and not was_reviewed:
        # `verified`, if it has that, is what a check of the pipeline said: it stays until all
        # boxes are judged.
        return dict(after)
    # An earlier review judged it, or it has no boxes: no verdict is on what it is now.
    unjudged = _without_judgement(after)
    if states_verdicts:  # as the record's other expressions do
        unjudged["verified"] = None
    return unjudged


def _verdict_of_boxes(instances: Sequence[Mapping[str, Any]]) -> bool | None:
    verdicts = [reviewer_verdict(instance) for instance in instances]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _without_judgement(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _JUDGEMENT}


def _check_verdict(id: str, item: Mapping[str, Any]) -> None:
    verified = item.get("verified")
    if verified is not None and not isinstance(verified, bool):
        raise InputError(
            f"expression {id}: 'verified' should be true, false or null, not {verified!r:.40}"
        )


def _reviewed_box(
    id: str, old_box: dict[str, Any], wanted_box: Mapping[str, Any], who: str, size: Size | None
) -> dict[str, Any]:
    """Return the box as the page asks for it; `old_box` is as `_box_before` returns it."""
    bbox: Any = wanted_box.get("bbox")
    is_drawn_now = None in old_box["bbox"]
    if not is_drawn_now and bbox == list(old_box["bbox"]):  # it isn't moved
        verified = wanted_box.get("verified")
        if verified is True:  # a box without an area may be rejected, but not be right
            _check_has_area(id, bbox)
        # Who repeats a verdict doesn't take it over: `reviewed_by` is who judged the box first.
        if verified is None or verified == reviewer_verdict(old_box):
            return old_box
        return {**old_box, "verified": verified, "reviewed_by": who}
    _check_has_area(id, bbox)
    if size is not None:
        bbox = _clipped(id, bbox, size)
    drawn = _drawn_box(old_box, bbox)
    if wanted_box.get("unjudged") is True:
        # The box was shifted, perhaps by a slip: nobody has said yet that it is right.
        return _without_judgement(drawn)
    # Nobody draws a wrong box on purpose: `wanted_box` needn't say that it is right.
    return {**drawn, "verified": True, "reviewed_by": who}


def _check_has_area(id: str, bbox: Any) -> None:
    if not is_box(bbox) or area(box_of(bbox)) <= 0:
        raise InputError(
            f"expression {id}: a box should be [x1, y1, x2, y2] with x1 < x2 and y1 < y2, not"
            f" {bbox!r}"
        )


def _drawn_box(old: dict[str, Any], bbox: list[float]) -> dict[str, Any]:
    """Return the box `old`, whose corners may be None, with the corners that a person drew."""
    corners = []
    for new_edge, old_edge in zip(bbox, old["bbox"], strict=True):
        # An edge that wasn't moved keeps all its digits.
        corners.append(old_edge if new_edge == old_edge else _rounded(new_edge, old["bbox"]))
    columns = with_corners(old, corners)
    outline = _shifted(old.get("outline"), old["bbox"], corners)
    if outline:
        columns["outline"] = outline
    return {**columns, "score": None, "evidence": "person"}


def _shifted(outline: Any, old: Sequence[float], new: Sequence[float]) -> list[float] | None:
    """Return the outline moved as the corners were; None for none, or where the size changed."""
    if not isinstance(outline, list) or not all(map(is_number, outline)):
        return None
    if not is_box(old):
        return None
    dx1, dy1, dx2, dy2 = (after - before for before, after in zip(old, new, strict=True))
    is_resized = max(abs(dx2 - dx1), abs(dy2 - dy1)) > _SAME_SIZE
    if is_resized:
        return None
    shifted = []
    for place, number in enumerate(outline):  # x, y, x, y and so on
        shift = dx1 if place % 2 == 0 else dy1
        shifted.append(round(number + shift, 3))
    return shifted


def _size_of_picture(record: Record) -> Size | None:
    try:
        return read_header(file_of_picture(record).path).size
    except GroundingError:
        return stated_size(record)  # it may be of the picture before it was turned upright


def _clipped(id: str, bbox: list[float], size: Size) -> list[float]:
    inside = clamp(box_of(bbox), size)
    if area(inside) <= 0:
        raise InputError(
            f"expression {id}: the box {bbox} is outside of the picture, {size[0]} x {size[1]}"
        )
    return bbox if inside == box_of(bbox) else list(inside)


def _rounded(edge: float, old_corners: list[Any]) -> float:
    """Return 12 for 12.0, unless old corners are floats: a box's numbers stay of one kind."""
    rounded = round(float(edge), 2)
    if rounded.is_integer() and not any(isinstance(old, float) for old in old_corners):
        return int(rounded)
    return rounded

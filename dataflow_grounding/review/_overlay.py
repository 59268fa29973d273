"""Expressions as reviewers left them, and how they go back into their record."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dataflow_grounding.data.expressions import OF_A_SHAPE, Expression, Instance
from dataflow_grounding.data.records import (
    JsonObject,
    Record,
    Update,
    annotated_column,
    caption_of_spans,
    expression_id,
    has_id,
)
from dataflow_grounding.evaluation.metrics.annotations import is_span
from dataflow_grounding.review._record_view import expressions_of

JUDGEMENT = ("verified", "reviewed_by")  # who judged an expression or a box, and how


@dataclass
class Outcome:
    """An expression as the pipeline wrote it, and as reviewers left it."""

    after: Expression | None  # None where it was deleted
    before: Expression | None  # None where it was added
    # For each box of `after` the index of the box of `before` that it is, or was drawn in place of;
    # None for one that was added.
    origins: list[int | None] = field(default_factory=list)
    redrawn: set[int] = field(default_factory=set)  # indices of boxes of `before`
    who: str = ""  # who decided last; "" where nobody did

    def box_after(self, index: int) -> Instance | None:
        """Return a box of `before` as it is in `after`; None if it was deleted or redrawn."""
        place = self.index_after(index)
        if self.after is None or place is None or index in self.redrawn:
            return None
        return self.after.instances[place]

    def index_after(self, index: int) -> int | None:
        """Return where `after` has a box of `before` or its redrawn one; None if deleted."""
        if self.after is None or index not in self.origins:
            return None
        return self.origins.index(index)

    def is_mended(self) -> bool:
        """Return whether boxes are rejected, and each of them has a right one that was added."""
        boxes = self.after.instances if self.after else []
        verdicts = [reviewer_verdict(box) for box in boxes]
        if None in verdicts:
            return False
        has_rejected = False in verdicts
        has_right = True in verdicts  # it has none if all that was added was rejected, too
        # Nobody says which added box is for which rejected one, so only their numbers are compared.
        return has_rejected and has_right and self.boxes_to_draw() <= 0

    def boxes_to_draw(self) -> int:
        """Return the rejected boxes less the added ones: 1 with two rejected and one added.

        A box that was drawn in place of one of `before` isn't added.
        """
        boxes = self.after.instances if self.after else []
        to_draw = 0
        for box, origin in zip(boxes, self.origins, strict=True):
            # An added box that is rejected itself counts as both, and so neither way.
            to_draw += reviewer_verdict(box) is False
            to_draw -= origin is None and box.evidence == "person"
        return to_draw


def version_of(expression: Expression | None) -> str:
    """Return 12 digits of an expression's SHA-256, all columns included; "" for None."""
    if expression is None:
        return ""
    text = json.dumps(expression.to_json(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def reviewer_verdict(row: Expression | Instance) -> bool | None:
    """Return whether a reviewer found an expression or a box right; None if none judged it."""
    return row.verified if row.reviewed_by else None  # else it is of a pipeline's check


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
            new_items.append(row.to_json())
        else:  # as the file has it, perhaps as a mere text: "a cup"
            item = item_of_id[id]
            columns = item if isinstance(item, dict) else {"text": item}
            if not has_id(columns.get("expression_id")):
                columns = {**columns, "expression_id": row.expression_id}
            new_items.append(columns)
    changes: Update = {column: new_items}
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
        reviewed = _with_right_spans(record, row, outcomes[id].before)
        if outcomes[id].is_mended():
            reviewed.verified = True
        rows[id] = reviewed
    return rows


def _with_right_spans(record: Record, row: Expression, before: Expression | None) -> Expression:
    """Return a copy whose spans are right in the caption, which a later run may have replaced."""
    reviewed = row.copy()
    caption_as_given = record.get("caption")
    if not isinstance(caption_as_given, str):  # the record has none
        caption_as_given = ""
    caption_of_column = {"char_span": caption_of_spans(record), "caption_span": caption_as_given}
    for name, caption in caption_of_column.items():
        span = getattr(row, name)
        is_set_by_review = span is not None and span != getattr(before, name, None)
        if is_set_by_review and not is_place_of(row.text, span, caption):
            start = caption.find(row.text)
            is_there_once = caption.count(row.text) == 1
            setattr(reviewed, name, (start, start + len(row.text)) if is_there_once else None)
    return reviewed


def is_place_of(text: str, span: Any, caption: str) -> bool:
    return is_span(span, len(caption)) and caption[slice(*span)] == text


def next_id(record: Record, taken: Mapping[str, Outcome]) -> str:
    """Return an id for a further expression of the record, one that isn't `taken`: `a.jpg#3`."""
    for number in count(len(taken)):
        id = expression_id(record, number)
        if id not in taken:
            break
    return id


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

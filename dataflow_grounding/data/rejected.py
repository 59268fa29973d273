"""What a person rejected: it stays in results, and is left out of what is made of them.

A person's verdict is `verified: false` with `reviewed_by`, on a box or on its whole expression.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Bbox, Expression, Instance
from dataflow_grounding.data.records import JsonObject, Record, Update

MISSED = "missed"
"""The column with the phrases whose thing is there, as a person says, without a box."""


def boxes_not_rejected(expression: Expression) -> list[Instance]:
    """Return the boxes of an expression that no person rejected."""
    boxes = expression.instances
    # Once a box states `verified`, each box has its own verdict, and one without isn't rejected.
    if not any(box.states_verdict for box in boxes):
        return [] if _is_rejected(expression) else boxes
    left = []
    for box in boxes:
        if box.verified is not False or not (box.reviewed_by or expression.reviewed_by):
            left.append(box)
    return left


def _is_rejected(expression: Expression) -> bool:
    return expression.verified is False and bool(expression.reviewed_by)


def is_missed(expression: Expression) -> bool:
    """Whether a person said that a thing marked absent is there, and nobody drew its box."""
    is_absent = expression.status == "none" and not expression.instances
    return is_absent and _is_rejected(expression)


def _reject_twins(expressions: Sequence[Expression]) -> None:
    """Reject boxes that equal a rejected one, too."""
    # A picture may have a phrase twice with the same box. Who rejects one means both.
    reviewers: dict[tuple[str, Bbox], str] = {}  # of rejected boxes, by phrase and corners
    for expression in expressions:
        for box in expression.instances:
            verified = box.verified if box.states_verdict else expression.verified
            reviewer = box.reviewed_by or expression.reviewed_by
            if verified is False and reviewer:
                reviewers[class_key(expression.text), box.bbox] = reviewer
    for expression in expressions:
        for box in expression.instances:
            is_reviewed = box.reviewed_by or expression.reviewed_by  # it keeps its own verdict
            reviewer = reviewers.get((class_key(expression.text), box.bbox))
            if reviewer and not is_reviewed:
                box.verified, box.reviewed_by = False, reviewer


class WithoutRejected:
    """Leaves what a person rejected out of records, unless `keep`; counts its boxes in `boxes`."""

    def __init__(self, keep: bool = False) -> None:
        self.boxes = 0  # how many were left out
        self._keep = keep

    def __call__(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            yield record if self._keep else record.updated(self.of(record))

    def of(self, record: JsonObject) -> Update:
        """Return the columns of a record that change when what was rejected is left out."""
        items = record.get("expressions")
        if self._keep or not isinstance(items, list) or not any(map(_states_reviewer, items)):
            return {}
        expressions: list[Expression | None] = [_read(item) for item in items]
        _reject_twins([expression for expression in expressions if expression])
        left: list[object] = []
        missed: list[str] = []  # phrases of things that a person saw without a box
        for item, expression in zip(items, expressions, strict=True):
            if expression is None:
                left.append(item)
                continue
            boxes = expression.instances
            boxes_left = boxes_not_rejected(expression)
            self.boxes += len(boxes) - len(boxes_left)
            if len(boxes_left) == len(boxes) and (boxes or not _is_rejected(expression)):
                left.append(item)
            elif boxes_left:
                pairs = zip(item["instances"], boxes, strict=True)
                kept = [instance for instance, box in pairs if box in boxes_left]
                left.append({**item, "instances": kept})
            elif is_missed(expression):
                missed.append(expression.text)
        if left == items:
            return {}
        columns: Update = {"expressions": left}
        if len(left) < len(items):
            # What a dropped phrase means may be in the picture without a box: it is no background.
            columns["background"] = False
        if missed:
            columns[MISSED] = [*(record.get(MISSED) or ()), *missed]
        return columns


def _read(item: object) -> Expression | None:
    """Read an expression; None for one that can't be read, which is reported later."""
    with suppress(BrokenRow):
        return Expression.from_json(item)
    return None


def _states_reviewer(item: object) -> bool:
    """Whether a person looked at an expression or a box of it: else nothing of it is rejected."""
    if not isinstance(item, dict):
        return False
    boxes = item.get("instances")
    rows = [item, *boxes] if isinstance(boxes, list) else [item]
    return any(isinstance(row, dict) and row.get("reviewed_by") for row in rows)

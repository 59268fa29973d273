"""What a person rejected: it stays in results, and is left out of what is made of them.

A person's verdict is `verified: false` with `reviewed_by`, on a box or on its whole expression. A
box is an instance of an expression, a dict with its `bbox`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import Record, is_box

MISSED = "missed"
"""The column with the phrases whose thing is there, as a person says, without a box."""


def not_rejected(expression: Mapping[str, Any]) -> list[Any] | None:
    """Return the boxes of an expression that no person rejected; None where all of it is."""
    boxes: list[Any] = expression["instances"]
    # Once a box states `verified`, each box has its own verdict, and one without isn't rejected.
    do_boxes_state_verdicts = any("verified" in box for box in boxes)
    if not do_boxes_state_verdicts:
        return None if _is_rejected(expression) else boxes
    boxes_left = []
    for box in boxes:
        is_rejected = box.get("verified") is False and bool(_reviewer(expression, box))
        if not is_rejected:
            boxes_left.append(box)
    if not boxes_left:  # each box was rejected by itself
        return None
    return boxes_left


def boxes_not_rejected(expression: Expression) -> list[Instance] | None:
    """Return the same of a typed expression."""
    boxes = expression.instances
    if not any("verified" in box.keys or box.verified is not None for box in boxes):
        is_rejected = expression.verified is False and bool(expression.reviewed_by)
        return None if is_rejected else boxes
    left = []
    for box in boxes:
        if box.verified is not False or not (box.reviewed_by or expression.reviewed_by):
            left.append(box)
    return left or None


def _is_rejected(item: Mapping[str, Any]) -> bool:
    return item.get("verified") is False and bool(item.get("reviewed_by"))


def is_missed(expression: Mapping[str, Any]) -> bool:
    """Whether a person said that a thing marked absent is there, and nobody drew its box."""
    is_absent = expression.get("status") == "none" and not expression.get("instances")
    return is_absent and _is_rejected(expression)


_BoxKey: TypeAlias = tuple[str, tuple[float, ...]]

Rejections: TypeAlias = dict[_BoxKey, dict[str, Any]]
"""For each box that a person rejected, the verdict: `verified`, which is False, `reviewed_by`."""


def rejections_in(expressions: Sequence[Any]) -> Rejections:
    """Return the boxes that a person rejected, by their own `verified`, else their expression's."""
    rejections: Rejections = {}
    for expression in filter(_is_readable, expressions):
        for box in expression.get("instances") or ():
            verified = box["verified"] if "verified" in box else expression.get("verified")
            reviewer = _reviewer(expression, box)
            if verified is False and reviewer:
                rejections[_key_of(expression, box)] = {"verified": False, "reviewed_by": reviewer}
    return rejections


def with_twins_rejected(expressions: Sequence[Any]) -> list[Any]:
    """Return a record's expressions, with boxes that equal a rejected one rejected, too."""
    # A picture may have a phrase twice with the same box. Who rejects one means both.
    rejections = rejections_in(expressions)
    if not rejections:
        return list(expressions)
    expressions_with_verdicts = []
    for expression in expressions:
        has_boxes = _is_readable(expression) and bool(expression.get("instances"))
        if has_boxes:
            boxes = _boxes_with_verdicts(expression, rejections)
            expressions_with_verdicts.append({**expression, "instances": boxes})
        else:
            expressions_with_verdicts.append(expression)
    return expressions_with_verdicts


def _boxes_with_verdicts(
    expression: Mapping[str, Any], rejections: Rejections
) -> list[dict[str, Any]]:
    boxes = []
    for box in expression["instances"]:
        verdict = rejections.get(_key_of(expression, box))
        was_reviewed = bool(_reviewer(expression, box))  # then it keeps its own verdict
        if verdict is None or was_reviewed:
            boxes.append(box)
        else:
            boxes.append({**box, **verdict})
    return boxes


def _key_of(expression: Mapping[str, Any], box: Mapping[str, Any]) -> _BoxKey:
    bbox = box.get("bbox")
    numbers = tuple(bbox) if isinstance(bbox, list) and is_box(bbox) else ()
    return class_key(str(expression.get("text", ""))), numbers


def _reviewer(expression: Mapping[str, Any], box: Mapping[str, Any]) -> Any:
    return box.get("reviewed_by") or expression.get("reviewed_by")


class WithoutRejected:
    """Leaves what a person rejected out of records, unless `keep`; counts its boxes in `boxes`."""

    def __init__(self, keep: bool = False) -> None:
        self.boxes = 0  # how many were left out
        self._keep = keep

    def __call__(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            yield record if self._keep else record.updated(self.of(record))

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a record that change when what was rejected is left out."""
        expressions = record.get("expressions")
        if self._keep or not isinstance(expressions, list):
            return {}
        expressions_left, missed = self._left_and_missed(with_twins_rejected(expressions))
        if expressions_left == expressions:
            return {}
        columns: dict[str, Any] = {"expressions": expressions_left}
        if len(expressions_left) < len(expressions):
            # What a dropped phrase means may be in the picture without a box: it is no background.
            columns["background"] = False
        if missed:
            columns[MISSED] = [*(record.get(MISSED) or ()), *missed]
        return columns

    def _left_and_missed(self, expressions: Iterable[Any]) -> tuple[list[Any], list[str]]:
        """Return what is left, and the phrases of things that a person saw without a box."""
        left: list[Any] = []
        missed: list[str] = []
        for expression in expressions:
            if not _is_readable(expression):
                left.append(expression)
                continue
            expression_left = self._without_rejected_boxes(expression)
            if expression_left is not None:
                left.append(expression_left)
            elif is_missed(expression):
                missed.append(str(expression.get("text", "")))
        return left, missed

    def _without_rejected_boxes(self, expression: dict[str, Any]) -> dict[str, Any] | None:
        """Return an expression with the boxes that are left; None if all of it is rejected."""
        boxes = expression.get("instances") or []
        boxes_left = not_rejected({**expression, "instances": boxes})
        if boxes_left is None:
            self.boxes += len(boxes)
            return None
        if len(boxes_left) == len(boxes):
            return expression
        self.boxes += len(boxes) - len(boxes_left)
        return {**expression, "instances": boxes_left}


def _is_readable(expression: Any) -> bool:
    """Whether it is a dict whose boxes, if any, are dicts; else it is reported when it is read."""
    if not isinstance(expression, dict):
        return False
    boxes = expression.get("instances")
    if boxes is None:
        return True
    return isinstance(boxes, list) and all(isinstance(box, dict) for box in boxes)

"""What a person rejected: it stays in results, and is left out of what is made of them.

A person's verdict is `verified: false` with `reviewed_by`, on a box or on its whole expression. A
box is an instance of an expression, a dict with its `bbox`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import JsonObject, Record, Update, is_box

MISSED = "missed"
"""The column with the phrases whose thing is there, as a person says, without a box."""

_BoxKey: TypeAlias = tuple[str, tuple[float, ...]]  # of a phrase, and a box


def not_rejected(expression: JsonObject) -> list[JsonObject] | None:
    """Return the boxes of an expression that no person rejected; None where all of it is."""
    boxes: list[JsonObject] = expression["instances"]
    # Once a box states `verified`, each box has its own verdict, and one without isn't rejected.
    if not any("verified" in box for box in boxes):
        return None if _is_rejected(expression) else boxes
    left = []
    for box in boxes:
        if box.get("verified") is not False or not _reviewer(expression, box):
            left.append(box)
    return left or None  # none is left where each was rejected by itself


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


def _is_rejected(item: JsonObject) -> bool:
    return item.get("verified") is False and bool(item.get("reviewed_by"))


def _is_missed(expression: JsonObject) -> bool:
    """Whether a person said that a thing marked absent is there, and nobody drew its box."""
    is_absent = expression.get("status") == "none" and not expression.get("instances")
    return is_absent and _is_rejected(expression)


def _with_twins_rejected(expressions: Sequence[Any]) -> Sequence[Any]:
    """Return a record's expressions, with boxes that equal a rejected one rejected, too."""
    # A picture may have a phrase twice with the same box. Who rejects one means both.
    reviewers: dict[_BoxKey, object] = {}  # of rejected boxes
    for expression in filter(_is_readable, expressions):
        for box in expression.get("instances") or ():
            verified = box["verified"] if "verified" in box else expression.get("verified")
            reviewer = _reviewer(expression, box)
            if verified is False and reviewer:
                reviewers[_key_of(expression, box)] = reviewer
    if not reviewers:
        return expressions
    with_verdicts = []
    for expression in expressions:
        boxes = []
        for box in (expression.get("instances") or ()) if _is_readable(expression) else ():
            reviewer = reviewers.get(_key_of(expression, box))
            if reviewer and not _reviewer(expression, box):  # else it keeps its own verdict
                box = {**box, "verified": False, "reviewed_by": reviewer}
            boxes.append(box)
        with_verdicts.append({**expression, "instances": boxes} if boxes else expression)
    return with_verdicts


def _key_of(expression: JsonObject, box: JsonObject) -> _BoxKey:
    bbox = box.get("bbox")
    numbers = tuple(bbox) if isinstance(bbox, list) and is_box(bbox) else ()
    return class_key(str(expression.get("text", ""))), numbers


def _reviewer(expression: JsonObject, box: JsonObject) -> object:
    return box.get("reviewed_by") or expression.get("reviewed_by")


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
        expressions = record.get("expressions")
        if self._keep or not isinstance(expressions, list):
            return {}
        left: list[JsonObject] = []
        missed: list[str] = []  # phrases of things that a person saw without a box
        for expression in _with_twins_rejected(expressions):
            if not _is_readable(expression):
                left.append(expression)
                continue
            boxes = expression.get("instances") or []
            boxes_left = not_rejected({**expression, "instances": boxes})
            self.boxes += len(boxes) - len(boxes_left or ())
            if boxes_left is None:
                if _is_missed(expression):
                    missed.append(str(expression.get("text", "")))
            elif len(boxes_left) == len(boxes):
                left.append(expression)
            else:
                left.append({**expression, "instances": boxes_left})
        if left == expressions:
            return {}
        columns: Update = {"expressions": left}
        if len(left) < len(expressions):
            # What a dropped phrase means may be in the picture without a box: it is no background.
            columns["background"] = False
        if missed:
            columns[MISSED] = [*(record.get(MISSED) or ()), *missed]
        return columns


def _is_readable(expression: object) -> bool:
    """Whether it is a dict whose boxes, if any, are dicts; else it is reported when it is read."""
    if not isinstance(expression, dict):
        return False
    boxes = expression.get("instances")
    if boxes is None:
        return True
    return isinstance(boxes, list) and all(isinstance(box, dict) for box in boxes)

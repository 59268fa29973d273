"""What a person found wrong: it stays in results, and is left out of what is made of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import Record, is_box

MISSED = "missed"
"""A record's column: phrases of things that a person says are there, and that have no box."""


def not_rejected(expression: Mapping[str, Any]) -> list[Any] | None:
    """The boxes of an expression that no person found wrong; None where nothing is left of it.

    Each box has a verdict of its own where a person gave one; without any, that of the expression
    is meant of all.

    Example:
        >>> box = {"bbox": [0, 0, 9, 9], "verified": False, "reviewed_by": "ann"}
        >>> not_rejected({"instances": [box, {"bbox": [5, 5, 9, 9]}]})
        [{'bbox': [5, 5, 9, 9]}]
    """
    boxes: list[Any] = expression["instances"]
    if any("verified" in box for box in boxes):
        kept = [box for box in boxes if not _is_rejected_in(expression, box)]
        return kept or None
    return None if _is_rejected(expression) else boxes


def _is_rejected(item: Mapping[str, Any]) -> bool:
    """Whether a person found an expression, or a box, wrong."""
    return item.get("verified") is False and bool(item.get("reviewed_by"))


def _is_rejected_in(expression: Mapping[str, Any], box: Mapping[str, Any]) -> bool:
    """Whether a person found a box wrong; one who judged its expression judged the box, too."""
    return box.get("verified") is False and bool(_reviewer(expression, box))


def is_missed(expression: Mapping[str, Any]) -> bool:
    """Whether a person says that a thing is there after all, and nobody drew its box.

    Example:
        >>> said = {"status": "none", "instances": [], "verified": False, "reviewed_by": "ann"}
        >>> is_missed(said), is_missed({**said, "verified": True})
        (True, False)
    """
    is_absent = expression.get("status") == "none" and not expression.get("instances")
    return is_absent and _is_rejected(expression)


_Thing: TypeAlias = tuple[str, tuple[float, ...]]
"""What is equal of two boxes of one thing: the phrase without case, and the numbers."""

Rejections: TypeAlias = dict[_Thing, dict[str, Any]]
"""The verdict on each box that a person rejected."""


def rejections_in(expressions: Sequence[Any]) -> Rejections:
    """Return the boxes of a record's expressions that a person rejected."""
    verdicts: Rejections = {}
    for expression in filter(_has_boxes, expressions):
        for box in expression.get("instances") or ():
            verdict_of = box if "verified" in box else expression
            if verdict_of.get("verified") is False and _reviewer(expression, box):
                reviewer = _reviewer(expression, box)
                verdicts[_thing(expression, box)] = {"verified": False, "reviewed_by": reviewer}
    return verdicts


def twins_rejected(expressions: Sequence[Any], others: Rejections | None = None) -> list[Any]:
    """Return a record's expressions, where boxes equal to a rejected one are rejected with it.

    Several rows of a caption may hold a phrase twice, with one box; a person who rejects it once
    means both. Phrases are compared without case. What a person judged for itself stays. `others`
    are the rejections in further rows of the picture.
    """
    verdicts = {**(others or {}), **rejections_in(expressions)}
    if not verdicts:
        return list(expressions)
    judged = []
    for expression in expressions:
        if _has_boxes(expression) and expression.get("instances"):
            boxes = []
            for box in expression["instances"]:
                verdict = verdicts.get(_thing(expression, box))
                is_twin = verdict is not None and not _reviewer(expression, box)
                boxes.append({**box, **verdict} if is_twin and verdict else box)
            expression = {**expression, "instances": boxes}
        judged.append(expression)
    return judged


def _thing(expression: Mapping[str, Any], box: Mapping[str, Any]) -> _Thing:
    bbox = box.get("bbox")
    numbers = tuple(bbox) if isinstance(bbox, list) and is_box(bbox) else ()
    return class_key(str(expression.get("text", ""))), numbers


def _reviewer(expression: Mapping[str, Any], box: Mapping[str, Any]) -> Any:
    """The person who judged a box, for itself or with its expression; None without one."""
    return box.get("reviewed_by") or expression.get("reviewed_by")


class WithoutRejected:
    """Records without what a person rejected; `boxes` counts what was left out.

    A phrase that loses all of its boxes so is left out, which doesn't make it one that isn't there:
    its record gets `background: false`, so that no detector learns its picture as empty. Where a
    person says that the thing of a phrase without boxes is there, `missed` has the phrase.
    """

    def __init__(self, keep: bool = False) -> None:
        self.boxes = 0
        self._keep = keep

    def __call__(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, in their order; the same ones where they are to be kept as they are."""
        for record in records:
            yield record if self._keep else record.updated(self.of(record))

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a record that are others without what was rejected."""
        expressions = record.get("expressions")
        if self._keep or not isinstance(expressions, list):
            return {}
        kept_expressions = []
        missed = []
        for expression in twins_rejected(expressions):
            if not _has_boxes(expression):
                kept_expressions.append(expression)
                continue
            boxes = expression.get("instances")
            kept = not_rejected({**expression, "instances": boxes or []})
            self.boxes += len(boxes or ()) - len(kept or ())
            if kept is None:
                if is_missed(expression):
                    missed.append(str(expression.get("text", "")))
                continue
            if boxes is not None and len(kept) < len(boxes):
                expression = {**expression, "instances": kept}
            kept_expressions.append(expression)
        if kept_expressions == expressions:
            return {}
        columns: dict[str, Any] = {"expressions": kept_expressions}
        if len(kept_expressions) < len(expressions):
            columns["background"] = False
        if missed:
            columns[MISSED] = missed
        return columns


def _has_boxes(expression: Any) -> bool:
    """Whether it is an expression whose boxes, if it has any, are objects; else others tell."""
    if not isinstance(expression, dict):
        return False
    boxes = expression.get("instances")
    if boxes is None:
        return True
    return isinstance(boxes, list) and all(isinstance(box, dict) for box in boxes)

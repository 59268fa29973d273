"""Which expressions of a data set are wanted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.records import STATUSES


@dataclass(frozen=True)
class Selection:
    """What is asked of an expression, and of each of its boxes.

    Args:
        min_score: Boxes with a lower score are left out, and those without a score, of which nothing is known. An
            expression that loses all of its boxes so is left out: that doesn't make it one that isn't there.
        verified_only: Expressions that a check confirmed (`verified: true`).
        reviewed_only: Expressions that a person looked at (`reviewed_by`, of the expression or its record).
        statuses: Of `records.STATUSES`.

    Example:
        >>> both = {"instances": [{"bbox": [0, 0, 9, 9], "score": 0.9}, {"bbox": [5, 5, 9, 9], "score": 0.2}]}
        >>> [box["score"] for box in Selection(min_score=0.5).of({}, both)["instances"]]
        [0.9]
    """

    min_score: float | None = None
    verified_only: bool = False
    reviewed_only: bool = False
    statuses: tuple[str, ...] = STATUSES

    def of(self, record: Mapping[str, Any], expression: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The expression with the boxes that are wanted; None where it isn't."""
        if status_of(expression) not in self.statuses:
            return None
        if self.verified_only and expression.get("verified") is not True:
            return None
        if self.reviewed_only and not (expression.get("reviewed_by") or record.get("reviewed_by")):
            return None
        boxes = expression["instances"]
        if self.min_score is None or not boxes:
            return expression
        kept = [box for box in boxes if box.get("score") is not None and box["score"] >= self.min_score]
        return {**expression, "instances": kept} if kept else None


def status_of(expression: Mapping[str, Any]) -> str:
    """The expression's status; where none is stated, `grounded` with boxes, else `pending`: not looked for yet."""
    return str(expression.get("status") or ("grounded" if expression.get("instances") else "pending"))

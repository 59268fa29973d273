"""What reviewers made of an expression."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.evaluation.metrics.annotations import is_span

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
    who: str = ""  # who decided last

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


def is_place_of(text: str, span: Any, caption: str) -> bool:
    return is_span(span, len(caption)) and caption[slice(*span)] == text

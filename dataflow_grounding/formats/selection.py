"""Which expressions and boxes of records are wanted in an export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import STATUSES


@dataclass(frozen=True)
class Selection:
    """What is asked of an expression, and of each of its boxes.

    An expression that loses all of its boxes is left out: that doesn't mean that nothing is there.

    Example:
        >>> sure = Instance((0, 0, 9, 9), score=0.9)
        >>> unsure = Instance((5, 5, 9, 9), score=0.2)
        >>> both = Expression("a cat", instances=[sure, unsure])
        >>> [box.score for box in Selection(min_score=0.5).of(both).instances]
        [0.9]
    """

    min_score: float | None = None  # boxes with a lower score or none are left out
    min_scores: Mapping[str, float] = field(default_factory=dict)  # other lowest ones, by class
    # Boxes that a check or a person confirmed (`verified: true`). For a box that states nothing,
    # and an expression without boxes, the expression's `verified` counts.
    verified_only: bool = False
    keep_rejected: bool = False  # also boxes that a person found wrong
    # Also pictures of which a detector would learn something as background that may be there: a
    # class that is undecided, a box that a person missed, and with `verified_only` other boxes.
    partly_verified: bool = False
    # classes of `min_scores` of which no expression came
    unmet: set[str] = field(default_factory=set, init=False, compare=False)
    _by_key: dict[str, float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, score in self.min_scores.items():
            self._by_key[class_key(name)] = score
        self.unmet.update(self._by_key)

    def _lowest_score(self, expression: Expression) -> float | None:
        """Return that of the expression's class, which is taken out of `unmet`."""
        if not self._by_key:
            return self.min_score
        key = class_key(expression.stated_class or expression.text)
        self.unmet.discard(key)
        return self._by_key.get(key, self.min_score)

    def of(self, expression: Expression) -> Expression | None:
        """Return the expression with the wanted boxes; None if it isn't wanted, or loses all."""
        if expression.shown_status not in STATUSES:
            return None
        boxes = expression.instances
        # None -> nothing of the expression is wanted
        # []   -> it never had boxes, and is wanted for what it says: that the thing isn't there
        wanted_boxes: list[Instance] | None = boxes
        if self.verified_only:
            wanted_boxes = verified_boxes(expression, boxes)
        if wanted_boxes is None:
            return None
        lowest = self._lowest_score(expression)
        if lowest is not None:
            wanted_boxes = [
                box for box in wanted_boxes if box.score is not None and box.score >= lowest
            ]
        if len(wanted_boxes) == len(boxes):  # all boxes are wanted, or it never had any
            return expression
        if not wanted_boxes:  # it has lost all of them
            return None
        selected = expression.copy()
        selected.instances = wanted_boxes
        return selected


def verified_boxes(expression: Expression, boxes: Sequence[Instance]) -> list[Instance] | None:
    """Return the verified boxes; [] if an absence is verified, None if nothing of it is."""
    verified = []
    for box in boxes:
        verdict = box.verified if box.states_verdict else expression.verified
        if verdict is True:
            verified.append(box)
    is_confirmed_absent = not expression.instances and expression.verified is True
    if verified or is_confirmed_absent:
        return verified
    return None

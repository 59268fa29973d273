"""`verification` of an expression: what a check said of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Verification:
    """What a check said of an expression, the same fields for every check.

    Attributes:
        method: `check`, of a judge who looked at its boxes (BoxChecker), or `ask`, of a model that
            was asked whether its text means its regions (DoubleChecker).
        reason: Why the verdict isn't a plain yes, in words; None for no reason.
        there: Whether the judge sees such a thing; None where it can't tell, or wasn't asked.
        count: How many such things the judge sees.
        boxes: Each box that the judge was asked about, with its answers; None without a judge.
        score: How sure the judge is of all of them, from 0 to 1.
        region_ids: The regions that its text fits, from 1, where it was meant for one of them.
        before: Its `text` and `region_ids` before a double check changed them, and `instances`
            where a box was of no region.
    """

    method: str
    reason: str | None = None
    there: bool | None = None
    count: int | None = None
    boxes: list[Mapping[str, object]] | None = None
    score: float | None = None
    region_ids: list[int] | None = None
    before: Mapping[str, object] | None = None

    def to_json(self) -> dict[str, object]:
        """Return it as a row has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "Verification | None":
        """Read the verification of a row; None for what is none.

        A field whose value is of another type is None: a file may hold anything.
        """
        if not isinstance(value, dict) or not value:
            return None
        method, reason = value.get("method"), value.get("reason")
        there, count = value.get("there"), value.get("count")
        boxes, score = value.get("boxes"), value.get("score")
        region_ids, before = value.get("region_ids"), value.get("before")
        return cls(
            method=method if isinstance(method, str) else "",
            reason=reason if isinstance(reason, str) else None,
            there=there if isinstance(there, bool) else None,
            count=count if type(count) is int else None,
            boxes=boxes if isinstance(boxes, list) else None,
            score=score if isinstance(score, (int, float)) else None,
            region_ids=region_ids if isinstance(region_ids, list) else None,
            before=before if isinstance(before, dict) else None,
        )

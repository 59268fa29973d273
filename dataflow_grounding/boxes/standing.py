"""Which regions expressions stand on when they are checked, and what a check writes into them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.boxes.regions import instances_on, places_of
from dataflow_grounding.boxes.verdicts import Verdict
from dataflow_grounding.errors import RecordError

OF_AN_EARLIER_TEXT = ("noun_chunk", "caption_span")


@dataclass(frozen=True)
class Standing:
    """Each expression with boxes by number, its places among `regions`, of which the first `known` are the record's."""

    verdicts: dict[int, Verdict]
    regions: list[Mapping[str, Any]]
    known: int

    def entered(
        self, number: int, expression: dict[str, Any], result: Verdict | RecordError, method: str
    ) -> dict[str, Any]:
        """The expression of this number with what the check by `method` says."""
        if isinstance(result, RecordError):
            verification: dict[str, Any] = {"method": method, "iou": None, "reason": "not checked"}
            return {**expression, "verified": None, "verification": verification}
        verification = {"method": method, "iou": result.iou, "reason": result.reason or None}
        if result.kind in ("matches", "wrong", "unknown"):
            verified = {"matches": True, "wrong": False}.get(result.kind)
            return {**expression, "verified": verified, "verification": verification}
        before = self.verdicts[number]
        verification["before"] = {"text": before.text, "region_ids": [place + 1 for place in before.places]}
        if result.kind == "several":
            verification["region_ids"] = [place + 1 for place in result.places]
            unclear = {"instances": [], "status": "ambiguous", "verified": False, "verification": verification}
            return {**expression, **unclear}
        instances = expression["instances"]
        if result.places != before.places:
            instances = instances_on(result.places, self.regions, expression["expression_id"], self.known)
        mended = {"text": result.text, "instances": instances, "status": "grounded", "verified": True}
        stale = OF_AN_EARLIER_TEXT if result.text != before.text else ()
        kept = {name: value for name, value in expression.items() if name not in stale}
        return {**kept, **mended, "verification": verification}


def standing_of(expressions: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]) -> Standing:
    """What the expressions with boxes stand on."""
    boxes = list(regions)
    verdicts = {}
    for number, expression in enumerate(expressions):
        instances = expression["instances"]
        for instance in instances:
            if places_of([instance], boxes) is None:
                boxes.append({"bbox": instance["bbox"], "type": ""})
        if instances:
            verdicts[number] = Verdict("unknown", expression["text"], places_of(instances, boxes) or [])
    return Standing(verdicts, boxes, len(regions))

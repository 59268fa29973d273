"""What a check says of an expression, from one judgement or two, and what it writes into it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import Bbox, box_of, iou
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.boxes.regions import instances_on, places_of
from dataflow_grounding.tasks.phrase_grounding import Found
from dataflow_grounding.tasks.regions import Check

Kind: TypeAlias = Literal["matches", "mended", "several", "wrong", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What stands after a check: `text` on the regions at `places` (from 0).

    `matches`: as it was. `mended`: its text or its regions were corrected. `several`: it is meant
    for one region and fits all of `places`. `wrong`: it doesn't match, and nothing better is known.
    `unknown`: the check could not tell.
    """

    kind: Kind
    text: str
    places: list[int]
    reason: str = ""
    iou: float | None = None


def judged(check: Check, text: str, places: list[int]) -> Verdict:
    """The verdict of a model that was asked."""
    same_text = not check.text or _fold(check.text) == _fold(text)
    if (
        same_text
        and len(places) == 1 < len(check.places)
        and (not check.matches or places[0] in check.places)
    ):
        return Verdict("several", text, check.places, check.reason)
    if check.matches is None or check.matches:
        return Verdict(
            "unknown" if check.matches is None else "matches", text, places, check.reason
        )
    if not same_text or (check.places and set(check.places) != set(places)):
        return Verdict("mended", check.text or text, check.places or places, check.reason)
    return Verdict("wrong", text, places, check.reason)


def regrounded(
    found: Found, text: str, places: list[int], boxes: Sequence[Bbox], threshold: float
) -> Verdict:
    """The verdict of grounding `text` afresh, against the `boxes` of all regions."""
    if found.status in ("ambiguous", "unsupported"):
        return Verdict("unknown", text, places, found.reason or found.status)
    again = [box_of(instance["bbox"]) for instance in found.instances]
    own, rest = _found_on(places, again, boxes, threshold)
    if len(own) == len(places) and not rest:
        return Verdict("matches", text, places, "", _mean(own.values()))
    others, stray = _found_on(
        [place for place in range(len(boxes)) if place not in own], rest, boxes, threshold
    )
    if again and not stray:
        at = sorted([*own, *others])
        kind: Kind = "several" if len(places) == 1 < len(at) else "mended"
        overlap = _mean([*own.values(), *others.values()])
        return Verdict(kind, text, at, f"grounded afresh, it is found at {_regions(at)}", overlap)
    best = _mean([max((iou(boxes[place], box) for box in again), default=0.0) for place in places])
    more = f"{len(stray)} of {len(again)} boxes are on no region" if again else "nothing is found"
    return Verdict("wrong", text, places, f"grounded afresh, {more}", best)


def _found_on(
    places: Sequence[int], again: Sequence[Bbox], boxes: Sequence[Bbox], threshold: float
) -> tuple[dict[int, float], list[Bbox]]:
    """On which of the regions at `places` boxes lie (place → IoU), and the boxes that lie on none
    of them.
    """
    matched = match_boxes(again, [boxes[place] for place in places], threshold, most=True)
    used = {which for which, _ in matched.values()}
    rest = [box for which, box in enumerate(again) if which not in used]
    return {places[n]: overlap for n, (_, overlap) in matched.items()}, rest


def combined(asked: Verdict, again: Verdict, before: Verdict) -> Verdict:
    """Both judgements, mended only where they agree; `again` is of what `asked` left, `before` of
    what stood first.
    """
    several = next((verdict for verdict in (asked, again) if verdict.kind == "several"), None)
    if several is not None:
        return replace(several, text=before.text)
    if again.kind == "unknown":
        return asked
    if asked.kind == "unknown":
        return again
    if asked.kind in ("matches", "mended") and again.kind == "matches":
        return replace(asked, iou=again.iou)
    if asked.kind == "wrong" and again.kind == "mended":
        return replace(again, reason=_joined(asked, again))
    if asked.kind == "wrong" and again.kind == "wrong":
        return replace(asked, reason=_joined(asked, again), iou=again.iou)
    said = "right" if asked.kind == "matches" else "wrong"
    seen = f"at {_regions(again.places)}" if again.kind in ("matches", "mended") else "nowhere else"
    disagree = f"the two checks disagree: asked, it is {said}; grounded afresh, it is found {seen}"
    return Verdict("wrong", before.text, before.places, disagree, again.iou)


def _joined(*verdicts: Verdict) -> str:
    return "; ".join(verdict.reason for verdict in verdicts if verdict.reason)


def _regions(places: Sequence[int]) -> str:
    return f"region{'s' * (len(places) != 1)} {', '.join(str(place + 1) for place in places)}"


def _mean(values: Collection[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


OF_AN_EARLIER_TEXT = ("noun_chunk", "caption_span")


@dataclass(frozen=True)
class Standing:
    """Each expression with boxes by number, its places among `regions`, of which the first `known`
    are the record's.
    """

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
        verification["before"] = {
            "text": before.text,
            "region_ids": [place + 1 for place in before.places],
        }
        if result.kind == "several":
            verification["region_ids"] = [place + 1 for place in result.places]
            unclear = {
                "instances": [],
                "status": "ambiguous",
                "verified": False,
                "verification": verification,
            }
            return {**expression, **unclear}
        instances = expression["instances"]
        if result.places != before.places:
            instances = instances_on(
                result.places, self.regions, expression["expression_id"], self.known
            )
        mended = {
            "text": result.text,
            "instances": instances,
            "status": "grounded",
            "verified": True,
        }
        stale = OF_AN_EARLIER_TEXT if result.text != before.text else ()
        kept = {name: value for name, value in expression.items() if name not in stale}
        return {**kept, **mended, "verification": verification}


def standing_of(
    expressions: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]
) -> Standing:
    """What the expressions with boxes stand on."""
    boxes = list(regions)
    verdicts = {}
    for number, expression in enumerate(expressions):
        instances = expression["instances"]
        for instance in instances:
            if places_of([instance], boxes) is None:
                boxes.append({"bbox": instance["bbox"], "type": ""})
        if instances:
            verdicts[number] = Verdict(
                "unknown", expression["text"], places_of(instances, boxes) or []
            )
    return Standing(verdicts, boxes, len(regions))

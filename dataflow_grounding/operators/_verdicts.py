"""What a check says of an expression, from one judgement or two, and what it writes into it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import Bbox, iou
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.boxes.regions import instances_on, places_of
from dataflow_grounding.operators._expressions import boxes_of
from dataflow_grounding.tasks.grounding import Found
from dataflow_grounding.tasks.region_tasks import Check, Merged

Kind: TypeAlias = Literal["matches", "mended", "several", "wrong", "unknown"]
"""What a check finds of an expression; Verdict says what each means."""


@dataclass(frozen=True)
class Verdict:
    """What a check says of an expression.

    Attributes:
        kind: `matches`: it is right as it was. `mended`: its text or its regions were corrected.
            `several`: it is meant for one region and fits all of `places`. `wrong`: it doesn't
            match, and nothing better is known. `unknown`: the check could not tell.
        text: The expression's text after the check.
        places: The places, from 0, of the regions that it names after the check.
        reason: Why the check says so.
        iou: How well its regions and the boxes of grounding it again overlap on average; None
            where it wasn't grounded again.
    """

    kind: Kind
    text: str
    places: list[int]
    reason: str = ""
    iou: float | None = None


Result: TypeAlias = Verdict | RecordError
"""The verdict on an expression, or why there is none."""


def verdict_of_check(check: Check, text: str, places: list[int]) -> Verdict:
    """Return the verdict on an expression from a model that was asked whether it is right.

    If the model gives no text or no regions, those of the expression stay. The kind is

    - `several` if the expression names one region, and the model keeps its words but names several
      regions. If it calls the expression right and names other regions than its own, it contradicts
      itself: then the kind isn't `several`;
    - `unknown` if the model doesn't say whether it is right, and `matches` if it says so;
    - `mended` if it says no and gives other words or regions, `wrong` if it gives neither.

    Args:
        check: The model's answer.
        text: The text of the expression that it was asked about.
        places: The places, from 0, of the regions that the expression names.
    """
    same_text = not check.text or _fold(check.text) == _fold(text)
    fits_several = same_text and len(places) == 1 and len(check.places) > 1
    contradicts_itself = check.matches and set(places).isdisjoint(check.places)
    if fits_several and not contradicts_itself:
        return Verdict("several", text, check.places, check.reason)
    if check.matches is None:
        return Verdict("unknown", text, places, check.reason)
    if check.matches:
        return Verdict("matches", text, places, check.reason)
    if not same_text or (check.places and set(check.places) != set(places)):
        return Verdict("mended", check.text or text, check.places or places, check.reason)
    return Verdict("wrong", text, places, check.reason)


def verdict_of_regrounding(
    answer: Found, text: str, places: list[int], regions: Sequence[Bbox], threshold: float
) -> Verdict:
    """Return the verdict on an expression from grounding its text again.

    Boxes are matched with regions one to one, with the expression's own ones first. The kind is

    - `unknown` where the answer is `ambiguous` or `unsupported`;
    - `matches` if each of its regions has a box, and each box is on one of these;
    - `mended` if all boxes are on regions, but not just on its own: it should name the regions with
      a box. It is `several` instead if it named one region and the boxes are on several;
    - `wrong` if nothing is found, or a box is on no region.

    Args:
        answer: What was found for the text.
        text: The expression's text.
        places: The places, from 0, of the regions that the expression names.
        regions: The boxes of all regions.
        threshold: Least IoU of a box and the region that it shows.
    """
    if answer.status in ("ambiguous", "unsupported"):
        return Verdict("unknown", text, places, answer.reason or answer.status)
    boxes = boxes_of(answer.instances)
    own_overlaps, not_on_own = _match_regions(boxes, places, regions, threshold)
    if len(own_overlaps) == len(places) and not not_on_own:
        return Verdict("matches", text, places, "", _mean(own_overlaps.values()))
    other_places = [place for place in range(len(regions)) if place not in own_overlaps]
    other_overlaps, stray = _match_regions(not_on_own, other_places, regions, threshold)
    if boxes and not stray:
        overlaps = {**own_overlaps, **other_overlaps}
        new_places = sorted(overlaps)
        kind: Kind = "mended"
        if len(places) == 1 and len(new_places) > 1:
            kind = "several"
        reason = f"grounded again, it is found at {_region_numbers(new_places)}"
        return Verdict(kind, text, new_places, reason, _mean(overlaps.values()))
    reason = "nothing is found"
    if boxes:
        reason = f"{len(stray)} of {len(boxes)} boxes are on no region"
    best_overlaps: list[float] = []
    for place in places:
        overlaps_here = [iou(regions[place], box) for box in boxes]
        best_overlaps.append(max(overlaps_here, default=0.0))
    return Verdict("wrong", text, places, f"grounded again, {reason}", _mean(best_overlaps))


def _match_regions(
    boxes: Sequence[Bbox], places: Sequence[int], regions: Sequence[Bbox], threshold: float
) -> tuple[dict[int, float], list[Bbox]]:
    # Return the IoU of each region that has a box on it, by the region's place, and the boxes that
    # are on none of the regions at these places.
    candidates = [regions[place] for place in places]
    overlaps: dict[int, float] = {}
    matched: set[int] = set()
    matches = match_boxes(boxes, candidates, threshold, most=True)
    for candidate, (box_number, overlap) in matches.items():
        overlaps[places[candidate]] = overlap
        matched.add(box_number)
    stray = [box for number, box in enumerate(boxes) if number not in matched]
    return overlaps, stray


def combine_verdicts(by_asking: Verdict, by_grounding: Verdict, before: Verdict) -> Verdict:
    """Return one verdict from two checks, which corrects the expression only if both agree.

    If either says `several`, so does the verdict, with the text as it was before. Otherwise, if one
    can't tell, the other counts. They agree if grounding finds the regions that the model calls
    right or has corrected the expression to. They also agree if the model calls the expression
    wrong without a correction, and grounding finds other regions (`mended`) or none (`wrong`). If
    they disagree, the verdict is `wrong`, with text and regions as they were before both.

    Args:
        by_asking: What the model said when it was asked.
        by_grounding: What grounding the expression again said, in the words and with the regions
            that `by_asking` has.
        before: The expression as it was before both.
    """
    for verdict in (by_asking, by_grounding):
        if verdict.kind == "several":
            return replace(verdict, text=before.text)
    if by_grounding.kind == "unknown":
        return by_asking
    if by_asking.kind == "unknown":
        return by_grounding
    if by_asking.kind in ("matches", "mended") and by_grounding.kind == "matches":
        return replace(by_asking, iou=by_grounding.iou)
    if by_asking.kind == "wrong" and by_grounding.kind == "mended":
        return replace(by_grounding, reason=_join_reasons(by_asking, by_grounding))
    if by_asking.kind == "wrong" and by_grounding.kind == "wrong":
        reason = _join_reasons(by_asking, by_grounding)
        return replace(by_asking, reason=reason, iou=by_grounding.iou)
    answer = "right" if by_asking.kind == "matches" else "wrong"
    where = "nowhere else"
    if by_grounding.kind in ("matches", "mended"):
        where = f"at {_region_numbers(by_grounding.places)}"
    reason = f"the two checks disagree: asked, it is {answer}; grounded again, it is found {where}"
    return Verdict("wrong", before.text, before.places, reason, by_grounding.iou)


def _join_reasons(*verdicts: Verdict) -> str:
    return "; ".join(verdict.reason for verdict in verdicts if verdict.reason)


def _region_numbers(places: Sequence[int]) -> str:
    numbers = ", ".join(map(str, _region_ids(places)))
    return f"region {numbers}" if len(places) == 1 else f"regions {numbers}"


def _region_ids(places: Sequence[int]) -> list[int]:
    return [place + 1 for place in places]


def _mean(values: Collection[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


OF_AN_EARLIER_TEXT = ("noun_chunk", "caption_span")
"""The fields of an expression that are wrong once its text has changed."""


@dataclass(frozen=True)
class AskedTogether:
    """Some expressions, and the regions that one request about them shows.

    Attributes:
        before: The expressions before the check, as verdicts.
        places: The places of the regions that are shown, in order.
        regions: These regions.
    """

    before: list[Verdict]
    places: list[int]
    regions: list[Mapping[str, Any]]

    @property
    def expressions(self) -> list[Merged]:
        """The expressions as the request has them: it counts the regions that it shows, from 0."""
        as_shown = {place: number for number, place in enumerate(self.places)}
        return [
            Merged(verdict.text, [as_shown[place] for place in verdict.places])
            for verdict in self.before
        ]

    def verdicts(self, checks: Sequence[Check]) -> list[Verdict]:
        """Return the verdict on each expression from the model's answer about it."""
        verdicts = []
        for check, before in zip(checks, self.before, strict=True):
            check = check._replace(places=[self.places[place] for place in check.places])
            verdicts.append(verdict_of_check(check, before.text, before.places))
        return verdicts


@dataclass(frozen=True)
class ExpressionsToCheck:
    """The expressions of a record that have boxes, and the regions that they name.

    Attributes:
        verdicts: The number of an expression in the record, from 0 → its text and regions before
            the check, as a verdict of kind `unknown`.
        regions: The record's regions, and after them a region for each box of an expression that
            is on none of these.
        known: How many of `regions`, from the first on, are the record's.
    """

    verdicts: dict[int, Verdict]
    regions: list[Mapping[str, Any]]
    known: int

    def asked_together(self, numbers: Sequence[int], near: Collection[int]) -> AskedTogether:
        """Return the expressions with these numbers, to be asked about in one request.

        It shows the regions at the places `near`, and those that the expressions name.
        """
        before = [self.verdicts[number] for number in numbers]
        all_places = set(near)
        for verdict in before:
            all_places.update(verdict.places)
        places = sorted(all_places)
        return AskedTogether(before, places, [self.regions[place] for place in places])

    def to_ground(self, by_asking: Mapping[int, Result]) -> dict[int, Verdict]:
        """Return, by number, the text of each expression to be grounded again.

        It has the words and the regions that `by_asking` has; one that fits several regions has
        its own, and one that could not be asked about is left out.
        """
        texts: dict[int, Verdict] = {}
        for number, result in by_asking.items():
            if isinstance(result, Verdict):
                texts[number] = self.verdicts[number] if result.kind == "several" else result
        return texts

    def found_at(self, verdict: Verdict, answer: Found | RecordError, threshold: float) -> Result:
        """Return the verdict on an expression that was grounded again, or its error.

        Boxes are those of regions from an IoU of `threshold` on.
        """
        if isinstance(answer, RecordError):
            return answer
        boxes = boxes_of(self.regions)
        return verdict_of_regrounding(answer, verdict.text, verdict.places, boxes, threshold)

    def checked(
        self, expressions: list[dict[str, Any]], results: Mapping[int, Result], method: str
    ) -> list[dict[str, Any]]:
        """Return all expressions of the record, those with a result as their check says.

        `method` is how they were checked, as DoubleChecker's.
        """
        checked = []
        for number, expression in enumerate(expressions):
            if number in results:
                expression = self._with_result(number, expression, results[number], method)
            checked.append(expression)
        return checked

    def _with_result(
        self, number: int, expression: dict[str, Any], result: Result, method: str
    ) -> dict[str, Any]:
        # `verified` is None without a verdict, or with an unknown one; True where the expression
        # matches, or has been corrected here; False where it is wrong, or fits several regions, and
        # so becomes `ambiguous`, without instances. The verification's `before` has the text and
        # regions of an expression that was changed.
        if isinstance(result, RecordError):
            verification: dict[str, Any] = {"method": method, "iou": None, "reason": "not checked"}
            return {**expression, "verified": None, "verification": verification}
        verification = {"method": method, "iou": result.iou, "reason": result.reason or None}
        if result.kind in ("matches", "wrong", "unknown"):
            verified: bool | None = None
            if result.kind != "unknown":
                verified = result.kind == "matches"
            return {**expression, "verified": verified, "verification": verification}
        before = self.verdicts[number]
        verification["before"] = {
            "text": before.text,
            "region_ids": _region_ids(before.places),
        }
        if result.kind == "several":
            verification["region_ids"] = _region_ids(result.places)
            return {
                **expression,
                "instances": [],
                "status": "ambiguous",
                "verified": False,
                "verification": verification,
            }
        mended = self._mended(expression, result, before)
        return {**mended, "status": "grounded", "verified": True, "verification": verification}

    def _mended(
        self, expression: dict[str, Any], result: Verdict, before: Verdict
    ) -> dict[str, Any]:
        mended = dict(expression)
        if result.text != before.text:
            for name in OF_AN_EARLIER_TEXT:
                mended.pop(name, None)
        mended["text"] = result.text
        if result.places != before.places:
            mended["instances"] = instances_on(
                result.places, self.regions, expression["expression_id"], self.known
            )
        return mended


def expressions_to_check(
    expressions: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]
) -> ExpressionsToCheck:
    """Return the expressions that have boxes, with the regions that the boxes are of.

    A box belongs to a region with the very same numbers. Other boxes are added after the record's
    regions, as regions without a type.

    Args:
        expressions: All expressions of the record; those without boxes are left out.
        regions: The record's regions.
    """
    all_regions = list(regions)
    verdicts: dict[int, Verdict] = {}
    for number, expression in enumerate(expressions):
        instances = expression["instances"]
        if not instances:
            continue
        for instance in instances:
            if places_of([instance], all_regions) is None:
                all_regions.append({"bbox": instance["bbox"], "type": ""})
        places = places_of(instances, all_regions) or []
        verdicts[number] = Verdict("unknown", expression["text"], places)
    return ExpressionsToCheck(verdicts, all_regions, len(regions))

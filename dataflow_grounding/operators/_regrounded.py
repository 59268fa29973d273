"""What grounding expressions again says of them, next to what DoubleChecker has said.

To ground an expression is to ask a model where it is. DoubleChecker has asked another question
before: whether the text fits the boxes. What it found is read back from the record. Names here call
that `asking`, and the second check `grounding`.

A place is the index of a region among those of `ExpressionsToCheck`, from 0; the `region_ids` in a
file count from 1. A number is the index of an expression in its record.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import Bbox, Size, iou
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.boxes.regions import instances_on, places_of
from dataflow_grounding.data.records import is_box
from dataflow_grounding.operators._expressions import boxes_of, within_image
from dataflow_grounding.operators._nearness import near_groups
from dataflow_grounding.operators._verdicts import (
    ASKED,
    NOT_CHECKED,
    ExpressionsToCheck,
    Kind,
    Result,
    Verdict,
    expressions_to_check,
    region_ids,
)
from dataflow_grounding.tasks.grounding import Found


@dataclass(frozen=True)
class Regrounding:
    """The expressions of a record that are grounded again, and what DoubleChecker said of them."""

    to_check: ExpressionsToCheck
    asked: dict[int, Verdict]  # what it said, by the expression's number

    def texts(self, at_once: int) -> list[str]:
        """Return the texts to ground again; a request will ask about `at_once` of them."""
        verdicts = self._verdicts_in_question()
        if not self.asked:
            return [verdict.text for verdict in verdicts.values()]
        # Texts of regions near each other come one after the other.
        group_of_place: dict[int, int] = {}
        for group, places in enumerate(near_groups(boxes_of(self.to_check.regions), at_once)):
            group_of_place |= dict.fromkeys(places, group)

        def group_of_expression(number: int) -> int:
            # DoubleChecker grouped an expression by the first region that it named then.
            first_place = self.to_check.before[number].places[0]
            return group_of_place[first_place]

        numbers_in_order = sorted(verdicts, key=group_of_expression)
        return [verdicts[number].text for number in numbers_in_order]

    def results(
        self, answers: Mapping[str, Found | RecordError], threshold: float
    ) -> dict[int, Result]:
        """Return what both checks say of each expression, by number, or why grounding it failed."""
        # A box that is found counts as on a region from an IoU of `threshold`.
        regions = boxes_of(self.to_check.regions)
        # Expressions that aren't grounded again keep the verdict that DoubleChecker had.
        results: dict[int, Result] = {**self.asked}
        for number, now in self._verdicts_in_question().items():
            answer = answers[now.text]
            if isinstance(answer, RecordError):
                results[number] = answer
                continue
            by_grounding = verdict_of_regrounding(answer, now.text, now.places, regions, threshold)
            by_asking = self.asked.get(number)
            if by_asking is None:
                results[number] = by_grounding
            else:
                before = self.to_check.before[number]
                results[number] = combine_verdicts(by_asking, by_grounding, before)
        return results

    def _verdicts_in_question(self) -> dict[int, Verdict]:
        """Return those of the expressions to ground again, by number."""
        verdicts = {}
        for number, verdict in self.to_check.verdicts.items():
            by_asking = self.asked.get(number)
            # One that fits several regions has no boxes any more to compare an answer with.
            lost_its_boxes = by_asking is not None and by_asking.kind == "several"
            if not lost_its_boxes:
                verdicts[number] = verdict
        return verdicts

    def checked(
        self, expressions: list[dict[str, Any]], results: Mapping[int, Result], size: Size
    ) -> list[dict[str, Any]]:
        """Return all expressions, those with a result with `verified` and `verification`."""
        # The method is `both` for those that DoubleChecker was asked about, else `reground`.
        of_both: dict[int, Result] = {}
        of_grounding_alone: dict[int, Result] = {}
        for number, result in results.items():
            if number in self.asked:
                of_both[number] = result
            else:
                of_grounding_alone[number] = result
        checked = self.to_check.checked(expressions, of_both, "both", size)
        return self.to_check.checked(checked, of_grounding_alone, "reground", size)


def regrounding_of(
    expressions: Sequence[dict[str, Any]], regions: Sequence[Mapping[str, Any]], size: Size
) -> Regrounding:
    """Return what is to be grounded again of a record's expressions: those that had boxes."""
    before = [_before_asking(expression, regions) for expression in expressions]
    to_check = expressions_to_check(before, regions)
    now_by_number: dict[int, Verdict] = {}
    asked_by_number: dict[int, Verdict] = {}
    for number, expression in enumerate(expressions):
        said = _said_by_asking(expression)
        had_boxes = number in to_check.before  # before DoubleChecker
        got_no_answer = said.get("reason") == NOT_CHECKED
        if not had_boxes or got_no_answer:
            continue
        # [] where a box is on none of the regions, or where there are no boxes: DoubleChecker takes
        # them away if the expression fits several regions.
        places = places_of(expression["instances"], to_check.regions) or []
        now = Verdict("unknown", expression["text"], places)
        now_by_number[number] = now
        if said:
            asked_by_number[number] = _verdict_of_asking(expression, said, now, size)
    return Regrounding(replace(to_check, verdicts=now_by_number), asked_by_number)


def _said_by_asking(expression: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return DoubleChecker's `verification`; {} where there is none."""
    said = expression.get("verification")
    return said if isinstance(said, dict) and said.get("method") == ASKED else {}


def _verdict_of_asking(
    expression: dict[str, Any], said: Mapping[str, Any], now: Verdict, size: Size
) -> Verdict:
    """Return the verdict that DoubleChecker had, read back from what it wrote."""
    #   region_ids -> several, before -> mended, verified true -> matches, false -> wrong,
    #   null -> unknown
    reason = str(said.get("reason") or "")
    places_that_fit = _places_stated(said)
    if places_that_fit is not None:  # stated only where it fits several regions
        return Verdict("several", now.text, places_that_fit, reason)
    verified = expression.get("verified")
    if "before" in said:
        kind: Kind = "mended"
    elif verified is None:
        kind = "unknown"
    elif verified or within_image({**expression, "verified": True}, size) == expression:
        # In the second case the model said so, and `verified` was made false because a box reaches
        # out of the image: to do so again gives the same expression.
        kind = "matches"
    else:
        kind = "wrong"
    return replace(now, kind=kind, reason=reason)


def _before_asking(
    expression: Mapping[str, Any], regions: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return the expression as DoubleChecker found it, with the text and instances of then."""
    before = _said_by_asking(expression).get("before")
    if not isinstance(before, dict) or not isinstance(before.get("text"), str):
        return expression
    stated_instances = before.get("instances")
    places = _places_stated(before) or []
    are_all_of_record = bool(places) and max(places) < len(regions)
    if are_all_of_record:
        instances = instances_on(places, regions, expression["expression_id"])
    # one of its boxes was on no region of the record: DoubleChecker stated the instances then
    elif isinstance(stated_instances, list) and all(map(_has_box, stated_instances)):
        instances = stated_instances
    else:  # only the text was changed, or `before` was written by hand
        instances = expression["instances"]
    return {"text": before["text"], "instances": instances}


def _has_box(instance: Any) -> bool:
    return isinstance(instance, dict) and is_box(instance.get("bbox"))


def _places_stated(stated: Mapping[str, Any]) -> list[int] | None:
    """Return the places of `region_ids`; None where these aren't a list of numbers from 1."""
    ids = stated.get("region_ids")
    if not isinstance(ids, list):
        return None
    # not by isinstance: True is an int, too
    if not all(type(region_id) is int and region_id > 0 for region_id in ids):
        return None
    return [region_id - 1 for region_id in ids]


def verdict_of_regrounding(
    answer: Found, text: str, places: list[int], regions: Sequence[Bbox], threshold: float
) -> Verdict:
    """Return the verdict on an expression from grounding its text again.

    `places` are the indices in `regions` of those that it names. The verdict is

    - `unknown` where the answer can't tell,
    - `matches` if a box is on each region that it names, and no other box was found,
    - `several` if it names one region, and boxes are on several,
    - `mended` if all boxes are on regions, but others than those that it names,
    - `wrong` if nothing is found, or a box is on no region.
    """
    if answer.status in ("ambiguous", "unsupported"):
        return Verdict("unknown", text, places, answer.reason or answer.status)
    boxes = boxes_of(answer.instances)
    # Boxes are matched one to one with the regions that it names, then with others.
    on_own = _match_regions(boxes, places, regions, threshold)
    is_on_each_own = len(on_own.iou_by_place) == len(places)
    if is_on_each_own and not on_own.unmatched_boxes:
        return Verdict("matches", text, places, iou=_mean(on_own.iou_by_place.values()))
    places_without_box = [
        place for place in range(len(regions)) if place not in on_own.iou_by_place
    ]
    on_others = _match_regions(on_own.unmatched_boxes, places_without_box, regions, threshold)
    stray_boxes = on_others.unmatched_boxes  # on no region at all
    if boxes and not stray_boxes:
        return _found_on_others(text, places, {**on_own.iou_by_place, **on_others.iou_by_place})
    reason = "nothing is found"
    if boxes:
        reason = f"{len(stray_boxes)} of {len(boxes)} boxes are on no region"
    best_overlaps = []  # of each region that it names
    for place in places:
        best_overlaps.append(max((iou(regions[place], box) for box in boxes), default=0.0))
    overlap = _mean(best_overlaps)
    return Verdict("wrong", text, places, f"grounded again, {reason}", overlap)


def _found_on_others(
    text: str, own_places: Sequence[int], iou_by_place: Mapping[int, float]
) -> Verdict:
    """Return the verdict where each box is on a region, but these aren't just the text's own."""
    new_places = sorted(iou_by_place)
    kind: Kind = "mended"  # the text gets the regions where it is found
    if len(own_places) == 1 and len(new_places) > 1:
        kind = "several"  # a text about one region fits more than that
    reason = f"grounded again, it is found at {_region_numbers(new_places)}"
    return Verdict(kind, text, new_places, reason, _mean(iou_by_place.values()))


class _Matched(NamedTuple):
    """Boxes matched one to one with some regions."""

    iou_by_place: dict[int, float]  # of each region that a box is on
    unmatched_boxes: list[Bbox]


def _match_regions(
    boxes: Sequence[Bbox], places: Sequence[int], regions: Sequence[Bbox], threshold: float
) -> _Matched:
    """Match boxes with the regions at `places` alone, as many as can be."""
    regions_at_places = [regions[place] for place in places]
    iou_by_place: dict[int, float] = {}
    matched_boxes: set[int] = set()  # their indices in `boxes`
    matches = match_boxes(boxes, regions_at_places, threshold, most=True)
    for region_index, (box_index, overlap) in matches.items():
        iou_by_place[places[region_index]] = overlap
        matched_boxes.add(box_index)
    unmatched = [box for index, box in enumerate(boxes) if index not in matched_boxes]
    return _Matched(iou_by_place, unmatched)


def combine_verdicts(by_asking: Verdict, by_grounding: Verdict, before: Verdict) -> Verdict:
    """Return one verdict from two checks, which corrects the expression only if both agree:

    - either one `several`: `several`,
    - one `unknown`: the other,
    - `matches` or `mended`, then `matches`: the first. After a correction, the second check looks
      for the corrected text: its `matches` says that the correction is right,
    - `wrong`, then `mended` or `wrong`: the second,
    - else they disagree: `wrong`, with text and regions as they were before both.
    """
    for verdict in (by_asking, by_grounding):
        if verdict.kind == "several":
            # If asking has mended the text, that is taken back.
            return replace(verdict, text=before.text)
    if by_grounding.kind == "unknown":
        return by_asking
    if by_asking.kind == "unknown":
        return by_grounding
    both_affirm_it = by_asking.kind in ("matches", "mended") and by_grounding.kind == "matches"
    if both_affirm_it:
        return replace(by_asking, iou=by_grounding.iou)
    grounding_corrects_it = by_asking.kind == "wrong" and by_grounding.kind == "mended"
    if grounding_corrects_it:
        return replace(by_grounding, reason=_join_reasons(by_asking, by_grounding))
    both_deny_it = by_asking.kind == "wrong" and by_grounding.kind == "wrong"
    if both_deny_it:
        reason = _join_reasons(by_asking, by_grounding)
        return replace(by_asking, reason=reason, iou=by_grounding.iou)
    return _disagreement(by_asking, by_grounding, before)


def _disagreement(by_asking: Verdict, by_grounding: Verdict, before: Verdict) -> Verdict:
    """Return the verdict where one affirms what the other denies, or regions differ."""
    answer = "right" if by_asking.kind == "matches" else "wrong"
    where = "nowhere else"
    is_found_on_regions = by_grounding.kind in ("matches", "mended")
    if is_found_on_regions:
        where = f"at {_region_numbers(by_grounding.places)}"
    reason = f"the two checks disagree: asked, it is {answer}; grounded again, it is found {where}"
    return Verdict("wrong", before.text, before.places, reason, by_grounding.iou)


def _join_reasons(*verdicts: Verdict) -> str:
    return "; ".join(verdict.reason for verdict in verdicts if verdict.reason)


def _region_numbers(places: Sequence[int]) -> str:
    numbers = ", ".join(map(str, region_ids(places)))
    return f"region {numbers}" if len(places) == 1 else f"regions {numbers}"


def _mean(values: Collection[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None

"""Operator: checks that each expression means its regions, and mends what doesn't."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, TypeAlias

from dataflow_grounding.boxes.nearness import ask_in_parts, near_groups
from dataflow_grounding.boxes.regions import box_of, instances_on, places_of, read_regions
from dataflow_grounding.boxes.verdicts import Verdict, combined, judged, regrounded
from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import RecordError, SpecError
from dataflow_grounding.images import Image, open_image
from dataflow_grounding.operators.image_facts import facts_of
from dataflow_grounding.operators.region_operator import Marks, RegionOperator
from dataflow_grounding.operators.registry import OPERATOR_REGISTRY
from dataflow_grounding.records import Record, Update, read_expressions
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.serving.by_task import ServingByTask
from dataflow_grounding.spans import find_spans
from dataflow_grounding.tasks import Asked, Check, Found, double_check, phrase_grounding
from dataflow_grounding.terminal import say

Method: TypeAlias = Literal["ask", "reground", "both"]
METHODS = ("ask", "reground", "both")
NOTES = {
    "mended": "mended: an expression that did not match",
    "several": "fits_several: an expression that was meant for one region",
    "wrong": "does_not_match: an expression for which nothing better is known",
}
OF_AN_EARLIER_TEXT = ("noun_chunk", "caption_span")
Result: TypeAlias = "Verdict | RecordError"


@OPERATOR_REGISTRY.register()
class DoubleChecker(RegionOperator):
    """Sets `verified` and `verification` of each expression with boxes, and mends an expression that doesn't match.

    `ask` lets the model judge expression and boxes; `reground` grounds the text afresh, the boxes not shown, and compares
    by IoU (one to one, at `iou` or above), with `reground_serving` if there is one; `both` does both, and mends only where
    they agree. The first text and regions stay in `verification.before`. An expression meant for one region that fits
    several becomes `ambiguous`. Where an answer can't be had the expressions stay, `verified` null. Raises SpecError.
    """

    name = "double_check"
    input_keys = {"image": "image_path", "regions": "regions", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    descriptions = {
        "en": "Checks that each referring expression means its regions, and mends those that don't.",
        "zh": "核对每个指代表达式是否对应其区域,并修正不匹配的表达式。",
    }

    def __init__(
        self,
        serving: Serving,
        method: Method = "ask",
        reground_serving: Serving | None = None,
        iou: float = 0.5,
        *,
        box_format: str | None = None,
        regions_per_request: int | None = None,
        marks: Marks = "none",
    ) -> None:
        if method not in METHODS or not 0 < iou <= 1:
            raise SpecError(f"method should be one of {', '.join(METHODS)}, iou above 0 and at most 1")
        super().__init__(serving, box_format=box_format, regions_per_request=regions_per_request, marks=marks)
        self.method = method
        self.iou = iou
        self.reground_choice = FormatChoice(reground_serving) if reground_serving else self.format_choice
        if reground_serving is not None:
            self.serving = ServingByTask(serving, {"phrase_grounding": reground_serving})

    def prepare(self, start: RunStart) -> Counter[str]:
        """Calibrates the models whose box formats aren't known."""
        asked = super().prepare(start)
        if self.method != "ask":
            asked += self.reground_choice.settle_to_ground(start, lambda what: say(f"Warning: {what}."))
        return asked

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `verified` and `verification`. Raises what failed, with the record as it goes on all the same."""
        expressions = read_expressions(record, self.keys.expressions)
        regions = read_regions(record, self.keys.regions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        before = _standing(expressions, regions)
        results: dict[int, Result] = {}
        if self.method != "reground":
            results = await self._asked(image, before, regions, ask)
        if self.method != "ask":
            results = await self._regrounded(image, before, results, regions, ask)
        known = len(read_regions(record, self.keys.regions))
        checked = [
            self._entered(expression, before[n], results[n], regions, known) if n in before else expression
            for n, expression in enumerate(expressions)
        ]
        update = {
            **facts_of(record, image, ask, self.serving),
            self.keys.output: _with_spans(checked, expressions, record.get("cleaned_caption")),
        }
        for result in results.values():
            if isinstance(result, Verdict) and result.kind in NOTES:
                ask.note(NOTES[result.kind])
        failed = next((result for result in results.values() if isinstance(result, RecordError)), None)
        if failed is not None:
            failed.update = update
            raise failed
        return update

    async def _asked(
        self, image: Image, before: dict[int, Verdict], regions: list[dict[str, Any]], ask: Ask
    ) -> dict[int, Result]:
        """The model's judgements, a few expressions at a time, with the regions near theirs."""
        firsts = {n: box_of(regions[verdict.places[0]]["bbox"]) for n, verdict in before.items()}
        order = sorted(before)
        results: dict[int, Result] = {}
        texts = ("type",) if self.serving.needs_labels else ()
        for group in near_groups([box_of(region["bbox"]) for region in regions], self.regions_per_request):
            here = [n for n in order if before[n].places[0] in group]
            for start in range(0, len(here), self.regions_per_request):
                chunk = here[start : start + self.regions_per_request]

                async def judge(numbers: list[int], group: list[int] = group) -> list[Verdict]:
                    near = sorted({*group, *(place for n in numbers for place in before[n].places)})
                    asked = [Asked(before[n].text, [near.index(p) for p in before[n].places]) for n in numbers]
                    shown = [regions[place] for place in near]
                    checks: list[Check] = await ask(
                        double_check(self.shown(image, shown), asked, shown, self.box_format, texts)
                    )
                    return [
                        judged(_placed(check, near), before[n].text, before[n].places)
                        for n, check in zip(numbers, checks, strict=True)
                    ]

                try:
                    for numbers, verdicts in await ask_in_parts(chunk, firsts, judge):
                        results.update(zip(numbers, verdicts, strict=True))
                except RecordError as error:
                    results.update((n, error) for n in chunk if n not in results)
        return results

    async def _regrounded(
        self,
        image: Image,
        before: dict[int, Verdict],
        asked: dict[int, Result],
        regions: list[dict[str, Any]],
        ask: Ask,
    ) -> dict[int, Result]:
        """The verdicts of grounding each text afresh, together with what was asked. Equal texts are grounded once."""
        boxes = [box_of(region["bbox"]) for region in regions]
        results: dict[int, Result] = {n: result for n, result in asked.items() if isinstance(result, RecordError)}
        now = {n: verdict for n in before if not isinstance(verdict := asked.get(n, before[n]), RecordError)}
        settled = {n: before[n] if verdict.kind == "several" else verdict for n, verdict in now.items()}
        texts = list(dict.fromkeys(verdict.text for verdict in settled.values()))
        found: dict[str, Found | RecordError] = {}
        for start in range(0, len(texts), self.regions_per_request):
            found.update(await self._ground(image, texts[start : start + self.regions_per_request], ask))
        for n, verdict in settled.items():
            answer = found[verdict.text]
            if isinstance(answer, RecordError):
                results[n] = answer
                continue
            again = regrounded(answer, verdict.text, verdict.places, boxes, self.iou)
            results[n] = combined(now[n], again, before[n]) if n in asked else again
        return results

    async def _ground(self, image: Image, texts: list[str], ask: Ask) -> dict[str, Found | RecordError]:
        """Each text's boxes, or why there are none; a reply that is cut off is asked for in halves."""
        try:
            answer = await ask(phrase_grounding(image, texts, self.reground_choice.format))
            return dict(zip(texts, answer, strict=True))
        except RecordError as error:
            if error.kind != "truncated_reply" or len(texts) == 1:
                return dict.fromkeys(texts, error)
        half = len(texts) // 2
        return {**await self._ground(image, texts[:half], ask), **await self._ground(image, texts[half:], ask)}

    def _entered(
        self, expression: dict[str, Any], before: Verdict, result: Result, regions: list[dict[str, Any]], known: int
    ) -> dict[str, Any]:
        """The expression with what the check says."""
        if isinstance(result, RecordError):
            return {**expression, "verified": None, "verification": self._verification(None, "not checked")}
        verification = self._verification(result.iou, result.reason or None)
        if result.kind in ("matches", "wrong", "unknown"):
            verified = {"matches": True, "wrong": False}.get(result.kind)
            return {**expression, "verified": verified, "verification": verification}
        ids = [place + 1 for place in result.places]
        verification["before"] = {"text": before.text, "region_ids": [place + 1 for place in before.places]}
        if result.kind == "several":
            verification["region_ids"] = ids
            unclear = {"instances": [], "status": "ambiguous", "verified": False, "verification": verification}
            return {**expression, **unclear}
        instances = instances_on(result.places, regions, expression["expression_id"])
        if result.places == before.places:
            instances = expression["instances"]
        for instance in instances:
            if instance.get("region_id", 0) > known:  # a box that was in an expression, and in no region
                del instance["region_id"]
        mended = {"text": result.text, "instances": instances, "status": "grounded", "verified": True}
        stale = OF_AN_EARLIER_TEXT if result.text != before.text else ()
        kept = {name: value for name, value in expression.items() if name not in stale}
        return {**kept, **mended, "verification": verification}

    def _verification(self, overlap: float | None, reason: str | None) -> dict[str, Any]:
        return {"method": self.method, "iou": overlap, "reason": reason}


def _standing(expressions: list[dict[str, Any]], regions: list[dict[str, Any]]) -> dict[int, Verdict]:
    """What each expression with boxes says now, by its number. A box that no region has is added to `regions`."""
    standing = {}
    for number, expression in enumerate(expressions):
        if not expression["instances"]:
            continue
        for instance in expression["instances"]:
            if places_of([instance], regions) is None:
                regions.append({"bbox": instance["bbox"], "type": ""})
        places = places_of(expression["instances"], regions)
        assert places is not None
        standing[number] = Verdict("unknown", expression["text"], places)
    return standing


def _placed(check: Check, near: list[int]) -> Check:
    """The check with places among all regions."""
    return Check(check.matches, check.text, [near[place] for place in check.places], check.reason)


def _with_spans(checked: list[dict[str, Any]], before: list[dict[str, Any]], caption: Any) -> list[dict[str, Any]]:
    """The expressions, their spans found anew when a text has changed."""
    if [e["text"] for e in checked] == [e["text"] for e in before]:
        return checked
    spans = find_spans([e["text"] for e in checked], caption if isinstance(caption, str) else "")
    return [{**e, "char_span": list(span) if span else None} for e, span in zip(checked, spans, strict=True)]

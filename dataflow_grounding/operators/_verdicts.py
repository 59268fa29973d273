"""What a check says of an expression, and what is written into it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.regions import instances_on, places_of
from dataflow_grounding.data.records import Update
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._expressions import texts_of, within_image
from dataflow_grounding.operators.operator_base import Ask
from dataflow_grounding.tasks.region_tasks import Check, Merged

ASKED = "ask"
"""The `method` of a `verification` from a model that was shown the boxes."""
NOT_CHECKED = "not checked"
"""The `reason` of a `verification` where no answer could be had."""
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


def region_ids(places: Sequence[int]) -> list[int]:
    """Return the numbers from 1 of regions at these places."""
    return [place + 1 for place in places]


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


# The kind of a verdict → the code and the text of what is noted; others aren't noted.
_NOTES = {
    "mended": ("mended", "an expression that did not match"),
    "several": ("fits_several", "an expression that was meant for one region"),
    "wrong": ("does_not_match", "an expression for which nothing better is known"),
}
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
        verdicts: The number of an expression in the record, from 0 → its text and regions, as a
            verdict of kind `unknown`.
        before: The same before any check.
        regions: The record's regions, and after them a region for each box of an expression that
            is on none of these.
        known: How many of `regions`, from the first on, are the record's.
        strays: The instances, before any check, of expressions with a box on none of these.
    """

    verdicts: dict[int, Verdict]
    before: dict[int, Verdict]
    regions: list[Mapping[str, Any]]
    known: int
    strays: dict[int, list[dict[str, Any]]]

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

    def checked(
        self,
        expressions: list[dict[str, Any]],
        results: Mapping[int, Result],
        method: str,
        size: Size,
    ) -> list[dict[str, Any]]:
        """Return all expressions of the record, those with a result as their check says.

        Args:
            expressions: All expressions.
            results: By the expression's number.
            method: How they were checked.
            size: Width and height of the image, px.
        """
        checked = []
        for number, expression in enumerate(expressions):
            if number in results:
                expression = self._with_result(number, expression, results[number], method)
                expression = within_image(expression, size)
            checked.append(expression)
        return checked

    def _with_result(
        self, number: int, expression: dict[str, Any], result: Result, method: str
    ) -> dict[str, Any]:
        # `verified` is None without a verdict, or with an unknown one; True where the expression
        # matches, or has been corrected; False where it is wrong, or fits several regions, and so
        # becomes `ambiguous`, without instances. The verification's `before` has the text and
        # regions of an expression that was changed.
        if isinstance(result, RecordError):
            verification: dict[str, Any] = {"method": method, "iou": None, "reason": NOT_CHECKED}
            first = self._changed(number, expression, self.before[number])
            return {**first, "verified": None, "verification": verification}
        verification = {"method": method, "iou": result.iou, "reason": result.reason or None}
        if result.kind in ("matches", "wrong", "unknown"):
            verified: bool | None = None
            if result.kind != "unknown":
                verified = result.kind == "matches"
            expression = self._changed(number, expression, result)
            return {**expression, "verified": verified, "verification": verification}
        before = self.before[number]
        verification["before"] = {
            "text": before.text,
            "region_ids": region_ids(before.places),
        }
        if number in self.strays and result.places != before.places:
            verification["before"]["instances"] = self.strays[number]
        if result.kind == "several":
            verification["region_ids"] = region_ids(result.places)
            expression = self._changed(number, expression, replace(result, places=[]))
            return {
                **expression,
                "status": "ambiguous",
                "verified": False,
                "verification": verification,
            }
        expression = {**self._changed(number, expression, result), "status": "grounded"}
        return {**expression, "verified": True, "verification": verification}

    def _changed(self, number: int, expression: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
        now = self.verdicts[number]
        changed = dict(expression)
        if verdict.text != now.text:
            for name in OF_AN_EARLIER_TEXT:
                changed.pop(name, None)
        changed["text"] = verdict.text
        if verdict.places != now.places:
            instances = self.strays.get(number)
            if instances is None or verdict.places != self.before[number].places:
                instances = instances_on(
                    verdict.places, self.regions, expression["expression_id"], self.known
                )
            changed |= {"instances": instances, "status": "grounded"}
        return changed


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
    strays: dict[int, list[dict[str, Any]]] = {}
    for number, expression in enumerate(expressions):
        instances = expression["instances"]
        if not instances:
            continue
        for instance in instances:
            if places_of([instance], all_regions) is None:
                all_regions.append({"bbox": instance["bbox"], "type": ""})
        places = places_of(instances, all_regions) or []
        verdicts[number] = Verdict("unknown", expression["text"], places)
        if max(places) >= len(regions):
            strays[number] = instances
    return ExpressionsToCheck(verdicts, verdicts, all_regions, len(regions), strays)


def with_spans(
    checked: list[dict[str, Any]], before: list[dict[str, Any]], caption: Any
) -> list[dict[str, Any]]:
    """Return checked expressions, with new spans in the caption if the check changed any text.

    All then get a new `char_span`: None where the text doesn't occur, or there is no caption.
    """
    texts = texts_of(checked)
    if texts == texts_of(before):
        return checked
    spans = find_spans(texts, caption if isinstance(caption, str) else "")
    return [
        {**expression, "char_span": list(span) if span else None}
        for expression, span in zip(checked, spans, strict=True)
    ]


def note_kinds(
    ask: Ask, results: Mapping[int, Result], earlier: Mapping[int, Verdict] | None = None
) -> None:
    """Note what was found of expressions, unless an `earlier` check has found the same."""
    for number, result in results.items():
        if isinstance(result, Verdict) and result.kind in _NOTES:
            same = earlier is not None and number in earlier and earlier[number].kind == result.kind
            if not same:
                ask.note(*_NOTES[result.kind])


def update_of(
    column: str, checked: list[dict[str, Any]], results: Iterable[object]
) -> Update | Partial:
    """Return the update with checked expressions; Partial, with the first error among `results`."""
    update: Update = {column: checked}
    for result in results:
        if isinstance(result, RecordError):
            return Partial(update, result)
    return update

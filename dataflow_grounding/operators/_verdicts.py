"""What a check says of an expression, and what is written into it.

A place is the index of a region in a list, from 0; the `region_ids` in a file count from 1. A
number is the index of an expression in its record. Some boxes of expressions are on no region of
the record: they are taken for further regions, after the record's own.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.regions import instances_on, places_of
from dataflow_grounding.data.expressions import Expression, Instance, Region
from dataflow_grounding.data.records import Update
from dataflow_grounding.data.verification import Verification
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.english.spans import find_spans
from dataflow_grounding.operators._expressions import texts_of, within_image
from dataflow_grounding.operators.operator_base import Ask
from dataflow_grounding.tasks.region_tasks import Check, Merged

ASKED = "ask"
"""The `method` of a `verification` from a model that was shown the boxes."""
NOT_CHECKED = "not checked"
"""The `reason` of a `verification` where no answer could be had."""
Kind: TypeAlias = Literal["matches", "mended", "several", "wrong", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What a check says of an expression, with its text and regions after the check."""

    # `matches`: it is right as it was. `mended`: its text or its regions were corrected. `several`:
    # it is meant for one region and fits all of `places`. `wrong`: it doesn't match, and nothing
    # better is known. `unknown`: the check could not tell.
    kind: Kind
    text: str
    places: list[int]  # of its regions, from 0
    reason: str = ""


Result: TypeAlias = Verdict | RecordError


def verdict_of_check(check: Check, text: str, places: list[int]) -> Verdict:
    """Return the verdict on an expression from a model that was asked whether it is right."""
    # If the model gives no text or no regions, those of the expression stay.
    same_text = not check.text or _fold(check.text) == _fold(text)
    gives_other_regions = bool(check.places) and set(check.places) != set(places)
    # "the cup" was meant for one region, and the model names two
    names_several = same_text and len(places) == 1 and len(check.places) > 1
    names_own_region = not set(places).isdisjoint(check.places)
    # Where its own region isn't among them, the model contradicts itself, unless it says that the
    # text doesn't match.
    is_consistent = names_own_region or check.matches is False
    if names_several and is_consistent:
        return Verdict("several", text, check.places)
    if check.matches is None:  # the model can't tell
        return Verdict("unknown", text, places)
    if check.matches:
        return Verdict("matches", text, places)
    if not same_text or gives_other_regions:
        return Verdict("mended", check.text or text, check.places or places)
    return Verdict("wrong", text, places)


def region_ids(places: Sequence[int]) -> list[int]:
    return [place + 1 for place in places]


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


# The kind of a verdict → the code and the text of what is noted; others aren't noted.
_NOTES = {
    "mended": ("mended", "an expression that did not match"),
    "several": ("fits_several", "an expression that was meant for one region"),
    "wrong": ("does_not_match", "an expression for which nothing better is known"),
}
_VERIFIED: dict[Kind, bool | None] = {
    "matches": True,
    "mended": True,
    "several": False,
    "wrong": False,
    "unknown": None,
}
# the status of an expression that a check has changed
_STATUS: dict[Kind, str] = {"mended": "grounded", "several": "ambiguous"}
OF_AN_EARLIER_TEXT = ("noun_chunk", "caption_span")
"""The fields of an expression that are wrong once its text has changed."""


@dataclass(frozen=True)
class AskedTogether:
    """Some expressions, and the regions that one request about them shows."""

    before: list[Verdict]  # on each expression, as it was before the request
    places: list[int]  # of the regions that are shown, in order
    regions: list[Region]  # the regions at these places

    @property
    def expressions(self) -> list[Merged]:
        """The expressions as the request has them: it counts the regions that it shows, from 0."""
        number_shown = {place: number for number, place in enumerate(self.places)}
        return [
            Merged(verdict.text, [number_shown[place] for place in verdict.places])
            for verdict in self.before
        ]

    def verdicts(self, checks: Sequence[Check]) -> list[Verdict]:
        """Return the verdict on each expression from the answers, which count the regions shown."""
        verdicts = []
        for check, before in zip(checks, self.before, strict=True):
            places_in_record = [self.places[number_shown] for number_shown in check.places]
            check_in_record = check._replace(places=places_in_record)
            verdicts.append(verdict_of_check(check_in_record, before.text, before.places))
        return verdicts


@dataclass(frozen=True)
class ExpressionsToCheck:
    """The expressions of a record that have boxes, and the regions that they name."""

    # By the expressions' numbers, with their texts and regions before the check. All are of kind
    # `unknown`.
    verdicts: dict[int, Verdict]
    regions: list[Region]  # the record's, then one for each box on none of these
    count_of_record: int  # how many of `regions`, from the first on, are the record's
    # The instances, before the check, of each expression with a box on none of the record's
    # regions. Without these, such a box would be lost once the expression is given other regions.
    first_instances: dict[int, list[Instance]]

    def asked_together(self, numbers: Sequence[int], near: Collection[int]) -> AskedTogether:
        """Return expressions of one request, with their regions and those at the places `near`."""
        before = [self.verdicts[number] for number in numbers]
        shown_places = set(near)
        for verdict in before:
            shown_places.update(verdict.places)
        places = sorted(shown_places)
        return AskedTogether(before, places, [self.regions[place] for place in places])

    def checked(
        self,
        expressions: list[Expression],
        results: Mapping[int, Result],
        size: Size,
    ) -> list[Expression]:
        """Return all expressions, those with a result with `verified` and `verification`."""
        checked = []
        for number, expression in enumerate(expressions):
            if number in results:
                expression = self._with_result(number, expression, results[number])
                expression = within_image(expression, size)
            checked.append(expression)
        return checked

    def _with_result(self, number: int, expression: Expression, result: Result) -> Expression:
        if isinstance(result, RecordError):
            verification = Verification(ASKED, reason=NOT_CHECKED)
            return replace(expression, verified=None, verification=verification)
        was_changed = result.kind in _STATUS  # its text, or its boxes
        fits_several = result.kind == "several"
        verification = Verification(
            ASKED,
            reason=result.reason or None,
            region_ids=region_ids(result.places) if fits_several else None,
            before=self._described_before(number, result) if was_changed else None,
        )
        if fits_several:
            # A person has to say which of the regions is meant: until then it has no boxes.
            result = replace(result, places=[])
        changed = self._changed(number, expression, result)
        return replace(
            changed,
            status=_STATUS.get(result.kind, changed.status),
            verified=_VERIFIED[result.kind],
            verification=verification,
        )

    def _described_before(self, number: int, result: Verdict) -> dict[str, object]:
        """Return {"text": "the cup", "region_ids": [2]}: the expression before the check."""
        before = self.verdicts[number]
        described: dict[str, object] = {"text": before.text}
        described["region_ids"] = region_ids(before.places)
        if result.places != before.places and number in self.first_instances:
            # they are lost otherwise
            described["instances"] = [item.to_json() for item in self.first_instances[number]]
        return described

    def _changed(self, number: int, expression: Expression, verdict: Verdict) -> Expression:
        """Return the expression with the verdict's text and with boxes on its regions."""
        before = self.verdicts[number]
        if verdict.text != before.text:
            expression = replace(expression.without(*OF_AN_EARLIER_TEXT), text=verdict.text)
        if verdict.places != before.places:
            instances = instances_on(
                verdict.places, self.regions, expression.expression_id, self.count_of_record
            )
            expression = replace(expression, instances=instances, status="grounded")
        return expression


def expressions_to_check(
    expressions: Sequence[Expression], regions: Sequence[Region]
) -> ExpressionsToCheck:
    """Return the expressions that have boxes, with the regions that the boxes are of."""
    # A box belongs to a region with the very same numbers; others become regions without a type.
    all_regions = list(regions)
    for expression in expressions:
        for instance in expression.instances:
            if places_of([instance], all_regions) is None:
                all_regions.append(Region(instance.bbox))
    verdicts: dict[int, Verdict] = {}
    first_instances: dict[int, list[Instance]] = {}
    for number, expression in enumerate(expressions):
        instances = expression.instances
        if not instances:
            continue
        places = places_of(instances, all_regions) or []  # each box has a region by now
        verdicts[number] = Verdict("unknown", expression.text, places)
        names_further_region = max(places) >= len(regions)  # these come after the record's own
        if names_further_region:
            first_instances[number] = instances
    return ExpressionsToCheck(
        verdicts,
        regions=all_regions,
        count_of_record=len(regions),
        first_instances=first_instances,
    )


def with_spans(
    checked: list[Expression], before: list[Expression], caption: object
) -> list[Expression]:
    """Return checked expressions; if the check changed any text, all get a new `char_span`."""
    texts = texts_of(checked)
    if texts == texts_of(before):
        return checked
    # where a text is found depends on the other texts (see `find_spans`)
    spans = find_spans(texts, caption if isinstance(caption, str) else "")
    return [
        replace(expression, char_span=span) for expression, span in zip(checked, spans, strict=True)
    ]


def note_kinds(ask: Ask, results: Mapping[int, Result]) -> None:
    """Note what was found of expressions."""
    for result in results.values():
        if isinstance(result, Verdict) and result.kind in _NOTES:
            code, text = _NOTES[result.kind]
            ask.note(code, text)


def update_of(
    column: str, checked: list[Expression], results: Iterable[object]
) -> Update | Partial:
    """Return the update with checked expressions; Partial, with the first error among `results`."""
    update: Update = {column: checked}
    for result in results:
        if isinstance(result, RecordError):
            return Partial(update, result)
    return update

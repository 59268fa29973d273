"""Which boxes stay in doubt though a judge's answers deny them: no other phrase claims their thing.

A wrong box is mostly on a thing that another phrase names, and a model that boxes one absent thing
boxes more of them. Where neither shows, a denied box of a phrase that the judge says is there may
as well be the judge's error.
"""

from collections.abc import Mapping, Sequence

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou
from dataflow_grounding.boxes.matching import SAME
from dataflow_grounding.operators._box_decisions import (
    Expression,
    dropped_by,
    presence_of,
    seconds_of_presence,
    verdicts_of,
)


def unclaimed(
    expressions: Sequence[Expression], seconds: Mapping[int, Mapping[str, bool | None]]
) -> dict[int, list[str]]:
    """Return the boxes of a record that both answers of a judge drop, and that stay in doubt.

    These are boxes that their phrase's presence affirms, where no box that stays of another phrase
    is on the same thing, at an IoU of SAME or more. There are none in a picture in which a phrase
    that the judge calls absent loses a box: there the model boxes what isn't there.

    Args:
        expressions: All expressions of the record, with the judge's first answers.
        seconds: The second answers, by the place of the expression (from 0) and `bbox_id`.

    Returns:
        The ids of the boxes, by the place of their expression; a place without any is left out.
    """
    dropped: dict[int, list[str]] = {}
    for place, answers in seconds.items():
        dropped[place] = dropped_by(expressions[place], answers)
        if dropped[place] and presence_of(expressions[place]).there is False:
            return {}
    staying: dict[int, list[Bbox]] = {}
    for place, expression in enumerate(expressions):
        staying[place] = _boxes_without(expression, dropped.get(place, []))
    spared: dict[int, list[str]] = {}
    for place, bbox_ids in dropped.items():
        affirmed = _affirmed_by_presence(expressions[place])
        claims: list[Bbox] = []
        for other_place, boxes in staying.items():
            if other_place != place:
                claims += boxes
        for instance in expressions[place]["instances"]:
            bbox_id = str(instance.get("bbox_id"))
            if bbox_id not in bbox_ids or bbox_id not in affirmed:
                continue
            bbox = box_of(instance["bbox"])
            if all(iou(bbox, claim) < SAME for claim in claims):
                spared.setdefault(place, []).append(bbox_id)
    return spared


def _affirmed_by_presence(expression: Expression) -> list[str]:
    # Where the thing is there, that is also a box that was found because it was missing.
    verdicts = verdicts_of(expression)
    affirmed = []
    for bbox_id, answer in seconds_of_presence(expression).items():
        # `seconds_of_presence` says nothing of these
        is_addition = bool(verdicts[bbox_id].get("found_by"))
        if answer or (is_addition and presence_of(expression).there):
            affirmed.append(bbox_id)
    return affirmed


def _boxes_without(expression: Expression, bbox_ids: Sequence[str]) -> list[Bbox]:
    boxes = []
    for instance in expression["instances"]:
        if str(instance.get("bbox_id")) not in bbox_ids:
            boxes.append(box_of(instance["bbox"]))
    return boxes

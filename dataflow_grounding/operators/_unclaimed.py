"""Which boxes a phrase's presence affirms, as a third answer: no other phrase claims their thing.

A wrong box is mostly on a thing that another phrase names. Where none names it, a denied box of a
phrase that the judge says is there may as well be the judge's error.
"""

from collections.abc import Mapping, Sequence

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou
from dataflow_grounding.boxes.matching import SAME
from dataflow_grounding.operators._box_decisions import Expression, dropped_by, presence_of


def unclaimed(
    expressions: Sequence[Expression], seconds: Mapping[int, Mapping[str, bool | None]]
) -> dict[int, list[str]]:
    """Return the boxes of a record that their phrase's presence affirms, as a third answer.

    No box that stays of another phrase is on their thing, at an IoU of SAME or more. Of boxes that
    both answers of the judge drop, it affirms those of phrases that are there more often than boxes
    are left; of others, those of phrases that are there several times.

    Args:
        expressions: All expressions of the record, with the judge's first answers.
        seconds: The second answers, by the place of the expression (from 0) and `bbox_id`.

    Returns:
        The ids of the boxes, by the place of their expression; a place without any is left out.
    """
    dropped: dict[int, list[str]] = {}
    for place, answers in seconds.items():
        dropped[place] = dropped_by(expressions[place], answers)
    staying: dict[int, list[Bbox]] = {}
    for place, expression in enumerate(expressions):
        staying[place] = _boxes_without(expression, dropped.get(place, []))
    affirmed: dict[int, list[str]] = {}
    for place, dropped_ids in dropped.items():
        claims: list[Bbox] = []
        for other_place, boxes in staying.items():
            if other_place != place:
                claims += boxes
        presence = presence_of(expressions[place])
        count = presence.count
        lacks_boxes = presence.there and (count is None or len(staying[place]) < count)
        # A judge that wrongly says that a thing is there says so of one, hardly ever of several.
        is_several = presence.there and count is not None and count > 1
        for instance in expressions[place]["instances"]:
            bbox_id = str(instance.get("bbox_id"))
            is_affirmed = lacks_boxes if bbox_id in dropped_ids else is_several
            bbox = box_of(instance["bbox"])
            if is_affirmed and all(iou(bbox, claim) < SAME for claim in claims):
                affirmed.setdefault(place, []).append(bbox_id)
    return affirmed


def _boxes_without(expression: Expression, bbox_ids: Sequence[str]) -> list[Bbox]:
    boxes = []
    for instance in expression["instances"]:
        if str(instance.get("bbox_id")) not in bbox_ids:
            boxes.append(box_of(instance["bbox"]))
    return boxes

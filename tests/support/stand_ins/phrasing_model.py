"""A model that makes phrases up that are almost right, and which of these are there."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from dataflow_grounding import BoxChecker, NegativePhraser, Operator
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.serving import Serving
from dataflow_grounding.testing import ReceivedRequest
from tests.support.stand_ins.erring_model import ErringModel, Errors, Scene, color_of
from tests.support.stand_ins.seeing_model import COLORS

TOLD = 3  # of the colours in a picture
CHANGES = ("attribute", "relation", "number", "noun")
NUMBERS = {"one": 1, "two": 2, "three": 3}
RELATIONS = ("left of", "right of", "above", "below")
OTHER_NOUNS = ("ball", "cone", "star", "cup")
THAT_FIT = ("box", "boxes", "thing")
"""Nouns that name the boxes of the pictures."""

PHRASE = re.compile(
    r"the (?:(?P<number>one|two|three) )?(?P<color>\w+) (?P<noun>\w+)"
    r"(?: (?P<relation>left of|right of|above|below) the (?P<other>\w+) box)?"
)


class PhrasingModel(ErringModel):
    """Makes phrases up, too, and understands them: "the two red boxes", "the red box left of the
    blue box", "the red ball".

    Args:
        errors, seed: As ErringModel's.
        careless: Share of the phrases made up that are there, as far as there are such.
    """

    def __init__(
        self,
        errors: Errors,
        *,
        careless: float = 0.0,
        box_format: str = "xyxy_1000",
        seed: int = 0,
    ) -> None:
        super().__init__(errors, box_format=box_format, seed=seed)
        self._careless = careless

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says."""
        if request.task != "negative_phrases":
            return super().__call__(request)
        self.requests[request.task] += 1
        scene = self._looked_at(request)
        chance = self._chance("negatives", scene.name)
        negatives: list[dict[str, Any]] = []
        for number in range(len(CHANGES) * request.input["count"]):
            if len(negatives) < request.input["count"]:
                change = CHANGES[number % len(CHANGES)]
                negatives += self._made_up(request, scene, change, negatives, chance)
        return {"negatives": negatives}

    def _made_up(
        self,
        request: ReceivedRequest,
        scene: Scene,
        change: str,
        made: Sequence[dict[str, Any]],
        chance: random.Random,
    ) -> list[dict[str, Any]]:
        """A phrase with such a change, none of those `made`; nothing where there is none."""
        own = [phrase["text"] for phrase in request.input["phrases"]]
        taken = [*own, *(item["text"] for item in made)]
        ways = []
        for phrase in request.input["phrases"]:
            for text in _changed(color_of(phrase), own, change):
                if text not in taken:
                    ways.append({"id": phrase["id"], "change": change, "text": text})
        if not ways:
            return []
        is_there = chance.random() < self._careless
        wanted = [way for way in ways if bool(self.meant(way, scene)) is is_there]
        return [chance.choice(wanted or ways)]

    def meant(self, phrase: dict[str, Any], scene: Scene) -> list[Bbox]:
        """The things that a phrase names, number and relation as it says."""
        return meant_by(str(phrase["text"]), scene.things)


def _changed(color: str, own: Sequence[str], change: str) -> Iterator[str]:
    """What the box of a colour may be called with one change."""
    if change == "attribute":
        for other in sorted(COLORS):
            yield f"the {other} box"
    elif change == "noun":
        for noun in (*OTHER_NOUNS, "thing"):
            yield f"the {color} {noun}"
    elif change == "number":
        yield f"the one {color} box"
        yield f"the two {color} boxes"
        yield f"the three {color} boxes"
    else:
        for relation in RELATIONS:
            for text in own:
                if text != f"the {color} box":
                    yield f"the {color} box {relation} {text}"


def meant_by(text: str, things: dict[str, list[Bbox]]) -> list[Bbox]:
    """The boxes that a phrase names."""
    match = PHRASE.fullmatch(text)
    if match is None:  # a rectangle of a probe
        return things.get(text.split()[1], [])
    if match["noun"] not in (*THAT_FIT, "rectangle"):
        return []
    boxes = things.get(match["color"], [])
    if match["number"] and len(boxes) != NUMBERS[match["number"]]:
        return []
    if match["relation"]:
        others = things.get(match["other"], [])
        boxes = [box for box in boxes if _stands(box, match["relation"], others)]
    return boxes


def _stands(box: Bbox, relation: str, others: Sequence[Bbox]) -> bool:
    """Whether a box lies so next to any of the others, edge to edge."""
    for other in others:
        if relation == "left of" and box[2] <= other[0]:
            return True
        if relation == "right of" and box[0] >= other[2]:
            return True
        if relation == "above" and box[3] <= other[1]:
            return True
        if relation == "below" and box[1] >= other[3]:
            return True
    return False


def is_there(text: str, gold: dict[str, Any]) -> bool:
    """Whether a phrase names something in the picture of a gold record."""
    things = {}
    for expression in gold["expressions"]:
        things[expression["text"].split()[1]] = [box["bbox"] for box in expression["instances"]]
    return bool(meant_by(text, {color: boxes for color, boxes in things.items() if boxes}))


def steps_of(serving: Serving, count: int, phrases: Sequence[str]) -> list[Operator]:
    """The steps of `workflow.negatives`."""
    return [
        NegativePhraser(serving, count, phrases),
        BoxChecker(serving, only_negatives=True),
    ]


def with_some_told(gold: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The gold's records with the expressions that a caption might name: not all."""
    records = []
    for record in gold:
        there = [expression for expression in record["expressions"] if expression["instances"]]
        records.append({**record, "expressions": there[:TOLD]})
    return records

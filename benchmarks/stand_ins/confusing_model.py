"""A model that takes some things for others until it is told what counts, and that can tell why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.stand_ins.erring_model import ErringModel, Errors, Scene
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.extras.testing import ReceivedRequest


@dataclass(frozen=True)
class Habits:
    """What the model does wrong, and how well it defines things.

    Args:
        taken_for: Colour → another colour whose things it boxes too, where that isn't excluded.
        often: Share of these things that it boxes.
        missed: Share of things without a box, however it is asked.
        harmful: Share of definitions that exclude what counts, instead of what doesn't.
    """

    taken_for: Mapping[str, str]
    often: float = 0.7
    missed: float = 0.1
    harmful: float = 0.25


class ConfusingModel(ErringModel):
    """Answers `phrase_grounding` and `class_definition` about coloured boxes.

    It heeds a definition by its words: "not pink" keeps pink things out.
    """

    def __init__(self, habits: Habits, *, seed: int = 0) -> None:
        super().__init__(Errors(missing=habits.missed), seed=seed)
        self._habits = habits
        self._definitions: Mapping[str, str] = {}

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says."""
        if request.task == "class_definition":
            return {"definition": self._defined(request.input)}
        self._definitions = request.input.get("definitions", {})
        return super().__call__(request)

    def _defined(self, question: Mapping[str, Any]) -> str:
        """A definition out of what the crops are said to be; sometimes a harmful one."""
        label = question["class"]
        mistaken = [crop["is"] for crop in question["crops"] if crop.get("is")]
        if self._chance("harmful", label).random() < self._habits.harmful:
            return f"Only large ones, not {label}."
        if not mistaken:
            return f"Every {label}."
        most = max(set(mistaken), key=mistaken.count)
        return f"Things that are {label}, not {most}."

    def _grounded(self, task: str, phrase: dict[str, Any], scene: Scene) -> list[Bbox]:
        boxes = super()._grounded(task, phrase, scene)
        color = phrase["text"].split()[1]
        definition = self._definitions.get(phrase["text"], "")
        if f"not {color}" in definition:  # a harmful one: half of what counts is left out
            return [
                box for n, box in enumerate(boxes) if self._draw("kept", phrase, scene, n) < 0.5
            ]
        other = self._habits.taken_for.get(color)
        if other is None or f"not {other}" in definition:
            return boxes
        for number, box in enumerate(scene.things.get(other, [])):
            if self._draw("taken", phrase, scene, number) < self._habits.often:
                boxes.append(box)
        return boxes

    def _draw(self, what: str, phrase: Mapping[str, Any], scene: Scene, number: int) -> float:
        """A number from 0 to 1, always the same for the same thing of a picture."""
        return self._chance(what, scene.name, phrase["text"], number).random()

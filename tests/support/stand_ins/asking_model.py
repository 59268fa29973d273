"""A model that grounds better or worse by the words that it is asked in."""

from __future__ import annotations

import random
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.testing import ReceivedRequest
from tests.support.stand_ins.erring_model import ErringModel, Scene

RHO = 0.6  # how alike a phrase's difficulty is for any two ways


class AskingModel(ErringModel):
    """Answers `phrase_grounding` about coloured boxes, by how it is asked.

    Args:
        accuracy: Word → share of phrases that it gets right where the word is in the question's
            instructions; "" is for questions with none of them. A phrase is as hard for one way as
            for another, with a correlation of .6.
        seed: Which phrases are hard.
    """

    def __init__(self, accuracy: Mapping[str, float], *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self._accuracy = accuracy
        self._word = ""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says."""
        text = f"{request.system}\n{request.text}"
        words = [word for word in self._accuracy if word and word in text]
        self._word = words[0] if words else ""
        return super().__call__(request)

    def _grounded(self, task: str, phrase: dict[str, Any], scene: Scene) -> list[Bbox]:
        meant = self.meant(phrase, scene)
        share = self._accuracy[self._word]
        shared = _normal(self._seed, scene.name, phrase["text"])
        own = _normal(self._seed, scene.name, phrase["text"], self._word)
        ease = RHO**0.5 * shared + (1 - RHO) ** 0.5 * own
        if ease < NormalDist().inv_cdf(share):
            return meant
        return [] if meant else [self._anywhere(phrase, scene)]

    def _anywhere(self, phrase: dict[str, Any], scene: Scene) -> Bbox:
        """A box that nothing is in particular, another one for each phrase."""
        chance = self._chance("anywhere", scene.name, phrase["text"])
        width, height = scene.size
        x1, y1 = chance.uniform(0, 0.7 * width), chance.uniform(0, 0.7 * height)
        return x1, y1, x1 + 0.2 * width, y1 + chance.uniform(0.1, 0.3) * height


def _normal(*question: Any) -> float:
    """A draw from the normal distribution, always the same for the same question."""
    return random.Random("/".join(map(str, question))).gauss(0, 1)

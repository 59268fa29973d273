"""Several models behind one address: each request is answered by the one that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.stand_ins.check_quality import NOISE
from benchmarks.stand_ins.erring_model import ErringModel, Errors, about_probes
from dataflow_grounding.testing import ReceivedRequest

CHEAP = Errors(absent=0.5, missing=0.1, noise=NOISE, accuracy=0.85)
DEAR = Errors(absent=0.05, missing=0.03, noise=NOISE, accuracy=0.94)


class ModelsByName:
    """Answers as the model does that a request names; of other names nothing is known.

    Args:
        errors: How each model errs, by its name; the cheap `small` and the better `large` unless
            given.
        box_format: How they write boxes.
    """

    reads = ErringModel.reads

    def __init__(
        self, errors: Mapping[str, Errors] | None = None, *, box_format: str = "xyxy_1000"
    ) -> None:
        known = errors or {"small": CHEAP, "large": DEAR}
        self._models = {
            name: ErringModel(of_model, seed=number, box_format=box_format)
            for number, (name, of_model) in enumerate(known.items(), 3)
        }
        self.requests: Counter[str] = Counter()
        """How many requests about the user's pictures each model was sent."""
        self.phrases: dict[str, list[tuple[str, str]]] = {name: [] for name in known}
        """The boxes that each model was asked for: the picture's digest, and the phrase."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says that is named."""
        assert request.body is not None
        name = request.body["model"]
        if not about_probes(request):
            self.requests[name] += 1
            if request.task == "phrase_grounding":
                picture = request.image_digests[0]
                asked = [(picture, phrase["text"]) for phrase in request.input["phrases"]]
                self.phrases[name] += asked
        return self._models[name](request)

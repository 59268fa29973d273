"""A model of two."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.testing import ReceivedRequest
from dataflow_grounding.testing.answers import IMAGES
from tests.support.stand_ins.erring_model import ErringModel
from tests.support.stand_ins.seeing_model import SeeingModel


class JudgingModel:
    """Grounds as `SeeingModel` does, and judges boxes and looks for missing ones as `ErringModel`
    does.
    """

    reads = IMAGES

    def __init__(self, seeing: SeeingModel, judge: ErringModel) -> None:
        self._seeing = seeing
        self._judge = judge

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says."""
        model = self._seeing if request.task == "phrase_grounding" else self._judge
        return model(request)

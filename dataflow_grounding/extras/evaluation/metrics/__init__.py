"""Figures about annotations: how good they are against gold, and how far two annotators agree."""

from typing import TYPE_CHECKING

from dataflow_grounding._util.lazy import attached

if TYPE_CHECKING:
    from dataflow_grounding.extras.evaluation.metrics.agreeing import agreement as agreement
    from dataflow_grounding.extras.evaluation.metrics.annotations import (
        read_annotations as read_annotations,
    )
    from dataflow_grounding.extras.evaluation.metrics.evaluating import Evaluation as Evaluation
    from dataflow_grounding.extras.evaluation.metrics.evaluating import evaluate as evaluate
    from dataflow_grounding.extras.evaluation.metrics.pairs import Rules as Rules

__getattr__, __dir__, __all__ = attached(
    __name__,
    {
        "agreeing": ["agreement"],
        "annotations": ["read_annotations"],
        "evaluating": ["Evaluation", "evaluate"],
        "pairs": ["Rules"],
    },
)

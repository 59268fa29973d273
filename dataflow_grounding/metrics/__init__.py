"""Figures about annotations: how good they are against gold, and how far two annotators agree."""

from typing import TYPE_CHECKING, Any

from dataflow_grounding.lazy import public_name

if TYPE_CHECKING:
    from dataflow_grounding.metrics.agreeing import agreement as agreement
    from dataflow_grounding.metrics.annotations import read_annotations as read_annotations
    from dataflow_grounding.metrics.evaluating import Evaluation as Evaluation
    from dataflow_grounding.metrics.evaluating import evaluate as evaluate
    from dataflow_grounding.metrics.pairs import Rules as Rules

_HOMES = {"Evaluation": "evaluating", "Rules": "pairs", "agreement": "agreeing", "evaluate": "evaluating"}
_HOMES |= {"read_annotations": "annotations"}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    return public_name(__name__, _HOMES, name)

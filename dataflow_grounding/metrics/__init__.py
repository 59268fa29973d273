"""Figures about annotations: how good they are against gold, and how far two annotators agree."""

from dataflow_grounding.metrics.agreement import agreement
from dataflow_grounding.metrics.annotations import read_annotations
from dataflow_grounding.metrics.evaluating import Evaluation, evaluate
from dataflow_grounding.metrics.overlaps import Rules

__all__ = ["Evaluation", "Rules", "agreement", "evaluate", "read_annotations"]

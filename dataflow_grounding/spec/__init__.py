"""The spec: a YAML file that says which pipeline runs on what, with which model."""

from __future__ import annotations

from dataflow_grounding.spec.loading import load_spec, read_spec
from dataflow_grounding.spec.schema import (
    PIPELINES,
    ImageGroundingBlock,
    ImageReferringExpressionBlock,
    ImageRegionCaptionBlock,
    ReferringData,
    Spec,
    VlmBlock,
    WorkflowBlock,
)

__all__ = [
    "PIPELINES",
    "ImageGroundingBlock",
    "ImageReferringExpressionBlock",
    "ImageRegionCaptionBlock",
    "ReferringData",
    "Spec",
    "VlmBlock",
    "WorkflowBlock",
    "load_spec",
    "read_spec",
]

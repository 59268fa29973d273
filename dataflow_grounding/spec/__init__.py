"""The spec: a YAML file that says which pipeline runs on what, with which model."""

from dataflow_grounding.spec.schema import (
    Block,
    Json,
    PipelineBlock,
    RowsData,
    Spec,
    VlmBlock,
    WorkflowBlock,
)

__all__ = ["Block", "Json", "PipelineBlock", "RowsData", "Spec", "VlmBlock", "WorkflowBlock"]

"""Pipelines: plans that a spec can name, and the base class of your own."""

from dataflow_grounding.pipelines.pipeline import Pipeline

__all__ = ["Pipeline"]

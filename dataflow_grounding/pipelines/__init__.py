"""Pipelines: plans that a spec can name, and the base class of your own."""

from __future__ import annotations

from dataflow_grounding.pipelines.base import Pipeline

__all__ = ["Pipeline"]

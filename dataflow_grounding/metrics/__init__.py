"""Figures about annotations."""

from __future__ import annotations

from dataflow_grounding.metrics.phrase_boxes import BoxScores, score_boxes

__all__ = ["BoxScores", "score_boxes"]

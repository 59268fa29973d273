"""Reading what models write: boxes and objects out of replies of any shape."""

from __future__ import annotations

from dataflow_grounding.replies.boxes import read_boxes, read_points
from dataflow_grounding.replies.objects import read_object
from dataflow_grounding.replies.reading import FoundBox, FoundPoint, Reading

__all__ = ["FoundBox", "FoundPoint", "Reading", "read_boxes", "read_object", "read_points"]

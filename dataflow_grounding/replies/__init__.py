"""Reading what models write: boxes and objects out of replies of any shape."""

from __future__ import annotations

from .boxes import read_boxes, read_points
from .objects import read_object
from .reading import FoundBox, FoundPoint, Reading

__all__ = ["FoundBox", "FoundPoint", "Reading", "read_boxes", "read_object", "read_points"]

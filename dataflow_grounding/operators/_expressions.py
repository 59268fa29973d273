"""What operators read of expressions and regions: their boxes and their texts."""

from collections.abc import Iterable, Mapping
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox, box_of


def boxes_of(items: Iterable[Mapping[str, Any]]) -> list[Bbox]:
    """Return the boxes of regions or instances, in order."""
    return [box_of(item["bbox"]) for item in items]


def texts_of(expressions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the texts of expressions, in order."""
    return [expression["text"] for expression in expressions]


def any_has_boxes(expressions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any of the expressions has a box."""
    return any(expression["instances"] for expression in expressions)

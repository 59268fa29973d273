"""Pictures with a red and a blue box, and how far off those are that a model has seen in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.serving import Serving
from tests.support.stand_ins.seeing_model import draw

PARTS = {"red": (0.1, 0.4), "blue": (0.6, 0.9)}
"""Where each begins and ends, as shares of both sides."""


def part_of(size: Size, start: float, end: float) -> Bbox:
    """The box between two shares of both sides."""
    return start * size[0], start * size[1], end * size[0], end * size[1]


def scene(folder: Path, size: Size) -> dict[str, Any]:
    """A row with a picture of that size, which has the two boxes, and their phrases."""
    path = str(folder / f"{size[0]}x{size[1]}.png")
    draw(path, size, {color: [part_of(size, *part)] for color, part in PARTS.items()})
    return {"image_path": path, "expressions": [f"the {color} box" for color in PARTS]}


def off(record: Mapping[str, Any]) -> float:
    """How far the boxes of a scene's record are off at the most, as a share of the side."""
    size = (record["width"], record["height"])
    worst = 0.0
    for expression, part in zip(record["expressions"], PARTS.values(), strict=True):
        gaps = zip(expression["instances"][0]["bbox"], part_of(size, *part), size * 2, strict=True)
        worst = max(worst, *(abs(a - b) / side for a, b, side in gaps))
    return worst


def offs(serving: Serving, rows: list[dict[str, Any]], **options: Any) -> list[float]:
    """How far the boxes that are found in scenes are off, each as `off` has it."""
    return [off(record) for record in PhraseGrounder(serving, **options)(rows)]

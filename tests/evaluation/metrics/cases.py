"""Records for figures that can be worked out by hand."""

from __future__ import annotations

from typing import Any

# IoU of LEFT and MIDDLE: 50 / 150
LEFT, RIGHT, MIDDLE = [0, 0, 10, 10], [20, 0, 30, 10], [5, 0, 15, 10]
HALF = [0, 0, 10, 5]  # IoU with LEFT: 50 / 100
FAR = [50, 50, 60, 60]

Given = list[Any]  # boxes, or (box, score)


def record(path: str = "x.png", caption: str | None = "c", **phrases: Given) -> dict[str, Any]:
    """A record whose expressions are `phrases`, with underscores for blanks."""
    expressions = [phrase(name, boxes) for name, boxes in phrases.items()]
    return {"image_path": path, "caption": caption, "expressions": expressions}


def phrase(text: str, boxes: Given, **more: Any) -> dict[str, Any]:
    """An expression."""
    instances = [
        {"bbox": b[0], "score": b[1]} if isinstance(b, tuple) else {"bbox": b} for b in boxes
    ]
    return {"text": text.replace("_", " "), "instances": instances, **more}

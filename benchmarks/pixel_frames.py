"""Pictures with boxes of many sizes, and servers that reduce them for a model counting pixels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox, Size
from tests.support.stand_ins.resize_rules import Rule, openai, reduced, smart
from tests.support.stand_ins.seeing_model import COLORS, draw

SIZES: tuple[Size, ...] = (
    (2048, 1536),
    (1242, 375),
    (1920, 1080),
    (640, 480),
    (480, 640),
    (3024, 4032),
    (1000, 1000),
    (333, 500),
    (3000, 760),
)
SERVERS: dict[str, Rule] = {
    "default limits": smart(28, 3136, 12845056),
    "at most 1,003,520 px": smart(28, 3136, 1003520),
    "at most 2 << 20 px": smart(28, 3136, 2 << 20),
    "long edge 1280": reduced(edge=1280),
    "OpenAI's rule": openai,
    "long edge 500": reduced(edge=500),
}


def scenes(
    folder: Path, count: int, seed: int = 0, sizes: Sequence[Size] = SIZES
) -> list[dict[str, Any]]:
    """Gold records: pictures of different sizes, a box of each colour, from a fiftieth to a quarter
    of the sides.
    """
    chance = random.Random(seed)
    records = []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        boxes: dict[str, list[Bbox]] = {}
        for place, color in enumerate(chance.sample(sorted(COLORS), len(COLORS))):
            cell_w, cell_h = width // 4, height // 2
            w, h = (round(chance.uniform(0.08, 0.95) * side) for side in (cell_w, cell_h))
            x1 = cell_w * (place % 4) + chance.randint(0, cell_w - w)
            y1 = cell_h * (place // 4) + chance.randint(0, cell_h - h)
            boxes[color] = [(x1, y1, x1 + w, y1 + h)]
        path = folder / f"{number}.png"
        draw(str(path), (width, height), boxes)
        expressions = [
            {"text": f"the {color} box", "instances": [{"bbox": list(bbox)} for bbox in found]}
            for color, found in boxes.items()
        ]
        records.append({"image_path": str(path), "caption": "", "expressions": expressions})
    return records

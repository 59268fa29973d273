"""Pictures with half of the colours in them, and a detector's proposals for these."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox
from tests.support.stand_ins.seeing_model import COLORS, draw

SIZE = (1200, 900)
NOISE = 0.006  # of the side, by which a model's edges are off
FALSE = 0.3  # of the proposals are
MISSING = 0.15  # of the things have no proposal


def scenes(folder: Path, count: int, seed: int = 0, shrink: int = 1) -> list[dict[str, Any]]:
    """Gold records of pictures with half of the colours in them; the others have no boxes. Sides
    are `shrink` times shorter than they are here.
    """
    chance = random.Random(seed)
    records = []
    for number in range(count):
        there = chance.sample(sorted(COLORS), len(COLORS) // 2)
        boxes: dict[str, list[Bbox]] = {}
        for cell, color in zip(chance.sample(range(8), len(there)), there, strict=True):
            width, height = chance.randint(60, 260), chance.randint(60, 400)
            x1 = 300 * (cell % 4) + chance.randint(5, 295 - width)
            y1 = 450 * (cell // 4) + chance.randint(5, 445 - height)
            corners = (x1, y1, x1 + width, y1 + height)
            left, top, right, bottom = (corner // shrink for corner in corners)
            boxes[color] = [(left, top, right, bottom)]
        path = folder / f"{seed}-{number}.png"
        draw(str(path), (SIZE[0] // shrink, SIZE[1] // shrink), boxes)
        expressions = []
        for color in sorted(COLORS):
            instances = [{"bbox": list(bbox)} for bbox in boxes.get(color, [])]
            expressions.append({"text": f"the {color} box", "instances": instances})
        records.append({"image_path": str(path), "caption": "", "expressions": expressions})
    return records


def proposals_for(gold: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """A detector's records of the gold's pictures, with `false` in boxes that are."""
    chance = random.Random(seed)
    records = []
    for record in gold:
        things = {}
        for expression in record["expressions"]:
            if expression["instances"]:
                things[expression["text"]] = expression["instances"][0]["bbox"]
        expressions = []
        for expression in record["expressions"]:
            text = expression["text"]
            others = [bbox for name, bbox in sorted(things.items()) if name != text]
            instances = []
            if text in things and chance.random() >= MISSING:
                noisy = [edge + chance.gauss(0, 900 * NOISE) for edge in things[text]]
                instances.append({"bbox": noisy, "score": chance.random(), "false": False})
            # 4 phrases with things and 4 without: as many false boxes as make 30% of all
            if chance.random() < (1 - MISSING) / 2 * FALSE / (1 - FALSE):
                noisy = [edge + chance.gauss(0, 900 * NOISE) for edge in chance.choice(others)]
                instances.append({"bbox": noisy, "score": chance.random(), "false": True})
            expressions.append({"text": text, "instances": instances})
        records.append({**record, "expressions": expressions})
    return records

"""Boxes of models that count pixels, on servers that reduce pictures, against the same model read
exactly.

    python -m benchmarks.pixel_frames [--pictures 24] [--noise 0.005]

The model is called Qwen2.5-VL and really looks: it finds the coloured boxes, and the calibration's
rectangles, in the picture that it is sent. Its numbers are pixels of what a server's rule leaves of
it. A run knows nothing of the rule. The ideal is the same model answering in parts of a thousand,
which no resize changes. Goal: 95% of the ideal's mIoU.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.resize_rules import RULES, Rule, openai, reduced, smart
from benchmarks.stand_ins.box_scores import measure
from benchmarks.stand_ins.seeing_model import COLORS, SeeingModel, draw
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.boxes.geometry import Bbox, Size

MODEL = "qwen2.5-vl-7b-instruct"
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
    "default limits": RULES["multiples of 28, area 3136 to 12845056"],
    "at most 1,003,520 px": smart(28, 3136, 1003520),
    "at most 2 << 20 px": smart(28, 3136, 2 << 20),
    "long edge 1280": reduced(edge=1280),
    "OpenAI's rule": openai,
    "long edge 500": reduced(edge=500),
}


def scenes(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Gold records: pictures of different sizes, a box of each colour, from a fiftieth to a quarter
    of the sides.
    """
    chance = random.Random(seed)
    records = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=27)
    parser.add_argument("--noise", type=float, default=0.005)
    given = parser.parse_args()
    return 1 if missed(given.pictures, given.noise) else 0


def missed(pictures: int = 27, noise: float = 0.005) -> int:
    """Print a row for each server; returns how many missed the goal."""
    missed = 0
    print(
        f"{'':24} {'precision':>9} {'recall':>7} {'mIoU':>6} {'of ideal':>9}"
        f" {'further requests':>16}"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # what is found out here is nobody else's
        gold = scenes(Path(folder), pictures)
        ideal, _ = measure(gold, SeeingModel(noise=noise), name="loopback", box_format="xyxy_1000")
        print(f"{'ideal':24} {ideal.precision:9.1%} {ideal.recall:7.1%} {ideal.miou:6.3f}")
        for name, rule in SERVERS.items():
            model = SeeingModel("xyxy_px", resized=rule, noise=noise)
            try:
                found, _ = measure(gold, model, name=MODEL, box_format="auto")
            except GroundingError as error:
                missed += 1
                print(f"{name:24} {error}")
                continue
            share = found.miou / ideal.miou
            missed += share < 0.95
            further = round((found.requests - ideal.requests) * len(gold))
            row = (
                f"{name:24} {found.precision:9.1%} {found.recall:7.1%} {found.miou:6.3f}"
                f" {share:9.1%} {further:16}"
            )
            print(f"{row}  {'' if share >= 0.95 else 'goal 95%'}", flush=True)
    return missed


if __name__ == "__main__":
    raise SystemExit(main())

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
import tempfile
from pathlib import Path

from dataflow_grounding._util.errors import GroundingError
from tests.support.stand_ins.box_scores import measure
from tests.support.stand_ins.pixel_frames import MODEL, SERVERS, scenes
from tests.support.stand_ins.seeing_model import SeeingModel


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

"""How surely a calibration names the format: seeded runs for every order, scale and frame, and for models without one.

    python benchmarks/calibration.py [--runs 200] [--noise 0.015] [--outliers 0.1]

A run is right when the format that it names puts boxes within 0.2% of the side of where the model's own does: 999 and 1000
differ by 0.1%, and some frames are the same for every picture that is sent.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable

from probe_model import NOISE, OUTLIERS, answered, anywhere, seen

from dataflow_grounding.calibration.fitting import NoFit, Picture, candidates, fit
from dataflow_grounding.calibration.probes import probes
from dataflow_grounding.coordinates import BoxFormat, find_box_format

RIGHT = 0.002
PROBES = probes()
STATED = find_box_format("xyxy_1000", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="for each format (default: 200)")
    parser.add_argument("--noise", type=float, default=NOISE, help="standard deviation of an edge, share of the side")
    parser.add_argument("--outliers", type=float, default=OUTLIERS, help="share of boxes that are anywhere at all")
    given = parser.parse_args()
    began = time.perf_counter()
    results: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for box_format in candidates():
        for seed in range(given.runs):
            said = one_run(box_format, seed, given.noise, given.outliers)
            results[said] += 1
            if said != "right":
                wrong[f"{box_format.name}: {said}"] += 1
    total = sum(results.values())
    print(f"{len(candidates())} formats x {given.runs} runs, noise {given.noise:.1%}, outliers {given.outliers:.0%}")
    print(f"right {results['right']} of {total} ({results['right'] / total:.2%})")
    for what, count in wrong.most_common(20):
        print(f"  {count:4}  {what}")
    missed = total - results["right"]
    for name, picture_of in FORMATLESS.items():
        refused = sum(is_refused(picture_of, seed) for seed in range(given.runs))
        missed += given.runs - refused
        print(f"refused {refused} of {given.runs}: {name}")
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if missed else 0


def one_run(box_format: BoxFormat, seed: int, noise: float = NOISE, outliers: float = OUTLIERS) -> str:
    """`right`, the wrong name that it gave, or why it refused."""
    draw = random.Random(f"{box_format.name}/{seed}")
    rounded = seed % 2 == 0
    pictures = [answered(p, lambda _: box_format, seen(p, draw, noise, outliers), rounded) for p in PROBES]
    try:
        found = fit(pictures, STATED).format
    except NoFit as why:
        return f"refused: {str(why).partition(' (seen')[0]}"
    return "right" if apart(found, box_format) <= RIGHT else f"said {found.name}"


def apart(one: BoxFormat, other: BoxFormat) -> float:
    """The furthest that two formats put a probe rectangle's edge apart, as a share of the side."""
    worst = 0.0
    for probe in PROBES:
        for bbox in probe.boxes.values():
            numbers = other.from_pixels(bbox, original=probe.size, rounded=False)
            edges = one.to_pixels(numbers, original=probe.size)
            gaps = zip(edges, bbox, probe.size * 2, strict=True)
            worst = max(worst, *(abs(a - b) / side for a, b, side in gaps))
    return worst


def is_refused(pictures_of: Callable[[random.Random], list[Picture]], seed: int) -> bool:
    """Whether no format is named."""
    try:
        fit(pictures_of(random.Random(seed)), STATED)
    except NoFit:
        return True
    return False


def random_boxes(draw: random.Random) -> list[Picture]:
    """A model that sees nothing."""
    return [answered(p, lambda _: STATED, {phrase: anywhere(p, draw) for phrase in p.boxes}) for p in PROBES]


def two_formats(draw: random.Random, share: float, *names: str) -> list[Picture]:
    """A model that writes each box in one of two formats."""
    one, other = (find_box_format(name, "") for name in names)
    return [answered(p, lambda _: other if draw.random() < share else one, seen(p, draw)) for p in PROBES]


def by_picture(draw: random.Random, *names: str) -> list[Picture]:
    """A model that writes the last picture's boxes in another format."""
    formats = [find_box_format(name, "") for name in (names[0], names[0], names[1])]
    return [answered(p, lambda _, f=f: f, seen(p, draw)) for p, f in zip(PROBES, formats, strict=True)]


FORMATLESS: dict[str, Callable[[random.Random], list[Picture]]] = {
    "random boxes": random_boxes,
    "half of the boxes with y first": lambda draw: two_formats(draw, 0.5, "xyxy_1000", "yxyx_1000"),
    "a third of the boxes in pixels": lambda draw: two_formats(draw, 1 / 3, "xyxy_1000", "xyxy_px"),
    "a third of the boxes as x, y, width, height": lambda draw: two_formats(draw, 1 / 3, "xyxy_1", "xywh_1"),
    "one picture in pixels": lambda draw: by_picture(draw, "xyxy_1000", "xyxy_px"),
    "one picture with y first": lambda draw: by_picture(draw, "xyxy_1000", "yxyx_1000"),
}


if __name__ == "__main__":
    raise SystemExit(main())

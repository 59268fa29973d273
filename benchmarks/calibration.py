"""How surely a calibration names the format, and what a model sees of a picture: seeded runs against simulated models.

    python -m benchmarks.calibration [--runs 30] [--formats 20]

First, models that count pixels of a picture that their server has resized, by 40 rules in use and by others
(resize_rules.py): edges off by 0.5, 1.5 or 3% of the side (standard deviation), none to a fifth of the boxes anywhere
at all. A run is right when boxes read as calibrated are at most 1% of a side off for pictures of every size in SIZES,
sent as a run sends them. Goal: none wrong; at most 15% refused where edges are off by 1.5% or less.

Second, models that write in each known order, scale and padding (right: within 0.2% of the side; 999 and 1000 differ by
0.1%). Third, models without a format, which have to be refused.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.probe_model import answered, anywhere, seen
from benchmarks.resize_rules import OTHERS, RULES, Rule
from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.calibration.deciding import Deciding, Decision
from dataflow_grounding.calibration.fitting import candidates
from dataflow_grounding.calibration.probes import SIZES as PROBE_SIZES
from dataflow_grounding.calibration.probes import Probe, ProbeBox, ProbedPicture, probe_of
from dataflow_grounding.calibration.seen import NoFit
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.geometry import Size
from dataflow_grounding.images import SizeLimits

MAX_SIDE = 2048
NOISES, OUTLIERS = (0.005, 0.015, 0.03), (0.0, 0.1, 0.2)
RIGHT, RIGHT_FORMAT = 0.01, 0.002
SIZES: tuple[Size, ...] = (
    (640, 480), (480, 640), (640, 427), (500, 333), (1242, 375), (2048, 1536), (1920, 1080), (1080, 1920), (4032, 3024),
    (3024, 4032), (300, 200), (120, 90), (64, 64), (1000, 1000), (1333, 800), (3000, 750), (750, 3000), (1600, 1200),
    (800, 600), (1024, 768), (700, 700), (512, 512), (2000, 500), (1180, 890), (1365, 1024),
)  # fmt: skip
PROBES = [probe_of(size) for size in PROBE_SIZES]
STATED = find_box_format("xyxy_1000", "")
Model = Callable[[Probe], ProbedPicture]


def decided(model: Model) -> tuple[Decision, int]:
    """The decision on a model, and how many pictures it took. Raises NoFit."""

    async def ask(asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        return [model(probe) for probe in asked]

    deciding = Deciding(ask, MAX_SIDE)
    return asyncio.run(deciding.decide(STATED)), len(deciding.pictures)


def behind(rule: Rule, draw: random.Random, noise: float, outliers: float) -> Model:
    """A model that counts whole pixels of the picture that a server's rule leaves it."""

    def model(probe: Probe) -> ProbedPicture:
        (width, height), shown = probe.size, rule(*probe.size)
        factors = (shown[0] / width, shown[1] / height) * 2
        boxes = seen(probe, draw, noise, outliers).items()
        answers = [
            ProbeBox(phrase, probe.boxes[phrase], tuple(round(n * f) for n, f in zip(bbox, factors, strict=True)))
            for phrase, bbox in boxes
        ]
        return ProbedPicture(probe, probe.size, answers)

    return model


def furthest_off(rule: Rule, decision: Decision) -> float:
    """How far edges are off at the most, as a share of the side, for pictures of the sizes in SIZES."""
    limits, worst = decision.limits or SizeLimits(MAX_SIDE), 0.0
    for size in SIZES:
        padded = limits.padded(size)
        sent = limits.fitted(padded)
        shown = (seen * side / whole for seen, side, whole in zip(rule(*sent), size, padded, strict=True))
        x1, y1, x2, y2 = decision.fit.format.to_pixels((0, 0, *shown), original=padded, sent=sent)
        worst = max(worst, abs(x1) / size[0], abs(y1) / size[1], abs(x2 / size[0] - 1), abs(y2 / size[1] - 1))
    return worst


def one_rule(name: str, rule: Rule, seed: int) -> tuple[str, int]:
    """`right`, `wrong by …` or `refused: …`, and how many requests it took."""
    draw = random.Random(f"{name}/{seed}")
    noise, outliers = NOISES[seed % 3], OUTLIERS[seed // 3 % 3]
    try:
        decision, requests = decided(behind(rule, draw, noise, outliers))
    except NoFit as why:
        return f"refused: {str(why).partition(' (')[0]}", 0
    off = furthest_off(rule, decision)
    return ("right" if off <= RIGHT else f"wrong by {off:.1%}"), requests


def resized(rules: dict[str, Rule], runs: int, title: str) -> int:
    """Print how the rules went; returns how many models were read wrong, and one more where too many were refused."""
    total: Counter[str] = Counter()
    refused_quiet = quiet = 0
    requests: list[int] = []
    for name, rule in rules.items():
        said = [one_rule(name, rule, seed) for seed in range(runs)]
        counts = Counter(what.split(":")[0].split(" by ")[0] for what, _ in said)
        total += counts
        requests += [count for _, count in said if count]
        at_most = [what for seed, (what, _) in enumerate(said) if NOISES[seed % 3] <= 0.015]
        quiet += len(at_most)
        refused_quiet += sum(what.startswith("refused") for what in at_most)
        if set(counts) != {"right"}:
            reasons = Counter(what for what, _ in said if what != "right").most_common(2)
            print(f"  {name}: {dict(counts)}; {'; '.join(what for what, _ in reasons)}")
    share = refused_quiet / max(quiet, 1)
    middle = sorted(requests)[len(requests) // 2]
    print(
        f"{title}: {len(rules)} rules x {runs} models: {total['right']} right, {total['wrong']} wrong (goal 0), ",
        end="",
    )
    print(f"{total['refused']} refused; at noise up to 1.5% {share:.1%} refused (goal 15%)")
    print(f"  requests: {min(requests)} to {max(requests)}, half of the models {middle} or fewer", flush=True)
    return total["wrong"] + (share > 0.15)


def one_format(box_format: BoxFormat, seed: int, noise: float = 0.015, outliers: float = 0.1) -> str:
    """`right`, the wrong name that it gave, or why it refused."""
    draw = random.Random(f"{box_format.name}/{seed}")
    try:
        decision, _ = decided(
            lambda p: answered(p, lambda _: box_format, seen(p, draw, noise, outliers), seed % 2 == 0)
        )
    except NoFit as why:
        return f"refused: {str(why).partition(' (')[0]}"
    found = decision.fit.format
    return "right" if apart(found, box_format) <= RIGHT_FORMAT else f"said {found.name}"


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


def is_refused(model_of: Callable[[random.Random], Model], seed: int) -> bool:
    """Whether no format is named."""
    try:
        decided(model_of(random.Random(seed)))
    except NoFit:
        return True
    return False


def two_formats(draw: random.Random, share: float, *names: str) -> Model:
    """A model that writes each box in one of two formats."""
    one, other = (find_box_format(name, "") for name in names)
    return lambda probe: answered(probe, lambda _: other if draw.random() < share else one, seen(probe, draw))


def by_picture(draw: random.Random, *names: str, noise: float = 0.015) -> Model:
    """A model that writes large pictures' boxes in another format."""
    one, other = (find_box_format(name, "") for name in names)
    return lambda probe: answered(probe, lambda _: other if max(probe.size) > 1000 else one, seen(probe, draw, noise))


FORMATLESS: dict[str, Callable[[random.Random], Model]] = {
    "random boxes": lambda draw: (
        lambda probe: answered(probe, lambda _: STATED, {phrase: anywhere(probe, draw) for phrase in probe.boxes})
    ),
    "half of the boxes with y first": lambda draw: two_formats(draw, 0.5, "xyxy_1000", "yxyx_1000"),
    "a third of the boxes in pixels": lambda draw: two_formats(draw, 1 / 3, "xyxy_1000", "xyxy_px"),
    "a third of the boxes as x, y, width, height": lambda draw: two_formats(draw, 1 / 3, "xyxy_1", "xywh_1"),
    "large pictures in pixels": lambda draw: by_picture(draw, "xyxy_1000", "xyxy_px"),
    "large pictures with y first": lambda draw: by_picture(draw, "xyxy_1000", "yxyx_1000"),
    "large pictures from 0 to 1024": lambda draw: by_picture(draw, "xyxy_1000", "xyxy_1024", noise=0.005),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30, help="for each rule (default: 30)")
    parser.add_argument("--formats", type=int, default=20, help="for each format (default: 20)")
    given = parser.parse_args()
    began = time.perf_counter()
    missed = resized(RULES, given.runs, "rules in use") + resized(OTHERS, given.runs, "others")
    said = Counter(
        (box_format.name, one_format(box_format, seed)) for box_format in candidates() for seed in range(given.formats)
    )
    right = sum(count for (_, what), count in said.items() if what == "right")
    print(f"formats: {right} of {said.total()} right ({len(candidates())} formats x {given.formats} models)")
    for (name, what), count in said.items():
        if what != "right":
            print(f"  {count:4}  {name}: {what}")
    missed += sum(count for (_, what), count in said.items() if what.startswith("said"))
    for name, model_of in FORMATLESS.items():
        refused = sum(is_refused(model_of, seed) for seed in range(given.formats))
        missed += given.formats - refused
        print(f"refused {refused} of {given.formats}: {name}")
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How soon the standing check stops a run whose boxes are in another format, and whether it stops a right one.

    python -m benchmarks.box_watch [--seeds 5] [--right 50]

Whole runs of `generate` over the loopback server, with the defaults: a check before the first request and after every
100, others where the numbers drift. Boxes are as photos have them (people tall, cars wide, sizes log-normal, pictures
mostly 4:3), and come after 30 ms. A wrong answer is one about a picture of the run; 8 requests are in flight, and count
on top of the goal of 20.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Row, table
from benchmarks.pacing import lognormal
from benchmarks.watched_model import MIXED, PEOPLE, SQUARES, WIDE, Scene, WatchedModel
from benchmarks.workplace import Workplace
from dataflow_grounding.testing import LoopbackServer

IN_FLIGHT = 8
LATENCY = lognormal(0.03, 0.5)
GOAL = 20 + IN_FLIGHT
SWITCH = 60
WRONG = [
    ("xyxy_1000", "yxyx_1000"),
    ("yxyx_1000", "xyxy_1000"),
    ("xyxy_1000", "xyxy_100"),
    ("xyxy_1000", "xyxy_1"),
    ("xyxy_1000", "xywh_1000"),
    ("xyxy_1000", "cxcywh_1000"),
    ("xyxy_1000", "xyxy_px"),
    ("xyxy_1000", "yxyx_px"),
    ("xyxy_px", "xyxy_1000"),
    ("xyxy_px", "xywh_px"),
]
SWITCHES = [
    ("order", "xyxy_1000", "yxyx_1000", Scene()),
    ("order, y first before", "yxyx_1000", "xyxy_1000", Scene()),
    ("scale", "xyxy_1000", "xyxy_px", Scene()),
    ("scale, pixels before", "xyxy_px", "xyxy_1000", Scene()),
    ("order, people only", "xyxy_1000", "yxyx_1000", Scene(things=PEOPLE)),
    ("order, small things", "xyxy_1000", "yxyx_1000", Scene(area=-6.5)),
]
BLIND = ("order, squares anywhere", "xyxy_1000", "yxyx_1000", Scene(things=SQUARES, level=False, sizes=((640, 640),)))
"""Nothing in the numbers changes: only the check after every 100 requests can tell."""

RIGHT = {
    "all things": Scene(),
    "small things": Scene(area=-6.5),
    "people only": Scene(things=PEOPLE),
    "one corner": Scene(corner=True),
    "panoramas": Scene(sizes=WIDE),
    "one phrase per request": Scene(most_phrases=1),
    "mostly empty": Scene(empty=0.8),
    "squares anywhere": Scene(things=SQUARES, level=False),
    "one size": Scene(sizes=((800, 800),)),
    "few phrases": Scene(things=MIXED[:2]),
}
FORMATS = ("xyxy_1000", "yxyx_1000", "xyxy_px", "xywh_1000", "xyxy_1", "cxcywh_px", "xyxy_100", "gemini")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, answers about its pictures, wrong ones of these, probe pictures, and its message."""

    code: int
    answers: int
    wrong: int
    probes: int
    said: str
    wrote: bool


def play(
    format_of: Callable[[int], str],
    asked: str,
    scene: Scene,
    *,
    records: int,
    seed: int = 0,
    noise: float = 0.01,
    outliers: float = 0.05,
) -> Outcome:
    """One run of `generate`, step 1 alone."""
    model = WatchedModel(format_of, scene, seed=seed, noise=noise, outliers=outliers)
    with tempfile.TemporaryDirectory() as folder, LoopbackServer(model, latency=LATENCY, record=False) as server:
        place = Workplace(Path(folder), server.base_url, **{"vlm.check_every": 100, "workflow.steps": ["1"]})
        grounding_input(place, scene, records, seed)
        done = place.run(**{"vlm.box_format": asked, "workflow.max_workers": IN_FLIGHT})
        wrote = (place.results / "annotations.jsonl").exists()
    wrong = sum(format_of(number) != asked for number in range(model.answered))
    return Outcome(done.code, model.answered, wrong, model.probes, done.err, wrote)


def grounding_input(place: Workplace, scene: Scene, records: int, seed: int = 0) -> None:
    """What step 0 would have left: so many records, each with a picture of its own."""
    draw = random.Random(seed)
    pictures = {}
    for width, height in set(scene.sizes):
        pictures[width, height] = (place.folder / place.picture(f"{width}x{height}.jpg", (width, height))).read_bytes()
    rows = []
    for number in range(records):
        path = place.folder / f"{number}.jpg"
        path.write_bytes(pictures[draw.choice(scene.sizes)] + b"%d" % number)
        phrases = [draw.choice(scene.things).phrase for _ in range(draw.randint(1, scene.most_phrases))]
        rows.append({"image_path": str(path), "caption": "", "expressions": [{"text": text} for text in phrases]})
    before = place.results / "step_0_expression_extraction" / "annotations.jsonl"
    before.parent.mkdir(parents=True)
    before.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place.rows([])


def stopped(outcomes: list[Outcome], fitting: str) -> tuple[str, bool]:
    """The figures of runs that should be stopped, and whether all were: soon, unwritten, the right format named."""
    worst = max(outcome.wrong for outcome in outcomes)
    whole = all(outcome.code == 2 and not outcome.wrote for outcome in outcomes)
    named = sum(f"{fitting} would fit" in outcome.said for outcome in outcomes)
    middle = sorted(outcome.wrong for outcome in outcomes)[len(outcomes) // 2]
    probes = max(outcome.probes for outcome in outcomes)
    figure = f"{worst} ({middle} in the middle one; {probes} probes; named {named} of {len(outcomes)})"
    return (figure if whole else f"not stopped: {figure}"), whole


def from_the_start(asked: str, written: str, seeds: int) -> Row:
    """A run that is wrong from its first answer on."""
    outcomes = [play(lambda _: written, asked, Scene(), records=60, seed=seed, noise=0.02) for seed in range(seeds)]
    figure, whole = stopped(outcomes, written)
    reached = whole and all(outcome.wrong <= GOAL for outcome in outcomes)
    return Row(f"asked {asked}, answered {written}: most wrong answers", figure, f"≤ {GOAL}", reached)


def switched(what: str, before: str, after: str, scene: Scene, seeds: int, goal: int = GOAL) -> Row:
    """A run that goes wrong at its 60th answer."""

    def format_of(number: int) -> str:
        return before if number < SWITCH else after

    outcomes = [play(format_of, before, scene, records=240, seed=seed) for seed in range(seeds)]
    figure, whole = stopped(outcomes, after)
    reached = whole and all(outcome.wrong <= goal for outcome in outcomes)
    return Row(
        f"{what} changed at answer {SWITCH} ({before} to {after}): most wrong answers", figure, f"≤ {goal}", reached
    )


def right_runs(count: int) -> Row:
    """Runs that are right, in every format and of every kind of picture, up to 3% of noise and 20% of outliers."""
    false, answers, probes = [], 0, 0
    for seed in range(count):
        draw = random.Random(seed)
        kind = list(RIGHT)[seed % len(RIGHT)]
        written = FORMATS[(seed + seed // len(RIGHT)) % len(FORMATS)]
        noise, outliers = draw.uniform(0, 0.03), draw.uniform(0, 0.2)
        outcome = play(
            lambda _, f=written: f, written, RIGHT[kind], records=150, seed=seed, noise=noise, outliers=outliers
        )
        answers, probes = answers + outcome.answers, probes + outcome.probes
        if outcome.code != 0 or outcome.answers != 150:
            false.append(f"{kind}, {written}: {outcome.said.strip()}")
    figure = f"{len(false)} of {count}; {100 * probes / answers:.1f} probes for 100 answers"
    return Row("runs that are right and are stopped", figure + "".join(f"; {what}" for what in false), "0", not false)


def measure(seeds: int, right: int) -> list[Row]:
    """All rows."""
    rows = [from_the_start(asked, written, seeds) for asked, written in WRONG]
    rows += [switched(*case, seeds) for case in SWITCHES]
    rows.append(switched(*BLIND, seeds, goal=100 + IN_FLIGHT))
    return [*rows, right_runs(right)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each wrong kind (default: 5)")
    parser.add_argument("--right", type=int, default=50, help="runs that are right (default: 50)")
    given = parser.parse_args()
    rows = measure(given.seeds, given.right)
    print(table(rows))
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How soon the standing check stops a run whose boxes are in another format, and whether it stops a
right one.

    python -m benchmarks.box_watch [--seeds 5] [--right 100]

Whole runs of `generate` over the loopback server, with the defaults: probe pictures before the
first request and once in every 100. Boxes are as photos have them (people tall, cars wide, sizes
log-normal, pictures mostly 4:3), and come after 30 ms. A wrong record is one whose reply came in
another format. Goals: a format that is wrong from the start is found before a second answer; after
a change nothing is written; no right run is stopped; 1.04 requests for one. What is asked before a
change is found, and what of a mixture is written, has no goal: a check is sent at a random place in
each hundred requests, so two of them may be almost 200 apart.
"""

from __future__ import annotations

import argparse
import random

from benchmarks.watched_runs import (
    BLIND,
    HALF_PORTRAITS,
    LANDSCAPE,
    MINORITY_OF,
    PORTRAIT,
    RIGHT,
    SWITCHES,
    Outcome,
    play,
)
from dataflow_grounding.boxes.geometry import Size
from tests.support.measuring import Row, table
from tests.support.stand_ins.watched_model import (
    Scene,
)

FROM_THE_START = 1  # the run's first request is sent together with the first check
SWITCH = 60
NOISES = (0.005, 0.015, 0.03)
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
SHARES = (0.03, 0.10, 0.25)
FEW_PORTRAITS: tuple[Size, ...] = (LANDSCAPE,) * 24 + (PORTRAIT,)
FORMATS = (
    "xyxy_1000",
    "yxyx_1000",
    "xyxy_px",
    "xywh_1000",
    "xyxy_1",
    "cxcywh_px",
    "xyxy_100",
    "gemini",
)


# --- Another format from the start, or from some reply on


def stopped(outcomes: list[Outcome], fitting: str) -> tuple[str, bool]:
    """The figures of runs that should be stopped, and whether all were: soon, unwritten, the right
    format named.
    """
    worst = max(outcome.wrong for outcome in outcomes)
    whole = all(outcome.code == 2 and not outcome.wrote for outcome in outcomes)
    named = sum(f"{fitting} would fit" in outcome.said for outcome in outcomes)
    middle = sorted(outcome.wrong for outcome in outcomes)[len(outcomes) // 2]
    probes = max(outcome.probes for outcome in outcomes)
    figure = (
        f"{worst} ({middle} in the middle one; {probes} probes; named {named} of {len(outcomes)})"
    )
    return (figure if whole else f"not stopped: {figure}"), whole


def from_the_start(asked: str, written: str, seeds: int) -> Row:
    """A run that is wrong from its first answer on."""
    outcomes = [
        play(lambda *_: written, asked, Scene(), records=60, seed=seed, noise=0.02)
        for seed in range(seeds)
    ]
    figure, whole = stopped(outcomes, written)
    reached = whole and all(outcome.wrong <= FROM_THE_START for outcome in outcomes)
    title = f"asked {asked}, answered {written}: most wrong answers"
    return Row(title, figure, f"stopped; ≤ {FROM_THE_START}", reached)


def switched(what: str, before: str, after: str, scene: Scene, seeds: int) -> Row:
    """A run that goes wrong at its 60th answer: nothing is written."""

    def format_of(number: int, size: Size) -> str:
        return before if number < SWITCH else after

    outcomes = [
        play(format_of, before, scene, records=240, seed=seed, noise=NOISES[seed % 3])
        for seed in range(seeds)
    ]
    figure, whole = stopped(outcomes, after)
    title = f"{what} changed at answer {SWITCH} ({before} to {after}): most wrong answers"
    return Row(title, figure, "stopped", whole)


# --- A part of the replies in another format


def minority_row(title: str, outcomes: list[Outcome]) -> Row:
    """How many wrong answers were written, and how many of the runs were stopped."""
    wrong = sum(outcome.unmarked for outcome in outcomes if outcome.wrote)
    total = sum(outcome.replied_wrong for outcome in outcomes)
    ended = sum(not outcome.wrote for outcome in outcomes)
    figure = f"{wrong} of {total} written; {ended} of {len(outcomes)} runs stopped"
    return Row(title, figure)


def minorities(share: float, written: str, seeds: int, records: int) -> Row:
    """Runs in which a part of the replies comes in another format."""
    outcomes = []
    for seed in range(seeds):
        draw = random.Random(f"{seed}/{share}/{written}")

        def format_of(number: int, size: Size, draw: random.Random = draw) -> str:
            return written if draw.random() < share else "xyxy_1000"

        outcomes.append(
            play(
                format_of, "xyxy_1000", Scene(), records=records, seed=seed, noise=NOISES[seed % 3]
            )
        )
    return minority_row(
        f"{share:.0%} of the replies in {written}, {records} records: written as done", outcomes
    )


def portraits(title: str, sizes: tuple[Size, ...], seeds: int) -> Row:
    """Runs in which x and y are swapped in upright pictures alone."""

    def format_of(number: int, size: Size) -> str:
        return "yxyx_1000" if size[1] > size[0] else "xyxy_1000"

    scene = Scene(sizes=sizes)
    outcomes = [
        play(format_of, "xyxy_1000", scene, records=150, seed=seed, noise=NOISES[seed % 3])
        for seed in range(seeds)
    ]
    return minority_row(f"x and y swapped in portraits, {title}: written as done", outcomes)


# --- Runs that are right


def right_runs(count: int) -> list[Row]:
    """Runs that are right, in every format and of every kind of picture: none is stopped.

    Half of them are as usual: noise of 0.5 to 3% of the side, 5% of the boxes anywhere at all. The
    others are odd: noise to 6%, a fifth of the boxes anywhere, and in turn corners swapped in 15%,
    or 40% missing.
    """
    outcomes: dict[str, list[Outcome]] = {"usual": [], "odd": []}
    false: list[str] = []
    for seed in range(count):
        draw = random.Random(seed)
        kind = list(RIGHT)[seed % len(RIGHT)]
        written = FORMATS[(seed + seed // len(RIGHT)) % len(FORMATS)]
        name = list(outcomes)[seed // len(RIGHT) % 2]
        is_odd = name == "odd"
        noise = draw.uniform(0, 0.06) if is_odd else NOISES[seed % 3]
        outcome = play(
            lambda *_, f=written: f,
            written,
            RIGHT[kind],
            records=150,
            seed=seed,
            noise=noise,
            outliers=draw.uniform(0, 0.2) if is_odd else 0.05,
            swapped=0.15 if is_odd and seed % 3 == 1 else 0.0,
            missing=0.4 if is_odd and seed % 3 == 2 else 0.0,
        )
        outcomes[name].append(outcome)
        if outcome.code != 0 or outcome.answers != 150:
            false.append(f"{kind}, {written}, noise {noise:.1%}: {outcome.said.strip()}")
    suspects = sum(outcome.suspects for some in outcomes.values() for outcome in some)
    figure = f"{len(false)} of {count}; {suspects} records marked" + "".join(
        f"; {what}" for what in false
    )
    rows = [Row("runs that are right and are stopped", figure, "0", not false)]
    return rows + [cost_row(name, some) for name, some in outcomes.items()]


def cost_row(name: str, outcomes: list[Outcome]) -> Row:
    """How many requests such runs take for each that they have to make; the goal is
    for usual ones.
    """
    answers = sum(outcome.answers for outcome in outcomes) or 1
    probes = sum(outcome.probes for outcome in outcomes) / answers
    figure = f"{1 + probes:.3f}"
    title = f"requests for each request of a right run of 150, {name} ones"
    if name != "usual":
        return Row(title, figure)
    return Row(title, figure, "≤ 1.04", 1 + probes <= 1.04)


def measure(seeds: int, right: int) -> list[Row]:
    """All rows."""
    rows = [from_the_start(asked, written, seeds) for asked, written in WRONG]
    rows += [switched(*case, seeds) for case in SWITCHES]
    rows.append(switched(*BLIND, seeds))
    rows += [minorities(share, written, seeds, 170) for share in SHARES for written in MINORITY_OF]
    rows.append(portraits("half of all", HALF_PORTRAITS, seeds))
    rows.append(portraits("4% of all", FEW_PORTRAITS, seeds))
    return [*rows, *right_runs(right)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each wrong kind (default: 5)")
    parser.add_argument("--right", type=int, default=100, help="runs that are right (default: 100)")
    given = parser.parse_args()
    rows = measure(given.seeds, given.right)
    print(table(rows))
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())

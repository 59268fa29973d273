"""Seeded calibrations of models that count pixels of a picture which their server has resized, and
what is read then.

Edges are off by 0.5, 1.5 or 3% of the side (standard deviation), and none to a fifth of the boxes
are at random places. A model is calibrated in one of three ways:

- alone, as the command does: boxes have to be right in pictures of every size in SIZES;
- by a run that knows the sizes of its own pictures: boxes have to be right in those;
- alone, after which a run uses what is stored: it asks for a picture in each of its sizes that
  nothing covers, and calibrates again if that is wrong.

A box is right if no edge is off by more than 1% of the side, in a picture sent as a run sends it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from benchmarks.resize_rules import OTHERS, RULES, Placing
from benchmarks.stand_ins.probe_model import seen
from benchmarks.stand_ins.processors import PROCESSORS, made_up
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.finding import Deciding, Decision, add_frames
from dataflow_grounding.trust.frames import missing_frames
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import Probe, ProbeBox, ProbedPicture

MAX_SIDE = 2048
NOISES, OUTLIERS = (0.005, 0.015, 0.03), (0.0, 0.1, 0.2)
QUIET = 0.015
RIGHT = 0.01
# Standard errors beyond RIGHT, as a map states them: of thousands of edges some are two off.
STATED_ERRORS = 3.0
MOST_REFUSED = 0.12  # of the models that are off by QUIET or less
SIZES: tuple[Size, ...] = (
    (640, 480),
    (480, 640),
    (640, 427),
    (500, 333),
    (1242, 375),
    (2048, 1536),
    (1920, 1080),
    (1080, 1920),
    (4032, 3024),
    (3024, 4032),
    (300, 200),
    (120, 90),
    (64, 64),
    (1000, 1000),
    (1333, 800),
    (3000, 750),
    (750, 3000),
    (1600, 1200),
    (800, 600),
    (1024, 768),
    (700, 700),
    (512, 512),
    (2000, 500),
    (1180, 890),
    (1365, 1024),
    (384, 512),
    (700, 500),
    (900, 600),
    (600, 900),
    (612, 612),
    (1600, 900),
    (720, 1280),
    (400, 300),
    (375, 1242),
    (1024, 1024),
    (4000, 400),
)
ONE_SIZE: tuple[Size, ...] = ((640, 480), (1920, 1080), (4032, 3024), (480, 640))
MOST_OF_ONE_SIZE = 6  # requests of half of the runs
STATED = find_box_format("xyxy_1000", "")
Model = Callable[[Probe], ProbedPicture]


def decided(model: Model, own: Sequence[Size] = ()) -> tuple[Decision, int]:
    """The decision on a model, and how many pictures it took. Raises NoFit."""

    requests = 0

    async def ask(asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        nonlocal requests
        requests += len(asked)
        return [model(probe) for probe in asked]

    deciding = Deciding(ask, MAX_SIDE, own)
    return asyncio.run(deciding.decide(STATED)), requests


def used_by_a_run(model: Model, stored: Decision, own: Sequence[Size]) -> tuple[Decision, int]:
    """What a run with these sizes takes: what is stored, or a decision of its own; and how many
    pictures that took.

    Raises NoFit.
    """

    async def ask(asked: Sequence[Probe], stated: BoxFormat) -> list[ProbedPicture]:
        return [model(probe) for probe in asked]

    limits, known = stored.limits or SizeLimits(MAX_SIDE), stored.fit.format
    if known.maps:
        all_sizes = SizeLimits(MAX_SIDE)
        measured = [one.size for one in known.maps]
        missing = missing_frames(own, [1] * len(own), all_sizes, measured)
        further, pictures = asyncio.run(add_frames(ask, known, missing))
        limits = SizeLimits(MAX_SIDE, frames=tuple(one.size for one in further.maps))
        fit = replace(stored.fit, format=further)
        return Decision(fit, [*stored.pictures, *pictures], limits), len(pictures)
    return stored, 0


def with_rule(rule: Placing, draw: random.Random, noise: float, outliers: float) -> Model:
    """A model that counts whole pixels of the picture that a server's rule leaves it."""

    def model(probe: Probe) -> ProbedPicture:
        (width, height), (across, down, left, top) = probe.size, (*rule(*probe.size), 0, 0)[:4]
        factors, starts = (across / width, down / height) * 2, (left, top) * 2
        answers = [
            ProbeBox(
                phrase,
                probe.boxes[phrase],
                tuple(
                    round(n * f + start) for n, f, start in zip(bbox, factors, starts, strict=True)
                ),
            )
            for phrase, bbox in seen(probe, draw, noise, outliers).items()
        ]
        return ProbedPicture(probe, probe.size, answers)

    return model


def furthest_off(
    rule: Placing, decision: Decision, sizes: Sequence[Size] = SIZES
) -> tuple[float, Size]:
    """How far edges are off at the most, as a share of the side, in pictures of these sizes; and in
    which.
    """
    limits = decision.limits or SizeLimits(MAX_SIDE)
    worst = 0.0, sizes[0]
    for size in sizes:
        padded = limits.padded(size)
        sent = limits.sent(size)
        across, down, left, top = (*rule(*sent), 0, 0)[:4]
        right, bottom = left + across * size[0] / padded[0], top + down * size[1] / padded[1]
        x1, y1, x2, y2 = decision.fit.format.to_pixels(
            (left, top, right, bottom), original=padded, sent=sent
        )
        off = max(
            abs(x1) / size[0], abs(y1) / size[1], abs(x2 / size[0] - 1), abs(y2 / size[1] - 1)
        )
        for one in decision.fit.format.maps:
            if one.size == sent:  # what the map says of itself, of the picture's own side
                off -= STATED_ERRORS * one.error * max(padded[0] / size[0], padded[1] / size[1])
        worst = max(worst, (off, size))
    return worst


@dataclass(frozen=True)
class Outcome:
    """What came of one calibration: `kind` is right, wrong or refused."""

    kind: str
    why: str
    requests: int
    quiet: bool


def own_sizes(draw: random.Random) -> list[Size]:
    """A data set's sizes: a few that a calibrating run knows."""
    return draw.sample(SIZES, draw.randint(1, 8))


def one_rule(name: str, rule: Placing, seed: int) -> Outcome:
    """One model with the rule. `seed` says how noisy it is, and in which of the three ways it is
    calibrated.
    """
    draw = random.Random(f"{name}/{seed}")
    noise, outliers = NOISES[seed % 3], OUTLIERS[seed // 3 % 3]
    way = ("alone", "by a run", "stored")[seed // 9 % 3]
    own = [] if way == "alone" else own_sizes(draw)
    quiet = noise <= QUIET
    model = with_rule(rule, draw, noise, outliers)
    try:
        decision, requests = decided(model, own if way == "by a run" else [])
        if way == "stored":
            decision, more = used_by_a_run(model, decision, own)
            requests += more
    except NoFit as why:
        return Outcome("refused", str(why).partition(" (")[0], 0, quiet)
    # A run measures frames for what is more elongated than the usual ones.
    usual = [size for size in SIZES if max(size) <= 3 * min(size)]
    off, size = furthest_off(rule, decision, own or usual)
    if off <= RIGHT:
        return Outcome("right", "", requests, quiet)
    what = (
        f"{decision.fit.format.name} is {off:.0%} off at"
        f" {size[0]}x{size[1]}{' (own)' if own else ''}"
    )
    return Outcome("wrong", what, requests, quiet)


TABLES: dict[str, Mapping[str, Placing]] = {
    "rules in use": RULES,
    "others": OTHERS,
    "processors": PROCESSORS,
}


def _one(table: str, count: int, job: tuple[str, int]) -> Outcome:
    name, seed = job
    rules = TABLES[table] if table in TABLES else made_up(count, int(table.rpartition(" ")[2]))
    return one_rule(name, rules[name], seed)


def measured(table: str, runs: int, count: int = 0) -> dict[str, list[Outcome]]:
    """The outcomes of `runs` models for each rule of a table, or of `made up SEED`."""
    rules = TABLES[table] if table in TABLES else made_up(count, int(table.rpartition(" ")[2]))
    jobs = [(name, seed) for name in rules for seed in range(runs)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(partial(_one, table, count), jobs, chunksize=4))
    of: dict[str, list[Outcome]] = {name: [] for name in rules}
    for (name, _), outcome in zip(jobs, outcomes, strict=True):
        of[name].append(outcome)
    return of


def resized(table: str, runs: int, count: int = 0, *, every_row: bool = False) -> int:
    """Print how a table's rules went, row by row; returns how many goals were missed: models that
    were read wrong, and one more where too many were refused.
    """
    of = measured(table, runs, count)
    total: Counter[str] = Counter()
    for name, outcomes in of.items():
        counts = Counter(outcome.kind for outcome in outcomes)
        total += counts
        if every_row or counts["right"] < len(outcomes):
            reasons = Counter(
                f"{one.kind}: {one.why}"
                for one in sorted(outcomes, key=lambda one: one.kind == "refused")
            )
            del reasons["right: "]
            why = "; ".join(what for what, _ in reasons.most_common(2))
            print(
                f"  {name:48} {counts['right']:4} {counts['refused']:4} {counts['wrong']:4}  {why}"
            )
    everyone = [outcome for outcomes in of.values() for outcome in outcomes]
    quiet = [outcome for outcome in everyone if outcome.quiet]
    share = sum(outcome.kind == "refused" for outcome in quiet) / max(1, len(quiet))
    requests = sorted(outcome.requests for outcome in everyone if outcome.requests) or [0]
    print(
        f"{table}: {len(of)} rules x {runs} models: {total['right']} right, {total['wrong']} wrong"
        f" (goal 0), {total['refused']} refused; at noise up to {QUIET:.1%} {share:.1%} refused"
        f" (goal {MOST_REFUSED:.0%})\n  requests: {requests[0]} to {requests[-1]}, half of the"
        f" models {requests[len(requests) // 2]} or fewer",
        flush=True,
    )
    return total["wrong"] + (share > MOST_REFUSED)


def _requests_of_one_size(rule_name: str) -> list[int]:
    """How many requests runs take whose pictures have one size, one after another of a few."""
    counts = []
    for seed, size in enumerate(ONE_SIZE):
        draw = random.Random(f"{rule_name}/{size}")
        model = with_rule(RULES[rule_name], draw, NOISES[seed % 2], OUTLIERS[seed % 2])
        counts.append(decided(model, [size])[1])
    return counts


def of_one_size() -> int:
    """Print how many requests a run of one size takes with the rules in use, at noise up to QUIET.

    Returns 1 if half of the runs take more than MOST_OF_ONE_SIZE, else 0.
    """
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        counts = sorted(chain.from_iterable(pool.map(_requests_of_one_size, RULES)))
    middle = counts[len(counts) // 2]
    print(
        f"a run of one size: {len(counts)} models, {counts[0]} to {counts[-1]} requests, half of"
        f" them {middle} or fewer (goal {MOST_OF_ONE_SIZE})",
        flush=True,
    )
    return int(middle > MOST_OF_ONE_SIZE)

"""Calibrations of models with each rule of a table, row by row."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain

from benchmarks.processors import PROCESSORS, made_up
from benchmarks.resize_tables import OTHERS, RULES
from benchmarks.rule_runs import (
    NOISES,
    OUTLIERS,
    QUIET,
    Outcome,
    one_rule,
)
from dataflow_grounding.boxes.geometry import Size
from tests.support.stand_ins.resize_rules import Placing
from tests.support.stand_ins.resized_model import decided, with_rule

MOST_REFUSED = 0.12  # of the models that are off by QUIET or less
ONE_SIZE: tuple[Size, ...] = ((640, 480), (1920, 1080), (4032, 3024), (480, 640))
MOST_OF_ONE_SIZE = 6  # requests of half of the runs


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

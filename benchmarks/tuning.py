"""Whether `tune` chooses well: the way of asking of models whose accuracy by form is known.

    python -m benchmarks.tuning [--runs 2000] [--profiles FILE]

Each run draws 40 pictures of 6 phrases and lets the race choose within 160 requests. FILE has
profiles of your own: `name: {form: accuracy, …}`, the default form first.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.stand_ins.asking_profiles import SHIPPED, Profile, read_profiles
from dataflow_grounding.extras.tuning.race import Race

PHRASES = 6
GOAL_WORSE = 0.03
GOAL_FOUND = 0.90
GOAL_LOSS = 0.025
LARGE = 0.10  # a difference of accuracies that is to be found
SAME = 1e-9  # accuracies that differ by less are one


@dataclass(frozen=True)
class Outcome:
    """What many runs came to, of one model.

    `loss` is the mean of the best accuracy less the chosen one; `found` the share of runs that
    left the default for a better form; `requests` their mean.
    """

    loss: float
    worse: float
    found: float
    requests: float


def chosen(profile: Profile, scores: dict[str, np.ndarray], max_requests: int) -> Race:
    """Run one race over known scores."""
    others = [form for form in profile.accuracy if form != profile.default]
    pictures = len(scores[profile.default])
    race = Race(profile.default, others, pictures=pictures, max_requests=max_requests)
    while race.round:
        for form in race.round.ways:
            for picture in race.round.pictures:
                race.tell(form, picture, float(scores[form][picture]))
        race.judge()
    return race


def outcome_of(profile: Profile, runs: int, pictures: int, max_requests: int, seed: int) -> Outcome:
    """Let the race choose many times, each on pictures of its own."""
    chance = np.random.default_rng(seed)
    at_default = profile.accuracy[profile.default]
    losses, worse, found, requests = [], 0, 0, []
    for _ in range(runs):
        race = chosen(profile, profile.scores(chance, pictures, PHRASES), max_requests)
        accuracy = profile.accuracy[race.winner]
        losses.append(profile.best - accuracy)
        worse += accuracy < at_default - SAME
        found += accuracy > at_default + SAME
        requests.append(race.requests)
    return Outcome(float(np.mean(losses)), worse / runs, found / runs, float(np.mean(requests)))


def row_of(profile: Profile, outcome: Outcome) -> str:
    """Return a row of the table, with the goals that it misses."""
    difference = profile.best - profile.accuracy[profile.default]
    missed = []
    if outcome.worse > GOAL_WORSE:
        missed.append("worse")
    if outcome.loss > GOAL_LOSS:
        missed.append("loss")
    if difference >= LARGE - SAME and outcome.found < GOAL_FOUND:
        missed.append("found")
    misses = f"  misses {', '.join(missed)}" if missed else ""
    return (
        f"{profile.name:24} {100 * difference:10.1f} {100 * outcome.loss:6.1f}"
        f" {outcome.worse:6.1%} {outcome.found:6.1%} {outcome.requests:8.0f}{misses}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--profiles", type=Path, default=SHIPPED)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{arguments.runs:,} runs, {arguments.pictures} pictures of {PHRASES} phrases, at most"
        f" {arguments.requests} requests; loss and difference in points"
    )
    print(f"{'':24} {'difference':>10} {'loss':>6} {'worse':>6} {'found':>6} {'requests':>8}")
    print(f"{'goal':24} {'':10} {'2.5':>6} {'3.0%':>6} {'90.0%':>6}  found: from 10 points on")
    for profile in read_profiles(arguments.profiles):
        outcome = outcome_of(
            profile, arguments.runs, arguments.pictures, arguments.requests, arguments.seed
        )
        print(row_of(profile, outcome), flush=True)


if __name__ == "__main__":
    main()

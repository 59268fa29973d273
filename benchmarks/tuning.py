"""Whether `tune` chooses well: the way of asking of models whose accuracy by form is known.

    python -m benchmarks.tuning [--runs 2000] [--profiles FILE] [--chance 0.84] [--only-race]

Each run draws 40 pictures of 6 phrases and lets the race choose within 160 requests. FILE has
profiles of your own: `name: {form: accuracy, …}`, the default form first. Then definitions of
classes that are confused, and last each profile once through the real command on loopback.
`--chance` is of being better, at which a form replaces the default in the first of these tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from benchmarks.places.workplace import Workplace, command
from benchmarks.stand_ins.asking_model import AskingModel
from benchmarks.stand_ins.asking_profiles import SHIPPED, Profile, read_profiles
from benchmarks.stand_ins.check_quality import scenes
from benchmarks.stand_ins.definition_runs import Writer, gains_of
from dataflow_grounding.extras.testing import LoopbackServer
from dataflow_grounding.extras.tuning.candidates import DEFAULT
from dataflow_grounding.extras.tuning.race import Race, Rules

PHRASES = 6
USUAL_RULES = Rules()
GOAL_WORSE = 0.03
GOAL_FOUND = 0.90
GOAL_LOSS = 0.025
LARGE = 0.10  # a difference of accuracies that is to be found
GOAL_DEFINITIONS = 0.08
GOAL_HELD_OUT = 0.05
USUAL = "7 of 10 are good"
WRITERS = {
    USUAL: Writer(),
    "all are good": Writer(good=1.0, harmful=0.0),
    "4 of 10 are good": Writer(good=0.4, harmful=0.3),
    "none is good": Writer(good=0.0, harmful=0.5),
    "none does anything": Writer(good=0.0, harmful=0.0),
    "good ones do two thirds": Writer(kept_out=2 / 3),
    "40% are taken, not 70%": Writer(taken=0.4),
}
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


def chosen(
    profile: Profile, scores: dict[str, np.ndarray], max_requests: int, rules: Rules = USUAL_RULES
) -> Race:
    """Run one race over known scores."""
    others = [form for form in profile.accuracy if form != profile.default]
    pictures = len(scores[profile.default])
    race = Race(profile.default, others, pictures=pictures, max_requests=max_requests, rules=rules)
    while race.round:
        for form in race.round.ways:
            for picture in race.round.pictures:
                race.tell(form, picture, float(scores[form][picture]))
        race.judge()
    return race


def outcome_of(
    profile: Profile,
    runs: int,
    pictures: int,
    max_requests: int,
    seed: int,
    rules: Rules = USUAL_RULES,
) -> Outcome:
    """Let the race choose many times, each on pictures of its own."""
    chance = np.random.default_rng(seed)
    at_default = profile.accuracy[profile.default]
    losses, worse, found, requests = [], 0, 0, []
    for _ in range(runs):
        race = chosen(profile, profile.scores(chance, pictures, PHRASES), max_requests, rules)
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
        f"{profile.name:26} {100 * difference:8.1f} {100 * outcome.loss:6.1f}"
        f" {outcome.worse:6.1%} {outcome.found:6.1%} {outcome.requests:8.0f}{misses}"
    )


def print_definitions(runs: int, pictures: int, seed: int) -> None:
    """Print what definitions bring to classes that a model confuses, and how often they harm."""
    print(
        f"\n{runs:,} runs of definitions, {pictures} pictures, 2 confused classes of 8; gains of F1"
        " in points"
    )
    print(f"{'':24} {'confused':>8} {'worse, held out':>15} {'worse, fresh':>12} {'kept':>5}")
    print(f"{'goal':24} {'+8.0':>8} {'5.0%':>15} {'5.0%':>12}")
    for name, writer in WRITERS.items():
        chance = np.random.default_rng(seed)
        gains = [gains_of(writer, chance, pictures) for _ in range(runs)]
        confused = float(np.mean([gain.confused for gain in gains]))
        worse = float(np.mean([gain.held_out < -SAME for gain in gains]))
        worse_fresh = float(np.mean([gain.fresh < -SAME for gain in gains]))
        kept = float(np.mean([gain.kept for gain in gains]))
        missed = []
        if name == USUAL and confused < GOAL_DEFINITIONS:
            missed.append("confused")
        if max(worse, worse_fresh) > GOAL_HELD_OUT:
            missed.append("worse")
        misses = f"  misses {', '.join(missed)}" if missed else ""
        figures = f"{100 * confused:+8.1f} {worse:15.1%} {worse_fresh:12.1%} {kept:5.1f}"
        print(f"{name:24} {figures}{misses}", flush=True)


def print_commands(profiles: list[Profile], pictures: int, max_requests: int) -> None:
    """Print what the real command chooses, once for each profile, on loopback."""
    print("\nthe real command, once each, 8 phrases a picture")
    print(f"{'':24} {'chosen':>24} {'loss':>6} {'requests':>8}")
    with tempfile.TemporaryDirectory() as folder:
        gold = scenes(Path(folder), pictures)
        for profile in profiles:
            summary = tuned(profile, gold, Path(folder, profile.name), max_requests)
            form = profile.default if summary["chosen"] == DEFAULT else summary["chosen"]
            loss = 100 * (profile.best - profile.accuracy[form])
            print(f"{profile.name:24} {form:>24} {loss:6.1f} {summary['requests']:8d}", flush=True)


def tuned(
    profile: Profile, gold: list[dict[str, Any]], folder: Path, max_requests: int
) -> dict[str, Any]:
    """Run `dataflowgrounding tune` for a model of a profile, each form a word of guidance."""
    folder.mkdir()
    accuracy = {"": profile.accuracy[profile.default]}
    ways = []
    for form, share in profile.accuracy.items():
        if form != profile.default:
            word = f"<{form}>"
            accuracy[word] = share
            ways.append({"name": form, "set": {"workflow.guidance": word}})
    (folder / "ways.yaml").write_text(json.dumps(ways))  # JSON is YAML
    (folder / "gold.jsonl").write_text("".join(json.dumps(record) + "\n" for record in gold))
    # A draw of its own for each profile: one that is lucky for a form would be so in all of them.
    model = AskingModel(accuracy, seed=crc32(profile.name.encode()))
    with LoopbackServer(model, keep_bodies=True, record=False) as server:
        place = Workplace(folder, server.base_url, **{"vlm.box_format": "xyxy_1000"})
        place.rows([{"image_path": "a.jpg", "caption": "A box."}])
        files = ["--gold", str(folder / "gold.jsonl"), "--candidates", str(folder / "ways.yaml")]
        out = ["-o", str(folder / "tuning"), "--max-requests", str(max_requests), "--json"]
        done = command(["tune", str(place.spec()), *files, *out])
    if done.code:
        raise SystemExit(str(done))
    return done.summary


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
    parser.add_argument("--chance", type=float, default=USUAL_RULES.replaces_at)
    parser.add_argument("--only-race", action="store_true", help="print the first table alone")
    arguments = parser.parse_args()
    print(
        f"{arguments.runs:,} runs, {arguments.pictures} pictures of {PHRASES} phrases, at most"
        f" {arguments.requests} requests; loss and difference in points"
    )
    print(f"{'':24} {'difference':>10} {'loss':>6} {'worse':>6} {'found':>6} {'requests':>8}")
    print(f"{'goal':24} {'':10} {'2.5':>6} {'3.0%':>6} {'90.0%':>6}  found: from 10 points on")
    profiles = read_profiles(arguments.profiles)
    rules = Rules(replaces_at=arguments.chance)
    for profile in profiles:
        outcome = outcome_of(
            profile,
            arguments.runs,
            arguments.pictures,
            arguments.requests,
            arguments.seed,
            rules,
        )
        print(row_of(profile, outcome), flush=True)
    if arguments.only_race:
        return
    print_definitions(arguments.runs // 4, arguments.pictures, arguments.seed)
    print_commands(profiles, arguments.pictures, arguments.requests)


if __name__ == "__main__":
    main()

"""What ways of asking are worth, as tables next to their goals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.check_quality import (
    CHECK,
    OLD_WAYS,
    PLAIN,
    Way,
    Worth,
    mean_of,
    worth_of,
)
from tests.support.half_filled import NOISE, scenes
from tests.support.stand_ins.erring_model import ErringModel, Errors

HEAD = (
    f"{'':26} {'precision':>9} {'recall':>6} {'F1':>6} {'n_acc':>6} {'IL_MCC':>6}"
    f" {'decided':>7} {'undecided':>9} {'requests':>8} {'times':>6}"
)
RECALL_LOSS = 0.02
LEAST_MCC = {0.3: 0.94, 0.9: 0.84}  # by the share of absent things that are boxed
MOST_UNDECIDED = 0.20
MORE_F1 = 0.07  # of a check, where 20% of the things are missed
LEAST_DECIDED = 0.93
MOST_TIMES = 1.6


def goal_row(plain: Worth, absent: float) -> str:
    """The goals of a check, each under the figure that it is of."""
    least_mcc = f"{LEAST_MCC[absent]:.3f}" if absent in LEAST_MCC else ""
    return (
        f"{'goal: check':26} {'':9} {plain.recall - RECALL_LOSS:6.3f} {'':6} {'':6}"
        f" {least_mcc:>6} {LEAST_DECIDED:7.3f} {MOST_UNDECIDED:9.1%} {'':8} {MOST_TIMES:5.2f}x"
    )


def row_of(name: str, worth: Worth, plain: Worth, note: str = "") -> str:
    """A row of the table, compared with one grounding alone."""
    row = (
        f"{name:26} {worth.precision:9.3f} {worth.recall:6.3f} {worth.f1:6.3f} {worth.n_acc:6.3f}"
        f" {worth.il_mcc:6.3f} {worth.decided_mcc:7.3f} {worth.undecided:9.1%}"
        f" {worth.requests:8.2f} {worth.times(plain):5.2f}x  {note}"
    )
    return row.rstrip()


def missed_goals(worth: Worth, plain: Worth, absent: float) -> list[str]:
    """The goals of a check that its figures miss; they hold for a judge of .92, or a better one."""
    missed = []
    if worth.recall < plain.recall - RECALL_LOSS:
        missed.append("recall")
    if worth.il_mcc < LEAST_MCC.get(absent, 0):
        missed.append("IL_MCC")
    if worth.undecided > MOST_UNDECIDED:
        missed.append("undecided")
    if worth.decided_mcc < LEAST_DECIDED:
        missed.append("decided")
    if round(worth.times(plain), 3) > MOST_TIMES:
        missed.append("times")
    return missed


def misses(of_seeds: Sequence[Sequence[str]], of_mean: Sequence[str]) -> str:
    """Which goals are missed by the mean, and in how many seeds; empty where none is."""
    counts = Counter(goal for missed in of_seeds for goal in missed)
    told = []
    for goal, count in counts.items():
        mark = "!" if goal in of_mean else ""
        told.append(f"{goal}{mark} {count}/{len(of_seeds)}")
    return f"misses {', '.join(told)}" if told else ""


@dataclass(frozen=True)
class Table:
    """Which rows to print, on how many pictures.

    Each figure is the mean of those of `seeds`, each with pictures and errors of its own, the same
    for all ways. `misses` counts the seeds that miss a goal; the mean misses those marked with !.
    """

    pictures: int
    seeds: Sequence[int]
    folder: Path
    absent: Sequence[float] = (0.0, 0.3, 0.9)
    accuracies: Sequence[float] = (0.85, 0.90, 0.92, 0.94)
    kinds: Sequence[bool] = (True, False)

    def worths(self, errors: Errors, way: Way) -> list[Worth]:
        """What a way is worth with a model that errs so, for each seed."""
        worths = []
        for seed in self.seeds:
            gold = scenes(self.folder, self.pictures, seed)
            worths.append(worth_of(gold, ErringModel(errors, seed=seed), way))
        return worths

    def print_rows(self) -> None:
        """Old ways and the check, where absent things are boxed."""
        for shared in self.kinds:
            for absent in self.absent:
                kind = "the same each time" if shared else "others each time"
                print(f"\nabsent things boxed: {absent:.0%}, errors {kind}\n{HEAD}")
                errors = Errors(absent=absent, noise=NOISE, shared=shared)
                self.print_ways(errors, self.accuracies)

    def print_ways(self, errors: Errors, accuracies: Sequence[float]) -> None:
        """The old ways, and the check with judges of these accuracies; its goals above them."""
        old = {name: self.worths(errors, way) for name, way in OLD_WAYS.items()}
        plain = mean_of(old["plain"])
        for name, worths in old.items():
            print(row_of(name, mean_of(worths), plain), flush=True)
        print(goal_row(plain, errors.absent))
        for accuracy in accuracies:
            worths = self.worths(replace(errors, accuracy=accuracy), CHECK)
            mean = mean_of(worths)
            of_seeds = []
            for before, worth in zip(old["plain"], worths, strict=True):
                of_seeds.append(missed_goals(worth, before, errors.absent))
            note = misses(of_seeds, missed_goals(mean, plain, errors.absent))
            print(row_of(f"check, judge {accuracy:.2f}", mean, plain, note), flush=True)

    def print_all_errors(self) -> None:
        """Errors of all kinds at once."""
        for shared in self.kinds:
            kind = "the same each time" if shared else "others each time"
            what = "absent things boxed 30%, missed 10%, too large 10%, on another thing 8%"
            print(f"\n{what}, errors {kind}\n{HEAD}")
            errors = Errors(0.3, 0.1, 0.1, 0.08, NOISE, shared=shared)
            self.print_ways(errors, (0.92,))

    def print_misses(self) -> None:
        """How many of the things that were missed are found."""
        print(f"\n20% of the things missed\n{HEAD}")
        errors = Errors(missing=0.2, noise=NOISE)
        plains = self.worths(errors, PLAIN)
        plain = mean_of(plains)
        print(row_of("plain", plain, plain), flush=True)
        print(f"{'goal: check':26} {'':9} {'':6} {plain.f1 + MORE_F1:6.3f}")
        for accuracy in self.accuracies:
            worths = self.worths(replace(errors, accuracy=accuracy), CHECK)
            mean = mean_of(worths)
            of_seeds = []
            for before, worth in zip(plains, worths, strict=True):
                of_seeds.append(["F1"] if worth.f1 < before.f1 + MORE_F1 else [])
            note = misses(of_seeds, ["F1"] if mean.f1 < plain.f1 + MORE_F1 else [])
            row = row_of(f"check, judge {accuracy:.2f}", mean, plain)
            print(f"{row}  F1 {mean.f1 - plain.f1:+.3f}  {note}".rstrip(), flush=True)

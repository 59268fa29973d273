"""Runs of `tune --definitions` without requests: what a class's F1 is with and without a proposal.

A picture has a class's thing in half of the cases, and another thing that is taken for it in half.
The answer to other words is another answer, correlated with the first as forms of asking are.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from benchmarks.stand_ins.asking_profiles import RHO
from dataflow_grounding.extras.tuning.defining import LEAST_ERRORS, judged

FRESH = 1000  # pictures that neither the proposal nor its judge has seen


@dataclass(frozen=True)
class Writer:
    """A model that mistakes things, and its definitions.

    Args:
        taken: Share of the other things that are boxed, of a class that is confused.
        missed: Share of things without a box.
        good: Share of definitions that keep the other things out.
        kept_out: Share of the other things that a good definition keeps out.
        harmful: Share of definitions by which half of what counts is left out, too; the rest
            changes nothing but luck.
        confused: Classes that are confused; `others` aren't.
    """

    taken: float = 0.7
    missed: float = 0.1
    good: float = 0.7
    kept_out: float = 1.0
    harmful: float = 0.15
    confused: int = 2
    others: int = 6


@dataclass(frozen=True)
class Gains:
    """Gains of mean F1 by the definitions that are kept: of confused classes on fresh pictures, of
    all classes on the held-out ones and on fresh ones.
    """

    confused: float
    held_out: float
    fresh: float
    kept: int


class _Class:
    """A class on pictures: what is there, and how hard each thing is."""

    def __init__(self, chance: np.random.Generator, pictures: int) -> None:
        self._chance = chance
        self._pictures = pictures
        self._there = chance.random(pictures) < 0.5
        self._other = chance.random(pictures) < 0.5
        self._shared = chance.standard_normal((2, pictures))

    def answers(self, missed: float, taken: float) -> tuple[np.ndarray, np.ndarray]:
        """Return each picture's F1, and its count of errors, in one way of asking."""
        own = self._chance.standard_normal((2, self._pictures))
        ease = np.sqrt(RHO) * self._shared + np.sqrt(1 - RHO) * own
        found = self._there & (ease[0] >= _below(missed))
        false = self._other & (ease[1] < _below(taken))
        total = found.astype(int) + false + self._there
        f1 = np.where(total == 0, 1.0, 2 * found / np.maximum(total, 1))
        return f1, (self._there & ~found).astype(int) + false


def _below(share: float) -> float:
    if share <= 0:
        return -np.inf
    return NormalDist().inv_cdf(share)


def gains_of(writer: Writer, chance: np.random.Generator, pictures: int) -> Gains:
    """Let definitions be written on half of the pictures and judged on the others, once."""
    half = pictures // 2
    confused, held_out, fresh = [], [], []
    kept = 0
    for number in range(writer.confused + writer.others):
        taken = writer.taken if number < writer.confused else 0.0
        _, errors = _Class(chance, half).answers(writer.missed, taken)
        gain_there, gain_fresh = 0.0, 0.0
        if errors.sum() >= LEAST_ERRORS:
            draw = chance.random()
            told = (writer.missed, taken)
            if draw < writer.good:
                told = (writer.missed, taken * (1 - writer.kept_out))
            elif draw < writer.good + writer.harmful:
                told = (0.5 + writer.missed / 2, taken)
            there = _Class(chance, pictures - half)
            before, _ = there.answers(writer.missed, taken)
            after, _ = there.answers(*told)
            if judged(dict(enumerate(before)), dict(enumerate(after))).kept:
                kept += 1
                gain_there = float(after.mean() - before.mean())
                elsewhere = _Class(chance, FRESH)
                was, _ = elsewhere.answers(writer.missed, taken)
                now, _ = elsewhere.answers(*told)
                gain_fresh = float(now.mean() - was.mean())
        held_out.append(gain_there)
        fresh.append(gain_fresh)
        if number < writer.confused:
            confused.append(gain_fresh)
    return Gains(float(np.mean(confused)), float(np.mean(held_out)), float(np.mean(fresh)), kept)

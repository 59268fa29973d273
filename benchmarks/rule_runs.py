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
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust.finding import Decision, add_frames
from dataflow_grounding.trust.frames import missing_frames
from dataflow_grounding.trust.no_fit import NoFit
from dataflow_grounding.trust.probes import Probe, ProbedPicture
from tests.support.stand_ins.resize_rules import Placing
from tests.support.stand_ins.resized_model import (
    MAX_SIDE,
    SIZES,
    Model,
    decided,
    furthest_off,
    with_rule,
)

NOISES, OUTLIERS = (0.005, 0.015, 0.03), (0.0, 0.1, 0.2)
QUIET = 0.015
RIGHT = 0.01


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
        missing = missing_frames(own, all_sizes, measured)
        further, pictures = asyncio.run(add_frames(ask, known, missing))
        limits = SizeLimits(MAX_SIDE, frames=tuple(one.size for one in further.maps))
        fit = replace(stored.fit, format=further)
        return Decision(fit, [*stored.pictures, *pictures], limits), len(pictures)
    return stored, 0


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

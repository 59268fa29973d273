"""Phrases that are almost right, made up by a careless model: which are kept, how many are there.

Pictures of 1200 x 900 with 4 of 8 colours in them, of which 3 are told. The model that makes
phrases up changes a colour, a relation, a number or a noun; some of what it writes is there all the
same. Of the phrases of other images, one is: the colour that isn't told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.erring_model import Errors
from tests.support.stand_ins.phrasing_model import (
    PhrasingModel,
    is_there,
    steps_of,
    with_some_told,
)
from tests.support.stand_ins.seeing_model import COLORS

CARELESS = 0.3  # of the phrases that the model makes up, which are there
MOST_FALSE = 0.005


@dataclass
class Kept:
    """What became of the phrases that were made up; shares are in [0, 1]."""

    pictures: int
    requests: float = 0.0
    """A picture."""

    count: int = 0
    wrong: int = 0
    """Of those that were kept, how many are there."""

    of_ways: dict[str, Counter[bool]] = field(default_factory=dict)
    """By another way to choose: how many it would keep that are there (True), and not (False)."""

    changes: Counter[str] = field(default_factory=Counter)

    @property
    def false_share(self) -> float:
        """Of the phrases that were kept, those that are there."""
        return self.wrong / max(self.count, 1)

    def false_share_of(self, way: str) -> float:
        """Of the phrases that another way would keep, those that are there."""
        counts = self.of_ways[way]
        return counts[True] / max(counts.total(), 1)


OTHER_WAYS = ("made up", "not found")


def kept_of(
    gold: Sequence[dict[str, Any]], errors: Errors, careless: float = CARELESS, seed: int = 0
) -> Kept:
    """Have negatives made up for the gold's pictures, and checked."""
    model = PhrasingModel(errors, careless=careless, seed=seed)
    phrases = [f"the {color} box" for color in sorted(COLORS)]
    records: Any = with_some_told(gold)
    with LoopbackServer(model, record=False) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        for step in steps_of(serving, 5, phrases):
            records = step(records)
        kept = Kept(len(gold), server.count() / len(gold))
    kept.of_ways = {way: Counter() for way in OTHER_WAYS}
    for truth, record in zip(gold, records, strict=True):
        negatives = [e for e in record["expressions"] if e.get("source") == "negative"]
        for expression in negatives:
            kept.count += 1
            kept.wrong += is_there(expression["text"], truth)
            kept.changes[expression["change"]] += 1
        for candidate in [*negatives, *record["negative_candidates"]]:
            for way in _ways_that_keep(candidate):
                kept.of_ways[way][is_there(candidate["text"], truth)] += 1
    return kept


def _ways_that_keep(candidate: dict[str, Any]) -> list[str]:
    """The other ways by which a candidate would be kept."""
    ways = ["made up"]
    if candidate.get("reason") != "it was found":
        ways.append("not found")
    return ways

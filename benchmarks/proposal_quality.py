"""What a judge makes of a detector's boxes: false ones dropped, missing ones found.

Pictures of 1200 x 900 with 4 of 8 colours in them. Of the proposals, 30% are false: half of them a
box around another thing for a colour that is there, half for one that isn't. 15% of the things
that are there have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding import BoxChecker, MissingFinder
from dataflow_grounding.boxes.geometry import box_of, iou
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer
from tests.support.half_filled import NOISE, proposals_for
from tests.support.stand_ins.erring_model import ErringModel, Errors

LEAST_DROPPED = 0.72  # of the false boxes; most others stay in doubt
LEAST_FOUND = 0.6
MOST_REQUESTS = 2.0


@dataclass(frozen=True)
class Verified:
    """What became of proposals: shares in [0, 1], and requests a picture."""

    dropped: float  # of the false ones
    kept: float  # of the true ones
    moved: int  # true ones whose numbers changed
    found: float  # of the things without a proposal
    requests: float

    def missed_goals(self) -> list[str]:
        """The goals that these figures miss; they hold for a judge of .92, or a better one."""
        missed = []
        if self.dropped < LEAST_DROPPED:
            missed.append("dropped")
        if self.moved:
            missed.append("moved")
        if self.found < LEAST_FOUND:
            missed.append("found")
        if self.requests > MOST_REQUESTS:
            missed.append("requests")
        return missed


def verified(gold: Sequence[dict[str, Any]], accuracy: float, seed: int = 0) -> Verified:
    """Have a judge of this accuracy look at proposals for the gold's pictures."""
    proposed = proposals_for(gold, seed)
    model = ErringModel(Errors(noise=NOISE, accuracy=accuracy), seed=seed)
    with LoopbackServer(model, record=False) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        judged: Any = BoxChecker(serving)(proposed)
        completed: Any = MissingFinder(serving)(judged)
        requests = server.count() / len(gold)
    counts = {"false": 0, "dropped": 0, "true": 0, "kept": 0, "lacking": 0, "found": 0, "moved": 0}
    for truth, before, after in zip(gold, proposed, completed, strict=True):
        rows = zip(truth["expressions"], before["expressions"], after["expressions"], strict=True)
        for gold_expression, proposal, result in rows:
            _count(counts, gold_expression, proposal, result)
    return Verified(
        dropped=counts["dropped"] / counts["false"],
        kept=counts["kept"] / counts["true"],
        moved=counts["moved"],
        found=counts["found"] / counts["lacking"],
        requests=requests,
    )


def _count(
    counts: dict[str, int], gold: dict[str, Any], proposal: dict[str, Any], result: dict[str, Any]
) -> None:
    """Add what became of one phrase's proposals."""
    left = [instance["bbox"] for instance in result["instances"]]
    gone = [instance["bbox"] for instance in result.get("rejected", [])]
    for instance in proposal["instances"]:
        kind, outcome, is_so = ("true", "kept", instance["bbox"] in left)
        if instance["false"]:
            kind, outcome, is_so = ("false", "dropped", instance["bbox"] in gone)
        counts[kind] += 1
        counts[outcome] += is_so
        counts["moved"] += instance["bbox"] not in [*left, *gone]
    has_true = any(not instance["false"] for instance in proposal["instances"])
    if gold["instances"] and not has_true:
        counts["lacking"] += 1
        thing = box_of(gold["instances"][0]["bbox"])
        counts["found"] += any(iou(box_of(bbox), thing) >= 0.5 for bbox in left)

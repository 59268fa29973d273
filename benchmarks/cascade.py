"""A cheaper model first: what a better one brings where it is asked only what a check doubts.

    python -m benchmarks.cascade [--pictures 40] [--seed 0]

The small model boxes 90% of absent things and judges at .85, always alike; the large one boxes 10%
and judges at .94. Pictures of 1200 x 900 with 4 of 8 colours, all 8 asked for. A request to the
large model is counted as ten of the small one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stand_ins.check_quality import NOISE, full_check, scenes
from benchmarks.stand_ins.erring_model import ErringModel, Errors
from dataflow_grounding import Operator, PhraseGrounder, SecondOpinion
from dataflow_grounding.extras.evaluation.metrics import evaluate
from dataflow_grounding.extras.testing import LoopbackServer
from dataflow_grounding.serving import OpenAIServing, Serving

SMALL = Errors(absent=0.9, noise=NOISE, accuracy=0.85)
LARGE = Errors(absent=0.1, noise=NOISE, accuracy=0.94)
PRICE = 10  # of a request to the large model, in requests to the small one
Steps = Callable[[Serving, Serving], Sequence[Operator]]

WAYS: dict[str, Steps] = {
    "small": lambda small, large: [PhraseGrounder(small)],
    "small, checked": lambda small, large: [PhraseGrounder(small), *full_check(small)],
    "small, checked, then large": lambda small, large: [
        PhraseGrounder(small),
        *full_check(small),
        SecondOpinion(large),
    ],
    "the same from doubt 0.25 on": lambda small, large: [
        PhraseGrounder(small),
        *full_check(small),
        SecondOpinion(large, from_doubt=0.25),
    ],
    "large": lambda small, large: [PhraseGrounder(large)],
    "large, checked": lambda small, large: [PhraseGrounder(large), *full_check(large)],
}


@dataclass(frozen=True)
class Outcome:
    """What a way is worth, and the requests a picture that it took of each model."""

    f1: float
    il_mcc: float
    small: float
    large: float

    @property
    def cost(self) -> float:
        """In requests to the small model."""
        return self.small + PRICE * self.large


def outcome_of(gold: list[dict[str, Any]], steps: Steps, seed: int) -> Outcome:
    """Take the gold's phrases through a way."""
    found: Any = []
    for record in gold:
        texts = [expression["text"] for expression in record["expressions"]]
        found.append({"image_path": record["image_path"], "caption": "", "expressions": texts})
    with (
        LoopbackServer(ErringModel(SMALL, seed=seed), keep_bodies=True, record=False) as small,
        LoopbackServer(ErringModel(LARGE, seed=seed + 1), keep_bodies=True, record=False) as large,
    ):
        servings = [
            OpenAIServing(server.base_url, name, box_format="xyxy_1000")
            for server, name in ((small, "small"), (large, "large"))
        ]
        for operator in steps(*servings):
            found = operator(found)
            if found.failures:
                raise found.failures[0][1]
        counts = [server.count() / len(gold) for server in (small, large)]
    figures = evaluate(found, gold).figures
    precision = figures["precision_at_iou_0.5"] or 0.0
    recall = figures["recall_at_iou_0.5"] or 0.0
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return Outcome(f1, figures["il_mcc"] or 0.0, *counts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{'requests a picture':28} {'small':>6} {'large':>6} {'cost':>6} {'F1':>6} {'IL_MCC':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        gold = scenes(Path(folder), arguments.pictures, arguments.seed)
        for name, steps in WAYS.items():
            result = outcome_of(gold, steps, arguments.seed)
            print(
                f"{name:28} {result.small:6.2f} {result.large:6.2f} {result.cost:6.2f}"
                f" {result.f1:6.3f} {result.il_mcc:7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What ways of asking are worth where a model boxes what isn't there, always alike.

Pictures of 1200 x 900 with 4 of 8 colours in them, all 8 asked for. `of the decided` leaves out the
phrases of which a check couldn't tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding import (
    BoxChecker,
    MissingFinder,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding.evaluation.metrics import evaluate
from dataflow_grounding.serving import OpenAIServing, Serving
from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.erring_model import ErringModel

EXTRACTION = 1.0  # requests a picture of the step before grounding, which is not run here


@dataclass(frozen=True)
class Worth:
    """What a way of asking is worth: shares in [0, 1], and requests a picture from grounding on.

    `decided_mcc` is IL_MCC of the decided, `undecided` their share of the phrases that the check
    was asked about.
    """

    precision: float
    recall: float
    f1: float
    n_acc: float
    il_mcc: float
    decided_mcc: float
    undecided: float
    requests: float

    def times(self, plain: Worth) -> float:
        """Requests as a multiple of those of extraction and one grounding."""
        return (EXTRACTION + self.requests) / (EXTRACTION + plain.requests)


@dataclass(frozen=True)
class Way:
    """A way of asking: answers per phrase, and the operators after grounding.

    `steps` makes them, of the serving that grounds, which is the judge too.
    """

    samples: int
    steps: Callable[[Serving], Sequence[Operator]]


PLAIN = Way(1, lambda serving: [])
OLD_WAYS = {
    "plain": PLAIN,
    "3 samples": Way(3, lambda serving: []),
    "5 samples": Way(5, lambda serving: []),
}


CHECK = Way(1, lambda serving: [BoxChecker(serving), MissingFinder(serving)])
"""`workflow.check: true`."""


def worth_of(gold: list[dict[str, Any]], model: ErringModel, way: Way) -> Worth:
    """Ground the gold's phrases and take them through the way's steps."""
    found: Any = []
    for record in gold:
        texts = [expression["text"] for expression in record["expressions"]]
        found.append({"image_path": record["image_path"], "caption": "", "expressions": texts})
    with LoopbackServer(model, record=False) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        operators = [PhraseGrounder(serving, samples=way.samples), *way.steps(serving)]
        for operator in operators:
            found = operator(found)
            if found.failures:
                raise found.failures[0][1]
        requests = server.count() / len(gold)
    figures = evaluate(found, gold).figures
    decided = [decided_part(record) for record in found]
    texts = [{e["text"] for e in record["expressions"]} for record in decided]
    gold_part = []
    for record, there in zip(gold, texts, strict=True):
        expressions = [e for e in record["expressions"] if e["text"] in there]
        gold_part.append({**record, "expressions": expressions})
    phrases = sum(len(record["expressions"]) for record in gold)
    decided_mcc = 0.0  # where nothing is decided, or nothing that there is
    if any(e["instances"] for record in gold_part for e in record["expressions"]):
        decided_mcc = evaluate(decided, gold_part).figures["il_mcc"] or 0.0
    precision = figures["precision_at_iou_0.5"] or 0.0
    recall = figures["recall_at_iou_0.5"] or 0.0
    return Worth(
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / max(precision + recall, 1e-9),
        n_acc=figures["n_acc"] or 0.0,
        il_mcc=figures["il_mcc"] or 0.0,
        decided_mcc=decided_mcc,
        undecided=1 - sum(map(len, texts)) / phrases,
        requests=requests,
    )


def decided_part(record: dict[str, Any]) -> dict[str, Any]:
    """The record, without expressions of which a check couldn't tell."""
    expressions = [e for e in record["expressions"] if e.get("verified", True) is not None]
    return {**record, "expressions": expressions}


def mean_of(worths: Sequence[Worth]) -> Worth:
    """The mean of what a way is worth, over several seeds."""
    means = {}
    for name in Worth.__annotations__:
        values = [getattr(worth, name) for worth in worths]
        means[name] = sum(values) / len(values)
    return Worth(**means)

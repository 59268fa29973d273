"""How good a run's boxes are, against the gold that its loopback model looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.judging_model import JudgingModel
from dataflow_grounding import (
    BoxChecker,
    BoxRefiner,
    MissingFinder,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.evaluation.metrics import evaluate
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import LoopbackServer
from tests.support.half_filled import SIZE
from tests.support.stand_ins.seeing_model import SeeingModel


@dataclass(frozen=True)
class Figures:
    """One way to ask: shares in [0, 1], and requests for each picture."""

    precision: float
    recall: float
    miou: float
    small_miou: float
    requests: float


def measure(
    gold: list[dict[str, Any]],
    model: SeeingModel | JudgingModel,
    name: str = "loopback",
    box_format: str = "xyxy_1000",
    *,
    samples: int = 1,
    zoom: bool = False,
    check: bool = False,
    **settings: Any,
) -> Figures:
    """What a way to ask finds. `name` is the model's."""
    rows = [
        {
            "image_path": g["image_path"],
            "caption": "",
            "expressions": [e["text"] for e in g["expressions"]],
        }
        for g in gold
    ]
    with LoopbackServer(model, record=False) as server:
        serving = OpenAIServing(server.base_url, name, box_format=box_format)
        steps: list[Operator] = [PhraseGrounder(serving, samples=samples, **settings)]
        steps += [BoxRefiner(serving, samples=samples, **settings)] if zoom else []
        steps += [BoxChecker(serving), MissingFinder(serving)] if check else []
        found: Any = rows
        for step in steps:
            found = step(found)
            if found.failures:
                raise found.failures[0][1]
        requests = server.count() / len(gold)
    return _figures(found, gold, requests)


def _figures(found: list[dict[str, Any]], gold: list[dict[str, Any]], requests: float) -> Figures:
    scores = evaluate(found, gold).figures
    overlaps: list[float] = []
    small: list[float] = []
    for record, right in zip(found, gold, strict=True):
        boxes = {e["text"]: [i["bbox"] for i in e["instances"]] for e in record["expressions"]}
        for expression in right["expressions"]:
            [bbox] = [tuple(i["bbox"]) for i in expression["instances"]]
            best = max(
                (iou(bbox, tuple(b)) for b in boxes.get(expression["text"], [])), default=0.0
            )
            overlaps.append(best)
            if max((bbox[2] - bbox[0]) / SIZE[0], (bbox[3] - bbox[1]) / SIZE[1]) < 0.03:
                small.append(best)
    return Figures(
        scores["precision_at_iou_0.5"] or 0.0,
        scores["recall_at_iou_0.5"] or 0.0,
        sum(overlaps) / len(overlaps),
        sum(small) / max(len(small), 1),
        requests,
    )

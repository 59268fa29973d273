"""The worst cases, as records that the report shows: each phrase with its gold boxes, and beside it what was found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dataflow_grounding.metrics.annotations import Annotations
from dataflow_grounding.metrics.evaluating import Evaluation


def worst_cases(run: Evaluation, most: int = 100) -> Iterator[dict[str, Any]]:
    """Records with the phrases that are not right, the smallest IoU of the first box first; `most` phrases."""
    pairs, by_record = run.pairs, dict[int, list[dict[str, Any]]]()
    for place in np.lexsort((run.overlap, run.right))[: min(most, (~run.right).sum())].tolist():
        expressions = by_record.setdefault(int(pairs.record_of[place]), [])
        expressions.append(_shown(pairs.gold, place, "gold"))
        if pairs.partner[place] >= 0:
            expressions.append(_shown(pairs.found, pairs.partner[place], f"found, IoU {run.overlap[place]:.2f}"))
    for record, expressions in by_record.items():
        yield {**pairs.gold.records[record], "expressions": expressions}


def _shown(side: Annotations, place: int, what: str) -> dict[str, Any]:
    phrase, boxes = side.phrases[place], slice(*side.boxes.starts[place : place + 2])
    scores = np.where(np.isnan(side.boxes.scores[boxes]), None, side.boxes.scores[boxes]).tolist()
    instances = [{"bbox": b, "score": s} for b, s in zip(side.boxes.corners[boxes].tolist(), scores, strict=True)]
    shown = {name: phrase[name] for name in ("status", "verified", "char_span")}
    return {**shown, "text": f"{phrase['text']} ({what})", "instances": instances}

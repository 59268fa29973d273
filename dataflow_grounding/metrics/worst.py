"""The worst cases, as records that the report shows: each phrase with its gold boxes, and beside it what was found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dataflow_grounding.metrics.annotations import Annotations
from dataflow_grounding.metrics.evaluating import Evaluation


def worst_cases(run: Evaluation, most: int = 100) -> Iterator[dict[str, Any]]:
    """Records with the phrases that are not right, the smallest IoU of the first box first; `most` phrases."""
    pairs, by_record = run.pairs, dict[int, list[int]]()
    order = np.lexsort((run.overlap, run.right))
    for place in order[: min(most, int((~run.right).sum()))].tolist():
        by_record.setdefault(int(pairs.record_of[place]), []).append(place)
    for record, places in by_record.items():
        expressions = []
        for place in places:
            expressions.append(_shown(pairs.gold, place, "gold"))
            if pairs.partner[place] >= 0:
                found = f"found, IoU {run.overlap[place]:.2f}"
                expressions.append(_shown(pairs.found, int(pairs.partner[place]), found))
        other = int(pairs.records[record])
        known = {**(pairs.found.records[other] if other >= 0 else {})}
        known |= {name: value for name, value in pairs.gold.records[record].items() if value is not None}
        yield {**known, "expressions": expressions}


def _shown(side: Annotations, place: int, what: str) -> dict[str, Any]:
    boxes = slice(*side.boxes.starts[place : place + 2])
    scores = [None if score != score else score for score in side.boxes.scores[boxes].tolist()]
    instances = [{"bbox": box, "score": s} for box, s in zip(side.boxes.corners[boxes].tolist(), scores, strict=True)]
    phrase = side.phrases[place]
    return {**phrase, "text": f"{phrase['text']} ({what})", "instances": instances}

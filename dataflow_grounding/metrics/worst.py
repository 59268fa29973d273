"""The worst cases, as records that the report shows: each phrase with its gold boxes, and beside it what was found."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dataflow_grounding.metrics.evaluating import Evaluation


def worst_cases(run: Evaluation, most: int = 100) -> Iterator[dict[str, Any]]:
    """Records with the phrases that are not right, the smallest IoU of the first box first; `most` phrases."""
    overlap = run.columns["held"]
    worst = set(np.lexsort((overlap, run.right))[: min(most, (~run.right).sum())].tolist())
    start = 0
    for record in run.pairs:
        expressions = []
        for place, (gold, found) in enumerate(record.phrases, start):
            if place in worst:
                expressions.append({**gold, "text": f"{gold['text']} (gold)"})
                if found:
                    expressions.append({**found, "text": f"{found['text']} (found, IoU {overlap[place]:.2f})"})
        start += len(record.phrases)
        if expressions:
            yield {**record.gold, "expressions": expressions}

"""Groups of gold phrases that figures are shown by: size, length, category, and what the predictions say of them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator

import numpy as np

from dataflow_grounding.metrics.measures import share
from dataflow_grounding.metrics.pairs import Pairs
from dataflow_grounding.replies.labels import head_word

_MOST = 20  # of each kind: the largest
_WORDS = ((4, 7, 10), ("1-3", "4-6", "7-9", "10 or more"))  # D³'s
_AREAS = ((32**2, 96**2), ("small, < 32² px", "medium, < 96² px", "large"))  # COCO's; of several boxes the mean


def groups_of(pairs: Pairs) -> Iterator[tuple[str, str, list[int]]]:
    """Kind of group, its name, the places of its phrases; a phrase may be in several groups of a kind."""
    kinds: dict[str, dict[str, list[int]]] = {}
    boxes = pairs.gold.boxes
    sums = np.append(0, np.cumsum(np.prod(boxes.corners[:, 2:] - boxes.corners[:, :2], axis=1)))[boxes.starts]
    for place, area in enumerate(share(np.diff(sums), boxes.counts).tolist()):
        for kind, name in _names(pairs, place, area):
            kinds.setdefault(kind, {}).setdefault(name, []).append(place)
    for kind, groups in kinds.items():
        for name in sorted(sorted(groups, key=lambda name: -len(groups[name]))[:_MOST]):
            yield kind, name, groups[name]


def _names(pairs: Pairs, place: int, area: float) -> Iterator[tuple[str, str]]:
    phrase, other = pairs.gold.phrases[place], int(pairs.partner[place])
    if pairs.gold.boxes.counts[place]:
        yield "size", _AREAS[1][bisect(_AREAS[0], area)]
    yield "words", _WORDS[1][bisect(_WORDS[0], len(phrase["text"].split()))]
    types = phrase["type"] or head_word(phrase["text"])
    yield from (("category", str(name)) for name in (types if isinstance(types, (list, tuple)) else [types]))
    found = pairs.found.phrases[other] if other >= 0 else {"status": "missing"}
    yield "status", str(found["status"] or "not stated")
    if other >= 0 and (model := pairs.found.records[found["record"]]["model"]):
        yield "model", str(model)

"""Groups of gold phrases that figures are shown by: size, length, category, and what the predictions say of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dataflow_grounding.metrics.pairs import Pairs
from dataflow_grounding.metrics.sums import share
from dataflow_grounding.replies.labels import head_word

_MOST = 20  # of each kind: the largest
_WORDS = {0: "1-3", 4: "4-6", 7: "7-9", 10: "10 or more"}  # D³'s
_SIDES = {0: "small, < 32² px", 32: "medium, < 96² px", 96: "large"}  # COCO's; of several boxes by their mean area


def groups_of(pairs: Pairs) -> Iterator[tuple[str, str, list[int]]]:
    """Kind of group, its name, the places of its phrases; a phrase may be in several groups of a kind."""
    kinds: dict[str, dict[str, list[int]]] = {}
    boxes = pairs.gold.boxes
    areas = np.append(0, np.cumsum(np.prod(boxes.corners[:, 2:] - boxes.corners[:, :2], axis=1)))[boxes.starts]
    sides = np.sqrt(np.maximum(share(np.diff(areas), boxes.counts), 0)).tolist()  # NaN without boxes
    for place, side in enumerate(sides):
        for kind, name in _names(pairs, place, side):
            kinds.setdefault(kind, {}).setdefault(name, []).append(place)
    for kind, groups in kinds.items():
        for name in sorted(sorted(groups, key=lambda name: -len(groups[name]))[:_MOST]):
            yield kind, name, groups[name]


def _names(pairs: Pairs, place: int, side: float) -> Iterator[tuple[str, str]]:
    phrase, other = pairs.gold.phrases[place], int(pairs.partner[place])
    if not math.isnan(side):
        yield "size", _bucket(_SIDES, side)
        width, height = (pairs.gold.records[phrase["record"]][key] for key in ("width", "height"))
        if width and height:
            tenth = min(9, int(10 * side / math.sqrt(abs(width * height))))
            yield "share of the picture's side", f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}"
    yield "words", _bucket(_WORDS, len(phrase["text"].split()))
    types = phrase["type"] or head_word(phrase["text"])
    yield from (("category", str(name)) for name in (types if isinstance(types, (list, tuple)) else [types]))
    if other < 0:
        yield "status", "missing"
        return
    found = pairs.found.phrases[other]
    yield "status", str(found["status"] or "not stated")
    if model := pairs.found.records[found["record"]]["model"]:
        yield "model", str(model)


def _bucket(buckets: dict[int, str], value: float) -> str:
    return next(name for edge, name in reversed(buckets.items()) if edge <= value)

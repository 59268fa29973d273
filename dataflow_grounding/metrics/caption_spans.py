"""Spans: whether the right words of a caption are taken for phrases, alone and together with their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from dataflow_grounding.metrics.annotations import Annotations
from dataflow_grounding.metrics.measures import Columns
from dataflow_grounding.metrics.overlaps import Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import Pairs

Spans: TypeAlias = Mapping[int, Sequence[int]]  # place of a phrase → [start, end)


def span_columns(pairs: Pairs, rules: Rules) -> Columns:
    """What counts for each gold record; nothing where the captions differ, or a whole file states no span."""
    gold, found = pairs.gold, pairs.found
    spans, others = _spans(gold), _spans(found)
    names = [f"span_{kind}{ending}" for kind in ("exact", "overlap", "char") for ending in ("_f1", "")]
    columns = {name: np.zeros(len(gold.records)) for name in (*names, "joint", "spans_and_boxes", "captions")}
    if not (any(spans) and any(others)):
        return columns
    partner = np.full(len(gold.phrases), -1)
    for place, other in enumerate(pairs.records.tolist()):
        if other >= 0 and _caption(gold, place) != _caption(found, other):
            continue
        there, said = spans[place], others[other]
        met = match_spans(there, said, exact=True)
        partner[list(met)] = list(met.values())
        letters, theirs = ({n for span in side.values() for n in range(*span)} for side in (there, said))
        rights = len(met), len(match_spans(there, said, exact=False)), len(letters & theirs)
        sizes = (size := len(there) + len(said)), size, len(letters) + len(theirs)
        for kind, right, both in zip(("exact", "overlap", "char"), rights, sizes, strict=True):
            columns[f"span_{kind}_f1"][place], columns[f"span_{kind}"][place] = 2 * right, both
        boxes = gold.boxes.counts[list(there)].sum() + found.boxes.counts[list(said)].sum()
        columns["spans_and_boxes"][place], columns["captions"][place] = boxes, 1
    matched = one_to_one(overlaps_of(gold.boxes, found.boxes, partner, rules), rules)
    right = matched.phrase[rules.passes(matched.overlap, rules.threshold)]
    np.add.at(columns["joint"], pairs.record_of[right], 2)
    return columns


def _spans(side: Annotations) -> list[dict[int, Sequence[int]]]:
    """Those of each record, and none for record -1."""
    spans: list[dict[int, Sequence[int]]] = [{} for _ in range(len(side.records) + 1)]
    for place, phrase in enumerate(side.phrases):
        if phrase["char_span"]:
            spans[phrase["record"]][place] = tuple(phrase["char_span"])
    return spans


def _caption(side: Annotations, record: int) -> object:
    return side.records[record]["cleaned_caption"] or side.records[record]["caption"]


def match_spans(gold: Spans, found: Spans, *, exact: bool) -> dict[int, int]:
    """Which span is which, one to one: equal ones, or those that share a character, the longest overlap first.

    Example:
        >>> match_spans({7: (0, 5), 8: (6, 12)}, {1: (0, 3), 2: (4, 12)}, exact=False)
        {8: 2, 7: 1}
    """
    near = [
        (max(a[0], b[0]) - min(a[1], b[1]), n, m)
        for n, a in gold.items()
        for m, b in found.items()
        if (a == b if exact else max(a[0], b[0]) < min(a[1], b[1]))
    ]
    met: dict[int, int] = {}
    for _, n, m in sorted(near):
        if n not in met and m not in met.values():
            met[n] = m
    return met

"""Spans: whether the right words of a caption are taken for phrases, alone and together with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

from dataflow_grounding.metrics.overlaps import Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import PairedRecord

Spans: TypeAlias = Sequence[Sequence[int]]  # [start, end) of each


def of_caption(record: PairedRecord, rules: Rules) -> dict[str, float]:
    """What counts for the spans of a record; nothing where the captions differ."""
    rows = [row for row in (record.gold, record.found) if row]
    comparable = len({str(row["cleaned_caption"] or row["caption"]) for row in rows}) == 1
    sides = [
        [p for p in row["expressions"] if p.get("char_span") and comparable] for row in (*rows, {"expressions": []})
    ]
    wanted, answers = sides[:2]
    gold, found = ([phrase["char_span"] for phrase in side] for side in sides[:2])
    letters, theirs = ({n for span in spans for n in range(*span)} for spans in (gold, found))
    equal = match_spans(gold, found, exact=True)
    overlaps = [overlaps_of(rules.boxes_of(answers[m]), rules.boxes_of(wanted[n]), rules) for n, m in equal.items()]
    matched = chain.from_iterable(one_to_one(some, rules) for some in overlaps)
    right = sum(rules.passes(overlap.held, rules.threshold) for overlap in matched)
    return {
        "span_exact_f1": 2 * len(equal),
        "span_overlap_f1": 2 * len(match_spans(gold, found, exact=False)),
        "span_char_f1": 2 * len(letters & theirs),
        "joint": 2 * right,
        "span_exact": len(gold) + len(found),
        "span_overlap": len(gold) + len(found),
        "span_char": len(letters) + len(theirs),
        "span_boxes": sum(len(phrase["instances"]) for phrase in (*wanted, *answers)),
    }


def match_spans(gold: Spans, found: Spans, *, exact: bool) -> dict[int, int]:
    """Which span is which, one to one: equal ones, or those that share a character, the longest overlap first.

    Example:
        >>> match_spans([(0, 5), (6, 12)], [(0, 3), (4, 12)], exact=False)
        {1: 1, 0: 0}
    """
    near = [
        (max(a[0], b[0]) - min(a[1], b[1]), n, m)
        for n, a in enumerate(gold)
        for m, b in enumerate(found)
        if (list(a) == list(b) if exact else max(a[0], b[0]) < min(a[1], b[1]))
    ]
    met: dict[int, int] = {}
    for _, n, m in sorted(near):
        if n not in met and m not in met.values():
            met[n] = m
    return met

"""Spans: whether the right words of a caption are taken for phrases, alone and together with their boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from dataflow_grounding.metrics.annotations import Annotations
from dataflow_grounding.metrics.overlaps import Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import Pairs
from dataflow_grounding.metrics.sums import Sums, share

_KINDS = ("exact", "overlap", "char")
Spans: TypeAlias = Mapping[int, Sequence[int]]  # place of a phrase → [start, end)


def span_columns(pairs: Pairs, rules: Rules) -> Sums:
    """What counts for each gold record; nothing where the captions differ, or a whole file states no span."""
    gold, found = pairs.gold, pairs.found
    partner, (sizes, other_sizes) = pairs.partner.tolist(), (side.boxes.counts.tolist() for side in (gold, found))
    counts = np.zeros((len(gold.records), 3, 3))  # exact, overlap, characters; right, in the gold, found
    asked, elsewhere = np.zeros((2, len(counts)))
    joint = np.zeros((len(counts), 2, 2))  # pairs of a span and a box; exact, overlap; twice the right, all of both
    partners = np.full((2, len(gold.phrases)), -1)
    for place, other in _comparable(pairs):
        there, said = _spans_of(gold, place), _spans_of(found, other)
        for kind, exact in enumerate((True, False)):
            met = match_spans(there, said, exact=exact)
            counts[place, kind] = len(met), len(there), len(said)
            partners[kind, list(met)] = list(met.values())
        letters, others = _letters(there), _letters(said)
        counts[place, 2] = len(letters & others), len(letters), len(others)
        elsewhere[place] = sum(said.get(partner[n], span) != span for n, span in there.items())
        joint[place, :, 1] = sum(sizes[n] for n in there) + sum(other_sizes[n] for n in said)
        asked[place] = 1
    for kind in (0, 1):
        matched = one_to_one(overlaps_of(gold.boxes, found.boxes, partners[kind], rules), rules)
        right = matched.phrase[rules.passes(matched.overlap, rules.threshold)]
        np.add.at(joint[:, kind, 0], pairs.record_of[right], 2)
    f1 = share(2 * counts[..., 0], counts[..., 1] + counts[..., 2])
    macro = np.where(np.isnan(f1), 1, f1) * asked[:, None]
    return {"captions": asked, "spans": counts, "span_f1": macro, "joint": joint, "elsewhere": elsewhere}


def _comparable(pairs: Pairs) -> Iterator[tuple[int, int]]:
    """Gold records and the predicted ones, or -1, that have the same caption, where both files state spans."""
    sides = (pairs.gold, pairs.found)
    if all(any(phrase["char_span"] for phrase in side.phrases) for side in sides):
        captions = [[record["cleaned_caption"] or record["caption"] for record in side.records] for side in sides]
        for place, other in enumerate(pairs.records.tolist()):
            if other < 0 or captions[0][place] == captions[1][other]:
                yield place, other


def _spans_of(side: Annotations, record: int) -> Spans:
    return {n: side.phrases[n]["char_span"] for n in side.phrases_of(record) if side.phrases[n]["char_span"]}


def _letters(spans: Spans) -> set[int]:
    return {letter for span in spans.values() for letter in range(*span)}


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


def span_figures(sums: Sums) -> Sums:
    """Precision, recall, F1 of spans over the data set; mean F1 over captions, 1 where neither has a span; joint F1.

    joint: of pairs of a span and a box, right where the span is equal and the box is; joint_overlap: where they meet.
    """
    figures = {}
    for n, kind in enumerate(_KINDS):
        right, gold, found = (sums["spans"][..., n, m] for m in range(3))
        figures[f"span_{kind}_f1"] = share(2 * right, gold + found)
        figures[f"span_{kind}_precision"], figures[f"span_{kind}_recall"] = share(right, found), share(right, gold)
        figures[f"span_{kind}_f1_macro"] = share(sums["span_f1"][..., n], sums["captions"])
    joint = share(sums["joint"][..., 0], sums["joint"][..., 1])
    return {**figures, "joint": joint[..., 0], "joint_overlap": joint[..., 1]}

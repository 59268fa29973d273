"""Spans: whether the right words of a caption are taken for phrases, alone and together with their boxes."""

from typing import Any

from dataflow_grounding.metrics.overlaps import Rules, one_to_one, overlaps_of
from dataflow_grounding.metrics.pairs import PairedRecord, Row

Span = tuple[int, int]


def of_caption(record: PairedRecord, rules: Rules) -> dict[str, float]:
    """What counts for the spans of a record; nothing where the captions differ."""
    gold, found = _phrases(record.gold), _phrases(record.found or {})
    if record.found and _caption(record.gold) != _caption(record.found):
        gold, found = {}, {}
    letters, theirs = ({n for span in spans for n in range(*span)} for spans in (gold, found))
    equal, right = gold.keys() & found.keys(), 0
    for span in equal:
        overlaps = overlaps_of(rules.boxes_of(found[span]), rules.boxes_of(gold[span]), rules)
        right += sum(rules.passes(pair.held, rules.threshold) for pair in one_to_one(overlaps, rules))
    return {
        "span_exact_f1": 2 * len(equal),
        "span_overlap_f1": 2 * _meeting([*gold], [*found]),
        "span_char_f1": 2 * len(letters & theirs),
        "joint": 2 * right,
        "spans": len(gold) + len(found),
        "span_letters": len(letters) + len(theirs),
        "span_boxes": sum(len(phrase["instances"]) for side in (gold, found) for phrase in side.values()),
    }


def _caption(record: Row) -> Any:
    return record["cleaned_caption"] or record["caption"]


def _phrases(record: Row) -> dict[Span, Row]:
    return {tuple(phrase["char_span"]): phrase for phrase in record.get("expressions", []) if phrase.get("char_span")}


def _meeting(gold: list[Span], found: list[Span]) -> int:
    """How many spans share a character, one to one, the longest overlap first."""
    near = sorted((max(a[0], b[0]) - min(a[1], b[1]), a, b) for a in gold for b in found)
    met: dict[Span, Span] = {}
    for apart, a, b in near:
        if apart < 0 and a not in met and b not in met.values():
            met[a] = b
    return len(met)

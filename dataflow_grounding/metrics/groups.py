"""Groups of gold phrases that figures are shown by: size, length, category, and what the predictions say of them."""

from bisect import bisect
from collections.abc import Iterator, Sequence

from dataflow_grounding.geometry import area
from dataflow_grounding.metrics.pairs import PairedRecord, Row
from dataflow_grounding.replies.labels import head_word

_MOST = 20  # of each kind: the largest
_WORDS = ("1-3", "4-6", "7-9", "10 or more")  # D³'s
_SIZES = ("small, < 32² px", "medium, < 96² px", "large")  # COCO's; of several boxes by the mean area


def groups_of(pairs: Sequence[PairedRecord]) -> Iterator[tuple[str, str, list[int]]]:
    """Kind of group, its name, the places of its phrases; a phrase may be in several groups of a kind."""
    kinds: dict[str, dict[str, list[int]]] = {}
    phrases = ((record, *phrase) for record in pairs for phrase in record.phrases)
    for place, (record, gold, found) in enumerate(phrases):
        for kind, name in _names(record, gold, found):
            kinds.setdefault(kind, {}).setdefault(name, []).append(place)
    for kind, groups in kinds.items():
        for name in sorted(sorted(groups, key=lambda name: -len(groups[name]))[:_MOST]):
            yield kind, name, groups[name]


def _names(record: PairedRecord, gold: Row, found: Row | None) -> Iterator[tuple[str, str]]:
    if areas := [area(instance["bbox"]) for instance in gold["instances"]]:
        yield "size", _SIZES[bisect((32**2, 96**2), sum(areas) / len(areas))]
    yield "words", _WORDS[bisect((4, 7, 10), len(gold["text"].split()))]
    types = gold.get("type") or head_word(gold["text"])
    yield from (("category", str(name)) for name in (types if isinstance(types, (list, tuple)) else [types]))
    yield "status", str(found.get("status") or "not stated") if found else "missing"
    if found and record.found and record.found["model"]:
        yield "model", str(record.found["model"])

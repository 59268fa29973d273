"""Figures of data sets, and what to do about each: the table of figures.yaml."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.figures.duplicates import Pictures, first_alike, known_id, path_of, stated_size
from dataflow_grounding.figures.phrases import ATTRIBUTES, head_of, look_alikes, said_twice, sharing_boxes, words_of
from dataflow_grounding.formats.selection import status_of
from dataflow_grounding.geometry import Bbox, Size, area, box_of
from dataflow_grounding.records import Record, read_annotations
from dataflow_grounding.results_folder import annotations_of, image_folders_of
from dataflow_grounding.rows import read_rows

FIGURES: dict[str, dict[str, Any]] = yaml.safe_load(files(__package__).joinpath("figures.yaml").read_text("utf-8"))
_GRID, _DRAWN = 32, 1000  # cells of the map of places, each way; words that the ratio of different ones is of
_PARTS = {"median": 0.5, "p5": 0.05, "p95": 0.95}


def figures_of(
    results: Sequence[str], *, image_root: str | None = None, read: bool = True,
    test_ids: Sequence[Collection[str]] = (), synonyms: Sequence[Collection[str]] = (),
) -> dict[str, Any]:  # fmt: skip
    """The figures of results folders or files of records, all together, by the names of FIGURES.

    Args:
        image_root, read: Where pictures are, if not where the run found them; whether they are read and compared.
        test_ids: Of pictures that are tested on elsewhere, as `known_id` gives them.
        synonyms: Words that mean one thing, each time.

    Returns:
        By kind: numbers; shares in [0, 1]; `{"mean", "median", "p5", "p95"}`; counts by name; a grid of counts, row by
        row. None where there is nothing that it could be of, or pictures weren't read.
    """
    of, sets = defaultdict[str, Counter[Any]](Counter), list[Pictures]()
    tested = frozenset().union(*test_ids)
    for path in results:
        phrases = array("Q")
        with Pictures(image_folders_of(path, image_root), read) as pictures:
            for row in read_rows(annotations_of(path)):
                if row.data is None:
                    of["broken"][True] += 1
                    continue
                if (place := pictures.place(row.data)) == len(phrases):
                    phrases.append(0)
                    of["known_test_images"][known_id(path_of(row.data)) in tested] += 1
                for figure, value in _seen(row.data):
                    of[figure][value] += 1
                    phrases[place] += figure == "statuses"
        of["phrases_per_image"].update(phrases)
        sets.append(pictures)
    first, homes = first_alike(*sets), np.repeat(np.arange(len(sets)), [len(one.keys) for one in sets])
    at_home, apart = np.unique(np.stack([first, homes]), axis=1).shape[1], len(np.unique(first))
    numbers = {"images": len(first), "same_pictures": len(first) - at_home, "leaks": at_home - apart}
    for figure, number in {**numbers, "unread": sum(one.unread for one in sets)}.items():
        of[figure][True] = number
    _of_vocabulary(of, synonyms)
    found = {name: _value(row.get("kind"), of[name]) for name, row in FIGURES.items()}
    return {**found, **({} if read else dict.fromkeys(("unread", "same_pictures")))}


def _seen(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A figure and what a record, a phrase, a word or a box says to it: each is counted."""
    try:
        expressions = read_annotations(Record(record))
    except BrokenRow:
        yield "broken", True
        return
    yield "records", True
    size = stated_size(record)
    for expression in expressions:
        yield "reviewed_share", bool(expression.get("reviewed_by") or record.get("reviewed_by"))
        yield from _of_phrase(expression, len(expression["instances"]))
        for instance in expression["instances"]:
            yield from _of_box(box_of(instance["bbox"]), size)
    for _ in said_twice(expressions):
        yield "same_phrase_twice", True
    for one, other, all_boxes in sharing_boxes(expressions):
        yield "same_boxes", all_boxes
        if head_of(one) != head_of(other):
            yield "inconsistent", " / ".join(sorted((head_of(one), head_of(other))))


def _of_phrase(expression: Mapping[str, Any], boxes: int) -> Iterator[tuple[str, Any]]:
    words = words_of(expression["text"])
    kinds = [kind for kind, known in ATTRIBUTES.items() if not known.isdisjoint(words)]
    yield "phrases", True
    yield "pairs", boxes > 0
    yield "statuses", status_of(expression)
    yield "negatives_share", status_of(expression) == "none"
    yield "verified_share", expression.get("verified") is True
    yield "words_per_phrase", len(expression["text"].split())
    yield "heads", head_of(expression["text"])
    yield "plain_share", not kinds
    yield from (("attributes", kind) for kind in kinds)
    yield from (("words", word) for word in words)
    if boxes:
        yield "boxes_per_phrase", boxes
        yield "multi_box_share", boxes > 1


def _of_box(box: Bbox, size: Size | None) -> Iterator[tuple[str, Any]]:
    sides = sorted((box[2] - box[0], box[3] - box[1]))
    yield "sizes", "small" if area(box) < 32**2 else "medium" if area(box) < 96**2 else "large"
    yield "small_share", area(box) < 32**2
    yield "elongated_share", sides[1] > 4 * sides[0]
    if size:
        width, height = size
        centre, part = ((box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height), area(box) / (width * height)
        yield "places", tuple(min(max(int(place * _GRID), 0), _GRID - 1) for place in centre)
        yield "relative_sizes", f"0.{min(int(part**0.5 * 10), 9)}"
        yield "oversize_share", part > 0.9
        yield "edge_share", min(box) < 1 or box[2] > width - 1 or box[3] > height - 1
        yield "centred_share", all(1 / 3 < place < 2 / 3 for place in centre)


def _of_vocabulary(of: dict[str, Counter[Any]], synonyms: Sequence[Collection[str]]) -> None:
    """What only all words together say."""
    words, heads, all_words = of["words"], of["heads"], of["words"].total()
    of["types"][True], of["tokens"][True] = len(words), all_words
    of["hapax_share"].update(count == 1 for count in words.values())
    of["top_head_share"].update({True: max(heads.values(), default=0)})
    of["top_head_share"][False] = heads.total() - of["top_head_share"][True]
    of["look_alikes"].update({f"{one} / {other}": heads[one] + heads[other] for one, other in look_alikes(heads)})
    for group in synonyms:
        used = sorted(word for word in group if words[word])
        of["synonyms"].update({" / ".join(used): sum(words[word] for word in used)} if len(used) > 1 else {})
    of["type_token_ratio"][_different(Counter(words.values()), all_words, min(_DRAWN, all_words))] = 1


def _different(counts: Counter[int], total: int, drawn: int) -> float | None:
    """Of so many words drawn from `total`, the share of different ones that is to be expected (rarefaction)."""

    def ways(words: int) -> float:
        """The logarithm of how many ways there are to draw from these."""
        return math.lgamma(words + 1) - math.lgamma(words - drawn + 1) if words >= drawn else -math.inf

    expected = sum(words * (1 - math.exp(ways(total - count) - ways(total))) for count, words in counts.items())
    return round(expected / drawn, 4) if drawn else None


def _value(kind: str | None, counts: Mapping[Any, int]) -> Any:
    """A figure as it is told."""
    whole = sum(counts.values())
    if kind is None:
        return counts.get(True, 0)
    if kind == "number":
        return next(iter(counts), None)
    if kind in ("names", "bins"):
        return dict(sorted(counts.items(), key=lambda item: -item[1] if kind == "names" else item[0]))
    if kind == "grid":
        return [[counts.get((x, y), 0) for x in range(_GRID)] for y in range(_GRID)]
    if not whole:
        return None
    if kind == "share":
        return round(counts.get(True, 0) / whole, 4)
    values = sorted(counts)
    ranks = np.cumsum([counts[value] for value in values])
    at = {name: values[int(np.searchsorted(ranks, part * whole))] for name, part in _PARTS.items()}
    return {"mean": round(sum(value * count for value, count in counts.items()) / whole, 2), **at}


def advice_on(figures: Mapping[str, Any]) -> dict[str, str]:
    """Figure → what to do about it, of those that are below or above a number in FIGURES."""
    said = {}
    for name, row in FIGURES.items():
        value = figures[name].get("mean", len(figures[name])) if isinstance(figures[name], dict) else figures[name]
        if value is not None and row.get("kind") != "grid":
            wrong = [say for bound, say in row.get("below", {}).items() if value < bound]
            wrong += [say for bound, say in row.get("above", {}).items() if value > bound]
            said.update({name: wrong[0]} if wrong else {})
    return said


def heat_map(grid: Sequence[Sequence[int]]) -> str:
    """An SVG of a grid of counts: the more, the darker."""
    most, side = max(1, *map(max, grid)), 12 * len(grid)
    cells = [(x, y, count / most) for y, row in enumerate(grid) for x, count in enumerate(row)]
    size = f'width="{side}" height="{side}"'
    squares = (f'<path d="M{12 * x} {12 * y}h12v12h-12z" fill-opacity="{part:.3f}"/>\n' for x, y, part in cells if part)
    frame = f'<rect {size} fill="#fff" stroke="#868e96"/>\n'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} fill="#0b6bcb">\n{frame}{"".join(squares)}</svg>\n'

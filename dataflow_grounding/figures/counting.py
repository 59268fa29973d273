"""Figures of data sets, and what to do about each: the table of figures.yaml."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from typing import Any

from dataflow_grounding.embedded.noun_phrases import tokenize
from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.figures.duplicates import first_alike, known_id, looks_of
from dataflow_grounding.figures.phrases import ATTRIBUTES, look_alikes, said_twice, sharing_boxes
from dataflow_grounding.formats.export import status_of
from dataflow_grounding.geometry import Bbox, Size, area, box_of
from dataflow_grounding.metrics.annotations import head_of, names_of
from dataflow_grounding.records import Record, path_of, read_annotations, stated_size
from dataflow_grounding.results_folder import annotations_of, image_folders_of
from dataflow_grounding.rows import read_rows
from dataflow_grounding.tables import load_table

FIGURES: dict[str, dict[str, Any]] = load_table(__package__, "figures.yaml")
_GRID, _SAMPLE = 32, 1000  # cells of the map of places, each way; words that the share of different ones is of
_PARTS = {"median": 0.5, "p5": 0.05, "p95": 0.95}


def figures_of(
    results: Sequence[str], *, image_root: str | None = None, read: bool = True, test_ids: Iterable[str] = ()
) -> dict[str, Any]:
    """The figures of results folders or files of records, all together, by the names of FIGURES.

    Args:
        image_root, read: Where pictures are, if not where the run found them; whether they are read and compared.
        test_ids: Of pictures that are tested on elsewhere.

    Returns:
        By kind: numbers; shares in [0, 1]; `{"mean", "median", "p5", "p95"}`; counts by name; a grid of counts, row by
        row. None where there is nothing that it could be of, or pictures weren't read.
    """
    of, tested, sample = defaultdict[str, Counter[Any]](Counter), {*map(known_id, test_ids)} - {""}, list[str]()
    pictures, homes, unread = list[tuple[str, bytes]](), list[int](), set[str]()  # of each of results
    phrases, known = Counter[tuple[str, bytes]](), set[str]()  # of all together
    for home, path in enumerate(results):
        said_of, paths = Counter[str](), dict[str, str]()  # by picture
        for row in read_rows(annotations_of(path)):
            if row.data is None:
                of["broken"][True] += 1
                continue
            said, (name, own) = [*_seen(row.data)], names_of(row.data, f"record {row.line} of {path}")
            for figure, value in said:
                of[figure][value] += 1
            paths.setdefault(name, path_of(row.data))
            known |= {name} if tested & {known_id(name), known_id(own)} else set()
            said_of[name] += sum(figure == "phrases" for figure, _ in said)
            sample += [value for figure, value in said if figure == "words"][: _SAMPLE - len(sample)]
        looks, missing = looks_of(paths, image_folders_of(path, image_root), read)
        here = [*zip(paths, looks, strict=True)]
        pictures, homes, unread = pictures + here, homes + [home] * len(here), unread | missing
        phrases.update({picture: said_of[picture[0]] for picture in here})
    words, heads = of["words"], of["heads"]
    numbers = {"known_test_images": len(known), **_alike(pictures, homes)}
    numbers |= {"images": len(phrases), "unread": len(unread), "types": len(words), "tokens": words.total()}
    of["phrases_per_image"].update(phrases.values())
    of.update({name: Counter({True: number}) for name, number in numbers.items()})
    of["type_token_ratio"] = Counter({True: len({*sample}), False: len(sample) - len({*sample})})
    of["hapax_share"].update(count == 1 for count in words.values())
    most = max(heads.values(), default=0)
    of["top_head_share"] = Counter({True: most, False: heads.total() - most})
    of["look_alikes"].update(look_alikes(heads))
    found = {name: _value(row.get("kind"), of[name]) for name, row in FIGURES.items()}
    return {**found, **({} if read else dict.fromkeys(("unread", "same_pictures")))}


def _alike(pictures: Sequence[tuple[str, bytes]], homes: Sequence[int]) -> dict[str, int]:
    """How many pictures are nearly the same as another of their data set (home), and how many several of these have."""
    at_home, again = set[tuple[int, int]](), set[tuple[str, bytes]]()
    first = first_alike([look for _, look in pictures])
    for picture, group, home in sorted(zip(pictures, first, homes, strict=True)):
        again |= {picture} if (group, home) in at_home else set()
        at_home.add((group, home))
    several = Counter(group for group, _ in at_home)
    return {"same_pictures": len(again), "leaks": sum(count > 1 for count in several.values())}


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
        boxes = len(expression["instances"])
        words = [token for token in tokenize(expression["text"]) if token[0].isalnum()]
        kinds = [kind for kind, known in ATTRIBUTES.items() if not known.isdisjoint(words)]
        yield "phrases", True
        yield "pairs", boxes > 0
        yield "statuses", status_of(expression)
        yield "negatives_share", status_of(expression) == "none"
        yield "verified_share", expression.get("verified") is True
        yield "words_per_phrase", len(expression["text"].split())
        yield "heads", head_of(expression["text"])
        yield "plain_share", not kinds
        yield from zip(repeat("attributes"), kinds)
        yield from zip(repeat("words"), words)
        if boxes:
            yield "boxes_per_phrase", boxes
            yield "multi_box_share", boxes > 1
        for instance in expression["instances"]:
            yield from _of_box(box_of(instance["bbox"]), size)
    yield from (("same_phrase_twice", True) for _ in said_twice(expressions))
    same = set[int]()
    for one, other, all_boxes in sharing_boxes(expressions):
        same |= {id(one), id(other)} if all_boxes else set()
        heads = sorted((head_of(one["text"]), head_of(other["text"])))
        if heads[0] != heads[1]:
            yield "inconsistent", " / ".join(heads)
    yield from (("same_boxes", True) for _ in same)


def _of_box(box: Bbox, size: Size | None) -> Iterator[tuple[str, Any]]:
    yield "sizes", "small" if area(box) < 32**2 else "medium" if area(box) < 96**2 else "large"
    yield "small_share", area(box) < 32**2
    if size:
        width, height = size
        centre, part = ((box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height), area(box) / (width * height)
        yield "places", tuple(int(min(max(place * _GRID, 0), _GRID - 1)) for place in centre)
        yield "relative_sizes", f"0.{int(min(part**0.5 * 10, 9))}"
        yield "oversize_share", part > 0.9
        yield "edge_share", min(box) < 1 or box[2] > width - 1 or box[3] > height - 1
        yield "centred_share", all(1 / 3 < place < 2 / 3 for place in centre)


def _value(kind: str | None, counts: Mapping[Any, int]) -> Any:
    whole = sum(counts.values())
    if kind is None:
        return counts.get(True, 0)
    if kind in ("names", "bins"):
        return dict(sorted(counts.items(), key=lambda item: -item[1] if kind == "names" else item[0]))
    if not whole:
        return None
    if kind == "grid":
        return [[counts.get((x, y), 0) for x in range(_GRID)] for y in range(_GRID)]
    if kind == "share":
        return round(counts.get(True, 0) / whole, 4)
    values = sorted(counts)
    ranks = [*accumulate(counts[value] for value in values)]
    at = {name: values[bisect_left(ranks, part * whole)] for name, part in _PARTS.items()}
    return {"mean": round(sum(value * count for value, count in counts.items()) / whole, 2), **at}


def advice_on(figures: Mapping[str, Any]) -> dict[str, str]:
    """Figure → what to do about it, of those that are below or above a number in FIGURES."""
    said = {}
    for name, row in FIGURES.items():
        value = figures[name].get("mean", len(figures[name])) if isinstance(figures[name], dict) else figures[name]
        if value is not None and row.get("kind") != "grid":
            wrong = [say for bound, say in row.get("below", {}).items() if value < bound]
            wrong += [say for bound, say in row.get("above", {}).items() if value > bound]
            named = f": {', '.join([*figures[name]][:3])}" if row.get("kind") == "names" else ""
            said.update({name: wrong[0] + named} if wrong else {})
    return said

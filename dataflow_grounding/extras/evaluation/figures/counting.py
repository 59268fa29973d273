"""Figures of data sets, and what to do about each: the table of figures.yaml."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from typing import Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.tables import load_table
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of
from dataflow_grounding.data.records import Record, path_of, read_annotations, stated_size
from dataflow_grounding.data.results_folder import annotations_of, image_folders_of
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.extras.embedded.noun_phrases import tokenize
from dataflow_grounding.extras.evaluation.figures._phrases import (
    ATTRIBUTES,
    look_alikes,
    said_twice,
    sharing_boxes,
)
from dataflow_grounding.extras.evaluation.figures.duplicates import first_alike, known_id, looks_of
from dataflow_grounding.extras.evaluation.metrics.annotations import head_of, names_of
from dataflow_grounding.extras.formats.export import status_of

FIGURES: dict[str, dict[str, Any]] = load_table(__package__, "figures.yaml")
# cells of the map of places, each way; words that the share of different ones is of
_GRID, _SAMPLE = 32, 1000
_PARTS = {"median": 0.5, "p5": 0.05, "p95": 0.95}


def figures_of(
    results: Sequence[str],
    *,
    image_root: str | None = None,
    read: bool = True,
    test_ids: Iterable[str] = (),
) -> dict[str, Any]:
    """The figures of results folders or files of records, all together, by the names of FIGURES.

    Args:
        image_root, read: Where pictures are, if not where the run found them; whether they are read
            and compared.
        test_ids: Of pictures that are tested on elsewhere.

    Returns:
        By kind: numbers; shares in [0, 1]; `{"mean", "median", "p5", "p95"}`; counts by name; a
            grid of counts, row by
        row. None where there is nothing that it could be of, or pictures weren't read.
    """
    counts = FigureCounts(test_ids)
    for path in results:
        for row in read_rows(annotations_of(path)):
            if row.data is None:
                counts.add_broken()
            else:
                counts.add(row.data, f"record {row.line} of {path}")
        counts.end_data_set(image_folders_of(path, image_root), read)
    return counts.figures(read)


class FigureCounts:
    """What the figures are made of, counted record by record, of one data set after the other.

    Args:
        test_ids: Of pictures that are tested on elsewhere.
    """

    def __init__(self, test_ids: Iterable[str] = ()) -> None:
        self._counts = defaultdict[str, Counter[Any]](Counter)
        self._tested = {known_id(name) for name in test_ids} - {""}
        self._known: set[str] = set()
        self._first_words: list[str] = []
        # Of all data sets: their pictures, the number of each one's data set, those that could not
        # be read.
        self._pictures: list[tuple[str, bytes]] = []
        self._data_set_of: list[int] = []
        self._unread: set[str] = set()
        self._phrases: Counter[tuple[str, bytes]] = Counter()
        # Of the data set that is being counted, by picture.
        self._data_sets = 0
        self._phrases_of: Counter[str] = Counter()
        self._paths: dict[str, str] = {}

    def add_broken(self) -> None:
        """Count a row that can't be read."""
        self._counts["broken"][True] += 1

    def add(self, record: Mapping[str, Any], otherwise: str) -> None:
        """Count a record; `otherwise` is what its picture is called if it doesn't say."""
        seen = list(_seen(record))
        name, own_name = names_of(record, otherwise)
        for figure, value in seen:
            self._counts[figure][value] += 1
        self._paths.setdefault(name, path_of(record))
        if self._tested and self._tested & {known_id(name), known_id(own_name)}:
            self._known.add(name)
        self._phrases_of[name] += sum(figure == "phrases" for figure, _ in seen)
        if len(self._first_words) < _SAMPLE:
            words = [value for figure, value in seen if figure == "words"]
            self._first_words += words[: _SAMPLE - len(self._first_words)]

    def end_data_set(self, image_folders: Sequence[str] = (), read: bool = False) -> None:
        """All records of a data set are counted; its pictures are in these folders, and looked at
        if `read`.
        """
        looks, missing = looks_of(self._paths, tuple(image_folders), read)
        pictures = list(zip(self._paths, looks, strict=True))
        self._pictures += pictures
        self._data_set_of += [self._data_sets] * len(pictures)
        self._unread |= missing
        for picture in pictures:
            self._phrases[picture] += self._phrases_of[picture[0]]
        self._data_sets += 1
        self._phrases_of, self._paths = Counter(), {}

    def figures(self, read: bool = False) -> dict[str, Any]:
        """The figures by name, as `figures_of` returns them."""
        counts = self._counts
        words, heads = counts["words"], counts["heads"]
        numbers = {
            "known_test_images": len(self._known),
            **_alike(self._pictures, self._data_set_of),
        }
        numbers |= {"images": len(self._phrases), "unread": len(self._unread)}
        numbers |= {"types": len(words), "tokens": words.total()}
        counts["phrases_per_image"].update(self._phrases.values())
        counts.update({name: Counter({True: number}) for name, number in numbers.items()})
        different = len(set(self._first_words))
        counts["type_token_ratio"] = Counter(
            {True: different, False: len(self._first_words) - different}
        )
        counts["hapax_share"].update(count == 1 for count in words.values())
        most = max(heads.values(), default=0)
        counts["top_head_share"] = Counter({True: most, False: heads.total() - most})
        counts["look_alikes"].update(look_alikes(heads))
        figures = {name: _value(row.get("kind"), counts[name]) for name, row in FIGURES.items()}
        return figures if read else {**figures, **dict.fromkeys(("unread", "same_pictures"))}


def _alike(pictures: Sequence[tuple[str, bytes]], homes: Sequence[int]) -> dict[str, int]:
    """How many pictures are nearly the same as another of their data set (home), and how many
    several of these have.
    """
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
        centre, part = (
            ((box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height),
            area(box) / (width * height),
        )
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
        return dict(
            sorted(counts.items(), key=lambda item: -item[1] if kind == "names" else item[0])
        )
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
        value = (
            figures[name].get("mean", len(figures[name]))
            if isinstance(figures[name], dict)
            else figures[name]
        )
        if value is not None and row.get("kind") != "grid":
            wrong = [say for bound, say in row.get("below", {}).items() if value < bound]
            wrong += [say for bound, say in row.get("above", {}).items() if value > bound]
            named = f": {', '.join([*figures[name]][:3])}" if row.get("kind") == "names" else ""
            said.update({name: wrong[0] + named} if wrong else {})
    return said

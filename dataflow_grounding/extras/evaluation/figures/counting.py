"""Figures of data sets, and what to do about each: the table of figures.yaml."""

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from typing import Any, Literal, TypeAlias

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
from dataflow_grounding.extras.evaluation.figures.alike import Place, alike_in, first_same
from dataflow_grounding.extras.evaluation.figures.duplicates import first_alike, known_id, looks_of
from dataflow_grounding.extras.evaluation.figures.same_files import DataSet, files_of, short_digest
from dataflow_grounding.extras.evaluation.metrics.annotations import head_of, names_of
from dataflow_grounding.extras.formats.export import status_of

Compare: TypeAlias = Literal["names", "files", "looks"]
FIGURES: dict[str, dict[str, Any]] = load_table(__package__, "figures.yaml")
# cells of the map of places, each way; words that the share of different ones is of
_GRID, _SAMPLE = 32, 1000
_ALIKE = ("same_pictures", "leaks", "near_pictures", "near_leaks")
_PARTS = {"median": 0.5, "p5": 0.05, "p95": 0.95}


def figures_of(
    results: Sequence[str],
    *,
    image_root: str | None = None,
    compare: Compare = "files",
    test_ids: Iterable[str] = (),
) -> "FigureCounts":
    """The figures of results folders or files of records, all together.

    Args:
        image_root: Where pictures are, if not where the run found them.
        compare: By what pictures are told apart: `names` opens none; `files` takes sizes of files,
            and the digests of those of equal size; `looks` decodes each of them besides.
        test_ids: Of pictures that are tested on elsewhere.
    """
    counts = FigureCounts(test_ids, compare)
    for path in results:
        annotations = annotations_of(path)
        for row in read_rows(annotations):
            if row.data is None:
                counts.add_broken()
            else:
                counts.add(row.data, f"record {row.line} of {path}")
        checkpoint = os.path.join(os.path.dirname(annotations), ".ckpt")
        counts.end_data_set(path, image_folders_of(path, image_root), checkpoint)
    return counts


class FigureCounts:
    """What the figures are made of, counted record by record, of one data set after the other.

    Args:
        test_ids: Of pictures that are tested on elsewhere.
        compare: By what pictures are told apart, as for `figures_of`.

    Attributes:
        named: By figure, the pictures that it counts as alike; filled by `figures`.
    """

    def __init__(self, test_ids: Iterable[str] = (), compare: Compare = "names") -> None:
        self.named: dict[str, list[tuple[Place, ...]]] = {}
        self._compare = compare
        self._counts = defaultdict[str, Counter[Any]](Counter)
        self._tested = {known_id(name) for name in test_ids} - {""}
        self._known: set[str] = set()
        self._first_words: list[str] = []
        self._data_sets: list[DataSet] = []
        self._counted = DataSet("")  # the one that is being counted

    def add_broken(self) -> None:
        """Count a row that can't be read."""
        self._counts["broken"][True] += 1

    def add(self, record: Mapping[str, Any], otherwise: str) -> None:
        """Count a record; `otherwise` is what its picture is called if it doesn't say."""
        seen = list(_seen(record))
        name, own_name = names_of(record, otherwise)
        for figure, value in seen:
            self._counts[figure][value] += 1
        self._counted.paths.setdefault(name, path_of(record))
        if self._tested and self._tested & {known_id(name), known_id(own_name)}:
            self._known.add(name)
        self._counted.phrases[name] += sum(figure == "phrases" for figure, _ in seen)
        if len(self._first_words) < _SAMPLE:
            words = [value for figure, value in seen if figure == "words"]
            self._first_words += words[: _SAMPLE - len(self._first_words)]

    def end_data_set(
        self, name: str = "", image_folders: Sequence[str] = (), checkpoint: str = ""
    ) -> None:
        """All records of a data set are counted: what it is called, and where its pictures and its
        run's memory are.
        """
        one, self._counted = self._counted, DataSet("")
        one.name, one.folders, one.checkpoint = name, tuple(image_folders), checkpoint
        self._data_sets.append(one)

    def figures(self) -> dict[str, Any]:
        """The figures by the names of FIGURES.

        By kind: numbers; shares in [0, 1]; `{"mean", "median", "p5", "p95"}`; counts by name; a
        grid of counts, row by row. None where there is nothing that it could be of, or what it is
        of wasn't looked at.
        """
        counts = self._counts
        words, heads = counts["words"], counts["heads"]
        numbers = {**self._of_pictures(), "known_test_images": len(self._known)}
        numbers |= {"types": len(words), "tokens": words.total()}
        counts.update(
            {
                name: Counter({True: number})
                for name, number in numbers.items()
                if number is not None
            }
        )
        different = len(set(self._first_words))
        counts["type_token_ratio"] = Counter(
            {True: different, False: len(self._first_words) - different}
        )
        counts["hapax_share"].update(count == 1 for count in words.values())
        most = max(heads.values(), default=0)
        counts["top_head_share"] = Counter({True: most, False: heads.total() - most})
        counts["look_alikes"].update(look_alikes(heads))
        figures = {name: _value(row.get("kind"), counts[name]) for name, row in FIGURES.items()}
        return {**figures, **{name: None for name, number in numbers.items() if number is None}}

    def _of_pictures(self) -> dict[str, int | None]:
        """Counts of pictures, and of those that are alike; None for what wasn't looked at."""
        names = [name for one in self._data_sets for name in one.paths]
        files, unread = (
            files_of(self._data_sets)
            if self._compare != "names"
            else ([*map(short_digest, names)], set())
        )
        same = alike_in(self._data_sets, files, first_same(files))
        self.named = {"same_pictures": same.again, "leaks": same.leaks}
        if self._compare == "looks":
            looks = list[bytes]()
            for one in self._data_sets:
                its_looks, its_unread = looks_of(one.paths, one.folders)
                looks += its_looks
                unread |= its_unread
            near = alike_in(self._data_sets, files, first_alike(looks))
            self.named |= {"near_pictures": near.again, "near_leaks": near.leaks}
        phrases = Counter[tuple[str, bytes]]()
        phrases_of = (one.phrases[name] for one in self._data_sets for name in one.paths)
        for picture, count in zip(zip(names, files, strict=True), phrases_of, strict=True):
            phrases[picture] += count
        self._counts["phrases_per_image"].update(phrases.values())
        found: dict[str, int | None] = {"images": len(phrases), "unread": len(unread)}
        found |= {name: len(self.named[name]) if name in self.named else None for name in _ALIKE}
        return (
            found if self._compare != "names" else {**found, "unread": None, "same_pictures": None}
        )


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
        if figures[name] is None and "unasked" in row:
            said[name] = row["unasked"]
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

"""Figures of data sets, and what to do about each: the table of figures.yaml."""

import os
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.rows_on_disk import RowsOnDisk
from dataflow_grounding.boxes.class_table import ClassTable
from dataflow_grounding.boxes.geometry import Bbox, Size, area, coco_size
from dataflow_grounding.boxes.matching import best_instances
from dataflow_grounding.data.classes import class_key, classes_of
from dataflow_grounding.data.expressions import Expression, Instance, read_any_expressions
from dataflow_grounding.data.records import JsonObject, Record, Update, path_of, stated_size
from dataflow_grounding.data.rejected import WithoutRejected
from dataflow_grounding.data.remarks import Remarks
from dataflow_grounding.data.results_folder import annotations_of, image_folders_of
from dataflow_grounding.data.rows import Row, read_rows
from dataflow_grounding.english.spans import clean_caption
from dataflow_grounding.evaluation.figures._phrases import said_twice, sharing_boxes
from dataflow_grounding.evaluation.figures.alike import Place, alike_in
from dataflow_grounding.evaluation.figures.same_files import DataSet, short_digest, tell_apart
from dataflow_grounding.evaluation.metrics.annotations import names_of


class Figure(NamedTuple):
    """A figure of figures.yaml."""

    about: str
    # `share`, `spread`, `names` or `table`; "" for one number
    kind: str = ""
    below: Mapping[float, str] = {}
    above: Mapping[float, str] = {}
    of_words: bool = False  # nothing is to be done about it where phrases are names of classes


FIGURES = {name: Figure(**row) for name, row in load_table(__package__, "figures.yaml").items()}
_QUANTILES = {"median": 0.5, "p5": 0.05, "p95": 0.95}


def figures_of(
    results: Sequence[str],
    *,
    image_root: str | None = None,
    read: bool = True,
) -> "FigureCounts":
    """Count the figures of results folders or files of records, all together.

    Each counts as a data set of its own, for leaks. Rows that can't be read are counted as such.
    Without `read`, pictures are compared by their names alone.
    """
    counts = FigureCounts(read=read)
    for path in results:
        annotations = annotations_of(path)
        for _ in counts.counted(read_rows(annotations), path):
            pass  # to go through them is enough
        checkpoint = os.path.join(os.path.dirname(annotations), ".ckpt")
        counts.end_data_set(path, image_folders_of(path, image_root), checkpoint)
        counts.list_classes(classes_of(path))
    return counts


class FigureCounts:
    """Counts of what the figures are made of, one data set after the other.

    All records of a picture count as one, a phrase of it once, and of boxes of a class on one thing
    the best. So records are kept on disk until their data set ends. Go through `counted` rows, call
    `end_data_set` after each data set, then `figures`.
    """

    def __init__(self, *, read: bool = False) -> None:
        # By figure, the groups of pictures that it counts as alike; `figures` sets it.
        self.named: dict[str, list[tuple[Place, ...]]] = {}
        self._read = read
        self._without_rejected = WithoutRejected()
        # by figure: how often each value was counted
        self._counts = defaultdict[str, Counter[Any]](Counter)
        self.classes = ClassTable()
        self._remarks = Remarks()
        self._data_sets: list[DataSet] = []  # those that are counted
        self._begin_data_set()

    def _begin_data_set(self) -> None:
        self._current = DataSet()
        self._records = RowsOnDisk()  # those of the current data set
        self._picture_of_record = array("I")  # the number of its picture in the data set

    def counted(self, rows: Iterable[Row], name: str) -> Iterator[Record]:
        """Count rows, and yield those that can be read, as they are.

        A record whose expressions can't be read counts as broken, but its picture counts. Raises
        InputError where a record names no picture.
        """
        for row in rows:
            if row.data is None:
                self._counts["broken"][True] += 1
                continue
            record = Record(row.data)
            # `of` returns the columns that change where rejected boxes are taken out.
            without_rejected = record.updated(self._without_rejected.of(record))
            self._add(without_rejected, f"record {row.line} of {name}")
            yield record

    def _add(self, record: Record, record_name: str) -> None:
        name, _ = names_of(record, record_name)
        picture = self._current.add(name, path_of(record))
        self._remarks.add(record)
        try:
            expressions = read_any_expressions(record)
        except BrokenRow:
            self._counts["broken"][True] += 1
            return
        self._counts["records"][True] += 1
        self._counts["same_phrase_twice"][True] += len(said_twice(expressions))
        self._counts["same_boxes"][True] += _count_with_same_boxes(expressions)
        kept = []
        for expression in expressions:
            # A reviewer may have looked at the phrase, or at the record as a whole.
            reviewer = expression.reviewed_by or record.get("reviewed_by")
            boxes = [{"bbox": list(box.bbox), "score": box.score} for box in expression.instances]
            kept.append(
                {
                    "text": expression.text,
                    "class": expression.class_name,
                    "status": expression.status,
                    "verified": expression.verified,
                    "source": expression.source,
                    "change": expression.change,
                    "instances": boxes,
                    "reviewed_by": str(reviewer or ""),
                }
            )
        states_expressions = isinstance(record.get("expressions"), list)
        size = stated_size(record)
        self._records.append({"size": size, "phrases": kept, "of_classes": states_expressions})
        self._picture_of_record.append(picture.number)

    def end_data_set(
        self, name: str = "", image_folders: Sequence[str] = (), checkpoint: str = ""
    ) -> None:
        """End a data set: what is added from now on is of the next one."""
        self._current.name = name
        self._current.folders = tuple(image_folders)
        self._current.checkpoint = checkpoint  # in which its run remembers pictures
        self._data_sets.append(self._current)
        current = [*self._current.pictures.values()]
        number_of = self._picture_of_record.__getitem__
        in_order = sorted(range(len(self._picture_of_record)), key=number_of)
        for number, indices in groupby(in_order, key=number_of):
            records = [self._records[index] for index in indices]
            picture = current[number]
            picture.count = self._count_picture(picture.path, records)
        self._begin_data_set()

    def _count_picture(self, name: str, records: Sequence[JsonObject]) -> int:
        """Count a picture's records, as `_add` keeps them; return how many phrases they have."""
        expressions: list[Expression] = []
        of_classes: list[Expression] = []
        for record in records:
            read = [Expression.from_json(row) for row in record["phrases"]]
            expressions += read
            of_classes += read if record["of_classes"] else []
        self.classes.add(name, of_classes)
        phrases = _phrases_of(expressions)
        for phrase in phrases:
            for figure, value in _phrase_entries(phrase):
                self._counts[figure][value] += 1
        for box in _boxes_of_things(phrases):
            for figure, value in _box_entries(box, records[0]["size"]):
                self._counts[figure][value] += 1
        return len(phrases)

    def list_classes(self, names: Sequence[str]) -> None:
        """Take the order of classes from the user's list; of several lists, the first counts."""
        self.classes.order = self.classes.order or names

    def figures(self) -> Update:
        """Return the figures by the names of FIGURES, of all data sets that were ended.

        Call it once: it adds to the counts. A figure is None if there is nothing to count it of, or
        if that wasn't looked at.
        """
        counts = self._counts
        picture_figures = self._count_pictures()
        figures = {}
        for name, row in FIGURES.items():
            figures[name] = _figure_of_counts(row.kind, counts[name])
        # These aren't made of counts. They replace what the loop above made of empty counts.
        figures.update(picture_figures)
        figures["rejected"] = self._without_rejected.boxes
        figures["remarks"] = self._remarks.common()
        figures["remarks_rare"] = self._remarks.rare
        figures["classes"] = self.classes.rows()
        if figures["classes"]:
            # Phrases are names of classes, from a list: figures of their words say nothing.
            for name, row in FIGURES.items():
                if row.of_words:
                    figures[name] = None
        return figures

    def _count_pictures(self) -> dict[str, int | None]:
        """Return the figures of pictures, set `named`, and count phrases by picture."""
        unread = set[str]()
        if self._read:
            unread = tell_apart(self._data_sets)
        else:  # no picture is opened: one is told from others by its name
            for data_set in self._data_sets:
                for name, picture in data_set.pictures.items():
                    picture.file = short_digest(name)
        repeats, leaks = alike_in(self._data_sets)
        self.named = {"same_pictures": repeats, "leaks": leaks}
        phrase_counts = self._phrases_by_picture()
        self._counts["phrases_per_image"].update(phrase_counts)
        return {
            "images": len(phrase_counts),
            "unread": len(unread) if self._read else None,
            # None where pictures are compared by names: a data set has each name only once
            "same_pictures": len(repeats) if self._read else None,
            "leaks": len(leaks),
        }

    def _phrases_by_picture(self) -> list[int]:
        """Return how many phrases each picture has, over all data sets."""
        if len(self._data_sets) == 1:  # it has each name once, and perhaps millions of them
            return [picture.count for picture in self._data_sets[0].pictures.values()]
        # A picture that several data sets have under one name, with one file, counts once.
        phrases_of = Counter[tuple[str, bytes]]()
        for data_set in self._data_sets:
            for name, picture in data_set.pictures.items():
                phrases_of[name, picture.file] += picture.count
        return list(phrases_of.values())


def _count_with_same_boxes(expressions: Sequence[Expression]) -> int:
    """Return how many expressions of a record have all of their boxes in another, too."""
    # Each expression once, by its id(): it may be in several pairs.
    with_same_boxes = set[int]()
    for first, second, has_all_boxes_in_common in sharing_boxes(expressions):
        if has_all_boxes_in_common:
            with_same_boxes |= {id(first), id(second)}
    return len(with_same_boxes)


def _phrases_of(expressions: Iterable[Expression]) -> list[Expression]:
    """Return a picture's phrases, each text once with the boxes of all that have it."""
    by_text: dict[str, list[Expression]] = {}
    for expression in expressions:
        by_text.setdefault(clean_caption(expression.text).casefold(), []).append(expression)
    phrases = []
    for same in by_text.values():
        # the status and the verdict are those of one with boxes, if there is one
        phrase = next((expression for expression in same if expression.instances), same[0])
        if len(same) > 1:
            phrase = phrase.copy()
            phrase.instances = best_instances([expression.instances for expression in same])
            phrase.reviewed_by = next(filter(None, (each.reviewed_by for each in same)), None)
        phrases.append(phrase)
    return phrases


def _boxes_of_things(phrases: Iterable[Expression]) -> list[Bbox]:
    """Return a picture's boxes; of those of a class on one thing, the best."""
    boxes_by_class: dict[tuple[str, bool], list[list[Instance]]] = {}
    for phrase in phrases:
        # A phrase without a class, or made up to be absent, is compared with no other.
        states_class = phrase.class_name is not None and not phrase.is_negative
        name = class_key(phrase.class_name or "") if states_class else phrase.text
        boxes_by_class.setdefault((name, states_class), []).append(phrase.instances)
    boxes = []
    for sides in boxes_by_class.values():
        is_single = len(sides) == 1 and len(sides[0]) == 1  # as of most phrases
        boxes += sides[0] if is_single else best_instances(sides)
    return [box.bbox for box in boxes]


def _phrase_entries(expression: Expression) -> Iterator[tuple[str, Any]]:
    """Yield (figure, value) for each value of a phrase to count, as ("statuses", "none").

    A share's value is True for what has the property, and False for what hasn't.
    """
    box_count = len(expression.instances)
    status = expression.shown_status
    yield "phrases", True
    yield "pairs", box_count > 0
    yield "statuses", status
    yield "negatives_share", status == "none"
    yield "made_up_share", expression.is_negative
    if expression.is_negative:  # `change` says how it was made absent: "colour" of "a blue cup"
        yield "negative_kinds", expression.change or "unknown"
    yield "verified_share", expression.verified is True
    yield "reviewed_share", bool(expression.reviewed_by)
    yield "words_per_phrase", len(expression.text.split())
    if box_count:
        yield "boxes_per_phrase", box_count


def _box_entries(box: Bbox, size: Size | None) -> Iterator[tuple[str, Any]]:
    """Yield pairs as `_phrase_entries` does, of one box; its edges need the picture's size."""
    size_of_box = coco_size(area(box))
    yield "sizes", size_of_box
    yield "small_share", size_of_box == "small"
    if size is None:
        return
    width, height = size
    _, _, x2, y2 = box
    # within a pixel of an edge, or beyond it
    yield "edge_share", min(box) < 1 or x2 > width - 1 or y2 > height - 1


def _figure_of_counts(kind: str, count_of_value: Mapping[Any, int]) -> Any:
    """Make a figure of its counts, by its kind in figures.yaml."""
    if not kind:  # how many have a property
        return count_of_value.get(True, 0)
    if kind == "names":
        return dict(sorted(count_of_value.items(), key=lambda item: -item[1]))
    total_count = sum(count_of_value.values())
    if not total_count:
        return None
    if kind == "share":  # the part that has a property
        return round(count_of_value.get(True, 0) / total_count, 4)
    # of kind "spread": mean, median and two percentiles
    return _spread(count_of_value, total_count)


def _spread(count_of_value: Mapping[float, int], total_count: int) -> dict[str, float]:
    values = sorted(count_of_value)
    # for each value how many of all counted values are at most as large
    ranks = list(accumulate(count_of_value[value] for value in values))
    sum_of_values = sum(value * count for value, count in count_of_value.items())
    spread = {"mean": round(sum_of_values / total_count, 2)}
    for name, part in _QUANTILES.items():
        least_rank = part * total_count
        # Of a value with this rank or more: a quantile is a value that was counted, never one
        # between two.
        first_place = bisect_left(ranks, least_rank)
        spread[name] = values[first_place]
    return spread


def advice_on(figures: JsonObject) -> dict[str, str]:
    """Return what to do about each figure beyond a bound of FIGURES, by its name."""
    advice: dict[str, str] = {}
    for name, row in FIGURES.items():
        figure = figures[name]
        if figure is None or row.kind == "table":  # it has no number
            continue
        own_advice = _advice_of_row(figure, row)
        if own_advice:
            advice[name] = own_advice
    return advice


def _advice_of_row(figure: Any, row: Figure) -> str:
    """Return what to do about a figure beyond a bound of its row; "" within its bounds."""
    value = figure
    if isinstance(figure, dict):
        # A spread is compared by its mean, counts by name by how many names there are.
        value = figure.get("mean", len(figure))
    advices = [advice for bound, advice in row.below.items() if value < bound]
    advices += [advice for bound, advice in row.above.items() if value > bound]
    if not advices:
        return ""
    if row.kind == "names":
        commonest = list(figure)[:3]
        return f"{advices[0]}: {', '.join(commonest)}"
    return advices[0]  # of several, the first counts

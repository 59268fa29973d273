"""Rows of another format, completed to records as this package writes them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.formats.base import stands
from dataflow_grounding.formats.data_lines import NO_AREA, broken, picture_size
from dataflow_grounding.formats.pictures_ahead import Pictures
from dataflow_grounding.records import Record, image_id_of, is_score, pixels, read_expressions, stated_size
from dataflow_grounding.spans import clean_caption, find_spans


def completed(
    rows: Iterable[dict[str, Any]], path: str, passed_over: Counter[str], backgrounds: bool
) -> Iterator[dict[str, Any]]:
    """The rows with ids, status, scores, and spans: those of the format if all are right, else those that are found.

    Boxes without an area are left out, and expressions that lose all of theirs so; `passed_over` counts both.
    With `backgrounds`, a row without expressions says that nothing is there, `background: true`, unless it states the
    contrary. Raises InputError that names `path` for an expression without text, a box that isn't x1, y1, x2, y2, a
    score out of [0, 1].
    """
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows, 1):
        image_id = image_id_of(row, "image_path") or "record"
        record = Record(row, occurrence=seen[image_id], image_id=image_id)
        seen[image_id] += 1
        with broken(f"{path}, record {number}"):
            sides = {side: pixels(record[side]) for side in ("width", "height") if record.get(side) is not None}
            if None in sides.values():
                raise BrokenRow("width and height should be whole numbers of pixels")
            given = record.get("cleaned_caption") or record.get("caption")
            expressions = list(_with_area(read_expressions(record, "expressions"), passed_over))
            caption = _with_spans(expressions, given if isinstance(given, str) else "")
            for item in expressions:
                item.setdefault("status", "grounded" if item["instances"] else "none")
            own: dict[str, Any] = {"image_id": record.unique_id} if record.get("image_id") is None else {}
            empty = backgrounds and not record["expressions"] and "background" not in record
            own |= {"background": True} if empty else {}
            yield {"image_id": None, **record, **sides, **own, "cleaned_caption": caption, "expressions": expressions}


def _with_spans(expressions: list[dict[str, Any]], caption: str) -> str:
    """Gives the expressions spans, where not all have right ones in the caption as it is, and returns their caption."""
    texts, spans = [item["text"] for item in expressions], [item.get("char_span", ()) for item in expressions]
    if not all(span is None or stands(text, span, caption) for text, span in zip(texts, spans, strict=True)):
        caption = clean_caption(caption)
        spans = find_spans(texts, caption)
    for item, span in zip(expressions, spans, strict=True):
        item["char_span"] = list(span) if span else None
    return caption


def _with_area(expressions: Iterable[dict[str, Any]], passed_over: Counter[str]) -> Iterator[dict[str, Any]]:
    for item in expressions:
        kept = []
        for instance in item["instances"]:
            (x1, y1, x2, y2), score = instance["bbox"], instance["score"]
            if x1 > x2 or y1 > y2:
                raise BrokenRow(f"the box {[x1, y1, x2, y2]} ends before it begins")
            if not is_score(score):
                raise BrokenRow(f"the score {score!r} is not between 0 and 1")
            kept += [instance] if x1 < x2 and y1 < y2 else []
        passed_over[NO_AREA] += len(item["instances"]) - len(kept)
        if kept or not item["instances"]:
            yield {**item, "instances": kept}
        else:
            passed_over["phrases left without a box"] += 1


def with_sizes(records: Iterable[dict[str, Any]], folder: str) -> Iterator[dict[str, Any]]:
    """The records with the width and height of their pictures, in pixels, upright, where these are in `folder`.

    What the data says stays: boxes are of that size, and a picture of another is found out when it is used.
    """
    pictures = Pictures((folder,))
    for record in pictures.ahead(records, lambda record: None if stated_size(record) else record["image_path"]):
        if not stated_size(record):
            with suppress(InputError):
                size = picture_size(pictures, record["image_path"], "")
                record |= {"width": size[0], "height": size[1]}
        yield record

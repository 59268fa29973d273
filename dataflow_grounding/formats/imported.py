"""Rows of another format, completed to records as this package writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from dataflow_grounding.errors import InputError
from dataflow_grounding.formats.data_lines import picture_size
from dataflow_grounding.records import Record, image_id_of, read_expressions
from dataflow_grounding.spans import clean_caption, find_spans


def completed(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with ids, status, scores, and spans: those of the format, else where the phrases stand in the caption.

    Raises BrokenRow for an expression without text, or with a box that is not four numbers.
    """
    seen: Counter[str] = Counter()
    for row in rows:
        image_id = image_id_of(row, "image_path") or "record"
        record = Record(row, occurrence=seen[image_id], image_id=image_id)
        seen[image_id] += 1
        yield _completed(record)


def _completed(record: Record) -> dict[str, Any]:
    caption = record.get("caption")
    caption = caption if isinstance(caption, str) else None
    expressions = read_expressions(record, "expressions")
    stated = all("char_span" in item for item in expressions)
    clean = record.get("cleaned_caption") or (caption if stated else clean_caption(caption or "")) or ""
    spans = [item.get("char_span") for item in expressions] if stated else _found(expressions, clean)
    for item, span in zip(expressions, spans, strict=True):
        item["char_span"] = list(span) if span else None
        item.setdefault("status", "grounded" if item["instances"] else "none")
    return {"image_id": record.unique_id, **record, "cleaned_caption": clean, "expressions": expressions}


def _found(expressions: list[dict[str, Any]], caption: str) -> list[Any]:
    return list(find_spans([item["text"] for item in expressions], caption))


def with_sizes(records: Iterable[dict[str, Any]], folder: str) -> Iterator[dict[str, Any]]:
    """The records with the width and height of their pictures, in pixels, upright, where these are in `folder`."""
    for record in records:
        with suppress(InputError):
            size = picture_size(folder, record["image_path"], "")
            record |= {"width": size[0], "height": size[1]}
        yield record

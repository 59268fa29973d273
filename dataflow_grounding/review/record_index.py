"""The index of a report: of each record, in a short row, what the page filters and orders by."""

from collections import Counter
from functools import lru_cache
from typing import Any

from dataflow_grounding.geometry import area, box_of
from dataflow_grounding.metrics.annotations import head_of
from dataflow_grounding.records import is_number
from dataflow_grounding.review.record_view import FIRST, MEANING, View

FLAGS = (*MEANING, "verified", "small", "medium", "large", "changed", "without picture")
"""What a record may have, by the bit that says so: the filters, and sizes of boxes below 32² and 96² pixels."""


class RecordIndex:
    """Makes the rows, and knows the words that they name by number."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}
        self._head_of = lru_cache(100_000)(head_of)
        self.models: dict[str, int] = {}
        self.marked: Counter[str] = Counter()

    def row(self, view: View, data: dict[str, Any]) -> list[Any]:
        """The row of a record, and of what `view_data` made of it.

        Returns:
            Id; flags as a number; the expressions' texts in lower case, in lines; for each expression the number of
            its head noun and that of its boxes, one after the other; lowest and highest score in hundredths, or -1;
            the number of its model.
        """
        counted, texts = [], []
        for e in view.expressions:
            texts.append(" ".join(e.text.lower().split()))
            counted += [self.heads.setdefault(self._head_of(e.text), len(self.heads)), len(e.instances)]
        scores = [i["score"] for e in view.expressions for i in e.instances if is_number(i.get("score"))]
        low, high = (round(100 * edge(scores)) if scores else -1 for edge in (min, max))
        marks = self._marks(view, data)
        self.marked.update(marks)
        bits = sum(1 << bit for bit, flag in enumerate(FLAGS) if flag in marks)
        model = self.models.setdefault(data["model"], len(self.models))
        return [data["id"], bits, "\n".join(texts), counted, low, high, model]

    def _marks(self, view: View, data: dict[str, Any]) -> set[str]:
        marks = {*view.marks, *({"without picture"} if data["missing"] else ())}
        marks |= {"changed"} if data.get("changes") else set()
        for e in view.expressions:
            marks |= {"verified"} if e.check == "verified" else set()
            marks |= {size_of(instance["bbox"]) for instance in e.instances}
        return marks


def size_of(bbox: Any) -> str:
    """The name of a box's size, as COCO has it: below 32² pixels small, below 96² medium, else large."""
    pixels = area(box_of(bbox))
    return "small" if pixels < 32**2 else "medium" if pixels < 96**2 else "large"


def rank_of(view: View) -> int:
    """Where a record stands: suspect ones first, then doubtful and unverified ones, then all others."""
    return next((rank for rank, mark in enumerate(FIRST) if mark in view.marks), len(FIRST))

"""A record as the report sees it: its expressions or regions, what it counts for, and what is to be looked at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding.drawing import PALETTE
from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.records import STATUSES, VERDICTS, Record, annotated_column, read_annotations

STATUS_MEANING = {
    "grounded": "found in the image",
    "none": "looked for, nothing there",
    "ambiguous": "several things fit equally",
    "unsupported": "not a thing that this grounder can look for",
    "pending": "not looked for yet",
}
MEANING = {
    "suspect": "boxes look as if they were in another format than the one they are read in",
    "doubtful": "much of a reply could not be used, samples disagree, or the record can't be read",
    "unverified": "a check says no, or could not be made",
    **STATUS_MEANING,
}
"""The filters of records, by the order in which they are offered, and what each means."""
FIRST = ("suspect", "doubtful", "unverified")
"""Those of them that come first."""


@dataclass(frozen=True)
class Expression:
    """An expression as the page shows it.

    `index` is its place among the record's expressions, from 0; `color` is that in the palette, None without boxes;
    `span` is `[start, end)` in the caption, in code points; `check` is what a check said, empty without one.
    """

    index: int
    text: str
    status: str
    color: int | None
    instances: Sequence[Mapping[str, Any]]
    span: tuple[int, int] | None
    check: str
    reasons: Sequence[str]
    disputed: bool
    expression_id: str


@dataclass
class View:
    """A record as the page shows it: `kind` is the column that was read, `problem` why it can't be, if so."""

    record: Mapping[str, Any]
    kind: str = ""
    expressions: list[Expression] = field(default_factory=list)
    problem: str = ""

    @property
    def caption(self) -> str:
        """The caption that spans are of; empty without one."""
        texts = (self.record.get(key) for key in ("cleaned_caption", "caption"))
        return next((text for text in texts if isinstance(text, str)), "")

    @property
    def marks(self) -> set[str]:
        """The filters that show it."""
        found = {e.status for e in self.expressions} if self.kind == "expressions" else set()
        if self.problem or self.record.get("doubtful") is True or any(e.disputed for e in self.expressions):
            found.add("doubtful")
        if any(e.check not in ("", "verified") for e in self.expressions):
            found.add("unverified")
        if self.record.get("suspect_boxes") is True:
            found.add("suspect")
        return found

    @property
    def counts(self) -> Counter[str]:
        """What it adds to the figures; a key with 0 says that the record has such things at all."""
        marks = self.marks
        found = Counter(images=1, doubtful="doubtful" in marks, suspect="suspect" in marks)
        regions = self.record.get("regions", self.record.get("region_captions"))
        if isinstance(regions, list):
            found["regions"] = len(regions)
        if self.kind == "region_captions":
            captions = self.record["region_captions"] if self.expressions else []
            found["captions"] = sum(isinstance(c, Mapping) and bool(c.get("text")) for c in captions)
        if self.kind == "expressions":
            found.update({"expressions": len(self.expressions), **dict.fromkeys(STATUSES, 0)})
            found.update(e.status for e in self.expressions)
        found.update("verified" if e.check == "verified" else "unverified" for e in self.expressions if e.check)
        return found


def view_of(record: Mapping[str, Any]) -> View:
    """The record's expressions, else its region captions, else its regions."""
    view = View(record, annotated_column(record))
    try:
        rows = read_annotations(Record(record)) if view.kind else []
    except BrokenRow as error:
        rows, view.problem = [], str(error)
    colored = 0
    for index, row in enumerate(rows):
        view.expressions.append(_expression(index, row, colored % len(PALETTE), len(view.caption)))
        colored += bool(row["instances"])
    return view


def _expression(index: int, row: Mapping[str, Any], color: int, caption_length: int) -> Expression:
    instances, status, verification = row["instances"], row.get("status"), row.get("verification")
    if status not in STATUSES:
        status = "grounded" if instances else "pending"
    verified = row.get("verified")
    check = VERDICTS[verified if isinstance(verified, bool) else None] if "verified" in row else ""
    why = row.get("reason") or (STATUS_MEANING[status] if status == "unsupported" else "")
    said = verification.get("reason") if isinstance(verification, Mapping) else ""
    reasons = [str(reason) for reason in (why, said) if reason and reason != check]
    span, disputed = _span(row.get("char_span"), caption_length), row.get("disagreement") is True
    shown = color if instances else None
    name = str(row["expression_id"])
    return Expression(index, row["text"], status, shown, instances, span, check, reasons, disputed, name)


def _span(value: Any, length: int) -> tuple[int, int] | None:
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and all(type(n) is int for n in value)):
        return None
    return (value[0], value[1]) if 0 <= value[0] < value[1] <= length else None

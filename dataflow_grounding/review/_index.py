"""A row of the index for each record of a page: what its filters, counts and orders need.

The page has all rows, and the records themselves only as it shows them. A mark is what records are
filtered by, such as `doubtful` (FLAGS has all).
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.boxes.geometry import COCO_SIZES, area, coco_size
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.data.records import Record, Update, doubt_of_reply, path_of
from dataflow_grounding.english.heads import head_of
from dataflow_grounding.review._record_view import (
    MEANING,
    PageClasses,
    PageNames,
    Phrases,
    file_name,
    id_of,
    stated_class,
)

FLAGS = (*MEANING, "verified", *COCO_SIZES, "changed", "without picture")
"""What a record may be marked with: the page's filters, and sizes of boxes.

The index in this tuple is the number of the bit in a row of the index, which `page.js` reads.
"""
_BITS = {flag: 1 << bit for bit, flag in enumerate(FLAGS)}


class Item(NamedTuple):
    """What is decided on at once: a thing's surest box, or a phrase that has no box."""

    id: str  # of the expression
    box: int | None  # its index; None for a phrase without a box
    # The thing's other boxes, which are judged with this one: the id and index of each.
    also: tuple[tuple[str, int], ...] = ()


def items_of(phrases: Phrases) -> Iterator[Item]:
    """Yield the items of a record in their order, in which page.js counts them, too."""
    for id, row in phrases.rows.items():
        if not row.instances:
            yield Item(id, None)
        for index in range(len(row.instances)):
            if not phrases.is_of_surer_box(id, index):
                yield Item(id, index, tuple(phrases.things.get((id, index), ())[1:]))


class Index:
    """Makes rows of records, and has what the page knows of all of them."""

    def __init__(self, classes: PageClasses) -> None:
        self.classes = classes
        self._models = PageNames()
        self._heads = PageNames()  # the head nouns of phrases that state no class

    def facts(self) -> Update:
        """Return what `page.js` begins with."""
        return {
            "flags": FLAGS,
            "meaning": MEANING,
            "classes": self.classes.names,
            "heads": self._heads.names,
            "models": self._models.names,
        }

    def row_of(self, record: Record, phrases: Phrases, marks: Collection[str]) -> list[Any]:
        """Return what `page.js` reads: ["a.jpg", 8, [["red cup", 4]], [95], 0, ""].

        These are the record's id, a bit for each of FLAGS, the phrases, the scores of the items
        that are boxes in hundredths (-1 without one), the model's number, and the name of the
        picture's file unless the id has it.
        """
        scores: list[int] = []
        bits = sum(_BITS[mark] for mark in marks)
        for id, row in phrases.rows.items():
            for index, box in enumerate(row.instances):
                if phrases.is_of_surer_box(id, index):
                    continue
                score = box.score
                scores.append(-1 if score is None else round(100 * min(max(score, 0), 1)))
                bits |= _BITS[coco_size(area(box.bbox))]
        model = self._models.number_of(str(record.get("model") or ""))
        id = id_of(record)
        path = path_of(record)
        file = "" if file_name(path) in id else file_name(blotted_message(path))
        shown_phrases = self._phrases_in_row(phrases)
        return [id, bits, shown_phrases, scores, model, file]

    def _phrases_in_row(self, phrases: Phrases) -> list[list[Any]]:
        """Return each phrase's words, class and number of boxes; a last 1 is left out.

        In ["red cups", 4, 2, [[0, 3, 1]]] the first box is of a thing that the record's phrase 3
        has a surer box of, its second. A status that the number of boxes doesn't tell comes last.
        """
        index_of_id = {id: index for index, id in enumerate(phrases.things and phrases.rows)}
        listed: list[list[Any]] = []
        for id, row in phrases.rows.items():
            count = len(row.instances)
            shown_as = []
            for index in range(count):
                if phrases.is_of_surer_box(id, index):
                    surest, box = phrases.things[id, index][0]
                    shown_as.append([index, index_of_id[surest], box])
            cells: list[Any] = [" ".join(row.text.lower().split()), self._label_of(row)]
            status = phrases.statuses[id]
            if status != ("grounded" if count else "none"):
                cells += [count, shown_as, status]
            elif shown_as:
                cells += [count, shown_as]
            elif count != 1:
                cells.append(count)
            listed.append(cells)
        return listed

    def _label_of(self, row: Expression) -> int:
        """Return the number of a class, from 0, or of a head noun, from -1 down."""
        name = stated_class(row)
        if name is not None:
            return self.classes.number_of(name)
        return -1 - self._heads.number_of(head_of(row.text))


def marks_of(record: Record, phrases: Phrases) -> set[str]:
    """Return those of FLAGS that a record has, but for sizes, and those that depend on others."""
    checks = {check for check in phrases.checks.values() if check}
    reasons = {  # a record has a mark if its reason is true, or isn't empty
        "suspect": record.get("suspect_boxes") is True,
        "unreadable": phrases.problem,
        "doubtful": doubt_of_reply(record),
        "disputed": any(row.disagreement for row in phrases.rows.values()),
        "undecided": "undecided" in checks,
        # a check didn't say yes, or couldn't be asked
        "unverified": checks - {"verified", "undecided"},
        "verified": "verified" in checks,
    }
    marks = {mark for mark, reason in reasons.items() if reason}
    if phrases.kind == "expressions":
        marks.update(phrases.statuses.values())
    return marks

"""What a record says of its whole picture, to detectors, which learn as background what has no box.

It holds for all records of the picture, so that they are gone through before any is written.
"""

from collections import Counter
from collections.abc import Sequence

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.data.bad_entries import SKIPPED
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rejected import MISSED, boxes_not_rejected, is_missed
from dataflow_grounding.formats.format import Format
from dataflow_grounding.formats.selection import Selection, verified_boxes

# Why a picture is left out: a box that nobody has verified or looked at; a thing that a person says
# is there, without a box; a class that may or may not be there.
UNVERIFIED = "unverified"
MISSED_BOX = "missed"
UNDECIDED_CLASS = "undecided"
SKIPPED_OBJECT = "skipped"  # a shape that an import has no place for
_MAX_NAMED = 3  # classes


class WholePictures:
    """Notes why a picture would be a false background."""

    def __init__(self, select: Selection, format: Format) -> None:
        self._format = format
        self.false_backgrounds: dict[str, str] = {}  # UNVERIFIED or the like, by the picture's name
        self._select = select
        # By class: in how many records it was looked for, and in how many it is undecided.
        self._records_of_class = Counter[str]()
        self._undecided_of_class = Counter[str]()
        self._boxed_classes: set[str] = set()  # that have a box somewhere in this export
        self._stated_classes: set[str] = set()  # that some expression states
        self._undecided_in: list[tuple[str, set[str]]] = []  # pictures' names, and which

    def note(self, name: str, record: Record, expressions: Sequence[Expression]) -> None:
        """Take in a record of the picture that is called `name`, and its expressions."""
        undecided = self._undecided_classes(expressions)
        self._records_of_class.update({self._format.class_of(one) for one in expressions})
        self._boxed_classes.update(self._boxed(expressions))
        self._undecided_of_class.update(undecided)
        if undecided:
            self._undecided_in.append((name, undecided))
        why = self._why_false(record, expressions)
        are_false_wanted = self._select.partly_verified
        if why and not are_false_wanted:
            self.false_backgrounds.setdefault(name, why)

    def remarks(self) -> list[str]:
        """Return a line on classes that are undecided wherever they were looked for, if any are."""
        always_undecided = []
        for name, count in sorted(self._undecided_of_class.items()):
            record_count = self._records_of_class[name]
            if count == record_count:
                always_undecided.append(f"{name}: undecided in {count} of {record_count} pictures")
        if not always_undecided:
            return []
        named = always_undecided[:_MAX_NAMED]
        more = len(always_undecided) - len(named)
        if more:
            named.append(f"and {more} more")
        return [
            f"{', '.join(named)} (ambiguous or unsupported: neither there nor absent);"
            " take such a class out of data.classes, or have another model look for it"
        ]

    def _why_false(self, record: Record, expressions: Sequence[Expression]) -> str:
        """Return a key such as UNVERIFIED; "" if the picture would be no false background."""
        if record.get(SKIPPED):
            return SKIPPED_OBJECT
        if self._leaves_out_boxes(expressions):
            return UNVERIFIED
        if record.get(MISSED) or any(map(is_missed, expressions)):
            return MISSED_BOX
        return ""

    def end(self) -> None:
        """Take in that all records were noted: now it is known which classes the export has."""
        if self._select.partly_verified:
            return
        for name, undecided in self._undecided_in:
            # The phrase of a caption is a class of its own: nobody looks for it in other pictures.
            # One that has a box in this export is a class there, and so is one that is stated.
            if undecided & (self._boxed_classes | self._stated_classes):
                self.false_backgrounds.setdefault(name, UNDECIDED_CLASS)

    def _boxed(self, expressions: Sequence[Expression]) -> set[str]:
        return {self._format.class_of(one) for one in expressions if one.instances}

    def _undecided_classes(self, expressions: Sequence[Expression]) -> set[str]:
        """Return the export's classes that are undecided, and have no box in the picture."""
        undecided = set()
        for expression in expressions:
            if expression.class_name is not None:
                self._stated_classes.add(self._format.class_of(expression))
            if expression.shown_status in ("ambiguous", "unsupported"):
                undecided.add(self._format.class_of(expression))
        return undecided - self._boxed(expressions)

    def _leaves_out_boxes(self, expressions: Sequence[Expression]) -> bool:
        """Whether a box that may be right isn't written, because nobody has verified it."""
        if not self._select.verified_only:
            return False
        # A box is ("a cat", (1, 2, 30, 40)) in these sets: equal boxes of one phrase count as one.
        not_wrong: set[tuple[str, Bbox]] = set()
        verified: set[tuple[str, Bbox]] = set()
        for expression in expressions:
            phrase = class_key(expression.text)
            boxes_not_wrong = boxes_not_rejected(expression)
            not_wrong.update((phrase, box.bbox) for box in boxes_not_wrong)
            for box in verified_boxes(expression, boxes_not_wrong) or []:
                verified.add((phrase, box.bbox))
        return verified != not_wrong

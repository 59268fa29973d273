"""How many pictures, boxes and absences a data set has of each of its classes."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.terminal import in_columns
from dataflow_grounding.boxes.geometry import Bbox, area, box_of
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import is_box, is_negative

# What is known of a class in a picture: the highest of its phrases' counts, as one that is there
# says more than another that isn't.
_NONE = 1
_UNDECIDED = 2
_BOXED = 3
_ALL_BITS = 3
_BITS = 2
_CLASSES_OF_A_TABLE = 64 // _BITS


@dataclass
class ClassCounts:
    """What a data set has of one class.

    `number` is the class's in its table. `pictures` are those with a box of it, `none` those in
    which it was looked for and isn't, `undecided` those of which it couldn't be told; `sides` is
    the sum of √area of its boxes, in pixels.
    """

    name: str
    number: int
    pictures: int = 0
    boxes: int = 0
    none: int = 0
    undecided: int = 0
    sides: float = 0.0

    @property
    def mean_side(self) -> float | None:
        """The mean √area of its boxes, in pixels; None where there are none."""
        return round(self.sides / self.boxes, 1) if self.boxes else None

    def to_json(self) -> dict[str, Any]:
        """The row of the table, as `stats --json` and `run.json` have it."""
        return {
            "class": self.name,
            "pictures": self.pictures,
            "boxes": self.boxes,
            "none": self.none,
            "undecided": self.undecided,
            "mean_side": self.mean_side,
        }


class ClassTable:
    """Counts expressions that state their class, as those of `data.classes` do.

    A picture counts once, however many rows it has.

    Example:
        >>> table = ClassTable()
        >>> cat = {"text": "a cat", "class": "cat", "instances": [{"bbox": [0, 0, 30, 30]}]}
        >>> dog = {"text": "dog", "class": "dog", "status": "none", "instances": []}
        >>> table.add("a.jpg", [cat, dog])
        >>> table.add("a.jpg", [cat])
        >>> table.rows()[0]
        {'class': 'cat', 'pictures': 1, 'boxes': 2, 'none': 0, 'undecided': 0, 'mean_side': 30.0}
    """

    def __init__(self) -> None:
        self._by_key: dict[str, ClassCounts] = {}
        self._with_class = 0
        self._without_class = 0
        # Of each 32 classes a table: picture's digest → what was seen of them there, two bits each.
        # There may be millions of pictures.
        self._seen: list[NumberTable] = []

    @property
    def is_of_classes(self) -> bool:
        """Whether most expressions that were counted state their class."""
        return self._with_class > self._without_class

    def add(self, picture: str, expressions: Sequence[Any]) -> None:
        """Count the expressions of a row of a picture; such as are no objects state no class."""
        digest = 0
        counted: set[tuple[int, tuple[float, ...]]] = set()  # equal boxes of a class are one
        for expression in expressions:
            if isinstance(expression, Mapping) and is_negative(expression):
                continue  # it was made up, and states no class
            name = expression.get("class") if isinstance(expression, Mapping) else None
            if not isinstance(name, str):
                self._without_class += 1
                continue
            self._with_class += 1
            if not digest:
                digest = _digest_of(picture)
            counts = self._counts_of(name)
            state = 0
            for bbox in _boxes_in(expression):
                state = _BOXED
                if (counts.number, bbox) not in counted:
                    counted.add((counts.number, bbox))
                    counts.boxes += 1
                    counts.sides += float(area(bbox) ** 0.5)
            self._see(digest, counts, state or _state_of(expression))

    def add_table(self, part: "ClassTable") -> None:
        """Take in the table of another part of the data set."""
        self._with_class += part._with_class
        self._without_class += part._without_class
        by_number = {}
        for theirs in part._by_key.values():
            ours = self._counts_of(theirs.name)
            ours.boxes += theirs.boxes
            ours.sides += theirs.sides
            by_number[theirs.number] = ours
        for first, table in enumerate(part._seen):
            for digest, states in table.items():
                for place in range(_CLASSES_OF_A_TABLE):
                    state = states >> (place * _BITS) & _ALL_BITS
                    if state:
                        self._see(digest, by_number[first * _CLASSES_OF_A_TABLE + place], state)

    def _counts_of(self, name: str) -> ClassCounts:
        """What was counted of a class, nothing yet for a new one."""
        key = class_key(name)
        counts = self._by_key.get(key)
        if counts is None:
            counts = ClassCounts(" ".join(name.split()), len(self._by_key))
            self._by_key[key] = counts
            if counts.number % _CLASSES_OF_A_TABLE == 0:
                self._seen.append(NumberTable())
        return counts

    def _see(self, digest: int, counts: ClassCounts, state: int) -> None:
        """Note what was seen of a class in a picture, and count the picture anew."""
        table = self._seen[counts.number // _CLASSES_OF_A_TABLE]
        shift = counts.number % _CLASSES_OF_A_TABLE * _BITS
        states = table.get(digest) or 0
        before = states >> shift & _ALL_BITS
        if state <= before:
            return
        table.set(digest, states & ~(_ALL_BITS << shift) | state << shift)
        counts.pictures += int(state == _BOXED)
        counts.undecided += int(state == _UNDECIDED) - int(before == _UNDECIDED)
        counts.none += int(state == _NONE) - int(before == _NONE)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each class: the one with most boxes first; none where few state theirs."""
        if not self.is_of_classes:
            return []
        counts = sorted(self._by_key.values(), key=lambda each: (-each.boxes, each.name))
        return [each.to_json() for each in counts]


def _digest_of(picture: str) -> int:
    """64 bits that tell a picture, the same in every process."""
    digest = hashlib.blake2b(picture.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _state_of(expression: Mapping[str, Any]) -> int:
    """What an expression without a box says of its class; 0 where it was not looked for."""
    status = expression.get("status")
    if status == "none":
        return _NONE
    return _UNDECIDED if status in ("ambiguous", "unsupported") else 0


def _boxes_in(expression: Mapping[str, Any]) -> Iterator[Bbox]:
    """Each box of an expression; what is none is left out."""
    instances = expression.get("instances")
    if not isinstance(instances, list):
        return
    for instance in instances:
        if isinstance(instance, dict) and is_box(instance.get("bbox")):
            yield box_of(instance["bbox"])


def class_lines(rows: Sequence[Mapping[str, Any]], most: int) -> Iterator[str]:
    """The table for a terminal, in columns: `most` classes, and how many there are."""
    if not rows:
        return
    cells = [["class", "pictures", "boxes", "none", "undecided", "mean side, px"]]
    for row in rows[:most]:
        side = row["mean_side"]
        line = [row["class"]]
        line += [f"{row[key]:,}" for key in ("pictures", "boxes", "none", "undecided")]
        line.append("-" if side is None else f"{side:,.0f}")
        cells.append(line)
    yield from in_columns(cells)
    if len(rows) > most:
        yield f"… ({len(rows):,} classes)"

"""How many pictures, boxes and absences a data set has of each of its classes: `ClassTable`.

A picture may have several rows, which say different things of a class. It counts once for each
class, by the strongest: a box, then "undecided", then "none". To know that for many pictures, the
table keeps a number for each, with two bits for each class.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dataflow_grounding._util.terminal import in_columns
from dataflow_grounding.boxes.geometry import area
from dataflow_grounding.boxes.matching import ScoredBox, each_thing_once
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression

# The states of a class in a picture. Of several expressions of the class, the one with the highest
# state counts, as one that is there says more than another that isn't. 0 is "not looked for".
_NONE = 1
_UNDECIDED = 2
_BOXED = 3
_BITS = 2  # bits that a state takes
_ALL_BITS = 0b11  # a mask of one state


@dataclass
class ClassCounts:
    """What a data set has of one class."""

    name: str
    number: int  # in the table, from 0
    pictures: int = 0  # that have a box of it
    boxes: int = 0
    none: int = 0  # pictures that were searched for it and don't have it
    undecided: int = 0  # pictures without a box of it that were searched without a clear answer
    sides: float = 0.0  # the sum of √area of its boxes, in pixels

    @property
    def mean_side(self) -> float | None:
        """In pixels."""
        return round(self.sides / self.boxes, 1) if self.boxes else None

    def count_pictures(self, state: int, change: int) -> None:
        """Count pictures in which the class has this state; 0, "not looked for", has no count."""
        if state == _BOXED:
            self.pictures += change
        elif state == _UNDECIDED:
            self.undecided += change
        elif state == _NONE:
            self.none += change

    def to_json(self) -> dict[str, object]:
        """Return a row of the table, as `stats --json` and `run.json` have it."""
        return {
            "class": self.name,
            "pictures": self.pictures,
            "boxes": self.boxes,
            "none": self.none,
            "undecided": self.undecided,
            "mean_side": self.mean_side,
        }


class ClassTable:
    """Counts expressions that state their class; a picture of several rows counts once."""

    def __init__(self) -> None:
        self.order: Sequence[str] = ()  # the classes that the user lists
        # whether several rows have boxes of one class in one picture
        self.has_shared_pictures = False
        self.repeated = 0  # boxes that didn't count, of a thing that counts already
        self._by_key: dict[str, ClassCounts] = {}  # by `class_key` of the class's name
        self._with_class = 0  # expressions that state their class
        self._without_class = 0
        # By a picture's digest: the states of all classes there, two bits each.
        self._states: dict[int, int] = {}

    @property
    def is_of_classes(self) -> bool:
        return self._with_class > self._without_class

    def add(self, picture: str, expressions: Sequence[Expression]) -> None:
        """Count a row's expressions. `picture` tells its picture from others, as its path does."""
        of_classes = self._count_stated_classes(expressions)
        if not of_classes:
            return
        digest = _digest_of(picture)
        # By the key of a class: the boxes of each of its phrases. They are counted per class at the
        # end, because boxes of two phrases may be of one thing.
        phrases_of_class: dict[str, list[list[ScoredBox]]] = {}
        state_of_class: dict[str, int] = {}  # by its name, of this row
        for name, expression in of_classes:
            boxes = [(instance.bbox, instance.score) for instance in expression.instances]
            if boxes:
                phrases_of_class.setdefault(class_key(name), []).append(boxes)
            state = _BOXED if boxes else _state_without_boxes(expression)
            state_of_class[name] = max(state, state_of_class.get(name, 0))
        for name, state in state_of_class.items():
            self._raise_state(digest, self._counts_of(name), state)
        for key, phrases in phrases_of_class.items():
            self._count_boxes(self._by_key[key], phrases)

    def _count_stated_classes(
        self, expressions: Sequence[Expression]
    ) -> list[tuple[str, Expression]]:
        """Count which expressions state a class, and return those, each after its class."""
        of_classes: list[tuple[str, Expression]] = []
        for expression in expressions:
            if expression.is_negative:
                continue  # it was made up, and says nothing of a class
            if expression.class_name is not None:
                of_classes.append((expression.class_name, expression))
                self._with_class += 1
            else:
                self._without_class += 1
        return of_classes

    def _count_boxes(self, counts: ClassCounts, phrases: Sequence[Sequence[ScoredBox]]) -> None:
        """Count a class's boxes. Where two phrases have found one thing, its best box counts."""
        for boxes, kept_indices in zip(phrases, each_thing_once(phrases), strict=True):
            self.repeated += len(boxes) - len(kept_indices)
            counts.boxes += len(kept_indices)
            for index in kept_indices:
                box, _ = boxes[index]
                counts.sides += float(area(box) ** 0.5)

    def add_table(self, part: "ClassTable") -> None:
        """Add what a part of the data set has. A picture with rows in both parts counts once."""
        self.repeated += part.repeated
        self._with_class += part._with_class
        self._without_class += part._without_class
        ours_by_their_number = {}  # the part numbers its classes by itself
        for theirs in part._by_key.values():
            ours = self._counts_of(theirs.name)
            ours.boxes += theirs.boxes
            ours.sides += theirs.sides
            ours_by_their_number[theirs.number] = ours
        for digest, their_number, state in part._all_states():
            self._raise_state(digest, ours_by_their_number[their_number], state)

    def _all_states(self) -> Iterator[tuple[int, int, int]]:
        """Yield a picture's digest, a class's number and its state there."""
        for digest, states in self._states.items():
            for number in range(len(self._by_key)):
                state = _state_at(number, states)
                if state:
                    yield digest, number, state

    def _counts_of(self, name: str) -> ClassCounts:
        """The counts of a class, by any spelling that `class_key` takes for it."""
        key = class_key(name)
        counts = self._by_key.get(key)
        if counts is None:
            counts = ClassCounts(" ".join(name.split()), len(self._by_key))
            self._by_key[key] = counts
        return counts

    def _raise_state(self, digest: int, counts: ClassCounts, state: int) -> None:
        """Note the state of a class in a picture, unless it has a higher one there."""
        states = self._states.get(digest, 0)
        state_before = _state_at(counts.number, states)
        if state == state_before == _BOXED:
            self.has_shared_pictures = True
        if state <= state_before:
            return
        shift = counts.number * _BITS
        states_of_others = states & ~(_ALL_BITS << shift)
        self._states[digest] = states_of_others | (state << shift)
        # The picture is counted under its state now, and no longer under the one before.
        counts.count_pictures(state, 1)
        counts.count_pictures(state_before, -1)

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each class, those of `order` first, then by how many boxes they have."""
        if not self.is_of_classes:
            return []
        most_boxes_first = sorted(self._by_key.values(), key=lambda row: (-row.boxes, row.name))
        # `in_order` moves listed classes to the front, and leaves the others in their order.
        names = in_order([counts.name for counts in most_boxes_first], self.order)
        return [self._counts_of(name).to_json() for name in names]


def in_order(names: Iterable[str], listed: Sequence[str]) -> list[str]:
    """Sort names so that those of `listed` come first, in its order, by `class_key`."""
    rank_of = {class_key(name): rank for rank, name in enumerate(listed)}
    return sorted(names, key=lambda name: rank_of.get(class_key(name), len(listed)))


def _digest_of(picture: str) -> int:
    digest = hashlib.blake2b(picture.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _state_at(number: int, states: int) -> int:
    """The state of the class of that number."""
    return (states >> (number * _BITS)) & _ALL_BITS


def _state_without_boxes(expression: Expression) -> int:
    """0, "not looked for", if the status says nothing about the class."""
    if expression.status == "none":
        return _NONE
    return _UNDECIDED if expression.status in ("ambiguous", "unsupported") else 0


def class_lines(rows: Sequence[Mapping[str, object]], most: int) -> Iterator[str]:
    """Yield the lines of a table of the first `most` rows that ClassTable.rows returned."""
    if not rows:
        return
    # The head of "undecided" is "unclear", because a check on the same screen may call phrases
    # undecided, and mean something else.
    table = [["class", "pictures", "boxes", "none", "unclear", "mean side, px"]]
    for row in rows[:most]:
        side = row["mean_side"]
        cells = [str(row["class"])]
        cells += [f"{row[key]:,}" for key in ("pictures", "boxes", "none", "undecided")]
        cells.append("-" if side is None else f"{side:,.0f}")
        table.append(cells)
    yield from in_columns(table)
    if len(rows) > most:
        yield f"… ({len(rows):,} classes)"

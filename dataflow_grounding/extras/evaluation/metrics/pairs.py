"""Which phrase of one file is which of another's, by image, caption and phrase; which of their
boxes make a pair.
"""

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.boxes.geometry import Bbox, Size, area, around, box_of, iou
from dataflow_grounding.boxes.matching import first_free
from dataflow_grounding.data.records import is_number, stated_size
from dataflow_grounding.data.spans import clean_caption
from dataflow_grounding.extras.evaluation.metrics.annotations import Annotations, names_of

Row: TypeAlias = dict[str, Any]
Pair: TypeAlias = tuple[Row, Row | None]
Names: TypeAlias = tuple[str, str]  # of a picture: its path, else its id; and the id that it states
# an id, or its end, that says a place: elsewhere it may be another phrase
_PLACE = re.compile(r"(?:^|#)[0-9]+$")
_MOST_PAIRS = 10**5  # of equal phrases in an image: more would take minutes
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""COCO's ten thresholds of IoU."""


@dataclass
class PairedRecord:
    """What the gold says of an image and caption, and what was found there: records with the
    phrases of all such.

    `image` is the image's number; `phrases` are the gold's with the found ones, `extra` the rest of
    those. `scaled` counts the found records that state another size of the picture than the gold.
    """

    image: int
    gold: Row
    found: Row | None
    phrases: list[Pair]
    extra: list[Row]
    scaled: int


def pair(found: Annotations, gold: Annotations) -> "Pairs":
    """Match records by image and caption, phrases by `expression_id`, else by text; the order of
    records is nothing.

    An image is known by its path; where the other file doesn't have that, by the id that one image
    of each states. A record without a caption, or with one that the other file doesn't have for its
    image, is matched by the image alone. Texts are compared up to case and spacing; of equal ones
    those are one that state the same span, else those whose boxes overlap most. An id has to be
    stated, and unique in both files; one that ends with `#` and a number, which says a place, is
    that of equal texts alone. Found boxes are scaled where their record states another size of the
    picture than the gold.

    Raises:
        InputError: A file has no records, or one that names no picture, or they have no picture in
            common.
    """
    return Pairs(found, gold)


class Pairs:
    """The pairs of `pair`, image by image: of one image at a time the records are in memory. They
    can be gone over again, which matches them again.
    """

    def __init__(self, found: Annotations, gold: Annotations) -> None:
        self._gold, self._found = gold, found
        sides = [_Side(gold), _Side(found)]
        self._once = sides[0].ids_once() & sides[1].ids_once()
        # Of each side the records in the order of their pictures, and where in it each picture
        # begins.
        self._order, self._begins = _by_picture(sides[0].names, sides[1].names)
        if not len(self._order[1]):
            which = (
                "have no record of the same image: give both the same `image_path`, or `image_id`"
            )
            raise InputError(f"{found.name} and {gold.name} {which}")

    def __iter__(self) -> Iterator[PairedRecord]:
        for number in range(len(self._begins[0]) - 1):
            places = [
                order[begins[number] : begins[number + 1]].tolist()
                for order, begins in zip(self._order, self._begins, strict=True)
            ]
            records = [self._gold[n] for n in places[0]], [self._found[n] for n in places[1]]
            size = max(filter(None, map(stated_size, records[0])), default=None)
            for pool in _by_caption(*records):
                wanted, given = ([_scaled(record, size) for record in side] for side in pool)
                scaled = sum(one is not its for one, its in zip(given, pool[1], strict=True))
                one, other = _as_one(wanted), _as_one(given) if given else None
                phrases, extra = _match(
                    one["expressions"], other["expressions"] if other else [], self._once
                )
                yield PairedRecord(number, one, other, phrases, extra, scaled)


class _Side:
    """What of all records of a file is needed at once: what their pictures are called, and hashes
    of phrases' ids.
    """

    def __init__(self, side: Annotations) -> None:
        if not side:
            raise InputError(f"{side.name} has no records")
        self.names = list[Names]()
        self._ids = array("q")
        for place, record in enumerate(side, 1):
            self.names.append(names_of(record, f"record {place} of {side.name}"))
            ids = (str(phrase["expression_id"]) for phrase in record["expressions"])
            self._ids.extend(hash(own) for own in ids if own)

    def ids_once(self) -> set[int]:
        """Hashes of the ids that one phrase has."""
        import numpy as np

        ids, counts = np.unique(np.frombuffer(self._ids, np.int64), return_counts=True)
        return set(ids[counts == 1].tolist())


def _by_picture(gold: list[Names], found: list[Names]) -> tuple[Any, Any]:
    """By the gold's pictures in the order of their names: the numbers of each side's records, and
    where each begins.
    """
    import numpy as np

    number_of = {name: n for n, name in enumerate(sorted({name for name, _ in gold}))}
    by_id = _by_id(gold, found)
    orders, begins = [], []
    for side in (gold, found):
        pictures = np.fromiter(
            (
                number_of.get(name if name in number_of else by_id.get(stated, ""), -1)
                for name, stated in side
            ),
            np.int64,
        )
        order = np.argsort(pictures, kind="stable")
        order = order[np.count_nonzero(pictures < 0) :]
        orders.append(order)
        begins.append(np.searchsorted(pictures[order], np.arange(len(number_of) + 1)).tolist())
    return orders, begins


def _by_id(gold: list[Names], found: list[Names]) -> dict[str, str]:
    """Gold pictures whose path the other side doesn't have, by an id that one picture of each side
    states.
    """
    paths = {name for name, _ in found}
    left = {own for name, own in gold if own and name not in paths}
    if not left:
        return {}
    sides = [{both for both in side if both[1] in left} for side in (gold, found)]
    times = [Counter(own for _, own in side) for side in sides]
    return {
        own: name
        for name, own in sides[0]
        if times[0][own] == 1 == times[1][own] and name not in paths
    }


def _by_caption(*sides: list[Row]) -> list[tuple[list[Row], list[Row]]]:
    """The records of a picture by captions that both sides have; those with others, or without,
    together.
    """
    said = [[clean_caption(str(record["caption"] or "")) for record in side] for side in sides]
    both = {*said[0]} & {*said[1]} if sides[1] else {*said[0]}
    pools = defaultdict[str, tuple[list[Row], list[Row]]](lambda: ([], []))
    for n, side in enumerate(sides):
        for record, caption in zip(side, said[n], strict=True):
            pools[caption if caption in both else ""][n].append(record)
    return [pool for _, pool in sorted(pools.items()) if pool[0]]


def _scaled(record: Row, size: Size | None) -> Row:
    """The record with its boxes in a picture of this size; itself where it states no other."""
    own = stated_size(record)
    if not own or not size or own == size:
        return record
    sides, phrases = (size[0] / own[0], size[1] / own[1]), []
    for phrase in record["expressions"]:
        boxes = (
            {**box, "bbox": [n * sides[i % 2] for i, n in enumerate(box["bbox"])]}
            for box in phrase["instances"]
        )
        phrases.append({**phrase, "instances": [*boxes]})
    return {**record, "width": size[0], "height": size[1], "expressions": phrases}


def _as_one(records: list[Row]) -> Row:
    return {
        **min(records, key=repr),
        "expressions": [phrase for record in records for phrase in record["expressions"]],
    }


def _keys_of(phrase: Row, once: Collection[int]) -> Sequence[Hashable]:
    own_id, text, span = (
        str(phrase["expression_id"]),
        clean_caption(phrase["text"]).casefold(),
        phrase.get("char_span"),
    )
    unique = bool(own_id) and hash(own_id) in once
    return [
        unique and ((own_id, text) if _PLACE.search(own_id) else own_id),
        span and (text, *span),
        text,
    ]


def _match(
    wanted: list[Row], given: list[Row], once: Collection[int]
) -> tuple[list[Pair], list[Row]]:
    """Each wanted phrase with the one given that has its first key, else its second, else its
    third; and those left.
    """
    sides = (
        [(row, _keys_of(row, once)) for row in wanted],
        [(row, _keys_of(row, once)) for row in given],
    )
    partner: dict[int, int] = {}
    for rank in range(3):
        alike = defaultdict[Hashable, tuple[list[int], list[int]]](lambda: ([], []))
        for n, taken in enumerate(({*partner}, {*partner.values()})):
            for place, (_, keys) in enumerate(sides[n]):
                if keys[rank] and place not in taken:
                    alike[keys[rank]][n].append(place)
        for one, other in alike.values():
            partner |= _nearest({n: wanted[n] for n in one}, {n: given[n] for n in other})
    taken = {*partner.values()}
    same = [(row, given[partner[n]] if n in partner else None) for n, row in enumerate(wanted)]
    return same, [row for n, row in enumerate(given) if n not in taken]


def _nearest(wanted: Mapping[int, Row], given: Mapping[int, Row]) -> dict[int, int]:
    """One to one, whatever their order: those whose boxes together overlap most; of a great many by
    place alone.
    """
    if len(wanted) * len(given) < 2:
        return dict(zip(wanted, given, strict=False))
    sides = []
    for rows in (wanted, given):
        boxes = {
            n: sorted(box_of(one["bbox"]) for one in row["instances"]) for n, row in rows.items()
        }
        ordered = sorted(rows, key=lambda n: (boxes[n], repr(rows[n])))
        sides.append([(n, boxes[n] and around(boxes[n])) for n in ordered])
    if len(wanted) * len(given) > _MOST_PAIRS:
        return {n: m for (n, _), (m, _) in zip(*sides, strict=False)}
    near = [
        (-iou(a, b) if a and b else bool(a or b), n, m) for n, a in sides[0] for m, b in sides[1]
    ]
    return first_free((n, m) for _, n, m in sorted(near, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class Rules:
    """When a box is right, which papers settle in different ways.

    Attributes:
        threshold: The IoU that makes a box right, in [0, 1], where a measure has none of its own.
        strict: Whether the IoU has to be above a threshold, not at it.
        giou: Whether generalised IoU is held against thresholds. Mean IoU stays that of IoU.
        plus_one: Whether x2 and y2 are pixels that belong to the box, so that its width is x2 - x1
            + 1.
        score_cut: The score below which a box doesn't count where boxes are counted, not ranked;
            None counts all. Boxes without score count.
    """

    threshold: float = 0.5
    strict: bool = False
    giou: bool = False
    plus_one: bool = False
    score_cut: float | None = None

    def __post_init__(self) -> None:
        """Raises SpecError for a threshold or a cut that isn't a number from 0 to 1."""
        for name, value in (("threshold", self.threshold), ("score_cut", self.score_cut or 0)):
            if not (is_number(value) and 0 <= value <= 1):
                raise SpecError(f"{name} should be a number from 0 to 1, not {value!r}")

    def passes(self, overlap: float, threshold: float) -> bool:
        """Whether an overlap makes a box right."""
        return overlap > threshold if self.strict else overlap >= threshold

    def boxes_of(self, phrase: Mapping[str, Any] | None) -> list[Bbox]:
        """The phrase's boxes up to their far edges; none of none."""
        boxes = [instance["bbox"] for instance in phrase["instances"]] if phrase else []
        return [(x1, y1, x2 + self.plus_one, y2 + self.plus_one) for x1, y1, x2, y2 in boxes]

    def counted(self, phrase: Mapping[str, Any] | None) -> set[int]:
        """The places of the phrase's boxes that the score cut leaves."""
        scores = [instance["score"] for instance in phrase["instances"]] if phrase else []
        return {
            n for n, score in enumerate(scores) if score is None or score >= (self.score_cut or 0)
        }


class Overlap(NamedTuple):
    """A found and a gold box that meet, by their places in the phrase.

    `held` is what is held against thresholds: IoU, or generalised IoU, which is never larger.
    """

    held: float
    iou: float
    found: int
    gold: int


def overlaps_of(found: list[Bbox], gold: list[Bbox], rules: Rules) -> list[Overlap]:
    """All pairs of boxes that meet, in the order of the found ones."""
    overlaps = []
    for n, a in enumerate(found):
        for m, b in enumerate(gold):
            if shared := iou(a, b):
                held = shared
                if rules.giou:
                    hull = area(around([a, b]))
                    # the sum of areas is union · (1 + IoU)
                    held -= 1 - (area(a) + area(b)) / (1 + shared) / hull
                overlaps.append(Overlap(held, shared, n, m))
    return overlaps


def one_to_one(overlaps: Iterable[Overlap], rules: Rules) -> list[Overlap]:
    """Which box is which, from IoU 0.5 or the rules' threshold on, the largest overlap first."""
    ranked = sorted(overlaps, key=lambda overlap: (-overlap.held, overlap.gold, overlap.found))
    near = {
        (one.found, one.gold): one
        for one in ranked
        if rules.passes(one.held, min(rules.threshold, 0.5))
    }
    return [near[pair] for pair in first_free(near).items()]

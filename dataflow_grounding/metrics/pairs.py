"""Which phrase of one file is which of another's: by image, caption and phrase."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dataflow_grounding.errors import InputError
from dataflow_grounding.geometry import Size, box_of
from dataflow_grounding.metrics.annotations import Annotations, names_of, plain
from dataflow_grounding.records import stated_size

Row: TypeAlias = dict[str, Any]
_PLACE = re.compile(r"(?:^|#)[0-9]+$")  # an id, or its end, that says a place: elsewhere it may be another phrase


@dataclass
class PairedRecord:
    """What the gold says of an image and caption, and what was found there: records with the phrases of all such.

    `image` is the image's number; `phrases` are the gold's with the found ones, `extra` the rest of those. `scaled`
    counts the found records that state another size of the picture than the gold.
    """

    image: int
    gold: Row
    found: Row | None
    phrases: list[tuple[Row, Row | None]]
    extra: list[Row]
    scaled: int


def pair(found: Annotations, gold: Annotations) -> list[PairedRecord]:
    """Match records by image and caption, phrases by `expression_id`, else by text; the order of records is nothing.

    An image is known by its path, else by its id. A record without a caption, or with one that the other file doesn't
    have for its image, is matched by the image alone. Texts are compared up to case and spacing; equal ones come in
    their order or, where they stand in several records, in that of their boxes. An id has to be unique in both files;
    one that ends with `#` and a number, which says a place, is that of equal texts alone. Found boxes are scaled where
    their record states another size of the picture than the gold.

    Raises:
        InputError: A file has no records, or one that names no picture, or they have no picture in common.
    """
    pictures = _by_picture(gold, found)
    if not any(given for _, given in pictures.values()):
        raise InputError(f"{found.name} and {gold.name} have no record of the same image (`image_path`, `image_id`)")
    ids = [Counter(str(phrase["expression_id"]) for phrase in side.phrases) for side in (gold, found)]
    once, pairs = {own for own, count in ids[0].items() if count == 1 == ids[1][own]}, []
    for number, (_, records) in enumerate(sorted(pictures.items())):
        size = max(filter(None, map(stated_size, records[0])), default=None)
        for pool in _by_caption(*records):
            wanted, given = ([_scaled(record, size) for record in side] for side in pool)
            scaled = sum(one is not its for one, its in zip(given, pool[1], strict=True))
            several = max(len(wanted), len(given)) > 1
            one, other = _as_one(wanted, several), _as_one(given, several) if given else None
            same, extra = _match(one["expressions"], other["expressions"] if other else [], once)
            phrases = list(zip(one["expressions"], same, strict=True))
            pairs.append(PairedRecord(number, one, other, phrases, extra, scaled))
    return pairs


def _by_picture(*sides: Annotations) -> dict[str, tuple[list[Row], list[Row]]]:
    """The records of gold and of what was found, by the gold's pictures."""
    pictures, of_id = dict[str, tuple[list[Row], list[Row]]](), defaultdict[str, set[str]](set)
    for n, side in enumerate(sides):
        if not side:
            raise InputError(f"{side.name} has no records")
        for place, record in enumerate(side, 1):
            name, own = names_of(record, f"record {place} of {side.name}")
            if n == 0:
                of_id[own].add(name)
                pictures.setdefault(name, ([], []))
            elif own and name not in pictures and len(of_id[own]) == 1:
                name = min(of_id[own])
            if name in pictures:
                pictures[name][n].append(record)
    return pictures


def _by_caption(*sides: list[Row]) -> list[tuple[list[Row], list[Row]]]:
    """The records of a picture by captions that both sides have; those with others, or without, together."""
    said = [[plain(str(record["caption"] or "")) for record in side] for side in sides]
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
        boxes = ({**box, "bbox": [n * sides[i % 2] for i, n in enumerate(box["bbox"])]} for box in phrase["instances"])
        phrases.append({**phrase, "instances": [*boxes]})
    return {**record, "width": size[0], "height": size[1], "expressions": phrases}


def _as_one(records: list[Row], several: bool) -> Row:
    """One record with the phrases of all, in the order of their boxes where one side has several records."""
    if not several:
        return records[0]
    phrases = [phrase for record in records for phrase in record["expressions"]]
    phrases.sort(key=lambda phrase: (sorted(box_of(one["bbox"]) for one in phrase["instances"]), repr(phrase)))
    return {**min(records, key=repr), "expressions": phrases}


def _keys_of(phrase: Row, once: Collection[str]) -> Sequence[Hashable]:
    own_id, text = str(phrase["expression_id"]), plain(phrase["text"]).casefold()
    return [own_id in once and ((own_id, text) if _PLACE.search(own_id) else own_id), text]


def _match(wanted: list[Row], given: list[Row], once: Collection[str]) -> tuple[list[Row | None], list[Row]]:
    """For each wanted phrase the first free one given that has its first key, else its second; and those left over."""
    asked, offered = ([_keys_of(row, once) for row in rows] for rows in (wanted, given))
    partner: list[int | None] = [None] * len(wanted)
    for rank in (0, 1):
        free, taken = defaultdict[Hashable, list[int]](list), set(partner)
        for n in range(len(given) - 1, -1, -1):
            if offered[n][rank] and n not in taken:
                free[offered[n][rank]].append(n)
        for n, keys in enumerate(asked):
            if partner[n] is None and (same := free.get(keys[rank])):
                partner[n] = same.pop()
    taken = set(partner)
    return [None if n is None else given[n] for n in partner], [row for n, row in enumerate(given) if n not in taken]

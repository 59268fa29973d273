"""Which phrase of one file is which of another's: by image, caption and phrase."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from dataflow_grounding.errors import InputError
from dataflow_grounding.metrics.annotations import Annotations

Row: TypeAlias = dict[str, Any]
_PLACE = re.compile(r"#[0-9]+$")  # ends an id of ours, which says the place alone: elsewhere it may be another phrase


@dataclass
class PairedRecord:
    """A gold record with the number of its image, the predicted one, its phrases with the predicted ones, the rest."""

    image: int
    gold: Row
    found: Row | None
    phrases: list[tuple[Row, Row | None]]
    extra: list[Row]


def pair(found: Annotations, gold: Annotations) -> list[PairedRecord]:
    """Match records by image and, if both files state captions, caption; phrases by `expression_id`, else by text.

    An image is known by its path, else by its id. Texts are compared up to case and spacing, equal ones in their order;
    ids that end with `#` and a number, which say a place, are those of equal texts alone.

    Raises:
        InputError: They have no record in common.
    """
    captioned = all(any(record["caption"] for record in side) for side in (gold, found))
    others, _ = _match(gold, found, partial(_keys_of_record, captioned=captioned))
    if found and gold and not any(others):
        raise InputError(f"{found.name} and {gold.name} have no record of the same image (`image_path`) and `caption`")
    numbers: dict[Hashable, int] = {}
    pairs = []
    for place, (record, answer) in enumerate(zip(gold, others, strict=True)):
        number = numbers.setdefault(next(filter(None, _names(record)), place), len(numbers))
        same, extra = _match(record["expressions"], answer["expressions"] if answer else [], _keys_of_phrase)
        phrases = list(zip(record["expressions"], same, strict=True))
        pairs.append(PairedRecord(number, record, answer, phrases, extra))
    return pairs


def _names(record: Row) -> tuple[Hashable, Hashable]:
    path, name = record["image_path"] or record["image"], record["image_id"]
    return os.path.normpath(str(path)) if path else None, None if name in (None, "") else ("id", str(name))


def _keys_of_record(record: Row, captioned: bool) -> list[Hashable]:
    return [name and (name, str(record["caption"]) if captioned else "") for name in _names(record)]


def _keys_of_phrase(phrase: Row) -> list[Hashable]:
    own_id, plain = str(phrase["expression_id"]), " ".join(phrase["text"].split()).casefold()
    return [(own_id, plain) if _PLACE.search(own_id) else own_id, plain]


def _match(
    wanted: list[Row], given: list[Row], keys_of: Callable[[Row], Sequence[Hashable]]
) -> tuple[list[Row | None], list[Row]]:
    """For each wanted row the first free one given that has its first key, else its second; and those left over."""
    asked, offered = ([keys_of(row) for row in rows] for rows in (wanted, given))
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

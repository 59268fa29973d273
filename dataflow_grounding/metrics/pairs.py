"""Which phrase of one file is which of another's: by image, caption and phrase."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from dataflow_grounding.errors import InputError
from dataflow_grounding.metrics.annotations import Annotations

_Keys: TypeAlias = "Sequence[tuple[Hashable, Hashable]]"  # what an item is known by, and what else; None where unknown


@dataclass
class Pairs:
    """Gold beside predictions: `partner` and `records` are each gold phrase's and record's place there, or -1."""

    gold: Annotations
    found: Annotations
    partner: np.ndarray
    records: np.ndarray

    @cached_property
    def record_of(self) -> np.ndarray:
        """The place of each gold phrase's record."""
        return np.array([phrase["record"] for phrase in self.gold.phrases], int)

    @cached_property
    def image_of(self) -> np.ndarray:
        """The number of each gold record's image, from 0."""
        keys = [_image(record) for record in self.gold.records]
        names = [path or name or place for place, (path, name) in enumerate(keys)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names], int)

    @cached_property
    def judged(self) -> np.ndarray:
        """Whether the gold knows what is there for each of its phrases: without boxes, not if it leaves that open."""
        left_open = [phrase["status"] in ("ambiguous", "unsupported") for phrase in self.gold.phrases]
        return (self.gold.boxes.counts > 0) | ~np.array(left_open, bool)

    @cached_property
    def owner(self) -> np.ndarray:
        """The place of the gold phrase that each found phrase is, or -1."""
        return _inverse(self.partner, len(self.found.phrases))

    @cached_property
    def box_owner(self) -> np.ndarray:
        """The place of the judged gold phrase that each found box is for, or -1."""
        places = np.where(self.judged, np.arange(len(self.partner)), -1)
        return np.repeat(np.append(places, -1)[self.owner], self.found.boxes.counts)

    @cached_property
    def record_owner(self) -> np.ndarray:
        """The place of the gold record that each found phrase's record is, or -1."""
        owner = _inverse(self.records, len(self.found.records))
        return owner[[phrase["record"] for phrase in self.found.phrases]] if self.found.phrases else owner[:0]


def pair(found: Annotations, gold: Annotations) -> Pairs:
    """Match records by image and, if both files state captions, caption; phrases by `expression_id`, else by text.

    An image is known by its path, else by its id. Texts are compared up to case and spacing, equal ones in their order;
    ids that end with `#` and a number, which say a place, are those of equal texts alone.

    Raises:
        InputError: They have no record in common.
    """
    captions = [[record["caption"] or record["cleaned_caption"] for record in side.records] for side in (gold, found)]
    both = all(map(any, captions))
    of_records: list[_Keys] = [
        [tuple(name and (name, str(caption) if both else "") for name in _image(record)) for record, caption in rows]
        for rows in (zip(gold.records, captions[0], strict=True), zip(found.records, captions[1], strict=True))
    ]
    pairs = Pairs(gold, found, np.empty(0, int), _match(*of_records))
    if found.records and not (pairs.records >= 0).any():
        raise InputError(f"{found.name} and {gold.name} have no record of the same image (`image_path`) and `caption`")
    of_phrases: list[_Keys] = [
        [((place, phrase["id"]), (place, phrase["plain"])) for place, phrase in zip(places, side.phrases, strict=True)]
        for side, places in ((gold, pairs.record_of.tolist()), (found, pairs.record_owner.tolist()))
    ]
    pairs.partner = _match(*of_phrases)
    return pairs


def _image(record: dict[str, Any]) -> tuple[Hashable, Hashable]:
    path, name = record["image_path"] or record["image"], record["image_id"]
    return os.path.normpath(str(path)) if path else None, None if name in (None, "") else ("id", str(name))


def _match(wanted: _Keys, given: _Keys) -> np.ndarray:
    """For each wanted item the first free one given that has its first key, else that has its second; -1 for none."""
    partner = np.full(len(wanted), -1)
    for rank in (0, 1):
        free, taken = defaultdict[Hashable, list[int]](list), set(partner.tolist())
        for place in range(len(given) - 1, -1, -1):
            if place not in taken and given[place][rank]:
                free[given[place][rank]].append(place)
        for place in np.flatnonzero(partner < 0).tolist():
            if same := free.get(wanted[place][rank]):
                partner[place] = same.pop()
    return partner


def _inverse(places: np.ndarray, length: int) -> np.ndarray:
    owner = np.full(length, -1)
    owner[places[places >= 0]] = np.flatnonzero(places >= 0)
    return owner

"""Which phrase of one file is which of another's: by image, caption and phrase."""

from __future__ import annotations

import os
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dataflow_grounding.errors import InputError
from dataflow_grounding.metrics.annotations import Annotations
from dataflow_grounding.records import has_id

_NUMBERED = re.compile(r"#[0-9]+$")  # an id of ours, which says the place alone: another run's may be another phrase


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
        names = [next(iter(_images(record)), place) for place, record in enumerate(self.gold.records)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names], int)

    @cached_property
    def owner(self) -> np.ndarray:
        """The place of the gold phrase that each found phrase is, or -1."""
        owner = np.full(len(self.found.phrases), -1)
        owner[self.partner[self.partner >= 0]] = np.flatnonzero(self.partner >= 0)
        return owner

    @cached_property
    def judged(self) -> np.ndarray:
        """Whether the gold knows what is there for each of its phrases: without boxes, not if it leaves that open."""
        left_open = [phrase["status"] in ("ambiguous", "unsupported") for phrase in self.gold.phrases]
        return (self.gold.boxes.counts > 0) | ~np.array(left_open, bool)

    @cached_property
    def box_owner(self) -> np.ndarray:
        """The place of the judged gold phrase that each found box is for, or -1."""
        places = np.where(self.judged, np.arange(len(self.partner)), -1)
        return np.repeat(np.append(places, -1)[self.owner], self.found.boxes.counts)

    @cached_property
    def record_owner(self) -> np.ndarray:
        """The place of the gold record that each found phrase's record is, or -1."""
        places = {other: place for place, other in enumerate(self.records.tolist())}
        return np.array([places.get(phrase["record"], -1) for phrase in self.found.phrases], int)


def pair(found: Annotations, gold: Annotations) -> Pairs:
    """Match records by image and caption, phrases by `expression_id`, else by text (up to case and spacing) in order.

    An image is known by its path, else by its id; a record without caption is of any. Of ids that end with `#` and a
    number, which say a place, the text has to be the same, too.

    Raises:
        InputError: They have no record in common.
    """
    free: dict[tuple[Any, ...], deque[int]] = defaultdict(deque)
    for place, record in enumerate(gold.records):
        for image in _images(record):
            for caption in (_caption(record), ...):
                free[image, caption].append(place)
    records = np.full(len(gold.records), -1)
    for place, record in enumerate(found.records):
        captions = [...] if _caption(record) is None else [_caption(record), None]
        for queue in [free[image, caption] for image in _images(record) for caption in captions]:
            while queue and records[queue[0]] >= 0:
                queue.popleft()
            if queue:
                records[queue[0]] = place
                break
    if found.records and not (records >= 0).any():
        raise InputError(f"{found.name} and {gold.name} have no record of the same image (`image_path`) and `caption`")
    partner = np.full(len(gold.phrases), -1)
    for place, other in enumerate(records.tolist()):
        _pair_phrases(gold, found, gold.phrases_of(place), found.phrases_of(other), partner)
    return Pairs(gold, found, partner, records)


def _images(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    path = record["image_path"] or record["image"]
    named = (("path", os.path.normpath(str(path)) if path else None), ("id", record["image_id"]))
    return [(kind, str(name)) for kind, name in named if has_id(name)]


def _caption(record: Mapping[str, Any]) -> str | None:
    caption = record["caption"] or record["cleaned_caption"]
    return str(caption) if caption else None


def _pair_phrases(gold: Annotations, found: Annotations, wanted: range, there: range, partner: np.ndarray) -> None:
    by_id = {found.phrases[n]["id"]: n for n in there if found.phrases[n]["id"] is not None}
    for n in wanted:
        own_id, plain = gold.phrases[n]["id"], gold.phrases[n]["plain"]
        if own_id in by_id and (not _NUMBERED.search(own_id) or found.phrases[by_id[own_id]]["plain"] == plain):
            partner[n] = by_id.pop(own_id)
    taken = set(partner[wanted.start : wanted.stop].tolist())
    free: dict[str, deque[int]] = defaultdict(deque)
    for n in there:
        if n not in taken:
            free[found.phrases[n]["plain"]].append(n)
    for n in wanted:
        if partner[n] < 0 and (same := free[gold.phrases[n]["plain"]]):
            partner[n] = same.popleft()

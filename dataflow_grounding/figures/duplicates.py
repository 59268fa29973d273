"""Pictures that are the same, or nearly: by dHash, 64 bits that say where a picture grows brighter to the right."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from dataflow_grounding.errors import RecordError
from dataflow_grounding.geometry import Size
from dataflow_grounding.image_files import decoding, read_file
from dataflow_grounding.images import find_image
from dataflow_grounding.records import Record
from dataflow_grounding.terminal import LiveLine

_NEAR = 4  # bits in which the dHashes of pictures may differ that count as nearly the same
_BANDS = (0, 11, 22, 33, 44, 54, 64)  # so many bits leave two of these six bands equal
_FLAT = 8  # levels of grey: a thumbnail with fewer has no dHash that tells anything
_AHEAD = 64  # pictures that are read ahead


def hash_of(data: bytes) -> int:
    """64 bits that stand for the data, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def path_of(record: Mapping[str, Any]) -> str:
    """The path of a record's picture, as the record has it; empty where it has none."""
    path = record.get("image_path" if "image_path" in record else "image")
    return path if isinstance(path, str) else ""


def stated_size(record: Mapping[str, Any]) -> Size | None:
    """The width and height that a record says its picture has, in pixels."""
    sides = [side for side in (record.get("width"), record.get("height")) if type(side) is int and side > 0]
    return (sides[0], sides[1]) if len(sides) == 2 else None


def known_id(path: str) -> str:
    """What lists of ids call a picture: COCO's number, where a name has its 12 digits, else the name without ending."""
    stem = os.path.splitext(os.path.basename(path.strip()))[0]
    coco = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:_\d+)?", stem)
    return str(int(coco[1])) if coco else stem


class Pictures:
    """The pictures of records, each path once, numbered as they are met, and read in threads; as a `with`.

    Without `read`, and of pictures that can't be read (`unread`), paths are compared.
    """

    def __init__(self, folders: Sequence[str], read: bool = True) -> None:
        self._folders, self._places = tuple(folders), dict[int, int]()
        self._pool = ThreadPoolExecutor(os.cpu_count()) if read else None
        self._waiting = deque[Future[int | None]]()
        self._line = LiveLine.on_terminal() if read else None
        self.keys, self.looks, self.unread = array("Q"), array("Q"), 0

    def place(self, record: Mapping[str, Any]) -> int:
        """The number of the record's picture, from 0."""
        path = path_of(record)
        key = hash_of(path.encode("utf-8", "surrogatepass"))
        place = self._places.setdefault(key, len(self.keys))
        if place == len(self.keys):
            self.keys.append(key)
            if self._pool:
                self._waiting.append(self._pool.submit(_look, Record({"image": path}, self._folders)))
                self._take(_AHEAD)
        return place

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._take(0 if error is None else len(self._waiting))
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        else:
            self.looks = self.keys
        if self._line:
            self._line.end()

    def _take(self, left: int) -> None:
        while len(self._waiting) > left:
            look, place = self._waiting.popleft().result(), len(self.looks)
            self.unread += look is None
            self.looks.append(self.keys[place] if look is None else look)
            if self._line and place % 20 == 0:
                self._line.show("pictures:", [f"{place:,} read"])


def _look(record: Record) -> int | None:
    """A picture's dHash; of one that is flat, and so has none, what stands for its pixels; None if it can't be read."""
    try:
        path = find_image(record, "image").path
        with decoding(read_file(path), path) as picture:
            grey = np.asarray(picture.convert("L").resize((9, 8)), int)
            if np.ptp(grey) < _FLAT:
                return hash_of(repr(picture.size).encode() + picture.tobytes())
    except RecordError:
        return None
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "little")


def first_alike(*sets: Pictures) -> np.ndarray:
    """For each picture of all sets, one after the other, the first of those that it is the same as, or nearly so."""
    looks, first, which = np.unique(np.concatenate([one.looks for one in sets]), return_index=True, return_inverse=True)
    group = list(range(len(looks)))
    for ones, others in _near(looks):
        for pair in zip(ones.tolist(), others.tolist(), strict=True):
            one, other = sorted((_root(group, place) for place in pair), key=first.__getitem__)
            group[other] = one
    return first[[_root(group, place) for place in group]][which]


def _root(group: list[int], place: int) -> int:
    while group[place] != place:
        group[place] = place = group[group[place]]
    return place


def _near(looks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of looks that are near: only those are compared that have two bands in common."""
    bands = [looks >> np.uint64(low) & np.uint64(2 ** (high - low) - 1) for low, high in pairwise(_BANDS)]
    for one, other in combinations(bands, 2):
        key = one << np.uint64(11) | other
        order = np.argsort(key)
        key, at, step = key[order], np.arange(len(key)), 0
        while len(at):
            step += 1
            at = at[at + step < len(key)]
            at = at[key[at] == key[at + step]]
            apart = looks[order[at]] ^ looks[order[at + step]]
            hit = at[np.unpackbits(apart.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1) <= _NEAR]
            yield order[hit], order[hit + step]

"""The stored replies of a run, read without touching them: a run may be at work on the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from dataflow_grounding.engine.keyed_log import CHECK, Vouched
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.engine.vouching import entries_of, void_spans
from dataflow_grounding.serving.base import Usage


def stored_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole line of a store with its place in the file; damaged ones are passed over. A missing file has none."""
    place = 0
    try:
        with open(path, "rb") as file:
            for text in file:
                at, place = place, place + len(text)
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict) and isinstance(line.get("key"), str):
                    yield at, line
    except FileNotFoundError:
        return


def usage_of_line(line: dict[str, Any]) -> Usage:
    """The tokens that the endpoint counted for a stored reply."""
    counts = line.get("usage")
    whole = isinstance(counts, list) and len(counts) == 3 and all(isinstance(n, int) for n in counts)
    return Usage(*counts) if whole and counts is not None else Usage()


class StoredReplies:
    """Replies by key: those of the store at `path`, and, on top, those that are put here, which are kept in memory."""

    first_new = 1
    end = 1

    def __init__(self, path: str | None) -> None:
        self._path = path
        self.vouched = Vouched()
        self._places = NumberTable()
        self._new: dict[str, dict[str, Any]] = {}
        self.used: dict[str, Usage] = {}
        """What the stored replies cost that were asked for since `begin`, by key."""
        for place, line in stored_lines(path) if path else ():
            if line.get("task") != CHECK:
                self._places.set(_number(line["key"]), place + 1)
            elif "checks" in line:
                self.vouched.void = void_spans(entries_of(line, place))

    def of_step(self) -> StoredReplies:
        """The same stored replies, with what one step puts and asks for."""
        mine = copy.copy(self)
        mine.begin()
        return mine

    def begin(self) -> None:
        """Forget what was put here, and what was asked for."""
        self._new, self.used = {}, {}

    @property
    def asked(self) -> frozenset[str]:
        """The keys that were asked for, stored or not."""
        return frozenset([*self._new, *self.used])

    def get(self, key: str, since: int = 0) -> dict[str, Any] | None:
        """The reply put here under `key`, or, unless only new ones count, the last stored one."""
        if key in self._new or since:
            return self._new.get(key)
        place = self._places.get(_number(key))
        if not place or self._path is None:
            return None
        with open(self._path, "rb") as file:
            file.seek(place - 1)
            line: dict[str, Any] = json.loads(file.readline())
        if line.get("key") != key or self.vouched.is_void(line, place - 1):
            return None
        self.used[key] = usage_of_line(line)
        return line

    def put(self, key: str, value: Any) -> dict[str, Any]:
        """Keep a reply in memory."""
        self._new[key] = {"key": key, **value}
        return self._new[key]

    def lines(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """No check looks at them."""
        return iter(())

    def __len__(self) -> int:
        return self._places.count


def _number(key: str) -> int:
    try:
        return int(key[:16], 16)
    except ValueError:
        return 0

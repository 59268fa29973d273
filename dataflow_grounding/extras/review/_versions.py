"""Versions of records beside each other: what a step changed, or where two runs differ."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import IO, Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import box_of, iou
from dataflow_grounding.data.records import ROW_OF_IMAGE, parse_line, path_of
from dataflow_grounding.extras.review._record_view import View, view_of

_STEP = re.compile(r"step_([0-9]+)_.+|(.*)_step([0-9]+)\.jsonl")
_SAME = 1.0  # pixels by which two edges may differ
Expressions: TypeAlias = list[dict[str, Any]]


class Version:
    """A file of records (JSON lines) as an earlier step or another run left them, looked up by
    record.

    Args:
        name: What people call it.
        path: The file; of it, only where each record begins is kept in memory.
        is_run: Whether it is another run's, of which what is missing is told too.
    """

    def __init__(self, name: str, path: str, is_run: bool = False) -> None:
        self.name, self.is_run = name, is_run
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        at = 0
        for line in self._file:
            with suppress(BrokenRow):
                self._places[_key(parse_line(line))].append(at)
            at += len(line)

    def take(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Its version of a record; of several alike, each is given once, in order."""
        places = self._places.get(_key(record))
        return self._record(places.pop(0)) if places else None

    def left(self) -> Iterator[dict[str, Any]]:
        """Those that were not taken."""
        yield from map(
            self._record, sorted(at for places in self._places.values() for at in places)
        )

    def _record(self, at: int) -> dict[str, Any]:
        self._file.seek(at)
        return parse_line(self._file.readline())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


# Names and earlier versions of a record, in order; or the name of the run that alone has it.
Earlier: TypeAlias = "list[tuple[str, Mapping[str, Any]]] | str"


def steps_of(results: str) -> list[tuple[str, str]]:
    """Names and files of a run's steps in order; the annotations are a copy of the last. None where
    two runs have left theirs.
    """
    found, runs = [], set()
    for name in os.listdir(results):
        path = os.path.join(results, name)
        path = os.path.join(path, "annotations.jsonl") if os.path.isdir(path) else path
        if (step := _STEP.fullmatch(name)) and os.path.isfile(path):
            found.append((int(step[1] or step[3]), name.removesuffix(".jsonl"), path))
            runs.add(step[2])
    return [(name, path) for _, name, path in sorted(found)] if len(runs) == 1 else []


def with_versions(
    records: Iterable[Mapping[str, Any]], versions: Sequence[Version], name: str
) -> Iterator[tuple[Mapping[str, Any], Earlier]]:
    """Each record, called `name`, with its earlier versions; then what another run alone has."""
    for record in records:
        found = [(version, version.take(record)) for version in versions]
        alone = any(version.is_run and not other for version, other in found)
        yield (
            record,
            name if alone else [(version.name, other) for version, other in found if other],
        )
    for version in versions:
        yield from ((record, version.name) for record in version.left() if version.is_run)


def beside(view: View, earlier: Earlier, name: str) -> dict[str, Any]:
    """What `record.js` needs to show a record's earlier versions beside it; nothing where none of
    them differs.

    Args:
        view: The record, called `name`.
        earlier: Its earlier versions, as `with_versions` gives them.

    Returns:
        `only`, the name of the run that alone has it; or `changes`, each with `version`, `text` of
        the expression and what is `said`; and `versions`, those that differ from the one before
        them and the one that they differ from, with `name` and `expressions`.
    """
    if isinstance(earlier, str):
        return {"only": earlier}
    seen = [(title, view_of(other)) for title, other in earlier]
    # a region's caption is no other version of the region; expressions of regions may be
    alike = [
        (title, one["expressions"])
        for title, one in seen
        if view["kind"] in (one["kind"], "expressions")
    ]
    decided = [
        (title, rows) for title, rows in alike if any(e["status"] != "pending" for e in rows)
    ]
    changes: list[dict[str, str]] = []
    shown: dict[str, Expressions] = {}
    for (before, old), (after, new) in pairwise([*decided, (name, view["expressions"])]):
        if said := list(_differences(old, new)):
            changes += [{"version": after, "text": text, "said": what} for text, what in said]
            shown.update({before: old, after: new})
    rows = [{"name": title, "expressions": expressions} for title, expressions in shown.items()]
    return {"changes": changes, "versions": rows} if changes else {}


def _differences(before: Expressions, after: Expressions) -> Iterator[tuple[str, str]]:
    """Text of each expression that is not the same in both, and what is different, in words."""
    old, new = _named(before), _named(after)
    for key, e in old.items():
        if key not in new:
            yield e["text"], "left out"
        elif said := " · ".join(_difference(e, new[key])):
            yield e["text"], said
    yield from ((e["text"], "added") for key, e in new.items() if key not in old)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old["status"] != new["status"]:
        yield f"{old['status']} → {new['status']}"
    one, other = ([box_of(i["bbox"]) for i in e["instances"]] for e in (old, new))
    if len(one) != len(other):
        yield f"{len(one)} → {len(other)} boxes"
    elif any(
        abs(a - b) > _SAME
        for p, q in zip(one, other, strict=True)
        for a, b in zip(p, q, strict=True)
    ):
        yield f"box moved, IoU {min(map(iou, one, other)):.2f}"
    if old["check"] != new["check"] and (old["check"] or new["check"] != "verified"):
        yield f"{old['check'] or 'no check'} → {new['check'] or 'no check'}"


def _named(expressions: Expressions) -> dict[tuple[str, int], dict[str, Any]]:
    """By text, and which of that text."""
    counted, named = Counter[str](), {}
    for e in expressions:
        text = e["text"].casefold()
        named[text, counted[text]] = e
        counted[text] += 1
    return named


def _key(record: Mapping[str, Any]) -> int:
    return hash((str(record.get("image_id") or path_of(record)), record.get(ROW_OF_IMAGE) or 1))

"""Versions of records beside each other: what a step changed, or where two runs differ."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import IO, Any

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.geometry import box_of, iou
from dataflow_grounding.records import ROW_OF_IMAGE, parse_line, path_of
from dataflow_grounding.review.record_data import view_data
from dataflow_grounding.review.record_view import Expression, View, view_of

_STEP = re.compile(r"step_([0-9]+)_.+|(.*)_step([0-9]+)\.jsonl")
_SAME = 1.0  # pixels by which two edges may differ


class Version:
    """A file of records (JSON lines) as an earlier step or another run left them, looked up by record.

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

    def take(self, record: Mapping[str, Any]) -> View | None:
        """Its version of a record; of several alike, each is given once, in order."""
        places = self._places.get(_key(record))
        return self._view(places.pop(0)) if places else None

    def left(self) -> Iterator[View]:
        """Those that were not taken."""
        yield from map(self._view, sorted(at for places in self._places.values() for at in places))

    def _view(self, at: int) -> View:
        self._file.seek(at)
        return view_of(parse_line(self._file.readline()))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def steps_of(results: str) -> list[tuple[str, str]]:
    """Names and files of a run's steps in order; the annotations are a copy of the last. None where two runs have
    left theirs.
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
    views: Iterable[View], versions: Sequence[Version], name: str
) -> Iterator[tuple[View, dict[str, Any]]]:
    """Each record, called `name`, and what its data have more because of its versions; then what one run alone has."""
    for view in views:
        others = [(version.name, version.take(view.record)) for version in versions]
        alone = any(version.is_run and not other for version, (_, other) in zip(versions, others, strict=True))
        yield view, {"only": name} if alone else beside(view, others, name)
    for version in versions:
        yield from ((view, {"only": version.name}) for view in version.left() if version.is_run)


def beside(view: View, versions: Sequence[tuple[str, View | None]], name: str) -> dict[str, Any]:
    """What `record.js` needs to show a record's earlier versions beside it; nothing where none of them differs.

    Args:
        view: The record, called `name`.
        versions: Its earlier ones, in order, by name.

    Returns:
        `changes`, each with `version`, `text` of the expression and what is `said`; and `versions`, those that differ
        from the one before them and the one that they differ from, with `name` and `expressions`.
    """
    decided = [(title, one) for title, one in versions if one and any(e.status != "pending" for e in one.expressions)]
    changes: list[dict[str, str]] = []
    shown: dict[str, View] = {}
    for (before, old), (after, new) in pairwise([*decided, (name, view)]):
        if said := list(differences(old.expressions, new.expressions)):
            changes += [{"version": after, "text": text, "said": what} for text, what in said]
            shown.update({before: old, after: new})
    listed = [{"name": title, "expressions": view_data(one)["expressions"]} for title, one in shown.items()]
    return {"changes": changes, "versions": listed} if changes else {}


def differences(before: Sequence[Expression], after: Sequence[Expression]) -> Iterator[tuple[str, str]]:
    """Text of each expression that is not the same in both, and what is different, in words."""
    old, new = _named(before), _named(after)
    for key, e in old.items():
        if key not in new:
            yield e.text, "left out"
        elif said := " · ".join(_differences(e, new[key])):
            yield e.text, said
    yield from ((e.text, "added") for key, e in new.items() if key not in old)


def _differences(old: Expression, new: Expression) -> Iterator[str]:
    if old.status != new.status:
        yield f"{old.status} → {new.status}"
    one, other = ([box_of(i["bbox"]) for i in e.instances] for e in (old, new))
    if len(one) != len(other):
        yield f"{len(one)} → {len(other)} boxes"
    elif any(abs(a - b) > _SAME for p, q in zip(one, other, strict=True) for a, b in zip(p, q, strict=True)):
        yield f"box moved, IoU {min(map(iou, one, other)):.2f}"
    if old.check != new.check and (old.check or new.check != "verified"):
        yield f"{old.check or 'no check'} → {new.check or 'no check'}"


def _named(expressions: Iterable[Expression]) -> dict[tuple[str, int], Expression]:
    counted, named = Counter[str](), {}
    for e in expressions:
        text = e.text.casefold()
        named[text, counted[text]] = e
        counted[text] += 1
    return named


def _key(record: Mapping[str, Any]) -> int:
    return hash((str(record.get("image_id") or path_of(record)), record.get(ROW_OF_IMAGE) or 1))

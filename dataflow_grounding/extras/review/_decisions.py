"""Decisions of reviewers: lines of `reviews.jsonl`, each on disk before the next is taken, and what
stands after them.

A line of a decision: `record`, `changes` (of each expression: `id`, `version` that it was made on,
`before`, `after`), `action`, `who`, `when`, `seconds`, `queue` and, where they apply, `comment`,
`blind`, `undoes`; `uid`, by which one that is sent twice is known. A line of a sample: `sample`,
`who`, `when`.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import (
    Record,
    dump_line,
    is_number,
    parse_line,
    read_expressions,
)
from dataflow_grounding.data.results_folder import annotations_of
from dataflow_grounding.engine.keyed_log import append, storing
from dataflow_grounding.extras.review._overlay import (
    Truth,
    changed,
    is_judged,
    next_id,
    overlaid,
    rows_of,
    version_of,
)
from dataflow_grounding.extras.review._record_view import Expression, expressions_of

ACTIONS = (
    "accept",
    "reject",
    "absent",
    "draw",
    "move",
    "phrase",
    "split",
    "join",
    "add",
    "delete",
    "comment",
    "undo",
)


class ReviewFiles(NamedTuple):
    """Where the records stand, the decisions on them, and the records as reviewed."""

    annotations: str
    decisions: str
    reviewed: str


def review_files(results: str) -> ReviewFiles:
    """The files of a results folder, or of a file of records, beside it. Raises InputError where
    there are no records.

    Example:
        >>> review_files("example_data/gold.jsonl").decisions
        'example_data/gold.reviews.jsonl'
    """
    annotations = annotations_of(results)
    if is_elsewhere(annotations):
        raise InputError(
            f"decisions on {annotations} can't be kept there: copy it to this machine, and name the"
            " copy"
        )
    stem = annotations.removesuffix(".jsonl")  # x.csv and x.jsonl have decisions of their own
    if stem.endswith(".reviewed"):
        raise InputError(f"{annotations} is what `apply` wrote: name what it was made of instead")
    of_folder = os.path.basename(stem) == "annotations"
    log = (
        os.path.join(os.path.dirname(stem), "reviews.jsonl")
        if of_folder
        else f"{stem}.reviews.jsonl"
    )
    return ReviewFiles(annotations, log, f"{stem}.reviewed.jsonl")


class Said:
    """What stands after decisions, by record: of each expression its Truth, and the
    last comment.
    """

    def __init__(self) -> None:
        self.truths: defaultdict[str, dict[str, Truth]] = defaultdict(dict)
        self.comments: dict[str, str] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a decision. Raises BrokenRow, KeyError, TypeError, AttributeError for a line that is
        none.
        """
        sides = [change[side] for change in line["changes"] for side in ("before", "after")]
        if not all(side is None or isinstance(side, dict) for side in sides):
            raise TypeError
        read_expressions(Record({"sides": [side for side in sides if side is not None]}), "sides")
        truths = self.truths[line["record"]]
        for change in line["changes"]:
            id, before, after = str(change["id"]), change["before"], change["after"]
            known = truths.pop(id, None) or Truth(None, before)
            if version_of(after) != version_of(known.before) or (
                is_judged(after) and not line.get("undoes")
            ):
                # else it is as if nobody had said anything
                truths[id] = Truth.of(after, known.before)
        if line.get("comment"):
            self.comments[line["record"]] = str(line["comment"])
        elif "comment" in line:
            self.comments.pop(line["record"], None)

    def over(self, record: Record, key: str) -> Record:
        """The record with what was said of it."""
        return overlaid(record, self.truths.get(key, {}), self.comments.get(key))

    def rows(self, record: Record, key: str) -> dict[str, Expression]:
        """The record's expressions as they stand then, by id. Raises BrokenRow."""
        return rows_of(record, expressions_of(record), self.truths.get(key, {}))


class Decisions:
    """The decisions in a file, read as far as it goes; what others append meanwhile is read before
    each own.

    A torn or damaged line, as a killed process or a full disk leaves it, counts for nothing. Blind
    second reviews stand apart, by reviewer: they say what another saw, and change nothing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # "": what counts; by name: blind second reviews
        self.said: defaultdict[str, Said] = defaultdict(Said)
        self.by: dict[tuple[str, str], str] = {}  # record and expression → who decided last
        self.samples: list[dict[str, Any]] = []
        self.count = 0
        self._taken: dict[str, dict[str, Any]] = {}  # by their own ids
        self.damaged: list[int] = []  # lines that count for nothing, from 1
        self._read = self._lines = 0
        self.refresh()

    def tell_damaged(self) -> None:
        """Say which lines count for nothing."""
        for line in self.damaged:
            say(f"Note: {self.path}, line {line} can't be read and counts for nothing.")

    def refresh(self) -> None:
        """Read the lines that are new."""
        if not os.path.exists(self.path):
            return
        with storing(self.path), open(self.path, "rb") as file:
            file.seek(self._read)
            for text in file:
                try:
                    self._take(parse_line(text))
                except (BrokenRow, KeyError, AttributeError, TypeError):  # damaged, or no decision
                    if not text.endswith(b"\n"):  # torn, or not yet whole
                        break
                    self.damaged += [self._lines + 1] if text.strip() else []
                self._read += len(text)
                self._lines += text.endswith(b"\n")

    def _take(self, line: dict[str, Any]) -> None:
        if isinstance(line.get("sample"), dict):
            self.samples.append(
                {**line["sample"], "who": line.get("who"), "when": line.get("when")}
            )
            return
        who = str(line.get("who"))
        self.said[who if line.get("blind") else ""].take(line)
        self.count += 1
        self._taken[str(line.get("uid"))] = line
        if not line.get("blind"):
            self.by.update({(line["record"], str(change["id"])): who for change in line["changes"]})

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The file, open: no other process appends meanwhile, where the file system has locks; all
        of it is known.

        Raises StorageFailed, also for what is done with it.
        """
        import fcntl

        with storing(self.path), open(open_log(self.path, os.O_RDWR), "ab+", buffering=0) as file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            self.refresh()
            yield file.fileno()

    def sync(self) -> None:
        """Put all that is appended on disk. Raises StorageFailed."""
        with self._alone() as file:
            os.fsync(file)

    def _append(self, file: int, who: str, line: Mapping[str, Any]) -> None:
        """Hand a line to the system, whole or not at all; after a torn one it begins anew."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        data = dump_line({**line, "who": who, "when": when}).encode()
        size = os.fstat(file).st_size
        is_torn = size and os.pread(file, 1, size - 1) != b"\n"
        append(file, b"\n" * bool(is_torn) + data, size)
        self.refresh()

    def state_sample(self, sample: Mapping[str, Any], who: str) -> None:
        """Put on disk which sample is drawn, before any of it is shown."""
        with self._alone() as file:
            self._append(file, who, {"sample": sample})
        self.sync()

    def decide(
        self, record: Record, key: str, given: Mapping[str, Any], who: str, blind: bool = False
    ) -> list[dict[str, Any]]:
        """Take a reviewer's decision; a killed process keeps it, and `sync` puts it on disk.

        Args:
            record: As the pipeline left it.
            key: What the record is called in the file.
            given: `uid`, `action`, `seconds`, `queue`, `comment`, and `changes`: of each expression
                `id` (any where it is `fresh`), `version`, and `after` as `changed` takes it; or
                `undoes`, the uid of a decision.
            who: The reviewer.
            blind: It is a second review.

        Returns:
            The changes as they stand in the file.

        Raises:
            InputError: The decision is not of that form, or somebody else changed one of the
                expressions meanwhile.
            StorageFailed: It can't be put on disk.
        """
        own = {**_of_decision(given), **({"blind": True} if blind else {})}
        with self._alone() as file:
            if own.get("uid") in self._taken:  # it came before, and its answer was lost
                return self._changes(given["uid"], key)
            said = self.said[who if blind else ""]
            now, changes = said.rows(record, key), list[dict[str, Any]]()
            undoes = given.get("undoes")
            for change in (
                reversed(self._changes(undoes, key)) if undoes else listed(given, "changes")
            ):
                fresh = change.get("fresh") or not change.get("id")
                id = (
                    next_id(record, {**now, **said.truths.get(key, {})})
                    if fresh
                    else str(change["id"])
                )
                before = now.pop(id, None)
                if version_of(before) != (
                    version_of(change["after"]) if undoes else change.get("version")
                ):
                    name, other = (
                        before["text"] if before else id,
                        self.by.get((key, id), "another run"),
                    )
                    raise InputError(f"{name}: {other} changed it meanwhile")
                after = change["before"] if undoes else change.get("after")
                if not (undoes or after is None):
                    after = changed(record, id, before, after, who, now)
                now |= {id: after} if after else {}
                changes.append(
                    {"id": id, "version": version_of(before), "before": before, "after": after}
                )
            self._append(file, who, {"record": key, "changes": changes, **own})
            return changes

    def _changes(self, uid: Any, key: str) -> list[dict[str, Any]]:
        """The changes of a decision on a record. Raises InputError where there is none."""
        line = self._taken.get(uid, {})
        if line.get("record") != key:
            raise InputError("there is no such decision on this record")
        return list(line["changes"])


def _of_decision(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a decision says of itself. Raises InputError."""
    if given.get("action") not in ACTIONS:
        raise InputError(
            f"'action' should be one of {', '.join(ACTIONS)}, not {given.get('action')!r}"
        )
    seconds = given.get("seconds")
    named = ("uid", "action", "queue", "comment", "undoes")
    found = {
        name: given[name]
        for name in named
        if given.get(name) or (name, given.get(name)) == ("comment", "")
    }
    if not all(isinstance(value, str) and len(value) <= 10_000 for value in found.values()):
        raise InputError(
            "'uid', 'queue' and 'comment' should be texts of at most 10,000 characters"
        )
    return {**found, "seconds": round(float(str(seconds)), 2) if is_number(seconds) else None}


def listed(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """What is given under a name. Raises InputError where it is no list of objects."""
    found = given.get(name)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise InputError(f"{name!r} should be a list of objects")
    return found

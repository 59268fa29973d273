"""Decisions of reviewers: lines of `reviews.jsonl`, and what stands after them.

Each line is on disk before the next is taken. A line of a decision has `record`, `changes` (of each
expression: `id`, `version` that it was made on, `before`, `after`), `action`, `who`, `when`,
`seconds`, `queue` and, where they apply, `comment`, `blind`, `undoes`; `uid`, by which one that is
sent twice is known. A line of a sample has `sample`, `who`, `when`.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
MOST_CHARACTERS = 10_000  # of a comment


class ReviewFiles(NamedTuple):
    """Where the records stand, the decisions on them, and the records as reviewed."""

    annotations: str
    decisions: str
    reviewed: str


def review_files(results: str) -> ReviewFiles:
    """The files of a results folder, or of a file of records, beside it.

    Raises InputError where there are no records.

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
    if os.path.basename(stem) == "annotations":
        decisions = os.path.join(os.path.dirname(stem), "reviews.jsonl")
    else:
        decisions = f"{stem}.reviews.jsonl"
    return ReviewFiles(annotations, decisions, f"{stem}.reviewed.jsonl")


class Standing:
    """What stands after decisions, by record: the expressions' truths, and the last comment."""

    def __init__(self) -> None:
        self.truths: defaultdict[str, dict[str, Truth]] = defaultdict(dict)
        self.comments: dict[str, str] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a decision.

        Raises BrokenRow, KeyError, TypeError, AttributeError for a line that is none.
        """
        _check_expressions(line["changes"])
        truths = self.truths[line["record"]]
        for change in line["changes"]:
            id = str(change["id"])
            before = change["before"]
            after = change["after"]
            known = truths.pop(id, None)
            original = before if known is None else known.before
            is_changed = version_of(after) != version_of(original)
            # neither: it is as if nobody had said anything
            if is_changed or (is_judged(after) and not line.get("undoes")):
                truths[id] = Truth.of(after, original)
        if line.get("comment"):
            self.comments[line["record"]] = str(line["comment"])
        elif "comment" in line:
            self.comments.pop(line["record"], None)

    def reviewed(self, record: Record, key: str) -> Record:
        """The record with what was said of it."""
        return overlaid(record, self.truths.get(key, {}), self.comments.get(key))

    def rows(self, record: Record, key: str) -> dict[str, Expression]:
        """The record's expressions as they stand then, by id. Raises BrokenRow."""
        return rows_of(record, expressions_of(record), self.truths.get(key, {}))


def _check_expressions(changes: list[Mapping[str, Any]]) -> None:
    """Raise where what changes have before and after is neither null nor an expression."""
    expressions = []
    for change in changes:
        for side in (change["before"], change["after"]):
            if isinstance(side, dict):
                expressions.append(side)
            elif side is not None:
                raise TypeError
    read_expressions(Record({"sides": expressions}), "sides")


class Decisions:
    """The decisions in a file, read as far as it goes.

    What others append meanwhile is read before each own. A torn or damaged line, as a killed
    process or a full disk leaves it, counts for nothing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Under "", what counts; under a reviewer's name, blind second reviews, which say what
        # another saw and change nothing.
        self.standing: defaultdict[str, Standing] = defaultdict(Standing)
        self.by: dict[tuple[str, str], str] = {}  # record and expression → who decided last
        self.samples: list[dict[str, Any]] = []
        self.count = 0
        self.damaged: list[int] = []  # numbers, from 1, of lines that count for nothing
        self._taken: dict[str, dict[str, Any]] = {}  # lines by their uids
        self._bytes_read = 0
        self._lines_read = 0
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
            file.seek(self._bytes_read)
            for text in file:
                is_whole = text.endswith(b"\n")
                try:
                    self._take(parse_line(text))
                except (BrokenRow, KeyError, AttributeError, TypeError):  # damaged, or no decision
                    if not is_whole:  # torn, or still being written: it is read again next time
                        break
                    if text.strip():
                        self.damaged.append(self._lines_read + 1)
                self._bytes_read += len(text)
                if is_whole:
                    self._lines_read += 1

    def _take(self, line: dict[str, Any]) -> None:
        who = line.get("who")
        if isinstance(line.get("sample"), dict):
            self.samples.append({**line["sample"], "who": who, "when": line.get("when")})
            return
        is_blind = line.get("blind")
        self.standing[str(who) if is_blind else ""].take(line)
        self.count += 1
        self._taken[str(line.get("uid"))] = line
        if not is_blind:
            for change in line["changes"]:
                self.by[line["record"], str(change["id"])] = str(who)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The file, open, with all of it known; where file systems have locks, nobody else appends.

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
        if size and os.pread(file, 1, size - 1) != b"\n":
            data = b"\n" + data
        append(file, data, size)
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
        about = _about_decision(given)
        if blind:
            about["blind"] = True
        with self._alone() as file:
            if about.get("uid") in self._taken:  # it came before, and its answer was lost
                return self._changes(given["uid"], key)
            standing = self.standing[who if blind else ""]
            now = standing.rows(record, key)
            changes: list[dict[str, Any]] = []
            undoes = given.get("undoes")
            if undoes:
                wanted: Iterable[Mapping[str, Any]] = reversed(self._changes(undoes, key))
            else:
                wanted = listed(given, "changes")
            for change in wanted:
                if change.get("fresh") or not change.get("id"):
                    id = next_id(record, {**now, **standing.truths.get(key, {})})
                else:
                    id = str(change["id"])
                before = now.pop(id, None)
                made_on = version_of(change["after"]) if undoes else change.get("version")
                if version_of(before) != made_on:
                    name = before["text"] if before else id
                    reviewer = self.by.get((key, id), "another run")
                    raise InputError(f"{name}: {reviewer} changed it meanwhile")
                after = change["before"] if undoes else change.get("after")
                if after is not None and not undoes:
                    after = changed(record, id, before, after, who, now)
                if after:
                    now[id] = after
                changes.append(
                    {"id": id, "version": version_of(before), "before": before, "after": after}
                )
            self._append(file, who, {"record": key, "changes": changes, **about})
            return changes

    def _changes(self, uid: Any, key: str) -> list[dict[str, Any]]:
        """The changes of a decision on a record. Raises InputError where there is none."""
        line = self._taken.get(uid, {})
        if line.get("record") != key:
            raise InputError("there is no such decision on this record")
        return list(line["changes"])


def _about_decision(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a decision says of itself. Raises InputError."""
    if given.get("action") not in ACTIONS:
        raise InputError(
            f"'action' should be one of {', '.join(ACTIONS)}, not {given.get('action')!r}"
        )
    about: dict[str, Any] = {}
    for name in ("uid", "action", "queue", "comment", "undoes"):
        value = given.get(name)
        is_comment_removed = name == "comment" and value == ""
        if value or is_comment_removed:
            about[name] = value
    for value in about.values():
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise InputError(
                "'uid', 'queue' and 'comment' should be texts of at most 10,000 characters"
            )
    seconds = given.get("seconds")
    about["seconds"] = round(float(str(seconds)), 2) if is_number(seconds) else None
    return about


def listed(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """What is given under a name. Raises InputError where it is no list of objects."""
    items = given.get(name)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise InputError(f"{name!r} should be a list of objects")
    return items

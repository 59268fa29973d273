"""Decisions of reviewers: lines of `reviews.jsonl`, and what holds after all of them.

A line is either a decision or a sample. A decision has `record` (the record's key), `changes` (of
each expression `id`, the `version` that the reviewer saw, `before` and `after`), `action`, `who`,
`when`, `seconds`, `queue` and, where they apply, `comment`, `undoes`. Its `uid` finds a
decision that is sent twice. A sample has `sample`, `who`, `when`.

A decision is on a row of one file of records; `file` is the digest of that file. It doesn't hold
for another file, until `apply --take-equal` takes over what is equal there: `picture` helps to find
that. A change's `original` is the expression as the pipeline wrote it, where that isn't `before`.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import (
    Record,
    dump_line,
    is_number,
    parse_line,
)
from dataflow_grounding.data.results_folder import annotations_of
from dataflow_grounding.data.reviewed import reviewed_path
from dataflow_grounding.engine.keyed_log import append, storing
from dataflow_grounding.review._judged_pictures import JudgedPicture
from dataflow_grounding.review._overlay import (
    Outcome,
    next_id,
    reviewed_expression,
    standing_expressions,
    version_of,
)
from dataflow_grounding.review._record_view import Expression, expressions_of
from dataflow_grounding.review._standing import DecidedInOtherFiles, RecordReview, Standing

# What a decision may say that it did.
ACTIONS = (
    "accept",
    "reject",
    "absent",
    "draw",
    "move",
    "phrase",
    "split",
    "join",
    "give",
    "add",
    "delete",
    "comment",
    "undo",
)
MOST_CHARACTERS = 10_000  # of a comment


class ReviewFiles(NamedTuple):
    """Paths of the records, of the decisions on them, and of the records as reviewed."""

    annotations: str
    decisions: str
    reviewed: str


def review_files(results: str) -> ReviewFiles:
    """Return the files of a results folder, or of a file of records, which are next to it."""
    annotations = annotations_of(results)
    if not os.path.exists(annotations):  # it is at an address of a store
        raise InputError(
            f"decisions on {annotations} can't be kept there: copy it to this machine, and name the"
            " copy"
        )
    stem = annotations.removesuffix(".jsonl")
    if stem.endswith(".reviewed"):
        raise InputError(f"{annotations} is what `apply` wrote: name what it was made of instead")
    if os.path.basename(stem) == "annotations":
        decisions = os.path.join(os.path.dirname(stem), "reviews.jsonl")
    else:  # x.csv and x.jsonl have separate decisions: x.csv.reviews.jsonl, x.reviews.jsonl
        decisions = f"{stem}.reviews.jsonl"
    return ReviewFiles(annotations, decisions, reviewed_path(annotations))


class Decisions:
    """All decisions in a file, to which other processes may append at the same time."""

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self.file = file  # the digest of the file of records
        self.standing = Standing()  # what holds after the decisions on that file
        # what holds after the decisions on other files, by the digest of the file
        self._of_others = defaultdict[str, Standing](Standing)
        self.samples: list[dict[str, Any]] = []
        # The numbers of lines that count for nothing, as a killed process or a full disk left them.
        self.damaged: list[int] = []
        self._line_of_uid: dict[str, dict[str, Any]] = {}
        # how far the file was read; what others append later is read by `refresh`
        self._bytes_read = 0
        self._lines_read = 0
        self.refresh()

    @property
    def count(self) -> int:
        return self.standing.count

    def decided_in_other_files(self) -> DecidedInOtherFiles | None:
        if not self._of_others:
            return None
        decided = DecidedInOtherFiles()
        for standing in self._of_others.values():
            decided.add(standing)
        return decided

    def take_equal(self, record: Record, key: str, outcome_of_id: Mapping[str, Outcome]) -> None:
        """Append another file's decisions on what is equal here. The caller calls `sync`."""
        picture = JudgedPicture.of_record(record).to_json()
        with self._locked() as file:
            for id, outcome in outcome_of_id.items():
                change = _change(id, outcome.before, outcome.after, as_written=outcome.before)
                line = {"record": key, "picture": picture, "changes": [change], "action": "taken"}
                self._append(file, outcome.who, {"file": self.file, **line})

    def tell_damaged(self) -> None:
        for line in self.damaged:
            say(f"Note: {self.path}, line {line} can't be read and counts for nothing.")

    def refresh(self) -> None:
        """Read the lines that were appended since the last call. Raises StorageFailed."""
        if not os.path.exists(self.path):
            return
        with storing(self.path), open(self.path, "rb") as file:
            file.seek(self._bytes_read)
            for raw_line in file:
                is_taken = True
                try:
                    self._take(parse_line(raw_line))
                except (BrokenRow, KeyError, AttributeError, TypeError):
                    is_taken = False
                is_whole = raw_line.endswith(b"\n")
                if not is_taken and not is_whole:
                    break  # somebody is still writing it: the next call begins with it
                # A blank line is no damage. The call before may have read the last line when its
                # line break wasn't there yet: then only the break is left for this call.
                if not is_taken and raw_line.strip():
                    self.damaged.append(self._lines_read + 1)
                self._bytes_read += len(raw_line)
                if is_whole:
                    self._lines_read += 1

    def _take(self, line: dict[str, Any]) -> None:
        if isinstance(line.get("sample"), dict):
            sample = {**line["sample"], "who": line.get("who"), "when": line.get("when")}
            # Somebody may have appended a copy of the file to the file itself.
            if sample not in self.samples:
                self.samples.append(sample)
            return
        uid = line.get("uid")  # decisions of `take_equal` have none
        if uid and str(uid) in self._line_of_uid:
            return
        file = str(line.get("file"))
        standing = self.standing if file == self.file else self._of_others[file]
        standing.take(line)
        if uid:
            self._line_of_uid[str(uid)] = line

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Lock the file, read what was appended, yield its descriptor. Raises StorageFailed."""
        import fcntl  # only on POSIX systems

        with storing(self.path), open(open_log(self.path, os.O_RDWR), "ab+", buffering=0) as file:
            with suppress(OSError):  # of a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            self.refresh()
            yield file.fileno()

    def sync(self) -> None:
        """Put all that was appended on disk. Raises StorageFailed."""
        with self._locked() as file:
            os.fsync(file)

    def _append(self, file: int, who: str, line: Mapping[str, Any]) -> None:
        """Append a whole line; after `sync` it outlasts a loss of power, too."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        data = dump_line({**line, "who": who, "when": when}).encode()
        size = os.fstat(file).st_size
        ends_in_torn_line = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        if ends_in_torn_line:
            data = b"\n" + data
        append(file, data, size)  # a part that was written is cut off again, back to `size`
        self.refresh()

    def state_sample(self, sample: Mapping[str, Any], who: str) -> None:
        """Put a sample on disk: a certificate counts it even if its reviewer shows it nobody."""
        with self._locked() as file:
            self._append(file, who, {"sample": sample})
        self.sync()

    def decide(
        self, record: Record, key: str, request: Mapping[str, Any], who: str
    ) -> list[dict[str, Any]]:
        """Check a reviewer's decision, append it to the file and return its changes.

        After the last decision the caller calls `sync`. `request` has `undoes`, the uid of a
        decision, or `changes`, each with:

        - `id`, the expression's; any text where the expression is `fresh`
        - `version`, as the reviewer saw it
        - `after`, as `reviewed_expression` takes it, None to delete it

        Raises InputError and StorageFailed.
        """
        about = _about_decision(request)
        with self._locked() as file:
            # A page sends a decision again if it got no answer: it is answered, and not appended.
            if about.get("uid") in self._line_of_uid:
                return self._changes_of(about["uid"], key)
            picture = JudgedPicture.of_record(record)
            shown_digest = request.get("digest")  # None if the picture couldn't be read then
            if shown_digest is not None and shown_digest != picture.digest:
                raise InputError("the picture was replaced since it was shown here: look again")
            changes = self._changes_for(record, key, request, who)
            about_row = {"file": self.file, "record": key, "picture": picture.to_json()}
            self._append(file, who, {**about_row, "changes": changes, **about})
            return changes

    def _changes_for(
        self, record: Record, key: str, request: Mapping[str, Any], who: str
    ) -> list[dict[str, Any]]:
        """Return the changes that a request asks for, checked, as a decision's line has them."""
        expressions = _ExpressionsInChange(record, self.standing.review_of(key))
        if not request.get("undoes"):
            changes = objects_under(request, "changes")
            return [expressions.change(wanted, who) for wanted in changes]
        undone = []
        for change in reversed(self._changes_of(request["undoes"], key)):
            # The undo is refused if somebody has changed the expression since.
            version = version_of(change["after"])
            wanted = {**change, "version": version, "after": change["before"]}
            undone.append(expressions.change(wanted, who, is_undo=True))
        return undone

    def _changes_of(self, uid: Any, key: str) -> list[dict[str, Any]]:
        line = self._line_of_uid.get(uid, {})
        if line.get("record") != key:
            raise InputError("there is no such decision on this record")
        return list(line["changes"])


class _ExpressionsInChange:
    """The expressions of a record, while the changes of one decision are made one by one."""

    def __init__(self, record: Record, review: RecordReview) -> None:
        self._record = record
        self._review = review
        self._written = expressions_of(record)  # as the pipeline wrote them, by id
        # as the decisions so far leave them, and then each change of this one
        self._current = standing_expressions(record, self._written, review.outcomes)

    def change(self, wanted: Mapping[str, Any], who: str, is_undo: bool = False) -> dict[str, Any]:
        """Make a change, and return it as a decision's line has it. Raises InputError."""
        id = str(wanted.get("id") or "")
        if wanted.get("fresh") or not id:
            # Ids of deleted expressions, which `outcomes` has, stay taken: an undo may bring one
            # back.
            taken = {**self._written, **self._review.outcomes, **self._current}
            id = next_id(self._record, taken)
        # Taken out of `_current`, which then has only the others, and put back in below.
        before = self._current.pop(id, None)
        if version_of(before) != wanted.get("version"):
            outcomes = self._review.outcomes
            name = before["text"] if before else id
            reviewer = outcomes[id].who if id in outcomes else "somebody"
            raise InputError(f"{name}: {reviewer} changed it meanwhile")
        after = wanted.get("after")
        if after is not None and not is_undo:  # an undo has a whole expression already
            after = reviewed_expression(self._record, id, before, after, who, others=self._current)
        if after:  # else it is deleted
            self._current[id] = after
        return _change(id, before, after, as_written=self._written.get(id))


def _change(
    id: str,
    before: Expression | None,
    after: Expression | None,
    as_written: Expression | None,
) -> dict[str, Any]:
    change = {"id": id, "version": version_of(before), "before": before, "after": after}
    if before != as_written:
        change["original"] = as_written
    return change


def _about_decision(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a decision's line that come after its `changes`, checked."""
    if request.get("action") not in ACTIONS:
        raise InputError(
            f"'action' should be one of {', '.join(ACTIONS)}, not {request.get('action')!r}"
        )
    about: dict[str, Any] = {}
    for name in ("uid", "action", "queue", "comment", "undoes"):
        value = request.get(name)
        removes_comment = name == "comment" and value == ""  # that of an earlier decision
        if value or removes_comment:
            about[name] = value
    for value in about.values():
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise InputError(
                "'uid', 'queue' and 'comment' should be texts of at most 10,000 characters"
            )
    seconds = request.get("seconds")
    about["seconds"] = round(float(str(seconds)), 2) if is_number(seconds) else None
    return about


def objects_under(request: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the list of objects under a name of a page's JSON. Raises InputError."""
    items = request.get(name)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise InputError(f"{name!r} should be a list of objects")
    return items

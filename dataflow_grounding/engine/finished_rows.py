"""What finished rows got, so that a run that goes on takes them as they are."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError, StorageFailed
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding._util.version import OUTPUT
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.annotating import RowWork
from dataflow_grounding.engine.image_memo import ImageMemo, is_young
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.summary import MAY_CHANGE, OF_CHECKS
from dataflow_grounding.images.image import Image, ImageLimits, is_far, kept_facts

NAME = "finished_rows.jsonl"  # the file's name in a checkpoint folder

OF_FUNCTIONS = "dataflow_grounding.operators.function"  # the module of steps of a user's function

# `json.dumps` would make one for each call
_ROWS = json.JSONEncoder(default=repr)


class RowKey(NamedTuple):
    """A digest of all that a row is made of, and its pictures as they were found."""

    digest: str
    images: Sequence[Image]


@dataclass
class FinishedRow:
    """What a finished row got. In the file: `{"columns": [{…}, …], "notes": {"dropped": 1},
    "replies": 2, "replies_at": [0, 4096]}`.
    """

    columns: list[Update]  # of each step
    notes: dict[str, int]  # by code; most rows have none, and their lines have no such field
    replies: int  # that were read for it
    replies_at: Sequence[int]  # byte offsets in the store: from, and (exclusive) to


class FinishedRows:
    """Rows that got through all steps without a failure, kept in `.ckpt/finished_rows.jsonl`.
    Nothing in that file was paid for: without it, the same comes out of the stored replies. A row
    counts while all that it was made of is as it was: its columns and place, its pictures' paths
    and content, the steps' settings, this version, and the checks that vouch for its replies.
    """

    def __init__(
        self,
        log: KeyedLog | None,
        steps: Sequence[Step],
        name: str | None,
        replies: KeyedLog,
        memo: ImageMemo,
    ) -> None:
        # without a file, an empty log that lasts no longer than the process
        self._log = KeyedLog("") if log is None else log
        self._replies = replies
        self._memo = memo
        # a digest; None where rows are neither kept nor taken
        self._settings: str | None = None
        do_settings_tell_all = all(map(_tells_all, steps))
        if log is not None and do_settings_tell_all:
            self._settings = settings_of(steps, {"version": OUTPUT, "name": name})
        self._limits_by_column = _limits_by_column(steps)
        self._step_count = len(steps)

    async def key_of(self, record: Record) -> RowKey | None:
        """Return the key of a row; None where not all that it is made of is known."""
        if self._settings is None:
            return None
        images = []
        for column, limits in self._limits_by_column.items():
            # Not in the record: an earlier step makes the picture, which isn't there yet. Far: only
            # the picture's store could say whether it has changed.
            if column not in record or is_far(record, column):
                return None
            try:
                images.append(await self._memo.prepare(record, column, limits))
            except RecordError:  # the step that reads the picture says why
                return None
        of_row = [self._settings, record.place, record.image_id, record.occurrence]
        of_pictures = [[image.path, image.facts.digest] for image in images]
        # `record` is a dict of its columns
        text = _ROWS.encode([*of_row, *of_pictures, record])
        return RowKey(hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), images)

    def get(self, key: RowKey | None) -> FinishedRow | None:
        """Return what an earlier run has kept of a row; None where it has to be done."""
        has_earlier_rows = self._log.first_new > 0
        if key is None or not has_earlier_rows:
            return None
        row = self._not_set_aside(key)
        if row is None:
            return None
        # open: the next check may still fail its replies
        is_open = self._replies.vouched.has_open(row.replies_at[1])
        return None if is_open else row

    def _not_set_aside(self, key: RowKey) -> FinishedRow | None:
        """Return the row that the log has; None where a check has failed its replies."""
        line = self._log.get(key.digest)
        row = None if line is None else _row_in(line)
        if row is None or len(row.columns) != self._step_count:
            return None
        is_set_aside = self._replies.vouched.sets_aside(*row.replies_at)
        return None if is_set_aside else row

    def would_come_out_the_same(self, work: RowWork) -> bool:
        """Return whether a row with this work would get the same again, by its replies."""
        # A replayed reply may be in the store of another part of the run. `replies_at` has offsets
        # in this run's own store alone, so that a check couldn't set such a reply aside.
        may_be_of_others = work.replayed and self._replies.others
        return not may_be_of_others and MAY_CHANGE.isdisjoint(work.notes)

    def put(self, key: RowKey, columns: Sequence[Update], work: RowWork) -> None:
        """Keep what a row got, unless its pictures may have changed unseen."""
        if not all(map(_is_surely_unchanged, key.images)):
            return
        # notes of checks are about the run, and no row of it
        notes = {code: count for code, count in work.notes.items() if code not in OF_CHECKS}
        if not work.sent:
            # If an earlier run has kept the same, that stays. It knew better where the replies are:
            # for this run, which has only read them, they may be anywhere in the store.
            before = self._not_set_aside(key)
            if before is not None and before.columns == list(columns) and before.notes == notes:
                return
        # The row's replies are from here to the end of the store: new ones are in this run's part
        # of it, and replayed ones may be anywhere.
        first = 0 if work.replayed else self._replies.first_new
        line: dict[str, Any] = {"columns": list(columns)}
        if notes:
            line["notes"] = notes
        line |= {"replies": work.read, "replies_at": [first, self._replies.end]}
        try:
            self._log.put(key.digest, line)
        except StorageFailed:
            self._settings = None  # the run goes on without it


def _limits_by_column(steps: Sequence[Step]) -> dict[str, ImageLimits | None]:
    """Return by picture column the limits of the first serving that it is sent to."""
    limits_by_column: dict[str, ImageLimits | None] = {}
    for step in steps:
        column = step.image_key
        if not column or limits_by_column.get(column) is not None:
            continue
        serving = step.operator.serving
        # None for a step that sends it nowhere, and only draws on it, say. Then a later step that
        # does send it replaces the None.
        limits_by_column[column] = serving.image_limits if serving else None
    return limits_by_column


def _tells_all(step: Step) -> bool:
    """Return whether the operator's settings tell all that its columns depend on."""
    operator = step.operator
    module = type(operator).__module__
    # Of the user's code nobody knows what else it reads: other files, other modules. An operator
    # that makes files, such as pictures with boxes drawn in, has to do that again if they are gone.
    is_ours = module.startswith("dataflow_grounding.operators.") and module != OF_FUNCTIONS
    return is_ours and operator.files_there() is None


def _is_surely_unchanged(image: Image) -> bool:
    """Return whether the image's file has the content of its facts for sure."""
    # `kept_facts` has what was last read of a file. If that differs from the image's own facts,
    # another row has found other content by now.
    has_other_facts = kept_facts.get(image.file) != image.facts
    # a young file may have changed without a new time
    return not has_other_facts and not is_young(image.file)


def _row_in(line: Mapping[str, Any]) -> FinishedRow | None:
    match {"notes": {}, **line}:
        case {
            "columns": list(columns),
            "notes": dict(notes),
            "replies": int(replies),
            "replies_at": [int(first), int(end)],
        }:
            are_counts = all(isinstance(count, int) for count in notes.values())
            are_updates = all(isinstance(update, dict) for update in columns)
            if are_counts and are_updates:
                return FinishedRow(columns, notes, replies, (first, end))
    return None  # damaged, or of another version


def settings_of(steps: Sequence[Step], extra: Mapping[str, Any]) -> str | None:
    """Return a digest of all that the columns depend on besides rows and replies, if known."""
    parts: list[Any] = [extra]
    for step in steps:
        operator = step.operator
        # complete once the operator has settled what it asks, before the first record
        settings = operator.settings()
        if settings is None:
            return None
        serving = operator.serving
        who_answers: list[Any] | None = None
        if serving is not None:
            who_answers = [serving.identity(), repr(serving.image_limits)]
            # a limit that the user has stated isn't part of the limits' repr
            if serving.image_limits.picture_bytes is not None:
                who_answers.append(serving.image_limits.picture_bytes)
        parts.append([step.label, operator.reads(), operator.writes(), settings, who_answers])
    try:
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except (TypeError, ValueError):  # the settings of a user's operator may be no JSON
        return None


@contextmanager
def rows_log(folder: str) -> Iterator[KeyedLog | None]:
    """Yield the finished rows of a checkpoint folder; None where the file can't be used."""
    path = os.path.join(folder, NAME)
    log = None
    if kind_of(path) in ("", "file"):  # "": there is nothing yet
        with suppress(StorageFailed):
            # a row is looked for before it is done: what this run adds isn't looked for
            log = KeyedLog(path, buffered=True, finds_new=False)
    try:
        yield log
    finally:
        with suppress(StorageFailed):
            if log is not None:
                log.close()

"""What finished rows got, so that a run that goes on takes them as they are."""

import hashlib
import json
import math
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.annotating import RowWork
from dataflow_grounding.engine.image_memo import YOUNG_NS
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.summary import MAY_CHANGE
from dataflow_grounding.images.image import find_image, is_far

NAME = "finished_rows.jsonl"  # the file's name in a checkpoint folder
FORGOTTEN = hashlib.sha256(b"rows before this count no longer").hexdigest()[:32]  # a line's key

# `json.dumps` would make one for each call
_ROWS = json.JSONEncoder(default=repr)


@dataclass
class FinishedRow:
    """What a row got.

    Attributes:
        columns: What each step has added.
        notes: Remarks by code.
        replies: How many replies were read for it.
    """

    columns: list[Update]
    notes: dict[str, int] = field(default_factory=dict)
    replies: int = 0


class FinishedRows:
    """Rows that got through all steps without a failure, kept in `.ckpt/finished_rows.jsonl`.

    Nothing in that file was paid for: without it, the same comes out of the stored replies. A row
    counts while all that it was made of is as it was: its columns and place, its pictures' files,
    the steps' settings, this version, and the checks of the endpoint that vouch for its replies.

    Args:
        log: The file; it is closed by whoever has opened it.
        steps: What is done with each row. Where one makes files, or can't tell its settings, no row
            is kept.
        name: What the records' column `source` says.
        replies: The store of replies. Where there are others next to it, a row that was made of
            stored replies isn't kept: they may be another store's.
    """

    def __init__(
        self, log: KeyedLog, steps: Sequence[Step], name: str | None, replies: KeyedLog
    ) -> None:
        self._log = log
        self._replies = replies
        self._settings = settings_of(steps, {"version": __version__, "name": name})
        self._image_keys = sorted({step.image_key for step in steps if step.image_key})
        self._steps = len(steps)
        for step in steps:
            if step.operator.files_there() is not None:
                self._settings = None
        forgotten = log.get(FORGOTTEN)
        self._since: int = forgotten["since"] if forgotten else 0  # earlier lines don't count
        # Replies that no check has vouched for when the run begins. It may vouch for them later.
        self._open = [span for entry in replies.vouched.entries.values() for span in entry["open"]]

    def get(self, record: Record) -> FinishedRow | None:
        """Return what a record's row got in an earlier run; None where that isn't known."""
        if not self._log.first_new:
            return None
        key = self._key(record)
        line = None if key is None else self._log.get(key, since=self._since)
        if line is None:
            return None
        text = line.get("row")
        if not isinstance(text, str) or line.get("sum") != zlib.crc32(text.encode()):
            return None  # damaged
        kept = json.loads(text)
        if not self._vouched_for(*kept["replies_at"]):
            return None
        return FinishedRow(kept["columns"], kept["notes"], kept["replies"])

    def put(self, record: Record, columns: Sequence[Update], work: RowWork) -> None:
        """Keep what a row got, where the same would come out were it done again.

        Args:
            record: The record, as the first step got it.
            columns: What each step has added.
            work: What was done for it.

        Raises:
            StorageFailed: The file can't be written.
        """
        may_be_others = work.replayed and self._replies.others
        if may_be_others or not MAY_CHANGE.isdisjoint(work.notes):
            return
        key = self._key(record, unchanged_since=time.time_ns() - YOUNG_NS)
        if key is None:
            return
        first = 0 if work.replayed else self._replies.first_new
        kept = {
            "columns": list(columns),
            "notes": dict(work.notes),
            "replies": work.read,
            "replies_at": [first, self._replies.end],
        }
        text = _ROWS.encode(kept)
        self._log.put(key, {"row": text, "sum": zlib.crc32(text.encode())})

    def forget(self) -> None:
        """Forget all rows so far: a picture isn't the one that they were made of.

        Raises StorageFailed.
        """
        self._since = self._log.end
        self._log.put(FORGOTTEN, {"since": self._since})

    def _key(self, record: Record, unchanged_since: float = math.inf) -> str | None:
        # None where it can't be told whether the row is the same, or where its picture has changed
        # just now: a run may have seen it before that.
        if self._settings is None:
            return None
        parts: list[Any] = [self._settings, record.place, record.image_id, record.occurrence]
        try:
            for image_key in self._image_keys:
                if is_far(record, image_key):  # a look would hold up the others
                    return None
                if image_key in record:
                    file = find_image(record, image_key)
                    if file.mtime_ns > unchanged_since:
                        return None
                    parts.append(tuple(file))
        except GroundingError:
            return None
        text = _ROWS.encode([*parts, record])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _vouched_for(self, first: int, end: int) -> bool:
        spans = list(self._open)
        for void in self._replies.vouched.void.values():
            spans += void
        return not any(begin < end and (last is None or first < last) for begin, last in spans)


def settings_of(steps: Sequence[Step], extra: Mapping[str, Any]) -> str | None:
    """Return a digest of all that the steps' columns depend on besides rows and replies.

    None where a step can't tell it. Call it once all is settled that the operators ask before the
    first record.
    """
    parts: list[Any] = [extra]
    for step in steps:
        operator = step.operator
        settings = operator.settings()
        if settings is None:
            return None
        serving = operator.serving.identity() if operator.serving else None
        parts.append([step.label, operator.reads(), operator.writes(), settings, serving])
    try:
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except (TypeError, ValueError):
        return None


def rows_path(folder: str) -> str:
    """Return the path of the finished rows in a checkpoint folder (`.ckpt`)."""
    return os.path.join(folder, NAME)

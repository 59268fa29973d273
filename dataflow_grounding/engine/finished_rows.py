"""What finished rows got, so that a run that goes on takes them as they are."""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import GroundingError, RecordError, StorageFailed
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding._util.version import OUTPUT
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.annotating import RowWork
from dataflow_grounding.engine.image_memo import ImageMemo, is_young
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.summary import MAY_CHANGE, OF_CHECKS
from dataflow_grounding.images.image import ImageFile, ImageLimits, find_image, is_far, kept_facts

NAME = "finished_rows.jsonl"  # the file's name in a checkpoint folder

OF_FUNCTIONS = "dataflow_grounding.operators.function"  # where steps of a user's function are

# `json.dumps` would make one for each call
_ROWS = json.JSONEncoder(default=repr)


class RowKey(NamedTuple):
    """What tells a row.

    Attributes:
        digest: A digest of all that it is made of, its pictures' content in that.
        files: Its pictures' files, in the state that they had.
        pictures: The digests of their content.
    """

    digest: str
    files: Sequence[ImageFile]
    pictures: Sequence[str]


@dataclass
class FinishedRow:
    """What a row got.

    Attributes:
        columns: What each step has added.
        notes: Remarks by code.
        replies: How many replies were read for it.
        replies_at: The byte offsets in the store between which these are: from, and (exclusive) to.
    """

    columns: list[Update]
    notes: dict[str, int]
    replies: int
    replies_at: Sequence[int]


class FinishedRows:
    """Rows that got through all steps without a failure, kept in `.ckpt/finished_rows.jsonl`.

    Nothing in that file was paid for: without it, the same comes out of the stored replies. A row
    counts while all that it was made of is as it was: its columns and place, its pictures' paths
    and content, the steps' settings, this version, and the checks of the endpoint that vouch for
    its replies.

    Args:
        log: The file, open; None keeps and finds no row.
        steps: What is done with each row. No row is kept where a step is of the user's code, makes
            files, reads pictures that an earlier step makes, or can't tell its settings.
        name: What the records' column `source` says.
        replies: The store of replies. Where there are others next to it, a row that was made of
            stored replies isn't kept: they may be another store's.
        memo: What is known of pictures.
    """

    def __init__(
        self,
        log: KeyedLog | None,
        steps: Sequence[Step],
        name: str | None,
        replies: KeyedLog,
        memo: ImageMemo,
    ) -> None:
        self._log = KeyedLog("") if log is None else log
        self._replies = replies
        self._memo = memo
        self._settings = settings_of(steps, {"version": OUTPUT, "name": name})
        # By the column of a picture, the limits of the first serving that it is sent to.
        self._limits: dict[str, ImageLimits | None] = {}
        for step in steps:
            serving = step.operator.serving
            if step.image_key and self._limits.get(step.image_key) is None:
                self._limits[step.image_key] = serving.image_limits if serving else None
        self._steps = len(steps)
        if log is None or not all(map(_tells_all, steps)):
            self._settings = None
        # Replies that no check has vouched for when the run begins. It may vouch for them later.
        self._open_since = replies.vouched.open_since()

    async def key_of(self, record: Record) -> RowKey | None:
        """Return the key of a row that is about to be done, which depends on its pictures.

        None if it isn't known what the row depends on: then it isn't kept. Raises StorageFailed.
        """
        files = self._files_of(record) if self._settings is not None else None
        if files is None:
            return None
        pictures = []
        try:
            for image_key, limits in self._limits.items():
                facts = await self._memo.prepare(record, image_key, limits)
                pictures.append(facts.digest)
        except RecordError:  # the step that reads the picture says why
            return None
        of_row = [self._settings, record.place, record.image_id, record.occurrence]
        shown = [[file.path, digest] for file, digest in zip(files, pictures, strict=True)]
        text = _ROWS.encode([*of_row, *shown, record])
        return RowKey(hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), files, pictures)

    def _files_of(self, record: Record) -> list[ImageFile] | None:
        # None where a picture can't be found, an earlier step makes it (the column is missing), or
        # it is far: a look would hold up the other rows.
        files = []
        for image_key in self._limits:
            if image_key not in record or is_far(record, image_key):
                return None
            try:
                files.append(find_image(record, image_key))
            except GroundingError:
                return None
        return files

    def get(self, key: RowKey | None) -> FinishedRow | None:
        """Return what the row of a key got in an earlier run; None where that isn't known."""
        if key is None or not self._log.first_new:
            return None
        line = self._log.get(key.digest)
        row = None if line is None else _row_in(line)
        if row is None or len(row.columns) != self._steps or not self._vouched_for(row.replies_at):
            return None
        return row

    def put(
        self, key: RowKey | None, record: Record, columns: Sequence[Update], work: RowWork
    ) -> bool:
        """Keep what a row got, where the same would come out were it done again.

        Returns False where its picture has changed since the row was begun.

        Args:
            key: What `key_of` gave when the row was begun.
            record: The record, as the first step got it.
            columns: What each step has added.
            work: What was done for it.
        """
        may_be_others = work.replayed and self._replies.others
        if key is None or may_be_others or not MAY_CHANGE.isdisjoint(work.notes):
            return True
        if self._files_of(record) != key.files:
            return False
        if any(map(is_young, key.files)):
            return True
        known = [kept_facts.get(file) for file in key.files]
        if [facts and facts.digest for facts in known] != key.pictures:
            return True  # meanwhile another row has found that the file has other content
        first = 0 if work.replayed else self._replies.first_new
        notes = {code: count for code, count in work.notes.items() if code not in OF_CHECKS}
        kept = {
            "columns": list(columns),
            "notes": notes,
            "replies": work.read,
            "replies_at": [first, self._replies.end],
        }
        text = _ROWS.encode(kept)
        try:
            self._log.put(key.digest, {"row": text, "sum": zlib.crc32(text.encode())})
        except StorageFailed:
            self._settings = None  # the run goes on without it
        return True

    def _vouched_for(self, replies_at: Sequence[int]) -> bool:
        first, end = replies_at
        if end > self._open_since:
            return False
        for void in self._replies.vouched.void.values():
            if any(begin < end and (last is None or first < last) for begin, last in void):
                return False
        return True


def _tells_all(step: Step) -> bool:
    # Of the user's code nobody knows what else it reads: other files, other modules.
    operator = step.operator
    module = type(operator).__module__
    is_ours = module.startswith("dataflow_grounding.operators.") and module != OF_FUNCTIONS
    return is_ours and operator.files_there() is None


def _row_in(line: Mapping[str, Any]) -> FinishedRow | None:
    # Return what a line of the file says; None for what is damaged, or not as `put` writes it.
    text = line.get("row")
    try:
        if not isinstance(text, str) or line.get("sum") != zlib.crc32(text.encode()):
            return None
        row = FinishedRow(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    match [row.columns, row.notes, row.replies, row.replies_at]:
        case [list(columns), dict(notes), int(), [int(), int()]]:
            counts = all(isinstance(count, int) for count in notes.values())
            return row if counts and all(isinstance(one, dict) for one in columns) else None
    return None


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
        serving = operator.serving
        asked = [serving.identity(), repr(serving.image_limits)] if serving else None
        parts.append([step.label, operator.reads(), operator.writes(), settings, asked])
    try:
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except (TypeError, ValueError):
        return None


@contextmanager
def rows_log(folder: str) -> Iterator[KeyedLog | None]:
    """Yield the finished rows of a checkpoint folder (`.ckpt`), and close them after the block.

    None where the file can't be used: the run goes on without it, as nothing in it was paid for.
    """
    path = os.path.join(folder, NAME)
    log = None
    if kind_of(path) in ("", "file"):
        with suppress(StorageFailed):
            log = KeyedLog(path, buffered=True, finds_new=False)
    try:
        yield log
    finally:
        with suppress(StorageFailed):
            if log is not None:
                log.close()

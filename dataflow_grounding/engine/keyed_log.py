"""An append-only file of JSON lines, found by key: what was paid for, what was learnt of images."""

import glob
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import StorageFailed, told_as
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding.data.working_folder import SHARDS

CHECK = "check"
"""The task of lines that answer no record's question: checks of the endpoint, and what they say of
earlier lines.
"""
MARK = hashlib.sha256(b"which replies are vouched for").hexdigest()[:32]
"""The key of what checks say; the last such line counts."""

_HEAD = b'{"key": "'
# byte offsets in a log, from and to; None: all that is written from now on
Span: TypeAlias = tuple[int, int | None]


def _plain(value: Any) -> Any:
    """Return a value that JSON has no form for as `plain_value` does.

    A user's serving may put a number of NumPy's into its reply.
    """
    from dataflow_grounding.data.dataframes import plain_value  # few replies have such values

    return plain_value(value)


_LINES = json.JSONEncoder(default=_plain)  # `json.dumps` makes one anew each time


class Vouched:
    """What checks of an endpoint have said of a log's lines.

    Lines are told apart by what they are `of`: the endpoint, model and format that were asked.
    The last `mark` says it of all lines before the byte offset `end`; a damaged mark says nothing.
    """

    def __init__(self, mark: Mapping[str, Any] | None = None, end: int = 0) -> None:
        self.entries: dict[str, dict[str, list[Span]]] = {}
        checks = mark.get("checks") if mark else None
        if isinstance(checks, dict):
            for of, entry in checks.items():
                spans = entry if isinstance(entry, dict) else {}
                self.entries[of] = {
                    "open": _joined(spans.get("open"), end),
                    "void": _joined(spans.get("void"), end),
                }
        # where lines are as good as lost
        self.void = {of: list(entry["void"]) for of, entry in self.entries.items()}
        # of which lines in such spans count all the same, as suspect
        self.trusted: set[str] = set()
        # of which other logs have lines that no check has vouched for
        self.open_elsewhere: set[str] = set()

    def judged(self, line: dict[str, Any], offset: int) -> dict[str, Any] | None:
        """Return the line, marked `suspect` where a check failed and such lines are trusted.

        None where a check failed and they aren't: the line is as good as lost.
        """
        of = line.get("of", "")
        for first, last in self.void.get(of, ()):
            if first <= offset and (last is None or offset < last):
                return {**line, "suspect": True} if of in self.trusted else None
        return line


class KeyedLog:
    """Lines `{"key": 32 hex digits, …}`; the last line of a key counts.

    In memory they take 16 to 32 bytes each.

    A line is with the operating system when `put` returns, so a killed process loses none; `sync`
    puts all on disk. A line torn by a stop is dropped when the file is opened.

    Args:
        path: The file; made where it is missing. "" is none: lines are kept no longer than the
            process.
        buffered: Write lines some at a time, for what can be found out again at no cost.
        read_only: Touch nothing, as a run may be at work on the file; one that is missing has no
            lines.
        others: Files of other parts of the run, which are only read, each as its own checks have
            judged it.

    Raises:
        StorageFailed: It can't be written.
    """

    def __init__(
        self,
        path: str,
        *,
        buffered: bool = False,
        read_only: bool = False,
        others: Iterable[str] = (),
    ) -> None:
        self.path = path
        self._read_only = read_only
        self.vouched = Vouched()  # nothing is known yet, while the lines are read
        self.others = [KeyedLog(other, read_only=True) for other in others]
        self._most_pending: float = 0  # bytes that wait to be written
        if buffered:
            self._most_pending = 32_768
        elif not path:
            self._most_pending = math.inf
        self._pending = bytearray()
        self._offsets = NumberTable()
        self.unsynced = 0  # lines not known to be on disk
        with storing(path):
            self._file = self._open()
            self._size = self._load() if self._file >= 0 else 0
        self.first_new = self._size  # where the lines of this run begin
        self.vouched = Vouched(self._own(MARK), self._size)
        for log in self.others:
            for of, entry in log.vouched.entries.items():
                if entry["open"]:  # lines that no check has vouched for
                    self.vouched.open_elsewhere.add(of)

    @property
    def end(self) -> int:
        """The byte offset of the next line."""
        return self._size + len(self._pending)

    def get(self, key: str, since: int | None = None) -> dict[str, Any] | None:
        """The last line of `key`, or None.

        With `since` only a line of this log itself counts, at or after that byte offset.
        Of several logs' lines, one that isn't a refusal: another part of the run may have asked
        again.
        """
        line = self._own(key, since or 0)
        if since is not None or key == MARK or (line is not None and not line.get("refusal")):
            return line
        return next(iter(self.every(key)), None)

    def every(self, key: str) -> list[dict[str, Any]]:
        """Return the last line of `key` in this log, then the last one in each of the others.

        Where no log has an answer, the first refusal alone.
        """
        lines = []
        for log in [self, *self.others]:
            line = log._own(key)
            if line:
                lines.append(line)
        answers = [line for line in lines if not line.get("refusal")]
        return answers or lines[:1]

    def _own(self, key: str, since: int = 0) -> dict[str, Any] | None:
        """Return the newest line of a key in this file, not in `others`; None where there is none.

        Lines before the offset `since` don't count.
        """
        offset = self._offsets.get(int(key[:16], 16))
        if offset is None or offset < since:
            return None
        try:
            line: Any = json.loads(self._line_at(offset))
        except (ValueError, RecursionError):  # damaged since it was written: as good as lost
            return None
        # the index knows half of the key: the line tells whether it is this one's
        if not isinstance(line, dict) or line.get("key") != key:
            return None
        return self.vouched.judged(line, offset)

    @property
    def has_earlier(self) -> bool:
        """Whether there were lines before this run's."""
        return bool(self.first_new or self.others)

    def put(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Add a line; returns it, as a check has judged what comes."""
        line = {"key": key, **value}
        offset = self.end
        self._pending += _LINES.encode(line).encode() + b"\n"
        if len(self._pending) > self._most_pending:
            self._write()
        self._offsets.set(int(key[:16], 16), offset)
        return self.vouched.judged(line, offset) or line

    def _write(self) -> None:
        """Hand the pending lines to the system; they aren't on disk before `sync`."""
        data = bytes(self._pending)
        self._pending.clear()
        with storing(self.path):
            append(self._file, data, self._size)
        self._size += len(data)
        self.unsynced += 1

    def sync(self) -> None:
        """Put all lines on disk; may be called from another thread."""
        # Counted before: a line that is written while the disk is at work may not be on it.
        count = self.unsynced
        if count:
            with storing(self.path):
                os.fsync(self._file)
            self.unsynced -= count

    def close(self) -> None:
        """Put all lines on disk and close the file."""
        for other in self.others:
            other.close()
        if self._file >= 0:
            try:
                if self._pending:
                    self._write()
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1

    def __len__(self) -> int:
        return self._offsets.count

    def _open(self) -> int:
        """Open the file, and return its descriptor.

        It is -1 without a file: for a log in memory alone, or one that is only read and missing.
        """
        if self._read_only or not self.path:
            return os.open(self.path, os.O_RDONLY) if os.path.exists(self.path) else -1
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        return open_log(self.path, os.O_RDWR)

    def _load(self) -> int:
        """Index the file by key; return its size without a torn last line, which is cut off."""
        offset = 0
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    if not self._read_only:
                        os.ftruncate(self._file, offset)
                    break
                key = _key_of(line)
                if key is not None:
                    self._offsets.set(key, offset)
                offset += len(line)
        return offset

    def _line_at(self, offset: int) -> bytes:
        """Return the line that begins at an offset, also one that is not on disk yet."""
        at = offset - self._size
        if at >= 0:  # not written yet
            return bytes(self._pending[at : self._pending.index(b"\n", at)])
        data = os.pread(self._file, 4096, offset)
        while b"\n" not in data:
            more = os.pread(self._file, max(len(data), 65536), offset + len(data))
            if not more:
                break
            data += more
        return data.partition(b"\n")[0]


def append(file: int, data: bytes, size: int) -> None:
    """Hand data to the system behind the `size` bytes that an open file has.

    Whole or not at all: what was written in part is cut off again. Raises OSError.
    """
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def read_lines(path: str, first: int = 0, last: int | None = None) -> Iterator[dict[str, Any]]:
    """Read the whole lines of a log between two byte offsets.

    Damaged lines are passed over; a missing file has none.
    """
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        file.seek(first)
        offset = first
        while last is None or offset < last:
            text = file.readline()
            if not text:
                return
            with suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("key"), str):
                    yield line
            offset += len(text)


def _key_of(line: bytes) -> int | None:
    """The key of a stored line as a number; None for a line that is damaged."""
    if line.startswith(_HEAD) and line.endswith(b"}\n"):
        with suppress(ValueError):
            return int(line[len(_HEAD) : len(_HEAD) + 16], 16)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return int(json.loads(line)["key"][:16], 16)
    return None


def store_path(folder: str) -> str:
    """The store in a checkpoint folder (`.ckpt`)."""
    return os.path.join(folder, "replies.jsonl")


def stores_of(results_dir: str) -> list[str]:
    """The stores of a run, of its shards, and of other machines.

    The last are those that others have filled for a folder elsewhere.
    """
    results = glob.escape(results_dir)
    folders = [os.path.join(results, ".ckpt"), os.path.join(results, SHARDS, "*", ".ckpt")]
    paths = []
    for folder in folders:
        paths += glob.glob(os.path.join(folder, "replies.jsonl"))
        paths += glob.glob(os.path.join(folder, "replies/*.jsonl"))
    return sorted(paths)


def other_stores(folder: str) -> list[str]:
    """Return the stores of the other parts of a run, given the checkpoint folder of one part.

    For a shard's folder these are the run's own store and those of the other shards; for the run's
    own folder, those of its shards.
    """
    results = os.path.dirname(os.path.abspath(folder))
    if os.path.basename(os.path.dirname(results)) == SHARDS:
        results = os.path.dirname(os.path.dirname(results))
    return [path for path in stores_of(results) if path != store_path(os.path.abspath(folder))]


def storing(path: str) -> AbstractContextManager[None]:
    """Where `path` can't be written, what stops the run: StorageFailed."""
    return told_as(StorageFailed, f"can't write {path}", again=True)


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value`, plain JSON, with a checksum: for what is kept only to save work."""
    return {**value, "sum": _sum(value)}


def unsealed(value: Any) -> dict[str, Any] | None:
    """What was sealed, as it was; None for anything else.

    Such is what is damaged, edited, or from a version that sealed nothing.
    """
    if not isinstance(value, dict):
        return None
    kept = {name: item for name, item in value.items() if name != "sum"}
    return kept if value.get("sum") == _sum(kept) else None


def _sum(value: Mapping[str, Any]) -> int:
    """Return the checksum of an object, whatever the order of its keys."""
    return zlib.crc32(repr(sorted(value.items())).encode())


def _joined(spans: Any, end: int) -> list[Span]:
    """Spans that follow one another as one; open ones up to `end`."""
    joined: list[Span] = []
    if not isinstance(spans, list):
        return joined
    for span in spans:
        match span:
            case [int(first), None | int() as last]:
                if joined and joined[-1][1] == first:
                    first = joined.pop()[0]
                joined.append((first, end if last is None else last))
    return joined

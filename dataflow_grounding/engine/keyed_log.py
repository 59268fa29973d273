"""An append-only file of JSON lines, found by key: what was paid for, what was learnt of images."""

import glob
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

from dataflow_grounding._util.errors import StorageFailed, errors_as
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.results_names import SHARDS
from dataflow_grounding.data.dataframes import plain_value
from dataflow_grounding.data.records import JsonObject

CHECK = "check"
"""The task of lines that answer no record's question: checks of the endpoint."""
_HEADS = (b'{"key": "', b'{"key":"')  # how a line begins, as `put` writes it
_SUM = b',"sum":'  # between a buffered line and its checksum
_INDEXED = 16  # digits of a key by which the index finds its last line: 64 bits
_BUFFER_BYTES = 32_768  # that wait to be written in a buffered log
_LINE_BYTES = 4096  # that are read for a line at first
_MORE_BYTES = 65_536  # that are then read at least, for a longer line


# `json.dumps` would make one for each call. A user's serving may put NumPy's numbers into a reply.
_LINES = json.JSONEncoder(default=plain_value)
_SHORT_LINES = json.JSONEncoder(default=plain_value, separators=(",", ":"))


class KeyedLog:
    """Lines `{"key": 32 hex digits, …}`; the last line of a key counts.

    A line is with the operating system when `put` returns, so a killed process loses none; `sync`
    puts all on disk. A `buffered` log is for what can be found out again at no cost. Its lines wait
    to be written, and each has a checksum: a damaged one counts as lost.
    """

    def __init__(
        self,
        path: str,
        *,
        buffered: bool = False,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._read_only = read_only
        self._has_sums = buffered  # whether each line has a checksum: `{"key":"…",…,"sum":77}`
        self._pending = bytearray()  # lines that wait to be written
        # how many bytes may wait; 0 has each line written at once
        self._most_pending: float = 0
        if buffered:
            self._most_pending = _BUFFER_BYTES
        elif not path:
            self._most_pending = math.inf  # no file: they are kept no longer than the process
        self._offsets = NumberTable()  # of each key's last line, by the key's first half
        self.unsynced = 0  # writes that aren't known to be on disk
        with storing(path):
            self._file = self._open()  # -1 without a file
            self._size = self._load()  # bytes of the whole lines in it

    @property
    def end(self) -> int:
        """The byte offset of the next line."""
        return self._size + len(self._pending)

    def get(self, key: str) -> JsonObject | None:
        """Return a key's last line; None if there is none, or it is damaged."""
        offset = self._offset_of(key)
        return None if offset is None else self._line_of(key, offset)

    def _offset_of(self, key: str) -> int | None:
        return self._offsets.get(int(key[:_INDEXED], 16))

    def _line_of(self, key: str, offset: int) -> JsonObject | None:
        try:
            text = self._line_at(offset)
            if self._has_sums and not _is_whole(text):
                return None
            line: Any = json.loads(text)
        except (ValueError, RecursionError):  # damaged since it was written
            return None
        # the index knows half of the key: the line may be another key's
        if not isinstance(line, dict) or line.get("key") != key:
            return None
        return line

    def put(self, key: str, value: JsonObject) -> JsonObject:
        """Add a line of a key and a value, and return it."""
        line = {"key": key, **value}
        offset = self.end
        if self._has_sums:
            self._pending += _with_sum(_SHORT_LINES.encode(line).encode()) + b"\n"
        else:
            self._pending += _LINES.encode(line).encode() + b"\n"
        if len(self._pending) > self._most_pending:
            self._write()
        self._offsets[int(key[:_INDEXED], 16)] = offset
        return line

    def _write(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        with storing(self.path):
            append(self._file, data, self._size)
        self._size += len(data)
        self.unsynced += 1

    def sync(self) -> None:
        """Put all lines on disk that were handed to the system; from any thread."""
        # Read before `fsync`: a line that another thread writes meanwhile may not be on disk.
        count = self.unsynced
        if count:
            with storing(self.path):
                os.fsync(self._file)
            self.unsynced -= count

    def close(self) -> None:
        if self._file >= 0:
            try:
                if self._pending:
                    self._write()
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1

    def __len__(self) -> int:
        """Return how many keys this log has lines of."""
        return self._offsets.count

    def _open(self) -> int:
        if self._read_only or not self.path:
            # -1: there is no file
            return os.open(self.path, os.O_RDONLY) if os.path.exists(self.path) else -1
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        return open_log(self.path, os.O_RDWR)

    def _load(self) -> int:
        """Index all lines; return how many bytes the whole ones have."""
        if self._file < 0:
            return 0
        offset = 0
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):  # torn by a stop
                    if not self._read_only:
                        os.ftruncate(self._file, offset)
                    break
                index_key = _index_key_of(line)
                if index_key is not None:
                    self._offsets[index_key] = offset
                    self._look_at(line, offset)
                offset += len(line)
        return offset

    def _look_at(self, line: bytes, offset: int) -> None:
        """Take in a line as the log is read."""

    def _line_at(self, offset: int) -> bytes:
        """Return the line that begins at an offset, without its end."""
        start = offset - self._size  # where it is in `_pending`, which follows the file
        is_pending = start >= 0
        if is_pending:
            end = self._pending.index(b"\n", start)
            return bytes(self._pending[start:end])
        data = os.pread(self._file, _LINE_BYTES, offset)
        while b"\n" not in data:
            # twice as much each time, so that a long line takes few calls
            more = os.pread(self._file, max(len(data), _MORE_BYTES), offset + len(data))
            if not more:
                break
            data += more
        return data.partition(b"\n")[0]


def append(file: int, data: bytes, size: int) -> None:
    """Hand data to the system, at the end of a file that has `size` bytes: whole or not at all."""
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def read_lines(path: str, first: int = 0, last: int | None = None) -> Iterator[JsonObject]:
    """Yield a log's undamaged lines that begin from one byte offset on, and before another."""
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


def _index_key_of(line: bytes) -> int | None:
    """Return the first half of the line's key as a number."""
    for head in _HEADS:  # a line that `put` wrote isn't parsed, which is quicker
        if line.startswith(head) and line.endswith(b"}\n"):
            with suppress(ValueError):
                return int(line[len(head) : len(head) + _INDEXED], 16)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return int(json.loads(line)["key"][:_INDEXED], 16)
    return None


def _with_sum(line: bytes) -> bytes:
    """Make `{"key":"…","sum":77}` of `{"key":"…"}`, by the checksum of what is before it."""
    text = line[:-1]
    return b"%b%b%d}" % (text, _SUM, zlib.crc32(text))


def _is_whole(line: bytes) -> bool:
    text, _, rest = line.rpartition(_SUM)
    return rest == b"%d}" % zlib.crc32(text)


def key_of(text: str) -> str:
    """Return the key of a line that is found by a text, and not as the reply to a request."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def store_path(folder: str) -> str:
    return os.path.join(folder, "replies.jsonl")


def stores_of(results_dir: str) -> list[str]:
    """Return the stores of replies in a results folder: of the run, its shards, its workers."""
    results = glob.escape(results_dir)
    folders = [os.path.join(results, ".ckpt"), os.path.join(results, SHARDS, "*", ".ckpt")]
    paths = []
    for folder in folders:
        paths += glob.glob(os.path.join(folder, "replies.jsonl"))
        paths += glob.glob(os.path.join(folder, "replies/*.jsonl"))
    return sorted(paths)


def other_stores(folder: str) -> list[str]:
    """Return the stores of the other parts of a run, given the checkpoint folder of one part."""
    results = os.path.dirname(os.path.abspath(folder))
    shards = os.path.dirname(results)
    if os.path.basename(shards) == SHARDS:  # it was results/shards/2-of-8
        results = os.path.dirname(shards)
    return [path for path in stores_of(results) if path != store_path(os.path.abspath(folder))]


def storing(path: str) -> AbstractContextManager[None]:
    """Return a context that raises StorageFailed where the block can't write `path`."""
    return errors_as(StorageFailed, f"can't write {path}", again=True)

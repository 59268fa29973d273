"""An append-only file of JSON lines, found by key: what was paid for, what was learnt of images."""

import glob
import hashlib
import itertools
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import StorageFailed, errors_as
from dataflow_grounding._util.files import open_log, whole_file
from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.dataframes import plain_value
from dataflow_grounding.data.results_folder import SHARDS

CHECK = "check"
"""The task of lines that answer no record's question: checks of the endpoint."""
MARK = hashlib.sha256(b"which replies are vouched for").hexdigest()[:32]
"""The key of what checks say; the last such line counts."""

_HEADS = (b'{"key": "', b'{"key":"')  # how a line begins, as `put` writes it
_SUM = b',"sum":'  # between a buffered line and its checksum
_INDEXED = 16  # digits of a key by which the index finds its last line: 64 bits
_BUFFER_BYTES = 32_768  # that wait to be written in a buffered log
_LINE_BYTES = 4096  # that are read for a line at first
_MORE_BYTES = 65_536  # that are then read at least, for a longer line
_COPIED_BYTES = 2**20  # that are copied at a time


class Span(NamedTuple):
    """A part of a log, by the byte offsets at which it begins and (exclusive) ends."""

    first: int
    end: int | None  # None: all that is written from now on

    def meets(self, first: int, end: int) -> bool:
        """Return whether some of what is between these offsets is in it."""
        return self.first < end and (self.end is None or first < self.end)


# `json.dumps` would make one for each call. A user's serving may put NumPy's numbers into a reply.
_LINES = json.JSONEncoder(default=plain_value)
_SHORT_LINES = json.JSONEncoder(default=plain_value, separators=(",", ":"))


@dataclass
class Standing:
    """What checks have said of a log's lines about one endpoint, model and format."""

    vouched_to: int  # the byte offset up to which a check vouches; what begins there is open
    set_aside: list[Span] = field(default_factory=list)  # lines that a check has failed
    group_anywhere: str = ""  # the reply group without the endpoint's address; "" if unknown
    # No line is open, nor will any that follows be: a run has finished, or a check has failed.
    none_open: bool = False

    def has_open(self, end: int) -> bool:
        """Return whether no check vouches for some lines before this offset."""
        return not self.none_open and end > self.vouched_to


class Vouched:
    """What checks of endpoints have said of a log's lines, by reply group: the endpoint, model and
    format that were asked, which a line has as `of`.

    A mark, which `Vouching.write` puts, is a line such as this, by reply group:
    `{"checks": {"…": {"good": 4096, "void": [[512, 900]]}}, "anywhere": {"…": "…"}}`. Its `good` is
    `vouched_to`, and `void` is `set_aside`.
    """

    def __init__(self, mark: Mapping[str, Any] | None = None, end: int = 0) -> None:
        self.standings = _standings_in(mark, end)
        # Spans whose lines count as lost, or as suspect if their group is in `trusted_groups`. Each
        # is the same list as in `standings`: a span that is added there counts here, too.
        self.set_aside_by_group: dict[str, list[Span]] = {}
        for reply_group, standing in self.standings.items():
            self.set_aside_by_group[reply_group] = standing.set_aside
        self.trusted_groups: set[str] = set()  # whose set aside lines count, as suspect ones
        # reply groups that have lines in other logs for which no check has vouched
        self.open_in_others: set[str] = set()
        self._end = end  # the byte offset at which the log ended when it was opened

    def has_open(self, end: int) -> bool:
        """Return whether some lines before this offset may be open, of any reply group."""
        # lines that this run adds are of other rows than the one that is asked about
        end_before_run = min(end, self._end)
        return any(standing.has_open(end_before_run) for standing in self.standings.values())

    def sets_aside(self, first: int, end: int) -> bool:
        """Return whether lines between these offsets may be set aside, of anything."""
        spans = itertools.chain.from_iterable(self.set_aside_by_group.values())
        return any(span.meets(first, end) for span in spans)

    def open_groups(self) -> set[str]:
        """Return the reply groups of which lines may be open."""
        return {group for group, standing in self.standings.items() if not standing.none_open}

    def set_aside_open(self, group_anywhere: str, reply_group: str) -> None:
        """Set aside open lines of the same model and format that came from other addresses."""
        # no check at the address of `reply_group` can ever vouch for them
        for other in self.open_groups() - {reply_group}:
            standing = self.standings[other]
            is_of_same_model = standing.group_anywhere == group_anywhere
            if is_of_same_model and standing.vouched_to < self._end:
                standing.set_aside.append(Span(standing.vouched_to, self._end))
                standing.none_open = True

    def judged(self, line: dict[str, Any], offset: int) -> dict[str, Any] | None:
        """Return a line as it is, or as a `suspect` one; None if it is set aside."""
        reply_group = line.get("of", "")
        if not isinstance(reply_group, str):  # damaged
            return line
        spans = self.set_aside_by_group.get(reply_group)
        if spans is None:
            return line
        # a line is in the span that its first byte is in
        is_set_aside = any(span.meets(offset, offset + 1) for span in spans)
        if not is_set_aside:
            return line
        if reply_group in self.trusted_groups:  # then it counts all the same
            return {**line, "suspect": True}
        return None


class KeyedLog:
    """Lines `{"key": 32 hex digits, …}`; the last line of a key counts.

    A line is with the operating system when `put` returns, so a killed process loses none; `sync`
    puts all on disk. Another program, such as a sync client or an editor, may move, replace or
    remove the file meanwhile: then all lines are put back before the next one is written.

    A `buffered` log is for what can be found out again at no cost. Its lines wait to be written,
    and each has a checksum: a damaged one counts as lost. `others` are only read.
    """

    def __init__(
        self,
        path: str,
        *,
        buffered: bool = False,
        finds_new: bool = True,
        read_only: bool = False,
        others: Iterable[str] = (),
    ) -> None:
        self.path = path
        self._read_only = read_only
        self._finds_new = finds_new  # without, what is put now isn't found, which saves memory
        self.others = [KeyedLog(other, read_only=True) for other in others]
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
        self.first_new = self._size  # where the lines of this run begin
        # What checks have said is in a line of this log. `_own_line` judges each line by `vouched`,
        # so that an empty one is needed to read that line.
        self.vouched = Vouched()
        self.vouched = Vouched(self._own_line(MARK), self._size)
        for log in self.others:
            self.vouched.open_in_others |= log.vouched.open_groups()

    @property
    def end(self) -> int:
        """The byte offset of the next line."""
        return self._size + len(self._pending)

    def get(self, key: str, since: int | None = None) -> dict[str, Any] | None:
        """Return a key's last line, as judged; with `since`, only this log's from there on."""
        line = self._own_line(key, since or 0)
        is_answer = line is not None and not line.get("refusal")
        counts_here_alone = since is not None or key == MARK
        if is_answer or counts_here_alone:
            return line
        # another part of the run may have got an answer
        return next(iter(self.every(key)), None)

    def every(self, key: str) -> list[dict[str, Any]]:
        """Return each log's last line of `key`; a refusal only where there is no answer."""
        answers: list[dict[str, Any]] = []
        refusals: list[dict[str, Any]] = []
        for log in [self, *self.others]:
            line = log._own_line(key)
            if line:
                lines = refusals if line.get("refusal") else answers
                lines.append(line)
        return answers or refusals[:1]

    def _own_line(self, key: str, since: int = 0) -> dict[str, Any] | None:
        """Return a key's last line, as judged; None if it is damaged, or from before `since`."""
        offset = self._offsets.get(int(key[:_INDEXED], 16))
        if offset is None or offset < since:
            return None
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
        return self.vouched.judged(line, offset)

    def put(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Add a line of a key and a value; return it, as checks have judged lines of its kind."""
        line = {"key": key, **value}
        offset = self.end
        if self._has_sums:
            self._pending += _with_sum(_SHORT_LINES.encode(line).encode()) + b"\n"
        else:
            self._pending += _LINES.encode(line).encode() + b"\n"
        if len(self._pending) > self._most_pending:
            self._write()
        if self._finds_new:
            self._offsets.set(int(key[:_INDEXED], 16), offset)
        # If lines of its kind are set aside, `judged` is None, and later runs won't find this one.
        # But the caller has just paid for it, and gets it.
        return self.vouched.judged(line, offset) or line

    def _write(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        with storing(self.path):
            problem = self._restore_moved()
            # The lines are paid for: they are written even where a problem stops the run.
            append(self._file, data, self._size)
        self._size += len(data)
        self.unsynced += 1
        if problem:
            raise StorageFailed(problem)

    def _restore_moved(self) -> str:
        """Put a file back that was moved or replaced; return what the user has to know, or ""."""
        own = os.fstat(self._file)  # of the open file, wherever its name is by now
        if own.st_size != self._size:
            return (
                f"another program changed {self.path} during the run: it has {own.st_size} of"
                f" {self._size} bytes. Put back what was there, then run the same command again"
            )
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return self._put_back()
        is_own_file = (there.st_ino, there.st_dev) == (own.st_ino, own.st_dev)
        if is_own_file:
            return ""
        # what the other program put there is kept under another name
        os.replace(self.path, f"{self.path}.replaced")
        return self._put_back()

    def _put_back(self) -> str:
        """Copy all from the open file, which the system keeps; return as `_restore_moved` does."""
        folder = os.path.dirname(self.path)
        was_removed = not os.path.isdir(folder)
        os.makedirs(folder, exist_ok=True)
        self._copy_back()
        if was_removed:
            return (
                f"{folder} was removed during the run. What was paid for is in it again: run the"
                " same command again to go on"
            )
        # Nothing is told of a buffered log, whose lines can be found out again at no cost.
        if not self._has_sums:
            say(
                f"Note: another program moved, replaced or removed {self.path} during the run. All"
                " that was in it is there again."
            )
        return ""

    def _copy_back(self) -> None:
        with whole_file(self.path) as file:
            offset = 0
            while offset < self._size:
                block = os.pread(self._file, min(_COPIED_BYTES, self._size - offset), offset)
                file.write(block)
                offset += len(block)
        copy = open_log(self.path, os.O_RDWR)
        # The number of the open file stays the same: `sync` may be at work on it, in another
        # thread, and must not find it closed.
        os.dup2(copy, self._file, inheritable=False)
        os.close(copy)

    def sync(self) -> None:
        """Put all lines on disk that were handed to the system; from any thread."""
        # Read before `fsync`: a line that another thread writes meanwhile may not be on disk.
        count = self.unsynced
        if count:
            with storing(self.path):
                os.fsync(self._file)
            self.unsynced -= count

    def close(self) -> None:
        for other in self.others:
            other.close()
        if self._file >= 0:
            try:
                if self._pending:
                    self._write()
                elif self.path and not self._read_only:
                    # the file may have been moved since the last line was written
                    with storing(self.path):
                        problem = self._restore_moved()
                    if problem:
                        raise StorageFailed(problem)
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1

    def __len__(self) -> int:
        """Return how many keys this log has lines of; those of `others` don't count."""
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
                    self._offsets.set(index_key, offset)
                offset += len(line)
        return offset

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


def read_lines(path: str, first: int = 0, last: int | None = None) -> Iterator[dict[str, Any]]:
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


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a value, plain JSON, with its checksum: damaged, it is as good as lost."""
    return {**value, "sum": _sum(value)}


def unsealed(value: Any) -> dict[str, Any] | None:
    """Return what was sealed, without the checksum; None for what is damaged or edited."""
    if not isinstance(value, dict):
        return None
    kept = {name: item for name, item in value.items() if name != "sum"}
    return kept if value.get("sum") == _sum(kept) else None


def _sum(value: Mapping[str, Any]) -> int:
    return zlib.crc32(repr(sorted(value.items())).encode())


def _standings_in(mark: Mapping[str, Any] | None, end: int) -> dict[str, Standing]:
    """Return the standings by reply group; `Vouched` shows a mark."""
    standings = {}
    anywhere = _mapping_at("anywhere", mark)
    checks = _mapping_at("checks", mark)
    for reply_group in checks:
        entry = _mapping_at(reply_group, checks)
        good = entry.get("good")
        vouched_to = good if isinstance(good, int) else end
        standings[reply_group] = Standing(
            vouched_to,
            set_aside=_spans(entry.get("void"), end),
            group_anywhere=str(anywhere.get(reply_group, "")),
            none_open=vouched_to == end,  # the mark vouches for the whole log
        )
    return standings


def _mapping_at(key: str, mark: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the object under a key; {} where the mark is damaged, or there is none."""
    value = mark.get(key) if mark else None
    return value if isinstance(value, dict) else {}


def _spans(spans: Any, end: int) -> list[Span]:
    """Read `[[512, 900], [2048, null]]`, null being the log's end; a mark may be damaged."""
    found: list[Span] = []
    for span in spans if isinstance(spans, list) else ():
        match span:
            case [int(first), None | int() as last]:
                found.append(Span(first, end if last is None else last))
    return found

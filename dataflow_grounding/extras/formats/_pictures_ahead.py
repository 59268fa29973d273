"""Pictures that rows name: where they are and what their headers say, found by a process ahead of
the one that asks.

Half of the time of an export goes into opening pictures; with this, a second core does that.
"""

import json
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from queue import SimpleQueue
from subprocess import DEVNULL, PIPE, Popen
from threading import Thread
from typing import Any, TypeVar

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import Header, read_file, read_header
from dataflow_grounding.images.image import find_image

Row = TypeVar("Row")
Found = tuple[str, Header]  # where a picture is, and its header
_BATCH = 256  # rows: fewer are not worth a process
_AHEAD = 4  # batches
# bytes of a picture that comes with its header: opening a file takes longer than reading so much
_SMALL = 2**15


class Pictures:
    """Finds pictures in `folders`, in this order, or where they are where paths are absolute.

    With `read` it also reads them: those that are small, ahead.
    """

    def __init__(self, folders: Sequence[str], read: bool = False) -> None:
        self._folders, self._read = tuple(folders), read
        self._known: dict[str, Found] = {}
        self._data: dict[str, bytes] = {}

    def find(self, given: Any, key: str) -> Found:
        """Where the picture is that a row names under `key`, and its header. Raises RecordError."""
        if isinstance(given, str) and given in self._known:
            return self._known[given]
        path = find_image(Record({key: given}, self._folders), key).path
        return path, read_header(path)

    def read(self, path: str) -> bytes:
        """All bytes of a picture that was found. Raises RecordError."""
        return self._data.get(path) or read_file(path)

    def ahead(self, rows: Iterable[Row], given_of: Callable[[Row], Any]) -> Iterator[Row]:
        """The rows as they are; of many, the pictures that they name are found before they come."""
        told = _told(rows)
        batches = deque([list(islice(told, _BATCH))])  # the helper starts while these are worked on
        with closing(_Helper(self._folders, self._read)) as helper:
            while batches:
                while len(batches) < _AHEAD and (batch := list(islice(told, _BATCH))):
                    helper.ask([name for row, _ in batch if (name := _given(given_of, row))])
                    batches.append(batch)
                for row, error in batches.popleft():
                    if error is not None:
                        raise error
                    yield row  # type: ignore[misc]
                self._known, self._data = helper.answer() if batches else ({}, {})


class _Helper:
    """The other process. Of one that can't be started, or has died, no answer comes, and nothing
    else happens.
    """

    def __init__(self, folders: Sequence[str], read: bool) -> None:
        self._folders, self._read, self._far = folders, read, any(map(is_elsewhere, folders))
        self._asked: deque[bool] = deque()
        self._process: Popen[bytes] | None = None

    def ask(self, names: list[str]) -> None:
        self._asked.append(bool(names) and not self._far)
        if self._asked[-1] and not getattr(sys, "frozen", False):
            # there Python can't be started by itself
            command = [sys.executable or "", "-m", __name__]
            with suppress(OSError):
                if not self._process:  # in a session of its own, as Ctrl-C is for whoever asks
                    self._process = Popen(
                        command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
                    )
                assert self._process.stdin is not None
                self._process.stdin.write(
                    json.dumps([self._folders, self._read, names]).encode() + b"\n"
                )
                self._process.stdin.flush()

    def answer(self) -> tuple[dict[str, Found], dict[str, bytes]]:
        """What is known of the pictures of the first batch without an answer; by path, what is in
        small ones.
        """
        if self._asked.popleft() and self._process and self._process.stdout:
            with suppress(EOFError, pickle.UnpicklingError):
                found: list[tuple[str, Found, bytes]] = pickle.load(self._process.stdout)
                return {name: one for name, one, _ in found}, {
                    one[0]: data for _, one, data in found if data
                }
        return {}, {}

    def close(self) -> None:
        if self._process:
            self._process.kill()
            with suppress(OSError), self._process:
                pass


def _told(rows: Iterable[Row]) -> Iterator[tuple[Row | None, Exception | None]]:
    """Each row, then what has broken them off, so that it is raised when it is its turn."""
    try:
        for row in rows:
            yield row, None
    except Exception as error:
        yield None, error


def _given(given_of: Callable[[Any], Any], row: Any) -> str | None:
    with suppress(Exception):  # a row that names none as it should is found out when it is its turn
        return (
            given if isinstance(given := given_of(row), str) and not is_elsewhere(given) else None
        )
    return None


def _serve() -> None:
    questions = SimpleQueue[str]()  # read at once: else both might wait for the other to read
    Thread(target=lambda: [*map(questions.put, chain(sys.stdin, [""]))], daemon=True).start()
    for line in iter(questions.get, ""):
        folders, read, names = json.loads(line)
        found = list[tuple[str, Found, bytes]]()
        for name in names:
            with suppress(RecordError):  # whoever needs it says what is wrong
                file = find_image(Record({"image": name}, tuple(folders)), "image")
                small = read_file(file.path) if read and file.file_bytes <= _SMALL else b""
                found.append((name, (file.path, read_header(file.path, small or None)), small))
        pickle.dump(found, sys.stdout.buffer)
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()

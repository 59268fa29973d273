"""Pictures that rows name, found by a process ahead of the one that asks.

Half of the time of an export goes into opening pictures: finding where they are, and reading their
headers. With this, a second core does that.
"""

import json
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from queue import SimpleQueue
from subprocess import DEVNULL, PIPE, Popen
from threading import Thread
from typing import Any, NamedTuple, TypeAlias, TypeVar

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import Header, read_file, read_header
from dataflow_grounding.images.image import find_image

Row = TypeVar("Row")
Found = tuple[str, Header]  # where a picture is, and its header
Answer: TypeAlias = list[tuple[str, Found, bytes]]  # with the name, and the bytes if it is small
_BATCH = 256  # rows: fewer are not worth a process
_AHEAD = 4  # batches
# bytes of a picture that comes with its header: opening a file takes longer than reading so much
_SMALL = 2**15
_END = ""  # behind the last question


class _Turn(NamedTuple):
    """A row, or what broke the rows off and is raised when its turn has come."""

    row: Any
    error: Exception | None = None


class Pictures:
    """Finds pictures in `folders`, in this order, or where they are where paths are absolute.

    With `read` it also reads them: those that are small, ahead.
    """

    def __init__(self, folders: Sequence[str], read: bool = False) -> None:
        self._folders = tuple(folders)
        self._read = read
        self._known: dict[str, Found] = {}
        self._data: dict[str, bytes] = {}

    def find(self, name: Any, key: str) -> Found:
        """Where the picture is that a row names under `key`, and its header. Raises RecordError."""
        if isinstance(name, str) and name in self._known:
            return self._known[name]
        path = find_image(Record({key: name}, self._folders), key).path
        return path, read_header(path)

    def read(self, path: str) -> bytes:
        """All bytes of a picture that was found. Raises RecordError."""
        return self._data.get(path) or read_file(path)

    def ahead(self, rows: Iterable[Row], name_of: Callable[[Row], Any]) -> Iterator[Row]:
        """The rows as they are; of many, the pictures that they name are found before they come."""
        turns = _turns(rows)
        # The helper starts while the rows of the first batch are worked on, without its help.
        batches = deque([list(islice(turns, _BATCH))])
        with closing(_Helper(self._folders, self._read)) as helper:
            while batches:
                while len(batches) < _AHEAD:
                    batch = list(islice(turns, _BATCH))
                    if not batch:
                        break
                    helper.ask(_names(batch, name_of))
                    batches.append(batch)
                for turn in batches.popleft():
                    if turn.error is not None:
                        raise turn.error
                    yield turn.row
                self._known.clear()
                self._data.clear()
                if batches:
                    self._take(helper.answer())

    def _take(self, answer: Answer) -> None:
        for name, picture, data in answer:
            self._known[name] = picture
            if data:
                path, _ = picture
                self._data[path] = data


class _Helper:
    """The other process.

    Of one that can't be started, or has died, no answer comes, and nothing else happens.
    """

    def __init__(self, folders: Sequence[str], read: bool) -> None:
        self._folders = folders
        self._read = read
        self._is_far = any(map(is_elsewhere, folders))
        self._asked: deque[bool] = deque()  # of each batch, whether an answer is to come
        self._process: Popen[bytes] | None = None

    def ask(self, names: list[str]) -> None:
        """Ask for the pictures of the next batch."""
        is_worth_asking = bool(names) and not self._is_far
        self._asked.append(is_worth_asking)
        if not is_worth_asking or getattr(sys, "frozen", False):
            return  # a frozen program has no Python that can be started by itself
        with suppress(OSError):
            if not self._process:
                command = [sys.executable or "", "-m", __name__]
                # In a session of its own, as Ctrl-C is for whoever asks.
                self._process = Popen(
                    command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
                )
            assert self._process.stdin is not None
            question = json.dumps([self._folders, self._read, names])
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> Answer:
        """What is known of the pictures of the first batch without an answer."""
        is_to_come = self._asked.popleft()
        if is_to_come and self._process and self._process.stdout:
            with suppress(EOFError, pickle.UnpicklingError):
                answer: Answer = pickle.load(self._process.stdout)
                return answer
        return []

    def close(self) -> None:
        if self._process:
            self._process.kill()
            with suppress(OSError), self._process:
                pass


def _turns(rows: Iterable[Row]) -> Iterator[_Turn]:
    """Each row, then what has broken them off, so that it is raised when it is its turn."""
    try:
        for row in rows:
            yield _Turn(row)
    except Exception as error:
        yield _Turn(None, error)


def _names(batch: Iterable[_Turn], name_of: Callable[[Any], Any]) -> list[str]:
    """The names of the batch's pictures, but of those that are fetched from elsewhere."""
    names = []
    for turn in batch:
        with suppress(Exception):  # a row that names none as it should fails when it is its turn
            name = name_of(turn.row)
            if isinstance(name, str) and name and not is_elsewhere(name):
                names.append(name)
    return names


def _read_questions(questions: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        questions.put(line)
    questions.put(_END)


def _serve() -> None:
    """The helper's own loop: a line of JSON in, a pickle out."""
    questions = SimpleQueue[str]()
    # Questions are read at once: else both processes might wait for the other to read.
    Thread(target=_read_questions, args=(questions,), daemon=True).start()
    for line in iter(questions.get, _END):
        folders, read, names = json.loads(line)
        answer: Answer = []
        for name in names:
            with suppress(RecordError):  # whoever needs the picture says what is wrong
                answer.append(_look_at(name, tuple(folders), read))
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.flush()


def _look_at(name: str, folders: tuple[str, ...], read: bool) -> tuple[str, Found, bytes]:
    """Where a picture is, its header, and with `read` its bytes if they are few."""
    file = find_image(Record({"image": name}, folders), "image")
    data = read_file(file.path) if read and file.file_bytes <= _SMALL else b""
    return name, (file.path, read_header(file.path, data or None)), data


if __name__ == "__main__":
    _serve()

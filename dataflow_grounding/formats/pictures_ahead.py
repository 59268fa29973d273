"""Pictures that rows name: where they are and what their headers say, found by a process ahead of the one that asks.

Half of the time of an export goes into opening pictures; with this, a second core does that.
"""

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import chain, islice
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from dataflow_grounding.elsewhere import is_elsewhere
from dataflow_grounding.errors import RecordError
from dataflow_grounding.image_files import Header, read_header
from dataflow_grounding.images import find_image
from dataflow_grounding.records import Record

Row = TypeVar("Row")
Found = tuple[str, Header]  # where a picture is, and its header
_BATCH = 256  # rows: fewer are not worth a process
_AHEAD = 4  # batches


class Pictures:
    """Finds pictures in `folders`, in this order, or where they are where paths are absolute."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)
        self._known: dict[str, Found] = {}

    def find(self, given: Any, key: str) -> Found:
        """Where the picture is that a row names under `key`, and its header. Raises RecordError."""
        known = self._known.get(given) if isinstance(given, str) else None
        return known or _find(given, self._folders, key)

    def ahead(self, rows: Iterable[Row], given_of: Callable[[Row], Any]) -> Iterator[Row]:
        """The rows as they are; of many, the pictures that they name are found before they come."""
        told = _told(rows)
        with ExitStack() as stack:
            batches = deque([list(islice(told, _BATCH))])  # the helper starts while these are worked on
            helper = stack.enter_context(_Helper(self._folders)) if len(batches[0]) == _BATCH else None
            while batches:
                while helper and len(batches) < _AHEAD and (batch := list(islice(told, _BATCH))):
                    helper.ask([_given(given_of, row) for row, _ in batch])
                    batches.append(batch)
                for row, error in batches.popleft():
                    if error is not None:
                        raise error
                    yield row  # type: ignore[misc]
                self._known = helper.answer() if helper and batches else {}


class _Helper:
    """The other process. Of one that can't be started, or has died, no answer comes, and nothing else happens."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        self._asked: deque[list[str | None]] = deque()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "_Helper":
        return self

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for whoever asks
        )

    def ask(self, names: list[str | None]) -> None:
        self._asked.append(names if any(names) else [])
        if any(names):
            with suppress(OSError):
                self._process = self._process or self._start()
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps([self._folders, names]).encode() + b"\n")
                self._process.stdin.flush()

    def answer(self) -> dict[str, Found]:
        """What is known of the pictures of the first batch without an answer."""
        names = self._asked.popleft()
        line = self._process.stdout.readline() if names and self._process and self._process.stdout else b""
        known = zip(names, json.loads(line) if line.endswith(b"\n") else [], strict=False)
        return {name: (one[0], Header(tuple(one[1]), *one[2:])) for name, one in known if name and one}

    def __exit__(self, *_: object) -> None:
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
        return given if isinstance(given := given_of(row), str) else None
    return None


def _find(given: Any, folders: Sequence[str], key: str) -> Found:
    path = find_image(Record({key: given}, tuple(folders)), key).path
    return path, read_header(path)


def _known(given: str | None, folders: Sequence[str]) -> Found | None:
    if given is None or any(map(is_elsewhere, (given, *folders))):
        return None
    with suppress(RecordError):  # whoever needs it says what is wrong
        return _find(given, folders, "image")
    return None


def _serve() -> None:
    questions = SimpleQueue[str]()  # read at once: else both might wait for the other to read
    Thread(target=lambda: [*map(questions.put, chain(sys.stdin, [""]))], daemon=True).start()
    for line in iter(questions.get, ""):
        folders, names = json.loads(line)
        answer = [(found := _known(name, folders)) and (found[0], *found[1]) for name in names]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()

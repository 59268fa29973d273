"""Files of a report: what its pages are made of, kept on disk, and the pages, put in place together."""

import errno
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import IO, NamedTuple

GENERATOR = '<meta name="generator" content="dataflow-grounding report, page {}">'


class Piece(NamedTuple):
    """A failure or a record as HTML, and the filters that show it."""

    html: str
    marks: list[str]


class Pieces:
    """Pieces kept on disk; those marked with the first of `first` come out first, those with none of them last."""

    def __init__(self, folder: str, files: ExitStack, first: tuple[str, ...] = ()) -> None:
        self._first = first
        spare = [tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) for _ in (*first, "others")]  # noqa: SIM115
        self._files: list[IO[str]] = [files.enter_context(file) for file in spare]
        self.count = 0
        self.marks: Counter[str] = Counter()

    def add(self, html: str, marks: Iterable[str]) -> None:
        """Keep a piece."""
        piece = Piece(html, sorted(marks))
        rank = next((rank for rank, mark in enumerate(self._first) if mark in piece.marks), len(self._first))
        self._files[rank].write(json.dumps(piece) + "\n")
        self.count += 1
        self.marks.update(piece.marks)

    def __iter__(self) -> Iterator[Piece]:
        for file in self._files:
            file.seek(0)
            yield from (Piece(*json.loads(line)) for line in file)


def page_name(name: str, number: int) -> str:
    """The name of page `number`, from 1, of the report whose first page is called `name`."""
    stem, ending = os.path.splitext(name)
    return name if number == 1 else f"{stem}-{number}{ending}"


def write_pages(folder: str, name: str, pages: Iterable[Iterable[str]]) -> None:
    """Write each page's parts, put all pages in place once they are whole, and remove later ones of an earlier report.

    Raises FileExistsError, before anything is put in place, where a page's name is taken by a file of someone else.
    """
    written: dict[str, str] = {}  # where a page is first → where it belongs
    try:
        for number, parts in enumerate(pages, 1):
            path = os.path.join(folder, page_name(name, number))
            if number > 1 and os.path.lexists(path) and not _is_page(path, number):
                taken = f"{os.path.basename(path)} is not a page of a report: move it"
                raise FileExistsError(errno.EEXIST, taken, path)
            unfinished = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}.tmp")
            written[unfinished] = path
            with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(parts)
        for unfinished, path in written.items():
            os.replace(unfinished, path)
    finally:
        for unfinished in written:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
    _remove_later(folder, name, len(written))


def _remove_later(folder: str, name: str, last: int) -> None:
    stem, ending = os.path.splitext(name)
    for other in os.listdir(folder):
        found = re.fullmatch(rf"{re.escape(stem)}-([1-9][0-9]{{0,8}}){re.escape(ending)}", other)
        number = int(found[1]) if found else 0
        if number > last and _is_page(os.path.join(folder, other), number):
            os.unlink(os.path.join(folder, other))


def _is_page(path: str, number: int) -> bool:
    """Whether a file says that it is this page of a report; a copy under another number is the user's."""
    try:
        with open(path, "rb") as file:
            return GENERATOR.format(number).encode() in file.read(500)
    except OSError:
        return False

"""Files of a report: the page, and beside it the folder of data and small pictures; the page takes its place last."""

import errno
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from dataflow_grounding.errors import InputError
from dataflow_grounding.review.thumbnails import THUMBNAIL, Thumbnails

GENERATOR = '<meta name="generator" content="dataflow-grounding report, page {}">'
PER_FILE = 500  # records or failures in a file of data
MOST_IN_ONE = 150_000_000
"""Bytes of data and pictures in a single file, which browsers read whole before they show it."""
_SAID = "dataflow-grounding replaces what is in this folder with each report: keep nothing here.\n"
_MARKER = "README.txt"
_DATA, _SCRIPT = re.compile("[0-9a-f]{8}"), re.compile("(index|(records|failures)-[1-9][0-9]*)\\.js")


def script_json(value: Any) -> str:
    """`value` as JSON that can stand in a script, and within a page's `<script>`. Raises ValueError for NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 can't hold
            text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


class ReportFiles:
    """Where a report goes: its `page`, and the folder beside it, `report_files` for `report.html`.

    The data of each report are in a folder of their own in there, so that an earlier page stays whole until the new
    one takes its name; at the end, or after an error, what nobody needs is removed. With `single`, the page holds all.

    Raises:
        FileExistsError: The page's or the folder's name is taken by something else.
    """

    def __init__(self, page: str | os.PathLike[str], single: bool = False) -> None:
        self.page, self.single, self.names, self._size = os.path.abspath(page), single, list[str](), 0
        self.folder, self.beside = os.path.dirname(self.page), os.path.splitext(self.page)[0] + "_files"
        self._is_first, self._is_ours = not os.path.lexists(self.beside), _is_ours(self.beside)
        if os.path.lexists(self.page) and not _is_page(self.page, 1):
            raise _taken(self.page, "page")
        if not (single or self._is_first or self._is_ours):
            raise _taken(self.beside, "folder")
        self.data = tempfile.mkdtemp() if single else os.path.join(self.beside, secrets.token_hex(4))
        self.address = "" if single else quote(os.fsencode(os.path.relpath(self.data, self.folder))) + "/"
        if not single:
            os.makedirs(self.data)
            Path(self.beside, _MARKER).write_text(_SAID, encoding="utf-8")
        self.thumbnails = Thumbnails(self.folder, "" if single else os.path.join(self.beside, "thumbnails"))

    def __enter__(self) -> "ReportFiles":
        return self

    def write(self, name: str, rows: Iterable[str]) -> None:
        """Write a file of data, a list of rows in JSON. Raises InputError: it is too much for a single file."""
        begin, end = ("[", "]") if self.single else (f'reportPage.take("{name}", [', "]);\n")
        with open(os.path.join(self.data, f"{name}.js"), "w", encoding="utf-8", newline="\n") as file:
            file.write(begin)
            for number, row in enumerate(rows):
                self._size += file.write(",\n" * (number > 0) + row)
                if self.single and self._size > MOST_IN_ONE:
                    much = f"{MOST_IN_ONE // 10**6} MB, more than browsers open well"
                    raise InputError(f"a single file would have over {much}: leave out --single-file")
            file.write(end)
        self.names.append(name)

    def write_parts(self, name: str, rows: Iterable[str]) -> None:
        """Write rows in files of 500, `name-1` and on."""
        left, number = iter(rows), 0
        while part := list(islice(left, PER_FILE)):
            number += 1
            self.write(f"{name}-{number}", part)

    def inline(self) -> Iterator[str]:
        """The data as parts of the page."""
        for name in self.names if self.single else ():
            yield f'<script type="application/json" id="{name}">'
            yield Path(self.data, f"{name}.js").read_text(encoding="utf-8")
            yield "</script>\n"

    def put(self, parts: Iterable[str]) -> None:
        """Put the page in place, and remove what earlier reports of that name have left."""
        unfinished = os.path.join(self.folder, f".{os.path.basename(self.page)}.{os.getpid()}.tmp")
        try:
            with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(parts)
            os.replace(unfinished, self.page)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
        _remove_pages(self.page)
        self.thumbnails.remove_others()
        if self._is_ours:
            self._clear(but=self.data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind or self.single:
            _remove(self.data, _SCRIPT)
        if kind and self._is_first and not self.single:
            self._clear()

    def _clear(self, but: str = "") -> None:
        """Remove the data of other reports from the folder and, without any, the rest of it."""
        for name in filter(_DATA.fullmatch, os.listdir(self.beside)):
            if os.path.join(self.beside, name) != but:
                _remove(os.path.join(self.beside, name), _SCRIPT)
        if self.single or not but:
            _remove(os.path.join(self.beside, "thumbnails"), THUMBNAIL)
            _remove(self.beside, re.compile(re.escape(_MARKER)))


def _taken(path: str, what: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, f"{os.path.basename(path)} is not the {what} of a report: move it", path)


def _is_ours(folder: str) -> bool:
    try:
        return not os.path.islink(folder) and Path(folder, _MARKER).read_text(encoding="utf-8") == _SAID
    except (OSError, ValueError):
        return False


def _is_page(path: str, number: int) -> bool:
    """Whether a file says that it is this page of a report; a copy under another number is the user's."""
    try:
        with open(path, "rb") as file:
            return GENERATOR.format(number).encode() in file.read(500)
    except OSError:
        return False


def _remove(folder: str, names: "re.Pattern[str]") -> None:
    """Remove the files of a folder that are called so, and the folder where nothing else is in it."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in filter(names.fullmatch, os.listdir(folder)):
            os.unlink(os.path.join(folder, name))
    with suppress(OSError):
        os.rmdir(folder)


def _remove_pages(page: str) -> None:
    """Remove the further pages `report-2.html`, … that reports of earlier versions have."""
    (folder, name), ending = os.path.split(page), os.path.splitext(page)[1]
    for other in os.listdir(folder):
        found = re.fullmatch(rf"{re.escape(os.path.splitext(name)[0])}-([1-9][0-9]{{0,8}}){re.escape(ending)}", other)
        if found and int(found[1]) > 1 and _is_page(os.path.join(folder, other), int(found[1])):
            os.unlink(os.path.join(folder, other))

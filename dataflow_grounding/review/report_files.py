"""Files of a report: the page, and beside it the folder of data and small pictures; the page takes its place last."""

import errno
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from dataflow_grounding.errors import InputError
from dataflow_grounding.review.thumbnails import THUMBNAIL, Thumbnails

GENERATOR = '<meta name="generator" content="dataflow-grounding report, page {}">'
PER_FILE = 500  # records or failures in a file of data
MOST_IN_ONE = 150_000_000
"""Bytes of data and pictures in a single file, which browsers read whole before they show it."""
_SAID = "dataflow-grounding replaces what is in this folder with each report: keep nothing here.\n"
_MARKER = "README.txt"
_OURS = re.compile(
    rf"\.|{_MARKER}|thumbnails(/{THUMBNAIL.pattern})?|[0-9a-f]{{8}}(/(index|(records|failures)-[1-9][0-9]*)\.js)?"
)
"""What is in that folder, by its path there."""


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
    one takes its name; what nobody needs is removed. With `single`, the page holds all.

    Raises:
        FileExistsError: The page's or the folder's name is taken by something else.
    """

    def __init__(self, page: str | os.PathLike[str], single: bool = False) -> None:
        self.page, self.single, self._size = os.path.abspath(page), single, 0
        self.folder, self.beside = os.path.dirname(self.page), os.path.splitext(self.page)[0] + "_files"
        self._is_first, self._is_put = not os.path.lexists(self.beside), False
        self._is_ours = self._is_first or _is_ours(self.beside)
        if os.path.lexists(self.page) and not _is_page(self.page, 1):
            raise _taken(self.page, "page")
        if not (single or self._is_ours):
            raise _taken(self.beside, "folder")
        self._token = secrets.token_hex(4)
        self.address = "" if single else quote(os.fsencode(f"{os.path.basename(self.beside)}/{self._token}/"))
        if not single:
            os.makedirs(os.path.join(self.beside, self._token))
            Path(self.beside, _MARKER).write_text(_SAID, encoding="utf-8")
        self.inline = self.spool()
        self.thumbnails = Thumbnails(self.folder, "" if single else os.path.join(self.beside, "thumbnails"))

    def spool(self) -> IO[str]:
        """A file without a name, for what is put into the page or the data at the end."""
        return tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=self.folder)

    def write(self, name: str, rows: Iterable[str]) -> None:
        """Write a file of data, a list of rows in JSON; or as a part of the page, which `inline` has then.

        Raises InputError: it is too much for a single file.
        """
        begin, end, path = f'reportPage.take("{name}", [', "]);\n", os.path.join(self.beside, self._token, f"{name}.js")
        if self.single:
            begin, end = f'<script type="application/json" id="{name}">[', "]</script>\n"
        with nullcontext(self.inline) if self.single else open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(begin)
            for number, row in enumerate(rows):
                self._size += file.write(",\n" * (number > 0) + row)
                if self.single and self._size > MOST_IN_ONE:
                    much = f"{MOST_IN_ONE // 10**6} MB, more than browsers open well"
                    raise InputError(f"a single file would have over {much}: leave out --single-file")
            file.write(end)

    def write_parts(self, name: str, rows: Iterable[str]) -> None:
        """Write rows in files of 500, `name-1` and on."""
        left, number = iter(rows), 0
        while part := list(islice(left, PER_FILE)):
            number += 1
            self.write(f"{name}-{number}", part)

    def put(self, parts: Iterable[str]) -> None:
        """Put the page in place, and remove what earlier reports of that name have left."""
        self.inline.seek(0)
        unfinished = os.path.join(self.folder, f".{os.path.basename(self.page)}.{os.getpid()}.tmp")
        try:
            with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(parts)
            os.replace(unfinished, self.page)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
        self._is_put = True
        _remove_pages(self.page)
        if self._is_ours:
            self._clear(set() if self.single else {_MARKER, self._token, *self.thumbnails.used})

    def close(self) -> None:
        """Remove what was written and is not in place."""
        self.inline.close()
        if not (self._is_put or self.single):
            self._clear(set() if self._is_first else {*os.listdir(self.beside)} - {self._token})

    def _clear(self, kept: set[str]) -> None:
        """Remove reports' files from the folder, bar what is there under a kept name; then those that are empty."""
        for path in [*sorted(Path(self.beside).rglob("*"), reverse=True), Path(self.beside)]:
            within = path.relative_to(self.beside)
            if _OURS.fullmatch(within.as_posix()) and kept.isdisjoint(within.parts):
                with suppress(OSError):  # the user's own files are in the folder
                    os.rmdir(path) if path.is_dir() else os.unlink(path)


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


def _remove_pages(page: str) -> None:
    """Remove the further pages `report-2.html`, … that reports of earlier versions have."""
    (folder, name), ending = os.path.split(page), os.path.splitext(page)[1]
    for other in os.listdir(folder):
        found = re.fullmatch(rf"{re.escape(os.path.splitext(name)[0])}-([1-9][0-9]{{0,8}}){re.escape(ending)}", other)
        if found and int(found[1]) > 1 and _is_page(os.path.join(folder, other), int(found[1])):
            os.unlink(os.path.join(folder, other))

"""Files of a report: the page, and beside it the folder of data and small pictures; the page takes
its place last.
"""

import errno
import hashlib
import json
import math
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

from dataflow_grounding._util.errors import InputError, RecordError
from dataflow_grounding._util.files import new_file, whole_file, within
from dataflow_grounding._util.paths import is_elsewhere, look
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import write_bytes
from dataflow_grounding.extras.review._record_view import Picture, why_missing
from dataflow_grounding.images.display import small_copy
from dataflow_grounding.images.files import decoding, read_file, read_header
from dataflow_grounding.images.image import url_of

GENERATOR = '<meta name="generator" content="dataflow-grounding report, page 1">'
PER_FILE = 500  # records or failures in a file of data
MOST_IN_ONE = 150_000_000
"""Bytes of data and pictures in a single file, which browsers read whole before they show it."""
# pixels of a small copy's longer side at the most, and its quality as a JPEG
COPY_SIDE, COPY_QUALITY = 320, 75
# of a file that is shown itself: decoding twenty of a page takes a moment
MOST_BYTES, MOST_PIXELS = 300_000, 1_500_000
_SHOWN_AS_THEY_ARE = ("image/jpeg", "image/png", "image/webp", "image/gif")
_SHOWN_BY_BROWSERS = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)
_ESCAPED = re.compile("[<\ud800-\udfff]")  # halves of surrogate pairs can't be written as UTF-8
_SAID = "dataflow-grounding replaces what is in this folder with each report: keep nothing here.\n"
_MARKER = "README.txt"
_THUMBNAIL = re.compile(r"([0-9a-f]{24})-([1-9][0-9]{0,5})x([1-9][0-9]{0,5})\.(?:webp|jpg)")
_OURS = re.compile(
    rf"\.|{_MARKER}|thumbnails(/{_THUMBNAIL.pattern}(\.[0-9a-f]{{8}}\.part)?)?"
    r"|[0-9a-f]{8}(/(index|(records|failures)-[1-9][0-9]*)\.js)?"
)
"""What is in that folder, by its path there."""


def script_json(value: Any) -> str:
    """`value` as JSON that can stand in a script, and within a page's `<script>`. Raises ValueError
    for NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class ReportFiles:
    """Where a report goes: its `page`, and the folder beside it, `report_files` for `report.html`.

    The data of each report are in a folder of their own in there, so that an earlier page stays
    whole until the new one takes its name; what nobody needs is removed. With `single`, the page
    holds all. Pictures on this machine that are neither large nor of an odd type are shown
    themselves; the others, and with `copies` or `single` all, have a small copy.

    Raises:
        FileExistsError: The page's or the folder's name is taken by something else.
    """

    def __init__(
        self, page: str | os.PathLike[str], single: bool = False, copies: bool = False
    ) -> None:
        self.page, self.single, self.copies, self._size = (
            os.path.abspath(page),
            single,
            copies or single,
            0,
        )
        self.folder, self.beside = (
            os.path.dirname(self.page),
            os.path.splitext(self.page)[0] + "_files",
        )
        self._is_first, self._is_put = not os.path.lexists(self.beside), False
        self._is_ours = self._is_first or _is_ours(self.beside)
        if os.path.lexists(self.page) and not _is_page(self.page):
            raise _taken(self.page, "page")
        if not (single or self._is_ours):
            raise _taken(self.beside, "folder")
        self._token, self._small = secrets.token_hex(4), os.path.join(self.beside, "thumbnails")
        self.address = "" if single else f"{self._address_of(self._token)}/"
        # small copies by key; name and size of the picture
        self._there: dict[str, tuple[str, Size]] = {}
        self._used: set[str] = set()
        if not single:
            for folder in (self._token, "thumbnails"):
                os.makedirs(os.path.join(self.beside, folder), exist_ok=True)
            if self._is_first:
                with new_file(os.path.join(self.beside, _MARKER)) as marker:
                    marker.write(_SAID.encode())
            for found in filter(None, map(_THUMBNAIL.fullmatch, os.listdir(self._small))):
                self._there[found[1]] = found[0], (int(found[2]), int(found[3]))
        self.inline = self.spool()

    def spool(self) -> IO[str]:
        """A file without a name, for what is put into the page or the data at the end."""
        return tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=self.folder)

    def write(self, name: str, rows: Iterable[str]) -> None:
        """Write a file of data, a list of rows in JSON; or as a part of the page, which `inline`
        has then.

        Raises InputError: it is too much for a single file.
        """
        begin, end, path = (
            f'reportPage.take("{name}", [',
            "]);\n",
            os.path.join(self.beside, self._token, f"{name}.js"),
        )
        if self.single:
            begin, end = f'<script type="application/json" id="{name}">[', "]</script>\n"
        with (
            nullcontext(self.inline)
            if self.single
            else new_file(path, "w", encoding="utf-8", newline="\n") as file
        ):
            file.write(begin)
            for number, row in enumerate(rows):
                self._size += file.write(",\n" * (number > 0) + row)
                if self.single and self._size > MOST_IN_ONE:
                    much = f"{MOST_IN_ONE // 10**6} MB, more than browsers open well"
                    raise InputError(
                        f"a single file would have over {much}: leave out --single-file"
                    )
            file.write(end)

    def write_parts(self, name: str, rows: Iterable[str]) -> None:
        """Write rows in files of 500, `name-1` and on."""
        left, number = iter(rows), 0
        while part := list(islice(left, PER_FILE)):
            number += 1
            self.write(f"{name}-{number}", part)

    def picture(self, path: str | None) -> Picture:
        """A picture that is shown itself, or with a small copy that is made once for a file of that
        path, size and time; from any thread.

        `path` is None for one that is not there. Raises OSError: the copy can't be kept.
        """
        if path is None:
            return Picture(missing=why_missing())
        try:
            state, full = look(path), link(path, self.folder)
            if full and not self.copies and state.size <= MOST_BYTES:
                header = read_header(path, b"")
                if (
                    header.media_type in _SHOWN_AS_THEY_ARE
                    and math.prod(header.size) <= MOST_PIXELS
                ):
                    return Picture(header.size, full, full)
            key = hashlib.sha256(
                os.fsencode(f"{full or path}\n{state.size}\n{state.changed}")
            ).hexdigest()[:24]
            name, size = self._there.get(key, ("", (0, 0)))
            if not name:
                size, small = small_copy_of(path)
        except (RecordError, InputError, OSError, ValueError) as error:
            return Picture(missing=why_missing(error))
        if self.single:
            return Picture(size, url_of(small, "image/jpeg").decode(), full)
        if not name:
            name = f"{key}-{size[0]}x{size[1]}.jpg"
            write_bytes(within(self._small, name), small, alone=False)
        self._used.add(name)
        return Picture(size, self._address_of(f"thumbnails/{name}"), full)

    def _address_of(self, path: str) -> str:
        """The address of something in the folder, for the page."""
        return quote(os.fsencode(f"{os.path.basename(self.beside)}/{path}"))

    def put(self, parts: Iterable[str]) -> None:
        """Put the page in place, and remove what earlier reports of that name have left."""
        self.inline.seek(0)
        with whole_file(self.page, alone=False) as file:
            file.writelines(part.encode() for part in parts)
        self._is_put = True
        if self._is_ours:
            self._clear(set() if self.single else {_MARKER, self._token, *self._used})

    def close(self) -> None:
        """Remove what was written and is not in place."""
        self.inline.close()
        if not (self._is_put or self.single):
            self._clear(set() if self._is_first else {*os.listdir(self.beside)} - {self._token})

    def _clear(self, kept: set[str]) -> None:
        """Remove reports' files from the folder, bar what is there under a kept name; then those
        that are empty.
        """
        for path in [*sorted(Path(self.beside).rglob("*"), reverse=True), Path(self.beside)]:
            within = path.relative_to(self.beside)
            if _OURS.fullmatch(within.as_posix()) and kept.isdisjoint(within.parts):
                with suppress(OSError):  # the user's own files are in the folder
                    os.rmdir(path) if path.is_dir() else os.unlink(path)


def _taken(path: str, what: str) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST, f"{os.path.basename(path)} is not the {what} of a report: move it", path
    )


def _is_ours(folder: str) -> bool:
    try:
        if any(map(os.path.islink, (folder, os.path.join(folder, "thumbnails")))):
            return False
        return Path(folder, _MARKER).read_text(encoding="utf-8") == _SAID
    except (OSError, ValueError):
        return False


def _is_page(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return GENERATOR.encode() in file.read(500)
    except OSError:
        return False


def small_copy_of(path: str) -> tuple[Size, bytes]:
    """The size in pixels of an upright picture, and a small JPEG of it without metadata.

    Raises ImageMissing, ImageBroken, MachineBusy.
    """
    data = read_file(path)
    size = read_header(path, data).size
    shorter = math.ceil(COPY_SIDE * min(size) / max(size))
    with decoding(data, path, (COPY_SIDE, shorter)) as picture:
        return size, small_copy(picture, COPY_SIDE, "JPEG", quality=COPY_QUALITY)


def link(path: str, folder: str) -> str:
    """The address of a picture for a page in `folder`; empty for a file that a browser could run.

    It is relative where both are in a folder that may be moved as a whole: the page's, its parent,
    or that one's.
    """
    if is_elsewhere(path) or not path.lower().endswith(_SHOWN_BY_BROWSERS):
        return ""
    path, project = os.path.abspath(path), os.path.dirname(os.path.dirname(folder))
    within = [
        place
        for place in (folder, os.path.dirname(folder), project)
        if os.path.dirname(place) != place
    ]
    inside = any(path.startswith(os.path.join(place, "")) for place in within)
    return quote(os.fsencode(os.path.relpath(path, folder))) if inside else Path(path).as_uri()

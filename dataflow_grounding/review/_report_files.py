"""Files of a report: the page, and next to it the folder of data and small pictures.

The page takes its name last, when all it shows is written.
"""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from dataflow_grounding._util.errors import InputError, RecordError
from dataflow_grounding._util.files import new_file, whole_file, within, write_bytes
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.display import small_copy
from dataflow_grounding.images.files import decoding, read_file, read_header
from dataflow_grounding.images.image import ImageFile, url_of
from dataflow_grounding.review._record_view import Picture, why_missing

GENERATOR = '<meta name="generator" content="dataflow-grounding report, page 1">'
PER_FILE = 500  # records or failures in a file of data
MOST_IN_ONE = 150_000_000
"""Bytes of data and pictures in a single file, which browsers read whole before they show it."""
COPY_SIDE = 320  # pixels of a small copy's longer side at the most
COPY_QUALITY = 75  # of a small copy as a JPEG
# The most bytes of a file that is shown itself, without a small copy: decoding twenty files of a
# page takes a moment.
MOST_BYTES = 300_000
MOST_PIXELS = 1_500_000
_SHOWN_AS_THEY_ARE = ("image/jpeg", "image/png", "image/webp", "image/gif")  # in a page, if small
# Endings of files that a page links to.
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
# "<" could end a page's script; halves of surrogate pairs can't be written as UTF-8.
_ESCAPED = re.compile("[<\ud800-\udfff]")
# The file by which a report knows its folder again.
_MARKER = "README.txt"
_MARKER_TEXT = (
    "dataflow-grounding replaces what is in this folder with each report: keep nothing here.\n"
)
# The name of a small copy, `KEY-640x480.jpg`: the key, and the size of the picture that it is of.
_THUMBNAIL = re.compile(r"([0-9a-f]{24})-([1-9][0-9]{0,5})x([1-9][0-9]{0,5})\.(?:webp|jpg)")
_OURS = re.compile(
    rf"\.|{_MARKER}|thumbnails(/{_THUMBNAIL.pattern}(\.[0-9a-f]{{8}}\.part)?)?"
    r"|[0-9a-f]{8}(/(index|(records|failures)-[1-9][0-9]*)\.js)?"
)
"""The paths in that folder that reports make; what has another path is the user's.

They are `.`, the folder itself; `README.txt`; `thumbnails` and the small copies in it, also one
that was being written when a process was killed (`….jpg.1a2b3c4d.part`); and of a report's data
`1a2b3c4d`, `1a2b3c4d/index.js`, `1a2b3c4d/records-1.js` and so on.
"""


def script_json(value: Any) -> str:
    """Return a value as JSON that is safe in a page's `<script>`; ValueError for NaN, infinity."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _SmallCopy(NamedTuple):
    """A small copy of a picture in the folder `thumbnails`."""

    name: str
    size_of_picture: Size


class ReportFiles:
    """Writes a report: its page, and the folder next to it, `report_files` for `report.html`.

    In that folder, each report has a folder of its own for its data. So an earlier page stays whole
    until `put` gives the new one its name. With `single`, all is in the page.
    """

    def __init__(
        self, page: str | os.PathLike[str], single: bool = False, copies: bool = False
    ) -> None:
        self.page = os.path.abspath(page)
        self.single = single
        self.copies = copies or single
        self.folder = os.path.dirname(self.page)
        self.files_folder = os.path.splitext(self.page)[0] + "_files"
        self._is_first = not os.path.lexists(self.files_folder)  # the folder isn't there yet
        # whether what is in the folder was made by reports, and may be removed
        self._is_ours = self._is_first or _has_marker(self.files_folder)
        if os.path.lexists(self.page) and not _is_page(self.page):
            raise _name_taken(self.page, "page")
        if not (self.single or self._is_ours):
            raise _name_taken(self.files_folder, "folder")
        # The name of the folder of this report's data, within `files_folder`. `address` is where
        # the page finds it; "" if the page itself has the data.
        self._data_folder = secrets.token_hex(4)
        self.address = "" if single else f"{self._address_of(self._data_folder)}/"
        self._copies_folder = os.path.join(self.files_folder, "thumbnails")
        self._earlier_copies: dict[str, _SmallCopy] = {}  # by key
        self._copies_used: set[str] = set()  # names of the copies that this report shows
        self._characters = 0  # of data in a single page
        self._has_page = False  # whether the page has its name
        if not single:
            self._make_folders()
            self._find_copies()
        self.inline = self.spool()

    def _make_folders(self) -> None:
        for folder in (self._data_folder, "thumbnails"):
            os.makedirs(os.path.join(self.files_folder, folder), exist_ok=True)
        if self._is_first:
            with new_file(os.path.join(self.files_folder, _MARKER)) as marker:
                marker.write(_MARKER_TEXT.encode())

    def _find_copies(self) -> None:
        for name in os.listdir(self._copies_folder):
            match = _THUMBNAIL.fullmatch(name)
            if match:
                key, width, height = match.groups()
                self._earlier_copies[key] = _SmallCopy(name, (int(width), int(height)))

    def spool(self) -> IO[str]:
        """Return a temporary file without a name, on the page's disk, which has to hold all."""
        return tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=self.folder)

    def write(self, name: str, rows: Iterable[str]) -> None:
        """Write a list of rows, each in JSON, into a file of data; if `single`, into `inline`."""
        if self.single:
            self._write_inline(name, rows)
            return
        path = os.path.join(self.files_folder, self._data_folder, f"{name}.js")
        with new_file(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(f'page.take("{name}", [')
            file.writelines(_separated(rows))
            file.write("]);\n")

    def _write_inline(self, name: str, rows: Iterable[str]) -> None:
        self.inline.write(f'<script type="application/json" id="{name}">[')
        for text in _separated(rows):
            self.inline.write(text)
            self._characters += len(text)
            if self._characters > MOST_IN_ONE:
                raise InputError(
                    f"a single file would have over {MOST_IN_ONE // 10**6} MB, more than browsers"
                    " open well: leave out --single-file"
                )
        self.inline.write("]</script>\n")

    def write_parts(self, name: str, rows: Iterable[str]) -> None:
        """Write rows, each in JSON, in parts of PER_FILE, called `NAME-1`, `NAME-2` and so on."""
        remaining = iter(rows)
        for number in count(1):
            part = list(islice(remaining, PER_FILE))
            if not part:
                break
            self.write(f"{name}-{number}", part)

    def picture(self, file: ImageFile | None) -> Picture:
        """Return how the page shows a picture: itself, or by a small copy; from any thread."""
        if file is None:
            return Picture(missing=why_missing())
        try:
            address = link(file.path, self.folder)  # "" if the page can't link to it
            if address and not self.copies:
                size_shown = _size_if_shown_itself(file)
                if size_shown is not None:  # it needs no small copy
                    return Picture(size_shown, thumbnail=address, full=address)
            # With size and times, a file that was replaced has another copy.
            _, *size_and_times = file
            identity = os.fsencode(f"{address or file.path}\n{tuple(size_and_times)}")
            key = hashlib.sha256(identity).hexdigest()[:24]
            earlier_copy = self._earlier_copies.get(key)
            if earlier_copy is not None:
                return self._with_copy(earlier_copy, address)
            size, new_copy = small_copy_of(file)
        except (RecordError, InputError, OSError, ValueError) as error:
            return Picture(missing=why_missing(error))
        if self.single:
            return Picture(size, thumbnail=url_of(new_copy, "image/jpeg").decode(), full=address)
        name = f"{key}-{size[0]}x{size[1]}.jpg"
        # Not alone: another thread, or another report, may be writing the same copy.
        write_bytes(within(self._copies_folder, name), new_copy, alone=False)
        return self._with_copy(_SmallCopy(name, size), address)

    def _with_copy(self, copy: _SmallCopy, full: str) -> Picture:
        self._copies_used.add(copy.name)
        thumbnail = self._address_of(f"thumbnails/{copy.name}")
        return Picture(copy.size_of_picture, thumbnail=thumbnail, full=full)

    def _address_of(self, path: str) -> str:
        return quote(os.fsencode(f"{os.path.basename(self.files_folder)}/{path}"))

    def put(self, parts: Iterable[str]) -> None:
        """Write the page from its parts, and give it its name; remove what earlier reports left."""
        self.inline.seek(0)
        with whole_file(self.page, alone=False) as file:
            file.writelines(part.encode() for part in parts)
        self._has_page = True
        if not self._is_ours:  # a single page needs no folder: the one there is the user's
            return
        names_kept: set[str] = set()  # a single page has all in it: nothing is kept
        if not self.single:
            names_kept = {_MARKER, self._data_folder, *self._copies_used}
        self._remove_all_but(names_kept)

    def close(self) -> None:
        """Remove what was written next to the page, unless `put` gave the page its name."""
        self.inline.close()
        if self._has_page or self.single:
            return
        names_kept: set[str] = set()  # the folder was made for this report: it goes as a whole
        if not self._is_first:
            # An earlier report stays whole; the next one uses the new small copies.
            names_kept = set(os.listdir(self.files_folder)) - {self._data_folder}
        self._remove_all_but(names_kept)

    def _remove_all_but(self, names_kept: set[str]) -> None:
        """Remove what reports made, but for what has one of the names, or is in what has one."""
        folder = Path(self.files_folder)
        # In reverse, what is in a folder comes before the folder.
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
            path_in_folder = path.relative_to(folder)
            is_kept = not names_kept.isdisjoint(path_in_folder.parts)
            if is_kept or not _OURS.fullmatch(path_in_folder.as_posix()):
                continue
            with suppress(OSError):  # a folder isn't empty if something in it stays
                if path.is_dir():
                    os.rmdir(path)
                else:
                    os.unlink(path)


def _separated(rows: Iterable[str]) -> Iterator[str]:
    """JSON wants commas between the items of a list, and none after the last."""
    separator = ""
    for row in rows:
        yield separator + row
        separator = ",\n"


def _name_taken(path: str, what: str) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST, f"{os.path.basename(path)} is not the {what} of a report: move it", path
    )


def _has_marker(folder: str) -> bool:
    """Return whether a report made the folder."""
    try:
        # What a link leads to is not a report's to remove.
        if os.path.islink(folder) or os.path.islink(os.path.join(folder, "thumbnails")):
            return False
        return Path(folder, _MARKER).read_text(encoding="utf-8") == _MARKER_TEXT
    except (OSError, ValueError):
        return False


def _is_page(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return GENERATOR.encode() in file.read(500)
    except OSError:
        return False


def _size_if_shown_itself(file: ImageFile) -> Size | None:
    """Return the size of a picture that a page can show without a small copy, else None."""
    if file.file_bytes > MOST_BYTES:
        return None
    header = read_header(file.path, whole_png=False)
    is_small = math.prod(header.size) <= MOST_PIXELS
    if header.media_type in _SHOWN_AS_THEY_ARE and is_small:
        return header.size
    return None


def small_copy_of(file: ImageFile) -> tuple[Size, bytes]:
    """Return the size of an upright picture, and a small JPEG without metadata."""
    path = file.path
    data = read_file(path, file.file_bytes)
    size = read_header(path, data).size
    # A large JPEG is decoded at a fraction of its size, but no smaller than the copy.
    shorter = math.ceil(COPY_SIDE * min(size) / max(size))
    with decoding(data, path, (COPY_SIDE, shorter)) as picture:
        return size, small_copy(picture, COPY_SIDE, "JPEG", quality=COPY_QUALITY)


def link(path: str, folder: str) -> str:
    """Return the address of a picture for a page in `folder`; "" for one the page can't link to."""
    # It may be a file of another machine. One without a picture's ending could be run by a browser.
    if not (path.lower().endswith(_SHOWN_BY_BROWSERS) and os.path.exists(path)):
        return ""
    path = os.path.abspath(path)
    # The page's folder, or one of the two around it, may be moved as a whole: for example `run`, if
    # it has `run/results/report.html` and `run/images`. Nobody moves the root of a disk.
    parent = os.path.dirname(folder)
    for may_be_moved in (folder, parent, os.path.dirname(parent)):
        is_root = os.path.dirname(may_be_moved) == may_be_moved
        is_around_picture = path.startswith(os.path.join(may_be_moved, ""))
        if is_around_picture and not is_root:
            return quote(os.fsencode(os.path.relpath(path, folder)))
    return Path(path).as_uri()

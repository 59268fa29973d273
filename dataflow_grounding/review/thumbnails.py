"""Small copies of pictures for a report: as files that stay while their picture does, or within the page."""

import hashlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dataflow_grounding.elsewhere import is_elsewhere, look
from dataflow_grounding.errors import BrokenRow, ImageMissing, InputError, RecordError
from dataflow_grounding.geometry import Size
from dataflow_grounding.image_files import decoding, read_file, read_header
from dataflow_grounding.images import find_image, url_of
from dataflow_grounding.records import Record, write_bytes
from dataflow_grounding.review.record_view import Picture

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_BYTES = 20_000  # of a small copy
_TRIES = ((640, 75), (640, 50), (480, 50), (360, 40), (240, 30), (120, 20))  # longest side in pixels, quality of WebP
_FEW = 100_000  # pixels up to which a JPEG, which takes a seventh of the time, may do as well
THUMBNAIL = re.compile(r"([0-9a-f]{24})-([1-9][0-9]{0,5})x([1-9][0-9]{0,5})\.(?:webp|jpg)")
_SHOWN_BY_BROWSERS = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Thumbnails:
    """The small copies that the pages of a report show, in `folder`; without one they become part of the page.

    `page_folder` is the page's, to which addresses are relative. A copy is made once for a file of that path, size and
    time; `used` has the names of those that the records of this report have.
    """

    def __init__(self, page_folder: str, folder: str = "") -> None:
        self._page_folder, self._folder = page_folder, folder
        self.used: set[str] = set()
        self._there: dict[str, tuple[str, Size]] = {}  # by key; name and size of the picture
        if folder:
            os.makedirs(folder, exist_ok=True)
            for found in filter(None, map(THUMBNAIL.fullmatch, os.listdir(folder))):
                self._there[found[1]] = found[0], (int(found[2]), int(found[3]))

    def of(self, path: str | None) -> Picture:
        """The picture of a file, None for one that is not there; from any thread. Raises OSError: it can't be kept."""
        if path is None:
            return Picture(missing=why_missing())
        try:
            state, full = look(path), link(path, self._page_folder)
            key = hashlib.sha256(os.fsencode(f"{full or path}\n{state.size}\n{state.changed}")).hexdigest()[:24]
            name, size = self._there.get(key, ("", (0, 0)))
            if not name:
                size, small, kind = thumbnail_of(path)
        except (RecordError, InputError, OSError, ValueError) as error:
            return Picture(missing=why_missing(error))
        if not self._folder:
            return Picture(size, url_of(small, f"image/{kind}").decode(), full)
        if not name:
            name = f"{key}-{size[0]}x{size[1]}.{'jpg' if kind == 'jpeg' else kind}"
            write_bytes(os.path.join(self._folder, name), small, alone=False)
        self.used.add(name)
        return Picture(
            size, quote(os.fsencode(os.path.relpath(os.path.join(self._folder, name), self._page_folder))), full
        )


def path_of_picture(record: Record) -> str:
    """Where a record's picture is. Raises RecordError."""
    return find_image(record, "image_path" if "image_path" in record else "image").path


def why_missing(error: Exception | None = None) -> str:
    """What a page says in place of a picture."""
    gone = error is None or isinstance(error, (ImageMissing, BrokenRow, FileNotFoundError))
    return "The image file is not there." if gone else "The image file can't be read."


def small_copy(picture: "PillowImage", side: int, kind: str, **how: Any) -> bytes:
    """A copy without metadata, at most so many pixels wide and high; the picture is then as small, too."""
    picture.info.clear()
    picture.thumbnail((side, side), reducing_gap=2.0)
    picture.save(out := io.BytesIO(), kind, **how)
    return out.getvalue()


def thumbnail_of(path: str) -> tuple[Size, bytes, str]:
    """The size in pixels of an upright picture, and a copy of 20,000 bytes at most without metadata: jpeg or webp.

    Raises ImageMissing, ImageBroken, MachineBusy.
    """
    data = read_file(path)
    size = read_header(path, data).size
    with decoding(data, path, (_TRIES[0][0],) * 2) as picture:
        few = picture.width * picture.height <= _FEW
        for side, quality, kind in (*[(640, 80, "jpeg")] * few, *((*one, "webp") for one in _TRIES)):
            small = small_copy(picture, side, kind, quality=quality, **({"method": 1} if kind == "webp" else {}))
            if len(small) <= MAX_BYTES:
                break
    return size, small, kind


def link(path: str, folder: str) -> str:
    """The address of a picture for a page in `folder`; empty for a file that a browser could run.

    It is relative where both are in a folder that may be moved as a whole: the page's, its parent, or that one's.
    """
    if is_elsewhere(path) or not path.lower().endswith(_SHOWN_BY_BROWSERS):
        return ""
    path, project = os.path.abspath(path), os.path.dirname(os.path.dirname(folder))
    within = [place for place in (folder, os.path.dirname(folder), project) if os.path.dirname(place) != place]
    inside = any(path.startswith(os.path.join(place, "")) for place in within)
    return quote(os.fsencode(os.path.relpath(path, folder))) if inside else Path(path).as_uri()

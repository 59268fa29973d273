"""An image file's bytes as Pillow reads them: the facts in the header, and the pixels."""

import functools
import hashlib
import importlib.machinery
import importlib.util
import io
import math
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from dataflow_grounding._util.errors import (
    ImageBroken,
    InputError,
    MissingExtra,
    cant_read,
    machine_fault,
)
from dataflow_grounding._util.paths import fetched, is_elsewhere, look, plain_path
from dataflow_grounding._util.terminal import quoted
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images._plain_jpeg import plain_header

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
"""What an image file may be, whatever it is called. Pillow's other readers are not tried: EPS's
runs Ghostscript.
"""


def _pillow_has(module: str) -> bool:
    """Whether Pillow has a module. Pillow isn't imported for it, which `find_spec` would do."""
    pillow = importlib.util.find_spec("PIL")
    if pillow is None:
        return False
    folders = pillow.submodule_search_locations
    return importlib.machinery.PathFinder.find_spec(f"PIL.{module}", folders) is not None


ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ENDINGS += (".jp2", ".ppm")
if _pillow_has("AvifImagePlugin"):  # since Pillow 11.3
    ENDINGS += (".avif",)
"""By which a picture among other files is known: what this Pillow reads."""

MAX_PIXELS = 400_000_000  # more is taken for a decompression bomb
PIXELS_AT_ONCE = 100_000_000
"""Pixels that all threads together have decoded at a time; a picture with more of
them goes alone.
"""

MAX_FILE_BYTES = 512 * 2**20
# of a JPEG; a camera writes one segment of EXIF, 64 KiB at most
MAX_EXIF_BYTES = 2**20
MAX_SEGMENTS = 10_000
# a pipe that took a file's place would be waited for; Windows would change the ends of lines
_PLAIN_OPEN = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
_ORIENTATION = 0x0112
_END_OF_IMAGE = b"\xff\xd9"  # a JPEG's last marker
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file without decoding it.

    `width` and `height` are those of the upright picture.
    """

    digest: str
    width: int
    height: int
    media_type: str
    # neither turned by EXIF, nor animated, nor in a mode (CMYK, 16 bit) that few endpoints read
    plain: bool
    file_bytes: int

    @property
    def size(self) -> Size:
        """Width and height in pixels of the upright picture."""
        return (self.width, self.height)


def read_file(path: str, size: int | None = None) -> bytes:
    """All bytes of an image file.

    The `size` of one elsewhere, if that is known, saves asking for it.

    Raises ImageMissing, MachineBusy; ImageBroken for a folder, a device, a huge file.
    """
    if is_elsewhere(path):
        with _open_file(path, size=size) as file:
            return file.read()
    try:
        return _read_whole(plain_path(path))
    except OSError as error:
        raise cant_read(path, error) from None


def _read_whole(path: str) -> bytes:
    """All bytes of a file of this machine. Raises OSError, ImageBroken.

    A picture is read for each request: this takes half as long as a buffered file.
    """
    # looked at before it is opened: to open a device may do something
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageBroken(f"{quoted(path)} is a folder or a device, not an image")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageBroken(f"{quoted(path)} is larger than {MAX_FILE_BYTES >> 20} MiB")
    file = os.open(path, os.O_RDONLY | _PLAIN_OPEN)
    try:
        data = os.read(file, status.st_size + 1)
        # A part may come from a network's disk, and more from a file that grows meanwhile.
        while len(data) != status.st_size and len(data) <= MAX_FILE_BYTES:
            more = os.read(file, 2**20)
            if not more:
                break
            data += more
        return data
    finally:
        os.close(file)


@contextmanager
def _open_file(path: str, first: int | None = None, size: int | None = None) -> Iterator[IO[bytes]]:
    """Open an image file to be read in the block; one elsewhere is fetched into memory.

    Args:
        path: The file's path or address.
        first: How many bytes of a file elsewhere are enough; None for all.
        size: The file's size in bytes, if the caller knows it: a file elsewhere isn't asked for it.

    Raises:
        ImageMissing, ImageBroken, MachineBusy, StorageFailed: As `cant_read` says.
    """
    try:
        far = is_elsewhere(path)
        if size is None or not far:
            size, _, kind = look(path)
            if kind != "file":
                raise ImageBroken(f"{quoted(path)} is a folder or a device, not an image")
        if first is None and size > MAX_FILE_BYTES:
            raise ImageBroken(f"{quoted(path)} is larger than {MAX_FILE_BYTES >> 20} MiB")
        if far:
            yield io.BytesIO(fetched(path, min(size, first or size)))
        else:
            with open(path, "rb") as file:
                yield file
    except (OSError, InputError, MissingExtra) as error:
        raise cant_read(path, error) from None


class Header(NamedTuple):
    """What an image file's header says.

    That is upright width and height, media type, and EXIF orientation (1 to 8).
    """

    size: Size
    media_type: str
    orientation: int


def read_header(path: str, data: bytes | None = None, first: int | None = 2**16) -> Header:
    """Return an image file's header, without decoding its pixels.

    Args:
        path: The file's path or address.
        data: All of the file's bytes, where the caller has them; None reads the file. b"" reads it
            too, but takes a PNG's orientation for 1: its EXIF may stand at the end, and to find it
            the whole file would have to be read.
        first: How many bytes of a file elsewhere are fetched; all where they are too few. None
            fetches all at once.

    Raises:
        ImageMissing, MachineBusy, ImageBroken: As `_opened` and `_open_file` say.
    """
    try:
        # A picture that is too large to be decoded still has a size, by which its labels are
        # imported and reviewed. Pillow itself opens none of more than twice MAX_PIXELS.
        with (
            io.BytesIO(data) if data else _open_file(path, first) as file,
            _opened(file, path, 2 * MAX_PIXELS) as picture,
        ):
            if data is None and picture.format == "PNG":
                data = read_file(path)
            return _header_of(picture, data or b"")
    except ImageBroken:
        if first is None or not is_elsewhere(path):
            raise
    return read_header(path, data, None)


def parse_facts(data: bytes, path: str) -> ImageFacts:
    """Return what is known of an image from its file's bytes, without decoding its pixels.

    Raises ImageBroken for what is no image, or one whose end is missing.
    """
    header = plain_header(data)
    if header is not None:
        if data.rfind(_END_OF_IMAGE, header.scan) < 0:
            raise ImageBroken(f"{quoted(path)} is cut off: its end is missing")
        digest = hashlib.sha256(data).hexdigest()
        return ImageFacts(digest, header.width, header.height, "image/jpeg", True, len(data))
    with _opened(io.BytesIO(data), path) as picture:
        size, media_type, orientation = _header_of(picture, data)
        if not _is_whole(data, picture.format):
            raise ImageBroken(f"{quoted(path)} is cut off: its end is missing")
        # Of an MPO the first picture is taken. It isn't asked whether it is animated: Pillow would
        # read all of the file to tell.
        is_animated = picture.format != "MPO" and getattr(picture, "is_animated", False)
        plain = orientation == 1 and picture.mode in _PLAIN_MODES and not is_animated
        return ImageFacts(hashlib.sha256(data).hexdigest(), *size, media_type, plain, len(data))


def _header_of(picture: "PillowImage", data: bytes) -> Header:
    """What Pillow knows of a picture that it has opened, of a PNG with all its `data`."""
    import PIL.Image

    orientation: Any = 1
    if picture.format != "PNG" or any(mark in data for mark in _PNG_EXIF):
        # else Pillow decodes it all to look behind
        with suppress(Exception):  # a broken EXIF block is as good as none
            orientation = picture.getexif().get(_ORIENTATION)
    orientation = orientation if orientation in range(1, 9) else 1
    width, height = picture.size
    if picture.format == "TIFF":  # which some versions of Pillow turn upright on opening
        width, height = picture.tag_v2[256], picture.tag_v2[257]  # type: ignore[attr-defined]
    if picture.format == "MPO":  # a JPEG with more pictures behind the first
        media_type = "image/jpeg"
    else:
        media_type = PIL.Image.MIME.get(picture.format or "", "image/unknown")
    upright = (height, width) if orientation >= 5 else (width, height)
    return Header(upright, media_type, orientation)


def open_picture(file: IO[bytes]) -> "PillowImage":
    """What Pillow makes of a file's header, if it is one of FORMATS. Raises all kinds of errors."""
    import PIL.Image

    _refuse_endless_exif(file)
    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return PIL.Image.open(file, formats=_formats())


@functools.cache
def _formats() -> list[str]:
    """Return those of FORMATS that this Pillow knows: AVIF came with 11.3.

    Sets Pillow up, once.
    """
    import PIL.Image

    # glibc keeps smaller blocks when they are freed, each thread its own
    PIL.Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
    if importlib.util.find_spec("PIL.AvifImagePlugin"):
        return list(FORMATS)
    return [name for name in FORMATS if name != "AVIF"]


def _opened(file: IO[bytes], path: str, most: int = MAX_PIXELS) -> "PillowImage":
    """A file's picture, not decoded. Raises ImageBroken, with what is wrong; MachineBusy."""
    import PIL.Image

    try:
        picture = open_picture(file)
        if picture.width * picture.height > most:
            raise PIL.Image.DecompressionBombError
    except Exception as error:  # Pillow's readers raise all kinds on broken headers
        file.seek(0)
        start = file.read(12)
        if not start:
            why = "is empty"
        elif isinstance(error, PIL.Image.DecompressionBombError):
            why = f"has more than {MAX_PIXELS // 10**6} million pixels"
        elif isinstance(error, PIL.UnidentifiedImageError):
            hint = f"these can be read: {', '.join(_formats())}"
            if start[4:] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
                hint = "HEIC: convert it to JPEG"
            why = f"is not a readable image ({hint})"
        else:
            raise machine_fault(error) or ImageBroken(
                f"{quoted(path)} is a broken image: {error}"
            ) from None
        raise ImageBroken(f"{quoted(path)} {why}") from None
    if not (picture.width > 0 and picture.height > 0):
        raise ImageBroken(f"{quoted(path)} has no pixels")
    return picture


def _is_whole(data: bytes, format: str | None) -> bool:
    """Whether a file's end is there, as far as its format tells without decoding it."""
    if format in ("JPEG", "MPO"):  # phones append a video to some
        return data.rfind(_END_OF_IMAGE, _jpeg_scan(data)) >= 0
    if format == "PNG":
        return data.rfind(b"IEND") >= 0
    return format != "WEBP" or len(data) >= 8 + int.from_bytes(data[4:8], "little")


def _jpeg_scan(data: bytes) -> int:
    """Where a JPEG's first scan begins: behind the segments, which may hold a whole thumbnail."""
    place = 2
    for place, _ in _jpeg_segments(io.BytesIO(data)):  # noqa: B007
        pass
    return place


def _jpeg_segments(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Where each segment before a JPEG's first scan ends, and its first ten bytes."""
    place = 2
    file.seek(place)
    while len(head := file.read(10)) >= 4 and head[0] == 0xFF and head[1] != 0xDA:
        place += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4], "big")
        yield place, head
        file.seek(place)


def _refuse_endless_exif(file: IO[bytes]) -> None:
    """Raises ValueError for a JPEG whose EXIF takes Pillow minutes.

    It puts the pieces together one by one: 100 MB took two.
    """
    exif_bytes = 0
    is_small = file.seek(0, io.SEEK_END) <= MAX_EXIF_BYTES
    file.seek(0)
    if not is_small and file.read(2) == b"\xff\xd8":
        for segments, (_, head) in enumerate(_jpeg_segments(file), 1):
            if head[4:8] == b"Exif":
                exif_bytes += int.from_bytes(head[2:4], "big")
            if exif_bytes > MAX_EXIF_BYTES or segments > MAX_SEGMENTS:
                raise ValueError(
                    f"more than {MAX_EXIF_BYTES >> 20} MiB of EXIF, or {MAX_SEGMENTS} segments"
                )
    file.seek(0)


class _Room:
    """Room for so many pixels: threads wait for it in turn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold room for so many pixels, as soon as there is."""
        pixels = min(pixels, self._most)
        # Who waits for room keeps the turn: else small pictures would keep a large one out.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify()


_room = _Room(PIXELS_AT_ONCE)


@contextmanager
def decoding(data: bytes, path: str, at_least: Size | None = None) -> "Iterator[PillowImage]":
    """The picture upright, as RGB on white; waits until there is room for it.

    It is not smaller than `at_least`, if that is given, but may be smaller than the file's.

    The room is given back at the end of the `with`: what outlives it should be small; decode
    nothing inside it. Raises ImageBroken, MachineBusy.
    """
    import PIL.ImageOps

    picture = _opened(io.BytesIO(data), path)
    if at_least:  # lets the JPEG decoder work at a fraction of the size
        # Pillow rounds down
        longest = max(1, max(at_least) - 1)
        shortest = max(1, min(at_least) - 1)
        # the file's picture may lie on its side
        if picture.width >= picture.height:
            picture.draft("RGB", (longest, shortest))
        else:
            picture.draft("RGB", (shortest, longest))
    with _room.taken(math.prod(picture.size)):
        try:
            picture.load()
            PIL.ImageOps.exif_transpose(picture, in_place=True)
            picture = on_white(picture)
        except Exception as error:  # Pillow's decoders raise all kinds on broken data
            raise machine_fault(error) or ImageBroken(
                f"{quoted(path)} is a broken image: {error}"
            ) from None
        yield picture


def decode(path: str) -> "PillowImage":
    """The picture upright, as RGB on white. Raises ImageMissing, ImageBroken, MachineBusy."""
    with decoding(read_file(path), path) as picture:
        return picture


def on_white(picture: "PillowImage") -> "PillowImage":
    """The picture in RGB; what is transparent becomes white, not whatever colour lies beneath."""
    import PIL.Image

    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        if picture.mode != "RGBA":
            picture = picture.convert("RGBA")
        white = PIL.Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture)
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def encoded(picture: "PillowImage", max_bytes: int) -> bytes:
    """A JPEG of as good a quality as fits into `max_bytes`, or of the least."""
    for quality in (92, 85, 70, 55, 40):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, subsampling=0 if quality > 80 else "4:2:0")
        if out.tell() <= max_bytes:
            break
    return out.getvalue()

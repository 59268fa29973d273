"""An image file's bytes as Pillow reads them: the facts in the header, and the pixels."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataflow_grounding.errors import ImageBroken, ImageMissing
from dataflow_grounding.geometry import Size

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_PIXELS = 400_000_000  # more is taken for a decompression bomb
MAX_FILE_BYTES = 512 * 2**20
_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
_ORIENTATION = 0x0112
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file without decoding it. `width` and `height` are those of the upright picture."""

    digest: str
    width: int
    height: int
    media_type: str
    plain: bool
    """Neither turned by EXIF, nor animated, nor in a mode (CMYK, 16 bit) that few endpoints read."""
    file_bytes: int

    @property
    def size(self) -> Size:
        """Width and height in pixels of the upright picture."""
        return (self.width, self.height)


def read_file(path: str) -> bytes:
    """All bytes of an image file. Raises ImageMissing; ImageBroken for what is no file, or too large."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe doesn't hold us up
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise ImageBroken(f"{path!r} is a folder or a device, not an image")
            if state.st_size > MAX_FILE_BYTES:
                raise ImageBroken(f"{path!r} is larger than {MAX_FILE_BYTES >> 20} MiB")
            data = os.read(handle, state.st_size + 1)
            while len(data) < state.st_size and (more := os.read(handle, state.st_size)):
                data += more
            return data
        finally:
            os.close(handle)
    except OSError as error:
        raise ImageMissing(f"can't read {path!r}: {error.strerror}") from None


def header_facts(path: str) -> tuple[Size, str]:
    """Width and height of the upright picture, and its media type, from the header alone. Raises ImageMissing, ImageBroken."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            width, height = _stored_size(picture)
            turned = picture.format in ("JPEG", "MPO", "WEBP") and _orientation(picture, b"") >= 5
            return (height, width) if turned else (width, height), _media_type(picture)
    except FileNotFoundError:
        raise ImageMissing(f"no image {path!r}") from None
    except Exception as error:  # Pillow's readers raise all kinds on broken headers
        raise ImageBroken(f"{path!r} is no image that can be read: {error}") from None


def parse_facts(data: bytes, path: str) -> ImageFacts:
    """Facts from a file's bytes: header only, plus whether its end is there."""
    with _opened(data, path) as picture:
        orientation = _orientation(picture, data)
        width, height = _stored_size(picture)
        if orientation >= 5:
            width, height = height, width
        _check_whole(data, picture.format or "", path)
        plain = orientation == 1 and picture.mode in _PLAIN_MODES
        plain = plain and (picture.format == "MPO" or getattr(picture, "n_frames", 1) == 1)
        digest = hashlib.sha256(data).hexdigest()
        return ImageFacts(digest, width, height, _media_type(picture), plain, len(data))


def _media_type(picture: PillowImage) -> str:
    import PIL.Image

    return "image/jpeg" if picture.format == "MPO" else PIL.Image.MIME.get(picture.format or "", "image/unknown")


def _opened(data: bytes, path: str) -> PillowImage:
    import PIL.Image

    if not data:
        raise ImageBroken(f"{path!r} is empty")
    too_large = f"{path!r} has more than {MAX_PIXELS // 10**6} million pixels"
    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        picture = PIL.Image.open(io.BytesIO(data))
    except PIL.Image.DecompressionBombError:
        raise ImageBroken(too_large) from None
    except PIL.UnidentifiedImageError:
        hint = (
            " (HEIC: convert it to JPEG)" if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc") else ""
        )
        raise ImageBroken(f"{path!r} is no image that can be read{hint}") from None
    except Exception as error:  # Pillow's readers raise all kinds on broken headers
        raise ImageBroken(f"{path!r} is a broken image: {error}") from None
    if not (picture.width > 0 and picture.height > 0):
        raise ImageBroken(f"{path!r} has no pixels")
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageBroken(too_large)
    return picture


def _stored_size(picture: PillowImage) -> Size:
    """Width and height before the picture is turned upright. Some versions of Pillow turn a TIFF's when it is opened."""
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        return tags[256], tags[257]
    return picture.size


def _orientation(picture: PillowImage, data: bytes) -> int:
    """EXIF orientation 1–8."""
    if picture.format == "PNG" and not any(mark in data for mark in _PNG_EXIF):
        return 1  # Pillow would decode the whole picture to look for it behind the pixels
    try:
        value: Any = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is as good as none
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_whole(data: bytes, format: str, path: str) -> None:
    """Raises ImageBroken for a file whose end is missing."""
    whole = True
    if format in ("JPEG", "MPO"):  # phones append a video to some
        whole = data.find(b"\xff\xd9", _jpeg_scan(data)) >= 0
    elif format == "PNG":
        whole = b"IEND" in data
    elif format == "WEBP":
        whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    if not whole:
        raise ImageBroken(f"{path!r} is cut off: its end is missing")


def _jpeg_scan(data: bytes) -> int:
    """Where a JPEG's first scan begins: behind the segments, which may hold a whole thumbnail."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        fill = data[place + 1] == 0xFF
        place += 1 if fill else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def decode(path: str) -> PillowImage:
    """The picture upright, as RGB on white. Raises ImageMissing, ImageBroken."""
    return decoded(read_file(path), path)


def decoded(data: bytes, path: str, at_least: Size | None = None) -> PillowImage:
    """The picture upright, as RGB on white; not smaller than `at_least` where that is given. Raises ImageBroken."""
    import PIL.Image
    import PIL.ImageOps

    picture = _opened(data, path)
    try:
        if at_least:  # lets the JPEG decoder work at a fraction of the size
            longest, shortest = (max(1, side - 1) for side in (max(at_least), min(at_least)))  # Pillow rounds down
            picture.draft("RGB", (longest, shortest) if picture.width >= picture.height else (shortest, longest))
        picture.load()
        upright: PillowImage = picture
        PIL.ImageOps.exif_transpose(upright, in_place=True)
        if upright.mode.startswith("I;16") or upright.mode == "I":
            upright = upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            upright = upright.convert("RGBA")
            upright = PIL.Image.alpha_composite(PIL.Image.new("RGBA", upright.size, "white"), upright)
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:  # Pillow's decoders raise all kinds on broken data
        raise ImageBroken(f"{path!r} is a broken image: {error}") from None


def encoded(picture: PillowImage, max_bytes: int) -> bytes:
    """A JPEG; where it would have more than `max_bytes`, of as good a quality as fits, or the least."""
    for quality in (92, 85, 70, 55, 40):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, subsampling=0 if quality > 80 else "4:2:0")
        if out.tell() <= max_bytes:
            break
    return out.getvalue()

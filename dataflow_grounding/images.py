"""Image files: their facts from the header, and the bytes that go to a model."""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dataflow_grounding.errors import BrokenRow, ImageBroken, ImageMissing
from dataflow_grounding.geometry import Size
from dataflow_grounding.records import Record

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_PIXELS = 400_000_000  # more is taken for a decompression bomb
MAX_FILE_BYTES = 512 * 2**20
_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
_ORIENTATION = 0x0112
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class ImageLimits:
    """What a serving takes as it is: media types, longest side in pixels, and bytes of the file."""

    media_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    max_side: int = 2048
    max_bytes: int = 15 * 2**20


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


@dataclass(frozen=True)
class Image:
    """An image file as a task uses it: facts now, bytes when it is sent."""

    path: str
    facts: ImageFacts
    limits: ImageLimits

    @property
    def size(self) -> Size:
        """Width and height in pixels of the upright picture."""
        return self.facts.size

    @property
    def as_is(self) -> bool:
        """Whether the file's own bytes are sent."""
        facts, limits = self.facts, self.limits
        return (
            facts.plain
            and facts.media_type in limits.media_types
            and facts.file_bytes <= limits.max_bytes
            and max(facts.size) <= limits.max_side
        )

    @property
    def sent_size(self) -> Size:
        """Width and height in pixels of the picture as sent."""
        longest = max(self.size)
        if self.as_is or longest <= self.limits.max_side:
            return self.size
        if self.facts.media_type == "image/jpeg":  # a half, a quarter or an eighth comes out of the decoder as it is
            for part in (2, 4, 8):
                if 0.75 * self.limits.max_side <= longest / part <= self.limits.max_side:
                    return (math.ceil(self.facts.width / part), math.ceil(self.facts.height / part))
        scale = self.limits.max_side / longest
        return (max(1, round(self.facts.width * scale)), max(1, round(self.facts.height * scale)))

    @property
    def sent_digest(self) -> str:
        """Tells apart what is sent: the file's bytes, and what is done to them."""
        return self.facts.digest if self.as_is else f"{self.facts.digest}>{self.sent_size[0]}x{self.sent_size[1]}"

    @property
    def ready(self) -> bool:
        """Whether `data_url` has it at hand, without reading the file."""
        return _urls.get(self.sent_digest) is not None

    def data_url(self) -> bytes:
        """The picture as sent, as a `data:` URL; kept for a while, for the record's next steps."""
        url = _urls.get(self.sent_digest)
        if url is None:
            data = _read_file(self.path)
            if hashlib.sha256(data).hexdigest() != self.facts.digest:
                changed = ImageBroken(f"{self.path!r} changed while it was read: run again")
                changed.passing = True
                raise changed
            url = _urls.put(self.sent_digest, self._url_of(data))
        return url

    def _url_of(self, data: bytes) -> bytes:
        media_type = self.facts.media_type
        if not self.as_is:
            data, media_type = _encode(data, self.path, self.sent_size, self.limits.max_bytes), "image/jpeg"
        import pybase64

        return b"data:" + media_type.encode() + b";base64," + pybase64.b64encode(data)

    def keep(self, data: bytes) -> None:
        """Make the `data:` URL from the file's bytes, which are at hand."""
        _urls.put(self.sent_digest, self._url_of(data))

    def pixels(self) -> PillowImage:
        """The decoded picture, upright, RGB. Raises ImageBroken."""
        return decode(self.path)


class _UrlCache:
    """The last data URLs, up to a total of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self.urls: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        return self.urls.get(key)

    def put(self, key: str, url: bytes) -> bytes:
        if key not in self.urls:
            self.urls[key] = url
            self.held += len(url)
        while self.held > self.max_bytes and len(self.urls) > 1:
            self.held -= len(self.urls.popitem(last=False)[1])
        return url


_urls = _UrlCache(32 * 2**20)


class ImageFile(NamedTuple):
    """An image file and the state that its facts are remembered by."""

    path: str
    file_bytes: int
    mtime_ns: int


def find_image(record: Record, key: str) -> ImageFile:
    """The record's image file: as given, else in the record's folders. Raises BrokenRow, ImageMissing."""
    given = record.get(key)
    if not isinstance(given, str) or not given or "\0" in given:
        raise BrokenRow(f"column {key!r} should be the path of an image")
    tried = [given] if os.path.isabs(given) or not record.folders else [os.path.join(f, given) for f in record.folders]
    for path in tried:
        try:
            found = os.stat(path)
            return ImageFile(path, found.st_size, found.st_mtime_ns)
        except OSError as error:
            reason = error.strerror
        except ValueError:  # half of a surrogate pair: no file can be called so
            reason = "no such name"
    where = f" (looked in {', '.join(record.folders)})" if record.folders and not os.path.isabs(given) else ""
    raise ImageMissing(f"no image {given!r}: {reason}{where}")


def open_image(record: Record, key: str, limits: ImageLimits | None = None) -> Image:
    """The image that column `key` names. Reads no more than is needed to know its facts.

    Raises BrokenRow (no path in the column), ImageMissing, ImageBroken.
    """
    file = find_image(record, key)
    facts = known_facts(file) or remember_facts(file, read_facts(file.path))
    return Image(file.path, facts, limits or ImageLimits())


def read_facts(path: str, keep_for: ImageLimits | None = None) -> ImageFacts:
    """The facts of an image file, from one reading of it. With `keep_for`, what will be sent under these limits is kept.

    Raises ImageMissing, ImageBroken.
    """
    data = _read_file(path)
    facts = _parse(data, path)
    if keep_for:
        image = Image(path, facts, keep_for)
        if image.as_is:
            image.keep(data)
    return facts


_facts: OrderedDict[ImageFile, ImageFacts] = OrderedDict()


def known_facts(file: ImageFile) -> ImageFacts | None:
    """The facts remembered for a file in this state."""
    return _facts.get(file)


def remember_facts(file: ImageFile, facts: ImageFacts) -> ImageFacts:
    """Keep `facts` for the record's next steps."""
    _facts[file] = facts
    while len(_facts) > 4096:
        _facts.popitem(last=False)
    return facts


def _read_file(path: str) -> bytes:
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


def _parse(data: bytes, path: str) -> ImageFacts:
    """Facts from a file's bytes: header only, plus whether its end is there."""
    import PIL.Image

    with _opened(data, path) as picture:
        orientation = _orientation(picture, data)
        width, height = _stored_size(picture)
        if orientation >= 5:
            width, height = height, width
        _check_whole(data, picture.format or "", path)
        media_type = (
            "image/jpeg" if picture.format == "MPO" else PIL.Image.MIME.get(picture.format or "", "image/unknown")
        )
        plain = orientation == 1 and picture.mode in _PLAIN_MODES
        plain = plain and (picture.format == "MPO" or getattr(picture, "n_frames", 1) == 1)
        digest = hashlib.sha256(data).hexdigest()
        return ImageFacts(digest, width, height, media_type, plain, len(data))


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
    return _decoded(_read_file(path), path)


def _decoded(data: bytes, path: str, at_least: Size | None = None) -> PillowImage:
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


def _encode(data: bytes, path: str, size: Size, max_bytes: int) -> bytes:
    """A JPEG of this size; where it would have more than `max_bytes`, of as good a quality as fits, or the least."""
    import PIL.Image

    picture = _decoded(data, path, at_least=size)
    if picture.size != size:
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)
    for quality in (92, 85, 70, 55, 40):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, subsampling=0 if quality > 80 else "4:2:0")
        if out.tell() <= max_bytes:
            break
    return out.getvalue()

"""An image file's bytes as Pillow reads them: the facts in the header, and the pixels."""

import functools
import hashlib
import importlib.machinery
import importlib.util
import io
import math
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from dataflow_grounding._util.addresses import State, is_remote
from dataflow_grounding._util.errors import (
    GroundingError,
    ImageBroken,
    InputError,
    MissingExtra,
    cant_read,
    machine_fault,
)
from dataflow_grounding._util.paths import open_start, read_input
from dataflow_grounding._util.terminal import quoted, say
from dataflow_grounding.boxes.geometry import Size

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_ON_ITS_SIDE = 5  # from this EXIF orientation on, width and height change places
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
"""What an image file may be, under any name. Not EPS, for which Pillow runs Ghostscript."""


def _pillow_has(module: str) -> bool:
    pillow = importlib.util.find_spec("PIL")
    if pillow is None:
        return False
    # `importlib.util.find_spec` of a module in it would import Pillow.
    folders = pillow.submodule_search_locations
    return importlib.machinery.PathFinder.find_spec(f"PIL.{module}", folders) is not None


ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ENDINGS += (".jp2", ".ppm")
if _pillow_has("AvifImagePlugin"):  # since Pillow 11.3
    ENDINGS += (".avif",)
"""By which a picture among other files is known: what this Pillow reads."""

MAX_PIXELS = 400_000_000  # more is taken for a decompression bomb
# A picture that is too large to be decoded still has a size, by which its labels are imported and
# reviewed. Pillow itself opens none that is larger than this.
_MOST_PIXELS_KNOWN = 2 * MAX_PIXELS
_FIRST_BYTES = 2**16  # of a file in a store that are fetched for its header
PIXELS_AT_ONCE = 100_000_000
"""What all threads together decode at a time; a picture with more goes alone."""

MAX_FILE_BYTES = 512 * 2**20  # of an image file that is read
_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}  # Pillow's, which all endpoints read
_DIM = 64  # of 255: the brightest that 14 bits in 16 come to
_WHITE = 250  # of 255: what is lighter looks like the white ground
_MOST_PIXELS_LOOKED_AT = 2**24  # for transparency; larger ones are scaled before they are sent
_PIXELS_OF_STRIP = 2**20
_said_stretched: list[str] = []  # the path of which it was said: once in a process
_TIFF_WIDTH = 256  # the tag of TIFF
_TIFF_HEIGHT = 257
_BITS_PER_SAMPLE = 258  # the tag of TIFF that says so, of each color
_ORIENTATION = 0x0112  # the tag of EXIF that says how to turn a picture
_END_OF_IMAGE = b"\xff\xd9"  # a JPEG's last marker
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where a PNG has its orientation
_PNG_SIGNATURE = 8  # bytes before the first chunk
_PNG_CHUNK = 12  # bytes of a chunk without its content: length, type, checksum
_PNG_CHUNK_HEAD = 32  # bytes of a chunk that tell what it holds: length, type, a keyword
_MOST_PNG_CHUNKS = 100_000  # that are looked at one by one
_LFS_POINTER = b"version http"  # the first bytes of what Git keeps in place of a large file
# Bytes 4 to 12 of a HEIC file, which Pillow doesn't read.
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file without decoding it."""

    digest: str  # the SHA-256 in hex
    width: int  # upright, in pixels
    height: int
    media_type: str
    # every endpoint shows it as it is: not turned, not animated, nowhere transparent, in no mode
    # that few read
    plain: bool
    file_bytes: int
    # its values fill so little of their 16 or 32 bits that it is shown with the least of them as
    # black, and the largest as white
    stretched: bool = False

    @property
    def size(self) -> Size:
        return (self.width, self.height)


def read_file(path: str, size: int | None = None) -> bytes:
    """Return all bytes of an image file, of that size if it is known; ImageBroken for a folder."""
    try:
        return read_input(path, MAX_FILE_BYTES, functools.partial(_check_file, path), size)
    except (OSError, InputError, MissingExtra) as error:
        raise cant_read(path, error) from None


def _check_file(path: str, state: State) -> None:
    _check_kind(path, state)
    if state.size > MAX_FILE_BYTES:
        raise ImageBroken(f"{quoted(path)} is larger than {MAX_FILE_BYTES >> 20} MiB")
    # A file of the kernel's has the size 0, too, and may have no end: it isn't read.
    if not state.size:
        raise ImageBroken(f"{quoted(path)} is empty")


def _check_kind(path: str, state: State) -> None:
    if state.kind != "file":
        raise ImageBroken(f"{quoted(path)} is a folder or a device, not an image")


@contextmanager
def _open_start(path: str) -> Iterator[IO[bytes]]:
    try:
        with open_start(path, _FIRST_BYTES, functools.partial(_check_kind, path)) as file:
            yield file
    except (OSError, InputError, MissingExtra) as error:
        raise cant_read(path, error) from None


class Header(NamedTuple):
    """What an image file's header says: the upright size in pixels, EXIF's orientation, 1 to 8."""

    size: Size
    media_type: str
    orientation: int

    @property
    def stored_size(self) -> Size:
        """Width and height of the picture as it is stored, in pixels."""
        return _turned_size(self.size, self.orientation)


def _turned_size(size: Size, orientation: int) -> Size:
    """Return the upright picture's size from the stored picture's, or the other way round."""
    return size[::-1] if orientation >= _ON_ITS_SIDE else size


def read_header(path: str, data: bytes | None = None, *, whole_png: bool = True) -> Header:
    """Return an image file's header, without decoding its pixels.

    Unless `whole_png`, a PNG isn't read to its end, where its orientation may be, and is taken for
    upright. Raises what `read_file` does, and ImageBroken for more than twice MAX_PIXELS.
    """
    if data is not None:
        return _header_in(io.BytesIO(data), path, data, whole_png)
    try:
        with _open_start(path) as file:
            return _header_in(file, path, None, whole_png)
    except ImageBroken as broken:
        # Of a file in a store only the first bytes were read, and its header may be longer: so the
        # whole file is tried. A file that is really broken fails again, which is suppressed: the
        # first error is the one that is raised.
        with suppress(ImageBroken):
            data = read_file(path)
            return _header_in(io.BytesIO(data), path, data, whole_png)
        raise broken from None


def _header_in(file: IO[bytes], path: str, data: bytes | None, whole_png: bool) -> Header:
    """Return the header; `data` are all bytes of the file, if more than its beginning was read."""
    with _reading(path), _opened(file, path, _MOST_PIXELS_KNOWN) as picture:
        # Of a PNG, Pillow is asked for the orientation only if one is mentioned in these bytes.
        png_bytes = b""  # none: it is taken for upright
        if picture.format == "PNG" and whole_png:
            png_bytes = _png_heads(file, path) if data is None else data
        return _header_of(picture, png_bytes)


def parse_facts(data: bytes, path: str) -> ImageFacts:
    """Return what is known of an image from its file's bytes.

    Pixels are decoded only where they may be transparent, and where they have more than 8 bits a
    color. Raises ImageBroken also where the end is missing, and for a picture that would be seen
    all white or black.
    """
    file = io.BytesIO(data)
    with _reading(path), _opened(file, path) as picture:
        header_end = file.tell()  # Pillow has read up to here
        header = _header_of(picture, data)
        _refuse_cut_off(data, picture, header_end, path)
        # An MPO is a JPEG with more pictures, of which the first is taken. It isn't asked: Pillow
        # would read all of the file to tell.
        is_animated = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
        is_transparent = _is_transparent(picture)
        if is_transparent:
            _refuse_white_on_nothing(picture, path)
        _refuse_dim(picture, data, path)
        has_plain_pixels = picture.mode in _PLAIN_MODES and not is_transparent
        return ImageFacts(
            digest=hashlib.sha256(data).hexdigest(),
            width=header.size[0],
            height=header.size[1],
            media_type=header.media_type,
            plain=header.orientation == 1 and has_plain_pixels and not is_animated,
            file_bytes=len(data),
            stretched=_is_stretched(picture, path),
        )


def _refuse_cut_off(data: bytes, picture: "PillowImage", header_end: int, path: str) -> None:
    """Raise ImageBroken where the file's end is missing, as far as its format tells undecoded."""
    is_whole = True
    format = picture.format
    if format == "MPO":  # a JPEG with more pictures: Pillow has read further than the first scan
        exif = picture.info.get("exif", b"")
        header_end = data.find(exif) + len(exif)
    # The end is sought after EXIF, because a thumbnail in it may have one, too.
    if format in ("JPEG", "MPO"):  # more may follow: phones append a video to some
        is_whole = data.rfind(_END_OF_IMAGE, header_end) >= 0
    elif format == "PNG":  # the name of its last chunk
        is_whole = data.rfind(b"IEND") >= 0
    elif format == "WEBP":  # its length is at its beginning
        is_whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    if not is_whole:
        raise ImageBroken(f"{quoted(path)} is cut off: its end is missing")


def _refuse_dim(picture: "PillowImage", data: bytes, path: str) -> None:
    """Refuse a picture of 16 bits a color that would be black: Pillow keeps the upper eight.

    Where a camera has put 12 or 14 bits into these 16, next to nothing is left.
    """
    if _is_deep(picture):  # a grey one: Pillow keeps all of its bits, so that it can be stretched
        return
    bits_of_colors: Any = ()  # a number for each color: (16, 16, 16)
    if picture.format == "PNG":
        bits_of_colors = data[24:25]  # one byte, for all colors, after width and height
    elif picture.format == "TIFF":
        bits_of_colors = picture.tag_v2.get(_BITS_PER_SAMPLE, ())  # type: ignore[attr-defined]
    if 16 not in bits_of_colors:
        return
    brightest: Any = 255  # taken for bright if it can't be decoded, which is reported later
    with _looking_at(picture), suppress(Exception):
        brightest = max(most for _, most in picture.convert("RGB").getextrema())  # type: ignore[misc]
    if brightest < _DIM:
        raise ImageBroken(
            f"{quoted(path)} has 16 bits a color and uses few of them, so that it would be black:"
            " save it with 8 bits"
        )


def _is_transparent(picture: "PillowImage") -> bool:
    """Return whether it may be transparent somewhere; many screenshots have alpha, all opaque."""
    # A server may show any color under what is transparent (QwenLM/Qwen3-VL#661,
    # vllm-project/vllm#18569).
    if not picture.has_transparency_data:
        return False
    if math.prod(picture.size) > _MOST_PIXELS_LOOKED_AT:
        return True  # to look would take long; it is scaled in any case, not sent as it is
    all_opaque = (255, 255)  # the least and the largest value of alpha
    try:
        return picture.convert("RGBA").getchannel("A").getextrema() != all_opaque
    except Exception:  # of a picture that can't be decoded, which is reported later
        return True


def _refuse_white_on_nothing(picture: "PillowImage", path: str) -> None:
    """Refuse white drawings on a transparent ground, which is shown as white, too."""
    is_white = False  # also if it can't be decoded, which is reported later
    with _looking_at(picture), suppress(Exception):
        is_white = all(map(_is_white, _strips(picture)))
    if is_white:
        raise ImageBroken(
            f"{quoted(path)} has nothing but white on a transparent ground, so that it would be"
            " all white: save it on another ground"
        )


def _is_white(picture: "PillowImage") -> bool:
    darkest = min(least for least, _ in on_white(picture).getextrema())  # type: ignore[misc]
    return darkest >= _WHITE


def _strips(picture: "PillowImage") -> "Iterator[PillowImage]":
    """Yield the picture in pieces, from the top: all at once takes several times its memory."""
    width, height = picture.size
    rows = max(1, _PIXELS_OF_STRIP // width)
    for top in range(0, height, rows):
        yield picture.crop((0, top, width, min(top + rows, height)))


def _is_stretched(picture: "PillowImage", path: str) -> bool:
    """Return whether values of a deep grey picture have to be stretched to be seen."""
    if not _is_deep(picture):
        return False
    try:
        with _looking_at(picture):
            picture.load()
            least, most = _black_and_white_points(picture)
    except Exception:  # reported when it is decoded
        return False
    shows_values_as_they_are = (least, most) == (0, _whole_range(picture))
    is_stretched = not shows_values_as_they_are
    if is_stretched and not _said_stretched:
        _said_stretched.append(path)
        say(
            f"Note: {quoted(path)} has values from {least:g} to {most:g}, too dark or too even to"
            " see. Such pictures are sent with these as black and white."
        )
    return is_stretched


def _png_heads(file: IO[bytes], path: str) -> bytes:
    """Return the first bytes of each chunk of a PNG, which are enough for `may_have_exif`."""
    if is_remote(path):
        return read_file(path)  # `file` may have no more than its first bytes
    heads = bytearray()
    offset = _PNG_SIGNATURE
    for _ in range(_MOST_PNG_CHUNKS):
        head = os.pread(file.fileno(), _PNG_CHUNK_HEAD, offset)
        if len(head) < _PNG_CHUNK:  # the file ends here
            return bytes(heads)
        heads += head
        content_bytes = int.from_bytes(head[:4], "big")
        offset += _PNG_CHUNK + content_bytes
    return read_file(path)  # one with more chunks is looked through as a whole


def may_have_exif(picture: "PillowImage", data: bytes) -> bool:
    """Return whether it is worth asking Pillow for EXIF: of a PNG it decodes all for that."""
    return picture.format != "PNG" or any(mark in data for mark in _PNG_EXIF)


def _header_of(picture: "PillowImage", png_bytes: bytes) -> Header:
    """Return the header; `png_bytes` are what `may_have_exif` looks through, of a PNG alone."""
    import PIL.Image

    orientation = _orientation_of(picture, png_bytes)
    width, height = picture.size
    if picture.format == "TIFF":
        # Some versions of Pillow turn a TIFF upright on opening. Its tags have the stored size.
        tags: Any = picture.tag_v2  # type: ignore[attr-defined]
        width, height = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]
    if picture.format == "MPO":  # a JPEG with more pictures after the first
        media_type = "image/jpeg"
    else:
        media_type = PIL.Image.MIME.get(picture.format or "", "image/unknown")
    return Header(_turned_size((width, height), orientation), media_type, orientation)


def _orientation_of(picture: "PillowImage", png_bytes: bytes) -> int:
    """Return EXIF's orientation; 1, for upright, where it states none from 1 to 8."""
    orientation: Any = None
    if may_have_exif(picture, png_bytes):
        with suppress(Exception):  # a broken EXIF block is as good as none
            orientation = picture.getexif().get(_ORIENTATION)
    return orientation if orientation in range(1, 9) else 1


def open_picture(file: IO[bytes]) -> "PillowImage":
    """Return a file's picture as Pillow opens it, by the header, if it is one of FORMATS."""
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return PIL.Image.open(file, formats=_formats())


@functools.cache
def _formats() -> list[str]:
    """Return those of FORMATS that Pillow has; the first call also sets its memory's block size."""
    import PIL.Image

    # Smaller blocks that are freed stay with the thread in glibc, and memory would grow.
    PIL.Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
    return [name for name in FORMATS if name != "AVIF" or ".avif" in ENDINGS]


def _opened(file: IO[bytes], path: str, max_pixels: int = MAX_PIXELS) -> "PillowImage":
    import PIL.Image

    try:
        picture = open_picture(file)
        if picture.width * picture.height > max_pixels:
            raise PIL.Image.DecompressionBombError
    except Exception as error:  # Pillow's readers raise all kinds on broken headers
        file.seek(0)
        first_bytes = file.read(12)
        raise _why_not_opened(error, first_bytes, path) from None
    if not (picture.width > 0 and picture.height > 0):
        raise ImageBroken(f"{quoted(path)} has no pixels")
    return picture


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Raise ImageBroken for an error in the block, or `machine_fault` for one of the machine."""
    # Pillow's readers raise all kinds, some not before they are asked for more than the header.
    try:
        yield
    except GroundingError:
        raise
    except Exception as error:
        broken = ImageBroken(f"{quoted(path)} is a broken image: {error}")
        raise machine_fault(error) or broken from None


def _why_not_opened(error: Exception, first_bytes: bytes, path: str) -> GroundingError:
    import PIL.Image

    if not first_bytes:
        why = "is empty"
    elif isinstance(error, PIL.Image.DecompressionBombError):
        why = f"has more than {MAX_PIXELS // 10**6} million pixels"
    elif isinstance(error, PIL.UnidentifiedImageError):
        if first_bytes == _LFS_POINTER:
            hint = "it is a Git LFS pointer: run `git lfs pull`"
        elif first_bytes[4:] in _HEIC:
            hint = "HEIC: convert it to JPEG"
        else:
            hint = f"these can be read: {', '.join(_formats())}"
        why = f"is not a readable image ({hint})"
    else:
        broken = ImageBroken(f"{quoted(path)} is a broken image: {error}")
        return machine_fault(error) or broken
    return ImageBroken(f"{quoted(path)} {why}")


class _Room:
    """Room for `most` pixels, which threads wait for in turn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold room for `pixels`, or all of it, in the block; wait until there is as much."""
        pixels = min(pixels, self._most)
        # A thread that waits for room keeps the turn. Otherwise small pictures would always take
        # the room that a large one waits for.
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


def _looking_at(picture: "PillowImage") -> AbstractContextManager[None]:
    """Hold room for a picture; a small one waits for nobody, perhaps on the event loop."""
    pixels = math.prod(picture.size)
    return _room.taken(pixels) if pixels > _MOST_PIXELS_LOOKED_AT else nullcontext()


@contextmanager
def decoding(data: bytes, path: str, at_least: Size | None = None) -> "Iterator[PillowImage]":
    """Give a picture for a `with` block, upright, as RGB on white; wait until there is room for it.

    The room is given back at the end of the block: what outlives it should be small. Nothing else
    may be decoded inside the block, as it could wait for the room that the block holds. A JPEG is
    decoded to the smallest half, quarter or eighth that has `at_least` that size. Raises
    ImageBroken, MachineBusy, StorageFailed.
    """
    import PIL.ImageOps

    picture = _opened(io.BytesIO(data), path)
    if at_least:
        _set_decoded_size(picture, at_least)
    with _room.taken(math.prod(picture.size)):
        with _reading(path):
            picture.load()
            PIL.ImageOps.exif_transpose(picture, in_place=True)
            picture = on_white(picture)
        yield picture


def _set_decoded_size(picture: "PillowImage", at_least: Size) -> None:
    """Have a JPEG decoded to the smallest size that is no smaller than asked for."""
    # One pixel less is asked for, because Pillow rounds down the sizes that it chooses from.
    longest = max(1, max(at_least) - 1)
    shortest = max(1, min(at_least) - 1)
    # `at_least` is upright, where the file's picture may lie on its side
    if picture.width >= picture.height:
        picture.draft("RGB", (longest, shortest))
    else:
        picture.draft("RGB", (shortest, longest))


def decode(path: str) -> "PillowImage":
    """Return the picture of a file or address, upright, as RGB on white. Raises RecordError."""
    with decoding(read_file(path), path) as picture:
        return picture


def on_white(picture: "PillowImage") -> "PillowImage":
    """Return the picture in RGB; what is transparent becomes white, not the colour beneath."""
    import PIL.Image

    if _is_deep(picture):
        picture = _in_8_bits(picture)
    elif picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        if picture.mode != "RGBA":
            picture = picture.convert("RGBA")  # `paste` takes the mask from its alpha
        white = PIL.Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture)
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _is_deep(picture: "PillowImage") -> bool:
    """Whether Pillow has more than 8 bits of each grey: in `I`, `I;16`, `I;16B` and `F`."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _whole_range(picture: "PillowImage") -> int:
    """Return the value that is white in a file that fills its range."""
    # 32-bit integers count as those of 16 bits: Pillow reads these so from some files.
    return 1 if picture.mode == "F" else 65535


def _black_and_white_points(picture: "PillowImage") -> tuple[float, float]:
    """Return the values that are shown as black and as white, the ends of the range if possible.

    Cameras put 12 bits in 16 (Pillow#2574), depth is in millimeters, and floating-point numbers are
    in any unit: these are stretched.
    """
    values = _without_outliers(_values_in(picture))
    least = float(values[0])
    most = float(values[-1])
    # What fills half of the range can be seen as it is; one value alone can't be stretched.
    whole = _whole_range(picture)
    is_within_range = least >= 0 and most <= whole
    fills_half = most - least >= whole / 2
    has_one_value = most == least
    if is_within_range and (fills_half or has_one_value):
        return 0.0, float(whole)
    return least, most


def _values_in(picture: "PillowImage") -> Any:
    """Return the values of pixels that are seen, sorted, each once; ValueError without any."""
    import numpy as np

    values_of_strips = []
    for strip in _strips(picture):
        values = np.asarray(strip)
        is_seen = np.isfinite(values) & ~_transparent_in(picture, values)
        values_of_strips.append(np.unique(values[is_seen]))
    all_values = np.unique(np.concatenate(values_of_strips))
    if not all_values.size:
        raise ValueError("it has no finite values")
    return all_values


def _without_outliers(values: Any) -> Any:
    """Leave out, of sorted values, those far from all others: missing data, a broken sensor's.

    Missing data is 65535 or -9999, say. "Far" is farther than the others are from each other.
    """
    while len(values) > 2 and _is_far_off(values[-1], nearest=values[-2], farthest=values[0]):
        values = values[:-1]
    while len(values) > 2 and _is_far_off(values[0], nearest=values[1], farthest=values[-1]):
        values = values[1:]
    return values


def _is_far_off(value: Any, nearest: Any, farthest: Any) -> bool:
    middle = float(nearest)  # differences of unsigned integers could wrap
    return bool(abs(value - middle) > abs(middle - farthest))


def _in_8_bits(picture: "PillowImage") -> "PillowImage":
    import numpy as np
    import PIL.Image

    least, most = _black_and_white_points(picture)  # the values to be shown as black and as white
    spread = most - least
    if spread == 0:  # all pixels have one value, which is then shown as black
        spread = 1.0
    span = np.float32(spread)
    strips = []
    for strip in _strips(picture):
        given = np.asarray(strip)
        values = np.nan_to_num(given.astype("float32"), nan=least)  # NaN becomes black
        brightness = (np.clip(values, least, most) - least) / span  # from 0 to 1
        brightness[_transparent_in(picture, given)] = 1  # white
        strips.append((255 * brightness).astype("uint8"))
    return PIL.Image.fromarray(np.concatenate(strips))


def _transparent_in(picture: "PillowImage", values: Any) -> Any:
    """Return where the one value is that a PNG of 16 bits may call transparent."""
    return values == picture.info.get("transparency", math.nan)


def encoded(picture: "PillowImage", max_bytes: float) -> bytes:
    """Return a JPEG in the best of five qualities that has at most `max_bytes`, or the lowest."""
    for quality in (92, 85, 70, 55, 40):
        out = io.BytesIO()
        subsampling = 0 if quality > 80 else "4:2:0"  # 0: colors in full resolution
        picture.save(out, "JPEG", quality=quality, subsampling=subsampling)
        if out.tell() <= max_bytes:  # where it is at: the file's length
            break
    return out.getvalue()

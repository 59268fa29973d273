"""The header of a plain JPEG, read without Pillow: most of the pictures that people have are such.

A picture's header is read for each request, and Pillow takes as long for it as the whole of a
reply. So the commonest files are read here, and all that is in any way unusual is left to Pillow:
what may turn the picture (EXIF, XMP), several pictures in one file, colours of print, 12 bits, and
whatever is odd or damaged.

Source: ITU-T T.81 (JPEG), annex B: the markers, and the lengths of their segments.
"""

from typing import NamedTuple

MAX_PIXELS = 100_000_000  # of a larger picture Pillow says whether it is too large
MAX_SEGMENTS = 100  # before the first scan; a picture with more is left to Pillow

_START = b"\xff\xd8\xff"  # the first bytes of a JPEG
# Second bytes of markers, behind 0xFF, by which a segment's kind is known.
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what decoders read
_QUANTIZATION = 0xDB
_OTHERS = (0xC4, 0xDD, 0xFE)  # tables of codes, restart interval, a comment
_SCAN = 0xDA
# What programs write of their own: JFIF, and APP3 to APP12. APP1 may hold EXIF and XMP, APP2
# further pictures, APP13 a program's own resources, and APP14 other colours.
_JFIF = 0xE0
_APPLICATIONS = range(0xE3, 0xED)
_LEAST_JFIF = 14  # bytes behind its length: name, version, density, size of a thumbnail
_TABLE_BYTES = 65  # of a quantization table: its number, and 64 values
_BITS = 8  # of a sample
_COMPONENTS = (1, 3)  # of a pixel: grey, or colours


class PlainHeader(NamedTuple):
    """The header of a JPEG that every decoder shows as it is.

    Attributes:
        width, height: In pixels, as they are stored, which is upright.
        scan: The byte offset of the first scan, behind all segments.
    """

    width: int
    height: int
    scan: int


def plain_header(data: bytes) -> PlainHeader | None:
    """Return a plain JPEG's header; None for anything else, which is for Pillow to judge.

    The segments are read one after the other: a marker of two bytes, a length, which counts its own
    two bytes, and the content.

    Example:
        >>> with open("example_data/images/cat.jpg", "rb") as file:
        ...     header = plain_header(file.read())
        >>> header.width, header.height
        (640, 480)
    """
    if not data.startswith(_START):
        return None
    size: tuple[int, int] | None = None
    offset = 2
    for _ in range(MAX_SEGMENTS):
        head = data[offset : offset + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker = head[1]
        end = offset + 2 + (head[2] << 8 | head[3])
        if end < offset + 4 or end > len(data):
            return None
        if marker == _SCAN:
            return None if size is None else PlainHeader(*size, offset)
        if marker in _FRAMES and size is None:
            size = _size_in(data[offset + 4 : end])
            if size is None:
                return None
        elif not _is_harmless(marker, data[offset + 4 : end]):  # a second frame isn't
            return None
        offset = end
    return None


def _is_harmless(marker: int, segment: bytes) -> bool:
    """Return whether a segment, but a frame's, is whole and can't change how a picture is shown."""
    if marker == _QUANTIZATION:
        return _are_tables(segment)
    if marker == _JFIF:
        return len(segment) >= _LEAST_JFIF
    return marker in _OTHERS or marker in _APPLICATIONS


def _size_in(frame: bytes) -> tuple[int, int] | None:
    """Return the width and height that a frame states; None where it isn't plain, or has no pixels.

    It holds the bits of a sample, height, width, the number of components, and three bytes of each.
    """
    if len(frame) < 6 or frame[0] != _BITS or frame[5] not in _COMPONENTS:
        return None
    if len(frame) != 6 + 3 * frame[5]:
        return None
    height = frame[1] << 8 | frame[2]
    width = frame[3] << 8 | frame[4]
    if not 0 < width * height <= MAX_PIXELS:
        return None
    return width, height


def _are_tables(segment: bytes) -> bool:
    """Return whether a segment is whole tables of 64 values of a byte, each behind its number.

    Tables with values of two bytes are odd, and have numbers from 16 on.
    """
    if len(segment) % _TABLE_BYTES:
        return False
    return all(segment[start] < 16 for start in range(0, len(segment), _TABLE_BYTES))

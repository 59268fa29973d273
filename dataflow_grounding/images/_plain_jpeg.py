"""The header of a plain JPEG, read without Pillow, which takes ten times as long.

What may turn the picture (EXIF, XMP), several pictures in one file, colours of print, 12 bits, and
all that is odd or damaged is left to Pillow. Source: ITU-T T.81 (JPEG), annex B.
"""

from typing import NamedTuple

from dataflow_grounding.boxes.geometry import Size

MAX_PIXELS = 100_000_000  # of a larger picture Pillow says whether it is too large
MAX_SEGMENTS = 100
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of baseline, extended, progressive: what decoders read
_QUANTIZATION = 0xDB
_SCAN = 0xDA
_JFIF = 0xE0
# Tables of codes, restart interval, a comment, and what programs write of their own, but APP1 (EXIF
# and XMP), APP2 (more pictures, profiles), APP13 (Photoshop) and APP14 (other colours).
_HARMLESS = (0xC4, 0xDD, 0xFE, *range(0xE3, 0xED))
_LEAST_JFIF = 14  # bytes: name, version, density, size of a thumbnail
_TABLE_BYTES = 65  # of a quantization table: its number, below 16 for values of a byte, and 64


class PlainHeader(NamedTuple):
    """The size of a JPEG that every decoder shows as it is, and the offset of its first scan."""

    size: Size
    scan: int


def plain_header(data: bytes) -> PlainHeader | None:
    """Return a plain JPEG's header; None for anything else, which is for Pillow to judge."""
    if not data.startswith(b"\xff\xd8"):
        return None
    size: Size | None = None
    offset = 2
    for _ in range(MAX_SEGMENTS):
        head = data[offset : offset + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker = head[1]
        length = head[2] << 8 | head[3]  # with its own two bytes
        segment = data[offset + 4 : offset + 2 + length]
        if len(segment) != length - 2:
            return None
        if marker == _SCAN:
            return PlainHeader(size, offset) if size else None
        if marker in _FRAMES and size is None:
            size = _size_in(segment)
            if size is None:
                return None
        elif not _is_harmless(marker, segment):  # nor is a second frame
            return None
        offset += 2 + length
    return None


def _size_in(frame: bytes) -> Size | None:
    # It holds the bits of a sample, height, width, the number of components, three bytes of each.
    if len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3) or len(frame) != 6 + 3 * frame[5]:
        return None
    height = frame[1] << 8 | frame[2]
    width = frame[3] << 8 | frame[4]
    return (width, height) if 0 < width * height <= MAX_PIXELS else None


def _is_harmless(marker: int, segment: bytes) -> bool:
    if marker == _QUANTIZATION:
        are_whole = len(segment) % _TABLE_BYTES == 0
        return are_whole and all(number < 16 for number in segment[::_TABLE_BYTES])
    if marker == _JFIF:
        return len(segment) >= _LEAST_JFIF
    return marker in _HARMLESS

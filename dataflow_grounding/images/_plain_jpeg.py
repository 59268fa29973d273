"""The header of a plain JPEG, read without Pillow, which takes ten times as long.

Several pictures in one file, colours of print, 12 bits, XMP (which may turn the picture, too), and
all that is odd or damaged is left to Pillow. Sources: ITU-T T.81 (JPEG), annex B; CIPA DC-008
(EXIF 2.32), 4.6.2 and 4.7.2.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from dataflow_grounding.boxes.geometry import Size

MAX_PIXELS = 100_000_000  # of a larger picture Pillow says whether it is too large
MAX_SEGMENTS = 100
EXIF_NAME = b"Exif\0\0"
"""The first bytes of the segment that tells how a camera was held; XMP's has another name."""

_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of baseline, extended, progressive: what decoders read
_QUANTIZATION = 0xDB
_SCAN = 0xDA
_JFIF = 0xE0
# Markers of segments that change nothing of how a picture is shown: tables of codes, restart
# interval, a comment, and what programs write of their own, but APP1 (EXIF and XMP), APP2 (more
# pictures, profiles), APP13 (Photoshop) and APP14 (other colours).
_HARMLESS = (0xC4, 0xDD, 0xFE, *range(0xE3, 0xED))
_EXIF = 0xE1
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ENTRY_BYTES = 12  # of one field of EXIF: tag, type, count, value
_ORIENTATION = 0x0112
_SHORT = 3  # the type of a number of two bytes
_LEAST_JFIF = 14  # bytes: name, version, density, size of a thumbnail
_TABLE_BYTES = 65  # of a quantization table: its number, below 16 for values of a byte, and 64


class PlainHeader(NamedTuple):
    """A JPEG that every decoder shows as it is, but for its orientation."""

    size: Size  # as it is stored
    scan: int  # the offset of the first
    orientation: int  # EXIF's, 1 to 8


def plain_header(data: bytes) -> PlainHeader | None:
    """Return a plain JPEG's header; None for anything else, which is for Pillow to judge."""
    segments, scan = _segments_before_scan(data)
    if scan is None:
        return None
    size: Size | None = None
    orientation: int | None = None
    others: list[tuple[int, bytes]] = []  # a second frame or EXIF is among them, and not harmless
    for marker, content in segments:
        if marker in _FRAMES and size is None:
            size = _size_in(content)
            if size is None:  # the frame isn't that of a plain JPEG
                return None
        elif marker == _EXIF and orientation is None:
            orientation = _orientation_in(content)
            if orientation is None:  # EXIF says something else, or nothing clear
                return None
        elif marker not in _HARMLESS:
            others.append((marker, content))
    if size is None or not _are_harmless(others):  # without a size, the frame is missing
        return None
    return PlainHeader(size, scan, orientation or 1)  # without EXIF it is upright


def _segments_before_scan(data: bytes) -> tuple[list[tuple[int, bytes]], int | None]:
    """Return each segment's marker and content, and the offset of the scan after them.

    The offset is None where `data` is no JPEG, or is broken or ends before a whole scan header.
    """
    segments: list[tuple[int, bytes]] = []
    if not data.startswith(b"\xff\xd8"):
        return segments, None
    offset = 2  # after the file's own two bytes
    for _ in range(MAX_SEGMENTS):
        head = data[offset : offset + 4]  # 0xFF, the marker, and the length in two bytes
        if len(head) < 4 or head[0] != 0xFF:
            break
        marker = head[1]
        length = int.from_bytes(head[2:4], "big")  # with its own two bytes
        content = data[offset + 4 : offset + 2 + length]
        if len(content) != length - 2:  # `data` ends before the segment does
            break
        if marker == _SCAN:
            return segments, offset
        segments.append((marker, content))
        offset += 2 + length
    return segments, None


def _size_in(frame: bytes) -> Size | None:
    """Return the size in a plain frame header.

    It holds the bits of a sample, height, width, the number of components, and three bytes for
    each component.
    """
    if len(frame) < 6:
        return None
    bits, components = frame[0], frame[5]
    is_grey_or_colour = components in (1, 3)
    has_whole_length = len(frame) == 6 + 3 * components
    if bits != 8 or not is_grey_or_colour or not has_whole_length:
        return None
    height = int.from_bytes(frame[1:3], "big")
    width = int.from_bytes(frame[3:5], "big")
    is_usual_size = 0 < width * height <= MAX_PIXELS
    return (width, height) if is_usual_size else None


def _orientation_in(segment: bytes) -> int | None:
    """Return EXIF's orientation; None for none or several, for which Pillow has more rules."""
    if not segment.startswith(EXIF_NAME):
        return None
    tiff = segment.removeprefix(EXIF_NAME)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return None
    entries = _entries_of_orientation(tiff, order)
    if len(entries) != 1:
        return None
    # An entry is a tag, the type of its values, their count, and the values if they fit.
    entry = entries[0]
    value_type = int.from_bytes(entry[2:4], order)
    count = int.from_bytes(entry[4:8], order)
    if value_type != _SHORT or count != 1:
        return None
    orientation = int.from_bytes(entry[8:10], order)
    return orientation if orientation in range(1, 9) else None


def _entries_of_orientation(tiff: bytes, order: Literal["little", "big"]) -> list[bytes]:
    """Return the entries of EXIF's directory that state an orientation.

    EXIF is laid out as a TIFF. Bytes 4 to 8 say where the directory of its fields begins: there is
    how many fields there are, in two bytes, and then an entry for each.
    """
    directory = int.from_bytes(tiff[4:8], order)
    field_count = int.from_bytes(tiff[directory : directory + 2], order)
    first = directory + 2
    end = first + field_count * _ENTRY_BYTES
    entries: list[bytes] = []
    if end > len(tiff):
        return entries
    for offset in range(first, end, _ENTRY_BYTES):
        tag = int.from_bytes(tiff[offset : offset + 2], order)
        if tag == _ORIENTATION:
            entries.append(tiff[offset : offset + _ENTRY_BYTES])
    return entries


def _are_harmless(segments: Sequence[tuple[int, bytes]]) -> bool:
    """Return whether all are quantization tables of one-byte values, or whole JFIF headers."""
    for marker, content in segments:
        if marker == _QUANTIZATION:
            are_whole = len(content) % _TABLE_BYTES == 0
            table_numbers = content[::_TABLE_BYTES]  # the first byte of each table
            # a table with values of two bytes has a number from 16 on
            have_values_of_one_byte = max(table_numbers, default=0) < 16
            is_harmless = are_whole and have_values_of_one_byte
        elif marker == _JFIF:
            is_harmless = len(content) >= _LEAST_JFIF
        else:
            is_harmless = False
        if not is_harmless:
            return False
    return True

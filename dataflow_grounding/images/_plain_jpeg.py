"""The header of a plain JPEG, read without Pillow, which takes ten times as long.

Several pictures in one file, colours of print, 12 bits, XMP (which may turn the picture, too), and
all that is odd or damaged is left to Pillow. Sources: ITU-T T.81 (JPEG), annex B; CIPA DC-008
(EXIF 2.32), 4.6.2 and 4.7.2.
"""

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
    """The size of a JPEG as it is stored, the offset of its first scan, EXIF's orientation, 1 to 8.
    Every decoder shows the picture as it is, but for that orientation.
    """

    size: Size
    scan: int
    orientation: int


def plain_header(data: bytes) -> PlainHeader | None:
    """Return a plain JPEG's header; None for anything else, which is for Pillow to judge."""
    if not data.startswith(b"\xff\xd8"):
        return None
    size: Size | None = None
    orientation: int | None = None
    offset = 2  # after the file's own two bytes
    for _ in range(MAX_SEGMENTS):
        head = data[offset : offset + 4]  # 0xFF, the marker, and the length in two bytes
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker = head[1]
        length = int.from_bytes(head[2:4], "big")  # with its own two bytes
        segment = data[offset + 4 : offset + 2 + length]
        if len(segment) != length - 2:  # `data` ends before the segment does
            return None
        if marker == _SCAN:
            if size is None:  # the frame is missing
                return None
            return PlainHeader(size, offset, orientation or 1)  # without EXIF it is upright
        if marker in _FRAMES and size is None:
            size = _size_in(segment)
            if size is None:
                return None
        elif marker == _EXIF and orientation is None:
            orientation = _orientation_in(segment)
            if orientation is None:
                return None
        # A second frame, or a second EXIF, comes here, too, and isn't harmless.
        elif marker not in _HARMLESS and not _is_harmless_table(marker, segment):
            return None
        offset += 2 + length
    return None


def _size_in(frame: bytes) -> Size | None:
    # A frame header holds the bits of a sample, height, width, the number of components, and three
    # bytes for each component.
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
    # None where EXIF states none, or more than one: Pillow has more rules for these, such as XMP.
    # After its name, EXIF is laid out as a TIFF: the byte order, where its directory of fields
    # begins, and there how many fields there are, and the fields.
    if not segment.startswith(EXIF_NAME):
        return None
    tiff = segment.removeprefix(EXIF_NAME)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return None
    directory = int.from_bytes(tiff[4:8], order)
    fields = int.from_bytes(tiff[directory : directory + 2], order)
    end = directory + 2 + fields * _ENTRY_BYTES
    if end > len(tiff):
        return None
    orientation = None
    for offset in range(directory + 2, end, _ENTRY_BYTES):
        # An entry is a tag, the type of its values, their count, and the values if they fit.
        tag = int.from_bytes(tiff[offset : offset + 2], order)
        value_type = int.from_bytes(tiff[offset + 2 : offset + 4], order)
        count = int.from_bytes(tiff[offset + 4 : offset + 8], order)
        if tag != _ORIENTATION:
            continue
        is_one_number = value_type == _SHORT and count == 1
        if orientation is not None or not is_one_number:
            return None
        orientation = int.from_bytes(tiff[offset + 8 : offset + 10], order)
    return orientation if orientation in range(1, 9) else None


def _is_harmless_table(marker: int, segment: bytes) -> bool:
    # Whether a segment changes nothing of what the frame and EXIF say of the picture, which its
    # marker alone doesn't tell.
    if marker == _QUANTIZATION:
        are_whole = len(segment) % _TABLE_BYTES == 0
        numbers = segment[::_TABLE_BYTES]  # the first byte of each table
        return are_whole and max(numbers, default=0) < 16  # else values have two bytes
    if marker == _JFIF:
        return len(segment) >= _LEAST_JFIF
    return False

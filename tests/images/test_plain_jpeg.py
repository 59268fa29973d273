"""JPEGs whose headers are read without Pillow: only those that Pillow reads just so."""

from __future__ import annotations

import io
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.images._plain_jpeg import plain_header
from dataflow_grounding.images.files import parse_facts, read_header

EXAMPLES = Path(__file__).parents[2] / "example_data" / "images"
ORIENTATION = 0x0112
XMP_TURNED = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def jpeg(mode: str = "RGB", size: tuple[int, int] = (60, 40), **how: Any) -> bytes:
    out = io.BytesIO()
    PIL.Image.new(mode, size, 90 if mode == "L" else None).save(out, "JPEG", **how)
    return out.getvalue()


def exif_of(orientation: int | None = None) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x010F] = "Camera"
    if orientation is not None:
        exif[ORIENTATION] = orientation
    exif[0x0132] = "2026:11:02 09:30:00"
    return exif


def turned(orientation: int) -> bytes:
    return jpeg(exif=exif_of(orientation))


def by_a_motorola_order(orientation: int) -> bytes:
    """As most phones write it: numbers begin with their highest byte."""
    fields = [(ORIENTATION, 3, 1, orientation << 16), (0x0213, 3, 1, 1 << 16)]
    body = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(fields))
    body += b"".join(struct.pack(">HHII", *field) for field in fields) + bytes(4)
    return with_segment(0xE1, b"Exif\0\0" + body)


def with_a_thumbnail() -> bytes:
    """EXIF of a phone: its first field is the orientation, and 30 KB of thumbnail follow."""
    return exif_of(6).tobytes() + bytes(30_000)


def with_segment(marker: int, body: bytes) -> bytes:
    """A JPEG with one segment more, before all others."""
    data = jpeg()
    return data[:2] + bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg("L"),
        jpeg(progressive=True),
        jpeg(quality=30, subsampling=2),
        jpeg(comment=b"drawn"),
        jpeg(dpi=(300, 300)),
        jpeg(restart_marker_blocks=4),
        jpeg(size=(1, 65000)),
        turned(1),
        by_a_motorola_order(1),
    ],
)
def test_plain_ones_have_the_size_that_pillow_says(data: bytes) -> None:
    header = plain_header(data)
    assert header is not None
    assert header.size == PIL.Image.open(io.BytesIO(data)).size
    assert data[header.scan : header.scan + 2] == b"\xff\xda"
    assert parse_facts(data, "a.jpg").plain


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("make", [turned, by_a_motorola_order])
def test_a_turned_one_is_read_with_its_orientation(
    make: Callable[[int], bytes], orientation: int
) -> None:
    header = plain_header(make(orientation))
    assert header is not None
    assert (header.size, header.orientation) == ((60, 40), orientation)
    facts = parse_facts(make(orientation), "a.jpg")
    assert facts.size == ((40, 60) if orientation >= 5 else (60, 40))
    assert not facts.plain


@pytest.mark.parametrize(
    "data",
    [
        turned(9),
        jpeg(exif=exif_of()),  # where Pillow asks XMP
        jpeg(exif=exif_of(6), xmp=XMP_TURNED),
        jpeg(xmp=XMP_TURNED),
        jpeg("CMYK"),
        jpeg(icc_profile=b"profile"),
        with_segment(0xE0, b"JFIF\0\1"),
        with_segment(0xC0, b"\x08\0\x09\0\x09\1\1\x11\0"),  # a second frame
        jpeg()[:100],
        jpeg()[:-2].replace(b"\xff\xda", b"\xff\xd9"),
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_all_that_is_unusual_is_left_to_pillow(data: bytes) -> None:
    assert plain_header(data) is None


@pytest.mark.parametrize(
    ("data", "size", "orientation"),
    [
        (jpeg(), (60, 40), 1),
        (jpeg(comment=b"drawn " * 2000), (60, 40), 1),  # its size is after the first 4 KiB
        (turned(1), (60, 40), 1),
        (turned(6), (40, 60), 6),
        (jpeg(exif=exif_of(), xmp=XMP_TURNED), (40, 60), 6),
        (jpeg(exif=exif_of(8), xmp=XMP_TURNED), (40, 60), 8),
        (jpeg(exif=with_a_thumbnail(), size=(600, 400)), (400, 600), 6),
        (jpeg(xmp=XMP_TURNED), (40, 60), 6),
        (jpeg("CMYK"), (60, 40), 1),
        (jpeg(size=(600, 400))[:-200], (600, 400), 1),
    ],
)
def test_a_files_header_is_the_same_by_either_reader(
    data: bytes, size: tuple[int, int], orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    assert read_header(str(path)) == (size, "image/jpeg", orientation)
    assert read_header(str(path), data) == (size, "image/jpeg", orientation)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The file with some bytes of its header changed, taken away or put in."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(2, min(len(changed), 700))
        what = draw.random()
        if what < 0.5:
            changed[at] = draw.choice((0, 255, draw.randrange(256), draw.randrange(0xC0, 0x100)))
        elif what < 0.7:
            del changed[at : at + draw.randint(1, 20)]
        elif what < 0.9:
            changed[at:at] = draw.randbytes(draw.randint(1, 20))
        else:
            body = draw.choice((b"JFIF\0", b"Exif\0\0MM\0*", b"Adobe\0", b"MPF\0", b""))
            body += draw.randbytes(draw.randint(0, 40))
            marker = bytes((0xFF, draw.randrange(0xC0, 0x100)))
            changed[2:2] = marker + (len(body) + 2).to_bytes(2, "big") + body
    return bytes(changed)


@pytest.mark.slow
def test_no_damaged_header_is_read_where_pillow_reads_another_or_none() -> None:
    draw = random.Random(32)
    examples = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.jpg"))[:4]]
    examples += [jpeg(), jpeg("L"), jpeg("CMYK"), jpeg(progressive=True, dpi=(9, 9))]
    examples += [turned(6), turned(1), by_a_motorola_order(8)]
    read = turned_ones = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4000):
            data = damaged(draw.choice(examples), draw)
            header = plain_header(data)
            if header is None:
                continue
            read += 1
            picture = PIL.Image.open(io.BytesIO(data))
            assert picture.format == "JPEG"
            assert picture.mode in ("L", "RGB")
            assert picture.size == header.size
            assert (picture.getexif().get(ORIENTATION) or 1) == header.orientation
            turned_ones += header.orientation > 1
    assert read > 500  # else it would show nothing
    assert turned_ones > 100

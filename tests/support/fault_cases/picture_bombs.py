"""Pictures made to take a reader's time or memory: small files, or whose metadata never end."""

from __future__ import annotations

import functools
import struct
import zlib


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*more: bytes) -> bytes:
    """A grey PNG of 40 x 30 with further chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0))
    pixels = zlib.compress((b"\0" + b"\x70" * 40) * 30)
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def inflating(name: bytes, begin: bytes) -> bytes:
    """A PNG of 300 KB with a text of 64 MiB."""
    return png(chunk(name, begin + _zeros()))


@functools.cache
def _zeros() -> bytes:
    return zlib.compress(bytes(2**26), 1)


def many_pages(count: int = 40_000) -> bytes:
    """A TIFF of 4 MB with `count` pictures of 4 x 4 pixels."""
    entries = [
        (256, 3, 4),
        (257, 3, 4),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 1),
        (278, 3, 4),
        (279, 4, 16),
    ]
    tags = b"".join(struct.pack("<HHII", name, kind, 1, value) for name, kind, value in entries)
    length = 2 + len(tags) + 4
    pages = (
        struct.pack("<H", len(entries))
        + tags
        + struct.pack("<I", 8 + length * page if page < count else 0)
        for page in range(1, count + 1)
    )
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><image href="http://127.0.0.1:9/x"/></svg>'
LAUGHING_SVG = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "' + b"&a;" * 10_000 + b'">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><text>' + b"&b;" * 10_000 + b"</text></svg>"
)
BOMBS = {
    "an SVG": lambda: SVG,
    "an SVG of entities": lambda: LAUGHING_SVG,
    "a text that inflates": lambda: inflating(b"zTXt", b"a\0\0"),
    "XMP that inflates": lambda: inflating(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    "a profile that inflates": lambda: inflating(b"iCCP", b"a\0\0"),
    "EXIF that inflates": lambda: inflating(b"zTXt", b"Raw profile type exif\0\0"),
}
"""Each of them is refused."""

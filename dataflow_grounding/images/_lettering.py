"""Text for labels in drawings: on one line, in letters that some font has, and not too wide."""

import unicodedata
from bisect import bisect_left
from contextlib import suppress
from functools import lru_cache

from PIL import ImageFont

# Pillow looks for these file names wherever the system keeps fonts. The first font that has all
# letters of a label is used.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "arial.ttf",
    "msyh.ttc",
    "meiryo.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
    "seguisym.ttf",
)
_ASCII_SIGNS = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "\u00a0": " "}
)


def writable(label: str, number: str) -> tuple[str, str]:
    """Return a label's text on one line, as far as a font of the system can write it, and the font.

    The first of these that a font has all letters for is taken: the label as it is, without
    accents, without accents and symbols, and `number`, its mark's number. The font is a file name,
    "" for Pillow's own.
    """
    spaced = " ".join(label[:1000].split())  # far more than is ever shown
    text = _without(spaced, ("Cc", "Cf", "Cs", "Co", "Cn"))
    decomposed = unicodedata.normalize("NFKD", text.translate(_ASCII_SIGNS))
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    without_symbols = _without(plain, ("So", "Sk")).strip()
    for version in dict.fromkeys((text, plain, without_symbols)):
        if not version:
            continue
        for name in ("", *_SYSTEM_FONTS):
            if all(_has_glyph(name, char) for char in version):
                return version, name
    return number, ""


def _without(text: str, categories: tuple[str, ...]) -> str:
    """Return the text without characters of these Unicode categories."""
    return "".join(char for char in text if unicodedata.category(char) not in categories)


def shortened(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than `room` pixels.

    At least its first character stays, however narrow the room is.
    """
    if font.getlength(text) <= room:
        return text

    def is_too_wide(length: int) -> bool:
        return font.getlength(text[:length].rstrip() + "…") > room

    # Longer texts are wider, so the first length that is too wide can be found by bisection. The
    # one before it is the longest that fits.
    lengths = range(1, len(text))
    index_of_too_wide = bisect_left(lengths, True, key=is_too_wide)
    length = lengths[max(index_of_too_wide - 1, 0)] if lengths else 1
    return text[:length].rstrip() + "…"


@lru_cache(maxsize=256)
def font_of(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Return a font by its file name, in a size in pixels; Pillow's own for the name "".

    None where the system has no such font.
    """
    with suppress(OSError):
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    return None


@lru_cache(maxsize=65536)
def _has_glyph(name: str, char: str) -> bool:
    """Whether the system has this font, and the font a glyph for this character.

    A font draws the same sign for all characters that it lacks. So the character is drawn, and
    compared with one that no font has.
    """
    font = font_of(name, 16)
    if font is None or char == " ":
        return font is not None
    drawn = font.getmask(char)
    missing = font.getmask("\U0010ffff")
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)

"""Text for labels: on one line, in letters that some font has, no wider than there is room."""

import unicodedata
from bisect import bisect_left
from contextlib import suppress
from functools import lru_cache

from PIL import ImageFont

# Asked for by file name wherever the system keeps fonts; the first that has all letters of a label
# is used.
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
    """`(text, font name)`: the label on one line, as far as a font on the system can write it.

    As it is, else without accents, else without symbols, too, else `number`.
    """
    spaced = " ".join(label[:1000].split())  # far more than is ever shown
    text = _without(spaced, ("Cc", "Cf", "Cs", "Co", "Cn"))
    decomposed = unicodedata.normalize("NFKD", text.translate(_ASCII_SIGNS))
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    without_symbols = _without(plain, ("So", "Sk")).strip()
    for version in dict.fromkeys((text, plain, without_symbols)):
        if not version:
            continue
        for name in ("", *_SYSTEM_FONTS):
            if all(_has_glyph(name, c) for c in version):
                return version, name
    return number, ""


def _without(text: str, categories: tuple[str, ...]) -> str:
    """The text without characters of these Unicode categories."""
    return "".join(c for c in text if unicodedata.category(c) not in categories)


def shortened(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than `room` pixels.

    At least its first character stays, however narrow the room is.
    """
    if font.getlength(text) <= room:
        return text

    def is_too_wide(length: int) -> bool:
        return font.getlength(text[:length].rstrip() + "…") > room

    lengths = range(1, len(text))  # of what is left, each wider than the one before
    index_of_too_wide = bisect_left(lengths, True, key=is_too_wide)
    length = lengths[max(index_of_too_wide - 1, 0)] if lengths else 1
    return text[:length].rstrip() + "…"


@lru_cache(maxsize=256)
def font_of(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Pillow's own font for the empty name; None where the system has no such font."""
    with suppress(OSError):
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    return None


@lru_cache(maxsize=65536)
def _has_glyph(name: str, char: str) -> bool:
    font = font_of(name, 16)
    if font is None or char == " ":
        return font is not None
    drawn = font.getmask(char)
    missing = font.getmask("\U0010ffff")  # what a font draws for a character that it lacks
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)

"""Text for labels in drawings: on one line, in letters that some font has, and not too wide."""

import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

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
# Typographic signs that a font may lack, and what can be written instead.
_ASCII_SIGNS = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "\u00a0": " "}
)
_MOST_CHARACTERS = 1000  # of a label that are looked at: far more than is ever shown
# Categories of Unicode: control, format, surrogate, private use, unassigned; and symbols, such as
# emoji and the modifiers of their colour.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")
_SYMBOLS = ("So", "Sk")


def writable(label: str, number: str) -> tuple[str, str]:
    """Return a label's text on one line, as far as a font of the system can write it, and the font.

    Tried in turn: the label without invisible characters, without accents and in plain signs,
    without symbols, and `number`, its mark's number. The font is a file name, "" for Pillow's own.
    """
    # "Café “A” ☕" → "Café “A” ☕", 'Cafe "A" ☕', 'Cafe "A"'
    spaced = " ".join(label[:_MOST_CHARACTERS].split())
    text = _without(spaced, _INVISIBLE)
    decomposed = unicodedata.normalize("NFKD", text.translate(_ASCII_SIGNS))
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    without_symbols = _without(plain, _SYMBOLS).strip()
    for version in dict.fromkeys((text, plain, without_symbols)):
        if not version:
            continue
        for name in ("", *_SYSTEM_FONTS):
            if all(_has_glyph(name, char) for char in version):
                return version, name
    return number, ""


def _without(text: str, categories: tuple[str, ...]) -> str:
    return "".join(char for char in text if unicodedata.category(char) not in categories)


def shortened(text: str, font: "FreeTypeFont", room: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than `room` pixels."""
    if font.getlength(text) <= room:
        return text
    # Longer texts are wider, so the longest that fits is found by bisection.
    fitting_length = 0
    too_long = len(text)
    while too_long - fitting_length > 1:
        length = (fitting_length + too_long + 1) // 2
        if font.getlength(text[:length].rstrip() + "…") > room:
            too_long = length
        else:
            fitting_length = length
    at_least_one = max(fitting_length, 1)  # also where no letter has room
    return text[:at_least_one].rstrip() + "…"


@lru_cache(maxsize=256)
def font_of(name: str, size: int) -> "FreeTypeFont | None":
    """Return a font by its file name, in pixels; Pillow's own for ""; None where there is none."""
    from PIL import ImageFont  # late: scripts that name operators don't all draw

    with suppress(OSError):
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    return None


@lru_cache(maxsize=65536)
def _has_glyph(name: str, char: str) -> bool:
    font = font_of(name, 16)
    if font is None:
        return False
    if char == " ":  # all fonts have one, and draw nothing
        return True
    # A font draws one sign, often an empty box, for every character that it lacks. How it looks is
    # seen from U+10FFFF, which no font has.
    drawn = font.getmask(char)
    missing = font.getmask("\U0010ffff")
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)

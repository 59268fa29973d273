"""Things that can be drawn: each fills a square of its own, and is tight in it only by its pixels.

The box of a thing is that of its opaque pixels, so it is exact for any shape.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Pen = Callable[[ImageDraw.ImageDraw, int, Color], None]

COLORS: dict[str, Color] = {
    "red": (204, 32, 40),
    "green": (24, 140, 62),
    "blue": (32, 84, 200),
    "yellow": (242, 200, 32),
    "orange": (240, 128, 24),
    "purple": (128, 48, 150),
    "pink": (240, 130, 180),
    "white": (246, 246, 242),
    "black": (28, 28, 30),
}
OVERSAMPLING = 4
OPAQUE = 128  # of 255, from which a pixel belongs to a thing


def shade(color: Color, times: float) -> Color:
    """A darker or lighter color."""
    return tuple(max(0, min(255, round(part * times))) for part in color)  # type: ignore[return-value]


def _points(side: int, *shares: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * side, y * side) for x, y in shares]


def ball(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.ellipse((0, 0, side - 1, side - 1), fill=color)
    light = 0.28 * side
    pen.ellipse((light, light * 0.6, 2 * light, 1.4 * light), fill=shade(color, 1.35))


def cube(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.polygon(_points(side, (0, 0.3), (0.7, 0.3), (0.7, 1), (0, 1)), fill=color)
    pen.polygon(_points(side, (0, 0.3), (0.3, 0), (1, 0), (0.7, 0.3)), fill=shade(color, 1.25))
    pen.polygon(_points(side, (0.7, 0.3), (1, 0), (1, 0.7), (0.7, 1)), fill=shade(color, 0.7))


def mug(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    width = max(1, round(side * 0.09))
    pen.ellipse((0.55 * side, 0.3 * side, 0.97 * side, 0.75 * side), outline=color, width=width)
    pen.rounded_rectangle((0, 0.1 * side, 0.72 * side, side - 1), 0.1 * side, fill=color)
    pen.ellipse((0, 0.02 * side, 0.72 * side, 0.2 * side), fill=shade(color, 0.6))


def bottle(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.rounded_rectangle(
        (0.28 * side, 0.38 * side, 0.72 * side, side - 1), 0.08 * side, fill=color
    )
    neck = [(0.42, 0.08), (0.58, 0.08), (0.58, 0.3), (0.72, 0.45), (0.28, 0.45), (0.42, 0.3)]
    pen.polygon(_points(side, *neck), fill=color)
    pen.rectangle((0.4 * side, 0, 0.6 * side, 0.1 * side), fill=shade(color, 0.6))
    pen.rectangle((0.28 * side, 0.58 * side, 0.72 * side, 0.78 * side), fill=shade(color, 1.35))


def star(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    outline = [(0.5, 0), (0.62, 0.36), (1, 0.38), (0.7, 0.6), (0.81, 0.98), (0.5, 0.76)]
    outline += [(0.19, 0.98), (0.3, 0.6), (0, 0.38), (0.38, 0.36)]
    pen.polygon(_points(side, *outline), fill=color)


def cone(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.polygon(_points(side, (0.5, 0), (0.85, 0.9), (0.15, 0.9)), fill=color)
    pen.polygon(
        _points(side, (0.4, 0.3), (0.6, 0.3), (0.7, 0.55), (0.3, 0.55)), fill=(250, 250, 250)
    )
    pen.rectangle((0.02 * side, 0.88 * side, 0.98 * side, side - 1), fill=shade(color, 0.75))


def car(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.rounded_rectangle((0, 0.45 * side, side - 1, 0.75 * side), 0.08 * side, fill=color)
    pen.polygon(_points(side, (0.2, 0.47), (0.32, 0.22), (0.72, 0.22), (0.86, 0.47)), fill=color)
    pen.polygon(
        _points(side, (0.28, 0.45), (0.36, 0.28), (0.5, 0.28), (0.5, 0.45)), fill=(205, 228, 240)
    )
    pen.polygon(
        _points(side, (0.54, 0.45), (0.54, 0.28), (0.69, 0.28), (0.78, 0.45)), fill=(205, 228, 240)
    )
    for middle in (0.24, 0.76):
        pen.ellipse(
            ((middle - 0.12) * side, 0.62 * side, (middle + 0.12) * side, 0.86 * side),
            fill=(40, 40, 42),
        )


def house(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.rectangle((0.12 * side, 0.45 * side, 0.88 * side, side - 1), fill=color)
    pen.polygon(_points(side, (0.5, 0.02), (1, 0.48), (0, 0.48)), fill=(110, 66, 48))
    pen.rectangle((0.42 * side, 0.68 * side, 0.6 * side, side - 1), fill=(92, 58, 40))
    pen.rectangle((0.2 * side, 0.56 * side, 0.36 * side, 0.72 * side), fill=(225, 235, 245))


def fish(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.ellipse((0.22 * side, 0.25 * side, side - 1, 0.75 * side), fill=color)
    pen.polygon(
        _points(side, (0.32, 0.5), (0, 0.24), (0.06, 0.5), (0, 0.76)), fill=shade(color, 0.8)
    )
    pen.ellipse((0.8 * side, 0.38 * side, 0.88 * side, 0.46 * side), fill=(20, 20, 20))


def umbrella(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    width = max(1, round(side * 0.05))
    pen.line((0.5 * side, 0.3 * side, 0.5 * side, 0.9 * side), fill=(90, 70, 50), width=width)
    pen.arc((0.5 * side, 0.8 * side, 0.7 * side, side - 1), 0, 180, fill=(90, 70, 50), width=width)
    pen.pieslice((0, 0.02 * side, side - 1, 1.0 * side), 180, 360, fill=color)


def book(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.rectangle((0.1 * side, 0, 0.9 * side, side - 1), fill=color)
    pen.rectangle((0.1 * side, 0, 0.2 * side, side - 1), fill=shade(color, 0.65))
    pen.rectangle((0.34 * side, 0.2 * side, 0.76 * side, 0.32 * side), fill=(240, 235, 220))


def boat(pen: ImageDraw.ImageDraw, side: int, color: Color) -> None:
    pen.polygon(_points(side, (0, 0.72), (1, 0.72), (0.82, 1), (0.18, 1)), fill=(112, 72, 44))
    pen.rectangle((0.48 * side, 0, 0.52 * side, 0.74 * side), fill=(80, 60, 40))
    pen.polygon(_points(side, (0.54, 0.04), (0.98, 0.66), (0.54, 0.66)), fill=color)


THINGS: dict[str, Pen] = {
    "ball": ball,
    "box": cube,
    "mug": mug,
    "bottle": bottle,
    "star": star,
    "cone": cone,
    "car": car,
    "house": house,
    "fish": fish,
    "umbrella": umbrella,
    "book": book,
    "boat": boat,
}


def plural(noun: str) -> str:
    """More than one of a thing."""
    if noun == "fish":
        return noun
    return noun + ("es" if noun.endswith("x") else "s")


def layer_of(noun: str, color: str, side: int, turned: float = 0.0) -> Image.Image:
    """A thing on a transparent square, turned by some degrees."""
    large = side * OVERSAMPLING
    layer = Image.new("RGBA", (large, large))
    THINGS[noun](ImageDraw.Draw(layer), large, COLORS[color])
    if turned:
        layer = layer.rotate(turned, Image.Resampling.BICUBIC, expand=True)
    size = (max(1, layer.width // OVERSAMPLING), max(1, layer.height // OVERSAMPLING))
    return layer.resize(size, Image.Resampling.LANCZOS)


def sign_of(words: str, color: str, height: int) -> Image.Image:
    """A sign with words on it, on a transparent background."""
    font = ImageFont.load_default(height * 0.5)
    left, top, right, bottom = font.getbbox(words)
    width = round(right - left + height)
    sign = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(sign)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), height // 6, fill=COLORS[color])
    ink = COLORS["black"] if color in ("yellow", "white", "pink", "orange") else COLORS["white"]
    pen.text(((width - right - left) / 2, (height - bottom - top) / 2), words, fill=ink, font=font)
    return sign


def box_of_pixels(layer: Image.Image, x: int, y: int) -> list[int]:
    """The box [x1, y1, x2, y2] of a layer's opaque pixels, where it is put at (x, y)."""
    opaque = layer.getchannel("A").point(lambda alpha: 255 if alpha >= OPAQUE else 0)
    box = opaque.getbbox()
    assert box is not None
    return [x + box[0], y + box[1], x + box[2], y + box[3]]


def background_of(style: str, size: tuple[int, int], chance: random.Random) -> Image.Image:
    """A background: `plain`, `room`, `meadow`, `night` or `grain`."""
    width, height = size
    picture = Image.new("RGB", size, (236, 230, 218))
    pen = ImageDraw.Draw(picture)
    if style == "room":
        pen.rectangle((0, 0, width, height * 0.62), fill=(206, 214, 220))
        pen.rectangle((0, height * 0.62, width, height), fill=(176, 146, 116))
    elif style == "meadow":
        pen.rectangle((0, 0, width, height * 0.45), fill=(176, 212, 240))
        pen.rectangle((0, height * 0.45, width, height), fill=(150, 180, 112))
    elif style == "night":
        for y in range(height):
            light = y / height
            pen.line(
                (0, y, width, y),
                fill=(round(12 + 16 * light), round(14 + 16 * light), round(34 + 20 * light)),
            )
        for _ in range(60):
            x, y = chance.randrange(width), chance.randrange(height)
            pen.point((x, y), fill=(200, 200, 210))
    elif style == "grain":
        grain = Image.effect_noise((max(1, width // 3), max(1, height // 3)), 46).resize(size)
        picture = Image.blend(picture, Image.merge("RGB", (grain, grain, grain)), 0.45)
    return picture

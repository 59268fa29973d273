"""Draw the three drawn scenes of the example data: python draw_scenes.py [FOLDER]."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (640, 480)
SCALE = 2  # drawn at twice the size and reduced, for smooth edges
Color = tuple[int, int, int]


def _canvas(color: Color) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), color)
    return image, ImageDraw.Draw(image)


def _at(*values: float) -> list[float]:
    return [value * SCALE for value in values]


def _star(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color) -> None:
    points = []
    for i in range(10):
        reach = radius if i % 2 == 0 else radius * 0.42
        turn = math.pi * (i / 5 - 0.5)
        points.append(((x + reach * math.cos(turn)) * SCALE, (y + reach * math.sin(turn)) * SCALE))
    draw.polygon(points, fill=color)


def _shaded_ball(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, dark: Color, light: Color
) -> None:
    """A ball lit from the upper left: discs that shrink towards the light."""
    steps = 40
    for i in range(steps):
        share = i / (steps - 1)
        size = radius * (1 - 0.9 * share)
        cx, cy = x - 0.35 * radius * share, y - 0.35 * radius * share
        color = tuple(round(a + (b - a) * share) for a, b in zip(dark, light, strict=True))
        draw.ellipse(_at(cx - size, cy - size, cx + size, cy + size), fill=color)


def draw_shapes() -> Image.Image:
    """Flat shapes on paper."""
    image, draw = _canvas((244, 240, 230))
    draw.ellipse(_at(262, 170, 442, 350), fill=(200, 30, 38))
    draw.rectangle(_at(60, 290, 116, 346), fill=(30, 70, 190))
    draw.rectangle(_at(486, 300, 606, 420), fill=(30, 70, 190))
    draw.polygon(_at(60, 200, 170, 200, 115, 96), fill=(30, 140, 60))
    draw.polygon(_at(150, 450, 250, 450, 180, 360), fill=(30, 140, 60))
    _star(draw, 340, 84, 60, (25, 25, 28))
    draw.ellipse(_at(500, 60, 566, 126), fill=(240, 200, 40))
    draw.ellipse(_at(560, 190, 622, 252), fill=(240, 200, 40))
    return image


def draw_landscape() -> Image.Image:
    """A house on a meadow under a clear sky."""
    rng = random.Random(7)
    image, draw = _canvas((0, 0, 0))
    for y in range(290 * SCALE):
        share = y / (290 * SCALE)
        draw.line(
            (0, y, SIZE[0] * SCALE, y), fill=(110 + int(60 * share), 170 + int(40 * share), 232)
        )
    draw.rectangle(_at(0, 290, 640, 480), fill=(74, 140, 52))
    for _ in range(9000):
        x, y = rng.uniform(0, 640), rng.uniform(292, 480)
        shade = rng.randint(-35, 35)
        blade = (74 + shade, 140 + shade, 52 + shade // 2)
        draw.line(_at(x, y, x + rng.uniform(-3, 3), y - rng.uniform(4, 10)), fill=blade, width=2)
    draw.ellipse(_at(80, 40, 160, 120), fill=(252, 214, 40))
    draw.rectangle(_at(340, 210, 520, 350), fill=(186, 60, 48))
    draw.polygon(_at(320, 212, 540, 212, 430, 130), fill=(96, 62, 44))
    draw.rectangle(_at(412, 280, 452, 350), fill=(240, 236, 224))
    draw.rectangle(_at(360, 235, 396, 271), fill=(214, 232, 244))
    draw.rectangle(_at(466, 235, 502, 271), fill=(214, 232, 244))
    draw.rectangle(_at(196, 250, 214, 360), fill=(100, 66, 40))
    for x, y, radius in ((205, 210, 52), (172, 240, 36), (238, 240, 36)):
        draw.ellipse(_at(x - radius, y - radius, x + radius, y + radius), fill=(38, 100, 48))
    return image


def draw_toys() -> Image.Image:
    """Toys on a table before a wall."""
    image, draw = _canvas((226, 224, 220))
    draw.rectangle(_at(0, 320, 640, 480), fill=(176, 150, 122))
    draw.rectangle(_at(230, 210, 400, 350), fill=(118, 52, 150))
    draw.polygon(_at(400, 210, 440, 180, 440, 316, 400, 350), fill=(88, 34, 116))
    draw.polygon(_at(230, 210, 270, 180, 440, 180, 400, 210), fill=(140, 72, 172))
    for x, y, radius in ((150, 400, 46), (310, 420, 42), (480, 404, 50)):
        _shaded_ball(draw, x, y, radius, (214, 104, 10), (250, 172, 70))
    draw.rectangle(_at(60, 250, 130, 330), fill=(250, 250, 250))
    draw.line(_at(556, 140, 548, 300), fill=(90, 90, 90), width=3)
    _shaded_ball(draw, 556, 92, 56, (226, 70, 134), (250, 150, 190))
    return image


def main() -> None:
    """Write the scenes as JPEG into the folder given, or images/ beside this file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    for name, draw in (("shapes", draw_shapes), ("landscape", draw_landscape), ("toys", draw_toys)):
        draw().resize(SIZE, Image.Resampling.LANCZOS).save(folder / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()

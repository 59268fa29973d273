"""Draw the scenes of many like things, with their KITTI labels: python draw_crowds.py [FOLDER]."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (640, 480)
SCALE = 2  # drawn at twice the size and reduced, for smooth edges
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
Labels = list[tuple[str, Box]]

RED, BLUE, YELLOW, GREEN = (196, 30, 40), (36, 80, 190), (240, 200, 44), (38, 132, 60)
WHITE, BLACK, ORANGE, PURPLE = (246, 246, 246), (26, 26, 28), (236, 126, 24), (126, 56, 152)


def _at(*values: float) -> list[float]:
    return [value * SCALE for value in values]


def _canvas(color: Color) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), color)
    return image, ImageDraw.Draw(image)


def _car(
    draw: ImageDraw.ImageDraw, x: float, y: float, long: float, wide: float, color: Color
) -> Box:
    """A vehicle seen from above, its front to the right."""
    draw.rounded_rectangle(_at(x, y, x + long, y + wide), radius=wide * SCALE * 0.3, fill=color)
    glass = (60, 66, 74)
    draw.rectangle(
        _at(x + 0.72 * long, y + 0.16 * wide, x + 0.8 * long, y + 0.84 * wide), fill=glass
    )
    draw.rectangle(
        _at(x + 0.12 * long, y + 0.2 * wide, x + 0.17 * long, y + 0.8 * wide), fill=glass
    )
    return x, y, x + long, y + wide


def draw_parking() -> tuple[Image.Image, Labels]:
    """A car park from above."""
    image, draw = _canvas((122, 124, 128))
    for row in range(4):
        for column in range(5):
            draw.line(
                _at(40 + 120 * column, 30 + 110 * row, 40 + 120 * column, 100 + 110 * row),
                fill=(226, 226, 222),
                width=4,
            )
    labels: Labels = []
    for x, y, color in (
        (56, 48, RED),
        (176, 50, BLUE),
        (298, 46, RED),
        (416, 52, WHITE),
        (60, 158, YELLOW),
        (420, 160, RED),
        (178, 268, BLUE),
        (300, 270, BLACK),
        (414, 266, BLUE),
    ):
        labels.append(("Car", _car(draw, x, y, 84, 38, color)))
    labels.append(("Bus", _car(draw, 130.5, 372.25, 230, 62, YELLOW)))
    labels.append(("Van", _car(draw, 420, 372, 110, 50, WHITE)))
    return image, labels


def draw_balls() -> tuple[Image.Image, Labels]:
    """Balls and boxes on a lawn."""
    rng = random.Random(11)
    image, draw = _canvas((92, 150, 66))
    for _ in range(7000):
        x, y = rng.uniform(0, 640), rng.uniform(0, 480)
        shade = rng.randint(-16, 16)
        draw.line(
            _at(x, y, x + rng.uniform(-2, 2), y - rng.uniform(3, 7)),
            fill=(92 + shade, 150 + shade, 66),
            width=2,
        )
    labels: Labels = []
    for x, y, radius, color in (
        (90, 110, 46, RED),
        (250, 90, 24, RED),
        (520, 120, 30, RED),
        (140, 300, 34, ORANGE),
        (330, 250, 34, BLUE),
        (470, 300, 60, BLUE),
        (250, 420, 30, WHITE),
    ):
        draw.ellipse(_at(x - radius, y - radius, x + radius, y + radius), fill=color)
        labels.append(("ball", (x - radius, y - radius, x + radius, y + radius)))
    for x, y, side, color in ((560, 390, 60, PURPLE), (380, 60, 50, PURPLE)):
        draw.rectangle(_at(x, y, x + side, y + side), fill=color)
        labels.append(("box", (x, y, x + side, y + side)))
    return image, labels


def draw_shelf() -> tuple[Image.Image, Labels]:
    """Mugs, bottles and books on three boards."""
    image, draw = _canvas((232, 226, 214))
    for y in (150, 300, 450):
        draw.rectangle(_at(20, y, 620, y + 14), fill=(150, 108, 70))
    labels: Labels = []
    for x, foot, color in (
        (60, 150, RED),
        (150, 150, BLUE),
        (240, 150, RED),
        (330, 150, YELLOW),
        (90, 300, BLUE),
        (400, 450, WHITE),
    ):
        draw.rectangle(_at(x, foot - 60, x + 48, foot - 1), fill=color)
        draw.arc(_at(x + 36, foot - 48, x + 66, foot - 16), -90, 90, fill=color, width=8 * SCALE)
        labels.append(("Coffee_mug", (x, foot - 60, x + 66, foot)))
    for x, foot, color in ((460, 300, GREEN), (520, 300, GREEN), (80, 450, BLACK)):
        draw.rectangle(_at(x, foot - 70, x + 34, foot - 1), fill=color)
        draw.rectangle(_at(x + 11, foot - 104, x + 23, foot - 70), fill=color)
        labels.append(("bottle", (x, foot - 104, x + 34, foot)))
    for x, foot, height, color in (
        (200, 300, 96, RED),
        (236, 300, 96, GREEN),
        (250, 450, 110, BLUE),
    ):
        draw.rectangle(_at(x, foot - height, x + 30, foot - 1), fill=color)
        labels.append(("book", (x, foot - height, x + 30, foot)))
    return image, labels


def kitti_line(kind: str, box: Box, score: float | None = None) -> str:
    """A label line; what KITTI says of objects in space isn't known of a drawing."""
    corners = " ".join(f"{value:.2f}" for value in box)
    line = f"{kind} 0.00 0 -10 {corners} -1 -1 -1 -1000 -1000 -1000 -10"
    return line if score is None else f"{line} {score:.2f}"


SCENES: dict[str, Callable[[], tuple[Image.Image, Labels]]] = {
    "parking": draw_parking,
    "balls": draw_balls,
    "shelf": draw_shelf,
}


def main() -> None:
    """Write the scenes into crowds/ and the labels into labels/crowds/ under FOLDER, or beside this
    file.
    """
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    pictures, texts = folder / "crowds", folder / "labels" / "crowds"
    for path in (pictures, texts):
        path.mkdir(parents=True, exist_ok=True)
    for name, draw in SCENES.items():
        image, labels = draw()
        image.resize(SIZE, Image.Resampling.LANCZOS).save(pictures / f"{name}.jpg", quality=88)
        lines = [kitti_line(kind, box) for kind, box in labels]
        if name == "parking":
            lines.append(kitti_line("DontCare", (40, 30, 640, 60)))
        (texts / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Makes architecture.svg, the picture of the rooms of the package and of what may import what.

The layers are those of the import contract in pyproject.toml, which `.ci/lint` holds:

    python docs/pictures/architecture.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_suffix(".svg")
PACKAGE = "dataflow_grounding"
DOES = {
    "cli": "the dataflowgrounding commands, one file each",
    "grounded": "ground(): phrases in one picture",
    "compat": "DataFlow's names, for its scripts",
    "serve": "boxes over HTTP for labelling tools",
    "jobs": "from a spec to a run: checks, estimates, costs",
    "pipelines": "the shipped plans, the base class",
    "testing": "a local model server for tests",
    "review": "the report, the review page, the certificate",
    "evaluation": "comparing, counting, linting",
    "scale": "Ray, shards, merging",
    "operators": "the steps: what to ask for a record",
    "formats": "other tools' files: COCO, YOLO, …",
    "embedded": "the built-in grounder: OpenCV, no model",
    "trust": "what a model's box numbers mean: measured first, checked during a run",
    "engine": "runs the steps: limits, retries, stored replies, resume, output files",
    "serving": "who answers: an endpoint, or a model in the process",
    "tasks": "the questions, and how each reply is read",
    "replies": "from a model's text to boxes in pixels",
    "spec": "the YAML file of a run: its keys, defaults and mistakes",
    "images": "picture files: reading, sizes, drawing",
    "boxes": "geometry, coordinates, box formats by model",
    "data": "records and rows: reading, checking, storing",
    "bucket": "results in s3://, gs://, hf://",
    "english": "nouns, colours, spans in captions",
    "_util": "errors, terminal output, secrets, environment, files",
}
"""What each room does, in a few words."""
WIDTH, MARGIN, HEAD, FOOT = 820, 16, 40, 30  # pixels
ARROW, ROW, GAP = 44, 32, 6  # pixels: the column of the arrow, a layer's height, between layers
NAME = 92  # pixels: from a room's name to what it does
PAPER, BOX, EDGE, INK, GRAY = "#f6f5f1", "#ffffff", "#c9c5ba", "#1c1c1c", "#4d4d4d"


def layers() -> list[list[str]]:
    """The rooms of each layer, from the top."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    rows = re.findall('"(.*)"', text.partition("layers = [")[2].partition("\n]")[0])
    return [re.findall(rf"{PACKAGE}\.(\w+)", row) for row in rows]


def picture() -> str:
    """The whole file. It has its own light ground: it reads the same on a dark page."""
    rows = layers()
    height = HEAD + len(rows) * (ROW + GAP) - GAP + FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>The rooms of {PACKAGE}, in layers</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>',
        text(MARGIN, 25, f"{PACKAGE}: a room imports only from rooms below it", "bold"),
    ]
    bottom = height - FOOT
    x = MARGIN + 10
    lines += [
        f'<path d="M{x} {HEAD}V{bottom - 2}M{x - 6} {bottom - 10}l6 9l6 -9" fill="none"'
        f' stroke="{GRAY}" stroke-width="2"/>',
        f'<text transform="translate({x + 18} {(HEAD + bottom) // 2}) rotate(90)"'
        f' text-anchor="middle" fill="{GRAY}">imports</text>',
    ]
    for number, rooms in enumerate(rows):
        lines += boxes(rooms, HEAD + number * (ROW + GAP))
    lines += [
        text(MARGIN + ARROW, height - 10, "Rooms in one row don't import each other.", color=GRAY),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def boxes(rooms: list[str], y: int) -> Iterator[str]:
    """A layer: its rooms side by side, each with its name and what it does."""
    width = (WIDTH - 2 * MARGIN - ARROW - GAP * (len(rooms) - 1)) // len(rooms)
    for place, room in enumerate(rooms):
        x = MARGIN + ARROW + place * (width + GAP)
        yield (
            f'<rect x="{x}" y="{y}" width="{width}" height="{ROW}" rx="4" fill="{BOX}"'
            f' stroke="{EDGE}"/>'
        )
        yield text(x + 10, y + 21, room, "bold")
        yield text(x + 10 + NAME, y + 21, DOES[room], color=GRAY)


def text(x: int, y: int, content: str, weight: str = "normal", color: str = INK) -> str:
    """A line of text that begins at `x`, on the line `y`."""
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="{color}">{escape(content)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")

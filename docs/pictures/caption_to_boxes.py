"""Makes caption_to_boxes.png, the README's first picture: a caption goes in, boxes come out.

The example data on the embedded grounder, so that anybody can make it again without a model:

python docs/pictures/caption_to_boxes.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from dataflow_grounding import EmbeddedServing, ExpressionExtractor, PhraseGrounder
from dataflow_grounding.images.drawing import Color, palette_color, text_color

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_name("caption_to_boxes.png")
EXAMPLE = "images/astronaut.jpg"
MADE_BY = (
    "Made with the embedded OpenCV grounder, a stand-in that is not a VLM: what it can't look for "
    "gets no box."
)
PANEL, PHOTO, GAP, MARGIN = 480, 440, 16, 20  # pixels: widths, and the space around
TEXT, SMALL, LINE = 16, 15, 26  # pixels: sizes of letters, and from line to line
COLORS = 160  # of the PNG: more cost bytes that nobody sees
MOST_BYTES = 150_000
WHITE, PAPER, INK, GRAY = (255, 255, 255), (243, 242, 238), (28, 28, 28), (110, 110, 110)


class Word(NamedTuple):
    """A word of the caption; `color` is that of the boxes of the phrase that it belongs to."""

    text: str
    color: Color | None


def main() -> None:
    """Ground the example's caption, draw both panels, write the file."""
    [row] = [
        row
        for line in (REPOSITORY / "example_data" / "captions.jsonl").read_text("utf-8").splitlines()
        if (row := json.loads(line))["image_path"] == EXAMPLE
    ]
    row["image_path"] = str(REPOSITORY / "example_data" / EXAMPLE)
    serving = EmbeddedServing()
    record = PhraseGrounder(serving)(ExpressionExtractor(serving)(row))
    caption = record["cleaned_caption"]
    with Image.open(row["image_path"]) as photo:
        left = panel(
            "in: a picture and its caption", photo, [Word(w, None) for w in caption.split()]
        )
    right = panel("out: phrases, their spans and boxes", record.draw(), list(words(record)))
    height = left.height + 3 * MARGIN
    both = Image.new("RGB", (2 * PANEL + GAP + 2 * MARGIN, height), PAPER)
    both.paste(left, (MARGIN, MARGIN))
    both.paste(right, (MARGIN + PANEL + GAP, MARGIN))
    ImageDraw.Draw(both).text(
        (MARGIN, height - MARGIN - SMALL // 2), MADE_BY, GRAY, font(SMALL), anchor="lm"
    )
    both.quantize(COLORS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    if PICTURE.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{PICTURE} has more than {MOST_BYTES:,} bytes")


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that the picture is the same on all systems."""
    return ImageFont.load_default(size)


def words(record: Mapping[str, Any]) -> Iterator[Word]:
    """The words of the caption; those of a phrase with boxes have the boxes' color."""
    colors: dict[int, Color] = {}
    boxed = [expression for expression in record["expressions"] if expression["instances"]]
    for number, expression in enumerate(boxed):
        start, end = expression["char_span"]
        colors |= dict.fromkeys(range(start, end), palette_color(number))
    at = 0
    for word in record["cleaned_caption"].split():
        at = record["cleaned_caption"].index(word, at)
        yield Word(word, colors.get(at))
        at += len(word)


def panel(title: str, photo: Image.Image, caption: list[Word]) -> Image.Image:
    """A white card: title, photo, and the caption below it."""
    card = Image.new("RGB", (PANEL, MARGIN + LINE + PHOTO + 2 * LINE + MARGIN), WHITE)
    draw = ImageDraw.Draw(card)
    draw.text((MARGIN, MARGIN), title, GRAY, font(TEXT))
    card.paste(photo.convert("RGB").resize((PHOTO, PHOTO)), ((PANEL - PHOTO) // 2, MARGIN + LINE))
    x, y = MARGIN, MARGIN + LINE + PHOTO + LINE
    space = draw.textlength(" ", font(TEXT))
    for place, word in enumerate(caption):
        width = draw.textlength(word.text, font(TEXT))
        if x + width > PANEL - MARGIN:
            x, y = MARGIN, y + LINE
        if word.color is not None:
            goes_on = place + 1 < len(caption) and caption[place + 1].color == word.color
            right = x + width + (space if goes_on else 0)
            draw.rectangle((x - 2, y - 11, min(right, PANEL - MARGIN) + 2, y + 11), word.color)
        color = INK if word.color is None else text_color(word.color)
        draw.text((x, y), word.text, color, font(TEXT), anchor="lm")
        x += width + space
    return card


if __name__ == "__main__":
    main()

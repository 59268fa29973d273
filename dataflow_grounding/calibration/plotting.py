"""The probe pictures with the rectangles that were asked for and the boxes that came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataflow_grounding.calibration.probes import ProbedPicture
from dataflow_grounding.drawing import Mark, draw_marks
from dataflow_grounding.geometry import Bbox, box_of

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

HEIGHT = 672
MARGIN = 24
ANSWERED = (213, 0, 120)


def plot(pictures: Sequence[ProbedPicture], boxes: Sequence[Sequence[tuple[str, Bbox]]]) -> PillowImage:
    """The pictures side by side, each 672 px high; `boxes` are the answers in pixels, per picture, drawn dashed."""
    from PIL import Image

    drawn = []
    for picture, answers in zip(pictures, boxes, strict=True):
        scale = HEIGHT / picture.size[1]
        small = picture.probe.draw().resize((round(picture.size[0] * scale), HEIGHT), Image.Resampling.LANCZOS)
        scaled = [(phrase, box_of([edge * scale for edge in bbox])) for phrase, bbox in answers]
        marks = [Mark(bbox, phrase.split()[1], ANSWERED, True) for phrase, bbox in scaled]
        drawn.append(draw_marks(small, marks))
    width = sum(one.width for one in drawn) + MARGIN * (len(drawn) + 1)
    sheet = Image.new("RGB", (width, HEIGHT + 2 * MARGIN), "white")
    left = MARGIN
    for one in drawn:
        sheet.paste(one, (left, MARGIN))
        left += one.width + MARGIN
    return sheet

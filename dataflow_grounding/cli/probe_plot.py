"""A plot of probe pictures for people: the rectangles that were asked for, and those answered."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.images.drawing import Mark, draw_marks
from dataflow_grounding.trust.probes import ProbedPicture, color_of

ANSWERED = (213, 0, 120)  # the color of answered boxes: none of the rectangles has it
PLOT_HEIGHT = 672  # px of a picture: that of the first probe picture, which stays as it is
PLOT_MARGIN = 24  # px


def plot(
    pictures: Sequence[ProbedPicture], boxes: Sequence[Sequence[tuple[str, Bbox]]]
) -> PIL.Image.Image:
    """Return the pictures side by side, each PLOT_HEIGHT px high, with the answers drawn dashed.

    `boxes` holds, for each picture, the phrases that were answered and their boxes in its pixels.
    """
    columns = []
    for picture, answers in zip(pictures, boxes, strict=True):
        scale = PLOT_HEIGHT / picture.size[1]
        size = (round(picture.size[0] * scale), PLOT_HEIGHT)
        small = picture.probe.draw().resize(size, PIL.Image.Resampling.LANCZOS)
        marks = []
        for phrase, bbox in answers:
            scaled = box_of([edge * scale for edge in bbox])
            marks.append(Mark(scaled, color_of(phrase), ANSWERED, True))
        around = ((PLOT_MARGIN, PLOT_MARGIN), (PLOT_MARGIN, 0), (0, 0))
        columns.append(np.pad(np.asarray(draw_marks(small, marks)), around, constant_values=255))
    at_the_right = np.full((PLOT_HEIGHT + 2 * PLOT_MARGIN, PLOT_MARGIN, 3), 255, np.uint8)
    return PIL.Image.fromarray(np.hstack([*columns, at_the_right]))

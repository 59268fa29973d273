"""YOLO-OBB and DOTA: label files of rotated boxes, each by its four corners.

YOLO-OBB: class, x and y of the corners in parts of the image's sides, in predictions a score.
DOTA: x and y of the corners in pixels, the class, and 0, or 1 for what is difficult, perhaps after
lines on the whole picture (`imagesource:GoogleEarth`, `gsd:0.146`). An upright box has its own
corners. Corners may be outside of the picture. Sources: docs.ultralytics.com/datasets/obb, and
ultralytics' data/utils.py (verify_image_label); captain-whu.github.io/DOTA/dataset.html, and
DOTA_devkit's dota_utils.py (parse_dota_poly).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.class_files import Names
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import Phrase, Shape
from dataflow_grounding.formats.label_files import (
    DECIMALS_OF_POINTS,
    Label,
    Labelled,
    NamedLabels,
    Yolo,
    class_in,
    in_pixels,
    number_in,
    read_label_file,
    score_among,
    yolo_line,
)
from dataflow_grounding.formats.rotated import of_corners, smallest_around

_CUT = (
    "rotated boxes that reach so far out of their picture that ultralytics would leave it out, with"
    " corners put to its edge"
)
_FARTHEST = 1  # sides by which a corner may be out of its picture; pixels are further
_ON_PICTURE = re.compile(r"(imagesource|gsd|acquisition dates)\s*:", re.IGNORECASE)
_IS_FRACTION = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)


def _obb_region(names: Names, size: Size, fields: list[str]) -> Labelled:
    if len(fields) not in (9, 10):
        raise BrokenRow(
            f"has {len(fields)} fields, a YOLO-OBB label has 9 or 10 (class x1 y1 x2 y2 x3 y3 x4"
            " y4): upright boxes and polygons are read as yolo"
        )
    class_name = class_in(fields[0], names)
    numbers = [*map(number_in, fields[1:])]
    parts = numbers[:8]
    if min(parts) < -_FARTHEST or max(parts) > 1 + _FARTHEST:
        raise BrokenRow(f"{' '.join(fields[1:9])} should be parts of the image's sides, 0 to 1")
    bbox, outline = of_corners(in_pixels(parts, size, DECIMALS_OF_POINTS), size)
    return Labelled(class_name, bbox, outline, score_among(numbers[8:]))


def _dota_region(size: Size, fields: list[str]) -> Labelled | None:
    """Return the region of a line; None for a line on the whole picture."""
    if _ON_PICTURE.match(" ".join(fields)):
        return None
    if len(fields) not in (9, 10):
        raise BrokenRow(
            f"has {len(fields)} fields, a DOTA label has 9 or 10 (x1 y1 x2 y2 x3 y3 x4 y4 category"
            " difficult)"
        )
    corners = [*map(number_in, fields[:8])]
    category, *difficult = fields[8:]  # ["1"], or [] where the field is missing
    # Of YOLO-OBB's lines, which have as many fields, the last two are fractions.
    is_category = _IS_FRACTION.fullmatch(category) is None
    is_difficult_whole = all(field.isdecimal() for field in difficult)
    if not is_category or not is_difficult_whole:
        raise BrokenRow(
            f"ends with {' '.join(fields[8:])!r:.40}, and should end with a category and 0 or 1"
        )
    lost = ["difficult"] if difficult not in ([], ["0"]) else []
    bbox, outline = of_corners(corners, size)
    return Labelled(category, bbox, outline, lost=lost)


def _corners_for(outline: Sequence[float], box: Bbox, size: Size) -> Shape:
    # Trainers take the smallest rectangle around the corners for the whole object.
    if not outlines.is_around(box, outline, size):
        lost = "outlines of another size than their box, of which the upright box is written"
        return Shape(None, lost)
    if len(outline) == 8:
        return Shape(outline)
    lost = "outlines of other than four corners, written as the smallest rectangles around them"
    return Shape(smallest_around(outlines.inside(outline, size)), lost)


def _corners_of(phrase: Phrase, index: int) -> Sequence[float]:
    x1, y1, x2, y2 = phrase.boxes[index]
    return phrase.outline(index) or (x1, y1, x2, y1, x2, y2, x1, y2)


@dataclass
class YoloObb(Yolo):
    """YOLO-OBB: rotated boxes by their corners, in eight decimals of the sides."""

    @contextmanager
    def shared(self, out: ExportFolder) -> Iterator[None]:
        """Write data.yaml; afterwards a remark tells how many boxes `line` has cut."""
        self._count_of_cut = 0
        with super().shared(out):
            yield
        if self._count_of_cut:
            self.remarks.append(f"{_CUT}: {self._count_of_cut:,}")

    def outline_of(self, outline: Sequence[float], box: Bbox, size: Size) -> Shape:
        return _corners_for(outline, box, size)

    def why_outlines_lost(self, *_: object) -> str:
        """Return "": each box of a picture has four corners, with an outline or without."""
        return ""

    def begin(self, names: Names | None, files: Sequence[str]) -> None:
        super().begin(names, files[:1])

    def finish(self) -> None:
        """Add no remark: each row tells what it is."""

    def label(self, file: str, size: Size, names: Names) -> Label:
        return read_label_file(file, partial(_obb_region, names, size))

    def line(self, number: int, phrase: Phrase, index: int, size: Size) -> str:
        """Return the line of a box: class from 0, and its corners; the score is not written."""
        corners = _corners_of(phrase, index)
        if not _is_taken(corners, size):
            self._count_of_cut += 1
            corners = outlines.inside(corners, size)
        return yolo_line(number, corners, size)


def _is_taken(corners: Sequence[float], size: Size) -> bool:
    """Whether ultralytics takes a rotated box; else it leaves out the picture and all its boxes."""
    x1, y1, x2, y2 = outlines.bounds(corners)
    width, height = size
    is_middle_inside = 0 <= x1 + x2 <= 2 * width and 0 <= y1 + y2 <= 2 * height
    return is_middle_inside and x2 - x1 <= width and y2 - y1 <= height


class Dota(NamedLabels):
    """DOTA: rotated boxes by their corners in pixels, in three decimals."""

    joint = "-"
    folders = ((FOLDER, "labelTxt"), (FOLDER, "annfiles"))

    def outline_of(self, outline: Sequence[float], box: Bbox, size: Size) -> Shape:
        return _corners_for(outline, box, size)

    def line(self, number: int, phrase: Phrase, index: int, size: Size) -> str:
        """Return DOTA's line: corners in pixels, the class's name, 0."""
        corners = " ".join(f"{value:.3f}" for value in _corners_of(phrase, index))
        return f"{corners} {self.word_of(phrase.text)} 0"

    def label(self, file: str, size: Size, names: Any) -> Label:
        label = read_label_file(file, partial(_dota_region, size))
        # Lines without a region are on the whole picture, and say nothing of what is in it.
        return self.named(label._replace(others=0), names)

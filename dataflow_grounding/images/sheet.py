"""Several parts of one image in one picture: numbered crops in a grid (`crop_sheet`).

One request then shows them all, also to endpoints that take one picture at a time.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataflow_grounding._util.lazy import cached_property
from dataflow_grounding.boxes.geometry import Bbox, Size, whole_pixels
from dataflow_grounding.images.drawing import Mark, draw_marks
from dataflow_grounding.images.files import decoding
from dataflow_grounding.images.image import PADDING, Image
from dataflow_grounding.images.shown import never_padded

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

TILE = 288  # px of a crop's longer side in the sheet
GAP = 40  # px between crops, where their numbers are
MARGIN = 0.15  # how much a crop shows around its box, as a share of the box's longer side
LEAST = 24  # px of the image that a crop shows at the least: nothing is recognized in fewer
MOST_CROPS = 16  # crops in one sheet at the most: 4 by 4 are still seen one by one


@dataclass(frozen=True)
class CropSheet(Image):
    """A picture of the parts inside `regions`, each enlarged or reduced to a tile."""

    regions: tuple[tuple[int, int, int, int], ...]  # x1, y1, x2, y2 in pixels of the upright image
    numbers: tuple[int, ...]
    as_is = False  # the file is another picture

    @property
    def size(self) -> Size:
        columns = self._columns
        rows = math.ceil(len(self.regions) / columns)
        return GAP + columns * (TILE + GAP), GAP + rows * (TILE + GAP)

    @property
    def _columns(self) -> int:
        return max(1, math.ceil(math.sqrt(len(self.regions))))

    @property
    def tiles(self) -> list[Bbox]:
        """Where each crop is on the sheet, in pixels of `size`, centred in its cell."""
        tiles: list[Bbox] = []
        for index, (x1, y1, x2, y2) in enumerate(self.regions):
            row, column = divmod(index, self._columns)
            scale = TILE / max(x2 - x1, y2 - y1)
            width = max(1, round((x2 - x1) * scale))
            height = max(1, round((y2 - y1) * scale))
            left = GAP + column * (TILE + GAP) + (TILE - width) // 2
            top = GAP + row * (TILE + GAP) + (TILE - height) // 2
            tiles.append((left, top, left + width, top + height))
        return tiles

    @property
    def sent_size(self) -> Size:
        return self.fitted_limits.sent(self.size)

    @cached_property
    def sent_digest(self) -> str:
        """`DIGEST>sheet 696x696 288/40+DIGEST_OF_REGIONS_AND_NUMBERS`, for keys of replies."""
        width, height = self.sent_size
        what_is_shown = repr((self.regions, self.numbers))
        shown = hashlib.sha256(what_is_shown.encode()).hexdigest()[:16]
        return f"{self.facts.digest}>sheet {width}x{height} {TILE}/{GAP}+{shown}"

    def as_sent(self, data: bytes) -> "PillowImage":
        import PIL.Image

        sheet = PIL.Image.new("RGB", self.size, PADDING)
        with decoding(data, self.path) as whole:
            for region, tile in zip(self.regions, self.tiles, strict=True):
                left, top, right, bottom = (int(edge) for edge in tile)
                crop = whole.crop(region)
                tile_size = (right - left, bottom - top)
                crop = crop.resize(tile_size, PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)
                sheet.paste(crop, (left, top))
        marks = []
        for tile, number in zip(self.tiles, self.numbers, strict=True):
            marks.append(Mark(tile, str(number)))
        numbered = draw_marks(sheet, marks)
        return self.padded_to_sent(numbered)


def crop_sheet(
    image: Image, boxes: Sequence[Bbox], numbers: Sequence[int] | None = None
) -> CropSheet:
    """Return the sheet of parts around boxes in pixels of the image; None numbers them from 1."""
    labels = tuple(numbers) if numbers is not None else tuple(range(1, len(boxes) + 1))
    regions = tuple(whole_pixels(_with_margin(bbox), image.size) for bbox in boxes)
    return CropSheet(image.file, image.facts, never_padded(image), regions, labels)


def _with_margin(bbox: Bbox) -> Bbox:
    """Return a box with MARGIN around it, or with more where it is less than LEAST px long."""
    x1, y1, x2, y2 = bbox
    margin = MARGIN * max(x2 - x1, y2 - y1)
    margin_x = max(margin, (LEAST - (x2 - x1)) / 2)
    margin_y = max(margin, (LEAST - (y2 - y1)) / 2)
    return x1 - margin_x, y1 - margin_y, x2 + margin_x, y2 + margin_y

"""Several parts of one image in one picture: numbered crops, side by side.

One request then shows them all, also to endpoints that take one picture at a time.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dataflow_grounding.boxes.geometry import Bbox, Size, whole_pixels
from dataflow_grounding.images.files import decoding
from dataflow_grounding.images.image import PADDING, Image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

TILE = 288  # px of a crop's longer side in the sheet
GAP = 40  # px between crops, where their numbers stand
MARGIN = 0.15  # of the box's longer side, shown around it
LEAST = 24  # px of the image that a crop shows at least: of fewer, nothing can be told
MOST_CROPS = 16  # of one sheet: 4 by 4 crops are still seen one by one


@dataclass(frozen=True)
class CropSheet(Image):
    """A picture of the parts inside `regions`, each enlarged or reduced to a tile of its own.

    Args:
        regions: In whole pixels of the upright image, xyxy.
        numbers: What stands beside each.
    """

    regions: tuple[tuple[int, int, int, int], ...]
    numbers: tuple[int, ...]
    as_is = False  # the file is another picture

    @property
    def size(self) -> Size:
        """Width and height of the whole sheet in pixels."""
        columns = self._columns
        rows = math.ceil(len(self.regions) / columns)
        return GAP + columns * (TILE + GAP), GAP + rows * (TILE + GAP)

    @property
    def _columns(self) -> int:
        return max(1, math.ceil(math.sqrt(len(self.regions))))

    @property
    def tiles(self) -> list[Bbox]:
        """Where each crop is, in pixels of `size`, in the order of the regions."""
        tiles: list[Bbox] = []
        for place, (x1, y1, x2, y2) in enumerate(self.regions):
            row, column = divmod(place, self._columns)
            scale = TILE / max(x2 - x1, y2 - y1)
            width = max(1, round((x2 - x1) * scale))
            height = max(1, round((y2 - y1) * scale))
            left = GAP + column * (TILE + GAP) + (TILE - width) // 2
            top = GAP + row * (TILE + GAP) + (TILE - height) // 2
            tiles.append((left, top, left + width, top + height))
        return tiles

    @property
    def sent_size(self) -> Size:
        """Width and height in pixels of the sheet as sent."""
        return self.limits.fitted(self.size)

    @cached_property
    def sent_digest(self) -> str:
        """The file's, the regions' and the size's."""
        width, height = self.sent_size
        drawn = hashlib.sha256(repr((self.regions, self.numbers)).encode()).hexdigest()[:16]
        return f"{self.facts.digest}>sheet {width}x{height} {TILE}/{GAP}+{drawn}"

    def as_sent(self, data: bytes) -> "PillowImage":
        """The sheet, RGB, in the size that is sent. Raises ImageBroken."""
        import PIL.Image

        from dataflow_grounding.images.drawing import Mark, draw_marks

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
        if self.sent_size == self.size:
            return numbered
        return numbered.resize(self.sent_size, PIL.Image.Resampling.BICUBIC)


def crop_sheet(
    image: Image, boxes: Sequence[Bbox], numbers: Sequence[int] | None = None
) -> CropSheet:
    """The parts of the upright image around boxes in its pixels, with a little margin.

    They are numbered from 1, or as `numbers` says.
    """
    labels = tuple(numbers) if numbers is not None else tuple(range(1, len(boxes) + 1))
    regions = tuple(whole_pixels(_with_margin(bbox), image.size) for bbox in boxes)
    never_padded = replace(image.limits, max_wide=None, max_tall=None)
    return CropSheet(image.path, image.facts, never_padded, regions, labels)


def _with_margin(bbox: Bbox) -> Bbox:
    x1, y1, x2, y2 = bbox
    margin = MARGIN * max(x2 - x1, y2 - y1)
    x = max(margin, (LEAST - (x2 - x1)) / 2)
    y = max(margin, (LEAST - (y2 - y1)) / 2)
    return x1 - x, y1 - y, x2 + x, y2 + y

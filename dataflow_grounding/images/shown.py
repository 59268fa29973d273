"""Images that are sent otherwise than their files are.

They are a part, enlarged, or the whole with numbered boxes drawn on it.
What is small is found again in a part; regions are easier to tell apart by marks than by numbers in
a text.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dataflow_grounding.boxes.geometry import Bbox, Size, whole_pixels
from dataflow_grounding.images.files import decoding
from dataflow_grounding.images.image import Image, kept_urls, url_of

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from dataflow_grounding.images.drawing import Mark

# The crop shows this many times the box's longer side, but never less than this share of the
# image's longer side: the first box may be off by a few hundredths of it.
AROUND = 6
LEAST_SHARE = 0.15
TARGET_SIDE = 1024  # px to which a crop is enlarged, by a whole factor


@dataclass(frozen=True)
class ImageCrop(Image):
    """The part inside `region` (whole pixels, xyxy, upright), enlarged `factor` times.

    Boxes count from its corner.
    """

    region: tuple[int, int, int, int]
    factor: int
    as_is = False  # the file holds more

    @property
    def size(self) -> Size:
        """Width and height of the region in pixels of the upright image."""
        return self.region[2] - self.region[0], self.region[3] - self.region[1]

    @property
    def _enlarged(self) -> Size:
        return self.size[0] * self.factor, self.size[1] * self.factor

    @property
    def sent_size(self) -> Size:
        """Width and height in pixels of the picture as sent."""
        return self.limits.fitted(self._enlarged)

    @property
    def sent_digest(self) -> str:
        """The file's, the region's and the size's."""
        width, height = self.sent_size
        sent = f"x{self.factor}" if self.sent_size == self._enlarged else f">{width}x{height}"
        return f"{self.facts.digest}[{','.join(map(str, self.region))}]{sent}"

    def as_sent(self, data: bytes) -> "PillowImage":
        """The region, RGB, in the size that is sent. Raises ImageBroken."""
        import PIL.Image

        with decoding(data, self.path) as whole:
            picture = whole.crop(self.region)
        return picture.resize(self.sent_size, PIL.Image.Resampling.BICUBIC)

    @contextmanager
    def decoded(self) -> "Iterator[PillowImage]":
        """The region's pixels, RGB. Raises ImageBroken."""
        with super().decoded() as whole:
            yield whole.crop(self.region)

    def to_image(self, bbox: Bbox) -> Bbox:
        """A box in pixels of the region, as one in pixels of the whole image."""
        left, top = self.region[:2]
        return bbox[0] + left, bbox[1] + top, bbox[2] + left, bbox[3] + top


def crop_around(image: Image, bbox: Bbox) -> ImageCrop:
    """A square part of the upright image around a box in its pixels.

    It is moved inside the image, and enlarged as far as the serving takes it.
    """
    longer = max(bbox[2] - bbox[0], bbox[3] - bbox[1])
    side = max(1, round(max(AROUND * longer, LEAST_SHARE * max(image.size), 32)))
    left, right = _span(bbox[0], bbox[2], side, image.size[0])
    top, bottom = _span(bbox[1], bbox[3], side, image.size[1])
    return crop_of(image, (left, top, right, bottom))


def crop_of(image: Image, bbox: Bbox) -> ImageCrop:
    """What is inside a box, in pixels of the upright image.

    It is enlarged as far as the serving takes it, or reduced to what it takes.
    """
    region = whole_pixels(bbox, image.size)
    longer = max(region[2] - region[0], region[3] - region[1])
    factor = max(1, min(TARGET_SIDE, image.limits.max_side) // longer)
    never_padded = replace(image.limits, max_wide=None, max_tall=None)
    return ImageCrop(image.path, image.facts, never_padded, region, factor)


def _span(low: float, high: float, side: int, length: int) -> tuple[int, int]:
    side = min(side, length)
    start = min(max(round((low + high - side) / 2), 0), length - side)
    return start, start + side


@dataclass(frozen=True)
class MarkedImage(Image):
    """An image sent with its `boxes` (pixels, upright) outlined and numbered from 1.

    The method is Set-of-Mark (Yang et al. 2023). Those at the places in `without` have a number
    that isn't drawn, and no outline.
    """

    boxes: tuple[Bbox, ...]
    outlined: bool = True
    without: tuple[int, ...] = ()
    as_is = False  # the file has no marks

    @property
    def sent_digest(self) -> str:
        """The file's, its size's and the boxes'."""
        drawn = hashlib.sha256(repr(self.boxes).encode()).hexdigest()[:16]
        width, height = self.sent_size
        tags = "" if self.outlined else "tags"
        without = f"-{self.without}" if self.without else ""
        return f"{self.facts.digest}>{width}x{height}+{tags}{drawn}{without}"

    def keep_drawn(self, jpeg: bytes) -> None:
        """Have at hand what was drawn elsewhere with the same marks.

        Only where it is of the size that is sent.
        """
        if self.sent_size == self.size:
            kept_urls.put(self.sent_digest, url_of(jpeg, "image/jpeg"))

    def as_sent(self, data: bytes) -> "PillowImage":
        """The picture in the size that is sent, with its marks. Raises ImageBroken."""
        from dataflow_grounding.images.drawing import draw_marks

        x, y = (sent / full for sent, full in zip(self.sent_size, self.shown_size, strict=True))
        boxes = [(b[0] * x, b[1] * y, b[2] * x, b[3] * y) for b in self.boxes]
        marks = []
        for place, mark in enumerate(numbered_marks(boxes, self.outlined)):
            if place not in self.without:
                marks.append(mark)
        return draw_marks(super().as_sent(data), marks)


def numbered_marks(boxes: Sequence[Bbox], outlined: bool) -> "list[Mark]":
    """A mark for each box, numbered from 1."""
    from dataflow_grounding.images.drawing import Mark

    return [Mark(bbox, str(number), outlined=outlined) for number, bbox in enumerate(boxes, 1)]


def marked(
    image: Image, boxes: Sequence[Bbox], *, outlined: bool = True, without: Sequence[int] = ()
) -> MarkedImage:
    """The image with marks on these boxes, but for those at the places in `without`."""
    return MarkedImage(
        image.path, image.facts, image.limits, tuple(boxes), outlined, tuple(without)
    )

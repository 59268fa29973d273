"""Images that are sent otherwise than their files are: a part, enlarged, or with marks drawn on it.

In an enlarged part (`ImageCrop`), a model sees small things better. Regions that are marked and
numbered in the picture (`MarkedImage`) are easier for it to tell apart than by coordinates in text.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dataflow_grounding.boxes.geometry import Bbox, Size, whole_pixels
from dataflow_grounding.images.drawing import Mark, draw_marks
from dataflow_grounding.images.files import decoding, encoded
from dataflow_grounding.images.image import (
    Image,
    ImageLimits,
    filling,
    keep_encoded,
    scale_into,
)

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# A crop around a box is this many times as long as the box's longer side.
AROUND = 6
# But it has at least this share of the image's longer side, because the box may be off by a few
# hundredths of that, and at least this many pixels.
LEAST_SHARE = 0.15
_LEAST_SIDE = 32
TARGET_SIDE = 1024  # px up to which a crop is enlarged, by a whole factor


@dataclass(frozen=True)
class ImageCrop(Image):
    """A part of an image, enlarged. Boxes of answers are in pixels of its region: `to_image`."""

    region: tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the upright image
    factor: int
    as_is = False  # the file holds more

    @property
    def size(self) -> Size:
        return self.region[2] - self.region[0], self.region[3] - self.region[1]

    @property
    def _enlarged(self) -> Size:
        return self.size[0] * self.factor, self.size[1] * self.factor

    @property
    def sent_size(self) -> Size:
        return self.fitted_limits.sent(self._enlarged)

    @property
    def shown_size(self) -> Size:
        """Width and height, in pixels of the region, of what is sent."""
        if not self.limits.frames:  # only an exact size, a frame, is padded
            return self.size
        frame = self.sent_size
        scale = scale_into(self._enlarged, frame) * self.factor  # from the region to the frame
        return filling(self.size, frame, scale)

    @property
    def sent_digest(self) -> str:
        """`DIGEST[10,20,30,40]x2` at twice its size, `DIGEST[10,20,30,40]>640x480` when fitted."""
        width, height = self.sent_size
        sent = f"x{self.factor}" if self.sent_size == self._enlarged else f">{width}x{height}"
        return f"{self.facts.digest}[{','.join(map(str, self.region))}]{sent}"

    def as_sent(self, data: bytes) -> "PillowImage":
        with decoding(data, self.path) as whole:
            picture = whole.crop(self.region)
        return self.padded_to_sent(picture)

    def keep_cut(self, whole: "PillowImage") -> None:
        """Keep the part as it is sent, cut out of the decoded image."""
        part = self.padded_to_sent(whole.crop(self.region))
        jpeg = encoded(part, self.fitted_limits.max_bytes)
        keep_encoded(self.kept, self.sent_digest, jpeg)

    @contextmanager
    def decoded(self) -> "Iterator[PillowImage]":
        with super().decoded() as whole:
            yield whole.crop(self.region)

    def to_image(self, bbox: Bbox) -> Bbox:
        """Return a box, given in pixels of the region, in pixels of the whole image."""
        left, top = self.region[:2]
        return bbox[0] + left, bbox[1] + top, bbox[2] + left, bbox[3] + top


def crop_around(image: Image, bbox: Bbox) -> ImageCrop:
    """Return a square part around a box, moved inside the image and enlarged as `crop_of` does."""
    longer = max(bbox[2] - bbox[0], bbox[3] - bbox[1])
    share_of_image = LEAST_SHARE * max(image.size)
    side = round(max(AROUND * longer, share_of_image, _LEAST_SIDE))
    left, right = _span(bbox[0], bbox[2], side, image.size[0])
    top, bottom = _span(bbox[1], bbox[3], side, image.size[1])
    return crop_of(image, (left, top, right, bottom))


def crop_of(image: Image, bbox: Bbox) -> ImageCrop:
    """Return the part inside a box in pixels, enlarged by a whole factor up to TARGET_SIDE."""
    region = whole_pixels(bbox, image.size)
    longer = max(region[2] - region[0], region[3] - region[1])
    largest_side = min(TARGET_SIDE, image.limits.max_side)
    factor = max(1, largest_side // longer)
    return ImageCrop(image.file, image.facts, never_padded(image), region, factor)


def never_padded(image: Image) -> ImageLimits:
    """Return limits without those on the shape; to `frames`, exact sizes, it is still padded."""
    return replace(image.limits, max_wide=None, max_tall=None)


@dataclass(frozen=True)
class ImageTile(ImageCrop):
    """One of several parts of an image that are sent together: its file is decoded once for all."""

    together: "_Together" = field(kw_only=True, repr=False, compare=False)

    def sent_bytes(self) -> bytes:
        if not self.ready:
            self.together.encode()
        return super().sent_bytes()


class _Together:
    """The tiles of an image, which are cut out of one decoded image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.tiles: list[ImageTile] = []
        self._lock = threading.Lock()  # threads prepare them side by side
        self._is_done = False

    def encode(self) -> None:
        """Keep all tiles as they are sent, as far as there is room; only once."""
        with self._lock:
            if self._is_done:
                return
            with self.image.decoded() as whole:
                for tile in self.tiles:
                    if not tile.ready:
                        tile.keep_cut(whole)
            self._is_done = True


def tiles_in(image: Image, regions: Sequence[Bbox]) -> list[ImageTile]:
    """Return parts of an image in its own resolution, which are decoded together."""
    together = _Together(image)
    limits = never_padded(image)
    for region in regions:
        pixels = whole_pixels(region, image.size)
        tile = ImageTile(image.file, image.facts, limits, pixels, factor=1, together=together)
        together.tiles.append(tile)
    return together.tiles


def _span(low: float, high: float, side: int, length: int) -> tuple[int, int]:
    """Return from where to where a part of `side` pixels goes along one side of the image.

    Its middle is that of the box, from `low` to `high`, unless it has to be moved inside.
    """
    side = min(side, length)
    start = min(max(round((low + high - side) / 2), 0), length - side)
    return start, start + side


@dataclass(frozen=True)
class MarkedImage(Image):
    """An image that is sent with boxes, numbered from 1: Set-of-Mark (Yang et al. 2023)."""

    boxes: tuple[Bbox, ...]  # in pixels
    outlined: bool = True  # else the numbers alone are drawn
    as_is = False  # the file has no marks

    @property
    def sent_digest(self) -> str:
        """`DIGEST>640x480+DIGEST_OF_BOXES`; `tags` after the `+` where outlines are left out."""
        digest_of_boxes = hashlib.sha256(repr(self.boxes).encode()).hexdigest()[:16]
        width, height = self.sent_size
        tags = "" if self.outlined else "tags"
        return f"{self.facts.digest}>{width}x{height}+{tags}{digest_of_boxes}"

    def keep_drawn(self, jpeg: bytes, unmarked: Image) -> None:
        """Keep a JPEG that has these marks already, if the picture is sent in its own size."""
        # without a limit on its base64, it is sent even if it has more than `max_bytes`
        has_limit = self.limits.most_base64 is not None
        is_too_large = has_limit and len(jpeg) > self.fitted_limits.max_bytes
        if not is_too_large and self.sent_size == self.size:
            # there it is let go together with what else is kept of the unmarked image
            keep_encoded(unmarked.kept, self.sent_digest, jpeg)

    def as_sent(self, data: bytes) -> "PillowImage":
        scale_x = self.sent_size[0] / self.shown_size[0]
        scale_y = self.sent_size[1] / self.shown_size[1]
        boxes = []
        for x1, y1, x2, y2 in self.boxes:
            boxes.append((x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y))
        return draw_marks(super().as_sent(data), numbered_marks(boxes, self.outlined))


def numbered_marks(boxes: Sequence[Bbox], outlined: bool) -> list[Mark]:
    return [Mark(bbox, str(number), outlined=outlined) for number, bbox in enumerate(boxes, 1)]


def marked(image: Image, boxes: Sequence[Bbox], *, outlined: bool = True) -> MarkedImage:
    return MarkedImage(image.file, image.facts, image.limits, tuple(boxes), outlined)

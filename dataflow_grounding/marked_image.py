"""A picture with numbered boxes drawn on it: regions are easier to tell apart by marks than by numbers in a text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataflow_grounding.geometry import Bbox
from dataflow_grounding.images import Image, kept_urls, url_of

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from dataflow_grounding.drawing import Mark


@dataclass(frozen=True)
class MarkedImage(Image):
    """An image sent with its `boxes` (pixels, upright) outlined and numbered from 1 (Set-of-Mark, Yang et al. 2023)."""

    boxes: tuple[Bbox, ...]
    outlined: bool = True
    as_is = False  # the file has no marks

    @property
    def sent_digest(self) -> str:
        """The file's, its size's and the boxes'."""
        drawn = hashlib.sha256(repr(self.boxes).encode()).hexdigest()[:16]
        return f"{self.facts.digest}>{self.sent_size[0]}x{self.sent_size[1]}+{'' if self.outlined else 'tags'}{drawn}"

    def keep_drawn(self, jpeg: bytes) -> None:
        """Have at hand what was drawn elsewhere with the same marks, where it is of the size that is sent."""
        if self.sent_size == self.size:
            kept_urls.put(self.sent_digest, url_of(jpeg, "image/jpeg"))

    def as_sent(self, data: bytes) -> "PillowImage":
        """The picture in the size that is sent, with its marks. Raises ImageBroken."""
        from dataflow_grounding.drawing import draw_marks

        x, y = (sent / full for sent, full in zip(self.sent_size, self.shown_size, strict=True))
        boxes = [(b[0] * x, b[1] * y, b[2] * x, b[3] * y) for b in self.boxes]
        return draw_marks(super().as_sent(data), numbered_marks(boxes, self.outlined))


def numbered_marks(boxes: Sequence[Bbox], outlined: bool) -> "list[Mark]":
    """A mark for each box, numbered from 1."""
    from dataflow_grounding.drawing import Mark

    return [Mark(bbox, str(number), outlined=outlined) for number, bbox in enumerate(boxes, 1)]


def marked(image: Image, boxes: Sequence[Bbox], *, outlined: bool = True) -> MarkedImage:
    """The image with marks on these boxes."""
    return MarkedImage(image.path, image.facts, image.limits, tuple(boxes), outlined)

"""A picture with numbered boxes drawn on it: regions are easier to tell apart by marks than by numbers in a text."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_grounding.geometry import Bbox
from dataflow_grounding.images import Image, kept_urls


@dataclass(frozen=True)
class MarkedImage(Image):
    """An image sent with its `boxes` (pixels, upright) outlined and numbered from 1 (Set-of-Mark, Yang et al. 2023)."""

    boxes: tuple[Bbox, ...]
    outlined: bool = True

    @property
    def as_is(self) -> bool:
        """Never: the file has no marks."""
        return False

    @property
    def sent_digest(self) -> str:
        """The file's, its size's and the boxes'."""
        drawn = hashlib.sha256(repr(self.boxes).encode()).hexdigest()[:16]
        return f"{self.facts.digest}>{self.sent_size[0]}x{self.sent_size[1]}+{'' if self.outlined else 'tags'}{drawn}"

    def keep_drawn(self, jpeg: bytes) -> None:
        """Have at hand what was drawn elsewhere with the same marks, where it is of the size that is sent."""
        import pybase64

        if self.sent_size == self.size:
            kept_urls.put(self.sent_digest, b"data:image/jpeg;base64," + pybase64.b64encode(jpeg))

    def _url_of(self, data: bytes) -> bytes:
        import pybase64

        from dataflow_grounding.drawing import Mark, draw_marks

        x, y = (sent / full for sent, full in zip(self.sent_size, self.shown_size, strict=True))
        marks = [
            Mark((b[0] * x, b[1] * y, b[2] * x, b[3] * y), str(n), outlined=self.outlined)
            for n, b in enumerate(self.boxes, 1)
        ]
        out = io.BytesIO()
        draw_marks(self.as_sent(data), marks).save(out, "JPEG", quality=92, subsampling=0)
        return b"data:image/jpeg;base64," + pybase64.b64encode(out.getvalue())


def marked(image: Image, boxes: Sequence[Bbox], *, outlined: bool = True) -> MarkedImage:
    """The image with marks on these boxes."""
    return MarkedImage(image.path, image.facts, image.limits, tuple(boxes), outlined)

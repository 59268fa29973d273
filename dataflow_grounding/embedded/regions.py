"""Regions as the embedded serving sees them.

``read_things`` takes those of a request, by label and colour. ``propose_regions`` finds boxes that
are worth a look in a picture of which nothing is known.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import area, iou
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._colors import color_mask, find_regions
from dataflow_grounding.embedded._faces import find_faces
from dataflow_grounding.embedded._picture import Array, Box, Picture, box_of
from dataflow_grounding.english.colors import CHROMATIC
from dataflow_grounding.english.heads import head_of
from dataflow_grounding.english.nouns import PAIRS, plural, singular

_DOMINANT_SHARE = 0.5  # of the pixels looked at: less is no clear colour
_SAME_REGION_IOU = 0.5  # of two proposed boxes that overlap by as much, the smaller is left out
# Of the picture's area: proposed boxes are neither smaller nor larger.
_LEAST_SHARE = 0.005
_MOST_SHARE = 0.8
_MOST_ASPECT = 5  # long over short side of a proposed box that is surrounded by edges
# Steps in brightness: one from the second on is an edge, one from the first on continues it.
_EDGE_STEPS = (60, 160)
_EDGE_GAP = 9  # px: edges with smaller gaps between them are joined
# A word of a label, apostrophes in it included: "man's" and "hat" of "man's_hat".
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Thing:
    """A region of a request."""

    id: int  # the region's, in the request
    bbox: Box  # in pixels of the picture's reduced copy
    kind: str  # its label as a noun in lower case; "thing" for a region without a label
    color: str  # a colour term; empty where none is clear, and for people

    @property
    def size(self) -> float:
        return (self.bbox[2] - self.bbox[0]) * (self.bbox[3] - self.bbox[1])


def read_things(picture: Picture, regions: Sequence[JsonObject]) -> list[Thing]:
    """Read a request's regions: `id`, perhaps `type` (a label), a box in pixels as sent."""
    scale_x = picture.width / picture.full_width
    scale_y = picture.height / picture.full_height
    things = []
    for region in regions:
        # The box's key depends on the box format; its value is the only list.
        x1, y1, x2, y2 = next(value for value in region.values() if isinstance(value, list))
        bbox = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
        label = str(region.get("type") or "").replace("_", " ").lower()
        kind = " ".join(_WORD.findall(label)) or "thing"  # "Person_sitting" is "person sitting"
        is_colored = words.NOT_COLORED.isdisjoint(map(singular, kind.split()))
        color = dominant_color(picture, bbox) if is_colored else ""
        things.append(Thing(int(region["id"]), bbox, kind, color))
    return things


def plural_of(kind: str) -> str:
    """Return the plural of a kind in lower case: "red cars", "men in a hat"."""
    parts = kind.split()
    head = head_of(kind)  # the noun that it is about: "man" of "man in a hat"
    index_of_noun = len(parts) - 1  # the last word, if none is the head
    for index, word in enumerate(parts):
        if singular(word) == head:
            index_of_noun = index
    parts[index_of_noun] = plural(parts[index_of_noun])
    return " ".join(parts)


def with_article(name: str) -> str:
    """Put "a" or "an" before a name, by its first letter; nouns that are always plural get none."""
    if name.split()[-1] in PAIRS:
        return name
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name}"


def dominant_color(picture: Picture, bbox: Box) -> str:
    """Return the colour term of at least half of a box's inner part, if any."""
    # A quarter at each side is left out, where the background may be.
    x1, y1, x2, y2 = bbox
    margin_x = (x2 - x1) / 4
    margin_y = (y2 - y1) / 4
    inner = picture.around((x1 + margin_x, y1 + margin_y, x2 - margin_x, y2 - margin_y))
    lch = [plane[inner] for plane in picture.lch]
    shares = {term: float(color_mask(term, lch).mean()) for term in words.COLOR_BOUNDS}
    best = max(shares, key=lambda term: shares[term])
    return best if shares[best] >= _DOMINANT_SHARE else ""


def propose_regions(image: Array, most: int) -> list[list[int]]:
    """Return the `most` largest boxes, from top to bottom, that are worth a look.

    They are around faces, regions of one colour, and what is surrounded by edges, in whole pixels
    of `image`, which is uint8 (H, W, 3), BGR, upright.
    """
    picture = Picture(image)
    boxes = [face.bbox for face in find_faces(picture).clear]
    # of clear colours alone: not black, white, grey or brown
    for term in dict.fromkeys(CHROMATIC.values()):
        regions = find_regions(picture, term)
        boxes += [region.bbox for region in regions if region.is_steady]
    boxes += _boxes_within_edges(picture)
    different: list[Box] = []  # the largest first
    for box in sorted(boxes, key=area, reverse=True):
        has_right_size = _LEAST_SHARE * picture.area <= area(box) <= _MOST_SHARE * picture.area
        if has_right_size and all(iou(box, larger) < _SAME_REGION_IOU for larger in different):
            different.append(box)
    top_to_bottom = sorted(different[:most], key=lambda box: (box[1], box[0]))
    return [picture.to_full(box) for box in top_to_bottom]


def _boxes_within_edges(picture: Picture) -> list[Box]:
    edges = cv2.Canny(picture.smooth, *_EDGE_STEPS)
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((_EDGE_GAP, _EDGE_GAP), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for outline in outlines:
        x, y, width, height = cv2.boundingRect(outline)
        if 1 / _MOST_ASPECT <= width / height <= _MOST_ASPECT:
            boxes.append(box_of(x, y, width, height))
    return boxes

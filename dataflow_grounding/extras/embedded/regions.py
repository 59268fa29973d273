"""Regions as the embedded serving sees them.

Those of a request, by label and colour, and those worth a look where it has none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import area, iou
from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded._cascades import find
from dataflow_grounding.extras.embedded._colors import color_mask, find_regions
from dataflow_grounding.extras.embedded._picture import Array, Box, Picture, box_of

_DOMINANT = 0.5  # of the pixels looked at: less is no clear colour
_SAME = 0.5  # IoU from which two boxes are one region
# of the picture's area
_LEAST = 0.005
_MOST = 0.8
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Thing:
    """A region in the reduced copy's pixels.

    ``kind`` is its label as a noun, ``color`` a colour term or empty.
    """

    id: int
    bbox: Box
    kind: str
    color: str

    @property
    def size(self) -> float:
        """Area of the box."""
        return (self.bbox[2] - self.bbox[0]) * (self.bbox[3] - self.bbox[1])


def read_things(picture: Picture, regions: Sequence[Mapping[str, Any]]) -> list[Thing]:
    """The regions of a request.

    Each has ``id``, ``type``, perhaps ``color``, and a box in pixels of the picture as sent.
    """
    sx = picture.width / picture.full_width
    sy = picture.height / picture.full_height
    things = []
    for region in regions:
        x1, y1, x2, y2 = next(value for value in region.values() if isinstance(value, list))
        bbox = (x1 * sx, y1 * sy, x2 * sx, y2 * sy)
        label = str(region.get("type") or "").replace("_", " ").lower()
        kind = " ".join(_WORD.findall(label)) or "thing"  # "Person_sitting" is "person sitting"
        color = _color(picture, bbox, kind, str(region.get("color") or ""))
        things.append(Thing(int(region["id"]), bbox, kind, color))
    return things


def _color(picture: Picture, bbox: Box, kind: str, told: str) -> str:
    """The colour that was told, if it is a term, else the one that is seen.

    People are not called by a colour.
    """
    if any(words.singular(word) in words.PEOPLE | words.NOT_COLORED for word in kind.split()):
        return ""
    told = told.strip().lower()
    if told in words.COLOR_BOUNDS:
        return told
    return dominant_color(picture, bbox)


def plural_of(kind: str) -> str:
    """The plural of a noun that may have several words.

    The last word is put in the plural, or the one before a word in -ing.
    """
    parts = kind.split()
    noun = -1
    if len(parts) > 1 and parts[-1].endswith("ing"):
        noun = -2
    parts[noun] = _plural(parts[noun])
    return " ".join(parts)


def with_article(name: str) -> str:
    """A noun phrase with "a" or "an"; without, where it is always plural: "glasses"."""
    if name.split()[-1] in words.ALWAYS_PLURAL:
        return name
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name}"


def _plural(word: str) -> str:
    """The plural of one word."""
    for plural, singular in words.IRREGULAR_PLURALS.items():
        if singular == word:
            return plural
    if word in words.ALWAYS_PLURAL:
        return word
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + "s"


def dominant_color(picture: Picture, bbox: Box) -> str:
    """The colour term of at least half of the box's inner quarter; empty where none is.

    The inner quarter is mostly the thing.
    """
    x1, y1, x2, y2 = bbox
    left, right = _inner(x1, x2, picture.width)
    top, bottom = _inner(y1, y2, picture.height)
    lch = [plane[top:bottom, left:right] for plane in picture.lch]
    shares = {term: float(color_mask(term, lch).mean()) for term in words.COLOR_BOUNDS}
    best = max(shares, key=lambda term: shares[term])
    return best if shares[best] >= _DOMINANT else ""


def _inner(low: float, high: float, length: int) -> tuple[int, int]:
    quarter = (high - low) / 4
    first = min(max(int(low + quarter), 0), length - 1)
    return first, min(max(int(high - quarter) + 1, first + 1), length)


def propose_regions(image: Array, most: int) -> list[list[int]]:
    """The ``most`` largest boxes of what is worth a look, in reading order.

    They are x1, y1, x2, y2 in pixels of ``image``, which is uint8 BGR, upright.
    """
    picture = Picture(image)
    boxes = [face.bbox for face in find("face", picture)[0]]
    for term in words.COLOR_BOUNDS:
        if term in words.CHROMATIC:
            regions = find_regions(picture, term).found
            boxes += [region.bbox for region in regions if region.is_steady]
    edges = cv2.Canny(picture.smooth, 60, 160)
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for outline in outlines:
        x, y, width, height = cv2.boundingRect(outline)
        if 0.2 <= width / height <= 5:
            boxes.append(box_of(x, y, width, height))
    kept: list[Box] = []
    for box in sorted(boxes, key=area, reverse=True):
        fits = _LEAST * picture.area <= area(box) <= _MOST * picture.area
        if fits and all(iou(box, larger) < _SAME for larger in kept):
            kept.append(box)
    in_order = sorted(kept[:most], key=lambda box: (box[1], box[0]))
    return [picture.to_full(box) for box in in_order]

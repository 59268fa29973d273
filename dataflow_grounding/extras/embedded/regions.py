"""Regions as the embedded serving sees them: given ones, by label and colour, and those worth a
look where none are.
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
_LEAST, _MOST = 0.005, 0.8  # of the picture's area
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Thing:
    """A region in the reduced copy's pixels: ``kind`` is its label as a noun, ``color`` a colour
    term or empty.
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
    """The regions of a request: ``id``, ``type``, perhaps ``color``, and a box in pixels of the
    picture as sent.
    """
    sx, sy = picture.width / picture.full_width, picture.height / picture.full_height
    things = []
    for region in regions:
        x1, y1, x2, y2 = next(value for value in region.values() if isinstance(value, list))
        bbox = (x1 * sx, y1 * sy, x2 * sx, y2 * sy)
        label = str(region.get("type") or "").replace("_", " ").lower()
        kind = " ".join(_WORD.findall(label)) or "thing"  # "Person_sitting" is "person sitting"
        things.append(
            Thing(
                int(region["id"]),
                bbox,
                kind,
                _color(picture, bbox, kind, str(region.get("color") or "")),
            )
        )
    return things


def _color(picture: Picture, bbox: Box, kind: str, told: str) -> str:
    """The colour that was told, if it is a term, else the one that is seen. People are not called
    by a colour.
    """
    if any(words.singular(word) in words.PEOPLE | words.NOT_COLORED for word in kind.split()):
        return ""
    told = told.strip().lower()
    return told if told in words.COLOR_BOUNDS else dominant_color(picture, bbox)


def plural_of(kind: str) -> str:
    """The plural of a noun that may have several words: that of the last, or of the one before a
    word in -ing.
    """
    parts = kind.split()
    at = -2 if len(parts) > 1 and parts[-1].endswith("ing") else -1
    parts[at] = _plural(parts[at])
    return " ".join(parts)


def with_article(name: str) -> str:
    """A noun phrase with "a" or "an"; without, where it is always plural: "glasses"."""
    if name.split()[-1] in words.ALWAYS_PLURAL:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _plural(word: str) -> str:
    irregular = next((many for many, one in words.IRREGULAR_PLURALS.items() if one == word), None)
    if irregular is not None or word in words.ALWAYS_PLURAL:
        return irregular or word
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + "s"


def dominant_color(picture: Picture, bbox: Box) -> str:
    """The colour term of at least half of the box's inner quarter, which is mostly the thing; empty
    where none is.
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
    """The ``most`` largest boxes (x1, y1, x2, y2 in pixels of ``image``, uint8 BGR, upright), in
    reading order.
    """
    picture = Picture(image)
    boxes = [face.bbox for face in find("face", picture)[0]]
    for term in [term for term in words.COLOR_BOUNDS if term in words.CHROMATIC]:
        boxes += [region.bbox for region in find_regions(picture, term).found if region.is_steady]
    closed = cv2.morphologyEx(
        cv2.Canny(picture.smooth, 60, 160), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)
    )
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes += [
        box_of(x, y, w, h) for x, y, w, h in map(cv2.boundingRect, outlines) if 0.2 <= w / h <= 5
    ]
    kept: list[Box] = []
    for box in sorted(boxes, key=area, reverse=True):
        fits = _LEAST * picture.area <= area(box) <= _MOST * picture.area
        if fits and all(iou(box, other) < _SAME for other in kept):
            kept.append(box)
    return [picture.to_full(box) for box in sorted(kept[:most], key=lambda box: (box[1], box[0]))]

"""Regions worth a look in a picture of which nothing is known: faces, patches of a clear colour, closed outlines."""

import cv2
import numpy as np

from dataflow_grounding.embedded.cascades import find
from dataflow_grounding.embedded.colors import TERMS, find_regions
from dataflow_grounding.embedded.picture import Array, Box, Picture, box_of
from dataflow_grounding.geometry import area, iou

_SAME = 0.5  # IoU from which two boxes are one region
_LEAST, _MOST = 0.005, 0.8  # of the picture's area


def propose_regions(image: Array, most: int) -> list[list[int]]:
    """The ``most`` largest boxes (x1, y1, x2, y2 in pixels of ``image``, uint8 BGR, upright), in reading order."""
    picture = Picture(image)
    boxes = [face.bbox for face in find("face", picture).found]
    boxes += [r.candidate.bbox for term in TERMS for r in find_regions(picture, term).found if r.is_steady]
    boxes += _outlined(picture)
    kept: list[Box] = []
    for box in sorted(boxes, key=area, reverse=True):
        fits = _LEAST * picture.area <= area(box) <= _MOST * picture.area
        if fits and all(iou(box, other) < _SAME for other in kept):
            kept.append(box)
    return [picture.to_full(box) for box in sorted(kept[:most], key=lambda box: (box[1], box[0]))]


def _outlined(picture: Picture) -> list[Box]:
    """Boxes around closed outlines: edges, with small gaps closed."""
    edges = cv2.Canny(picture.smooth, 60, 160)
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = [cv2.boundingRect(contour) for contour in contours]
    return [box_of(x, y, w, h) for x, y, w, h in found if 0.2 <= w / h <= 5]

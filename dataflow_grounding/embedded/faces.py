"""Frontal faces by two Haar cascades that must agree, and the people they belong to."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import cv2

from dataflow_grounding.embedded.picture import Array, Box, Candidate, Picture
from dataflow_grounding.geometry import iou

# Hand-set: on portraits nearly all are right, but nothing is measured here that could tell one from the other.
FACE_SCORE = 0.9
PERSON_SCORE = 0.7
_SEARCH_SIDE = 480  # px
_MIN_NEIGHBORS, _FEW_NEIGHBORS = 10, 4
_AGREEMENT = 0.4

_loaded = threading.local()  # a cascade may not be used by two threads at once


def _cascade(name: str) -> Any:
    if not hasattr(_loaded, name):
        path = os.path.join(os.path.dirname(cv2.__file__), "data", f"haarcascade_{name}.xml")
        setattr(_loaded, name, cv2.CascadeClassifier(path))
    return getattr(_loaded, name)


@dataclass(frozen=True, slots=True)
class Faces:
    """Faces seen, left to right, and how many more places look a bit like a face."""

    found: list[Candidate]
    doubtful: int


def find_faces(picture: Picture) -> Faces:
    """Faces that look at the camera; boxes from the hairline to the chin."""
    if min(picture.width, picture.height) < 24:
        return Faces([], 0)
    # The cascades take most of the time; they see little less at this size.
    scale = min(1.0, _SEARCH_SIDE / max(picture.width, picture.height))
    gray = cv2.equalizeHist(cv2.resize(picture.gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    smallest = max(20, min(gray.shape) // 17)
    hits, neighbors = _cascade("frontalface_alt2").detectMultiScale2(
        gray, scaleFactor=1.1, minNeighbors=_FEW_NEIGHBORS, minSize=(smallest, smallest)
    )
    found, doubtful = [], 0
    for (x, y, w, h), votes in sorted((tuple(map(int, hit)), int(n)) for hit, n in zip(hits, neighbors, strict=True)):
        is_confirmed = _is_confirmed(gray, (x, y, x + w, y + h))
        if is_confirmed and votes >= _MIN_NEIGHBORS:
            # The cascade's square stands high and ends above the chin.
            box = (x / scale, (y + 0.05 * h) / scale, (x + w) / scale, min((y + 1.15 * h) / scale, picture.height))
            found.append(Candidate(box, w * h * 1.1 / scale**2, FACE_SCORE, "seen"))
        elif is_confirmed or votes >= _MIN_NEIGHBORS:
            doubtful += 1
    return Faces(found, doubtful)


def _is_confirmed(gray: Array, box: Box) -> bool:
    """Whether the second cascade finds the same face in the surroundings of the first one's."""
    x1, y1, x2, y2 = (int(v) for v in box)
    margin = (x2 - x1) // 2
    left, top = max(0, x1 - margin), max(0, y1 - margin)
    around = gray[top : y2 + margin, left : x2 + margin]
    side = (x2 - x1) // 2
    hits = _cascade("frontalface_default").detectMultiScale(
        around, scaleFactor=1.05, minNeighbors=3, minSize=(side, side)
    )
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return any(iou(moved, (float(x), float(y), float(x + w), float(y + h))) > _AGREEMENT for x, y, w, h in hits)


def people_of(faces: list[Candidate], picture: Picture) -> list[Candidate]:
    """A person for each face: 3.2 face widths wide, half a face above to seven below, inside the picture."""
    people = []
    for face in faces:
        x1, y1, x2, y2 = face.bbox
        width, height = x2 - x1, (y2 - y1) / 1.1
        middle = (x1 + x2) / 2
        box = (
            max(0.0, middle - 1.6 * width),
            max(0.0, y1 - 0.5 * height),
            min(float(picture.width), middle + 1.6 * width),
            min(float(picture.height), y1 + 7.5 * height),
        )
        people.append(Candidate(box, face.size, PERSON_SCORE, "inferred"))
    return people

"""Frontal faces by two Haar cascades that must agree, and the people they belong to."""

from __future__ import annotations

import os
import threading
from typing import Any

import cv2

from .picture import Array, Box, Candidate, Picture, box_iou

# Hand-set: on portraits nearly all are right, but nothing is measured here that could tell one from the other.
FACE_SCORE = 0.9
PERSON_SCORE = 0.7
_SEARCH_SIDE = 480  # px
_MIN_NEIGHBORS = 10
_AGREEMENT = 0.4


_loaded = threading.local()  # a cascade may not be used by two threads at once


def _cascade(name: str) -> Any:
    if not hasattr(_loaded, name):
        path = os.path.join(os.path.dirname(cv2.__file__), "data", f"haarcascade_{name}.xml")
        setattr(_loaded, name, cv2.CascadeClassifier(path))
    return getattr(_loaded, name)


def find_faces(picture: Picture) -> list[Candidate]:
    """Faces that look at the camera, left to right; boxes from the hairline to the chin."""
    if min(picture.width, picture.height) < 24:
        return []
    # The cascades take most of the time; they see no less at this size.
    scale = min(1.0, _SEARCH_SIDE / max(picture.width, picture.height))
    gray = cv2.equalizeHist(cv2.resize(picture.gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    smallest = max(20, min(gray.shape) // 20)
    hits = _cascade("frontalface_alt2").detectMultiScale(
        gray, scaleFactor=1.1, minNeighbors=_MIN_NEIGHBORS, minSize=(smallest, smallest)
    )
    faces = []
    for x, y, w, h in sorted(tuple(int(v) for v in hit) for hit in hits):
        if _is_confirmed(gray, (x, y, x + w, y + h)):
            # The cascade's square stands high and ends above the chin.
            box = (x / scale, (y + 0.05 * h) / scale, (x + w) / scale, min((y + 1.15 * h) / scale, picture.height))
            faces.append(Candidate(box, w * h * 1.1 / scale**2, FACE_SCORE, "seen"))
    return faces


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
    return any(box_iou(moved, (float(x), float(y), float(x + w), float(y + h))) > _AGREEMENT for x, y, w, h in hits)


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

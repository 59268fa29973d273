"""Faces by OpenCV's cascades, and the people that are guessed around them.

A single cascade often sees faces that aren't there. A face is clear only where a second one,
trained apart from the first, sees it at nearly the same place; else it is doubtful.
"""

import os
import threading
from typing import Any, NamedTuple

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import clamp, iou
from dataflow_grounding.embedded._picture import Array, Box, Candidate, Picture

# Scores set by hand, the same for every candidate of a sort.
_FACE_SCORE = 0.9
_PERSON_SCORE = 0.7
_SEARCH_SIDE = 480  # long side in pixels of the copy that is searched
_LEAST_SEARCHED_SIDE = 24  # px, of the copy's short side: a smaller one isn't searched
# Votes are the overlapping windows in which a cascade sees a face.
_CLEAR_VOTES = 10  # votes that make a hit clear
_REPORTED_VOTES = 4  # a hit with fewer isn't reported
_SAME_FACE_IOU = 0.4
# Smaller faces aren't looked for: in pixels of the copy, and as a part of its short side.
_LEAST_FACE = 20
_FACES_A_SIDE = 17
# Chroma and hue as in Picture.lch. The hues of skin go from 345 degrees over 0 to 90.
_GREY_CHROMA = 10.0  # a face whose median chroma is lower is grey, as in an old picture
_LEAST_SKIN_CHROMA = 6
_SKIN_HUES = (345, 90)
_LEAST_SKIN = 0.8  # of the pixels in a face's middle
# Where something lies relative to a box: x1, y1, x2, y2 in widths and heights of the box.
_FACE_IN_HIT = (0.0, 0.05, 1.0, 1.15)  # the cascade's box is too high and ends above the chin
_MIDDLE_OF_FACE = (0.2, 0.4, 0.8, 0.75)
_PERSON_OF_FACE = (-1.1, -0.4545, 2.1, 6.818)  # a guess

_loaded = threading.local()  # a cascade may not be used by two threads at once


class Faces(NamedTuple):
    """Faces from left to right: those that both cascades see, and how many only one sees."""

    clear: list[Candidate]
    doubtful: int


def find_faces(picture: Picture) -> Faces:
    """Return the frontal faces in a picture: the clear ones, and how many are doubtful."""
    scale = min(1.0, _SEARCH_SIDE / max(picture.width, picture.height))
    if scale * min(picture.width, picture.height) < _LEAST_SEARCHED_SIDE:
        return Faces([], 0)
    small = cv2.resize(picture.gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    gray = np.asarray(cv2.equalizeHist(small))  # its contrast is evened out
    clear: list[Candidate] = []
    doubtful = 0
    least_side = max(_LEAST_FACE, min(gray.shape) // _FACES_A_SIDE)
    for box, votes in _hits("frontalface_alt2", gray, least_side):
        is_seen_again = _is_seen_again(gray, box)
        has_many_votes = votes >= _CLEAR_VOTES
        x1, y1, x2, y2 = (edge / scale for edge in box)  # in pixels of `picture`
        face = _relative((x1, y1, x2, y2), _FACE_IN_HIT, picture)
        # without skin it may be an animal's
        if is_seen_again and has_many_votes and _has_skin(face, picture):
            clear.append(Candidate(face, _FACE_SCORE, "seen"))
        elif is_seen_again or has_many_votes:
            doubtful += 1
    return Faces(clear, doubtful)


def person_of(face: Candidate, picture: Picture) -> Candidate:
    """Return the person whose face it is: a box guessed around it."""
    person = _relative(face.bbox, _PERSON_OF_FACE, picture)
    return Candidate(person, _PERSON_SCORE, "inferred")


def _hits(
    name: str, gray: Array, least_side: int, step: float = 1.1, votes: int = _REPORTED_VOTES
) -> list[tuple[Box, int]]:
    """Return the boxes in which a cascade of OpenCV's sees a face, with votes, from left to right.

    `step` is the factor between the sizes of face that are looked for.
    """
    rectangles, counts = _cascade(name).detectMultiScale2(
        gray, scaleFactor=step, minNeighbors=votes, minSize=(least_side, least_side)
    )
    hits: list[tuple[Box, int]] = []
    for rectangle, count in zip(rectangles, counts, strict=True):
        x, y, width, height = map(int, rectangle)
        hits.append(((x, y, x + width, y + height), int(count)))
    return sorted(hits)


def _cascade(name: str) -> Any:
    """Return a cascade, which each thread loads once."""
    if not hasattr(_loaded, name):
        path = os.path.join(os.path.dirname(cv2.__file__), "data", f"haarcascade_{name}.xml")
        setattr(_loaded, name, cv2.CascadeClassifier(path))
    return getattr(_loaded, name)


def _is_seen_again(gray: Array, box: Box) -> bool:
    """Return whether the second cascade sees it, too, in smaller steps and with fewer votes."""
    x1, y1, x2, y2 = map(int, box)
    margin = (x2 - x1) // 2
    left = max(0, x1 - margin)
    top = max(0, y1 - margin)
    part = gray[top : y2 + margin, left : x2 + margin]
    hits = _hits("frontalface_default", part, min(x2 - x1, y2 - y1) // 2, step=1.05, votes=3)
    for (hit_x1, hit_y1, hit_x2, hit_y2), _ in hits:
        again = (hit_x1 + left, hit_y1 + top, hit_x2 + left, hit_y2 + top)
        if iou(again, box) > _SAME_FACE_IOU:
            return True
    return False


def _has_skin(face: Box, picture: Picture) -> bool:
    """Return whether its middle has the colours of skin, or is grey, where they tell nothing."""
    middle = picture.around(_relative(face, _MIDDLE_OF_FACE, picture))
    _, chroma, hue = (plane[middle] for plane in picture.lch)
    is_grey = np.median(chroma) < _GREY_CHROMA
    first_hue, last_hue = _SKIN_HUES
    is_skin_hue = (hue > first_hue) | (hue < last_hue)  # either: the range goes through 0
    is_skin = is_skin_hue & (chroma > _LEAST_SKIN_CHROMA)
    return bool(is_grey or is_skin.mean() > _LEAST_SKIN)


def _relative(box: Box, relative: Box, picture: Picture) -> Box:
    """Return a part of a box inside the picture: (0.25, 0.25, 0.75, 0.75) is its middle."""
    x1, y1, x2, y2 = box
    width = x2 - x1
    height = y2 - y1
    left, top, right, bottom = relative
    whole = (x1 + left * width, y1 + top * height, x1 + right * width, y1 + bottom * height)
    return clamp(whole, (picture.width, picture.height))

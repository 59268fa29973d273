"""What OpenCV's own detectors see, where two of them agree.

That is faces, eyes, people, cats and license plates.
"""

import os
import threading
from typing import Any

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import clamp, iou
from dataflow_grounding.extras.embedded._picture import Array, Box, Candidate, Picture

# Hand-set: on portraits nearly all are right, but nothing is measured here that could tell one from
# the other.
FACE_SCORE = 0.9
GUESS_SCORE = 0.7
_SEARCH_SIDE = 480  # px; the cascades take most of the time and see little less at this size
_MIN_VOTES = 10
_FEW_VOTES = 4
_MIN_WEIGHT = 0.5  # of the people detector, where its zero is undecided
_AGREEMENT = 0.4
_GREY = 10.0  # chroma
_SKIN = 0.8  # part of a face's middle
# For each kind two cascades, and the part of the first one's box that is the thing: a face's stands
# high and ends above the chin, a cat's has no ears.
_CASCADES: dict[str, tuple[str, str, Box]] = {
    "face": ("frontalface_alt2", "frontalface_default", (0, 0.05, 1, 1.15)),
    "cat face": ("frontalcatface_extended", "frontalcatface", (-0.15, -0.25, 1.15, 1.05)),
    "plate": ("russian_plate_number", "license_plate_rus_16stages", (0, 0, 1, 1)),
}
# What part of a cascade's box an eye, a body or the middle of a face is.
_EYE = (0.08, 0.25, 0.92, 0.75)
_BODY = (0.2, 0.17, 0.8, 0.92)
_MIDDLE = (0.2, 0.4, 0.8, 0.75)
# What a face belongs to, in parts of the face's box: a guess.
_OWNERS: dict[str, Box] = {
    "face": (-1.1, -0.4545, 2.1, 6.818),
    "cat face": (-0.65, -0.04, 1.65, 2.9),
}

_loaded = threading.local()  # a cascade may not be used by two threads at once


def _cascade(name: str) -> Any:
    if not hasattr(_loaded, name):
        path = os.path.join(os.path.dirname(cv2.__file__), "data", f"haarcascade_{name}.xml")
        setattr(_loaded, name, cv2.CascadeClassifier(path))
    return getattr(_loaded, name)


def find(kind: str, picture: Picture) -> tuple[list[Candidate], list[Candidate]]:
    """Things of a kind that two detectors agree on, left to right, and places a bit like them.

    Kinds are "face" and "cat face" (frontal), "plate" (of a car) and "body" (people from head to
    foot).
    """
    if kind == "body":
        return _find_bodies(picture)
    first, second, part = _CASCADES[kind]
    scale = min(1.0, _SEARCH_SIDE / max(picture.width, picture.height))
    if scale * min(picture.width, picture.height) < 24:
        return [], []
    small = cv2.resize(picture.gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    gray = cv2.equalizeHist(small)
    clear, doubtful = [], []
    for box, votes in _hits(first, gray, max(20, min(gray.shape) // 17)):
        is_confirmed = _confirmed(second, gray, box) is not None
        has_many_votes = votes >= _MIN_VOTES
        thing = _part_of(_placed(box, scale), part, picture, FACE_SCORE, "seen")
        is_clear = is_confirmed and has_many_votes
        if is_clear and kind == "face":
            is_clear = _has_skin(thing.bbox, picture)
        if is_clear:
            clear.append(thing)
        elif is_confirmed or has_many_votes:
            doubtful.append(thing)
    return clear, doubtful


def _has_skin(face: Box, picture: Picture) -> bool:
    """Whether a face's middle is of skin's hues all over, or grey as in an old picture.

    An animal's fur is neither.
    """
    middle = _part_of(face, _MIDDLE, picture, 0, "")
    x1, y1, x2, y2 = map(int, middle.bbox)
    _, chroma, hue = picture.lch
    chroma = chroma[y1:y2, x1:x2]
    hue = hue[y1:y2, x1:x2]
    is_skin = (chroma > 6) & ((hue < 90) | (hue > 345))
    return bool(np.median(chroma) < _GREY or is_skin.mean() > _SKIN)


def _hits(
    name: str, gray: Array, least: int, step: float = 1.1, votes: int = _FEW_VOTES
) -> list[tuple[Box, int]]:
    """Where a cascade sees its thing, in order, and by how many votes."""
    rectangles, counts = _cascade(name).detectMultiScale2(
        gray, scaleFactor=step, minNeighbors=votes, minSize=(least, least)
    )
    hits = []
    for rectangle, count in zip(rectangles, counts, strict=True):
        x, y, width, height = map(int, rectangle)
        hits.append(((x, y, x + width, y + height), int(count)))
    return sorted(hits)


def _confirmed(name: str, gray: Array, box: Box) -> Box | None:
    """The same thing as another cascade sees it in the surroundings of a box."""
    x1, y1, x2, y2 = map(int, box)
    margin = (x2 - x1) // 2
    left = max(0, x1 - margin)
    top = max(0, y1 - margin)
    around = gray[top : y2 + margin, left : x2 + margin]
    for hit, _ in _hits(name, around, min(x2 - x1, y2 - y1) // 2, 1.05, 3):
        seen_again = _placed(hit, 1, left, top)
        if iou(seen_again, box) > _AGREEMENT:
            return seen_again
    return None


def _placed(box: Box, scale: float, left: float = 0, top: float = 0) -> Box:
    """A box in the picture that was found in an enlarged part of it."""
    return box[0] / scale + left, box[1] / scale + top, box[2] / scale + left, box[3] / scale + top


def _part_of(box: Box, part: Box, picture: Picture, score: float, evidence: str) -> Candidate:
    """A part of a box, or what it is a part of, as far as it lies in the picture.

    Its size is the box's.
    """
    x1, y1, x2, y2 = box
    left, top, right, bottom = part
    width = x2 - x1
    height = y2 - y1
    whole = (x1 + left * width, y1 + top * height, x1 + right * width, y1 + bottom * height)
    bbox = clamp(whole, (picture.width, picture.height))
    return Candidate(bbox, width * height, score, evidence)


def find_eyes(face: Candidate, picture: Picture) -> list[Candidate]:
    """Both open eyes of a face, or none."""
    x1, y1, x2, y2 = map(int, face.bbox)
    scale = 200 / (x2 - x1)
    upper = picture.gray[y1 : y1 + round(0.6 * (y2 - y1)), x1:x2]
    gray = cv2.equalizeHist(cv2.resize(upper, None, fx=scale, fy=scale))
    eyes = []
    for hit, votes in _hits("eye", gray, 24, 1.05):
        if votes >= _MIN_VOTES and _confirmed("eye_tree_eyeglasses", gray, hit):
            eyes.append(_part_of(_placed(hit, scale, x1, y1), _EYE, picture, FACE_SCORE, "seen"))
    if len(eyes) != 2:
        return []
    first, second = eyes[0].bbox, eyes[1].bbox
    is_level = abs(first[1] - second[1]) < 0.15 * (y2 - y1)
    return eyes if is_level and first[2] < second[0] else []


def _find_bodies(picture: Picture) -> tuple[list[Candidate], list[Candidate]]:
    """People who stand or walk, seen whole, by the people detector and a cascade."""
    if picture.width < 64 or picture.height < 128:
        return [], []
    people = cv2.HOGDescriptor()
    people.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector()))
    hits, weights = people.detectMultiScale(
        picture.bgr, winStride=(8, 8), padding=(8, 8), scale=1.05
    )
    clear, doubtful = [], []
    for (x, y, w, h), weight in sorted(zip(map(tuple, hits), np.ravel(weights), strict=True)):
        hit = (int(x), int(y), int(x + w), int(y + h))
        box = _confirmed("fullbody", picture.gray, hit)
        if box is not None and weight >= _MIN_WEIGHT:
            clear.append(_part_of(box, _BODY, picture, GUESS_SCORE, "seen"))
        elif weight >= 2 * _MIN_WEIGHT:
            doubtful.append(_part_of(hit, _BODY, picture, GUESS_SCORE, "seen"))
    return clear, doubtful


def owners_of(kind: str, faces: list[Candidate], picture: Picture) -> list[Candidate]:
    """A person or a cat for each face: a guess three face widths wide, inside the picture."""
    return [_part_of(face.bbox, _OWNERS[kind], picture, GUESS_SCORE, "inferred") for face in faces]

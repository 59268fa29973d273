"""What OpenCV's own detectors see, where two of them agree: faces, eyes, people, cats, license
plates.
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
_MIN_VOTES, _FEW_VOTES = 10, 4
_MIN_WEIGHT = 0.5  # of the people detector, where its zero is undecided
_AGREEMENT = 0.4
_GREY, _SKIN = 10.0, 0.8  # chroma, part of a face's middle
# For each kind two cascades, and the part of the first one's box that is the thing: a face's stands
# high and ends above the chin, a cat's has no ears.
_CASCADES: dict[str, tuple[str, str, Box]] = {
    "face": ("frontalface_alt2", "frontalface_default", (0, 0.05, 1, 1.15)),
    "cat face": ("frontalcatface_extended", "frontalcatface", (-0.15, -0.25, 1.15, 1.05)),
    "plate": ("russian_plate_number", "license_plate_rus_16stages", (0, 0, 1, 1)),
}
_EYE, _BODY, _MIDDLE = (0.08, 0.25, 0.92, 0.75), (0.2, 0.17, 0.8, 0.92), (0.2, 0.4, 0.8, 0.75)
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
    """Things of a kind: "face" and "cat face" (frontal), "plate" (of a car), "body" (people from
    head to foot).

    Those that two detectors agree on, left to right, and other places that are a bit like them.
    """
    if kind == "body":
        return _find_bodies(picture)
    first, second, part = _CASCADES[kind]
    scale = min(1.0, _SEARCH_SIDE / max(picture.width, picture.height))
    if scale * min(picture.width, picture.height) < 24:
        return [], []
    gray = cv2.equalizeHist(
        cv2.resize(picture.gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    )
    found, doubtful = [], []
    for box, votes in _hits(first, gray, max(20, min(gray.shape) // 17)):
        is_confirmed = _confirmed(second, gray, box) is not None
        thing = _part_of(_placed(box, scale), part, picture, FACE_SCORE, "seen")
        if (
            is_confirmed
            and votes >= _MIN_VOTES
            and (kind != "face" or _has_skin(thing.bbox, picture))
        ):
            found.append(thing)
        elif is_confirmed or votes >= _MIN_VOTES:
            doubtful.append(thing)
    return found, doubtful


def _has_skin(face: Box, picture: Picture) -> bool:
    """Whether a face's middle is of skin's hues all over, or grey as in an old picture: an animal's
    fur is neither.
    """
    x1, y1, x2, y2 = (int(v) for v in _part_of(face, _MIDDLE, picture, 0, "").bbox)
    _, chroma, hue = (plane[y1:y2, x1:x2] for plane in picture.lch)
    is_skin = (chroma > 6) & ((hue < 90) | (hue > 345))
    return bool(np.median(chroma) < _GREY or is_skin.mean() > _SKIN)


def _hits(
    name: str, gray: Array, least: int, step: float = 1.1, votes: int = _FEW_VOTES
) -> list[tuple[Box, int]]:
    hits, counts = _cascade(name).detectMultiScale2(
        gray, scaleFactor=step, minNeighbors=votes, minSize=(least, least)
    )
    boxes = (tuple(map(int, hit)) for hit in hits)
    return sorted(
        ((x, y, x + w, y + h), int(n)) for (x, y, w, h), n in zip(boxes, counts, strict=True)
    )


def _confirmed(name: str, gray: Array, box: Box) -> Box | None:
    """The same thing as another cascade sees it in the surroundings of a box."""
    x1, y1, x2, y2 = (int(v) for v in box)
    margin = (x2 - x1) // 2
    left, top = max(0, x1 - margin), max(0, y1 - margin)
    around = gray[top : y2 + margin, left : x2 + margin]
    again = (
        _placed(hit, 1, left, top)
        for hit, _ in _hits(name, around, min(x2 - x1, y2 - y1) // 2, 1.05, 3)
    )
    return next((hit for hit in again if iou(hit, box) > _AGREEMENT), None)


def _placed(box: Box, scale: float, left: float = 0, top: float = 0) -> Box:
    """A box in the picture that was found in an enlarged part of it."""
    return box[0] / scale + left, box[1] / scale + top, box[2] / scale + left, box[3] / scale + top


def _part_of(box: Box, part: Box, picture: Picture, score: float, evidence: str) -> Candidate:
    """A part of a box, or what it is a part of, as far as it lies in the picture; its size is the
    box's.
    """
    (x1, y1, x2, y2), (left, top, right, bottom) = box, part
    width, height = x2 - x1, y2 - y1
    whole = (x1 + left * width, y1 + top * height, x1 + right * width, y1 + bottom * height)
    return Candidate(clamp(whole, (picture.width, picture.height)), width * height, score, evidence)


def find_eyes(face: Candidate, picture: Picture) -> list[Candidate]:
    """Both open eyes of a face, or none."""
    x1, y1, x2, y2 = (int(v) for v in face.bbox)
    scale = 200 / (x2 - x1)
    upper = picture.gray[y1 : y1 + round(0.6 * (y2 - y1)), x1:x2]
    gray = cv2.equalizeHist(cv2.resize(upper, None, fx=scale, fy=scale))
    eyes = []
    for hit, votes in _hits("eye", gray, 24, 1.05):
        if votes >= _MIN_VOTES and _confirmed("eye_tree_eyeglasses", gray, hit):
            eyes.append(_part_of(_placed(hit, scale, x1, y1), _EYE, picture, FACE_SCORE, "seen"))
    is_pair = len(eyes) == 2 and abs(eyes[0].bbox[1] - eyes[1].bbox[1]) < 0.15 * (y2 - y1)
    return eyes if is_pair and eyes[0].bbox[2] < eyes[1].bbox[0] else []


def _find_bodies(picture: Picture) -> tuple[list[Candidate], list[Candidate]]:
    """People who stand or walk, seen whole, by the people detector and a cascade."""
    if picture.width < 64 or picture.height < 128:
        return [], []
    people = cv2.HOGDescriptor()
    people.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector()))
    hits, weights = people.detectMultiScale(
        picture.bgr, winStride=(8, 8), padding=(8, 8), scale=1.05
    )
    found, doubtful = [], []
    for (x, y, w, h), weight in sorted(zip(map(tuple, hits), np.ravel(weights), strict=True)):
        hit = (int(x), int(y), int(x + w), int(y + h))
        box = _confirmed("fullbody", picture.gray, hit)
        if box is not None and weight >= _MIN_WEIGHT:
            found.append(_part_of(box, _BODY, picture, GUESS_SCORE, "seen"))
        elif weight >= 2 * _MIN_WEIGHT:
            doubtful.append(_part_of(hit, _BODY, picture, GUESS_SCORE, "seen"))
    return found, doubtful


def owners_of(kind: str, faces: list[Candidate], picture: Picture) -> list[Candidate]:
    """A person or a cat for each face: a guess that is three face widths wide, inside
    the picture.
    """
    return [_part_of(face.bbox, _OWNERS[kind], picture, GUESS_SCORE, "inferred") for face in faces]

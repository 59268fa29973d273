"""OpenCV's own detectors: frontal faces, eyes, standing people, cats' faces, license plates.

A single detector often sees things that aren't there. A detection therefore counts as clear only
where a second detector, trained apart from the first, sees the same thing at nearly the same place.
What only one of them sees is doubtful, and makes the grounder say that it can't tell.
"""

import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from dataflow_grounding.boxes.geometry import clamp, iou
from dataflow_grounding.extras.embedded._picture import Array, Box, Candidate, Picture

# Scores set by hand, the same for every candidate of a sort: nothing that is measured here could
# tell a right one from a wrong one.
FACE_SCORE = 0.9  # a face, a plate or an eye that two cascades see
GUESS_SCORE = 0.7  # a body, or a person or cat guessed around a face
# The long side in pixels of the copy that cascades search. They take most of the time, and see
# little less at this size.
_SEARCH_SIDE = 480
_LEAST_SEARCHED_SIDE = 24  # px, of the copy's short side: a smaller one isn't searched
# Votes are the overlapping windows in which a cascade sees its thing.
_CLEAR_VOTES = 10  # as many make a hit clear
_REPORTED_VOTES = 4  # a hit with fewer isn't reported
# The size in pixels of the smallest person that the HOG people detector can see.
_BODY_WIDTH = 64
_BODY_HEIGHT = 128
_LEAST_BODY_WEIGHT = 0.5  # the people detector's score; at zero it is undecided
_SAME_THING_IOU = 0.4  # two detectors' boxes that overlap by more are of one thing
# Chroma and hue as in Picture.lch. The hues of skin go from 345 degrees over 0 to 90.
_GREY_CHROMA = 10.0  # a face whose median chroma is lower is grey
_LEAST_SKIN_CHROMA = 6
_FIRST_SKIN_HUE = 345
_LAST_SKIN_HUE = 90
_LEAST_SKIN = 0.8  # of the pixels in a face's middle
# Eyes are looked for in the upper part of a face, enlarged or reduced to this width in pixels.
_FACE_WIDTH_FOR_EYES = 200
_PART_WITH_EYES = 0.6  # of the face's height, from its upper edge
_LEAST_EYE_SIDE = 24  # px of the part that is searched
_MOST_EYE_TILT = 0.15  # of the face's height: the upper edges of level eyes differ by less
# A relative box says where something lies in or around another box: x1, y1, x2, y2, where 0 is that
# box's left or upper edge and 1 its right or lower edge. Below 0 and above 1 is outside of it.
_EYE_IN_HIT = (0.08, 0.25, 0.92, 0.75)
_BODY_IN_HIT = (0.2, 0.17, 0.8, 0.92)
_MIDDLE_OF_FACE = (0.2, 0.4, 0.8, 0.75)
# Where the rest of a person or cat is likely to be, relative to the face: a guess.
_OWNER_OF_FACE: dict[str, Box] = {
    "face": (-1.1, -0.4545, 2.1, 6.818),
    "cat face": (-0.65, -0.04, 1.65, 2.9),
}

_loaded = threading.local()  # a cascade may not be used by two threads at once


@dataclass(frozen=True, slots=True)
class _CascadePair:
    """Two cascades that must agree on a thing.

    ``thing_in_hit`` is where the thing lies relative to the box that ``detector`` reports.
    """

    detector: str
    confirmer: str
    thing_in_hit: Box


# The cascade's box of a face is too high and ends above the chin; that of a cat lacks the ears.
_CASCADE_PAIRS = {
    "face": _CascadePair("frontalface_alt2", "frontalface_default", (0, 0.05, 1, 1.15)),
    "cat face": _CascadePair(
        "frontalcatface_extended", "frontalcatface", (-0.15, -0.25, 1.15, 1.05)
    ),
    "plate": _CascadePair("russian_plate_number", "license_plate_rus_16stages", (0, 0, 1, 1)),
}


class Detections(NamedTuple):
    """Things that are seen, both lists from left to right by the boxes of the first detector.

    Attributes:
        clear: Things on which both detectors agree.
        doubtful: Places that are a bit like such a thing, to one of the detectors.
    """

    clear: list[Candidate]
    doubtful: list[Candidate]


def _cascade(name: str) -> Any:
    """Return OpenCV's cascade of that name, loaded once for each thread."""
    if not hasattr(_loaded, name):
        path = os.path.join(os.path.dirname(cv2.__file__), "data", f"haarcascade_{name}.xml")
        setattr(_loaded, name, cv2.CascadeClassifier(path))
    return getattr(_loaded, name)


def detect(kind: str, picture: Picture) -> Detections:
    """Return the things of a kind that are in the picture, in pixels of the reduced copy.

    A thing is clear if the first cascade sees it by at least _CLEAR_VOTES and the second confirms
    it, and doubtful if only one of these holds; what neither holds of is left out. A face without
    skin is doubtful, too. In a picture that is too small to be searched nothing is found.

    Kinds are "face" and "cat face" (frontal), "plate" (of a car) and "body" (people from head to
    foot, which have rules of their own).
    """
    if kind == "body":
        return _detect_bodies(picture)
    cascades = _CASCADE_PAIRS[kind]
    scale = min(1.0, _SEARCH_SIDE / max(picture.width, picture.height))
    if scale * min(picture.width, picture.height) < _LEAST_SEARCHED_SIDE:
        return Detections([], [])
    small = cv2.resize(picture.gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    gray = cv2.equalizeHist(small)
    least_side = max(20, min(gray.shape) // 17)
    detections = Detections([], [])
    for box, votes in _hits(cascades.detector, gray, least_side):
        is_confirmed = _box_seen_again(cascades.confirmer, gray, box) is not None
        has_many_votes = votes >= _CLEAR_VOTES
        hit = _from_enlarged_part(box, scale)
        thing = _at_relative_box(hit, cascades.thing_in_hit, picture, FACE_SCORE, "seen")
        is_clear = is_confirmed and has_many_votes
        if is_clear and kind == "face":
            is_clear = _has_skin(thing.bbox, picture)
        if is_clear:
            detections.clear.append(thing)
        elif is_confirmed or has_many_votes:
            detections.doubtful.append(thing)
    return detections


def _has_skin(face: Box, picture: Picture) -> bool:
    """Return whether a face's middle has the hues of skin nearly all over, or is grey.

    An old picture is grey all over. An animal's fur is neither grey nor of skin's hues.
    """
    middle = _at_relative_box(face, _MIDDLE_OF_FACE, picture, 0, "")
    x1, y1, x2, y2 = map(int, middle.bbox)
    _, chroma, hue = picture.lch
    chroma = chroma[y1:y2, x1:x2]
    hue = hue[y1:y2, x1:x2]
    has_hue_of_skin = (hue < _LAST_SKIN_HUE) | (hue > _FIRST_SKIN_HUE)
    is_skin = (chroma > _LEAST_SKIN_CHROMA) & has_hue_of_skin
    is_grey = np.median(chroma) < _GREY_CHROMA
    return bool(is_grey or is_skin.mean() > _LEAST_SKIN)


class _Hit(NamedTuple):
    """A box (x1, y1, x2, y2 in pixels) in which a cascade sees its thing, and by how many votes."""

    box: Box
    votes: int


def _hits(
    cascade: str,
    gray: Array,
    least_side: int,
    scale_step: float = 1.1,
    least_votes: int = _REPORTED_VOTES,
) -> list[_Hit]:
    """Return where a cascade sees its thing in a gray image, by at least ``least_votes`` votes.

    The hits come in the order of their left edges. Things smaller than ``least_side`` pixels aren't
    looked for. Each pass looks for things ``scale_step`` times as large as the last.
    """
    rectangles, votes = _cascade(cascade).detectMultiScale2(
        gray, scaleFactor=scale_step, minNeighbors=least_votes, minSize=(least_side, least_side)
    )
    hits = []
    for rectangle, count in zip(rectangles, votes, strict=True):
        x, y, width, height = map(int, rectangle)
        hits.append(_Hit((x, y, x + width, y + height), int(count)))
    return sorted(hits)


def _box_seen_again(cascade: str, gray: Array, box: Box) -> Box | None:
    """Return the box in which another cascade sees the thing of a box; None if it sees none there.

    It searches the box and half the box's width around it. Of several hits that overlap the box by
    more than _SAME_THING_IOU, the one with the leftmost edge is taken.
    """
    x1, y1, x2, y2 = map(int, box)
    margin = (x2 - x1) // 2
    left = max(0, x1 - margin)
    top = max(0, y1 - margin)
    surroundings = gray[top : y2 + margin, left : x2 + margin]
    least_side = min(x2 - x1, y2 - y1) // 2
    for hit in _hits(cascade, surroundings, least_side, scale_step=1.05, least_votes=3):
        seen_again = _from_enlarged_part(hit.box, 1, left, top)
        if iou(seen_again, box) > _SAME_THING_IOU:
            return seen_again
    return None


def _from_enlarged_part(box: Box, scale: float, left: float = 0, top: float = 0) -> Box:
    """Return in the picture's pixels a box that was found in a part of it.

    ``scale`` is the factor by which that part was enlarged, or reduced if it is below 1. ``left``
    and ``top`` are where the part begins in the picture.
    """
    x1, y1, x2, y2 = box
    return x1 / scale + left, y1 / scale + top, x2 / scale + left, y2 / scale + top


def _at_relative_box(
    box: Box, relative: Box, picture: Picture, score: float, evidence: str
) -> Candidate:
    """Return a candidate in or around a box, cut off at the picture's edges.

    ``relative`` is where it lies, in widths and heights of the box (see _EYE_IN_HIT). The
    candidate's ``size`` is the area of the argument ``box``, not of its own ``bbox``.
    """
    x1, y1, x2, y2 = box
    left, top, right, bottom = relative
    width = x2 - x1
    height = y2 - y1
    whole = (x1 + left * width, y1 + top * height, x1 + right * width, y1 + bottom * height)
    bbox = clamp(whole, (picture.width, picture.height))
    return Candidate(bbox, width * height, score, evidence)


def find_eyes(face: Candidate, picture: Picture) -> list[Candidate]:
    """Return both open eyes of a face, the left one in the picture first.

    Empty unless exactly two eyes are clear, which are level and don't overlap from left to right.
    """
    x1, y1, x2, y2 = map(int, face.bbox)
    scale = _FACE_WIDTH_FOR_EYES / (x2 - x1)
    upper_part = picture.gray[y1 : y1 + round(_PART_WITH_EYES * (y2 - y1)), x1:x2]
    gray = cv2.equalizeHist(cv2.resize(upper_part, None, fx=scale, fy=scale))
    eyes = []
    for hit in _hits("eye", gray, _LEAST_EYE_SIDE, scale_step=1.05):
        if hit.votes < _CLEAR_VOTES:
            continue
        if _box_seen_again("eye_tree_eyeglasses", gray, hit.box) is not None:
            box = _from_enlarged_part(hit.box, scale, x1, y1)
            eyes.append(_at_relative_box(box, _EYE_IN_HIT, picture, FACE_SCORE, "seen"))
    if len(eyes) != 2:
        return []
    first, second = eyes[0].bbox, eyes[1].bbox
    is_level = abs(first[1] - second[1]) < _MOST_EYE_TILT * (y2 - y1)
    is_first_left_of_second = first[2] < second[0]
    return eyes if is_level and is_first_left_of_second else []


def _detect_bodies(picture: Picture) -> Detections:
    """Return people who stand or walk, seen whole, by the HOG people detector and a cascade.

    Somebody is clear where the detector's weight is at least _LEAST_BODY_WEIGHT and the cascade
    confirms it, and has the cascade's box. Without the cascade, twice that weight makes a doubtful
    one. In a picture smaller than the detector's window there is nobody.
    """
    if picture.width < _BODY_WIDTH or picture.height < _BODY_HEIGHT:
        return Detections([], [])
    people = cv2.HOGDescriptor()
    people.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector()))
    hits, weights = people.detectMultiScale(
        picture.bgr, winStride=(8, 8), padding=(8, 8), scale=1.05
    )
    detections = Detections([], [])
    for (x, y, w, h), weight in sorted(zip(map(tuple, hits), np.ravel(weights), strict=True)):
        hit = (int(x), int(y), int(x + w), int(y + h))
        box = _box_seen_again("fullbody", picture.gray, hit)
        if box is not None and weight >= _LEAST_BODY_WEIGHT:
            body = _at_relative_box(box, _BODY_IN_HIT, picture, GUESS_SCORE, "seen")
            detections.clear.append(body)
        elif weight >= 2 * _LEAST_BODY_WEIGHT:
            body = _at_relative_box(hit, _BODY_IN_HIT, picture, GUESS_SCORE, "seen")
            detections.doubtful.append(body)
    return detections


def guess_owners(face_kind: str, faces: list[Candidate], picture: Picture) -> list[Candidate]:
    """Return a person for each "face", or a cat for each "cat face": a box guessed around it.

    The box is about three (person) or two (cat) face widths wide and cut off at the picture's
    edges. The owners come in the order of their faces.
    """
    owners = []
    for face in faces:
        where = _OWNER_OF_FACE[face_kind]
        owners.append(_at_relative_box(face.bbox, where, picture, GUESS_SCORE, "inferred"))
    return owners

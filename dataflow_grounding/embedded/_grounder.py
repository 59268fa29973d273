"""Grounding the phrases of one caption by what OpenCV alone can see.

A detector is picked by the phrase's noun. Its other words then select among the candidates that the
detector returns. Where the words don't tell which one is meant, or what is seen may be something
else, the phrase is called ambiguous or unsupported: no box is better than a wrong one.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from dataflow_grounding.boxes.geometry import area, iou
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._colors import ColorRegion, find_regions
from dataflow_grounding.embedded._faces import find_faces, person_of
from dataflow_grounding.embedded._phrases import Phrase, parse_phrase, select_meant
from dataflow_grounding.embedded._picture import Array, Candidate, Picture
from dataflow_grounding.embedded._scenery import find_greenery, find_sky
from dataflow_grounding.embedded._shapes import find_shapes, select_shapes

_LEAST_REGION_SHARE = 0.025  # of the picture's area: a smaller region may be a part of anything
_LEAST_DISC_SHARE = 0.001
_MOST_BOX_SHARE = 0.65  # of the picture's area: a larger box is that of a background
_RIVAL_SHARE = 0.2  # of the largest region's size: a region as large could be meant as well
_DISC_ASPECT = (0.85, 1.18)  # least and most width over height of a disc
_DISC_FILL = (0.7, 0.86)  # least and most part of its box that a disc fills: about pi / 4
_BACKGROUND_IOU = 0.3  # with the sky or plants: a region that overlaps by more may be a part
# The least fit of a shape with the ideal one for a phrase with a colour word, and for one without.
_COLORED_FIT = 0.91
_CLEAR_FIT = 0.95


class _Undecided(Exception):
    """A phrase gets no box: its status, "ambiguous" or "unsupported", and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class _Scene:
    """One picture and what is in it. Each thing is looked for once, when it is first asked for."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.shapes = functools.cache(lambda: find_shapes(picture))
        self.faces = functools.cache(lambda: find_faces(picture))
        self.sky = functools.cache(lambda color: find_sky(picture, color))
        self.greenery = functools.cache(lambda: find_greenery(picture))


def ground_phrases(
    image: Array, phrases: Sequence[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Return boxes for the phrases of one image.

    Args:
        image: uint8 (H, W, 3), BGR, upright.
        phrases: Each is ``{"id": int, "text": str}``, with an id of its own.

    Returns:
        ``objects``: each with ``id`` and ``label`` of its phrase, ``bbox`` in whole pixels x1, y1,
        x2, y2 of ``image``, ``score`` and ``evidence``. Scores are constants set by hand, one for
        each kind of evidence: they are not probabilities.
        ``statuses``: the phrases of which it can't be told whether or where they are, each with
        ``id``, ``status`` ("ambiguous" or "unsupported") and ``reason``.
        A phrase in neither was looked for and not found. Equal arguments give equal answers.
    """
    scene = _Scene(Picture(image))
    labels = {int(phrase["id"]): str(phrase["text"]) for phrase in phrases}
    parsed = {phrase_id: parse_phrase(label) for phrase_id, label in labels.items()}
    grounded: dict[int, Sequence[Candidate]] = {}
    undecided: dict[int, _Undecided] = {}
    for phrase_id, phrase in parsed.items():
        try:
            grounded[phrase_id] = _ground(phrase, scene)
        except _Undecided as error:
            undecided[phrase_id] = error
    objects = []
    for phrase_id, candidates in grounded.items():
        for candidate in candidates:
            objects.append(
                {
                    "id": phrase_id,
                    "label": labels[phrase_id],
                    "bbox": scene.picture.to_full(candidate.bbox),
                    "score": candidate.score,
                    "evidence": candidate.evidence,
                }
            )
    statuses = []
    for phrase_id, why in sorted(undecided.items()):
        statuses.append({"id": phrase_id, "status": why.status, "reason": why.reason})
    return {"objects": objects, "statuses": statuses}


def _ground(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    detectors = [detector for detector in _DETECTORS if phrase.head in detector.nouns]
    if phrase.head and not detectors:
        raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for")
    if phrase.refusal:
        raise _Undecided("unsupported", phrase.refusal)
    candidates = detectors[0].find(phrase, scene)
    if not candidates or not detectors[0].selects:
        return candidates
    selected = select_meant(candidates, phrase, scene.picture)
    if selected is None:
        count = "1 candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"
        raise _Undecided("ambiguous", f"{count}, and the words don't tell which")
    return selected


def _find_faces(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    if phrase.color is not None:
        raise _Undecided("unsupported", f"{phrase.head!r} with a colour can't be looked for")
    faces = scene.faces()
    if faces.doubtful:
        raise _Undecided("ambiguous", "there may be more than those that are clear")
    return faces.clear


def _find_people(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    faces = _find_faces(phrase, scene)
    if not faces:
        raise _Undecided("unsupported", "people are found by a frontal face, and none was seen")
    return [person_of(face, scene.picture) for face in faces]


def _find_sky(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    return scene.sky(phrase.color)


def _find_greenery(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    is_one_plant = phrase.head == "leaf" and not phrase.is_plural
    is_chosen = phrase.count is not None or bool(phrase.positions)
    if phrase.color not in (None, "green") or is_one_plant or is_chosen:
        raise _Undecided("unsupported", "single plants can't be told apart")
    return scene.greenery()


def _find_drawn_shapes(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    name = words.SHAPES[phrase.head]
    fitting = select_shapes(scene.shapes(), name, phrase.color)
    least_fit = _CLEAR_FIT if phrase.color is None else _COLORED_FIT
    if any(shape.fit < least_fit for shape in fitting):
        raise _Undecided("ambiguous", f"what is there is only like a {name}")
    return fitting


def _find_colored(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    # The noun itself is not looked for. Raises _Undecided where there is no disc, a region has no
    # clear border, or the colour may be that of something else.
    if phrase.color not in words.CHROMATIC:
        raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for")
    found = find_regions(scene.picture, phrase.color)
    if not found.regions:
        return []
    if phrase.head in words.ROUND:
        discs = [region for region in found.regions if _is_disc(region)]
        if not discs:
            raise _Undecided("ambiguous", f"something {phrase.color} is there, but nothing round")
        meant = _with_rivals(discs)
    else:
        rivals = _with_rivals(found.regions)
        parts = sum(region.size for region in rivals)
        is_one = found.whole is not None and not phrase.is_plural and parts <= found.whole.size
        meant = [found.whole] if found.whole is not None and is_one else rivals
    if not all(region.is_steady for region in meant):
        raise _Undecided("ambiguous", "the colour's region has no clear border")
    _refuse_doubtful(phrase, meant[0], scene)
    return meant


def _is_disc(region: ColorRegion) -> bool:
    x1, y1, x2, y2 = region.bbox
    least_aspect, most_aspect = _DISC_ASPECT
    least_fill, most_fill = _DISC_FILL
    filled_share = region.size / area(region.bbox)
    is_as_wide_as_high = least_aspect <= (x2 - x1) / (y2 - y1) <= most_aspect
    return is_as_wide_as_high and least_fill <= filled_share <= most_fill


def _with_rivals(regions: list[ColorRegion]) -> list[ColorRegion]:
    least_size = _RIVAL_SHARE * regions[0].size
    return [region for region in regions if region.is_steady or region.size >= least_size]


def _refuse_doubtful(phrase: Phrase, largest: ColorRegion, scene: _Scene) -> None:
    picture = scene.picture
    box_area = area(largest.bbox)
    is_any = phrase.head in words.ROUND or phrase.head in ("thing", "object")
    least_share = _LEAST_DISC_SHARE if is_any else _LEAST_REGION_SHARE
    if largest.size < least_share * picture.area:
        raise _Undecided("ambiguous", "the colour's region is too small to tell")
    x1, y1, x2, y2 = largest.bbox
    edges = [x1 <= 1, y1 <= 1, x2 >= picture.width - 1, y2 >= picture.height - 1]
    is_sparse = largest.size < 0.3 * box_area
    if is_sparse or edges.count(True) >= 2 or box_area > _MOST_BOX_SHARE * picture.area:
        raise _Undecided("ambiguous", "the colour is spread over the picture")
    background: list[Candidate] = []
    if phrase.color == "green":
        background = scene.greenery()
    elif phrase.color in ("blue", "cyan"):
        background = scene.sky(phrase.color)
    if any(iou(part.bbox, largest.bbox) > _BACKGROUND_IOU for part in background):
        raise _Undecided("ambiguous", "the colour may be that of the sky or of plants")


class _Detector(NamedTuple):
    """What looks for the things of some nouns, and whether a phrase's words select among them."""

    nouns: Collection[str]
    find: Callable[[Phrase, _Scene], Sequence[Candidate]]
    selects: bool = True


# The first that has the phrase's noun looks for it.
_DETECTORS = (
    _Detector({"face"}, _find_faces),
    _Detector(words.PEOPLE, _find_people),
    _Detector({"sky"}, _find_sky, selects=False),
    _Detector({"grass", "lawn", "leaf"}, _find_greenery, selects=False),
    _Detector(words.SHAPES, _find_drawn_shapes),
    _Detector(words.ONE_COLORED, _find_colored),
)

"""Grounding the phrases of one caption by what OpenCV alone can see."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding.boxes.geometry import area, intersection, iou
from dataflow_grounding.extras.embedded import _cascades as cascades
from dataflow_grounding.extras.embedded import _shapes as shapes
from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded._colors import (
    ColorRegion,
    ColorRegions,
    find_greenery,
    find_regions,
    find_sky,
)
from dataflow_grounding.extras.embedded._phrases import Phrase, beside, choose, parse_phrase
from dataflow_grounding.extras.embedded._picture import Array, Candidate, Picture
from dataflow_grounding.extras.embedded._shapes import find_shapes, select_shapes
from dataflow_grounding.extras.embedded.regions import with_article

_LEAST_COLORED, _MOST_COLORED = 0.025, 0.65  # of the picture: less may be a part of anything
_SAME = 0.8  # IoU of two boxes of one thing
_RIVAL = 0.2  # of the largest region's size: what could be meant as well
_NEARLY_ALL = 0.95  # of a colour: what is in one place then is one thing, in pieces or not
_FEW_ELSEWHERE = 0.5  # of the largest region: how much of its colour may lie in other places


class _Undecided(Exception):
    """A phrase gets no box: its status, "ambiguous" or "unsupported", and why."""


class _Sight:
    """What was seen in one picture, each kind looked for at most once."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.shapes = functools.cache(lambda: find_shapes(picture))
        self.seen = functools.cache(lambda kind: cascades.find(kind, picture))
        self.regions = functools.cache(lambda term: find_regions(picture, term))
        self.sky = functools.cache(
            lambda color: find_sky(picture, color, lambda: itertools.chain(*self.seen("face")))
        )


_Finder = Callable[[Phrase, _Sight], Sequence[Candidate]]


def ground_phrases(
    image: Array, phrases: Sequence[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Boxes for the phrases of one image.

    ``image`` is uint8 (H, W, 3), BGR, upright; ``phrases`` are ``{"id": int, "text": str}``.
    Returns ``objects`` (``id``, ``label``, ``bbox`` in whole pixels x1, y1, x2, y2 of ``image``,
    ``score``, ``evidence``) and ``statuses`` (``id``, ``status`` "ambiguous" or "unsupported",
    ``reason``). A phrase in neither was looked for and not found. Scores are constants set by hand,
    one for each kind of evidence: they are not probabilities. Deterministic.
    """
    sight = _Sight(Picture(image))
    found: dict[int, Sequence[Candidate]] = {}
    undecided: dict[int, tuple[str, str]] = {}
    labels = {int(phrase["id"]): str(phrase["text"]) for phrase in phrases}
    read = {key: parse_phrase(label) for key, label in labels.items()}
    for key, phrase in read.items():
        try:
            found[key] = _look_for(phrase, sight)
        except _Undecided as error:
            undecided[key] = error.args
    for key in _claimed_twice(found, read):
        undecided[key] = ("ambiguous", "two different things are named for the same place")
        del found[key]
    to_full = sight.picture.to_full
    objects = [
        {
            "id": key,
            "label": labels[key],
            "bbox": to_full(c.bbox),
            "score": c.score,
            "evidence": c.evidence,
        }
        for key, candidates in found.items()
        for c in candidates
    ]
    statuses = [
        {"id": key, "status": status, "reason": why}
        for key, (status, why) in sorted(undecided.items())
    ]
    return {"objects": objects, "statuses": statuses}


def _claimed_twice(found: dict[int, Sequence[Candidate]], read: dict[int, Phrase]) -> set[int]:
    """Phrases with different heads whose guessed boxes are the same: at least one of
    them is wrong.
    """
    guessed = [
        (key, c.bbox)
        for key, candidates in found.items()
        for c in candidates
        if c.evidence != "seen"
    ]
    twice: set[int] = set()
    for (one, box), (other, other_box) in itertools.combinations(guessed, 2):
        heads = {read[one].head, read[other].head}
        may_be_one = len(heads) == 1 or (heads <= words.PEOPLE and heads & words.ANYONE)
        if not may_be_one and iou(box, other_box) > _SAME:
            twice |= {one, other}
    return twice


def _look_for(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    if phrase.refusal:
        raise _Undecided("unsupported", phrase.refusal)
    finder = _finder(phrase)
    if phrase.unread and not (finder is _people and len(sight.seen("face")[0]) == 1):
        # Of a person who is alone, what they wear or do need not be understood.
        raise _Undecided("unsupported", "not all words are understood")
    candidates = finder(phrase, sight)
    if candidates and phrase.relation is not None:
        side, anchor = phrase.relation
        anchors = _look_for(anchor, sight)
        if len(anchors) != 1:
            raise _Undecided("ambiguous", f"{anchor.head!r} is not clear")
        candidates = beside(candidates, side, anchors[0].bbox)
    if not candidates or finder in (_sky, _greenery):
        return candidates
    chosen = choose(candidates, phrase, sight.picture)
    if chosen is None:
        count = len(candidates)
        raise _Undecided(
            "ambiguous", f"{count} candidate{'s' * (count != 1)}, and the words don't tell which"
        )
    return chosen


def _finder(phrase: Phrase) -> _Finder:
    kind = words.KINDS.get(phrase.head)
    if kind is not None and (kind != "leaves" or phrase.is_plural):
        return _FINDERS.get(kind, _seen)
    if phrase.head in words.SHAPES:
        return _shape
    if phrase.color in words.CHROMATIC and phrase.head in words.ONE_COLORED:
        return _colored
    raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for")


def _seen(phrase: Phrase, sight: _Sight, kind: str = "") -> list[Candidate]:
    if phrase.color is not None:
        raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for by colour")
    found, doubtful = sight.seen(kind or words.KINDS[phrase.head])
    if doubtful:
        raise _Undecided("ambiguous", "there may be more than those that are clear")
    return found


def _people(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    faces, bodies = _seen(phrase, sight, "face"), _seen(phrase, sight, "body")
    if not faces and not bodies:
        raise _Undecided(
            "unsupported",
            "people are found by a frontal face or from head to foot, and none was seen",
        )
    rest = [
        face
        for face in faces
        if not any(area(intersection(face.bbox, body.bbox)) for body in bodies)
    ]
    return bodies + cascades.owners_of("face", rest, sight.picture)


def _cats(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    faces = _seen(phrase, sight, "cat face")
    if not faces:
        raise _Undecided("unsupported", "cats are found by a frontal face, and none was seen")
    return cascades.owners_of("cat face", faces, sight.picture)


def _eyes(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    faces = _seen(phrase, sight, "face")
    if len(faces) != 1:
        raise _Undecided(
            "unsupported", "eyes are found in a frontal face, and not just one was seen"
        )
    return cascades.find_eyes(faces[0], sight.picture)


def _sky(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    return sight.sky(phrase.color)


def _greenery(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    if phrase.color not in (None, "green"):
        raise _Undecided("unsupported", "only green plants can be looked for")
    if phrase.count is not None or phrase.positions or phrase.size is not None:
        raise _Undecided("unsupported", "single plants can't be told apart")
    return find_greenery(sight.picture, words.KINDS[phrase.head])


_FINDERS: dict[str, _Finder] = {
    "person": _people,
    "cat": _cats,
    "eyes": _eyes,
    "sky": _sky,
    "greenery": _greenery,
    "lawn": _greenery,
    "leaves": _greenery,
}


def _shape(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    kind, color = words.SHAPES[phrase.head], phrase.color
    found = select_shapes(sight.shapes(), kind, color)
    if any(
        shape.fit < (shapes.CLEAR_FIT if color is None else shapes.COLORED_FIT) for shape in found
    ):
        # In a photo, some smooth patch always looks a bit like a circle.
        raise _Undecided("ambiguous", f"what is there is only like a {kind}")
    if found or color not in words.CHROMATIC:
        return found
    of_color = sight.regions(color).found
    if not of_color:
        return []
    loose = select_shapes(sight.shapes(), words.LOOSE_SHAPES.get(kind, ""), color)
    if kind in ("circle", "square"):
        # an ellipse or a rectangle may pass for one when it isn't long
        loose = [shape for shape in loose if 0.6 <= _ratio(shape) <= 1 / 0.6]
    if not loose or len(of_color) > len(loose):
        raise _Undecided("ambiguous", f"something {color} is there, but its shape is not clear")
    return [replace(shape, score=shapes.LOOSE_SHAPE_SCORE) for shape in loose]


def _ratio(candidate: Candidate) -> float:
    x1, y1, x2, y2 = candidate.bbox
    return (x2 - x1) / (y2 - y1)


def _colored(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    regions = sight.regions(phrase.color or "")
    if not regions.found:
        return []
    if phrase.head in words.ROUND:
        # A disc fills pi / 4 of its box.
        found = [
            r
            for r in regions.found
            if 0.85 <= _ratio(r) <= 1.18 and 0.7 <= r.size / area(r.bbox) <= 0.86
        ]
        if not found:
            raise _Undecided("ambiguous", f"something {phrase.color} is there, but nothing round")
        chosen, accounted_for = _with_rivals(found), regions.found
    else:
        chosen = accounted_for = _whole_or_rivals(phrase, regions)
    if not all(region.is_steady for region in chosen):
        raise _Undecided("ambiguous", "the colour's region has no clear border")
    elsewhere = regions.total - sum(region.size for region in accounted_for)
    if doubt := next(_doubts(phrase, chosen[0], elsewhere, sight), ""):
        raise _Undecided("ambiguous", doubt)
    return chosen


def _doubts(phrase: Phrase, largest: ColorRegion, elsewhere: float, sight: _Sight) -> Iterator[str]:
    """Why the largest region, with so much of its colour in other places, may not be the thing."""
    picture, extent = sight.picture, area(largest.bbox)
    if elsewhere > _FEW_ELSEWHERE * largest.size:
        yield "the colour is in other places too"
    least = 0.001 if phrase.head in words.ROUND | words.ANYTHING else _LEAST_COLORED
    if largest.size < least * picture.area:
        yield "the colour's region is too small to tell"
    x1, y1, x2, y2 = largest.bbox
    sides = (x1 <= 1) + (y1 <= 1) + (x2 >= picture.width - 1) + (y2 >= picture.height - 1)
    if largest.size < 0.3 * extent or sides >= 2 or extent > _MOST_COLORED * picture.area:
        yield "the colour is spread over the picture"
    scene = find_greenery(picture) if phrase.color == "green" else []
    if phrase.color in ("blue", "cyan"):
        scene = sight.sky(phrase.color)
    if any(iou(part.bbox, largest.bbox) > 0.3 for part in scene):
        yield "the colour may be that of the sky or of plants"
    if phrase.head not in words.FIGURES and any(
        iou(s.bbox, largest.bbox) > _SAME for s in sight.shapes()
    ):
        yield f"the {phrase.color} region is a plain figure, not {with_article(phrase.head)}"


def _with_rivals(found: list[ColorRegion]) -> list[ColorRegion]:
    """The largest region, and others that could be meant as well."""
    return [region for region in found if region.is_steady or region.size >= _RIVAL * found[0].size]


def _whole_or_rivals(phrase: Phrase, regions: ColorRegions) -> list[ColorRegion]:
    chosen = _with_rivals(regions.found)
    whole = regions.whole
    if whole is None or phrase.is_plural or sum(region.size for region in chosen) > whole.size:
        return chosen
    if any(rival.is_steady for rival in chosen[1:]) and whole.size < _NEARLY_ALL * regions.total:
        return chosen
    return [whole]  # pieces of one thing, parted by what lies over it

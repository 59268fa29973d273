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

_LEAST_COLORED = 0.025  # of the picture: less may be a part of anything
_MOST_COLORED = 0.65
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
    grounded: dict[int, Sequence[Candidate]] = {}
    undecided: dict[int, tuple[str, str]] = {}
    labels = {int(phrase["id"]): str(phrase["text"]) for phrase in phrases}
    read = {key: parse_phrase(label) for key, label in labels.items()}
    for key, phrase in read.items():
        try:
            grounded[key] = _look_for(phrase, sight)
        except _Undecided as error:
            undecided[key] = error.args
    for key in _claimed_twice(grounded, read):
        undecided[key] = ("ambiguous", "two different things are named for the same place")
        del grounded[key]
    objects = []
    for key, candidates in grounded.items():
        for candidate in candidates:
            objects.append(
                {
                    "id": key,
                    "label": labels[key],
                    "bbox": sight.picture.to_full(candidate.bbox),
                    "score": candidate.score,
                    "evidence": candidate.evidence,
                }
            )
    statuses = []
    for key, (status, why) in sorted(undecided.items()):
        statuses.append({"id": key, "status": status, "reason": why})
    return {"objects": objects, "statuses": statuses}


def _claimed_twice(grounded: dict[int, Sequence[Candidate]], read: dict[int, Phrase]) -> set[int]:
    """Phrases with different heads whose guessed boxes are the same: at least one is wrong."""
    guessed = []
    for key, candidates in grounded.items():
        for candidate in candidates:
            if candidate.evidence != "seen":
                guessed.append((key, candidate.bbox))
    twice: set[int] = set()
    for (first, first_box), (second, second_box) in itertools.combinations(guessed, 2):
        heads = {read[first].head, read[second].head}
        may_be_one_thing = len(heads) == 1 or (heads <= words.PEOPLE and heads & words.ANYONE)
        if not may_be_one_thing and iou(first_box, second_box) > _SAME:
            twice.update((first, second))
    return twice


def _look_for(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    """What a phrase means in the picture. Raises _Undecided."""
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
    return _chosen(candidates, phrase, sight)


def _chosen(candidates: Sequence[Candidate], phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    """Those of the candidates that a phrase means. Raises _Undecided where that can't be told."""
    chosen = choose(candidates, phrase, sight.picture)
    chooses = phrase.count is not None or phrase.size is not None or phrase.positions
    if chosen is None and phrase.is_plural and len(candidates) == 1 and not chooses:
        return candidates  # the name of a class in the plural; the one that is there is meant, too
    if chosen is None:
        count = "1 candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"
        raise _Undecided("ambiguous", f"{count}, and the words don't tell which")
    return chosen


def _finder(phrase: Phrase) -> _Finder:
    """What looks for the things that a phrase names. Raises _Undecided where nothing does."""
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
    clear, doubtful = sight.seen(kind or words.KINDS[phrase.head])
    if doubtful:
        raise _Undecided("ambiguous", "there may be more than those that are clear")
    return clear


def _people(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    """Return the people that a phrase may mean: bodies, and the owners of faces without one.

    Raises _Undecided where nobody is seen.
    """
    faces = _seen(phrase, sight, "face")
    bodies = _seen(phrase, sight, "body")
    if not faces and not bodies:
        raise _Undecided(
            "unsupported",
            "people are found by a frontal face or from head to foot, and none was seen",
        )
    without_body = []
    for face in faces:
        if not any(area(intersection(face.bbox, body.bbox)) for body in bodies):
            without_body.append(face)
    return bodies + cascades.owners_of("face", without_body, sight.picture)


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
    """Return the drawn shapes that a phrase such as "a green triangle" means; none without any.

    What is only nearly of that shape counts if it is the one thing of its colour.

    Raises _Undecided where it can't be told.
    """
    name = words.SHAPES[phrase.head]
    color = phrase.color
    fitting = select_shapes(sight.shapes(), name, color)
    least_fit = shapes.CLEAR_FIT if color is None else shapes.COLORED_FIT
    if any(shape.fit < least_fit for shape in fitting):
        # In a photo, some smooth patch always looks a bit like a circle.
        raise _Undecided("ambiguous", f"what is there is only like a {name}")
    if fitting or color not in words.CHROMATIC:
        return fitting
    of_color = sight.regions(color).found
    if not of_color:
        return []
    loose = select_shapes(sight.shapes(), words.LOOSE_SHAPES.get(name, ""), color)
    if name in ("circle", "square"):
        # an ellipse or a rectangle may pass for one when it isn't long
        loose = [shape for shape in loose if 0.6 <= _ratio(shape) <= 1 / 0.6]
    if not loose or len(of_color) > len(loose):
        raise _Undecided("ambiguous", f"something {color} is there, but its shape is not clear")
    return [replace(shape, score=shapes.LOOSE_SHAPE_SCORE) for shape in loose]


def _ratio(candidate: Candidate) -> float:
    x1, y1, x2, y2 = candidate.bbox
    return (x2 - x1) / (y2 - y1)


def _colored(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    """Return the regions of a phrase's colour that it may mean; the noun itself is not looked for.

    Of round things only discs count. Raises _Undecided where several regions could be meant, or one
    has no clear border.
    """
    regions = sight.regions(phrase.color or "")
    if not regions.found:
        return []
    if phrase.head in words.ROUND:
        # A disc fills pi / 4 of its box.
        discs = []
        for region in regions.found:
            filled = region.size / area(region.bbox)
            if 0.85 <= _ratio(region) <= 1.18 and 0.7 <= filled <= 0.86:
                discs.append(region)
        if not discs:
            raise _Undecided("ambiguous", f"something {phrase.color} is there, but nothing round")
        chosen = _with_rivals(discs)
        accounted_for = regions.found
    else:
        chosen = _whole_or_rivals(phrase, regions)
        accounted_for = chosen
    if not all(region.is_steady for region in chosen):
        raise _Undecided("ambiguous", "the colour's region has no clear border")
    elsewhere = regions.total - sum(region.size for region in accounted_for)
    doubt = next(_doubts(phrase, chosen[0], elsewhere, sight), None)
    if doubt is not None:
        raise _Undecided("ambiguous", doubt)
    return chosen


def _doubts(phrase: Phrase, largest: ColorRegion, elsewhere: float, sight: _Sight) -> Iterator[str]:
    """Why the largest region, with so much of its colour in other places, may not be the thing."""
    picture = sight.picture
    extent = area(largest.bbox)
    if elsewhere > _FEW_ELSEWHERE * largest.size:
        yield "the colour is in other places too"
    least = 0.001 if phrase.head in words.ROUND | words.ANYTHING else _LEAST_COLORED
    if largest.size < least * picture.area:
        yield "the colour's region is too small to tell"
    x1, y1, x2, y2 = largest.bbox
    ends = [x1 <= 1, y1 <= 1, x2 >= picture.width - 1, y2 >= picture.height - 1]
    is_cut_off = ends.count(True) >= 2  # by two of the picture's edges
    if largest.size < 0.3 * extent or is_cut_off or extent > _MOST_COLORED * picture.area:
        yield "the colour is spread over the picture"
    scene: list[Candidate] = []
    if phrase.color == "green":
        scene = find_greenery(picture)
    elif phrase.color in ("blue", "cyan"):
        scene = sight.sky(phrase.color)
    if any(iou(part.bbox, largest.bbox) > 0.3 for part in scene):
        yield "the colour may be that of the sky or of plants"
    if phrase.head in words.FIGURES:
        return
    if any(iou(shape.bbox, largest.bbox) > _SAME for shape in sight.shapes()):
        yield f"the {phrase.color} region is a plain figure, not {with_article(phrase.head)}"


def _with_rivals(regions: list[ColorRegion]) -> list[ColorRegion]:
    """The largest region, which is the first, and others that could be meant as well."""
    least = _RIVAL * regions[0].size
    return [region for region in regions if region.is_steady or region.size >= least]


def _whole_or_rivals(phrase: Phrase, regions: ColorRegions) -> list[ColorRegion]:
    """The largest region with its pieces joined, or all regions that could be meant."""
    chosen = _with_rivals(regions.found)
    whole = regions.whole
    if whole is None or phrase.is_plural or sum(region.size for region in chosen) > whole.size:
        return chosen
    if any(rival.is_steady for rival in chosen[1:]) and whole.size < _NEARLY_ALL * regions.total:
        return chosen
    return [whole]  # pieces of one thing, parted by what lies over it

"""Grounding the phrases of one caption by what OpenCV alone can see."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding.embedded import cascades, shapes, words
from dataflow_grounding.embedded.colors import ColorRegion, ColorRegions, find_greenery, find_regions, find_sky
from dataflow_grounding.embedded.phrases import Phrase, beside, choose, parse_phrase
from dataflow_grounding.embedded.picture import Array, Candidate, Picture
from dataflow_grounding.embedded.regions import with_article
from dataflow_grounding.embedded.shapes import Shape, find_shapes, select_shapes
from dataflow_grounding.geometry import area, intersection, iou

_LEAST_COLORED, _MOST_COLORED = 0.025, 0.65  # of the picture: less may be a part of anything
_SAME = 0.8  # IoU of a coloured region and a drawn shape that are one
_RIVAL = 0.2  # of the largest region's size: what could be meant as well
_NEARLY_ALL = 0.95  # of a colour: what is in one place then is one thing, in pieces or not
_FEW_ELSEWHERE = 0.5  # of the largest region: how much of its colour may lie in other places


class _Undecided(Exception):
    """A phrase gets no box: ``status`` is "ambiguous" or "unsupported", the message says why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Sight:
    """What was seen in one picture, each kind looked for at most once."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.shapes = functools.cache(lambda: find_shapes(picture))
        self.seen = functools.cache(lambda kind: cascades.find(kind, picture))
        self.regions = functools.cache(lambda term: find_regions(picture, term))


_Finder = Callable[[Phrase, _Sight], Sequence[Candidate]]


def ground_phrases(image: Array, phrases: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Boxes for the phrases of one image.

    ``image`` is uint8 (H, W, 3), BGR, upright; ``phrases`` are ``{"id": int, "text": str}``. Returns ``objects``
    (``id``, ``label``, ``bbox`` in whole pixels x1, y1, x2, y2 of ``image``, ``score``, ``evidence``) and ``statuses``
    (``id``, ``status`` "ambiguous" or "unsupported", ``reason``). A phrase in neither was looked for and not found.
    Scores are constants set by hand, one for each kind of evidence: they are not probabilities. Deterministic.
    """
    sight = _Sight(Picture(image))
    found: dict[int, Sequence[Candidate]] = {}
    undecided: dict[int, _Undecided] = {}
    read = {int(phrase["id"]): parse_phrase(str(phrase["text"])) for phrase in phrases}
    for key, phrase in read.items():
        try:
            found[key] = _look_for(phrase, sight)
        except _Undecided as reason:
            undecided[key] = reason
    for key in _claimed_twice(found, read):
        undecided[key] = _Undecided("ambiguous", "two different things are named for the same place")
        del found[key]
    to_full, labels = sight.picture.to_full, {int(phrase["id"]): str(phrase["text"]) for phrase in phrases}
    objects = [
        {"id": key, "label": labels[key], "bbox": to_full(c.bbox), "score": c.score, "evidence": c.evidence}
        for key, candidates in found.items()
        for c in candidates
    ]
    statuses = [{"id": key, "status": why.status, "reason": str(why)} for key, why in sorted(undecided.items())]
    return {"objects": objects, "statuses": statuses}


def _claimed_twice(found: dict[int, Sequence[Candidate]], read: dict[int, Phrase]) -> set[int]:
    """Phrases with different heads whose guessed boxes are the same: at least one of them is wrong."""
    guessed = [(key, c.bbox) for key, candidates in found.items() for c in candidates if c.evidence != "seen"]
    pairs = itertools.combinations(guessed, 2)
    return {
        key
        for (one, box), (other, other_box) in pairs
        if _differ(read[one].head, read[other].head) and iou(box, other_box) > 0.8
        for key in (one, other)
    }


def _differ(one: str, other: str) -> bool:
    return one != other and not ({one, other} <= words.PEOPLE and {one, other} & words.ANYONE)


def _look_for(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    if phrase.refusal:
        raise _Undecided("unsupported", phrase.refusal)
    finder = _finder(phrase)
    if finder is None:
        raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for")
    if phrase.unread and not (finder is _people and len(sight.seen("face").found) == 1):
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
        raise _Undecided("ambiguous", f"{count} candidate{'s' * (count != 1)}, and the words don't tell which")
    return chosen


def _finder(phrase: Phrase) -> _Finder | None:
    kind = words.KINDS.get(phrase.head)
    if kind is not None and (kind != "leaves" or phrase.is_plural):
        return _FINDERS.get(kind, _seen)
    if phrase.head in words.SHAPES:
        return _shape
    return _colored if phrase.color in words.COLOR_BOUNDS and phrase.head in words.ONE_COLORED else None


def _seen(phrase: Phrase, sight: _Sight, kind: str = "") -> list[Candidate]:
    if phrase.color is not None:
        raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for by colour")
    sightings = sight.seen(kind or words.KINDS[phrase.head])
    if sightings.doubtful:
        raise _Undecided("ambiguous", "there may be more than those that are clear")
    return sightings.found


def _people(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    faces, bodies = _seen(phrase, sight, "face"), _seen(phrase, sight, "body")
    if not faces and not bodies:
        raise _Undecided("unsupported", "people are found by a frontal face or from head to foot, and none was seen")
    rest = [face for face in faces if not any(area(intersection(face.bbox, body.bbox)) for body in bodies)]
    return bodies + cascades.owners_of("face", rest, sight.picture)


def _cats(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    faces = _seen(phrase, sight, "cat face")
    if not faces:
        raise _Undecided("unsupported", "cats are found by a frontal face, and none was seen")
    return cascades.owners_of("cat face", faces, sight.picture)


def _eyes(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    faces = _seen(phrase, sight, "face")
    if len(faces) != 1:
        raise _Undecided("unsupported", "eyes are found in a frontal face, and not just one was seen")
    return cascades.find_eyes(faces[0], sight.picture)


def _sky(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    return find_sky(sight.picture, phrase.color)


def _greenery(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    if phrase.color not in (None, "green"):
        raise _Undecided("unsupported", "only green plants can be looked for")
    if phrase.count is not None or phrase.positions or phrase.size is not None:
        raise _Undecided("unsupported", "single plants can't be told apart")
    return find_greenery(sight.picture, words.KINDS[phrase.head])


_FINDERS: dict[str, _Finder] = {
    "person": _people, "cat": _cats, "eyes": _eyes, "sky": _sky, "greenery": _greenery, "lawn": _greenery,
    "leaves": _greenery,
}  # fmt: skip


def _shape(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    kind, color = words.SHAPES[phrase.head], phrase.color
    found = select_shapes(sight.shapes(), kind, color)
    if any(shape.fit < (shapes.CLEAR_FIT if color is None else shapes.COLORED_FIT) for shape in found):
        # In a photo, some smooth patch always looks a bit like a circle.
        raise _Undecided("ambiguous", f"what is there is only like a {kind}")
    if found or color not in words.COLOR_BOUNDS:
        return found
    of_color = sight.regions(color).found
    if not of_color:
        return []
    alike = select_shapes(sight.shapes(), words.LOOSE_SHAPES.get(kind, ""), color)
    loose = [shape for shape in alike if _may_be_called(kind, shape)]
    if not loose or len(of_color) > len(loose):
        raise _Undecided("ambiguous", f"something {color} is there, but its shape is not clear")
    return [replace(shape, score=shapes.LOOSE_SHAPE_SCORE) for shape in loose]


def _may_be_called(kind: str, shape: Shape) -> bool:
    """Whether an ellipse may pass for a circle, a rectangle for a square: not when it is long."""
    width, height = _sides(shape)
    return kind not in ("circle", "square") or 0.6 <= width / height <= 1 / 0.6


def _sides(candidate: Candidate) -> tuple[float, float]:
    x1, y1, x2, y2 = candidate.bbox
    return x2 - x1, y2 - y1


def _colored(phrase: Phrase, sight: _Sight) -> Sequence[Candidate]:
    regions = sight.regions(phrase.color or "")
    if not regions.found:
        return []
    if phrase.head in words.ROUND:
        found = [region for region in regions.found if _is_round(region)]
        if not found:
            raise _Undecided("ambiguous", f"something {phrase.color} is there, but nothing round")
        chosen, accounted_for = _with_rivals(found), regions.found
    else:
        chosen = accounted_for = _whole_or_rivals(phrase, regions)
    if not all(region.is_steady for region in chosen):
        raise _Undecided("ambiguous", "the colour's region has no clear border")
    largest = chosen[0]
    if regions.total - sum(region.size for region in accounted_for) > _FEW_ELSEWHERE * largest.size:
        raise _Undecided("ambiguous", "the colour is in other places too")
    _check_extent(phrase, largest, sight.picture)
    _check_scene(phrase, largest, sight)
    if phrase.head not in words.FIGURES and any(iou(s.bbox, largest.bbox) > _SAME for s in sight.shapes()):
        raise _Undecided("ambiguous", f"the {phrase.color} region is a plain figure, not {with_article(phrase.head)}")
    return chosen


def _with_rivals(found: list[ColorRegion]) -> list[ColorRegion]:
    """The largest region, and others that could be meant as well."""
    one = found[0]
    return [one, *(r for r in found[1:] if r.is_steady or r.size >= _RIVAL * one.size)]


def _whole_or_rivals(phrase: Phrase, regions: ColorRegions) -> list[ColorRegion]:
    chosen = _with_rivals(regions.found)
    whole = regions.whole
    if whole is None or phrase.is_plural or sum(region.size for region in chosen) > whole.size:
        return chosen
    if any(rival.is_steady for rival in chosen[1:]) and whole.size < _NEARLY_ALL * regions.total:
        return chosen
    return [whole]  # pieces of one thing, parted by what lies over it


def _is_round(candidate: Candidate) -> bool:
    width, height = _sides(candidate)
    # A disc fills pi / 4 of its box.
    return 0.85 <= width / height <= 1.18 and 0.7 <= candidate.size / (width * height) <= 0.86


def _check_extent(phrase: Phrase, region: Candidate, picture: Picture) -> None:
    width, height = _sides(region)
    is_any = phrase.head in words.ROUND or phrase.head in words.ANYTHING
    if region.size < (0.001 if is_any else _LEAST_COLORED) * picture.area:
        raise _Undecided("ambiguous", "the colour's region is too small to tell")
    x1, y1, x2, y2 = region.bbox
    sides = (x1 <= 1) + (y1 <= 1) + (x2 >= picture.width - 1) + (y2 >= picture.height - 1)
    if region.size < 0.3 * width * height or sides >= 2 or width * height > _MOST_COLORED * picture.area:
        raise _Undecided("ambiguous", "the colour is spread over the picture")


def _check_scene(phrase: Phrase, largest: Candidate, sight: _Sight) -> None:
    """A green or blue region may be no thing but the plants or the sky."""
    scene = find_greenery(sight.picture) if phrase.color == "green" else []
    if phrase.color in ("blue", "cyan"):
        scene = find_sky(sight.picture, phrase.color)
    if any(iou(part.bbox, largest.bbox) > 0.3 for part in scene):
        raise _Undecided("ambiguous", "the colour may be that of the sky or of plants")

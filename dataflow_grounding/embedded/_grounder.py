"""Grounding the phrases of one caption by what OpenCV alone can see.

What looks for a phrase is chosen by its noun. Its other words then select among the candidates that
are seen. Where the words don't tell which one is meant, or what is seen may be something else, the
phrase is called ambiguous or unsupported: no box is better than a wrong one.
"""

from collections.abc import Sequence

from dataflow_grounding.boxes.geometry import area
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._colors import ColorRegion, find_regions
from dataflow_grounding.embedded._faces import find_faces, person_of
from dataflow_grounding.embedded._phrases import Phrase, Undecided, parse_phrase, select_meant
from dataflow_grounding.embedded._picture import Array, Candidate, Picture
from dataflow_grounding.embedded._scenery import find_greenery, find_sky
from dataflow_grounding.embedded._shapes import Shape, read_shape
from dataflow_grounding.english.colors import CHROMATIC

_LEAST_THING = 0.025  # of the picture's area: a smaller region may be a part of anything
_MOST_BOX = 0.65  # of the picture's area: a larger box is that of a background
_LEAST_FILL = 0.3  # of its box: a region that fills less is scattered
# How much of a shape a region fills that is drawn as this shape, and one that is only like it: a
# ball that is shaded, say.
_DRAWN_FIT = 0.91
_LIKE_FIT = 0.8


def ground_phrases(image: Array, phrases: Sequence[JsonObject]) -> dict[str, object]:
    """Look for phrases in an image, which is uint8 (H, W, 3), BGR, upright.

    `statuses` has the phrases that are ambiguous or unsupported. A phrase that is neither there nor
    in `objects` was looked for, and isn't in the image.
    """
    picture = Picture(image)
    objects: list[dict[str, object]] = []
    statuses = []
    for phrase in phrases:
        try:
            candidates = _ground(parse_phrase(phrase["text"]), picture)
        except Undecided as why:
            statuses.append({"id": phrase["id"], "status": why.status, "reason": why.reason})
            continue
        for candidate in candidates:
            found = {
                "id": phrase["id"],
                "label": phrase["text"],
                "bbox": picture.to_full(candidate.bbox),
                "score": candidate.score,
                "evidence": candidate.evidence,
            }
            objects.append(found)
    return {"objects": objects, "statuses": statuses}


def _ground(phrase: Phrase, picture: Picture) -> Sequence[Candidate]:
    if phrase.head == "sky":
        return _find_sky(phrase, picture)
    if phrase.head in words.GREENERY:
        return _find_greenery(phrase, picture)
    if phrase.head == "face" or phrase.head in words.PEOPLE:
        return select_meant(_find_people(phrase, picture), phrase, picture)
    return select_meant(_find_colored(phrase, picture), phrase, picture)


def _find_sky(phrase: Phrase, picture: Picture) -> Sequence[Candidate]:
    if phrase.color not in (None, "blue"):
        raise Undecided("unsupported", "a sky that isn't blue can't be looked for")
    return find_sky(picture)


def _find_greenery(phrase: Phrase, picture: Picture) -> Sequence[Candidate]:
    """Find plants as one green area, not "a leaf", "two lawns" or "the lawn on the left"."""
    is_one_leaf = phrase.head == "leaf" and not phrase.is_plural
    are_several_counted = phrase.wanted is not None and phrase.wanted != 1
    are_some_at_a_place = bool(phrase.positions)
    has_other_color = phrase.color not in (None, "green")
    if has_other_color or is_one_leaf or are_several_counted or are_some_at_a_place:
        raise Undecided("unsupported", "single plants can't be told apart")
    return find_greenery(picture)


def _find_people(phrase: Phrase, picture: Picture) -> Sequence[Candidate]:
    if phrase.color is not None:
        raise Undecided("unsupported", f"{phrase.head!r} with a colour can't be looked for")
    faces = find_faces(picture)
    if faces.doubtful:  # these may be faces, too
        raise Undecided("ambiguous", "there may be more than those that are clear")
    if phrase.head == "face":
        return faces.clear
    if not faces.clear:
        raise Undecided("unsupported", "people are found by a frontal face, and none was seen")
    return [person_of(face, picture) for face in faces.clear]


def _find_colored(phrase: Phrase, picture: Picture) -> Sequence[Candidate]:
    shape = words.SHAPES.get(phrase.head)  # "circle" for "disc"; None for "car"
    # A shape may be of any colour; a thing may not be black, white, grey or brown.
    known_colors = words.COLOR_BOUNDS if shape else CHROMATIC
    if phrase.color is None or phrase.color not in known_colors:
        raise Undecided("unsupported", f"{phrase.head!r} can't be looked for")
    if shape:
        regions = _find_drawn(shape, phrase.color, picture)
    elif phrase.head in words.ROUND:
        regions = _find_round(phrase.color, picture)
    else:
        regions = _find_things(phrase.color, picture, pieces_are_one=not phrase.is_plural)
    if not all(region.is_steady for region in regions):
        raise Undecided("ambiguous", "the colour's region has no clear border")
    if regions and _is_spread(regions[0], picture):  # the largest
        raise Undecided("ambiguous", "the colour is spread over the picture")
    return regions


def _find_drawn(name: str, color: str, picture: Picture) -> list[ColorRegion]:
    shapes = _shapes_like(name, find_regions(picture, color), picture)
    if any(shape.fit < _DRAWN_FIT for shape in shapes):
        raise Undecided("ambiguous", f"what is there is only like a {name}")
    return [shape.drawn for shape in shapes]


def _find_round(color: str, picture: Picture) -> list[ColorRegion]:
    regions = find_regions(picture, color)
    discs = [shape.region for shape in _shapes_like("circle", regions, picture)]
    if regions and not discs:
        raise Undecided("ambiguous", f"something {color} is there, but nothing round")
    return discs


def _shapes_like(name: str, regions: list[ColorRegion], picture: Picture) -> list[Shape]:
    shapes = [read_shape(picture, region) for region in regions]
    return [shape for shape in shapes if shape.kind == name and shape.fit >= _LIKE_FIT]


def _find_things(color: str, picture: Picture, pieces_are_one: bool) -> list[ColorRegion]:
    """Return the colour's regions, which are taken for the noun: it isn't looked for itself."""
    regions = find_regions(picture, color, joined=pieces_are_one)
    if regions and regions[0].size < _LEAST_THING * picture.area:
        raise Undecided("ambiguous", "the colour's region is too small to tell")
    return regions


def _is_spread(region: ColorRegion, picture: Picture) -> bool:
    """Return whether a region is no single thing: scattered, or like a background."""
    x1, y1, x2, y2 = region.bbox
    # a box may end a pixel short of the picture's side
    touches_side = [x1 <= 1, y1 <= 1, x2 >= picture.width - 1, y2 >= picture.height - 1]
    touches_several_sides = sum(touches_side) >= 2
    box_area = area(region.bbox)
    is_scattered = region.size < _LEAST_FILL * box_area
    is_large = box_area > _MOST_BOX * picture.area
    return is_scattered or touches_several_sides or is_large

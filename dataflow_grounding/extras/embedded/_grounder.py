"""Grounding the phrases of one caption by what OpenCV alone can see.

For each phrase a finder is picked by its noun: a detector (faces, people, cats, plates), the sky,
plants, drawn shapes, or the regions of a colour. The other words of the phrase then select among
the candidates that the finder returns. Where the words don't tell which one is meant, or what is
seen may be something else, the phrase is called ambiguous or unsupported: no box is better than a
wrong one.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dataflow_grounding.boxes.geometry import area, intersection, iou
from dataflow_grounding.extras.embedded import _detectors as detectors
from dataflow_grounding.extras.embedded import _shapes as shapes
from dataflow_grounding.extras.embedded import _words as words
from dataflow_grounding.extras.embedded._colors import (
    ColorRegion,
    ColorRegions,
    find_greenery,
    find_regions,
    find_sky,
)
from dataflow_grounding.extras.embedded._phrases import (
    Phrase,
    on_side_of,
    parse_phrase,
    select_meant,
)
from dataflow_grounding.extras.embedded._picture import Array, Candidate, Picture
from dataflow_grounding.extras.embedded._shapes import find_shapes, select_shapes
from dataflow_grounding.extras.embedded.regions import with_article

_LEAST_REGION_SHARE = 0.025  # of the picture's area: a smaller region may be a part of anything
_LEAST_PLAIN_SHARE = 0.001  # the same, of round things and of a mere "thing"
_MOST_BOX_SHARE = 0.65  # of the picture's area: a larger box is that of a background
_SAME_THING_IOU = 0.8  # two boxes that overlap by more are of one thing
_RIVAL_SHARE = 0.2  # of the largest region's size: a region as large could be meant as well
_WHOLE_SHARE = 0.95  # of a colour: what has so much of it is one thing, in pieces or not
_MOST_ELSEWHERE = 0.5  # of the largest region: how much of its colour may lie in other places
_DISC_ASPECT = (0.85, 1.18)  # least and most width over height of a disc
_DISC_FILL = (0.7, 0.86)  # least and most part of its box that a disc fills: about pi / 4
_LOOSE_ASPECT = (0.6, 1 / 0.6)  # of an ellipse that may pass for a circle, of a rectangle likewise
_BACKGROUND_IOU = 0.3  # with the sky or plants: a region that overlaps by more may be a part


class _Undecided(Exception):
    """A phrase gets no box: its status, "ambiguous" or "unsupported", and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class _Scene:
    """One picture and what is in it. Each thing is looked for once, when it is first asked for.

    Attributes:
        picture: The picture.
        shapes: Returns the drawn shapes.
        detections: Returns what the detectors of a kind see, such as "face".
        color_regions: Returns the regions of a colour term.
        sky: Returns the sky, if it is of this colour term; None for any.
    """

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.shapes = functools.cache(lambda: find_shapes(picture))
        self.detections = functools.cache(lambda kind: detectors.detect(kind, picture))
        self.color_regions = functools.cache(lambda term: find_regions(picture, term))
        self.sky = functools.cache(lambda color: find_sky(picture, color, self._possible_faces))

    def _possible_faces(self) -> list[Candidate]:
        """Return the clear faces, and what only one detector takes for a face."""
        faces = self.detections("face")
        return [*faces.clear, *faces.doubtful]


_Finder = Callable[[Phrase, _Scene], Sequence[Candidate]]
"""Returns what may be the thing that a phrase names, or nothing; may raise _Undecided."""


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
    parsed_phrases = {phrase_id: parse_phrase(label) for phrase_id, label in labels.items()}
    grounded: dict[int, Sequence[Candidate]] = {}
    undecided: dict[int, _Undecided] = {}
    for phrase_id, phrase in parsed_phrases.items():
        try:
            grounded[phrase_id] = _ground(phrase, scene)
        except _Undecided as error:
            undecided[phrase_id] = error
    for phrase_id in _conflicting_guesses(grounded, parsed_phrases):
        undecided[phrase_id] = _Undecided(
            "ambiguous", "two different things are named for the same place"
        )
        del grounded[phrase_id]
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
    for phrase_id in sorted(undecided):
        why = undecided[phrase_id]
        statuses.append({"id": phrase_id, "status": why.status, "reason": why.reason})
    return {"objects": objects, "statuses": statuses}


def _conflicting_guesses(
    grounded: dict[int, Sequence[Candidate]], phrases: dict[int, Phrase]
) -> set[int]:
    """Return the ids of phrases with different nouns whose guessed boxes are the same thing's.

    A box is guessed where its evidence is anything but "seen". At least one of two such phrases has
    a wrong box, and nothing tells which.
    """
    guessed_boxes = []
    for phrase_id, candidates in grounded.items():
        for candidate in candidates:
            if candidate.evidence != "seen":
                guessed_boxes.append((phrase_id, candidate.bbox))
    conflicting: set[int] = set()
    for (first_id, first_box), (second_id, second_box) in itertools.combinations(guessed_boxes, 2):
        heads = {phrases[first_id].head, phrases[second_id].head}
        # "the astronaut" and "a person" may well be one.
        may_be_one_person = heads <= words.PEOPLE and heads & words.ANYONE
        may_be_one_thing = len(heads) == 1 or may_be_one_person
        if not may_be_one_thing and iou(first_box, second_box) > _SAME_THING_IOU:
            conflicting.update((first_id, second_id))
    return conflicting


def _ground(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return what a phrase means in the picture; empty where that isn't there.

    Of sky and plants all that is found is meant.

    Raises _Undecided where the phrase isn't understood, its thing or its anchor can't be looked
    for or isn't clear, or several things may be meant.
    """
    if phrase.refusal:
        raise _Undecided("unsupported", phrase.refusal)
    finder = _finder_for(phrase)
    # Of a person who is alone, what they wear or do need not be understood.
    if phrase.unread and not (finder is _find_people and _is_one_person(scene)):
        raise _Undecided("unsupported", "not all words are understood")
    candidates = finder(phrase, scene)
    if candidates and phrase.relation is not None:
        anchor = phrase.relation.anchor
        anchors = _ground(anchor, scene)
        if len(anchors) != 1:
            raise _Undecided("ambiguous", f"{anchor.head!r} is not clear")
        candidates = on_side_of(candidates, phrase.relation.side, anchors[0].bbox)
    if not candidates or finder in (_find_sky, _find_greenery):
        return candidates
    return _select(candidates, phrase, scene)


def _is_one_person(scene: _Scene) -> bool:
    """Whether one face is clearly seen, and no more than one body."""
    faces = scene.detections("face").clear
    bodies = scene.detections("body").clear
    return len(faces) == 1 and len(bodies) <= 1


def _select(candidates: Sequence[Candidate], phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return the candidates that a phrase means, of which there is at least one.

    Raises _Undecided where that can't be told. A plural without other selecting words may mean a
    single one.
    """
    selected = select_meant(candidates, phrase, scene.picture)
    if selected is not None:
        return selected
    has_selecting_words = phrase.count is not None or phrase.size is not None or phrase.positions
    if phrase.is_plural and len(candidates) == 1 and not has_selecting_words:
        return candidates  # the name of a class in the plural means the only one that is there
    count = "1 candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"
    raise _Undecided("ambiguous", f"{count}, and the words don't tell which")


def _finder_for(phrase: Phrase) -> _Finder:
    """Return what looks for the things that a phrase names. Raises _Undecided if nothing does."""
    kind = words.KINDS.get(phrase.head)
    # Only "plants" are looked for, as all that is leafy; a single plant can't be told apart.
    if kind is not None and (kind != "leaves" or phrase.is_plural):
        return _FINDERS.get(kind, _find_by_detector)
    if phrase.head in words.SHAPES:
        return _find_drawn_shapes
    if phrase.color in words.CHROMATIC and phrase.head in words.ONE_COLORED:
        return _find_colored
    raise _Undecided("unsupported", f"{phrase.head!r} can't be looked for")


def _find_by_detector(phrase: Phrase, scene: _Scene, kind: str = "") -> list[Candidate]:
    """Return what the detectors of a kind clearly see; `kind` "" is the one that the phrase names.

    Raises _Undecided for a phrase with a colour, and where anything is doubtful.
    """
    if phrase.color is not None:
        raise _Undecided("unsupported", f"{phrase.head!r} with a colour can't be looked for")
    detections = scene.detections(kind or words.KINDS[phrase.head])
    if detections.doubtful:
        raise _Undecided("ambiguous", "there may be more than those that are clear")
    return detections.clear


def _find_people(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return the people that a phrase may mean: bodies, then guessed owners of further faces.

    A face whose box overlaps a body's is taken to be of that body. Raises _Undecided where nobody
    is seen, which doesn't say that nobody is there, and as _find_by_detector does.
    """
    faces = _find_by_detector(phrase, scene, "face")
    bodies = _find_by_detector(phrase, scene, "body")
    if not faces and not bodies:
        raise _Undecided(
            "unsupported",
            "people are found by a frontal face or from head to foot, and none was seen",
        )
    faces_without_body = []
    for face in faces:
        if not any(area(intersection(face.bbox, body.bbox)) for body in bodies):
            faces_without_body.append(face)
    return bodies + detectors.guess_owners("face", faces_without_body, scene.picture)


def _find_cats(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return a guessed box for each cat whose face is seen.

    Raises _Undecided where none is, and as _find_by_detector does.
    """
    faces = _find_by_detector(phrase, scene, "cat face")
    if not faces:
        raise _Undecided("unsupported", "cats are found by a frontal face, and none was seen")
    return detectors.guess_owners("cat face", faces, scene.picture)


def _find_eyes(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return both eyes of the one face that is seen; empty where they aren't clear.

    Raises _Undecided for no face and several, and as _find_by_detector does.
    """
    faces = _find_by_detector(phrase, scene, "face")
    if len(faces) != 1:
        raise _Undecided(
            "unsupported", "eyes are found in a frontal face, and not just one was seen"
        )
    return detectors.find_eyes(faces[0], scene.picture)


def _find_sky(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return the sky, if it has the phrase's colour; empty without one."""
    return scene.sky(phrase.color)


def _find_greenery(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return the regions of plants of the kind that is named; empty where there are none.

    Raises _Undecided for a phrase with another colour than green, or with a number, a place or a
    size, which would select single plants.
    """
    if phrase.color not in (None, "green"):
        raise _Undecided("unsupported", "only green plants can be looked for")
    if phrase.count is not None or phrase.positions or phrase.size is not None:
        raise _Undecided("unsupported", "single plants can't be told apart")
    return find_greenery(scene.picture, words.KINDS[phrase.head])


# The finder of each kind of the word lists; kinds not named here have a detector of their own.
_FINDERS: dict[str, _Finder] = {
    "person": _find_people,
    "cat": _find_cats,
    "eyes": _find_eyes,
    "sky": _find_sky,
    "greenery": _find_greenery,
    "lawn": _find_greenery,
    "leaves": _find_greenery,
}


def _find_drawn_shapes(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return the drawn shapes that a phrase such as "a green triangle" may mean; empty without any.

    Where nothing has that shape and the phrase has a chromatic colour, the shape that people call
    by the same name counts (an ellipse for a "circle"), with a lower score: but only if no other
    region has the colour.

    Raises _Undecided where a shape fits the name only loosely, or something of the colour is there
    that is not clearly of the shape.
    """
    name = words.SHAPES[phrase.head]
    color = phrase.color
    fitting = select_shapes(scene.shapes(), name, color)
    least_fit = shapes.CLEAR_FIT if color is None else shapes.COLORED_FIT
    if any(shape.fit < least_fit for shape in fitting):
        # In a photo, some smooth patch always looks a bit like a circle.
        raise _Undecided("ambiguous", f"what is there is only like a {name}")
    if fitting or color not in words.CHROMATIC:
        return fitting
    color_regions = scene.color_regions(color).regions
    if not color_regions:
        return []
    confusable = select_shapes(scene.shapes(), words.LOOSE_SHAPES.get(name, ""), color)
    if name in ("circle", "square"):
        # An ellipse or a rectangle may pass for one when it isn't long.
        least, most = _LOOSE_ASPECT
        confusable = [shape for shape in confusable if least <= _aspect_ratio(shape) <= most]
    if not confusable or len(color_regions) > len(confusable):
        raise _Undecided("ambiguous", f"something {color} is there, but not clearly of that shape")
    return [replace(shape, score=shapes.LOOSE_SHAPE_SCORE) for shape in confusable]


def _aspect_ratio(candidate: Candidate) -> float:
    """Return the width of a candidate's box over its height."""
    x1, y1, x2, y2 = candidate.bbox
    return (x2 - x1) / (y2 - y1)


def _find_colored(phrase: Phrase, scene: _Scene) -> Sequence[Candidate]:
    """Return the regions of a phrase's colour that it may mean; empty where nothing has the colour.

    The noun itself is not looked for; of round things only discs count. Raises _Undecided where
    there is no disc, a region has no clear border, or the colour may be that of something else.
    """
    of_color = scene.color_regions(phrase.color or "")
    if not of_color.regions:
        return []
    if phrase.head in words.ROUND:
        discs = [region for region in of_color.regions if _is_disc(region)]
        if not discs:
            raise _Undecided("ambiguous", f"something {phrase.color} is there, but nothing round")
        meant = _with_rivals(discs)
        accounted_for = of_color.regions
    else:
        meant = _whole_or_rivals(phrase, of_color)
        accounted_for = meant
    if not all(region.is_steady for region in meant):
        raise _Undecided("ambiguous", "the colour's region has no clear border")
    elsewhere = of_color.total - sum(region.size for region in accounted_for)
    doubt = next(_doubts_about_color(phrase, meant[0], elsewhere, scene), None)
    if doubt is not None:
        raise _Undecided("ambiguous", doubt)
    return meant


def _is_disc(region: ColorRegion) -> bool:
    """Return whether a region is about as wide as high and fills about pi / 4 of its box."""
    least_aspect, most_aspect = _DISC_ASPECT
    least_fill, most_fill = _DISC_FILL
    filled_share = region.size / area(region.bbox)
    is_as_wide_as_high = least_aspect <= _aspect_ratio(region) <= most_aspect
    return is_as_wide_as_high and least_fill <= filled_share <= most_fill


def _doubts_about_color(
    phrase: Phrase, largest: ColorRegion, elsewhere: float, scene: _Scene
) -> Iterator[str]:
    """Yield the reasons for which a region of the right colour may not be the thing that is named.

    None are yielded where nothing speaks against it.

    Args:
        phrase: It names the colour and the thing.
        largest: The largest region of that colour.
        elsewhere: How many pixels of the reduced copy have the colour outside of the regions.
        scene: The picture.
    """
    picture = scene.picture
    box_area = area(largest.bbox)
    if elsewhere > _MOST_ELSEWHERE * largest.size:
        yield "the colour is in other places too"
    is_plain = phrase.head in words.ROUND | words.ANYTHING
    least_share = _LEAST_PLAIN_SHARE if is_plain else _LEAST_REGION_SHARE
    if largest.size < least_share * picture.area:
        yield "the colour's region is too small to tell"
    x1, y1, x2, y2 = largest.bbox
    touched_edges = [x1 <= 1, y1 <= 1, x2 >= picture.width - 1, y2 >= picture.height - 1]
    is_cut_off = touched_edges.count(True) >= 2
    is_sparse = largest.size < 0.3 * box_area
    if is_sparse or is_cut_off or box_area > _MOST_BOX_SHARE * picture.area:
        yield "the colour is spread over the picture"
    background: list[Candidate] = []
    if phrase.color == "green":
        background = find_greenery(picture)
    elif phrase.color in ("blue", "cyan"):
        background = scene.sky(phrase.color)
    if any(iou(part.bbox, largest.bbox) > _BACKGROUND_IOU for part in background):
        yield "the colour may be that of the sky or of plants"
    if phrase.head in words.FIGURES:
        return  # a sign or a box may well look like a plain figure
    if any(iou(shape.bbox, largest.bbox) > _SAME_THING_IOU for shape in scene.shapes()):
        yield f"the {phrase.color} region is a plain figure, not {with_article(phrase.head)}"


def _with_rivals(regions: list[ColorRegion]) -> list[ColorRegion]:
    """Return those of a colour's regions that could be meant, in the order given: largest first.

    These are the largest, all that are steady, and all that are large beside the largest.
    """
    least_size = _RIVAL_SHARE * regions[0].size
    return [region for region in regions if region.is_steady or region.size >= least_size]


def _whole_or_rivals(phrase: Phrase, of_color: ColorRegions) -> list[ColorRegion]:
    """Return the largest region joined with its pieces, or else all regions that could be meant.

    The pieces are those of one thing unless the phrase is a plural, the regions that could be meant
    have more pixels than the joined one, or one of them is steady without being the largest while
    the joined one has not nearly all of the colour.
    """
    rivals = _with_rivals(of_color.regions)
    whole = of_color.whole
    if whole is None or phrase.is_plural or sum(region.size for region in rivals) > whole.size:
        return rivals
    has_steady_rival = any(rival.is_steady for rival in rivals[1:])
    if has_steady_rival and whole.size < _WHOLE_SHARE * of_color.total:
        return rivals
    return [whole]  # pieces of one thing, parted by what lies over it

"""Phrases that their own boxes contradict, found without a model: "two dogs" with three boxes.

What a phrase claims is read by closed lists of words (`_claims`), and tested on the boxes of its
record. A claim is contradicted only where that is clear: two boxes that nearly overlap are neither
left nor right of each other, and of two that are nearly of one size neither is the largest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from dataflow_grounding.boxes.geometry import (
    Bbox,
    Size,
    area,
    box_of,
    clamp,
    intersection,
    iou,
)
from dataflow_grounding.english import words
from dataflow_grounding.extras.embedded._claims import Claims, may_claim, read_claims

if TYPE_CHECKING:
    from dataflow_grounding.extras.embedded._picture import Picture

_SAME_THING_IOU = 0.7  # IoU from which two boxes are of one thing
_CLEARLY_LARGER = 1.5  # times the area, width or height
# In parts of the picture's width or height.
_LEAST_GAP = 0.03  # two middles that are nearer to each other have no order
_FAR_OFF = 0.62  # a middle that is further from a side is clearly not there
_AT_THE_SIDE = 0.3  # a middle that is nearer to a side is clearly there
# Shares of the pixels in the middle of a box.
_HARDLY_ANY = 0.01
_MOSTLY = 0.5
_LEAST_COLORED_SIDE = 8  # px of the reduced copy: in smaller boxes no colour is told
_COLOR_MARGIN = 0.2  # of a box's width or height, at each side: no colour is read there
_MOST_OVERLAP = 0.25  # of the shorter box's extent, in which one box may reach into the next
# A thing that is "in" a box has so much of its own area there, and less than such a part of the
# box's area itself.
_LEAST_INSIDE = 0.9
_MOST_OF_BOX = 0.7


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A phrase that its boxes contradict.

    Attributes:
        index: Of the expression in its record.
        reason: What is said and what is there, in words.
    """

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Phrase:
    """An expression whose words are understood: what it claims, and its boxes.

    Boxes are x1, y1, x2, y2 in pixels of the upright picture, as all boxes here.
    """

    index: int
    text: str
    claims: Claims
    boxes: list[Bbox]


def find_contradictions(
    expressions: Sequence[Mapping[str, Any]],
    size: Size,
    open_pixels: Callable[[], Any] | None = None,
) -> list[Contradiction]:
    """Return the phrases of one picture that their own boxes contradict, the first reason of each.

    Args:
        expressions: As records have them: `text`, and `instances` with a `bbox` (x1, y1, x2, y2 in
            pixels of the upright picture) each. Those without boxes claim nothing.
        size: Width and height of the upright picture, in pixels.
        open_pixels: Returns the upright picture, uint8 (height, width, 3) in BGR; called at most
            once, and only where a phrase names a colour. None leaves out what colours say.

    Example:
        >>> boxes = [{"bbox": [0, 0, 10, 10]}, {"bbox": [20, 0, 30, 10]}]
        >>> found = find_contradictions([{"text": "three dogs", "instances": boxes}], (100, 100))
        >>> found[0].reason
        '3 are said, 2 boxes are there'
    """
    colors = open_pixels is not None
    if not any(may_claim(expression["text"], colors=colors) for expression in expressions):
        return []
    phrases = []
    for index, expression in enumerate(expressions):
        boxes = [box_of(instance["bbox"]) for instance in expression["instances"]]
        claims = read_claims(expression["text"]) if boxes else None
        if claims is not None:
            phrases.append(_Phrase(index, expression["text"], claims, boxes))
    # The picture is opened once, and only if a phrase needs its colours.
    open_picture = None if open_pixels is None else cache(partial(_picture, open_pixels))
    contradictions = []
    for phrase in phrases:
        reason = next(_reasons(phrase, phrases, size, open_picture), None)
        if reason is not None:
            contradictions.append(Contradiction(phrase.index, reason))
    return contradictions


def _picture(open_pixels: Callable[[], Any]) -> "Picture":
    """Return the picture, from whose reduced copy colours are read. Opens the pixels."""
    from dataflow_grounding.extras.embedded._picture import Picture  # with OpenCV

    return Picture(open_pixels())


def _reasons(
    phrase: _Phrase,
    all_phrases: Sequence[_Phrase],
    size: Size,
    open_picture: "Callable[[], Picture] | None",
) -> Iterator[str]:
    """Yield in words what of a phrase its boxes contradict, what costs least to find out first.

    Nothing is yielded where all that is claimed may be true. Without `open_picture` nothing is said
    of colours.
    """
    claims = phrase.claims
    if claims.count is not None and claims.count != len(phrase.boxes):
        there = "1 box is" if len(phrase.boxes) == 1 else f"{len(phrase.boxes)} boxes are"
        yield f"{claims.count} are said, {there} there"
    rivals = _rivals_of(phrase, all_phrases)
    yield from _wrong_side(phrase, rivals, size)
    if claims.is_bare and len(phrase.boxes) == 1:
        yield from _wrong_rank(phrase, rivals, all_phrases, size)
    yield from _wrong_extreme(phrase, rivals, size)
    yield from _wrong_relation(phrase, all_phrases, size)
    if claims.without is not None:
        denied_things = _boxes_of(claims.without, all_phrases)
        if _smaller_things_inside(phrase.boxes, denied_things):
            yield f"a {claims.without} is in its box"
    if open_picture is not None:
        yield from _wrong_color(phrase, size, open_picture)


def _rivals_of(phrase: _Phrase, all_phrases: Sequence[_Phrase]) -> list[Bbox]:
    """Return the boxes of other things with the same noun as a phrase, each thing once.

    A box that nearly is one of the phrase's own is of the same thing, and left out.
    """
    rivals: list[Bbox] = []
    for box in _boxes_of(phrase.claims.thing, all_phrases):
        if not _is_among(box, phrase.boxes) and not _is_among(box, rivals):
            rivals.append(box)
    return rivals


def _boxes_of(thing: str, phrases: Sequence[_Phrase]) -> list[Bbox]:
    """Return the boxes of all phrases with this noun."""
    boxes = []
    for phrase in phrases:
        if phrase.claims.thing == thing:
            boxes.extend(phrase.boxes)
    return boxes


def _is_among(box: Bbox, boxes: Sequence[Bbox]) -> bool:
    """Return whether one of the boxes is of the same thing as a box."""
    return any(iou(box, candidate) >= _SAME_THING_IOU for candidate in boxes)


def _distance_from(side: str, box: Bbox, size: Size) -> float:
    """Return how far a box's middle is from a side of the picture: 0 there, 1 across from it."""
    x = (box[0] + box[2]) / 2 / size[0]
    y = (box[1] + box[3]) / 2 / size[1]
    return {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}[side]


def _wrong_side(phrase: _Phrase, rivals: Sequence[Bbox], size: Size) -> Iterator[str]:
    """Yield a reason where a phrase names a side of the picture, and its boxes are across from it.

    "The left one" of two that are both on the right is right: it is compared with its rivals. An
    outermost one with rivals is left to `_wrong_extreme`. Another reason is yielded where a phrase
    denies a side, and all its boxes are there.
    """
    claims = phrase.claims
    is_compared_elsewhere = claims.outermost is not None and bool(rivals)
    if claims.side is not None and not is_compared_elsewhere:
        side = claims.side
        nearest = min(_distance_from(side, box, size) for box in phrase.boxes)
        rival_distances = [_distance_from(side, rival, size) for rival in rivals]
        is_before_a_rival = any(nearest + _LEAST_GAP < distance for distance in rival_distances)
        is_behind_a_rival = any(distance + _LEAST_GAP < nearest for distance in rival_distances)
        if nearest > _FAR_OFF and (is_behind_a_rival or not is_before_a_rival):
            yield f"the {side} is said, and it is across from there"
    if claims.not_side is not None:
        furthest = max(_distance_from(claims.not_side, box, size) for box in phrase.boxes)
        if furthest < _AT_THE_SIDE:
            yield f"not the {claims.not_side} is said, and it is there"


def _wrong_rank(
    phrase: _Phrase, rivals: Sequence[Bbox], all_phrases: Sequence[_Phrase], size: Size
) -> Iterator[str]:
    """Yield a reason where "the second from the left" has another rank among its rivals.

    Too many before it are always a contradiction, and so is any behind the last one. Too few are
    one only where the record is known to name all of them: a thing that no phrase names may be
    missing. Nothing is yielded where a rival is as far from the side as the thing itself.
    """
    rank = phrase.claims.rank
    if rank is None:
        return
    own_distance = _distance_from(rank.side, phrase.boxes[0], size)
    distances = [_distance_from(rank.side, rival, size) for rival in rivals]
    if any(abs(distance - own_distance) < _LEAST_GAP for distance in distances):
        return  # one above the other: they have no order
    before = sum(distance < own_distance for distance in distances)
    behind = len(distances) - before
    if rank.number == -1:
        if behind:
            yield f"the last from the {rank.side} is said, and {behind} are behind it"
        return
    has_too_many = before > rank.number - 1
    has_too_few = before < rank.number - 1 and _are_all_named(phrase, rivals, all_phrases)
    if has_too_many or has_too_few:
        yield f"number {rank.number} from the {rank.side} is said, and {before} are before it"


def _are_all_named(phrase: _Phrase, rivals: Sequence[Bbox], all_phrases: Sequence[_Phrase]) -> bool:
    """Return whether another phrase, such as "three cups", has the boxes of all its cups.

    It must have nothing but the noun, and a number perhaps. False for a thing without rivals.
    """
    boxes_of_noun = [*phrase.boxes, *rivals]
    for candidate in all_phrases:
        claims = candidate.claims
        if candidate is phrase or claims.thing != phrase.claims.thing:
            continue
        selects = claims.rank or claims.superlative or claims.outermost or claims.side
        if not claims.is_bare or selects:
            continue
        if len(boxes_of_noun) > 1 and all(_is_among(box, candidate.boxes) for box in boxes_of_noun):
            return True
    return False


def _wrong_extreme(phrase: _Phrase, rivals: Sequence[Bbox], size: Size) -> Iterator[str]:
    """Yield a reason where a rival is larger than "the largest", or further out than "leftmost".

    It must be so clearly. Nothing is yielded for a phrase with words that aren't understood.
    """
    claims = phrase.claims
    if not claims.is_bare or not rivals:
        return
    if claims.superlative is not None:
        measure = claims.superlative.measure
        own_values = [_measure(box, measure) for box in phrase.boxes]
        rival_values = [_measure(box, measure) for box in rivals]
        if claims.superlative.is_most:
            if max(rival_values) >= _CLEARLY_LARGER * max(own_values):
                yield f"the most {measure} is said, and another has more"
        elif _CLEARLY_LARGER * min(rival_values) <= min(own_values):
            yield f"the least {measure} is said, and another has less"
    if claims.outermost is not None:
        side = claims.outermost
        own_distance = min(_distance_from(side, box, size) for box in phrase.boxes)
        rival_distance = min(_distance_from(side, box, size) for box in rivals)
        if rival_distance + _LEAST_GAP < own_distance:
            yield f"the outermost on the {side} is said, and another is further out"


def _measure(box: Bbox, measure: str) -> float:
    """Return the area, width or height of a box, in pixels."""
    if measure == "area":
        return area(box)
    return box[2] - box[0] if measure == "width" else box[3] - box[1]


def _wrong_relation(phrase: _Phrase, all_phrases: Sequence[_Phrase], size: Size) -> Iterator[str]:
    """Yield a reason where a thing "left of the cup" is clearly on the right of every such cup.

    So must all of the phrase's boxes be. Nothing is yielded where no box of a cup is known.
    """
    relation = phrase.claims.relation
    if relation is None:
        return
    anchors = _anchor_boxes(relation.anchor, phrase, all_phrases)
    if not anchors:
        return
    for box in phrase.boxes:
        for anchor in anchors:
            if not _is_on_opposite_side(box, anchor, relation.side, size):
                return
    yield f"the {relation.side} of {relation.anchor!r} is said, and it is across from there"


def _anchor_boxes(anchor: str, phrase: _Phrase, all_phrases: Sequence[_Phrase]) -> list[Bbox]:
    """Return the boxes that the anchor of a phrase's relation may mean, the phrase's own left out.

    The anchor is a phrase such as "the red cup". Phrases of the record with the same words are
    taken; where there are none, all with the same noun. Empty where the anchor isn't understood.
    """
    claims = read_claims(anchor)
    if claims is None:
        return []
    words_of_anchor = _without_articles(anchor)
    named = [known for known in all_phrases if _without_articles(known.text) == words_of_anchor]
    if not named:
        named = [known for known in all_phrases if known.claims.thing == claims.thing]
    boxes = []
    for known in named:
        if known is phrase:
            continue
        for box in known.boxes:
            if not _is_among(box, phrase.boxes):
                boxes.append(box)
    return boxes


def _without_articles(text: str) -> str:
    """Return a phrase in lower case, without articles and single-spaced, to be compared."""
    return " ".join(word for word in text.lower().split() if word not in words.ARTICLES)


def _is_on_opposite_side(box: Bbox, anchor: Bbox, side: str, size: Size) -> bool:
    """Return whether a box is clearly on the other side of its anchor than on the one named.

    For the side "left" that is on its right. It is so clearly if the two hardly overlap from left
    to right, and their middles are apart by _LEAST_GAP.
    """
    gap = abs(_distance_from(side, box, size) - _distance_from(side, anchor, size))
    if gap < _LEAST_GAP:
        return False
    if side == "left":
        return _comes_first(anchor, box, start=0, end=2)
    if side == "right":
        return _comes_first(box, anchor, start=0, end=2)
    if side == "top":
        return _comes_first(anchor, box, start=1, end=3)
    return _comes_first(box, anchor, start=1, end=3)


def _comes_first(first: Bbox, second: Bbox, *, start: int, end: int) -> bool:
    """Return whether one box comes before another along an axis, overlapping a little at most.

    It may reach into the other by _MOST_OVERLAP. `start` and `end` are the indices of the axis's
    edges in a box: 0 and 2 from left to right, 1 and 3 from top to bottom.
    """
    overlap = first[end] - second[start]
    shorter = min(first[end] - first[start], second[end] - second[start])
    return overlap <= _MOST_OVERLAP * shorter


def _smaller_things_inside(boxes: Sequence[Bbox], things: Sequence[Bbox]) -> list[Bbox]:
    """Return the things that lie wholly, or nearly, in one of the boxes, and are smaller."""
    inside = []
    for thing in things:
        for box in boxes:
            covered = area(intersection(box, thing))
            is_inside = covered > 0 and covered >= _LEAST_INSIDE * area(thing)
            if is_inside and area(thing) < _MOST_OF_BOX * area(box):
                inside.append(thing)
                break
    return inside


def _wrong_color(
    phrase: _Phrase, size: Size, open_picture: "Callable[[], Picture]"
) -> Iterator[str]:
    """Yield a reason where no box has the colour that is said, or each has the one denied.

    Nothing is yielded for things that may have several colours, and where a box is too small.
    """
    claims = phrase.claims
    if claims.color is None and claims.not_color is None:
        return
    if claims.thing.split()[-1] not in words.ONE_COLORED | words.SHAPES.keys():
        return  # people name one colour of a thing that has many
    shares_of_boxes = []
    for box in phrase.boxes:
        shares = _color_shares(box, size, open_picture())
        if shares is None:
            return
        shares_of_boxes.append(shares)
    if claims.color is not None:
        seen_instead = [_color_instead(shares, claims.color) for shares in shares_of_boxes]
        if all(seen_instead):
            yield f"{claims.color} is said, and its box is mostly {seen_instead[0]}"
    denied = claims.not_color
    if denied is not None and all(shares[denied] >= _MOSTLY for shares in shares_of_boxes):
        yield f"not {denied} is said, and its box is"


def _color_instead(shares: Mapping[str, float], claimed: str) -> str | None:
    """Return the colour that a box mostly has, where that contradicts the one that is claimed.

    None where the box has some of the claimed colour, no colour mostly, or one that people call by
    the claimed name. ``shares`` has the part of the pixels that is of each colour.
    """
    if shares[claimed] > _HARDLY_ANY:
        return None
    color = max(shares, key=lambda term: shares[term])
    if shares[color] < _MOSTLY or {color, claimed} in _CONFUSABLE_COLORS:
        return None
    return color


# Colours that people call by each other's name: where one is seen, the other isn't contradicted.
_CONFUSABLE_COLORS: tuple[set[str], ...] = (
    {"red", "orange"},
    {"red", "pink"},
    {"red", "brown"},
    {"red", "magenta"},
    {"orange", "yellow"},
    {"orange", "brown"},
    {"yellow", "brown"},
    {"yellow", "green"},
    {"green", "cyan"},
    {"cyan", "blue"},
    {"blue", "purple"},
    {"purple", "magenta"},
    {"purple", "pink"},
    {"pink", "magenta"},
    {"black", "gray"},
    {"white", "gray"},
    {"gray", "blue"},
    {"gray", "brown"},
    {"black", "brown"},
    {"black", "blue"},
    {"white", "yellow"},
)


def _color_shares(box: Bbox, size: Size, picture: "Picture") -> dict[str, float] | None:
    """Return which part of the middle of a box has each colour; None where it is too small.

    The middle leaves out _COLOR_MARGIN. The colours are read loosely: a pixel may be of several.
    ``box`` and ``size`` are in pixels of the upright picture, which ``picture`` may have reduced.
    """
    from dataflow_grounding.extras.embedded._colors import color_mask  # with OpenCV

    scale_x = picture.width / size[0]
    scale_y = picture.height / size[1]
    inside = clamp(box, size)
    width = inside[2] - inside[0]
    height = inside[3] - inside[1]
    left = round((inside[0] + _COLOR_MARGIN * width) * scale_x)
    right = round((inside[2] - _COLOR_MARGIN * width) * scale_x)
    top = round((inside[1] + _COLOR_MARGIN * height) * scale_y)
    bottom = round((inside[3] - _COLOR_MARGIN * height) * scale_y)
    if right - left < _LEAST_COLORED_SIDE or bottom - top < _LEAST_COLORED_SIDE:
        return None
    lch = [channel[top:bottom, left:right] for channel in picture.lch]
    shares = {}
    for term in words.COLOR_BOUNDS:
        shares[term] = float(color_mask(term, lch, inset=-4.0, factor=0.8).mean())
    return shares

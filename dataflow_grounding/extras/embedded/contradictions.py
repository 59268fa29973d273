"""Phrases that their own boxes contradict, found without a model: "two dogs" with three boxes.

What a phrase claims is read by closed lists of words (`_claims`), and tested on the boxes of its
record. A claim is contradicted only where that is clear: two boxes that nearly overlap are neither
left nor right of each other, and of two that are nearly of one size neither is the largest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, clamp, iou
from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded._claims import Claims, may_claim, read_claims

if TYPE_CHECKING:
    from dataflow_grounding.extras.embedded._picture import Picture

_SAME_BOX = 0.7  # IoU from which two boxes are of one thing
_CLEARLY_LARGER = 1.5  # times the area, width or height
_GAP = 0.03  # of the picture's side: less between two middles is no order
# of the picture's side, from the side that is named: a middle further off is clearly not there
_FAR_OFF = 0.62
_AT_THE_SIDE = 0.3  # nearer to the side than that, a box is clearly there
# Shares of the pixels in the middle of a box.
_HARDLY_ANY = 0.01
_MOSTLY = 0.5
_LEAST_SIDE = 8  # px of the reduced copy: in smaller boxes no colour is told


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
class _Named:
    """An expression whose words are understood: what it claims, and its boxes."""

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
    named = []
    for index, expression in enumerate(expressions):
        boxes = [box_of(instance["bbox"]) for instance in expression["instances"]]
        claims = read_claims(expression["text"]) if boxes else None
        if claims is not None:
            named.append(_Named(index, expression["text"], claims, boxes))
    see = None if open_pixels is None else cache(partial(_picture, open_pixels))
    contradictions = []
    for phrase in named:
        reason = next(_reasons(phrase, named, size, see), None)
        if reason is not None:
            contradictions.append(Contradiction(phrase.index, reason))
    return contradictions


def _picture(open_pixels: Callable[[], Any]) -> "Picture":
    """Return the picture as colours are read from it."""
    from dataflow_grounding.extras.embedded._picture import Picture  # with OpenCV

    return Picture(open_pixels())


def _reasons(
    phrase: _Named, named: Sequence[_Named], size: Size, see: "Callable[[], Picture] | None"
) -> Iterator[str]:
    """Yield in words what of a phrase its boxes contradict, what costs least first."""
    claims = phrase.claims
    if claims.count is not None and claims.count != len(phrase.boxes):
        there = "1 box is" if len(phrase.boxes) == 1 else f"{len(phrase.boxes)} boxes are"
        yield f"{claims.count} are said, {there} there"
    others = _others_of_the_thing(phrase, named)
    yield from _of_sides(phrase, others, size)
    if claims.is_bare and len(phrase.boxes) == 1:
        yield from _of_rank(phrase, others, named, size)
    yield from _of_extremes(phrase, others, size)
    yield from _of_relation(phrase, named, size)
    if claims.without is not None:
        inside = _inside(phrase.boxes, _boxes_of(claims.without, named))
        if inside:
            yield f"a {claims.without} is in its box"
    if see is not None:
        yield from _of_color(phrase, size, see)


def _others_of_the_thing(phrase: _Named, named: Sequence[_Named]) -> list[Bbox]:
    """Return the boxes of other things of the same noun, each thing once."""
    boxes: list[Bbox] = []
    for box in _boxes_of(phrase.claims.thing, named):
        if not _is_among(box, phrase.boxes) and not _is_among(box, boxes):
            boxes.append(box)
    return boxes


def _boxes_of(thing: str, named: Sequence[_Named]) -> list[Bbox]:
    """Return the boxes of all phrases with this noun."""
    return [box for phrase in named if phrase.claims.thing == thing for box in phrase.boxes]


def _is_among(box: Bbox, boxes: Sequence[Bbox]) -> bool:
    """Whether a box is of the same thing as another one."""
    return any(iou(box, other) >= _SAME_BOX for other in boxes)


def _offset(box: Bbox, side: str, size: Size) -> float:
    """Return how far a box's middle is from a side of the picture, in parts of the picture."""
    x = (box[0] + box[2]) / 2 / size[0]
    y = (box[1] + box[3]) / 2 / size[1]
    return {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}[side]


def _of_sides(phrase: _Named, others: Sequence[Bbox], size: Size) -> Iterator[str]:
    """Yield where a phrase names a side of the picture, and its boxes are across from there.

    "The left one" of two that are both on the right is right: it is compared with the others.
    """
    claims = phrase.claims
    is_compared = claims.outermost is not None and bool(others)
    if claims.side is not None and not is_compared:
        side = claims.side
        nearest = min(_offset(box, side, size) for box in phrase.boxes)
        is_before_another = any(nearest + _GAP < _offset(other, side, size) for other in others)
        is_behind_another = any(_offset(other, side, size) + _GAP < nearest for other in others)
        if nearest > _FAR_OFF and (is_behind_another or not is_before_another):
            yield f"the {side} is said, and it is across from there"
    if claims.not_side is not None:
        farthest = max(_offset(box, claims.not_side, size) for box in phrase.boxes)
        if farthest < _AT_THE_SIDE:
            yield f"not the {claims.not_side} is said, and it is there"


def _of_rank(
    phrase: _Named, others: Sequence[Bbox], named: Sequence[_Named], size: Size
) -> Iterator[str]:
    """Yield where "the second from the left" has another rank among the things of its noun.

    Too many before it are a contradiction always; too few only where a phrase names all of them.
    """
    if phrase.claims.rank is None:
        return
    rank, side = phrase.claims.rank
    own = _offset(phrase.boxes[0], side, size)
    offsets = [_offset(other, side, size) for other in others]
    if any(abs(offset - own) < _GAP for offset in offsets):
        return  # one above the other
    before = sum(offset < own for offset in offsets)
    behind = len(offsets) - before
    if rank == -1:
        if behind:
            yield f"the last from the {side} is said, and {behind} are behind it"
    elif before > rank - 1 or (before < rank - 1 and _names_all(phrase, others, named)):
        yield f"number {rank} from the {side} is said, and {before} are before it"


def _names_all(phrase: _Named, others: Sequence[Bbox], named: Sequence[_Named]) -> bool:
    """Whether a phrase with nothing but the noun, and a number perhaps, has all of its boxes."""
    everything = [*phrase.boxes, *others]
    for other in named:
        claims = other.claims
        is_plain = claims.is_bare and not (claims.rank or claims.superlative or claims.outermost)
        if other is phrase or claims.thing != phrase.claims.thing or not is_plain or claims.side:
            continue
        if len(everything) > 1 and all(_is_among(box, other.boxes) for box in everything):
            return True
    return False


def _of_extremes(phrase: _Named, others: Sequence[Bbox], size: Size) -> Iterator[str]:
    """Yield where another thing of its noun is larger than "the largest", or further out."""
    claims = phrase.claims
    if not claims.is_bare or not others:
        return
    if claims.superlative is not None:
        figure, is_most = claims.superlative
        own = [_figure(box, figure) for box in phrase.boxes]
        figures = [_figure(box, figure) for box in others]
        if is_most and max(figures) >= _CLEARLY_LARGER * max(own):
            yield f"the most {figure} is said, and another has more"
        if not is_most and _CLEARLY_LARGER * min(figures) <= min(own):
            yield f"the least {figure} is said, and another has less"
    if claims.outermost is not None:
        own_offset = min(_offset(box, claims.outermost, size) for box in phrase.boxes)
        if min(_offset(box, claims.outermost, size) for box in others) + _GAP < own_offset:
            yield f"the outermost on the {claims.outermost} is said, and another is further out"


def _figure(box: Bbox, figure: str) -> float:
    """Return the area, width or height of a box."""
    if figure == "area":
        return area(box)
    return box[2] - box[0] if figure == "width" else box[3] - box[1]


def _of_relation(phrase: _Named, named: Sequence[_Named], size: Size) -> Iterator[str]:
    """Yield where a thing is across from the side that is said, from each thing that is meant."""
    relation = phrase.claims.relation
    if relation is None:
        return
    anchors = _anchors(relation.anchor, phrase, named)
    if not anchors:
        return
    for box in phrase.boxes:
        for anchor in anchors:
            if not _is_across(box, anchor, relation.side, size):
                return
    yield f"the {relation.side} of {relation.anchor!r} is said, and it is across from there"


def _anchors(text: str, phrase: _Named, named: Sequence[_Named]) -> list[Bbox]:
    """Return the boxes that an anchor may be: of the phrase itself, else of all with its noun."""
    claims = read_claims(text)
    if claims is None:
        return []
    same = [other for other in named if _plain(other.text) == _plain(text)]
    if not same:
        same = [other for other in named if other.claims.thing == claims.thing]
    boxes = [box for other in same if other is not phrase for box in other.boxes]
    return [box for box in boxes if not _is_among(box, phrase.boxes)]


def _plain(text: str) -> str:
    """Return a phrase without case and articles, to be compared."""
    return " ".join(word for word in text.lower().split() if word not in words.ARTICLES)


def _is_across(box: Bbox, anchor: Bbox, side: str, size: Size) -> bool:
    """Whether a box is clearly across from the side of its anchor that is said.

    The two hardly overlap along the axis.
    """
    axis = 0 if side in ("left", "right") else 1
    first, second = (anchor, box) if side in ("left", "top") else (box, anchor)
    overlap = first[axis + 2] - second[axis]
    shorter = min(first[axis + 2] - first[axis], second[axis + 2] - second[axis])
    distance = _offset(first, side, size) - _offset(second, side, size)
    return overlap <= 0.25 * shorter and abs(distance) >= _GAP


def _inside(boxes: Sequence[Bbox], things: Sequence[Bbox]) -> list[Bbox]:
    """Return the things that lie wholly, or nearly, in one of the boxes, and are smaller."""
    inside = []
    for thing in things:
        for box in boxes:
            common = (
                max(box[0], thing[0]),
                max(box[1], thing[1]),
                min(box[2], thing[2]),
                min(box[3], thing[3]),
            )
            is_within = common[0] < common[2] and common[1] < common[3]
            if is_within and area(common) >= 0.9 * area(thing) and area(thing) < 0.7 * area(box):
                inside.append(thing)
                break
    return inside


def _of_color(phrase: _Named, size: Size, see: "Callable[[], Picture]") -> Iterator[str]:
    """Yield where no box has the colour that is said, or each has the one that is denied."""
    claims = phrase.claims
    if claims.color is None and claims.not_color is None:
        return
    if claims.thing.split()[-1] not in words.ONE_COLORED | words.SHAPES.keys():
        return  # of a thing of many colours, one is said
    shares = []
    for box in phrase.boxes:
        of_box = _color_shares(box, size, see())
        if of_box is None:
            return
        shares.append(of_box)
    if claims.color is not None:
        seen = [_other_color(of_box, claims.color) for of_box in shares]
        if all(seen):
            yield f"{claims.color} is said, and its box is mostly {seen[0]}"
    if claims.not_color is not None and all(
        of_box[claims.not_color] >= _MOSTLY for of_box in shares
    ):
        yield f"not {claims.not_color} is said, and its box is"


def _other_color(shares: Mapping[str, float], said: str) -> str | None:
    """Return the colour that a box has mostly, where it has hardly any of the one that is said."""
    if shares[said] > _HARDLY_ANY:
        return None
    color = max(shares, key=lambda term: shares[term])
    if shares[color] < _MOSTLY or {color, said} in _ALIKE:
        return None
    return color


# Colours that people call each other: where one is seen, the other isn't contradicted.
_ALIKE: tuple[set[str], ...] = (
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
    """Return which part of the middle of a box has each colour; None where it is too small."""
    from dataflow_grounding.extras.embedded._colors import color_mask  # with OpenCV

    scale_x = picture.width / size[0]
    scale_y = picture.height / size[1]
    inside = clamp(box, size)
    width = inside[2] - inside[0]
    height = inside[3] - inside[1]
    left = round((inside[0] + 0.2 * width) * scale_x)
    right = round((inside[2] - 0.2 * width) * scale_x)
    top = round((inside[1] + 0.2 * height) * scale_y)
    bottom = round((inside[3] - 0.2 * height) * scale_y)
    if right - left < _LEAST_SIDE or bottom - top < _LEAST_SIDE:
        return None
    lch = [channel[top:bottom, left:right] for channel in picture.lch]
    shares = {}
    for term in words.COLOR_BOUNDS:
        shares[term] = float(color_mask(term, lch, inset=-4.0, factor=0.8).mean())
    return shares

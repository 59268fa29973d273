"""Signs, in the first boxes of a run, that they are not in the format that was asked for."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TypeAlias

from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.calibration.choice import CALIBRATE
from dataflow_grounding.coordinates import ORDERS, SCALES, BoxFormat, Order, to_xyxy
from dataflow_grounding.geometry import Bbox, Size

MOST = 200  # boxes looked at in a run
ENOUGH = 30  # boxes, from at least FEW pictures, before their places say anything
FEW = 4
LEAST_SHAPES = 24  # things of known shape
OUTSIDE = 0.03  # how far outside of its range a number may lie, as a share of the range

MIXED, LEAST_MIXED = 0.05, 40  # share of boxes that can't be in the format, and boxes, before two formats may be mixed
MIXED_SHAPES, LEAST_MIXED_SHAPES = 0.25, 60  # the same for things that are the wrong way, wide or tall

ADVICE = f": check vlm.box_format, or {CALIBRATE}"

BLIND = (
    "The rectangles of probe pictures go unanswered, so that calibrating can't help: compare some boxes with their "
    "pictures, state vlm.box_format, or go on with vlm.on_suspect_boxes: warn"
)

_TRIED = tuple(scale for scale in SCALES if scale != 999)  # which says as much as 1000
_WORD = re.compile(r"[a-z]+")
# Things that are nearly always taller than wide, or wider: a phrase's head is looked up, "the tall man" ends in one.
_TALL = "person man woman boy girl child pedestrian lady guy tower bottle lamp door tree giraffe vase skyscraper"
_WIDE = "car bus truck train van sofa couch bed table bench boat ship airplane plane river keyboard"
_SHAPES = {**dict.fromkeys(_TALL.split(), "tall"), **dict.fromkeys(_WIDE.split(), "wide")}


@dataclass(frozen=True)
class Seen:
    """One box as a reply wrote it. `corners` are parts of the asked format's range, in [0, 1] where all is well."""

    corners: Bbox
    numbers: Bbox
    order: Order | None
    sent: Size
    phrase: str
    reply: int


class Signs:
    """The first 200 boxes of a run, looked at as they come; `found` says what is strange about them."""

    def __init__(self, asked: BoxFormat) -> None:
        self._asked = asked
        self._seen: list[Seen] = []
        self._judged = 0
        self._withdrawn: set[Sign] = set()
        self.found: str | None = None
        self.mixed = False
        """Whether some boxes are strange, as if two formats were mixed: it takes a check to tell. Said once."""
        self._mixed_before = False

    @property
    def done(self) -> bool:
        """Whether no more boxes are looked at."""
        return self.found is not None or len(self._seen) >= MOST

    def add(self, boxes: Sequence[Seen]) -> None:
        """Take in a reply's boxes."""
        if self.done:
            return
        self._seen += boxes
        if len(self._seen) > 16 and len(self._seen) < min(MOST, self._judged + 8):
            return
        self._judged = len(self._seen)
        if not self._mixed_before and looks_mixed(self._seen):
            self.mixed = self._mixed_before = True
        if (sign := first_sign(self._seen, self._asked, self._withdrawn)) is not None:
            self._sign, self.found = sign

    def of_one_blind(self) -> str:
        """What was found, of a model that leaves probe pictures unanswered, and what to do about it."""
        what = (self.found or "").replace(f", or {CALIBRATE}", "").replace(f": {CALIBRATE}", "")
        return f"{what}. {BLIND}"

    def withdraw(self) -> None:
        """A check has shown that the format is right: this sign says nothing here."""
        self.mixed = False
        if self.found is not None:
            self._withdrawn.add(self._sign)
            self.found = None


def first_sign(seen: Sequence[Seen], asked: BoxFormat, but: Collection["Sign"] = ()) -> "tuple[Sign, str] | None":
    """The first sign not in `but`, and what is strange with the format that would fit, as a clause."""
    for sign in SIGNS:
        if sign not in but and (found := sign(seen, asked)):
            return sign, f"the boxes don't look like {asked.name}: {found}"
    return None


def looks_mixed(seen: Sequence[Seen]) -> bool:
    """Whether more boxes are strange than slips explain, though not enough for a sign."""
    strange = sum(_is_outside(s) or _is_turned(s) for s in seen)
    if len(seen) >= LEAST_MIXED and strange > MIXED * len(seen):
        return True
    told, right = _shapes(seen)
    return told >= LEAST_MIXED_SHAPES and told - right > MIXED_SHAPES * told


def _fractions(seen: Sequence[Seen], asked: BoxFormat) -> str | None:
    def within(s: Seen) -> bool:
        return asked.scale != 1 and max(s.numbers) <= 1.0 and any(n != int(n) for n in s.numbers)

    return _counted(within, 5, 5, 0.8, "have all numbers within 0 to 1", seen, asked)


def _counted(
    is_strange: Callable[[Seen], bool], boxes: int, least: int, share: float, what: str,
    seen: Sequence[Seen], asked: BoxFormat,
) -> str | None:  # fmt: skip
    """Whether, of so many `boxes`, `least` or more are strange, and this `share`."""
    strange = sum(map(is_strange, seen))
    if len(seen) < boxes or strange < max(least, share * len(seen)):
        return None
    return f"{strange} of {len(seen)} {what}. {_remedy(seen, asked)}"


def _in_one_corner(seen: Sequence[Seen], asked: BoxFormat) -> str | None:
    """All boxes in the top left quarter, or in the part of the picture that another scale would leave them."""
    # The same box again is no further evidence.
    if len({s.numbers for s in seen}) < ENOUGH or len({s.reply for s in seen}) < FEW:
        return None
    if all(max(s.corners) <= 0.5 for s in seen):
        return f"all lie in the top left quarter of their pictures. {_remedy(seen, asked, [asked.order])}"
    for scale in _TRIED:
        other = find_box_format(f"{asked.order}_{scale}", "")
        if scale != asked.scale and all(_within(s, asked, other) for s in seen):
            what = "pixels of the picture" if scale == "px" else f"0 to {scale}"
            remedy = _remedy(seen, asked, [asked.order])
            return f"all numbers stay within {what}, a part of what was asked for. {remedy}"
    return None


def _mirrored(seen: Sequence[Seen], asked: BoxFormat) -> str | None:
    """Things that are taller than wide come out wide, and the other way round."""
    told, right = _shapes(seen)
    if told < LEAST_SHAPES or right > 0.3 * told:
        return None
    order = {"xyxy": "yxyx", "yxyx": "xyxy"}.get(asked.order)
    remedy = f"{order}_{asked.scale} would fit{ADVICE}" if order else f"x and y may be swapped: {CALIBRATE}"
    return f"{told - right} of {told} people, cars and the like are the wrong way, wide or tall. {remedy}"


def _shapes(seen: Sequence[Seen]) -> tuple[int, int]:
    """How many boxes of people, cars and the like are clearly wide or tall, and how many of them the right way."""
    told = right = 0
    for s in {(s.phrase, s.numbers): s for s in seen if s.order is None}.values():
        kinds = [_SHAPES[word] for word in _WORD.findall(s.phrase.casefold())[:4] if word in _SHAPES]
        wide = (s.corners[2] - s.corners[0]) * s.sent[0]
        high = (s.corners[3] - s.corners[1]) * s.sent[1]
        if len(kinds) == 1 and max(wide, high) > 1.15 * min(wide, high):
            told += 1
            right += (high > wide) is (kinds[0] == "tall")
    return told, right


def _repeated(seen: Sequence[Seen], asked: BoxFormat) -> str | None:
    phrases: dict[tuple[int, tuple[float, ...]], set[str]] = {}
    for s in seen:
        phrases.setdefault((s.reply, s.numbers), set()).add(s.phrase.casefold())
    twice = sum(len(phrases[s.reply, s.numbers]) > 1 for s in seen)
    if len(seen) < ENOUGH or twice < 0.6 * len(seen):
        return None
    same = f"{twice} of {len(seen)} are the same for different phrases"
    return f"{same}. The model may not see the picture: try another"


def _remedy(seen: Sequence[Seen], asked: BoxFormat, orders: Sequence[Order] = ORDERS) -> str:
    """Names the plain format in which nearly all boxes lie in their pictures, spread over them, the right way round."""
    fitting, farthest = "", 0.5
    for order, scale in product(sorted(orders, key=lambda order: order != asked.order), _TRIED):
        other = find_box_format(f"{order}_{scale}", "")
        boxes = [corners_of(s.numbers, s.order, s.sent, other) for s in seen]
        right = sum(min(b) >= -0.02 and max(b) <= 1.02 and b[0] < b[2] and b[1] < b[3] for b in boxes)
        reach = min(sorted(b[i] for b in boxes)[int(0.95 * (len(boxes) - 1))] for i in (2, 3))  # of nearly all
        if right >= 0.95 * len(boxes) and reach >= farthest + 0.1 and (order, scale) != (asked.order, asked.scale):
            fitting, farthest = other.name, reach
    return f"{fitting} would fit{ADVICE}" if fitting else f"No plain format fits: {CALIBRATE}"


def corners_of(numbers: Bbox, order: Order | None, sent: Size, box_format: BoxFormat) -> Bbox:
    """The corners that a box's numbers mean in a format, in parts of its range; an `order` of their own comes first."""
    x1, y1, x2, y2 = to_xyxy(numbers, order or box_format.order)
    width, height = box_format.limits(sent)
    return x1 / width, y1 / height, x2 / width, y2 / height


def _within(s: Seen, asked: BoxFormat, other: BoxFormat) -> bool:
    """Whether a box stays in another format's range, which is half of the picture at most if read as asked."""
    (w, h), (width, height) = other.limits(s.sent), asked.limits(s.sent)
    is_half = min(1.0, w / width) * min(1.0, h / height) <= 0.5
    return is_half and s.corners[2] * width <= w * 1.001 and s.corners[3] * height <= h * 1.001


def _is_outside(s: Seen) -> bool:
    return min(s.corners) < -OUTSIDE or max(s.corners) > 1 + OUTSIDE


def _is_turned(s: Seen) -> bool:
    return s.corners[2] < s.corners[0] or s.corners[3] < s.corners[1]


Sign: TypeAlias = Callable[[Sequence[Seen], BoxFormat], str | None]
SIGNS: tuple[Sign, ...] = (
    _fractions,
    partial(_counted, _is_outside, 8, 3, 0.2, "reach out of the picture"),
    partial(_counted, _is_turned, 12, 0, 0.3, "end before they begin"),
    _in_one_corner, _mirrored, _repeated,
)  # fmt: skip

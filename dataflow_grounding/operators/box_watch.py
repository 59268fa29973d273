"""The standing check: cheap signs, in the first boxes of a run, that they are not in the format that was asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias, TypeVar

from dataflow_grounding.coordinates import ORDERS, SCALES, BoxFormat, find_box_format
from dataflow_grounding.errors import SuspectBoxes, UnreadableReply
from dataflow_grounding.frames import Order, to_xyxy
from dataflow_grounding.geometry import Size
from dataflow_grounding.images import Image
from dataflow_grounding.replies.finding import find_marks
from dataflow_grounding.tasks import Request

T = TypeVar("T")
OnSuspect: TypeAlias = Literal["warn", "stop"]

MOST = 200  # boxes looked at in a run
ENOUGH = 30  # boxes, from at least FEW pictures, before their places say anything
FEW = 4
LEAST_SHAPES = 24  # things of known shape
OUTSIDE = 0.03  # how far outside of its range a number may lie, as a share of the range

_ADVICE = ": check vlm.box_format, or run dataflowgrounding calibrate"

# Things that are nearly always taller, or wider, than they are: a phrase's head is looked up, "the tall man" ends in one.
# fmt: off
TALL = frozenset([
    "person", "man", "woman", "boy", "girl", "child", "pedestrian", "lady", "guy", "tower", "bottle", "lamp", "door", "tree",
    "giraffe", "vase", "skyscraper",
])
WIDE = frozenset([
    "car", "bus", "truck", "train", "van", "sofa", "couch", "bed", "table", "bench", "boat", "ship", "airplane", "plane",
    "river", "keyboard",
])
# fmt: on
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Seen:
    """One box as a reply wrote it. `corners` are parts of the asked format's range, in [0, 1] where all is well."""

    corners: tuple[float, float, float, float]
    numbers: tuple[float, float, float, float]
    order: Order | None
    sent: Size
    phrase: str
    reply: int


class BoxWatch:
    """Looks at the first 200 boxes of a run, as the replies wrote them, and warns once or stops the run.

    It changes no record: what it says depends on which replies come first, what is written does not.
    """

    def __init__(self, on_suspect: OnSuspect) -> None:
        self.on_suspect = on_suspect
        self.suspicion: str | None = None
        self._seen: list[Seen] = []
        self._replies = 0
        self._judged = 0

    def __repr__(self) -> str:
        return f"BoxWatch({self.on_suspect!r})"

    def watched(self, request: Request[T], image: Image, phrases: Sequence[str], box_format: BoxFormat) -> Request[T]:
        """The request, its reply looked at before it is read."""
        if self.suspicion is not None or len(self._seen) >= MOST or box_format.scale == "grid_32":
            return request

        def read(reply: str) -> tuple[T, list[str]]:
            self._look(reply, image.sent_size, dict(enumerate(phrases, 1)), box_format)
            return request.read(reply)

        return replace(request, read=read)

    def _look(self, reply: str, sent: Size, phrases: Mapping[int, str], asked: BoxFormat) -> None:
        """Take in a reply's boxes. Raises SuspectBoxes."""
        if self.suspicion is not None or len(self._seen) >= MOST:
            return
        try:
            marks = find_marks(reply, asked.key).boxes
        except UnreadableReply:
            return
        width, height = asked.limits(sent)
        for mark in marks:
            if len(mark.numbers) != 4 or mark.family is not None:
                continue
            x1, y1, x2, y2 = to_xyxy(mark.numbers, mark.order or asked.order)
            a, b, c, d = mark.numbers
            labels = mark.said.labels
            phrase = phrases.get(mark.said.id or 0) or (labels[0] if labels else "")
            corners = (x1 / width, y1 / height, x2 / width, y2 / height)
            self._seen.append(Seen(corners, (a, b, c, d), mark.order, sent, phrase, self._replies))
        self._replies += 1
        if len(self._seen) > 16 and len(self._seen) < min(MOST, self._judged + 8):
            return
        self._judged = len(self._seen)
        found = suspicion(self._seen, asked)
        if found is None:
            return
        self.suspicion = found
        if self.on_suspect == "stop":
            raise SuspectBoxes(f"{found}. Every reply so far is kept")
        print(f"Warning: {found}.", file=sys.stderr, flush=True)


def suspicion(seen: Sequence[Seen], asked: BoxFormat) -> str | None:
    """What is strange about these boxes, and the format that would fit, as a clause; None when nothing is."""
    for sign in (_fractions, _out_of_range, _wrong_way_round, _in_one_corner, _mirrored, _repeated):
        found = sign(seen, asked)
        if found is not None:
            what, remedy = found
            return f"the boxes don't look like {asked.name}: {what}. {remedy}"
    return None


def _fractions(seen: Sequence[Seen], asked: BoxFormat) -> tuple[str, str] | None:
    if asked.scale == 1:
        return None
    small = [s for s in seen if max(s.numbers) <= 1.0 and any(n != int(n) for n in s.numbers)]
    if len(small) < 5 or len(small) < 0.8 * len(seen):
        return None
    return f"{len(small)} of {len(seen)} have all numbers within 0 to 1", _remedy(seen, asked)


def _out_of_range(seen: Sequence[Seen], asked: BoxFormat) -> tuple[str, str] | None:
    outside = [s for s in seen if min(s.corners) < -OUTSIDE or max(s.corners) > 1 + OUTSIDE]
    if len(seen) < 8 or len(outside) < max(3, 0.2 * len(seen)):
        return None
    return f"{len(outside)} of {len(seen)} reach out of the picture", _remedy(seen, asked)


def _wrong_way_round(seen: Sequence[Seen], asked: BoxFormat) -> tuple[str, str] | None:
    turned = [s for s in seen if s.corners[2] < s.corners[0] or s.corners[3] < s.corners[1]]
    if len(seen) < 12 or len(turned) < 0.3 * len(seen):
        return None
    return f"{len(turned)} of {len(seen)} end before they begin", _remedy(seen, asked)


def _in_one_corner(seen: Sequence[Seen], asked: BoxFormat) -> tuple[str, str] | None:
    """All boxes in the top left quarter, or in the part of the picture that another scale would leave them."""
    if not _enough(seen):
        return None
    if all(max(s.corners) <= 0.5 for s in seen):
        return "all lie in the top left quarter of their pictures", _remedy(seen, asked, [asked.order])
    for scale in SCALES:
        if scale in (asked.scale, 999):
            continue
        other = _plain(f"{asked.order}_{scale}")
        small = [s for s in seen if _share(other, asked, s.sent) <= 0.5]
        if _enough(small) and len(small) == len(seen) and all(_within(s, asked, other) for s in small):
            what = "pixels of the picture" if scale == "px" else f"0 to {scale}"
            return f"all numbers stay within {what}, a part of what was asked for", _remedy(seen, asked, [asked.order])
    return None


def _mirrored(seen: Sequence[Seen], asked: BoxFormat) -> tuple[str, str] | None:
    """Things that are taller than wide come out wide, and the other way round."""
    told = right = 0
    for s in {(s.phrase, s.numbers): s for s in seen if s.order is None}.values():
        shape = _shape(s.phrase)
        wide = (s.corners[2] - s.corners[0]) * s.sent[0]
        high = (s.corners[3] - s.corners[1]) * s.sent[1]
        if shape is not None and max(wide, high) > 1.15 * min(wide, high):
            told += 1
            right += (high > wide) is (shape == "tall")
    if told < LEAST_SHAPES or right > 0.3 * told:
        return None
    order = {"xyxy": "yxyx", "yxyx": "xyxy"}.get(asked.order)
    fitting = f"{order}_{asked.scale} would fit" if order else "Run dataflowgrounding calibrate"
    return f"{told - right} of {told} people, cars and the like are the wrong way, wide or tall", f"{fitting}{_ADVICE}"


def _repeated(seen: Sequence[Seen], asked: BoxFormat) -> tuple[str, str] | None:
    phrases: dict[tuple[int, tuple[float, ...]], set[str]] = {}
    for s in seen:
        phrases.setdefault((s.reply, s.numbers), set()).add(s.phrase.casefold())
    twice = sum(len(phrases[s.reply, s.numbers]) > 1 for s in seen)
    if len(seen) < ENOUGH or twice < 0.6 * len(seen):
        return None
    return (
        f"{twice} of {len(seen)} are the same for different phrases",
        "The model may not see the picture: try another",
    )


def _remedy(seen: Sequence[Seen], asked: BoxFormat, orders: Sequence[Order] = ORDERS) -> str:
    fitting = fitting_format(seen, asked, orders)
    return f"{fitting} would fit{_ADVICE}" if fitting else "No plain format fits: run dataflowgrounding calibrate"


def fitting_format(seen: Sequence[Seen], asked: BoxFormat, orders: Sequence[Order]) -> str | None:
    """The plain format in which nearly all boxes lie inside their pictures, the right way round, and spread over them."""
    scales = [scale for scale in SCALES if scale != 999]
    best: tuple[float, str] | None = None
    for order in sorted(orders, key=lambda order: order != asked.order):
        for scale in scales:
            name = f"{order}_{scale}"
            other = _plain(name)
            if (order, scale) == (asked.order, asked.scale):
                continue
            boxes = [_parts(s, other) for s in seen]
            right = sum(min(b) >= -0.02 and max(b) <= 1.02 and b[0] < b[2] and b[1] < b[3] for b in boxes)
            reach = min(sorted(b[i] for b in boxes)[int(0.95 * (len(boxes) - 1))] for i in (2, 3))
            if right >= 0.95 * len(boxes) and reach >= 0.6 and (best is None or reach > best[0] + 0.1):
                best = (reach, name)
    return best[1] if best else None


@lru_cache
def _plain(name: str) -> BoxFormat:
    return find_box_format(name, "")


def _parts(s: Seen, box_format: BoxFormat) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = to_xyxy(s.numbers, s.order or box_format.order)
    width, height = box_format.limits(s.sent)
    return x1 / width, y1 / height, x2 / width, y2 / height


def _enough(seen: Sequence[Seen]) -> bool:
    """The same box again is no more evidence."""
    return len({s.numbers for s in seen}) >= ENOUGH and len({s.reply for s in seen}) >= FEW


def _share(other: BoxFormat, asked: BoxFormat, sent: Size) -> float:
    """The part of the picture that numbers of another format would cover if they were read as asked."""
    (w, h), (width, height) = other.limits(sent), asked.limits(sent)
    return min(1.0, w / width) * min(1.0, h / height)


def _within(s: Seen, asked: BoxFormat, other: BoxFormat) -> bool:
    (w, h), (width, height) = other.limits(s.sent), asked.limits(s.sent)
    return s.corners[2] * width <= w * 1.001 and s.corners[3] * height <= h * 1.001


def _shape(phrase: str) -> str | None:
    words = _WORD.findall(phrase.casefold())[:4]
    kinds = ["tall" if word in TALL else "wide" for word in words if word in TALL | WIDE]
    return kinds[0] if len(kinds) == 1 else None

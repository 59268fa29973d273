"""The picture of a `frontier.json`: cost to the right, F1 upwards, as SVG."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.extras.tuning.frontier import cost_of
from dataflow_grounding.images.display import page_text

STYLE = """
.page { fill: #fff; } .grid { stroke: #e4e2dc; } .axis { stroke: #8b8983; }
text { fill: #55544f; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.name { fill: #1b1b1a; stroke: #fff; stroke-width: 4; paint-order: stroke; }
.own.name { font-weight: 650; }
.span { stroke: #b9b7b0; stroke-width: 1.5; } .leader { stroke: #8b8983; stroke-width: .75; }
.line { stroke: #2c6bb3; stroke-width: 2; fill: none; }
.dot { stroke: #2c6bb3; stroke-width: 2; fill: #2c6bb3; }
.off.dot { stroke: #8b8983; fill: #fff; } .ring { stroke: #2c6bb3; stroke-width: 2; fill: none; }
@media (prefers-color-scheme: dark) {
  .page { fill: #1d1d1c; } .grid { stroke: #343432; } .axis { stroke: #7c7b75; }
  text { fill: #b3b2ab; } .name { fill: #ecebe6; stroke: #1d1d1c; } .span { stroke: #5d5c57; }
  .line { stroke: #7fb2ea; } .dot { stroke: #7fb2ea; fill: #7fb2ea; }
  .off.dot { stroke: #9a9992; fill: #1d1d1c; } .ring { stroke: #7fb2ea; }
}
"""
"""Of the picture alone: a file of its own has no other."""
_LETTER = 7.4  # px, the mean width of a character at 13 px in the widest of the fonts
_LINE = 15  # px, the height of a name
_STEPS = (1, 2, 2.5, 5, 10)  # from one value of an axis to the next, times a power of ten
_DOT = 5.5  # px, the radius of a point
# Where the name of a point may stand: lines below it, from the best place on.
_LINES_BELOW = (0, 1, -1, 1.5, -1.5, 2, -2, 3, -3, 4, -4, 5, 6)


@dataclass(frozen=True)
class Frame:
    """How large the picture is, and its margins, in px.

    Its points have names, or without `has_names` numbers.
    """

    width: int
    height: int
    has_names: bool
    left: int = 52
    right: int = 24
    top: int = 36
    bottom: int = 46


WIDE = Frame(760, 440, True)
NARROW = Frame(340, 340, False, left=44, right=16)


@dataclass(frozen=True)
class _Box:
    """A part of the picture that is taken, in px."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> float:
        """How far its middle is from the picture's top."""
        return (self.top + self.bottom) / 2

    def overlap(self, other: "_Box") -> float:
        """Return the area that both cover, in px²; 0 where they lie apart."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


class _Scale:
    """Where values lie in the frame, whose axes reach from the first to the last round value.

    Costs begin at 0. F1 begins and ends where the rows' intervals do, but never above 1.
    """

    def __init__(self, frame: Frame, rows: Sequence[Mapping[str, Any]]) -> None:
        self.frame = frame
        highest_cost = max(row["cost"] for row in rows) or 1  # an axis has a length
        self.costs = _ticks(0, highest_cost, 5 if frame.has_names else 3)
        lows = [min(row["f1"], *(row["interval"] or [])) for row in rows]
        highs = [max(row["f1"], *(row["interval"] or [])) for row in rows]
        self.scores = _ticks(min(lows), min(max(highs), 1), 5)

    def x(self, cost: float) -> float:
        """Return how far a cost is from the picture's left, in px."""
        width = self.frame.width - self.frame.left - self.frame.right
        return self.frame.left + width * cost / self.costs[-1]

    def y(self, score: float) -> float:
        """Return how far an F1 is from the picture's top, in px."""
        low, high = self.scores[0], self.scores[-1]
        height = self.frame.height - self.frame.top - self.frame.bottom
        return self.frame.top + height * (high - score) / (high - low)


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round values from `low` or less to `high` or more: from 2 to `wanted` + 2 of them.

    Example:
        >>> _ticks(0.03, 0.96, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    tolerance = 1e-9  # 2.9999999999 is 3
    reach = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(reach / wanted))
    enough = reach / wanted * (1 - tolerance)
    step = next(power * size for size in _STEPS if power * size >= enough)
    first = math.floor(low / step + tolerance)
    last = max(math.ceil(high / step - tolerance), first + 1)
    return [round(step * number, 10) for number in range(first, last + 1)]


def picture_of(document: Mapping[str, Any], frame: Frame = WIDE, *, alone: bool = True) -> str:
    """Return the picture as SVG; without axes where no point has an F1.

    Args:
        document: As `frontier_of` returns it; its points without F1 are left out.
        frame: Its size. Where points have numbers, these are their places in the table, from 1.
        alone: Whether it is a file of its own, with its colours in it.
    """
    rows = []
    for number, point in enumerate(document["points"], 1):
        if point["f1"] is not None:
            rows.append({**point, "number": number, "cost": cost_of(point)})
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}"'
        f' role="img" aria-label="Cost and F1 of each way to run"'
    )
    if alone:
        head += f' width="{frame.width}" height="{frame.height}"'
    parts = [head + ">"]
    if alone:
        parts.append(f"<style>{STYLE}</style>")
        parts.append('<rect class="page" width="100%" height="100%"/>')
    if rows:
        scale = _Scale(frame, rows)
        has_price = document["points"][0]["usd_per_1000"] is not None
        cost_unit = "USD" if has_price else "requests to any model"
        parts += _axes(scale, f"{cost_unit} per 1,000 pictures")
        parts += _marks(scale, rows)
        parts += _labels(scale, rows)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _axes(scale: _Scale, cost_label: str) -> Iterator[str]:
    """Yield the grid, its values, and what both axes are, as SVG."""
    frame = scale.frame
    low = frame.height - frame.bottom
    right = frame.width - frame.right
    digits = 2 if scale.scores[1] - scale.scores[0] < 0.1 - 1e-9 else 1
    for score in scale.scores:
        y = scale.y(score)
        yield f'<line class="grid" x1="{frame.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        position = f'x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end"'
        yield f"<text {position}>{score:.{digits}f}</text>"
    for cost in scale.costs:
        x = scale.x(cost)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{low}" y2="{low + 4}"/>'
        label = f"{cost:,g}"
        middle = min(x, frame.width - _LETTER * len(label) / 2)  # the last one isn't cut off
        yield f'<text x="{middle:.1f}" y="{low + 18}" text-anchor="middle">{label}</text>'
    yield f'<line class="axis" x1="{frame.left}" x2="{right}" y1="{low}" y2="{low}"/>'
    yield f'<text x="{right}" y="{low + 37}" text-anchor="end">{cost_label}</text>'
    yield '<text x="8" y="14">F1, and its 95 % interval</text>'


def _marks(scale: _Scale, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield as SVG the intervals, the frontier's line, and the points above both."""
    for row in rows:
        if row["interval"]:
            x = scale.x(row["cost"])
            low, high = (scale.y(end) for end in row["interval"])
            yield f'<line class="span" x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _line(scale, rows))
    yield f'<polyline class="line" points="{path}"/>'
    for row in rows:
        center = f'cx="{scale.x(row["cost"]):.1f}" cy="{scale.y(row["f1"]):.1f}"'
        if row["is_own"]:
            yield f'<circle class="ring" {center} r="{_DOT + 4}"/>'
        off = " off" if row["better"] else ""
        yield f'<circle class="dot{off}" {center} r="{_DOT}"/>'


def _line(scale: _Scale, rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return x and y of the frontier's points, from the cheapest on; none without prices."""
    if rows[0]["usd_per_1000"] is None:
        return []
    best = sorted((row["cost"], row["f1"]) for row in rows if row["better"] is None)
    return [(scale.x(cost), scale.y(f1)) for cost, f1 in best]


def _labels(scale: _Scale, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the points' names as SVG texts, each where it covers the least of anything else.

    Where a name is far from its point, a line to it comes first.
    """
    frame = scale.frame
    taken = _drawn(scale, rows)
    for row in rows:
        text = row["name"] if frame.has_names else str(row["number"])
        x = scale.x(row["cost"])
        y = scale.y(row["f1"])
        box = _best_box(x, y, _LETTER * len(text), taken, frame)
        taken.append(box)
        edge, anchor = _anchor(box, x)
        if abs(box.middle - y) > _LINE:
            end = f'x2="{edge:.1f}" y2="{box.middle:.1f}"'
            yield f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" {end}/>'
        own = " own" if row["is_own"] else ""
        position = f'x="{edge:.1f}" y="{box.bottom - 3:.1f}" text-anchor="{anchor}"'
        yield f'<text class="name{own}" {position}>{page_text(blotted_message(text))}</text>'


def _best_box(x: float, y: float, width: float, taken: Sequence[_Box], frame: Frame) -> _Box:
    """Return where a name of this width stands best for a point at x and y; see `_labels`."""
    best: _Box | None = None
    least_harm = math.inf
    for box in _possible_boxes(x, y, width):
        harm = _covered(box, taken, frame) + _distance_harm(box, x, y)
        if harm < least_harm:
            best = box
            least_harm = harm
    assert best is not None
    return best


def _anchor(box: _Box, x: float) -> tuple[float, str]:
    """Return where a name's text is anchored from the left, and the `text-anchor` for that.

    It is the side of its box next to its point, at x, or the point itself below or above: with a
    font that is narrower than reckoned, the gap is on the far side.
    """
    if box.right < x:
        return box.right, "end"
    if box.left < x:
        return x, "middle"
    return box.left, "start"


def _drawn(scale: _Scale, rows: Sequence[Mapping[str, Any]]) -> list[_Box]:
    """Return what names shouldn't cover: points, intervals, and the frontier piece by piece."""
    taken = []
    for row in rows:
        x = scale.x(row["cost"])
        y = scale.y(row["f1"])
        taken.append(_Box(x - 10, y - 10, x + 10, y + 10))
        if row["interval"]:
            low, high = (scale.y(end) for end in row["interval"])
            taken.append(_Box(x - 2, high, x + 2, low))
    for (x1, y1), (x2, y2) in pairwise(_line(scale, rows)):
        pieces = max(round(math.hypot(x2 - x1, y2 - y1) / 6), 1)
        for number in range(pieces):
            x = x1 + (x2 - x1) * number / pieces
            y = y1 + (y2 - y1) * number / pieces
            taken.append(_Box(x - 3, y - 3, x + 3, y + 3))
    return taken


def _possible_boxes(x: float, y: float, width: float) -> Iterator[_Box]:
    """Yield where a name of this width may stand for a point at x and y.

    That is on its right and left, also some lines above and below it, and there across it, too.
    """
    for lines in _LINES_BELOW:
        top = y + lines * _LINE - _LINE / 2
        for left in (x + 14, x - 14 - width):
            yield _Box(left, top, left + width, top + _LINE)
        if abs(lines) >= 1.5:
            yield _Box(x - width / 2, top, x + width / 2, top + _LINE)


def _distance_harm(box: _Box, x: float, y: float) -> float:
    """Return how bad it is that a name is so far from its point, in px² that it might cover.

    It is 3 for each px above or below, and 2 more unless it is to the right of the point.
    """
    harm_of_side = 0 if box.left > x else 2
    return 3 * abs(box.middle - y) + harm_of_side


def _covered(box: _Box, taken: Sequence[_Box], frame: Frame) -> float:
    """Return how much a name covers of what is `taken`, in px².

    Each px by which it juts out of the picture, or across the axes on its left or below, counts for
    100.
    """
    covered = sum(box.overlap(taken_box) for taken_box in taken)
    outside = max(frame.left - box.left, 0) + max(box.right - frame.width + 4, 0)
    outside += max(2 - box.top, 0) + max(box.bottom - frame.height + frame.bottom, 0)
    return covered + 100 * outside

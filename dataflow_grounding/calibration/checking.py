"""Checking an endpoint in a run: one probe picture, and whether the run's format puts its
rectangles where they are.
"""

import asyncio
import itertools
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding.boxes.coordinates import ORDERS, BoxFormat, Scale
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._fitting import NEAR, Scores
from dataflow_grounding.calibration._seen import Array
from dataflow_grounding.calibration.choice import CALIBRATE
from dataflow_grounding.calibration.probes import (
    Probe,
    ProbedPicture,
    by,
    legible,
    probe_of,
    question_of,
)
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import ImageLimits

# a layout used lately might be answered from a gateway's cache, whatever the model does by now
LAYOUTS = 256

LEAST = 4  # answers, of twelve, before they say anything
# share of the answers that the format should find: even a model that errs by 3% of the side finds 4
# in 5
FOUND = 1 / 3
BETTER = 3  # rectangles that another format finds and this one doesn't
CLEARLY = 2 / 3  # share of the answers that another format finds before it is beyond doubt
MORE = 3  # pictures that are asked for after one that was clearly answered in another format
OFF = 0.04  # how far all boxes together may be off at an end of a side, as a share of it
SURELY = 5.0  # standard errors of that

SCALES: tuple[Scale, ...] = (1000, "px", 1, 100, 1024)


@dataclass(frozen=True)
class CheckVerdict:
    """Rectangles are where the format says (`fits`), aren't (`misses`; `fitting` would), or
    unanswered (`silent`).
    """

    kind: Literal["fits", "misses", "silent"]
    why: str = ""
    remedy: str = ""
    fitting: str | None = None
    # whether nearly all are where `fitting` puts them, and hardly any where the run's format does
    clear: bool = False
    # the format in which one picture was clearly answered, though others were not
    odd: str | None = None
    answered: tuple[Size, ...] = ()  # the sizes in which rectangles are where the format says


async def check(
    ask: Ask,
    asked: BoxFormat,
    sizes: Sequence[Size],
    limits: ImageLimits,
    in_doubt: Callable[[], None] = lambda: None,
    *,
    odd: str | None = None,
    endpoints: Sequence[str] = ("",),
) -> CheckVerdict:
    """Whether the rectangles of probe pictures are where the run's format puts them. Raises
    RunStopped.

    A picture that misses counts only if another of its size misses too. Where the first was clearly
    answered in another format and the next was not, `MORE` are asked for, and a second of its kind
    is enough.

    Args:
        ask, asked: How the run sends requests, and its format.
        sizes: Width and height in pixels; a picture of about each is asked for, within the
            serving's `limits`.
        in_doubt: Called when a picture misses, before more are asked for.
        odd: The format in which a picture of an earlier check was clearly answered: a second such
            picture is enough.
        endpoints: Addresses of the serving's; each is asked for a picture or more.
    """
    of_size = list(dict.fromkeys(legible(size, limits.max_side) for size in sizes))
    of_size += of_size[:1] * (len(endpoints) - len(of_size))
    pictures = _Pictures(ask, asked, limits, in_doubt, odd, endpoints)
    left = list(zip(of_size, itertools.cycle(range(len(endpoints)))))
    while left:
        left, missed = await pictures.ask_for(left)
        if missed is not None:
            return missed
    answered = tuple(size for size, verdict in pictures.told if verdict.kind == "fits")
    why = next((verdict.why for size, verdict in pictures.told if size not in answered), "")
    return CheckVerdict(
        "fits" if answered else "silent", why, odd=pictures.newly_odd, answered=answered
    )


class _Pictures:
    """The pictures of one check: what they `told`, and in which format one was clearly answered,
    though others fit.

    The arguments are those of `check`.
    """

    def __init__(
        self,
        ask: Ask,
        asked: BoxFormat,
        limits: ImageLimits,
        in_doubt: Callable[[], None],
        odd: str | None,
        endpoints: Sequence[str],
    ) -> None:
        self._ask, self._asked, self._limits = ask, asked, limits
        self._in_doubt, self._odd, self._endpoints = in_doubt, odd, endpoints
        self._layouts = iter(random.sample(range(LAYOUTS), LAYOUTS))
        self.told: list[tuple[Size, CheckVerdict]] = []
        self.newly_odd: str | None = None

    async def ask_for(
        self, places: Sequence[tuple[Size, int]]
    ) -> tuple[list[tuple[Size, int]], CheckVerdict | None]:
        """One picture of each size, of the endpoint with that number: what to ask for next, or what
        was missed.
        """
        pictures = await asyncio.gather(*(self._shown(size, at) for size, at in places))
        verdicts = [judge([picture], self._asked) for picture in pictures]
        further: list[tuple[Size, int]] = []
        for (size, at), picture, verdict in zip(places, pictures, verdicts, strict=True):
            second = verdict
            if verdict.kind == "misses":
                self._in_doubt()
                second = await self._once_more(size, at, picture, verdict)
            if second.kind == "misses":
                fit = [
                    place
                    for (place, _), one in zip(places, verdicts, strict=True)
                    if one.kind == "fits"
                ]
                is_by_shape = len(self._endpoints) == 1 and second.odd is None
                return [], replace(second, answered=tuple(fit)) if is_by_shape else second
            if verdict.clear:
                self._odd = self.newly_odd = verdict.fitting
                further = [(size, at)] * MORE
            self.told.append((size, second))
        return further, None

    async def _once_more(
        self, size: Size, at: int, missed: ProbedPicture, verdict: CheckVerdict
    ) -> CheckVerdict:
        """What another picture says of one that was missed: only both together count."""
        if verdict.clear and self._odd:
            return _mixed(self._odd, verdict)
        another = await self._shown(size, at)
        second = judge([another], self._asked)
        if second.kind != "misses":
            return second
        both = judge([missed, another], self._asked)
        return (
            replace(both, why=f"at {self._endpoints[at]}, {both.why}")
            if self._endpoints[at]
            else both
        )

    async def _shown(self, size: Size, at: int) -> ProbedPicture:
        return await shown(
            self._ask, probe_of(size, next(self._layouts)), self._asked, self._limits, at
        )


def _mixed(odd: str, again: CheckVerdict) -> CheckVerdict:
    formats = " and ".join(dict.fromkeys([odd, again.fitting or ""]))
    why = f"2 probe pictures were clearly answered in {formats}, and others were not"
    remedy = (
        "The endpoint answers in more than one format: are there several servers or models behind"
        " its address?"
    )
    return CheckVerdict("misses", why, remedy, odd=odd)


async def shown(
    ask: Ask, probe: Probe, asked: BoxFormat, limits: ImageLimits, at: int = 0
) -> ProbedPicture:
    """A probe picture with what came back for it; without answers where the request failed. Raises
    RunStopped.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        path = os.path.join(folder, "probe.jpg")  # a PNG takes four times as long
        question = await asyncio.to_thread(question_of, probe, asked, limits, path)
        try:
            return (await ask.aside(replace(question, at=at)))[0]
        except RunStopped:
            raise
        except Exception as error:  # nor is a serving's own failure on such a picture
            return ProbedPicture(probe, question.images[0].sent_size, [], str(error))


def judge(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> CheckVerdict:
    """What these pictures show: that the format is missed, only where all of them do."""
    ways = []
    for picture in pictures:
        usable = sum(answer.usable for answer in picture.answers)
        if usable < LEAST:
            trouble = f": {picture.trouble}" if picture.trouble else ""
            return CheckVerdict(
                "silent", f"{usable} of {picture.asked} rectangles were answered{trouble}"
            )
        ways.append(_Ways(picture, asked))
    return _missed(ways) if all(way.missed for way in ways) else CheckVerdict("fits")


def _missed(ways: "Sequence[_Ways]") -> CheckVerdict:
    total, found = sum(way.count for way in ways), sum(way.found for way in ways)
    pictures = "a probe picture" if len(ways) == 1 else f"{len(ways)} probe pictures"
    seen = (
        f"{found} of {total} rectangles in {pictures} of {by(ways[0].sent)} px are where it puts"
        " them"
    )
    counts = {name: sum(way.others[name] for way in ways) for name in ways[0].others}
    # 1000 rather than 1024
    best = next(name for name in counts if counts[name] >= max(counts.values()) - 1)
    explained = counts[best]
    moved = next((way.moved for way in ways if way.moved), None)
    stretched = sum(way.moved[2] for way in ways if way.moved)
    if explained >= max(found + BETTER * len(ways), total / 2, stretched - BETTER * len(ways) + 1):
        clear = explained >= CLEARLY * total and 2 * found <= explained
        return CheckVerdict(
            "misses", f"{seen}, {explained} where {best} does", f"{best} would fit", best, clear
        )
    if moved is not None:
        why = f"{seen}; they would fit {moved[0]} and {moved[1]}"
        return CheckVerdict(
            "misses", why, f"The endpoint seems to resize or pad pictures: {CALIBRATE}"
        )
    remedy = (
        f"No plain format fits: {CALIBRATE}; or set vlm.check_every: null if such pictures are"
        " beyond the model"
    )
    return CheckVerdict("misses", f"{seen}, and hardly more where any other format does", remedy)


class _Ways:
    """One picture's answers: how many rectangles they find read as asked and, in `others`, in every
    plain format.
    """

    def __init__(self, picture: ProbedPicture, asked: BoxFormat) -> None:
        # those at the scale that was asked for first
        frame = "" if asked.frame == "sent" else f"@{asked.frame}"
        names = [
            f"{order}_{scale}{frame}"
            for scale in (asked.scale, *SCALES)
            for order in (asked.order, *ORDERS)
        ]
        names = list(dict.fromkeys(names))
        scores = Scores([picture], [asked, *(find_box_format(name, "") for name in names)])
        self.count, self.sent = len(scores.rows), picture.sent
        self.found, *others = (scores.worst <= NEAR).sum(axis=1).tolist()
        self.others: dict[str, int] = dict(zip(names, others, strict=True))
        self.moved = self._moved(scores.boxes[0] / scores.sides, scores.asked / scores.sides)
        enough = self.found >= FOUND * self.count and self.moved is None
        # another format finds most, and clearly more
        better = max(self.found + BETTER, 0.6 * self.count)
        self.missed = not enough or (self.found + BETTER <= self.count and max(others) >= better)

    def _moved(self, read: Array, true: Array) -> tuple[str, str, int] | None:
        """How x and y would have to be stretched and shifted, if that surely matters, and how many
        are then found.
        """
        lines, sure = [], False
        for axis in (0, 1):
            factor, shift, error = _robust_line(
                [*zip(read[:, axis::2].flat, true[:, axis::2].flat, strict=True)]
            )
            sure = sure or max(abs(shift), abs(factor + shift - 1)) > max(OFF, SURELY * error)
            lines.append((factor, shift))
        (x, left), (y, top) = lines
        found = int(
            (abs(read * [x, y, x, y] + [left, top, left, top] - true).max(axis=1) <= NEAR).sum()
        )
        if not sure or found < max(self.found, 0.6 * self.count):
            return None
        return (
            f"with x times {x:.2f} {left:+.2f} of the width",
            f"y times {y:.2f} {top:+.2f} of the height",
            found,
        )


def _robust_line(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Factor and shift most (read, true) pairs agree on (Theil-Sen), and the error of what they say
    at a far end.
    """
    steps = ((b[0] - a[0], b[1] - a[1]) for a, b in combinations(pairs, 2))
    slopes = [true / read for read, true in steps if abs(read) > 1e-6]
    factor = statistics.median(slopes) if slopes else 1.0
    rest = [true - factor * read for read, true in pairs]
    shift = statistics.median(rest)
    spread = 1.4826 * statistics.median(abs(value - shift) for value in rest)
    return factor, shift, 2.5 * max(spread, 0.003) / len(pairs) ** 0.5

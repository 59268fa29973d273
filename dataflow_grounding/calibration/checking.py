"""Checking an endpoint in a run by a probe picture.

What counts is whether the run's format puts the picture's rectangles where they are.
"""

import asyncio
import os
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple

from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding._util.settings import setting
from dataflow_grounding.boxes.coordinates import ORDERS, BoxFormat, Scale
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration._fitting import NEAR, Scores
from dataflow_grounding.calibration._seen import Array
from dataflow_grounding.calibration.choice import advice_to_calibrate
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
MOST_FOUND = 0.6  # share of the answers that another format, or a stretch, finds at the least
CLEARLY = 2 / 3  # share of the answers that another format finds before it is beyond doubt
MORE = 3  # pictures that are asked for after one that was clearly answered in another format
OFF = 0.04  # how far all boxes together may be off at an end of a side, as a share of it
SURELY = 5.0  # standard errors of that

SCALES: tuple[Scale, ...] = (1000, "px", 1, 100, 1024)


@dataclass(frozen=True)
class CheckVerdict:
    """What probe pictures show of the run's format.

    Attributes:
        kind: Rectangles are where the format says (`fits`), aren't (`misses`), or unanswered
            (`silent`).
        why: What was seen; `remedy`: what to do about it.
        fitting: The format that would fit, where one does.
        clear: Whether nearly all are where `fitting` puts them, and hardly any where the run's
            format does.
        odd: The format in which one picture was clearly answered, though others were not.
        answered: The sizes in which rectangles are where the format says.
    """

    kind: Literal["fits", "misses", "silent"]
    why: str = ""
    remedy: str = ""
    fitting: str | None = None
    clear: bool = False
    odd: str | None = None
    answered: tuple[Size, ...] = ()


class Wanted(NamedTuple):
    """A probe picture to ask for: its size, and the number of the endpoint that is asked."""

    size: Size
    endpoint: int


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
    """Whether the rectangles of probe pictures are where the run's format puts them.

    A picture that misses counts only if another of its size misses too. Where the first was clearly
    answered in another format and the next was not, `MORE` are asked for, and a second of its kind
    is enough. Raises RunStopped.

    Args:
        ask, asked: How the run sends requests, and its format.
        sizes: Width and height in pixels; a picture of about each is asked for, within the
            serving's `limits`.
        in_doubt: Called when a picture misses, before more are asked for.
        odd: The format in which a picture of an earlier check was clearly answered: a second such
            picture is enough.
        endpoints: Addresses of the serving's; each is asked for a picture or more.
    """
    drawn = list(dict.fromkeys(legible(size, limits.max_side) for size in sizes))
    drawn += drawn[:1] * (len(endpoints) - len(drawn))
    wanted = [Wanted(size, number % len(endpoints)) for number, size in enumerate(drawn)]
    pictures = _Pictures(ask, asked, limits, in_doubt, odd, endpoints)
    while wanted:
        wanted, missed = await pictures.ask_for(wanted)
        if missed is not None:
            return missed
    answered = tuple(size for size, verdict in pictures.told if verdict.kind == "fits")
    unanswered = [verdict for size, verdict in pictures.told if size not in answered]
    return CheckVerdict(
        "fits" if answered else "silent",
        unanswered[0].why if unanswered else "",
        odd=pictures.newly_odd,
        answered=answered,
    )


class _Pictures:
    """The pictures of one check.

    The arguments are those of `check`.

    Attributes:
        told: The size of each picture, and what it and a second one like it told.
        newly_odd: The format in which one was clearly answered, though others fit.
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
        self._ask = ask
        self._asked = asked
        self._limits = limits
        self._in_doubt = in_doubt
        self._odd = odd
        self._endpoints = endpoints
        self._layouts = iter(random.sample(range(LAYOUTS), LAYOUTS))
        self.told: list[tuple[Size, CheckVerdict]] = []
        self.newly_odd: str | None = None

    async def ask_for(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], CheckVerdict | None]:
        """Ask for these pictures: what to ask for next, or what was missed."""
        pictures = await asyncio.gather(*[self._shown(picture) for picture in wanted])
        verdicts = [judge([picture], self._asked) for picture in pictures]
        further: list[Wanted] = []
        for which, picture, first in zip(wanted, pictures, verdicts, strict=True):
            verdict = first
            if first.kind == "misses":
                self._in_doubt()
                verdict = await self._once_more(which, picture, first)
            if verdict.kind == "misses":
                if len(self._endpoints) == 1 and verdict.odd is None:
                    # It may be by shape: those that fit are told, too.
                    verdict = replace(verdict, answered=_fitting_sizes(wanted, verdicts))
                return [], verdict
            if first.clear:
                self._odd = first.fitting
                self.newly_odd = first.fitting
                further = [which] * MORE
            self.told.append((which.size, verdict))
        return further, None

    async def _once_more(
        self, which: Wanted, missed: ProbedPicture, first: CheckVerdict
    ) -> CheckVerdict:
        """What another picture says of one that was missed: only both together count."""
        if first.clear and self._odd:
            return _mixed(self._odd, first)
        another = await self._shown(which)
        second = judge([another], self._asked)
        if second.kind != "misses":
            return second
        both = judge([missed, another], self._asked)
        address = self._endpoints[which.endpoint]
        return replace(both, why=f"at {address}, {both.why}") if address else both

    async def _shown(self, which: Wanted) -> ProbedPicture:
        probe = probe_of(which.size, next(self._layouts))
        return await shown(self._ask, probe, self._asked, self._limits, which.endpoint)


def _fitting_sizes(wanted: Sequence[Wanted], verdicts: Sequence[CheckVerdict]) -> tuple[Size, ...]:
    """The sizes whose first picture fits."""
    fitting = []
    for which, verdict in zip(wanted, verdicts, strict=True):
        if verdict.kind == "fits":
            fitting.append(which.size)
    return tuple(fitting)


def _mixed(odd: str, again: CheckVerdict) -> CheckVerdict:
    """Return the verdict on an endpoint that answers in the `odd` format and in that of `again`."""
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
    """A probe picture with what came back for it; without answers where the request failed.

    `at` is the number of the endpoint that is asked. Raises RunStopped.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        path = os.path.join(folder, "probe.jpg")  # a PNG takes four times as long
        question = await asyncio.to_thread(question_of, probe, asked, limits, path)
        try:
            picture, _ = await ask.aside(replace(question, at=at))
            return picture
        except RunStopped:
            raise
        except Exception as error:  # nor is a serving's own failure on such a picture
            return ProbedPicture(probe, question.images[0].sent_size, [], str(error))


def judge(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> CheckVerdict:
    """What these pictures show: that the format is missed, only where all of them do."""
    readings = []
    for picture in pictures:
        usable = sum(answer.usable for answer in picture.answers)
        if usable < LEAST:
            trouble = f": {picture.trouble}" if picture.trouble else ""
            return CheckVerdict(
                "silent", f"{usable} of {picture.asked} rectangles were answered{trouble}"
            )
        readings.append(_Readings(picture, asked))
    if all(reading.is_missed for reading in readings):
        return _missed(readings)
    return CheckVerdict("fits")


def _missed(readings: "Sequence[_Readings]") -> CheckVerdict:
    """Say what was seen where all probe pictures miss, and what to do about it.

    The likeliest cause comes first: another plain format finds clearly more of the rectangles, then
    a picture that was stretched or padded on its way, then none that is known.
    """
    total = sum(reading.count for reading in readings)
    as_asked = sum(reading.as_asked for reading in readings)
    pictures = "a probe picture" if len(readings) == 1 else f"{len(readings)} probe pictures"
    seen = (
        f"{as_asked} of {total} rectangles in {pictures} of {by(readings[0].sent)} px are where it"
        " puts them"
    )
    in_format: Counter[str] = Counter()
    for reading in readings:
        in_format.update(reading.in_format)
    fitting = _first_of_the_best(in_format)
    explained = in_format[fitting]
    stretches = [reading.stretch for reading in readings if reading.stretch is not None]
    found_when_stretched = sum(stretch.found for stretch in stretches)
    margin = BETTER * len(readings)
    is_better_than_asked = explained >= as_asked + margin
    is_half_of_all = explained >= total / 2
    is_no_worse_than_stretched = explained > found_when_stretched - margin
    if is_better_than_asked and is_half_of_all and is_no_worse_than_stretched:
        clear = explained >= CLEARLY * total and 2 * as_asked <= explained
        why = f"{seen}, {explained} where {fitting} does"
        return CheckVerdict("misses", why, f"{fitting} would fit", fitting, clear)
    if stretches:
        why = f"{seen}; they would fit {stretches[0].words}"
        remedy = f"The endpoint seems to resize or pad pictures: {advice_to_calibrate()}"
        return CheckVerdict("misses", why, remedy)
    remedy = (
        f"No plain format fits: {advice_to_calibrate()}; or set"
        f" {setting('vlm.check_every', 'null')} if such pictures are beyond the model"
    )
    return CheckVerdict("misses", f"{seen}, and hardly more where any other format does", remedy)


def _first_of_the_best(in_format: Counter[str]) -> str:
    """The first of the formats that find the most, or one less: 1000 rather than 1024."""
    most = max(in_format.values())
    return next(name for name, count in in_format.items() if count >= most - 1)


class RobustLine(NamedTuple):
    """How boxes along one axis lie beside the true ones, in parts of the side.

    Attributes:
        factor, shift: What they would have to be stretched and shifted by.
        error: That of what these say at a far end.
    """

    factor: float
    shift: float
    error: float

    @property
    def is_surely_off(self) -> bool:
        """Whether boxes are surely off at an end of the side."""
        most = max(abs(self.shift), abs(self.factor + self.shift - 1))
        return most > max(OFF, SURELY * self.error)


class Stretch(NamedTuple):
    """What would have to be done to a picture's boxes, in words, and how many are found then."""

    words: str
    found: int


class _Readings:
    """One picture's answers, read as asked and in every plain format.

    Attributes:
        sent: The size of the picture.
        count: The answers.
        as_asked: How many rectangles they find read as asked.
        in_format: How many they find in each plain format, by its name.
        stretch: What would help if all boxes are off together; None where they aren't.
    """

    def __init__(self, picture: ProbedPicture, asked: BoxFormat) -> None:
        names = _plain_names(asked)
        scores = Scores([picture], [asked] + [find_box_format(name, "") for name in names])
        counts: list[int] = (scores.worst <= NEAR).sum(axis=1).tolist()
        self.sent = picture.sent
        self.count = len(scores.rows)
        self.as_asked = counts[0]
        self.in_format = dict(zip(names, counts[1:], strict=True))
        self.stretch = self._stretch(scores.boxes[0] / scores.sides, scores.asked / scores.sides)

    @property
    def is_missed(self) -> bool:
        """Whether too few are where the format says, or clearly more where another one does."""
        if self.as_asked < FOUND * self.count or self.stretch is not None:
            return True
        clearly_more = max(self.as_asked + BETTER, MOST_FOUND * self.count)
        is_room_for_more = self.as_asked + BETTER <= self.count
        return is_room_for_more and max(self.in_format.values()) >= clearly_more

    def _stretch(self, read: Array, true: Array) -> Stretch | None:
        """How x and y would have to be stretched and shifted, if that surely matters."""
        x = _robust_line(list(zip(read[:, 0::2].flat, true[:, 0::2].flat, strict=True)))
        y = _robust_line(list(zip(read[:, 1::2].flat, true[:, 1::2].flat, strict=True)))
        if not (x.is_surely_off or y.is_surely_off):
            return None
        factors = [x.factor, y.factor, x.factor, y.factor]
        shifts = [x.shift, y.shift, x.shift, y.shift]
        off = abs(read * factors + shifts - true).max(axis=1)
        found = int((off <= NEAR).sum())
        if found < max(self.as_asked, MOST_FOUND * self.count):
            return None
        words = (
            f"with x times {x.factor:.2f} {x.shift:+.2f} of the width and"
            f" y times {y.factor:.2f} {y.shift:+.2f} of the height"
        )
        return Stretch(words, found)


def _plain_names(asked: BoxFormat) -> list[str]:
    """The names of all plain formats, those at the scale that was asked for first."""
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    names = []
    for scale in (asked.scale, *SCALES):
        for order in (asked.order, *ORDERS):
            names.append(f"{order}_{scale}{frame}")
    return list(dict.fromkeys(names))


def _robust_line(pairs: Sequence[tuple[float, float]]) -> RobustLine:
    """The line that most (read, true) pairs agree on (Theil-Sen)."""
    slopes = []
    for (read_a, true_a), (read_b, true_b) in combinations(pairs, 2):
        if abs(read_b - read_a) > 1e-6:
            slopes.append((true_b - true_a) / (read_b - read_a))
    factor = statistics.median(slopes) if slopes else 1.0
    shifts = [true - factor * read for read, true in pairs]
    shift = statistics.median(shifts)
    spread = 1.4826 * statistics.median(abs(value - shift) for value in shifts)
    return RobustLine(factor, shift, 2.5 * max(spread, 0.003) / len(pairs) ** 0.5)

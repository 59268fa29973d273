"""Checking, in the course of a run, whether an endpoint still writes boxes in the run's format.

`check` asks for probe pictures as the run asks for its own, and looks whether the format puts their
rectangles where they are. `judge` does the latter for pictures that were asked for already. The
tests are lenient to a model that is merely inexact, and strict where another format, or a picture
stretched on its way, explains the answers better.
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
from dataflow_grounding.calibration._seen_size import DEVIATION_PER_MEDIAN, Array
from dataflow_grounding.calibration.choice import ANSWERS_IN_SEVERAL, advice_to_calibrate
from dataflow_grounding.calibration.probes import (
    Probe,
    ProbedPicture,
    legible,
    probe_of,
    question_of,
    size_text,
)
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import ImageLimits

# Probe pictures are drawn from so many layouts of rectangles: one that was used lately might be
# answered from a gateway's cache, whatever the model does by now.
LAYOUTS = 256

LEAST = 4  # answers, of twelve, before they say anything
# Share of the answers that the format has to find. Even a model that errs by 3% of the side finds
# four in five.
FOUND = 1 / 3
BETTER = 3  # how many more rectangles another format has to find than the run's
MOST_FOUND = 0.6  # share of the answers that another format, or a stretch, has to find
CLEARLY = 2 / 3  # share of the answers that another format finds where it is beyond doubt
MORE = 3  # pictures that are asked for after one that was clearly answered in another format
OFF = 0.04  # how far all boxes together may be off at an end of a side, as a share of it
SURELY = 5.0  # standard errors by which they have to be off at the least
APART = 1e-6  # share of the side: edges that are read closer together give no slope
LEAST_NOISE = 0.003  # share of the side by which edges are taken to spread at the least
# The standard error of a line at its ends, times the root of the number of points, over their
# spread. It is twice that in the middle, and medians are a quarter less exact than means.
ERROR_AT_ENDS = 2.5

# The scales of plain formats, the more usual ones first.
SCALES: tuple[Scale, ...] = (1000, "px", 1, 100, 1024)


@dataclass(frozen=True)
class CheckVerdict:
    """What probe pictures show of the run's format.

    Attributes:
        kind: `fits` if rectangles are where the format says, `misses` if they aren't, `silent` if
            too few were answered to tell.
        why: What was seen, for a message.
        remedy: What the user can do about it.
        fitting: The name of another format that would fit, where one does.
        clear: Whether CLEARLY enough are where `fitting` puts them, and at most half as many where
            the run's format does.
        odd: The name of another format in which one picture was clearly answered, though others
            were not.
        answered: The sizes of pictures whose rectangles are where the format says.
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
    """Ask for probe pictures, and tell whether the run's format puts their rectangles right.

    A picture that misses counts only if another one of its size misses too. Where the first was
    clearly answered in another format and the next was not, the endpoint may answer in two formats:
    MORE pictures are asked for, and one more that was clearly answered in another is enough.

    Args:
        ask: How the run sends requests.
        asked: The run's format, in which boxes are asked for.
        sizes: Width and height in pixels, of one size at least; a picture of about each is asked
            for.
        limits: The serving's limits, within which pictures are sent.
        in_doubt: Called when a picture misses, before more are asked for.
        odd: The format in which a picture of an earlier check was clearly answered, though others
            were not: a second such picture is enough.
        endpoints: The serving's addresses; each is asked for a picture or more.

    Returns:
        `misses` at the first picture whose miss is confirmed, else `fits` if any picture does, else
        `silent`. Unless it misses, `why` is about the first size that went unanswered.

    Raises:
        RunStopped: The run ended meanwhile.
    """
    legible_sizes = list(dict.fromkeys(legible(size, limits.max_side) for size in sizes))
    while len(legible_sizes) < len(endpoints):  # so that there is a picture for each
        legible_sizes.append(legible_sizes[0])
    wanted = [Wanted(size, number % len(endpoints)) for number, size in enumerate(legible_sizes)]
    check_pictures = _CheckPictures(ask, asked, limits, in_doubt, odd, endpoints)
    while wanted:
        wanted, missed = await check_pictures.ask_for(wanted)
        if missed is not None:
            return missed
    verdicts = check_pictures.verdicts
    answered = tuple(size for size, verdict in verdicts if verdict.kind == "fits")
    unanswered = [verdict for size, verdict in verdicts if size not in answered]
    return CheckVerdict(
        "fits" if answered else "silent",
        unanswered[0].why if unanswered else "",
        odd=check_pictures.newly_odd,
        answered=answered,
    )


class _CheckPictures:
    """The pictures of one check, and what they told so far.

    The arguments are those of `check`.

    Attributes:
        verdicts: The size of each picture, and what it and perhaps a second one like it told.
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
        self.verdicts: list[tuple[Size, CheckVerdict]] = []
        self.newly_odd: str | None = None

    async def ask_for(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], CheckVerdict | None]:
        """Ask for these pictures, all at once, and for a second one where a picture misses.

        Returns the pictures to ask for next, and the verdict of a miss, None without one. There are
        pictures to ask for only where one was clearly answered in another format, and a second one
        like it was not. After a miss there are none, and further pictures' verdicts are left out.
        """
        pictures = await asyncio.gather(*[self._ask_for_one(picture) for picture in wanted])
        first_verdicts = [judge([picture], self._asked) for picture in pictures]
        further: list[Wanted] = []
        for request, picture, first in zip(wanted, pictures, first_verdicts, strict=True):
            verdict = first
            if first.kind == "misses":
                self._in_doubt()
                verdict = await self._confirm_miss(request, picture, first)
            if verdict.kind == "misses":
                if len(self._endpoints) == 1 and verdict.odd is None:
                    # The shape may be the reason, so the sizes that fit are reported as well.
                    verdict = replace(verdict, answered=_fitting_sizes(wanted, first_verdicts))
                return [], verdict
            if first.clear:
                # Clearly another format, and yet a second picture fits: are there two formats?
                self._odd = first.fitting
                self.newly_odd = first.fitting
                further = [request] * MORE
            self.verdicts.append((request.size, verdict))
        return further, None

    async def _confirm_miss(
        self, wanted: Wanted, missed: ProbedPicture, first: CheckVerdict
    ) -> CheckVerdict:
        """Ask for another picture like one that missed; the verdict is `misses` only if both do.

        It is so at once, without asking, where this is the second picture that was clearly answered
        in another format. If the other picture doesn't miss, the verdict is that on it alone.

        Args:
            wanted: What was asked for.
            missed: The picture that missed.
            first: The verdict on it.
        """
        if first.clear and self._odd:
            return _two_formats(self._odd, first)
        another = await self._ask_for_one(wanted)
        second = judge([another], self._asked)
        if second.kind != "misses":
            return second
        both = judge([missed, another], self._asked)
        address = self._endpoints[wanted.endpoint]
        return replace(both, why=f"at {address}, {both.why}") if address else both

    async def _ask_for_one(self, wanted: Wanted) -> ProbedPicture:
        """Ask for a picture in a layout that this check hasn't used yet."""
        probe = probe_of(wanted.size, next(self._layouts))
        return await ask_for_probe(self._ask, probe, self._asked, self._limits, wanted.endpoint)


def _fitting_sizes(wanted: Sequence[Wanted], verdicts: Sequence[CheckVerdict]) -> tuple[Size, ...]:
    """Return the sizes of the pictures whose verdict is that the format fits."""
    fitting = []
    for picture, verdict in zip(wanted, verdicts, strict=True):
        if verdict.kind == "fits":
            fitting.append(picture.size)
    return tuple(fitting)


def _two_formats(odd: str, again: CheckVerdict) -> CheckVerdict:
    """Return the verdict on an endpoint that answers in more than one format.

    Args:
        odd: The other format in which a first picture was clearly answered.
        again: The verdict on a second such picture.
    """
    formats = " and ".join(dict.fromkeys([odd, again.fitting or ""]))
    why = f"2 probe pictures were clearly answered in {formats}, and others were not"
    return CheckVerdict("misses", why, ANSWERS_IN_SEVERAL, odd=odd)


async def ask_for_probe(
    ask: Ask, probe: Probe, asked: BoxFormat, limits: ImageLimits, at: int = 0
) -> ProbedPicture:
    """Ask for the rectangles of one probe picture, as it is sent within `limits`.

    Where the request failed, there are no answers, and `trouble` says why. `at` is the number of
    the endpoint that is asked, from 0. Raises RunStopped.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        path = os.path.join(folder, "probe.jpg")  # a PNG takes four times as long
        question = await asyncio.to_thread(question_of, probe, asked, limits, path)
        try:
            picture, _ = await ask.aside(replace(question, at=at))
            return picture
        except RunStopped:
            raise
        except Exception as error:
            # Whatever a serving, or a user's own code, fails with on a probe picture is no reason
            # to end the run: the picture counts as unanswered.
            return ProbedPicture(probe, question.images[0].sent_size, [], str(error))


def judge(pictures: Sequence[ProbedPicture], asked: BoxFormat) -> CheckVerdict:
    """Tell what these pictures show of the format `asked`.

    The verdict is `silent` if any picture has fewer than LEAST answers, `misses` if all of them
    miss, else `fits`. They have to fit also without the words beside the numbers that state their
    order, which another reply may leave out. There has to be a picture.
    """
    readings = []
    for picture in pictures:
        usable = sum(answer.usable for answer in picture.answers)
        if usable < LEAST:
            trouble = f": {picture.trouble}" if picture.trouble else ""
            return CheckVerdict(
                "silent", f"{usable} of {picture.asked} rectangles were answered{trouble}"
            )
        readings.append(_Readings(picture, asked))
    if all(reading.speaks_against_format for reading in readings):
        return _verdict_of_misses(readings)
    return CheckVerdict("fits")


def _verdict_of_misses(readings: "Sequence[_Readings]") -> CheckVerdict:
    """Return the verdict where all probe pictures miss: what was seen, and what to do about it.

    It names the first cause that applies: another plain format finds clearly more rectangles, half
    of them at the least, and a stretch doesn't find clearly more; pictures were stretched or padded
    on their way; none is known.
    """
    total = sum(reading.count for reading in readings)
    as_asked = sum(reading.as_asked for reading in readings)
    pictures = "a probe picture" if len(readings) == 1 else f"{len(readings)} probe pictures"
    size = size_text(readings[0].sent)
    seen = f"{as_asked} of {total} rectangles in {pictures} of {size} px are where it puts them"
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
    """Return the first format that finds the most rectangles, or one less than that.

    `in_format` has the rectangles found by format, the more usual formats first, so that it is 1000
    rather than 1024.
    """
    most = max(in_format.values())
    return next(name for name, count in in_format.items() if count >= most - 1)


class RobustLine(NamedTuple):
    """How edges along one axis would have to be changed to be true: times `factor`, plus `shift`.

    Attributes:
        factor: What they are stretched by.
        shift: What they are then shifted by, as a share of the side.
        error: The standard error of the line at the ends of the side, as a share of it.
    """

    factor: float
    shift: float
    error: float

    @property
    def is_surely_off(self) -> bool:
        """Whether boxes are off by more than OFF, and SURELY errors, at an end of the side."""
        off_at_0 = abs(self.shift)
        off_at_1 = abs(self.factor + self.shift - 1)
        return max(off_at_0, off_at_1) > max(OFF, SURELY * self.error)


class Stretch(NamedTuple):
    """What would have to be done to a picture's boxes, in words, and how many are found then."""

    words: str
    found: int


class _Readings:
    """One picture's answers, read in the run's format (as asked) and in every plain format.

    Attributes:
        sent: Width and height of the picture as sent, in pixels.
        count: How many answers can be read.
        as_asked: How many rectangles are found when they are read as asked.
        in_format: How many are found in each plain format, by its name.
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
    def speaks_against_format(self) -> bool:
        """Whether the picture misses.

        It does if too few rectangles are where the format says, if all boxes are stretched or
        shifted together, or if clearly more are where another format says.
        """
        if self.as_asked < FOUND * self.count or self.stretch is not None:
            return True
        clearly_more = max(self.as_asked + BETTER, MOST_FOUND * self.count)
        is_room_for_more = self.as_asked + BETTER <= self.count
        return is_room_for_more and max(self.in_format.values()) >= clearly_more

    def _stretch(self, read: Array, true: Array) -> Stretch | None:
        """Return how x and y would have to be stretched and shifted to make the boxes right.

        None unless the boxes are surely off together, and this finds MOST_FOUND of the rectangles
        and no fewer than without it. `read` and `true` are boxes in parts of the sides, shape
        (n, 4).
        """
        # Columns 0 and 2 are x1 and x2, columns 1 and 3 are y1 and y2.
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
    """Return the names of all orders and scales in the frame of the format that was asked for.

    Those with its scale and order come first.
    """
    frame = "" if asked.frame == "sent" else f"@{asked.frame}"
    names = []
    for scale in (asked.scale, *SCALES):
        for order in (asked.order, *ORDERS):
            names.append(f"{order}_{scale}{frame}")
    return list(dict.fromkeys(names))


def _robust_line(pairs: Sequence[tuple[float, float]]) -> RobustLine:
    """Return the line that brings most read edges to the true ones (Theil-Sen).

    Its slope is the median of the slopes between all pairs of points, 1 where all edges are read at
    one place. `pairs` are (read, true), in parts of the side.
    """
    slopes = []
    for (read_a, true_a), (read_b, true_b) in combinations(pairs, 2):
        if abs(read_b - read_a) > APART:
            slopes.append((true_b - true_a) / (read_b - read_a))
    factor = statistics.median(slopes) if slopes else 1.0
    shifts = [true - factor * read for read, true in pairs]
    shift = statistics.median(shifts)
    spread = DEVIATION_PER_MEDIAN * statistics.median(abs(value - shift) for value in shifts)
    error = ERROR_AT_ENDS * max(spread, LEAST_NOISE) / len(pairs) ** 0.5
    return RobustLine(factor, shift, error)

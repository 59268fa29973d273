"""Tests of a judge (a model that checks another one's boxes) by questions of known answer.

The pictures are our own, with rectangles of known colors. Half of the boxes are around what they
are said to be; the others are around another rectangle, for a color that isn't in the picture. A
judge isn't obeyed whose right answers may be those of one who says yes as often, but at random, by
the binomial distribution. So one that always says no gains nothing by questions of which most are
to be denied.
"""

import copy
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, TypeVar

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image, open_image
from dataflow_grounding.images.in_memory import as_path
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.checks import DrawnBox, box_check
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.probes import Probe, probe_of

T = TypeVar("T")

JUDGE_EVERY = 100  # records that rely on one test of the judge
SIZE = (896, 672)  # px, as a calibration's first picture
BOXED = 4  # boxes with their own phrase; as many have the phrase of a color that isn't there
# A judge is obeyed if as many yeses, given at random, are right as often with no more than this
# probability, as they are in 15 of 16 where half are to be affirmed, in 26 of 32, or in 37 of 48.
BY_CHANCE = 0.0003
# The judge is looked at after each picture. Of 20,000 simulated tests, a coin passes 1 in 900 of
# verdicts, and 1 in 10,000 of crops; a judge who is right in 85 of 100 fails none of verdicts, and
# 1 in 5,000 of crops.
MOST_PICTURES = 8
# After this many pictures, a judge fails whose answers are as good as random ones with this
# probability.
HOPELESS_AFTER = 3
HOPELESS = 0.2
USUAL_PICTURES = 2  # that a judge of 85% and more is asked about
PICTURES_OF_ITS_OWN = 3  # of a test, its first ones; the others are those of the next tests
FRESH = 600.0  # seconds for which a test holds for further calls in this process


class KnownPicture(NamedTuple):
    """A picture with questions of known answer.

    Attributes:
        probe: The picture's rectangles.
        boxes: The boxes that are drawn in the picture, each with its phrase.
        right: For each box, whether it is around the rectangle of its phrase. It is exactly if the
            picture has that rectangle.
    """

    probe: Probe
    boxes: list[DrawnBox]
    right: list[bool]

    @property
    def phrases(self) -> list[str]:
        """The phrases that the judge is asked about, in the order of their boxes."""
        return [box.text for box in self.boxes]


class Mark(NamedTuple):
    """A judge's answer to a question of known answer: yes, no, or None where it can't tell.

    `truth` is the known answer.
    """

    answer: bool | None
    truth: bool

    @property
    def is_right(self) -> bool:
        """Whether the judge's answer is the known one; one that can't tell isn't."""
        return self.answer is self.truth


def right_by_chance(marks: Sequence[Mark]) -> float:
    """Return the probability that a judge who guesses has as many answers right, or more.

    One who guesses says yes as often as this one, but at random: the probability is that of the
    binomial distribution, 1 without marks. An answer that can't tell counts as the wrong one.
    """
    if not marks:
        return 1.0
    right = sum(mark.is_right for mark in marks)
    share_true = sum(mark.truth for mark in marks) / len(marks)
    # A yes is a right answer to a true question, or a wrong one to a false question.
    share_yes = sum(mark.truth is mark.is_right for mark in marks) / len(marks)
    # The chance that a guess is right: 1/2 if yes is right for half of the questions, however often
    # the judge says yes.
    chance = share_yes * share_true + (1 - share_yes) * (1 - share_true)
    probability = 0.0
    for count in range(right, len(marks) + 1):
        ways = math.comb(len(marks), count)
        probability += ways * chance**count * (1 - chance) ** (len(marks) - count)
    return probability


def known_picture(layout: int) -> KnownPicture:
    """Return the test picture of a layout, a number from 0; it is the same on every call.

    It has 2 * BOXED of a probe picture's rectangles, each with a box. Every second box has the
    phrase of a rectangle that was left out, and so is wrong. In odd layouts the boxes are in
    reverse order.
    """
    whole = probe_of(SIZE, layout)
    phrases = list(whole.boxes)
    there = phrases[: 2 * BOXED]
    absent = phrases[2 * BOXED :]
    probe = Probe(SIZE, {phrase: whole.boxes[phrase] for phrase in there})
    boxes = []
    # Right and wrong boxes alternate. The phrases' own order is random, so it gives nothing away.
    for number in range(BOXED):
        rightly_boxed = there[2 * number]
        wrongly_boxed = there[2 * number + 1]
        boxes.append(DrawnBox(rightly_boxed, whole.boxes[rightly_boxed]))
        boxes.append(DrawnBox(absent[number], whole.boxes[wrongly_boxed]))
    if layout % 2:
        boxes.reverse()
    return KnownPicture(probe, boxes, [box.text in there for box in boxes])


@lru_cache(maxsize=2 * MOST_PICTURES)
def _png_of(layout: int) -> bytes:
    # Each kind of question is tested by the same pictures, and to compress one takes longer than to
    # ask about it.
    file = io.BytesIO()
    known_picture(layout).probe.draw().save(file, "PNG")
    return file.getvalue()


async def _marks_of_verdicts(
    ask: "_Sampling", image: Image, known: KnownPicture, box_format: BoxFormat
) -> list[Mark]:
    # A verdict other than "other" and "nothing" is a yes; without one, the judge can't tell.
    checked = await ask(box_check(image, known.phrases, known.boxes, box_format))
    marks = []
    for presence, right in zip(checked.presences, known.right, strict=True):
        marks.append(Mark(presence.there, right))
    for verdict, right in zip(checked.verdicts, known.right, strict=True):
        says_yes = verdict.fit not in ("other", "nothing")
        marks.append(Mark(None if verdict.fit is None else says_yes, right))
    return marks


@dataclass(frozen=True)
class Distrust:
    """Why a judge's answers don't count.

    Attributes:
        reason: In words, for the records.
        error: What kept the judge from being tested; None for one that was tested, and does no
            better than chance.
    """

    reason: str
    error: RecordError | None = None


class JudgeResult(NamedTuple):
    """What the last test of a judge came to.

    Attributes:
        tested_at: When it ended, by the monotonic clock, in seconds.
        distrust: Why the judge isn't obeyed; None for one that is.
    """

    tested_at: float
    distrust: Distrust | None


_results: dict[str, JudgeResult] = {}
"""For records in memory: what the last tests in this process came to, by judge and question.

A run with a store doesn't share this: its tests are in its store, so that it can be resumed.
"""


@dataclass(eq=False)
class JudgeTests:
    """Tests a judge in one run. Replies are stored, and read again, as any others.

    Args:
        every: Records that rely on one test.
        serving: The judge.
        box_format: The format in which boxes are described to it.
        results: The results so far, as in `_results`.
        fresh: Seconds for which a result holds.
        warned: The topics that the user was warned of.
    """

    every: int
    serving: Serving
    box_format: BoxFormat
    results: dict[str, JudgeResult]
    fresh: float
    warned: set[str] = field(default_factory=set)

    async def why_not_trusted(self, ask: Ask, place: int) -> Distrust | None:
        """Return why the judge isn't obeyed for a record; None where it is.

        The judge is tested once for each block of `every` records, and again once that is no more
        fresh.

        Args:
            ask: The record's means to send requests.
            place: The record's number in the run, from 0.
        """
        block = place // self.every
        key = self._key(ask, block)
        known = self.results.get(key)
        if known is not None and time.monotonic() - known.tested_at < self.fresh:
            return known.distrust
        distrust = await self._test(ask, block)
        self.results[key] = JudgeResult(time.monotonic(), distrust)
        return distrust

    def _key(self, ask: Ask, block: int) -> str:
        key = {
            **self.serving.identity_there(),
            "asked": "verdicts",
            "block": block,
            "as": self.box_format.name,
            # The user's wording belongs to it: in other words a judge may judge otherwise.
            "wording": getattr(ask, "wording", None),
        }
        return json.dumps(key, sort_keys=True, default=repr)

    async def _test(self, ask: Ask, block: int) -> Distrust | None:
        # Returns why the judge isn't obeyed, of which the user is warned; None where it is. Bad
        # answers that are all in the store are an earlier run's: the judge may be mended since, and
        # is tested once more, by other answers to the same questions. One that couldn't be tested
        # fails its records, and is asked again as these are.
        sample = 0
        while True:
            sampling = _Sampling(ask, sample)
            distrust = await self._why_distrusted(sampling, block)
            if distrust is None:
                return None
            if sampling.is_new or distrust.error is not None:
                topic = "not obeyed" if distrust.error is None else "not tested"
                if topic not in self.warned:
                    self.warned.add(topic)
                    say(f"Warning: {distrust.reason.rstrip('.')}. {_ADVICE[topic]}")
                return distrust
            sample += 1

    async def _why_distrusted(self, ask: "_Sampling", block: int) -> Distrust | None:
        # Ask the judge questions of known answer, until guessing is ruled out, or likely. It is
        # asked about MOST_PICTURES at most. None where its answers are better than chance.
        marks: list[Mark] = []
        for number in range(MOST_PICTURES):
            try:
                marks += await self._ask_about(ask, PICTURES_OF_ITS_OWN * block + number)
            except RecordError as error:
                # Records fail with an error of the same class: it is tried again, or not, as that.
                reason = f"the judge could not be tested: {error}"
                failure = copy.copy(error)
                failure.args = (reason, *error.args[1:])
                return Distrust(reason, failure)
            by_chance = right_by_chance(marks)
            if by_chance <= BY_CHANCE:
                return None
            if number + 1 >= HOPELESS_AFTER and by_chance > HOPELESS:
                break
        right = sum(mark.is_right for mark in marks)
        return Distrust(
            f"the judge is not obeyed: {right} of its {len(marks)} answers to questions of known"
            " answer are right, no more than by chance"
        )

    async def _ask_about(self, ask: "_Sampling", layout: int) -> list[Mark]:
        path = as_path(_png_of(layout), "the test picture")
        record = Record({"image_path": path})
        image = open_image(record, "image_path", self.serving.image_limits)
        return await _marks_of_verdicts(ask, image, known_picture(layout), self.box_format)


_ADVICE = {
    "not obeyed": "Name a better one as vlm.check.",
    "not tested": "What it was to check stays unchecked.",
}


class _Sampling:
    """Asks for one of several independent answers to each question.

    Args:
        ask: Asks the judge.
        sample: Which of the answers, from 0.

    Attributes:
        is_new: Whether any reply wasn't in the store.
    """

    def __init__(self, ask: Ask, sample: int) -> None:
        self._ask = ask
        self._sample = sample
        self.is_new = False

    async def __call__(self, request: Request[T]) -> T:
        """Return the answer to a request."""
        stored: list[object] = []
        try:
            sending = replace(request.sending, stored=stored.append)
            return await self._ask(request.replace(sample=self._sample, sending=sending))
        finally:
            self.is_new = self.is_new or not stored


@dataclass(frozen=True)
class JudgeWatch:
    """How a judge is tested with questions of known answer, and the tests of the run that began.

    Until `begun`, a judge is obeyed.

    Args:
        every: Records that rely on one test; None for no tests.
        tests: Those of the run; None for none.

    Raises:
        SpecError: `every` is no whole number from 1.
    """

    every: int | None = JUDGE_EVERY
    tests: JudgeTests | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        every = self.every
        if every is not None and (not isinstance(every, int) or every < 1):
            raise SpecError("check_every should be 1 or more, or None")

    def as_setting(self) -> str:
        """Return what the answers of an operator depend on: the rhythm."""
        return f"JudgeWatch({self.every})"

    def begun(self, serving: Serving, box_format: BoxFormat, start: RunStart) -> "JudgeWatch":
        """Return the watch of a run that starts: one that tests, if tests are wanted and possible.

        Records in memory share results with other calls in this process, but for those of tests
        that failed.

        Args:
            serving: The judge.
            box_format: The format in which boxes are described to it.
            start: What the run starts with.
        """
        if self.every is None or not serving.takes_probes:
            return replace(self, tests=None)
        results: dict[str, JudgeResult] = {}
        fresh = math.inf  # within a run, records of a block are judged alike
        if start.folder is None:
            results = _results
            fresh = FRESH
            for key, result in list(results.items()):
                # What failed may be mended by now: a new call tests the judge again.
                if result.distrust is not None and result.distrust.error is not None:
                    results.pop(key, None)
        tests = JudgeTests(self.every, serving, box_format, results, fresh)
        return replace(self, tests=tests)

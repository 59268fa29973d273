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
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding._util.files import new_file
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image, open_image
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.checks import Checked, DrawnBox, box_check, crop_check
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.probes import Probe, probe_of

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
HOPELESS_AFTER = 3  # pictures, after which a judge is given up ...
HOPELESS = 0.2  # ... whose answers random ones equal with this probability
USUAL_PICTURES = 2  # that a judge of 85% and more is asked about
PICTURES_OF_ITS_OWN = 3  # the first so many of a test; the others are the next tests' ones
FRESH = 600.0  # seconds for which a test holds for further calls in this process


class KnownPicture(NamedTuple):
    """A picture with questions of known answer.

    Attributes:
        probe: The picture's rectangles.
        phrases: The phrases that the judge is asked about.
        there: For each phrase, whether the picture has its rectangle.
        boxes: The boxes that are drawn in the picture, each with a phrase.
        right: For each box, whether it is around the rectangle of its phrase.
    """

    probe: Probe
    phrases: list[str]
    there: list[bool]
    boxes: list[DrawnBox]
    right: list[bool]


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
    # The chance of a guess to be right. Of questions of which half are to be affirmed, it is 1/2
    # however often it says yes.
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
    asked = [box.text for box in boxes]
    # A phrase is there if and only if its box is right.
    is_there = [phrase in there for phrase in asked]
    return KnownPicture(probe, asked, is_there, boxes, list(is_there))


@lru_cache(maxsize=2 * MOST_PICTURES)
def _png_of(layout: int) -> bytes:
    """Return the PNG file of a layout's test picture.

    Each kind of question is tested by the same pictures, and to compress one takes longer than to
    ask about it.
    """
    file = io.BytesIO()
    known_picture(layout).probe.draw().save(file, "PNG")
    return file.getvalue()


def verdicts_question(
    image: Image, known: KnownPicture, box_format: BoxFormat
) -> tuple[Request[Any], Callable[[Any], list[Mark]]]:
    """Return the `box_check` question about a known picture, and the function that marks answers.

    The function takes the answer, and returns each presence and each verdict beside what is known.
    """
    question = box_check(image, known.phrases, known.boxes, box_format)
    return question, partial(_marks_of_verdicts, known)


def _marks_of_verdicts(known: KnownPicture, checked: Checked) -> list[Mark]:
    """Return the judge's answers beside what is known: on phrases, then on boxes.

    A verdict other than "other" and "nothing" is a yes; without one, the judge can't tell.
    """
    marks = []
    for presence, there in zip(checked.presences, known.there, strict=True):
        marks.append(Mark(presence.there, there))
    for verdict, right in zip(checked.verdicts, known.right, strict=True):
        says_yes = verdict.fit not in ("other", "nothing")
        marks.append(Mark(None if verdict.fit is None else says_yes, right))
    return marks


def crops_of(known: KnownPicture) -> tuple[list[DrawnBox], list[bool]]:
    """Return the crops to ask about, and for each whether it shows what its phrase says.

    Each phrase has two: its own box, and the next phrase's. Those of own boxes come first.
    """
    next_boxes = [*known.boxes[1:], known.boxes[0]]
    boxes = list(known.boxes)
    right = list(known.right)
    for box, next_box in zip(known.boxes, next_boxes, strict=True):
        boxes.append(DrawnBox(box.text, next_box.bbox))
        right.append(known.probe.boxes.get(box.text) == next_box.bbox)
    return boxes, right


def crops_question(
    image: Image, known: KnownPicture, box_format: BoxFormat
) -> tuple[Request[Any], Callable[[Any], list[Mark]]]:
    """Return the `crop_check` question about a known picture, and the function that marks answers.

    The function takes the answers, and returns each beside what is known.
    """
    boxes, right = crops_of(known)
    return crop_check(image, boxes, box_format), partial(_marks_of_crops, right)


def _marks_of_crops(right: Sequence[bool], answers: Sequence[bool | None]) -> list[Mark]:
    """Return the judge's answer about each crop beside whether it is `right`."""
    return [Mark(answer, truth) for answer, truth in zip(answers, right, strict=True)]


Question: TypeAlias = Literal["verdicts", "crops"]
"""What a judge is asked about a known picture."""
_QUESTIONS = {"verdicts": verdicts_question, "crops": crops_question}


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


class TestResult(NamedTuple):
    """What the last test of a judge came to.

    Attributes:
        tested_at: When it ended, by the monotonic clock, in seconds.
        distrust: Why the judge isn't obeyed; None for one that is.
    """

    tested_at: float
    distrust: Distrust | None


_results: dict[str, TestResult] = {}
"""For records in memory: what the last tests in this process came to, by judge and question.

A run with a store doesn't share this: its tests are in its store, so that it can be resumed.
"""


@dataclass(frozen=True)
class JudgeWatch:
    """Tests a judge with questions of known answer, and says why it isn't to be obeyed.

    These are the settings; `begun` returns the watch that tests. Until then, a judge is obeyed.

    Args:
        question: What the judge is asked about a known picture: `verdicts` or `crops`.
        every: Records that rely on one test; None for no tests.

    Raises:
        SpecError: `every` is no whole number from 1.
    """

    question: Question
    every: int | None = JUDGE_EVERY

    def __post_init__(self) -> None:
        every = self.every
        if every is not None and (not isinstance(every, int) or every < 1):
            raise SpecError("check_every should be 1 or more, or None")

    def __repr__(self) -> str:
        return f"JudgeWatch({self.question!r}, {self.every})"

    def as_setting(self) -> str:
        """Return what the answers of an operator depend on: question and rhythm."""
        return repr(self)

    def begun(self, serving: Serving, box_format: BoxFormat, start: RunStart) -> "JudgeWatch":
        """Return the watch of a run that starts: one that tests, if tests are wanted and possible.

        Otherwise it is this one. Records in memory share results with other calls in this process,
        but for those of tests that failed.

        Args:
            serving: The judge.
            box_format: The format in which boxes are described to it.
            start: What the run starts with.
        """
        if self.every is None or not serving.takes_probes:
            return self
        if start.folder is not None:
            return _Testing(self.question, self.every, serving, box_format)
        for key, result in list(_results.items()):
            # What failed may be mended by now: a new call tests the judge again.
            if result.distrust is not None and result.distrust.error is not None:
                _results.pop(key, None)
        return _Testing(self.question, self.every, serving, box_format, _results)

    async def why_not_trusted(self, ask: Ask, place: int) -> Distrust | None:
        """Return why the judge isn't obeyed for a record; None where it is.

        Args:
            ask: The record's means to send requests.
            place: The record's number in the run, from 0.
        """
        return None


@dataclass(frozen=True, repr=False)
class _Testing(JudgeWatch):
    """The tests of one run. Replies to them are stored, and read again, as any others.

    Attributes:
        results: The results so far, as in `_results`.
        warned: The warnings that the user was given; of each kind there is at most one in a run.
    """

    serving: Serving | None = None
    box_format: BoxFormat | None = None
    results: dict[str, TestResult] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    async def why_not_trusted(self, ask: Ask, place: int) -> Distrust | None:
        """Return why the judge isn't obeyed for a record; None where it is. See JudgeWatch.

        The judge is tested once for each block of `every` records, and again after FRESH seconds.
        """
        assert self.every is not None
        block = place // self.every
        # The user's wording belongs to the key: in other words a judge may judge otherwise.
        key = f"{self._key(block)} {getattr(ask, 'wording', None)!r}"
        known = self.results.get(key)
        if known is not None and time.monotonic() - known.tested_at < FRESH:
            return known.distrust
        distrust = await self._test(ask, block)
        self.results[key] = TestResult(time.monotonic(), distrust)
        return distrust

    def _key(self, block: int) -> str:
        """Return what a result is kept under, as JSON: judge, question, block and format."""
        assert self.serving is not None
        assert self.box_format is not None
        whose = {**self.serving.identity_there(), "asked": self.question, "block": block}
        return json.dumps({**whose, "as": self.box_format.name}, sort_keys=True, default=repr)

    async def _test(self, ask: Ask, block: int) -> Distrust | None:
        """Ask the judge questions of known answer, until guessing is ruled out, or likely.

        It is asked about MOST_PICTURES at most. Returns why it isn't obeyed, of which the user is
        warned; None where its answers are better than chance. Raises RunStopped.
        """
        marks: list[Mark] = []
        for number in range(MOST_PICTURES):
            try:
                marks += await self._ask_about(ask, PICTURES_OF_ITS_OWN * block + number)
            except RecordError as error:
                return self._untested(error)
            by_chance = right_by_chance(marks)
            if by_chance <= BY_CHANCE:
                return None
            if number + 1 >= HOPELESS_AFTER and by_chance > HOPELESS:
                break
        right = sum(mark.is_right for mark in marks)
        reason = (
            f"the judge is not obeyed: {right} of its {len(marks)} answers to questions of known"
            " answer are right, no more than by chance"
        )
        self._warn("not obeyed", f"{reason}. Name a better one as vlm.check.")
        return Distrust(reason)

    def _untested(self, error: RecordError) -> Distrust:
        """Return the distrust of a judge whose test failed with an error, and warn of it."""
        reason = f"the judge could not be tested: {error}"
        self._warn("not tested", f"{reason.rstrip('.')}. What it was to check stays unchecked.")
        # Records fail with an error of the same class, so that it is tried again or not as that is.
        failure = copy.copy(error)
        failure.args = (reason, *error.args[1:])
        return Distrust(reason, failure)

    def _warn(self, topic: str, text: str) -> None:
        """Warn the user, once in a run of each topic."""
        if topic not in self.warned:
            self.warned.add(topic)
            say(f"Warning: {text}")

    async def _ask_about(self, ask: Ask, layout: int) -> list[Mark]:
        """Ask the judge about a test picture, and return each answer beside what is known.

        Raises RecordError, RunStopped.
        """
        assert self.serving is not None
        assert self.box_format is not None
        known = known_picture(layout)
        with tempfile.TemporaryDirectory(prefix="judge") as folder:
            path = os.path.join(folder, "judge.png")
            with new_file(path) as file:
                file.write(_png_of(layout))
            image = open_image(
                Record({"image_path": path}), "image_path", self.serving.image_limits
            )
            make_question = _QUESTIONS[self.question]
            request, mark = make_question(image, known, self.box_format)
            return mark(await ask(request))

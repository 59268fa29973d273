"""Whether a judge's word is worth anything: questions of known answer, on pictures of our own.

A picture has rectangles of known colours. Half of the boxes are around what they are said to be;
the others are around another rectangle, for a colour that isn't in the picture.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.calibration.probes import Probe, probe_of
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import Image, open_image
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.checks import Checked, DrawnBox, box_check, crop_check
from dataflow_grounding.tasks.request import Request

JUDGE_EVERY = 100  # records that rely on one test of the judge
SIZE = (896, 672)  # px, as a calibration's first picture
BOXED = 4  # rectangles with their own phrase; as many have that of a colour that isn't there
BY_CHANCE = 0.011  # how likely tosses of a coin may get as many answers right; 13 of 16 do
MOST_PICTURES = 3  # until the judge is known to be better than that
FRESH = 600.0  # seconds for which a test holds for further calls in this process


class KnownPicture(NamedTuple):
    """A picture with questions of known answer.

    `boxes` are drawn in it, each right or not by `right`; `phrases` are there or not by `there`.
    """

    probe: Probe
    phrases: list[str]
    there: list[bool]
    boxes: list[DrawnBox]
    right: list[bool]


class Tally(NamedTuple):
    """Answers that were right, of those that were asked for."""

    right: int
    asked: int

    @property
    def by_chance(self) -> float:
        """How likely a judge who tosses a coin gets as many right, or more."""
        ways = sum(math.comb(self.asked, n) for n in range(self.right, self.asked + 1))
        return float(ways / 2**self.asked)


def known_picture(layout: int) -> KnownPicture:
    """The picture of a number from 0, the same on every call."""
    whole = probe_of(SIZE, layout)
    phrases = list(whole.boxes)
    there = phrases[: 2 * BOXED]
    absent = phrases[2 * BOXED :]
    probe = Probe(SIZE, {phrase: whole.boxes[phrase] for phrase in there})
    boxes = []
    # in the order of the phrases, of which nothing can be told: right and wrong ones alternate
    for number in range(BOXED):
        own = there[2 * number]
        others = there[2 * number + 1]
        boxes.append(DrawnBox(own, whole.boxes[own]))
        boxes.append(DrawnBox(absent[number], whole.boxes[others]))
    if layout % 2:
        boxes.reverse()
    asked = [box.text for box in boxes]
    return KnownPicture(
        probe,
        asked,
        [phrase in there for phrase in asked],
        boxes,
        [box.text in there for box in boxes],
    )


def verdicts_question(
    image: Image, known: KnownPicture, box_format: BoxFormat
) -> tuple[Request[Any], Callable[[Any], list[bool]]]:
    """The `box_check` of a known picture, and which of its answers are right."""

    def marked_as(checked: Checked) -> list[bool]:
        marks = []
        for presence, there in zip(checked.presences, known.there, strict=True):
            marks.append(presence.there is there)
        for verdict, right in zip(checked.verdicts, known.right, strict=True):
            says_yes = verdict.fit not in ("other", "nothing")
            marks.append(verdict.fit is not None and says_yes is right)
        return marks

    return box_check(image, known.phrases, known.boxes, box_format), marked_as


def crops_of(known: KnownPicture) -> tuple[list[DrawnBox], list[bool]]:
    """Each box with its own phrase, and with that of the one before; and which are right."""
    others = [*known.boxes[1:], known.boxes[0]]
    boxes = list(known.boxes)
    right = list(known.right)
    for box, other in zip(known.boxes, others, strict=True):
        boxes.append(DrawnBox(box.text, other.bbox))
        right.append(known.probe.boxes.get(box.text) == other.bbox)
    return boxes, right


def crops_question(
    image: Image, known: KnownPicture, box_format: BoxFormat
) -> tuple[Request[Any], Callable[[Any], list[bool]]]:
    """The `crop_check` of a known picture, and which of its answers are right."""
    boxes, right = crops_of(known)

    def marked_as(answers: Sequence[bool | None]) -> list[bool]:
        return [answer is truth for answer, truth in zip(answers, right, strict=True)]

    return crop_check(image, boxes, box_format), marked_as


Question: TypeAlias = Literal["verdicts", "crops"]
_QUESTIONS = {"verdicts": verdicts_question, "crops": crops_question}

_told: dict[str, tuple[float, str]] = {}
"""For records in memory: when a judge was tested last in this process, and what was found.

A run with a store of its own remembers only what it found itself: its tests stand in the store, so
that it can be gone on with, and read again.
"""


@dataclass(frozen=True)
class JudgeWatch:
    """Tests a judge with questions of known answer, and says why it isn't to be obeyed.

    Args:
        question: What it is asked about a known picture.
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

    def begun(self, serving: Serving, box_format: BoxFormat, start: RunStart) -> "JudgeWatch":
        """The watch of a run that starts."""
        if self.every is None or not serving.takes_probes:
            return self
        told = _told if start.folder is None else {}
        return _Testing(self.question, self.every, serving, box_format, told)

    async def why_not(self, ask: Ask, place: int) -> str:
        """Why the judge isn't obeyed in the record at this place; empty where it is."""
        return ""


@dataclass(frozen=True, repr=False)
class _Testing(JudgeWatch):
    """The tests of one run. A store's replies to them are read again as any other."""

    serving: Serving | None = None
    box_format: BoxFormat | None = None
    told: dict[str, tuple[float, str]] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)
    """What the user was warned of: once in a run."""

    async def why_not(self, ask: Ask, place: int) -> str:
        """Return why the judge isn't obeyed for the record at a place; empty where it is.

        It is tested once for each block of `every` records, and again after a while.
        """
        assert self.every is not None
        block = place // self.every
        # in other words a judge may judge otherwise
        name = f"{self._name(block)} {getattr(ask, 'wording', None)!r}"
        when, known = self.told.get(name, (-math.inf, ""))
        if time.monotonic() - when < FRESH:
            return known
        reason = await self._tested(ask, block)
        self.told[name] = (time.monotonic(), reason)
        return reason

    def _name(self, block: int) -> str:
        assert self.serving is not None
        assert self.box_format is not None
        whose = {**self.serving.identity_there(), "asked": self.question, "block": block}
        return json.dumps({**whose, "as": self.box_format.name}, sort_keys=True, default=repr)

    async def _tested(self, ask: Ask, block: int) -> str:
        """Ask the judge questions of known answer, until guessing is ruled out.

        Returns why it isn't obeyed; empty where its answers are better than chance.
        """
        tally = Tally(0, 0)
        for number in range(MOST_PICTURES):
            try:
                marks = await self._asked(ask, MOST_PICTURES * block + number)
            except RecordError as error:
                return f"the judge could not be tested: {error}"
            tally = Tally(tally.right + sum(marks), tally.asked + len(marks))
            if tally.by_chance <= BY_CHANCE:
                return ""
        reason = (
            f"the judge is not obeyed: {tally.right} of its {tally.asked} answers to questions of"
            " known answer are right, no more than by chance"
        )
        if not self.warned:
            self.warned.append(reason)
            say(f"Warning: {reason}. Name a better one as vlm.check.")
        return reason

    async def _asked(self, ask: Ask, layout: int) -> list[bool]:
        """Which answers about a known picture are right. Raises what failed."""
        assert self.serving is not None
        assert self.box_format is not None
        known = known_picture(layout)
        with tempfile.TemporaryDirectory(prefix="judge") as folder:
            path = os.path.join(folder, "judge.png")
            known.probe.draw().save(path)
            image = open_image(
                Record({"image_path": path}), "image_path", self.serving.image_limits
            )
            make = _QUESTIONS[self.question]
            request, marked_as = make(image, known, self.box_format)
            return marked_as(await ask(request))

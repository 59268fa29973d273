"""Probe pictures: a dozen rectangles of distinct colours, whose places are known; drawn, and with
what was answered.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageDraw

from dataflow_grounding._util.errors import SpecError, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat, Order
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.drawing import Mark, draw_marks
from dataflow_grounding.images.image import PADDING, ImageLimits, open_image
from dataflow_grounding.replies.finding import parse_reply
from dataflow_grounding.replies.labels import equal_ids, matching_ids
from dataflow_grounding.replies.reading import Said
from dataflow_grounding.tasks import Request, phrase_grounding

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 36),
    "orange": (245, 135, 20),
    "yellow": (250, 222, 40),
    "green": (36, 150, 60),
    "turquoise": (50, 205, 200),
    "blue": (30, 70, 200),
    "purple": (120, 40, 160),
    "pink": (250, 150, 195),
    "brown": (125, 75, 35),
    "black": (10, 10, 10),
    "gray": (140, 140, 140),
    "white": (255, 255, 255),
}
BACKGROUND = (222, 232, 240)
ANSWERED = (213, 0, 120)
PLOT_HEIGHT, PLOT_MARGIN = 672, 24

# The pictures that settle order and scale. The first has sides that no provider's resize changes:
# multiples of 28 and 32, neither small nor large. The second is off every such multiple, so that
# rounding shows; the third is over the usual limits of pixels and of the long side. They are as
# different in shape as most pictures are (4:3, 16:9, 9:16): numbers for the whole side, or for that
# of a padded square, mean the same in one shape and not in the next.
SIZES: tuple[Size, ...] = ((896, 672), (436, 245), (1134, 2016))
# What else has to fit where numbers seem to count a square that pictures are padded to.
OTHER_SHAPES: tuple[Size, ...] = ((330, 330), (1500, 500), (500, 375))
# And where they count parts of the side, if the sizes of no run's pictures are known.
USUAL_SHAPES: tuple[Size, ...] = ((1000, 1000), (640, 427), (420, 560))

SHORTEST = 224  # px of a picture's short side, below which a model sees no rectangles
NARROWEST = 96  # the same, where the longest side allows no more


class NoFit(SpecError):
    """No format can be named; the message says what was seen, the `pictures` are those that were
    answered.
    """

    pictures: "Sequence[ProbedPicture]" = ()


class PicturesDisagree(NoFit):
    """No one format fits all pictures."""


@dataclass(frozen=True)
class Probe:
    """A picture to be drawn: `boxes` are the rectangles by phrase ("the red rectangle"), in its
    pixels.
    """

    size: Size
    boxes: dict[str, Bbox]
    drawn: Size | None = None  # up to where it is drawn: what lies to the right or below is padding

    def draw(self) -> PIL.Image.Image:
        """The picture."""
        picture = PIL.Image.new("RGB", self.size, PADDING)
        picture.paste(BACKGROUND, (0, 0, *(self.drawn or self.size)))
        pen = PIL.ImageDraw.Draw(picture)
        for phrase, (x1, y1, x2, y2) in self.boxes.items():
            line = max(1, round(min(self.size) / 400))
            pen.rectangle(
                (x1, y1, x2 - 1, y2 - 1),
                fill=COLORS[phrase.split()[1]],
                outline=(60, 60, 60),
                width=line,
            )
        return picture


@dataclass(frozen=True)
class ProbeBox:
    """One rectangle: `asked` in pixels of the picture, and as the reply wrote it: `numbers`,
    `order` or `family`.
    """

    phrase: str
    asked: Bbox
    numbers: tuple[float, ...]
    order: Order | None = None
    family: str | None = None

    @property
    def usable(self) -> bool:
        """Whether its numbers can be a box's."""
        return len(self.numbers) == 4 or self.family is not None


@dataclass(frozen=True)
class ProbedPicture:
    """What came back for a picture `sent` in this size; `trouble`: what kept a reply unread,
    `refused`: why none is.
    """

    probe: Probe
    sent: Size
    answers: Sequence[ProbeBox]
    trouble: str = ""
    refused: str = ""

    @property
    def size(self) -> Size:
        """Width and height of the picture in pixels."""
        return self.probe.size

    @property
    def asked(self) -> int:
        """How many rectangles it has."""
        return len(self.probe.boxes)

    def in_pixels(self, answer: ProbeBox, asked: BoxFormat) -> Bbox:
        """An answer in pixels of the picture, as the reader would read it where this format was
        asked for.
        """
        written = replace(asked, order=answer.order) if answer.order else asked
        written = known_formats()[answer.family] if answer.family else written
        return written.to_pixels(answer.numbers, original=self.size, sent=self.sent)


AskProbes: TypeAlias = Callable[[Sequence[Probe], BoxFormat], Awaitable[Sequence[ProbedPicture]]]
"""Puts probe pictures to a model, asking for boxes in a format; gives their answers, in order."""


def reduced_to(size: Size, max_side: int) -> Size:
    """The size, reduced so that no side is over `max_side` px."""
    scale = min(1.0, max_side / max(size))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def legible(size: Size, max_side: int) -> Size:
    """The size, enlarged where a model would see nothing in it."""
    scale = max(1.0, min(SHORTEST / min(size), max_side / max(size)))
    width, height = (min(max(round(side * scale), NARROWEST), max_side) for side in size)
    return width, height


def probe_of(size: Size, layout: int = 0) -> Probe:
    """The picture of this size, the same on every call; each `layout` has its rectangles elsewhere.

    One in each cell of a grid; the last column and row reach the edge, where a model writes the
    highest number.
    """
    draw = random.Random(f"{size[0]}x{size[1]}/{layout}")
    names = sorted(COLORS)
    draw.shuffle(names)
    columns, rows = (6, 2) if max(size) > 2.5 * min(size) else (4, 3)
    columns, rows = (columns, rows) if size[0] >= size[1] else (rows, columns)
    width, height = size[0] / columns, size[1] / rows
    boxes: dict[str, Bbox] = {}
    for number, name in enumerate(names):
        column, row = number % columns, number // columns
        wide = draw.random() < 0.5
        w = draw.uniform(0.6, 0.85) if wide else draw.uniform(0.3, 0.5)
        h = draw.uniform(0.3, 0.5) if wide else draw.uniform(0.6, 0.85)
        left = 1 - w if column == columns - 1 else draw.uniform(0.05, 0.95 - w)
        top = 1 - h if row == rows - 1 else draw.uniform(0.05, 0.95 - h)
        x1, y1 = round((column + left) * width), round((row + top) * height)
        x2, y2 = round((column + left + w) * width), round((row + top + h) * height)
        x1, y1 = min(x1, x2 - 1), min(y1, y2 - 1)  # of a strip, too, each has an area
        boxes[f"the {name} rectangle"] = (x1, y1, x2, y2)
    return Probe(size, boxes)


def question_of(
    probe: Probe, asked: BoxFormat, limits: ImageLimits, path: str
) -> Request[ProbedPicture]:
    """The question for the rectangles of a probe picture, which is drawn into a file
    of this name.
    """
    settings: dict[str, Any] = {} if path.endswith(".png") else {"quality": 95, "subsampling": 0}
    probe.draw().save(path, **settings)
    image = open_image(Record({"image_path": path}), "image_path", limits)
    question: Request[Any] = phrase_grounding(image, list(probe.boxes), asked)
    blank = ProbedPicture(probe, image.sent_size, [])
    return replace(
        question, read=lambda reply: (_answered(blank, reply, asked.key), []), divisible=False
    )


def _answered(blank: ProbedPicture, reply: str, key: str) -> ProbedPicture:
    """The picture with the box that a reply's last answer gives each rectangle,
    numbers as written.
    """
    try:
        parsed = parse_reply(reply, key)
    except UnreadableReply as error:
        return replace(blank, trouble=str(error))
    phrases = dict(enumerate(blank.probe.boxes, 1))
    answers: dict[int, ProbeBox] = {}
    for raw in sorted(parsed.boxes, key=lambda raw: -raw.answer):  # the last answer counts
        number = _phrase_of(raw.said, phrases)
        if number is not None and number not in answers:
            phrase = phrases[number]
            answers[number] = ProbeBox(
                phrase, blank.probe.boxes[phrase], raw.numbers, raw.order, raw.family
            )
    return replace(blank, answers=[answers[number] for number in sorted(answers)])


def _phrase_of(said: Said, phrases: Mapping[int, str]) -> int | None:
    """By a label that is a phrase, else by id, else by a label that means only one phrase."""
    equal = [number for label in said.labels for number in equal_ids(label, phrases)]
    if equal or said.id in phrases:
        return equal[0] if equal else said.id
    return next(
        (ids[0] for label in said.labels if len(ids := matching_ids(label, phrases)) == 1), None
    )


def by(size: Size) -> str:
    """A size in words."""
    return f"{size[0]}x{size[1]}"


def plot(
    pictures: Sequence[ProbedPicture], boxes: Sequence[Sequence[tuple[str, Bbox]]]
) -> PIL.Image.Image:
    """The pictures side by side, each 672 px high; `boxes` are the answers in pixels, per picture,
    drawn dashed.
    """
    columns = []
    for picture, answers in zip(pictures, boxes, strict=True):
        scale = PLOT_HEIGHT / picture.size[1]
        small = picture.probe.draw().resize(
            (round(picture.size[0] * scale), PLOT_HEIGHT), PIL.Image.Resampling.LANCZOS
        )
        scaled = [(phrase, box_of([edge * scale for edge in bbox])) for phrase, bbox in answers]
        marks = [Mark(bbox, phrase.split()[1], ANSWERED, True) for phrase, bbox in scaled]
        around = ((PLOT_MARGIN, PLOT_MARGIN), (PLOT_MARGIN, 0), (0, 0))
        columns.append(np.pad(np.asarray(draw_marks(small, marks)), around, constant_values=255))
    at_the_right = np.full((PLOT_HEIGHT + 2 * PLOT_MARGIN, PLOT_MARGIN, 3), 255, np.uint8)
    return PIL.Image.fromarray(np.hstack([*columns, at_the_right]))

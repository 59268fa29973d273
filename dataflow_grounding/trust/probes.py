"""Probe pictures: a dozen rectangles of distinct colors, at known places on a plain background.

A model that is asked for the rectangles shows how it writes boxes. Here the pictures are laid out
(`probe_of`), drawn, asked about (`question_of`), and kept with what was answered
(`ProbedPicture`). A layout is a number: of each, a picture of one size has its rectangles at the
same places.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import PIL.Image
import PIL.ImageDraw

from dataflow_grounding._util.errors import GroundingError, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat, Order
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.image import ImageLimits, open_image
from dataflow_grounding.replies.labels import ids_of
from dataflow_grounding.replies.reader import parse_reply
from dataflow_grounding.replies.reading import RawBox
from dataflow_grounding.tasks import Request, phrase_grounding
from dataflow_grounding.tasks.request import ReadReply

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
OUTLINE = (60, 60, 60)

# The pictures that settle order and scale. The first has sides that no provider's resize changes:
# multiples of 28 and 32, neither small nor large. The second is off every such multiple, so that
# rounding shows; the third is over the usual limits of pixels and of the long side. They are as
# different in shape as most pictures are (4:3, 16:9, 9:16): numbers for the whole side, or for that
# of a padded square, mean the same in one shape and not in the next.
SIZES: tuple[Size, ...] = ((896, 672), (436, 245), (1134, 2016))
# What else has to fit where numbers count parts of the side, if no run's pictures are known.
USUAL_SHAPES: tuple[Size, ...] = ((1000, 1000), (640, 427), (420, 560))

INNER = 1000  # the first layout whose rectangles keep away from the picture's edges
LAYOUTS = 1000  # of rectangles: one used lately might be answered from a gateway's cache
INSET = 0.05  # of the side: three standard deviations of a model that is off by 1.5%
SUFFIXES = {"image/png": ".png", "image/webp": ".webp"}  # by media type; of others it is .jpg
SHORTEST = 224  # px of a picture's short side, below which a model sees no rectangles
NARROWEST = 96  # the same, where the longest side allows no more


@dataclass(frozen=True)
class Probe:
    """A picture to be drawn."""

    size: Size
    boxes: dict[str, Bbox]
    """The rectangles by phrase ("the red rectangle"), in pixels."""

    def draw(self) -> PIL.Image.Image:
        picture = PIL.Image.new("RGB", self.size, BACKGROUND)
        pen = PIL.ImageDraw.Draw(picture)
        line = max(1, round(min(self.size) / 400))
        for phrase, (x1, y1, x2, y2) in self.boxes.items():
            color = COLORS[color_of(phrase)]
            # Pillow draws the last pixel, too, while a box ends before x2 and y2.
            pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color, outline=OUTLINE, width=line)
        return picture


def phrase_of(color: str) -> str:
    return f"the {color} rectangle"


def color_of(phrase: str) -> str:
    return phrase.split()[1]


@dataclass(frozen=True)
class ProbeBox:
    """One rectangle, and the box that was answered."""

    phrase: str
    asked: Bbox
    """The true rectangle, in pixels of the picture as drawn."""
    numbers: tuple[float, ...]
    """As the reply wrote them, in its own order."""
    order: Order | None = None
    """Where the reply names it, as keys such as x1 do."""
    family: str | None = None
    """Of models, whose special tokens the reply has."""

    @property
    def usable(self) -> bool:
        """Whether the answer can be read as a box."""
        return len(self.numbers) == 4 or self.family is not None


@dataclass(frozen=True)
class ProbedPicture:
    """What came back for a probe picture."""

    probe: Probe
    sent: Size
    answers: Sequence[ProbeBox]
    """The rectangles that were answered, each once."""
    trouble: str = ""
    """Why the reply couldn't be read."""
    refused: str = ""
    """Why there is no reply."""
    finds_nothing: bool = False
    """Whether the reply says that none of the rectangles is there."""
    padded: Size | None = None
    """With the padding that it was sent with, in pixels of the picture as drawn."""

    @property
    def size(self) -> Size:
        """As drawn."""
        return self.probe.size

    @property
    def shown(self) -> Size:
        """All that the model is shown, in pixels of the picture as drawn."""
        return self.padded or self.size

    @property
    def asked(self) -> int:
        """How many rectangles the picture has."""
        return len(self.probe.boxes)

    def in_pixels(self, answer: ProbeBox, asked: BoxFormat) -> Bbox:
        """Return an answer in pixels of the picture as drawn, as the reader would read it."""
        written_in = asked
        if answer.family:
            written_in = known_formats()[answer.family]
        elif answer.order:
            written_in = replace(asked, order=answer.order)
        return written_in.to_pixels(answer.numbers, original=self.shown, sent=self.sent)


AskProbes: TypeAlias = Callable[[Sequence[Probe], BoxFormat], Awaitable[Sequence[ProbedPicture]]]
"""Puts probe pictures to a model, asking for boxes in a format; gives their answers, in order."""


def reduced_to(size: Size, max_side: int) -> Size:
    """Return the size, reduced in its shape so that no side is over `max_side` px."""
    scale = min(1.0, max_side / max(size))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def legible(size: Size, max_side: int, shortest: int = SHORTEST) -> Size:
    """Return the size, enlarged where a model couldn't see rectangles in it.

    The short side becomes `shortest`, or less where the long one reaches `max_side` first. A strip
    that is still too narrow is widened to NARROWEST, which changes its shape.
    """
    scale = max(1.0, min(shortest / min(size), max_side / max(size)))  # it is never reduced
    width = min(max(round(size[0] * scale), NARROWEST), max_side)
    height = min(max(round(size[1] * scale), NARROWEST), max_side)
    return width, height


def probe_of(size: Size, layout: int = 0) -> Probe:
    """Return the picture of this size and layout, the same one on every call.

    Each `layout` has its rectangles at other places, one in each cell of a grid.

    - Below INNER, those of the last column and row reach the picture's edge, where a model writes
      its highest number.
    - From INNER on, all keep INSET away from the edges. Models write no numbers beyond the picture,
      so errors at an edge only go inwards, which would move a line.
    """
    draw = _random_of(size, layout)
    colors = _shuffled_colors(draw)
    grid = _grid(size)
    boxes: dict[str, Bbox] = {}
    for number, color in enumerate(colors):
        boxes[phrase_of(color)] = _box_in_cell(draw, number, grid, size)
    if layout >= INNER:
        boxes = {phrase: _inset(bbox, size) for phrase, bbox in boxes.items()}
    return Probe(size, boxes)


class _Grid(NamedTuple):
    """A cell for each of the twelve colors."""

    columns: int
    rows: int


def _grid(size: Size) -> _Grid:
    is_elongated = max(size) > 2.5 * min(size)
    along_longer, along_shorter = (6, 2) if is_elongated else (4, 3)
    is_wide = size[0] >= size[1]
    return _Grid(along_longer, along_shorter) if is_wide else _Grid(along_shorter, along_longer)


def _box_in_cell(draw: random.Random, number: int, grid: _Grid, size: Size) -> Bbox:
    """The rectangle of a cell; cells are numbered from 0, row by row."""
    if draw.random() < 0.5:  # half of the rectangles are wide, the others tall
        width = draw.uniform(0.6, 0.85)  # as all of these, in parts of the cell
        height = draw.uniform(0.3, 0.5)
    else:
        width = draw.uniform(0.3, 0.5)
        height = draw.uniform(0.6, 0.85)
    column = number % grid.columns
    row = number // grid.columns
    # Those of the last column and row reach the picture's edge; all keep away from other edges.
    is_last_column = column == grid.columns - 1
    is_last_row = row == grid.rows - 1
    left = 1 - width if is_last_column else draw.uniform(0.05, 0.95 - width)
    top = 1 - height if is_last_row else draw.uniform(0.05, 0.95 - height)
    cell_width = size[0] / grid.columns
    cell_height = size[1] / grid.rows
    x2 = round((column + left + width) * cell_width)
    y2 = round((row + top + height) * cell_height)
    # Every rectangle has an area, also in a strip whose cells are narrower than a pixel.
    x1 = min(round((column + left) * cell_width), x2 - 1)
    y1 = min(round((row + top) * cell_height), y2 - 1)
    return x1, y1, x2, y2


def phrases_of(size: Size, layout: int) -> list[str]:
    """Return the phrases of `probe_of` this size and layout, in its order, without their boxes."""
    colors = _shuffled_colors(_random_of(size, layout))
    return [phrase_of(color) for color in colors]


def _random_of(size: Size, layout: int) -> random.Random:
    return random.Random(f"{size[0]}x{size[1]}/{layout}")


def _shuffled_colors(draw: random.Random) -> list[str]:
    colors = sorted(COLORS)
    draw.shuffle(colors)
    return colors


def _inset(bbox: Bbox, size: Size) -> Bbox:
    inner = 1 - 2 * INSET
    width, height = size
    sides = (width, height, width, height)
    x1, y1, x2, y2 = (
        round(INSET * side + inner * edge) for edge, side in zip(bbox, sides, strict=True)
    )
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)  # with an area, also in a narrow strip


def question_of(
    probe: Probe, asked: BoxFormat, limits: ImageLimits, path: str
) -> Request[ProbedPicture]:
    """Draw a probe picture, and return the question for its rectangles.

    It is saved at `path`, whose suffix names the file type.
    """
    settings: dict[str, Any] = {} if path.endswith(".png") else {"quality": 95, "subsampling": 0}
    probe.draw().save(path, **settings)
    return question_about(Record({"image_path": path}), probe, asked, limits)


def question_about(
    record: Record, probe: Probe, asked: BoxFormat, limits: ImageLimits
) -> Request[ProbedPicture]:
    """Return the question for the rectangles of a probe picture, which is the record's image."""
    image = open_image(record, "image_path", limits)
    question: Request[Any] = phrase_grounding(image, list(probe.boxes), asked)
    unanswered = ProbedPicture(probe, image.sent_size, [], padded=image.shown_size)

    def read(reply: str) -> ReadReply[ProbedPicture]:
        probed = _answered(unanswered, reply, asked)
        finds_nothing = not probed.answers and _says_none(question, reply)
        notes: list[str] = []
        return replace(probed, finds_nothing=finds_nothing), notes

    # A reply that is cut off isn't asked for again in parts.
    return replace(question, read=read, divisible=False)


def _answered(unanswered: ProbedPicture, reply: str, asked: BoxFormat) -> ProbedPicture:
    phrase_by_id = dict(enumerate(unanswered.probe.boxes, 1))
    try:
        parsed = parse_reply(reply, asked, phrase_by_id, in_lines=True)
    except UnreadableReply as error:
        return replace(unanswered, trouble=str(error))
    answer_by_id: dict[int, ProbeBox] = {}
    for box in parsed.boxes:
        phrase_id = _phrase_id_of(box, phrase_by_id)
        if phrase_id is None or phrase_id in answer_by_id:  # only a phrase's first box counts
            continue
        phrase = phrase_by_id[phrase_id]
        drawn = unanswered.probe.boxes[phrase]
        answer_by_id[phrase_id] = ProbeBox(phrase, drawn, box.numbers, box.order, box.family)
    in_order = [answer_by_id[phrase_id] for phrase_id in sorted(answer_by_id)]
    return replace(unanswered, answers=in_order)


def _says_none(question: Request[Any], reply: str) -> bool:
    """Whether a reply says of all phrases that they aren't there."""
    try:
        answers, _ = question.read(reply)
    except GroundingError:  # for example, it has boxes in a frame without a map
        return False
    return all(answer.status == "none" for answer in answers)


def _phrase_id_of(box: RawBox, phrase_by_id: Mapping[int, str]) -> int | None:
    named = ids_of(box.label, phrase_by_id) if box.label else []
    if named:
        return named[0]
    return box.id if box.id in phrase_by_id else None

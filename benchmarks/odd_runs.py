"""Servers that treat some pictures, or some requests, in an odd way, and whole runs that ask them.

An answer is wrong if the oddness moved an edge of its boxes by more than 5% of the side, as read in
the format that was asked for.
"""

from __future__ import annotations

import base64
import io
import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of, clamp, ordered
from dataflow_grounding.images.files import open_picture
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles, probe_in
from dataflow_grounding.trust.probes import Probe
from tests.support.pacing import lognormal
from tests.support.stand_ins.probe_model import seen
from tests.support.stand_ins.watched_model import Scene, Thing
from tests.support.workplace import ORIENTATION, REPOSITORY, Rows, Workplace

RECORDS = 140
IN_FLIGHT = 8
OFF = 0.05  # of the side: a box that is off by more is wrong
ROUNDING = 0.005  # of the side, that whole pixels may add to it where it is written
PAUSE = 0.8  # seconds that the requests take during which a server is restarted
RESTARTED = 0.5  # seconds without a request after which it was
SLOT = 0.2  # seconds after which another backend's turn comes
LARGE = 700_000  # pixels of a picture from which on it is reduced
HEAVY = 100_000  # bytes of a picture's file
PLAIN_SHARE = 0.5  # of a picture in its commonest color: a drawing on plain ground, no photograph
LOUPE = 64  # px of the sides to which a server reduces a picture to look at it
THOUSANDTHS, PIXELS = "xyxy_1000", "xyxy_px"
COUNTS_PIXELS = "qwen2.5-vl-7b-instruct"  # a model whose frames are measured before a run

USUAL: tuple[Size, ...] = (
    *[(640, 480)] * 6,
    *[(480, 640)] * 3,
    *[(1024, 768)] * 4,
    *[(800, 800)] * 2,
    (1500, 500),
    (200, 150),
)
LANDSCAPE: tuple[Size, ...] = ((640, 480), (640, 480), (1024, 768))
COLORED = ("astronaut", "cat", "coffee", "grace_hopper", "raccoon", "rocket")
GRAY = "cameraman"
WHICH = (
    "left",
    "right",
    "large",
    "small",
    "old",
    "new",
    "near",
    "far",
    "first",
    "second",
    "other",
    "main",
    "lower",
    "upper",
    "broken",
    "clean",
)

FileKind = Literal["jpeg", "fine jpeg", "png", "webp", "gray", "turned"]
Told = Literal["yes", "by chance", "no"]


# --- What a server sees, and how it writes boxes


class Seen:
    """What a server can see of a request.

    Attributes:
        number: How many requests came before, those about probe pictures included.
        seconds: Time since the first one.
        in_flight: How many are being answered, this one included.
        was_restarted: Whether it got no request for a while before.
        chance: Random numbers of this request's own.
    """

    def __init__(
        self,
        request: ReceivedRequest,
        *,
        number: int,
        seconds: float,
        in_flight: int,
        was_restarted: bool,
        chance: random.Random,
    ) -> None:
        self.number = number
        self.seconds = seconds
        self.in_flight = in_flight
        self.was_restarted = was_restarted
        self.chance = chance
        self._file = base64.b64decode(request.encoded_images[-1])
        self.file_type = request.images[-1].format
        self.file_bytes = len(self._file)
        self.digest = request.image_digests[-1]
        self.orientation = request.images[-1].orientation
        self.size: Size = request.image_sizes[-1]
        self.phrases = len(request.input["phrases"])

    @property
    def is_portrait(self) -> bool:
        return self.size[1] > self.size[0]

    @property
    def is_elongated(self) -> bool:
        return max(self.size) > 2 * min(self.size)

    @property
    def is_small(self) -> bool:
        return max(self.size) < 256

    @property
    def is_large(self) -> bool:
        return self.size[0] * self.size[1] > LARGE

    @cached_property
    def _loupe(self) -> NDArray[np.uint8]:
        """The picture, much reduced, in RGB."""
        with open_picture(io.BytesIO(self._file)) as picture:
            picture.draft("RGB", (LOUPE, LOUPE))
            small = picture.convert("RGB").resize((LOUPE, LOUPE), PIL.Image.Resampling.NEAREST)
        return np.asarray(small)

    @cached_property
    def is_photo(self) -> bool:
        """Whether it is no drawing on plain ground."""
        _, counts = np.unique((self._loupe >> 4).reshape(-1, 3), axis=0, return_counts=True)
        return bool(counts.max() < PLAIN_SHARE * counts.sum())

    @cached_property
    def is_mostly_gray(self) -> bool:
        """Whether half of it has no color."""
        return bool((np.ptp(self._loupe, axis=2) < 8).mean() > 0.5)

    @cached_property
    def has_no_color_channels(self) -> bool:
        """Whether its file holds shades of gray alone."""
        with open_picture(io.BytesIO(self._file)) as picture:
            mode: str = picture.mode
        return mode == "L"


Write = Callable[[Bbox, Size], Sequence[float]]
"""Gives the numbers that are written for a box in pixels of a picture as sent, of this size."""
Otherwise = Callable[[Seen], Write | None]
"""Gives how a request's boxes are written where that isn't as usual."""
Move = Callable[[Bbox, Size], Bbox]
"""Gives where a box is taken to be."""


def in_format(name: str) -> Write:
    written = find_box_format(name, "")
    return lambda bbox, size: written.from_pixels(bbox, original=size)


def moved(move: Move, name: str = THOUSANDTHS) -> Write:
    written = find_box_format(name, "")
    return lambda bbox, size: written.from_pixels(clamp(move(bbox, size), size), original=size)


def in_pixels_of_reduced(longest: int) -> Write:
    """Pixels of the picture, reduced to a longest side."""
    written = find_box_format(f"{PIXELS}@long_edge_{longest}", "")
    return lambda bbox, size: written.from_pixels(bbox, original=size)


def on_canvas(width: int, height: int, *, centered: bool = False) -> Write:
    """Thousandths of a canvas of this size, with the picture at its top left or in its middle."""

    def write(bbox: Bbox, size: Size) -> Sequence[float]:
        left = (width - size[0]) / 2 if centered else 0
        top = (height - size[1]) / 2 if centered else 0
        x1, y1, x2, y2 = bbox
        shares = (x1 + left) / width, (y1 + top) / height, (x2 + left) / width, (y2 + top) / height
        return [round(1000 * share) for share in shares]

    return write


def xs_before_ys(bbox: Bbox, size: Size) -> Sequence[float]:
    x1, y1, x2, y2 = in_format(THOUSANDTHS)(bbox, size)
    return x1, x2, y1, y2


def mirrored(bbox: Bbox, size: Size) -> Bbox:
    return size[0] - bbox[2], bbox[1], size[0] - bbox[0], bbox[3]


def upside_down(bbox: Bbox, size: Size) -> Bbox:
    return size[0] - bbox[2], size[1] - bbox[3], size[0] - bbox[0], size[1] - bbox[1]


def quarter_turned(bbox: Bbox, size: Size) -> Bbox:
    """Turned clockwise, and read as if it had the size of before."""
    x1, y1, x2, y2 = bbox
    across, down = size[0] / size[1], size[1] / size[0]
    return (size[1] - y2) * across, x1 * down, (size[1] - y1) * across, x2 * down


def of_another_picture(bbox: Bbox, size: Size) -> Bbox:
    draw = random.Random(repr(bbox))
    x1, x2 = sorted(draw.uniform(0, size[0]) for _ in range(2))
    y1, y2 = sorted(draw.uniform(0, size[1]) for _ in range(2))
    return x1, y1, x2, y2


def shifted(share: float) -> Move:
    """To the right, by a share of the width."""
    return lambda bbox, size: (
        bbox[0] + share * size[0],
        bbox[1],
        bbox[2] + share * size[0],
        bbox[3],
    )


def scaled(scale: float) -> Move:
    return lambda bbox, size: box_of([edge * scale for edge in bbox])


def cropped(share: float) -> Move:
    """As in a picture that has lost this share at each side."""
    kept = 1 - 2 * share
    return lambda bbox, size: box_of(
        [(edge - share * side) / kept for edge, side in zip(bbox, size * 2, strict=True)]
    )


Y_FIRST = in_format("yxyx_1000")
IN_PIXELS = in_format(PIXELS)
IN_THOUSANDTHS = in_format(THOUSANDTHS)
CORNER_AND_SIZE = in_format("xywh_1000")
IN_PADDED_SQUARE = in_format(f"{THOUSANDTHS}@pad_square")
MIRRORED = moved(mirrored)


# --- The servers


def when(does_it_apply: Callable[[Seen], bool], write: Write) -> Otherwise:
    return lambda request: write if does_it_apply(request) else None


def of_photos(write: Write) -> Otherwise:
    return when(lambda request: request.is_photo, write)


def from_request(number: int, write: Write) -> Otherwise:
    return when(lambda request: request.number >= number, write)


def every(count: int, write: Write) -> Otherwise:
    return when(lambda request: request.number % count == count - 1, write)


def by_chance(share: float, write: Write) -> Otherwise:
    return when(lambda request: request.chance.random() < share, write)


def by_content(share: float, write: Write) -> Otherwise:
    """For a share of the pictures, the same at each request."""
    return when(lambda request: int(request.digest[:8], 16) < share * 16**8, write)


def drifting(move_of: Callable[[float], Move], name: str = THOUSANDTHS) -> Otherwise:
    """What is moved by a share that grows from 0 to a tenth in the course of the run."""
    return lambda request: moved(move_of(min(0.1, 0.1 * request.number / RECORDS)), name)


def never(request: Seen) -> Write | None:
    return None


@dataclass(frozen=True)
class OddServer:
    """A server, and the run that asks it.

    Attributes:
        name: What it is called.
        does: What it does, in words.
        otherwise: How it writes boxes where it is odd.
        told: Whether copies of the run's pictures can tell.
        why: Why they can't, or not surely.
        asked: The box format of the run.
        written: How the server writes boxes otherwise; empty for the format that is asked for.
        files: The types of the pictures' files, each as often as it is here.
        sizes: Their sizes, likewise.
        scene: What they show.
        noise: By how much of the side edges are off.
        outliers: Share of the boxes that are anywhere at all.
        restarts: Whether the server is restarted in the middle of the run.
        is_honest: Whether boxes of photographs are right.
    """

    name: str
    does: str
    otherwise: Otherwise = never
    told: Told = "yes"
    why: str = ""
    asked: str = THOUSANDTHS
    written: str = ""
    files: Sequence[FileKind] = ("jpeg",)
    sizes: Sequence[Size] = USUAL
    scene: Scene = field(default_factory=Scene)
    noise: float = 0.01
    outliers: float = 0.05
    restarts: bool = False
    is_honest: bool = False

    @property
    def format(self) -> BoxFormat:
        """The format in which boxes are written as usual."""
        return find_box_format(self.written or self.asked, "")


# --- The run's pictures, and what is in them


@lru_cache(maxsize=8)
def photograph(name: str) -> PIL.Image.Image:
    with PIL.Image.open(REPOSITORY / "example_data" / "images" / f"{name}.jpg") as picture:
        whole: PIL.Image.Image = picture.convert("RGB")
    return whole


@lru_cache(maxsize=2000)
def picture_file(seed: int, number: int, size: Size, kind: FileKind) -> bytes:
    """A part of a photograph that is in no other record."""
    draw = random.Random(f"{seed}/{number}/{size}")
    photo = photograph(draw.choice((*COLORED, GRAY)) if kind == "gray" else draw.choice(COLORED))
    scale = draw.uniform(0.6, 0.98) * min(photo.width / size[0], photo.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = draw.uniform(0, photo.width - width), draw.uniform(0, photo.height - height)
    picture = photo.resize(
        size, PIL.Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    if draw.random() < 0.5:
        picture = PIL.ImageOps.mirror(picture)
    file = io.BytesIO()
    if kind == "png":
        picture.save(file, "PNG", compress_level=1)
    elif kind == "webp":
        picture.save(file, "WEBP", quality=80, method=0)
    elif kind == "gray":
        picture.convert("L").save(file, "JPEG", quality=85)
    elif kind == "turned":
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = 3  # upside down
        picture.rotate(180).save(file, "JPEG", quality=85, exif=exif.tobytes())
    else:
        picture.save(file, "JPEG", quality=97 if kind == "fine jpeg" else 85)
    return file.getvalue()


@dataclass(frozen=True)
class Question:
    """What a record asks: its picture's size, and the boxes of its phrases, in pixels."""

    size: Size
    boxes: Mapping[str, Bbox]


Questions = Mapping[tuple[str, ...], Question]
"""By their phrases: those of two records are never the same."""


def phrases_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(expression["text"] for expression in record["expressions"])


def things_of(scene: Scene, draw: random.Random) -> dict[str, Thing]:
    """A few phrases, such as "the old dog"."""
    things = {}
    for _ in range(draw.randint(1, scene.most_phrases)):
        thing = draw.choice(scene.things)
        what = thing.phrase.split(maxsplit=1)[1]
        things[f"the {draw.choice(WHICH)} {what}"] = thing
    return things


def write_input(place: Workplace, server: OddServer, seed: int) -> Questions:
    """What step 0 would have left, with the pictures."""
    draw = random.Random(seed)
    questions: dict[tuple[str, ...], Question] = {}
    rows: Rows = []
    while len(rows) < RECORDS:
        things = things_of(server.scene, draw)
        if tuple(things) in questions:
            continue
        size = draw.choice(server.sizes)
        content = picture_file(seed, len(rows), size, draw.choice(server.files))
        path = place.folder / f"{len(rows)}.img"
        path.write_bytes(content)
        boxes = {
            phrase: server.scene.box(random.Random(f"{seed}/{len(rows)}/{phrase}"), size, thing)
            for phrase, thing in things.items()
        }
        is_empty = draw.random() < server.scene.empty
        questions[tuple(things)] = Question(size, {} if is_empty else boxes)
        expressions = [{"text": phrase} for phrase in things]
        rows.append({"image_path": str(path), "caption": "", "expressions": expressions})
    place.after_step_0(rows)
    return questions


# --- The answers


@dataclass(frozen=True)
class Given:
    """A reply: what an honest server would have answered, in pixels of the record's picture.

    Attributes:
        honest: That, by phrase.
        is_wrong: Whether the oddness moved a box by more than OFF.
        is_repeat: Whether it only answers again, for comparison, what was answered before.
    """

    honest: Mapping[str, Bbox]
    is_wrong: bool
    is_repeat: bool


def off_by(bbox: Bbox, right: Bbox, size: Size) -> float:
    """By how much of the side an edge is off, the worst one."""
    return max(
        abs(edge - right_edge) / side
        for edge, right_edge, side in zip(bbox, right, size * 2, strict=True)
    )


class OddModel:
    """Answers `phrase_grounding` as an odd server has it.

    Attributes:
        in_flight: Tells how many requests are being answered.
        given: The replies to each question.
        probes: How many requests asked for rectangles.
    """

    reads = "images"

    def __init__(self, server: OddServer, questions: Questions, seed: int) -> None:
        self._server = server
        self._questions = questions
        self._seed = seed
        self._began = 0.0
        self._last = 0.0
        self._was_restarted = False
        self._requests = 0
        self.in_flight: Callable[[], int] = lambda: 1
        self.given: dict[tuple[str, ...], list[Given]] = {}
        self.probes = 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """The answer."""
        request_seen = self._look(request)
        write = self._server.otherwise(request_seen)
        if not asks_for_rectangles(request):
            return self._grounded(request, request_seen, write)
        self.probes += 1
        probe = probe_in(request)
        if probe is None:
            return {"objects": []}
        boxes = seen(probe, request_seen.chance, self._server.noise, self._server.outliers)
        return self._reply(request, self._numbers(boxes, request_seen.size, write))

    def _look(self, request: ReceivedRequest) -> Seen:
        number = self._requests
        self._requests += 1
        if number == 0:
            self._began = request.time
        elif self._server.restarts and self.given and request.time - self._last > RESTARTED:
            self._was_restarted = True
        self._last = request.time
        return Seen(
            request,
            number=number,
            seconds=request.time - self._began,
            in_flight=self.in_flight(),
            was_restarted=self._was_restarted,
            chance=random.Random(f"{self._seed}/{number}"),
        )

    def _grounded(
        self, request: ReceivedRequest, request_seen: Seen, write: Write | None
    ) -> dict[str, Any]:
        """The answer about a picture of the run, which is remembered."""
        phrases = tuple(phrase["text"] for phrase in request.input["phrases"])
        question = self._questions[phrases]
        honest = seen(
            Probe(question.size, dict(question.boxes)),
            request_seen.chance,
            self._server.noise,
            self._server.outliers,
        )
        honest = {phrase: ordered(bbox) for phrase, bbox in honest.items()}
        sent = request_seen.size
        # It may have been scaled, and padded at the right or the bottom.
        scale = min(sent[0] / question.size[0], sent[1] / question.size[1])
        boxes = {phrase: box_of([edge * scale for edge in bbox]) for phrase, bbox in honest.items()}
        numbers = self._numbers(boxes, sent, write)
        is_again = "An earlier reply could not be read" in request.text
        given = Given(
            honest,
            is_wrong=any(self._is_wrong(numbers[phrase], boxes[phrase], sent) for phrase in boxes),
            is_repeat=phrases in self.given and not is_again,
        )
        self.given.setdefault(phrases, []).append(given)
        return self._reply(request, numbers)

    def _numbers(
        self, boxes: Mapping[str, Bbox], size: Size, write: Write | None
    ) -> dict[str, Sequence[float]]:
        """The numbers that are written for boxes in pixels of a picture as sent."""
        if write is None:
            honest = self._server.format
            return {
                phrase: honest.from_pixels(bbox, original=size) for phrase, bbox in boxes.items()
            }
        return {phrase: write(bbox, size) for phrase, bbox in boxes.items()}

    def _is_wrong(self, numbers: Sequence[float], right: Bbox, size: Size) -> bool:
        """Whether numbers, read as usual, are off by more than OFF."""
        read = ordered(self._server.format.to_pixels(numbers, original=size))
        return off_by(clamp(read, size), right, size) > OFF

    def _reply(
        self, request: ReceivedRequest, numbers: Mapping[str, Sequence[float]]
    ) -> dict[str, Any]:
        ids = {phrase["text"]: phrase["id"] for phrase in request.input["phrases"]}
        key = self._server.format.key
        return {
            "objects": [
                {"id": ids[phrase], "label": phrase, key: list(four)}
                for phrase, four in numbers.items()
            ]
        }

    def last_replies(self) -> list[Given]:
        """Those that count, one for each question."""
        return [
            [reply for reply in replies if not reply.is_repeat][-1]
            for replies in self.given.values()
        ]


# --- The runs


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: Its exit code.
        said: Its message.
        wrote: Whether it wrote its results.
        answers: Questions that were answered.
        wrong: Those of them whose last reply was wrong.
        unmarked: Records with a wrong box that were written without a mark.
        marked: Records that are marked.
        probes: Requests about probe pictures.
        requests: All requests.
    """

    code: int
    said: str
    wrote: bool
    answers: int
    wrong: int
    unmarked: int
    marked: int
    probes: int
    requests: int

    @property
    def stopped(self) -> bool:
        """Whether it ended early, and wrote nothing."""
        return self.code == 2 and not self.wrote


def latency_of(server: OddServer) -> Callable[[ReceivedRequest], float]:
    usual = lognormal(0.03, 0.5)
    pausing = range(60, 60 + IN_FLIGHT)

    def with_a_pause(request: ReceivedRequest) -> float:
        return PAUSE if request.index in pausing else usual(request)

    return with_a_pause if server.restarts else usual


def play(server: OddServer, seed: int, on_suspect: str) -> Outcome:
    """One run of `generate`, step 1 alone."""
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder) / "run")
        questions = write_input(place, server, seed)
        model = OddModel(server, questions, seed)
        model_name = COUNTS_PIXELS if server.asked == "auto" else "loopback"
        cache = str(Path(folder) / "cache")  # what is found out of a model is nobody else's
        with (
            mock.patch.dict(os.environ, XDG_CACHE_HOME=cache),
            LoopbackServer(model, latency=latency_of(server), record=False) as endpoint,
        ):
            model.in_flight = lambda: endpoint.in_flight
            done = place.run(
                **{
                    "vlm.openai.base_url": endpoint.base_url,
                    "vlm.openai.model_name": model_name,
                    "vlm.box_format": server.asked,
                    "vlm.check_every": 100,
                    "vlm.on_suspect_boxes": on_suspect,
                    "workflow.steps": ["1"],
                    "workflow.max_workers": IN_FLIGHT,
                }
            )
            requests = endpoint.received
        records = place.annotations()
    marked = [record for record in records if record.get("suspect_boxes")]
    unmarked = [record for record in records if not record.get("suspect_boxes")]
    return Outcome(
        code=done.code,
        said=done.err.strip(),
        wrote=bool(records),
        answers=len(model.given),
        wrong=sum(reply.is_wrong for reply in model.last_replies()),
        unmarked=sum(has_wrong_box(record, model) for record in unmarked),
        marked=len(marked),
        probes=model.probes,
        requests=requests,
    )


def has_wrong_box(record: Mapping[str, Any], model: OddModel) -> bool:
    """Whether a box of a written record is near none that an honest server would have answered."""
    size = (record["width"], record["height"])
    replies = model.given.get(phrases_of(record), [])
    for expression in record["expressions"]:
        honest = [
            reply.honest[expression["text"]]
            for reply in replies
            if expression["text"] in reply.honest
        ]
        for instance in expression["instances"]:
            off = [off_by(box_of(instance["bbox"]), bbox, size) for bbox in honest]
            if min(off, default=1.0) > OFF + ROUNDING:
                return True
    return False

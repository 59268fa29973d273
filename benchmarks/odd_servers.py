"""What a run notices of a server that treats some pictures, or some requests, in an odd way.

    python -m benchmarks.odd_servers [--seeds 1] [--only NAME ...] [--on-suspect warn] [--messages]

A gateway may shrink what is large, pad what is small, send every fifth request to another model, or
crop photographs alone. Each server here does one such thing, and a whole run of `generate` asks it
about 140 photographs of mixed sizes, with the usual checks. Boxes are as photos have them, off by
1% of the side, and one in twenty is anywhere at all.

An answer is wrong if the oddness moved an edge of its boxes by more than 5% of the side, as read in
the format that was asked for. Such a box must not be written unmarked: the run should stop, which
writes nothing, or mark the record. After a server's name, the table says whether copies of the
run's own pictures, as probes, show its oddness: `yes`; `by chance`, if only some of them meet it,
or none at the wrong time; `no`, if none does, or if the oddness is too small to count. There is no
goal for `no`. Honest servers must not be stopped, and hardly any of their records marked.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from benchmarks.stand_ins.probe_model import seen
from benchmarks.stand_ins.watched_model import PEOPLE, Scene, Thing
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of, clamp, ordered
from dataflow_grounding.images.files import open_picture
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import asks_for_rectangles, probe_in
from dataflow_grounding.trust.probes import Probe
from tests.support.measuring import Row, table
from tests.support.pacing import lognormal
from tests.support.workplace import ORIENTATION, REPOSITORY, Rows, Workplace

RECORDS = 140
IN_FLIGHT = 8
OFF = 0.05  # of the side: a box that is off by more is wrong
ROUNDING = 0.005  # of the side, that whole pixels may add to it where it is written
MOST_MARKED = 0.02  # of the records of an honest run
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
ONE_WEBP_IN_TEN: tuple[FileKind, ...] = (*("jpeg",) * 9, "webp")
ONE_GRAY_IN_FIVE: tuple[FileKind, ...] = (*("jpeg",) * 4, "gray")


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


of_portraits = partial(when, lambda request: request.is_portrait)
of_elongated = partial(when, lambda request: request.is_elongated)
of_large = partial(when, lambda request: request.is_large)
Counting = partial(
    OddServer, asked="auto", written=f"{PIXELS}@smart_resize_28", sizes=((640, 480), (480, 640))
)
Honest = partial(OddServer, is_honest=True)
SELDOM = "a probe picture has to be among the few"
AT_THE_TIME = "a probe picture has to be asked about just then"

BY_FILE = (
    OddServer(
        "png-pixels",
        "PNG in pixels, JPEG in thousandths",
        when(lambda request: request.file_type == "PNG", IN_PIXELS),
        files=("jpeg", "png"),
    ),
    OddServer(
        "png-y-first",
        "PNG y first",
        when(lambda request: request.file_type == "PNG", Y_FIRST),
        files=("jpeg", "png"),
    ),
    OddServer(
        "few-webp-pixels",
        "WebP, a tenth of all, in pixels",
        when(lambda request: request.file_type == "WEBP", IN_PIXELS),
        files=ONE_WEBP_IN_TEN,
    ),
    OddServer(
        "heavy-reduced",
        "files above 100 kB are reduced to 512 px, and answered in pixels of that",
        when(lambda request: request.file_bytes > HEAVY, in_pixels_of_reduced(512)),
        why="if their files are as heavy",
        files=("jpeg", "fine jpeg"),
    ),
    OddServer(
        "gray-file-pixels",
        "files in shades of gray, a fifth of all, in pixels",
        when(lambda request: request.has_no_color_channels, IN_PIXELS),
        "no",
        "colored rectangles are in no such file",
        files=ONE_GRAY_IN_FIVE,
    ),
    OddServer(
        "mostly-gray-mirrored",
        "pictures that are mostly gray, a fifth of all, mirrored",
        when(lambda request: request.is_mostly_gray, MIRRORED),
        files=ONE_GRAY_IN_FIVE,
    ),
    OddServer(
        "turned-upside-down",
        "pictures with an EXIF orientation, a third of all, upside down",
        when(lambda request: request.orientation != 1, moved(upside_down)),
        "no",
        "never applies while pictures are sent upright",
        files=("jpeg", "jpeg", "turned"),
    ),
)
BY_LOAD = (
    OddServer(
        "busy-reduced",
        "with more than 4 in flight, pixels of the picture reduced to 512 px",
        when(lambda request: request.in_flight > 4, in_pixels_of_reduced(512)),
        why="if they are asked about among other requests",
    ),
    OddServer(
        "batch-padded",
        "with others in flight, thousandths of the batch's largest picture",
        when(lambda request: request.in_flight > 1, on_canvas(1500, 1024)),
        why="if they are asked about among other requests",
    ),
    OddServer(
        "busy-shifted",
        "with more than 6 in flight, shifted by 8%",
        when(lambda request: request.in_flight > 6, moved(shifted(0.08))),
        "by chance",
        "as busy as that only now and then",
    ),
    OddServer(
        "turns-by-time",
        "in every second fifth of a second in pixels",
        when(lambda request: int(request.seconds / SLOT) % 2 == 1, IN_PIXELS),
        "by chance",
        AT_THE_TIME,
    ),
    OddServer(
        "restarted-y-first",
        "y first after a pause in the middle of the run",
        when(lambda request: request.was_restarted, Y_FIRST),
        restarts=True,
    ),
    OddServer(
        "a-while-shifted",
        "requests 40 to 80 shifted by 10%",
        when(lambda request: 40 <= request.number < 80, moved(shifted(0.1))),
        "by chance",
        AT_THE_TIME,
    ),
    OddServer(
        "a-while-y-first",
        "requests 40 to 80 y first",
        when(lambda request: 40 <= request.number < 80, Y_FIRST),
        "by chance",
        AT_THE_TIME,
    ),
    OddServer(
        "last-ones-mirrored",
        "mirrored from request 130 on",
        from_request(130, MIRRORED),
        why="if the run ends with one",
    ),
)
BY_SIZE = (
    OddServer(
        "small-on-canvas",
        "below 256 px thousandths of a canvas of 336 px",
        when(lambda request: request.is_small, on_canvas(336, 336, centered=True)),
        why="if they are as small",
    ),
    OddServer("portraits-y-first", "portraits y first", of_portraits(Y_FIRST)),
    OddServer("portraits-pixels", "portraits in pixels", of_portraits(IN_PIXELS)),
    OddServer(
        "portraits-turned",
        "portraits turned by a quarter",
        of_portraits(moved(quarter_turned)),
    ),
    OddServer(
        "elongated-square",
        "elongated pictures in a padded square",
        of_elongated(IN_PADDED_SQUARE),
    ),
    OddServer(
        "large-reduced",
        "above 700,000 px reduced to 768 px, and pixels of that",
        of_large(in_pixels_of_reduced(768)),
    ),
    OddServer("large-cropped", "above 700,000 px cropped by 10%", of_large(moved(cropped(0.1)))),
)
BY_CONTENT = (
    OddServer("photos-cropped", "photographs cropped by 10%", of_photos(moved(cropped(0.1)))),
    OddServer("photos-y-first", "photographs y first", of_photos(Y_FIRST)),
    OddServer("photos-pixels", "photographs in pixels", of_photos(IN_PIXELS)),
    OddServer("photos-xs-first", "photographs as [x1, x2, y1, y2]", of_photos(xs_before_ys)),
    OddServer("photos-sizes", "photographs as [x, y, w, h]", of_photos(CORNER_AND_SIZE)),
    OddServer("photos-mirrored", "photographs mirrored", of_photos(MIRRORED)),
    OddServer("photos-upside-down", "photographs upside down", of_photos(moved(upside_down))),
    OddServer("photos-shifted-10", "photographs shifted by 10%", of_photos(moved(shifted(0.1)))),
    OddServer("photos-shifted-6", "photographs shifted by 6%", of_photos(moved(shifted(0.06)))),
    OddServer(
        "photos-shifted-2",
        "photographs shifted by 2%",
        of_photos(moved(shifted(0.02))),
        "no",
        "hardly more than noise, and less than counts",
    ),
    OddServer("photos-scaled", "photographs at 0.9 of the scale", of_photos(moved(scaled(0.9)))),
    OddServer(
        "quarter-y-first",
        "a quarter of the pictures, by a hash of their bytes, y first",
        by_content(0.25, Y_FIRST),
        "by chance",
        SELDOM,
    ),
    OddServer(
        "tenth-mirrored",
        "a tenth of the pictures, by a hash of their bytes, mirrored",
        by_content(0.1, MIRRORED),
        "by chance",
        SELDOM,
    ),
    OddServer(
        "many-phrases-pixels",
        "with more than one phrase in pixels",
        when(lambda request: request.phrases > 1, IN_PIXELS),
    ),
    OddServer(
        "one-phrase-mirrored",
        "with one phrase alone mirrored",
        when(lambda request: request.phrases == 1, MIRRORED),
        "no",
        "they ask for several rectangles",
    ),
)
DRIFTING = (
    OddServer("scale-drifts", "scale from 1.00 to 1.10", drifting(lambda share: scaled(1 + share))),
    OddServer("shift-drifts", "shift from 0 to 10%", drifting(shifted)),
)
ALTERNATING = (
    OddServer("second-pixels", "every 2nd request in pixels", every(2, IN_PIXELS)),
    OddServer("second-mirrored", "every 2nd request mirrored", every(2, MIRRORED)),
    OddServer("fifth-y-first", "every 5th request y first", every(5, Y_FIRST), "by chance", SELDOM),
    OddServer(
        "fifth-sizes",
        "every 5th request as [x, y, w, h]",
        every(5, CORNER_AND_SIZE),
        "by chance",
        SELDOM,
    ),
    OddServer(
        "fifth-mirrored", "every 5th request mirrored", every(5, MIRRORED), "by chance", SELDOM
    ),
    OddServer(
        "random-5-y-first", "a random 5% y first", by_chance(0.05, Y_FIRST), "by chance", SELDOM
    ),
    OddServer(
        "random-20-pixels", "a random 20% in pixels", by_chance(0.2, IN_PIXELS), "by chance", SELDOM
    ),
    OddServer("random-50-sizes", "a random half as [x, y, w, h]", by_chance(0.5, CORNER_AND_SIZE)),
    OddServer(
        "tenth-of-another",
        "a random tenth gets the boxes of another picture",
        by_chance(0.1, moved(of_another_picture)),
        "by chance",
        SELDOM,
    ),
)
SECOND_BACKEND = (
    OddServer("later-y-first", "y first from request 40 on", from_request(40, Y_FIRST)),
    OddServer("later-pixels", "in pixels from request 40 on", from_request(40, IN_PIXELS)),
    OddServer(
        "later-xs-first", "as [x1, x2, y1, y2] from request 40 on", from_request(40, xs_before_ys)
    ),
    OddServer(
        "later-square",
        "in a padded square from request 40 on",
        from_request(40, IN_PADDED_SQUARE),
    ),
    OddServer(
        "later-scaled-8",
        "at 1.08 of the scale from request 40 on",
        from_request(40, moved(scaled(1.08))),
    ),
    OddServer(
        "later-scaled-5",
        "at 1.05 of the scale from request 40 on",
        from_request(40, moved(scaled(1.05))),
        "no",
        "less than counts",
    ),
)
COUNTING_PIXELS = (
    OddServer(
        "px-jpeg-thousandths",
        "asked for pixels: JPEG in thousandths, PNG in pixels",
        when(lambda request: request.file_type == "JPEG", IN_THOUSANDTHS),
        asked=PIXELS,
        files=("jpeg", "png"),
    ),
    OddServer(
        "px-photos-reduced",
        "asked for pixels: photographs reduced to 512 px",
        of_photos(in_pixels_of_reduced(512)),
        asked=PIXELS,
    ),
    Counting(
        "auto-photos-thousandths",
        "frames measured: photographs in thousandths",
        of_photos(IN_THOUSANDTHS),
    ),
    Counting(
        "auto-photos-reduced",
        "frames measured: photographs reduced to 512 px",
        of_photos(in_pixels_of_reduced(512)),
    ),
    Counting(
        "auto-busy-reduced",
        "frames measured: with more than 4 in flight reduced to 448 px",
        when(lambda request: request.in_flight > 4, in_pixels_of_reduced(448)),
        why="if they are asked about among other requests",
    ),
    Counting(
        "auto-later-reduced",
        "frames measured: reduced to 448 px from request 80 on",
        from_request(80, in_pixels_of_reduced(448)),
    ),
)
HONEST = (
    Honest("honest", "all things, as usual"),
    Honest(
        "honest-noisy",
        "edges off by 6%, a fifth of the boxes anywhere",
        noise=0.06,
        outliers=0.2,
    ),
    Honest("honest-small-things", "small things alone", scene=Scene(area=-6.5)),
    Honest("honest-corner", "all in a corner", scene=Scene(corner=True)),
    Honest("honest-people", "people alone", scene=Scene(things=PEOPLE)),
    Honest(
        "honest-files",
        "all types of files",
        files=("jpeg", "fine jpeg", "png", "webp", "gray", "turned"),
    ),
    Honest("honest-pixels", "asked for pixels", asked=PIXELS, files=("jpeg", "png")),
    Honest(
        "honest-auto",
        "frames measured",
        asked="auto",
        written=f"{PIXELS}@smart_resize_28",
        sizes=((640, 480), (480, 640)),
    ),
    Honest(
        "honest-of-photos",
        "drawings alone cropped by 10%, photographs right",
        when(lambda request: not request.is_photo, moved(cropped(0.1))),
        sizes=LANDSCAPE,
    ),
)
SERVERS = {
    server.name: server
    for server in (
        *BY_FILE,
        *BY_LOAD,
        *BY_SIZE,
        *BY_CONTENT,
        *DRIFTING,
        *ALTERNATING,
        *SECOND_BACKEND,
        *COUNTING_PIXELS,
        *HONEST,
    )
}


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
    before = place.results / "step_0_expression_extraction" / "annotations.jsonl"
    before.parent.mkdir(parents=True)
    before.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place.rows([])
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


def row_of(server: OddServer, outcomes: Sequence[Outcome]) -> Row:
    answers = sum(outcome.answers for outcome in outcomes)
    unmarked = sum(outcome.unmarked for outcome in outcomes)
    marked = sum(outcome.marked for outcome in outcomes)
    stopped = sum(outcome.stopped for outcome in outcomes)
    codes = sorted({outcome.code for outcome in outcomes})
    figure = (
        f"exit {'/'.join(map(str, codes))}; stopped {stopped} of {len(outcomes)};"
        f" {sum(outcome.wrong for outcome in outcomes)} of {answers} answers wrong;"
        f" {unmarked} written unmarked; {marked} marked;"
        f" {sum(outcome.probes for outcome in outcomes)} probes;"
        f" {sum(outcome.requests for outcome in outcomes) / max(1, answers):.2f} requests a record"
    )
    if server.is_honest:
        reached = codes == [0] and marked <= MOST_MARKED * RECORDS * len(outcomes)
        goal = f"not stopped; marked ≤ {MOST_MARKED:.0%}"
        return Row(f"{server.name}: {server.does}", figure, goal, reached)
    told = f"{server.told}, {server.why}" if server.why else server.told
    what = f"{server.name}: {server.does} (told: {told})"
    if server.told == "no":
        return Row(what, figure)
    ended_well = all(outcome.stopped or outcome.wrote for outcome in outcomes)
    return Row(what, figure, "0 written unmarked", ended_well and unmarked == 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs of each server (default: 1)")
    parser.add_argument("--only", nargs="+", choices=SERVERS, metavar="NAME", help="these servers")
    parser.add_argument(
        "--on-suspect", choices=("stop", "warn"), default="stop", help="vlm.on_suspect_boxes"
    )
    parser.add_argument("--messages", action="store_true", help="print what each run said")
    given = parser.parse_args()
    began = time.perf_counter()
    rows = []
    for name in given.only or SERVERS:
        outcomes = [play(SERVERS[name], seed, given.on_suspect) for seed in range(given.seeds)]
        rows.append(row_of(SERVERS[name], outcomes))
        if given.messages:
            for outcome in outcomes:
                print(f"{name}: {outcome.said}", flush=True)
    print(table(rows))
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The pictures that both ways are given, what is in them, and the model that looks at them."""

from __future__ import annotations

import base64
import functools
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.testing import Answer, ReceivedRequest
from dataflow_grounding.trust.probes import COLORS as PROBE_COLORS
from tests.support.stand_ins.seeing_model import COLORS, GROUND

COUNT = 24
TURNED, MISSING, ABSENT = 3, 8, 6
"""Numbers of the pictures that are stored lying on their side, that is gone, and in which what is
asked for isn't.
"""
ORIENTATION = 0x0112
PLAIN_BASE64 = str.maketrans("-_", "+/")  # Google's client writes the other alphabet
LEAST_SIDE = 8  # px; a thing that is smaller is an edge between two others
PHRASE = re.compile(r"the (\w+) box")
Manner = Callable[[str], Answer]
"""How a model says what it has to say: from its JSON to its reply."""


@dataclass(frozen=True)
class Picture:
    """A picture with three coloured boxes, of which two are asked for.

    `boxes` are in pixels of the upright picture, by phrase.
    """

    number: int
    size: Size
    boxes: dict[str, Bbox]

    @property
    def path(self) -> str:
        """Where it is, from the job's folder."""
        return f"pictures/{self.number:02}.png"

    @property
    def phrases(self) -> list[str]:
        """What is asked for."""
        return list(self.boxes)[:2]


@functools.cache
def pictures() -> list[Picture]:
    """All pictures, always the same; no two have the same three colours."""
    names = [name for name in COLORS if name not in ("black", "white")]
    found = []
    for number, trio in zip(range(COUNT), _shuffled(combinations(names, 3)), strict=False):
        chance = random.Random(number)
        width, height = 800 + 37 * number % 200, 600 + 53 * number % 150
        boxes = {}
        for place, name in enumerate(trio):
            left = place * width // 3 + chance.randrange(10, 60)
            top = chance.randrange(40, height // 2)
            right = left + chance.randrange(90, 180)
            bottom = top + chance.randrange(90, height // 2 - 20)
            boxes[f"the {name} box"] = (float(left), float(top), float(right), float(bottom))
        found.append(Picture(number, (width, height), boxes))
    return found


def _shuffled(trios: Iterator[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """All trios and their mirror images, in an order that is always the same."""
    listed = [trio for one in trios for trio in (one, one[::-1])]
    random.Random(0).shuffle(listed)
    return listed


def write_job(folder: Path, *, turned: bool, missing: bool, absent: bool) -> None:
    """Write the pictures and `rows.jsonl`, with what is wrong in them."""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for picture in pictures():
        if not (missing and picture.number == MISSING):
            draw(folder, picture, lies=turned and picture.number == TURNED)
        phrases = picture.phrases
        if absent and picture.number == ABSENT:
            phrases = [absent_phrase(picture)]
        width, height = picture.size
        row = {"image_path": picture.path, "width": width, "height": height}
        lines.append(json.dumps({**row, "expressions": phrases}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


def absent_phrase(picture: Picture) -> str:
    """A phrase for something that is not in a picture."""
    return next(f"the {name} box" for name in COLORS if f"the {name} box" not in picture.boxes)


def draw(folder: Path, picture: Picture, *, lies: bool = False) -> None:
    """Write a picture's file into the job's folder, upright or lying on its side."""
    (folder / picture.path).write_bytes(_drawn(picture.number, lies))


@functools.cache  # a table of trials takes the same pictures a hundred times
def _drawn(number: int, lies: bool) -> bytes:
    """A picture's file."""
    from PIL import Image, ImageDraw

    picture = pictures()[number]
    drawn = Image.new("RGB", picture.size, GROUND)
    pen = ImageDraw.Draw(drawn)
    for phrase, (x1, y1, x2, y2) in picture.boxes.items():
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLORS[phrase.split()[1]])
    exif = Image.Exif()
    if lies:
        drawn = drawn.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION] = 6
    file = io.BytesIO()
    drawn.save(file, "PNG", exif=exif)
    return file.getvalue()


@dataclass
class Model:
    """Looks at the picture that it is sent and says where the things are that a prompt names.

    Args:
        box_format: How it writes boxes, even if it is asked for another format.
        key: What it calls a box where it isn't told.
        manner: How it says it.
        invents: Whether it draws a box for what isn't there.
    """

    box_format: str
    key: str
    manner: Manner = field(default=Answer)
    invents: bool = False

    def __call__(self, request: ReceivedRequest) -> Answer:
        """The reply; without a picture, a likely one."""
        if request.task == "phrase_grounding":
            phrases = [str(phrase["text"]) for phrase in request.input["phrases"]]
        else:
            named = PHRASE.findall(request.text)
            phrases = [f"the {name} box" for name in named if name in COLORS]
        if request.images:
            size, things = look(request)
        else:
            size, things = (
                (1000, 1000),
                dict.fromkeys(phrases, (300.0, 300.0, 600.0, 700.0)),
            )
        if self.invents:
            for phrase in phrases:
                things.setdefault(phrase, next(iter(things.values())))
        objects = []
        for number, phrase in enumerate(phrases, start=1):
            if phrase in things:
                known = find_box_format(self.box_format, "")
                numbers = known.from_pixels(things[phrase], original=size)
                objects.append({"id": number, "label": phrase, "numbers": numbers})
        if not objects:
            return Answer(f"There is no {' and no '.join(p[4:] for p in phrases)} in the picture.")
        return self.manner(self._written(request, objects))

    def _written(self, request: ReceivedRequest, objects: list[dict[str, Any]]) -> str:
        """The objects in JSON, in the shape that is asked for."""
        if request.task == "phrase_grounding":
            key = find_box_format(self.box_format, "").key
            listed = [{"id": o["id"], "label": o["label"], key: o["numbers"]} for o in objects]
            return json.dumps({"objects": listed})
        return json.dumps([{self.key: o["numbers"], "label": o["label"]} for o in objects])


def is_about_a_probe(request: ReceivedRequest) -> bool:
    """Whether a request is a check of the model, not one of the job's."""
    if request.task != "phrase_grounding":
        return False
    return all(str(p["text"]).endswith(" rectangle") for p in request.input["phrases"])


def look(request: ReceivedRequest) -> tuple[Size, dict[str, Bbox]]:
    """The size of a request's picture, and a box around each colour in it, by phrase.

    EXIF is not looked at. The server has to keep bodies.
    """
    import cv2
    import numpy

    probe = is_about_a_probe(request)
    picture = _picture_of(request)
    pixels = numpy.asarray(picture)
    things: dict[str, Bbox] = {}
    for name, color in (PROBE_COLORS if probe else COLORS).items():
        near = 16 if probe else 50
        low, high = ([min(max(part + off, 0), 255) for part in color] for off in (-near, near))
        mask = cv2.inRange(pixels, numpy.array(low), numpy.array(high))
        x, y, width, height = cv2.boundingRect(mask)
        if min(width, height) >= LEAST_SIDE:
            phrase = name if probe else f"the {name} box"
            things[phrase] = (float(x), float(y), float(x + width), float(y + height))
    if probe:
        asked = [str(phrase["text"]) for phrase in request.input["phrases"]]
        things = {text: things[text.split()[1]] for text in asked if text.split()[1] in things}
    return picture.size, things


def _picture_of(request: ReceivedRequest) -> Any:
    from PIL import Image

    assert request.body is not None
    if request.dialect == "gemini":
        parts = request.body["contents"][-1]["parts"]
        [encoded] = [part["inlineData"]["data"] for part in parts if "inlineData" in part]
    else:
        parts = request.body["messages"][-1]["content"]
        [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        encoded = url.partition(",")[2]
    return Image.open(io.BytesIO(base64.b64decode(encoded.translate(PLAIN_BASE64)))).convert("RGB")

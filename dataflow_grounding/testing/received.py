"""What the loopback server keeps of a request: its question, and digests and sizes of its images, never their bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ORIENTATION_TAG = 0x0112
# A picture's base64 is cut out of the body before the JSON is read: a 200 KB string would cost more than all the rest.
PICTURE_START = re.compile(rb';base64,|"data"\s*:\s*"')
SHORTEST_CUT = 1024
HOLE = "#picture-"


class BadRequest(Exception):
    """The request can't be taken: the server answers 400 with this message."""


@dataclass(frozen=True, slots=True)
class ReceivedImage:
    """One image of a request, as it came.

    `digest` is the sha256 of the decoded file (hexadecimal), `width` and `height` are the stored pixels (not
    turned by EXIF), `orientation` is the EXIF tag (1 is upright), `format` is Pillow's name, `size` is in bytes.
    """

    digest: str
    width: int
    height: int
    orientation: int
    format: str
    size: int


@dataclass(slots=True)
class ReceivedRequest:
    """One request to a model as the server understood it; `status_sent` is None until the whole reply has left.

    `index` counts from 0 in order of arrival; `time` and `time_sent` are `time.monotonic()` seconds. `input` is the
    JSON object between `<input>` and `</input>`, and `task` its first key's value. `headers` have lower-case names.
    `images` is empty where the server was told not to look at them, `body` unless it keeps bodies.
    """

    index: int
    time: float
    dialect: str
    path: str
    headers: dict[str, str]
    model: str = ""
    task: str = ""
    input: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    system: str = ""
    images: tuple[ReceivedImage, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    status_sent: int | None = None
    time_sent: float | None = None

    @property
    def image_digests(self) -> tuple[str, ...]:
        """The sha256 of each image file, in the order of the request."""
        return tuple(image.digest for image in self.images)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) in stored pixels of each image, in the order of the request."""
        return tuple((image.width, image.height) for image in self.images)


def cut_pictures(body: bytes) -> tuple[bytes, list[bytes]]:
    """Split a JSON body into the JSON with a numbered hole for every long base64 string, and those strings."""
    kept: list[bytes] = []
    pictures: list[bytes] = []
    at = stop = 0
    while match := PICTURE_START.search(body, stop):
        start = match.end()
        stop = body.find(b'"', start)
        if stop < 0:
            break
        # A backslash before the quote: this is text that speaks of base64, and no picture.
        if stop - start >= SHORTEST_CUT and body[stop - 1] != 0x5C:
            kept += [body[at:start], f"{HOLE}{len(pictures)}".encode()]
            pictures.append(body[start:stop])
            at = stop
    return b"".join([*kept, body[at:]]), pictures


def filled(encoded: str, pictures: Sequence[bytes]) -> bytes:
    """The base64 that belongs to a string of the JSON: what was cut out of its hole, or the string itself."""
    number = encoded.removeprefix(HOLE)
    if number != encoded and number.isdigit() and int(number) < len(pictures):
        return pictures[int(number)]
    return encoded.encode()


def read_image(encoded: bytes) -> ReceivedImage:
    """Decode base64 and read the picture's header; raises BadRequest where an endpoint would refuse the image."""
    from PIL import Image, UnidentifiedImageError

    from dataflow_grounding.image_files import open_picture

    try:
        data = base64.b64decode(encoded.replace(b"\\/", b"/"), validate=True)
    except binascii.Error as error:
        raise BadRequest(f"Invalid image: not base64 ({error}).") from None
    try:
        with open_picture(io.BytesIO(data)) as image:
            width, height = image.size
            orientation = int(image.getexif().get(ORIENTATION_TAG, 1))
            name = image.format or ""
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadRequest(f"Invalid image: {error}.") from None
    return ReceivedImage(hashlib.sha256(data).hexdigest(), width, height, orientation, name, len(data))

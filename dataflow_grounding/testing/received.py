"""What the loopback server keeps of a request.

That is its question, and digests and sizes of its images; their bytes only while it is answered.
"""

import base64
import hashlib
import io
from dataclasses import dataclass, field

from PIL.ExifTags import Base
from PIL.Image import DecompressionBombError

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.images.files import may_have_exif, open_picture


class BadRequest(Exception):
    """A request that is refused: the server replies with this message and `status`.

    Answers may raise it, too.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ReceivedImage:
    """One image of a request, as it came.

    Args:
        digest: sha256 of the file, hexadecimal.
        width: Stored pixels across, not turned by EXIF; `height`: down.
        orientation: The EXIF tag; 1 is upright.
        format: Pillow's name for it, such as `JPEG`.
        size: Bytes of the file.
    """

    digest: str
    width: int
    height: int
    orientation: int
    format: str
    size: int


@dataclass(slots=True)
class ReceivedRequest:
    """One request to a model as the server understood it.

    Args:
        index: Number of arrival, from 0.
        time: `time.monotonic()` of its arrival, in seconds; `time_sent` that of its reply.
        path: The path asked for, query and all; `headers` have lower-case names.
        input: The JSON object between `<input>` and `</input>`.
        text: The user message; `system` is the system message.
        images: Empty where the server was told not to look at them.
        settings: All other members of the body, such as `temperature`.
        body: The body's JSON, where the server keeps bodies.
        turns: Role (`user`, `assistant`) and text of each message before the last.
        encoded_images: Its image files in base64 until the reply is made; empty afterwards.
        status_sent: None until the whole reply has left.
    """

    index: int
    time: float
    path: str
    headers: dict[str, str]
    model: str = ""
    input: JsonObject = field(default_factory=dict)
    text: str = ""
    system: str = ""
    images: tuple[ReceivedImage, ...] = ()
    settings: JsonObject = field(default_factory=dict)
    body: JsonObject | None = None
    status_sent: int | None = None
    time_sent: float | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)
    encoded_images: tuple[str, ...] = ()

    @property
    def dialect(self) -> str:
        """`openai` or `gemini`, by the path."""
        is_gemini = "/v1beta" in self.path or ":generateContent" in self.path
        return "gemini" if is_gemini else "openai"

    @property
    def task(self) -> str:
        """Member `task` of `input`; empty without one."""
        return str(self.input.get("task", ""))

    @property
    def image_digests(self) -> tuple[str, ...]:
        """The sha256 of each image file, in the order of the request."""
        return tuple(image.digest for image in self.images)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) in stored pixels of each image, in the order of the request."""
        return tuple((image.width, image.height) for image in self.images)


def read_image(encoded: str) -> ReceivedImage:
    """Return digest and sizes of an image that came in base64; only its header is decoded.

    Raises BadRequest where an endpoint would refuse the image.
    """
    try:
        data = base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError) as error:
        raise BadRequest(f"Invalid image: not base64 ({error}).") from None
    try:
        with open_picture(io.BytesIO(data)) as image:
            width, height = image.size  # as stored, not turned by EXIF
            orientation = 1
            if may_have_exif(image, data):
                orientation = int(image.getexif().get(Base.Orientation, 1))
            else:
                # As endpoints do, this refuses a PNG that is cut off; it decodes nothing. Where
                # there may be EXIF, it isn't called: Pillow can't read both from one file.
                image.verify()
            digest = hashlib.sha256(data).hexdigest()
            return ReceivedImage(digest, width, height, orientation, image.format or "", len(data))
    except (OSError, ValueError, DecompressionBombError) as error:
        raise BadRequest(f"Invalid image: {error}.") from None

"""The faults that are planted: what the model, the endpoint, the files or the machine do wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from benchmarks.side_by_side.scene import Manner
from dataflow_grounding.testing import Answer, Fault, faults

BEGINS = 12
"""The first of the job's requests that a fault of the endpoint strikes, counted from 0."""
BUSY_SECONDS = 4.0
KEEPS_PIXELS = 200_704  # of a picture that the model with a frame of its own sees
OWN_FRAME = f"xyxy_px@smart_resize_28_3136_{KEEPS_PIXELS}"


@dataclass(frozen=True)
class Planted:
    """A fault.

    Args:
        name: As the table has it.
        about: What happens.
        box_format: How the model writes boxes instead; None leaves it as the way expects it.
        manner: How it says what it says.
        spoils: What becomes of one reply, the first time.
        refuses: What all requests get from the twelfth on, while it lasts.
        seconds: How long that lasts; None until the first run has ended.
        turned, missing, absent: What is wrong in the job's files and rows.
        invents: Whether the model draws a box for what isn't there.
        kills: Whether the process is killed at the twelfth request.
        fills: Whether the disk is full from then on.
        told: Words by which a user learns what is wrong with all pictures. Without, a picture has
            to be named.
    """

    name: str
    about: str
    box_format: str | None = None
    manner: Manner = Answer
    spoils: Fault | None = None
    refuses: Fault | None = None
    seconds: float | None = None
    turned: bool = False
    missing: bool = False
    absent: bool = False
    invents: bool = False
    kills: bool = False
    fills: bool = False
    told: str = ""


def fenced(text: str) -> Answer:
    """In a fence, with a sentence before and after it."""
    return Answer(f"Here are the boxes:\n```json\n{text}\n```\nLet me know if you need more.")


def aloud(text: str) -> Answer:
    """After thoughts, in which a box is tried and rejected."""
    thoughts = "It could be at [10, 10, 90, 90]. No, that is the ground; I look again."
    return Answer(f"<think>{thoughts}</think>\n{text}")


def twice(text: str) -> Answer:
    """Each box two times, the second a hair further."""
    whole = json.loads(text)
    objects = whole["objects"] if isinstance(whole, dict) else whole
    doubled = []
    for item in objects:
        doubled += [item, {key: _moved(value) for key, value in item.items()}]
    return Answer(json.dumps({"objects": doubled} if isinstance(whole, dict) else doubled))


def _moved(value: object) -> object:
    return [number + 1 for number in value] if isinstance(value, list) else value


def _cut(answer: Answer) -> Answer:
    """Cut off in the middle of the last box."""
    end = answer.text.rindex("[") + 6
    return replace(answer, text=answer.text[:end], finish_reason="length")


WRONG_FORMAT = r"format|convention|order"
NO_FAULT = Planted("nothing", "Nothing goes wrong.")
PLANTED = [
    Planted(
        "429",
        f"In the middle of the job the endpoint answers 429 for {BUSY_SECONDS:g} s, and says for"
        " how long.",
        refuses=faults.too_many_requests(BUSY_SECONDS),
        seconds=BUSY_SECONDS,
        told="429|rate.limit",
    ),
    Planted(
        "cut reply",
        "One reply ends inside its last box, the first time.",
        spoils=Fault(change=_cut),
    ),
    Planted("fence", "Replies are fenced, with a sentence before and after.", manner=fenced),
    Planted(
        "y-first",
        "The name now means another model: it writes y before x, 0 to 1000.",
        box_format="yxyx_1000",
        told=WRONG_FORMAT,
    ),
    Planted(
        "0-1000",
        "The name now means another model: it writes 0 to 1000, x first.",
        box_format="xyxy_1000",
        told=WRONG_FORMAT,
    ),
    Planted(
        "pixel frame",
        f"The server reduces pictures to {KEEPS_PIXELS:,} px, and the model counts the pixels of"
        " those.",
        box_format=OWN_FRAME,
        told=WRONG_FORMAT,
    ),
    Planted("EXIF", "One picture is stored lying on its side.", turned=True),
    Planted("missing file", "One picture is not there.", missing=True),
    Planted("kill", "The process is killed in the middle of the job.", kills=True),
    Planted(
        "absent phrase",
        "What is asked for in one picture is not there, and the model says so in a sentence.",
        absent=True,
    ),
    Planted("duplicate", "Each box comes twice, one a hair further.", manner=twice),
    Planted("thinking aloud", "A box is tried and rejected before the answer.", manner=aloud),
    Planted(
        "empty answer",
        "One reply is empty, the first time.",
        spoils=Fault(change=lambda answer: replace(answer, text="")),
    ),
    Planted(
        "key revoked",
        "In the middle of the job the key is revoked; before the second run it is good again.",
        refuses=faults.unauthorized(),
        told="401|[Kk]ey",
    ),
    Planted(
        "disk full",
        "In the middle of the job the disk is full; before the second run there is room.",
        fills=True,
        told="[Nn]o space|disk",
    ),
]
BEYOND = [
    Planted(
        "absent, and a box invented",
        "What is asked for in one picture is not there, and the model draws a box all the same.",
        absent=True,
        invents=True,
    )
]
"""What is not counted: no reading of a reply helps, only a second question."""

"""A request: one question to a model, the schema of its reply, and how that is read."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.prompts import load_prompt

T = TypeVar("T")
_SORTED = json.JSONEncoder(sort_keys=True)  # `json.dumps` makes one anew each time

ReadReply: TypeAlias = tuple[T, Sequence[Note | str]]
"""What `read` returns: the answer, and notes on reading it; a text "code: what was done" is taken
for a note, too.
"""

# JSON schemas of replies, in the strict subset that endpoints take: every key required, none
# besides.
Schema: TypeAlias = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
BOX: Schema = {"type": "array", "items": {"type": "number"}}

# A model loops most easily near 0, where it always takes the likeliest token: a vision model ran
# away in 6 of 6 answers at 0, 1 of 4 at 0.1, none of 6 at 0.2 (raullenchai/Rapid-MLX issue 3270).
# So cooler ends here, also for one at 0.
COOLEST = 0.2


@dataclass(frozen=True)
class Request(Generic[T]):
    """One task for a model. A VLM is sent `text` and `images`; the embedded serving looks at `task`
    and `input`.

    `read` turns the reply's text into the answer and notes on what it did to the reply; it raises
    UnreadableReply. `sample` numbers independent answers to the same question, `attempt` the tries
    at one that could not be read.
    """

    task: str
    input: Mapping[str, Any]
    images: tuple[Image, ...]
    instructions: str
    schema: Mapping[str, Any]
    read: Callable[[str], ReadReply[T]]
    sample: int = 0
    attempt: int = 0
    complaint: str = ""
    cut_off: bool = False  # whether the last reply to it was cut off: it is asked again cooler
    divisible: bool = False
    """Whether less can be asked for at a time: a reply that was cut off is not asked for again as
    it is.
    """
    before: Callable[[], Awaitable[None]] | None = None
    """What has to be settled before it is sent; not awaited where a stored reply answers it. May
    raise RunStopped.
    """
    stored: Callable[[Callable[[], bool]], None] | None = None
    """Told before a stored reply is read, with a function that says whether it was asked again when
    it came.
    """
    may_send: Callable[[], bool] | None = None
    """Asked last of all, when there is room to send it; where it may not, `before` is awaited once
    more.
    """
    before_another: Callable[..., None] = lambda *refused: None
    """To be called by a serving before each time it sends again for the same answer, with the
    RequestRefused for which it tries another form. It raises RunStopped.
    """
    of: str = ""  # what its reply is one of: checks of the endpoint vouch for all of these together
    # which of the serving's endpoints is meant, where it is no matter of choice
    at: int | None = None
    # asked about no image: stated, so that one that is missing can't pass for it
    text_only: bool = False

    def __post_init__(self) -> None:
        if self.text_only == bool(self.images):
            raise ValueError(
                f"a {self.task} request {'with an' if self.text_only else 'without its'} image"
            )

    @cached_property
    def question(self) -> str:
        """Instructions, then the input as JSON between <input> tags, which its
        strings can't close.
        """
        data = json.dumps({"task": self.task, **self.input}, ensure_ascii=False)
        data = data.replace("<", "\\u003c").replace(">", "\\u003e")
        return f"{self.instructions}\n\n<input>{data}</input>"

    @property
    def text(self) -> str:
        """What is sent: the question, and what was wrong with an earlier reply to it."""
        if not self.complaint:
            return self.question
        why = (
            f"An earlier reply could not be read: {self.complaint} Reply with the JSON object"
            " alone."
        )
        return f"{self.question}\n\n{why}"

    @property
    def system(self) -> str:
        """The system message, the same for every task about an image."""
        return load_prompt("system_text_only" if self.text_only else "system")

    def put_so(self, **how: Any) -> "Request[T]":
        """The same question with other fields than those that it is made of: task, input, images,
        instructions.

        As `dataclasses.replace`, but for the text of the question, which is made once however often
        it is put.
        """
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__, **how)
        return made

    def again(self, attempt: int, complaint: str, cut_off: bool = False) -> "Request[T]":
        """The same question once more, saying what was wrong with the last reply."""
        return self.put_so(
            attempt=attempt, complaint=" ".join(complaint.split())[:300], cut_off=cut_off
        )

    def temperature(self, usual: float | None) -> float | None:
        """The temperature for a serving that samples at `usual`: halved with each try after a
        cut-off reply.
        """
        if usual is None or not self.cut_off:
            return usual
        return max(COOLEST, round(usual * 0.5**self.attempt, 3))

    def key(self, identity: Mapping[str, Any]) -> str:
        """Digest of all that the reply depends on; `identity` is the serving's part: endpoint,
        model, sampling.
        """
        parts = {
            "serving": dict(identity),
            "system": self.system,
            "text": self.question,
            "images": [image.sent_digest for image in self.images],
            "sample": self.sample,
            "attempt": self.attempt,
        }
        return hashlib.sha256(_SORTED.encode(parts).encode()).hexdigest()[:32]


def about(
    task: str,
    image: Image,
    given: Mapping[str, Any],
    schema: Schema,
    read: Callable[[str], ReadReply[T]],
    box_format: BoxFormat | None = None,
    count: int = 1,
    **words: str,
) -> Request[T]:
    """The request of a task about one image: `count` things are asked at once, `words` fill the
    prompt's {names}.
    """
    instructions = load_prompt(task)
    told = {"box_format": box_format.instructions(image.sent_size)} if box_format else {}
    for name, text in {**told, **words}.items():
        instructions = instructions.replace(f"{{{name}}}", text)
    return Request(task, given, (image,), instructions, schema, read, divisible=count > 1)


def list_of(items: Schema) -> Schema:
    """An array of `items`."""
    return {"type": "array", "items": items}


def object_of(**properties: Schema) -> Schema:
    """An object with exactly these keys."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def is_cut_off(notes: Sequence[Note]) -> bool:
    """Return whether notes say that the reply's end is missing."""
    return any(note.code == "truncated" for note in notes)

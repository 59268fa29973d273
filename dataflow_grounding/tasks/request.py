"""A request: one question to a model, the schema of its reply, and how that is read.

A serving is what answers it: an endpoint, or a model in this process. The engine sends it.
"""

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeAlias, TypeVar

from dataflow_grounding._util.errors import NoBoxFormat, RequestRefused
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.prompts import load_prompt

T = TypeVar("T")
_SORTED = json.JSONEncoder(sort_keys=True)  # `json.dumps` makes one each time

ReadReply: TypeAlias = tuple[T, Sequence[Note | str]]
"""What `read` returns: the answer, and notes, also as texts "code: what was done"."""

# JSON schemas of replies, in the strict subset that endpoints take: all keys are required, and no
# others allowed.
Schema: TypeAlias = JsonObject

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
BOX: Schema = {"type": "array", "items": {"type": "number"}}

# A model loops most easily near 0, where it always takes the likeliest token: a vision model ran
# away in 6 of 6 answers at 0, 1 of 4 at 0.1, none of 6 at 0.2 (raullenchai/Rapid-MLX issue 3270).
# So cooler ends here, also for one at 0.
COOLEST = 0.2
_LONGEST_COMPLAINT = 300  # characters of what was wrong with a reply, as the model is told

SYSTEM = "system"
"""The role of a turn that joins the system message."""


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation; its role is `user`, `assistant` or `system`."""

    role: str
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """Where the words of a question come from, so that a user's own can take their place."""

    name: str = ""  # empty if that is the task's
    words: Mapping[str, str] = field(default_factory=dict)  # the values of the prompt's {names}
    closing: str = ""  # the text after the input
    system: str | None = None  # the user's own message; None for the shipped one


@dataclass(frozen=True)
class ReplyForm:
    """In which form a reply is asked for."""

    is_free: bool = False  # whether the endpoint is not asked to hold the reply to JSON
    # What it holds, as a model is told whose last reply could not be read.
    in_words: str = "the JSON object"
    # how much the model is to think first, `low` or `off`; empty leaves it to it
    thinking: str = ""


@dataclass(frozen=True)
class Tries:
    """How a question has fared so far."""

    unread: int = 0  # how many replies to it could not be read
    complaint: str = ""  # what was wrong with the last of these
    cut_off: bool = False  # whether the last one was cut off: it is asked again cooler


@dataclass(frozen=True)
class Sending:
    """What the engine heeds while it gets a request answered."""

    # Awaited before it is sent, but not where a stored reply answers it. May raise RunStopped.
    before_sending: Callable[[], Awaitable[None]] | None = None
    # Asked last of all, when there is room to send it. Where it says no, `before_sending` is
    # awaited once more.
    may_send: Callable[[], bool] | None = None
    before_another: Callable[[RequestRefused | None], None] = lambda refused: None
    reply_group: str = ""  # of replies for which checks of the endpoint vouch together
    # which of the serving's endpoints is meant, where that isn't left to the serving
    endpoint_number: int | None = None
    own_reply: bool = False  # whether a reply that a gateway has kept won't do, as for a check
    # called, when a reply comes, with the name of each model that has answered in place of the one
    # asked for, in this run
    other_model: Callable[[str], None] = lambda name: None

    def replace(self, **fields: object) -> "Sending":
        """Return a copy with other values of some fields, in a tenth of `dataclasses.replace`."""
        sending = object.__new__(Sending)
        sending.__dict__.update(self.__dict__, **fields)
        return sending


@dataclass(frozen=True)
class Request(Generic[T]):
    """One question to a model, and how its reply is read.

    A VLM is sent `text` and `images`; the embedded serving looks at `task` and `input`.

    Attributes:
        task: The task's name, as in "phrase_grounding".
        input: What the question is about: its phrases, regions or caption. It is JSON, but for
            boxes, which are Instances and Regions.
        images: The images that are sent with it.
        instructions: What the model is told to do.
        schema: The JSON schema of the reply.
        read: Turns the reply's text into the answer and notes. Raises UnreadableReply.
        sample: Which of several independent answers to the same question this one is, from 0.
        divisible: Whether less can be asked for at a time: if a reply was cut off, the same
            question is not asked again, and its caller may ask for less.
        text_only: Whether it is about no image. It is stated, so that a question whose image is
            missing can't pass for one.
        turns: The messages before it: the user's and the assistant's, one after the other. Their
            pictures are the first ones of `images`. Before them may be some with the role `system`,
            which join the system message. For a serving that `takes_turns`.
        prompt: Where its words come from.
        form: In which form its reply is asked for.
        tries: How the question has fared so far.
        sending: What the engine heeds while it gets it answered.
    """

    task: str
    input: JsonObject
    images: tuple[Image, ...]
    instructions: str
    schema: JsonObject
    read: Callable[[str], ReadReply[T]]
    sample: int = 0
    divisible: bool = False
    text_only: bool = False
    turns: tuple[Turn, ...] = ()
    prompt: Prompt = Prompt()
    form: ReplyForm = ReplyForm()
    tries: Tries = Tries()
    sending: Sending = Sending()

    def __post_init__(self) -> None:
        if self.text_only and self.images:
            raise ValueError(f"a {self.task} request with an image")
        if not self.text_only and not self.images:
            raise ValueError(f"a {self.task} request without its image")

    @cached_property
    def question(self) -> str:
        """The instructions, then the input as JSON between <input> tags.

        No string in the input can close the tag: its `<` and `>` are escaped.
        """
        data = json.dumps({"task": self.task, **self.input}, ensure_ascii=False)
        data = data.replace("<", "\\u003c").replace(">", "\\u003e")
        question = f"{self.instructions}\n\n<input>{data}</input>"
        return f"{question}\n\n{self.prompt.closing}" if self.prompt.closing else question

    def with_boxes_in(self, box_format: BoxFormat | None) -> "Request[T]":
        """Return it with its boxes as a model writes them; the same object where it has none.

        An Instance or a Region in a list of the input becomes an object with `id`, from 1, and its
        numbers; a Region's has `type`, `color` and `description`, too, where they are stated. As a
        value of an object, its numbers take its place. `{box_format}` in the instructions becomes
        the words that tell what the numbers mean. The boxes are in pixels of the first picture.

        Args:
            box_format: The model's; None where nobody has chosen one.

        Raises:
            NoBoxFormat: It has boxes, and there is no format to write them in.
        """
        if "{box_format}" not in self.instructions and not _has_boxes(self.input):
            return self
        if box_format is None:
            raise NoBoxFormat(
                f"a {self.task} request has boxes, and its operator chooses no box format: derive"
                " the operator from RegionOperator"
            )
        image = self.images[0]
        words = {**self.prompt.words, "box_format": box_format.instructions(image.sent_size)}
        return replace(
            self,
            input=_written(self.input, image, box_format),
            instructions=filled(self.instructions, words),
            prompt=replace(self.prompt, words=words),
        )

    @property
    def text(self) -> str:
        """What is sent: the question, and after it what was wrong with an earlier reply."""
        complaint = self.tries.complaint.rstrip(".")
        if not complaint:
            return self.question
        return (
            f"{self.question}\n\n"
            f"An earlier reply could not be read: {complaint}. "
            f"Reply with {self.form.in_words} alone."
        )

    @property
    def wants_own_reply(self) -> bool:
        """Whether a reply that a gateway has kept won't do, as for a check or a further answer."""
        return self.sample > 0 or self.sending.own_reply

    @property
    def own_seed(self) -> int | None:
        """The seed to send where a reply that a gateway has kept won't do; None where it will.

        To a gateway, the same question with another seed is another question, so it asks the model.
        The seed isn't part of the request's key.
        """
        if not self.wants_own_reply:
            return None
        if self.sample:  # a further answer has a number, which will do
            return self.sample
        return secrets.randbits(31)  # a check should get another one each time

    @property
    def messages(self) -> list[Turn]:
        """The turns before it, but not the system's; then its own text, with the pictures that no
        turn has.
        """
        count_in_turns = sum(len(turn.images) for turn in self.turns)
        own_images = self.images[count_in_turns:]  # `images` begins with those of the turns
        turns = [turn for turn in self.turns if turn.role != SYSTEM]
        return [*turns, Turn("user", self.text, own_images)]

    @property
    def system(self) -> str:
        """The system message, with the texts of turns of that role: some models take only one."""
        text = self.prompt.system
        if text is None:
            text = load_prompt("system_text_only" if self.text_only else "system")
        if not self.turns:
            return text
        of_turns = [turn.text for turn in self.turns if turn.role == SYSTEM]
        return "\n\n".join([text, *of_turns])

    def before_another(self, refused: RequestRefused | None = None) -> None:
        """Tell the engine that a serving is about to send again for the same answer.

        `refused` is what it tries another form for, if it was refused. Raises RunStopped.
        """
        self.sending.before_another(refused)

    def replace(self, **fields: object) -> "Request[T]":
        """Return the same question with other values of some fields.

        Like `dataclasses.replace`, but the copy keeps the text of `question`, which is costly to
        make. So the fields that it is made of stay: task, input, images, instructions.
        """
        if not fields.keys() <= self.__dict__.keys():
            raise TypeError(f"a Request has no field {min(fields.keys() - self.__dict__.keys())!r}")
        request = object.__new__(type(self))
        request.__dict__.update(self.__dict__, **fields)
        return request

    def again(self, unread: int, complaint: str, cut_off: bool = False) -> "Request[T]":
        """Return the same question to be asked again, with what was wrong, for the model."""
        single_spaced = " ".join(complaint.split())
        return self.replace(tries=Tries(unread, single_spaced[:_LONGEST_COMPLAINT], cut_off))

    def temperature(self, usual: float | None) -> float | None:
        """Return the temperature to ask at. Where the last reply was cut off, the usual one is
        halved with each unread reply, but never below COOLEST. None is the endpoint's own, and
        stays None.
        """
        if usual is None or not self.tries.cut_off:
            return usual
        return max(COOLEST, round(usual * 0.5**self.tries.unread, 3))

    def key(self, identity: Mapping[str, object]) -> str:
        """Return a digest of all that the reply depends on; `identity` is the serving's.

        The schema isn't in it, because the text says the same in words. What was wrong with an
        earlier reply isn't either: the number of unread replies is enough.
        """
        parts: dict[str, object] = {
            "serving": dict(identity),
            "system": self.system,
            "text": self.question,
            "images": [image.sent_digest for image in self.images],
            "sample": self.sample,
            "attempt": self.tries.unread,
        }
        # A new part changes the key of no stored reply whose request doesn't have it.
        if self.form.is_free:
            parts["free_form"] = True
        if self.form.thinking:
            parts["thinking"] = self.form.thinking
        if self.turns:
            parts["turns"] = [[turn.role, turn.text, len(turn.images)] for turn in self.turns]
        return hashlib.sha256(_SORTED.encode(parts).encode()).hexdigest()[:32]


def request_about(
    task: str,
    image: Image,
    question: Mapping[str, object],
    schema: Schema,
    read: Callable[[str], ReadReply[T]],
    box_format: BoxFormat | None = None,
    *,
    divisible: bool = False,
    **words: str,
) -> Request[T]:
    """Make the request of a task about one image. `words` fill the {names} of the task's prompt,
    and so does how `box_format` writes boxes. The other arguments are the Request's.
    """
    if box_format:
        words = {"box_format": box_format.instructions(image.sent_size), **words}
    instructions = filled(load_prompt(task), words)
    prompt = Prompt(words=words)
    return Request(
        task, question, (image,), instructions, schema, read, divisible=divisible, prompt=prompt
    )


def _has_boxes(fields: JsonObject) -> bool:
    for value in fields.values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            for part in item.values() if isinstance(item, dict) else [item]:
                if isinstance(part, (Instance, Region)):
                    return True
    return False


def _written(fields: JsonObject, image: Image, box_format: BoxFormat) -> dict[str, object]:
    """Return an object with its boxes in a format, as `with_boxes_in` says."""
    written: dict[str, object] = {}
    for key, value in fields.items():
        if isinstance(value, (Instance, Region)):
            written[box_format.key] = _numbers(value, image, box_format)
        elif isinstance(value, (list, tuple)):
            written[key] = _written_items(value, image, box_format)
        else:
            written[key] = value
    return written


def _written_items(values: Sequence[object], image: Image, box_format: BoxFormat) -> list[object]:
    items: list[object] = []
    for number, item in enumerate(values, 1):
        if isinstance(item, (Instance, Region)):
            stated: dict[str, object] = {"id": number}
            stated[box_format.key] = _numbers(item, image, box_format)
            if isinstance(item, Region):
                texts = {"type": item.type, "color": item.color, "description": item.description}
                stated.update((name, text) for name, text in texts.items() if text is not None)
            items.append(stated)
        elif isinstance(item, Mapping):
            items.append(_written(item, image, box_format))
        else:
            items.append(item)
    return items


def _numbers(item: Instance | Region, image: Image, box_format: BoxFormat) -> Sequence[float]:
    # The model counts in the picture that it is shown, which may have padding around it.
    return box_format.from_pixels(item.bbox, original=image.shown_size, sent=image.sent_size)


def size_of(image: Image) -> dict[str, int]:
    """Return the size of a picture as it is sent, for a question."""
    width, height = image.sent_size
    return {"width": width, "height": height}


def numbered(texts: Iterable[str]) -> list[dict[str, object]]:
    """Return texts for a question, with their ids from 1."""
    return [{"id": number, "text": text} for number, text in enumerate(texts, 1)]


def filled(prompt: str, words: Mapping[str, str]) -> str:
    """Return a prompt with its {names} replaced by their words; those without any stay."""
    for name, text in words.items():
        prompt = prompt.replace(f"{{{name}}}", text)
    return prompt


def list_of(items: Schema) -> Schema:
    """Return the schema of an array of `items`."""
    return {"type": "array", "items": items}


def object_of(**properties: Schema) -> Schema:
    """Return the schema of an object with exactly these keys, each with its value's schema."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def is_cut_off(notes: Sequence[Note]) -> bool:
    """Whether notes on a reply say that its end is missing."""
    return any(note.code == "truncated" for note in notes)

"""Where replies come from: the model, another model, or a gateway's cache."""

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from dataflow_grounding._util.secrets import blotted
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.serving.serving import Reply
from dataflow_grounding.tasks.request import Request

T = TypeVar("T")
MOST_REMEMBERED = 4096  # replies: far more than come between two answers to one question
LEAST_NUMBERS = 4  # of a text, from which on two equal ones have boxes, and are hardly by chance
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
MOST_MODELS = 20  # that are counted by name
MOST_TOLD = 3  # other models that are told of: more names than that say nothing
OTHERS = "others"
ANSWERED_BY = "answered_by "
"""With what the counts of replies by model begin, before the model's name."""
# What another name of the same model may have: the provider before it, a date, version or variant
# after it (`openai/gpt-4o-2024-08-06`, `gemini-2.5-flash-001`, `qwen2.5vl:latest`).
_PROVIDER = re.compile(r"^.*/|^(?:us|eu|apac|global)\.(?=.*\.)")
_VERSION = re.compile(r"(?:[-@:](?:latest|free|nitro|floor|20\d\d-\d\d-\d\d|\d{3,8}))+$")


class Heard(NamedTuple):
    """What a reply is known again by: the endpoint's id of it, and a hash of its text."""

    id: str
    text_hash: int


class _Remembered(Generic[T]):
    """The last MOST_REMEMBERED values that were set, by key."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        return self._values.get(key)

    def set(self, key: str, value: T) -> None:
        self._values[key] = value
        if len(self._values) > MOST_REMEMBERED:
            self._values.popitem(last=False)


class SeenReplies:
    """Tells a further answer to a question from one that came before, by ids and texts."""

    def __init__(self) -> None:
        # A gateway's cache answers equal requests with the same reply, which has the same id. Ids
        # say nothing where one of them comes with different texts.
        self._text_hashes = _Remembered[int]()  # by id
        self._common_ids = _Remembered[bool]()  # ids that came with different texts
        self._has_common_ids = False  # whether there was ever one
        self._first_id = ""  # that came; "" for none so far
        self._do_ids_differ = False  # whether another one came after it
        # by id and text of a reply: the pictures that it was first an answer about
        self._first_pictures = _Remembered[str]()
        # By question: which of its samples each reply answered first. A sample is one of several
        # answers to the same question.
        self._samples_by_question = _Remembered[dict[Heard, int]]()
        self._were_several = False  # whether some question was to be answered more than once
        self.gateway_marks_kept = False  # whether it says which replies come from its cache

    def needs_comparing(self, request: Request[Any]) -> bool:
        """Return whether it matters what else was answered to the request's question."""
        # Most runs ask each question once, and need no key for all of its answers.
        if request.sample > 0:
            self._were_several = True
        is_further_try = request.tries.unread > 0
        return self._were_several or is_further_try

    def note(self, reply: Reply) -> None:
        """Note what may tell that replies are repeated: marks of a gateway, and ids."""
        if reply.kept:
            self.gateway_marks_kept = True
        heard = _heard(reply.id, reply.text)
        if not heard.id:  # some endpoints give none
            return
        if not self._first_id:
            self._first_id = heard.id
        if heard.id != self._first_id:
            self._do_ids_differ = True
        earlier_hash = self._text_hashes.get(heard.id)
        if earlier_hash is not None and earlier_hash != heard.text_hash:
            self._common_ids.set(heard.id, True)
            self._has_common_ids = True
        self._text_hashes.set(heard.id, heard.text_hash)

    def is_of_another_picture(self, reply: Reply, request: Request[Any]) -> bool:
        """Return whether a reply with boxes came before, as the answer about other pictures."""
        if not reply.id or not isinstance(reply.text, str):
            return False
        may_have_boxes = len(_NUMBER.findall(reply.text)) >= LEAST_NUMBERS
        if not may_have_boxes:  # equal replies may be right for two pictures
            return False
        pictures = ""
        for image in request.images:
            pictures += f"{image.sent_digest} "
        of_reply = f"{hash(reply.text)} {reply.id}"
        first_pictures = self._first_pictures.get(of_reply)
        if first_pictures is None:
            self._first_pictures.set(of_reply, pictures)
            return False
        # they don't where all replies have one id, or several texts came with one
        do_ids_tell = self._do_ids_differ and not self._has_common_ids
        return do_ids_tell and first_pictures != pictures

    def came_before(
        self, sample: int, reply: Reply, question: str, others: Iterable[dict[str, Any]]
    ) -> bool:
        """Note a sample's answer; return whether another sample got the same reply before."""
        heard = _heard(reply.id, reply.text)
        # answers to other samples: those that are stored, and those of this run
        heard_before = {_heard(line.get("id"), line.get("reply")) for line in others}
        sample_by_reply = self._samples_by_question.get(question)
        if sample_by_reply is None:
            sample_by_reply = {}
            self._samples_by_question.set(question, sample_by_reply)
        for earlier, earlier_sample in sample_by_reply.items():
            if earlier_sample != sample:
                heard_before.add(earlier)
        sample_by_reply.setdefault(heard, sample)  # the sample that it answered first stays
        if reply.kept:  # some gateways give a kept reply an id of its own: its text has to tell
            return any(earlier.text_hash == heard.text_hash for earlier in heard_before)
        # equal texts alone are no sign: a model may say the same twice
        does_id_tell = bool(reply.id) and not self._common_ids.get(reply.id)
        return does_id_tell and heard in heard_before


def _heard(reply_id: Any, text: Any) -> Heard:
    return Heard(str(reply_id or ""), hash(text) if isinstance(text, str) else 0)


class Answerers:
    """Counts which models answer, and tells of other ones than the one asked for."""

    def __init__(self, asked: str, counts: Counter[str]) -> None:
        self._asked = asked
        self._counts = counts
        self.others: list[str] = []  # that were warned of

    def add(self, reply: Reply, address: str) -> None:
        """Count a reply by its model, and warn once of each that isn't the one asked for: of an
        alias, too, because nobody else can tell it from another model.
        """
        name = blotted(reply.model)
        if reply.by_fallback:  # as the gateway says itself
            name = f"{name or self._asked} (fallback)"
        if not name:
            return
        self._count(name)
        if not is_same_model(name, self._asked):
            self._warn_once(name, address)

    def _warn_once(self, name: str, address: str) -> None:
        if name in self.others or len(self.others) >= MOST_TOLD:
            return
        self.others.append(name)
        say(
            f"Warning: {name} answers at {address}, where {self._asked} was asked for. Its replies"
            " count: if they shouldn't, stop the run and switch off the gateway's fallbacks"
            f" (LiteLLM's by disable_fallbacks: true in {setting('vlm.openai.extra_body')})."
        )

    def _count(self, name: str) -> None:
        """Count by name; names after the first MOST_MODELS together, as "answered_by others"."""
        key = f"{ANSWERED_BY}{name}"
        if key not in self._counts:
            name_count = sum(each.startswith(ANSWERED_BY) for each in self._counts)
            if name_count >= MOST_MODELS:
                key = f"{ANSWERED_BY}{OTHERS}"
        self._counts[key] += 1


def is_same_model(one: str, other: str) -> bool:
    """Return whether names are of one model, as `gpt-4o` and `openai/gpt-4o-2024-08-06`."""
    if one == other:  # as nearly always
        return True
    one = _PROVIDER.sub("", one.lower())
    other = _PROVIDER.sub("", other.lower())
    if one == other:
        return True
    # two names with different versions are of two models
    return _VERSION.sub("", one) == other or one == _VERSION.sub("", other)

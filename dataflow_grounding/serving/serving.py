"""What a serving is: something that answers one request (`Serving`), with a `Reply`.

Servings are endpoints, models in the process, recordings, or a user's own.
"""

import asyncio
import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import EndpointRefused, OperatorFailed, SpecError
from dataflow_grounding._util.key_names import with_keys, with_names
from dataflow_grounding._util.secrets import blotted_message, learn
from dataflow_grounding._util.settings import setting
from dataflow_grounding.data.records import JsonObject, is_number
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.tasks.request import Request

if TYPE_CHECKING:
    from dataflow_grounding.tasks.ways_to_ask import AskingForm

FLEX = "flex"
"""The service tier that is slower, and cheaper."""
LONGEST_TIER_NAME = 40  # characters in a reply; longer ones are no names
LONGEST_NAME = 100  # characters of a reply's id and model; longer ones are cut
MOST_TOKENS = 10**9
"""The highest count of tokens of one request or reply that is believed.

No model takes that many, and sums of such counts fit a double.
"""


@dataclass(frozen=True)
class Usage:
    """Tokens that the endpoint counted for one reply.

    Args:
        input_tokens: The tokens of the request.
        cached_tokens: How many of these are billed as a beginning that was seen before.
        output_tokens: The tokens of the reply.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def as_list(self) -> list[int]:
        """Return the counts as the store has them; `dataclasses.astuple` takes ten times
        as long.
        """
        return [self.input_tokens, self.cached_tokens, self.output_tokens]

    def bounded(self) -> "Usage":
        """Return counts that are possible, from counts that may be wrong: 0 for what can't be a
        count.
        """
        sent = _token_count(self.input_tokens)
        cached = _token_count(self.cached_tokens)
        written = _token_count(self.output_tokens)
        return Usage(sent, min(cached, sent), written)


def is_token_count(value: object) -> bool:
    """Return whether a value can be a number of tokens: a whole one, from 0 to MOST_TOKENS."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _token_count(value: int) -> int:
    return value if is_token_count(value) else 0


def name_in_reply(name: object) -> str:
    """Return an id or a model's name as a reply states it, cut; "" for what can't be one."""
    return str(name)[:LONGEST_NAME] if isinstance(name, (str, int)) else ""


def tier_named(name: object) -> str:
    """Return the name of the tier that served a reply, in lower case; "" for what can't be one."""
    return name.lower() if isinstance(name, str) and len(name) <= LONGEST_TIER_NAME else ""


@dataclass(frozen=True)
class Reply:
    """A model's reply, before it is read.

    Attributes:
        text: The reply's text.
        finish_reason: `stop`, `length` (it was cut off), or the endpoint's own word.
        usage: The tokens that the endpoint counted.
        refusal: Why the model or the endpoint refused, in its words; None if it didn't.
        hold: Seconds for which the endpoint, by its rate-limit headers, takes no more requests.
        tier: The name of the service tier that served it; "" where the endpoint names none.
        id: The endpoint's own name for it, which tells it from others; "" without one.
        created: When the endpoint has made it, in seconds since 1970; 0 where it doesn't say.
        model: The name of the model that the endpoint says has answered; "" where it doesn't say.
        by_fallback: Whether a gateway says that another model has answered than the one asked for.
        kept: Whether a gateway has answered from its cache.
        repeated: Whether it is a reply that came before, and so is no further answer; the engine
            finds out.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    refusal: str | None = None
    hold: float = 0.0
    tier: str = ""
    id: str = ""
    created: int = 0
    model: str = ""
    by_fallback: bool = False
    kept: bool = False
    repeated: bool = False

    def __post_init__(self) -> None:
        """Make the counts possible ones: those of every serving, a user's own, too, pass here."""
        object.__setattr__(self, "usage", self.usage.bounded())


class Serving(ABC):
    """Answers requests. A serving of your own needs `model` and `answer`; all else has a default.

    `answer` sends once and raises what went wrong:

    - RateLimited, ServerOverloaded, ServerFault, EndpointUnreachable: the engine tries again,
    - PictureTooLarge: it asks with smaller pictures,
    - any other RequestRefused: the record fails,
    - EndpointRefused: the run stops.

    A serving that sends more than once for one answer calls `request.before_another()` before each
    further time, with the RequestRefused if it was refused: ten refusals of one request stop the
    run.
    """

    model: str
    endpoint: str = "local"
    """Where the model is: an address, or other words. Rate limits, and what checks vouch for, go by
    it."""
    box_format: str = "auto"
    """The box format that the model answers in: `auto` looks `model` up."""
    box_formats: Sequence[JsonObject] = ()
    """The user's own rows for the table of `auto` (see `find_box_format`)."""
    max_workers: int = 16
    """The most requests in flight at a time."""
    timeout: float = math.inf
    """Seconds after which it gives a request up."""
    image_limits: ImageLimits = ImageLimits()
    """The sizes and types of pictures that are sent to it."""
    max_output_tokens: int = 4096
    """The most tokens of one reply, for the worst case of its cost."""
    regions_per_request: int = 16
    """The most regions that one request shows."""
    needs_labels: bool = False
    """Whether it can't see what things are, so that requests about regions tell it their types."""
    free: bool = False
    """Whether its answers cost nothing, because it runs on this machine."""
    tasks: Collection[str] | None = None
    """The tasks that it can answer; None where it may be asked anything."""
    takes_turns: bool = False
    """Whether it sends a request's `turns` as messages; else a conversation reaches it as data."""
    is_vlm: bool = True
    """Whether a vision-language model answers; records that something else answered name it."""
    takes_probes: bool = True
    """Whether it answers about any picture, so that a run can check it with pictures of known
    content."""
    prices: Any = None
    """The prices of its tokens (Prices), where they differ from the run's other servings'."""
    service_tier: str = ""
    """The tier that it asks for: `flex`, or "" for the endpoint's ordinary one."""
    stated_settings: JsonObject = {}
    """What a spec made it with (`vlm.settings`), as far as a reply may depend on that.

    It is part of the identity, unless the class defines `identity`.
    """
    exact_boxes: bool = False
    """Whether its boxes are always in `box_format`, so that they needn't be watched."""

    def __getstate__(self) -> dict[str, object]:
        """Return the state for another process: references to variables in place of keys.

        Raises SpecError for a key that no variable holds.
        """
        return {name: with_names(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        """Take a state with this process's keys. Raises SpecError where a variable isn't set."""
        self.__dict__.update({name: with_keys(value) for name, value in state.items()})

    # Copies within a process keep the keys. By default Python copies by `__getstate__`, in which
    # variables' names replace them.

    def __copy__(self) -> "Serving":
        """Return a serving with the same attributes."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> "Serving":
        """Return a serving with copies of the attributes."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __repr__(self) -> str:
        """Return its class, model and endpoint without secrets; `local` is left out."""
        arguments = [self.model]
        if self.endpoint != Serving.endpoint:
            arguments.append(self.endpoint.partition("?")[0])
        shown = ", ".join(repr(blotted_message(argument)) for argument in arguments)
        return f"{type(self).__name__}({shown})"

    @abstractmethod
    async def answer(self, request: Request[Any]) -> Reply | str:
        """Return the model's reply to one request; a plain string is a whole reply.

        Raises the errors that the class names.
        """

    def identity(self) -> JsonObject:
        """Return all of this serving that a reply depends on: the model and its settings.

        It is part of the key under which replies are stored. An address isn't part of it: the same
        server at another port, or on another machine, answers the same. An `endpoint` that is
        no address is part of it, because it may say which model it is; so are `stated_settings`.
        """
        identity: dict[str, object] = {"model": self.model}
        is_address = self.endpoint.startswith(("http://", "https://"))
        if not is_address:
            identity = {"endpoint": self.endpoint, **identity}
        # A class with an `identity` of its own adds the settings that count by itself.
        has_own_identity = type(self).identity is not Serving.identity
        if self.stated_settings and not has_own_identity:
            identity["settings"] = dict(self.stated_settings)
        return identity

    def identity_there(self) -> JsonObject:
        """Return the identity with the address: what a check of the endpoint vouches for."""
        return {**self.identity(), "endpoint": self.endpoint}

    def endpoints(self) -> "list[tuple[Serving, float]]":
        """Return the servings that requests go to, with their weights: itself, or one each."""
        return [(self, 1.0)]

    def obstacles(self) -> list[str]:
        """Return what prevents it from sending, a sentence each, or []; sends nothing."""
        return []

    def facts(self) -> JsonObject:
        """Return what `run.json` and `doctor` say of it, as JSON without secrets.

        `takes` is what the endpoint accepts, which it may ignore all the same.
        """
        return {}

    def needs(self) -> list[str]:
        """Return advice for before a run, a line each; [] for none. It can send without that."""
        return []

    async def list_models(self) -> list[str]:
        """Return the names of models that the endpoint says it has; empty where it doesn't say."""
        return []

    def thinking_fields(self, level: str) -> JsonObject | None:
        """Return the fields of a request that have its model think less: `low` or `off`.

        None if the model's fields aren't known, as here: then it can't be asked to.
        """
        return None

    async def aclose(self) -> None:
        """Give back what a call has opened; the serving can be used again afterwards.

        Called after each call and run. Our own servings keep their connections for later calls;
        these are closed once the serving is gone, or at the process's end.
        """
        await asyncio.sleep(0)


def check_serving(serving: object, whose: str) -> None:
    """Raise SpecError for what is no serving that can answer; `whose` is what it was given to."""
    name = type(serving).__name__
    if not isinstance(serving, Serving):
        looks_like_serving = callable(getattr(serving, "answer", None))
        if looks_like_serving:
            raise SpecError(
                f"{name} is no serving yet: derive it, as in class {name}(Serving), from"
                " dataflow_grounding.Serving"
            )
        shown = repr(serving) if serving is None or isinstance(serving, str) else name
        raise SpecError(
            f"{whose} needs a serving, such as OpenAIServing(api_url, model_name) or"
            f" EmbeddedServing(), not {shown}"
        )
    if not isinstance(getattr(serving, "model", None), str):
        raise SpecError(f'{name} has no model: name it in its class, as in model = "my-model"')


async def reply_of(serving: Serving, request: Request[Any]) -> Reply:
    """Return what a serving answers; a text becomes a Reply.

    Raises what the serving raises; EndpointRefused if its `answer` isn't async, because no request
    can succeed then; OperatorFailed for an answer that is no reply.
    """
    whose = f"answer of {type(serving).__name__}"
    answering: Any = serving.answer(request)
    if not inspect.isawaitable(answering):
        raise EndpointRefused(f"{whose} isn't async: write async def answer(self, request)")
    answer = await answering
    reply = Reply(answer) if isinstance(answer, str) else answer
    if not isinstance(reply, Reply):
        raise OperatorFailed(f"{whose} returned no Reply and no text: {reply!r:.60}")
    return reply


def check_can_think(serving: Serving | None, form: "AskingForm | None") -> None:
    """Raise SpecError if a form of asking sets thinking, and this model has no field for it."""
    if serving is None or form is None or form.thinking == "default":
        return
    if not serving.is_vlm:  # nothing that thinks
        return
    if serving.thinking_fields(form.thinking) is None:
        raise SpecError(
            f"how to set thinking {form.thinking} for {serving.model} isn't known: leave it out of"
            f" {setting('vlm.asking')}, and state the fields of a request in"
            f" {setting('vlm.openai.extra_body')} or {setting('vlm.gemini.extra')}"
        )


def usable_key(text: str | None) -> str | None:
    """Return an API key without blanks around it, and keep it out of files and messages from now
    on: there it is shown as `***`.

    Args:
        text: The key, as a setting or an environment variable has it.

    Returns:
        The key; None for a text of blanks alone, or None.

    Raises:
        SpecError: The key holds characters that no HTTP header can hold.

    Example:
        ```python
        self.api_key = usable_key(os.environ.get("MY_API_KEY"))
        ```
    """
    key = (text or "").strip() or None  # a key that was read from a file may end in a newline
    learn(key)
    if key and not (key.isascii() and key.isprintable()):
        raise SpecError("the API key holds characters that no key has: copy it again")
    return key


def check_counts(**counts: Any) -> None:
    """Raise SpecError, with the count's name, for one that isn't a whole number from 1."""
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise SpecError(f"{name} should be 1 or more, a whole number, not {count!r:.40}")


def check_settings(timeout: float, temperature: float | None, **counts: Any) -> None:
    """Raise SpecError for settings that can't be sent."""
    if not (is_number(timeout) and timeout > 0):
        raise SpecError(f"timeout should be a number of seconds, not {timeout!r:.40}")
    if temperature is not None and not (is_number(temperature) and temperature >= 0):
        raise SpecError(f"temperature should be a number, 0 or more, not {temperature!r:.40}")
    check_counts(**counts)

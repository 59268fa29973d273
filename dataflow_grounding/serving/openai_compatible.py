"""A VLM at an OpenAI-compatible endpoint (`/chat/completions`).

What the endpoint accepts, its habits, is found out by the first requests. A gateway in front of it
may answer from a cache. A request that wants a reply of its own, for instance a further answer to
the same question, asks for none of these by headers, and by keys of its body: `seed` and `cache`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    NoCompletion,
    PictureTooLarge,
    RequestRefused,
    SpecError,
)
from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding._util.loop_thread import kept_open, on_loop
from dataflow_grounding._util.secrets import excerpt, learn_fields, learn_headers, learn_proxies
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.threads import off_loop
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.images.image import ImageLimits, InBase64, url_head, waits
from dataflow_grounding.serving import _thinking
from dataflow_grounding.serving._chat_completions import (
    Habits,
    completion_in,
    error_in,
    first_habits,
    first_limits,
    reply_in,
    usage_in,
)
from dataflow_grounding.serving._gateway_headers import (
    LITELLM_WANTS_NO_CACHE,
    WANTS_NO_CACHE,
    is_by_fallback,
    is_from_cache,
    is_litellm,
)
from dataflow_grounding.serving._service_tier import (
    check_tier_is_said_once,
    error_at_tier,
    needs_at,
    timeout_at,
)
from dataflow_grounding.serving._transport import (
    NO_HEADERS,
    BodyPart,
    ClientTransport,
    HttpTransport,
    Transport,
    checked_address,
    has_own_http_client,
)
from dataflow_grounding.serving.http_errors import (
    error_of,
    error_of_success,
    is_about_content,
    seconds_to_reset,
    takes_no_images,
)
from dataflow_grounding.serving.serving import Reply, Serving, check_settings, usable_key
from dataflow_grounding.tasks.request import Request, Turn


@dataclass
class _FoundOut:
    """What an endpoint takes, as far as is known by now."""

    habits: Habits
    is_certain: bool = False  # whether a request with these habits was answered
    # whether one was answered that asked a gateway, by its keys, for no kept reply
    takes_keys_against_caches: bool = False
    is_litellm: bool = False  # whether replies pass LiteLLM's proxy


OPENAI_URL = "https://api.openai.com/v1"
TIMEOUT = 60.0  # seconds for one request at the ordinary tier
MODELS_TIMEOUT = 10.0  # seconds for the list of models, at the most
MODELS_BYTES = 2**20  # of that list, at the most
READ_BYTES = 20_000  # of an answer that is no reply


class OpenAIServing(Serving):
    """Chat completions with images, on any endpoint that speaks OpenAI's protocol.

    Args:
        api_url: Address of the endpoint, `http://host:8000/v1`; OpenAI's own without it, where the
            key is that of `OPENAI_API_KEY`.
        model_name: The model's name at the endpoint.
        key_name_of_api_key: Variable with the key where `api_key` isn't given; then
            `OPENAI_API_KEY`, `DF_API_KEY`.
        max_workers: Most requests in flight.
        timeout: Seconds for each; None is 60, and 900 at flex.
        temperature: What to sample at, from 0; None leaves it to the model.
        max_tokens: Most tokens of one reply.
        box_format: How the model writes boxes; `auto` looks the model up by name.
        extra_body: Further keys of each request, or other values for ours.
        extra_headers: Further headers, as secret as the key.
        image_limits: What pictures it takes as they are: sizes in pixels, media types, bytes.
        client: An `openai.AsyncOpenAI` (or `AsyncAzureOpenAI`) of your own to send with, to its own
            address: it goes without `api_url`.
        name: What stored replies know the model by; `model_name` without it. Two models that
            servers call the same (`default`) need two names.
        service_tier: `flex` asks the slower tier at a part of the price; empty the ordinary one.

    Raises:
        SpecError: For a setting with which nothing could be sent.

    Example:
        >>> from dataflow_grounding import CaptionGenerator
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model")
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    takes_turns = True

    def __init__(
        self,
        api_url: str | None = None,
        model_name: str = "",
        key_name_of_api_key: str = "DF_API_KEY",
        max_workers: int = 16,
        timeout: float | None = None,
        *,
        api_key: str | None = None,
        temperature: float | None = 0.7,
        max_tokens: int = 4096,
        box_format: str = "auto",
        extra_body: JsonObject | None = None,
        extra_headers: Mapping[str, str] | None = None,
        image_limits: ImageLimits | None = None,
        client: Any = None,
        name: str = "",
        service_tier: str = "",
    ) -> None:
        _check_model_and_client(model_name, client, api_url)
        url = api_url or OPENAI_URL if client is None else str(client.base_url)
        self._url = _base_address(url)
        self.endpoint = checked_address(self._url, "vlm.openai")  # without secrets, to be shown
        timeout = timeout_at(service_tier, timeout, TIMEOUT)
        check_settings(timeout, temperature, max_tokens=max_tokens, max_workers=max_workers)
        self.model = model_name
        self.name = name
        self.max_workers = max_workers
        self.timeout = timeout
        self.service_tier = service_tier
        self.temperature = temperature
        self.max_output_tokens = max_tokens
        self.box_format = box_format
        self.image_limits = image_limits or first_limits(self.endpoint)
        stated_key = api_key or getattr(client, "api_key", None)
        self._api_key = usable_key(stated_key or _key_in_environment(key_name_of_api_key, url))
        if client is None and not api_url:
            _require_address_or_openai_key(self._api_key)
        self.extra_body = dict(extra_body or {})
        headers = dict(extra_headers or {})
        self.extra_headers = {str(name): str(value) for name, value in headers.items()}
        _check_extras(self.extra_headers, self.extra_body, service_tier)
        # so that secrets in these are masked
        learn_headers({**getattr(client, "default_headers", {}), **self.extra_headers})
        learn_fields(self.extra_body)
        learn_proxies()
        self._client = client
        self._process_of_client: int | None = None  # the first that sent with it
        self._found_out = _FoundOut(first_habits(self.endpoint))

    @property
    def has_key(self) -> bool:
        """Whether it has something to prove itself with."""
        return self._api_key is not None

    def _address(self, path: str) -> str:
        """`https://host/v1?api-version=1` with `models`: `https://host/v1/models?api-version=1`."""
        address, mark, query = self._url.partition("?")
        return f"{address}/{path}{mark}{query}"

    def facts(self) -> JsonObject:
        """Return whether there is a key, what the endpoint accepts if known, and the tier."""
        facts = {"key": "set" if self.has_key else "not set"}
        if self._found_out.is_certain:
            facts["takes"] = str(self._found_out.habits)
        if self.service_tier:
            facts["service_tier"] = self.service_tier
        return facts

    def needs(self) -> list[str]:
        """Return advice: on a time that is short for the tier, and on a missing key."""
        needs = needs_at(self.service_tier, "vlm.openai.timeout", self.timeout)
        if not self.has_key:
            needs.append(
                f"no API key: set {setting('vlm.openai.api_key')}, DF_API_KEY or OPENAI_API_KEY if"
                " the endpoint wants one"
            )
        return needs

    def identity(self) -> JsonObject:
        """Return what a reply depends on: the model, or its `name`, sampling and `extra_body`."""
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        identity = {**super().identity(), **sampling}
        if self.name:
            identity["model"] = self.name
        if self.extra_body:
            identity["extra_body"] = self.extra_body
        return identity

    @on_loop
    async def answer(self, request: Request[Any]) -> Reply:
        # The first two requests find out what the endpoint takes, and the others wait for that.
        found_out = self._found_out
        if not found_out.is_certain:
            async with kept_open(found_out, partial(asyncio.Semaphore, 2)):
                if not found_out.is_certain:  # else another request has found out meanwhile
                    return await self._find_out(request)
        return await self._answer_as_found_out(request)

    async def _answer_as_found_out(self, request: Request[Any]) -> Reply:
        """Send; where keys or temperature of its own may be refused, send again without these."""
        habits = self._found_out.habits  # while this request is on its way, another may change them
        try:
            reply = await self._send(request, habits)
            if _has_keys_against_caches(request, habits):
                self._found_out.takes_keys_against_caches = True
            return reply
        except PictureTooLarge:  # it is too large in any form
            raise
        except RequestRefused as refused:
            # The error has no other name: it holds this frame, and with one the frame would hold
            # it, so that the request's pictures would stay in memory.
            if self._may_be_about_keys(request, habits, refused):
                return await self._with_fewer_keys(request, habits, refused)
            # After a reply that was cut off, the question is asked again at a lower temperature,
            # which the model may not take.
            may_be_about_temperature = (
                request.tries.cut_off and "temperature" in str(refused).lower()
            )
            if not may_be_about_temperature:
                raise
        at_usual_temperature = request.replace(tries=replace(request.tries, cut_off=False))
        request.before_another()
        return await self._send(at_usual_temperature, self._found_out.habits)

    def _may_be_about_keys(
        self, request: Request[Any], habits: Habits, refused: RequestRefused
    ) -> bool:
        """Whether a refusal may be due to the keys that ask for a reply of one's own."""
        if not _has_keys_against_caches(request, habits) or is_about_content(str(refused)):
            return False
        # An endpoint that has answered a request with these keys takes them. Where the habits have
        # changed since this one was sent, that answer was to fewer keys.
        found_out = self._found_out
        are_taken = found_out.takes_keys_against_caches and found_out.habits == habits
        return not are_taken

    async def _with_fewer_keys(
        self, request: Request[Any], habits: Habits, refused: RequestRefused
    ) -> Reply:
        """Send without `seed`, `cache` or both: a refusal may not name what isn't taken."""
        habits_to_try = [replace(habits, sends_seed=False)]
        sent_cache_key = self._found_out.is_litellm and habits.sends_no_cache
        if sent_cache_key:
            habits_to_try.append(replace(habits, sends_no_cache=False))
            habits_to_try.append(replace(habits, sends_seed=False, sends_no_cache=False))
        for fewer_keys in habits_to_try:
            request.before_another(refused)
            with suppress(RequestRefused):
                reply = await self._send(request, fewer_keys)
                self._found_out.habits = fewer_keys
                self._found_out.takes_keys_against_caches = True
                return reply
        raise refused

    async def _find_out(self, request: Request[Any]) -> Reply:
        """Send in one way after another until one is answered; else raise the first refusal."""
        first_refusal: RequestRefused | None = None
        habits = self._found_out.habits
        while True:
            try:
                # Whether seeds are taken is found out later, by `_with_fewer_keys`.
                reply = await self._send(request, replace(habits, sends_seed=False))
            except PictureTooLarge:  # it is too large in any form
                raise
            except RequestRefused as error:
                if takes_no_images(str(error)):  # no other form of a request helps then
                    raise EndpointRefused(
                        f"{error}. The model takes no images: name one that does"
                    ) from None
                first_refusal = first_refusal or error
                next_habits = habits.after_refusal(str(error))
                if next_habits is None:
                    raise first_refusal from None
                habits = next_habits
                request.before_another(error)
            else:
                self._found_out.habits = habits
                self._found_out.is_certain = True
                return reply

    async def _send(self, request: Request[Any], habits: Habits) -> Reply:
        body = await self._body_off_loop(request, habits)
        if self._client is None and "aiohttp" not in sys.modules:
            # HttpTransport needs it. It is imported in a thread, and the event loop goes on.
            await load_aside("aiohttp")
        # of this request alone, in addition to those that the transport sends with each
        own_headers = WANTS_NO_CACHE if request.wants_own_reply else NO_HEADERS
        transport = kept_open(self, self._open)
        status, headers, data = await transport.post(body, own_headers)
        if status != 200:
            raise self._error_of(status, headers, data)
        reply = self._reply_of(headers, data)
        self._found_out.is_litellm = is_litellm(headers)  # for the next request's keys
        kept = is_from_cache(headers)
        by_fallback = is_by_fallback(headers)
        if not kept and not by_fallback:  # nearly always: a copy would cost time
            return reply
        return replace(reply, kept=kept, by_fallback=by_fallback)

    async def _body_off_loop(self, request: Request[Any], habits: Habits) -> list[BodyPart]:
        if all(image.ready for image in request.images):  # no picture is to be read or encoded
            return self._body(request, habits)
        if any(waits(image.path) for image in request.images):
            # A picture is fetched from a store (s3://…). asyncio's own threads are too few to wait
            # for that.
            return await off_loop(self._body, request, habits)
        return await asyncio.to_thread(self._body, request, habits)

    def _error_of(self, status: int, headers: Mapping[str, str], data: bytes) -> GroundingError:
        where = f"{self.endpoint} ({self.model})"
        error = error_of(status, headers, data, where=where, address=self.endpoint)
        # with these the service says that it has no room in the tier that was asked for
        is_full = status == 429 and b"resource_unavailable" in data[:READ_BYTES]
        return error_at_tier(self.service_tier, error, is_full)

    def _reply_of(self, headers: Mapping[str, str], data: bytes) -> Reply:
        where = f"{self.endpoint} ({self.model})"
        completion: Any = None
        error: GroundingError
        try:
            completion = completion_in(data)
            error_inside = error_in(completion)
            if error_inside is None:
                return reply_in(completion, hold=seconds_to_reset(headers) or 0.0)
            error = error_of_success(error_inside, headers, where=where, address=self.endpoint)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            beginning = excerpt(data[:READ_BYTES].decode("utf-8", "replace"), 120)
            error = NoCompletion(
                f"{where} answered something that is not a chat completion: {beginning!r}"
            )
        if isinstance(completion, dict):
            error.billed = usage_in(completion.get("usage"))  # tokens are paid for all the same
        raise error

    def _body(self, request: Request[Any], habits: Habits) -> list[BodyPart]:
        """The JSON in parts, so that the images' long texts are neither scanned nor copied."""
        parts: list[BodyPart] = [b'{"messages":[']
        beginning_of_first = ""
        if habits.sends_system_message:
            parts.append(_system_message(request.system))
        else:
            # the first turn begins with the system prompt
            beginning_of_first = f"{request.system}\n\n"
        for number, message in enumerate(request.messages):
            is_first = number == 0
            if not is_first:
                parts.append(b",")
            parts += _message(message, beginning_of_first if is_first else "")
        parts.append(b"],")
        seed = request.own_seed
        if seed is not None:
            parts += self._keys_against_caches(seed, habits)
        # the other keys, without their opening bracket: the body begins with one
        parts.append(json.dumps(self._settings(request, habits)).encode().removeprefix(b"{"))
        return parts

    def _keys_against_caches(self, seed: int, habits: Habits) -> Iterator[bytes]:
        """A key that the user states in `extra_body` is sent by `_settings`: not twice."""
        if habits.sends_seed and "seed" not in self.extra_body:
            yield b'"seed":%d,' % seed
        asks_litellm = self._found_out.is_litellm and habits.sends_no_cache
        if asks_litellm and "cache" not in self.extra_body:
            yield LITELLM_WANTS_NO_CACHE

    def _settings(self, request: Request[Any], habits: Habits) -> JsonObject:
        """What the user states in `extra_body` goes before what this serving would send."""
        settings: dict[str, object] = {
            "model": self.model,
            habits.tokens_key: self.max_output_tokens,
        }
        temperature = request.temperature(self.temperature)
        if habits.sends_temperature and temperature is not None:
            settings["temperature"] = temperature
        response_format = _response_format(request, habits)
        if response_format is not None:
            settings["response_format"] = response_format
        if self.service_tier:
            settings["service_tier"] = self.service_tier
        if habits.sends_stream:
            settings["stream"] = False
        settings |= self.extra_body
        thinking = request.form.thinking
        if thinking:
            of_thinking = self.thinking_fields(thinking) or {}
            # Where both have a field, the second one's counts: it may be the user's.
            return _thinking.with_fields(of_thinking, settings)
        return settings

    async def list_models(self) -> list[str]:
        """Return the names of the endpoint's models; [] without a list, or with a user's client."""
        if self._client is not None:
            return []
        timeout = min(self.timeout, MODELS_TIMEOUT)
        transport = HttpTransport(
            self._address("models"), self._api_key, timeout, self.extra_headers
        )
        async with aclosing(transport):
            # Some servers have no such list, or answer with something else.
            with suppress(GroundingError, ValueError, KeyError, TypeError, RecursionError):
                status, _, data = await transport.get(MODELS_BYTES)
                if status == 200:
                    return [str(model["id"]) for model in json.loads(data)["data"]]
        return []

    def thinking_fields(self, level: str) -> JsonObject | None:
        return _thinking.thinking_fields("openai", self.model, level)

    def _open(self) -> Transport:
        if self._client is not None:
            return self._open_client(self._client)
        url = self._address("chat/completions")
        return HttpTransport(url, self._api_key, self.timeout, self.extra_headers)

    def _open_client(self, client: Any) -> Transport:
        import openai

        url = self._address("chat/completions")
        http_client = None
        if has_own_http_client(client):  # of which the connections can't be replaced
            self._process_of_client = self._process_of_client or os.getpid()
            if self._process_of_client != os.getpid():
                # It has its parent's connections, and would read the parent's answers.
                raise EndpointRefused(
                    "the http_client of this OpenAI client was used before the process was forked:"
                    " make a separate client in each process"
                )
        else:
            http_client = openai.DefaultAsyncHttpxClient()
        return ClientTransport(client, url, self.timeout, self.extra_headers, http_client)


def _has_keys_against_caches(request: Request[Any], habits: Habits) -> bool:
    """Whether keys of the request ask gateways for a reply of its own, not a kept one."""
    return request.wants_own_reply and (habits.sends_seed or habits.sends_no_cache)


def _message(message: Turn, beginning: str) -> list[BodyPart]:
    """In parts. `beginning` is the system prompt, where the endpoint takes no system message."""
    if message.role != "user":
        return [json.dumps({"role": message.role, "content": message.text}).encode()]
    parts: list[BodyPart] = [b'{"role":"user","content":[']
    for image in message.images:
        head = url_head(image.sent_media_type)  # b"data:image/png;base64,"
        parts += [
            b'{"type":"image_url","image_url":{"url":"',
            head,
            InBase64(image.sent_bytes()),
            b'"}},',
        ]
    text = json.dumps(f"{beginning}{message.text}").encode()
    return [*parts, b'{"type": "text", "text": ', text, b"}]}"]


def _response_format(request: Request[Any], habits: Habits) -> JsonObject | None:
    """None where the endpoint takes none, or where the prompt's words alone say the form."""
    if request.form.is_free or habits.response_format == "none":
        return None
    if habits.response_format == "json_object":
        return {"type": "json_object"}
    schema = {"name": request.task, "strict": True, "schema": request.schema}
    return {"type": "json_schema", "json_schema": schema}


@lru_cache(maxsize=16)  # there is one for all tasks about an image, and a user's own
def _system_message(text: str) -> bytes:
    return json.dumps({"role": "system", "content": text}).encode() + b","


def _check_model_and_client(model_name: str, client: Any, api_url: str | None) -> None:
    if not model_name:
        raise SpecError(
            f"no model is named: set {setting('vlm.openai.model_name')}, or DF_MODEL in the"
            " environment"
        )
    if isinstance(client, str):
        raise SpecError(
            f"{setting('vlm.openai.client')} names a way to send in a spec; here it takes an"
            " openai.AsyncOpenAI, or make an OpenAISdkServing"
        )
    if client is not None and api_url:
        name = setting("vlm.openai.base_url")
        raise SpecError(f"{name} isn't for a client of your own, which has one: leave it out")


def _key_in_environment(name: str, url: str) -> str | None:
    """The key in the variable `name`, else in one of the usual ones."""
    names = [name, "DF_API_KEY"]
    may_be_another_providers = url == os.environ.get("DF_BASE_URL")  # who shouldn't get OpenAI's
    if not may_be_another_providers:
        names.append("OPENAI_API_KEY")
    for variable in names:
        key = os.environ.get(variable)
        if key:
            return key
    return None


def _base_address(url: str) -> str:
    """Users also give the whole address of chat completions: its end is added at each use."""
    address, mark, query = url.partition("?")  # Azure's older addresses end in ?api-version=…
    address = address.rstrip("/").removesuffix("/chat/completions")
    return f"{address}{mark}{query}"


def _require_address_or_openai_key(key: str | None) -> None:
    """Without an address, pictures for the user's own server could go to OpenAI."""
    key_for_openai = os.environ.get("OPENAI_API_KEY", "").strip()
    is_meant_for_openai = key is not None and key == key_for_openai
    if not is_meant_for_openai:
        raise SpecError(
            f"no address is named: set {setting('vlm.openai.base_url')}, or DF_BASE_URL in the"
            f" environment (OpenAI's own service: {OPENAI_URL}, which OPENAI_API_KEY alone names"
            " too)"
        )


def _check_extras(headers: Mapping[str, str], body: JsonObject, tier: str) -> None:
    for text in (*headers, *headers.values()):
        if not (text.isascii() and text.isprintable()):
            name = setting("vlm.openai.extra_headers")
            raise SpecError(f"{name} holds characters that no header has")
    # This serving fills in `messages` and `model`. `n` asks for several replies, of which only the
    # first would be read.
    for name in ("messages", "model", "n"):
        if name in body:
            raise SpecError(f"{setting('vlm.openai.extra_body')} can't hold {name!r}")
    check_tier_is_said_once(tier, body, "vlm.openai.extra_body")

"""A VLM behind an OpenAI-compatible endpoint (`/chat/completions`)."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.environment import check_one_source
from dataflow_grounding._util.errors import EndpointRefused, NoCompletion, RequestRefused, SpecError
from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding._util.secrets import excerpt, learn_fields, learn_headers, learn_proxies
from dataflow_grounding._util.threads import off_loop
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving._chat_completions import (
    Habits,
    first_habits,
    first_limits,
    reply_of,
    takes_no_images,
)
from dataflow_grounding.serving._transport import (
    ClientTransport,
    HttpTransport,
    PerLoop,
    Transport,
    shown_address,
)
from dataflow_grounding.serving.base import Reply, Serving, check_settings, usable_key
from dataflow_grounding.serving.http_errors import error_of, used_up
from dataflow_grounding.tasks.request import Request

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIServing(Serving):
    """Chat completions with images, on any endpoint that speaks OpenAI's protocol.

    Args:
        api_url: Address of the endpoint, `http://host:8000/v1`; OpenAI's own without it.
        model_name: The model's name at the endpoint.
        key_name_of_api_key: Variable with the key where `api_key` isn't given; then
            `OPENAI_API_KEY`, `DF_API_KEY`.
        max_workers: Most requests in flight; `timeout`: seconds for each.
        temperature: What to sample at, from 0; None leaves it to the model.
        max_tokens: Most tokens of one reply.
        box_format: How the model writes boxes; `auto` looks the model up by name.
        extra_body: Further keys of each request, or other values for ours.
        extra_headers: Further headers, as secret as the key.
        image_limits: What pictures it takes as they are: sizes in pixels, media types, bytes.
        client: An `openai.AsyncOpenAI` (or `AsyncAzureOpenAI`) of your own to send with.

    Raises:
        SpecError: For a setting with which nothing could be sent.

    Example:
        >>> from dataflow_grounding import CaptionGenerator
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model")
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    def __init__(
        self,
        api_url: str | None = None,
        model_name: str = "",
        key_name_of_api_key: str = "DF_API_KEY",
        max_workers: int = 16,
        timeout: float = 60,
        *,
        api_key: str | None = None,
        temperature: float | None = 0.7,
        max_tokens: int = 4096,
        box_format: str = "auto",
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        image_limits: ImageLimits | None = None,
        client: Any = None,
    ) -> None:
        if not model_name:
            raise SpecError(
                "no model is named: set vlm.openai.model_name, or DF_MODEL in the environment"
            )
        url = str(client.base_url) if client is not None else (api_url or OPENAI_URL)
        address, mark, query = url.partition("?")  # Azure's older addresses end in ?api-version=…
        address = address.rstrip("/").removesuffix("/chat/completions")
        self._url, self._completions = (
            address + mark + query,
            f"{address}/chat/completions{mark}{query}",
        )
        self.endpoint = shown_address(self._url, "vlm.openai")
        check_settings(timeout, temperature, max_tokens=max_tokens, max_workers=max_workers)
        self.model, self.max_workers, self.timeout = model_name, max_workers, timeout
        self.temperature, self.max_output_tokens, self.box_format = (
            temperature,
            max_tokens,
            box_format,
        )
        self.image_limits = image_limits or first_limits(self.endpoint)
        other = url == os.environ.get("DF_BASE_URL")  # perhaps another provider's
        names = [key_name_of_api_key, "DF_API_KEY", *([] if other else ["OPENAI_API_KEY"])]
        api_key = api_key or getattr(client, "api_key", None)
        self._api_key = usable_key(api_key or next(filter(None, map(os.environ.get, names)), None))
        self.has_key = self._api_key is not None
        self.extra_body = dict(extra_body or {})
        self.extra_headers = headers = {
            str(name): str(value) for name, value in (extra_headers or {}).items()
        }
        if not all(text.isascii() and text.isprintable() for text in (*headers, *headers.values())):
            raise SpecError("vlm.openai.extra_headers holds characters that no header has")
        for name in filter(self.extra_body.__contains__, ("messages", "model", "stream", "n")):
            raise SpecError(f"vlm.openai.extra_body can't hold {name!r}")
        learn_headers({**getattr(client, "default_headers", {}), **self.extra_headers})
        learn_fields(self.extra_body)
        learn_proxies()
        check_one_source(self._url, self._api_key, headers)
        self._client, self._transport, self._first = (
            client,
            PerLoop[Transport](self._open),
            PerLoop(asyncio.Lock),
        )
        self.habits, self._habits_known = first_habits(self.endpoint), False

    def facts(self) -> dict[str, Any]:
        takes = {"takes": str(self.habits)} if self._habits_known else {}
        return {"key": "set" if self.has_key else "not set", **takes}

    def needs(self) -> list[str]:
        why = (
            "no API key: set vlm.openai.api_key, DF_API_KEY or OPENAI_API_KEY if the endpoint"
            " wants one"
        )
        return [] if self.has_key else [why]

    def identity(self) -> dict[str, Any]:
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        extra = {"extra_body": self.extra_body} if self.extra_body else {}
        return {**super().identity(), **sampling, **extra}

    async def answer(self, request: Request[Any]) -> Reply:
        if not self._habits_known:
            async with self._first.get():
                # one request finds out what the endpoint takes; the others wait for it
                if not self._habits_known:
                    return await self._find_out(request)
        try:
            return await self._send(request, self.habits)
        except RequestRefused as refused:
            if not (request.cut_off and "temperature" in str(refused).lower()):
                raise
        # what was cut off goes cooler, but to a model that takes no temperature but its own
        request.before_another()
        return await self._send(replace(request, cut_off=False), self.habits)

    async def _find_out(self, request: Request[Any]) -> Reply:
        first_refusal, habits = None, self.habits
        while True:
            try:
                reply = await self._send(request, habits)
                self.habits, self._habits_known = habits, True
                return reply
            except RequestRefused as error:
                if takes_no_images(str(error)):
                    raise EndpointRefused(
                        f"{error}. The model takes no images: name one that does"
                    ) from None
                first_refusal, following = first_refusal or error, habits.after_refusal(str(error))
                if following is None:
                    raise first_refusal from None
                habits = following
                request.before_another(error)

    async def _send(self, request: Request[Any], habits: Habits) -> Reply:
        if all(image.ready for image in request.images):
            body = self._body(request, habits)
        else:
            in_thread = (
                off_loop
                if any(is_elsewhere(image.path) for image in request.images)
                else asyncio.to_thread
            )
            body = await in_thread(self._body, request, habits)
        if self._client is None and "aiohttp" not in sys.modules:
            await load_aside("aiohttp")
        where = f"{self.endpoint} ({self.model})"
        status, headers, data = await self._transport.get().post(body)
        if status != 200:
            raise error_of(status, headers, data, where=where)
        try:
            return reply_of(json.loads(data), used_up(headers) or 0.0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            said = excerpt(data[:20_000].decode("utf-8", "replace"), 120)
            raise NoCompletion(
                f"{where} answered something that is not a chat completion: {said!r}"
            ) from None

    def _body(self, request: Request[Any], habits: Habits) -> bytes:
        """The request as JSON, put together so that the images' long texts are copied once and
        never scanned.
        """
        settings: dict[str, Any] = {"model": self.model, habits.tokens_key: self.max_output_tokens}
        if (
            habits.temperature
            and (temperature := request.temperature(self.temperature)) is not None
        ):
            settings["temperature"] = temperature
        if habits.response_format == "json_object":
            settings["response_format"] = {"type": "json_object"}
        elif habits.response_format == "json_schema":
            schema = {"name": request.task, "strict": True, "schema": request.schema}
            settings["response_format"] = {"type": "json_schema", "json_schema": schema}
        settings |= self.extra_body
        text = request.text
        parts = [b'{"messages":[']
        if habits.system_message:
            parts.append(json.dumps({"role": "system", "content": request.system}).encode() + b",")
        else:
            text = f"{request.system}\n\n{text}"
        parts.append(b'{"role":"user","content":[')
        for image in request.images:
            parts += [b'{"type":"image_url","image_url":{"url":"', image.data_url(), b'"}},']
        parts.append(json.dumps({"type": "text", "text": text}).encode())
        parts.append(b"]}]," + json.dumps(settings).encode()[1:])
        return b"".join(parts)

    def _open(self) -> Transport:
        if self._client is not None:
            return ClientTransport(
                self._client, self._completions, self.timeout, self.extra_headers
            )
        return HttpTransport(self._completions, self._api_key, self.timeout, self.extra_headers)

    async def aclose(self) -> None:
        self._first.take()
        transport = self._transport.take()
        if transport is not None and self._client is None:  # a user's own stays open
            await transport.aclose()

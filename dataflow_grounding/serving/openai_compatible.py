"""A VLM behind an OpenAI-compatible endpoint (`/chat/completions`)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dataflow_grounding.errors import (
    EndpointRefused,
    EndpointUnreachable,
    RequestRefused,
    ServerFault,
    SpecError,
)
from dataflow_grounding.serving.base import Reply, Serving, Usage, before_another
from dataflow_grounding.serving.http_errors import error_of, used_up, without_secret
from dataflow_grounding.tasks import Request

if TYPE_CHECKING:
    import aiohttp

OPENAI_URL = "https://api.openai.com/v1"
MAX_BODY_BYTES = 32 * 2**20
_FORMATS = ("json_schema", "json_object", "none")


@dataclass(frozen=True)
class Habits:
    """How the endpoint wants its requests; found out on the first ones."""

    response_format: str = "json_schema"
    tokens_key: str = "max_tokens"
    system_message: bool = True
    temperature: bool = True

    def after_refusal(self, said: str) -> Habits | None:
        """What to try next when a request was refused with these words; None when nothing is left to try."""
        said = said.lower()
        if "content" in said and ("filter" in said or "policy" in said):
            return None  # it is what the request says, not how
        if self.tokens_key == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, tokens_key="max_completion_tokens")
        if self.temperature and "temperature" in said:
            return replace(self, temperature=False)
        if self.system_message and "system" in said and "role" in said:
            return replace(self, system_message=False)
        left = _FORMATS[_FORMATS.index(self.response_format) + 1 :]
        return replace(self, response_format=left[0]) if left else None


class Transport(Protocol):
    """Sends one body and gives back what came, whatever its status."""

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer. Raises EndpointUnreachable, ServerFault, EndpointRefused."""

    async def aclose(self) -> None:
        """Close the connections."""


class OpenAIServing(Serving):
    """Chat completions with images, on any endpoint that speaks OpenAI's protocol.

    `timeout` is in seconds, for one request. `client` is an `openai.AsyncOpenAI` (or `AsyncAzureOpenAI`) of your own to
    send with. Raises SpecError when the endpoint or the model isn't named.
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
        client: Any = None,
    ) -> None:
        if not model_name:
            raise SpecError("no model is named: set vlm.openai.model_name (model_name=…)")
        url = str(client.base_url) if client is not None else (api_url or OPENAI_URL)
        self.endpoint = url.rstrip("/").removesuffix("/chat/completions")
        if not self.endpoint.startswith(("http://", "https://")):
            raise SpecError(f"vlm.openai.base_url {self.endpoint!r} should begin with http:// or https://")
        self.model = model_name
        self.max_workers = max_workers
        self.timeout = timeout
        self.temperature = temperature
        self.max_output_tokens = max_tokens
        self.box_format = box_format
        names = (key_name_of_api_key, "OPENAI_API_KEY", "DF_API_KEY")
        api_key = api_key or getattr(client, "api_key", None)
        self._api_key = api_key or next((os.environ[name] for name in names if os.environ.get(name)), None)
        if self._api_key and not (self._api_key.isascii() and self._api_key.isprintable()):
            raise SpecError("the API key holds characters that no key has: copy it again")
        self._client = client
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first = asyncio.Lock()
        self.habits = Habits()
        self._habits_known = False

    @property
    def has_key(self) -> bool:
        """Whether an API key is set."""
        return bool(self._api_key)

    def identity(self) -> dict[str, Any]:
        """Endpoint, model, sampling."""
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        return {**super().identity(), **sampling}

    async def answer(self, request: Request[Any]) -> Reply:
        """Sends one request. See Serving.answer for what it raises."""
        if self._habits_known:
            return await self._send(request, self.habits)
        self._connect()
        async with self._first:  # one request finds out what the endpoint takes; the others wait for it
            if not self._habits_known:
                return await self._find_out(request)
        return await self._send(request, self.habits)

    async def _find_out(self, request: Request[Any]) -> Reply:
        habits: Habits | None = self.habits
        refusal: RequestRefused | None = None
        while habits is not None:
            try:
                reply = await self._send(request, habits)
            except RequestRefused as error:
                refusal = refusal or error
                habits = habits.after_refusal(str(error))
                if habits is not None:
                    before_another.get()()
            else:
                self.habits, self._habits_known = habits, True
                return reply
        assert refusal is not None
        raise refusal

    async def _send(self, request: Request[Any], habits: Habits) -> Reply:
        if all(image.ready for image in request.images):
            body = self._body(request, habits)
        else:
            body = await asyncio.to_thread(self._body, request, habits)
        where = f"{self.endpoint} ({self.model})"
        status, headers, data = await self._connect().post(body)
        if status != 200:
            raise error_of(status, headers, data, where=where, secret=self._api_key)
        try:
            return _reply_of(json.loads(data), used_up(headers) or 0.0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            said = without_secret(data[:200].decode("utf-8", "replace"), self._api_key)
            raise ServerFault(f"{where} answered something that is no chat completion: {said[:120]!r}") from None

    def _body(self, request: Request[Any], habits: Habits) -> bytes:
        """The request as JSON, put together so that the images' long texts are copied once and never scanned."""
        settings: dict[str, Any] = {"model": self.model, habits.tokens_key: self.max_output_tokens}
        if habits.temperature and self.temperature is not None:
            settings["temperature"] = self.temperature
        if habits.response_format == "json_object":
            settings["response_format"] = {"type": "json_object"}
        elif habits.response_format == "json_schema":
            schema = {"name": request.task, "strict": True, "schema": request.schema}
            settings["response_format"] = {"type": "json_schema", "json_schema": schema}
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

    def _connect(self) -> Transport:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._loop is not loop:
            self._loop = loop
            self._first = asyncio.Lock()
            if self._client is not None:
                self._transport = _ClientTransport(self._client, self.timeout)
            else:
                self._transport = _HttpTransport(self.endpoint, self._api_key, self.timeout)
        return self._transport

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._transport is not None and self._loop is asyncio.get_running_loop():
            await self._transport.aclose()
        self._transport = None


def _reply_of(data: dict[str, Any], hold: float) -> Reply:
    choice = data["choices"][0]
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list):  # some servers answer in parts
        content = "".join(part.get("text", "") for part in content)
    finish_reason = choice.get("finish_reason") or "stop"
    refusal = message.get("refusal") or ("content filter" if finish_reason == "content_filter" else None)
    return Reply(str(content or ""), str(finish_reason), _usage_of(data.get("usage")), refusal and str(refusal), hold)


def _usage_of(data: Any) -> Usage:
    if not isinstance(data, dict):
        return Usage()
    details = data.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = (data.get("prompt_tokens"), cached, data.get("completion_tokens"))
    return Usage(*(n if isinstance(n, int) and n >= 0 else 0 for n in counts))


class _HttpTransport:
    """aiohttp, with a body of our own: half the CPU of the SDK's client (docs/performance.md)."""

    def __init__(self, endpoint: str, api_key: str | None, timeout: float) -> None:
        import aiohttp

        self.url = f"{endpoint}/chat/completions"
        self.timeout = timeout
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 20)),
            headers=headers,
        )
        self.proxy = _proxy_for(self.url)

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp

        try:
            async with self.session.post(self.url, data=body, proxy=self.proxy, allow_redirects=False) as response:
                return response.status, response.headers, await self._read(response)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise EndpointUnreachable(f"no connection to {self.url}: {_reason(error)}") from None
        except aiohttp.InvalidURL:
            raise EndpointRefused(f"{self.url!r} is no address: check vlm.openai.base_url") from None
        except asyncio.TimeoutError:
            raise ServerFault(f"{self.url} did not answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServerFault(f"{self.url}: the answer broke off: {_reason(error)}") from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                response.close()
                raise ServerFault(f"{self.url} answered more than {MAX_BODY_BYTES >> 20} MiB")
        return bytes(data)

    async def aclose(self) -> None:
        await self.session.close()


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address; looked up once, where aiohttp would do it per request."""
    address = urlsplit(url)
    return None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)


class _ClientTransport:
    """The user's own `openai` client, its retries off: the engine's wait for the whole run, not for one request."""

    def __init__(self, client: Any, timeout: float) -> None:
        self.client = client.with_options(max_retries=0, timeout=timeout)

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        import httpx
        import openai

        try:
            response = await self.client.post("/chat/completions", cast_to=httpx.Response, body=json.loads(body))
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError as error:
            raise ServerFault(f"no answer in time: {_reason(error)}") from None
        except openai.APIConnectionError as error:
            raise EndpointUnreachable(f"no connection: {_reason(error.__cause__ or error)}") from None
        return response.status_code, response.headers, response.content

    async def aclose(self) -> None:
        return None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

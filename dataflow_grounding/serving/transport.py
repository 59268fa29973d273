"""How a chat completion's body gets to the endpoint and its answer back: by aiohttp, or by a client of the user's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dataflow_grounding.errors import EndpointRefused, EndpointUnreachable, RateLimited, ServerFault
from dataflow_grounding.machine import SHORT
from dataflow_grounding.secrets import excerpt

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES = 32 * 2**20


class Transport(Protocol):
    """Sends one body and gives back what came, whatever its status."""

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer. Raises EndpointUnreachable, ServerFault, EndpointRefused."""

    async def aclose(self) -> None:
        """Close the connections."""


class HttpTransport:
    """aiohttp, with a body of our own: half the CPU of the SDK's client (docs/performance.md)."""

    def __init__(self, endpoint: str, api_key: str | None, timeout: float, extra_headers: Mapping[str, str]) -> None:
        import aiohttp

        address, mark, query = endpoint.partition("?")
        self.url = f"{address}/chat/completions{mark}{query}"
        self.timeout = timeout
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        headers |= extra_headers
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 20)),
            headers=headers,
        )
        self.proxy = _proxy_for(self.url)

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """See Transport.post."""
        import aiohttp

        try:
            async with self.session.post(self.url, data=body, proxy=self.proxy, allow_redirects=False) as response:
                return response.status, response.headers, await self._read(response)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            if getattr(error, "errno", None) in SHORT:
                raise RateLimited(f"this machine has no room for another connection: {_reason(error)}") from None
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
        """Close the connections."""
        await self.session.close()


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address; looked up once, where aiohttp would do it per request."""
    address = urlsplit(url)
    return None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)


class ClientTransport:
    """The user's own `openai` client, its retries off: the engine's wait for the whole run, not for one request."""

    def __init__(self, client: Any, timeout: float, extra_headers: Mapping[str, str]) -> None:
        self.client = client.with_options(max_retries=0, timeout=timeout, default_headers=dict(extra_headers))

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """See Transport.post."""
        import openai

        settings = json.loads(body)
        named = {name: settings.pop(name) for name in ("model", "messages")}
        try:
            completions = self.client.chat.completions.with_raw_response
            response = (await completions.create(**named, extra_body=settings)).http_response
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError as error:
            raise ServerFault(f"no answer in time: {_reason(error)}") from None
        except openai.APIConnectionError as error:
            why = _reason(error.__cause__ or error)
            if type(error.__cause__).__name__ == "ConnectError":  # httpx's, or httpx2's in openai 3
                raise EndpointUnreachable(f"no connection: {why}") from None
            raise ServerFault(f"the answer broke off: {why}") from None
        return response.status_code, response.headers, response.content

    async def aclose(self) -> None:
        """The client is the user's: it stays open."""


def _reason(error: BaseException) -> str:
    return excerpt(str(error), 200) or type(error).__name__

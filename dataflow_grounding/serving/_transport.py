"""The way to an endpoint: its address, and how a body gets there and its answer back.

What carries it is aiohttp, or OpenAI's client.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dataflow_grounding._util.errors import ServerFault, SpecError
from dataflow_grounding._util.secrets import learn_address
from dataflow_grounding._util.settings import setting
from dataflow_grounding.images.image import InBase64
from dataflow_grounding.serving import client_errors
from dataflow_grounding.serving.client_errors import fault_of

MAX_BODY_BYTES = 32 * 2**20  # of an answer
BodyPart: TypeAlias = bytes | InBase64
HttpAnswer: TypeAlias = tuple[int, Mapping[str, str], bytes]
"""The status, headers and body of an answer."""
NO_HEADERS: Mapping[str, str] = {}
KEEP_SECONDS = 60  # for which an idle connection is kept
# A key in an address's query: `key=…`, `v=1&api_key=…`.
_API_KEY = re.compile(r"(?:^|&)[^=&]*key=", re.IGNORECASE)


def checked_address(url: str, block: str, key: str = "base_url") -> str:
    """Return an address without its secrets, which are masked from now on."""
    name = setting(f"{block}.{key}")
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{name} should begin with http:// or https://")
    try:
        address = urlsplit(url)
        has_host = bool(address.hostname)
        _ = address.port  # raises ValueError for what is no port
    except ValueError:
        has_host = False
    if not has_host:
        raise SpecError(f"{name} is not an address: write it like http://host:8000/v1")
    if address.fragment:
        raise SpecError(f"{name} holds a '#': leave out what follows it, as it is never sent")
    # some proxies take an address within the path: http://proxy/http://name:password@host/
    has_user = address.username or address.password or re.search(":[^/]*@", address.path)
    if has_user or _API_KEY.search(address.query):
        key_name = setting(f"{block}.api_key")
        raise SpecError(f"{name} holds a name, a password or a key: give it as {key_name}")
    return learn_address(url)


class HttpTransport:
    """Sends by aiohttp: half the CPU of the SDK's client (docs/measurements.md)."""

    def __init__(
        self, url: str, api_key: str | None, timeout: float, extra_headers: Mapping[str, str]
    ) -> None:
        import aiohttp

        self.url = url
        self.timeout = timeout
        # These are given with each request. A session's own headers would go to a proxy, too, in
        # plain text.
        self.headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        self.headers.update(extra_headers)
        # Without a limit of connections: the engine limits the requests in flight.
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=timeout, sock_connect=min(timeout, client_errors.CONNECT_SECONDS)
            ),
        )
        address = urlsplit(url)
        # looked up once: aiohttp would do it for each request
        self.proxy = None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)

    async def post(
        self, body: Sequence[BodyPart], headers: Mapping[str, str] = NO_HEADERS
    ) -> HttpAnswer:
        """Return the answer, of any status; `headers` are sent with this body alone."""
        from dataflow_grounding.serving._parts_payload import PartsPayload  # imports aiohttp

        headers = {**self.headers, **headers} if headers else self.headers
        return await self._send("POST", PartsPayload(body), MAX_BODY_BYTES, headers)

    async def get(self, max_bytes: int) -> HttpAnswer:
        return await self._send("GET", None, max_bytes, self.headers)

    async def _send(
        self, method: str, body: Any, max_bytes: int, headers: Mapping[str, str]
    ) -> HttpAnswer:
        import aiohttp

        try:
            sent = self.session.request(
                method,
                self.url,
                data=body,
                headers=headers,
                proxy=self.proxy,
                allow_redirects=False,
            )
            async with sent as response:
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > max_bytes:
                        response.close()
                        raise ServerFault(f"{self.url} answered more than {max_bytes >> 20} MiB")
                return response.status, response.headers, bytes(data)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise fault_of(error, self.url, self.timeout) from None

    async def aclose(self) -> None:
        await self.session.close()


class ClientTransport:
    """Sends by a copy of an `openai` client."""

    def __init__(
        self,
        client: Any,
        url: str,
        timeout: float,
        headers: Mapping[str, Any],
        http_client: Any = None,
    ) -> None:
        # Without retries: the engine tries again, and lets the whole run wait for that.
        self.client = client.with_options(max_retries=0, timeout=timeout, http_client=http_client)
        # Another host shouldn't get the picture or the key. `create` has no argument for redirects.
        self.client.post = partial(_post_without_redirects, self.client.post)
        self.url = url
        self.timeout = timeout
        self.headers = headers
        self._http_client = http_client  # the copy's own connections, in place of the client's

    async def post(
        self, body: Sequence[BodyPart], headers: Mapping[str, str] = NO_HEADERS
    ) -> HttpAnswer:
        """Return the answer, of any status; `headers` are sent with this body alone."""
        import openai

        sent = self._create(b"".join(map(bytes, body)), headers)
        try:
            # wait_for, because the client's own time limit starts again with each byte
            response = (await asyncio.wait_for(sent, self.timeout)).http_response
        except openai.APIStatusError as error:
            response = error.response
        except openai.APIConnectionError as error:  # its cause is httpx's, or httpx2's in openai 3
            raise fault_of(error.__cause__ or error, self.url, self.timeout) from None
        # A RuntimeError comes from a connection of another event loop, in which the user has sent
        # with this client. Each such connection fails once, so another try gets further.
        except (asyncio.TimeoutError, RuntimeError) as error:
            raise fault_of(error, self.url, self.timeout) from None
        return response.status_code, response.headers, response.content

    def _create(self, body: bytes, headers: Mapping[str, str]) -> Awaitable[Any]:
        import openai

        # The client makes the body itself, of arguments. `model` and `messages` have arguments of
        # their own, and `extra_body` takes all the others.
        settings = json.loads(body)
        model = settings.pop("model")
        messages = settings.pop("messages")
        sent: Awaitable[Any] = self.client.chat.completions.with_raw_response.create(
            model=model,
            messages=messages,
            extra_body=settings,
            extra_headers={**self.headers, **headers},
            timeout=openai.Timeout(
                self.timeout, connect=min(self.timeout, client_errors.CONNECT_SECONDS)
            ),
        )
        return sent

    async def aclose(self) -> None:
        """Close the connections, unless they are the client's own."""
        if self._http_client is not None:
            await self._http_client.aclose()


def has_own_http_client(client: Any) -> bool:
    """Return whether a user made an openai client with an `http_client`, of proxies say."""
    http_client = getattr(client, "_client", None)
    # The class of a plain one. If that is renamed one day, all clients count as a user's own.
    return type(http_client).__name__ != "AsyncHttpxClientWrapper"


def _post_without_redirects(
    post: Callable[..., Any],
    *arguments: Any,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Any:
    return post(*arguments, options={**(options or {}), "follow_redirects": False}, **keywords)


Transport: TypeAlias = HttpTransport | ClientTransport

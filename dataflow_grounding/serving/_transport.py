"""The way to an endpoint: its address, and how a body gets there and its answer back, by aiohttp or
OpenAI's client.
"""

import asyncio
import errno
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dataflow_grounding._util.errors import (
    SHORT,
    EndpointRefused,
    EndpointUnreachable,
    RateLimited,
    ServerFault,
    SpecError,
)
from dataflow_grounding._util.secrets import excerpt, learn_address

T = TypeVar("T")

MAX_BODY_BYTES = 32 * 2**20
CONNECT_SECONDS = 20.0
_API_KEY = re.compile(r"(?:^|&)[^=&]*key=", re.IGNORECASE)


def shown_address(url: str, block: str, key: str = "base_url") -> str:
    """The address without its secrets, which are remembered; `block.key` is its place. Raises
    SpecError.
    """
    name = f"{block}.{key}"
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{name} should begin with http:// or https://")
    try:
        address = urlsplit(url)
        usable = bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(f"{name} is not an address: write it like http://host:8000/v1")
    if address.fragment:
        raise SpecError(f"{name} holds a '#': leave out what follows it, as it is never sent")
    if (
        address.username
        or address.password
        or re.search(":[^/]*@", address.path)
        or _API_KEY.search(address.query)
    ):
        raise SpecError(f"{name} holds a name, a password or a key: give it as {block}.api_key")
    return learn_address(url)


class PerLoop(Generic[T]):
    """One of a thing for each event loop: what waits in one can't be used in another, and threads
    have their own.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._made = defaultdict[asyncio.AbstractEventLoop, T](make)

    def get(self) -> T:
        """The running loop's, made where it has none."""
        return self._made[asyncio.get_running_loop()]

    def take(self) -> T | None:
        """The running loop's, which then has none."""
        return self._made.pop(asyncio.get_running_loop(), None)


class HttpTransport:
    """aiohttp, with a body of our own: half the CPU of the SDK's client
    (docs/measurements/performance.md).
    """

    def __init__(
        self, url: str, api_key: str | None, timeout: float, extra_headers: Mapping[str, str]
    ) -> None:
        import aiohttp

        self.url, self.timeout = url, timeout
        key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # given with each request: those of a session go to the proxy as well, in plain text
        self.headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "gzip, deflate",
            **key,
            **extra_headers,
        }
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(
                total=timeout, sock_connect=min(timeout, CONNECT_SECONDS)
            ),
        )
        address = urlsplit(self.url)  # looked up once, where aiohttp would do it per request
        self.proxy = None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Send one body; status, headers and body of the answer. Raises what failed on the way."""
        import aiohttp

        try:
            sent = self.session.post(
                self.url, data=body, headers=self.headers, proxy=self.proxy, allow_redirects=False
            )
            async with sent as response:
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > MAX_BODY_BYTES:
                        response.close()
                        raise ServerFault(
                            f"{self.url} answered more than {MAX_BODY_BYTES >> 20} MiB"
                        )
                return response.status, response.headers, bytes(data)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise fault_of(error, self.url, "vlm.openai", self.timeout) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self.session.close()


class ClientTransport:
    """An `openai` client, its retries off: the engine's wait for the whole run, not for one
    request.

    It follows no redirects, also where it is a user's own: another host has no claim to the picture
    or the key.
    """

    def __init__(self, client: Any, url: str, timeout: float, headers: Mapping[str, Any]) -> None:
        self.client = client.with_options(max_retries=0, timeout=timeout)
        post = self.client.post

        def post_without_redirects(
            *given: Any, options: Mapping[str, Any] | None = None, **named: Any
        ) -> Any:
            return post(*given, options={**(options or {}), "follow_redirects": False}, **named)

        # this copy's alone: `create` has no argument for it
        self.client.post = post_without_redirects
        self.url, self.timeout, self.headers = url, timeout, headers

    async def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        import openai

        settings = json.loads(body)
        named = {name: settings.pop(name) for name in ("model", "messages")}
        completions = self.client.chat.completions.with_raw_response
        limits = openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS))
        sent = completions.create(
            **named, extra_body=settings, extra_headers=self.headers, timeout=limits
        )
        try:  # the client's own time limit begins anew with each byte
            response = (await asyncio.wait_for(sent, self.timeout)).http_response
        except openai.APIStatusError as error:
            response = error.response
        except openai.APIConnectionError as error:  # its cause is httpx's, or httpx2's in openai 3
            raise fault_of(error.__cause__ or error, self.url, "vlm.openai", self.timeout) from None
        except asyncio.TimeoutError as error:
            raise fault_of(error, self.url, "vlm.openai", self.timeout) from None
        return response.status_code, response.headers, response.content

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self.client.close()


Transport: TypeAlias = HttpTransport | ClientTransport


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what lies under it: under the libraries' errors the system's."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def fault_of(
    error: BaseException, where: str, block: str, timeout: float
) -> EndpointRefused | ServerFault:
    """What an error of a client's connection means, in the same words whichever client sent:
    aiohttp's or httpx's.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "InvalidURL" in kinds:
        return EndpointRefused(f"{where} is not an address: check {block}.base_url")
    if kinds & {"ConnectionTimeoutError", "ConnectTimeout"}:
        return EndpointUnreachable(
            f"no connection to {where} within {min(timeout, CONNECT_SECONDS):g} s"
        )
    if kinds & {"TimeoutError", "TimeoutException", "APITimeoutError"}:
        return ServerFault(f"{where} did not answer within {timeout:g} s")
    if not kinds & {"ClientConnectorError", "ConnectError"}:
        return ServerFault(
            f"{where}: the answer broke off: {excerpt(str(error), 200) or type(error).__name__}"
        )
    causes = list(_causes(error))
    if doubt := next(
        (cause.verify_message for cause in causes if hasattr(cause, "verify_message")), None
    ):
        what = f"this machine does not trust the certificate of {where}: {excerpt(doubt, 200)}"
        return EndpointUnreachable(
            f"{what} (an authority of your own: name its file in SSL_CERT_FILE)"
        )
    cause = next((cause for cause in causes if getattr(cause, "errno", None)), None)
    number, why = (
        getattr(cause, "errno", None),
        excerpt(getattr(cause, "strerror", None) or str(error), 200),
    )
    if number in SHORT:
        return RateLimited(f"this machine has no room for another connection: {why}")
    why = "Connection refused" if number == errno.ECONNREFUSED else why
    return EndpointUnreachable(f"no connection to {where}: {why}")
